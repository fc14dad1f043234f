//! The end with the device.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};
use std::{fmt, io};

use ringway_types::{Instant, PortId};
use rtrb::{Consumer, Producer};

use super::channel::{Receiver, Sender};
use super::ring::{publish, take};
use super::shared::{DeviceChange, Shared};
use crate::chunk::{Chunk, SpareChunks};
use crate::contract::{Burst, Capabilities, DetachNotice, DeviceBackend, DeviceStats};
use crate::event::Waker;
use crate::local::LocalDevice;
use crate::meta::{ReceiveMeta, TransmitMeta};
use crate::refusals::Refusal;

/// A device whose worker is on another thread. Used by one thread at a time.
pub struct DatapathEnd {
    pub(super) device: LocalDevice,
    /// Given to the device for chunks that hold received datagrams.
    pub(super) spares: SpareChunks,
    pub(super) arrived: Sender<ReceiveMeta>,
    pub(super) used: Consumer<Chunk>,
    pub(super) outbound: Receiver<TransmitMeta>,
    pub(super) refusals: Producer<Refusal>,
    pub(super) slots: Producer<Chunk>,
    pub(super) slot_batch: Vec<Chunk>,
    /// Ports that the worker needs no more.
    pub(super) detached: Vec<(PortId, DetachNotice)>,
    /// Datagrams dropped as there was no spare chunk.
    pub(super) dropped: u64,
    pub(super) shared: Arc<Shared>,
    pub(super) waker: Arc<Waker>,
}

impl fmt::Debug for DatapathEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DatapathEnd")
            .field("device", &self.device)
            .finish_non_exhaustive()
    }
}

impl DatapathEnd {
    /// One turn: passes on what has arrived, and sends what the worker has filled. True if there was something to do. Never waits.
    ///
    /// # Errors
    ///
    /// As those of [`Device::receive`](crate::device::Device::receive). What came before is passed on, and what the worker has filled is sent all the
    /// same: go on with the next turn.
    pub fn poll(&mut self, now: Instant) -> io::Result<bool> {
        let mut busy = false;
        let spares = &mut self.spares;
        take(&mut self.used, usize::MAX, |chunk| {
            spares.add(chunk);
            true
        });
        let received = self.receive(now);
        // What came before an error is passed on all the same.
        if self.arrived.publish() {
            self.waker.wake();
            busy = true;
        }
        busy |= self.transmit(now);
        received.map(|count| busy || count > 0)
    }

    /// Sends what the worker has filled, and gives the chunks of what went out back to it.
    fn transmit(&mut self, now: Instant) -> bool {
        let mut busy = false;
        loop {
            // In this order: what is to be sent from a port, or was before it was given up, is there after, or before, that is known.
            let count = self.outbound.len();
            let changed = self.make_changes();
            if count == 0 && !changed {
                break;
            }
            busy = true;
            let device = &mut self.device;
            self.outbound.take(count, |meta, segment_size, filled| {
                let meta = TransmitMeta { segment_size, ..meta };
                device.commit_chunk(now, &meta, filled);
                true
            });
        }
        for (id, notice) in self.detached.drain(..) {
            self.device.detach(id, notice);
        }
        self.device.flush();
        let segments = self.device.capabilities().send_segments_max;
        self.shared.send_segments_max.store(segments, Ordering::Relaxed);
        let mut refused = false;
        while let Some(refusal) = self.device.take_refusal() {
            // Where there is no room, the sender finds out by its timers.
            refused |= self.refusals.push(refusal).is_ok();
        }
        if refused {
            self.waker.wake();
        }
        self.device.reclaim(&mut self.slot_batch);
        if !self.slot_batch.is_empty() {
            self.shared
                .headroom
                .store(self.device.headroom(), Ordering::Relaxed);
            publish(&mut self.slots, &mut self.slot_batch);
            fence(Ordering::SeqCst);
            if self.shared.wants_slot.swap(false, Ordering::Relaxed) {
                self.waker.wake();
            }
        }
        busy
    }

    fn receive(&mut self, now: Instant) -> io::Result<usize> {
        let DatapathEnd {
            device,
            spares,
            arrived,
            dropped,
            ..
        } = self;
        device.receive(now, &mut |Burst { meta, mut memory }| {
            let datagrams = memory.bytes().len().div_ceil(meta.segment_size);
            match spares.exchange(memory) {
                Some(filled) => {
                    // The same for a whole flow, but for this.
                    let addresses = ReceiveMeta {
                        segment_size: 0,
                        ..meta
                    };
                    arrived.push(addresses, meta.segment_size, filled);
                }
                None => *dropped += datagrams as u64,
            }
            ControlFlow::Continue(())
        })
    }

    /// Takes new ports and captures in, and notes ports that are given up.
    fn make_changes(&mut self) -> bool {
        let mut changed = false;
        while let Some(change) = self.shared.changes.pop() {
            changed = true;
            match change {
                DeviceChange::Attach(id, port) => {
                    if let Err(error) = self.device.attach(id, port) {
                        tracing::error!(%error, ?id, "the device cannot take the port: nothing arrives on it");
                    }
                }
                DeviceChange::Detach(id, notice) => self.detached.push((id, notice)),
                DeviceChange::SetTaps(taps) => self.device.set_taps(taps),
            }
        }
        changed
    }

    /// As [`Device::prepare_sleep`](crate::device::Device::prepare_sleep); looks at what the worker may have passed on meanwhile.
    pub fn prepare_sleep(&mut self) -> bool {
        self.device.prepare_sleep()
            && self.outbound.len() == 0
            && self.shared.changes.is_empty()
            && !self.is_abandoned()
    }

    /// As [`Device::end_sleep`](crate::device::Device::end_sleep).
    pub fn end_sleep(&mut self) {
        self.device.end_sleep();
    }

    /// The worker has gone, and what it has sent before is sent.
    pub fn is_abandoned(&self) -> bool {
        self.shared.closed.load(Ordering::SeqCst) && self.outbound.len() == 0
    }

    /// What the device can do.
    pub fn capabilities(&self) -> &Capabilities {
        self.device.capabilities()
    }

    /// Counters of the device, with what was dropped between it and the worker.
    pub fn stats(&self) -> DeviceStats {
        DeviceStats {
            worker_behind_drops: self.dropped,
            lent_bytes: self.shared.lent_bytes.load(Ordering::Relaxed) as u64,
            ..self.device.stats()
        }
    }
}
