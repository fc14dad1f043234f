//! What a handshake needs to resume a session, or to be resumed itself (RFC 9001 section 4.5).

use std::sync::Arc;

use rustls::PeerMisbehaved;

use crate::crypto::tickets::{
    ClientTicket, Policy, Prepared, SessionSlot, TicketSlot, TicketUse, with_session, with_slot,
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
    Client(TicketSlot),
    Server(ServerState),
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
    pub(super) fn client(resumes: bool, version: Version, ticket: Option<ClientTicket>) -> Option<Box<Self>> {
        let offered = ticket
            .filter(|ticket| ticket.version == version)
            .map(|ticket| ticket.session);
        resumes.then(|| {
            Box::new(SessionResumption::Client(TicketSlot {
                offered,
                received: Vec::new(),
            }))
        })
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
            Some(SessionResumption::Client(slot)) => with_slot(slot, work),
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
