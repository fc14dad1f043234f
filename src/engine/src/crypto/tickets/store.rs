//! Where rustls keeps sessions, or believes to.
//!
//! A server's rustls stores a session while it reads the client's Finished, and takes one out while it reads a ClientHello. Both happen within a
//! call of ours, so what belongs to the connection lies in a variable of the thread meanwhile.

use std::cell::RefCell;
use std::mem;

use rustls::server::StoresServerSessions;

/// What one connection's rustls stores and takes out.
#[derive(Default)]
pub(in crate::crypto) struct SessionSlot {
    /// The session that may be resumed, by the ticket that the client shows.
    pub(in crate::crypto) resumable: Option<(Vec<u8>, Vec<u8>)>,
    /// Sessions to resume later, by the tickets that rustls has made up for them.
    pub(in crate::crypto) stored: Vec<(Vec<u8>, Vec<u8>)>,
}

thread_local! {
    static SLOT: RefCell<Option<SessionSlot>> = const { RefCell::new(None) };
}

/// Runs `work`, in which rustls reads a message, with this for its store.
pub(in crate::crypto) fn with_session<R>(slot: &mut SessionSlot, work: impl FnOnce() -> R) -> R {
    SLOT.set(Some(mem::take(slot)));
    let result = work();
    *slot = SLOT.take().unwrap_or_default();
    result
}

/// The store of every server that gives out tickets.
#[derive(Debug)]
pub(in crate::crypto) struct SessionStore;

impl StoresServerSessions for SessionStore {
    fn put(&self, ticket: Vec<u8>, session: Vec<u8>) -> bool {
        SLOT.with_borrow_mut(|slot| {
            // Without a connection of ours, nobody would ever seal it.
            slot.as_mut().is_some_and(|slot| {
                slot.stored.push((ticket, session));
                true
            })
        })
    }

    fn get(&self, _: &[u8]) -> Option<Vec<u8>> {
        None
    }

    /// Leaves it there: after a HelloRetryRequest the client shows its ticket again.
    fn take(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        SLOT.with_borrow(|slot| {
            let (resumable, session) = slot.as_ref()?.resumable.as_ref()?;
            (resumable == ticket).then(|| session.clone())
        })
    }

    fn can_cache(&self) -> bool {
        true
    }
}
