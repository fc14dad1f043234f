//! TLS 1.3 sessions for QUIC on rustls (RFC 9001 section 4).
//!
//! Sessions are resumed, and 0-RTT is sent and taken, where a configuration says so: see `resumption`.

mod client;
mod resumption;
mod server;
mod session;
mod verification;

use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use thiserror::Error;

pub use self::client::ClientTls;
pub(crate) use self::resumption::Resumable;
pub use self::server::ServerTls;
#[doc(hidden)]
pub use self::session::{KeyChange, TlsSession};
pub use self::verification::ServerVerification;
use super::suite::{CipherSuite, provider};

/// Why TLS cannot be configured this way.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TlsConfigError {
    /// No cipher suite is left.
    #[error("at least one cipher suite is needed")]
    NoCipherSuite,
    /// No trusted certificate.
    #[error("no trusted root certificate: no server can be verified")]
    NoRoots,
    /// rustls refuses the certificate or the key.
    #[error("certificate or key: {0}")]
    Certificate(#[from] rustls::Error),
}

fn checked_provider(suites: &[CipherSuite]) -> Result<Arc<CryptoProvider>, TlsConfigError> {
    if suites.is_empty() {
        Err(TlsConfigError::NoCipherSuite)
    } else {
        Ok(provider(suites))
    }
}

/// Seeds the random generator, which takes tens of milliseconds once: at start-up rather than in the first handshake.
pub fn warm_up() {
    let mut byte = [0];
    // An error shows again, and is reported, where randomness is needed.
    let _ = aws_lc_rs::rand::fill(&mut byte);
}
