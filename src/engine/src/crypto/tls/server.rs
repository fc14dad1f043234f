//! The TLS configuration of a server.

use std::sync::Arc;

use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::danger::ClientCertVerifier;

use super::{TlsConfigError, checked_provider};
use crate::crypto::suite::CipherSuite;
use crate::crypto::tickets::Policy;

/// The TLS configuration of a server. Cheap to clone.
#[derive(Clone)]
pub struct ServerTls {
    pub(super) config: Arc<rustls::ServerConfig>,
    /// Who decides on certificates of clients, if they are asked for.
    pub(super) client_verifier: Option<Arc<dyn ClientCertVerifier>>,
    /// Which tickets it gives out and takes.
    pub(super) tickets: Option<Arc<Policy>>,
}

impl ServerTls {
    /// From a certificate chain (end entity first) and its key. Clients must show a certificate if there is a verifier for it.
    pub fn new(
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
        alpns: Vec<Vec<u8>>,
        suites: &[CipherSuite],
        client_verifier: Option<Arc<dyn ClientCertVerifier>>,
    ) -> Result<Self, TlsConfigError> {
        let builder = rustls::ServerConfig::builder_with_provider(checked_provider(suites)?)
            .with_protocol_versions(&[&rustls::version::TLS13])?;
        let builder = match client_verifier.clone() {
            Some(verifier) => builder.with_client_cert_verifier(verifier),
            None => builder.with_no_client_auth(),
        };
        let mut config = builder.with_single_cert(chain, key)?;
        config.alpn_protocols = alpns;
        config.send_tls13_tickets = 0;
        config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
        config.max_early_data_size = 0;
        Ok(ServerTls {
            config: Arc::new(config),
            client_verifier,
            tickets: None,
        })
    }
}
