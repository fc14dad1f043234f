//! Cryptography: TLS 1.3 and packet protection on rustls and aws-lc-rs, and for AES-GCM of packets on code of our own where the processor is one
//! for it; address validation tokens, reset tokens.
//!
//! rustls appears in this module only, but for certificate types at the API.

#[doc(hidden)]
pub mod aes_gcm;
mod caching_verifier;
pub mod client_hello;
mod hkdf;
#[doc(hidden)]
pub mod keys;
#[doc(hidden)]
pub mod one_rtt;
pub(crate) mod packet;
pub(crate) mod post_handshake;
pub mod refusal;
pub mod reset;
pub mod retry;
pub(crate) mod secret;
pub mod suite;
#[cfg(test)]
mod tests;
mod ticket_secret;
pub mod tickets;
pub mod tls;
pub mod token;

/// aws-lc is its FIPS module: then that does all cryptography.
fn is_fips() -> bool {
    aws_lc_rs::try_fips_mode().is_ok()
}
