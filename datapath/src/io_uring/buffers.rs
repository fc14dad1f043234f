//! Receive buffers: each belongs to the kernel or to us.

mod sys;

use std::io;
use std::ops::Range;

use ::io_uring::IoUring;

use self::sys::BufferRing;
use crate::chunk;
use crate::chunk::ReceivedMemory;
use crate::lent::{Lendable, LentMemory, PacketBuffer};
use crate::udp::message::{CONTROL_BYTES, IncomingMessage, NAME_BYTES};

/// How the kernel lays a received message out in a buffer: four counts, name, control messages, payload.
const COUNTS_BYTES: usize = 16;
pub(super) const NAME_ROOM: usize = 32;
const PAYLOAD: usize = COUNTS_BYTES + NAME_ROOM + CONTROL_BYTES;
/// A full message of 64 KiB, and the above.
pub(super) const BUFFER_BYTES: usize = 66 * 1024;
/// The one group of provided buffers.
pub(super) const GROUP: u16 = 0;

const _: () = assert!(NAME_BYTES <= NAME_ROOM && PAYLOAD + (1 << 16) <= BUFFER_BYTES);

/// A buffer that the kernel has filled, in our hands until it is given back.
#[derive(Debug)]
pub(super) struct ReceivedBuffer(u16);

/// The buffers, and the ring by which the kernel gets them.
pub(super) struct ReceiveBuffers {
    buffers: Box<[Buffer]>,
    ring: BufferRing,
    /// For buffers that are lent.
    spares: Vec<PacketBuffer>,
    lent: LentMemory<PacketBuffer>,
}

struct Buffer {
    memory: PacketBuffer,
    holder: Holder,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Holder {
    Kernel,
    Us,
}

impl ReceiveBuffers {
    /// `count` must be a power of two. All are ours at first.
    pub(super) fn new(count: u16, lent_bytes: usize) -> io::Result<Self> {
        let buffer = |_| Buffer {
            memory: chunk::packet_buffer(BUFFER_BYTES),
            holder: Holder::Us,
        };
        Ok(ReceiveBuffers {
            buffers: (0..count).map(buffer).collect(),
            ring: BufferRing::new(count)?,
            spares: Vec::new(),
            lent: LentMemory::new(lent_bytes),
        })
    }

    /// Gives all to the kernel, which is told where their ring lies.
    pub(super) fn register(&mut self, uring: &IoUring) -> io::Result<()> {
        self.ring.register(uring, GROUP)?;
        for index in 0..self.buffers.len() as u16 {
            self.give_back(ReceivedBuffer(index));
        }
        self.publish();
        Ok(())
    }

    /// The kernel says that it has filled this buffer. `None` if it does not have it: nothing in there is believed.
    pub(super) fn take(&mut self, index: u16) -> Option<ReceivedBuffer> {
        let buffer = self.buffers.get_mut(usize::from(index))?;
        let holder = std::mem::replace(&mut buffer.holder, Holder::Us);
        (holder == Holder::Kernel).then_some(ReceivedBuffer(index))
    }

    /// Gives a buffer to the kernel, which sees it after [`ReceiveBuffers::publish`].
    pub(super) fn give_back(&mut self, buffer: ReceivedBuffer) {
        let ReceivedBuffer(index) = buffer;
        let Some(Buffer { memory, holder }) = self.buffers.get_mut(usize::from(index)) else {
            return;
        };
        // Also if the token was of another ring's buffer.
        if *holder == Holder::Us {
            *holder = Holder::Kernel;
            if memory.is_lent() {
                let spare = self
                    .spares
                    .pop()
                    .unwrap_or_else(|| chunk::packet_buffer(BUFFER_BYTES));
                self.lent.add(std::mem::replace(memory, spare));
            }
            self.ring.add(index, memory);
        }
    }

    /// Looks for buffers that are lent no more.
    pub(super) fn reclaim(&mut self) {
        self.lent.reclaim(|buffer| self.spares.push(buffer));
    }

    /// Bytes that are lent.
    pub(super) fn lent_bytes(&self) -> usize {
        self.lent.bytes()
    }

    /// Shows the kernel the buffers that were given back.
    pub(super) fn publish(&mut self) {
        self.ring.publish();
    }

    /// The message of `len` bytes in a buffer, and its payload. `None` if it is cut off.
    pub(super) fn message(
        &mut self,
        buffer: &ReceivedBuffer,
        len: usize,
    ) -> Option<(IncomingMessage, ReceivedMemory<'_>)> {
        let buffer = self.buffers.get_mut(usize::from(buffer.0))?;
        if buffer.holder != Holder::Us {
            return None;
        }
        let (head, payload) = buffer.memory.get(..len)?.split_at_checked(PAYLOAD)?;
        let count = |index: usize| {
            let bytes = head[index * 4..].first_chunk().copied().unwrap_or_default();
            u32::from_ne_bytes(bytes) as usize
        };
        // struct io_uring_recvmsg_out: namelen, controllen, payloadlen, flags.
        let (name_len, control_len, flags) = (count(0).min(NAME_ROOM), count(1).min(CONTROL_BYTES), count(3));
        let name = &head[COUNTS_BYTES..COUNTS_BYTES + name_len];
        let control = &head[COUNTS_BYTES + NAME_ROOM..][..control_len];
        let payload_range: Range<usize> = PAYLOAD..len;
        Some((
            IncomingMessage::read(name, control, payload.len(), flags as libc::c_int),
            ReceivedMemory::Heap {
                may_lend: self.lent.may_lend(BUFFER_BYTES, len),
                buffer: &mut buffer.memory,
                range: payload_range,
            },
        ))
    }

    pub(super) fn bytes(&self) -> usize {
        self.buffers.len() * BUFFER_BYTES
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    /// As if the kernel had been told.
    fn with_the_kernel(count: u16) -> ReceiveBuffers {
        let mut buffers = ReceiveBuffers::new(count, 0).unwrap();
        (0..count).for_each(|index| buffers.give_back(ReceivedBuffer(index)));
        buffers
    }

    #[test]
    fn buffer_that_the_kernel_does_not_hold_is_refused() {
        let mut buffers = with_the_kernel(2);
        let first = buffers.take(1).expect("the kernel has it");
        assert!(buffers.take(1).is_none(), "it is ours");
        assert!(buffers.take(2).is_none(), "there is none of this number");
        buffers.give_back(first);
        assert!(buffers.take(1).is_some());
    }

    #[test]
    fn token_of_another_ring_reads_and_gives_nothing_that_the_kernel_holds() {
        let mut one = with_the_kernel(2);
        let mut other = with_the_kernel(2);
        let foreign = other.take(0).unwrap();
        assert!(one.message(&foreign, PAYLOAD).is_none());
        let published = one.ring.added();
        one.give_back(foreign);
        assert_eq!(one.ring.added(), published, "the kernel has it already");
    }

    #[test]
    fn message_whose_counts_are_out_of_bounds_stays_within_its_buffer() {
        let mut buffers = with_the_kernel(1);
        let buffer = buffers.take(0).unwrap();
        buffers.buffers[0].memory[..COUNTS_BYTES].fill(0xff);
        let (message, memory) = buffers.message(&buffer, PAYLOAD + 3).unwrap();
        assert_eq!((message.len, memory.visit().0.len()), (3, 3));
        assert!(buffers.message(&buffer, PAYLOAD - 1).is_none());
        assert!(buffers.message(&buffer, BUFFER_BYTES + 1).is_none());
    }
}
