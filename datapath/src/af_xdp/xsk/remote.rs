//! Chunks that are with a worker on another thread.

use super::Xsk;
use crate::af_xdp::chunk_size::JUMBO_BYTES;
use crate::af_xdp::jumbo::JUMBO_CHUNKS;
use crate::af_xdp::socket::Kernel;
use crate::chunk::{self, Chunk, ChunkSupply};

impl<K: Kernel> Xsk<K> {
    /// The chunks that pass between this thread and another one. Packets that may lie in several chunks are passed on in memory of the heap.
    pub(in crate::af_xdp) fn supply_chunks(&mut self) -> ChunkSupply {
        if self.jumbo.is_some() {
            self.remote_jumbos = self.counts.transmit as usize / JUMBO_CHUNKS / 2;
            return ChunkSupply {
                spares: chunk::receive_chunks(chunk::HEAP_BYTES),
                slots: chunk::heap_chunks(self.remote_jumbos, JUMBO_BYTES),
                ..ChunkSupply::default()
            };
        }
        self.reserve_len = RESERVE.min(self.free.len() / 4);
        let mut slots = Vec::new();
        self.reclaim(&mut slots);
        self.remote_slots = slots.len() as u32;
        ChunkSupply {
            spares: self.spare.drain(..).map(Chunk::Umem).collect(),
            slots,
            regions: vec![self.rings.memory().keep_alive()],
            ..ChunkSupply::default()
        }
    }

    /// Gives away what can be sent from.
    pub(in crate::af_xdp) fn reclaim(&mut self, chunks: &mut Vec<Chunk>) {
        if self.jumbo.is_some() {
            // Each takes chunks when it is sent: no more of them than there are chunks for.
            let most = match self.can_send() {
                true => self.free.len() / JUMBO_CHUNKS,
                false => usize::MAX,
            };
            while self.remote_jumbos < most
                && let Some(bytes) = self.sent_jumbos.pop()
            {
                self.remote_jumbos += 1;
                chunks.push(Chunk::Heap(bytes));
            }
            return;
        }
        self.rings.complete(&mut self.free);
        // No more than the kernel keeps, so that the other thread never has more than at first.
        let wanted = match self.can_send() {
            true => self.reserve_len,
            false => self.reserve_len.saturating_sub(self.rings.sending() as usize),
        };
        while self.reserve.len() < wanted
            && let Some(chunk) = self.free.pop()
        {
            self.reserve.push(chunk);
        }
        chunks.extend(self.free.drain(..).rev().map(Chunk::Umem));
        let beyond = self.reserve.len().min(wanted);
        chunks.extend(self.reserve.drain(beyond..).map(Chunk::Umem));
    }

    /// Builds the next packet in a chunk of another thread.
    pub(in crate::af_xdp) fn set_building(&mut self, chunk: Chunk) {
        match (chunk, &mut self.jumbo) {
            (Chunk::Umem(chunk), _) if self.rings.memory().owns(&chunk) => self.building = Some(chunk),
            (Chunk::Umem(_), _) => debug_assert!(false, "of another UMEM"),
            (Chunk::Heap(bytes), Some(jumbo)) => {
                let before = std::mem::replace(&mut jumbo.building, bytes);
                self.sent_jumbos.push(before);
                self.remote_jumbos -= 1;
            }
            (Chunk::Heap(_), None) => debug_assert!(false, "not of this device"),
        }
    }

    /// It was not sent, or is.
    pub(in crate::af_xdp) fn release_building(&mut self) {
        self.free.extend(self.building.take());
    }
}

/// Chunks with which the other thread goes on if all others are stuck.
const RESERVE: usize = 64;
