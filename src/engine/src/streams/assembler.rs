//! Received data of a stream (or of the handshake) that cannot be delivered yet: out of order, or not wanted yet.
//!
//! Data lies in blocks of `BLOCK` bytes by its offset, so that what a peer can make us hold is bounded by the
//! flow control window, however it cuts and repeats the data.

use std::collections::VecDeque;
use std::ops::Range;

use crate::base::range_set::RangeSet;
use crate::wire::error::{TransportError, TransportErrorCode};

/// Bytes in a block.
const BLOCK: usize = 4096;
type Block = Box<[u8; BLOCK]>;

/// Data of one stream from the first byte that was not consumed.
#[derive(Default)]
pub(crate) struct Assembler {
    /// Number of the first block: its offset divided by [`BLOCK`].
    first: u64,
    blocks: VecDeque<Option<Block>>,
    received: RangeSet,
}

/// Data taken out of an assembler to be looked at: contiguous from its offset.
pub struct ReadyData {
    /// Number of the first block.
    first: u64,
    blocks: VecDeque<Option<Block>>,
    range: Range<u64>,
    /// The stream ends behind the data.
    pub(super) fin: bool,
}

impl ReadyData {
    /// Position of the first byte in the stream.
    pub fn offset(&self) -> u64 {
        self.range.start
    }

    /// The stream ends behind the data.
    pub fn fin(&self) -> bool {
        self.fin
    }

    /// Bytes of data.
    pub fn len(&self) -> usize {
        (self.range.end - self.range.start) as usize
    }

    /// True if there is nothing but the end of the stream.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.range.is_empty()
    }

    /// The data.
    pub fn slices(&self) -> Vec<&[u8]> {
        let blocks = self.blocks.iter().flatten();
        blocks
            .enumerate()
            .map(|(index, block)| {
                let start = (self.first + index as u64) * BLOCK as u64;
                let within = |offset: u64| offset.saturating_sub(start).min(BLOCK as u64) as usize;
                &block[within(self.range.start)..within(self.range.end)]
            })
            .filter(|slice| !slice.is_empty())
            .collect()
    }
}

impl Assembler {
    /// True if nothing is held.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.received.is_empty()
    }

    /// Where contiguous data from `offset` on ends; `offset` if there is none.
    #[inline]
    pub fn ready_end(&self, offset: u64) -> u64 {
        self.received
            .first()
            .filter(|range| range.start <= offset && range.end > offset)
            .map_or(offset, |range| range.end)
    }

    /// Keeps data at `offset`. Nothing below `consumed` is kept.
    pub fn insert(&mut self, consumed: u64, offset: u64, data: &[u8]) -> Result<(), TransportError> {
        let skip = consumed.saturating_sub(offset).min(data.len() as u64);
        let (offset, data) = (offset + skip, &data[skip as usize..]);
        let range = offset..offset + data.len() as u64;
        if range.is_empty() || !self.received.insert(range) {
            return Ok(());
        }
        if self.received.len() > RANGES_MAX {
            return Err(TransportError::new(
                TransportErrorCode::INTERNAL_ERROR,
                "stream data with more gaps than we keep track of",
            ));
        }
        if self.blocks.is_empty() {
            self.first = consumed / BLOCK as u64;
        }
        let mut rest = data;
        let mut at = offset;
        while !rest.is_empty() {
            let index = (at / BLOCK as u64 - self.first) as usize;
            let within = (at % BLOCK as u64) as usize;
            let len = rest.len().min(BLOCK - within);
            if index >= self.blocks.len() {
                self.blocks.resize_with(index + 1, || None);
            }
            let block = self.blocks[index].get_or_insert_with(|| Box::new([0; BLOCK]));
            // What was there already is written again: the same bytes, from a peer that keeps to the protocol.
            block[within..within + len].copy_from_slice(&rest[..len]);
            rest = &rest[len..];
            at += len as u64;
        }
        Ok(())
    }

    /// Takes out what is contiguous from `offset`. [`Assembler::give_back`] must follow before anything else.
    pub fn take(&mut self, offset: u64) -> ReadyData {
        let end = self.ready_end(offset);
        let count = if end == offset {
            0
        } else {
            end.div_ceil(BLOCK as u64) - self.first
        };
        let blocks = self.blocks.drain(..count as usize).collect();
        ReadyData {
            first: self.first,
            blocks,
            range: offset..end,
            fin: false,
        }
    }

    /// Takes back what was not consumed.
    pub fn give_back(&mut self, data: ReadyData, consumed: u64) {
        for block in data.blocks.into_iter().rev() {
            self.blocks.push_front(block);
        }
        self.consume(consumed);
    }

    /// Everything below `consumed` may go.
    pub fn consume(&mut self, consumed: u64) {
        self.received.remove_below(consumed);
        if self.received.is_empty() {
            self.blocks.clear();
            return;
        }
        let first = consumed / BLOCK as u64;
        let gone = first.saturating_sub(self.first).min(self.blocks.len() as u64);
        self.blocks.drain(..gone as usize);
        self.first = self.first.max(first);
    }

    /// Lets everything go.
    #[inline]
    pub fn clear(&mut self) {
        *self = Assembler::default();
    }
}

/// Separate ranges of one stream that are kept track of. A window of 16 MiB at 10 % of loss has 1,300 gaps.
const RANGES_MAX: usize = 4096;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn byte_at(offset: u64) -> u8 {
        (offset % 251) as u8
    }

    proptest! {
        #[test]
        fn any_cut_and_order_gives_every_byte_once(
            pieces in prop::collection::vec((0u64..40_000, 0usize..6000, 0usize..9000), 1..60),
        ) {
            let mut assembler = Assembler::default();
            let mut consumed = 0;
            for (offset, len, eat) in pieces {
                let data: Vec<u8> = (offset..offset + len as u64).map(byte_at).collect();
                assembler.insert(consumed, offset, &data).unwrap();
                let ready = assembler.take(consumed);
                prop_assert_eq!(ready.offset(), consumed);
                let flat = ready.slices().concat();
                prop_assert_eq!(flat.len(), ready.len());
                for (index, byte) in flat.iter().enumerate() {
                    prop_assert_eq!(*byte, byte_at(consumed + index as u64));
                }
                let eaten = eat.min(flat.len());
                consumed += eaten as u64;
                assembler.give_back(ready, consumed);
            }
            // The rest arrives in one piece.
            let data: Vec<u8> = (0..50_000).map(byte_at).collect();
            assembler.insert(consumed, 0, &data).unwrap();
            let ready = assembler.take(consumed);
            prop_assert_eq!(ready.len() as u64, 50_000 - consumed);
            assembler.give_back(ready, 50_000);
            prop_assert!(assembler.is_empty());
            prop_assert!(assembler.blocks.is_empty());
        }
    }

    #[test]
    fn stream_in_very_many_pieces_is_an_error_and_no_memory() {
        let mut assembler = Assembler::default();
        let error = (0..)
            .find_map(|index| assembler.insert(0, 1 + index * 2, &[0]).err())
            .unwrap();
        assert_eq!(error.code, TransportErrorCode::INTERNAL_ERROR);
        assert!(assembler.blocks.len() <= 3);
    }
}
