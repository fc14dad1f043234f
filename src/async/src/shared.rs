//! What the handles of a connection, in tasks, share with its handler, on the worker's thread.
//!
//! What tasks want on the thread that drives the connection's context is done at once ([`ConnectionShared::at_once`]). On other threads it goes into
//! one list of commands without a lock; the handler is notified once, and carries out all that there is. What comes up lies in the slots of streams
//! and in lists, and tasks are woken when the worker's turn ends.
//!
//! Circle with `turn`: because the command that opens a stream carries its handler's reference, whose drop is told at the end of the turn, as is
//! that a connection has streams to accept.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering, fence};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use crossbeam_queue::SegQueue;
use ringway::{Connection as Callback, ConnectionStats, REASON_PHRASE_MAX};

use crate::error::ConnectionError;
use crate::stream_call::StreamCall;
use crate::stream_ref::StreamRef;
use crate::turn::WorkerStream;
use crate::var_int::Dir;
use crate::waiters::Waiters;

/// What a task wants of the worker.
pub(crate) enum Command {
    /// Our next stream of its kind begins. Wherever the command is dropped, the stream ends.
    Open {
        stream: WorkerStream,
        early: bool,
    },
    Call {
        stream: StreamRef,
        call: StreamCall,
    },
    Datagram {
        data: Bytes,
        early: bool,
    },
}

/// Our streams of one kind.
#[derive(Default)]
pub(crate) struct Opening {
    /// How many were opened.
    opened: AtomicU64,
    /// How many the peer allows.
    allowed: AtomicU64,
    /// How many were started. For the worker only.
    started: AtomicU64,
    pub(crate) waiters: Waiters,
}

impl Opening {
    /// The number of the next stream, if the peer allows it.
    pub(crate) fn take(&self) -> Option<u64> {
        let allowed = self.allowed.load(Ordering::Acquire);
        let next = |opened: u64| (opened < allowed).then_some(opened + 1);
        self.opened
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, next)
            .ok()
    }

    /// The peer allows another one.
    pub(crate) fn is_allowed(&self) -> bool {
        self.opened.load(Ordering::Relaxed) < self.allowed.load(Ordering::Acquire)
    }

    /// How many were started. For the worker only.
    pub(crate) fn started(&self) -> u64 {
        self.started.load(Ordering::Relaxed)
    }

    /// The next one is started. For the worker only.
    pub(crate) fn on_started(&self) {
        self.started.store(self.started() + 1, Ordering::Relaxed);
    }

    /// The peer allows so many in all. For the worker only.
    pub(crate) fn allow(&self, count: u64) {
        if self.allowed.fetch_max(count, Ordering::AcqRel) < count {
            self.waiters.wake();
        }
    }
}

/// Streams of the peer of one kind that wait for the application.
#[derive(Default)]
pub(crate) struct Accepting {
    pub(crate) streams: SegQueue<StreamRef>,
    pub(crate) waiters: Waiters,
    /// Of these, the ones that have ended meanwhile.
    over: AtomicUsize,
}

impl Accepting {
    /// The next one.
    pub(crate) fn take(&self) -> Option<StreamRef> {
        let stream = self.streams.pop()?;
        stream.accepted.store(true, Ordering::Relaxed);
        Some(stream)
    }

    /// A bidirectional one has ended that the application has not got: the peer has reset it, or has asked and wants no answer. When these are many,
    /// they are dropped: a peer that opens and resets streams
    /// without end fills no memory. For the worker only.
    pub(crate) fn on_over(&self) {
        let over = self.over.load(Ordering::Relaxed) + 1;
        self.over.store(over, Ordering::Relaxed);
        if over < OVER_MAX {
            return;
        }
        self.over.store(0, Ordering::Relaxed);
        for _ in 0..self.streams.len() {
            let Some(stream) = self.streams.pop() else { break };
            if !stream.over.load(Ordering::Relaxed) {
                self.streams.push(stream);
            }
        }
        // A task may have looked while those that live were out of the list.
        self.waiters.wake();
    }
}

/// So many ended streams may lie among those that wait.
const OVER_MAX: usize = 256;

/// What the handles of a connection share with its handler.
pub(crate) struct ConnectionShared {
    /// Set before there are handles.
    pub(crate) callback: OnceLock<Callback>,
    pub(crate) is_client: bool,
    pub(crate) commands: SegQueue<Command>,
    /// Sends wait for room in the connection's send queue. For the worker only.
    pub(crate) blocked: AtomicBool,
    /// Of bidirectional and of unidirectional streams.
    pub(crate) opening: [Opening; 2],
    pub(crate) accepting: [Accepting; 2],
    /// How much of a stream may be queued.
    pub(crate) ideal_send: AtomicU64,
    pub(crate) datagrams: Datagrams,
    /// The handshake is complete, and whether 0-RTT was accepted.
    pub(crate) connected: OnceLock<bool>,
    pub(crate) connecting: Waiters,
    end: OnceLock<ConnectionError>,
    /// The last counters.
    pub(crate) last_stats: OnceLock<ConnectionStats>,
    pub(crate) closed: Waiters,
    /// Its handler has gone: nothing more comes.
    over: AtomicBool,
}

/// Datagrams of a connection.
#[derive(Default)]
pub(crate) struct Datagrams {
    /// The largest that can be sent; 0: none, or none as far as is known.
    pub(crate) max_len: AtomicUsize,
    /// What the peer takes is known.
    pub(crate) known: AtomicBool,
    /// Those that were given to send and have not left.
    waiting: AtomicUsize,
    pub(crate) senders: Waiters,
    pub(crate) received: SegQueue<Bytes>,
    /// Received ones that nobody has read in time.
    pub(crate) dropped: AtomicU64,
    pub(crate) readers: Waiters,
}

impl Datagrams {
    /// Takes a place among those that wait to be sent, if there is one. Who finds none changes nothing: the next that leaves is then told apart.
    pub(crate) fn take_place(&self) -> bool {
        let next = |waiting: usize| (waiting < DATAGRAMS_MAX).then_some(waiting + 1);
        self.waiting
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, next)
            .is_ok()
    }

    /// What `max_len` says holds. For the worker only.
    pub(crate) fn set_known(&self) {
        if !self.known.load(Ordering::Relaxed) {
            self.known.store(true, Ordering::Release);
            self.senders.wake();
        }
    }

    /// One has left, or will never be sent. For the worker only.
    pub(crate) fn on_left(&self) {
        if self.waiting.fetch_sub(1, Ordering::AcqRel) == DATAGRAMS_MAX {
            self.senders.wake();
        }
    }
}

/// So many datagrams wait to be sent, or to be read.
pub(crate) const DATAGRAMS_MAX: usize = 1024;

impl ConnectionShared {
    pub(crate) fn new(is_client: bool) -> Arc<Self> {
        Arc::new(ConnectionShared {
            callback: OnceLock::new(),
            is_client,
            commands: SegQueue::new(),
            blocked: AtomicBool::new(false),
            opening: Default::default(),
            accepting: Default::default(),
            ideal_send: AtomicU64::new(IDEAL_SEND_FIRST),
            datagrams: Datagrams::default(),
            connected: OnceLock::new(),
            connecting: Waiters::default(),
            end: OnceLock::new(),
            last_stats: OnceLock::new(),
            closed: Waiters::default(),
            over: AtomicBool::new(false),
        })
    }

    /// Calls of the callback API take effect at once within this; false, and nothing is called, where they cannot: on other threads than that which
    /// drives the connection's context, in its turns, and as long as commands or sends wait, which come first.
    pub(crate) fn at_once(&self, calls: impl FnOnce(&Callback)) -> bool {
        if self.blocked.load(Ordering::Relaxed) || !self.commands.is_empty() {
            return false;
        }
        let callback = self.callback.get();
        callback.is_some_and(|callback| callback.enter(|| calls(callback)))
    }

    /// Calls a stream, at once or when the worker gets to it. If the connection has ended, nothing happens.
    pub(crate) fn call(&self, stream: &StreamRef, mut call: StreamCall) {
        if self.end.get().is_some() {
            return;
        }
        let mut is_done = false;
        self.at_once(|_| is_done = call.carry_out(stream));
        if !is_done {
            let stream = stream.clone();
            self.command(Command::Call { stream, call });
        }
    }

    /// A client whose handshake is not complete.
    pub(crate) fn is_early(&self) -> bool {
        self.is_client && self.connected.get().is_none()
    }

    /// Has the worker carry out a command. If the connection has ended, nothing happens.
    pub(crate) fn command(&self, command: Command) {
        if self.end.get().is_some() {
            return;
        }
        self.commands.push(command);
        // Either this finds that the handler has gone, or who tells so finds the command.
        fence(Ordering::SeqCst);
        if self.is_over() {
            return self.drop_commands();
        }
        if let Some(callback) = self.callback.get() {
            // `Err`: it has ended, and takes the commands with it.
            let _ = callback.notify();
        }
    }

    /// Why it has ended, if it has.
    pub(crate) fn end(&self) -> Option<&ConnectionError> {
        self.end.get()
    }

    /// Why it has ended: for whoever knows that it has.
    pub(crate) fn lost(&self) -> ConnectionError {
        self.end.get().cloned().unwrap_or(ConnectionError::LocallyClosed)
    }

    /// It has ended; the first reason holds.
    pub(crate) fn set_end(&self, reason: ConnectionError) {
        if self.end.set(reason).is_ok() {
            self.wake_everybody();
        }
    }

    fn wake_everybody(&self) {
        self.opening.iter().for_each(|opening| opening.waiters.wake());
        self.accepting
            .iter()
            .for_each(|accepting| accepting.waiters.wake());
        self.datagrams.senders.wake();
        self.datagrams.readers.wake();
        self.connecting.wake();
        self.closed.wake();
    }

    /// Closes it, if it has not ended yet.
    pub(crate) fn close(&self, code: u64, reason: &[u8]) {
        if self.end.get().is_some() {
            return;
        }
        let text = String::from_utf8_lossy(reason);
        let fits = |&len: &usize| len <= REASON_PHRASE_MAX && text.is_char_boundary(len);
        let text = &text[..(0..=text.len()).rev().find(fits).unwrap_or_default()];
        if let Some(callback) = self.callback.get() {
            // `Err`: it has ended.
            let _ = callback.shutdown_with(code, text);
        }
        self.set_end(ConnectionError::LocallyClosed);
    }

    /// Nothing more comes of it.
    pub(crate) fn is_over(&self) -> bool {
        self.over.load(Ordering::SeqCst)
    }

    /// Its handler goes.
    pub(crate) fn set_over(&self) {
        self.set_end(ConnectionError::LocallyClosed);
        self.over.store(true, Ordering::SeqCst);
        // See `command`.
        fence(Ordering::SeqCst);
        self.drop_commands();
        self.closed.wake();
    }

    /// Nobody will carry them out any more.
    fn drop_commands(&self) {
        while self.commands.pop().is_some() {}
    }
}

/// What `ringway` begins with, until an event says more.
const IDEAL_SEND_FIRST: u64 = 128 << 10;

/// A handle of the connection. With the last one it is closed.
#[derive(Clone)]
pub(crate) struct ConnectionRef(Arc<Owner>);

struct Owner(Arc<ConnectionShared>);

impl ConnectionRef {
    pub(crate) fn new(shared: Arc<ConnectionShared>) -> Self {
        ConnectionRef(Arc::new(Owner(shared)))
    }

    pub(crate) fn shared(&self) -> &Arc<ConnectionShared> {
        &(self.0).0
    }
}

impl std::ops::Deref for ConnectionRef {
    type Target = ConnectionShared;

    fn deref(&self) -> &ConnectionShared {
        &(self.0).0
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.0.close(0, b"");
    }
}

/// Our streams in the order of their numbers, in which the worker starts them: tasks on several threads may tell of them in another order.
#[derive(Default)]
pub(crate) struct StartOrder(VecDeque<Option<StreamRef>>);

impl StartOrder {
    /// This one is there, when so many were started.
    pub(crate) fn add(&mut self, stream: StreamRef, started: u64) {
        let place = (stream.id.index() - started) as usize;
        if self.0.len() <= place {
            self.0.resize(place + 1, None);
        }
        self.0[place] = Some(stream);
    }

    /// The next one to start, if it is there.
    pub(crate) fn next(&mut self) -> Option<StreamRef> {
        let stream = self.0.front_mut()?.take()?;
        self.0.pop_front();
        Some(stream)
    }
}

pub(crate) fn index(dir: Dir) -> usize {
    dir as usize
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::sync::mpsc;
    use std::task::{Context, Wake, Waker};
    use std::time::Duration;

    use super::*;
    use crate::connection::Connection;
    use crate::error::{ReadError, StoppedError, WriteError};
    use crate::events::ConnectionEvents;
    use crate::recv_stream::RecvStream;
    use crate::send_stream::SendStream;
    use crate::var_int::StreamId;
    use crate::waiters::{TICKETS_MIN, Waiter};

    #[test]
    fn senders_of_datagrams_that_wait_for_a_place_always_get_one() {
        const SENDERS: usize = 3;
        const EACH: usize = 30_000;
        let datagrams = Arc::new(Datagrams::default());
        // All places but two are taken for good.
        while datagrams.waiting.load(Ordering::Relaxed) < DATAGRAMS_MAX - 2 {
            assert!(datagrams.take_place());
        }
        let (given, to_send) = mpsc::channel();
        for _ in 0..SENDERS {
            let (datagrams, given) = (Arc::clone(&datagrams), given.clone());
            std::thread::spawn(move || {
                for _ in 0..EACH {
                    let mut waiter = Waiter::default();
                    let look = || datagrams.take_place().then_some(());
                    futures_executor::block_on(poll_fn(|cx| datagrams.senders.poll(cx, &mut waiter, look)));
                    given.send(()).unwrap();
                }
            });
        }
        for number in 0..SENDERS * EACH {
            // Each has been told in time, or they sleep for ever.
            let next = to_send.recv_timeout(Duration::from_secs(20));
            assert!(next.is_ok(), "{number} were sent, and nobody sends any more");
            datagrams.on_left();
        }
    }

    /// A handle of a client's connection that may open a stream, and its handler: nobody runs it.
    fn connection() -> (Connection, ConnectionEvents) {
        let shared = ConnectionShared::new(true);
        shared.opening[0].allow(1);
        let events = ConnectionEvents::new(&shared, None);
        (Connection::new(ConnectionRef::new(shared)), events)
    }

    fn assert_lost(mut send: SendStream, mut receive: RecvStream) {
        let lost = ConnectionError::LocallyClosed;
        let wait = async move {
            assert_eq!(
                send.stopped().await,
                Err(StoppedError::ConnectionLost(lost.clone()))
            );
            let written = send.write(b"x").await;
            assert_eq!(written, Err(WriteError::ConnectionLost(lost.clone())));
            assert_eq!(receive.read_chunk(1).await, Err(ReadError::ConnectionLost(lost)));
        };
        let (tell, told) = mpsc::channel();
        std::thread::spawn(move || {
            futures_executor::block_on(wait);
            let _ = tell.send(());
        });
        assert_eq!(told.recv_timeout(Duration::from_secs(20)), Ok(()));
    }

    #[test]
    fn streams_end_whose_connection_ends_before_the_worker_has_heard_of_them() {
        let (connection, events) = connection();
        let (send, receive) = futures_executor::block_on(connection.open_bi()).unwrap();
        drop(events);
        assert_lost(send, receive);
    }

    #[test]
    fn streams_end_that_are_opened_while_the_connection_ends() {
        for _ in 0..2000 {
            let (connection, events) = connection();
            let ends = std::thread::spawn(move || drop(events));
            let opened = futures_executor::block_on(connection.open_bi());
            ends.join().unwrap();
            if let Ok((send, receive)) = opened {
                assert_lost(send, receive);
            }
        }
    }

    /// How often tasks of its waker were woken.
    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Count {
        fn with_waker() -> (Arc<Self>, Waker) {
            let count = Arc::<Self>::default();
            (Arc::clone(&count), Waker::from(count))
        }
    }

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn acceptor_that_looks_while_ended_streams_are_swept_is_woken_behind_it() {
        let accepting = Accepting::default();
        let (count, waker) = Count::with_waker();
        let mut waiter = Waiter::default();
        let look = || accepting.take();
        let wait = accepting
            .waiters
            .poll(&mut Context::from_waker(&waker), &mut waiter, look);
        assert!(wait.is_pending());
        // As if the sweep had had it in its hands as the task looked.
        accepting.streams.push(StreamRef::new(StreamId(0), false, false));
        for _ in 0..OVER_MAX {
            accepting.on_over();
        }
        assert_eq!(count.0.load(Ordering::Relaxed), 1);
        assert!(accepting.take().is_some());
    }

    fn nothing() -> Option<()> {
        None
    }

    #[test]
    fn waits_that_were_given_up_leave_a_bounded_number_of_tickets() {
        let waiters = Waiters::default();
        let (count, waker) = Count::with_waker();
        let mut cx = Context::from_waker(&waker);
        let mut stays = Waiter::default();
        assert!(waiters.poll(&mut cx, &mut stays, nothing).is_pending());
        for _ in 0..10_000 {
            let mut goes = Waiter::default();
            assert!(waiters.poll(&mut cx, &mut goes, nothing).is_pending());
        }
        assert!(waiters.len() <= TICKETS_MIN + 1, "{}", waiters.len());
        // The one that stays is woken, however often it was swept.
        assert!(waiters.poll(&mut cx, &mut stays, nothing).is_pending());
        let before = count.0.load(Ordering::Relaxed);
        waiters.wake();
        assert!(count.0.load(Ordering::Relaxed) > before);
    }

    #[test]
    fn task_that_looks_again_and_again_waits_once() {
        let waiters = Waiters::default();
        let (count, waker) = Count::with_waker();
        let mut cx = Context::from_waker(&waker);
        let mut waiter = Waiter::default();
        for _ in 0..100 {
            assert!(waiters.poll(&mut cx, &mut waiter, nothing).is_pending());
        }
        assert_eq!(waiters.len(), 1);
        waiters.wake();
        waiters.wake();
        assert_eq!(count.0.load(Ordering::Relaxed), 1);
    }
}
