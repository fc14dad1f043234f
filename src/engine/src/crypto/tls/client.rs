//! The TLS configuration of a client.

use std::sync::Arc;

use rustls::RootCertStore;
use rustls::client::WebPkiServerVerifier;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::verification::{ServerVerification, SkipServerVerification};
use super::{TlsConfigError, checked_provider};
use crate::crypto::caching_verifier::CachingVerifier;
use crate::crypto::suite::CipherSuite;

/// The TLS configuration of a client. Cheap to clone.
#[derive(Clone)]
pub struct ClientTls {
    pub(super) config: Arc<rustls::ClientConfig>,
    /// It resumes sessions.
    pub(super) resumes: bool,
}

impl ClientTls {
    /// With an `identity` (certificate chain and key) if servers may ask for one.
    pub fn new(
        verification: ServerVerification,
        identity: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
        alpns: Vec<Vec<u8>>,
        suites: &[CipherSuite],
    ) -> Result<Self, TlsConfigError> {
        let provider = checked_provider(suites)?;
        let builder = rustls::ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&rustls::version::TLS13])?;
        let builder = match verification {
            ServerVerification::Roots(certificates) => {
                let mut roots = RootCertStore::empty();
                for certificate in certificates {
                    roots.add(certificate)?;
                }
                if roots.is_empty() {
                    return Err(TlsConfigError::NoRoots);
                }
                let verifier =
                    WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
                        .build();
                let verifier = verifier.map_err(|error| rustls::Error::General(error.to_string()))?;
                builder
                    .dangerous()
                    .with_custom_certificate_verifier(Arc::new(CachingVerifier::new(verifier)))
            }
            ServerVerification::Custom(verifier) => {
                builder.dangerous().with_custom_certificate_verifier(verifier)
            }
            ServerVerification::None => builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(SkipServerVerification(provider))),
        };
        let mut config = match identity {
            Some((chain, key)) => builder.with_client_auth_cert(chain, key)?,
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = alpns;
        config.resumption = rustls::client::Resumption::disabled();
        Ok(ClientTls {
            config: Arc::new(config),
            resumes: false,
        })
    }
}
