//! Tickets of the one server that a client has.

use std::sync::{Mutex, PoisonError};

use tokio::sync::Semaphore;

/// Tickets that came, and have not been used.
pub struct Tickets<T> {
    tickets: Mutex<Vec<T>>,
    /// Those that no connection has waited for.
    came: Semaphore,
}

impl<T> Default for Tickets<T> {
    fn default() -> Self {
        Tickets {
            tickets: Mutex::default(),
            came: Semaphore::new(0),
        }
    }
}

impl<T> Tickets<T> {
    pub fn put(&self, ticket: T) {
        self.tickets().push(ticket);
        self.came.add_permits(1);
    }

    /// The newest.
    pub fn take(&self) -> Option<T> {
        self.tickets().pop()
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
