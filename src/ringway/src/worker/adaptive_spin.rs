//! Whether a thread should look for work a moment longer before it sleeps.
//!
//! A sleep is not free: who wakes the thread pays some 15 µs for it, the thread itself pays for the way down and up, and the work waits for 20 µs.
//! Where the next packet comes sooner than that, as between two ends of requests that are made one at a time, looking for it takes less processor
//! time than sleeping does, and brings the answer in a fraction of the time. Where it does not, looking is wasted. What came last tells which it is.

use std::time::Duration;

/// Watches how long sleeps are, and says how long to look for work before the next one.
#[derive(Debug)]
pub(super) struct AdaptiveSpin {
    /// Short sleeps to be seen before it looks again.
    due: u32,
    /// What the last look in vain made `due`: each further one doubles it. Who shares a processor with the peer that it waits for never finds
    /// anything by looking, however short its sleeps are.
    backoff: u32,
}

impl AdaptiveSpin {
    /// Nothing is known yet: it takes a short sleep first.
    pub(super) fn new() -> Self {
        AdaptiveSpin { due: 1, backoff: 0 }
    }

    /// How long to look for work before sleeping.
    pub(super) fn budget(&self) -> Duration {
        if self.due == 0 { LOOK } else { Duration::ZERO }
    }

    /// Work came while it looked.
    pub(super) fn on_found(&mut self) {
        self.backoff /= 2;
    }

    /// It goes to sleep: if [`AdaptiveSpin::budget`] had it look for work, it did so in vain.
    pub(super) fn on_sleep(&mut self) {
        if self.due > 0 {
            return;
        }
        self.backoff = (self.backoff * 2 + 1).min(BACKOFF_MAX);
        self.due = self.backoff;
    }

    /// It slept for so long.
    pub(super) fn on_slept(&mut self, slept: Duration) {
        if slept < LOOK + WAKE_UP {
            self.due = self.due.saturating_sub(1);
        }
    }
}

/// How long to look: about what a sleep and a wake-up take of both sides' processor time.
const LOOK: Duration = Duration::from_micros(25);
/// What a sleep lasts longer than the wait for its end.
const WAKE_UP: Duration = Duration::from_micros(20);
/// So that looking in vain again and again takes a thousandth of the time that it would.
const BACKOFF_MAX: u32 = 1023;

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Duration = Duration::from_micros(30);
    const LONG: Duration = Duration::from_millis(1);

    #[test]
    fn looks_after_a_short_sleep_and_not_after_long_ones() {
        let mut waits = AdaptiveSpin::new();
        assert_eq!(waits.budget(), Duration::ZERO);
        waits.on_slept(LONG);
        assert_eq!(waits.budget(), Duration::ZERO);
        waits.on_slept(SHORT);
        assert_eq!(waits.budget(), LOOK);
        waits.on_found();
        assert_eq!(waits.budget(), LOOK);
        // The peer has stopped.
        waits.on_sleep();
        assert_eq!(waits.budget(), Duration::ZERO);
        waits.on_slept(LONG);
        assert_eq!(waits.budget(), Duration::ZERO);
    }

    #[test]
    fn looks_ever_more_rarely_where_nothing_is_found() {
        let mut waits = AdaptiveSpin::new();
        let mut looks = 0;
        for _ in 0..100_000 {
            waits.on_slept(SHORT);
            looks += u32::from(!waits.budget().is_zero());
            waits.on_sleep();
        }
        assert!((50..200).contains(&looks), "{looks}");
        // And all the time again once it pays.
        for _ in 0..BACKOFF_MAX {
            waits.on_slept(SHORT);
        }
        for _ in 0..100 {
            assert_eq!(waits.budget(), LOOK);
            waits.on_found();
        }
    }
}
