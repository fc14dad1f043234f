//! The idle timeout (RFC 9000 section 10.1).

use ringway_types::Instant;

/// When the idle timeout began to run.
#[derive(Clone, Copy, Debug)]
pub(super) struct Idle {
    /// The idle timeout runs from here (RFC 9000 section 10.1).
    pub(super) since: Instant,
    /// Something ack-eliciting was sent since something was received: only the first restarts the timeout.
    sent: bool,
    /// Probes that were sent because the connection is about to end, since something was received.
    pub(super) last_probes: u8,
}

impl Idle {
    pub(super) fn new(now: Instant) -> Self {
        Idle {
            since: now,
            sent: false,
            last_probes: 0,
        }
    }

    pub(super) fn restart(&mut self, now: Instant) {
        self.since = now;
        self.sent = false;
        self.last_probes = 0;
    }

    #[inline]
    pub(super) fn on_received(&mut self, now: Instant) {
        self.restart(now);
    }

    #[inline]
    pub(super) fn on_sent(&mut self, now: Instant) {
        if !self.sent {
            self.sent = true;
            self.since = now;
        }
    }
}
