//! How either side decides whether to trust the other.

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};

use super::deferred::{CertificateReceived, DeferredClientVerifier, DeferredServerVerifier};
use super::error::{TlsConfigError, UnusableRoot};
use super::lenient;
use super::roots::{Roots, UnusableRoots};
use super::session_maker::ImportGate;
use crate::crypto::caching_verifier::CachingVerifier;

/// A verifier, and the root certificates that it does without.
type WithUnusable<V> = (V, Vec<UnusableRoot>);

/// How a client decides whether to trust a server.
pub(super) enum ServerVerification {
    /// The server's certificate must lead to one of these.
    Roots(Roots),
    /// As this verifier says.
    Custom(Arc<dyn ServerCertVerifier>),
    /// Every server is trusted: no protection against an attacker in between. For tests and benchmarks.
    None,
}

impl ServerVerification {
    pub(super) fn verifier(
        self,
        provider: &Arc<CryptoProvider>,
        unusable: UnusableRoots,
        crls: Vec<CertificateRevocationListDer<'static>>,
        received: CertificateReceived,
    ) -> Result<WithUnusable<Arc<dyn ServerCertVerifier>>, TlsConfigError> {
        let (verifier, left_out): (Arc<dyn ServerCertVerifier>, _) = match self {
            ServerVerification::Roots(roots) => {
                let (store, left_out) = roots.store(unusable)?;
                let verifier =
                    WebPkiServerVerifier::builder_with_provider(Arc::new(store), Arc::clone(provider))
                        .with_crls(crls)
                        .build()
                        .map_err(verifier_error)?;
                (Arc::new(CachingVerifier::new(verifier)), left_out)
            }
            ServerVerification::Custom(verifier) => (verifier, Vec::new()),
            ServerVerification::None => {
                let algorithms = provider.signature_verification_algorithms;
                (Arc::new(NoVerification(algorithms)), Vec::new())
            }
        };
        let verifier = DeferredServerVerifier::around(verifier, received);
        Ok((ImportGate::around(verifier), left_out))
    }
}

/// What a server asks of its clients.
#[derive(Default)]
#[non_exhaustive]
pub enum ClientAuthentication {
    /// Nothing.
    #[default]
    None,
    /// A certificate that leads to one of these roots and that no revocation list names.
    Roots {
        /// Certificates of the roots (DER).
        roots: Vec<CertificateDer<'static>>,
        /// Revocation lists (DER). If there are any, certificates of issuers without one are refused too.
        crls: Vec<CertificateRevocationListDer<'static>>,
        /// Clients without a certificate are refused. MsQuic: `REQUIRE_CLIENT_AUTHENTICATION`.
        required: bool,
    },
    /// What this verifier says.
    Verifier(Arc<dyn ClientCertVerifier>),
    /// A certificate, of which the connection's handler alone decides when `PeerCertificateReceived` brings it: nothing but that the client has
    /// its key is verified.
    Handler {
        /// Clients without a certificate are refused.
        required: bool,
    },
}

impl ClientAuthentication {
    /// `None`: clients are not asked.
    pub(super) fn verifier(
        self,
        provider: &Arc<CryptoProvider>,
        unusable: UnusableRoots,
        received: CertificateReceived,
    ) -> Result<WithUnusable<Option<Arc<dyn ClientCertVerifier>>>, TlsConfigError> {
        let (verifier, left_out): (Arc<dyn ClientCertVerifier>, _) = match self {
            ClientAuthentication::None => return Ok((None, Vec::new())),
            ClientAuthentication::Roots {
                roots,
                crls,
                required,
            } => {
                let roots = Roots {
                    certificates: roots,
                    anchors: Vec::new(),
                };
                let (store, left_out) = roots.store(unusable)?;
                let builder =
                    WebPkiClientVerifier::builder_with_provider(Arc::new(store), Arc::clone(provider))
                        .with_crls(crls);
                let builder = if required {
                    builder
                } else {
                    builder.allow_unauthenticated()
                };
                (builder.build().map_err(verifier_error)?, left_out)
            }
            ClientAuthentication::Verifier(verifier) => (verifier, Vec::new()),
            ClientAuthentication::Handler { required } => {
                let verifier = Arc::new(HandlerDecides {
                    required,
                    algorithms: provider.signature_verification_algorithms,
                });
                let verifier = DeferredClientVerifier::around(verifier, CertificateReceived::Deferred);
                return Ok((Some(verifier), Vec::new()));
            }
        };
        Ok((Some(DeferredClientVerifier::around(verifier, received)), left_out))
    }
}

fn verifier_error(error: impl std::fmt::Display) -> TlsConfigError {
    TlsConfigError::Certificate(Error::General(error.to_string()))
}

/// Trusts every server that has the key of its certificate, whatever the certificate is.
#[derive(Debug)]
struct NoVerification(WebPkiSupportedAlgorithms);

impl ServerCertVerifier for NoVerification {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(not_tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        lenient::verify_tls13_signature(message, certificate, signature, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}

/// Finds every client's certificate untrusted, and leaves the rest to the handler of its connection.
#[derive(Debug)]
struct HandlerDecides {
    required: bool,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ClientCertVerifier for HandlerDecides {
    fn client_auth_mandatory(&self) -> bool {
        self.required
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        Err(Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer))
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(not_tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        lenient::verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

fn not_tls12() -> Error {
    Error::General("QUIC needs TLS 1.3".into())
}
