//! Verifiers that leave the verdict on a certificate to the application, which may think about it.
//!
//! rustls wants it at once. It gets a yes, and the session tells its connection that the application is to be asked: until it has answered,
//! nothing of the session leaves. That the peer has the key of its certificate is always verified at once.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};

use super::capture::{self, PresentedCertificate};

/// Whether the application hears of the peer's certificate before the handshake goes on (`PeerCertificateReceived`), and may refuse it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum CertificateReceived {
    /// It does not.
    #[default]
    NotIndicated,
    /// It does, of certificates that have been verified. MsQuic: `INDICATE_CERTIFICATE_RECEIVED`.
    Indicated,
    /// It does, of all certificates, with what their verification has found; it decides. MsQuic: `DEFER_CERTIFICATE_VALIDATION`.
    Deferred,
}

/// Has the application asked about certificates of servers, beside another verifier. For a `rustls::ClientConfig` of the application.
///
/// Where no Ringway connection is behind the configuration, it does what the other verifier does.
#[derive(Debug)]
pub struct DeferredServerVerifier(Deferred<dyn ServerCertVerifier>);

/// Has the application asked about certificates of clients, beside another verifier. For a `rustls::ServerConfig` of the application.
///
/// Where no Ringway connection is behind the configuration, it does what the other verifier does.
#[derive(Debug)]
pub struct DeferredClientVerifier(Deferred<dyn ClientCertVerifier>);

#[derive(Debug)]
struct Deferred<V: ?Sized> {
    deferred: bool,
    verifier: Arc<V>,
}

impl DeferredServerVerifier {
    /// Around `verifier`; that itself if nothing is indicated.
    pub fn around(
        verifier: Arc<dyn ServerCertVerifier>,
        received: CertificateReceived,
    ) -> Arc<dyn ServerCertVerifier> {
        let deferred = received == CertificateReceived::Deferred;
        match received {
            CertificateReceived::NotIndicated => verifier,
            _ => Arc::new(DeferredServerVerifier(Deferred { deferred, verifier })),
        }
    }
}

impl DeferredClientVerifier {
    /// Around `verifier`; that itself if nothing is indicated.
    pub fn around(
        verifier: Arc<dyn ClientCertVerifier>,
        received: CertificateReceived,
    ) -> Arc<dyn ClientCertVerifier> {
        let deferred = received == CertificateReceived::Deferred;
        match received {
            CertificateReceived::NotIndicated => verifier,
            _ => Arc::new(DeferredClientVerifier(Deferred { deferred, verifier })),
        }
    }
}

impl<V: ?Sized> Deferred<V> {
    /// Hands the certificate on with what was found. An error: it is refused at once.
    fn hand_on<T>(
        &self,
        found: Result<T, Error>,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        yes: impl FnOnce() -> T,
    ) -> Result<T, Error> {
        let (found, deferred_error) = match found {
            Ok(found) => (Ok(found), None),
            Err(error) if !self.deferred => return Err(error),
            Err(error) => (Err(error.clone()), Some(error)),
        };
        let handed_on = capture::on_certificate(|| PresentedCertificate {
            chain: std::iter::once(end_entity)
                .chain(intermediates)
                .map(|certificate| certificate.clone().into_owned())
                .collect(),
            deferred_error,
        });
        if handed_on { Ok(yes()) } else { found }
    }
}

/// Passes on that the peer has the key.
fn proof(result: Result<HandshakeSignatureValid, Error>) -> Result<HandshakeSignatureValid, Error> {
    if result.is_ok() {
        capture::on_proof();
    }
    result
}

impl ServerCertVerifier for DeferredServerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verifier = &self.0.verifier;
        let found = verifier.verify_server_cert(end_entity, intermediates, name, ocsp, now);
        self.0
            .hand_on(found, end_entity, intermediates, ServerCertVerified::assertion)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let verifier = &self.0.verifier;
        verifier.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let verifier = &self.0.verifier;
        proof(verifier.verify_tls13_signature(message, certificate, signature))
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.verifier.supported_verify_schemes()
    }

    fn requires_raw_public_keys(&self) -> bool {
        self.0.verifier.requires_raw_public_keys()
    }

    fn root_hint_subjects(&self) -> Option<&[DistinguishedName]> {
        self.0.verifier.root_hint_subjects()
    }
}

impl ClientCertVerifier for DeferredClientVerifier {
    fn offer_client_auth(&self) -> bool {
        self.0.verifier.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.0.verifier.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.0.verifier.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let found = self.0.verifier.verify_client_cert(end_entity, intermediates, now);
        self.0
            .hand_on(found, end_entity, intermediates, ClientCertVerified::assertion)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let verifier = &self.0.verifier;
        verifier.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let verifier = &self.0.verifier;
        proof(verifier.verify_tls13_signature(message, certificate, signature))
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.verifier.supported_verify_schemes()
    }

    fn requires_raw_public_keys(&self) -> bool {
        self.0.verifier.requires_raw_public_keys()
    }
}
