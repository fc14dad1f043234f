//! The tickets of a client.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use ringway::{ResumptionTicket, TicketScope, TicketStore};

/// Tickets of the one server that there is: as many as connections may be under way.
#[derive(Default)]
pub(super) struct Tickets {
    tickets: Mutex<Vec<ResumptionTicket>>,
    /// Connections that began when there was none, and have not turned out to be full handshakes.
    without: AtomicU64,
}

impl Tickets {
    /// A handshake was a full one: false if it is that of a connection that had a ticket. It may be noticed only when all others are through.
    pub(super) fn admit_full_handshake(&self) -> bool {
        let less = |without: u64| without.checked_sub(1);
        self.without
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, less)
            .is_ok()
    }

    fn tickets(&self) -> MutexGuard<'_, Vec<ResumptionTicket>> {
        self.tickets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl TicketStore for Tickets {
    fn put(&self, _: &TicketScope, ticket: ResumptionTicket) {
        self.tickets().push(ticket);
    }

    fn take(&self, _: &TicketScope) -> Option<ResumptionTicket> {
        let ticket = self.tickets().pop();
        if ticket.is_none() {
            self.without.fetch_add(1, Ordering::Relaxed);
        }
        ticket
    }
}
