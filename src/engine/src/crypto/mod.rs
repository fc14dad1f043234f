//! Cryptography: TLS 1.3 and packet protection on rustls and aws-lc-rs, and for AES-GCM of packets on code of our own where the processor is one
//! for it; address validation tokens, reset tokens.
//!
//! rustls appears in this module only, but for certificate types at the API.

#[cfg(all(feature = "fused_aes_gcm", target_arch = "x86_64"))]
mod aes_gcm;
mod caching_verifier;
pub mod client_hello;
mod hkdf;
pub(crate) mod keys;
pub(crate) mod one_rtt;
pub(crate) mod packet;
pub(crate) mod post_handshake;
pub mod refusal;
pub mod reset;
pub mod retry;
pub(crate) mod secret;
pub mod suite;
#[cfg(test)]
mod tests;
pub mod tickets;
pub mod tls;
pub mod token;
