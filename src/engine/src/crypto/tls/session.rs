//! One handshake.

use std::sync::Arc;

use rustls::pki_types::{CertificateDer, ServerName};
use rustls::quic::{self, KeyChange as TlsKeyChange};

use super::resumption::SessionResumption;
use super::{ClientTls, ServerTls};
use crate::crypto::hkdf;
use crate::crypto::keys::{Keys, tls_version};
use crate::crypto::one_rtt::OneRttKeys;
use crate::crypto::suite::CipherSuite;
use crate::crypto::tickets::ClientTicket;
use crate::wire::Version;
use crate::wire::error::{TransportError, TransportErrorCode};

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
    pub(super) session: Session,
    /// Its packet keys are for this version.
    pub(super) version: Version,
    /// Where sessions are resumed, or may be later.
    pub(super) resumption: Option<Box<SessionResumption>>,
}

pub(super) enum Session {
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
        ticket: Option<ClientTicket>,
    ) -> Result<Self, TransportError> {
        let mut resumption = SessionResumption::client(tls, version, ticket);
        let config = Arc::clone(&tls.config);
        let begin = || quic::ClientConnection::new(config, tls_version(version), server_name, params);
        let session = SessionResumption::within(&mut resumption, begin).map_err(|_| internal())?;
        Ok(TlsSession {
            session: Session::Client(session),
            version,
            resumption,
        })
    }

    /// The server's side.
    pub fn server(tls: &ServerTls, version: Version, params: Vec<u8>) -> Result<Self, TransportError> {
        quic::ServerConnection::new(Arc::clone(&tls.config), tls_version(version), params)
            .map(|session| TlsSession {
                session: Session::Server(session),
                version,
                resumption: SessionResumption::server(tls),
            })
            .map_err(|_| internal())
    }

    /// The connection goes on in another version (RFC 9368 section 2.3): keys that come from now on are for that.
    pub fn set_version(&mut self, version: Version) {
        self.version = version;
    }

    /// Takes bytes of the peer's CRYPTO stream, in order.
    pub fn read(&mut self, data: &[u8]) -> Result<(), TransportError> {
        let session = &mut self.session;
        let (result, alert) = SessionResumption::within(&mut self.resumption, || match session {
            Session::Client(session) => (session.read_hs(data), session.alert()),
            Session::Server(session) => (session.read_hs(data), session.alert()),
        });
        self.settle_early_data();
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
        let before = out.len();
        // Here rustls expands packet keys, and nowhere else but for key updates and 0-RTT.
        let change = hkdf::with_labels_of(self.version, || match &mut self.session {
            Session::Client(session) => session.write_hs(out),
            Session::Server(session) => session.write_hs(out),
        });
        self.withhold_tickets(out, before);
        let change = change?;
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

    pub(super) fn common(&self) -> &rustls::CommonState {
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
