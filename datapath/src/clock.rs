//! The machine's clock, which only threads that drive an execution context read.

use std::time::Duration;

use ringway_types::Instant;

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
        Instant::ZERO + self.origin.elapsed()
    }
}
