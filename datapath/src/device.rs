//! The device contract: what every datapath backend does for the execution context that polls it.
//!
//! A context's turn is `receive` → (engine and application) → `slot`/`commit` … → `flush`; when nothing is left
//! to do it sleeps on the event queue that the device has registered with. Backends are an enum matched once per
//! call, so that no dynamic dispatch and no generic parameter reaches the layers above.

use std::io;

use ringway_types::{Instant, PortId};

#[cfg(feature = "af_xdp")]
use crate::af_xdp::AfXdpDevice;
use crate::chunk::{Chunk, Filled, Lent};
use crate::contract::{Capabilities, DeviceStats, Visit};
use crate::event::EventQueue;
use crate::io_uring::IoUringDevice;
use crate::meta::TransmitMeta;
use crate::port::BoundPort;
#[cfg(feature = "sim")]
use crate::sim::SimDevice;
use crate::socket::SocketDevice;
use crate::split::SplitDevice;

/// A datapath instance of one partition: receives and sends datagrams.
///
/// Used by one thread at a time. None of the calls but [`Device::attach`] allocates or blocks.
#[derive(Debug)]
pub enum Device {
    /// UDP sockets of the kernel.
    Socket(SocketDevice),
    /// Frames from the queues of a NIC.
    #[cfg(feature = "af_xdp")]
    AfXdp(Box<AfXdpDevice>),
    /// Those sockets through a ring.
    IoUring(Box<IoUringDevice>),
    /// A seeded virtual network in virtual time.
    #[cfg(feature = "sim")]
    Sim(SimDevice),
    /// One of the others, on another thread.
    Split(Box<SplitDevice>),
}

#[cfg_attr(
    not(feature = "sim"),
    allow(
        unreachable_patterns,
        reason = "the other devices take all kinds of endpoint and chunk that are left"
    )
)]
#[cfg_attr(
    not(any(feature = "af_xdp", feature = "sim")),
    allow(unused_variables, reason = "the other devices need no time")
)]
impl Device {
    /// What this device can do.
    pub fn capabilities(&self) -> &Capabilities {
        match self {
            Device::Socket(device) => device.capabilities(),
            Device::IoUring(device) => device.capabilities(),
            #[cfg(feature = "af_xdp")]
            Device::AfXdp(device) => device.capabilities(),
            #[cfg(feature = "sim")]
            Device::Sim(device) => device.capabilities(),
            Device::Split(device) => device.capabilities(),
        }
    }

    /// Tells people something with the capabilities.
    pub(crate) fn note(&mut self, note: String) {
        match self {
            Device::Socket(device) => device.note(note),
            Device::IoUring(device) => device.note(note),
            #[cfg(feature = "af_xdp")]
            Device::AfXdp(_) => {}
            _ => {}
        }
    }

    /// Registers the device with the queue that its context sleeps on. Call before [`Device::attach`].
    pub fn register(&mut self, queue: &EventQueue) -> io::Result<()> {
        match self {
            Device::Socket(device) => device.register(queue),
            Device::IoUring(device) => device.register(queue),
            #[cfg(feature = "af_xdp")]
            Device::AfXdp(device) => device.register(queue),
            _ => Ok(()),
        }
    }

    /// Begins to serve a bound endpoint. `id` names it from now on; the caller chooses it.
    pub fn attach(&mut self, id: PortId, port: BoundPort) -> io::Result<()> {
        match (self, port) {
            (Device::Socket(device), BoundPort::Socket(port)) => device.attach(id, port),
            (Device::IoUring(device), BoundPort::Socket(port)) => device.attach(id, port),
            #[cfg(feature = "af_xdp")]
            (Device::AfXdp(device), BoundPort::Socket(port)) => device.attach(id, port),
            (Device::Split(device), port) => {
                device.attach(id, port);
                Ok(())
            }
            #[cfg(feature = "sim")]
            (Device::Sim(device), BoundPort::Sim(port)) => {
                device.attach(id, port);
                Ok(())
            }
            _ => Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "the endpoint is of another kind of device",
            )),
        }
    }

    /// Gives up an endpoint. What was committed for it and not yet sent is dropped.
    pub fn detach(&mut self, id: PortId) {
        match self {
            Device::Socket(device) => device.detach(id),
            Device::IoUring(device) => device.detach(id),
            #[cfg(feature = "af_xdp")]
            Device::AfXdp(device) => device.detach(id),
            #[cfg(feature = "sim")]
            Device::Sim(device) => device.detach(id),
            Device::Split(device) => device.detach(id),
        }
    }

    /// Visits bursts that have arrived, and gives how many datagrams they held; zero means that nothing was there.
    ///
    /// What is left comes in the next turn: what a turn causes to be sent goes out first, so that the peer works on it meanwhile. A turn is what
    /// one system call (or ring poll) of each endpoint gives. Where datagrams come one by one (without GRO), a call gives few, and a turn of so
    /// few would acknowledge and send as little: there are more calls, up to some 64 datagrams, until the visitor says that it has enough to do.
    pub fn receive(&mut self, now: Instant, visit: &mut Visit<'_>) -> io::Result<usize> {
        match self {
            Device::Socket(device) => device.receive(visit),
            Device::IoUring(device) => device.receive(visit),
            #[cfg(feature = "af_xdp")]
            Device::AfXdp(device) => device.receive(now, visit),
            #[cfg(feature = "sim")]
            Device::Sim(device) => device.receive(now, visit),
            Device::Split(device) => Ok(device.receive(visit)),
        }
    }

    /// Where to write the next datagrams: at least [`Capabilities::slot_bytes_min`] and at most
    /// [`Capabilities::slot_bytes`] long. `None` while the device is blocked; the event queue wakes the context when it no longer is.
    pub fn slot(&mut self) -> Option<&mut [u8]> {
        match self {
            Device::Socket(device) => device.slot(),
            Device::IoUring(device) => device.slot(),
            #[cfg(feature = "af_xdp")]
            Device::AfXdp(device) => device.slot(),
            #[cfg(feature = "sim")]
            Device::Sim(device) => device.slot(),
            Device::Split(device) => device.slot(),
        }
    }

    /// Hands over the first `len` bytes of the slot given last by [`Device::slot`]. The device may send at once
    /// or keep it until `flush`.
    pub fn commit(&mut self, now: Instant, meta: &TransmitMeta, len: usize) {
        match self {
            Device::Socket(device) => device.commit(meta, len),
            Device::IoUring(device) => device.commit(meta, len),
            #[cfg(feature = "af_xdp")]
            Device::AfXdp(device) => device.commit(now, meta, len),
            #[cfg(feature = "sim")]
            Device::Sim(device) => device.commit(now, meta, len),
            Device::Split(device) => device.commit(meta, len),
        }
    }

    /// Sends all that was committed, as far as the kernel takes it. Called once at the end of a turn.
    pub fn flush(&mut self) {
        match self {
            Device::Socket(device) => device.flush(),
            Device::IoUring(device) => device.flush(),
            #[cfg(feature = "af_xdp")]
            Device::AfXdp(device) => device.flush(),
            #[cfg(feature = "sim")]
            Device::Sim(device) => device.flush(),
            Device::Split(device) => device.flush(),
        }
    }

    /// Prepares the device for a worker on another thread, once, at the start: gives the chunks that pass between the two.
    pub(crate) fn lend(&mut self) -> Lent {
        match self {
            Device::Socket(device) => device.lend(),
            Device::IoUring(device) => device.lend(),
            #[cfg(feature = "af_xdp")]
            Device::AfXdp(device) => device.lend(),
            #[cfg(feature = "sim")]
            Device::Sim(device) => device.lend(),
            Device::Split(_) => Lent::default(),
        }
    }

    /// Sends datagrams from a chunk that was lent, as [`Device::commit`] does from a slot. The chunk comes back by [`Device::reclaim`].
    pub(crate) fn commit_chunk(&mut self, now: Instant, meta: &TransmitMeta, filled: Filled) {
        match (self, filled) {
            (
                Device::Socket(device),
                Filled {
                    chunk: Chunk::Heap(bytes),
                    range,
                },
            ) => {
                device.commit_chunk(meta, bytes, range);
            }
            (
                Device::IoUring(device),
                Filled {
                    chunk: Chunk::Heap(bytes),
                    range,
                },
            ) => {
                device.commit_chunk(meta, bytes, range);
            }
            #[cfg(feature = "af_xdp")]
            (Device::AfXdp(device), filled) => device.commit_chunk(now, meta, filled),
            #[cfg(feature = "sim")]
            (Device::Sim(device), filled) => device.commit_chunk(now, meta, filled),
            _ => debug_assert!(false, "a chunk that this device has not lent"),
        }
    }

    /// Gives back chunks whose datagrams went out, or were given up.
    pub(crate) fn reclaim(&mut self, chunks: &mut Vec<Chunk>) {
        match self {
            Device::Socket(device) => device.reclaim(chunks),
            Device::IoUring(device) => device.reclaim(chunks),
            #[cfg(feature = "af_xdp")]
            Device::AfXdp(device) => device.reclaim(chunks),
            #[cfg(feature = "sim")]
            Device::Sim(device) => device.reclaim(chunks),
            Device::Split(_) => {}
        }
    }

    /// Bytes in front of the next datagram that its headers will take, most likely: one that begins there is not moved.
    pub(crate) fn headroom(&self) -> usize {
        match self {
            #[cfg(feature = "af_xdp")]
            Device::AfXdp(device) => device.headroom(),
            _ => 0,
        }
    }

    /// The context is about to sleep on the event queue. False if something waits that the queue will not tell of: it must not sleep.
    /// [`Device::awake`] comes after it in either case.
    pub fn prepare_sleep(&mut self) -> bool {
        match self {
            Device::IoUring(device) => device.prepare_sleep(),
            #[cfg(feature = "af_xdp")]
            Device::AfXdp(device) => device.prepare_sleep(),
            Device::Split(device) => device.prepare_sleep(),
            _ => true,
        }
    }

    /// The context does not sleep any more.
    pub fn awake(&mut self) {
        match self {
            Device::IoUring(device) => device.awake(),
            #[cfg(feature = "af_xdp")]
            Device::AfXdp(device) => device.awake(),
            _ => {}
        }
    }

    /// Counters since the device was made.
    pub fn stats(&self) -> DeviceStats {
        match self {
            Device::Socket(device) => device.stats(),
            Device::IoUring(device) => device.stats(),
            #[cfg(feature = "af_xdp")]
            Device::AfXdp(device) => device.stats(),
            #[cfg(feature = "sim")]
            Device::Sim(device) => device.stats(),
            Device::Split(device) => device.stats(),
        }
    }
}
