//! Where a client keeps the tickets that servers give it.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

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
pub struct MemoryTicketStore(Mutex<Kept>);

#[derive(Default)]
struct Kept {
    scopes: HashMap<Arc<TicketScope>, (u64, Vec<ResumptionTicket>)>,
    /// By last use.
    order: BTreeMap<u64, Arc<TicketScope>>,
    uses: u64,
}

impl MemoryTicketStore {
    /// That of the process.
    pub fn shared() -> Arc<Self> {
        static SHARED: LazyLock<Arc<MemoryTicketStore>> = LazyLock::new(Arc::default);
        Arc::clone(&SHARED)
    }
}

impl TicketStore for MemoryTicketStore {
    fn put(&self, scope: &TicketScope, ticket: ResumptionTicket) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut tickets = kept.take_out(scope);
        if tickets.len() >= TICKETS_PER_SCOPE_MAX {
            tickets.remove(0);
        }
        tickets.push(ticket);
        kept.put_in(Arc::new(scope.clone()), tickets);
        if kept.scopes.len() > SCOPES_MAX
            && let Some((_, oldest)) = kept.order.pop_first()
        {
            kept.scopes.remove(&oldest);
        }
    }

    fn take(&self, scope: &TicketScope) -> Option<ResumptionTicket> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut tickets = kept.take_out(scope);
        // The newest.
        let ticket = tickets.pop();
        if !tickets.is_empty() {
            kept.put_in(Arc::new(scope.clone()), tickets);
        }
        ticket
    }
}

impl Kept {
    fn take_out(&mut self, scope: &TicketScope) -> Vec<ResumptionTicket> {
        let Some((used, tickets)) = self.scopes.remove(scope) else {
            return Vec::new();
        };
        self.order.remove(&used);
        tickets
    }

    fn put_in(&mut self, scope: Arc<TicketScope>, tickets: Vec<ResumptionTicket>) {
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
