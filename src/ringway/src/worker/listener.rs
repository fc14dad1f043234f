//! The state that listeners share with the workers.
//!
//! Circle with `events`, `handles`, `hosted_connection`, `inbox` and `port_lease`: because a listener owns its handler, and reaches
//! its workers through their inboxes.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use super::events::{ListenerEvent, ListenerHandler};
use super::holdup;
use super::port_lease::PortLease;

/// When clients must prove their address with a Retry before a connection is made for them (RFC 9000 section 8.1.2).
///
/// Ordered by strictness: where listeners share a port, the strictest policy of them holds for all.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub enum RetryPolicy {
    /// Never.
    Never,
    /// When many handshakes are in progress.
    #[default]
    UnderLoad,
    /// Always, unless the client presents a token from an earlier connection.
    Always,
}

/// Counters of a listener since its start.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct ListenerStats {
    /// Clients that the application has accepted.
    pub accepted: u64,
    /// Clients that the application has refused, and those that had no application protocol in common with the listeners on the port (which count
    /// for the first of these).
    pub rejected: u64,
    /// Datagrams on the port that were dropped before there was a connection for them (of listeners that share a port, for the first of them).
    pub dropped: u64,
}

/// The same as they are counted, on all partitions.
#[derive(Default)]
pub(crate) struct ListenerCounters {
    /// Accepted by the application.
    pub accepted: AtomicU64,
    /// Refused.
    pub rejected: AtomicU64,
    /// Dropped.
    pub dropped: AtomicU64,
}

impl ListenerCounters {
    /// The counters now.
    pub(crate) fn get(&self) -> ListenerStats {
        ListenerStats {
            accepted: self.accepted.load(Ordering::Relaxed),
            rejected: self.rejected.load(Ordering::Relaxed),
            dropped: self.dropped.load(Ordering::Relaxed),
        }
    }
}

/// The state that a listener's handle shares with all workers on which it listens.
pub(crate) struct ListenerShared {
    /// The local address.
    pub local: SocketAddr,
    /// Application protocols, most preferred first.
    pub alpns: Vec<Vec<u8>>,
    /// When clients must prove their address.
    pub retry: RetryPolicy,
    /// The only partition that accepts, if there is one: the others hand over to it.
    pub only: Option<usize>,
    /// The application's handler.
    pub handler: Box<dyn ListenerHandler>,
    /// What it counts.
    pub counters: ListenerCounters,
    stopped: AtomicBool,
    /// The number of its [`ListenerEntry`]s.
    entries: AtomicUsize,
}

/// A listener on one worker, or on its way there. When the last entry is dropped, the application receives
/// `StopComplete`.
pub(crate) struct ListenerEntry {
    /// The port.
    pub port: Arc<PortLease>,
    /// The listener.
    pub listener: Arc<ListenerShared>,
}

impl ListenerEntry {
    /// For one worker. Make the entries of all workers before one of them can be dropped.
    pub(crate) fn new(port: &Arc<PortLease>, listener: &Arc<ListenerShared>) -> Self {
        listener.entries.fetch_add(1, Ordering::Relaxed);
        ListenerEntry {
            port: Arc::clone(port),
            listener: Arc::clone(listener),
        }
    }
}

impl Drop for ListenerEntry {
    fn drop(&mut self) {
        if self.listener.entries.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.listener.call(ListenerEvent::StopComplete);
        }
    }
}

impl ListenerShared {
    /// For a listener that has no entries yet.
    pub(crate) fn new(
        local: SocketAddr,
        alpns: Vec<Vec<u8>>,
        retry: RetryPolicy,
        only: Option<usize>,
        handler: Box<dyn ListenerHandler>,
    ) -> Self {
        ListenerShared {
            local,
            alpns,
            retry,
            only,
            handler,
            counters: ListenerCounters::default(),
            stopped: AtomicBool::new(false),
            entries: AtomicUsize::new(0),
        }
    }

    /// Marks the listener as stopped; false if it was already.
    pub(crate) fn stop(&self) -> bool {
        !self.stopped.swap(true, Ordering::AcqRel)
    }

    /// It accepts nobody any more.
    pub(crate) fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }

    /// Calls the handler. If it panics, that is logged, and the worker goes on.
    pub(super) fn call(&self, event: ListenerEvent) {
        let call = std::panic::AssertUnwindSafe(|| holdup::on_worker(|| self.handler.on_event(event)));
        if let Err(payload) = std::panic::catch_unwind(call) {
            // If the handler held an `Incoming`, unwinding has dropped it, and so refused the connection.
            std::mem::forget(payload);
            tracing::error!(local = %self.local, "a listener's handler panicked");
        }
    }
}
