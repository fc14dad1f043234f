//! Packets received in one packet number space, and when to acknowledge them (RFC 9000 section 13.2).

use std::ops::Range;
use std::time::Duration;

use ringway_datapath::meta::Ecn;

use crate::base::Instant;
use crate::base::range_set::RangeSet;
use crate::wire::frame::EcnCounts;

/// Packet numbers received, and whether an acknowledgement is due.
pub struct AckTracker {
    ranges: RangeSet,
    /// Everything below counts as received: it is no longer known what was.
    floor: u64,
    /// When the largest packet number arrived.
    largest_time: Instant,
    /// The largest number of an ack-eliciting packet.
    largest_eliciting: Option<u64>,
    /// Ack-eliciting packets since the last acknowledgement.
    unacked: u32,
    /// An acknowledgement is due now.
    due: bool,
    /// When one is due at the latest.
    deadline: Option<Instant>,
    /// How long an acknowledgement may be held back; zero in the spaces of the handshake.
    max_delay: Duration,
    /// ECN codepoints that packets arrived with.
    ecn: EcnCounts,
}

impl AckTracker {
    /// Nothing received. Acknowledgements are held back for at most `max_delay`.
    pub fn new(max_delay: Duration) -> Self {
        AckTracker {
            ranges: RangeSet::new(),
            floor: 0,
            largest_time: Instant::ZERO,
            largest_eliciting: None,
            unacked: 0,
            due: false,
            deadline: None,
            max_delay,
            ecn: EcnCounts::default(),
        }
    }

    /// True if a packet with this number was received already, or is too old to tell. Ask before its frames are processed.
    #[inline]
    pub fn is_duplicate(&self, number: u64) -> bool {
        number < self.floor || self.ranges.contains(number)
    }

    /// The largest number received.
    #[inline]
    pub fn largest(&self) -> Option<u64> {
        self.ranges.last().map(|range| range.end - 1)
    }

    /// A packet was received and its frames were processed.
    #[inline]
    pub fn on_received(&mut self, now: Instant, number: u64, ack_eliciting: bool, ecn: Ecn) {
        match ecn {
            Ecn::NotEct => {}
            Ecn::Ect0 => self.ecn.ect0 += 1,
            Ecn::Ect1 => self.ecn.ect1 += 1,
            Ecn::Ce => self.ecn.ce += 1,
        }
        if self.largest().is_none_or(|largest| number > largest) {
            self.largest_time = now;
        }
        self.ranges.insert_one(number);
        if self.ranges.len() > RANGES_MAX {
            self.drop_first();
        }
        if !ack_eliciting {
            return;
        }
        self.unacked += 1;
        // A sender that sees a gap early repairs it early (RFC 9000 section 13.2.1).
        let reordered = match self.largest_eliciting {
            Some(largest) if number < largest => true,
            Some(largest) => number > largest + 1 && self.ranges.last().is_some_and(|range| range.start > largest),
            None => false,
        };
        self.largest_eliciting = self.largest_eliciting.max(Some(number));
        if reordered || ecn == Ecn::Ce || self.unacked >= ACK_ELICITING_THRESHOLD || self.max_delay.is_zero() {
            self.due = true;
        } else if self.deadline.is_none() {
            self.deadline = Some(now + self.max_delay);
        }
    }

    /// An acknowledgement should go out now.
    #[inline]
    pub fn is_due(&self, now: Instant) -> bool {
        self.due || self.deadline.is_some_and(|deadline| deadline <= now)
    }

    /// There is something ack-eliciting to acknowledge: worth a frame in a packet that goes out anyway.
    #[inline]
    pub fn has_unacked(&self) -> bool {
        self.unacked > 0
    }

    /// When an acknowledgement that is not yet due becomes due.
    pub fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// What to acknowledge, highest range first.
    pub fn ranges(&self) -> impl ExactSizeIterator<Item = Range<u64>> + Clone + '_ {
        self.ranges.iter().rev()
    }

    /// ECN counts to report, if packets arrived marked.
    pub fn ecn_counts(&self) -> Option<EcnCounts> {
        (self.ecn != EcnCounts::default()).then_some(self.ecn)
    }

    /// How long the largest received packet has waited.
    pub fn delay(&self, now: Instant) -> Duration {
        now.since(self.largest_time)
    }

    /// An acknowledgement of all this goes out.
    #[inline]
    pub fn on_ack_sent(&mut self) {
        self.unacked = 0;
        self.due = false;
        self.deadline = None;
    }

    /// The peer has seen an acknowledgement of everything up to `largest`: older ranges need not be repeated
    /// (RFC 9000 section 13.2.4).
    pub fn on_ack_acked(&mut self, largest: u64) {
        // Packets that are only late, not lost, arrive within a few hundred others: their ranges stay.
        let keep_from = largest.saturating_sub(REORDERING_KEPT);
        while self.ranges.len() > 1 && self.ranges.first().is_some_and(|range| range.end <= keep_from) {
            self.drop_first();
        }
    }

    fn drop_first(&mut self) {
        if let Some(range) = self.ranges.pop_first() {
            self.floor = range.end;
        }
    }
}

/// Ranges that are kept and reported: an ACK frame of them fits any packet.
const RANGES_MAX: usize = 32;
/// Ack-eliciting packets that may wait for one acknowledgement (RFC 9000 section 13.2.2).
const ACK_ELICITING_THRESHOLD: u32 = 2;
/// Packet numbers below an acknowledged acknowledgement whose ranges are still kept.
const REORDERING_KEPT: u64 = 256;
