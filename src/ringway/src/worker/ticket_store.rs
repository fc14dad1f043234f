//! Where a client keeps the tickets that servers give it.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};

use ringway_engine::crypto::tickets::{ClientTicket, TicketBytes};
use ringway_engine::wire::Version;
use rustls::pki_types::ServerName;

use super::holdup;

/// Which connections a ticket serves.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub struct TicketScope {
    /// The server's name.
    pub server_name: ServerName<'static>,
    /// The server's port.
    pub port: u16,
    /// The version in which the connection begins (RFC 9369 section 5).
    pub version: Version,
    /// The number of the client's [`Configuration`](crate::Configuration) within the process: tickets serve that which has received them.
    pub configuration: u64,
}

/// A session ticket that a server has given a client, with what the client needs to use it.
pub struct ResumptionTicket(pub(crate) ClientTicket);

impl ResumptionTicket {
    /// The ticket as bytes, for another process or a later run of this one: for [`ConnectTarget::resumption_ticket`](crate::ConnectTarget), or
    /// [`Configuration::import_ticket`](crate::Configuration::import_ticket). About a kilobyte, most of it the server's certificates. MsQuic:
    /// `RESUMPTION_TICKET_RECEIVED`.
    ///
    /// They are **secret**: who reads them can pass for this client and read its 0-RTT, and who can change them, for the server. Each ticket should
    /// serve once: exported, it should not be used in this process as well, so [`TicketStore::put`] would not keep it.
    ///
    /// `None`: what the server has sent with it was not understood, or it has more than 4 KB of transport parameters. Tickets of configurations
    /// of rustls never come this way.
    pub fn export(&self) -> Option<TicketBytes> {
        self.0.export()
    }
}

impl fmt::Debug for ResumptionTicket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResumptionTicket").finish_non_exhaustive()
    }
}

/// Keeps the tickets of clients. Called by all workers in parallel, when a connection begins and when a ticket comes: it must not block.
///
/// The default is one of the process, in memory: 4 tickets for each of 1024 scopes, of which those that were used last stay.
pub trait TicketStore: Send + Sync + 'static {
    /// Keeps a ticket.
    fn put(&self, scope: &TicketScope, ticket: ResumptionTicket);

    /// Takes one out: each serves once, lest connections can be linked by it (RFC 8446 appendix C.4). One that has expired does no harm.
    fn take(&self, scope: &TicketScope) -> Option<ResumptionTicket>;
}

/// Tickets in memory.
#[derive(Default)]
pub struct MemoryTicketStore(Mutex<Kept<ResumptionTicket>>);

impl MemoryTicketStore {
    /// That of the process.
    pub fn shared() -> Arc<Self> {
        static SHARED: LazyLock<Arc<MemoryTicketStore>> = LazyLock::new(Arc::default);
        Arc::clone(&SHARED)
    }

    fn kept(&self) -> MutexGuard<'_, Kept<ResumptionTicket>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl TicketStore for MemoryTicketStore {
    fn put(&self, scope: &TicketScope, ticket: ResumptionTicket) {
        self.kept().put(scope, ticket);
    }

    fn take(&self, scope: &TicketScope) -> Option<ResumptionTicket> {
        self.kept().take(scope)
    }
}

/// Some tickets of each of some scopes.
struct Kept<T> {
    scopes: HashMap<Arc<TicketScope>, (u64, Vec<T>)>,
    /// By last use.
    order: BTreeMap<u64, Arc<TicketScope>>,
    uses: u64,
}

impl<T> Default for Kept<T> {
    fn default() -> Self {
        Kept {
            scopes: HashMap::new(),
            order: BTreeMap::new(),
            uses: 0,
        }
    }
}

impl<T> Kept<T> {
    fn put(&mut self, scope: &TicketScope, ticket: T) {
        let mut tickets = self.take_out(scope);
        if tickets.len() >= TICKETS_PER_SCOPE_MAX {
            tickets.remove(0);
        }
        tickets.push(ticket);
        self.put_in(Arc::new(scope.clone()), tickets);
        if self.scopes.len() > SCOPES_MAX
            && let Some((_, oldest)) = self.order.pop_first()
        {
            self.scopes.remove(&oldest);
        }
    }

    fn take(&mut self, scope: &TicketScope) -> Option<T> {
        let mut tickets = self.take_out(scope);
        // The newest.
        let ticket = tickets.pop();
        if !tickets.is_empty() {
            self.put_in(Arc::new(scope.clone()), tickets);
        }
        ticket
    }

    fn take_out(&mut self, scope: &TicketScope) -> Vec<T> {
        let Some((used, tickets)) = self.scopes.remove(scope) else {
            return Vec::new();
        };
        self.order.remove(&used);
        tickets
    }

    fn put_in(&mut self, scope: Arc<TicketScope>, tickets: Vec<T>) {
        self.uses += 1;
        self.order.insert(self.uses, Arc::clone(&scope));
        self.scopes.insert(scope, (self.uses, tickets));
    }
}

/// Where the tickets of a connection go.
pub(crate) struct TicketDestination {
    /// The store.
    pub store: Arc<dyn TicketStore>,
    /// All of the scope but the version, which the handshake negotiates.
    pub scope: TicketScope,
}

impl TicketDestination {
    /// Takes a ticket out. A store of the application that panics has none.
    pub(super) fn take(&self) -> Option<ResumptionTicket> {
        unless_it_panics(|| self.store.take(&self.scope)).flatten()
    }

    /// Keeps a ticket of this scope. A store of the application that panics does not.
    pub(super) fn put(&self, scope: &TicketScope, ticket: ResumptionTicket) {
        unless_it_panics(|| self.store.put(scope, ticket));
    }
}

fn unless_it_panics<R>(work: impl FnOnce() -> R) -> Option<R> {
    catch_unwind(AssertUnwindSafe(|| holdup::on_worker(work)))
        .map_err(|payload| {
            tracing::error!("the application's ticket store panicked; the connection goes on without it");
            // Dropping the payload may panic again.
            mem::forget(payload);
        })
        .ok()
}

const SCOPES_MAX: usize = 1024;
const TICKETS_PER_SCOPE_MAX: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    fn scope(configuration: u64) -> TicketScope {
        TicketScope {
            server_name: ServerName::try_from("localhost").unwrap(),
            port: 443,
            version: Version::V1,
            configuration,
        }
    }

    #[test]
    fn newest_tickets_of_the_scopes_that_were_used_last_are_kept_and_each_is_taken_once() {
        let mut kept = Kept::default();
        for ticket in 0..6 {
            kept.put(&scope(0), ticket);
        }
        let taken: Vec<_> = std::iter::from_fn(|| kept.take(&scope(0))).collect();
        assert_eq!(taken, [5, 4, 3, 2]);

        for number in 0..1024 {
            kept.put(&scope(number), 0);
            kept.put(&scope(number), 1);
        }
        assert_eq!(kept.take(&scope(0)), Some(1), "it is used");
        kept.put(&scope(2000), 0);
        assert_eq!(
            kept.take(&scope(1)),
            None,
            "it was the one that nobody had used for longest"
        );
        assert_eq!((kept.take(&scope(0)), kept.take(&scope(2))), (Some(0), Some(1)));
        assert_eq!((kept.scopes.len(), kept.order.len()), (1023, 1023));
    }
}
