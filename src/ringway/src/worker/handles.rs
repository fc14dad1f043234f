//! The handles of connections and streams, and the state that they share with the worker.
//!
//! The types are defined here because events carry them; the calls that applications make on them are in `api`.
//!
//! Circle with `events`, `hosted_connection`, `inbox`, `listener` and `port_lease`: because a connection's mailbox holds closures
//! over the hosted connection, which owns the handlers that receive these handles.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering, fence};
use std::sync::{Arc, OnceLock};

use crossbeam_queue::SegQueue;
use ringway_types::Instant;

use super::facts::ConnectionFacts;
use super::gate::Gate;
use super::hosted_connection::HostedConnection;
use super::inbox::{Inbox, Operation};
use super::known::{ConnectionKnown, StreamKnown};

/// The state that all handles of a connection share with its worker.
pub(crate) struct ConnectionShared {
    /// The inboxes of all workers, by partition.
    inboxes: Arc<[Arc<Inbox>]>,
    /// The partition that hosts the connection, or that it is moving to.
    partition: AtomicUsize,
    /// The connection's slot in the worker's table.
    slot_index: SlotIndex,
    /// What the application holds of it.
    holds: Holds,
    /// Calls of other threads, in order. For each of them there is an [`Operation::Call`] in the worker's inbox.
    /// Allocated with the first call: most connections are called only by their own handlers.
    calls: OnceLock<Box<SegQueue<(Instant, Call)>>>,
    gate: Gate,
    /// What calls of other threads need to know.
    pub known: ConnectionKnown,
    /// What any thread may ask.
    pub facts: ConnectionFacts,
}

/// A call that waits for the worker.
pub(super) type Call = Box<dyn FnOnce(&mut HostedConnection, Instant) + Send>;

impl ConnectionShared {
    /// For a connection between these addresses that the worker of this partition hosts or is about to host.
    pub(crate) fn new(
        inboxes: &Arc<[Arc<Inbox>]>,
        partition: usize,
        local: SocketAddr,
        remote: SocketAddr,
    ) -> Arc<Self> {
        Arc::new(ConnectionShared {
            inboxes: Arc::clone(inboxes),
            partition: AtomicUsize::new(partition),
            slot_index: SlotIndex::default(),
            holds: Holds::default(),
            calls: OnceLock::new(),
            gate: Gate::default(),
            known: ConnectionKnown::new(i64::MAX),
            facts: ConnectionFacts::new(local, remote),
        })
    }

    /// Queues a call for the worker; false if the worker has gone.
    pub(super) fn queue_call(self: &Arc<Self>, call: Call, priority: bool) -> bool {
        // A connection that moves meanwhile is followed. The permit comes first, so that no call is left behind.
        let Some(permit) = self.inbox().reserve() else {
            return false;
        };
        let posted = self.inbox().turn();
        self.calls.get_or_init(Box::default).push((posted, call));
        let shared = Arc::clone(self);
        permit.post(if priority {
            Operation::PriorityCalls(shared)
        } else {
            Operation::Call(shared)
        });
        true
    }

    /// Takes the next call, with the worker's turn in which it was made. For the worker only, once for each [`Operation::Call`].
    pub(crate) fn next_call(
        &self,
    ) -> Option<(
        Instant,
        impl FnOnce(&mut HostedConnection, Instant) + Send + use<>,
    )> {
        self.calls.get()?.pop()
    }

    /// How many calls wait for the worker.
    pub(crate) fn waiting_calls(&self) -> usize {
        self.calls.get().map_or(0, |calls| calls.len())
    }

    /// The partition that hosts the connection, or that it is moving to.
    pub(crate) fn partition(&self) -> usize {
        self.partition.load(Ordering::Acquire)
    }

    /// Records the partition that the connection moves to. For the worker only.
    pub(crate) fn set_partition(&self, partition: usize) {
        self.partition.store(partition, Ordering::Release);
    }

    /// True if these are the inboxes of the connection's registration.
    pub(crate) fn belongs_to(&self, inboxes: &Arc<[Arc<Inbox>]>) -> bool {
        Arc::ptr_eq(&self.inboxes, inboxes)
    }

    /// The inbox of the worker of [`ConnectionShared::partition`].
    pub(crate) fn inbox(&self) -> &Arc<Inbox> {
        &self.inboxes[self.partition()]
    }

    /// The connection's slot in the worker's table, while it has one.
    pub(crate) fn slot_index(&self) -> Option<u32> {
        self.slot_index.get()
    }

    /// Records the connection's slot. For the worker only.
    pub(crate) fn set_slot_index(&self, index: Option<u32>) {
        self.slot_index.set(index);
    }

    /// It is to end for want of handles.
    pub(super) fn is_unheld(&self) -> bool {
        self.holds.is_unheld()
    }

    /// Once it is closed, no call enters; `ShutdownComplete` may be delivered when [`Gate::is_quiet`].
    pub(crate) fn gate(&self) -> &Gate {
        &self.gate
    }
}

/// The index of a slot in a table of the worker. There is none before the item is in the table, nor after it has been
/// removed.
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

/// How many handles the application holds of an object, in units of [`ONE_HANDLE`], and what becomes of the object with the last of them.
#[derive(Default)]
struct Holds(AtomicU32);

/// It ends.
const ATTACHED: u32 = 1;
/// The peer gets credit for another stream, if the object has ended.
const CREDIT: u32 = 2;
/// It has ended.
const ENDED: u32 = 4;
const ONE_HANDLE: u32 = 8;

/// What follows when a handle is dropped.
#[derive(PartialEq, Eq)]
enum Last {
    Nothing,
    End,
    Credit,
}

impl Holds {
    fn add(&self) {
        self.0.fetch_add(ONE_HANDLE, Ordering::Relaxed);
    }

    #[inline]
    fn remove(&self) -> Last {
        let left = self.0.fetch_sub(ONE_HANDLE, Ordering::AcqRel) - ONE_HANDLE;
        match left {
            _ if left >= ONE_HANDLE => Last::Nothing,
            _ if left & (CREDIT | ENDED) == CREDIT | ENDED => Last::Credit,
            _ if left & (ATTACHED | ENDED) == ATTACHED => Last::End,
            _ => Last::Nothing,
        }
    }

    /// It is to end, as it was to when the last handle was dropped: handlers may have made others since, or detached it.
    fn is_unheld(&self) -> bool {
        let holds = self.0.load(Ordering::Acquire);
        holds < ONE_HANDLE && holds & (ATTACHED | ENDED) == ATTACHED
    }

    /// The object has ended. True if its credit is to be given at once.
    fn end(&self) -> bool {
        let before = self.0.fetch_or(ENDED, Ordering::AcqRel);
        before & CREDIT != 0 && before < ONE_HANDLE
    }

    /// There is one handle, the first, and the object is attached to it. Where no other thread can reach it.
    fn begin_attached(&self) {
        self.0.store(ONE_HANDLE | ATTACHED, Ordering::Relaxed);
    }

    fn attach(&self) {
        self.0.fetch_or(ATTACHED, Ordering::AcqRel);
    }

    fn detach(&self) {
        self.0.fetch_and(!ATTACHED, Ordering::AcqRel);
    }

    /// For another object. Where no other thread can reach it.
    fn reset(&self) {
        self.0.store(0, Ordering::Relaxed);
    }
}

/// Who holds a handle: those of the worker, which handlers are given a reference to, do not keep an object.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Holder {
    Application,
    Worker,
}

/// A handle of a connection. Cheap to clone, and usable from any thread; calls never block.
///
/// Calls made inside an event handler of the connection, or of one of its streams, or [within the connection](Connection::enter), take effect at
/// once. Other calls are queued to the connection's worker; those of one thread run in the order in which it made them. After
/// `ShutdownComplete`, calls return [`Closed`](crate::CallError::Closed).
///
/// # Dropping
///
/// A connection that [`Connection::start`] has opened is attached to its handles: it ends, as by
/// [`shutdown(0)`](Connection::shutdown), when the last of them is dropped, on whichever thread. The `&Connection` that handlers are given is none
/// of them; clones of it are, and so is one that a handler owns. Handles of streams are not. [`Connection::detach`] lets the connection live on
/// without handles, until it is shut down or its peer ends it. So does one that a server has [accepted](crate::Incoming::accept) from the
/// beginning; [`Connection::attach`] changes that.
pub struct Connection(pub(crate) Arc<ConnectionShared>, Holder);

impl Connection {
    /// The first handle of the application, to which the connection is attached.
    pub(crate) fn attached(shared: Arc<ConnectionShared>) -> Self {
        shared.holds.begin_attached();
        Connection(shared, Holder::Application)
    }

    /// A handle of the application.
    pub(crate) fn of_application(shared: Arc<ConnectionShared>) -> Self {
        shared.holds.add();
        Connection(shared, Holder::Application)
    }

    /// A handle that keeps nothing.
    pub(crate) fn of_worker(shared: &Arc<ConnectionShared>) -> Self {
        Connection(Arc::clone(shared), Holder::Worker)
    }

    /// The connection lives on without handles.
    pub fn detach(&self) {
        self.0.holds.detach();
    }

    /// The connection ends with its last handle, from now on.
    pub fn attach(&self) {
        self.0.holds.attach();
    }
}

impl Clone for Connection {
    fn clone(&self) -> Self {
        Self::of_application(Arc::clone(&self.0))
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        if self.1 == Holder::Application && self.0.holds.remove() == Last::End {
            self.0.end_unheld();
        }
    }
}

impl PartialEq for Connection {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Connection {}

impl Hash for Connection {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.facts.number.hash(state);
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Connection({})", self.0.facts.number)
    }
}

/// The state that all handles of a stream share with its worker.
pub(crate) struct StreamShared {
    /// The connection of the stream.
    pub connection: Connection,
    /// The stream's slot in the connection's table of streams.
    slot_index: SlotIndex,
    /// What the application holds of it.
    holds: Holds,
    /// The stream ID plus one; 0 while there is none.
    id: AtomicU64,
    gate: Gate,
    /// What calls of other threads need to know.
    pub known: StreamKnown,
}

impl StreamShared {
    /// For a stream of `connection` that is about to be created.
    pub(crate) fn new(connection: &Connection, known: StreamKnown) -> Arc<Self> {
        Arc::new(StreamShared {
            connection: Connection::of_worker(&connection.0),
            slot_index: SlotIndex::default(),
            holds: Holds::default(),
            id: AtomicU64::new(0),
            gate: Gate::default(),
            known,
        })
    }

    /// True if the worker holds the only handle. If so, it also sees everything that was done with the handles that
    /// have gone.
    fn is_alone(self: &Arc<Self>) -> bool {
        // A handle is only ever cloned from another one, so no other thread can make one now. Not `Arc::get_mut`, which
        // locks the bus.
        let alone = Arc::strong_count(self) == 1;
        fence(Ordering::Acquire);
        alone
    }

    /// Resets this state for another stream of the same connection, if the worker holds the only handle; false
    /// otherwise.
    pub(crate) fn renew(self: &Arc<Self>) -> bool {
        if self.is_alone() {
            self.id.store(0, Ordering::Relaxed);
            self.holds.reset();
            self.gate.reopen_unshared();
            return true;
        }
        false
    }

    /// Bars further calls of other threads; the last event may be delivered when [`Gate::is_quiet`].
    pub(crate) fn close(self: &Arc<Self>) {
        if self.is_alone() {
            self.gate.close_unshared();
        } else {
            self.gate.close();
        }
    }

    /// The stream ID, once the stream has started.
    pub(crate) fn id(&self) -> Option<u64> {
        self.id.load(Ordering::Acquire).checked_sub(1)
    }

    /// Records the stream ID. For the worker only.
    pub(crate) fn set_id(&self, id: u64) {
        self.id.store(id + 1, Ordering::Release);
    }

    /// The stream's slot in the connection's table, while it has one.
    pub(crate) fn slot_index(&self) -> Option<u32> {
        self.slot_index.get()
    }

    /// Records the stream's slot. For the worker only.
    pub(crate) fn set_slot_index(&self, index: Option<u32>) {
        self.slot_index.set(index);
    }

    /// It is to end for want of handles.
    pub(super) fn is_unheld(&self) -> bool {
        self.holds.is_unheld()
    }

    /// The peer gets credit for another stream with the last handle, not with the end. For the worker, or a handler of the connection.
    pub(crate) fn hold_credit(&self) {
        self.holds.0.fetch_or(CREDIT, Ordering::AcqRel);
    }

    /// The stream has ended. True if the credit for it that was held is to be given at once. For the worker only.
    pub(crate) fn end_holds(&self) -> bool {
        self.holds.0.load(Ordering::Relaxed) & CREDIT != 0 && self.holds.end()
    }

    /// The stream or its connection has ended, or is about to.
    pub(crate) fn is_closed(&self) -> bool {
        self.gate.is_closed() || self.connection.0.gate.is_closed()
    }

    /// Calls of other threads pass through this gate. It closes before `ShutdownComplete`.
    pub(crate) fn gate(&self) -> &Gate {
        &self.gate
    }
}

/// A handle of a stream. Cheap to clone, and usable from any thread; calls never block, and take effect as those of
/// [`Connection`] do.
///
/// # Dropping
///
/// A stream that [`Stream::open`] has opened is attached to its handles: when the last of them is dropped, on whichever thread, both directions are
/// aborted with code 0, but for what the application has finished itself: a sending side that was ended with `FIN` or
/// [`Graceful`](crate::StreamShutdown::Graceful) goes on until the peer has everything, on a stream that was started. The `&Stream` that handlers
/// are given is none of these handles; clones of it are. [`Stream::detach`] lets the stream live on without handles: its handler alone has to do
/// with it then, as with a stream of the peer that was [accepted](crate::IncomingStream::accept), which [`Stream::attach`] changes.
pub struct Stream(pub(crate) Arc<StreamShared>, Holder);

impl Stream {
    /// The first handle of the application, to which the stream is attached.
    pub(crate) fn attached(shared: Arc<StreamShared>) -> Self {
        shared.holds.begin_attached();
        Stream(shared, Holder::Application)
    }

    /// A handle that keeps nothing.
    pub(crate) fn of_worker(shared: Arc<StreamShared>) -> Self {
        Stream(shared, Holder::Worker)
    }

    /// The stream lives on without handles.
    pub fn detach(&self) {
        self.0.holds.detach();
    }

    /// The stream ends with its last handle, from now on.
    pub fn attach(&self) {
        self.0.holds.attach();
    }
}

impl Clone for Stream {
    fn clone(&self) -> Self {
        self.0.holds.add();
        Stream(Arc::clone(&self.0), Holder::Application)
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if self.1 != Holder::Application {
            return;
        }
        match self.0.holds.remove() {
            Last::Nothing => {}
            Last::End => self.0.end_unheld(),
            Last::Credit => self.0.give_credit(),
        }
    }
}

impl PartialEq for Stream {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Stream {}

impl Hash for Stream {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Arc::as_ptr(&self.0).hash(state);
    }
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Stream({:?} of {:?})", self.0.id(), self.0.connection)
    }
}
