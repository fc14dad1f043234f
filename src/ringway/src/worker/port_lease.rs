//! Ports of the devices, for as long as anybody uses them.
//!
//! Circle with `events`, `handles`, `hosted_connection`, `inbox` and `listener`: because connections and listeners hold a port, and the last of
//! them gives it back through the inboxes.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError, Weak};
use std::time::Duration;

use ringway_types::PortId;

use super::inbox::{DeviceOperation, Inbox, Operation};
use super::listener::ListenerShared;

/// A port that is attached to devices. Listeners and connections share it; with the last of them it goes.
pub(crate) struct PortLease {
    /// Its name on the devices.
    pub id: PortId,
    /// The local address.
    pub local: SocketAddr,
    /// The only partition that has it; `None`: all have it.
    only: Option<usize>,
    inboxes: Arc<[Arc<Inbox>]>,
    /// Handshakes in progress of connections that go out from it.
    connecting: AtomicUsize,
    listeners: Mutex<Vec<Weak<ListenerShared>>>,
    release: Arc<Release>,
}

/// A handshake in progress of a connection that goes out from a port.
pub(crate) struct Connecting(Arc<PortLease>);

impl Drop for Connecting {
    fn drop(&mut self) {
        self.0.connecting.fetch_sub(1, Ordering::Relaxed);
    }
}

impl PortLease {
    /// For a port that is about to be attached to one device, or to those of all partitions.
    pub(crate) fn new(
        id: PortId,
        local: SocketAddr,
        only: Option<usize>,
        inboxes: &Arc<[Arc<Inbox>]>,
    ) -> Arc<Self> {
        let holders = if only.is_some() { 1 } else { inboxes.len() };
        Arc::new(PortLease {
            id,
            local,
            only,
            inboxes: Arc::clone(inboxes),
            connecting: AtomicUsize::new(0),
            listeners: Mutex::default(),
            release: Arc::new(Release {
                pending: Mutex::new(holders),
                done: Condvar::new(),
            }),
        })
    }

    /// True if connections of this partition can use it.
    pub(crate) fn is_on(&self, partition: usize) -> bool {
        self.only.is_none_or(|only| only == partition)
    }

    /// True if every partition has it.
    pub(crate) fn is_everywhere(&self) -> bool {
        self.only.is_none()
    }

    /// Adds a listener. An error says which other one stands against it.
    pub(crate) fn add_listener(&self, listener: &Arc<ListenerShared>) -> Result<(), String> {
        // The last reference to a listener must not go under the lock: its handler may do anything when it is dropped.
        let others: Vec<_>;
        let mut listeners = self.listeners.lock().unwrap_or_else(PoisonError::into_inner);
        // Those that have stopped too, so that they go behind it.
        others = listeners.iter().filter_map(Weak::upgrade).collect();
        for other in others.iter().filter(|other| !other.is_stopped()) {
            if let Some(alpn) = listener.alpns.iter().find(|alpn| other.alpns.contains(alpn)) {
                let alpn = String::from_utf8_lossy(alpn);
                return Err(format!(
                    "another listener at {} has the application protocol {alpn:?} already: stop it first, or listen for others",
                    self.local
                ));
            }
            if other.only != listener.only {
                return Err(format!(
                    "listeners that share {} must accept on the same partitions",
                    self.local
                ));
            }
        }
        listeners.retain(|other| other.strong_count() > 0);
        listeners.push(Arc::downgrade(listener));
        Ok(())
    }

    /// A handshake of a connection that goes out from it begins.
    pub(crate) fn begin_connecting(self: &Arc<Self>) -> Connecting {
        self.connecting.fetch_add(1, Ordering::Relaxed);
        Connecting(Arc::clone(self))
    }

    /// True if first packets that arrive may be answers to one of ours.
    pub(crate) fn is_connecting(&self) -> bool {
        self.connecting.load(Ordering::Relaxed) > 0
    }

    /// What tells when it is free again, after its last user has gone.
    pub(crate) fn release(&self) -> &Arc<Release> {
        &self.release
    }
}

impl Drop for PortLease {
    fn drop(&mut self) {
        let holders = match self.only {
            Some(only) => &self.inboxes[only..=only],
            None => &self.inboxes[..],
        };
        for inbox in holders {
            let detach = DeviceOperation::Detach(self.id, Detached(Arc::clone(&self.release)));
            // Where the worker has ended, its device has too.
            inbox.post(Operation::Device(detach));
        }
    }
}

/// The way of a port from its last user back to the system.
pub(crate) struct Release {
    /// Devices that have it still.
    pending: Mutex<usize>,
    done: Condvar,
}

impl Release {
    /// Waits until no device has the port any more, but not for longer than `limit`. Its last user must have gone.
    pub(crate) fn wait(&self, limit: Duration) {
        let pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        drop(
            self.done
                .wait_timeout_while(pending, limit, |pending| *pending > 0),
        );
    }
}

/// Told, when it is dropped, that a device has given the port up.
pub(crate) struct Detached(Arc<Release>);

impl Drop for Detached {
    fn drop(&mut self) {
        let mut pending = self.0.pending.lock().unwrap_or_else(PoisonError::into_inner);
        *pending = pending.saturating_sub(1);
        self.0.done.notify_all();
    }
}
