//! TLS 1.3 sessions for QUIC on rustls (RFC 9001 section 4).
//!
//! | part | what it is |
//! |---|---|
//! | `server`, `client` | configurations of either side: made from credentials, or an application's own of rustls |
//! | `identity`, `roots`, `groups`, `ech` | what credentials consist of |
//! | `verification`, `deferred`, `lenient` | whether the peer is trusted, at once or later, and how odd its certificate may be |
//! | `session` | one handshake |
//! | `capture`, `key_log` | what is taken out of rustls while it runs |
//! | `resumption`, `session_resumption` | tickets, and data before the handshake is complete |
//! | `info` | what was agreed on |
//!
//! Sessions are resumed, and 0-RTT is sent and taken, where a configuration says so.

mod capture;
mod client;
mod deferred;
mod ech;
mod groups;
mod identity;
mod info;
mod key_log;
mod lenient;
mod resumption;
mod roots;
mod server;
mod session;
mod session_resumption;
#[cfg(test)]
mod tests;
mod verification;

use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use thiserror::Error;

#[doc(hidden)]
pub use self::capture::PresentedCertificate;
pub use self::client::{ClientCredentials, ClientTls};
pub use self::deferred::{DeferredClientVerifier, DeferredServerVerifier};
pub use self::ech::{Ech, EchOutcome, EchRejected};
pub use self::groups::KeyExchangeGroup;
pub use self::identity::Identity;
pub use self::info::{ExportError, TlsInfo};
pub use self::key_log::key_log_callback;
pub(crate) use self::resumption::Resumable;
pub use self::roots::{UnusableRoot, UnusableRoots};
pub use self::server::{ServerCredentials, ServerTls};
#[doc(hidden)]
pub use self::session::{KeyChange, TlsSession};
pub use self::verification::{CertificateReceived, ClientAuthentication};
use super::suite::{self, CipherSuite};

/// Why TLS cannot be configured this way.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TlsConfigError {
    /// No cipher suite is left.
    #[error("at least one cipher suite is needed")]
    NoCipherSuite,
    /// No group is left.
    #[error("at least one key exchange group is needed")]
    NoGroup,
    /// No trusted certificate.
    #[error("no trusted root certificate: nobody can be verified")]
    NoRoots,
    /// A root certificate cannot be used.
    #[error("{0}")]
    UnusableRoot(UnusableRoot),
    /// A certificate that is to be shown has no public key that can be found.
    #[error("the first certificate of the chain is no X.509 certificate with a public key")]
    NoPublicKey,
    /// A name for a certificate is none.
    #[error("{0:?} is no server name: a DNS name, or *. and one for any name with one label more")]
    ServerName(String),
    /// A configuration of rustls has no cipher suite for QUIC.
    #[error(
        "the rustls configuration has no cipher suite for QUIC: its provider needs TLS13_AES_128_GCM_SHA256, TLS13_AES_256_GCM_SHA384 or \
         TLS13_CHACHA20_POLY1305_SHA256 with QUIC keys"
    )]
    NoQuicSuite,
    /// A configuration of rustls has a cipher suite for QUIC that packets cannot be protected with here.
    #[error("packets cannot be protected with {0:?}: give the rustls configuration a provider without it")]
    UnsupportedSuite(rustls::CipherSuite),
    /// A configuration of rustls has no application protocols, or impossible ones.
    #[error("alpn_protocols of the rustls configuration: {0}")]
    Alpn(#[from] AlpnError),
    /// ECH configurations cannot be used.
    #[error("Encrypted Client Hello: {0}")]
    Ech(rustls::Error),
    /// rustls refuses the certificate, the key or the configuration.
    #[error("certificate, key or configuration: {0}")]
    Certificate(#[from] rustls::Error),
}

/// Application protocols without which there is no connection (RFC 9001 section 8.1), or that cannot be sent (RFC 7301 section 3.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[error("at least one ALPN name is needed, and each must have 1 to 255 bytes")]
pub struct AlpnError;

/// Checks the names of application protocols.
pub fn check_alpns<'a>(alpns: impl IntoIterator<Item = &'a [u8]>) -> Result<(), AlpnError> {
    let mut lens = alpns.into_iter().map(<[u8]>::len).peekable();
    if lens.peek().is_some() && lens.all(|len| (1..=255).contains(&len)) {
        Ok(())
    } else {
        Err(AlpnError)
    }
}

/// Seeds the random generator, which takes tens of milliseconds once: at start-up rather than in the first handshake.
pub fn warm_up() {
    let mut byte = [0];
    // An error shows again, and is reported, where randomness is needed.
    let _ = aws_lc_rs::rand::fill(&mut byte);
}

/// Where the packet keys of a configuration's sessions come from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum KeySource {
    /// rustls hands them out as bytes, since its suites are ours.
    Suites,
    /// They are derived from the secrets that rustls logs.
    Secrets,
}

impl KeySource {
    /// For sessions with this provider.
    fn of(provider: &CryptoProvider) -> Result<KeySource, TlsConfigError> {
        let mut any = false;
        for suite in suite::quic_suites(provider) {
            any = true;
            if CipherSuite::of_tls(suite.common.suite).is_none() {
                return Err(TlsConfigError::UnsupportedSuite(suite.common.suite));
            }
        }
        match (any, suite::carries_keys(provider)) {
            (false, _) => Err(TlsConfigError::NoQuicSuite),
            (true, true) => Ok(KeySource::Suites),
            (true, false) => Ok(KeySource::Secrets),
        }
    }
}

fn provider_of(
    suites: &[CipherSuite],
    groups: &[KeyExchangeGroup],
) -> Result<Arc<CryptoProvider>, TlsConfigError> {
    if suites.is_empty() {
        return Err(TlsConfigError::NoCipherSuite);
    }
    if groups.is_empty() {
        return Err(TlsConfigError::NoGroup);
    }
    let kx_groups = groups.iter().map(|group| group.of_tls()).collect();
    Ok(Arc::new(CryptoProvider {
        kx_groups,
        ..suite::provider(suites)
    }))
}
