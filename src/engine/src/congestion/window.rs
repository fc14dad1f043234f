//! What the algorithms work with: the congestion window, and what was acknowledged.

use std::time::Duration;

use ringway_types::Instant;

/// What an acknowledgement means for the congestion window.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Acked {
    /// Bytes newly acknowledged that were in flight.
    pub bytes: u64,
    /// When the latest of the acknowledged packets was sent.
    pub sent: Instant,
    /// Smoothed round trip time.
    pub rtt: Duration,
    /// The round trip time of this acknowledgement, if it gave one.
    pub latest: Option<Duration>,
    /// The window was not filled: the application sends less than it may.
    pub app_limited: bool,
}

/// What all algorithms have.
#[derive(Clone, Copy, Debug)]
pub(super) struct Window {
    /// Bytes that may be in flight.
    pub(super) bytes: u64,
    /// Slow start below this.
    pub(super) ssthresh: u64,
    /// Size of a full packet.
    pub(super) mtu: u64,
}

impl Window {
    /// RFC 9002 section 7.2, kMinimumWindow.
    pub(super) fn minimum(&self) -> u64 {
        2 * self.mtu
    }

    pub(super) fn in_slow_start(&self) -> bool {
        self.bytes < self.ssthresh
    }
}
