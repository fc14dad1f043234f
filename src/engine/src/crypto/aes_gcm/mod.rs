//! AES-GCM for packets (RFC 5116 section 5, NIST SP 800-38D), in one pass, for processors with instructions for AES and for products without carry.
//!
//! Where aws-lc (on a Xeon of the fourth generation, with AVX-512) seals a full packet in 250 ns and 20 bytes in 109, most of the time goes to what
//! is done once for each message: 1,423 bytes more take 140. Here a full packet takes 128 ns and 20 bytes take 26, for four reasons. The header's
//! last block, the lengths and the first and last bytes go into the same sums of GHASH as others do; what hides the tag is ciphered along with the
//! first bytes; nothing of a key is copied; and the nonce is not read from memory as wider words than it has just been written as, for which a
//! processor waits until all before it is done.
//!
//! There are three forms of it, of one source: with vectors of four blocks, of two, and of one. `cargo bench -p ringway-engine -- aes-gcm`
//! measures each beside aws-lc with the same instructions.
//!
//! Everything else is left to aws-lc: TLS, and packets on other processors. The instructions take the same time whatever
//! the data and the keys are, and no table is looked up.
//!
//! `form` is which of them, `key` what packets are sealed with, `header` what hides their numbers, `pass` the way of a message, `ghash` the
//! arithmetic of its tag, `schedule` what is derived of a key. What is unsafe is in `vectors`: vectors to and from memory, and the way into code for
//! processors that have the instructions.

pub mod form;
#[cfg(feature = "fused_aes_gcm")]
mod ghash;
#[cfg(feature = "fused_aes_gcm")]
pub mod header;
#[cfg(feature = "fused_aes_gcm")]
pub mod key;
#[cfg(feature = "fused_aes_gcm")]
mod nonce;
#[cfg(feature = "fused_aes_gcm")]
mod pass;
#[cfg(feature = "fused_aes_gcm")]
mod schedule;
#[cfg(all(test, feature = "fused_aes_gcm"))]
#[allow(clippy::print_stdout, reason = "of a test that fails it is shown")]
mod tests;
#[cfg(feature = "fused_aes_gcm")]
#[allow(
    unsafe_code,
    reason = "instructions of some processors, and vectors to and from memory"
)]
mod vectors;
