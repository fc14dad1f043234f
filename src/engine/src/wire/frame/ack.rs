//! ACK frames (RFC 9000 section 19.3).

use std::ops::Range;

use crate::base::coding::{Reader, UnexpectedEnd};
use crate::wire::error::{TransportError, TransportErrorCode};

/// An ACK frame. Its ranges have been checked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AckFrame<'a> {
    /// The largest packet number acknowledged.
    pub largest: u64,
    /// ACK Delay as on the wire, not yet scaled by the exponent.
    pub delay: u64,
    first: u64,
    /// Gap and length of each of the others.
    pairs: &'a [u8],
    /// ECN counts, if the frame has them.
    pub ecn: Option<EcnCounts>,
}

impl<'a> AckFrame<'a> {
    /// Reads a frame behind its type, and checks its ranges.
    #[inline]
    pub(super) fn decode(r: &mut Reader<'a>, has_ecn: bool) -> Result<AckFrame<'a>, TransportError> {
        let largest = r.varint()?;
        let delay = r.varint()?;
        let count = r.varint()?;
        let first = r.varint()?;
        let start = r.as_slice();
        let mut smallest = largest.checked_sub(first).ok_or_else(below_zero)?;
        for _ in 0..count {
            // RFC 9000 section 19.3.1: the next range ends two below the smallest plus the gap.
            let gap = r.varint()?;
            let len = r.varint()?;
            smallest = smallest
                .checked_sub(gap + 2)
                .and_then(|end| end.checked_sub(len))
                .ok_or_else(below_zero)?;
        }
        let pairs = &start[..start.len() - r.remaining()];
        let ecn = if has_ecn {
            Some(EcnCounts {
                ect0: r.varint()?,
                ect1: r.varint()?,
                ce: r.varint()?,
            })
        } else {
            None
        };
        Ok(AckFrame {
            largest,
            delay,
            first,
            pairs,
            ecn,
        })
    }

    /// The acknowledged packet numbers, highest range first.
    #[inline]
    pub fn ranges(&self) -> impl Iterator<Item = Range<u64>> + Clone + use<'a> {
        AckRanges::new(self.largest, self.first, self.pairs)
    }
}

/// ECN counts of an ACK frame (RFC 9000 section 19.3.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct EcnCounts {
    /// Packets received with ECT(0).
    pub ect0: u64,
    /// Packets received with ECT(1).
    pub ect1: u64,
    /// Packets received with CE.
    pub ce: u64,
}

impl EcnCounts {
    /// No packet was received with any of them.
    pub const NONE: EcnCounts = EcnCounts {
        ect0: 0,
        ect1: 0,
        ce: 0,
    };
}

/// The ranges of a checked ACK frame, descending.
#[derive(Clone)]
struct AckRanges<'a> {
    next: Option<Range<u64>>,
    pairs: Reader<'a>,
}

impl<'a> AckRanges<'a> {
    fn new(largest: u64, first: u64, pairs: &'a [u8]) -> Self {
        AckRanges {
            next: Some(largest - first..largest + 1),
            pairs: Reader::new(pairs),
        }
    }

    #[inline]
    fn following(&mut self, smallest: u64) -> Result<Range<u64>, UnexpectedEnd> {
        let end = smallest - self.pairs.varint()? - 1;
        let len = self.pairs.varint()?;
        Ok(end - len - 1..end)
    }
}

impl Iterator for AckRanges<'_> {
    type Item = Range<u64>;

    #[inline]
    fn next(&mut self) -> Option<Range<u64>> {
        let current = self.next.take()?;
        self.next = self.following(current.start).ok();
        Some(current)
    }
}

fn below_zero() -> TransportError {
    TransportError::new(TransportErrorCode::FRAME_ENCODING_ERROR, "ACK range below zero")
}
