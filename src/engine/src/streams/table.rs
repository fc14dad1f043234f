//! The table of streams. Each lies in a box of its own, so that a stream that has gone leaves 8 bytes in the table, and not its size, while one
//! with a higher slot is open. The next streams of any connection of the thread take over the boxes of some that have gone, with the lists in them:
//! requests follow each other, and each would take memory from the heap and be moved in and out.

use std::cell::RefCell;
use std::ops::{Index, IndexMut};

use super::id::{Dir, StreamId, StreamKey};
use super::recv::RecvHalf;
use super::send::SendHalf;
use crate::base::blocked::BlockedTimes;

/// One stream.
pub(super) struct StreamState {
    /// [`VACANT`] if there is none in this slot.
    pub(super) generation: u32,
    /// `None` until it is started.
    pub(super) id: Option<StreamId>,
    pub(super) dir: Dir,
    /// Number of the caller's.
    pub(super) user_data: u64,
    pub(super) priority: u16,
    pub(super) flags: u16,
    /// Control frames to send.
    pub(super) pending: u8,
    pub(super) send: Option<SendHalf>,
    pub(super) recv: Option<RecvHalf>,
    /// How long what has kept its data back.
    pub(super) blocked: BlockedTimes<3>,
}

/// The streams of a connection by their slots.
#[derive(Default)]
pub(super) struct Table {
    slots: Vec<Option<Box<StreamState>>>,
    /// Slots without a stream.
    empty: Vec<u32>,
    /// The generation of the stream that came last.
    generation: u32,
}

#[allow(
    clippy::vec_box,
    reason = "the boxes are what is kept: they go into slots as they are"
)]
type States = Vec<Box<StreamState>>;

thread_local! {
    /// States of streams that have gone, cleared, for others: at most [`KEPT_MAX`].
    static KEPT: RefCell<States> = const { RefCell::new(Vec::new()) };
}

/// Gives the memory of the states back that this thread keeps: some 400 KB at most.
pub fn forget_kept_states() {
    with_kept(|kept| *kept = Vec::new());
}

/// The halves that a stream has, each with its limit.
#[derive(Clone, Copy)]
pub(super) struct Halves {
    pub(super) send: Option<u64>,
    pub(super) recv: Option<u64>,
}

impl Table {
    /// Adds a stream.
    pub(super) fn insert(&mut self, id: Option<StreamId>, dir: Dir, halves: Halves) -> StreamKey {
        self.generation = self.generation.checked_add(1).unwrap_or(VACANT + 1);
        let generation = self.generation;
        let slot = self.empty.pop().unwrap_or_else(|| {
            push(&mut self.slots, None);
            self.slots.len() as u32 - 1
        });
        let stream = with_kept(Vec::pop).flatten();
        let stream = stream.unwrap_or_else(|| Box::new(StreamState::vacant()));
        let stream = self.slots[slot as usize].insert(stream);
        stream.generation = generation;
        stream.id = id;
        stream.dir = dir;
        stream.user_data = u64::MAX;
        stream.priority = PRIORITY_DEFAULT;
        stream.flags = 0;
        stream.pending = 0;
        stream.blocked = BlockedTimes::new();
        match (halves.send, &mut stream.send) {
            (Some(limit), Some(send)) => send.renew(limit),
            (limit, send) => *send = limit.map(SendHalf::new),
        }
        match (halves.recv, &mut stream.recv) {
            (Some(window), Some(recv)) => recv.renew(window),
            (window, recv) => *recv = window.map(RecvHalf::new),
        }
        StreamKey { slot, generation }
    }

    /// Removes a stream.
    #[inline]
    pub(super) fn remove(&mut self, slot: u32) {
        let Some(mut stream) = self.slots[slot as usize].take() else {
            return;
        };
        push(&mut self.empty, slot);
        // Not within: the application's memory goes with it, and whatever that does when it is dropped.
        stream.generation = VACANT;
        stream.id = None;
        stream.send.iter_mut().for_each(SendHalf::clear);
        stream.recv.iter_mut().for_each(RecvHalf::clear);
        with_kept(|kept| {
            if kept.len() < KEPT_MAX {
                kept.push(stream);
            }
        });
        if self.empty.len() == self.slots.len() && self.slots.len() > SLOTS_KEPT {
            self.slots = Vec::new();
            self.empty = Vec::new();
        }
    }

    #[inline]
    pub(super) fn get(&self, key: StreamKey) -> Option<&StreamState> {
        self.at(key.slot)
            .filter(|stream| stream.generation == key.generation)
    }

    #[inline]
    pub(super) fn get_mut(&mut self, key: StreamKey) -> Option<&mut StreamState> {
        self.slots
            .get_mut(key.slot as usize)?
            .as_deref_mut()
            .filter(|stream| stream.generation == key.generation)
    }

    /// The stream in a slot, if there is one.
    #[inline]
    pub(super) fn at(&self, slot: u32) -> Option<&StreamState> {
        self.slots.get(slot as usize)?.as_deref()
    }

    /// All streams.
    pub(super) fn iter(&self) -> impl Iterator<Item = &StreamState> {
        self.slots.iter().filter_map(Option::as_deref)
    }

    /// Slots of all streams.
    pub(super) fn slots(&self) -> Vec<u32> {
        (0..self.slots.len() as u32)
            .filter(|&slot| self.at(slot).is_some())
            .collect()
    }

    #[inline]
    pub(super) fn len(&self) -> usize {
        self.slots.len() - self.empty.len()
    }

    /// Bytes that it holds beside itself.
    pub(super) fn memory(&self) -> usize {
        self.slots.capacity() * size_of::<Option<Box<StreamState>>>()
            + self.empty.capacity() * size_of::<u32>()
            + self.len() * (size_of::<StreamState>() + BOX_OVERHEAD)
    }
}

/// Gives `use_it` the states that are kept, unless the thread ends.
#[inline]
fn with_kept<R>(use_it: impl FnOnce(&mut States) -> R) -> Option<R> {
    KEPT.try_with(|kept| use_it(&mut kept.borrow_mut())).ok()
}

/// Appends to a list that grows by a quarter: doubled, it would have as much in reserve as it holds.
fn push<T>(list: &mut Vec<T>, item: T) {
    if list.len() == list.capacity() {
        list.reserve_exact((list.len() / 4).max(8));
    }
    list.push(item);
}

/// Of a slot that holds a stream.
impl Index<u32> for Table {
    type Output = StreamState;

    #[inline]
    fn index(&self, slot: u32) -> &StreamState {
        self.slots[slot as usize].as_deref().expect(HOLDS)
    }
}

impl IndexMut<u32> for Table {
    #[inline]
    fn index_mut(&mut self, slot: u32) -> &mut StreamState {
        self.slots[slot as usize].as_deref_mut().expect(HOLDS)
    }
}

impl StreamState {
    fn vacant() -> Self {
        StreamState {
            generation: VACANT,
            id: None,
            dir: Dir::Bi,
            user_data: u64::MAX,
            priority: PRIORITY_DEFAULT,
            flags: 0,
            pending: 0,
            send: None,
            recv: None,
            blocked: BlockedTimes::new(),
        }
    }
}

/// Of a stream that was given none: the middle (MsQuic).
pub const PRIORITY_DEFAULT: u16 = 0x7fff;
/// The generation of no stream.
const VACANT: u32 = 0;
/// States that are kept: those of as many requests as end in a turn, and are followed by others in the next.
const KEPT_MAX: usize = 512;
/// Slots that may stay when no stream is left.
const SLOTS_KEPT: usize = 64;
/// What the heap takes for itself with each box, at most.
const BOX_OVERHEAD: usize = 16;
const HOLDS: &str = "lists name slots of streams that are there";

#[cfg(test)]
mod tests {
    use super::*;

    const HALVES: Halves = Halves {
        send: Some(1),
        recv: Some(1),
    };

    #[test]
    fn streams_find_kept_states_also_after_a_burst_of_many() {
        let mut table = Table::default();
        let burst = 0..2 * KEPT_MAX;
        let keys: Vec<_> = burst.map(|_| table.insert(None, Dir::Bi, HALVES)).collect();
        keys.iter().for_each(|key| table.remove(key.slot));
        assert!(table.len() == 0 && keys.iter().all(|key| table.get(*key).is_none()));
        assert_eq!(with_kept(|kept| kept.len()), Some(KEPT_MAX));
        // Also those of other connections.
        let mut other = Table::default();
        for _ in 0..100 {
            let key = other.insert(None, Dir::Bi, HALVES);
            assert_eq!(with_kept(|kept| kept.len()), Some(KEPT_MAX - 1));
            other.remove(key.slot);
        }
    }

    #[test]
    fn streams_that_have_gone_leave_little_while_one_is_open_and_nothing_afterwards() {
        let mut table = Table::default();
        let keys: Vec<_> = (0..10_000).map(|_| table.insert(None, Dir::Bi, HALVES)).collect();
        assert!(table.memory() <= 10_000 * 465, "{}", table.memory());
        let (last, others) = keys.split_last().unwrap();
        others.iter().for_each(|key| table.remove(key.slot));
        assert!(table.memory() <= 10_000 * 15, "{}", table.memory());
        assert!(table.get(*last).is_some());
        table.remove(last.slot);
        assert_eq!(table.memory(), 0);
        // The keys of before lead nowhere, whatever takes their slots.
        let next = table.insert(None, Dir::Bi, HALVES);
        assert!(keys.iter().all(|key| table.get(*key).is_none()) && table.get(next).is_some());
    }
}
