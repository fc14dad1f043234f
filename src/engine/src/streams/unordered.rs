//! Streams whose data goes to the application as it arrives, whatever is missing before it: each byte once.
//!
//! [`RecvHalf::consumed`](super::recv::RecvHalf) is the number of bytes that were consumed then, wherever they are: flow control and the end of the
//! stream follow from it as they do in order.

use super::id::StreamKey;
use super::recv::{ReceiveAction, RecvHalf};
use super::{Held, SendError, Streams};
use crate::base::range_set::RangeSet;
use crate::wire::error::{TransportError, TransportErrorCode};
use crate::wire::frame::StreamFrame;

impl RecvHalf {
    /// These bytes went to the application.
    #[cold]
    pub(super) fn note_delivered(
        &mut self,
        held: &mut Held,
        offset: u64,
        len: u64,
    ) -> Result<(), TransportError> {
        let Some(delivered) = &mut self.unordered else {
            return Ok(());
        };
        let before = delivered.memory();
        delivered.insert(offset..offset + len);
        held.0 = held.0 + delivered.memory() - before;
        if delivered.len() > RANGES_MAX {
            return Err(TransportError::new(
                TransportErrorCode::INTERNAL_ERROR,
                "stream data with more gaps than we keep track of",
            ));
        }
        Ok(())
    }
}

impl Streams {
    /// From now on the stream's data is delivered as it arrives.
    ///
    /// # Errors
    ///
    /// [`SendError::InvalidState`]: there is no receiving half, or a delivery is pending. [`SendError::Closed`]: the stream has ended.
    pub fn set_unordered(&mut self, key: StreamKey) -> Result<(), SendError> {
        let stream = self.table.get_mut(key).ok_or(SendError::Closed)?;
        let Some(recv) = stream.recv.as_mut().filter(|recv| recv.pending.is_none()) else {
            return Err(SendError::InvalidState);
        };
        if recv.unordered.is_none() {
            let mut delivered = RangeSet::new();
            delivered.insert(0..recv.consumed);
            self.held.0 += memory(&delivered);
            recv.unordered = Some(Box::new(delivered));
            self.queue_readable(key.slot);
        }
        Ok(())
    }

    /// Its data is delivered as it arrives.
    #[inline]
    pub fn is_unordered(&self, key: StreamKey) -> bool {
        let recv = self.get(key).and_then(|stream| stream.recv.as_ref());
        recv.is_some_and(|recv| recv.unordered.is_some())
    }

    /// A frame arrived for a stream that is read so.
    #[cold]
    pub(super) fn on_unordered(
        &mut self,
        slot: u32,
        frame: &StreamFrame<'_>,
    ) -> Result<ReceiveAction, TransportError> {
        let key = self.key(slot);
        let end = frame.offset + frame.data.len() as u64;
        let Some(recv) = &mut self.table[slot].recv else {
            return Ok(ReceiveAction::Nothing);
        };
        let Some(delivered) = &recv.unordered else {
            return Ok(ReceiveAction::Nothing);
        };
        let fin = recv.final_size == Some(end);
        let takes_directly = recv.enabled && recv.pending.is_none() && recv.assembler.is_empty();
        let first = delivered.first_gap(frame.offset..end);
        match first {
            // Nothing of it is new, but perhaps that this is all.
            None if takes_directly && fin && recv.consumed == end && recv.uncredited == 0 => {
                return Ok(ReceiveAction::Deliver {
                    key,
                    offset: end,
                    skip: frame.data.len(),
                    fin,
                });
            }
            Some(gap) if takes_directly && gap.end == end => {
                return Ok(ReceiveAction::Deliver {
                    key,
                    offset: gap.start,
                    skip: (gap.start - frame.offset) as usize,
                    fin,
                });
            }
            _ => {}
        }
        self.keep_unordered(slot, frame)?;
        Ok(ReceiveAction::Nothing)
    }

    /// Keeps what is new of a frame until it can be delivered.
    pub(super) fn keep_unordered(
        &mut self,
        slot: u32,
        frame: &StreamFrame<'_>,
    ) -> Result<(), TransportError> {
        let Some(recv) = &mut self.table[slot].recv else {
            return Ok(());
        };
        let end = frame.offset + frame.data.len() as u64;
        let gaps: Vec<_> = match &recv.unordered {
            Some(delivered) => delivered.gaps(frame.offset..end).collect(),
            None => Vec::new(),
        };
        for gap in gaps {
            let data = &frame.data[(gap.start - frame.offset) as usize..(gap.end - frame.offset) as usize];
            self.held.change(&mut recv.assembler, |assembler| {
                assembler.insert(0, gap.start, data)
            })?;
        }
        self.queue_readable(slot);
        Ok(())
    }

    /// A stream of which this is known goes.
    #[cold]
    pub(super) fn forget_unordered(&mut self, delivered: &RangeSet) {
        self.held.0 -= memory(delivered);
    }
}

/// Bytes that this takes with its box.
pub(super) fn memory(delivered: &RangeSet) -> usize {
    size_of::<RangeSet>() + delivered.memory()
}

/// Separate ranges of one stream that are kept track of: as with data in order.
const RANGES_MAX: usize = 4096;
