//! DATAGRAM frames that wait to be sent (RFC 9221).

use std::collections::VecDeque;

use bytes::Bytes;

/// What became of a DATAGRAM frame. MsQuic: `QUIC_DATAGRAM_SEND_STATE`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum DatagramSendState {
    /// It has left in a packet. Its buffer is released.
    Sent,
    /// The packet counts as lost. It may arrive yet; the datagram is not sent again.
    LostSuspect,
    /// The packet is given up: nobody waits for an acknowledgement of it any more, or the connection has ended. Final.
    LostDiscarded,
    /// The packet was acknowledged. Final.
    Acknowledged,
    /// The packet was acknowledged after [`DatagramSendState::LostSuspect`]. Final.
    AcknowledgedSpurious,
    /// It was never sent: the connection ended, it does not fit the path, the peer takes none, or it could not be sent at once and was not to wait.
    /// Final.
    Canceled,
}

impl DatagramSendState {
    /// No other state follows.
    pub fn is_final(self) -> bool {
        !matches!(self, DatagramSendState::Sent | DatagramSendState::LostSuspect)
    }
}

/// How a datagram waits for a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct DatagramOptions {
    /// It may be sent in 0-RTT: others can have the server read it again.
    pub may_be_early: bool,
    /// It goes before those that have no priority.
    pub priority: bool,
    /// If it cannot be sent at once, it is canceled.
    pub cancel_on_blocked: bool,
}

/// Datagrams of the application that wait for a packet.
#[derive(Default)]
pub(crate) struct SendQueue {
    waiting: VecDeque<Waiting>,
    /// How many of them, at the front, have priority.
    first: usize,
    /// How many of them are not to wait.
    impatient: usize,
    /// Only what is marked for it may be sent, in 0-RTT.
    early: bool,
    /// There has been one.
    used: bool,
}

/// One that waits.
pub(crate) struct Waiting {
    /// Its content.
    pub data: DatagramData,
    /// What the caller gave with it.
    pub context: u64,
    options: DatagramOptions,
}

/// The content of a datagram: one buffer or several.
#[derive(Clone, Debug)]
pub enum DatagramData {
    /// One.
    One(Bytes),
    /// One behind the other.
    Many(Box<[Bytes]>),
}

impl DatagramData {
    /// The buffers.
    pub fn buffers(&self) -> &[Bytes] {
        match self {
            DatagramData::One(buffer) => std::slice::from_ref(buffer),
            DatagramData::Many(buffers) => buffers,
        }
    }

    /// Bytes of all of them.
    pub fn len(&self) -> usize {
        self.buffers().iter().map(Bytes::len).sum()
    }

    /// There are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl From<Bytes> for DatagramData {
    fn from(buffer: Bytes) -> Self {
        DatagramData::One(buffer)
    }
}

impl SendQueue {
    /// Appends a datagram; false if too many wait.
    pub(crate) fn push(&mut self, data: DatagramData, context: u64, options: DatagramOptions) -> bool {
        if self.waiting.len() >= WAITING_MAX {
            return false;
        }
        self.used = true;
        self.impatient += usize::from(options.cancel_on_blocked);
        let waiting = Waiting {
            data,
            context,
            options,
        };
        if options.priority {
            self.waiting.insert(self.first, waiting);
            self.first += 1;
        } else {
            self.waiting.push_back(waiting);
        }
        true
    }

    /// While set, datagrams that must not be sent in 0-RTT wait, with those behind them.
    pub(crate) fn set_early(&mut self, early: bool) {
        self.early = early;
    }

    /// There has been one.
    pub(crate) fn is_used(&self) -> bool {
        self.used
    }

    /// True if there is one to send.
    #[inline]
    pub(crate) fn is_ready(&self) -> bool {
        let next = self.waiting.front();
        next.is_some_and(|next| next.options.may_be_early || !self.early)
    }

    /// Length in bytes of the next datagram to send.
    pub(crate) fn next_len(&self) -> Option<usize> {
        let next = self.waiting.front().filter(|_| self.is_ready());
        next.map(|next| next.data.len())
    }

    /// Takes the next datagram out.
    pub(crate) fn pop(&mut self) -> Option<Waiting> {
        let next = self.waiting.pop_front()?;
        self.first = self.first.saturating_sub(1);
        self.impatient -= usize::from(next.options.cancel_on_blocked);
        Some(next)
    }

    /// Takes out those that are longer than `max`. Gives their contexts to `visit`.
    pub(crate) fn remove_longer(&mut self, max: usize, visit: impl FnMut(u64)) {
        self.remove(|waiting| waiting.data.len() > max, visit);
    }

    /// True if some are not to wait.
    #[inline]
    pub(crate) fn is_impatient(&self) -> bool {
        self.impatient > 0
    }

    /// Takes out those that are not to wait. Gives their contexts to `visit`.
    pub(crate) fn remove_impatient(&mut self, visit: impl FnMut(u64)) {
        self.remove(|waiting| waiting.options.cancel_on_blocked, visit);
    }

    /// Takes out some. Gives their contexts to `visit`.
    pub(crate) fn remove(&mut self, which: impl Fn(&Waiting) -> bool, mut visit: impl FnMut(u64)) {
        self.waiting.retain(|waiting| {
            let goes = which(waiting);
            if goes {
                visit(waiting.context);
            }
            !goes
        });
        let waiting = self.waiting.iter();
        self.first = waiting
            .clone()
            .take_while(|waiting| waiting.options.priority)
            .count();
        self.impatient = waiting
            .filter(|waiting| waiting.options.cancel_on_blocked)
            .count();
    }
}

/// Datagrams that may wait on one connection.
pub const WAITING_MAX: usize = 4096;
