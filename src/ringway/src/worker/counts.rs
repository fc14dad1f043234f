//! What is counted of a connection beside what it counts itself: what its worker has taken over, and how long things have waited.

use std::time::Duration;

use ringway_engine::connection::stats::{ConnectionStats, QueueDelay, Totals};

use super::received::KeptBytes;

/// What of a connection is in the counters of its worker.
#[derive(Default)]
pub(super) struct Counted {
    pub(super) totals: Totals,
    /// It counts as connected.
    pub(super) connected: bool,
    /// The application has refused it.
    pub(super) refused: bool,
    /// Bytes that the application keeps of what it has received, where they were and copied, that its worker has not counted.
    pub(super) kept: (u64, u64),
}

impl Counted {
    /// The application has kept so much of a delivery.
    #[inline]
    pub(super) fn add_kept(&mut self, kept: &mut KeptBytes) {
        let (in_place, copied) = kept.take();
        self.kept.0 += in_place;
        self.kept.1 += copied;
    }
}

/// How long what belongs to a connection has waited.
#[derive(Default)]
pub(super) struct Delays {
    pub(super) calls: Delay,
    pub(super) sends: Delay,
    pub(super) datagrams: Delay,
}

/// How long something has waited, in microseconds: small, as there are some for each connection.
#[derive(Clone, Copy, Default)]
pub(super) struct Delay {
    /// Eight times the moving average.
    average8: u32,
    max: u32,
}

impl Delay {
    #[inline]
    pub(super) fn add(&mut self, waited: Duration) {
        let micros = u32::try_from(waited.as_nanos() / 1000).unwrap_or(u32::MAX);
        self.average8 = (self.average8 - self.average8 / 8).saturating_add(micros);
        self.max = self.max.max(micros);
    }

    /// What was before does not count any more, but for the longest.
    pub(super) fn forget(&mut self) {
        self.average8 = 0;
    }

    pub(super) fn average(self) -> Duration {
        Duration::from_micros(u64::from(self.average8 / 8))
    }

    fn told(self) -> QueueDelay {
        QueueDelay::new(self.average(), Duration::from_micros(self.max.into()))
    }
}

impl Delays {
    pub(super) fn tell(&self, stats: &mut ConnectionStats) {
        stats.call_delay = self.calls.told();
        stats.send_delay = self.sends.told();
        stats.receive_delay = self.datagrams.told();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_are_averaged_over_eight_and_their_most_is_kept() {
        let mut delay = Delay::default();
        for _ in 0..100 {
            delay.add(Duration::from_micros(80));
        }
        let average = delay.average();
        assert!((70..=80).contains(&average.as_micros()), "{average:?}");
        delay.add(Duration::from_secs(3600 * 24));
        for _ in 0..200 {
            delay.add(Duration::ZERO);
        }
        assert!(delay.average() < Duration::from_micros(8));
        assert_eq!(delay.told().max, Duration::from_micros(u32::MAX.into()));
    }
}
