//! The sending half of a stream.

use std::cell::Cell;
use std::collections::VecDeque;
use std::ops::Range;

use bytes::Bytes;

use super::events::StreamEvent;
use super::id::StreamKey;
use crate::base::range_set::RangeSet;

/// Why a call on a stream did nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SendError {
    /// The stream has ended.
    Closed,
    /// The sending half has been ended, or there is none, or the stream was started before.
    InvalidState,
}

/// How data is sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SendOptions {
    /// The sending half ends behind it.
    pub fin: bool,
    /// It may be sent in 0-RTT: others can have the server read it again. Only the first data of a stream may, up to the first that may not.
    pub may_be_early: bool,
    /// From now on a loss of data of the stream makes it useless: the event `CancelOnLoss` follows it.
    pub cancel_on_loss: bool,
    /// More is coming: it need not go before that.
    pub delay: bool,
}

/// A piece of stream data that goes into a packet; comes back when the packet is acknowledged or lost.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct StreamRange {
    /// The stream.
    pub key: StreamKey,
    /// Position of the data.
    pub offset: u64,
    /// Bytes of data.
    pub len: u16,
    /// The stream ends behind the data.
    pub fin: bool,
}

impl StreamRange {
    #[inline]
    pub(super) fn new(key: StreamKey, piece: &Piece) -> StreamRange {
        StreamRange {
            key,
            offset: piece.start,
            len: piece.len as u16,
            fin: piece.fin,
        }
    }

    /// Where in the stream the data is.
    #[inline]
    pub(crate) fn offsets(&self) -> Range<u64> {
        self.offset..self.offset + u64::from(self.len)
    }
}

/// A STREAM frame to send.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct NextFrame {
    /// Its data.
    pub range: StreamRange,
    /// Its stream.
    pub id: u64,
    /// It says how long it is; if not, it must be the last of the packet.
    pub with_len: bool,
    /// Bytes in front of the data.
    pub header_len: usize,
    /// The data lies in one of the application's buffers.
    pub is_whole: bool,
}

/// Data that the application gave us, until the peer has acknowledged it.
pub(super) struct SendHalf {
    buffers: VecDeque<SendBuffer>,
    /// The buffer that was looked into last: the next look is there, or one further on.
    last_buffer: Cell<usize>,
    /// End of the data that the application gave us.
    pub(super) written: u64,
    /// Data below this has been sent at least once.
    pub(super) sent: u64,
    /// Data below this is acknowledged.
    acked_prefix: u64,
    /// Data above that is acknowledged.
    acked: RangeSet,
    /// Data that was sent and counts as lost.
    lost: RangeSet,
    /// The peer allows data below this.
    pub(super) limit: u64,
    pub(super) fin: Fin,
    pub(super) reset: Option<Reset>,
    /// The limit that the last STREAM_DATA_BLOCKED is about.
    pub(super) blocked_at: Option<u64>,
    /// The end was reported to the application.
    pub(super) end_reported: bool,
    /// The peer is to hear of the stream, also without data.
    pub(super) immediate: bool,
    /// It has been sent that.
    announced: bool,
}

pub(super) struct SendBuffer {
    bytes: Bytes,
    /// Where in the stream it begins, and [`PART`].
    start_and_part: u64,
    context: u64,
}

/// The send goes on with the next buffer. Offsets in streams have 62 bits.
const PART: u64 = 1 << 63;

impl SendBuffer {
    #[inline]
    fn start(&self) -> u64 {
        self.start_and_part & !PART
    }

    #[inline]
    fn end(&self) -> u64 {
        self.start() + self.bytes.len() as u64
    }

    fn released(&self) -> Released {
        Released {
            context: (self.start_and_part & PART == 0).then_some(self.context),
            len: self.bytes.len() as u64,
        }
    }
}

/// A buffer that is needed no more.
pub(super) struct Released {
    context: Option<u64>,
    pub(super) len: u64,
}

impl Released {
    /// What is to be told, if a send ended with it.
    #[inline]
    pub(super) fn event(&self, key: StreamKey, canceled: bool) -> Option<StreamEvent> {
        let context = self.context?;
        Some(StreamEvent::SendComplete {
            key,
            context,
            canceled,
        })
    }
}

/// Data for one frame.
pub(super) struct Piece {
    pub(super) start: u64,
    pub(super) len: usize,
    /// It lies in one buffer.
    pub(super) is_whole: bool,
    /// The stream ends behind it.
    pub(super) fin: bool,
}

/// Where the end of the stream is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Fin {
    /// The application has not ended the stream.
    Open,
    /// It has, and the end is to be sent when the handshake is complete.
    Later,
    /// It has, and the end is to be sent (again).
    Pending,
    /// Sent.
    Sent,
    /// Acknowledged.
    Acked,
}

/// The stream was reset by us.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Reset {
    pub(super) code: u64,
    pub(super) acked: bool,
}

impl SendHalf {
    /// Bytes that were given to send and never were.
    pub(super) fn unsent(&self) -> u64 {
        match self.reset {
            Some(_) => 0,
            None => self.written - self.sent,
        }
    }

    pub(super) fn new(limit: u64) -> Self {
        SendHalf {
            buffers: VecDeque::new(),
            last_buffer: Cell::new(0),
            written: 0,
            sent: 0,
            acked_prefix: 0,
            acked: RangeSet::new(),
            lost: RangeSet::new(),
            limit,
            fin: Fin::Open,
            reset: None,
            blocked_at: None,
            end_reported: false,
            immediate: false,
            announced: false,
        }
    }

    /// Lets go of everything but a little room for the lists of another stream.
    #[inline]
    pub(super) fn clear(&mut self) {
        self.buffers.clear();
        if self.buffers.capacity() > BUFFERS_KEPT {
            self.buffers = VecDeque::new();
        }
        self.acked = RangeSet::new();
        self.lost = RangeSet::new();
    }

    /// Makes the half of another stream of one that was cleared: as [`SendHalf::new`], but for the room.
    pub(super) fn renew(&mut self, limit: u64) {
        // Named one by one, so that none is forgotten, and set one by one, so that none is moved.
        let SendHalf {
            buffers,
            last_buffer,
            written,
            sent,
            acked_prefix,
            acked,
            lost,
            limit: allowed,
            fin,
            reset,
            blocked_at,
            end_reported,
            immediate,
            announced,
        } = self;
        debug_assert!(buffers.is_empty() && acked.is_empty() && lost.is_empty());
        last_buffer.set(0);
        (*written, *sent, *acked_prefix, *allowed) = (0, 0, 0, limit);
        (*fin, *reset, *blocked_at, *end_reported) = (Fin::Open, None, None, false);
        (*immediate, *announced) = (false, false);
    }

    /// The application may still send.
    pub(super) fn is_open(&self) -> bool {
        self.fin == Fin::Open && self.reset.is_none()
    }

    /// Nothing is left to send, and everything is acknowledged.
    #[inline]
    pub(super) fn is_done(&self) -> bool {
        match self.reset {
            Some(reset) => reset.acked,
            None => self.fin == Fin::Acked && self.acked_prefix == self.written,
        }
    }

    #[inline]
    pub(super) fn push(&mut self, bytes: Bytes, context: Option<u64>) {
        let part = if context.is_none() { PART } else { 0 };
        let start_and_part = self.written | part;
        self.written += bytes.len() as u64;
        self.buffers.push_back(SendBuffer {
            bytes,
            start_and_part,
            context: context.unwrap_or_default(),
        });
    }

    /// The buffers from this number on are one send.
    pub(super) fn end_send(&mut self, first: usize, context: u64) {
        if self.buffers.len() == first {
            self.push(Bytes::new(), None);
        }
        if let Some(last) = self.buffers.back_mut() {
            last.start_and_part &= !PART;
            last.context = context;
        }
    }

    /// Buffers that are not released.
    pub(super) fn buffers_len(&self) -> usize {
        self.buffers.len()
    }

    /// There is data that was never sent and that the peer allows.
    #[inline]
    pub(super) fn has_new(&self) -> bool {
        self.reset.is_none() && self.sent < self.written.min(self.limit)
    }

    /// There is something to send that needs no credit: what was lost, or the end alone.
    #[inline]
    pub(super) fn has_uncredited(&self) -> bool {
        self.reset.is_none()
            && (!self.lost.is_empty()
                || (self.fin == Fin::Pending && self.sent == self.written)
                || (self.immediate && !self.announced && self.sent == 0))
    }

    /// The next range to send again, at most `room` bytes of it.
    #[inline]
    pub(super) fn next_uncredited(&mut self, room: impl Fn(u64) -> usize) -> Option<Piece> {
        let (start, len, is_whole) = match self.lost.first() {
            Some(range) => {
                let len = room(range.start).min((range.end - range.start) as usize);
                if len == 0 {
                    return None;
                }
                let (len, is_whole) = self.within_buffer(range.start, len);
                self.lost.remove(range.start..range.start + len as u64);
                (range.start, len, is_whole)
            }
            None => {
                self.announced = true;
                (self.sent, 0, true)
            }
        };
        Some(Piece {
            start,
            len,
            is_whole,
            fin: self.take_fin(start + len as u64),
        })
    }

    /// The next `len` bytes or less that were never sent.
    #[inline]
    pub(super) fn next_new(&mut self, len: usize) -> Piece {
        let start = self.sent;
        let available = self.written.min(self.limit) - start;
        let (len, is_whole) = self.within_buffer(start, len.min(available.min(usize::MAX as u64) as usize));
        self.sent += len as u64;
        Piece {
            start,
            len,
            is_whole,
            fin: self.take_fin(self.sent),
        }
    }

    #[inline]
    fn take_fin(&mut self, end: u64) -> bool {
        let fin = self.fin == Fin::Pending && end == self.written;
        if fin {
            self.fin = Fin::Sent;
        }
        fin
    }

    /// Shortens a piece to the end of its buffer, unless that would leave a small piece: a piece in one buffer can be
    /// sealed from there, and need not be copied together. Also returns whether it is in one buffer.
    #[inline]
    fn within_buffer(&self, start: u64, len: usize) -> (usize, bool) {
        let Some(buffer) = self.buffer_at(start) else {
            return (len, len == 0);
        };
        let left = (buffer.end() - start) as usize;
        if left >= len {
            (len, true)
        } else if left * 2 >= len {
            (left, true)
        } else {
            (len, false)
        }
    }

    #[inline]
    fn buffer_at(&self, offset: u64) -> Option<&SendBuffer> {
        self.buffers.get(self.index_at(offset))
    }

    #[inline]
    fn index_at(&self, offset: u64) -> usize {
        let last = self.last_buffer.get();
        let holds = |index: usize| {
            let buffer = self.buffers.get(index);
            buffer.is_some_and(|buffer| {
                buffer.start() <= offset && offset - buffer.start() < buffer.bytes.len() as u64
            })
        };
        if holds(last) {
            return last;
        }
        let index = if holds(last + 1) {
            last + 1
        } else {
            self.buffers.partition_point(|buffer| buffer.end() <= offset)
        };
        self.last_buffer.set(index);
        index
    }

    /// The bytes from `offset` on, as far as they lie in one buffer, at most `len`.
    #[inline]
    pub(super) fn bytes_at(&self, offset: u64, len: usize) -> &[u8] {
        let Some(buffer) = self.buffer_at(offset) else {
            return &[];
        };
        let start = (offset - buffer.start()) as usize;
        let end = buffer.bytes.len().min(start + len);
        &buffer.bytes[start..end]
    }

    /// Data was acknowledged. Gives completed sends to `complete`.
    #[inline]
    pub(super) fn on_acked(&mut self, data: Range<u64>, fin: bool, complete: impl FnMut(Released)) {
        if self.reset.is_some() {
            return;
        }
        if data.start <= self.acked_prefix {
            self.acked_prefix = self.acked_prefix.max(data.end);
            if !self.acked.is_empty() {
                self.acked.remove_below(self.acked_prefix);
                if let Some(range) = self
                    .acked
                    .first()
                    .filter(|range| range.start == self.acked_prefix)
                {
                    self.acked_prefix = range.end;
                    self.acked.pop_first();
                }
            }
        } else {
            self.acked.insert(data.clone());
        }
        if !self.lost.is_empty() {
            self.lost.remove(data);
        }
        if fin {
            self.fin = Fin::Acked;
        }
        self.release(complete);
    }

    /// Gives completed sends to `complete`: those whose bytes are acknowledged, and the end if they are the last.
    #[inline]
    pub(super) fn release(&mut self, mut complete: impl FnMut(Released)) {
        while let Some(buffer) = self.buffers.front() {
            let end = buffer.end();
            let is_last = end == self.written && self.fin != Fin::Open;
            if end > self.acked_prefix || (is_last && self.fin != Fin::Acked) {
                break;
            }
            complete(buffer.released());
            self.buffers.pop_front();
            self.last_buffer.set(self.last_buffer.get().saturating_sub(1));
        }
    }

    /// A piece was lost.
    pub(super) fn on_lost(&mut self, offset: u64, len: u64, fin: bool) {
        if self.reset.is_some() {
            return;
        }
        let start = offset.max(self.acked_prefix);
        let end = offset + len;
        if start < end {
            for gap in self.acked.gaps(start..end) {
                self.lost.insert(gap);
            }
        }
        if fin && self.fin == Fin::Sent {
            self.fin = Fin::Pending;
        }
        self.announced &= len > 0;
    }

    /// What must not go in 0-RTT may be sent now.
    pub(super) fn release_fin(&mut self) {
        if self.fin == Fin::Later {
            self.fin = Fin::Pending;
        }
    }

    /// Nothing of what was sent counts: the peer has not taken any of it.
    pub(super) fn take_back(&mut self) {
        debug_assert!(
            self.acked_prefix == 0 && self.acked.is_empty(),
            "0-RTT is acknowledged or refused"
        );
        self.sent = 0;
        self.lost = RangeSet::new();
        self.limit = 0;
        self.blocked_at = None;
        self.announced = false;
        if self.fin == Fin::Sent {
            self.fin = Fin::Pending;
        }
    }

    /// Ends the half without sending the rest. Gives unfinished sends to `cancel`.
    pub(super) fn reset(&mut self, code: u64, mut cancel: impl FnMut(Released)) {
        self.reset = Some(Reset { code, acked: false });
        self.blocked_at = None;
        self.lost.clear();
        for buffer in self.buffers.drain(..) {
            cancel(buffer.released());
        }
    }
}

/// Buffers that a list has room for if it is kept: what a request takes, and not what a long transfer grew to.
const BUFFERS_KEPT: usize = 8;
