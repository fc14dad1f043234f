//! NewReno as RFC 9002 section 7 gives it.

use super::window::{Acked, Window};

#[derive(Clone, Debug, Default)]
pub(super) struct NewReno {
    /// Bytes acknowledged since the window last grew.
    acked: u64,
}

impl NewReno {
    /// Congestion avoidance: one packet more for each window acknowledged.
    pub(super) fn on_ack(&mut self, window: &mut Window, acked: Acked) {
        self.acked += acked.bytes;
        while self.acked >= window.bytes {
            self.acked -= window.bytes;
            window.bytes += window.mtu;
        }
    }

    /// Half the window.
    pub(super) fn on_congestion_event(&mut self, window: &mut Window) {
        self.acked = 0;
        window.bytes = (window.bytes / 2).max(window.minimum());
        window.ssthresh = window.bytes;
    }
}
