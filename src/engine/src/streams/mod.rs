//! Streams of one connection (RFC 9000 sections 2 to 4).
//!
//! [`Streams`] holds the table of streams and the state that they share: stream limits, connection flow control, the
//! order of sending. A stream is a `send` half and a `recv` half, or one of them. Nothing in here calls out:
//! events of streams wait in a queue, and data is delivered by the caller, who reports how much was consumed.

pub(crate) mod assembler;
mod control;
mod early;
mod events;
mod flow;
mod id;
mod receiving;
mod reconfigure;
mod recv;
mod scheduler;
mod send;
mod sending;
mod table;
#[cfg(test)]
mod tests;
mod unordered;
mod waiting;

use std::collections::VecDeque;
use std::time::Duration;

use ringway_types::Instant;
use rustc_hash::FxHashMap;

use self::assembler::Assembler;
pub use self::assembler::ReadyData;
pub(crate) use self::control::ControlToken;
pub use self::events::StreamEvent;
use self::flow::ReceiveWindow;
pub use self::id::{Dir, StreamId, StreamKey};
pub use self::recv::AfterReceive;
pub(crate) use self::recv::ReceiveAction;
use self::recv::{Growth, RecvHalf};
use self::scheduler::Scheduler;
pub use self::scheduler::Scheduling;
pub(crate) use self::send::{NextFrame, StreamRange};
pub use self::send::{SendError, SendOptions};
use self::table::{Halves, StreamState, Table};
pub use self::table::{PRIORITY_DEFAULT, forget_kept_states};
use crate::base::range_set::RangeSet;
use crate::wire::Side;
use crate::wire::error::{TransportError, TransportErrorCode};
use crate::wire::frame::STREAMS_MAX;
use crate::wire::transport_parameters::TransportParameters;

/// What we allow the peer to send and open; by default nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct StreamsConfig {
    /// Bytes on all streams together before any were consumed. Windows of streams grow where readers are fast, but together by no more than
    /// what the initial windows of all streams that the peer may have open leave of this, or half of it: as long as these take no more
    /// than half, a stream that is read never waits for one that is not.
    pub connection_window: u64,
    /// Bytes on a new bidirectional stream of ours.
    pub window_bidi_local: u64,
    /// Bytes on a new bidirectional stream of the peer's.
    pub window_bidi_remote: u64,
    /// Bytes on a new unidirectional stream.
    pub window_uni: u64,
    /// Streams that the peer may have open, by [`Dir`].
    pub peer_streams: [u64; 2],
    /// How streams of equal priority share the connection.
    pub scheduling: Scheduling,
    /// Bytes that are sent and not acknowledged, or wait to be sent, from which on the caller should give no more ([`Streams::send_room`]); 0: there
    /// is no such limit.
    pub send_queue_limit: u64,
    /// Several deliveries of a stream may be pending ([`Streams::takes_many`]).
    pub multi_receive: bool,
}

impl StreamsConfig {
    fn growth(&self) -> Growth {
        let windows = [self.window_bidi_remote, self.window_uni];
        let initial = self.peer_streams.into_iter().zip(windows);
        let initial = initial
            .map(|(streams, window)| streams.saturating_mul(window))
            .fold(0, u64::saturating_add);
        Growth::new(self.connection_window, initial)
    }

    fn windows(&self) -> PeerWindows {
        PeerWindows {
            bidi_local: self.window_bidi_local,
            bidi_remote: self.window_bidi_remote,
            uni: self.window_uni,
        }
    }

    /// What a stream of `dir` may receive before any was consumed; `local` if we have opened it.
    fn initial_window(&self, dir: Dir, local: bool) -> u64 {
        match (dir, local) {
            (Dir::Bi, true) => self.window_bidi_local,
            (Dir::Bi, false) => self.window_bidi_remote,
            (Dir::Uni, _) => self.window_uni,
        }
    }
}

/// How a stream is started.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct StartOptions {
    /// If the limit is reached it fails, rather than wait.
    pub fail_blocked: bool,
    /// The peer is to hear of it without data.
    pub immediate: bool,
    /// The event `PeerAccepted` is wanted.
    pub tell_accepted: bool,
}

/// The streams of one connection.
pub struct Streams {
    side: Side,
    config: StreamsConfig,
    table: Table,
    by_id: FxHashMap<u64, u32>,
    /// The stream that the last frame named.
    last_found: u32,
    events: VecDeque<StreamEvent>,
    /// The connection has ended: nothing is started, sent or received any more.
    closed: bool,
    /// A client's handshake is not complete, and only what is marked for it may be sent, in 0-RTT.
    early: bool,

    /// The time of the caller's turn.
    now: Instant,

    // What the peer opens, by direction.
    /// Streams that the peer has opened.
    peer_opened: [u64; 2],
    /// Indices of those that no frame has named yet: opened because a later one was (RFC 9000 section 3.2).
    peer_unseen: Option<Box<[RangeSet; 2]>>,
    /// Streams of the peer that have ended.
    peer_ended: [u64; 2],
    /// The limit that was sent to the peer, or is about to be.
    peer_limit: [u64; 2],

    // What we open, by direction.
    /// Streams that we have opened.
    opened: [u64; 2],
    /// What the peer allows us to open.
    limit: [u64; 2],
    /// Streams that wait for the peer to allow more; `None` where none was ever opened.
    starting: Option<Box<[VecDeque<u32>; 2]>>,

    // Receiving.
    window: ReceiveWindow,
    growth: Growth,
    /// Bytes that the assemblers of all streams hold, and what is known of those that are read out of order.
    held: Held,
    /// Sum of the highest offsets of all streams.
    received: u64,
    /// Bytes consumed on all streams.
    consumed: u64,
    readable: VecDeque<u32>,

    // Sending.
    /// Bytes that the peer allows on all streams together.
    send_limit: u64,
    /// Bytes sent on all streams, repetitions not counted.
    sent: u64,
    /// Bytes that the application gave and that are not released yet.
    queued: u64,
    /// How much of each stream should be queued.
    ideal_send: u64,
    scheduler: Scheduler,
    /// Streams with something to send that needs no credit of the connection.
    uncredited: VecDeque<u32>,
    /// Limits for new streams, as the peer's transport parameters give them.
    peer_windows: PeerWindows,
    /// Limits for new streams, as our transport parameters have given them.
    told: PeerWindows,

    // Control frames.
    /// Of the connection.
    pending: u8,
    /// The peer was told, or is about to be, that its limits keep something back.
    told_blocked: bool,
    /// The limit of the connection that the last DATA_BLOCKED is about.
    blocked_at: u64,
    /// Streams with control frames to send.
    control: VecDeque<u32>,
}

#[derive(Clone, Copy, Debug, Default)]
struct PeerWindows {
    bidi_local: u64,
    bidi_remote: u64,
    uni: u64,
}

impl PeerWindows {
    fn of_peer_stream(&self, dir: Dir) -> u64 {
        match dir {
            Dir::Bi => self.bidi_remote,
            Dir::Uni => self.uni,
        }
    }
}

// Flags of a stream: the lists it is in.
const IN_SCHEDULER: u16 = 1;
const IN_UNCREDITED: u16 = 2;
const IN_CONTROL: u16 = 4;
const IN_READABLE: u16 = 8;
const IN_LISTS: u16 = IN_SCHEDULER | IN_UNCREDITED | IN_CONTROL | IN_READABLE;
/// The last event was reported to the application.
const ENDED: u16 = 16;
/// Waits for the peer to allow it. It has an ID if it was started for 0-RTT that was not accepted.
const STARTING: u16 = 32;
/// Some of what it has to send must not go in 0-RTT.
const NOT_EARLY: u16 = 64;
/// The peer is to hear of it without data.
const IMMEDIATE: u16 = 128;
/// The application wants to hear when the peer allows it.
const TELL_ACCEPTED: u16 = 256;
/// A loss of its data cancels it.
const CANCEL_ON_LOSS: u16 = 512;
/// All that is sent on it may go in 0-RTT.
const EARLY: u16 = 1024;
/// The last event was reported to the application before the peer knows of the end.
const ENDED_EARLY: u16 = 2048;
/// The application has released its key before the peer knows of the end.
const RELEASED: u16 = 4096;
/// Its end gives the peer no credit for another one.
const HOLDS_CREDIT: u16 = 8192;

impl Streams {
    /// Without streams. What the peer allows comes with [`Streams::set_peer_params`].
    pub(crate) fn new(side: Side, config: StreamsConfig) -> Self {
        Streams {
            side,
            config,
            table: Table::default(),
            by_id: FxHashMap::default(),
            last_found: 0,
            events: VecDeque::new(),
            closed: false,
            early: false,
            now: Instant::ZERO,
            peer_opened: [0; 2],
            peer_unseen: None,
            peer_ended: [0; 2],
            peer_limit: config.peer_streams,
            opened: [0; 2],
            limit: [0; 2],
            starting: None,
            window: ReceiveWindow::new(config.connection_window),
            growth: config.growth(),
            held: Held::default(),
            received: 0,
            consumed: 0,
            readable: VecDeque::new(),
            send_limit: 0,
            sent: 0,
            queued: 0,
            ideal_send: IDEAL_SEND_MIN,
            scheduler: Scheduler::new(config.scheduling),
            uncredited: VecDeque::new(),
            peer_windows: PeerWindows::default(),
            told: config.windows(),
            pending: 0,
            told_blocked: false,
            blocked_at: u64::MAX,
            control: VecDeque::new(),
        }
    }

    /// Sets what we allow the peer. Before any stream exists: a server learns its configuration late.
    pub(crate) fn set_config(&mut self, config: StreamsConfig) {
        debug_assert_eq!(
            self.table.len(),
            0,
            "a server opens streams when it is configured"
        );
        self.config = config;
        self.told = config.windows();
        self.peer_limit = config.peer_streams;
        self.window = ReceiveWindow::new(config.connection_window);
        self.growth = self.growth.renewed(config.growth());
        self.scheduler = Scheduler::new(config.scheduling);
    }

    /// The peer's transport parameters have arrived.
    pub(crate) fn set_peer_params(&mut self, params: &TransportParameters) {
        self.send_limit = params.initial_max_data;
        // What is local to the peer is remote to us.
        self.peer_windows = PeerWindows {
            bidi_local: params.initial_max_stream_data_bidi_remote,
            bidi_remote: params.initial_max_stream_data_bidi_local,
            uni: params.initial_max_stream_data_uni,
        };
        self.limit = [params.initial_max_streams_bidi, params.initial_max_streams_uni];
        self.start_waiting();
        if self.limit != [0, 0] {
            self.report_available();
        }
    }

    /// The next event.
    #[inline]
    pub fn next_event(&mut self) -> Option<StreamEvent> {
        self.events.pop_front()
    }

    /// Frees lists that are empty.
    pub(crate) fn shrink_to_fit(&mut self) {
        if self.events.is_empty() {
            self.events = VecDeque::new();
        }
    }

    /// How many there are, until [`Streams::release`].
    #[inline]
    pub(crate) fn open(&self) -> u64 {
        self.table.len() as u64
    }

    /// Bytes that the application has given to send and that were never sent, on all streams: it looks at each.
    pub(crate) fn posted(&self) -> u64 {
        let halves = self.table.iter().filter_map(|stream| stream.send.as_ref());
        halves.map(|send| send.unsent()).sum()
    }

    /// While set, windows of streams do not grow.
    pub(crate) fn freeze_windows(&mut self, frozen: bool) {
        self.growth.freeze(frozen);
    }

    /// Bytes that streams hold: their states, what has arrived and was not consumed, and what is known of each in lists. Not counted: what the
    /// application sends.
    pub(crate) fn memory(&self) -> usize {
        let lists = [&self.readable, &self.uncredited, &self.control].map(VecDeque::capacity);
        let starting = self.starting.iter().flat_map(|starting| starting.iter());
        let starting = starting.map(VecDeque::capacity);
        let slots = lists.into_iter().chain(starting).sum::<usize>() + self.scheduler.capacity();
        self.held.0
            + self.table.memory()
            + self.by_id.capacity() * BY_ID_ENTRY
            + self.events.capacity() * size_of::<StreamEvent>()
            + slots * size_of::<u32>()
            + self
                .peer_unseen
                .iter()
                .flat_map(|unseen| unseen.iter())
                .map(RangeSet::memory)
                .sum::<usize>()
    }

    /// Gives back what lists do not need any more after many streams were open.
    #[inline]
    fn shrink(&mut self) {
        let len = self.by_id.len().max(LISTS_KEPT);
        if self.by_id.capacity() <= 4 * len {
            return;
        }
        self.by_id.shrink_to(2 * len);
        self.events.shrink_to(2 * len);
        let lists = [&mut self.readable, &mut self.uncredited, &mut self.control];
        let starting = self.starting.iter_mut().flat_map(|starting| starting.iter_mut());
        for list in lists.into_iter().chain(starting) {
            list.shrink_to(2 * len);
        }
        self.scheduler.shrink_to(2 * len);
        self.peer_unseen
            .iter_mut()
            .flat_map(|unseen| unseen.iter_mut())
            .for_each(RangeSet::shrink);
    }

    /// True if there are events, or data to deliver.
    #[inline]
    pub fn has_events(&self) -> bool {
        !self.events.is_empty() || !self.readable.is_empty()
    }

    /// Creates a stream. It has no ID, and nothing is sent, until [`Streams::start`].
    pub fn create(&mut self, dir: Dir) -> StreamKey {
        let recv = (dir == Dir::Bi).then_some(self.told.bidi_local);
        let key = self.table.insert(None, dir, Halves { send: Some(0), recv });
        self.follow_blocked(key.slot);
        if self.closed {
            self.events.push_back(StreamEvent::ShutdownComplete { key });
            self.table[key.slot].flags |= ENDED;
        }
        key
    }

    /// Starts a stream, now or as soon as the peer allows it. The event `Started` or `StartFailed` follows;
    /// with `fail_blocked` at once.
    ///
    /// # Errors
    ///
    /// The stream is not open, or was started before; or the connection has closed.
    pub fn start(&mut self, key: StreamKey, fail_blocked: bool) -> Result<(), SendError> {
        self.start_with(
            key,
            StartOptions {
                fail_blocked,
                ..StartOptions::default()
            },
        )
    }

    /// All that is sent on a stream that has not started may be sent in 0-RTT.
    pub fn allow_early(&mut self, key: StreamKey) {
        if let Some(stream) = self.get_mut(key) {
            stream.flags |= EARLY;
        }
    }

    /// As [`Streams::start`], with options.
    ///
    /// # Errors
    ///
    /// As [`Streams::start`].
    pub fn start_with(&mut self, key: StreamKey, options: StartOptions) -> Result<(), SendError> {
        let StartOptions {
            fail_blocked,
            immediate,
            tell_accepted,
        } = options;
        let closed = self.closed;
        let stream = self.get_mut(key).ok_or(SendError::Closed)?;
        if stream.id.is_some() || stream.flags & STARTING != 0 {
            return Err(SendError::InvalidState);
        }
        let dir = stream.dir;
        let index = dir as usize;
        if closed || stream.flags & ENDED != 0 {
            self.events
                .push_back(StreamEvent::StartFailed { key, blocked: false });
            return Ok(());
        }
        // Those that were started for 0-RTT, and wait again, come first.
        let must_wait = self.opened[index] >= self.limit[index] || self.is_starting(dir);
        if must_wait && fail_blocked {
            self.events
                .push_back(StreamEvent::StartFailed { key, blocked: true });
            self.end_both(key.slot);
            return Ok(());
        }
        let flag = |set: bool, flag: u16| if set { flag } else { 0 };
        self.table[key.slot].flags |=
            STARTING | flag(immediate, IMMEDIATE) | flag(tell_accepted, TELL_ACCEPTED);
        self.starting.get_or_insert_default()[index].push_back(key.slot);
        if must_wait {
            self.follow_blocked(key.slot);
            self.note_streams_blocked(dir);
        } else {
            self.start_waiting();
        }
        Ok(())
    }

    /// The peer's limit keeps streams of `dir` back.
    fn note_streams_blocked(&mut self, dir: Dir) {
        self.set_pending(control::streams_blocked(dir));
        self.told_blocked = true;
    }

    /// Streams of `dir` wait for the peer to allow more.
    fn is_starting(&self, dir: Dir) -> bool {
        self.first_starting(dir).is_some()
    }

    fn first_starting(&self, dir: Dir) -> Option<u32> {
        self.starting.as_ref()?[dir as usize].front().copied()
    }

    fn start_waiting(&mut self) {
        for dir in Dir::ALL {
            let index = dir as usize;
            while let Some(slot) = self.first_starting(dir) {
                let id = self.table[slot].id;
                let is_new = id.is_none();
                let id = id.unwrap_or_else(|| StreamId::new(self.side, dir, self.opened[index]));
                if id.index() >= self.limit[index] {
                    break;
                }
                self.starting.get_or_insert_default()[index].pop_front();
                self.opened[index] = id.index() + 1;
                let limit = match dir {
                    Dir::Bi => self.peer_windows.bidi_local,
                    Dir::Uni => self.peer_windows.uni,
                };
                self.begin_window(slot, dir, true);
                let stream = &mut self.table[slot];
                stream.id = Some(id);
                stream.flags &= !STARTING;
                let may_send = !self.early || stream.flags & EARLY != 0;
                if let Some(send) = &mut stream.send {
                    // What may go in 0-RTT ends there, if it does not before.
                    send.limit = if self.early { limit.min(send.limit) } else { limit };
                    send.immediate = may_send && stream.flags & IMMEDIATE != 0;
                }
                let key = StreamKey {
                    slot,
                    generation: stream.generation,
                };
                if is_new {
                    self.by_id.insert(id.value(), slot);
                    self.events.push_back(StreamEvent::Started { key, id });
                }
                self.tell_accepted(slot);
                // Sends of nothing have waited for it.
                self.complete_sends(key);
                self.schedule(slot);
                if self.table[slot].pending != 0 {
                    self.queue_control(slot);
                }
            }
            if self.is_starting(dir) {
                self.told_blocked = true;
            } else {
                // What was not known when they were to start is allowed.
                self.pending &= !control::streams_blocked(dir);
            }
        }
    }

    /// The peer allows a stream, unless it may yet turn out that it does not.
    fn tell_accepted(&mut self, slot: u32) {
        let key = self.key(slot);
        let stream = &mut self.table[slot];
        if stream.flags & (TELL_ACCEPTED | STARTING) == TELL_ACCEPTED && stream.id.is_some() && !self.early {
            stream.flags &= !TELL_ACCEPTED;
            self.events.push_back(StreamEvent::PeerAccepted { key });
        }
    }

    /// The highest ID that streams may have, by the two lowest bits of the ID (RFC 9000 section 2.1); `None`: there may be none.
    pub fn max_ids(&self) -> [Option<StreamId>; 4] {
        let mut ids = [None; 4];
        for (side, limits) in [(self.side, self.limit), (self.side.peer(), self.peer_limit)] {
            for dir in Dir::ALL {
                let last = limits[dir as usize].checked_sub(1);
                let id = last.map(|index| StreamId::new(side, dir, index));
                let kind = StreamId::new(side, dir, 0).value() as usize;
                ids[kind] = id;
            }
        }
        ids
    }

    /// Bytes of a stream that have come in 0-RTT, from its beginning.
    pub fn early_len(&self, key: StreamKey) -> u64 {
        let recv = self.get(key).and_then(|stream| stream.recv.as_ref());
        recv.map_or(0, |recv| recv.early_end)
    }

    /// Several deliveries of a stream may be pending.
    pub fn takes_many(&self) -> bool {
        self.config.multi_receive
    }

    /// How many streams of each direction can be opened at once.
    pub fn available(&self) -> [u64; 2] {
        std::array::from_fn(|index| self.limit[index].saturating_sub(self.opened[index]))
    }

    fn report_available(&mut self) {
        let [bidi, uni] = self.available();
        let event = StreamEvent::StreamsAvailable { bidi, uni };
        // The last one tells all, however often the peer allows one more.
        match self.events.back_mut() {
            Some(last @ StreamEvent::StreamsAvailable { .. }) => *last = event,
            _ => self.events.push_back(event),
        }
    }

    /// Attaches a number of the caller's to a stream.
    pub fn set_user_data(&mut self, key: StreamKey, user_data: u64) {
        if let Some(stream) = self.get_mut(key) {
            stream.user_data = user_data;
        }
    }

    /// The number of the caller's that is attached to a stream.
    pub fn user_data(&self, key: StreamKey) -> u64 {
        self.get(key).map_or(u64::MAX, |stream| stream.user_data)
    }

    /// Ends the life of a key, after `ShutdownComplete`.
    pub fn release(&mut self, key: StreamKey) {
        if let Some(stream) = self.get_mut(key)
            && stream.flags & (ENDED | ENDED_EARLY) == ENDED_EARLY
        {
            // What there is to say to the peer is yet to be said.
            stream.flags |= RELEASED;
            stream.user_data = u64::MAX;
            return;
        }
        if self.get(key).is_some_and(|stream| stream.flags & ENDED != 0) {
            let stream = &mut self.table[key.slot];
            debug_assert!(stream.id.is_none_or(|id| !self.by_id.contains_key(&id.value())));
            if let Some(recv) = &mut stream.recv
                && !recv.assembler.is_empty()
            {
                self.held.change(&mut recv.assembler, Assembler::clear);
            }
            let unordered = stream.recv.as_mut().and_then(|recv| recv.unordered.take());
            let flags = stream.flags;
            if flags & IN_LISTS != 0 {
                self.leave_lists(key.slot, flags);
            }
            if let Some(delivered) = unordered {
                self.forget_unordered(&delivered);
            }
            self.table.remove(key.slot);
            self.shrink();
        }
    }

    /// The connection has ended: every stream ends.
    pub(crate) fn close_all(&mut self) {
        if std::mem::replace(&mut self.closed, true) {
            return;
        }
        self.starting = None;
        for slot in self.table.slots() {
            let stream = &self.table[slot];
            if stream.flags & STARTING != 0 && stream.id.is_none() {
                let key = StreamKey {
                    slot,
                    generation: stream.generation,
                };
                self.events
                    .push_back(StreamEvent::StartFailed { key, blocked: false });
            }
            self.end_both(slot);
        }
        self.pending = 0;
    }

    /// Ends a stream that has no ID yet: it will never have one. True if it is such a stream.
    fn end_unstarted(&mut self, key: StreamKey) -> bool {
        let Some(stream) = self.get(key).filter(|stream| stream.id.is_none()) else {
            return false;
        };
        if stream.flags & STARTING != 0 {
            let dir = stream.dir as usize;
            self.starting.get_or_insert_default()[dir].retain(|&slot| slot != key.slot);
            self.events
                .push_back(StreamEvent::StartFailed { key, blocked: false });
        }
        self.end_both(key.slot);
        true
    }

    /// Ends both halves without a frame to the peer.
    fn end_both(&mut self, slot: u32) {
        let stream = &mut self.table[slot];
        if stream.flags & ENDED != 0 {
            return;
        }
        let key = StreamKey {
            slot,
            generation: stream.generation,
        };
        stream.flags &= !STARTING;
        stream.pending = 0;
        if let Some(send) = &mut stream.send
            && !send.end_reported
        {
            send.end_reported = true;
            send.reset(0, |released| {
                self.queued -= released.len;
                self.events.extend(released.event(key, true));
            });
            // One that never started may still get StartFailed, which comes before anything else.
            if stream.id.is_some() {
                self.events
                    .push_back(StreamEvent::SendShutdownComplete { key, graceful: false });
            }
        }
        if let Some(recv) = &mut stream.recv {
            self.held.change(&mut recv.assembler, Assembler::clear);
            recv.end_reported = true;
        }
        self.end_growth(slot);
        self.finish(slot);
    }

    /// A stream receives no more: what its window has grown by is for others.
    #[inline]
    fn end_growth(&mut self, slot: u32) {
        if !self.growth.is_used() {
            return;
        }
        let stream = &mut self.table[slot];
        let initial = self
            .config
            .initial_window(stream.dir, is_local(stream.id, self.side));
        if let Some(recv) = &mut stream.recv {
            self.growth.give_back(&mut recv.window, initial);
        }
    }

    #[inline]
    fn get(&self, key: StreamKey) -> Option<&StreamState> {
        self.table.get(key)
    }

    #[inline]
    fn get_mut(&mut self, key: StreamKey) -> Option<&mut StreamState> {
        self.table.get_mut(key)
    }

    #[inline]
    fn key(&self, slot: u32) -> StreamKey {
        StreamKey {
            slot,
            generation: self.table[slot].generation,
        }
    }

    /// The stream that a frame of the peer names; `None` if it has ended. Opens it if it is the peer's to open.
    /// `sends` says that the frame is about data that the peer sends.
    #[inline]
    fn find(&mut self, id: u64, sends: bool) -> Result<Option<u32>, TransportError> {
        let stream_id = StreamId::from_value(id);
        // Frames of one stream mostly follow each other.
        let last = self.table.at(self.last_found);
        if sends
            && last.is_some_and(|last| {
                last.id == Some(stream_id) && last.recv.is_some() && last.flags & (ENDED | STARTING) == 0
            })
        {
            return Ok(Some(self.last_found));
        }
        if stream_id.dir() == Dir::Uni && (stream_id.initiator() == self.side) == sends {
            return Err(TransportError::new(
                TransportErrorCode::STREAM_STATE_ERROR,
                "frame for the wrong direction of a unidirectional stream",
            ));
        }
        let index = stream_id.dir() as usize;
        let is_ours = stream_id.initiator() == self.side;
        // Those, too, that were opened in 0-RTT which was rejected, and have an ID already.
        if is_ours && stream_id.index() >= self.opened[index] {
            return Err(TransportError::new(
                TransportErrorCode::STREAM_STATE_ERROR,
                "frame for a stream that we have not opened",
            ));
        }
        if let Some(&slot) = self.by_id.get(&id) {
            self.last_found = slot;
            return Ok(Some(slot));
        }
        if is_ours {
            return Ok(None);
        }
        if stream_id.index() >= self.peer_opened[index] {
            if stream_id.index() >= self.peer_limit[index] {
                return Err(TransportError::new(
                    TransportErrorCode::STREAM_LIMIT_ERROR,
                    "more streams than allowed",
                ));
            }
            let unseen = self.peer_opened[index]..stream_id.index();
            if !unseen.is_empty() {
                self.peer_unseen.get_or_insert_default()[index].insert(unseen);
            }
            self.peer_opened[index] = stream_id.index() + 1;
            self.offer_streams(stream_id.dir());
        } else {
            let unseen = self.peer_unseen.as_mut().map(|unseen| &mut unseen[index]);
            let Some(unseen) = unseen.filter(|unseen| unseen.contains(stream_id.index())) else {
                return Ok(None);
            };
            unseen.remove(stream_id.index()..stream_id.index() + 1);
        }
        Ok(Some(self.open_peer_stream(stream_id).slot))
    }

    fn open_peer_stream(&mut self, id: StreamId) -> StreamKey {
        let halves = Halves {
            send: (id.dir() == Dir::Bi).then_some(self.peer_windows.bidi_remote),
            recv: Some(self.told.of_peer_stream(id.dir())),
        };
        let key = self.table.insert(Some(id), id.dir(), halves);
        self.follow_blocked(key.slot);
        self.begin_window(key.slot, id.dir(), false);
        self.by_id.insert(id.value(), key.slot);
        self.events.push_back(StreamEvent::PeerOpened { key, id });
        key
    }

    /// Reports the end of a stream if both of its halves are done.
    fn finish(&mut self, slot: u32) {
        let stream = &mut self.table[slot];
        let send_done = stream
            .send
            .as_ref()
            .is_none_or(|send| send.end_reported && (send.is_done() || self.closed || stream.id.is_none()));
        let recv_done = stream.recv.as_ref().is_none_or(RecvHalf::is_done);
        if !send_done || !recv_done || stream.flags & ENDED != 0 {
            return;
        }
        let (id, generation) = (stream.id, stream.generation);
        let flags = std::mem::replace(&mut stream.flags, ENDED);
        stream.pending = 0;
        if flags & IN_LISTS != 0 {
            self.leave_lists(slot, flags);
        }
        if let Some(id) = id {
            self.by_id.remove(&id.value());
            if id.initiator() != self.side && flags & HOLDS_CREDIT == 0 {
                self.on_peer_stream_ended(id.dir());
            }
        }
        let key = StreamKey { slot, generation };
        if flags & ENDED_EARLY == 0 {
            self.events.push_back(StreamEvent::ShutdownComplete { key });
        } else if flags & RELEASED != 0 {
            self.release(key);
        }
    }

    /// Ends both halves of a stream with an error code, and reports its end before the peer knows of it.
    pub fn abort_immediately(&mut self, clock: FlowClock, key: StreamKey, code: u64) {
        self.abort(clock, key, code);
        let Some(stream) = self.get_mut(key) else { return };
        if stream.flags & (ENDED | ENDED_EARLY) == 0 {
            stream.flags |= ENDED_EARLY;
            self.events.push_back(StreamEvent::ShutdownComplete { key });
        }
    }

    /// The next event of a stream, before those of others.
    pub fn next_event_of(&mut self, key: StreamKey) -> Option<StreamEvent> {
        let position = self.events.iter().position(|event| event.key() == Some(key))?;
        self.events.remove(position)
    }

    /// Takes a stream with these flags out of the lists it is in.
    fn leave_lists(&mut self, slot: u32, flags: u16) {
        if flags & IN_SCHEDULER != 0 {
            self.scheduler.remove(slot);
        }
        if flags & IN_UNCREDITED != 0 {
            self.uncredited.retain(|&other| other != slot);
        }
        if flags & IN_CONTROL != 0 {
            self.control.retain(|&other| other != slot);
        }
        if flags & IN_READABLE != 0 {
            self.readable.retain(|&other| other != slot);
        }
    }

    /// A stream of the peer that ends gives it no credit for another one, before [`Streams::give_stream_credit`].
    pub fn hold_stream_credit(&mut self, key: StreamKey) {
        if let Some(stream) = self.get_mut(key) {
            stream.flags |= HOLDS_CREDIT;
        }
    }

    /// Lets the peer open another stream for one that held its credit: now if it has ended, otherwise when it ends.
    pub fn give_stream_credit(&mut self, id: StreamId) {
        match self.by_id.get(&id.value()) {
            // Its last event came before the peer knew.
            Some(&slot) => self.table[slot].flags &= !HOLDS_CREDIT,
            None => self.on_peer_stream_ended(id.dir()),
        }
    }

    /// Lets the peer open another stream for one that has ended.
    fn on_peer_stream_ended(&mut self, dir: Dir) {
        self.peer_ended[dir as usize] += 1;
        self.offer_streams(dir);
    }

    /// Tells the peer of streams that it may open for those that have ended: several at a time, so that not each costs a frame, but no later
    /// than when as many are owed as it has left. So it never waits with some owed.
    #[inline]
    fn offer_streams(&mut self, dir: Dir) {
        let index = dir as usize;
        let owed = self.owed_streams(dir);
        let left = self.peer_limit[index] - self.peer_opened[index];
        if owed > 0 && (owed >= left || owed.saturating_mul(4) >= self.config.peer_streams[index]) {
            self.announce_streams(dir);
        }
    }

    /// Streams that the peer may open and does not know of.
    #[inline]
    fn owed_streams(&self, dir: Dir) -> u64 {
        let index = dir as usize;
        let limit = (self.peer_ended[index] + self.config.peer_streams[index]).min(STREAMS_MAX);
        limit.saturating_sub(self.peer_limit[index])
    }

    fn announce_streams(&mut self, dir: Dir) {
        if !self.closed {
            self.peer_limit[dir as usize] += self.owed_streams(dir);
            self.set_pending(control::max_streams(dir));
        }
    }

    /// MAX_STREAMS arrived.
    pub(crate) fn on_max_streams(&mut self, dir: Dir, max: u64) {
        let index = dir as usize;
        if max > self.limit[index] {
            self.limit[index] = max;
            self.start_waiting();
            self.report_available();
        }
    }

    /// STREAMS_BLOCKED arrived: the peer would open more streams than `limit`.
    pub(crate) fn on_streams_blocked(&mut self, dir: Dir, limit: u64) {
        if self.owed_streams(dir) > 0 {
            return self.announce_streams(dir);
        }
        if limit < self.peer_limit[dir as usize] {
            // It has been told of more meanwhile.
            return;
        }
        // One event is enough, however often the peer says it.
        let event = StreamEvent::PeerNeedsStreams { dir };
        if !self.events.contains(&event) {
            self.events.push_back(event);
        }
    }
}

/// Whether a stream is one that this side opens.
fn is_local(id: Option<StreamId>, side: Side) -> bool {
    id.is_none_or(|id| id.initiator() == side)
}

/// A sum over all assemblers, and what was delivered of streams that are read out of order, kept while they change.
#[derive(Default)]
struct Held(usize);

impl Held {
    fn change<R>(&mut self, assembler: &mut Assembler, change: impl FnOnce(&mut Assembler) -> R) -> R {
        let before = assembler.memory();
        let result = change(assembler);
        self.0 = self.0 + assembler.memory() - before;
        result
    }
}

/// How much of a stream should be queued while little is in flight (MsQuic).
pub const IDEAL_SEND_MIN: u64 = 128 * 1024;
/// How much of a stream should be queued at most (MsQuic).
const IDEAL_SEND_MAX: u64 = 128 * 1024 * 1024;
/// Entries for which lists keep room without a stream that needs it.
const LISTS_KEPT: usize = 32;
/// Bytes that a map takes for each entry that it has room for: key and value with padding, and an eighth of its places stay empty.
const BY_ID_ENTRY: usize = 20;

/// The round trip time and the time, for flow control.
#[derive(Clone, Copy, Debug)]
pub struct FlowClock {
    /// Now.
    pub now: Instant,
    /// Smoothed round trip time.
    pub rtt: Duration,
}
