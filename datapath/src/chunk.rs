//! Packet memory that can pass from thread to thread: a chunk has one owner at a time.

use std::any::Any;
use std::ops::Range;

use crate::lent::{Lendable, Lender, PacketBuffer};
#[cfg(feature = "af_xdp")]
use crate::umem::{ReceivedChunk, UmemChunk};

/// A slot of packet memory. Whoever holds it may read and write it, and nobody else.
#[derive(Debug)]
pub(crate) enum Chunk {
    /// Of the heap: what sockets send from and receive into.
    Heap(PacketBuffer),
    /// Of the memory that is shared with a NIC's queue.
    #[cfg(feature = "af_xdp")]
    Umem(UmemChunk),
}

impl Chunk {
    /// Spare chunks are exchanged for others of the same kind.
    pub(crate) fn kind(&self) -> usize {
        match self {
            Chunk::Heap(buffer) if Lendable::len(buffer) <= SMALL_BYTES => 0,
            Chunk::Heap(_) => 1,
            #[cfg(feature = "af_xdp")]
            Chunk::Umem(chunk) => 2 + chunk.queue(),
        }
    }

    /// All of it.
    pub(crate) fn bytes(&mut self) -> &mut [u8] {
        match self {
            Chunk::Heap(buffer) => buffer,
            #[cfg(feature = "af_xdp")]
            Chunk::Umem(chunk) => chunk.bytes(),
        }
    }
}

impl Lendable for Chunk {
    fn is_lent(&self) -> bool {
        match self {
            Chunk::Heap(buffer) => buffer.is_lent(),
            #[cfg(feature = "af_xdp")]
            Chunk::Umem(chunk) => chunk.is_lent(),
        }
    }

    fn len(&self) -> usize {
        match self {
            Chunk::Heap(buffer) => Lendable::len(buffer),
            #[cfg(feature = "af_xdp")]
            Chunk::Umem(chunk) => chunk.len(),
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

    /// The datagrams, for a visitor.
    pub(crate) fn memory(&mut self, may_lend: bool) -> ReceivedMemory<'_> {
        let range = self.range.clone();
        match &mut self.chunk {
            Chunk::Heap(buffer) => ReceivedMemory::Heap {
                buffer,
                range,
                may_lend,
            },
            #[cfg(feature = "af_xdp")]
            Chunk::Umem(chunk) => ReceivedMemory::Umem {
                chunk: ReceivedChunk::of_another_thread(chunk),
                range,
                may_lend,
            },
        }
    }

    /// For a device that was given chunks of the heap only.
    pub(crate) fn into_heap(self) -> Option<(PacketBuffer, Range<usize>)> {
        match self.chunk {
            Chunk::Heap(buffer) => Some((buffer, self.range)),
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
    (0..count).map(|_| Chunk::Heap(packet_buffer(len))).collect()
}

/// A buffer of `len` bytes that is present.
pub(crate) fn packet_buffer(len: usize) -> PacketBuffer {
    PacketBuffer::new(prefaulted(len))
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
    Heap {
        buffer: &'a mut PacketBuffer,
        range: Range<usize>,
        may_lend: bool,
    },
    /// In a part of a chunk of the UMEM.
    #[cfg(feature = "af_xdp")]
    Umem {
        chunk: ReceivedChunk<'a>,
        range: Range<usize>,
        may_lend: bool,
    },
}

impl<'a> ReceivedMemory<'a> {
    pub(crate) fn bytes(&mut self) -> &mut [u8] {
        match self {
            ReceivedMemory::Borrowed(bytes) => bytes,
            ReceivedMemory::Heap { buffer, range, .. } => &mut buffer[range.clone()],
            #[cfg(feature = "af_xdp")]
            ReceivedMemory::Umem { chunk, range, .. } => &mut chunk.bytes()[range.clone()],
        }
    }

    /// The part of the bytes at `part`.
    #[cfg(feature = "af_xdp")]
    pub(crate) fn part(self, part: Range<usize>) -> ReceivedMemory<'a> {
        let within = |range: Range<usize>| range.start + part.start..range.start + part.end;
        match self {
            ReceivedMemory::Borrowed(bytes) => ReceivedMemory::Borrowed(&mut bytes[part]),
            ReceivedMemory::Heap {
                buffer,
                range,
                may_lend,
            } => ReceivedMemory::Heap {
                buffer,
                range: within(range),
                may_lend,
            },
            #[cfg(feature = "af_xdp")]
            ReceivedMemory::Umem {
                chunk,
                range,
                may_lend,
            } => ReceivedMemory::Umem {
                chunk,
                range: within(range),
                may_lend,
            },
        }
    }

    pub(crate) fn visit(self) -> (&'a mut [u8], Lender<'a>) {
        match self {
            ReceivedMemory::Borrowed(bytes) => (bytes, Lender::nobody()),
            ReceivedMemory::Heap {
                buffer,
                range,
                may_lend,
            } => buffer.visit(range, may_lend),
            #[cfg(feature = "af_xdp")]
            ReceivedMemory::Umem {
                chunk,
                range,
                may_lend,
            } => {
                let (bytes, chunk) = chunk.visit();
                let lender = if may_lend {
                    Lender::of_chunk(chunk)
                } else {
                    Lender::nobody()
                };
                (&mut bytes[range], lender)
            }
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
    /// Bytes of spare ones that the application may hold on to.
    pub(crate) lent_bytes: usize,
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
    heap: Vec<PacketBuffer>,
    small: Vec<PacketBuffer>,
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
            ReceivedMemory::Heap { buffer, range, .. }
                if range.len() <= SMALL_BYTES && !self.small.is_empty() =>
            {
                copy(&buffer[range], self.small.pop()?)
            }
            ReceivedMemory::Heap { buffer, range, .. } => {
                let taken = std::mem::replace(buffer, self.heap.pop()?);
                Some(FilledChunk {
                    chunk: Chunk::Heap(taken),
                    range,
                })
            }
            #[cfg(feature = "af_xdp")]
            ReceivedMemory::Umem {
                chunk: received,
                range,
                ..
            } => {
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
fn copy(bytes: &[u8], mut chunk: PacketBuffer) -> Option<FilledChunk> {
    chunk.get_mut(..bytes.len())?.copy_from_slice(bytes);
    Some(FilledChunk {
        chunk: Chunk::Heap(chunk),
        range: 0..bytes.len(),
    })
}
