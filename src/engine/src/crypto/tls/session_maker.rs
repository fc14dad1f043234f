//! Sessions that rustls has not made in this process.
//!
//! rustls makes sessions that may be resumed, and nobody else: they name the verifier that has approved of the server. So a handshake is made, in
//! memory, with a server that shows the certificates which came with the ticket, and gives out the ticket; its secret takes the place of the one that
//! this handshake would give it. The verifier judges the certificates as ever. What the server cannot do is sign, since it does not have the key:
//! that the one before had it, the exporting process has seen.

use std::cell::Cell;
use std::sync::{Arc, LazyLock};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ResolvesClientCert, Resumption, Tls13ClientSessionValue};
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::kx_group::X25519;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::{CertifiedKey, Signer, SigningKey};
use rustls::{
    DigitallySignedStruct, DistinguishedName, Error, SignatureAlgorithm, SignatureScheme,
    SupportedCipherSuite, quic,
};

use crate::crypto::suite;
use crate::crypto::tickets::{
    ClientTickets, IdentityDigest, NewSessionTicket, TicketOrigin, TicketSlot, with_slot,
};

/// What it takes to make sessions of a configuration.
pub(super) struct SessionMaker {
    verifier: Arc<dyn ServerCertVerifier>,
    /// Of the certificate that the configuration shows to servers.
    pub(super) identity: IdentityDigest,
    /// Handlers of connections hear of servers' certificates, and may refuse them.
    pub(super) asks_handlers: bool,
}

impl SessionMaker {
    /// `verifier` is that of the configuration, made by [`ImportGate::around`].
    pub(super) fn new(
        verifier: Arc<dyn ServerCertVerifier>,
        identity: IdentityDigest,
        asks_handlers: bool,
    ) -> Self {
        SessionMaker {
            verifier,
            identity,
            asks_handlers,
        }
    }
}

impl SessionMaker {
    /// A session with this ticket, for configurations with this verifier and this resolver.
    pub(super) fn session(
        &self,
        certificate: &Arc<dyn ResolvesClientCert>,
        origin: &TicketOrigin,
        message: NewSessionTicket,
        parameters: &[u8],
    ) -> Result<Tls13ClientSessionValue, Error> {
        let provider = Arc::new(CryptoProvider {
            cipher_suites: vec![SupportedCipherSuite::Tls13(origin.suite.tls13())],
            kx_groups: vec![X25519],
            ..suite::provider(&[])
        });
        let mut server = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(WithoutKey::showing(&origin.chain)));
        server.send_tls13_tickets = 0;
        let mut client = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(Arc::clone(&self.verifier))
            .with_client_cert_resolver(Arc::clone(certificate));
        static STORE: LazyLock<Arc<ClientTickets>> = LazyLock::new(Arc::default);
        client.resumption = Resumption::store(Arc::clone(&*STORE) as _);

        let _importing = Importing::begin();
        let mut slot = TicketSlot::default();
        let v1 = quic::Version::V1;
        let mut server = quic::ServerConnection::new(Arc::new(server), v1, parameters.to_vec())?;
        let mut client = with_slot(&mut slot, || {
            quic::ClientConnection::new(Arc::new(client), v1, origin.server_name.clone(), Vec::new())
        })?;
        let mut flight = Vec::new();
        client.write_hs(&mut flight);
        server.read_hs(&flight)?;
        loop {
            flight.clear();
            let change = server.write_hs(&mut flight);
            if flight.is_empty() && change.is_none() {
                break;
            }
            with_slot(&mut slot, || client.read_hs(&flight))?;
        }
        if client.is_handshaking() {
            return Err(Error::HandshakeNotComplete);
        }
        let mut slot = TicketSlot::imposing(origin.psk.clone());
        with_slot(&mut slot, || client.read_hs(&message.encode()))?;
        let made = slot.received.pop().ok_or(Error::HandshakeNotComplete)?;
        Ok(made.session)
    }
}

thread_local! {
    static IMPORTING: Cell<bool> = const { Cell::new(false) };
}

/// A ticket is taken in on this thread: its server does not sign.
struct Importing;

impl Importing {
    fn begin() -> Self {
        IMPORTING.set(true);
        Importing
    }
}

impl Drop for Importing {
    fn drop(&mut self) {
        IMPORTING.set(false);
    }
}

/// The verifier of a configuration, which wants no signature while a ticket is taken in.
#[derive(Debug)]
pub(super) struct ImportGate(Arc<dyn ServerCertVerifier>);

impl ImportGate {
    pub(super) fn around(verifier: Arc<dyn ServerCertVerifier>) -> Arc<dyn ServerCertVerifier> {
        Arc::new(ImportGate(verifier))
    }
}

impl ServerCertVerifier for ImportGate {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        // An application's verifier may open connections of its own.
        let importing = IMPORTING.replace(false);
        let verified = self
            .0
            .verify_server_cert(end_entity, intermediates, name, ocsp, now);
        IMPORTING.set(importing);
        verified
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        if IMPORTING.get() {
            return Ok(HandshakeSignatureValid::assertion());
        }
        self.0.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }

    fn requires_raw_public_keys(&self) -> bool {
        self.0.requires_raw_public_keys()
    }

    fn root_hint_subjects(&self) -> Option<&[DistinguishedName]> {
        self.0.root_hint_subjects()
    }
}

/// Shows certificates, and writes nothing where their key would sign.
#[derive(Debug)]
struct WithoutKey(Arc<CertifiedKey>);

impl WithoutKey {
    fn showing(chain: &[CertificateDer<'static>]) -> Self {
        WithoutKey(Arc::new(CertifiedKey::new(chain.to_vec(), Arc::new(NoKey))))
    }
}

impl ResolvesServerCert for WithoutKey {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }
}

#[derive(Debug)]
struct NoKey;

impl SigningKey for NoKey {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        Some(Box::new(NoSigner(*offered.first()?)))
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        SignatureAlgorithm::ECDSA
    }
}

#[derive(Debug)]
struct NoSigner(SignatureScheme);

impl Signer for NoSigner {
    fn sign(&self, _: &[u8]) -> Result<Vec<u8>, Error> {
        Ok(Vec::new())
    }

    fn scheme(&self) -> SignatureScheme {
        self.0
    }
}
