//! The memory itself, behind tokens.
//!
//! Invariant that the `unsafe` blocks rest on: whoever holds a chunk, as a [`UmemChunk`], a [`ReceivedChunk`] or a descriptor that is
//! in no other place, touches its memory, and nobody else does. Descriptors are made by the UMEM and never by us.

use std::any::Any;
use std::ptr::NonNull;

use xsk_rs::{FrameDesc, Umem};

/// A chunk with whoever holds it: the thread that has the socket, or another one.
///
/// Invariant: the UMEM outlives it. Whoever gives chunks to another thread gives [`UmemRegion::keep_alive`] with them.
pub(crate) struct UmemChunk {
    start: NonNull<u8>,
    len: u32,
    /// Its number in the UMEM.
    number: u32,
}

// SAFETY: the chunk's memory is touched by whom holds it only, and is bound to no thread.
unsafe impl Send for UmemChunk {}

impl std::fmt::Debug for UmemChunk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("UmemChunk")
    }
}

impl UmemChunk {
    /// The bytes of a chunk that the caller holds, and gives up.
    fn new(bytes: &mut [u8], number: u32) -> UmemChunk {
        UmemChunk {
            len: bytes.len() as u32,
            start: NonNull::from(bytes).cast(),
            number,
        }
    }

    /// What was received into it, or may be sent from it.
    pub(crate) fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: memory of the UMEM, which outlives the chunk; borrowed as the chunk is.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len as usize) }
    }
}

/// The UMEM of a socket, with the descriptors of all its chunks.
pub(crate) struct UmemRegion {
    umem: Umem,
    /// By number.
    descriptors: Box<[FrameDesc]>,
    chunk_bytes: usize,
}

impl std::fmt::Debug for UmemRegion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("UmemRegion")
    }
}

impl UmemRegion {
    /// `descriptors` are all of this UMEM, in order.
    pub(crate) fn new(umem: Umem, descriptors: &[FrameDesc], chunk_bytes: usize) -> UmemRegion {
        UmemRegion {
            umem,
            descriptors: descriptors.into(),
            chunk_bytes,
        }
    }

    /// Keeps the memory for as long as it lives, whatever becomes of the socket.
    pub(crate) fn keep_alive(&self) -> Box<dyn Any + Send> {
        Box::new(self.umem.clone())
    }

    fn number(&self, descriptor: &FrameDesc) -> u32 {
        (descriptor.addr() / self.chunk_bytes) as u32
    }

    /// The descriptor of a chunk that comes back from whoever had it.
    pub(crate) fn take_back(&self, chunk: UmemChunk) -> FrameDesc {
        self.descriptors[chunk.number as usize]
    }

    /// All of a chunk that is to be sent, to be given away.
    ///
    /// # Safety
    ///
    /// The caller holds the chunk: its descriptor is of this UMEM and in no other place. It gives it up.
    pub(crate) unsafe fn give_away(&self, mut descriptor: FrameDesc) -> UmemChunk {
        let number = self.number(&descriptor);
        // SAFETY: the caller holds it.
        UmemChunk::new(unsafe { self.whole(&mut descriptor) }, number)
    }

    /// All the bytes of a chunk that is to be sent.
    ///
    /// # Safety
    ///
    /// The caller holds the chunk: its descriptor is of this UMEM and in no other place.
    pub(crate) unsafe fn whole<'a>(&'a self, descriptor: &'a mut FrameDesc) -> &'a mut [u8] {
        // SAFETY: the caller holds it.
        unsafe { self.truncate(descriptor, usize::MAX) };
        // SAFETY: the caller holds it.
        let data = unsafe { self.umem.data_mut(descriptor) };
        let bytes = std::ptr::from_mut({ data }.contents_mut());
        // SAFETY: memory of the UMEM, borrowed as that and the descriptor are.
        unsafe { &mut *bytes }
    }

    /// Makes a chunk that is to be sent as long as it can be, but no longer than this.
    ///
    /// # Safety
    ///
    /// The caller holds the chunk: its descriptor is of this UMEM and in no other place.
    pub(crate) unsafe fn truncate(&self, descriptor: &mut FrameDesc, len: usize) {
        // SAFETY: the caller holds it.
        unsafe { self.umem.data_mut(descriptor) }.cursor().set_pos(len);
    }
}

/// A chunk that was received into, while it is visited.
#[derive(Debug)]
pub(crate) struct ReceivedChunk<'a> {
    descriptor: &'a mut FrameDesc,
    region: &'a UmemRegion,
}

impl<'a> ReceivedChunk<'a> {
    /// # Safety
    ///
    /// The kernel has given the chunk to the caller with the descriptor, which is of this UMEM and in no other place.
    pub(crate) unsafe fn new(descriptor: &'a mut FrameDesc, region: &'a UmemRegion) -> ReceivedChunk<'a> {
        ReceivedChunk { descriptor, region }
    }

    pub(crate) fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: the chunk is ours, as whoever made `self` has promised.
        let mut data = unsafe { self.region.umem.data_mut(self.descriptor) };
        let bytes = std::ptr::from_mut(data.contents_mut());
        // SAFETY: memory of the UMEM, borrowed as that and the descriptor are.
        unsafe { &mut *bytes }
    }

    pub(crate) fn into_bytes(mut self) -> &'a mut [u8] {
        let bytes = std::ptr::from_mut(self.bytes());
        // SAFETY: memory of the UMEM, borrowed for 'a as that and the descriptor are, and by nobody else: `self` ends here.
        unsafe { &mut *bytes }
    }

    /// Takes the chunk away, and gives the socket another one for it.
    pub(crate) fn exchange(mut self, spare: UmemChunk) -> UmemChunk {
        let number = self.region.number(self.descriptor);
        let taken = UmemChunk::new(self.bytes(), number);
        *self.descriptor = self.region.take_back(spare);
        taken
    }
}
