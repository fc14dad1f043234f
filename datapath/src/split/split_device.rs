//! The end with the worker.

use std::any::Any;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use ringway_types::PortId;
use rtrb::{Consumer, Producer};

use super::channel::{Receiver, Sender};
use super::lending::LentChunks;
use super::ring::{publish, take};
use super::shared::{PortChange, Shared};
use crate::chunk::{Chunk, FilledChunk};
use crate::contract::{Burst, BurstVisitor, Capabilities, DetachNotice};
use crate::event::Waker;
use crate::lent::Lendable;
use crate::meta::{ReceiveMeta, TransmitMeta};
use crate::port::BoundPort;
use crate::refusals::Refusal;

/// A device that is on another thread, as its worker has it.
pub struct SplitDevice {
    pub(super) capabilities: Capabilities,
    pub(super) arrived: Receiver<ReceiveMeta>,
    /// Chunks of datagrams that were visited.
    pub(super) used: Producer<Chunk>,
    pub(super) used_batch: Vec<Chunk>,
    /// Chunks of datagrams that were visited and that the application holds on to.
    pub(super) lent: LentChunks,
    pub(super) slots: Consumer<Chunk>,
    /// The one used last on top: it is in cache, or was last.
    pub(super) free: Vec<Chunk>,
    pub(super) outbound: Sender<TransmitMeta>,
    /// What was refused for its size of what was committed.
    pub(super) refusals: Consumer<Refusal>,
    /// Since the other thread was woken last.
    pub(super) published: bool,
    /// Bytes in front of the slot given last.
    pub(super) headroom: usize,
    pub(super) shared: Arc<Shared>,
    pub(super) waker: Arc<Waker>,
    /// Dropped last: the memory of chunks.
    pub(super) _regions: Vec<Box<dyn Any + Send>>,
}

impl fmt::Debug for SplitDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SplitDevice")
    }
}

impl SplitDevice {
    pub(crate) fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    pub(crate) fn attach(&mut self, id: PortId, port: BoundPort) {
        self.change(PortChange::Attach(id, port));
    }

    pub(crate) fn detach(&mut self, id: PortId, notice: DetachNotice) {
        // What was committed for it may go before.
        self.flush();
        self.change(PortChange::Detach(id, notice));
    }

    fn change(&self, change: PortChange) {
        self.shared.ports.push(change);
        self.waker.wake();
    }

    pub(crate) fn receive(&mut self, visit: &mut BurstVisitor<'_>) -> usize {
        let mut datagrams = 0;
        let (mut bytes, mut bursts) = (0, 0);
        let (used, lent) = (&mut self.used_batch, &mut self.lent);
        lent.reclaim(|chunk| used.push(chunk));
        self.arrived.take(usize::MAX, |meta, segment_size, mut filled| {
            let len = filled.range.len();
            bytes += len;
            datagrams += len.div_ceil(segment_size);
            let meta = ReceiveMeta { segment_size, ..meta };
            let may_lend = lent.may_lend(&filled.chunk, len);
            let memory = filled.memory(may_lend);
            let flow = visit(Burst { meta, memory });
            match may_lend && filled.chunk.is_lent() {
                true => lent.add(filled.chunk),
                false => used.push(filled.chunk),
            }
            // What is left comes in the next turn: what these cause to be sent goes out first.
            bursts += 1;
            (flow.is_continue() || bursts < BURSTS_PER_TURN_MIN) && bytes < BYTES_PER_TURN
        });
        publish(&mut self.used, used);
        self.shared.lent_bytes.store(lent.bytes(), Ordering::Relaxed);
        self.capabilities.send_segments_max = self.shared.send_segments_max.load(Ordering::Relaxed);
        datagrams
    }

    pub(crate) fn slot(&mut self) -> Option<&mut [u8]> {
        if self.free.is_empty() && !self.refill() {
            self.flush();
            // Announced before the last look: the other end looks after it has given slots back, and a fence between each pair makes one
            // of the two see the other.
            self.shared.wants_slot.store(true, Ordering::Relaxed);
            fence(Ordering::SeqCst);
            if !self.refill() {
                return None;
            }
        }
        self.headroom = self.shared.headroom.load(Ordering::Relaxed);
        let bytes = self.headroom..self.headroom + self.capabilities.slot_bytes;
        self.free.last_mut()?.bytes().get_mut(bytes)
    }

    fn refill(&mut self) -> bool {
        let free = &mut self.free;
        take(&mut self.slots, usize::MAX, |chunk| {
            free.push(chunk);
            true
        }) > 0
    }

    pub(crate) fn commit(&mut self, meta: &TransmitMeta, len: usize) {
        let Some(chunk) = self.free.pop() else { return };
        let range = self.headroom..self.headroom + len;
        let filled = FilledChunk { chunk, range };
        // The same for a whole flow, but for this.
        let addresses = TransmitMeta {
            segment_size: 0,
            ..*meta
        };
        self.outbound.push(addresses, meta.segment_size, filled);
        // So much is there at once for a thread that is awake.
        if len >= SEND_AT_ONCE_BYTES {
            self.publish();
        }
    }

    fn publish(&mut self) {
        self.published |= self.outbound.publish();
    }

    pub(crate) fn flush(&mut self) {
        self.publish();
        // One that sleeps is woken once for the whole turn: it costs both threads several microseconds.
        if std::mem::take(&mut self.published) {
            self.waker.wake();
        }
    }

    pub(crate) fn take_refusal(&mut self) -> Option<Refusal> {
        self.refusals.pop().ok()
    }

    pub(crate) fn prepare_sleep(&mut self) -> bool {
        self.arrived.len() == 0
            && self.refusals.is_empty()
            && (!self.free.is_empty() || self.slots.is_empty())
    }
}

impl Drop for SplitDevice {
    /// The other end learns that it is alone: it may sleep.
    fn drop(&mut self) {
        self.shared.closed.store(true, Ordering::SeqCst);
        self.waker.wake();
    }
}

/// Bytes visited in one turn: about what one call to the kernel gives.
const BYTES_PER_TURN: usize = 256 * 1024;
/// Bursts that a turn takes even where the visitor has enough: as a call of a kernel device brings.
const BURSTS_PER_TURN_MIN: usize = 4;
/// A run of this size is passed on at once.
const SEND_AT_ONCE_BYTES: usize = 16 * 1024;
