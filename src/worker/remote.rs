//! What other threads see of a worker: its inbox and its waker.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crossbeam_queue::SegQueue;
use ringway_datapath::event::Waker;
use ringway_datapath::meta::ReceiveMeta;

use super::Worker;
use super::context::DeviceOperation;
use super::gate::Gate;
use super::hosted::Hosted;
use super::shared::ConnectionShared;
use crate::base::Instant;

type OnConnection = Box<dyn FnOnce(&mut Hosted, Instant) + Send>;
type OnWorker = Box<dyn FnOnce(&mut Worker, Instant) + Send>;

/// Something another thread wants done on the worker's thread.
pub enum Operation {
    /// To one connection. Does nothing if the connection has gone.
    Connection(Arc<ConnectionShared>, OnConnection),
    /// To the worker.
    Worker(OnWorker),
    /// To the device.
    Device(DeviceOperation),
    /// A datagram whose connection ID names this worker's partition, but which arrived at another.
    Datagram(ReceiveMeta, Box<[u8]>),
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
        if !self.gate.enter() {
            return false;
        }
        self.inbox.push(operation);
        self.gate.leave();
        self.waker.wake();
        true
    }

    /// Hands a datagram over; false if the worker already has [`HANDOVER_DATAGRAMS_MAX`] waiting.
    pub fn hand_over(&self, meta: ReceiveMeta, datagram: &[u8]) -> bool {
        if self.datagrams.fetch_add(1, Ordering::Relaxed) >= HANDOVER_DATAGRAMS_MAX {
            self.datagrams.fetch_sub(1, Ordering::Relaxed);
            return false;
        }
        self.post(Operation::Datagram(meta, datagram.into()))
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
