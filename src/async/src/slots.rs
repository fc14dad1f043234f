//! What a stream's handler, on the worker's thread, and its halves, in tasks, tell each other: without locks, and without an allocation for each
//! event, besides what makes received data a `Bytes` that can be kept.
//!
//! Of each slot there is one writer and one reader. The receiving side passes batches of chunks: the worker adds to the batch that nobody has taken
//! yet, the task takes a whole batch, and gives the box back when it is empty. Each side's waker lies in a slot that is emptied by whoever wakes: a
//! task that was woken is not woken again before it has looked.
//!
//! `tests/interleavings.rs` compiles this file with loom's atomics, and tries all interleavings.

use std::task::{Context, Poll};

use bytes::Bytes;
use smallvec::SmallVec;

use crate::handover::Handover;
use crate::sync::{AtomicU64, AtomicUsize, AtomicWaker, Ordering, wake_after_turn};

/// Chunks that arrived one after the other. A small request or response fits without another allocation.
pub(crate) type Batch = SmallVec<[Bytes; 3]>;

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

    /// The first end holds; false if there was one. For the worker only.
    fn set(&self, end: SideEnd) -> bool {
        let word = match end {
            SideEnd::Finished => FINISHED << KIND,
            SideEnd::ByPeer(code) => BY_PEER << KIND | code,
            SideEnd::Lost => LOST << KIND,
        };
        // Nobody else writes here.
        let is_first = self.0.load(Ordering::Relaxed) == 0;
        if is_first {
            self.0.store(word, Ordering::Release);
        }
        is_first
    }
}

fn wake(slot: &AtomicWaker) {
    if let Some(waker) = slot.take() {
        wake_after_turn(waker);
    }
}

/// The receiving side of a stream.
pub(crate) struct ReceiveSlot {
    /// On the way to the reader.
    full: Handover<Batch>,
    /// On the way back.
    empty: Handover<Batch>,
    /// Bytes that the reader has not read yet, [`CHUNK`] for each chunk of them, and [`PAUSED`].
    held: AtomicUsize,
    end: EndCell,
    reader: AtomicWaker,
}

/// The worker delivers nothing more until the reader says so.
const PAUSED: usize = 1 << (usize::BITS - 1);

/// What a chunk takes besides its bytes: its place in a batch that has doubled, and the least piece of memory. A peer may send bytes one by one.
pub(crate) const CHUNK: usize = 96;

/// A batch for more chunks is not kept for the next ones.
const KEPT_BATCH_MAX: usize = 256;

/// What a reader finds.
pub(crate) enum Found {
    Data(Box<Batch>),
    End(SideEnd),
}

impl ReceiveSlot {
    pub(crate) fn new() -> Self {
        ReceiveSlot {
            full: Handover::new(),
            empty: Handover::new(),
            held: AtomicUsize::new(0),
            end: EndCell::new(),
            reader: AtomicWaker::new(),
        }
    }

    /// Takes room for a chunk of so many bytes, if with what chunks take no more than `limit` are then held, or none are now. Otherwise the stream
    /// is paused: the reader will say when
    /// it goes on. For the worker only.
    pub(crate) fn reserve(&self, len: usize, limit: usize) -> bool {
        let len = len + CHUNK;
        let mut word = self.held.load(Ordering::Relaxed);
        loop {
            let held = word & !PAUSED;
            let has_room = held == 0 || held + len <= limit;
            // In the same word: whoever reads the last of what is held sees the flag.
            let next = if has_room { word + len } else { word | PAUSED };
            match self
                .held
                .compare_exchange(word, next, Ordering::AcqRel, Ordering::Relaxed)
            {
                Ok(_) => return has_room,
                Err(other) => word = other,
            }
        }
    }

    /// Adds a chunk, for which there is room. For the worker only.
    pub(crate) fn push(&self, chunk: Bytes) {
        let batch = self.full.take().or_else(|| self.empty.take());
        let mut batch = batch.unwrap_or_default();
        batch.push(chunk);
        self.full.put(batch);
    }

    /// Nothing more comes. For the worker only.
    pub(crate) fn end(&self, end: SideEnd) {
        if self.end.set(end) {
            self.wake_reader();
        }
    }

    /// Wakes the reader, if it waits. For the worker only, after a push.
    pub(crate) fn wake_reader(&self) {
        wake(&self.reader);
    }

    /// How it has ended, also if the reader has not got there yet.
    pub(crate) fn has_ended(&self) -> Option<SideEnd> {
        self.end.get()
    }

    fn look(&self) -> Option<Found> {
        // The end first: what came before it is there then.
        let end = self.end.get();
        let data = self.full.take().map(Found::Data);
        data.or_else(|| end.map(Found::End))
    }

    /// What there is; or the task is woken when there is something. For the reader only.
    pub(crate) fn poll(&self, cx: &mut Context<'_>) -> Poll<Found> {
        if let Some(found) = self.look() {
            return Poll::Ready(found);
        }
        self.reader.register(cx.waker());
        self.look().map_or(Poll::Pending, Poll::Ready)
    }

    /// How it has ended; or the task is woken when it has, or when data has come. For the reader only.
    pub(crate) fn poll_end(&self, cx: &mut Context<'_>) -> Poll<SideEnd> {
        if let Some(end) = self.end.get() {
            return Poll::Ready(end);
        }
        self.reader.register(cx.waker());
        self.end.get().map_or(Poll::Pending, Poll::Ready)
    }

    /// Gives back the box of a batch that has been read. For the reader only.
    pub(crate) fn give_back(&self, mut batch: Box<Batch>) {
        if batch.capacity() <= KEPT_BATCH_MAX {
            batch.clear();
            self.empty.put(batch);
        }
    }

    /// So many bytes of a chunk have been read, with which it is empty, or not. True if the worker waits for that: tell it to go on. For the reader
    /// only.
    #[must_use]
    pub(crate) fn on_read(&self, len: usize, is_empty: bool, limit: usize) -> bool {
        let len = if is_empty { len + CHUNK } else { len };
        let word = self.held.fetch_sub(len, Ordering::AcqRel) - len;
        // Not for each chunk: a worker that is told has work to do.
        word & PAUSED != 0
            && word & !PAUSED <= limit / 2
            && self.held.fetch_and(!PAUSED, Ordering::AcqRel) & PAUSED != 0
    }

    /// Nobody reads any more.
    pub(crate) fn abandon(&self) {
        drop((self.reader.take(), self.full.take(), self.empty.take()));
    }
}

/// The sending side of a stream.
pub(crate) struct SendSlot {
    /// Bytes that need not be kept any more, since the stream began.
    completed: AtomicU64,
    end: EndCell,
    writer: AtomicWaker,
}

impl SendSlot {
    pub(crate) fn new() -> Self {
        SendSlot {
            completed: AtomicU64::new(0),
            end: EndCell::new(),
            writer: AtomicWaker::new(),
        }
    }

    /// So many more bytes are acknowledged, or canceled. For the worker only.
    pub(crate) fn complete(&self, bytes: u64) {
        let completed = self.completed.load(Ordering::Relaxed);
        self.completed.store(completed + bytes, Ordering::Release);
        wake(&self.writer);
    }

    /// Nothing more can be sent. For the worker only.
    pub(crate) fn end(&self, end: SideEnd) {
        if self.end.set(end) {
            wake(&self.writer);
        }
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
        self.writer.register(cx.waker());
        look().map_or(Poll::Pending, Poll::Ready)
    }

    /// Nobody writes any more.
    pub(crate) fn abandon(&self) {
        drop(self.writer.take());
    }
}
