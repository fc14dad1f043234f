//! A worker's inbox: the operations that other threads may post to it.
//!
//! Circle with `events`, `handles`, `hosted_connection`, `listener` and `port_lease`: because what is posted includes connections
//! that move and handles with calls to run, and a handle posts to the inbox of its worker.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use crossbeam_queue::SegQueue;
use ringway_datapath::capture::Taps;
use ringway_datapath::device::Device;
use ringway_datapath::event::Waker;
use ringway_datapath::meta::ReceiveMeta;
use ringway_datapath::port::BoundPort;
use ringway_engine::connection::config::Config;
use ringway_engine::crypto::tickets::ClientTicket;
use ringway_engine::crypto::tls::ClientTls;
use ringway_engine::wire::cid::ConnectionId;
use ringway_types::{Instant, PortId};
use rustls::pki_types::ServerName;

use super::events::ConnectionHandler;
use super::gate::Gate;
use super::handles::{Connection, ConnectionShared};
use super::hosted_connection::HostedConnection;
use super::listener::{ListenerEntry, ListenerShared};
use super::port_lease::{Detached, PortLease};
use super::ticket_store::TicketDestination;
use super::token_store::TokenStore;

/// Work that another thread posts to a worker.
pub(crate) enum Operation {
    /// A connection has a call to run ([`ConnectionShared::next_call`]). It may have moved meanwhile.
    Call(Arc<ConnectionShared>),
    /// The same, and all calls of the connection are to run that wait.
    PriorityCalls(Arc<ConnectionShared>),
    /// A datagram that arrived at another worker and belongs to a connection of this one.
    Datagram(HandedOverDatagram),
    /// Opens a connection.
    OpenConnection(Box<ClientStart>),
    /// Takes over a connection from another worker.
    MoveIn(Box<HostedConnection>),
    /// Forgets connection IDs of connections that have moved away.
    ForgetMovedCids(Vec<ConnectionId>),
    /// Starts to listen on a port of the device.
    AddListener(ListenerEntry),
    /// Stops listening. Connections live on.
    RemoveListener(Arc<ListenerShared>),
    /// Shuts down every connection with this application error code, and abandons those that still wait for their peers
    /// after this time.
    ShutdownConnections { code: u64, timeout: Duration },
    /// Makes stateless reset tokens with this key.
    SetResetKey([u8; 32]),
    /// Seals address validation tokens with the first of these, and opens those of all.
    SetTokenSecrets(Arc<[[u8; 32]]>),
    /// Accepts no more connections, and ends after the last one.
    Stop,
    /// Work for the device, which the context carries out.
    Device(DeviceOperation),
}

/// What a worker needs to open a connection.
pub(crate) struct ClientStart {
    /// The handle. Its calls find the connection as soon as this operation has run.
    pub connection: Connection,
    /// The settings.
    pub config: Arc<Config>,
    /// TLS configuration.
    pub tls: ClientTls,
    /// The name that the server's certificate must be for.
    pub server_name: ServerName<'static>,
    /// Its port.
    pub port: Arc<PortLease>,
    /// The server's address.
    pub remote: SocketAddr,
    /// The application's handler.
    pub handler: Box<dyn ConnectionHandler>,
    /// A ticket to use before those in the store.
    pub ticket: Option<ClientTicket>,
    /// Where the tickets of the server are, and go; `None`: sessions are not resumed.
    pub tickets: Option<TicketDestination>,
    /// Address validation tokens that servers have given us.
    pub tokens: Arc<TokenStore>,
}

/// What is done to the device. The context does it, not the worker.
pub(crate) enum DeviceOperation {
    /// Attaches a bound port.
    Attach(PortId, BoundPort),
    /// Detaches a port, and then tells whoever waits for that.
    Detach(PortId, Detached),
    /// Shows what it receives and sends to a capture.
    SetTaps(Taps),
}

impl DeviceOperation {
    /// Applies it to the device.
    pub(crate) fn run(self, device: &mut Device) {
        match self {
            DeviceOperation::Attach(id, port) => {
                if let Err(error) = device.attach(id, port) {
                    tracing::error!(%error, ?id, "the device cannot attach the port: nothing will arrive on it");
                }
            }
            DeviceOperation::Detach(id, detached) => device.detach(id, Box::new(detached)),
            DeviceOperation::SetTaps(taps) => device.set_taps(taps),
        }
    }
}

/// A datagram on its way from one worker to another.
pub(crate) struct HandedOverDatagram {
    /// As it was received; `segment_size` is the length of the datagram.
    pub meta: ReceiveMeta,
    /// The datagram.
    pub datagram: Box<[u8]>,
    /// The partition where RSS put it; `None` if its connection ID brought it there.
    pub rss_partition: Option<usize>,
    /// When it was received.
    pub received: Instant,
}

/// The right to post one operation: the worker does not end before it is used or dropped.
pub(crate) struct Permit<'a>(&'a Inbox);

impl Permit<'_> {
    /// Appends an operation, and wakes the worker if it sleeps.
    pub(crate) fn post(self, operation: Operation) {
        match operation {
            Operation::PriorityCalls(_) => self.0.priority.push(operation),
            operation => self.0.queue.push(operation),
        }
        let inbox = self.0;
        drop(self);
        inbox.waker.wake();
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        self.0.gate.leave();
    }
}

/// The part of a worker that other threads may use: a lock-free queue of operations.
pub(crate) struct Inbox {
    /// The worker's partition.
    pub partition: usize,
    queue: SegQueue<Operation>,
    /// What goes before that.
    priority: SegQueue<Operation>,
    waker: Arc<Waker>,
    /// How many datagrams are queued: peers decide that, so it is bounded.
    datagrams: AtomicUsize,
    /// When the worker's turn began, in nanoseconds; 0 while it is idle.
    turn: AtomicU64,
    /// The worker accepts no more connections.
    stopping: AtomicBool,
    /// Whoever is posting is inside. Closed when nobody will take anything out any more.
    gate: Gate,
}

impl Inbox {
    /// For the worker of this partition, which sleeps on the event queue of `waker`.
    pub(crate) fn new(partition: usize, waker: Arc<Waker>) -> Self {
        Inbox {
            partition,
            queue: SegQueue::new(),
            priority: SegQueue::new(),
            waker,
            datagrams: AtomicUsize::new(0),
            turn: AtomicU64::new(0),
            stopping: AtomicBool::new(false),
            gate: Gate::default(),
        }
    }

    /// Wakes the worker if it sleeps: there is work that is not in here.
    pub(crate) fn wake(&self) {
        self.waker.wake();
    }

    /// Appends an operation, and wakes the worker if it sleeps. Lock-free; never waits for the worker. Returns false,
    /// and drops the operation, if the worker has gone.
    pub(crate) fn post(&self, operation: Operation) -> bool {
        let permit = self.reserve();
        let is_there = permit.is_some();
        if let Some(permit) = permit {
            permit.post(operation);
        }
        is_there
    }

    /// Appends an operation again that was taken out too early. For the worker only.
    pub(crate) fn requeue(&self, operation: Operation) {
        self.queue.push(operation);
    }

    /// A permit to post; `None` if the worker has gone.
    pub(crate) fn reserve(&self) -> Option<Permit<'_>> {
        self.gate.enter().then_some(Permit(self))
    }

    /// Hands a datagram over; false if [`HANDOVER_DATAGRAMS_MAX`] of them are queued already, or if the worker has
    /// gone.
    pub(crate) fn hand_over(
        &self,
        received: Instant,
        meta: ReceiveMeta,
        datagram: &[u8],
        rss_partition: Option<usize>,
    ) -> bool {
        if self.datagrams.fetch_add(1, Ordering::Relaxed) >= HANDOVER_DATAGRAMS_MAX {
            self.datagrams.fetch_sub(1, Ordering::Relaxed);
            return false;
        }
        self.post(Operation::Datagram(HandedOverDatagram {
            meta,
            datagram: datagram.into(),
            rss_partition,
            received,
        }))
    }

    /// True if a datagram of a stranger may be handed over too, who is nobody's peer yet: strangers take a quarter of the places at most.
    pub(crate) fn has_place_for_strangers(&self) -> bool {
        self.datagrams.load(Ordering::Relaxed) < HANDOVER_DATAGRAMS_MAX / 4
    }

    /// Takes the next operation. For the worker only.
    pub(crate) fn pop(&self) -> Option<Operation> {
        let operation = self.priority.pop().or_else(|| self.queue.pop())?;
        if matches!(operation, Operation::Datagram(..)) {
            self.datagrams.fetch_sub(1, Ordering::Relaxed);
        }
        Some(operation)
    }

    /// How many operations are queued.
    pub(crate) fn len(&self) -> usize {
        self.queue.len() + self.priority.len()
    }

    /// When the worker's turn began that goes on now; [`Instant::ZERO`]: it is idle.
    pub(crate) fn turn(&self) -> Instant {
        Instant::from_nanos(self.turn.load(Ordering::Relaxed))
    }

    /// A turn begins, or with [`Instant::ZERO`] there is nothing to do. For the worker only.
    #[inline]
    pub(crate) fn set_turn(&self, now: Instant) {
        self.turn.store(now.as_nanos(), Ordering::Relaxed);
    }

    /// True if nothing is queued.
    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty() && self.priority.is_empty()
    }

    /// Makes the worker accept no more connections, and end after the last one.
    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
    }

    /// True once [`Inbox::stop`] has been called.
    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    /// Bars further posts. When this returns, everything that was ever posted can be popped.
    pub(crate) fn close(&self) {
        self.gate.close();
        while !self.gate.is_quiet() {
            // A thread is in the middle of its push.
            std::hint::spin_loop();
        }
    }

    /// Drops what is queued, calls too: whoever waits for an answer hears that there will be none. Calls of connections that have moved are
    /// passed on. For the worker only, when it is closed.
    pub(crate) fn discard(&self) {
        while let Some(operation) = self.pop() {
            let (Operation::Call(connection) | Operation::PriorityCalls(connection)) = operation else {
                continue;
            };
            if connection.partition() != self.partition
                && let Some(permit) = connection.inbox().reserve()
            {
                permit.post(Operation::Call(Arc::clone(&connection)));
                continue;
            }
            while connection.next_call().is_some() {}
            connection.gate().leave();
        }
    }
}

/// How many handed-over datagrams a worker's inbox holds at most: about a full receive burst from each of a few other
/// partitions.
pub(crate) const HANDOVER_DATAGRAMS_MAX: usize = 1024;

#[cfg(test)]
mod tests {
    use ringway_datapath::event::EventQueue;

    use super::*;

    fn inbox(partition: usize) -> Arc<Inbox> {
        let queue = EventQueue::new().unwrap();
        Arc::new(Inbox::new(partition, Arc::clone(queue.waker())))
    }

    #[test]
    fn calls_that_a_failed_context_drops_are_over_and_those_for_others_are_passed_on() {
        let inboxes: Arc<[_]> = (0..2).map(inbox).collect();
        let address = "192.0.2.1:443".parse().unwrap();
        let connection = |partition| ConnectionShared::new(&inboxes, partition, address, address);
        let (stays, moves) = (connection(0), connection(0));
        for connection in [&stays, &moves] {
            for _ in 0..2 {
                connection.call(|_, _| ());
            }
        }
        moves.set_partition(1);
        inboxes[0].close();
        inboxes[0].discard();
        assert!(stays.gate().is_quiet() && stays.waiting_calls() == 0);
        assert!(!moves.gate().is_quiet() && moves.waiting_calls() == 2);
        assert_eq!(inboxes[1].len(), 2);
        // Where nobody takes them out any more, they are over too.
        moves.set_partition(0);
        inboxes[1].close();
        inboxes[1].discard();
        assert!(moves.gate().is_quiet() && moves.waiting_calls() == 0);
    }
}
