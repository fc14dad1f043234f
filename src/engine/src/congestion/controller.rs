//! The controller of a path: what is common to all algorithms, and which of them it runs.

use ringway_types::Instant;

use super::cubic::Cubic;
use super::hystart::{Growth, HyStart};
use super::newreno::NewReno;
use super::window::{Acked, Window};

/// Which algorithm sets the congestion window.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Algorithm {
    /// RFC 9438.
    #[default]
    Cubic,
    /// RFC 9002 section 7.
    NewReno,
}

/// A sign of congestion.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CongestionEvent {
    /// When the latest of the lost or marked packets was sent.
    pub sent: Instant,
    /// Nothing got through for long (RFC 9002 section 7.6).
    pub persistent: bool,
    /// The network marked packets instead of dropping them.
    pub ecn: bool,
}

/// The congestion window of a path.
#[derive(Debug)]
pub(crate) struct Controller {
    algorithm: State,
    window: Window,
    /// Congestion among packets sent before this has been reacted to.
    recovery_start: Option<Instant>,
    /// State at the last reaction, to go back to if the losses prove to be none.
    undo: Option<Box<(State, Window)>>,
    /// For the first slow start.
    hystart: Option<Box<HyStart>>,
}

#[derive(Clone, Debug)]
enum State {
    Cubic(Cubic),
    NewReno(NewReno),
}

impl Controller {
    /// For packets of `mtu` bytes, beginning with a window of `initial_packets` of them.
    pub(crate) fn new(algorithm: Algorithm, mtu: u64, initial_packets: u32) -> Self {
        let algorithm = match algorithm {
            Algorithm::Cubic => State::Cubic(Cubic::default()),
            Algorithm::NewReno => State::NewReno(NewReno::default()),
        };
        let window = Window {
            bytes: u64::from(initial_packets).max(2) * mtu,
            ssthresh: u64::MAX,
            mtu,
        };
        Controller {
            algorithm,
            window,
            recovery_start: None,
            undo: None,
            hystart: None,
        }
    }

    /// Lets slow start end when round trips get longer (RFC 9406).
    pub(crate) fn with_hystart(mut self, enabled: bool, paced: bool) -> Self {
        self.hystart = enabled.then(|| Box::new(HyStart::new(paced)));
        self
    }

    /// Bytes that may be in flight.
    #[inline]
    pub(crate) fn window(&self) -> u64 {
        self.window.bytes
    }

    /// The window still grows exponentially.
    pub(crate) fn in_slow_start(&self) -> bool {
        self.window.in_slow_start()
    }

    /// Packets were acknowledged.
    pub(crate) fn on_ack(&mut self, now: Instant, acked: Acked) {
        if self.recovery_start.is_some_and(|start| acked.sent <= start) {
            return;
        }
        // A window that is not used says nothing about the path (RFC 9002 section 7.8).
        if acked.app_limited {
            if let State::Cubic(cubic) = &mut self.algorithm {
                cubic.on_app_limited();
            }
            return;
        }
        if self.window.in_slow_start() {
            let growth = match &mut self.hystart {
                // For the first slow start only: later ones end where the path was full before (section 4.2).
                Some(hystart) if self.window.ssthresh == u64::MAX => {
                    hystart.on_ack(now, &acked, self.window.mtu)
                }
                _ => Growth::By(acked.bytes),
            };
            match growth {
                Growth::By(bytes) => {
                    self.window.bytes = self.window.bytes.saturating_add(bytes).min(WINDOW_MAX)
                }
                Growth::End => self.window.ssthresh = self.window.bytes,
            }
            return;
        }
        match &mut self.algorithm {
            State::Cubic(cubic) => cubic.on_ack(&mut self.window, now, acked),
            State::NewReno(reno) => reno.on_ack(&mut self.window, acked),
        }
        self.window.bytes = self.window.bytes.min(WINDOW_MAX);
    }

    /// Packets were lost or marked. True if the window was reduced: once per round trip.
    pub(crate) fn on_congestion_event(&mut self, now: Instant, congestion: CongestionEvent) -> bool {
        let reacted = self.recovery_start.is_none_or(|start| congestion.sent > start);
        if reacted {
            self.undo = (!congestion.ecn).then(|| Box::new((self.algorithm.clone(), self.window)));
            self.recovery_start = Some(now);
            match &mut self.algorithm {
                State::Cubic(cubic) => cubic.on_congestion_event(&mut self.window),
                State::NewReno(reno) => reno.on_congestion_event(&mut self.window),
            }
        }
        if congestion.persistent {
            self.undo = None;
            self.window.bytes = self.window.minimum();
            self.recovery_start = None;
            if let State::Cubic(cubic) = &mut self.algorithm {
                cubic.on_app_limited();
            }
        }
        reacted
    }

    /// All packets that had counted as lost have arrived after all, the latest of them sent at `latest_sent`: the last
    /// reduction of the window is taken back if they were its cause (RFC 9438 section 4.9.2).
    pub(crate) fn on_spurious(&mut self, latest_sent: Instant) {
        if self.recovery_start.is_some_and(|start| latest_sent <= start)
            && let Some(undo) = self.undo.take()
        {
            let (algorithm, window) = *undo;
            if window.bytes > self.window.bytes {
                self.algorithm = algorithm;
                self.window = Window {
                    mtu: self.window.mtu,
                    ..window
                };
            }
            self.recovery_start = None;
        }
    }

    /// The size of a full packet has changed.
    pub(crate) fn set_mtu(&mut self, mtu: u64) {
        self.window.mtu = mtu;
        self.window.bytes = self.window.bytes.max(self.window.minimum());
    }

    /// Nothing was sent for long: what was known of the path may no longer hold, except that it once was congested.
    pub(crate) fn on_idle(&mut self, initial_packets: u32) {
        let initial = u64::from(initial_packets).max(2) * self.window.mtu;
        if self.window.bytes > initial {
            self.window.ssthresh = self.window.ssthresh.min(self.window.bytes).max(initial);
            self.window.bytes = initial;
            self.undo = None;
            if let State::Cubic(cubic) = &mut self.algorithm {
                *cubic = Cubic::default();
            }
        }
    }
}

/// 400 Gbit/s over ten seconds of round trip: no path needs more, and sums of it do not overflow.
pub(super) const WINDOW_MAX: u64 = 1 << 39;
