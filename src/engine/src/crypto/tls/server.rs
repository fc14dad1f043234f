//! The TLS configuration of a server.

use std::sync::Arc;

use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{NoServerSessionStorage, ResolvesServerCert};
use rustls::{KeyLog, NoKeyLog, quic};

use super::deferred::CertificateReceived;
use super::error::{TlsConfigError, UnusableRoot, check_alpns};
use super::groups::KeyExchangeGroup;
use super::identity::{Identity, ServerIdentities};
use super::key_log::SecretTap;
use super::provider::{KeySource, provider_of};
use super::roots::UnusableRoots;
use super::verification::ClientAuthentication;

use crate::crypto::suite::CipherSuite;
use crate::crypto::tickets::{CertificatePolicy, Policy};

/// A server's certificates and keys, and what it asks of clients.
pub struct ServerCredentials {
    identities: ServerIdentities,
    /// Cipher suites, most preferred first. Default: all.
    pub cipher_suites: Vec<CipherSuite>,
    /// Groups for key exchange, most preferred first. Default: all, X25519MLKEM768 first.
    pub key_exchange_groups: Vec<KeyExchangeGroup>,
    /// What clients are asked for. Default: nothing.
    pub client_authentication: ClientAuthentication,
    /// Whether handlers of connections hear of the client's certificate before the handshake goes on. Default: they do not.
    pub certificate_received: CertificateReceived,
    /// What is done with root certificates that cannot be used. Default: they are left out.
    pub unusable_roots: UnusableRoots,
    /// Where secrets of connections are written, for whoever decrypts recorded packets. Default: nowhere. `rustls::KeyLogFile` writes them to the
    /// file that the environment variable `SSLKEYLOGFILE` names.
    pub key_log: Arc<dyn KeyLog>,
}

impl ServerCredentials {
    /// A certificate chain (DER, the server's own certificate first) and its key, for all clients.
    pub fn new(chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>) -> Self {
        Self::with_identity(Identity::new(chain, key))
    }

    /// The same, where the application may keep the key.
    pub fn with_identity(identity: Identity) -> Self {
        Self::by_name(Vec::new(), Some(identity))
    }

    /// Certificates by the name that the client asks for (SNI): a DNS name, in which case does not matter, or `*.` and one, for any name with one
    /// label more. `other` is for clients that ask for another name or for none; without it they are refused.
    pub fn by_name(names: Vec<(String, Identity)>, other: Option<Identity>) -> Self {
        Self::with(ServerIdentities::Named { names, other })
    }

    /// Certificates as `resolver` finds them. It is called on worker threads, once in each handshake.
    pub fn with_resolver(resolver: Arc<dyn ResolvesServerCert>) -> Self {
        Self::with(ServerIdentities::Resolver(resolver))
    }

    fn with(identities: ServerIdentities) -> Self {
        ServerCredentials {
            identities,
            cipher_suites: CipherSuite::ALL.to_vec(),
            key_exchange_groups: KeyExchangeGroup::ALL.to_vec(),
            client_authentication: ClientAuthentication::None,
            certificate_received: CertificateReceived::NotIndicated,
            unusable_roots: UnusableRoots::default(),
            key_log: Arc::new(NoKeyLog),
        }
    }
}

/// The TLS configuration of a server. Cheap to clone.
#[derive(Clone)]
pub struct ServerTls {
    pub(super) config: Arc<rustls::ServerConfig>,
    /// The same for each application protocol alone.
    pub(super) by_protocol: Arc<[Arc<rustls::ServerConfig>]>,
    pub(super) certificates: CertificatePolicy,
    /// Which tickets it gives out and takes.
    pub(super) tickets: Option<Arc<Policy>>,
    pub(super) source: KeySource,
    unusable_roots: Arc<[UnusableRoot]>,
}

impl ServerTls {
    /// From credentials, and application protocols, most preferred first.
    ///
    /// # Errors
    ///
    /// A certificate, its key, a CRL or the cipher suites cannot be used, or an ALPN name has no length that goes on the wire: which one, and why.
    pub fn new(credentials: ServerCredentials, alpns: Vec<Vec<u8>>) -> Result<Self, TlsConfigError> {
        let ServerCredentials {
            identities,
            cipher_suites,
            key_exchange_groups,
            client_authentication,
            certificate_received,
            unusable_roots,
            key_log,
        } = credentials;
        let provider = provider_of(&cipher_suites, &key_exchange_groups)?;
        let (verifier, unusable_roots) =
            client_authentication.verifier(&provider, unusable_roots, certificate_received)?;
        let resolver = identities.resolver(&provider)?;
        let builder = rustls::ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?;
        let certificates = CertificatePolicy::of(verifier.clone());
        let builder = match verifier {
            Some(verifier) => builder.with_client_cert_verifier(verifier),
            None => builder.with_no_client_auth(),
        };
        let mut config = builder.with_cert_resolver(resolver);
        config.alpn_protocols = alpns;
        config.send_tls13_tickets = 0;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.key_log = key_log;
        Self::finish(config, unusable_roots, certificates)
    }

    /// From a configuration of rustls: its resolver, verifier, key log, session store and provider work as they are.
    ///
    /// # Errors
    /// It lacks what QUIC needs: TLS 1.3, application protocols, or a cipher suite.
    pub fn from_rustls(config: &Arc<rustls::ServerConfig>) -> Result<Self, TlsConfigError> {
        Self::finish((**config).clone(), Vec::new(), CertificatePolicy::Unknown)
    }

    fn finish(
        mut config: rustls::ServerConfig,
        unusable_roots: Vec<UnusableRoot>,
        certificates: CertificatePolicy,
    ) -> Result<Self, TlsConfigError> {
        let source = KeySource::of(config.crypto_provider())?;
        check_alpns(config.alpn_protocols.iter().map(Vec::as_slice))?;
        config.max_early_data_size = 0;
        config.key_log = Arc::new(SecretTap {
            application: config.key_log,
            traffic: source == KeySource::Secrets,
        });
        let config = Arc::new(config);
        // rustls says itself what it misses.
        quic::ServerConnection::new(Arc::clone(&config), quic::Version::V1, Vec::new())
            .map_err(TlsConfigError::of_session)?;
        let one = |alpn: &Vec<u8>| {
            if config.alpn_protocols.len() == 1 {
                return Arc::clone(&config);
            }
            let mut one = (*config).clone();
            one.alpn_protocols = vec![alpn.clone()];
            Arc::new(one)
        };
        Ok(ServerTls {
            by_protocol: config.alpn_protocols.iter().map(one).collect(),
            certificates,
            tickets: None,
            source,
            unusable_roots: unusable_roots.into(),
            config,
        })
    }

    /// The same with this application protocol alone; `None`: it does not have it. rustls would choose by the configuration's preference, where
    /// something else has been chosen, and told, before.
    pub fn for_protocol(&self, alpn: &[u8]) -> Option<ServerTls> {
        let config = self
            .by_protocol
            .iter()
            .find(|config| config.alpn_protocols[0] == alpn)?;
        Some(ServerTls {
            config: Arc::clone(config),
            ..self.clone()
        })
    }

    /// Application protocols, most preferred first.
    pub fn alpns(&self) -> &[Vec<u8>] {
        &self.config.alpn_protocols
    }

    /// Root certificates for clients that were left out, since they cannot be used.
    pub fn unusable_roots(&self) -> &[UnusableRoot] {
        &self.unusable_roots
    }
}
