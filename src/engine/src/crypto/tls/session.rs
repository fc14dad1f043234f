//! One handshake.

use std::sync::Arc;

use rustls::crypto::tls13::OkmBlock;
use rustls::pki_types::ServerName;
use rustls::quic::{self, KeyChange as TlsKeyChange};

use super::capture::{self, Captured, PresentedCertificate, SecretKind};
use super::client::ClientTls;
use super::ech::{EchOutcome, EchRejected};
use super::info::{self, TlsInfo};
use super::provider::KeySource;
use super::resumption::{SessionResumption, is_wrong_early_data_size};
use super::server::ServerTls;
use crate::crypto::hkdf;
use crate::crypto::keys::{Keys, UpdateSecrets, tls_version};
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
    pub(super) source: KeySource,
    pub(super) captured: Option<Box<Captured>>,
    /// Where sessions are resumed, or may be later.
    pub(super) resumption: Option<Box<SessionResumption>>,
    /// Encrypted Client Hello was offered, in a session of ours.
    ech: Option<bool>,
    ech_rejected: Option<EchRejected>,
    /// Tickets go into a session store of the application.
    pub(super) has_own_store: bool,
    /// What a client has asked for.
    pub(super) server_name: Option<ServerName<'static>>,
}

pub(super) enum Session {
    Client(quic::ClientConnection),
    Server(quic::ServerConnection),
}

impl TlsSession {
    /// The client's side. `params` are the encoded transport parameters.
    ///
    /// # Errors
    ///
    /// rustls refuses the configuration: INTERNAL_ERROR with its words.
    pub fn client(
        tls: &ClientTls,
        version: Version,
        server_name: ServerName<'static>,
        params: Vec<u8>,
        ticket: Option<ClientTicket>,
    ) -> Result<Self, TransportError> {
        let config = match &tls.without_store {
            Some(config) if version != Version::V1 => Arc::clone(config),
            _ => Arc::clone(&tls.config),
        };
        let mut resumption = SessionResumption::client(tls.resumption_identity(), version, ticket);
        let mut captured = None;
        let asked = Some(server_name.clone());
        let session = capture::during(&mut captured, || {
            SessionResumption::within(&mut resumption, || {
                quic::ClientConnection::new(config, tls_version(version), server_name, params)
            })
        });
        let session = Self::new(session.map(Session::Client), version, tls.source)?;
        Ok(TlsSession {
            captured,
            resumption,
            ech: tls.ech,
            has_own_store: tls.has_own_store(),
            server_name: asked,
            ..session
        })
    }

    /// The server's side.
    ///
    /// # Errors
    ///
    /// rustls refuses the configuration: INTERNAL_ERROR with its words.
    pub fn server(tls: &ServerTls, version: Version, params: Vec<u8>) -> Result<Self, TransportError> {
        let session = quic::ServerConnection::new(Arc::clone(&tls.config), tls_version(version), params);
        let session = Self::new(session.map(Session::Server), version, tls.source)?;
        Ok(TlsSession {
            resumption: SessionResumption::server(tls.tickets.as_ref()),
            ..session
        })
    }

    fn new(
        session: Result<Session, rustls::Error>,
        version: Version,
        source: KeySource,
    ) -> Result<Self, TransportError> {
        let session =
            session.map_err(|error| internal(format!("a TLS session could not be made: {error}")))?;
        Ok(TlsSession {
            session,
            version,
            source,
            captured: None,
            resumption: None,
            ech: None,
            ech_rejected: None,
            has_own_store: false,
            server_name: None,
        })
    }

    /// The connection goes on in another version (RFC 9368 section 2.3): keys that come from now on are for that.
    pub fn set_version(&mut self, version: Version) {
        self.version = version;
    }

    /// Takes bytes of the peer's CRYPTO stream, in order.
    ///
    /// [`TlsSession::write`] must follow before bytes of another packet number space are read: rustls would put what it answers to both into one.
    ///
    /// # Errors
    ///
    /// The handshake has failed: the alert to close with (RFC 9001 section 4.8), with the reason in words.
    pub fn read(&mut self, data: &[u8]) -> Result<(), TransportError> {
        self.keep_ticket_messages(data);
        let (captured, session) = (&mut self.captured, &mut self.session);
        let result = capture::during(captured, || {
            SessionResumption::within(&mut self.resumption, || match session {
                Session::Client(session) => session.read_hs(data),
                Session::Server(session) => session.read_hs(data),
            })
        });
        self.settle_early_data();
        result.map_err(|error| {
            tracing::debug!(%error, "TLS handshake failed");
            self.ech_rejected = EchRejected::of(&error);
            let alert = match &self.session {
                Session::Client(session) => session.alert(),
                Session::Server(session) => session.alert(),
            };
            let code = match alert.filter(|_| !is_wrong_early_data_size(&error)) {
                Some(alert) => TransportErrorCode::crypto(alert.into()),
                None => TransportErrorCode::PROTOCOL_VIOLATION,
            };
            TransportError::worded(code, error.to_string())
        })
    }

    /// Appends bytes for our CRYPTO stream to `out`. With a key change, the bytes after it belong to the next packet number space: call
    /// again.
    ///
    /// # Errors
    ///
    /// The handshake has failed, as [`TlsSession::read`].
    pub fn write(&mut self, out: &mut Vec<u8>) -> Result<Option<KeyChange>, TransportError> {
        let (captured, session) = (&mut self.captured, &mut self.session);
        let before = out.len();
        // Here rustls expands packet keys, and nowhere else but for key updates and 0-RTT.
        let change = capture::during(captured, || {
            hkdf::with_labels_of(self.version, || match session {
                Session::Client(session) => session.write_hs(out),
                Session::Server(session) => session.write_hs(out),
            })
        });
        self.withhold_tickets(out, before);
        let Some(change) = change else {
            return Ok(None);
        };
        let suite = self
            .cipher_suite()
            .ok_or_else(|| internal("keys of an unknown cipher suite".to_owned()))?;
        Ok(Some(match change {
            TlsKeyChange::Handshake { keys } => KeyChange::Handshake(Box::new(match self.source {
                KeySource::Suites => Keys::new(&keys, suite),
                KeySource::Secrets => {
                    let secrets = [SecretKind::ClientHandshake, SecretKind::ServerHandshake];
                    self.own_keys(secrets, suite)?.0
                }
            })),
            TlsKeyChange::OneRtt { keys, next } => {
                let (keys, secrets) = match self.source {
                    KeySource::Suites => (Keys::new(&keys, suite), UpdateSecrets::Tls(next)),
                    KeySource::Secrets => {
                        let secrets = [SecretKind::ClientTraffic, SecretKind::ServerTraffic];
                        let (keys, secrets) = self.own_keys(secrets, suite)?;
                        (keys, UpdateSecrets::Own(secrets.map(Clone::clone)))
                    }
                };
                let keys = OneRttKeys::new(suite, self.version, keys, Some(secrets));
                KeyChange::OneRtt(Box::new(keys))
            }
        }))
    }

    /// Keys of the client's and the server's secret, and the secrets: local, remote.
    fn own_keys(
        &self,
        [client, server]: [SecretKind; 2],
        suite: CipherSuite,
    ) -> Result<(Keys, [&OkmBlock; 2]), TransportError> {
        let kinds = match self.session {
            Session::Client(_) => [client, server],
            Session::Server(_) => [server, client],
        };
        let [Some(local), Some(remote)] = kinds.map(|kind| self.captured.as_ref()?.secret(kind)) else {
            return Err(internal(
                "rustls has not logged the secrets of its keys".to_owned(),
            ));
        };
        let keys = Keys::of_secrets([local, remote], suite, self.version)
            .ok_or_else(|| internal("secrets are shorter than the hash of the suite".to_owned()))?;
        Ok((keys, [local, remote]))
    }

    /// The certificate that the application is to be asked about. Returned once, when the peer has proven that it has the key.
    pub fn take_certificate(&mut self) -> Option<PresentedCertificate> {
        self.captured.as_mut()?.take_certificate()
    }

    /// The server has not decrypted our Encrypted Client Hello, for which [`TlsSession::read`] has failed. Returned once.
    pub fn take_ech_rejected(&mut self) -> Option<EchRejected> {
        self.ech_rejected.take()
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

    /// The cipher suite agreed on.
    pub fn cipher_suite(&self) -> Option<CipherSuite> {
        CipherSuite::of_tls(self.common().negotiated_cipher_suite()?.suite())
    }

    /// What has been agreed on so far.
    pub fn info(&self) -> TlsInfo {
        let done = !self.is_handshaking();
        let server_name = match &self.session {
            Session::Client(_) => match &self.server_name {
                Some(ServerName::DnsName(name)) => Some(name.as_ref()),
                _ => None,
            },
            Session::Server(session) => session.server_name(),
        };
        // A server that does not decrypt it is an error.
        let ech = self.ech.filter(|_| done).map(|offered| match offered {
            true => EchOutcome::Accepted,
            false => EchOutcome::NotOffered,
        });
        let exporter = self
            .captured
            .as_ref()
            .filter(|_| done)
            .and_then(|captured| captured.secret(SecretKind::Exporter));
        info::of_session(self.common(), server_name, exporter, ech)
    }

    #[cfg(test)]
    pub(super) fn source(&self) -> KeySource {
        self.source
    }

    /// The session of rustls.
    #[cfg(test)]
    pub(super) fn into_tls(self) -> quic::Connection {
        match self.session {
            Session::Client(session) => session.into(),
            Session::Server(session) => session.into(),
        }
    }

    /// The peer's encoded transport parameters, once they have arrived.
    pub fn peer_transport_parameters(&self) -> Option<&[u8]> {
        match &self.session {
            Session::Client(session) => session.quic_transport_parameters(),
            Session::Server(session) => session.quic_transport_parameters(),
        }
    }
}

fn internal(reason: String) -> TransportError {
    TransportError::worded(TransportErrorCode::INTERNAL_ERROR, reason)
}
