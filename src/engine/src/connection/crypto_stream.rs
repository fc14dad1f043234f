//! CRYPTO data of one packet number space (RFC 9000 section 19.6).

use std::borrow::Cow;

use crate::base::range_set::RangeSet;
use crate::streams::assembler::Assembler;
use crate::wire::error::{TransportError, TransportErrorCode};

/// Handshake bytes to send and received, each in order from offset 0.
pub(super) struct CryptoStream {
    /// What is to be sent from `base` on; it is short, and goes when all of it is acknowledged, or the keys go.
    data: Vec<u8>,
    base: u64,
    sent: usize,
    /// `None` until something is received, acknowledged or lost: in 1-RTT packets of most connections nothing is.
    progress: Option<Box<Progress>>,
}

#[derive(Default)]
struct Progress {
    lost: RangeSet,
    acked: RangeSet,
    received: Assembler,
    consumed: u64,
}

impl CryptoStream {
    pub(super) const fn new() -> Self {
        CryptoStream {
            data: Vec::new(),
            base: 0,
            sent: 0,
            progress: None,
        }
    }

    /// Where the TLS session appends what it has to say.
    pub(super) fn outgoing(&mut self) -> &mut Vec<u8> {
        &mut self.data
    }

    /// Bytes that were ever to be sent.
    pub(super) fn written(&self) -> u64 {
        self.base + self.data.len() as u64
    }

    fn progress(&mut self) -> &mut Progress {
        self.progress.get_or_insert_default()
    }

    #[inline]
    pub(super) fn has_data(&self) -> bool {
        self.sent < self.data.len()
            || self
                .progress
                .as_ref()
                .is_some_and(|progress| !progress.lost.is_empty())
    }

    /// Something has never been sent.
    pub(super) fn has_unsent(&self) -> bool {
        self.sent < self.data.len()
    }

    /// Bytes that it holds beside itself.
    pub(super) fn memory(&self) -> usize {
        let progress = self.progress.as_ref().map_or(0, |progress| {
            size_of::<Progress>()
                + progress.lost.memory()
                + progress.acked.memory()
                + progress.received.memory()
        });
        self.data.capacity() + progress
    }

    /// What was received out of order is not kept any more.
    pub(super) fn forget_received(&mut self) {
        if let Some(progress) = &mut self.progress {
            progress.received = Assembler::default();
        }
    }

    /// The next piece to send, at most `room(offset)` bytes: its offset and its bytes.
    pub(super) fn next(&mut self, room: impl Fn(u64) -> usize) -> Option<(u64, &[u8])> {
        let (start, end) = match self.progress.as_ref().and_then(|progress| progress.lost.first()) {
            Some(range) => (
                (range.start - self.base) as usize,
                (range.end - self.base) as usize,
            ),
            None => (self.sent, self.data.len()),
        };
        let offset = self.base + start as u64;
        let end = end.min(start + room(offset));
        if start == end {
            return None;
        }
        if let Some(progress) = &mut self.progress {
            progress.lost.remove(offset..self.base + end as u64);
        }
        self.sent = self.sent.max(end);
        Some((offset, &self.data[start..end]))
    }

    /// Everything that is not acknowledged is to be sent again.
    pub(super) fn rewind(&mut self) {
        self.on_lost(self.base, self.sent as u64);
    }

    pub(super) fn on_acked(&mut self, offset: u64, len: u64) {
        let (base, written) = (self.base, self.written());
        let Progress { acked, lost, .. } = self.progress();
        acked.insert(offset.max(base)..(offset + len).max(base));
        lost.remove(offset..offset + len);
        let all_acked = acked.gaps(base..written).next().is_none();
        if all_acked && self.sent == self.data.len() {
            self.forget_sent();
        }
    }

    /// All that was sent is acknowledged: nothing of it is needed any more.
    fn forget_sent(&mut self) {
        self.base = self.written();
        self.data = Vec::new();
        self.sent = 0;
        let progress = self.progress();
        progress.acked.clear();
        if progress.consumed == 0 && progress.received.is_empty() {
            self.progress = None;
        }
    }

    pub(super) fn on_lost(&mut self, offset: u64, len: u64) {
        let base = self.base;
        let Progress { acked, lost, .. } = self.progress();
        for gap in acked.gaps(offset.max(base)..(offset + len).max(base)) {
            lost.insert(gap);
        }
    }

    /// Takes received data in, and gives what is in order now, if there is anything.
    pub(super) fn receive<'d>(
        &mut self,
        offset: u64,
        data: &'d [u8],
    ) -> Result<Option<Cow<'d, [u8]>>, TransportError> {
        let Progress {
            received, consumed, ..
        } = self.progress();
        if offset + data.len() as u64 > *consumed + BUFFER_MAX as u64 {
            return Err(TransportError::new(
                TransportErrorCode::CRYPTO_BUFFER_EXCEEDED,
                "more handshake data than is kept",
            ));
        }
        if received.is_empty() && offset == *consumed {
            // As nearly always: it need not be kept.
            *consumed += data.len() as u64;
            return Ok((!data.is_empty()).then_some(Cow::Borrowed(data)));
        }
        received.insert(*consumed, offset, data)?;
        let ready = received.take(*consumed);
        let data = ready.slices().concat();
        *consumed += data.len() as u64;
        received.give_back(ready, *consumed);
        Ok((!data.is_empty()).then_some(Cow::Owned(data)))
    }
}

/// Handshake data kept ahead of what TLS has taken (RFC 9000 section 7.5 asks for 4096 at least). Long certificate chains
/// fit.
pub(super) const BUFFER_MAX: usize = 64 * 1024;
