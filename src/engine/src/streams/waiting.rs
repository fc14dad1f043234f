//! What keeps the data of a stream back: the peer's limits, or the application. How long, by the time of the caller's turn.

use std::time::Duration;

use ringway_types::Instant;

use super::id::StreamKey;
use super::send::Fin;
use super::table::StreamState;
use super::{STARTING, Streams};
use crate::base::blocked::NOTHING;

/// What keeps a stream back.
#[derive(Clone, Copy)]
enum Reason {
    /// The peer allows no more streams.
    StreamLimit,
    /// The peer allows no more data on it.
    FlowControl,
    /// The application has given nothing to send.
    Application,
}

impl StreamState {
    fn kept_back_by(&self) -> Option<Reason> {
        let send = self.send.as_ref()?;
        if send.reset.is_some() || send.end_reported {
            return None;
        }
        if self.flags & STARTING != 0 {
            return Some(Reason::StreamLimit);
        }
        match self.id {
            Some(_) if send.written > send.sent => (send.sent >= send.limit).then_some(Reason::FlowControl),
            _ if send.fin != Fin::Open => None,
            _ => Some(Reason::Application),
        }
    }
}

impl Streams {
    /// Calls from now on happen at this time.
    #[inline]
    pub fn set_now(&mut self, now: Instant) {
        self.now = now;
    }

    /// Looks at what keeps a stream back, which may have changed.
    #[inline]
    pub(super) fn follow_blocked(&mut self, slot: u32) {
        let stream = &mut self.table[slot];
        let reason = stream.kept_back_by().map_or(NOTHING, |reason| reason as u8);
        stream.blocked.set(self.now, reason);
    }

    /// How long the stream has been kept back: by the peer's limit of streams, by its limit of data on this one, by the application that has given
    /// nothing.
    pub(crate) fn blocked_times(&self, now: Instant, key: StreamKey) -> [Duration; 3] {
        self.get(key)
            .map_or_else(Default::default, |stream| stream.blocked.times(now))
    }

    /// No stream has anything to send, be it kept back or not.
    #[inline]
    pub(crate) fn is_idle(&self) -> bool {
        self.uncredited.is_empty() && self.scheduler.is_empty()
    }

    /// There is data that the peer's limit for the whole connection keeps back.
    #[inline]
    pub(crate) fn is_flow_blocked(&self) -> bool {
        self.sent >= self.send_limit && !self.scheduler.is_empty()
    }
}
