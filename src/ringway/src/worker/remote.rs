//! What other threads see of a worker: its inbox and its waker.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crossbeam_queue::SegQueue;
use ringway_datapath::event::Waker;
use ringway_datapath::meta::ReceiveMeta;
use ringway_types::Instant;

use super::Worker;
use super::context::DeviceOperation;
use super::gate::Gate;
use super::hosted::Hosted;
use super::shared::ConnectionShared;

type OnWorker = Box<dyn FnOnce(&mut Worker, Instant) + Send>;

/// Something another thread wants done on the worker's thread.
pub enum Operation {
    /// A connection has a call to run ([`ConnectionShared::next_call`]), wherever it is by now.
    Call(Arc<ConnectionShared>),
    /// A connection that moves here.
    Arrival(Box<Hosted>),
    /// To the worker.
    Worker(OnWorker),
    /// To the device.
    Device(DeviceOperation),
    /// A datagram of a connection of this worker's that arrived at another.
    Datagram(HandedOver),
}

/// A datagram on its way from one worker to another.
pub struct HandedOver {
    /// Where it came from; its only datagram is as long as `segment_size`.
    pub meta: ReceiveMeta,
    /// The datagram.
    pub datagram: Box<[u8]>,
    /// The partition that it arrived at because of its addresses; `None` where it was brought there by its connection ID.
    pub landed: Option<usize>,
}

/// A place in the inbox of a worker that does not go before it was used or given up.
pub struct Reservation<'a>(&'a WorkerRemote);

impl Reservation<'_> {
    /// Appends an operation and wakes the worker if it sleeps.
    pub fn post(self, operation: Operation) {
        self.0.inbox.push(operation);
        let remote = self.0;
        drop(self);
        remote.waker.wake();
    }
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        self.0.gate.leave();
    }
}

/// The part of a worker that other threads may use.
pub struct WorkerRemote {
    /// Index of the worker's partition.
    pub partition: usize,
    inbox: SegQueue<Operation>,
    waker: Arc<Waker>,
    /// Datagrams in the inbox: what peers can make it hold.
    datagrams: AtomicUsize,
    /// The worker takes no more connections.
    closed: AtomicBool,
    /// Who is putting something into the inbox; closed when nobody takes anything out any more.
    gate: Gate,
}

impl WorkerRemote {
    /// For the worker of a partition that sleeps on the queue of `waker`.
    pub fn new(partition: usize, waker: Arc<Waker>) -> Self {
        WorkerRemote {
            partition,
            inbox: SegQueue::new(),
            waker,
            datagrams: AtomicUsize::new(0),
            closed: AtomicBool::new(false),
            gate: Gate::default(),
        }
    }

    /// Appends an operation and wakes the worker if it sleeps. Lock-free; never waits for the worker. False if the worker has gone:
    /// the operation is dropped.
    pub fn post(&self, operation: Operation) -> bool {
        let reservation = self.reserve();
        let is_there = reservation.is_some();
        if let Some(reservation) = reservation {
            reservation.post(operation);
        }
        is_there
    }

    /// Appends an operation that was taken out too early. For the worker only.
    pub fn put_back(&self, operation: Operation) {
        self.inbox.push(operation);
    }

    /// A place in the inbox; `None` if the worker has gone.
    pub fn reserve(&self) -> Option<Reservation<'_>> {
        self.gate.enter().then_some(Reservation(self))
    }

    /// Hands a datagram over; false if the worker already has [`HANDOVER_DATAGRAMS_MAX`] waiting.
    pub fn hand_over(&self, meta: ReceiveMeta, datagram: &[u8], landed: Option<usize>) -> bool {
        if self.datagrams.fetch_add(1, Ordering::Relaxed) >= HANDOVER_DATAGRAMS_MAX {
            self.datagrams.fetch_sub(1, Ordering::Relaxed);
            return false;
        }
        self.post(Operation::Datagram(HandedOver {
            meta,
            datagram: datagram.into(),
            landed,
        }))
    }

    /// The next operation. For the worker only.
    pub fn pop(&self) -> Option<Operation> {
        let operation = self.inbox.pop()?;
        if matches!(operation, Operation::Datagram(..)) {
            self.datagrams.fetch_sub(1, Ordering::Relaxed);
        }
        Some(operation)
    }

    /// True if nothing waits.
    pub fn is_empty(&self) -> bool {
        self.inbox.is_empty()
    }

    /// From now on the worker takes no more connections, and ends with the last one.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Release);
    }

    /// True once it takes no more connections.
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// The worker goes: when this returns, everything that was ever posted can be popped.
    pub fn shut(&self) {
        self.gate.close();
        while !self.gate.is_quiet() {
            // Somebody is at its push.
            std::hint::spin_loop();
        }
    }
}

/// The most handed-over datagrams that may wait for a worker: about a full receive burst of each of a few others.
pub const HANDOVER_DATAGRAMS_MAX: usize = 1024;
