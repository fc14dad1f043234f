//! Configurations: settings, certificates and keys that any number of connections share.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use ringway_engine::connection::config::Config;
use ringway_engine::crypto::suite;
use ringway_engine::crypto::tls::{
    ClientCredentials, ClientTls, ServerCredentials, ServerTls, UnusableRoot, check_alpns,
};
use rustls::crypto::CryptoProvider;

use super::error::{ConfigurationError, SettingsError};
use super::resumption::Resumption;
use super::settings::Settings;
use super::settings_change::SettingsChange;
use crate::worker::token_store::TokenStore;

/// What connections are made with: settings, application protocols, certificates and keys. MsQuic: `Configuration`.
pub struct Configuration {
    pub(super) config: Arc<Config>,
    /// Application protocols for credentials that are loaded later.
    alpns: Vec<Vec<u8>>,
    /// Read once in each handshake.
    tls: RwLock<Tls>,
    pub(super) resumption: Resumption,
    /// Address validation tokens that servers have given to connections of this configuration.
    pub(super) tokens: Arc<TokenStore>,
}

#[derive(Clone)]
pub(super) enum Tls {
    Client(ClientTls),
    Server(ServerTls),
}

impl Tls {
    /// The same, which resumes sessions as this says.
    pub(super) fn resuming(self, resumption: &Resumption) -> Self {
        match self {
            Tls::Client(tls) if resumption.resumes() && !tls.has_own_store() => {
                Tls::Client(tls.with_resumption())
            }
            Tls::Client(tls) => Tls::Client(tls),
            Tls::Server(tls) => Tls::Server(tls.with_resumption(resumption.server().clone())),
        }
    }
}

impl fmt::Debug for Configuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Configuration")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

/// Certificates, keys and trust, for [`Configuration::load_credential`]. Made `from` any of what it holds.
#[non_exhaustive]
pub enum Credential {
    /// A server's.
    Server(ServerCredentials),
    /// A client's.
    Client(ClientCredentials),
    /// A server's, as rustls has them; with application protocols of its own.
    RustlsServer(Arc<rustls::ServerConfig>),
    /// A client's, as rustls has them; with application protocols of its own.
    RustlsClient(Arc<rustls::ClientConfig>),
}

impl From<ServerCredentials> for Credential {
    fn from(credentials: ServerCredentials) -> Self {
        Credential::Server(credentials)
    }
}

impl From<ClientCredentials> for Credential {
    fn from(credentials: ClientCredentials) -> Self {
        Credential::Client(credentials)
    }
}

impl From<Arc<rustls::ServerConfig>> for Credential {
    fn from(config: Arc<rustls::ServerConfig>) -> Self {
        Credential::RustlsServer(config)
    }
}

impl From<Arc<rustls::ClientConfig>> for Credential {
    fn from(config: Arc<rustls::ClientConfig>) -> Self {
        Credential::RustlsClient(config)
    }
}

impl Credential {
    fn tls(self, alpns: &[Vec<u8>]) -> Result<Tls, ConfigurationError> {
        Ok(match self {
            Credential::Server(credentials) => Tls::Server(ServerTls::new(credentials, alpns.to_vec())?),
            Credential::Client(credentials) => Tls::Client(ClientTls::new(credentials, alpns.to_vec())?),
            Credential::RustlsServer(config) => Tls::Server(ServerTls::from_rustls(&config)?),
            Credential::RustlsClient(config) => Tls::Client(ClientTls::from_rustls(&config)?),
        })
    }
}

impl Configuration {
    /// A configuration for accepting connections. `alpns`: application protocols, most preferred first.
    ///
    /// # Errors
    ///
    /// [`ConfigurationError::Settings`]: a setting is out of its range, which the error names. [`ConfigurationError::Alpn`]: no application protocol,
    /// or an impossible one. [`ConfigurationError::Tls`]: certificates, keys, suites or groups cannot be used, as it says.
    pub fn server(
        alpns: &[&[u8]],
        settings: Settings,
        credentials: ServerCredentials,
    ) -> Result<Arc<Self>, ConfigurationError> {
        Self::new(alpns, &settings, credentials.into())
    }

    /// A configuration for opening connections. `alpns`: application protocols, most preferred first.
    ///
    /// # Errors
    ///
    /// As [`Configuration::server`].
    pub fn client(
        alpns: &[&[u8]],
        settings: Settings,
        credentials: ClientCredentials,
    ) -> Result<Arc<Self>, ConfigurationError> {
        Self::new(alpns, &settings, credentials.into())
    }

    /// A configuration for accepting connections with a configuration of rustls, whose application protocols, certificate resolver, verifier, key
    /// log and provider work unchanged. It is copied: what is done to it later has no effect.
    ///
    /// # Errors
    /// A setting is out of range, or the configuration lacks what QUIC needs: TLS 1.3, application protocols, a cipher suite with QUIC keys.
    pub fn server_with_rustls(
        settings: Settings,
        config: &Arc<rustls::ServerConfig>,
    ) -> Result<Arc<Self>, ConfigurationError> {
        let alpns: Vec<&[u8]> = config.alpn_protocols.iter().map(Vec::as_slice).collect();
        Self::new(&alpns, &settings, Arc::clone(config).into())
    }

    /// A configuration for opening connections with a configuration of rustls, whose application protocols, verifier, certificate resolver, key
    /// log and provider work unchanged. It is copied: what is done to it later has no effect.
    ///
    /// # Errors
    /// A setting is out of range, or the configuration lacks what QUIC needs: TLS 1.3, application protocols, a cipher suite with QUIC keys.
    pub fn client_with_rustls(
        settings: Settings,
        config: &Arc<rustls::ClientConfig>,
    ) -> Result<Arc<Self>, ConfigurationError> {
        let alpns: Vec<&[u8]> = config.alpn_protocols.iter().map(Vec::as_slice).collect();
        Self::new(&alpns, &settings, Arc::clone(config).into())
    }

    fn new(
        alpns: &[&[u8]],
        settings: &Settings,
        credential: Credential,
    ) -> Result<Arc<Self>, ConfigurationError> {
        settings.validate()?;
        check_alpns(alpns.iter().copied()).map_err(|_| ConfigurationError::Alpn)?;
        let alpns: Vec<_> = alpns.iter().map(|alpn| alpn.to_vec()).collect();
        let resumption = Resumption::new(settings)?;
        Ok(Arc::new(Configuration {
            config: Arc::new(settings.engine_config()),
            tls: RwLock::new(credential.tls(&alpns)?.resuming(&resumption)),
            alpns,
            resumption,
            tokens: Arc::default(),
        }))
    }

    /// The settings of a connection that changes some of them from its start.
    pub(super) fn changed(&self, change: &SettingsChange) -> Result<Arc<Config>, SettingsError> {
        if *change == SettingsChange::default() {
            return Ok(Arc::clone(&self.config));
        }
        change.check()?;
        let mut config = (*self.config).clone();
        change.apply(&mut config);
        Ok(Arc::new(config))
    }

    /// Replaces certificates, keys and trust: handshakes that begin from now on have these, connections that exist keep what they have. If it
    /// fails, nothing changes. MsQuic: `ConfigurationLoadCredential`.
    ///
    /// # Errors
    /// The credential cannot be used, or it is for the other side.
    pub fn load_credential(&self, credential: impl Into<Credential>) -> Result<(), ConfigurationError> {
        let new = credential.into().tls(&self.alpns)?.resuming(&self.resumption);
        let mut tls = self.tls.write().unwrap_or_else(PoisonError::into_inner);
        match (&*tls, &new) {
            (Tls::Client(_), Tls::Client(_)) | (Tls::Server(_), Tls::Server(_)) => {
                *tls = new;
                Ok(())
            }
            _ => Err(ConfigurationError::OtherSide),
        }
    }

    /// The same on a thread of its own, for credentials that take a while to get: `load` gets them, and `done` hears what came of it, as
    /// [`Configuration::load_credential`] answers it or with the error of `load`. Handshakes go on meanwhile with what there is. MsQuic:
    /// `QUIC_CREDENTIAL_FLAG_LOAD_ASYNCHRONOUS`.
    ///
    /// # Errors
    ///
    /// The system starts no thread; neither of the two is called then.
    pub fn load_credential_async<C: Into<Credential>>(
        self: &Arc<Self>,
        load: impl FnOnce() -> Result<C, ConfigurationError> + Send + 'static,
        done: impl FnOnce(Result<(), ConfigurationError>) + Send + 'static,
    ) -> std::io::Result<()> {
        let this = Arc::clone(self);
        let work = move || done(load().and_then(|credential| this.load_credential(credential)));
        std::thread::Builder::new()
            .name("ringway/credential".to_owned())
            .spawn(work)
            .map(drop)
    }

    /// The root certificates of the credentials that cannot be used and were left out, with the reason.
    pub fn unusable_roots(&self) -> Vec<UnusableRoot> {
        match self.tls() {
            Tls::Client(tls) => tls.unusable_roots().to_vec(),
            Tls::Server(tls) => tls.unusable_roots().to_vec(),
        }
    }

    /// Changes what new handshakes are made with.
    pub(super) fn change_tls(&self, change: impl FnOnce(Tls) -> Tls) {
        let mut tls = self.tls.write().unwrap_or_else(PoisonError::into_inner);
        *tls = change(tls.clone());
    }

    /// What new handshakes are made with.
    pub(super) fn tls(&self) -> Tls {
        self.tls.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The provider of TLS and of its cryptography: `rustls with aws-lc`, or `rustls with aws-lc (FIPS)`, where the build has its module for FIPS 140-3.
/// MsQuic: `QUIC_PARAM_GLOBAL_TLS_PROVIDER`.
pub fn tls_provider() -> &'static str {
    if rustls::crypto::aws_lc_rs::default_provider().fips() {
        "rustls with aws-lc (FIPS)"
    } else {
        "rustls with aws-lc"
    }
}

/// The version of Ringway. MsQuic: `QUIC_PARAM_GLOBAL_LIBRARY_VERSION`.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// A provider for configurations of rustls that are for Ringway alone: `base` with its TLS 1.3 cipher suites replaced by ones that hand packet
/// keys over directly, which makes a handshake cheaper by some 20 microseconds on each side. Such a provider protects no TLS records, so it is of no
/// use for TLS over TCP.
pub fn crypto_provider(base: CryptoProvider) -> CryptoProvider {
    suite::provider_from(base)
}
