//! TLS 1.3 sessions for QUIC on rustls (RFC 9001 section 4).
//!
//! Session resumption and 0-RTT are off in both directions.

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::quic::{self, KeyChange as TlsKeyChange};
use rustls::server::danger::ClientCertVerifier;
use rustls::{DigitallySignedStruct, RootCertStore, SignatureScheme};
use thiserror::Error;

use super::caching_verifier::CachingVerifier;
use super::hkdf;
use super::keys::{Keys, tls_version};
use super::one_rtt::OneRttKeys;
use super::suite::{CipherSuite, provider};
use crate::wire::Version;
use crate::wire::error::{TransportError, TransportErrorCode};

/// Why TLS cannot be configured this way.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TlsConfigError {
    /// No cipher suite is left.
    #[error("at least one cipher suite is needed")]
    NoCipherSuite,
    /// No trusted certificate.
    #[error("no trusted root certificate: no server can be verified")]
    NoRoots,
    /// rustls refuses the certificate or the key.
    #[error("certificate or key: {0}")]
    Certificate(#[from] rustls::Error),
}

/// The TLS configuration of a server. Cheap to clone.
#[derive(Clone)]
pub struct ServerTls(Arc<rustls::ServerConfig>);

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
        let builder = match client_verifier {
            Some(verifier) => builder.with_client_cert_verifier(verifier),
            None => builder.with_no_client_auth(),
        };
        let mut config = builder.with_single_cert(chain, key)?;
        config.alpn_protocols = alpns;
        config.send_tls13_tickets = 0;
        config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
        config.max_early_data_size = 0;
        Ok(ServerTls(Arc::new(config)))
    }
}

/// How a client decides whether to trust a server.
#[derive(Clone)]
pub enum ServerVerification {
    /// The server's certificate must lead to one of these.
    Roots(Vec<CertificateDer<'static>>),
    /// As this verifier says.
    Custom(Arc<dyn ServerCertVerifier>),
    /// Every server is trusted: no protection against an attacker in between. For tests and benchmarks.
    None,
}

/// The TLS configuration of a client. Cheap to clone.
#[derive(Clone)]
pub struct ClientTls(Arc<rustls::ClientConfig>);

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
        Ok(ClientTls(Arc::new(config)))
    }
}

fn checked_provider(suites: &[CipherSuite]) -> Result<Arc<CryptoProvider>, TlsConfigError> {
    if suites.is_empty() {
        Err(TlsConfigError::NoCipherSuite)
    } else {
        Ok(provider(suites))
    }
}

/// Seeds the random generator, which takes tens of milliseconds once: at start-up rather than in the first handshake.
pub fn warm_up() {
    let mut byte = [0];
    // An error shows again, and is reported, where randomness is needed.
    let _ = aws_lc_rs::rand::fill(&mut byte);
}

/// New keys that the handshake has brought.
#[doc(hidden)]
pub enum KeyChange {
    /// For Handshake packets.
    Handshake(Box<Keys>),
    /// For 1-RTT packets.
    OneRtt(Box<OneRttKeys>),
}

/// One handshake.
#[doc(hidden)]
pub struct TlsSession {
    session: Session,
    /// Its packet keys are for this version.
    version: Version,
}

enum Session {
    Client(quic::ClientConnection),
    Server(quic::ServerConnection),
}

impl TlsSession {
    /// The client's side. `params` are the encoded transport parameters.
    pub fn client(
        tls: &ClientTls,
        version: Version,
        server_name: ServerName<'static>,
        params: Vec<u8>,
    ) -> Result<Self, TransportError> {
        quic::ClientConnection::new(Arc::clone(&tls.0), tls_version(version), server_name, params)
            .map(|session| TlsSession {
                session: Session::Client(session),
                version,
            })
            .map_err(|_| internal())
    }

    /// The server's side.
    pub fn server(tls: &ServerTls, version: Version, params: Vec<u8>) -> Result<Self, TransportError> {
        quic::ServerConnection::new(Arc::clone(&tls.0), tls_version(version), params)
            .map(|session| TlsSession {
                session: Session::Server(session),
                version,
            })
            .map_err(|_| internal())
    }

    /// The connection goes on in another version (RFC 9368 section 2.3): keys that come from now on are for that.
    pub fn set_version(&mut self, version: Version) {
        self.version = version;
    }

    /// Takes bytes of the peer's CRYPTO stream, in order.
    pub fn read(&mut self, data: &[u8]) -> Result<(), TransportError> {
        let (result, alert) = match &mut self.session {
            Session::Client(session) => (session.read_hs(data), session.alert()),
            Session::Server(session) => (session.read_hs(data), session.alert()),
        };
        result.map_err(|error| {
            tracing::debug!(%error, "TLS handshake failed");
            match alert {
                Some(alert) => TransportError::new(TransportErrorCode::crypto(alert.into()), "TLS alert"),
                None => TransportError::new(
                    TransportErrorCode::PROTOCOL_VIOLATION,
                    "TLS error without an alert",
                ),
            }
        })
    }

    /// Appends bytes for our CRYPTO stream to `out`. With a key change, the bytes after it belong to the next packet number space: call
    /// again.
    pub fn write(&mut self, out: &mut Vec<u8>) -> Option<KeyChange> {
        // Here rustls expands packet keys, and nowhere else but for key updates.
        let change = hkdf::with_labels_of(self.version, || match &mut self.session {
            Session::Client(session) => session.write_hs(out),
            Session::Server(session) => session.write_hs(out),
        })?;
        let suite = self
            .cipher_suite()
            .expect("keys come after the cipher suite is agreed on");
        Some(match change {
            TlsKeyChange::Handshake { keys } => KeyChange::Handshake(Box::new(Keys::new(&keys, suite))),
            TlsKeyChange::OneRtt { keys, next } => KeyChange::OneRtt(Box::new(OneRttKeys::new(
                suite,
                self.version,
                Keys::new(&keys, suite),
                Some(next),
            ))),
        })
    }

    fn common(&self) -> &rustls::CommonState {
        match &self.session {
            Session::Client(session) => session,
            Session::Server(session) => session,
        }
    }

    /// True until both Finished messages are processed.
    pub fn is_handshaking(&self) -> bool {
        self.common().is_handshaking()
    }

    /// The application protocol agreed on.
    pub fn alpn(&self) -> Option<&[u8]> {
        self.common().alpn_protocol()
    }

    /// The peer's certificate chain.
    pub fn peer_certificates(&self) -> Option<&[CertificateDer<'static>]> {
        self.common().peer_certificates()
    }

    /// The cipher suite agreed on.
    pub fn cipher_suite(&self) -> Option<CipherSuite> {
        CipherSuite::of_tls(self.common().negotiated_cipher_suite()?.suite())
    }

    /// The peer's encoded transport parameters, once they have arrived.
    pub fn peer_transport_parameters(&self) -> Option<&[u8]> {
        match &self.session {
            Session::Client(session) => session.quic_transport_parameters(),
            Session::Server(session) => session.quic_transport_parameters(),
        }
    }
}

fn internal() -> TransportError {
    TransportError::new(
        TransportErrorCode::INTERNAL_ERROR,
        "TLS session could not be made",
    )
}

#[derive(Debug)]
struct SkipServerVerification(Arc<CryptoProvider>);

impl ServerCertVerifier for SkipServerVerification {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("QUIC needs TLS 1.3".into()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use ringway_types::Instant;

    use super::*;
    use crate::crypto::tests::{handshake, sessions, sessions_of};

    #[test]
    fn handshakes_of_every_suite_and_version_give_keys_that_fit_each_other() {
        for version in Version::SUPPORTED {
            for suite in CipherSuite::ALL {
                let (client, server) = sessions(version, suite, b"perf");
                let (mut client, mut server) = handshake(client, server);
                let mut packet = vec![0x40, 1, 2, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
                client.local().packet.seal(9, &mut packet, 1, &[]);
                let sample = packet.last_chunk().unwrap();
                assert_eq!(client.local().header.mask(sample), server.remote_mask(sample));
                let (header, payload) = packet.split_at_mut(1);
                let now = Instant::ZERO;
                let opened = server
                    .open(now, 9, false, header, payload, || std::time::Duration::ZERO)
                    .unwrap();
                assert_eq!(opened, [1, 2, 3]);
            }
        }
    }

    #[test]
    fn client_that_goes_over_to_another_version_has_the_keys_of_a_server_that_began_with_it() {
        for version in Version::SUPPORTED {
            for suite in CipherSuite::ALL {
                let other = Version::SUPPORTED
                    .into_iter()
                    .find(|other| *other != version)
                    .unwrap();
                let (mut client, server) = sessions_of([other, version], suite, b"perf");
                client.set_version(version);
                let (mut client, mut server) = handshake(client, server);
                for round in 0..3 {
                    let mut packet = vec![0x40, 1, 2, 3];
                    packet.resize(20, 0);
                    client.local().packet.seal(round, &mut packet, 1, &[]);
                    client.on_sealed(round).unwrap();
                    let sample = packet.last_chunk().unwrap();
                    assert_eq!(client.local().header.mask(sample), server.remote_mask(sample));
                    let (header, payload) = packet.split_at_mut(1);
                    let opened = server.open(Instant::ZERO, round, client.phase(), header, payload, || {
                        std::time::Duration::ZERO
                    });
                    assert_eq!(opened.unwrap(), [1, 2, 3], "update {round}");
                    let _ = server.on_sealed(round);
                    client.on_ack(round);
                    client.update();
                }
            }
        }
    }

    #[test]
    fn no_common_application_protocol_is_the_alert_for_it() {
        let (mut client, mut server) = sessions(Version::V1, CipherSuite::Aes128Gcm, b"other");
        let mut bytes = Vec::new();
        client.write(&mut bytes);
        assert_eq!(
            server.read(&bytes).unwrap_err().code,
            TransportErrorCode::crypto(120)
        );
    }
}
