//! A kernel that does with the chunks it is given what it is told to, right or wrong. (What it is told to write into a chunk that it does not have
//! is what a test under Miri would find.)

use crate::umem::ring::{Consumer, Descriptor, Producer, of_heap as ring};
use crate::umem::sys::{Memory, UmemChunk};
use crate::umem::{RingSides, RingSizes, Rings};

/// The other ends.
pub(crate) struct Kernel {
    memory: Memory,
    pub(crate) fill: Consumer<u64>,
    pub(crate) completions: Producer<u64>,
    pub(crate) receive: Producer<Descriptor>,
    pub(crate) transmit: Consumer<Descriptor>,
}

/// Rings of the heap between a queue and a mock of the kernel, with the tokens of all chunks.
pub(crate) fn rings(
    chunk_bytes: u32,
    chunks: u32,
    queue: usize,
    sizes: RingSizes,
) -> (Rings, Vec<UmemChunk>, Kernel) {
    let memory = Memory::map(chunk_bytes, chunks, queue).expect("a test has some memory");
    let (ours, kernel) = both_ends(memory.clone(), sizes);
    // SAFETY: memory and rings are new, and the mock has the other ends.
    let (rings, mut chunks) = unsafe { Rings::new(memory, ours) };
    // More than was asked for, where there are huge pages.
    chunks.truncate(chunks.len().min(CHUNKS_MAX));
    (rings, chunks, kernel)
}

const CHUNKS_MAX: usize = 1 << 16;

/// The socket is gone, and the mock with it; then there may be another one, and another mock.
pub(crate) fn reconnect(
    rings: &mut Rings,
    kernel: Kernel,
    sizes: RingSizes,
) -> (Vec<UmemChunk>, Vec<UmemChunk>, Kernel) {
    let memory = kernel.memory.clone();
    drop(kernel);
    let (mut received, mut sent) = (Vec::new(), Vec::new());
    // SAFETY: the mock was the kernel, and has gone.
    unsafe { rings.disconnect(&mut received, &mut sent) };
    let (ours, kernel) = both_ends(memory, sizes);
    // SAFETY: the rings are new, and the new mock has the other ends.
    unsafe { rings.connect(ours) };
    (received, sent, kernel)
}

fn both_ends(memory: Memory, sizes: RingSizes) -> (RingSides, Kernel) {
    let (fill, kernel_fill) = ring(sizes.fill);
    let (kernel_completions, completions) = ring(sizes.transmit);
    let (kernel_receive, receive) = ring(sizes.receive);
    let (transmit, kernel_transmit) = ring(sizes.transmit);
    let kernel = Kernel {
        memory,
        fill: kernel_fill,
        completions: kernel_completions,
        receive: kernel_receive,
        transmit: kernel_transmit,
    };
    let ours = RingSides {
        fill,
        completions,
        receive,
        transmit,
    };
    (ours, kernel)
}

impl Kernel {
    /// Takes a chunk to receive into.
    pub(crate) fn take(&mut self) -> Option<u64> {
        let address = self.fill.pop();
        self.fill.release();
        address
    }

    /// Writes into a chunk.
    pub(crate) fn write(&mut self, address: u64, bytes: &[u8]) {
        let chunk = self.memory.pointer(address);
        // SAFETY: a chunk that the kernel has, with room for it.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), chunk.as_ptr(), bytes.len()) };
    }

    /// Puts a descriptor on the receive ring, whatever it says; false if that is full.
    pub(crate) fn deliver(&mut self, address: u64, len: u32, more: bool) -> bool {
        let taken = self.receive.push(Descriptor {
            address,
            len,
            options: u32::from(more),
        });
        self.receive.publish();
        taken
    }

    /// Receives a frame, where the driver leaves `headroom`; false, and the frame is lost, without a chunk for it or if nobody takes frames.
    pub(crate) fn receive(&mut self, headroom: u64, bytes: &[u8]) -> bool {
        let Some(address) = self.take() else { return false };
        self.write(address + headroom, bytes);
        self.deliver(address + headroom, bytes.len() as u32, false)
    }

    /// Sends a frame: gives where it is, its bytes, and whether the packet goes on in the next one.
    pub(crate) fn send(&mut self) -> Option<(u64, Vec<u8>, bool)> {
        let descriptor = self.transmit.pop()?;
        self.transmit.release();
        let chunk = self.memory.pointer(descriptor.address);
        // SAFETY: a chunk that the kernel has, with so many bytes.
        let bytes = unsafe { std::slice::from_raw_parts(chunk.as_ptr(), descriptor.len as usize) }.to_vec();
        Some((descriptor.address, bytes, descriptor.options != 0))
    }

    /// Gives back a chunk, whichever, as one that was sent.
    pub(crate) fn complete(&mut self, address: u64) -> bool {
        let taken = self.completions.push(address);
        self.completions.publish();
        taken
    }
}
