//! Tokens become descriptors for the kernel, and its descriptors tokens.
//!
//! Invariant that the `unsafe` blocks rest on: a chunk whose bit is set is with the kernel and has no token. A token is made only of a chunk whose
//! bit is set, when the kernel names it on the ring by which it gives back such chunks or has none any more, and the bit is cleared then.

use super::frames::{Outgoing, Received, RingSizes};
use super::lent::Lent;
use crate::umem::ring::{Consumer, Descriptor, Producer, of_heap};
use crate::umem::sys::{Memory, UmemChunk};

/// Our sides of the rings.
pub(crate) struct RingSides {
    pub(crate) fill: Producer<u64>,
    pub(crate) completions: Consumer<u64>,
    pub(crate) receive: Consumer<Descriptor>,
    pub(crate) transmit: Producer<Descriptor>,
}

/// The UMEM of a queue and its rings.
pub(crate) struct Rings {
    memory: Memory,
    sides: RingSides,
    /// Those of a socket.
    sizes: RingSizes,
    /// There is a socket that has the memory, and the other ends.
    is_connected: bool,
    /// Chunks to receive into that the kernel has, and chunks to be sent.
    receiving: Lent,
    sending: Lent,
    refused: u64,
}

impl Rings {
    /// Gives the tokens of all chunks too.
    ///
    /// # Safety
    ///
    /// The rings are of the one socket that the memory is registered with, and nobody has had chunks of it before.
    pub(crate) unsafe fn new(memory: Memory, sides: RingSides) -> (Rings, Vec<UmemChunk>) {
        // SAFETY: the first tokens, as the caller promises.
        let token = |number| unsafe { memory.token(number) };
        let chunks = (0..memory.chunks()).map(token).collect();
        let rings = Rings {
            sizes: RingSizes {
                fill: sides.fill.size(),
                receive: sides.receive.size(),
                transmit: sides.transmit.size(),
            },
            sides,
            is_connected: true,
            receiving: Lent::new(memory.chunks()),
            sending: Lent::new(memory.chunks()),
            refused: 0,
            memory,
        };
        (rings, chunks)
    }

    /// Ends with a socket, and gives back the chunks that the kernel had to receive into, and those that it was to send.
    ///
    /// # Safety
    ///
    /// The kernel writes into nothing of the memory any more, until there is another socket.
    pub(crate) unsafe fn disconnect(&mut self, received: &mut Vec<UmemChunk>, sent: &mut Vec<UmemChunk>) {
        self.is_connected = false;
        // Nobody has their other ends. Those of the kernel, as long as they are mapped, keep the socket.
        self.sides = RingSides {
            fill: of_heap(1).0,
            completions: of_heap(1).1,
            receive: of_heap(1).1,
            transmit: of_heap(1).0,
        };
        for (lent, chunks) in [(&mut self.receiving, received), (&mut self.sending, sent)] {
            // SAFETY: its bit was set, and the kernel does not have it any more, as the caller promises.
            lent.clear_all(|number| chunks.push(unsafe { self.memory.token(number) }));
        }
    }

    /// Goes on with another socket.
    ///
    /// # Safety
    ///
    /// The rings are of a socket that the memory is registered with, and new. No other one with which it is registered is bound. They were
    /// disconnected from the last one.
    pub(crate) unsafe fn connect(&mut self, sides: RingSides) {
        self.is_connected = true;
        self.sides = sides;
    }

    /// There is a socket that has the memory.
    pub(crate) fn is_connected(&self) -> bool {
        self.is_connected
    }

    /// Of the rings with a socket, and of those with the next one.
    pub(crate) fn sizes(&self) -> RingSizes {
        self.sizes
    }

    pub(crate) fn memory(&self) -> &Memory {
        &self.memory
    }

    /// Descriptors of the kernel that named no chunk that it had.
    pub(crate) fn refused(&self) -> u64 {
        self.refused
    }

    /// Gives the kernel the last `count` chunks to receive into, or as many as there is room for; gives how many.
    pub(crate) fn fill(&mut self, chunks: &mut Vec<UmemChunk>, count: u32) -> u32 {
        let room = self.sides.fill.room(count.min(chunks.len() as u32));
        for chunk in chunks.drain(chunks.len() - room as usize..) {
            // One of another UMEM, whose number would name a chunk of this one, is as good as lost. Nobody brings such.
            let Some(number) = self.memory.number(&chunk) else {
                debug_assert!(false, "a chunk of another UMEM");
                continue;
            };
            self.receiving.set(number);
            self.sides
                .fill
                .push(u64::from(number) * u64::from(self.memory.chunk_bytes()));
        }
        self.sides.fill.publish();
        room
    }

    pub(crate) fn fill_needs_wakeup(&self) -> bool {
        self.sides.fill.needs_wakeup()
    }

    /// Chunks that the kernel may receive into, or has received into and we have not taken.
    pub(crate) fn receiving(&self) -> u32 {
        self.receiving.count()
    }

    /// Frames that wait for us.
    pub(crate) fn received(&mut self) -> u32 {
        self.sides.receive.available()
    }

    /// Takes frames into the batch, until it has so many.
    pub(crate) fn receive(&mut self, batch: &mut Vec<Received>, most: usize) {
        while batch.len() < most
            && let Some(descriptor) = self.sides.receive.pop()
        {
            let found = self.memory.find(descriptor.address, descriptor.len);
            let Some((number, range)) = found.filter(|(number, _)| self.receiving.clear(*number)) else {
                self.refused += 1;
                continue;
            };
            batch.push(Received {
                // SAFETY: its bit was set, and the kernel has given it back.
                chunk: unsafe { self.memory.token(number) },
                range,
                more: descriptor.options & PKT_CONTD != 0,
            });
        }
        self.sides.receive.release();
    }

    /// Gives the kernel the first of these to be sent, as many as there is room for; gives how many.
    pub(crate) fn send(&mut self, outgoing: &mut Vec<Outgoing>) -> u32 {
        let room = self.sides.transmit.room(outgoing.len() as u32);
        for Outgoing { chunk, len, more } in outgoing.drain(..room as usize) {
            let Some(number) = self.memory.number(&chunk) else {
                debug_assert!(false, "a chunk of another UMEM");
                continue;
            };
            debug_assert!(len <= self.memory.chunk_bytes());
            self.sending.set(number);
            self.sides.transmit.push(Descriptor {
                address: u64::from(number) * u64::from(self.memory.chunk_bytes()),
                len: len.min(self.memory.chunk_bytes()),
                options: if more { PKT_CONTD } else { 0 },
            });
        }
        self.sides.transmit.publish();
        room
    }

    pub(crate) fn transmit_needs_wakeup(&self) -> bool {
        self.sides.transmit.needs_wakeup()
    }

    /// Frames that the kernel has begun to send since the start, in 32 bits.
    pub(crate) fn begun(&self) -> u32 {
        self.sides.transmit.consumed()
    }

    /// Frames that the kernel has not begun to send.
    pub(crate) fn unsent(&mut self) -> u32 {
        self.sides.transmit.unconsumed()
    }

    /// Chunks that the kernel has not given back since they were to be sent.
    pub(crate) fn sending(&self) -> u32 {
        self.sending.count()
    }

    /// Takes back what was sent.
    pub(crate) fn complete(&mut self, free: &mut Vec<UmemChunk>) {
        if self.sending.count() == 0 {
            return;
        }
        while let Some(address) = self.sides.completions.pop() {
            let found = self.memory.find(address, 0);
            match found.filter(|(number, _)| self.sending.clear(*number)) {
                // SAFETY: its bit was set, and the kernel has given it back.
                Some((number, _)) => free.push(unsafe { self.memory.token(number) }),
                None => self.refused += 1,
            }
        }
        self.sides.completions.release();
    }
}

// linux/if_xdp.h: XDP_PKT_CONTD
const PKT_CONTD: u32 = 1;
