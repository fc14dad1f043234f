//! What a handshake needs to resume a session, or to be resumed itself (RFC 9001 section 4.5).

use std::sync::Arc;

use rustls::PeerMisbehaved;

use crate::crypto::tickets::{
    ClientTicket, IdentityDigest, NewSessionTicket, Policy, Prepared, SessionSlot, TicketSlot, TicketUse,
    with_session, with_slot,
};
use crate::wire::Version;

/// A session that a client would resume, and that waits for the application to agree.
pub(crate) struct Resumable(pub(super) Prepared);

impl Resumable {
    /// What the application has written into the ticket.
    pub(crate) fn data(&self) -> &[u8] {
        &self.0.data
    }

    /// Resumes it without 0-RTT.
    pub(crate) fn without_early_data(&mut self) {
        self.0.early_data = None;
    }
}

/// What a handshake needs to resume a session, or to be resumed itself.
pub(super) enum SessionResumption {
    Client(ClientState),
    Server(ServerState),
}

pub(super) struct ClientState {
    pub(super) slot: TicketSlot,
    /// What the server has sent after the handshake, up to the end of the last whole message.
    pub(super) messages: Vec<u8>,
    /// Of the certificate that is shown to servers.
    pub(super) identity: Option<IdentityDigest>,
}

impl ClientState {
    /// The messages that have brought the tickets which have come. `None`: they are not understood.
    pub(super) fn take_messages(&mut self, tickets: usize) -> Option<Vec<NewSessionTicket>> {
        let mut messages = Vec::new();
        let mut rest = &self.messages[..];
        while let Some((message, after)) = NewSessionTicket::parse(rest) {
            messages.push(message);
            rest = after;
        }
        let read = self.messages.len() - rest.len();
        self.messages.drain(..read);
        (messages.len() == tickets).then_some(messages)
    }
}

pub(super) struct ServerState {
    pub(super) policy: Arc<Policy>,
    pub(super) slot: SessionSlot,
    /// A ticket that counts as used for 0-RTT, until it is known that it was.
    pub(super) claimed: Option<TicketUse>,
    /// NewSessionTicket messages that rustls has written.
    pub(super) messages: Vec<u8>,
}

impl SessionResumption {
    pub(super) fn client(
        identity: Option<Option<IdentityDigest>>,
        version: Version,
        ticket: Option<ClientTicket>,
    ) -> Option<Box<Self>> {
        let identity = identity?;
        let offered = ticket
            .filter(|ticket| ticket.version == version)
            .map(|ticket| ticket.session);
        Some(Box::new(SessionResumption::Client(ClientState {
            slot: TicketSlot::offering(offered),
            messages: Vec::new(),
            identity,
        })))
    }

    pub(super) fn server(policy: Option<&Arc<Policy>>) -> Option<Box<Self>> {
        let policy = Arc::clone(policy?);
        Some(Box::new(SessionResumption::Server(ServerState {
            policy,
            slot: SessionSlot::default(),
            claimed: None,
            messages: Vec::new(),
        })))
    }

    /// Runs `work`, in which rustls may look into its stores.
    pub(super) fn within<R>(this: &mut Option<Box<Self>>, work: impl FnOnce() -> R) -> R {
        match this.as_deref_mut() {
            None => work(),
            Some(SessionResumption::Client(state)) => with_slot(&mut state.slot, work),
            Some(SessionResumption::Server(state)) => with_session(&mut state.slot, work),
        }
    }
}

/// A ticket says that 0-RTT is limited, which in QUIC nothing but flow control does (RFC 9001 section 4.6.1).
pub(super) fn is_wrong_early_data_size(error: &rustls::Error) -> bool {
    matches!(
        error,
        rustls::Error::PeerMisbehaved(PeerMisbehaved::InvalidMaxEarlyDataSize)
    )
}
