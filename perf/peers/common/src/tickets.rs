//! Tickets of the one server that a client has.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use anyhow::Result;
use tokio::sync::Semaphore;

use crate::ensure_resumed;

/// Tickets that came, and have not been used.
pub struct Tickets<T> {
    tickets: Mutex<Vec<T>>,
    /// Those that no connection has waited for.
    came: Semaphore,
    /// Connections that began when there was none.
    without: AtomicUsize,
    full_handshakes: AtomicUsize,
}

impl<T> Default for Tickets<T> {
    fn default() -> Self {
        Tickets {
            tickets: Mutex::default(),
            came: Semaphore::new(0),
            without: AtomicUsize::new(0),
            full_handshakes: AtomicUsize::new(0),
        }
    }
}

impl<T> Tickets<T> {
    pub fn put(&self, ticket: T) {
        self.tickets().push(ticket);
        self.came.add_permits(1);
    }

    /// The newest, for a connection that begins.
    pub fn take(&self) -> Option<T> {
        let ticket = self.tickets().pop();
        if ticket.is_none() {
            self.without.fetch_add(1, Ordering::Relaxed);
        }
        ticket
    }

    /// A connection, the stack does not say which, has been set up by a full handshake.
    pub fn note_full_handshake(&self) {
        self.full_handshakes.fetch_add(1, Ordering::Relaxed);
    }

    /// Fails if one of those was of a connection that had a ticket.
    pub fn ensure_resumed(&self) -> Result<()> {
        ensure_resumed(self.full_handshakes.load(Ordering::Relaxed) <= self.without.load(Ordering::Relaxed))
    }

    /// Waits until one has come that nobody has waited for.
    pub async fn wait(&self) {
        // It is never closed.
        if let Ok(permit) = self.came.acquire().await {
            permit.forget();
        }
    }

    fn tickets(&self) -> std::sync::MutexGuard<'_, Vec<T>> {
        self.tickets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn full_handshake_of_a_connection_that_had_a_ticket_is_an_error() {
        let tickets = Tickets::default();
        assert!(tickets.take().is_none());
        tickets.note_full_handshake();
        tickets.put(1);
        assert_eq!(tickets.take(), Some(1));
        assert!(tickets.ensure_resumed().is_ok());
        tickets.note_full_handshake();
        assert!(tickets.ensure_resumed().is_err());
    }
}
