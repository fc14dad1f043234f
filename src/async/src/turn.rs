//! What a worker's turn brings, until it ends: then all of it is handed over at once, and tasks are woken.
//!
//! Handlers of a thread write here without atomic operations, however many packets bring something; for each stream, that is exchanged once a turn.
//! What is acknowledged is not written here, but told at once: that is one atomic addition.
//!
//! Circle with `shared`: because the command that opens a stream carries its handler's reference, whose drop is told at the end of the turn, as is
//! that a connection has streams to accept.

use std::cell::RefCell;
use std::ops::Deref;
use std::sync::{Arc, LazyLock};
use std::task::{Wake, Waker};

use ringway::{ReceivedData, wake_after_turn};

use crate::batch::Batch;
use crate::received::{self, Filling};
use crate::shared::{ConnectionShared, index};
use crate::slots::SideEnd;
use crate::stream_ref::{StreamRef, StreamShared};
use crate::var_int::Dir;

#[allow(clippy::vec_box, reason = "the boxes are what is handed over")]
type Batches = Vec<Box<Batch>>;

thread_local! {
    static TURN: RefCell<Turn> = const { RefCell::new(Turn::new()) };
    /// Empty ones, for the next turn.
    static BATCHES: RefCell<Batches> = const { RefCell::new(Vec::new()) };
}

/// So many batches are kept.
const BATCHES_MAX: usize = 256;

struct Turn {
    streams: Vec<News>,
    accepting: Vec<Opened>,
    /// It is handed over when the turn ends.
    is_awaited: bool,
}

impl Turn {
    const fn new() -> Self {
        Turn {
            streams: Vec::new(),
            accepting: Vec::new(),
            is_awaited: false,
        }
    }
}

/// What a stream's reader is to hear: with its drop it does, so that none is lost, whatever happens to another one.
pub(crate) struct News {
    stream: StreamRef,
    chunks: Option<Box<Batch>>,
    filling: Filling,
    end: Option<SideEnd>,
}

impl News {
    fn new(stream: &StreamRef) -> Self {
        News {
            stream: stream.clone(),
            chunks: None,
            filling: Filling::default(),
            end: None,
        }
    }

    /// Data has arrived, for which there is room.
    pub(crate) fn data(&mut self, data: &ReceivedData<'_>) {
        let chunks = self.chunks.get_or_insert_with(new_batch);
        self.filling.add(data, chunks);
    }

    /// Nothing more is received. The first end holds.
    pub(crate) fn end(&mut self, end: SideEnd) {
        self.end.get_or_insert(end);
    }
}

impl Drop for News {
    fn drop(&mut self) {
        let receive = &self.stream.receive;
        if let Some(mut chunks) = self.chunks.take() {
            self.filling.close(&mut chunks);
            if let Some(unused) = receive.give(chunks) {
                keep_batch(unused);
            }
        }
        if let Some(end) = self.end {
            receive.end(end);
        }
        receive.tell();
    }
}

/// The peer of a connection has opened streams of this kind: with its drop, who accepts them is woken.
struct Opened(Arc<ConnectionShared>, Dir);

impl Drop for Opened {
    fn drop(&mut self) {
        self.0.accepting[index(self.1)].waiters.wake();
    }
}

/// The worker's reference to a stream, for its handler: whoever has it alone ends the stream's sides. Dropped, it ends those that have not ended,
/// also where there was no last event: the connection has ended before the stream began, or a panic takes the context along.
pub(crate) struct WorkerStream {
    pub(crate) stream: StreamRef,
    /// See [`tell`].
    place: usize,
}

impl WorkerStream {
    pub(crate) fn new(stream: &StreamRef) -> Self {
        WorkerStream {
            stream: stream.clone(),
            place: 0,
        }
    }

    /// Tells the reader, when the turn ends.
    pub(crate) fn tell(&mut self, what: impl FnOnce(&mut News)) {
        tell(&self.stream, &mut self.place, what);
    }

    /// Nothing more comes of it in either direction.
    pub(crate) fn lose(&mut self) {
        if self.stream.is_alone() {
            return;
        }
        if self.send.has_ended().is_none() {
            self.send.tell(0, Some(SideEnd::Lost));
        }
        if self.receive.has_ended().is_none() {
            self.tell(|news| news.end(SideEnd::Lost));
        }
    }
}

impl Deref for WorkerStream {
    type Target = StreamShared;

    fn deref(&self) -> &StreamShared {
        &self.stream
    }
}

impl Drop for WorkerStream {
    fn drop(&mut self) {
        self.lose();
    }
}

/// Tells a stream's reader, when the turn ends, or at once outside of a turn. `place` is where the stream's news are, or were in an earlier turn.
fn tell(stream: &StreamRef, place: &mut usize, what: impl FnOnce(&mut News)) {
    if stream.is_alone() {
        // They have gone.
        return;
    }
    let mut what = Some(what);
    let mut add = |news: &mut News| {
        if let Some(what) = what.take() {
            what(news);
        }
    };
    let is_awaited = TURN.try_with(|turn| {
        let mut turn = turn.borrow_mut();
        let is_there = |news: &News| news.stream.is(stream);
        if !turn.streams.get(*place).is_some_and(is_there) {
            *place = turn.streams.len();
            turn.streams.push(News::new(stream));
        }
        add(&mut turn.streams[*place]);
        std::mem::replace(&mut turn.is_awaited, true)
    });
    match is_awaited {
        Ok(true) => {}
        Ok(false) => wake_after_turn(END.clone()),
        // The thread ends.
        Err(_) => {
            add(&mut News::new(stream));
        }
    }
}

/// Wakes who accepts streams, when the turn ends. Called in handlers only.
pub(crate) fn tell_accepting(connection: &Arc<ConnectionShared>, dir: Dir) {
    let is_awaited = TURN.with_borrow_mut(|turn| {
        let last = turn.accepting.last();
        if last.is_none_or(|last| !Arc::ptr_eq(&last.0, connection) || last.1 != dir) {
            turn.accepting.push(Opened(Arc::clone(connection), dir));
        }
        std::mem::replace(&mut turn.is_awaited, true)
    });
    if !is_awaited {
        wake_after_turn(END.clone());
    }
}

static END: LazyLock<Waker> = LazyLock::new(|| Waker::from(Arc::new(End)));

/// The first of a turn's news has this woken when the turn ends.
struct End;

impl Wake for End {
    fn wake(self: Arc<Self>) {
        hand_over();
    }
}

fn hand_over() {
    let mut turn = TURN.replace(Turn::new());
    // A task that is woken may run at once, and even another context's turn.
    turn.streams.clear();
    turn.accepting.clear();
    received::end_turn();
    TURN.with_borrow_mut(|next| {
        if !next.is_awaited {
            turn.is_awaited = false;
            *next = turn;
        }
    });
}

fn new_batch() -> Box<Batch> {
    BATCHES
        .try_with(|batches| batches.borrow_mut().pop())
        .ok()
        .flatten()
        .unwrap_or_default()
}

/// A batch that has been read serves again, on this thread.
pub(crate) fn keep_batch(batch: Box<Batch>) {
    let Some(batch) = batch.cleared() else { return };
    // `Err`: the thread ends.
    let _ = BATCHES.try_with(|batches| {
        let mut batches = batches.borrow_mut();
        if batches.len() < BATCHES_MAX {
            batches.push(batch);
        }
    });
}

#[cfg(test)]
mod tests {
    use std::panic::catch_unwind;
    use std::task::{Context, Poll};

    use bytes::Bytes;

    use super::*;
    use crate::events::RECEIVE_BUFFER;
    use crate::slots::Found;
    use crate::var_int::StreamId;

    #[test]
    fn panic_while_a_turn_is_handed_over_harms_no_other_stream() {
        struct Panics;
        impl AsRef<[u8]> for Panics {
            fn as_ref(&self) -> &[u8] {
                b"data"
            }
        }
        impl Drop for Panics {
            fn drop(&mut self) {
                panic!("as it should");
            }
        }
        // As in a turn.
        TURN.with_borrow_mut(|turn| turn.is_awaited = true);
        let stream = |number| StreamRef::new(StreamId(number), false, true);
        let arrive = |stream: &StreamRef, chunk: Bytes| {
            let mut worker = WorkerStream::new(stream);
            assert!(worker.receive.reserve(4, RECEIVE_BUFFER));
            worker.tell(|news| news.chunks.get_or_insert_default().push(chunk, 0));
        };
        let (dropped, read) = (stream(0), stream(4));
        arrive(&dropped, Bytes::from_owner(Panics));
        arrive(&read, Bytes::from_static(b"data"));
        drop(dropped);
        assert!(catch_unwind(hand_over).is_err());
        let Poll::Ready(Found::Data(mut chunks)) = read.receive.poll(&mut Context::from_waker(Waker::noop()))
        else {
            panic!("nothing has come");
        };
        assert_eq!(chunks.get_mut(0), Some(&mut Bytes::from_static(b"data")));
    }
}
