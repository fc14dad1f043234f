//! Whether a thread should spin for a moment before it sleeps.
//!
//! A sleep is not free: the thread that wakes the sleeper pays some 15 µs, the sleeper itself pays for both ways, and
//! the work spin for 20 µs. Where the next packet comes sooner than that, as between two ends that exchange one
//! request at a time, spinning takes less processor time than sleeping, and a fraction of the latency. Where it does
//! not, spinning is a waste. The length of the last sleeps tells which of the two it is.

use std::time::Duration;

/// Watches how long sleeps are, and says how long to spin before the next one.
#[derive(Debug)]
pub(super) struct AdaptiveSpin {
    /// How many short sleeps must be seen before it spins again.
    due: u32,
    /// What `due` is after the next spin in vain; each one doubles it. A thread that shares a processor with the peer
    /// that it spin for never finds anything by spinning, however short its sleeps are.
    backoff: u32,
}

impl AdaptiveSpin {
    /// Nothing is known yet: it must see a short sleep first.
    pub(super) fn new() -> Self {
        AdaptiveSpin { due: 1, backoff: 0 }
    }

    /// How long to spin before sleeping.
    pub(super) fn budget(&self) -> Duration {
        if self.due == 0 { SPIN } else { Duration::ZERO }
    }

    /// The spin found work.
    pub(super) fn on_found(&mut self) {
        self.backoff /= 2;
    }

    /// The thread is about to sleep. If it was spinning, that was in vain.
    pub(super) fn on_sleep(&mut self) {
        if self.due > 0 {
            return;
        }
        self.backoff = (self.backoff * 2 + 1).min(BACKOFF_MAX);
        self.due = self.backoff;
    }

    /// The thread has slept for this long.
    pub(super) fn on_slept(&mut self, slept: Duration) {
        if slept < SPIN + WAKE_UP {
            self.due = self.due.saturating_sub(1);
        }
    }
}

/// How long to spin: about the processor time that a sleep and a wake-up take on both sides.
const SPIN: Duration = Duration::from_micros(25);
/// How much longer a sleep lasts than the wait for its event.
const WAKE_UP: Duration = Duration::from_micros(20);
/// Bounds the waste: where spinning is always in vain, it takes a thousandth of the time that it would.
const BACKOFF_MAX: u32 = 1023;

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Duration = Duration::from_micros(30);
    const LONG: Duration = Duration::from_millis(1);

    #[test]
    fn spins_after_a_short_sleep_and_not_after_long_ones() {
        let mut spin = AdaptiveSpin::new();
        assert_eq!(spin.budget(), Duration::ZERO);
        spin.on_slept(LONG);
        assert_eq!(spin.budget(), Duration::ZERO);
        spin.on_slept(SHORT);
        assert_eq!(spin.budget(), SPIN);
        spin.on_found();
        assert_eq!(spin.budget(), SPIN);
        // The peer has stopped.
        spin.on_sleep();
        assert_eq!(spin.budget(), Duration::ZERO);
        spin.on_slept(LONG);
        assert_eq!(spin.budget(), Duration::ZERO);
    }

    #[test]
    fn spins_ever_more_rarely_where_nothing_is_found() {
        let mut spin = AdaptiveSpin::new();
        let mut spins = 0;
        for _ in 0..100_000 {
            spin.on_slept(SHORT);
            spins += u32::from(!spin.budget().is_zero());
            spin.on_sleep();
        }
        assert!((50..200).contains(&spins), "{spins}");
        // Once it pays again, it spins all the time.
        for _ in 0..BACKOFF_MAX {
            spin.on_slept(SHORT);
        }
        for _ in 0..100 {
            assert_eq!(spin.budget(), SPIN);
            spin.on_found();
        }
    }
}
