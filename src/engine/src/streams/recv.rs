//! The receiving half of a stream.

use std::time::Duration;

use ringway_types::Instant;

use super::assembler::Assembler;
use super::flow::{Pace, ReceiveWindow};
use super::id::StreamKey;
use crate::base::range_set::RangeSet;
use crate::wire::error::{TransportError, TransportErrorCode};

/// What is to be done with a STREAM frame's data.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum ReceiveAction {
    /// Give the data from `skip` on to the application, and report by [`Streams::on_delivered`].
    Deliver {
        /// The stream.
        key: StreamKey,
        /// Position of the first byte to give.
        offset: u64,
        /// Bytes at the front of the frame that were delivered before.
        skip: usize,
        /// The stream ends behind the data.
        fin: bool,
    },
    /// Nothing: it is buffered, or not wanted.
    Nothing,
}

/// What happens to receiving on a stream after data was delivered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AfterReceive {
    /// It goes on.
    Continue,
    /// Nothing more is delivered until `Streams::set_receive_enabled`.
    Pause,
    /// The application completes the delivery later, by `Streams::receive_complete`.
    Pending,
    /// It goes on, and the peer gets credit for what was consumed when `Streams::receive_complete` says so.
    Uncredited,
}

pub(super) struct RecvHalf {
    pub(super) assembler: Assembler,
    /// Everything below was consumed by the application.
    pub(super) consumed: u64,
    /// End of the data seen so far.
    pub(super) highest: u64,
    pub(super) final_size: Option<u64>,
    pub(super) window: ReceiveWindow,
    /// End of the data that came in 0-RTT, if any did.
    pub(super) early_end: u64,
    pub(super) is_early: bool,
    /// The application takes data.
    pub(super) enabled: bool,
    /// Bytes of a delivery that the application has yet to complete.
    pub(super) pending: Option<u64>,
    /// Bytes of those that were consumed for which the peer gets no credit yet.
    pub(super) uncredited: u64,
    /// Data is delivered as it arrives, and this was.
    pub(super) unordered: Option<Box<RangeSet>>,
    /// The application no longer wants data, for this reason.
    pub(super) stopped: Option<u64>,
    /// The peer has reset the stream.
    pub(super) reset: bool,
    /// The end was reported to the application.
    pub(super) end_reported: bool,
}

impl RecvHalf {
    pub(super) fn new(window: u64) -> Self {
        RecvHalf {
            assembler: Assembler::default(),
            consumed: 0,
            highest: 0,
            final_size: None,
            window: ReceiveWindow::new(window),
            early_end: 0,
            is_early: false,
            enabled: true,
            pending: None,
            uncredited: 0,
            unordered: None,
            stopped: None,
            reset: false,
            end_reported: false,
        }
    }

    /// Lets go of everything.
    #[inline]
    pub(super) fn clear(&mut self) {
        self.unordered = None;
        self.assembler.clear();
    }

    /// Makes the half of another stream of one that was cleared: as [`RecvHalf::new`].
    pub(super) fn renew(&mut self, size: u64) {
        debug_assert!(self.assembler.is_empty());
        // Named one by one, so that none is forgotten, and set one by one, so that none is moved.
        let RecvHalf {
            assembler: _,
            consumed,
            highest,
            final_size,
            window,
            early_end,
            is_early,
            enabled,
            pending,
            uncredited,
            unordered,
            stopped,
            reset,
            end_reported,
        } = self;
        (*consumed, *highest, *final_size, *window) = (0, 0, None, ReceiveWindow::new(size));
        (*early_end, *is_early, *uncredited, *unordered) = (0, false, 0, None);
        (*enabled, *pending, *stopped, *reset, *end_reported) = (true, None, None, false, false);
    }

    /// Consumed bytes for which the peer gets credit.
    #[inline]
    pub(super) fn credited(&self) -> u64 {
        self.consumed - self.uncredited
    }

    /// Nothing is left to receive or to report.
    #[inline]
    pub(super) fn is_done(&self) -> bool {
        self.end_reported || (self.stopped.is_some() && self.final_size.is_some())
    }

    /// Data ending at `end` arrived, the last of the stream if `fin`. Gives how many bytes of connection credit it takes.
    #[inline]
    pub(super) fn account(&mut self, end: u64, fin: bool) -> Result<u64, TransportError> {
        if let Some(size) = self.final_size {
            if end > size || (fin && end != size) {
                return Err(TransportError::new(
                    TransportErrorCode::FINAL_SIZE_ERROR,
                    "final size changed",
                ));
            }
        } else if fin {
            if end < self.highest {
                return Err(TransportError::new(
                    TransportErrorCode::FINAL_SIZE_ERROR,
                    "final size below data already received",
                ));
            }
            self.final_size = Some(end);
        }
        if end > self.window.limit() {
            return Err(TransportError::new(
                TransportErrorCode::FLOW_CONTROL_ERROR,
                "stream data beyond the advertised limit",
            ));
        }
        let new = end.saturating_sub(self.highest);
        self.highest += new;
        Ok(new)
    }

    /// True if data that arrives at `offset` can be given to the application from the packet.
    #[inline]
    pub(super) fn takes_directly(&self, offset: u64, end: u64) -> bool {
        self.enabled
            && self.pending.is_none()
            && offset <= self.consumed
            && self.unordered.is_none()
            && (end > self.consumed || (self.final_size == Some(end) && self.uncredited == 0))
            && self.assembler.is_empty()
            && !self.end_reported
            && self.stopped.is_none()
    }

    /// There is something to deliver: data, or the end.
    #[inline]
    pub(super) fn is_readable(&self) -> bool {
        self.enabled
            && self.pending.is_none()
            && !self.end_reported
            && self.stopped.is_none()
            && !self.reset
            && (self.assembler.ready_end(self.consumed) > self.consumed
                || (self.unordered.is_some() && !self.assembler.is_empty())
                || (self.final_size == Some(self.consumed) && self.uncredited == 0))
    }

    /// The peer should be sent a new limit, now that `consumed` has moved. The window's size changes as `resize` says.
    #[inline]
    pub(super) fn wants_update(
        &mut self,
        now: Instant,
        rtt: Duration,
        resize: impl FnOnce(Pace, u64) -> u64,
    ) -> bool {
        self.final_size.is_none()
            && self.stopped.is_none()
            && self.window.on_consumed(self.credited(), now, rtt, resize)
    }
}

/// What the windows of all streams may grow by, together, from their initial sizes: so much of the connection's window is kept for streams
/// whose windows have not grown that none of them waits for others to be read.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Growth {
    /// All that there is.
    max: u64,
    used: u64,
    frozen: bool,
}

impl Growth {
    /// For a connection's window, in which the initial windows of all streams that the peer may have open take `initial` bytes.
    pub(super) fn new(connection_window: u64, initial: u64) -> Self {
        Growth {
            max: connection_window
                .saturating_sub(initial)
                .max(connection_window / 2),
            used: 0,
            frozen: false,
        }
    }

    /// `other`, with what is in use of this one, and frozen as this one is.
    pub(super) fn renewed(self, other: Growth) -> Growth {
        Growth {
            max: other.max,
            ..self
        }
    }

    /// While frozen, no window grows.
    pub(super) fn freeze(&mut self, frozen: bool) {
        self.frozen = frozen;
    }

    /// The new size of a window whose half was used up at this pace.
    pub(super) fn resize(&mut self, pace: Pace, size: u64, initial: u64) -> u64 {
        match pace {
            Pace::Fast if !self.frozen => {
                let growth = size.min(self.max.saturating_sub(self.used));
                self.used += growth;
                size + growth
            }
            // Others may need it: as little as would do here, if much of it all is in use.
            Pace::Slow if size > initial && self.used > self.max / 2 => {
                let smaller = (size / 2).max(initial);
                self.used = self.used.saturating_sub(size - smaller);
                smaller
            }
            _ => size,
        }
    }

    /// Some window has grown.
    #[inline]
    pub(super) fn is_used(&self) -> bool {
        self.used > 0
    }

    /// A window is needed no more.
    pub(super) fn give_back(&mut self, window: &mut ReceiveWindow, initial: u64) {
        // The initial size may have changed since it was used.
        self.used = self.used.saturating_sub(window.size().saturating_sub(initial));
        window.end_growth(initial);
    }
}
