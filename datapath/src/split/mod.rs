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

mod datapath_end;
mod lane;
mod split_device;
#[cfg(all(test, feature = "sim"))]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize};

use crossbeam_queue::SegQueue;
use ringway_types::PortId;
use rtrb::{Consumer, Producer, RingBuffer};

pub use self::datapath_end::DatapathEnd;
use self::lane::lane;
pub use self::split_device::SplitDevice;
use crate::chunk::Spares;
use crate::contract::DeviceBackend;
use crate::event::Waker;
use crate::local::LocalDevice;
use crate::port::BoundPort;

/// What happens seldom: endpoints come and go.
enum PortChange {
    Attach(PortId, BoundPort),
    Detach(PortId),
}

/// What both ends see.
#[derive(Default)]
struct Shared {
    ports: SegQueue<PortChange>,
    /// The worker found no slot: it wants to be woken when there is one.
    wants_slot: AtomicBool,
    /// Bytes to be left free in front of a datagram.
    headroom: AtomicUsize,
    /// The worker has gone.
    closed: AtomicBool,
}

/// Splits a device, which must have been opened [for it](crate::config::Threading::split), and registered with the queue that
/// `device_waker` wakes; `worker_waker` wakes the thread of the worker.
pub fn split(
    mut device: LocalDevice,
    device_waker: Arc<Waker>,
    worker_waker: Arc<Waker>,
) -> (DatapathEnd, SplitDevice) {
    let lent = device.lend();
    let mut spares = Spares::default();
    let (spare_count, slot_count) = (lent.spares.len(), lent.slots.len());
    let (arrived_in, arrived) = lane(spare_count);
    let (used, used_out) = RingBuffer::new(spare_count);
    let (outbound_in, outbound) = lane(slot_count);
    let (slots_in, slots) = RingBuffer::new(slot_count);
    lent.spares.into_iter().for_each(|chunk| spares.add(chunk));
    let shared = Arc::new(Shared {
        headroom: AtomicUsize::new(device.headroom()),
        ..Shared::default()
    });
    let worker = SplitDevice {
        capabilities: device.capabilities().clone(),
        arrived,
        used,
        used_batch: Vec::with_capacity(spare_count),
        slots,
        free: lent.slots,
        outbound: outbound_in,
        published: false,
        headroom: 0,
        shared: Arc::clone(&shared),
        waker: device_waker,
        _keepers: lent.keepers,
    };
    let datapath = DatapathEnd {
        device,
        spares,
        arrived: arrived_in,
        used: used_out,
        outbound,
        slots: slots_in,
        slot_batch: Vec::with_capacity(slot_count),
        given_up: Vec::new(),
        dropped: 0,
        shared,
        waker: worker_waker,
    };
    (datapath, worker)
}

/// Publishes a batch: with one release store. It must fit.
fn publish<T>(ring: &mut Producer<T>, batch: &mut Vec<T>) {
    if batch.is_empty() {
        return;
    }
    match ring.write_chunk_uninit(batch.len()) {
        Ok(chunk) => {
            chunk.fill_from_iter(batch.drain(..));
        }
        Err(error) => debug_assert!(false, "a ring has room for all chunks there are: {error}"),
    }
}

/// Takes items, `most` at most and for as long as `each` says, and frees their places with one release store; gives how many.
fn take<T>(ring: &mut Consumer<T>, most: usize, mut each: impl FnMut(T) -> bool) -> usize {
    let count = ring.slots().min(most);
    let Ok(chunk) = ring.read_chunk(count) else {
        return 0;
    };
    // Places of items that are not taken out of the iterator stay as they are.
    let mut taken = 0;
    for item in chunk {
        taken += 1;
        if !each(item) {
            break;
        }
    }
    taken
}
