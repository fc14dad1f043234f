//! Monotonic time as one 64-bit number.
//!
//! Every layer takes `now` as a parameter; only the thread that drives an execution context reads a clock
//! ([`Clock`]), once per turn. Simulated networks hand out virtual time of the same type.

use std::ops::{Add, AddAssign, Sub};
use std::time::Duration;

/// A point in monotonic time: nanoseconds since an arbitrary origin. 2^64 ns are 584 years.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Instant(u64);

impl Instant {
    /// The origin of the clock.
    pub const ZERO: Instant = Instant(0);
    /// Later than any instant that occurs: "never".
    pub const FAR_FUTURE: Instant = Instant(u64::MAX);

    /// The instant `nanos` nanoseconds after the origin.
    pub const fn from_nanos(nanos: u64) -> Self {
        Instant(nanos)
    }

    /// Nanoseconds since the origin.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// Time from `earlier` to `self`; zero if `earlier` is later.
    pub const fn since(self, earlier: Instant) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

/// A duration in whole nanoseconds, held at the largest number there is (584 years).
const fn nanos(duration: Duration) -> u64 {
    duration
        .as_secs()
        .saturating_mul(1_000_000_000)
        .saturating_add(duration.subsec_nanos() as u64)
}

impl Add<Duration> for Instant {
    type Output = Instant;
    /// Saturates at [`Instant::FAR_FUTURE`].
    fn add(self, rhs: Duration) -> Instant {
        Instant(self.0.saturating_add(nanos(rhs)))
    }
}

impl AddAssign<Duration> for Instant {
    fn add_assign(&mut self, rhs: Duration) {
        *self = *self + rhs;
    }
}

impl Sub<Duration> for Instant {
    type Output = Instant;
    /// Saturates at [`Instant::ZERO`].
    fn sub(self, rhs: Duration) -> Instant {
        Instant(self.0.saturating_sub(nanos(rhs)))
    }
}

/// Reads the machine's monotonic clock. About 20 ns a reading: once per turn of an execution context.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    origin: std::time::Instant,
}

impl Clock {
    /// The clock all of this process shares, so that instants of different threads compare.
    pub fn shared() -> Clock {
        static ORIGIN: std::sync::OnceLock<std::time::Instant> = std::sync::OnceLock::new();
        // One second below the first reading, so that subtracting small durations does not saturate.
        let origin = *ORIGIN.get_or_init(|| {
            let now = std::time::Instant::now();
            now.checked_sub(Duration::from_secs(1)).unwrap_or(now)
        });
        Clock { origin }
    }

    /// The current time.
    pub fn now(&self) -> Instant {
        Instant(nanos(self.origin.elapsed()))
    }
}
