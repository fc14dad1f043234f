//! Whether a path carries ECN marks (RFC 9000 section 13.4.2).

use ringway_types::Ecn;

use crate::wire::Space;
use crate::wire::frame::EcnCounts;

/// ECN validation on one path.
#[derive(Clone, Copy, Debug)]
pub(crate) struct EcnValidation {
    state: State,
    /// Packets marked so far, on all paths: the peer's counts are of all, too.
    sent: u64,
    /// Of these, those sent before the test of this path began.
    sent_before: u64,
    /// The counts of the last ACK frame that was looked at, by packet number space.
    counts: [EcnCounts; 3],
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// Nothing is marked.
    Off,
    /// The first packets are marked, to see what becomes of the marks.
    Testing,
    /// Nothing is marked until it is known what became of them.
    Unknown,
    /// The path carries marks.
    Capable,
}

impl EcnValidation {
    /// Tests the path if `enabled`.
    pub(crate) fn new(enabled: bool) -> Self {
        let state = if enabled { State::Testing } else { State::Off };
        EcnValidation {
            state,
            sent: 0,
            sent_before: 0,
            counts: Default::default(),
        }
    }

    /// The connection goes on over another path, which is tested anew; the peer's counts go on (RFC 9000 section 13.4.2.1).
    pub(crate) fn on_path_change(&mut self, enabled: bool) {
        self.state = if enabled { State::Testing } else { State::Off };
        self.sent_before = self.sent;
    }

    /// The connection was on another path meanwhile, with what `other` knows of the peer's counts.
    pub(crate) fn on_return(&mut self, other: &EcnValidation) {
        self.sent = other.sent;
        self.counts = other.counts;
    }

    /// How to mark the packets of the next datagrams.
    #[inline]
    pub(crate) fn mark(&self) -> Ecn {
        match self.state {
            State::Testing | State::Capable => Ecn::Ect0,
            State::Off | State::Unknown => Ecn::NotEct,
        }
    }

    /// The path carries marks.
    pub(crate) fn is_capable(&self) -> bool {
        self.state == State::Capable
    }

    /// A packet was sent marked.
    #[inline]
    pub(crate) fn on_sent(&mut self) {
        self.sent += 1;
        if self.state == State::Testing && self.sent - self.sent_before >= TESTING_PACKETS {
            self.state = State::Unknown;
        }
    }

    /// An ACK frame of `space` that raised the largest acknowledged number newly acknowledged `marked` packets sent with ECT(0).
    /// Gives how many packets the network has newly marked as having met congestion.
    pub(crate) fn on_ack(&mut self, space: Space, marked: u64, counts: Option<EcnCounts>) -> u64 {
        if self.state == State::Off {
            return 0;
        }
        let Some(counts) = counts else {
            // A peer that saw the marks would have said so.
            if marked > 0 {
                self.state = State::Off;
            }
            return 0;
        };
        let before = self.counts[space as usize];
        let (Some(ect0), Some(ect1), Some(ce)) = (
            counts.ect0.checked_sub(before.ect0),
            counts.ect1.checked_sub(before.ect1),
            counts.ce.checked_sub(before.ce),
        ) else {
            self.state = State::Off;
            return 0;
        };
        // Fewer marks than packets: bleached. More than were sent, or marks nobody set: mangled.
        if ect0.saturating_add(ce) < marked || ect1 > 0 || counts.ect0.saturating_add(counts.ce) > self.sent {
            self.state = State::Off;
            return 0;
        }
        self.counts[space as usize] = counts;
        if marked > 0 {
            self.state = State::Capable;
        }
        ce
    }

    /// All packets sent while the path was tested were lost: it may drop what is marked.
    pub(crate) fn on_loss(&mut self) {
        if self.state != State::Capable {
            self.state = State::Off;
        }
    }
}

/// Packets marked to test a path (RFC 9000 appendix A.4).
const TESTING_PACKETS: u64 = 10;

#[cfg(test)]
mod tests {
    use super::*;

    fn tested() -> EcnValidation {
        let mut ecn = EcnValidation::new(true);
        for _ in 0..10 {
            assert_eq!(ecn.mark(), Ecn::Ect0);
            ecn.on_sent();
        }
        assert_eq!(ecn.mark(), Ecn::NotEct);
        ecn
    }

    fn counts(ect0: u64, ect1: u64, ce: u64) -> Option<EcnCounts> {
        Some(EcnCounts { ect0, ect1, ce })
    }

    #[test]
    fn path_that_carries_marks_is_used_and_congestion_is_counted() {
        let mut ecn = tested();
        assert_eq!(ecn.on_ack(Space::Data, 4, counts(4, 0, 0)), 0);
        assert_eq!(ecn.mark(), Ecn::Ect0);
        assert_eq!(ecn.on_ack(Space::Data, 6, counts(4, 0, 6)), 6);
        assert_eq!(ecn.state, State::Capable);
    }

    #[test]
    fn counts_of_the_path_before_do_not_turn_marks_off_on_the_next() {
        let mut ecn = tested();
        ecn.on_ack(Space::Data, 10, counts(10, 0, 0));
        ecn.on_path_change(true);
        for _ in 0..10 {
            assert_eq!(ecn.mark(), Ecn::Ect0);
            ecn.on_sent();
        }
        assert_eq!(ecn.mark(), Ecn::NotEct);
        assert_eq!(ecn.on_ack(Space::Data, 10, counts(19, 0, 1)), 1);
        assert_eq!(ecn.state, State::Capable);
        // Back to the path before, which knew nothing of these.
        let mut before = tested();
        before.on_ack(Space::Data, 10, counts(10, 0, 0));
        before.on_return(&ecn);
        before.on_sent();
        before.on_ack(Space::Data, 1, counts(20, 0, 1));
        assert_eq!(before.state, State::Capable);
    }

    #[test]
    fn marks_that_another_path_bleaches_are_found_out() {
        let mut ecn = tested();
        ecn.on_ack(Space::Data, 10, counts(10, 0, 0));
        ecn.on_path_change(true);
        (0..10).for_each(|_| ecn.on_sent());
        ecn.on_ack(Space::Data, 10, counts(10, 0, 0));
        assert_eq!(ecn.state, State::Off);
    }

    #[test]
    fn bleached_mangled_and_unreported_marks_turn_it_off() {
        for bad in [counts(3, 0, 0), counts(4, 1, 0), counts(11, 0, 0), None] {
            let mut ecn = tested();
            ecn.on_ack(Space::Data, 4, bad);
            assert_eq!(ecn.mark(), Ecn::NotEct);
            assert_eq!(ecn.on_ack(Space::Data, 4, counts(8, 0, 8)), 0, "off for good");
        }
    }

    #[test]
    fn counts_that_go_back_turn_it_off() {
        let mut ecn = tested();
        ecn.on_ack(Space::Data, 4, counts(4, 0, 0));
        ecn.on_ack(Space::Data, 1, counts(3, 0, 5));
        assert_eq!(ecn.mark(), Ecn::NotEct);
    }
}
