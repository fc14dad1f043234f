//! A channel from one thread to another: datagrams in chunks, and the addresses that they have in common.
//!
//! What passes from processor to processor costs by its size, some 10 ns for each cache line. So each chunk is announced by half a line, and
//! addresses pass only when they differ from those of the chunk before.

use rtrb::{Consumer, Producer, RingBuffer};

use super::ring::{publish, take};
use crate::chunk::{Chunk, FilledChunk};

/// A chunk, and where datagrams are in it.
struct ChunkDescriptor {
    chunk: Chunk,
    start: u16,
    len: u16,
    segment_size: u16,
    has_addresses: bool,
}

const _: () = assert!(size_of::<ChunkDescriptor>() <= 32);

/// A channel with room for `room` chunks; `A` is what chunks have in common.
pub(super) fn channel<A>(room: usize) -> (Sender<A>, Receiver<A>) {
    let (descriptors_in, descriptors) = RingBuffer::new(room);
    let (addresses_in, addresses) = RingBuffer::new(room);
    let sender = Sender {
        descriptors: descriptors_in,
        descriptor_batch: Vec::with_capacity(room),
        addresses: addresses_in,
        address_batch: Vec::with_capacity(room),
        last: None,
    };
    let receiver = Receiver {
        descriptors,
        addresses,
        last: None,
    };
    (sender, receiver)
}

/// The end that sends.
pub(super) struct Sender<A> {
    descriptors: Producer<ChunkDescriptor>,
    descriptor_batch: Vec<ChunkDescriptor>,
    addresses: Producer<A>,
    address_batch: Vec<A>,
    last: Option<A>,
}

impl<A: Copy + PartialEq> Sender<A> {
    /// Adds to what is published next.
    pub(super) fn push(&mut self, addresses: A, segment_size: usize, filled: FilledChunk) {
        let has_addresses = self.last != Some(addresses);
        if has_addresses {
            self.last = Some(addresses);
            self.address_batch.push(addresses);
        }
        let FilledChunk { chunk, range } = filled;
        // Both are below 65,536: a datagram is not longer, nor is what lies in front of one.
        debug_assert!(range.start <= usize::from(u16::MAX) && range.len() <= usize::from(u16::MAX));
        self.descriptor_batch.push(ChunkDescriptor {
            chunk,
            start: range.start as u16,
            len: range.len() as u16,
            segment_size: segment_size.min(range.len()) as u16,
            has_addresses,
        });
    }

    /// Shows the other end what was added; false if nothing was.
    pub(super) fn publish(&mut self) -> bool {
        if self.descriptor_batch.is_empty() {
            return false;
        }
        publish(&mut self.addresses, &mut self.address_batch);
        publish(&mut self.descriptors, &mut self.descriptor_batch);
        true
    }
}

/// The end that receives.
pub(super) struct Receiver<A> {
    descriptors: Consumer<ChunkDescriptor>,
    addresses: Consumer<A>,
    last: Option<A>,
}

impl<A: Copy> Receiver<A> {
    /// Chunks that are there.
    pub(super) fn len(&self) -> usize {
        self.descriptors.slots()
    }

    /// Takes chunks, `most` at most and for as long as `each` says, with their addresses and the size of their datagrams.
    pub(super) fn take(&mut self, most: usize, mut each: impl FnMut(A, usize, FilledChunk) -> bool) {
        let Receiver {
            descriptors,
            addresses,
            last,
        } = self;
        take(descriptors, most, |descriptor| {
            if descriptor.has_addresses {
                *last = addresses.pop().ok();
            }
            let Some(addresses) = *last else {
                debug_assert!(
                    false,
                    "the first chunk has addresses, which are published before it"
                );
                return true;
            };
            let start = usize::from(descriptor.start);
            let range = start..start + usize::from(descriptor.len);
            each(
                addresses,
                usize::from(descriptor.segment_size),
                FilledChunk {
                    chunk: descriptor.chunk,
                    range,
                },
            )
        });
    }
}
