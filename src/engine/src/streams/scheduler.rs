//! Which stream sends next.

use std::collections::VecDeque;

/// How streams of equal priority share the connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Scheduling {
    /// The stream that had data first sends all it can.
    #[default]
    Fifo,
    /// Streams take turns of a few packets.
    RoundRobin,
}

/// Streams with new data that the peer allows, by priority.
#[derive(Debug)]
pub(super) struct Scheduler {
    scheduling: Scheduling,
    /// Highest priority first. Empty levels stay: an application uses few priorities.
    levels: Vec<Level>,
    /// Pieces that the stream at the front has sent in its turn.
    turn: u32,
}

#[derive(Debug)]
struct Level {
    priority: u16,
    queue: VecDeque<u32>,
}

impl Scheduler {
    pub(super) fn new(scheduling: Scheduling) -> Self {
        Scheduler {
            scheduling,
            levels: Vec::new(),
            turn: 0,
        }
    }

    /// From now on.
    pub(super) fn set_scheduling(&mut self, scheduling: Scheduling) {
        self.scheduling = scheduling;
    }

    /// Adds a stream that is not in here.
    pub(super) fn push(&mut self, priority: u16, slot: u32) {
        let index = match self.levels.iter().position(|level| level.priority <= priority) {
            Some(index) if self.levels[index].priority == priority => index,
            found => {
                let index = found.unwrap_or(self.levels.len());
                self.levels.insert(
                    index,
                    Level {
                        priority,
                        queue: VecDeque::new(),
                    },
                );
                index
            }
        };
        self.levels[index].queue.push_back(slot);
    }

    /// The stream whose turn it is.
    #[inline]
    pub(super) fn front(&self) -> Option<u32> {
        self.levels.iter().find_map(|level| level.queue.front().copied())
    }

    /// The stream at the front has sent a piece and has more.
    #[inline]
    pub(super) fn sent(&mut self) {
        if self.scheduling == Scheduling::Fifo {
            return;
        }
        self.turn += 1;
        if self.turn >= TURN
            && let Some(level) = self.levels.iter_mut().find(|level| !level.queue.is_empty())
        {
            self.turn = 0;
            level.queue.rotate_left(1);
        }
    }

    /// The stream at the front has nothing more.
    #[inline]
    pub(super) fn pop(&mut self) {
        self.turn = 0;
        if let Some(level) = self.levels.iter_mut().find(|level| !level.queue.is_empty()) {
            level.queue.pop_front();
        }
    }

    /// Takes a stream out, wherever it is.
    pub(super) fn remove(&mut self, slot: u32) {
        if self.front() == Some(slot) {
            return self.pop();
        }
        for level in &mut self.levels {
            level.queue.retain(|&other| other != slot);
        }
    }

    /// Streams for which there is room.
    pub(super) fn capacity(&self) -> usize {
        self.levels.iter().map(|level| level.queue.capacity()).sum()
    }

    /// Gives back room for more streams than this.
    pub(super) fn shrink_to(&mut self, streams: usize) {
        self.levels
            .iter_mut()
            .for_each(|level| level.queue.shrink_to(streams));
    }

    /// True if no stream has data.
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.front().is_none()
    }
}

/// Packets in one turn (MsQuic: `QUIC_STREAM_SEND_BATCH_COUNT`).
const TURN: u32 = 8;
