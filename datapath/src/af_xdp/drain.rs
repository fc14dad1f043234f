//! Whether the kernel goes on sending what is on a transmit ring.

use std::time::Duration;

use ringway_types::Instant;

/// Watches how many frames the kernel has begun to send. While some are left, one must look again rather than sleep: nothing tells of room.
#[derive(Debug, Default)]
pub(super) struct Drain {
    /// Frames were left when the kernel was asked last, as of the frames that it has begun to send since the start.
    left: Option<u32>,
    /// Since when it has sent none of those, and how often it was asked.
    standing: Option<(u32, Instant)>,
    asked: u32,
    stuck: bool,
}

/// What has become of a ring.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Change {
    /// Nothing has gone out for a second, however often the kernel was asked.
    Stuck,
    /// Something goes out again.
    Goes,
}

impl Drain {
    /// The kernel was asked to send, or need not be. `begun` it has begun to send since the start; some are `left`.
    pub(super) fn on_asked(&mut self, begun: u32, left: bool) {
        self.left = left.then_some(begun);
        self.asked = self.asked.saturating_add(1);
    }

    /// Frames were left.
    pub(super) fn has_left(&self) -> bool {
        self.left.is_some()
    }

    pub(super) fn is_stuck(&self) -> bool {
        self.stuck
    }

    /// Once in each turn.
    pub(super) fn look(&mut self, now: Instant) -> Option<Change> {
        let Some(begun) = self.left else {
            self.standing = None;
            return std::mem::take(&mut self.stuck).then_some(Change::Goes);
        };
        match self.standing {
            Some((before, since)) if before == begun => {
                let was_stuck = self.stuck;
                self.stuck |= now.since(since) >= STUCK_AFTER && self.asked >= ASKED_MIN;
                (self.stuck && !was_stuck).then_some(Change::Stuck)
            }
            _ => {
                self.standing = Some((begun, now));
                self.asked = 0;
                std::mem::take(&mut self.stuck).then_some(Change::Goes)
            }
        }
    }
}

const STUCK_AFTER: Duration = Duration::from_secs(1);
/// A thread that did not run for a second has not asked.
const ASKED_MIN: u32 = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ring_is_stuck_if_nothing_goes_out_for_a_second_and_is_not_once_something_does() {
        let at = |millis: u64| Instant::from_nanos(millis * 1_000_000);
        let mut drain = Drain::default();
        for turn in 0..100 {
            drain.on_asked(turn, turn % 3 > 0);
            assert_eq!(drain.look(at(u64::from(turn) * 500)), None, "it goes on");
        }
        drain.on_asked(200, true);
        assert_eq!(drain.look(at(60_000)), None);
        drain.on_asked(200, true);
        assert_eq!(drain.look(at(62_000)), None, "it was not asked meanwhile");
        for _ in 0..8 {
            drain.on_asked(200, true);
        }
        assert_eq!(drain.look(at(62_001)), Some(Change::Stuck));
        assert!(drain.is_stuck());
        drain.on_asked(200, true);
        assert_eq!(drain.look(at(63_000)), None, "it is told once");
        drain.on_asked(201, true);
        assert_eq!(drain.look(at(63_001)), Some(Change::Goes));
        assert!(!drain.is_stuck() && drain.has_left());
        drain.on_asked(202, false);
        assert_eq!(drain.look(at(64_000)), None);
        assert!(!drain.has_left());
    }
}
