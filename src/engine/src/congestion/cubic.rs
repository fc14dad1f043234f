//! CUBIC (RFC 9438).

use std::time::Duration;

use ringway_types::Instant;

use super::window::{Acked, Window};

/// RFC 9438 section 4.6, beta_cubic.
const BETA: f64 = 0.7;
/// RFC 9438 section 5.1, C.
const C: f64 = 0.4;
/// RFC 9438 section 4.3, alpha_cubic.
const ALPHA: f64 = 3.0 * (1.0 - BETA) / (1.0 + BETA);

/// Windows in here are in packets, times in seconds. Floating point keeps its relative precision at any size: six weeks
/// cubed are 5e19, far from where a double ends.
#[derive(Clone, Debug, Default)]
pub(super) struct Cubic {
    /// Window before the last reduction, W_max.
    w_max: f64,
    /// Start of this congestion avoidance stage, t_epoch; `None` until the first acknowledgement in it.
    epoch: Option<Instant>,
    /// Time from the epoch to the plateau, K.
    k: f64,
    /// What NewReno's window would be, W_est.
    w_est: f64,
    /// Window at the start of the epoch.
    w_epoch: f64,
    /// Parts of a byte by which the window has yet to grow.
    credit: f64,
}

impl Cubic {
    pub(super) fn on_ack(&mut self, window: &mut Window, now: Instant, acked: Acked) {
        let mtu = window.mtu as f64;
        let cwnd = window.bytes as f64 / mtu;
        let packets = acked.bytes as f64 / mtu;
        let epoch = *self.epoch.get_or_insert_with(|| {
            self.w_epoch = cwnd;
            self.w_est = cwnd;
            self.w_max = self.w_max.max(cwnd);
            self.k = ((self.w_max - cwnd) / C).cbrt();
            now
        });
        let rtt = acked.rtt.max(Duration::from_micros(1)).as_secs_f64();
        let t = now.since(epoch).as_secs_f64();

        // Section 4.3: grows as NewReno would, and at its own rate once it is back where it was.
        let alpha = if self.w_est >= self.w_max { 1.0 } else { ALPHA };
        self.w_est += alpha * packets / cwnd;

        // Section 4.4 and 4.5: a round trip ahead, never by more than half the window in one.
        let target = (C * (t + rtt - self.k).powi(3) + self.w_max).clamp(cwnd, 1.5 * cwnd);
        let grown = if C * (t - self.k).powi(3) + self.w_max < self.w_est {
            (self.w_est - cwnd).max(0.0)
        } else {
            (target - cwnd) / cwnd * packets
        };
        self.credit += grown * mtu;
        let bytes = self.credit.floor();
        self.credit -= bytes;
        window.bytes += bytes as u64;
    }

    pub(super) fn on_congestion_event(&mut self, window: &mut Window) {
        let cwnd = window.bytes as f64 / window.mtu as f64;
        // Fast convergence, section 4.7: a flow that has less than before leaves room for the newcomer.
        self.w_max = if cwnd < self.w_max {
            cwnd * (1.0 + BETA) / 2.0
        } else {
            cwnd
        };
        self.epoch = None;
        self.credit = 0.0;
        window.bytes = ((window.bytes as f64 * BETA) as u64).max(window.minimum());
        window.ssthresh = window.bytes;
    }

    /// Time in which the application did not fill the window does not count (section 5.8).
    pub(super) fn on_app_limited(&mut self) {
        self.epoch = None;
    }
}
