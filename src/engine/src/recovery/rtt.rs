//! Round trip time (RFC 9002 section 5).

use std::time::Duration;

use ringway_types::Instant;

/// Timers are not set shorter than this (RFC 9002 section 6.1.2, kGranularity).
pub(crate) const GRANULARITY: Duration = Duration::from_millis(1);

/// Two years at most, of which sums and products are formed.
fn nanos(duration: Duration) -> u64 {
    const SECONDS_MAX: u64 = 1 << 26;
    duration.as_secs().min(SECONDS_MAX) * 1_000_000_000 + u64::from(duration.subsec_nanos())
}

/// Estimates the round trip time of a path.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RttEstimator {
    // In nanoseconds: half as large as a `Duration`.
    latest: u64,
    smoothed: u64,
    variance: u64,
    min: u64,
    max: u64,
    first_sample: Option<Instant>,
}

impl RttEstimator {
    /// Without a sample: `initial` serves.
    pub(crate) fn new(initial: Duration) -> Self {
        let initial = nanos(initial);
        RttEstimator {
            latest: initial,
            smoothed: initial,
            variance: initial / 2,
            min: initial,
            max: initial,
            first_sample: None,
        }
    }

    /// With one sample.
    pub(crate) fn of(now: Instant, rtt: Duration) -> Self {
        let mut estimator = RttEstimator::new(rtt);
        estimator.sample(now, rtt, Duration::ZERO);
        estimator
    }

    /// Takes a sample; `ack_delay` is how long the peer held its acknowledgement back.
    pub(crate) fn sample(&mut self, now: Instant, latest: Duration, ack_delay: Duration) {
        let (latest, ack_delay) = (nanos(latest), nanos(ack_delay));
        self.latest = latest;
        if self.first_sample.is_none() {
            self.first_sample = Some(now);
            self.min = latest;
            self.max = latest;
            self.smoothed = latest;
            self.variance = latest / 2;
            return;
        }
        self.min = self.min.min(latest);
        self.max = self.max.max(latest);
        let adjusted = if latest >= self.min + ack_delay {
            latest - ack_delay
        } else {
            latest
        };
        self.variance = (self.variance * 3 + self.smoothed.abs_diff(adjusted)) / 4;
        self.smoothed = (self.smoothed * 7 + adjusted) / 8;
    }

    /// The latest sample.
    pub(crate) fn latest(&self) -> Duration {
        Duration::from_nanos(self.latest)
    }

    /// Exponentially weighted mean.
    #[inline]
    pub(crate) fn smoothed(&self) -> Duration {
        Duration::from_nanos(self.smoothed)
    }

    /// Mean deviation.
    pub(crate) fn variance(&self) -> Duration {
        Duration::from_nanos(self.variance)
    }

    /// The shortest sample.
    pub(crate) fn min(&self) -> Duration {
        Duration::from_nanos(self.min)
    }

    /// The longest sample.
    pub(crate) fn max(&self) -> Duration {
        Duration::from_nanos(self.max)
    }

    /// When the first sample was taken.
    #[inline]
    pub(crate) fn first_sample(&self) -> Option<Instant> {
        self.first_sample
    }

    /// Probe timeout, without the peer's delay and without backoff.
    #[inline]
    pub(crate) fn pto(&self) -> Duration {
        Duration::from_nanos(self.smoothed + (self.variance * 4).max(nanos(GRANULARITY)))
    }

    /// A packet sent this long before an acknowledged one is lost (RFC 9002 section 6.1.2).
    #[inline]
    pub(super) fn loss_delay(&self) -> Duration {
        Duration::from_nanos(self.latest.max(self.smoothed) * 9 / 8).max(GRANULARITY)
    }
}
