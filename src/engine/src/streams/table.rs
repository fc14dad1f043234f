//! The table of streams. A stream is set up and taken apart in its slot, and the next one there uses the lists that it leaves: requests
//! follow each other, and each would take memory from the heap and be moved in and out.

use std::ops::{Index, IndexMut};

use super::id::{Dir, StreamId, StreamKey};
use super::recv::RecvHalf;
use super::send::SendHalf;

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
    pub(super) flags: u8,
    /// Control frames to send.
    pub(super) pending: u8,
    pub(super) send: Option<SendHalf>,
    pub(super) recv: Option<RecvHalf>,
}

/// The streams of a connection by their slots.
#[derive(Default)]
pub(super) struct Table {
    slots: Vec<StreamState>,
    /// Slots without a stream whose halves are kept, at most [`HALVES_KEPT_MAX`]: these are taken first.
    with_halves: Vec<u32>,
    /// Slots with nothing in them.
    empty: Vec<u32>,
    /// The generation of the stream that came last.
    generation: u32,
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
        let slot = self
            .with_halves
            .pop()
            .or_else(|| self.empty.pop())
            .unwrap_or_else(|| {
                self.slots.push(StreamState::vacant());
                self.slots.len() as u32 - 1
            });
        let stream = &mut self.slots[slot as usize];
        stream.generation = generation;
        stream.id = id;
        stream.dir = dir;
        stream.user_data = u64::MAX;
        stream.priority = PRIORITY_DEFAULT;
        stream.flags = 0;
        stream.pending = 0;
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
        let stream = &mut self.slots[slot as usize];
        stream.generation = VACANT;
        stream.id = None;
        if self.with_halves.len() < HALVES_KEPT_MAX {
            stream.send.iter_mut().for_each(SendHalf::clear);
            stream.recv.iter_mut().for_each(RecvHalf::clear);
            self.with_halves.push(slot);
        } else {
            stream.send = None;
            stream.recv = None;
            self.empty.push(slot);
        }
    }

    #[inline]
    pub(super) fn get(&self, key: StreamKey) -> Option<&StreamState> {
        self.slots
            .get(key.slot as usize)
            .filter(|stream| stream.generation == key.generation)
    }

    #[inline]
    pub(super) fn get_mut(&mut self, key: StreamKey) -> Option<&mut StreamState> {
        self.slots
            .get_mut(key.slot as usize)
            .filter(|stream| stream.generation == key.generation)
    }

    /// The stream in a slot, if there is one.
    #[inline]
    pub(super) fn at(&self, slot: u32) -> Option<&StreamState> {
        self.slots
            .get(slot as usize)
            .filter(|stream| stream.generation != VACANT)
    }

    /// Slots of all streams.
    pub(super) fn slots(&self) -> Vec<u32> {
        (0..self.slots.len() as u32)
            .filter(|&slot| self.at(slot).is_some())
            .collect()
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len() - self.with_halves.len() - self.empty.len()
    }
}

/// Of a slot that holds a stream.
impl Index<u32> for Table {
    type Output = StreamState;

    #[inline]
    fn index(&self, slot: u32) -> &StreamState {
        &self.slots[slot as usize]
    }
}

impl IndexMut<u32> for Table {
    #[inline]
    fn index_mut(&mut self, slot: u32) -> &mut StreamState {
        &mut self.slots[slot as usize]
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
        }
    }
}

/// Of a stream that was given none: the middle (MsQuic).
pub(super) const PRIORITY_DEFAULT: u16 = 0x7fff;
/// The generation of no stream.
const VACANT: u32 = 0;
/// Slots whose halves are kept: a burst of streams at the end of which many go at once need not keep all.
const HALVES_KEPT_MAX: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_find_kept_halves_also_after_a_burst_of_many() {
        let halves = Halves {
            send: Some(1),
            recv: Some(1),
        };
        let mut table = Table::default();
        let keys: Vec<_> = (0..300).map(|_| table.insert(None, Dir::Bi, halves)).collect();
        keys.iter().for_each(|key| table.remove(key.slot));
        assert!(table.len() == 0 && keys.iter().all(|key| table.get(*key).is_none()));
        let kept = |table: &Table| table.slots.iter().filter(|stream| stream.send.is_some()).count();
        assert_eq!(kept(&table), HALVES_KEPT_MAX);
        for _ in 0..100 {
            let key = table.insert(None, Dir::Bi, halves);
            assert_eq!(kept(&table), HALVES_KEPT_MAX);
            table.remove(key.slot);
        }
    }
}
