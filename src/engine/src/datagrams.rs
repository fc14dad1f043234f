//! DATAGRAM frames that wait to be sent (RFC 9221).

use std::collections::VecDeque;

use bytes::Bytes;

/// What became of a DATAGRAM frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DatagramSendState {
    /// It has left in a packet.
    Sent,
    /// The packet counts as lost. The datagram is not sent again.
    Lost,
    /// The packet was acknowledged; possibly after [`DatagramSendState::Lost`].
    Acknowledged,
    /// It was never sent: the connection ended, or it no longer fits the path.
    Canceled,
}

/// Datagrams of the application that wait for a packet.
#[derive(Default)]
pub(crate) struct SendQueue {
    waiting: VecDeque<Waiting>,
    /// Only what is marked for it may be sent, in 0-RTT.
    early: bool,
}

struct Waiting {
    data: Bytes,
    context: u64,
    may_be_early: bool,
}

impl SendQueue {
    /// Appends a datagram, which may, or must not, be sent in 0-RTT; false if too many wait.
    pub fn push(&mut self, data: Bytes, context: u64, may_be_early: bool) -> bool {
        if self.waiting.len() >= WAITING_MAX {
            return false;
        }
        self.waiting.push_back(Waiting {
            data,
            context,
            may_be_early,
        });
        true
    }

    /// While set, datagrams that must not be sent in 0-RTT wait, with those behind them.
    pub fn set_early(&mut self, early: bool) {
        self.early = early;
    }

    /// True if there is one to send.
    #[inline]
    pub fn is_ready(&self) -> bool {
        let next = self.waiting.front();
        next.is_some_and(|next| next.may_be_early || !self.early)
    }

    /// Length in bytes of the next datagram to send.
    pub fn next_len(&self) -> Option<usize> {
        let next = self.waiting.front().filter(|_| self.is_ready());
        next.map(|next| next.data.len())
    }

    /// Takes the next datagram out, with its context.
    pub fn pop(&mut self) -> Option<(Bytes, u64)> {
        self.waiting.pop_front().map(|next| (next.data, next.context))
    }
}

/// Datagrams that may wait on one connection.
const WAITING_MAX: usize = 4096;
