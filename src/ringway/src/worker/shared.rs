//! The handles of connections and streams, and what they share with the worker that hosts the connection.
//!
//! The types stand here because events carry them; the calls that the application makes on them are in `api`.

use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering, fence};
use std::sync::{Arc, OnceLock};

use crossbeam_queue::SegQueue;
use ringway_engine::crypto::client_hello::ClientHelloInfo;
use ringway_engine::wire::Version;
use ringway_types::Instant;

use super::current;
use super::events::StreamHandler;
use super::gate::Gate;
use super::hosted::Hosted;
use super::remote::{Operation, WorkerRemote};

/// Shared by all handles of one connection and its worker.
pub struct ConnectionShared {
    /// All workers by partition.
    workers: Arc<[Arc<WorkerRemote>]>,
    /// The partition that hosts the connection, or that it is on its way to.
    partition: AtomicUsize,
    /// The connection's place in the worker's table.
    place: Place,
    /// Calls of other threads, in their order; for each of them an [`Operation::Call`] is on its way to the worker.
    /// Made with the first one: most connections are called only by their own handlers.
    calls: OnceLock<Box<SegQueue<Call>>>,
    gate: Gate,
}

/// A call that waits for the worker.
type Call = Box<dyn FnOnce(&mut Hosted, Instant) + Send>;

/// What became of a call.
pub enum Called<R> {
    /// It ran at once, inside an event handler of the connection.
    Ran(R),
    /// It waits for the worker.
    Queued,
    /// The connection has ended.
    Closed,
}

impl ConnectionShared {
    /// For a connection that the worker of this partition hosts or is about to host.
    pub fn new(workers: &Arc<[Arc<WorkerRemote>]>, partition: usize) -> Arc<Self> {
        Arc::new(ConnectionShared {
            workers: Arc::clone(workers),
            partition: AtomicUsize::new(partition),
            place: Place::default(),
            calls: OnceLock::new(),
            gate: Gate::default(),
        })
    }

    /// Runs `operation` on the connection: at once if the calling thread is inside one of its event handlers, else
    /// as soon as its worker gets to it. Operations of one thread run in the order of the calls.
    pub fn call<R>(
        self: &Arc<Self>,
        operation: impl FnOnce(&mut Hosted, Instant) -> R + Send + 'static,
    ) -> Called<R> {
        self.call_then(operation, |_, _| ())
    }

    /// Like [`ConnectionShared::call`]; `then` sees the result if the operation had to wait, and the caller does not.
    pub fn call_then<R>(
        self: &Arc<Self>,
        operation: impl FnOnce(&mut Hosted, Instant) -> R + Send + 'static,
        then: impl FnOnce(R, &mut Hosted) + Send + 'static,
    ) -> Called<R> {
        if self.gate.is_closed() {
            return Called::Closed;
        }
        let operation = match current::with(self, operation) {
            Ok(result) => return Called::Ran(result),
            Err(operation) => operation,
        };
        if !self.gate.enter() {
            return Called::Closed;
        }
        let run = Box::new(move |hosted: &mut Hosted, now| {
            let result = operation(hosted, now);
            then(result, hosted);
        });
        // A connection that moves meanwhile is followed. The place is there before the call is: no call is left behind.
        let Some(place) = self.worker().reserve() else {
            self.gate.leave();
            return Called::Closed;
        };
        self.calls.get_or_init(Box::default).push(run);
        place.post(Operation::Call(Arc::clone(self)));
        Called::Queued
    }

    /// The next call to run. For the worker only, once for each [`Operation::Call`].
    pub fn next_call(&self) -> Option<impl FnOnce(&mut Hosted, Instant) + Send + use<>> {
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

    /// True if the connection belongs to these workers.
    pub fn is_of(&self, workers: &Arc<[Arc<WorkerRemote>]>) -> bool {
        Arc::ptr_eq(&self.workers, workers)
    }

    /// The worker of [`ConnectionShared::partition`].
    pub fn worker(&self) -> &Arc<WorkerRemote> {
        &self.workers[self.partition()]
    }

    /// The connection's place in the worker's table.
    pub fn place(&self) -> Option<u32> {
        self.place.get()
    }

    /// Notes where the worker holds the connection. For the worker only.
    pub fn set_place(&self, place: Option<u32>) {
        self.place.set(place);
    }

    /// Bars further calls; `ShutdownComplete` may be delivered once [`Gate::is_quiet`].
    pub fn gate(&self) -> &Gate {
        &self.gate
    }
}

/// Where something lies in a table of its worker: nowhere before it is there and after it has gone.
struct Place(AtomicU32);

const NOWHERE: u32 = u32::MAX;

impl Default for Place {
    fn default() -> Self {
        Place(AtomicU32::new(NOWHERE))
    }
}

impl Place {
    fn get(&self) -> Option<u32> {
        let place = self.0.load(Ordering::Acquire);
        (place != NOWHERE).then_some(place)
    }

    fn set(&self, place: Option<u32>) {
        self.0.store(place.unwrap_or(NOWHERE), Ordering::Release);
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
    place: Place,
    /// The stream ID plus one; 0 while it has none.
    id: AtomicU64,
    gate: Gate,
}

impl StreamShared {
    /// For a stream of `connection` that is about to be created.
    pub fn new(connection: Connection) -> Arc<Self> {
        Arc::new(StreamShared {
            connection,
            place: Place::default(),
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
    pub fn place(&self) -> Option<u32> {
        self.place.get()
    }

    /// Notes the stream's place. For the worker only.
    pub fn set_place(&self, place: Option<u32>) {
        self.place.set(place);
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

/// A stream that the peer has opened and the application has yet to accept, within the event that brings it.
pub struct IncomingStream<'a> {
    pub(crate) stream: &'a Stream,
    pub(crate) bidirectional: bool,
    pub(crate) handler: &'a mut Option<Box<dyn StreamHandler>>,
}

impl fmt::Debug for IncomingStream<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IncomingStream")
            .field("stream", self.stream)
            .finish_non_exhaustive()
    }
}

/// A connection that a client has asked for and the application has yet to accept, in the event that brings it or
/// later. Dropping it refuses the connection.
pub struct Incoming {
    pub(crate) connection: Connection,
    pub(crate) hello: ClientHelloInfo,
    pub(crate) version: Version,
    pub(crate) local: SocketAddr,
    pub(crate) remote: SocketAddr,
    pub(crate) alpn: Vec<u8>,
    /// Neither accepted nor refused yet.
    pub(crate) open: bool,
}

impl fmt::Debug for Incoming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Incoming")
            .field("connection", &self.connection)
            .field("hello", &self.hello)
            .field("remote", &self.remote)
            .finish_non_exhaustive()
    }
}
