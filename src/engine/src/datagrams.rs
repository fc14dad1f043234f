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
    waiting: VecDeque<(Bytes, u64)>,
}

impl SendQueue {
    /// Appends a datagram; false if too many wait.
    pub fn push(&mut self, data: Bytes, context: u64) -> bool {
        if self.waiting.len() >= WAITING_MAX {
            return false;
        }
        self.waiting.push_back((data, context));
        true
    }

    /// True if none is queued.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Length of the next datagram in bytes.
    pub fn next_len(&self) -> Option<usize> {
        self.waiting.front().map(|(data, _)| data.len())
    }

    /// Takes the next datagram out, with its context.
    pub fn pop(&mut self) -> Option<(Bytes, u64)> {
        self.waiting.pop_front()
    }
}

/// Datagrams that may wait on one connection.
const WAITING_MAX: usize = 4096;
