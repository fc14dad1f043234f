//! The handles of connections and streams, and what they share with the worker that hosts the connection.
//!
//! The types stand here because events carry them; the calls that the application makes on them are in `api`.

use std::fmt;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering, fence};
use std::sync::{Arc, OnceLock};

use crossbeam_queue::SegQueue;
use ringway_types::Instant;

use super::gate::Gate;
use super::hosted_connection::HostedConnection;
use super::inbox::{Inbox, Operation};

/// Shared by all handles of one connection and its worker.
pub struct ConnectionShared {
    /// All inboxes by partition.
    inboxes: Arc<[Arc<Inbox>]>,
    /// The partition that hosts the connection, or that it is on its way to.
    partition: AtomicUsize,
    /// The connection's place in the worker's table.
    slot_index: SlotIndex,
    /// Calls of other threads, in their order; for each of them an [`Operation::Call`] is on its way to the worker.
    /// Made with the first one: most connections are called only by their own handlers.
    calls: OnceLock<Box<SegQueue<Call>>>,
    gate: Gate,
}

/// A call that waits for the worker.
pub(super) type Call = Box<dyn FnOnce(&mut HostedConnection, Instant) + Send>;

impl ConnectionShared {
    /// For a connection that the worker of this partition hosts or is about to host.
    pub fn new(inboxes: &Arc<[Arc<Inbox>]>, partition: usize) -> Arc<Self> {
        Arc::new(ConnectionShared {
            inboxes: Arc::clone(inboxes),
            partition: AtomicUsize::new(partition),
            slot_index: SlotIndex::default(),
            calls: OnceLock::new(),
            gate: Gate::default(),
        })
    }

    /// Queues a call for the worker; false if the worker has gone.
    pub(super) fn queue_call(self: &Arc<Self>, call: Call) -> bool {
        // A connection that moves meanwhile is followed. The permit comes first, so that no call is left behind.
        let Some(permit) = self.inbox().reserve() else {
            return false;
        };
        self.calls.get_or_init(Box::default).push(call);
        permit.post(Operation::Call(Arc::clone(self)));
        true
    }

    /// The next call to run. For the worker only, once for each [`Operation::Call`].
    pub fn next_call(&self) -> Option<impl FnOnce(&mut HostedConnection, Instant) + Send + use<>> {
        self.calls.get()?.pop()
    }

    /// The partition that hosts the connection, or that it is on its way to.
    pub fn partition(&self) -> usize {
        self.partition.load(Ordering::Acquire)
    }

    /// The connection goes to this partition. For the worker only.
    pub fn set_partition(&self, partition: usize) {
        self.partition.store(partition, Ordering::Release);
    }

    /// True if the connection belongs to these inboxes.
    pub fn belongs_to(&self, inboxes: &Arc<[Arc<Inbox>]>) -> bool {
        Arc::ptr_eq(&self.inboxes, inboxes)
    }

    /// The worker of [`ConnectionShared::partition`].
    pub fn inbox(&self) -> &Arc<Inbox> {
        &self.inboxes[self.partition()]
    }

    /// The connection's place in the worker's table.
    pub fn slot_index(&self) -> Option<u32> {
        self.slot_index.get()
    }

    /// Notes where the worker holds the connection. For the worker only.
    pub fn set_slot_index(&self, index: Option<u32>) {
        self.slot_index.set(index);
    }

    /// Bars further calls; `ShutdownComplete` may be delivered once [`Gate::is_quiet`].
    pub fn gate(&self) -> &Gate {
        &self.gate
    }
}

/// Where something lies in a table of its worker: nowhere before it is there and after it has gone.
struct SlotIndex(AtomicU32);

const NO_SLOT: u32 = u32::MAX;

impl Default for SlotIndex {
    fn default() -> Self {
        SlotIndex(AtomicU32::new(NO_SLOT))
    }
}

impl SlotIndex {
    fn get(&self) -> Option<u32> {
        let index = self.0.load(Ordering::Acquire);
        (index != NO_SLOT).then_some(index)
    }

    fn set(&self, index: Option<u32>) {
        self.0.store(index.unwrap_or(NO_SLOT), Ordering::Release);
    }
}

/// A handle of a connection. Cheap to clone; any thread may use it; calls never block.
///
/// Calls made inside an event handler of the connection or of one of its streams act at once. Calls made
/// elsewhere are queued to the connection's worker and act in the order in which one thread made them. After `ShutdownComplete`
/// they answer [`Closed`](crate::CallError::Closed). Dropping handles does not end the connection.
#[derive(Clone)]
pub struct Connection(pub(crate) Arc<ConnectionShared>);

impl PartialEq for Connection {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Connection {}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Connection({:p})", Arc::as_ptr(&self.0))
    }
}

/// Shared by all handles of one stream and its worker.
pub struct StreamShared {
    /// The connection that the stream belongs to.
    pub connection: Connection,
    /// The stream's place in the connection's table of handlers.
    slot_index: SlotIndex,
    /// The stream ID plus one; 0 while it has none.
    id: AtomicU64,
    gate: Gate,
}

impl StreamShared {
    /// For a stream of `connection` that is about to be created.
    pub fn new(connection: Connection) -> Arc<Self> {
        Arc::new(StreamShared {
            connection,
            slot_index: SlotIndex::default(),
            id: AtomicU64::new(0),
            gate: Gate::default(),
        })
    }

    /// True if the worker has the only handle. What those that have gone did is seen then.
    fn is_alone(self: &Arc<Self>) -> bool {
        // Handles come from other handles: where there is no other, no other thread makes one. Not `Arc::get_mut`, which locks the bus.
        let alone = Arc::strong_count(self) == 1;
        fence(Ordering::Acquire);
        alone
    }

    /// Becomes that of another stream of the same connection, which has no place yet, if the worker has the only handle; else gives false.
    pub fn renew(self: &Arc<Self>) -> bool {
        if self.is_alone() {
            self.id.store(0, Ordering::Relaxed);
            self.gate.reopen_unshared();
            return true;
        }
        false
    }

    /// Bars further calls of other threads; the last event may be delivered once [`Gate::is_quiet`].
    pub fn close(self: &Arc<Self>) {
        if self.is_alone() {
            self.gate.close_unshared();
        } else {
            self.gate.close();
        }
    }

    /// The stream ID, once the stream has started.
    pub fn id(&self) -> Option<u64> {
        self.id.load(Ordering::Acquire).checked_sub(1)
    }

    /// Notes the stream ID. For the worker only.
    pub fn set_id(&self, id: u64) {
        self.id.store(id + 1, Ordering::Release);
    }

    /// The stream's place in the connection's table of handlers.
    pub fn slot_index(&self) -> Option<u32> {
        self.slot_index.get()
    }

    /// Notes the stream's place. For the worker only.
    pub fn set_slot_index(&self, index: Option<u32>) {
        self.slot_index.set(index);
    }

    /// Calls of other threads on the stream pass through this gate; it closes before `ShutdownComplete`.
    pub fn gate(&self) -> &Gate {
        &self.gate
    }
}

/// A handle of a stream. Cheap to clone; any thread may use it; calls never block and act as those of [`Connection`] do.
///
/// Dropping handles does not end the stream.
#[derive(Clone)]
pub struct Stream(pub(crate) Arc<StreamShared>);

impl PartialEq for Stream {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Stream {}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Stream({:?} of {:?})", self.0.id(), self.0.connection)
    }
}
