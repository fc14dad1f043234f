//! UMEM: packet memory that the AF_XDP socket of a queue shares with the kernel, its chunks, and the rings by which they go to the kernel and
//! come back.
//!
//! Each queue has a UMEM of its own: queues fall back from one mode to another, and go, each for itself. A [`UmemChunk`] is the only one that
//! names its chunk, and is nowhere while the kernel has the chunk: [`Rings`] remembers with a bit for each chunk that the kernel has it, makes a
//! token only of what the kernel gives back of that, and takes none that is of another UMEM.

mod ring;
mod rings;
mod sys;

pub(crate) use self::ring::{Consumer, Producer, sides};
#[cfg(test)]
pub(crate) use self::rings::mock;
pub(crate) use self::rings::{Outgoing, Received, RingSides, RingSizes, Rings};
pub(crate) use self::sys::{ChunkHold, ChunkLender, Memory, ReceivedChunk, UmemChunk};
