//! Packet memory that can pass from thread to thread: a chunk has one owner at a time.

use std::any::Any;
use std::ops::Range;

#[cfg(feature = "af_xdp")]
use crate::umem::{ReceivedChunk, UmemChunk};

/// A slot of packet memory. Whoever holds it may read and write it, and nobody else.
#[derive(Debug)]
pub(crate) enum Chunk {
    /// Of the heap: what sockets send from and receive into.
    Heap(Box<[u8]>),
    /// Of the memory that is shared with a NIC's queue.
    #[cfg(feature = "af_xdp")]
    Umem(UmemChunk),
}

impl Chunk {
    /// All of it.
    pub(crate) fn bytes(&mut self) -> &mut [u8] {
        match self {
            Chunk::Heap(bytes) => bytes,
            #[cfg(feature = "af_xdp")]
            Chunk::Umem(chunk) => chunk.bytes(),
        }
    }
}

/// A chunk with datagrams in a part of it.
#[derive(Debug)]
pub(crate) struct FilledChunk {
    pub(crate) chunk: Chunk,
    pub(crate) range: Range<usize>,
}

impl FilledChunk {
    /// The datagrams.
    pub(crate) fn data(&mut self) -> &mut [u8] {
        &mut self.chunk.bytes()[self.range.clone()]
    }

    /// For a device that was given chunks of the heap only.
    pub(crate) fn into_heap(self) -> Option<(Box<[u8]>, Range<usize>)> {
        match self.chunk {
            Chunk::Heap(bytes) => Some((bytes, self.range)),
            #[cfg(feature = "af_xdp")]
            Chunk::Umem(_) => {
                debug_assert!(false, "a chunk that this device has not supplied");
                None
            }
        }
    }
}

/// What devices on sockets supply to be given for messages: as many as may wait for the other thread, of `len` bytes, and small ones.
pub(crate) fn receive_chunks(len: usize) -> Vec<Chunk> {
    let mut spares = heap_chunks(RECEIVE_CHUNKS, len);
    spares.extend(heap_chunks(SMALL_RECEIVE_CHUNKS, SMALL_BYTES));
    spares
}

/// So many chunks of the heap.
pub(crate) fn heap_chunks(count: usize, len: usize) -> Vec<Chunk> {
    (0..count).map(|_| Chunk::Heap(prefaulted(len))).collect()
}

/// Memory of `len` bytes that is present: the packet path does not wait for the kernel to find some.
pub(crate) fn prefaulted(len: usize) -> Box<[u8]> {
    let mut bytes = vec![0u8; len].into_boxed_slice();
    for byte in bytes.iter_mut().step_by(PAGE) {
        // Written to as nobody could know: or the compiler would leave it to the allocator, which leaves it to the kernel.
        *byte = std::hint::black_box(0);
    }
    bytes
}

const PAGE: usize = 4096;

/// Where received datagrams lie, in memory of the device that received them.
#[derive(Debug)]
pub(crate) enum ReceivedMemory<'a> {
    /// In memory that cannot be given away.
    Borrowed(&'a mut [u8]),
    /// In a part of a buffer of the heap.
    Heap(&'a mut Box<[u8]>, Range<usize>),
    /// In a part of a chunk of the UMEM.
    #[cfg(feature = "af_xdp")]
    Umem(ReceivedChunk<'a>, Range<usize>),
}

impl<'a> ReceivedMemory<'a> {
    pub(crate) fn bytes(&mut self) -> &mut [u8] {
        match self {
            ReceivedMemory::Borrowed(bytes) => bytes,
            ReceivedMemory::Heap(buffer, range) => &mut buffer[range.clone()],
            #[cfg(feature = "af_xdp")]
            ReceivedMemory::Umem(chunk, range) => &mut chunk.bytes()[range.clone()],
        }
    }

    /// The part of the bytes at `part`.
    #[cfg(feature = "af_xdp")]
    pub(crate) fn part(self, part: Range<usize>) -> ReceivedMemory<'a> {
        let within = |range: Range<usize>| range.start + part.start..range.start + part.end;
        match self {
            ReceivedMemory::Borrowed(bytes) => ReceivedMemory::Borrowed(&mut bytes[part]),
            ReceivedMemory::Heap(buffer, range) => ReceivedMemory::Heap(buffer, within(range)),
            #[cfg(feature = "af_xdp")]
            ReceivedMemory::Umem(chunk, range) => ReceivedMemory::Umem(chunk, within(range)),
        }
    }

    pub(crate) fn into_bytes(self) -> &'a mut [u8] {
        match self {
            ReceivedMemory::Borrowed(bytes) => bytes,
            ReceivedMemory::Heap(buffer, range) => &mut buffer[range],
            #[cfg(feature = "af_xdp")]
            ReceivedMemory::Umem(chunk, range) => &mut chunk.into_bytes()[range],
        }
    }
}

/// Chunks of a device that pass between its thread and another.
#[derive(Default)]
pub(crate) struct ChunkSupply {
    /// Given for chunks that hold received datagrams.
    pub(crate) spares: Vec<Chunk>,
    /// To be filled with datagrams to be sent.
    pub(crate) slots: Vec<Chunk>,
    /// Keep the memory of frames for as long as they live, whatever becomes of the device.
    pub(crate) regions: Vec<Box<dyn Any + Send>>,
}

/// Spare chunks of 64 KiB and more.
const RECEIVE_CHUNKS: usize = 128;
/// Spare chunks of a datagram.
const SMALL_RECEIVE_CHUNKS: usize = 1024;
const SMALL_BYTES: usize = 2048;
/// Bytes of a chunk of the heap into which any message fits.
#[cfg(feature = "af_xdp")]
pub(crate) const HEAP_BYTES: usize = 66 * 1024;
/// Chunks of 64 KiB for datagrams to be sent.
pub(crate) const TRANSMIT_CHUNKS: usize = 64;

/// Chunks that can be given for others of the same kind.
#[derive(Debug, Default)]
pub(crate) struct SpareChunks {
    /// The one used last on top: it is in cache.
    heap: Vec<Box<[u8]>>,
    small: Vec<Box<[u8]>>,
    /// By queue: each has a UMEM of its own.
    #[cfg(feature = "af_xdp")]
    umem: Vec<Vec<UmemChunk>>,
}

impl SpareChunks {
    pub(crate) fn add(&mut self, chunk: Chunk) {
        match chunk {
            Chunk::Heap(bytes) if bytes.len() <= SMALL_BYTES => self.small.push(bytes),
            Chunk::Heap(bytes) => self.heap.push(bytes),
            #[cfg(feature = "af_xdp")]
            Chunk::Umem(chunk) => {
                let queue = chunk.queue();
                if self.umem.len() <= queue {
                    self.umem.resize_with(queue + 1, Vec::new);
                }
                self.umem[queue].push(chunk);
            }
        }
    }

    /// Takes the memory that datagrams lie in away from the device that received them, and gives it a spare chunk instead; memory that
    /// cannot be given away is copied. `None` if there is no spare one.
    pub(crate) fn exchange(&mut self, memory: ReceivedMemory<'_>) -> Option<FilledChunk> {
        match memory {
            ReceivedMemory::Borrowed(bytes) => {
                let small = self.small.pop_if(|small| bytes.len() <= small.len());
                copy(bytes, small.or_else(|| self.heap.pop())?)
            }
            // Copied too: a single datagram in a chunk of 64 KiB would let few of them wait.
            ReceivedMemory::Heap(buffer, range) if range.len() <= SMALL_BYTES && !self.small.is_empty() => {
                copy(&buffer[range], self.small.pop()?)
            }
            ReceivedMemory::Heap(buffer, range) => {
                let taken = std::mem::replace(buffer, self.heap.pop()?);
                Some(FilledChunk {
                    chunk: Chunk::Heap(taken),
                    range,
                })
            }
            #[cfg(feature = "af_xdp")]
            ReceivedMemory::Umem(received, range) => {
                let spares = self.umem.get_mut(received.queue())?;
                match received.exchange(spares.pop()?) {
                    Ok(taken) => Some(FilledChunk {
                        chunk: Chunk::Umem(taken),
                        range,
                    }),
                    // Kept out of use: the kernel would take its number for that of another chunk.
                    Err(_) => {
                        debug_assert!(false, "a chunk of another UMEM");
                        None
                    }
                }
            }
        }
    }
}

/// A copy, in a chunk that has room for it.
fn copy(bytes: &[u8], mut chunk: Box<[u8]>) -> Option<FilledChunk> {
    chunk.get_mut(..bytes.len())?.copy_from_slice(bytes);
    Some(FilledChunk {
        chunk: Chunk::Heap(chunk),
        range: 0..bytes.len(),
    })
}
