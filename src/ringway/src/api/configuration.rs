//! Configurations: settings, certificates and keys that any number of connections share.

use std::fmt;
use std::sync::Arc;

use ringway_engine::connection::config::Config;
use ringway_engine::crypto::suite::CipherSuite;
use ringway_engine::crypto::tls::{ClientTls, ServerTls, ServerVerification};
use rustls::client::danger::ServerCertVerifier;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::danger::ClientCertVerifier;

use super::error::ConfigurationError;
use super::settings::Settings;
use crate::worker::token_store::TokenStore;

/// What connections are made with: settings, application protocols, certificates and keys. MsQuic: `Configuration`.
pub struct Configuration {
    pub(super) config: Arc<Config>,
    pub(super) tls: Tls,
    /// Address validation tokens that servers have given to connections of this configuration.
    pub(super) tokens: Arc<TokenStore>,
}

pub(super) enum Tls {
    Client(ClientTls),
    Server(ServerTls),
}

impl fmt::Debug for Configuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Configuration")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

/// A server's certificate and key, and what it requires of clients.
pub struct ServerCredentials {
    /// The certificate chain (DER), the server's own certificate first.
    pub chain: Vec<CertificateDer<'static>>,
    /// The private key of the server's certificate.
    pub key: PrivateKeyDer<'static>,
    /// Cipher suites, most preferred first. Default: all.
    pub cipher_suites: Vec<CipherSuite>,
    /// If set, clients must present a certificate that this verifier accepts. Default: they need not.
    pub client_verifier: Option<Arc<dyn ClientCertVerifier>>,
}

impl ServerCredentials {
    /// Credentials from a certificate chain (the server's own certificate first) and its key.
    pub fn new(chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>) -> Self {
        ServerCredentials {
            chain,
            key,
            cipher_suites: CipherSuite::ALL.to_vec(),
            client_verifier: None,
        }
    }
}

/// Which servers a client trusts, and how it identifies itself.
pub struct ClientCredentials {
    verification: ServerVerification,
    /// The certificate chain and key to present to servers that ask for them.
    pub identity: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
    /// Cipher suites, most preferred first. Default: all.
    pub cipher_suites: Vec<CipherSuite>,
}

impl ClientCredentials {
    /// Trusts servers whose certificate chains end in one of these roots and match the name that is connected to.
    ///
    /// A chain that has been verified for a name is not verified again for ten seconds. Each handshake still proves
    /// that the server has the key.
    pub fn roots(roots: Vec<CertificateDer<'static>>) -> Self {
        Self::with(ServerVerification::Roots(roots))
    }

    /// Trusts the servers that this verifier accepts.
    pub fn verifier(verifier: Arc<dyn ServerCertVerifier>) -> Self {
        Self::with(ServerVerification::Custom(verifier))
    }

    /// Trusts every server, so it does not protect against an attacker in between. For tests and benchmarks.
    pub fn no_verification() -> Self {
        Self::with(ServerVerification::None)
    }

    fn with(verification: ServerVerification) -> Self {
        ClientCredentials {
            verification,
            identity: None,
            cipher_suites: CipherSuite::ALL.to_vec(),
        }
    }
}

impl Configuration {
    /// A configuration for accepting connections. `alpns`: application protocols, most preferred first.
    pub fn server(
        alpns: &[&[u8]],
        settings: Settings,
        credentials: ServerCredentials,
    ) -> Result<Arc<Self>, ConfigurationError> {
        settings.validate()?;
        let ServerCredentials {
            chain,
            key,
            cipher_suites,
            client_verifier,
        } = credentials;
        let tls = ServerTls::new(chain, key, checked(alpns)?, &cipher_suites, client_verifier)?;
        Ok(Arc::new(Configuration {
            config: Arc::new(settings.engine_config()),
            tls: Tls::Server(tls),
            tokens: Arc::default(),
        }))
    }

    /// A configuration for opening connections. `alpns`: application protocols, most preferred first.
    pub fn client(
        alpns: &[&[u8]],
        settings: Settings,
        credentials: ClientCredentials,
    ) -> Result<Arc<Self>, ConfigurationError> {
        settings.validate()?;
        let ClientCredentials {
            verification,
            identity,
            cipher_suites,
        } = credentials;
        let tls = ClientTls::new(verification, identity, checked(alpns)?, &cipher_suites)?;
        Ok(Arc::new(Configuration {
            config: Arc::new(settings.engine_config()),
            tls: Tls::Client(tls),
            tokens: Arc::default(),
        }))
    }
}

fn checked(alpns: &[&[u8]]) -> Result<Vec<Vec<u8>>, ConfigurationError> {
    if alpns.is_empty() || alpns.iter().any(|alpn| alpn.is_empty() || alpn.len() > 255) {
        return Err(ConfigurationError::Alpn);
    }
    Ok(alpns.iter().map(|alpn| alpn.to_vec()).collect())
}
