//! The TLS configuration of a client.

use std::sync::Arc;

use rustls::client::danger::ServerCertVerifier;
use rustls::client::{Resumption, WantsClientCert};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, ServerName, TrustAnchor};
use rustls::sign::SingleCertAndKey;
use rustls::{ConfigBuilder, KeyLog, NoKeyLog, quic};

use super::deferred::CertificateReceived;
use super::ech::Ech;
use super::error::{TlsConfigError, UnusableRoot, check_alpns};
use super::groups::KeyExchangeGroup;
use super::identity::Identity;
use super::key_log::SecretTap;
use super::provider::{KeySource, provider_of};
use super::roots::{Roots, UnusableRoots};
use super::session_maker::SessionMaker;
use super::verification::ServerVerification;

use crate::crypto::suite::CipherSuite;
use crate::crypto::tickets::identity_digest;

/// Which servers a client trusts, and how it identifies itself.
pub struct ClientCredentials {
    verification: ServerVerification,
    /// The certificate chain and key to present to servers that ask for them. Default: none.
    pub identity: Option<Identity>,
    /// Cipher suites, most preferred first. Default: all.
    pub cipher_suites: Vec<CipherSuite>,
    /// Groups for key exchange, most preferred first. Default: all, X25519MLKEM768 first.
    pub key_exchange_groups: Vec<KeyExchangeGroup>,
    /// Revocation lists (DER) for servers that are verified against roots. If there are any, certificates of issuers without one are refused too.
    /// Default: none.
    pub crls: Vec<CertificateRevocationListDer<'static>>,
    /// What is done with root certificates that cannot be used. Default: they are left out.
    pub unusable_roots: UnusableRoots,
    /// Whether handlers of connections hear of the server's certificate before the handshake goes on. Default: they do not.
    pub certificate_received: CertificateReceived,
    /// Encrypted Client Hello. Default: none is sent.
    pub ech: Ech,
    /// Where secrets of connections are written, for whoever decrypts recorded packets. Default: nowhere. `rustls::KeyLogFile` writes them to the
    /// file that the environment variable `SSLKEYLOGFILE` names.
    pub key_log: Arc<dyn KeyLog>,
}

impl ClientCredentials {
    /// Trusts servers whose certificate chains end in one of these roots (DER) and match the name that is connected to.
    ///
    /// A chain that has been verified for a name is not verified again for ten seconds. Each handshake still proves
    /// that the server has the key.
    pub fn roots(roots: Vec<CertificateDer<'static>>) -> Self {
        Self::with(ServerVerification::Roots(Roots {
            certificates: roots,
            anchors: Vec::new(),
        }))
    }

    /// The same with trust anchors, as the crate `webpki-roots` has them.
    pub fn trust_anchors(anchors: Vec<TrustAnchor<'static>>) -> Self {
        Self::with(ServerVerification::Roots(Roots {
            certificates: Vec::new(),
            anchors,
        }))
    }

    /// Trusts the servers that this verifier accepts.
    pub fn verifier(verifier: Arc<dyn ServerCertVerifier>) -> Self {
        Self::with(ServerVerification::Custom(verifier))
    }

    /// Trusts every server, so it does not protect against an attacker in between. For tests and benchmarks.
    ///
    /// Nothing of the certificate is checked, and it may be one that others cannot read; that the server has its key is.
    pub fn no_verification() -> Self {
        Self::with(ServerVerification::None)
    }

    fn with(verification: ServerVerification) -> Self {
        ClientCredentials {
            verification,
            identity: None,
            cipher_suites: CipherSuite::ALL.to_vec(),
            key_exchange_groups: KeyExchangeGroup::ALL.to_vec(),
            crls: Vec::new(),
            unusable_roots: UnusableRoots::default(),
            certificate_received: CertificateReceived::NotIndicated,
            ech: Ech::Off,
            key_log: Arc::new(NoKeyLog),
        }
    }
}

/// The TLS configuration of a client. Cheap to clone.
#[derive(Clone)]
pub struct ClientTls {
    pub(super) config: Arc<rustls::ClientConfig>,
    pub(super) source: KeySource,
    /// `None`: the application's configuration knows.
    pub(super) ech: Option<bool>,
    /// It takes and uses tickets of ours.
    pub(super) resumes: bool,
    /// For tickets of other processes. `None`: the configuration is an application's.
    pub(super) maker: Option<Arc<SessionMaker>>,
    /// Its configuration is an application's, with a session store that tickets go into and come from. Which version of QUIC a ticket belongs to is
    /// not known of such a store, so it serves version 1 alone (RFC 9369 section 5): connections that begin in another have this configuration.
    pub(super) without_store: Option<Arc<rustls::ClientConfig>>,
    unusable_roots: Arc<[UnusableRoot]>,
}

impl ClientTls {
    /// From credentials, and application protocols, most preferred first.
    ///
    /// # Errors
    ///
    /// The certificate, the key, a CRL or the cipher suites cannot be used, no root can, or an ALPN name has no length that goes on the wire: which
    /// one, and why.
    pub fn new(credentials: ClientCredentials, alpns: Vec<Vec<u8>>) -> Result<Self, TlsConfigError> {
        let ClientCredentials {
            verification,
            identity,
            cipher_suites,
            key_exchange_groups,
            crls,
            unusable_roots,
            certificate_received,
            ech,
            key_log,
        } = credentials;
        let provider = provider_of(&cipher_suites, &key_exchange_groups)?;
        let (verifier, unusable_roots) =
            verification.verifier(&provider, unusable_roots, crls, certificate_received)?;
        let builder = rustls::ClientConfig::builder_with_provider(Arc::clone(&provider));
        let is_ech = matches!(ech, Ech::Configurations(_));
        let builder = match ech.mode()? {
            Some(mode) => builder.with_ech(mode).map_err(TlsConfigError::Ech)?,
            None => builder.with_protocol_versions(&[&rustls::version::TLS13])?,
        };
        let builder: ConfigBuilder<_, WantsClientCert> = builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::clone(&verifier));
        let shown = identity.as_ref().and_then(Identity::end_entity);
        let asks_handlers = certificate_received != CertificateReceived::NotIndicated;
        let maker = SessionMaker::new(verifier, identity_digest(shown), asks_handlers);
        let mut config = match identity {
            Some(identity) => {
                let certified = SingleCertAndKey::from(identity.certified(&provider)?);
                builder.with_client_cert_resolver(Arc::new(certified))
            }
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = alpns;
        config.resumption = Resumption::disabled();
        config.key_log = key_log;
        let tls = Self::finish(config, unusable_roots)?;
        Ok(ClientTls {
            ech: Some(is_ech),
            maker: Some(Arc::new(maker)),
            ..tls
        })
    }

    /// From a configuration of rustls: its verifier, certificate resolver, key log, session store and provider work as they are.
    ///
    /// # Errors
    /// It lacks what QUIC needs: TLS 1.3, application protocols, or a cipher suite.
    pub fn from_rustls(config: &Arc<rustls::ClientConfig>) -> Result<Self, TlsConfigError> {
        let tls = Self::finish((**config).clone(), Vec::new())?;
        let mut without_store = (*tls.config).clone();
        without_store.resumption = Resumption::disabled();
        without_store.enable_early_data = false;
        Ok(ClientTls {
            without_store: Some(Arc::new(without_store)),
            ..tls
        })
    }

    fn finish(
        mut config: rustls::ClientConfig,
        unusable_roots: Vec<UnusableRoot>,
    ) -> Result<Self, TlsConfigError> {
        let source = KeySource::of(config.crypto_provider())?;
        check_alpns(config.alpn_protocols.iter().map(Vec::as_slice))?;
        config.key_log = Arc::new(SecretTap {
            application: config.key_log,
            traffic: source == KeySource::Secrets,
        });
        let config = Arc::new(config);
        // rustls says itself what it misses. No session is remembered for such a name.
        let name = ServerName::try_from("configuration.invalid").expect("it is a DNS name");
        quic::ClientConnection::new(Arc::clone(&config), quic::Version::V1, name, Vec::new())
            .map_err(TlsConfigError::of_session)?;
        Ok(ClientTls {
            config,
            source,
            ech: None,
            resumes: false,
            maker: None,
            without_store: None,
            unusable_roots: unusable_roots.into(),
        })
    }

    /// Root certificates that were left out, since they cannot be used.
    pub fn unusable_roots(&self) -> &[UnusableRoot] {
        &self.unusable_roots
    }
}
