//! Flow control credit that we give (RFC 9000 section 4).

use std::time::Duration;

use ringway_types::Instant;

/// The window of a stream or of the connection: how far the peer may send ahead of what was consumed.
#[derive(Clone, Copy, Debug)]
pub(super) struct ReceiveWindow {
    size: u64,
    /// The limit when the size was last looked at.
    sized_at: u64,
    /// The limit that was sent to the peer, or is about to be.
    limit: u64,
    updated: Option<Instant>,
}

impl ReceiveWindow {
    pub(super) fn new(size: u64) -> Self {
        ReceiveWindow {
            size,
            sized_at: size,
            limit: size,
            updated: None,
        }
    }

    /// The peer may send up to this offset.
    #[inline]
    pub(super) fn limit(&self) -> u64 {
        self.limit
    }

    /// `consumed` has moved. True if the new limit should be sent: when half the window is used up, so that updates are
    /// rare and the sender need not wait for them. A window used up within a few round trips limits the sender: it doubles, up to `size_max`.
    #[inline]
    pub(super) fn on_consumed(&mut self, consumed: u64, now: Instant, rtt: Duration, size_max: u64) -> bool {
        if self.sized_at.saturating_sub(consumed) > self.size / 2 {
            return false;
        }
        let fast = self
            .updated
            .is_none_or(|updated| now.since(updated) < rtt.max(RTT_MIN) * FAST_ROUND_TRIPS);
        if fast && self.size < size_max {
            self.size = (self.size * 2).min(size_max);
        }
        self.updated = Some(now);
        self.limit = consumed + self.size;
        self.sized_at = self.limit;
        true
    }

    /// An acknowledgement goes out. True if the limit should go with it, which has risen by [`CREDIT_STEP`] then.
    #[inline]
    pub(super) fn on_ack(&mut self, consumed: u64) -> bool {
        let limit = consumed + self.size;
        let is_due = limit - self.limit >= CREDIT_STEP;
        if is_due {
            self.limit = limit;
        }
        is_due
    }
}

/// A sender that has plenty of credit left still hears of more after this much, with an acknowledgement that goes out anyway: senders exist
/// (MsQuic's up to 2.6) that miss a wake-up of their own while they send, and go on only when a packet comes that they must acknowledge.
const CREDIT_STEP: u64 = 64 * 1024;
/// Round trips in which half a window must be used up for it to grow.
const FAST_ROUND_TRIPS: u32 = 2;
/// On shorter paths the time that processors take to get round to it counts, not the path.
const RTT_MIN: Duration = Duration::from_millis(2);

#[cfg(test)]
mod tests {
    use super::*;

    const RTT: Duration = Duration::from_millis(100);

    fn at(ms: u64) -> Instant {
        Instant::from_nanos(ms * 1_000_000)
    }

    #[test]
    fn update_goes_out_when_half_of_the_window_is_used() {
        let mut window = ReceiveWindow::new(1000);
        assert!(!window.on_consumed(499, at(0), RTT, 1000));
        assert!(window.on_consumed(500, at(0), RTT, 1000));
        assert_eq!(window.limit(), 1500);
        assert!(!window.on_consumed(999, at(0), RTT, 1000));
        assert!(window.on_consumed(1000, at(0), RTT, 1000));
    }

    #[test]
    fn acknowledgement_carries_the_limit_after_each_step_and_the_size_is_looked_at_as_ever() {
        let mut window = ReceiveWindow::new(8 << 20);
        assert!(!window.on_ack(CREDIT_STEP - 1));
        assert!(window.on_ack(CREDIT_STEP));
        assert_eq!(window.limit(), (8 << 20) + CREDIT_STEP);
        assert!(!window.on_ack(2 * CREDIT_STEP - 1));
        assert!(!window.on_consumed((4 << 20) - 1, at(0), RTT, 16 << 20));
        assert!(window.on_ack((4 << 20) - 1));
        let limit = window.limit();
        assert!(window.on_consumed(limit, at(0), RTT, 16 << 20));
        assert_eq!(window.limit(), limit + (16 << 20));
    }

    #[test]
    fn window_that_limits_the_sender_doubles_up_to_the_most() {
        let mut window = ReceiveWindow::new(1000);
        let mut consumed = 0;
        for round in 0..10 {
            consumed = window.limit();
            assert!(window.on_consumed(consumed, at(round * 100), RTT, 16_000));
        }
        assert_eq!(window.limit() - consumed, 16_000);
    }

    #[test]
    fn window_of_a_slow_reader_stays() {
        let mut window = ReceiveWindow::new(1000);
        window.on_consumed(600, at(0), RTT, 16_000);
        let size = window.size;
        for second in 1..10 {
            let consumed = window.limit() - size / 2;
            assert!(window.on_consumed(consumed, at(second * 1000), RTT, 16_000));
        }
        assert_eq!(window.size, size);
    }
}
