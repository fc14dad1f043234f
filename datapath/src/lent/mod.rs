//! Packet memory that the application holds on to: received bytes stay where the device has put them, for as long as somebody holds them.
//!
//! A device visits what it has received in a piece of packet memory: a buffer of the heap, or a chunk of a UMEM. What is kept of that meanwhile
//! counts as a hold on the piece, which the device then sets aside ([`LentMemory`]) and does not receive into until the count is zero again. Holds
//! may be dropped on any thread, and outlive the device: nobody is told, the device looks, at a few pieces in each turn.
//!
//! How much is lent at a time is bounded ([`DatapathConfig::lent_bytes`](crate::config::DatapathConfig::lent_bytes)): a device goes on with what it
//! has, and beyond the bound lends nothing, so that what is kept must be copied.

mod lendable;
mod sys;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;

pub(crate) use self::lendable::Lendable;
pub(crate) use self::sys::PacketBuffer;
pub use self::sys::{Lender, LentBytes, Loan};

/// The pieces that are lent.
#[derive(Debug)]
pub(crate) struct LentMemory<T> {
    pieces: VecDeque<T>,
    bytes: usize,
    max: usize,
}

impl<T: Lendable> LentMemory<T> {
    /// For so many bytes at most.
    pub(crate) fn new(max: usize) -> Self {
        LentMemory {
            pieces: VecDeque::new(),
            bytes: 0,
            max,
        }
    }

    /// A piece of `len` bytes of which `used` are filled may be lent. One that is nearly empty is not: copying what is in it takes less.
    pub(crate) fn may_lend(&self, len: usize, used: usize) -> bool {
        self.bytes + len <= self.max && used * LEAST_SHARE >= len
    }

    /// Bytes that are lent.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Sets a piece aside.
    pub(crate) fn add(&mut self, piece: T) {
        self.bytes += piece.len();
        self.pieces.push_back(piece);
    }

    /// Gives back what nobody holds any more, of the next few pieces.
    #[inline]
    pub(crate) fn reclaim(&mut self, mut give_back: impl FnMut(T)) {
        for _ in 0..self.pieces.len().min(LOOKS_PER_TURN) {
            let Some(piece) = self.pieces.pop_front() else {
                return;
            };
            if piece.is_lent() {
                self.pieces.push_back(piece);
            } else {
                self.bytes -= piece.len();
                give_back(piece);
            }
        }
    }
}

/// This part of what there is, an application may hold on to at most, where there is only so much.
pub(crate) const LENT_SHARE: usize = 4;
/// A part of a piece must be filled for it to be lent.
const LEAST_SHARE: usize = 8;
/// Pieces that are looked at in a turn: more than a turn usually sets aside.
const LOOKS_PER_TURN: usize = 64;
