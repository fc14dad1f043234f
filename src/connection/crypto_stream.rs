//! CRYPTO data of one packet number space (RFC 9000 section 19.6).

use std::borrow::Cow;

use crate::base::range_set::RangeSet;
use crate::streams::assembler::Assembler;
use crate::wire::error::{TransportError, TransportErrorCode};

/// Handshake bytes to send and received, each in order from offset 0.
#[derive(Default)]
pub(super) struct CryptoStream {
    /// Everything to send; it is short, and goes when the keys go.
    data: Vec<u8>,
    sent: usize,
    lost: RangeSet,
    acked: RangeSet,
    received: Assembler,
    consumed: u64,
}

impl CryptoStream {
    /// Where the TLS session appends what it has to say.
    pub(super) fn outgoing(&mut self) -> &mut Vec<u8> {
        &mut self.data
    }

    #[inline]
    pub(super) fn has_data(&self) -> bool {
        self.sent < self.data.len() || !self.lost.is_empty()
    }

    /// The next piece to send, at most `room(offset)` bytes: its offset and its bytes.
    pub(super) fn next(&mut self, room: impl Fn(u64) -> usize) -> Option<(u64, &[u8])> {
        let (start, end) = match self.lost.first() {
            Some(range) => (range.start as usize, range.end as usize),
            None => (self.sent, self.data.len()),
        };
        let end = end.min(start + room(start as u64));
        if start == end {
            return None;
        }
        self.lost.remove(start as u64..end as u64);
        self.sent = self.sent.max(end);
        Some((start as u64, &self.data[start..end]))
    }

    /// Everything that is not acknowledged is to be sent again.
    pub(super) fn rewind(&mut self) {
        self.on_lost(0, self.sent as u64);
    }

    pub(super) fn on_acked(&mut self, offset: u64, len: u64) {
        self.acked.insert(offset..offset + len);
        self.lost.remove(offset..offset + len);
    }

    pub(super) fn on_lost(&mut self, offset: u64, len: u64) {
        for gap in self.acked.gaps(offset..offset + len) {
            self.lost.insert(gap);
        }
    }

    /// Takes received data in, and gives what is in order now, if there is anything.
    pub(super) fn receive<'d>(&mut self, offset: u64, data: &'d [u8]) -> Result<Option<Cow<'d, [u8]>>, TransportError> {
        if offset + data.len() as u64 > self.consumed + BUFFER_MAX {
            return Err(TransportError::new(
                TransportErrorCode::CRYPTO_BUFFER_EXCEEDED,
                "more handshake data than is kept",
            ));
        }
        if self.received.is_empty() && offset == self.consumed {
            // As nearly always: it need not be kept.
            self.consumed += data.len() as u64;
            return Ok((!data.is_empty()).then_some(Cow::Borrowed(data)));
        }
        self.received.insert(self.consumed, offset, data)?;
        let ready = self.received.take(self.consumed);
        let data = ready.slices().concat();
        self.consumed += data.len() as u64;
        self.received.give_back(ready, self.consumed);
        Ok((!data.is_empty()).then_some(Cow::Owned(data)))
    }
}

/// Handshake data kept ahead of what TLS has taken (RFC 9000 section 7.5 asks for 4096 at least). Long certificate chains
/// fit.
const BUFFER_MAX: u64 = 64 * 1024;
