//! Resumption and 0-RTT of configurations and of their handshakes (RFC 9001 sections 4.5 and 4.6).

use std::mem;
use std::sync::Arc;

use rustls::HandshakeKind;
use rustls::client::{Resumption, Tls12Resumption};
use rustls::pki_types::UnixTime;

use super::capture::SecretKind;
use super::client::ClientTls;
use super::info::TlsInfo;
use super::provider::KeySource;
use super::resumption::{Resumable, SessionResumption};
use super::server::ServerTls;
use super::session::{Session, TlsSession};
use crate::crypto::client_hello;
use crate::crypto::hkdf;
use crate::crypto::keys::StoredKeys;
use crate::crypto::secret::Secret;
#[cfg(test)]
use crate::crypto::tickets::{CertificatePolicy, SessionSlot};
use crate::crypto::tickets::{
    ClientTicket, ClientTickets, Policy, Prepared, ReceivedSession, ResumptionLevel, ServerResumption,
    SessionStore, TicketIssuer, TicketOrigin, refuse_early_data,
};
use crate::wire::Version;
use crate::wire::early_limits::EarlyLimits;

impl ServerTls {
    /// The same server, which gives out tickets and takes them. What `client_verifier`s say of a certificate, they are asked again when the session
    /// is resumed.
    pub fn with_resumption(mut self, resumption: ServerResumption) -> Self {
        if resumption.level == ResumptionLevel::None {
            return self;
        }
        self.config = with_tickets(&self.config, &resumption);
        let by_protocol = self.by_protocol.iter();
        self.by_protocol = by_protocol
            .map(|config| with_tickets(config, &resumption))
            .collect();
        let time = Arc::clone(&self.config.time_provider);
        let policy = Policy::new(resumption, self.certificates.clone(), time);
        self.tickets = Some(Arc::new(policy));
        self
    }

    /// The session that a ClientHello would resume, on a connection that begins in `version` and whose client is allowed `limits`.
    pub(crate) fn resumable(
        &self,
        hello: &[u8],
        version: Version,
        limits: &EarlyLimits,
    ) -> Option<Resumable> {
        let policy = self.tickets.as_ref()?;
        let offer = client_hello::offer(hello, &self.config.alpn_protocols)?;
        policy.prepare(&offer, version, limits).map(Resumable)
    }
}

fn with_tickets(
    config: &Arc<rustls::ServerConfig>,
    resumption: &ServerResumption,
) -> Arc<rustls::ServerConfig> {
    let mut config = (**config).clone();
    config.session_storage = Arc::new(SessionStore);
    config.ticketer = Arc::new(NoTicketer);
    config.send_tls13_tickets = resumption.tickets;
    config.max_early_data_size = match resumption.level {
        ResumptionLevel::ResumeAndZeroRtt => u32::MAX,
        _ => 0,
    };
    Arc::new(config)
}

impl ClientTls {
    /// Its configuration is one of rustls, which keeps tickets in a store of its own.
    pub fn has_own_store(&self) -> bool {
        self.without_store.is_some()
    }

    /// The same client, which resumes sessions where it is given tickets.
    pub fn with_resumption(mut self) -> Self {
        let config = Arc::make_mut(&mut self.config);
        let store = Arc::new(ClientTickets::default());
        config.resumption = Resumption::store(store).tls12_resumption(Tls12Resumption::Disabled);
        config.enable_early_data = true;
        self.resumes = true;
        self.without_store = None;
        self
    }
}

impl TlsSession {
    /// The session is resumed by what is read next, if the client turns out to have its secret.
    pub(crate) fn resume(&mut self, resumable: Resumable) {
        let Some(SessionResumption::Server(state)) = self.resumption.as_deref_mut() else {
            return;
        };
        let Prepared {
            ticket,
            mut session,
            early_data,
            ..
        } = resumable.0;
        // The last check, as it counts as a use.
        state.claimed = early_data.filter(|ticket_use| state.policy.claim(ticket_use));
        if state.claimed.is_none() {
            refuse_early_data(&mut session);
        }
        state.slot.resumable = Some((ticket, session));
    }

    /// After the ClientHello it is known whether a ticket brings 0-RTT.
    pub(super) fn settle_early_data(&mut self) {
        if let (Some(SessionResumption::Server(state)), Session::Server(session)) =
            (self.resumption.as_deref_mut(), &self.session)
            && let Some(ticket_use) = state.claimed.take()
            && session.zero_rtt_keys().is_none()
        {
            state.policy.withdraw(&ticket_use);
        }
    }

    /// Keys of 0-RTT packets: a client's, to seal, if it has a ticket for it; a server's, to open, once it has accepted 0-RTT. They are of the
    /// version in which the connection has begun, whichever it goes on in (RFC 9369 section 4.1).
    pub fn early_keys(&self, original: Version) -> Option<StoredKeys> {
        let keys = hkdf::with_labels_of(original, || match &self.session {
            Session::Client(session) => session.zero_rtt_keys(),
            Session::Server(session) => session.zero_rtt_keys(),
        })?;
        let suite = self.cipher_suite()?;
        match self.source {
            KeySource::Suites => Some(StoredKeys::new(&keys, suite)),
            // It is logged also where 0-RTT is not accepted: there were no keys above.
            KeySource::Secrets => {
                let secret = self.captured.as_ref()?.secret(SecretKind::Early)?;
                let secret = Secret::new(suite, secret.as_ref())?;
                Some(StoredKeys::of_secret(&secret, suite, original))
            }
        }
    }

    /// Client: the server has accepted 0-RTT. Known with its Finished.
    pub fn is_early_data_accepted(&self) -> bool {
        match &self.session {
            Session::Client(session) => session.is_early_data_accepted(),
            Session::Server(_) => false,
        }
    }

    /// The session goes on from an earlier one.
    pub fn is_resumed(&self) -> bool {
        matches!(self.common().handshake_kind(), Some(HandshakeKind::Resumed))
    }

    /// Client: whether tickets may come.
    pub fn takes_tickets(&self) -> bool {
        // Those of another version must not go into a store that does not tell versions apart.
        let is_stored = self.has_own_store && self.version == Version::V1;
        matches!(self.resumption.as_deref(), Some(SessionResumption::Client(_))) || is_stored
    }

    /// Client: what follows the handshake brings tickets. They are in it in a form that rustls does not give away.
    pub(super) fn keep_ticket_messages(&mut self, data: &[u8]) {
        if !self.is_handshaking()
            && let Some(SessionResumption::Client(state)) = self.resumption.as_deref_mut()
        {
            state.messages.extend_from_slice(data);
        }
    }

    /// Client: how many tickets have come. Those of a store of the application's go there.
    pub fn tickets_received(&self) -> u32 {
        match &self.session {
            Session::Client(session) => session.tls13_tickets_received(),
            Session::Server(_) => 0,
        }
    }

    /// Client: tickets that have come, for later connections. `info` is what the handshake has agreed on.
    pub fn received_tickets(&mut self, info: &TlsInfo) -> Vec<ClientTicket> {
        let Some(SessionResumption::Client(state)) = self.resumption.as_deref_mut() else {
            return Vec::new();
        };
        let received = mem::take(&mut state.slot.received);
        let messages = state.take_messages(received.len());
        let mut messages = messages.unwrap_or_default().into_iter();
        let (version, identity, now) = (self.version, state.identity, UnixTime::now().as_secs());
        let mut ticket = |ReceivedSession { session, psk }| {
            let origin = || {
                Some(Box::new(TicketOrigin {
                    version,
                    suite: info.cipher_suite?,
                    received: now,
                    identity: identity?,
                    server_name: self.server_name.clone()?,
                    alpn: info.alpn.clone()?,
                    message: messages.next()?,
                    psk: psk?,
                    chain: Arc::clone(&info.peer_certificates),
                }))
            };
            ClientTicket {
                origin: origin(),
                session,
                version,
            }
        };
        received.into_iter().map(&mut ticket).collect()
    }

    /// Server: what rustls writes after the handshake are tickets, which are not sent before the application says so, nor as they are.
    pub(super) fn withhold_tickets(&mut self, out: &mut Vec<u8>, from: usize) {
        if let Some(SessionResumption::Server(state)) = self.resumption.as_deref_mut()
            && !state.slot.stored.is_empty()
        {
            state.messages.extend(out.drain(from..));
        }
    }

    /// Server: gives out tickets of this session, which has ended its handshake. `limits` are what the client is allowed.
    pub(crate) fn into_ticket_issuer(self: Box<Self>, limits: EarlyLimits) -> Option<TicketIssuer> {
        let SessionResumption::Server(state) = *self.resumption? else {
            return None;
        };
        let issuer = TicketIssuer::new(
            state.policy,
            self.version,
            limits,
            &state.messages,
            state.slot.stored,
        );
        (!issuer.is_empty()).then_some(issuer)
    }
}

/// rustls seals no tickets.
#[derive(Debug)]
struct NoTicketer;

impl rustls::server::ProducesTickets for NoTicketer {
    fn enabled(&self) -> bool {
        false
    }

    fn lifetime(&self) -> u32 {
        0
    }

    fn encrypt(&self, _: &[u8]) -> Option<Vec<u8>> {
        None
    }

    fn decrypt(&self, _: &[u8]) -> Option<Vec<u8>> {
        None
    }
}

#[cfg(test)]
impl ServerTls {
    /// As if the configuration had said what it asks of clients.
    pub(in crate::crypto) fn with_policy_for_test(mut self, certificates: CertificatePolicy) -> Self {
        self.certificates = certificates;
        self
    }

    pub(in crate::crypto) fn policy_for_test(&self) -> &Policy {
        self.tickets.as_deref().expect("it has tickets")
    }
}

#[cfg(test)]
impl TlsSession {
    /// The messages of rustls that give out tickets, and what it has stored for them.
    pub(in crate::crypto) fn stored_for_test(self) -> (Vec<u8>, SessionSlot) {
        match *self.resumption.expect("it resumes") {
            SessionResumption::Server(state) => (state.messages, state.slot),
            SessionResumption::Client(_) => panic!("a client"),
        }
    }
}
