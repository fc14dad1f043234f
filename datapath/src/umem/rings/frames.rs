//! What goes to the kernel and comes from it, and how much of that there is room for.

use std::ops::Range;

use crate::umem::sys::UmemChunk;

/// Entries of each ring, powers of two.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct RingSizes {
    /// More than there are chunks to receive into: the kernel tells late what it has taken.
    pub(crate) fill: u32,
    /// Not more than there are chunks to receive into: where nobody takes them, the ring is full before the kernel has no more chunks.
    pub(crate) receive: u32,
    /// As many as there are chunks to send from.
    pub(crate) transmit: u32,
}

/// A chunk that the kernel has received into.
#[derive(Debug)]
pub(crate) struct Received {
    pub(crate) chunk: UmemChunk,
    /// Where in it the frame is.
    pub(crate) range: Range<u32>,
    /// The packet goes on in the next one.
    pub(crate) more: bool,
}

/// A chunk whose first `len` bytes are to be sent.
#[derive(Debug)]
pub(crate) struct Outgoing {
    pub(crate) chunk: UmemChunk,
    pub(crate) len: u32,
    /// The packet goes on in the next one.
    pub(crate) more: bool,
}
