//! Packets received in one packet number space, and when to acknowledge them (RFC 9000 section 13.2), as the peer may ask
//! (draft-ietf-quic-ack-frequency section 6).

use std::ops::Range;
use std::time::Duration;

use ringway_types::{Ecn, Instant};

use crate::base::range_set::RangeSet;
use crate::wire::frame::{AckFrequency, EcnCounts};

/// Packet numbers received, and whether an acknowledgement is due.
pub(crate) struct AckTracker {
    ranges: RangeSet,
    /// Everything below counts as received: it is no longer known what was.
    floor: u64,
    /// When the largest packet number arrived.
    largest_time: Instant,
    /// The largest number of an ack-eliciting packet.
    largest_eliciting: Option<u64>,
    /// One more than the largest number that was acknowledged.
    acked_below: u64,
    /// Ack-eliciting packets since the last acknowledgement, and how many of them may wait.
    unacked: u32,
    threshold: u32,
    /// Numbers by which a packet must be late for an acknowledgement at once; 0: never.
    reordering: u32,
    /// The least sequence number of a request that is not obsolete.
    next_request: u64,
    /// An acknowledgement is due now.
    due: bool,
    /// When one is due at the latest.
    deadline: Option<Instant>,
    /// How long an acknowledgement may be held back; zero in the spaces of the handshake.
    max_delay: Duration,
    /// ECN codepoints that packets arrived with.
    ecn: EcnCounts,
    /// The last one arrived with CE.
    last_ce: bool,
}

impl AckTracker {
    /// Nothing received. Acknowledgements are held back for at most `max_delay`.
    pub(crate) const fn new(max_delay: Duration) -> Self {
        AckTracker {
            ranges: RangeSet::new(),
            floor: 0,
            largest_time: Instant::ZERO,
            largest_eliciting: None,
            acked_below: 0,
            unacked: 0,
            threshold: THRESHOLD,
            reordering: 1,
            next_request: 0,
            due: false,
            deadline: None,
            max_delay,
            ecn: EcnCounts::NONE,
            last_ce: false,
        }
    }

    /// Bytes that it holds beside itself.
    pub(crate) fn memory(&self) -> usize {
        self.ranges.memory()
    }

    /// ACK_FREQUENCY arrived.
    pub(crate) fn on_ack_frequency(&mut self, request: &AckFrequency) {
        if request.sequence < self.next_request {
            return;
        }
        self.next_request = request.sequence + 1;
        self.threshold = u32::try_from(request.threshold).unwrap_or(u32::MAX);
        self.reordering = u32::try_from(request.reordering).unwrap_or(u32::MAX);
        self.max_delay = Duration::from_micros(request.max_delay_us);
    }

    /// IMMEDIATE_ACK arrived.
    pub(crate) fn on_immediate_ack(&mut self) {
        self.due = true;
    }

    /// True if a packet with this number was received already, or is too old to tell. Ask before its frames are processed.
    #[inline]
    pub(crate) fn is_duplicate(&self, number: u64) -> bool {
        number < self.floor || self.ranges.contains(number)
    }

    /// The largest number received.
    #[inline]
    pub(crate) fn largest(&self) -> Option<u64> {
        self.ranges.last().map(|range| range.end - 1)
    }

    /// A packet was received and its frames were processed.
    #[inline]
    pub(crate) fn on_received(&mut self, now: Instant, number: u64, ack_eliciting: bool, ecn: Ecn) {
        match ecn {
            Ecn::NotEct => {}
            Ecn::Ect0 => self.ecn.ect0 += 1,
            Ecn::Ect1 => self.ecn.ect1 += 1,
            Ecn::Ce => self.ecn.ce += 1,
        }
        // Where more than the usual number of packets may wait, only the first of several is news (section 6.3 of the draft).
        let congested = ecn == Ecn::Ce && (self.threshold <= THRESHOLD || !self.last_ce);
        self.last_ce = ecn == Ecn::Ce;
        if self.largest().is_none_or(|largest| number > largest) {
            self.largest_time = now;
        }
        self.ranges.insert_one(number);
        if self.ranges.len() > RANGES_MAX {
            self.drop_first();
        }
        // What may wait long must not be forgotten before it was acknowledged once (section 6 of the draft).
        let crowded = self.threshold > THRESHOLD && self.ranges.len() > RANGES_MAX / 2;
        if !ack_eliciting {
            return;
        }
        self.unacked += 1;
        let reordered = self.is_reordered(number);
        self.largest_eliciting = self.largest_eliciting.max(Some(number));
        if reordered || congested || crowded || self.unacked > self.threshold || self.max_delay.is_zero() {
            self.due = true;
        } else if self.deadline.is_none() {
            self.deadline = Some(now + self.max_delay);
        }
    }

    /// A sender that sees a gap early repairs it early (RFC 9000 section 13.2.1), unless it wants to see it when it is of some width (section 6.2 of
    /// the draft).
    #[inline]
    fn is_reordered(&self, number: u64) -> bool {
        match (self.reordering, self.largest_eliciting) {
            (0, _) => false,
            (1, None) => false,
            (1, Some(largest)) if number < largest => true,
            (1, Some(largest)) => {
                number > largest + 1 && self.ranges.last().is_some_and(|range| range.start > largest)
            }
            (reordering, largest) => {
                self.is_late(u64::from(reordering), number, largest.unwrap_or(0).max(number))
            }
        }
    }

    /// The peer can tell by an acknowledgement that a packet is lost, as packets up to `largest` have come, or that `number` was not.
    fn is_late(&self, reordering: u64, number: u64, largest: u64) -> bool {
        if number + reordering < self.acked_below {
            return true;
        }
        // What is missing below the peer knows.
        let unreported = self.acked_below.saturating_sub(reordering).max(self.floor);
        // Nothing is missing there, as nearly always.
        if self.ranges.last().is_some_and(|range| range.start <= unreported) {
            return false;
        }
        self.ranges
            .first_gap(unreported..largest)
            .is_some_and(|gap| largest - gap.start >= reordering)
    }

    /// An acknowledgement should go out now.
    #[inline]
    pub(crate) fn is_due(&self, now: Instant) -> bool {
        self.due || self.deadline.is_some_and(|deadline| deadline <= now)
    }

    /// There is something ack-eliciting to acknowledge: worth a frame in a packet that goes out anyway.
    #[inline]
    pub(crate) fn has_unacked(&self) -> bool {
        self.unacked > 0
    }

    /// When an acknowledgement that is not yet due becomes due.
    #[inline]
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// What to acknowledge, highest range first.
    #[inline]
    pub(crate) fn ranges(&self) -> impl ExactSizeIterator<Item = Range<u64>> + Clone + '_ {
        self.ranges.iter().rev()
    }

    /// ECN counts to report, if packets arrived marked.
    #[inline]
    pub(crate) fn ecn_counts(&self) -> Option<EcnCounts> {
        (self.ecn != EcnCounts::NONE).then_some(self.ecn)
    }

    /// How long the largest received packet has waited.
    #[inline]
    pub(crate) fn delay(&self, now: Instant) -> Duration {
        now.since(self.largest_time)
    }

    /// An acknowledgement of all this goes out.
    #[inline]
    pub(crate) fn on_ack_sent(&mut self) {
        self.acked_below = self.largest().map_or(0, |largest| largest + 1);
        self.unacked = 0;
        self.due = false;
        self.deadline = None;
    }

    /// The peer has seen an acknowledgement of everything up to `largest`: older ranges need not be repeated
    /// (RFC 9000 section 13.2.4).
    pub(crate) fn on_ack_acked(&mut self, largest: u64) {
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
/// Ack-eliciting packets that may wait for an acknowledgement where the peer has not asked for another number: every second one is
/// acknowledged (RFC 9000 section 13.2.2).
const THRESHOLD: u32 = 1;
/// Packet numbers below an acknowledged acknowledgement whose ranges are still kept.
const REORDERING_KEPT: u64 = 256;
