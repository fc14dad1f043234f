//! Spreads packets over the round trip time (RFC 9002 section 7.7).
//!
//! A bucket of bytes that fills at the pace of the congestion window and empties with what is sent. On paths
//! shorter than `RTT_MIN` it lets everything through: a kernel timer costs more than it would gain there.

use std::time::Duration;

use ringway_types::Instant;

/// Decides how much may be sent now.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pacer {
    /// Bytes that may go now.
    tokens: u64,
    /// When the bucket was last filled.
    filled: Instant,
}

/// The pace: a window per round trip, and a little more, so that the pacer is not what limits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    /// Congestion window in bytes.
    pub window: u64,
    /// Smoothed round trip time.
    pub rtt: Duration,
    /// Twice the pace in slow start, 5/4 of it otherwise (RFC 9002 section 7.7).
    pub slow_start: bool,
    /// Size of a full packet.
    pub mtu: u64,
}

impl Pace {
    #[inline]
    fn is_off(&self) -> bool {
        self.rtt < RTT_MIN
    }

    /// Bytes per second, at least one packet. A window of 2^39 bytes over 1 ms, doubled: 2^50, times 10^9 in u128.
    fn rate(&self) -> u128 {
        let window = u128::from(self.window);
        let paced = if self.slow_start {
            window * 2
        } else {
            window * 5 / 4
        };
        (paced * 1_000_000_000 / self.rtt.as_nanos()).max(u128::from(self.mtu))
    }

    /// What may go at once: what the pace makes in a few milliseconds, so that segments can leave in runs and timers may be coarse.
    fn burst(&self, rate: u128) -> u64 {
        let bytes = rate * BURST_TIME.as_nanos() / 1_000_000_000;
        (bytes as u64).max(BURST_PACKETS * self.mtu)
    }
}

impl Pacer {
    /// Starts with a full bucket.
    pub(crate) fn new(now: Instant) -> Self {
        Pacer {
            tokens: u64::MAX,
            filled: now,
        }
    }

    /// Time has gone by: once for each run of packets, as it divides.
    #[inline]
    pub(crate) fn refill(&mut self, now: Instant, pace: &Pace) {
        if pace.is_off() {
            self.tokens = u64::MAX;
            return;
        }
        let elapsed = now.since(self.filled).as_nanos();
        let rate = pace.rate();
        let gained = rate * elapsed / 1_000_000_000;
        let burst = pace.burst(rate);
        if gained > 0 || self.tokens > burst {
            self.filled = now;
            let tokens = u128::from(self.tokens) + gained;
            self.tokens = tokens.min(u128::from(burst)) as u64;
        }
    }

    /// True if so many bytes may go now: after [`Pacer::refill`].
    #[inline]
    pub(crate) fn allows(&self, bytes: u64) -> bool {
        self.tokens >= bytes
    }

    /// Bytes were sent.
    #[inline]
    pub(crate) fn consume(&mut self, bytes: u64) {
        self.tokens = self.tokens.saturating_sub(bytes);
    }

    /// When a run of packets may go, if not now.
    pub(crate) fn next_release(&self, pace: &Pace) -> Option<Instant> {
        if pace.is_off() || self.tokens >= pace.mtu {
            return None;
        }
        // Half a burst at a time: fewer wake-ups than packets.
        let rate = pace.rate();
        let missing = u128::from((pace.burst(rate) / 2).max(pace.mtu) - self.tokens);
        let nanos = missing * 1_000_000_000 / rate;
        Some(self.filled + Duration::from_nanos(nanos as u64 + 1))
    }
}

/// Below this round trip time nothing is paced. MsQuic: `QUIC_MIN_PACING_RTT`.
const RTT_MIN: Duration = Duration::from_millis(1);
/// How long a burst may be.
const BURST_TIME: Duration = Duration::from_millis(2);
/// The smallest burst (RFC 9002 section 7.7: the initial window).
const BURST_PACKETS: u64 = 10;
