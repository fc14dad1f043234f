//! What a worker's turn brings, until it ends: then all of it is handed over at once, and tasks are woken.
//!
//! Handlers of a thread write here without atomic operations, however many packets bring something; for each stream, that is exchanged once a turn.
//!
//! Circle with `shared`: because the command that opens a stream carries its handler's reference, whose drop is told at the end of the turn, as is
//! that a connection has streams to accept.

use std::cell::RefCell;
use std::ops::Deref;
use std::sync::{Arc, LazyLock};
use std::task::{Wake, Waker};

use bytes::Bytes;
use ringway::wake_after_turn;

use crate::shared::{ConnectionShared, index};
use crate::slots::{Batch, SideEnd};
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
/// A batch for more chunks is not kept.
const KEPT_BATCH_MAX: usize = 256;

struct Turn {
    streams: Vec<News>,
    /// Connections whose peers have opened streams.
    accepting: Vec<(Arc<ConnectionShared>, Dir)>,
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

/// What a stream's halves are to hear.
pub(crate) struct News {
    stream: StreamRef,
    chunks: Option<Box<Batch>>,
    received_all: Option<SideEnd>,
    completed: u64,
    sent_all: Option<SideEnd>,
}

impl News {
    fn new(stream: &StreamRef) -> Self {
        News {
            stream: stream.clone(),
            chunks: None,
            received_all: None,
            completed: 0,
            sent_all: None,
        }
    }

    /// A chunk has arrived, for which there is room.
    pub(crate) fn chunk(&mut self, chunk: Bytes) {
        self.chunks.get_or_insert_with(new_batch).push(chunk);
    }

    /// Nothing more is received. The first end holds.
    pub(crate) fn receive_end(&mut self, end: SideEnd) {
        self.received_all.get_or_insert(end);
    }

    /// So many bytes need not be kept any more.
    pub(crate) fn completed(&mut self, bytes: u64) {
        self.completed += bytes;
    }

    /// Nothing more is sent. The first end holds.
    pub(crate) fn send_end(&mut self, end: SideEnd) {
        self.sent_all.get_or_insert(end);
    }

    fn hand_over(self) {
        let (receive, send) = (&self.stream.receive, &self.stream.send);
        let has_received = self.chunks.is_some() || self.received_all.is_some();
        if let Some(unused) = self.chunks.and_then(|chunks| receive.give(chunks)) {
            keep_batch(unused);
        }
        if let Some(end) = self.received_all {
            receive.end(end);
        }
        if has_received {
            receive.tell();
        }
        if self.completed > 0 || self.sent_all.is_some() {
            send.tell(self.completed, self.sent_all);
        }
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

    /// Tells the halves, when the turn ends.
    pub(crate) fn tell(&mut self, what: impl FnOnce(&mut News)) {
        tell(&self.stream, &mut self.place, what);
    }

    /// Nothing more comes of it in either direction.
    pub(crate) fn lose(&mut self) {
        self.tell(|news| {
            news.receive_end(SideEnd::Lost);
            news.send_end(SideEnd::Lost);
        });
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

/// Tells a stream's halves, when the turn ends, or at once outside of a turn. `place` is where the stream's news are, or were in an earlier turn.
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
        match turn.streams.get_mut(*place) {
            Some(news) if news.stream.is(stream) => add(news),
            _ => {
                let mut news = News::new(stream);
                add(&mut news);
                *place = turn.streams.len();
                turn.streams.push(news);
            }
        }
        std::mem::replace(&mut turn.is_awaited, true)
    });
    match is_awaited {
        Ok(true) => {}
        Ok(false) => wake_after_turn(END.clone()),
        // The thread ends.
        Err(_) => {
            let mut news = News::new(stream);
            add(&mut news);
            news.hand_over();
        }
    }
}

/// Wakes who accepts streams, when the turn ends. Called in handlers only.
pub(crate) fn tell_accepting(connection: &Arc<ConnectionShared>, dir: Dir) {
    let is_awaited = TURN.with_borrow_mut(|turn| {
        let last = turn.accepting.last();
        if last.is_none_or(|(last, of)| !Arc::ptr_eq(last, connection) || *of != dir) {
            turn.accepting.push((Arc::clone(connection), dir));
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
    turn.streams.drain(..).for_each(News::hand_over);
    for (connection, dir) in turn.accepting.drain(..) {
        connection.accepting[index(dir)].waiters.wake();
    }
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
pub(crate) fn keep_batch(mut batch: Box<Batch>) {
    batch.clear();
    if batch.capacity() > KEPT_BATCH_MAX {
        return;
    }
    // `Err`: the thread ends.
    let _ = BATCHES.try_with(|batches| {
        let mut batches = batches.borrow_mut();
        if batches.len() < BATCHES_MAX {
            batches.push(batch);
        }
    });
}
