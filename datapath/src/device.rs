//! The device contract: what every datapath backend does for the execution context that polls it.
//!
//! A context's turn is `receive` → (engine and application) → `slot`/`commit` … → `flush`; when nothing is left
//! to do it sleeps on the event queue that the device has registered with. Backends are an enum matched once per
//! call, so that no dynamic dispatch and no generic parameter reaches the layers above.

use std::io;
use std::ops::ControlFlow;

use ringway_types::{Instant, PortId};

#[cfg(feature = "af_xdp")]
use crate::af_xdp::AfXdpDevice;
use crate::chunk::{Chunk, Filled, Lent, Memory};
use crate::event::EventQueue;
use crate::io_uring::IoUringDevice;
use crate::meta::{ReceiveMeta, TransmitMeta};
use crate::port::BoundPort;
#[cfg(feature = "sim")]
use crate::sim::SimDevice;
use crate::socket::SocketDevice;
use crate::split::SplitDevice;

/// What a device can do. The engine plans with it; every benchmark prints it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Capabilities {
    /// Name of the backend: `af_xdp`, `io_uring`, `socket`, `sim`.
    pub backend: &'static str,
    /// The most datagrams one transmit slot may carry (GSO segments); 1 without segmentation offload.
    pub send_segments_max: usize,
    /// The most datagrams one received burst may carry (GRO); 1 without.
    pub receive_segments_max: usize,
    /// Bytes in a full transmit slot: the most that one [`Device::commit`] can send.
    pub slot_bytes: usize,
    /// The largest UDP payload the device can send in one datagram, whatever the path allows.
    pub datagram_bytes_max: usize,
    /// Bytes in the smallest transmit slot.
    pub slot_bytes_min: usize,
    /// Bytes in front of a datagram that the device reserves in its packet memory.
    pub headroom_bytes: usize,
    /// Transmit slots that can be committed before they are sent.
    pub burst_max: usize,
    /// ECN codepoints are read and written.
    pub ecn: bool,
    /// The destination address of received datagrams is known, and the source of sent ones can be chosen.
    pub packet_info: bool,
    /// Checksums are computed by hardware or kernel.
    pub checksum_offload: bool,
    /// Packet memory is shared with the NIC.
    pub zero_copy: bool,
    /// The device can busy-poll the NIC.
    pub busy_poll: bool,
    /// Why a capability that one might expect is missing: sentences for people.
    pub notes: Vec<String>,
}

/// A run of datagrams with equal addresses and ECN, packed back to back, that arrived in one go.
#[derive(Debug)]
pub struct Burst<'a> {
    /// Addresses, ECN and the size of each datagram.
    pub meta: ReceiveMeta,
    pub(crate) memory: Memory<'a>,
}

impl<'a> Burst<'a> {
    /// The datagrams, in memory of the device. The visitor may change them (packets are opened in place).
    pub fn into_data(self) -> &'a mut [u8] {
        self.memory.into_bytes()
    }
}

/// Counters of a device since it was made.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct DeviceStats {
    /// Datagrams received, after GRO runs are taken apart.
    pub received_datagrams: u64,
    /// UDP payload bytes received.
    pub received_bytes: u64,
    /// Receive system calls (or ring polls) that returned at least one datagram.
    pub receive_calls: u64,
    /// Datagrams sent, after GSO runs are taken apart.
    pub sent_datagrams: u64,
    /// UDP payload bytes sent.
    pub sent_bytes: u64,
    /// Send system calls (or ring kicks).
    pub send_calls: u64,
    /// Of the datagrams received, those that came past the kernel's network stack (AF_XDP).
    pub bypass_received_datagrams: u64,
    /// Of the datagrams sent, those that went past it.
    pub bypass_sent_datagrams: u64,
    /// Of AF_XDP, as of about the last second.
    pub xdp: XdpStats,
    /// Times that the kernel took no more and slots had to wait.
    pub send_blocked: u64,
    /// Datagrams dropped between the device and a worker on another thread, as that was behind.
    pub worker_behind_drops: u64,
    /// Datagrams given up: the kernel refused them with an error that a retry does not mend.
    pub send_errors: u64,
    /// Datagrams dropped because they were truncated, or came without the information needed to place them.
    pub receive_errors: u64,
}

/// What an AF_XDP device knows of its rings and of the XDP program.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct XdpStats {
    /// Frames dropped because the fill ring was empty: nothing to receive into.
    pub no_frame_drops: u64,
    /// Frames dropped because the receive ring was full.
    pub ring_full_drops: u64,
    /// Frames dropped otherwise: too long for a chunk.
    pub other_drops: u64,
    /// Descriptors that the kernel refused.
    pub invalid_descriptors: u64,
    /// Frames that the kernel may receive into now, of all queues.
    pub fill_level: u64,
    /// Frames that the kernel has not sent, or not given back, now.
    pub transmit_level: u64,
    /// Packets that the program gave to us. All counts of the program are of the interface: the first partition tells them.
    pub redirected: u64,
    /// Packets left to the kernel: not IP.
    pub pass_not_ip: u64,
    /// Packets left to the kernel: not UDP.
    pub pass_not_udp: u64,
    /// Packets left to the kernel: fragments.
    pub pass_fragment: u64,
    /// Packets left to the kernel: cut off, or with lengths that contradict each other.
    pub pass_malformed: u64,
    /// Packets left to the kernel: to other addresses or ports.
    pub pass_not_ours: u64,
    /// Packets left to the kernel: on queues that are not served.
    pub pass_no_socket: u64,
}

/// Takes a burst in. [`ControlFlow::Break`]: it has enough to do for this turn, and needs no more than has been received already: what a call
/// brings, which is a few bursts.
pub type Visit<'a> = dyn FnMut(Burst<'_>) -> ControlFlow<()> + 'a;

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
