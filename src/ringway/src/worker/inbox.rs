//! What other threads see of a worker: its inbox and its waker.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crossbeam_queue::SegQueue;
use ringway_datapath::device::Device;
use ringway_datapath::event::Waker;
use ringway_datapath::meta::ReceiveMeta;
use ringway_datapath::port::BoundPort;
use ringway_engine::connection::PathAddress;
use ringway_engine::connection::config::Config;
use ringway_engine::crypto::tls::ClientTls;
use ringway_engine::wire::cid::ConnectionId;
use ringway_types::PortId;
use rustls::pki_types::ServerName;

use super::events::ConnectionHandler;
use super::gate::Gate;
use super::handles::{Connection, ConnectionShared};
use super::hosted_connection::HostedConnection;
use super::listener::{ListenerEntry, ListenerShared};
use super::token_store::TokenStore;

/// Something another thread wants done on the worker's thread.
pub enum Operation {
    /// A connection has a call to run ([`ConnectionShared::next_call`]), wherever it is by now.
    Call(Arc<ConnectionShared>),
    /// A datagram of a connection of this worker's that arrived at another.
    Datagram(HandedOverDatagram),
    /// Opens a connection.
    OpenConnection(Box<ClientStart>),
    /// Takes in a connection that moves here.
    MoveIn(Box<HostedConnection>),
    /// Forgets connection IDs of connections that moved away.
    ForgetMovedCids(Vec<ConnectionId>),
    /// Begins to listen on a port of the device.
    AddListener(ListenerEntry),
    /// Stops listening. Connections live on.
    RemoveListener(Arc<ListenerShared>),
    /// Shuts down every connection with this application error code.
    ShutdownConnections(u64),
    /// Takes no more connections, and ends with the last one.
    Stop,
    /// To the device.
    Device(DeviceOperation),
}

/// What a worker makes a connection of that the application opens.
pub struct ClientStart {
    /// The handle. Its calls find the connection as soon as this has run.
    pub connection: Connection,
    /// What the connection may do.
    pub config: Arc<Config>,
    /// TLS configuration.
    pub tls: ClientTls,
    /// The name that the server's certificate must have.
    pub server_name: ServerName<'static>,
    /// The addresses to use.
    pub path: PathAddress,
    /// The application's handler.
    pub handler: Box<dyn ConnectionHandler>,
    /// Tokens of servers.
    pub tokens: Arc<TokenStore>,
}

/// What the context does itself, on the device, rather than the worker.
pub enum DeviceOperation {
    /// Takes a bound port in.
    Attach(PortId, BoundPort),
    /// Gives a port up.
    Detach(PortId),
}

impl DeviceOperation {
    /// Carries it out.
    pub fn run(self, device: &mut Device) {
        match self {
            DeviceOperation::Attach(id, port) => {
                if let Err(error) = device.attach(id, port) {
                    tracing::error!(%error, ?id, "the device cannot take the port: nothing arrives on it");
                }
            }
            DeviceOperation::Detach(id) => device.detach(id),
        }
    }
}

/// A datagram on its way from one worker to another.
pub struct HandedOverDatagram {
    /// Where it came from; its only datagram is as long as `segment_size`.
    pub meta: ReceiveMeta,
    /// The datagram.
    pub datagram: Box<[u8]>,
    /// The partition where RSS put it; `None` where its connection ID brought it there.
    pub rss_partition: Option<usize>,
}

/// A place in the inbox of a worker that does not go before it was used or given up.
pub struct Permit<'a>(&'a Inbox);

impl Permit<'_> {
    /// Appends an operation and wakes the worker if it sleeps.
    pub fn post(self, operation: Operation) {
        self.0.queue.push(operation);
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

/// The part of a worker that other threads may use.
pub struct Inbox {
    /// Index of the worker's partition.
    pub partition: usize,
    queue: SegQueue<Operation>,
    waker: Arc<Waker>,
    /// Datagrams in the inbox: what peers can make it hold.
    datagrams: AtomicUsize,
    /// The worker takes no more connections.
    stopping: AtomicBool,
    /// Who is putting something into the inbox; closed when nobody takes anything out any more.
    gate: Gate,
}

impl Inbox {
    /// For the worker of a partition that sleeps on the queue of `waker`.
    pub fn new(partition: usize, waker: Arc<Waker>) -> Self {
        Inbox {
            partition,
            queue: SegQueue::new(),
            waker,
            datagrams: AtomicUsize::new(0),
            stopping: AtomicBool::new(false),
            gate: Gate::default(),
        }
    }

    /// Appends an operation and wakes the worker if it sleeps. Lock-free; never waits for the worker. False if the worker has gone:
    /// the operation is dropped.
    pub fn post(&self, operation: Operation) -> bool {
        let permit = self.reserve();
        let is_there = permit.is_some();
        if let Some(permit) = permit {
            permit.post(operation);
        }
        is_there
    }

    /// Appends an operation that was taken out too early. For the worker only.
    pub fn requeue(&self, operation: Operation) {
        self.queue.push(operation);
    }

    /// A place in the inbox; `None` if the worker has gone.
    pub fn reserve(&self) -> Option<Permit<'_>> {
        self.gate.enter().then_some(Permit(self))
    }

    /// Hands a datagram over; false if the worker already has [`HANDOVER_DATAGRAMS_MAX`] waiting.
    pub fn hand_over(&self, meta: ReceiveMeta, datagram: &[u8], rss_partition: Option<usize>) -> bool {
        if self.datagrams.fetch_add(1, Ordering::Relaxed) >= HANDOVER_DATAGRAMS_MAX {
            self.datagrams.fetch_sub(1, Ordering::Relaxed);
            return false;
        }
        self.post(Operation::Datagram(HandedOverDatagram {
            meta,
            datagram: datagram.into(),
            rss_partition,
        }))
    }

    /// The next operation. For the worker only.
    pub fn pop(&self) -> Option<Operation> {
        let operation = self.queue.pop()?;
        if matches!(operation, Operation::Datagram(..)) {
            self.datagrams.fetch_sub(1, Ordering::Relaxed);
        }
        Some(operation)
    }

    /// True if nothing waits.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// From now on the worker takes no more connections, and ends with the last one.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
    }

    /// True once it takes no more connections.
    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    /// The worker goes: when this returns, everything that was ever posted can be popped.
    pub fn close(&self) {
        self.gate.close();
        while !self.gate.is_quiet() {
            // Somebody is at its push.
            std::hint::spin_loop();
        }
    }
}

/// The most handed-over datagrams that may wait for a worker: about a full receive burst of each of a few others.
pub const HANDOVER_DATAGRAMS_MAX: usize = 1024;
