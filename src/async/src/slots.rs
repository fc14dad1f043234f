//! What a stream's handler, on the worker's thread, and its halves, in tasks, tell each other: without locks, and without an allocation for each
//! event.
//!
//! Of each slot there is one writer and one reader. The receiving side passes batches of chunks, once a turn ([`crate::turn`]): the worker adds those
//! of a turn to the batch that nobody has taken yet, the task takes a whole batch. Either side counts by itself, the worker what it has given, the
//! task what it has read.
//!
//! **No wake-up is lost**: the task tells that it waits, and the worker that there is something, each before an atomic exchange of the same word.
//! Whichever exchange comes second sees what the other side has told. So the worker touches the waker of a task that waits only, and empties its
//! slot: a task that was woken is not woken again before it has looked.
//!
//! `tests/interleavings.rs` compiles this file with loom's atomics, and tries all interleavings.

use std::task::{Context, Poll, Waker};

use crate::batch::Batch;
use crate::handover::Handover;
use crate::sync::{AtomicBool, AtomicU64, AtomicUsize, AtomicWaker, Ordering, wake_after_turn};

/// How one side of a stream has ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum SideEnd {
    /// As it should: all was received, or acknowledged.
    Finished,
    /// By the peer, with an application error code: RESET_STREAM or STOP_SENDING.
    ByPeer(u64),
    /// With the connection, or by ourselves.
    Lost,
}

/// A [`SideEnd`] that may come, in one word: codes have 62 bits.
struct EndCell(AtomicU64);

const KIND: u32 = 62;
const FINISHED: u64 = 1;
const BY_PEER: u64 = 2;
const LOST: u64 = 3;

impl EndCell {
    fn new() -> Self {
        EndCell(AtomicU64::new(0))
    }

    fn get(&self) -> Option<SideEnd> {
        let word = self.0.load(Ordering::Acquire);
        match word >> KIND {
            0 => None,
            FINISHED => Some(SideEnd::Finished),
            BY_PEER => Some(SideEnd::ByPeer(word & ((1 << KIND) - 1))),
            _ => Some(SideEnd::Lost),
        }
    }

    /// The first end holds. For the worker only.
    fn set(&self, end: SideEnd) {
        let word = match end {
            SideEnd::Finished => FINISHED << KIND,
            SideEnd::ByPeer(code) => BY_PEER << KIND | code,
            SideEnd::Lost => LOST << KIND,
        };
        // Nobody else writes here.
        if self.0.load(Ordering::Relaxed) == 0 {
            self.0.store(word, Ordering::Release);
        }
    }
}

/// The task of one side, which may wait.
struct Waiting {
    waker: AtomicWaker,
    /// There is a waker.
    is_set: AtomicBool,
}

impl Waiting {
    fn new() -> Self {
        Waiting {
            waker: AtomicWaker::new(),
            is_set: AtomicBool::new(false),
        }
    }

    /// For the task only. An exchange follows, and a look at what there is. (Exchanges that change nothing are sequentially consistent: with less,
    /// compilers make no instruction of them on x86, and a load overtakes the store before it.)
    fn wait(&self, waker: &Waker) {
        self.waker.register(waker);
        self.is_set.store(true, Ordering::Relaxed);
    }

    /// For the worker only, behind an exchange.
    fn wake(&self) {
        if self.is_set.load(Ordering::Relaxed) {
            // A task that waits again meanwhile has its waker there already, or sets this behind it.
            self.is_set.store(false, Ordering::Relaxed);
            if let Some(waker) = self.waker.take() {
                wake_after_turn(waker);
            }
        }
    }

    /// It waits no more.
    fn give_up(&self) {
        if self.is_set.load(Ordering::Relaxed) {
            drop(self.waker.take());
        }
    }
}

/// The receiving side of a stream.
pub(crate) struct ReceiveSlot {
    /// On the way to the reader.
    full: Handover<Batch>,
    /// There is something in it, or was until just now: who finds nothing here is spared an exchange.
    is_full: AtomicBool,
    /// Bytes that were given to the reader, and what they took besides. Wraps. Of the worker.
    given: AtomicUsize,
    /// What the reader has read of it. Wraps. Of the reader, and the word whose exchanges order both.
    read: AtomicUsize,
    /// The worker delivers nothing more until the reader says so.
    is_paused: AtomicBool,
    end: EndCell,
    reader: Waiting,
}

/// What a reader finds.
pub(crate) enum Found {
    Data(Box<Batch>),
    End(SideEnd),
}

impl ReceiveSlot {
    pub(crate) fn new() -> Self {
        ReceiveSlot {
            full: Handover::new(),
            is_full: AtomicBool::new(false),
            given: AtomicUsize::new(0),
            read: AtomicUsize::new(0),
            is_paused: AtomicBool::new(false),
            end: EndCell::new(),
            reader: Waiting::new(),
        }
    }

    /// Takes room for so many bytes, if with what chunks take no more than `limit` are then held, or none are now. Otherwise the stream is paused:
    /// the reader will say when it goes on. For the worker only.
    pub(crate) fn reserve(&self, len: usize, limit: usize) -> bool {
        let given = self.given.load(Ordering::Relaxed);
        let has_room = |read: usize| {
            let held = given.wrapping_sub(read);
            held == 0 || held + len <= limit
        };
        if !has_room(self.read.load(Ordering::Relaxed)) {
            self.is_paused.store(true, Ordering::Relaxed);
            // Either the reader sees the flag, or this what it has read.
            if !has_room(self.read.fetch_add(0, Ordering::SeqCst)) {
                return false;
            }
            self.is_paused.store(false, Ordering::Relaxed);
        }
        self.given.store(given.wrapping_add(len), Ordering::Relaxed);
        true
    }

    /// Gives chunks, for which there is room; gives back the box if it was not needed. Then [`ReceiveSlot::tell`]. For the worker only.
    pub(crate) fn give(&self, mut chunks: Box<Batch>) -> Option<Box<Batch>> {
        let given = self.given.load(Ordering::Relaxed).wrapping_add(chunks.overhead());
        // Before the reader can have read it.
        self.given.store(given, Ordering::Relaxed);
        let mut unused = None;
        if let Some(mut batch) = self.full.take() {
            batch.append(&mut chunks);
            unused = Some(std::mem::replace(&mut chunks, batch));
        }
        self.full.put(chunks);
        // Behind it: whoever has taken that says before that nothing is there.
        self.is_full.store(true, Ordering::Release);
        unused
    }

    /// Nothing more comes. Then [`ReceiveSlot::tell`]. For the worker only.
    pub(crate) fn end(&self, end: SideEnd) {
        self.end.set(end);
    }

    /// Wakes the reader, if it waits. For the worker only.
    pub(crate) fn tell(&self) {
        self.read.fetch_add(0, Ordering::SeqCst);
        self.reader.wake();
    }

    /// How it has ended, also if the reader has not got there yet.
    pub(crate) fn has_ended(&self) -> Option<SideEnd> {
        self.end.get()
    }

    fn look(&self) -> Option<Found> {
        // The end first: what came before it is there then.
        let end = self.end.get();
        let data = self.take().map(Found::Data);
        data.or_else(|| end.map(Found::End))
    }

    fn take(&self) -> Option<Box<Batch>> {
        if !self.is_full.load(Ordering::Acquire) {
            return None;
        }
        // Before it is taken: what comes behind it is said behind this.
        self.is_full.store(false, Ordering::Relaxed);
        self.full.take()
    }

    fn wait(&self, cx: &Context<'_>) {
        self.reader.wait(cx.waker());
        self.read.fetch_add(0, Ordering::SeqCst);
    }

    /// What there is; or the task is woken when there is something. For the reader only.
    pub(crate) fn poll(&self, cx: &mut Context<'_>) -> Poll<Found> {
        if let Some(found) = self.look() {
            return Poll::Ready(found);
        }
        self.wait(cx);
        self.look().map_or(Poll::Pending, Poll::Ready)
    }

    /// How it has ended; or the task is woken when it has, or when data has come. For the reader only.
    pub(crate) fn poll_end(&self, cx: &mut Context<'_>) -> Poll<SideEnd> {
        if let Some(end) = self.end.get() {
            return Poll::Ready(end);
        }
        self.wait(cx);
        self.end.get().map_or(Poll::Pending, Poll::Ready)
    }

    /// So much has been read, with what batches took of which nothing is left. True if the worker waits for that: tell it to go on. For the reader
    /// only.
    #[must_use]
    pub(crate) fn on_read(&self, len: usize, limit: usize) -> bool {
        let read = self.read.fetch_add(len, Ordering::AcqRel).wrapping_add(len);
        // Not as soon as there is room for a chunk: a worker that is told has work to do.
        self.is_paused.load(Ordering::Relaxed)
            && self.given.load(Ordering::Relaxed).wrapping_sub(read) <= limit / 2
            && self.is_paused.swap(false, Ordering::AcqRel)
    }

    /// Nobody reads any more.
    pub(crate) fn abandon(&self) {
        self.reader.give_up();
        drop(self.take());
    }
}

/// The sending side of a stream.
pub(crate) struct SendSlot {
    /// Bytes that need not be kept any more, since the stream began. Its exchanges order both sides.
    completed: AtomicU64,
    end: EndCell,
    writer: Waiting,
}

impl SendSlot {
    pub(crate) fn new() -> Self {
        SendSlot {
            completed: AtomicU64::new(0),
            end: EndCell::new(),
            writer: Waiting::new(),
        }
    }

    /// So many more bytes are acknowledged, or canceled, and perhaps nothing more can be sent. For the worker only.
    pub(crate) fn tell(&self, completed: u64, end: Option<SideEnd>) {
        if let Some(end) = end {
            self.end.set(end);
        }
        self.completed.fetch_add(completed, Ordering::SeqCst);
        self.writer.wake();
    }

    /// How it has ended, if it has.
    pub(crate) fn has_ended(&self) -> Option<SideEnd> {
        self.end.get()
    }

    /// Bytes that need not be kept any more.
    pub(crate) fn completed(&self) -> u64 {
        self.completed.load(Ordering::Acquire)
    }

    /// What `look` finds; or the task is woken when something has changed. For the writer only.
    pub(crate) fn poll<R>(&self, cx: &mut Context<'_>, look: impl Fn() -> Option<R>) -> Poll<R> {
        if let Some(found) = look() {
            return Poll::Ready(found);
        }
        self.writer.wait(cx.waker());
        self.completed.fetch_add(0, Ordering::SeqCst);
        look().map_or(Poll::Pending, Poll::Ready)
    }

    /// Nobody writes any more.
    pub(crate) fn abandon(&self) {
        self.writer.give_up();
    }
}
