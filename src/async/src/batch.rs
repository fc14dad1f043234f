//! What passes from a stream's handler to its reader.

use bytes::Bytes;
use smallvec::SmallVec;

/// Chunks that arrived one after the other.
#[derive(Default)]
pub(crate) struct Batch {
    /// A small request or response fits without another allocation.
    chunks: SmallVec<[Bytes; 3]>,
    /// Memory that they take besides their bytes.
    overhead: usize,
}

/// What a chunk takes besides its memory: its place in a batch that has doubled, and what allocations take. A peer may send bytes one by one.
pub(crate) const CHUNK: usize = 96;

impl Batch {
    /// Adds a chunk with so much memory that is not used.
    pub(crate) fn push(&mut self, chunk: Bytes, unused: usize) {
        self.chunks.push(chunk);
        self.overhead += CHUNK + unused;
    }

    /// Moves all of another one behind this.
    pub(crate) fn append(&mut self, other: &mut Batch) {
        self.chunks.append(&mut other.chunks);
        self.overhead += std::mem::take(&mut other.overhead);
    }

    /// Memory that the chunks take besides their bytes.
    pub(crate) fn overhead(&self) -> usize {
        self.overhead
    }

    /// One of them, to take from.
    pub(crate) fn get_mut(&mut self, index: usize) -> Option<&mut Bytes> {
        self.chunks.get_mut(index)
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.chunks.len()
    }

    /// Empty, to serve again, unless it has grown large.
    pub(crate) fn cleared(mut self: Box<Self>) -> Option<Box<Self>> {
        self.chunks.clear();
        self.overhead = 0;
        (self.chunks.capacity() <= KEPT_MAX).then_some(self)
    }
}

/// A batch for more chunks does not serve again.
const KEPT_MAX: usize = 64;
