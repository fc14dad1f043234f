//! Why TLS cannot be configured.

use std::fmt;

use thiserror::Error;

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
    /// A PEM text does not hold what it should.
    #[error("{what} in PEM: {problem}; it begins with -----BEGIN {}-----", what.to_uppercase())]
    Pem {
        /// What was looked for.
        what: &'static str,
        /// What is wrong.
        problem: String,
    },
    /// A name for a certificate is none.
    #[error("{0:?} is no server name: a DNS name, or *. and one for any name with one label more")]
    ServerName(String),
    /// A configuration of rustls does without TLS 1.3.
    #[error(
        "the rustls configuration allows no TLS 1.3, the only version that QUIC has (RFC 9001 section 4.2): make it \
         with_protocol_versions(&[&rustls::version::TLS13])"
    )]
    NoTls13,
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

impl TlsConfigError {
    /// What rustls says of a configuration when it makes the first session with it.
    pub(super) fn of_session(error: rustls::Error) -> Self {
        match &error {
            // It has no other word for it.
            rustls::Error::General(text) if text.contains("TLS 1.3 support is required") => {
                TlsConfigError::NoTls13
            }
            _ => TlsConfigError::Certificate(error),
        }
    }
}

/// Application protocols without which there is no connection (RFC 9001 section 8.1), or that cannot be sent (RFC 7301 section 3.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[error("at least one ALPN name is needed, and each must have 1 to 255 bytes")]
pub struct AlpnError;

/// Checks the names of application protocols.
///
/// # Errors
///
/// There is no name, or one of 0 or more than 255 bytes.
pub fn check_alpns<'a>(alpns: impl IntoIterator<Item = &'a [u8]>) -> Result<(), AlpnError> {
    let mut lens = alpns.into_iter().map(<[u8]>::len).peekable();
    if lens.peek().is_some() && lens.all(|len| (1..=255).contains(&len)) {
        Ok(())
    } else {
        Err(AlpnError)
    }
}

/// A root certificate that was left out, and why.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct UnusableRoot {
    /// Its place among the certificates that were given, from 0.
    pub index: usize,
    /// The texts of its subject, as far as they can be read.
    pub subject: String,
    /// What is wrong with it.
    pub reason: String,
}

impl fmt::Display for UnusableRoot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "root certificate {} ({:?}): {}",
            self.index, self.subject, self.reason
        )
    }
}
