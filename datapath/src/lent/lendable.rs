//! What can be lent.

#[cfg(feature = "af_xdp")]
use crate::umem::UmemChunk;

/// A piece of packet memory that can be lent.
pub(crate) trait Lendable {
    /// Somebody holds on to a part of it.
    fn is_lent(&self) -> bool;

    /// Bytes of it.
    fn len(&self) -> usize;
}

#[cfg(feature = "af_xdp")]
impl Lendable for UmemChunk {
    fn is_lent(&self) -> bool {
        UmemChunk::is_lent(self)
    }

    fn len(&self) -> usize {
        UmemChunk::len(self)
    }
}
