//! Chunks to receive into: to the kernel, and back with frames.

use super::{RECEIVE_BATCH, Stage, Xsk};
use crate::af_xdp::program::Program;
use crate::af_xdp::socket::{BindMode, Kernel};
use crate::chunk::ReceivedMemory;
use crate::cpu;
use crate::umem::{Received, ReceivedChunk};

impl<K: Kernel> Xsk<K> {
    /// Visits frames that have come, at most a batch; gives how many.
    pub(in crate::af_xdp) fn receive(
        &mut self,
        program: &Program,
        mut visit: impl FnMut(ReceivedMemory<'_>),
    ) -> usize {
        // The core that copies into these chunks next would have to fetch them from ours, which has just decrypted packets in them.
        let queue = self.queue;
        self.receive_from(|| program.is_served_by_another_core(queue), &mut visit)
    }

    pub(in crate::af_xdp) fn receive_from(
        &mut self,
        served_by_another_core: impl FnOnce() -> bool,
        visit: &mut impl FnMut(ReceivedMemory<'_>),
    ) -> usize {
        if self.busy_poll && self.rings.received() == 0 {
            // Nobody else looks at the NIC: not even an interrupt.
            self.kick_receive();
        }
        self.lent.reclaim(|chunk| self.visited.push(chunk));
        let backlog = self.rings.received();
        if self.mode == BindMode::ZeroCopy {
            // What was visited before goes first: a driver that finds the fill ring empty may have nothing to receive into.
            self.refill();
        }
        self.rings.receive(&mut self.batch, RECEIVE_BATCH);
        let count = self.batch.len();
        let copied_into = self.mode == BindMode::Copy && self.counts.spare == 0;
        let demotes = count > 0 && copied_into && served_by_another_core();
        for Received {
            mut chunk,
            range,
            more,
        } in self.batch.drain(..)
        {
            let range = range.start as usize..range.end as usize;
            let is_whole = match &mut self.jumbo {
                Some(jumbo) => jumbo.take(&chunk.bytes()[range.clone()], more, |packet| {
                    visit(ReceivedMemory::Borrowed(packet));
                }),
                None if more || self.skipping => {
                    self.skipping = more;
                    more
                }
                None => {
                    visit(ReceivedMemory::Umem {
                        may_lend: self.lent.may_lend(chunk.len(), range.len()),
                        chunk: ReceivedChunk::new(&mut chunk, self.rings.memory()),
                        range: range.clone(),
                    });
                    if chunk.is_lent() {
                        self.lent.add(chunk);
                        continue;
                    }
                    true
                }
            };
            self.too_long += u64::from(!is_whole);
            if demotes {
                cpu::demote_cache_lines(&chunk.bytes()[range]);
            }
            self.visited.push(chunk);
        }
        self.fill_target.adapt(backlog, count as u32);
        self.refill();
        count
    }

    /// Gives the kernel chunks to receive into.
    pub(in crate::af_xdp) fn refill(&mut self) {
        if self.stage == Stage::Lost || self.kernel.is_none() {
            return;
        }
        let lent = self.lent.bytes() as u32 / self.rings.memory().chunk_bytes();
        let resting = self.visited.len() as u32 + lent;
        let missing = (self.fill_target.chunks() + resting).saturating_sub(self.counts.receive);
        if missing >= REFILL_MIN.min(self.counts.receive) {
            self.rings.fill(&mut self.visited, missing);
        }
        // Whether or not it has got some just now: it may have found none before.
        if self.rings.fill_needs_wakeup() {
            self.kick_receive();
        }
    }

    fn kick_receive(&self) {
        if let Some(kernel) = &self.kernel {
            // What it answers is what it answers to sending.
            let _ = kernel.receive();
        }
    }
}

/// So many chunks at least go to the kernel together: each time it has to fetch the ring's index and entries from our core.
const REFILL_MIN: u32 = 32;
