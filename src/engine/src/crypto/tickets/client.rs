//! Tickets that a client has received.
//!
//! A client's rustls takes a ticket out of its store while the connection is made, and puts those that come into it. Both happen within a call of
//! ours, so what belongs to the connection lies in a variable of the thread meanwhile.

use std::cell::RefCell;
use std::fmt;
use std::mem;

use rustls::NamedGroup;
use rustls::client::{
    ClientSessionMemoryCache, ClientSessionStore, Tls12ClientSessionValue, Tls13ClientSessionValue,
};
use rustls::crypto::tls13::OkmBlock;
use rustls::pki_types::ServerName;

use super::exported::{TicketBytes, TicketOrigin};
use crate::crypto::ticket_secret;
use crate::wire::Version;

/// A ticket, with what the client needs to know to use it. It serves the [`ClientTls`](crate::crypto::tls::ClientTls) that has received it, and
/// clones of that, for the same server; and it should serve once, lest connections can be linked by it (RFC 8446 appendix C.4).
pub struct ClientTicket {
    pub(in crate::crypto) session: Tls13ClientSessionValue,
    pub(in crate::crypto) version: Version,
    /// `None`: it cannot leave the process.
    pub(in crate::crypto) origin: Option<Box<TicketOrigin>>,
}

impl fmt::Debug for ClientTicket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientTicket")
            .field("version", &self.version)
            .finish_non_exhaustive()
    }
}

impl ClientTicket {
    /// The version of QUIC that the connection has negotiated which has brought it. It serves connections that begin in this version, and no others
    /// (RFC 9369 section 5).
    pub fn version(&self) -> Version {
        self.version
    }

    /// The ticket as bytes, which [`ClientTls::import_ticket`](crate::crypto::tls::ClientTls::import_ticket) takes in another process. `None`: the
    /// messages that have brought it were not understood, or the server has more than 4096 bytes of transport parameters.
    pub fn export(&self) -> Option<TicketBytes> {
        let origin = self.origin.as_ref()?;
        origin.export(&self.session.quic_params())
    }
}

/// What one connection's rustls takes out and stores.
#[derive(Default)]
pub(in crate::crypto) struct TicketSlot {
    pub(in crate::crypto) offered: Option<Tls13ClientSessionValue>,
    pub(in crate::crypto) received: Vec<ReceivedSession>,
    /// The secret that the ticket which is read next has, whatever the handshake was.
    imposed_psk: Option<Box<OkmBlock>>,
}

/// A session that a ticket may resume, and its secret, where the suite that derived it is ours.
pub(in crate::crypto) struct ReceivedSession {
    pub(in crate::crypto) session: Tls13ClientSessionValue,
    pub(in crate::crypto) psk: Option<Box<OkmBlock>>,
}

impl TicketSlot {
    /// For a connection that shows a ticket, or none.
    pub(in crate::crypto) fn offering(session: Option<Tls13ClientSessionValue>) -> Self {
        TicketSlot {
            offered: session,
            ..Self::default()
        }
    }

    /// For one whose ticket gets this secret.
    pub(in crate::crypto) fn imposing(psk: Box<OkmBlock>) -> Self {
        TicketSlot {
            imposed_psk: Some(psk),
            ..Self::default()
        }
    }
}

thread_local! {
    static SLOT: RefCell<Option<TicketSlot>> = const { RefCell::new(None) };
}

/// Runs `work`, in which rustls begins a connection or reads a message, with this for its store.
pub(in crate::crypto) fn with_slot<R>(slot: &mut TicketSlot, work: impl FnOnce() -> R) -> R {
    let imposed = slot.imposed_psk.take();
    /// Takes it back, also if a panic passes.
    struct TakeBack<'a>(&'a mut TicketSlot, Option<TicketSlot>);
    impl Drop for TakeBack<'_> {
        fn drop(&mut self) {
            *self.0 = SLOT.replace(self.1.take()).unwrap_or_default();
        }
    }
    let outer = SLOT.replace(Some(mem::take(slot)));
    let _take_back = TakeBack(slot, outer);
    ticket_secret::catching(imposed, work)
}

/// The store of a client that resumes sessions.
#[derive(Debug)]
pub struct ClientTickets {
    /// Which key exchanges servers have asked for, so that they need not again: that would cost a round trip, and 0-RTT.
    groups: ClientSessionMemoryCache,
}

impl Default for ClientTickets {
    fn default() -> Self {
        ClientTickets {
            groups: ClientSessionMemoryCache::new(GROUPS_MAX),
        }
    }
}

impl ClientSessionStore for ClientTickets {
    fn set_kx_hint(&self, server: ServerName<'static>, group: NamedGroup) {
        self.groups.set_kx_hint(server, group);
    }

    fn kx_hint(&self, server: &ServerName<'_>) -> Option<NamedGroup> {
        self.groups.kx_hint(server)
    }

    fn set_tls12_session(&self, _: ServerName<'static>, _: Tls12ClientSessionValue) {}

    fn tls12_session(&self, _: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        None
    }

    fn remove_tls12_session(&self, _: &ServerName<'static>) {}

    fn insert_tls13_ticket(&self, _: ServerName<'static>, session: Tls13ClientSessionValue) {
        SLOT.with_borrow_mut(|slot| {
            if let Some(slot) = slot {
                let psk = ticket_secret::take();
                slot.received.push(ReceivedSession { session, psk });
            }
        });
    }

    fn take_tls13_ticket(&self, _: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        SLOT.with_borrow_mut(|slot| slot.as_mut()?.offered.take())
    }
}

/// Servers whose key exchange is remembered.
const GROUPS_MAX: usize = 256;
