//! A device of this thread: one of the backends.

use std::io;
use std::sync::Weak;

use ringway_types::{Instant, PortId};

#[cfg(feature = "af_xdp")]
use crate::af_xdp::AfXdpDevice;
use crate::capture::Taps;
use crate::chunk::{Chunk, ChunkSupply, FilledChunk};
use crate::contract::{BurstVisitor, Capabilities, DetachNotice, DeviceBackend, DeviceStats};
use crate::event::EventQueue;
use crate::io_uring::IoUringDevice;
use crate::meta::TransmitMeta;
use crate::port::BoundPort;
use crate::refusals::Refusal;
#[cfg(feature = "sim")]
use crate::sim::SimDevice;
use crate::socket::SocketDevice;
use crate::source_rules::SourceFilter;

/// A device that is used by the thread that has it, be that the thread of its worker or one of its own.
#[allow(
    clippy::large_enum_variant,
    reason = "it is made once, and boxed with the context that has it"
)]
#[derive(Debug)]
pub enum LocalDevice {
    /// UDP sockets of the kernel.
    Socket(SocketDevice),
    /// Those sockets through a ring.
    IoUring(IoUringDevice),
    /// Frames from the queues of a NIC.
    #[cfg(feature = "af_xdp")]
    AfXdp(AfXdpDevice),
    /// A seeded virtual network in virtual time.
    #[cfg(feature = "sim")]
    Sim(SimDevice),
}

/// Does the same with the backend, of whichever kind it is.
macro_rules! dispatch {
    ($device:expr, $backend:ident => $call:expr) => {
        match $device {
            LocalDevice::Socket($backend) => $call,
            LocalDevice::IoUring($backend) => $call,
            #[cfg(feature = "af_xdp")]
            LocalDevice::AfXdp($backend) => $call,
            #[cfg(feature = "sim")]
            LocalDevice::Sim($backend) => $call,
        }
    };
}

impl LocalDevice {
    /// What this device can do.
    pub fn capabilities(&self) -> &Capabilities {
        DeviceBackend::capabilities(self)
    }

    /// Registers the device with the queue that its context sleeps on. Call before it serves any endpoint, and before it is
    /// [split](crate::split::split).
    ///
    /// # Errors
    ///
    /// The system does not let a descriptor of the device be watched: a limit of descriptors or of watches, which the error names. The device cannot
    /// be slept on.
    pub fn register(&mut self, queue: &EventQueue) -> io::Result<()> {
        DeviceBackend::register(self, queue)
    }

    /// What applies rules for sources to datagrams of this device and its like; `None` if nothing does.
    pub fn source_filter(&self) -> Option<Weak<dyn SourceFilter>> {
        DeviceBackend::source_filter(self)
    }
}

impl DeviceBackend for LocalDevice {
    type Port = BoundPort;

    fn capabilities(&self) -> &Capabilities {
        dispatch!(self, backend => backend.capabilities())
    }

    fn add_note(&mut self, note: String) {
        dispatch!(self, backend => backend.add_note(note))
    }

    fn register(&mut self, queue: &EventQueue) -> io::Result<()> {
        dispatch!(self, backend => backend.register(queue))
    }

    fn attach(&mut self, id: PortId, port: BoundPort) -> io::Result<()> {
        match self {
            LocalDevice::Socket(device) => device.attach(id, port.into_socket()?),
            LocalDevice::IoUring(device) => device.attach(id, port.into_socket()?),
            #[cfg(feature = "af_xdp")]
            LocalDevice::AfXdp(device) => device.attach(id, port.into_socket()?),
            #[cfg(feature = "sim")]
            LocalDevice::Sim(device) => device.attach(id, port.into_sim()?),
        }
    }

    fn detach(&mut self, id: PortId, notice: DetachNotice) {
        dispatch!(self, backend => backend.detach(id, notice))
    }

    #[inline]
    fn receive(&mut self, now: Instant, visit: &mut BurstVisitor<'_>) -> io::Result<usize> {
        dispatch!(self, backend => backend.receive(now, visit))
    }

    #[inline]
    fn slot(&mut self) -> Option<&mut [u8]> {
        dispatch!(self, backend => backend.slot())
    }

    #[inline]
    fn commit(&mut self, now: Instant, meta: &TransmitMeta, len: usize) {
        dispatch!(self, backend => backend.commit(now, meta, len))
    }

    #[inline]
    fn flush(&mut self) {
        dispatch!(self, backend => backend.flush())
    }

    fn take_refusal(&mut self) -> Option<Refusal> {
        dispatch!(self, backend => backend.take_refusal())
    }

    fn supply_chunks(&mut self) -> ChunkSupply {
        dispatch!(self, backend => backend.supply_chunks())
    }

    #[inline]
    fn commit_chunk(&mut self, now: Instant, meta: &TransmitMeta, filled: FilledChunk) {
        dispatch!(self, backend => backend.commit_chunk(now, meta, filled))
    }

    #[inline]
    fn reclaim(&mut self, chunks: &mut Vec<Chunk>) {
        dispatch!(self, backend => backend.reclaim(chunks))
    }

    #[inline]
    fn headroom(&self) -> usize {
        dispatch!(self, backend => backend.headroom())
    }

    fn set_taps(&mut self, taps: Taps) {
        dispatch!(self, backend => backend.set_taps(taps))
    }

    fn source_filter(&self) -> Option<Weak<dyn SourceFilter>> {
        dispatch!(self, backend => backend.source_filter())
    }

    #[inline]
    fn prepare_sleep(&mut self) -> bool {
        dispatch!(self, backend => backend.prepare_sleep())
    }

    #[inline]
    fn end_sleep(&mut self) {
        dispatch!(self, backend => backend.end_sleep())
    }

    fn stats(&self) -> DeviceStats {
        dispatch!(self, backend => backend.stats())
    }
}
