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

    /// How far the peer may send ahead of what was consumed.
    #[inline]
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// `consumed` has moved. True if the new limit should be sent: when half the window is used up, so that updates are
    /// rare and the sender need not wait for them. The window's size changes then, as `resize` says.
    #[inline]
    pub(super) fn on_consumed(
        &mut self,
        consumed: u64,
        now: Instant,
        rtt: Duration,
        resize: impl FnOnce(Pace, u64) -> u64,
    ) -> bool {
        if self.sized_at.saturating_sub(consumed) > self.size / 2 {
            return false;
        }
        let rtt = rtt.max(RTT_MIN);
        let pace = match self.updated.map(|updated| now.since(updated)) {
            Some(spent) if spent > rtt * SLOW_ROUND_TRIPS => Pace::Slow,
            Some(spent) if spent >= rtt * FAST_ROUND_TRIPS => Pace::Steady,
            _ => Pace::Fast,
        };
        self.size = resize(pace, self.size);
        self.updated = Some(now);
        let limit = self.limit.max(consumed + self.size);
        // What the peer may send already is not taken back: a window that has shrunk is as small as that once it is used up.
        let is_news = limit > self.limit;
        self.limit = limit;
        self.sized_at = consumed + self.size;
        is_news
    }

    /// True if the limit should be sent, as the peer would have as little left after what it has sent as it could be given: half of a window is
    /// never used up where much of it is received and not consumed.
    #[inline]
    pub(super) fn runs_short(&mut self, consumed: u64, received: u64) -> bool {
        let limit = consumed + self.size;
        let is_short = limit > self.limit && limit - self.limit >= self.limit.saturating_sub(received);
        if is_short {
            self.limit = limit;
        }
        is_short
    }

    /// From now on it has this size. True if the peer should be sent the limit. What the peer may send already is not taken back.
    pub(super) fn set_size(&mut self, consumed: u64, size: u64) -> bool {
        self.size = size;
        self.sized_at = consumed + size;
        let is_news = self.sized_at > self.limit;
        self.limit = self.limit.max(self.sized_at);
        is_news
    }

    /// From now on the window has its initial size again, at most.
    pub(super) fn end_growth(&mut self, initial: u64) {
        self.size = self.size.min(initial);
    }

    /// True if the peer should be sent the limit, since it waits for it: it has risen a little, too little to tell it unasked.
    pub(super) fn on_blocked(&mut self, consumed: u64) -> bool {
        let limit = consumed + self.size;
        let is_news = limit > self.limit;
        self.limit = self.limit.max(limit);
        is_news
    }

    /// An acknowledgement goes out. True if the limit should go with it, which has risen by [`CREDIT_STEP`] then.
    #[inline]
    pub(super) fn on_ack(&mut self, consumed: u64) -> bool {
        let limit = consumed + self.size;
        let is_due = limit.saturating_sub(self.limit) >= CREDIT_STEP;
        if is_due {
            self.limit = limit;
        }
        is_due
    }
}

/// How soon half of a window was used up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Pace {
    /// Within a few round trips: the window limits the sender.
    Fast,
    /// Neither.
    Steady,
    /// The window is many times larger than what the sender needs, or the reader takes.
    Slow,
}

/// A sender that has plenty of credit left still hears of more after this much, with an acknowledgement that goes out anyway: senders exist
/// (MsQuic's up to 2.6) that miss a wake-up of their own while they send, and go on only when a packet comes that they must acknowledge.
const CREDIT_STEP: u64 = 64 * 1024;
/// Round trips in which half a window must be used up for it to grow.
const FAST_ROUND_TRIPS: u32 = 2;
/// Round trips after which half a window that is used up says that a smaller one would do: one of a quarter would not limit the sender.
const SLOW_ROUND_TRIPS: u32 = 16;
/// On shorter paths the time that processors take to get round to it counts, not the path.
const RTT_MIN: Duration = Duration::from_millis(2);

#[cfg(test)]
mod tests {
    use super::*;

    const RTT: Duration = Duration::from_millis(100);

    fn up_to(size_max: u64) -> impl FnOnce(Pace, u64) -> u64 {
        move |pace, size| match pace {
            Pace::Fast => (size * 2).min(size_max),
            _ => size,
        }
    }

    fn at(ms: u64) -> Instant {
        Instant::from_nanos(ms * 1_000_000)
    }

    #[test]
    fn update_goes_out_when_half_of_the_window_is_used() {
        let mut window = ReceiveWindow::new(1000);
        assert!(!window.on_consumed(499, at(0), RTT, up_to(1000)));
        assert!(window.on_consumed(500, at(0), RTT, up_to(1000)));
        assert_eq!(window.limit(), 1500);
        assert!(!window.on_consumed(999, at(0), RTT, up_to(1000)));
        assert!(window.on_consumed(1000, at(0), RTT, up_to(1000)));
    }

    #[test]
    fn acknowledgement_carries_the_limit_after_each_step_and_the_size_is_looked_at_as_ever() {
        let mut window = ReceiveWindow::new(8 << 20);
        assert!(!window.on_ack(CREDIT_STEP - 1));
        assert!(window.on_ack(CREDIT_STEP));
        assert_eq!(window.limit(), (8 << 20) + CREDIT_STEP);
        assert!(!window.on_ack(2 * CREDIT_STEP - 1));
        assert!(!window.on_consumed((4 << 20) - 1, at(0), RTT, up_to(16 << 20)));
        assert!(window.on_ack((4 << 20) - 1));
        let limit = window.limit();
        assert!(window.on_consumed(limit, at(0), RTT, up_to(16 << 20)));
        assert_eq!(window.limit(), limit + (16 << 20));
    }

    #[test]
    fn window_that_limits_the_sender_doubles_up_to_the_most() {
        let mut window = ReceiveWindow::new(1000);
        let mut consumed = 0;
        for round in 0..10 {
            consumed = window.limit();
            assert!(window.on_consumed(consumed, at(round * 100), RTT, up_to(16_000)));
        }
        assert_eq!(window.limit() - consumed, 16_000);
    }

    #[test]
    fn window_of_a_steady_reader_stays() {
        let mut window = ReceiveWindow::new(1000);
        window.on_consumed(600, at(0), RTT, up_to(16_000));
        let size = window.size;
        for second in 1..10 {
            let consumed = window.limit() - size / 2;
            assert!(window.on_consumed(consumed, at(second * 1000), RTT, up_to(16_000)));
        }
        assert_eq!(window.size, size);
    }

    #[test]
    fn window_that_shrinks_takes_nothing_back_and_is_small_once_it_is_used_up() {
        let shrink = |pace, size| if pace == Pace::Slow { size / 2 } else { size };
        let mut window = ReceiveWindow::new(1000);
        assert!(window.on_consumed(500, at(0), RTT, shrink));
        assert_eq!(window.limit(), 1500);
        assert!(
            !window.on_consumed(1000, at(1_700), RTT, shrink),
            "half of it is left, as it should be"
        );
        assert_eq!((window.limit(), window.size()), (1500, 500));
        assert!(window.on_consumed(1250, at(1_800), RTT, shrink));
        assert_eq!(window.limit(), 1750);
    }

    #[test]
    fn peer_that_is_blocked_is_told_of_the_least_credit() {
        let mut window = ReceiveWindow::new(1000);
        assert!(!window.on_blocked(0));
        assert!(!window.on_consumed(1, at(0), RTT, up_to(1000)));
        assert!(window.on_blocked(1));
        assert_eq!(window.limit(), 1001);
        assert!(!window.on_blocked(1));
    }
}
