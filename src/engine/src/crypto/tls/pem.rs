//! Certificates and keys as files mostly have them: PEM (RFC 7468).

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::client::ClientCredentials;
use super::error::TlsConfigError;
use super::identity::Identity;
use super::server::ServerCredentials;

impl Identity {
    /// A chain (PEM, end entity first) and its private key (PEM: PKCS#8, PKCS#1 or SEC1), which may be in the same text. What else is in the texts is
    /// skipped.
    ///
    /// # Errors
    ///
    /// [`TlsConfigError::Pem`]: a text holds no certificate, or no private key that is not encrypted, or is damaged.
    pub fn from_pem(chain: &[u8], key: &[u8]) -> Result<Self, TlsConfigError> {
        let chain = certificates(chain)?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| TlsConfigError::Pem {
            what: "private key",
            problem: error.to_string(),
        })?;
        Ok(Identity::new(chain, key))
    }
}

impl ServerCredentials {
    /// A certificate chain and its key, as [`Identity::from_pem`] reads them, for all clients. MsQuic: `QUIC_CERTIFICATE_FILE`.
    ///
    /// # Errors
    ///
    /// As [`Identity::from_pem`].
    pub fn from_pem(chain: &[u8], key: &[u8]) -> Result<Self, TlsConfigError> {
        Ok(Self::with_identity(Identity::from_pem(chain, key)?))
    }
}

impl ClientCredentials {
    /// Trusts servers as [`ClientCredentials::roots`] does, with roots as files have them: `/etc/ssl/certs/ca-certificates.crt`, say. MsQuic:
    /// `QUIC_CREDENTIAL_FLAG_SET_CA_CERTIFICATE_FILE`.
    ///
    /// # Errors
    ///
    /// [`TlsConfigError::Pem`]: the text holds no certificate, or is damaged.
    pub fn roots_from_pem(roots: &[u8]) -> Result<Self, TlsConfigError> {
        Ok(Self::roots(certificates(roots)?))
    }
}

fn certificates(text: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsConfigError> {
    let problem = |problem| TlsConfigError::Pem {
        what: "certificate",
        problem,
    };
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text).collect();
    let found = found.map_err(|error| problem(error.to_string()))?;
    if found.is_empty() {
        return Err(problem("there is none".to_owned()));
    }
    Ok(found)
}
