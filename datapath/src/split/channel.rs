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

#[cfg(all(test, not(loom)))]
mod tests {
    use std::thread;
    use std::time::{Duration, Instant};

    use super::*;
    use crate::chunk::heap_chunks;

    /// What one thread has of the lanes: it sends in chunks that come back to it, and gives those back that it receives.
    struct End {
        outbound: Sender<u32>,
        free: Vec<Chunk>,
        returned: Consumer<Chunk>,
        arrived: Receiver<u32>,
        used: Producer<Chunk>,
    }

    const ROOM: usize = 16;
    const CHUNK_BYTES: usize = 64;

    fn ends() -> [End; 2] {
        let ([outbound, other_outbound], [arrived, other_arrived]) = two(|| channel(ROOM));
        let ([used, other_used], [returned, other_returned]) = two(|| RingBuffer::new(ROOM));
        let free = || heap_chunks(ROOM, CHUNK_BYTES);
        [
            End {
                outbound,
                free: free(),
                returned,
                arrived: other_arrived,
                used: other_used,
            },
            End {
                outbound: other_outbound,
                free: free(),
                returned: other_returned,
                arrived,
                used,
            },
        ]
    }

    fn two<I, O>(make: impl Fn() -> (I, O)) -> ([I; 2], [O; 2]) {
        let ((one_in, one_out), (other_in, other_out)) = (make(), make());
        ([one_in, other_in], [one_out, other_out])
    }

    /// They change often: each change passes in a ring of its own.
    fn addresses(number: u32) -> u32 {
        number / 2
    }

    fn packet(number: u32) -> Vec<u8> {
        let mut bytes = vec![number as u8; 4 + number as usize % (CHUNK_BYTES - 4)];
        bytes[..4].copy_from_slice(&number.to_be_bytes());
        bytes
    }

    impl End {
        /// Sends and receives `count` packets, and waits for its chunks; gives how many arrived, and how many chunks came back.
        fn pass(&mut self, count: u32) -> (u32, usize) {
            /// What does not come by then has been lost.
            const PATIENCE: Duration = Duration::from_secs(60);
            let start = Instant::now();
            let (mut sent, mut received) = (0, 0);
            let mut used_batch = Vec::new();
            while (sent < count || received < count || self.free.len() < ROOM)
                && !self.returned.is_abandoned()
                && start.elapsed() < PATIENCE
            {
                take(&mut self.returned, usize::MAX, |chunk| {
                    self.free.push(chunk);
                    true
                });
                let turn_end = count.min(sent + 3);
                while sent < turn_end
                    && let Some(mut chunk) = self.free.pop()
                {
                    let bytes = packet(sent);
                    let place = sent as usize % (CHUNK_BYTES - bytes.len() + 1);
                    let range = place..place + bytes.len();
                    chunk.bytes()[range.clone()].copy_from_slice(&bytes);
                    let filled = FilledChunk { chunk, range };
                    self.outbound.push(addresses(sent), bytes.len(), filled);
                    sent += 1;
                }
                self.outbound.publish();
                self.arrived.take(usize::MAX, |seen, segment_size, mut filled| {
                    let expected = packet(received);
                    assert_eq!((seen, segment_size), (addresses(received), expected.len()));
                    assert!(filled.data() == expected, "{received} has arrived: {filled:?}");
                    received += 1;
                    used_batch.push(filled.chunk);
                    true
                });
                publish(&mut self.used, &mut used_batch);
                thread::yield_now();
            }
            (received, self.free.len())
        }
    }

    /// More packets than there are chunks: each thread writes to those that the other has read.
    #[test]
    fn packets_that_pass_between_two_threads_arrive_whole_and_in_order() {
        let count = if cfg!(miri) { 400 } else { 200_000 };
        let passed = thread::scope(|scope| {
            let threads = ends().map(|mut end| scope.spawn(move || (end.pass(count), end)));
            // An end that is dropped, by a check that fails, ends the other's turns too. So one that is through is kept.
            threads.map(|thread| thread.join().unwrap())
        });
        assert_eq!(passed.map(|(passed, _)| passed), [(count, ROOM); 2]);
    }
}
