//! Listeners as workers see them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use ringway_types::PortId;

use super::events::{ListenerEvent, ListenerHandler};

/// When clients must prove their address by a Retry before a connection is made for them (RFC 9000 section 8.1.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum RetryPolicy {
    /// Never.
    Never,
    /// Always, unless they bring a token of an earlier connection.
    Always,
    /// When many handshakes are under way.
    #[default]
    UnderLoad,
}

/// Shared by all workers on which a listener listens, and its handle.
pub struct ListenerShared {
    /// Where it listens.
    pub local: SocketAddr,
    /// Application protocols it takes, most preferred first.
    pub alpns: Vec<Vec<u8>>,
    /// When clients must prove their address.
    pub retry: RetryPolicy,
    /// The application's handler.
    pub handler: Box<dyn ListenerHandler>,
    stopped: AtomicBool,
    /// Workers that listen, or are about to.
    entries: AtomicUsize,
}

/// A listener on one worker, or on its way there. When the last one goes, the application is told that the listener has stopped.
pub struct ListenerEntry {
    /// The endpoint of the worker's device.
    pub port: PortId,
    /// The listener.
    pub listener: Arc<ListenerShared>,
    /// The only partition that accepts, if there is one: the others hand over to it.
    pub only: Option<usize>,
}

impl ListenerEntry {
    /// For a worker. Make those of all workers before one of them can go.
    pub fn new(port: PortId, listener: &Arc<ListenerShared>, only: Option<usize>) -> Self {
        listener.entries.fetch_add(1, Ordering::Relaxed);
        ListenerEntry {
            port,
            listener: Arc::clone(listener),
            only,
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
    /// A listener that no worker has yet.
    pub fn new(
        local: SocketAddr,
        alpns: Vec<Vec<u8>>,
        retry: RetryPolicy,
        handler: Box<dyn ListenerHandler>,
    ) -> Self {
        ListenerShared {
            local,
            alpns,
            retry,
            handler,
            stopped: AtomicBool::new(false),
            entries: AtomicUsize::new(0),
        }
    }

    /// Marks the listener as stopped; false if it was already.
    pub fn stop(&self) -> bool {
        !self.stopped.swap(true, Ordering::AcqRel)
    }

    /// Tells the application. A handler that panics is logged, and the worker goes on.
    pub(super) fn call(&self, event: ListenerEvent) {
        let call = std::panic::AssertUnwindSafe(|| self.handler.on_event(event));
        if let Err(payload) = std::panic::catch_unwind(call) {
            // An Incoming that the handler held was dropped by the unwinding, and so refused.
            std::mem::forget(payload);
            tracing::error!(local = %self.local, "a listener's handler panicked");
        }
    }
}
