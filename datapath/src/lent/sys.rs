//! Pieces of packet memory, and holds on parts of them.
//!
//! Invariant that the `unsafe` blocks rest on: while there is a hold on a piece, nobody writes to the part that is held, and the piece is not freed.
//!
//! - As long as the device shows the piece to a visitor, that is so by its lifetime: what is kept is a slice borrowed for all of it, so that nobody
//!   else can have borrowed the same bytes for writing in what is left of it.
//! - Afterwards whoever has the piece finds the holds counted, and gets nobody a way to write before the count is zero.
//! - A hold counts for the piece that its bytes lie in, and that piece lives as long as it does.

use std::fmt;
use std::marker::PhantomData;
use std::ops::{Bound, Deref, DerefMut, Range, RangeBounds};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use super::lendable::Lendable;
#[cfg(feature = "af_xdp")]
use crate::umem::{ChunkHold, ChunkLender, UmemChunk};

/// A buffer of the heap that can be lent. Whoever has it may write to it, unless a part of it is held.
pub(crate) struct PacketBuffer {
    /// A strong count of one: nobody holds a part. It rises only by holds, which are made of the reference that a visitor has, or of other holds.
    block: Arc<Block>,
}

/// Memory of the heap.
struct Block {
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: the memory is the block's alone, and bound to no thread.
unsafe impl Send for Block {}
// SAFETY: nothing is done to the memory by a shared reference to the block; holds only read their parts.
unsafe impl Sync for Block {}

impl Drop for Block {
    fn drop(&mut self) {
        let slice = NonNull::slice_from_raw_parts(self.start, self.len);
        // SAFETY: of a box of this length, which is given back once.
        drop(unsafe { Box::from_raw(slice.as_ptr()) });
    }
}

impl PacketBuffer {
    pub(crate) fn new(bytes: Box<[u8]>) -> Self {
        let len = bytes.len();
        let start = NonNull::from(Box::leak(bytes)).cast();
        PacketBuffer {
            block: Arc::new(Block { start, len }),
        }
    }

    /// The part at `range`, for a visitor, who can keep of it if it may be lent.
    pub(crate) fn visit(&mut self, range: Range<usize>, may_lend: bool) -> (&mut [u8], Lender<'_>) {
        assert!(!self.is_lent(), "a buffer that is lent is not received into");
        // SAFETY: all of the block, of which nobody holds a part; borrowed as the buffer is.
        let bytes = unsafe { std::slice::from_raw_parts_mut(self.block.start.as_ptr(), self.block.len) };
        let source = if may_lend {
            Source::Heap(&self.block)
        } else {
            Source::Nobody
        };
        (&mut bytes[range], Lender::new(source))
    }
}

impl Lendable for PacketBuffer {
    #[inline]
    fn is_lent(&self) -> bool {
        let is_lent = Arc::strong_count(&self.block) != 1;
        // What whoever has dropped the last hold did before came before what is done now.
        fence(Ordering::Acquire);
        is_lent
    }

    fn len(&self) -> usize {
        self.block.len
    }
}

impl Deref for PacketBuffer {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        // SAFETY: all of the block, to which nobody writes while the buffer is borrowed.
        unsafe { std::slice::from_raw_parts(self.block.start.as_ptr(), self.block.len) }
    }
}

impl DerefMut for PacketBuffer {
    #[inline]
    fn deref_mut(&mut self) -> &mut [u8] {
        self.visit(0..self.block.len, false).0
    }
}

impl fmt::Debug for PacketBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PacketBuffer")
            .field("len", &self.block.len)
            .finish_non_exhaustive()
    }
}

/// Where bytes lie that a visitor has borrowed for `'a`, and whether they can be kept there.
#[derive(Clone, Copy)]
pub struct Lender<'a> {
    source: Source<'a>,
    /// Exactly this lifetime: a slice that is borrowed for less may be written to before the visit is over.
    _visit: PhantomData<fn(&'a ()) -> &'a ()>,
}

#[derive(Clone, Copy)]
enum Source<'a> {
    Nobody,
    Heap(&'a Arc<Block>),
    #[cfg(feature = "af_xdp")]
    Umem(&'a UmemChunk),
}

impl<'a> Lender<'a> {
    fn new(source: Source<'a>) -> Self {
        Lender {
            source,
            _visit: PhantomData,
        }
    }

    /// Lends nothing.
    pub fn nobody() -> Self {
        Lender::new(Source::Nobody)
    }

    /// Lends parts of a chunk.
    #[cfg(feature = "af_xdp")]
    pub(crate) fn of_chunk(lender: ChunkLender<'a>) -> Self {
        Lender::new(Source::Umem(lender.chunk()))
    }

    /// Bytes that can perhaps be kept. They are borrowed until the visit is over.
    #[inline]
    pub fn loan(self, bytes: &'a [u8]) -> Loan<'a> {
        Loan {
            source: self.source,
            bytes,
        }
    }
}

impl fmt::Debug for Lender<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Lender")
    }
}

/// Bytes in packet memory that can perhaps be kept there.
#[derive(Clone, Copy)]
pub struct Loan<'a> {
    source: Source<'a>,
    /// Was borrowed for the whole visit.
    bytes: &'a [u8],
}

impl Loan<'_> {
    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        self.bytes
    }

    /// Keeps the bytes where they are; `None`: they must be copied.
    pub fn keep(&self) -> Option<LentBytes> {
        let hold = match self.source {
            Source::Nobody => return None,
            Source::Heap(block) => {
                if !lies_in(self.bytes, block.start, block.len) {
                    return None;
                }
                Hold::Heap {
                    _block: Arc::clone(block),
                }
            }
            #[cfg(feature = "af_xdp")]
            Source::Umem(chunk) => {
                let (start, len) = chunk.span();
                if !lies_in(self.bytes, start, len) {
                    return None;
                }
                Hold::Umem { _hold: chunk.hold() }
            }
        };
        Some(LentBytes {
            _hold: hold,
            start: NonNull::from(self.bytes).cast(),
            len: self.bytes.len(),
        })
    }
}

impl fmt::Debug for Loan<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Loan")
            .field("len", &self.bytes.len())
            .finish_non_exhaustive()
    }
}

/// True if the bytes, of which there are some, lie in this memory.
fn lies_in(bytes: &[u8], start: NonNull<u8>, len: usize) -> bool {
    let offset = bytes.as_ptr().addr().wrapping_sub(start.addr().get());
    !bytes.is_empty() && offset <= len && bytes.len() <= len - offset
}

/// What keeps a piece.
#[derive(Clone)]
enum Hold {
    Heap {
        _block: Arc<Block>,
    },
    #[cfg(feature = "af_xdp")]
    Umem {
        _hold: ChunkHold,
    },
}

/// Bytes in packet memory, which the device does not use again before this and its clones are dropped, on whichever thread. They may outlive the
/// device.
#[derive(Clone)]
pub struct LentBytes {
    _hold: Hold,
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: bytes that nobody writes to, and a count of whoever reads them.
unsafe impl Send for LentBytes {}
// SAFETY: as above.
unsafe impl Sync for LentBytes {}

impl LentBytes {
    /// A part of it, which keeps as much of the memory.
    ///
    /// # Panics
    ///
    /// As with slices, where the range is not within it.
    #[must_use]
    pub fn slice(&self, range: impl RangeBounds<usize>) -> LentBytes {
        let start = match range.start_bound() {
            Bound::Included(&start) => start,
            Bound::Excluded(&before) => before + 1,
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(&last) => last + 1,
            Bound::Excluded(&end) => end,
            Bound::Unbounded => self.len,
        };
        let part = &self[start..end];
        LentBytes {
            _hold: self._hold.clone(),
            start: NonNull::from(part).cast(),
            len: part.len(),
        }
    }
}

impl Deref for LentBytes {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        // SAFETY: a part of a piece that is held, of this length: nobody writes to it or frees it.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl fmt::Debug for LentBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}
