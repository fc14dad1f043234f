//! How long something was kept back, and by what.

use std::time::Duration;

use ringway_types::Instant;

/// Times by reason, of which one at a time holds; `N` reasons.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BlockedTimes<const N: usize> {
    /// What keeps it back now; `N` or more: nothing.
    reason: u8,
    since: Instant,
    nanos: [u64; N],
}

/// Nothing keeps it back.
pub(crate) const NOTHING: u8 = u8::MAX;

impl<const N: usize> BlockedTimes<N> {
    /// Nothing has kept it back yet.
    pub(crate) const fn new() -> Self {
        BlockedTimes {
            reason: NOTHING,
            since: Instant::ZERO,
            nanos: [0; N],
        }
    }

    /// From now on this keeps it back.
    #[inline]
    pub(crate) fn set(&mut self, now: Instant, reason: u8) {
        if self.reason != reason {
            self.change(now, reason);
        }
    }

    #[inline(never)]
    fn change(&mut self, now: Instant, reason: u8) {
        if let Some(nanos) = self.nanos.get_mut(usize::from(self.reason)) {
            *nanos += now.since(self.since).as_nanos() as u64;
        }
        (self.reason, self.since) = (reason, now);
    }

    /// How long each reason has held, up to now.
    pub(crate) fn times(mut self, now: Instant) -> [Duration; N] {
        self.change(now, NOTHING);
        self.nanos.map(Duration::from_nanos)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_counts_while_it_holds() {
        let at = |millis: u64| Instant::from_nanos(millis * 1_000_000);
        let mut times = BlockedTimes::<2>::new();
        times.set(at(5), 0);
        times.set(at(7), 0);
        times.set(at(10), 1);
        times.set(at(11), NOTHING);
        times.set(at(50), 0);
        assert_eq!(times.times(at(60)).map(|time| time.as_millis()), [15, 1]);
        assert_eq!(times.times(at(61)).map(|time| time.as_millis()), [16, 1]);
    }
}
