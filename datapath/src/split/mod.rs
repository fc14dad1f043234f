//! A device on one thread and its worker on another: max-throughput mode.
//!
//! [`split`] makes two ends of a device. The thread of the device polls the [`DatapathEnd`]; the worker has a [`SplitDevice`], which fulfils
//! the same contract as a device of its own would. Between them are four rings, each with one producer and one consumer, that pass
//! chunks of packet memory and copy nothing:
//!
//! ```text
//!                 received datagrams  ------>
//!                 <------  chunks to receive into
//!   DatapathEnd                                     SplitDevice
//!                 <------  datagrams to be sent
//!                 chunks to write into  ------>
//! ```
//!
//! There are as many chunks as each ring has room for, so that none is ever full. A worker that is behind keeps its chunks: what the device
//! receives meanwhile is dropped and counted, and the kernel's buffers stay empty. A device that is behind keeps its own: the worker
//! finds no slot, and its connections wait. What a turn has to pass on it publishes at once, and wakes the other thread then, if that
//! sleeps.

mod channel;
mod datapath_end;
mod lending;
mod ring;
mod shared;
mod split_device;
#[cfg(all(test, feature = "sim"))]
mod tests;

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use rtrb::RingBuffer;

use self::channel::channel;
pub use self::datapath_end::DatapathEnd;
use self::lending::LentChunks;
use self::shared::Shared;
pub use self::split_device::SplitDevice;
use crate::chunk::SpareChunks;
use crate::contract::DeviceBackend;
use crate::event::Waker;
use crate::local::LocalDevice;
use crate::refusals::REFUSALS_MAX;

/// Splits a device, which must have been opened [for it](crate::config::Threading::split), and registered with the queue that
/// `device_waker` wakes; `worker_waker` wakes the thread of the worker.
pub fn split(
    mut device: LocalDevice,
    device_waker: Arc<Waker>,
    worker_waker: Arc<Waker>,
) -> (DatapathEnd, SplitDevice) {
    let supply = device.supply_chunks();
    let mut spares = SpareChunks::default();
    let (spare_count, slot_count) = (supply.spares.len(), supply.slots.len());
    let (arrived_in, arrived) = channel(spare_count);
    let (used, used_out) = RingBuffer::new(spare_count);
    let (outbound_in, outbound) = channel(slot_count);
    let (slots_in, slots) = RingBuffer::new(slot_count);
    let (refusals_in, refusals) = RingBuffer::new(REFUSALS_MAX);
    let lent = LentChunks::of(&supply.spares, supply.lent_bytes);
    supply.spares.into_iter().for_each(|chunk| spares.add(chunk));
    let shared = Arc::new(Shared {
        headroom: AtomicUsize::new(device.headroom()),
        send_segments_max: AtomicUsize::new(device.capabilities().send_segments_max),
        ..Shared::default()
    });
    let worker = SplitDevice {
        capabilities: device.capabilities().clone(),
        arrived,
        used,
        used_batch: Vec::with_capacity(spare_count),
        lent,
        slots,
        free: supply.slots,
        outbound: outbound_in,
        refusals,
        published: false,
        headroom: 0,
        shared: Arc::clone(&shared),
        waker: device_waker,
        _regions: supply.regions,
    };
    let datapath = DatapathEnd {
        device,
        spares,
        arrived: arrived_in,
        used: used_out,
        outbound,
        refusals: refusals_in,
        slots: slots_in,
        slot_batch: Vec::with_capacity(slot_count),
        detached: Vec::new(),
        dropped: 0,
        shared,
        waker: worker_waker,
    };
    (datapath, worker)
}
