//! The device contract: what every backend does for the execution context that polls it, what it hands up, and what it counts.
//!
//! A context's turn is `receive` → (engine and application) → `slot`/`commit` … → `flush`; when nothing is left to do it sleeps on the event
//! queue that the device has registered with.

use std::any::Any;
use std::io;
use std::ops::ControlFlow;
use std::sync::Weak;

use ringway_types::{Instant, PortId};

use crate::capture::tap::Taps;
use crate::chunk::{Chunk, ChunkSupply, FilledChunk, ReceivedMemory};
use crate::event::EventQueue;
use crate::lent::Lender;
use crate::meta::{ReceiveMeta, TransmitMeta};
use crate::refusals::Refusal;
use crate::source_rules::SourceFilter;

/// What a device can do. The engine plans with it; every benchmark prints it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Capabilities {
    /// Name of the backend: `af_xdp`, `io_uring`, `socket`, `sim`.
    pub backend: &'static str,
    /// The most datagrams one transmit slot may carry (GSO segments); 1 without segmentation offload.
    pub send_segments_max: usize,
    /// The most datagrams one received burst may carry (GRO); 1 without.
    pub receive_segments_max: usize,
    /// Bytes in a full transmit slot: the most that one [`Device::commit`](crate::device::Device::commit) can send.
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
    /// Packet memory is shared with the NIC: that of each queue that is served.
    pub zero_copy: bool,
    /// How each receive queue is served (AF_XDP).
    pub queues: Vec<QueueCapabilities>,
    /// The device can busy-poll the NIC.
    pub busy_poll: bool,
    /// Why a capability that one might expect is missing: sentences for people.
    pub notes: Vec<String>,
}

/// How a receive queue of a NIC is served.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct QueueCapabilities {
    /// As AF_XDP counts.
    pub queue: u32,
    /// The XDP program runs in the driver.
    pub native: bool,
    /// The NIC reads and writes packet memory itself; the kernel copies otherwise.
    pub zero_copy: bool,
    /// Bytes of the chunks that packets are received into.
    pub chunk_bytes: u32,
    /// Why the NIC does not read and write packet memory itself, where it would have been the better way.
    pub copy_reason: Option<String>,
}

/// A run of datagrams with equal addresses and ECN, packed back to back, that arrived in one go.
#[derive(Debug)]
pub struct Burst<'a> {
    /// Addresses, ECN and the size of each datagram.
    pub meta: ReceiveMeta,
    pub(crate) memory: ReceivedMemory<'a>,
}

impl<'a> Burst<'a> {
    /// The datagrams, in memory of the device. The visitor may change them (packets are opened in place).
    pub fn into_data(self) -> &'a mut [u8] {
        self.memory.visit().0
    }

    /// The same, with what the visitor needs to keep parts of them beyond its visit.
    pub fn into_lendable(self) -> (&'a mut [u8], Lender<'a>) {
        self.memory.visit()
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
    /// Datagrams dropped between the device and a worker on another thread, because the worker was behind.
    pub worker_behind_drops: u64,
    /// Datagrams given up: the kernel refused them with an error that a retry does not mend.
    pub send_errors: u64,
    /// Of those, the datagrams that were larger than the link carries that they would have gone out by (`EMSGSIZE`).
    pub send_too_big: u64,
    /// Datagrams dropped because they were truncated, or came without the information needed to place them.
    pub receive_errors: u64,
    /// Bytes of packet memory that the application holds on to, now: whole buffers and chunks, of which it may hold a part.
    pub lent_bytes: u64,
}

impl DeviceStats {
    /// So many datagrams were given up for their size.
    pub(crate) fn count_too_big(&mut self, datagrams: u64) {
        self.send_errors += datagrams;
        self.send_too_big += datagrams;
    }
}

/// What an AF_XDP device knows of its rings and of the XDP program.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct XdpStats {
    /// Frames dropped because the fill ring was empty: nothing to receive into.
    pub no_frame_drops: u64,
    /// Frames dropped because the receive ring was full.
    pub ring_full_drops: u64,
    /// Frames dropped otherwise: most often received and not taken yet when their interface went away.
    pub other_drops: u64,
    /// Packets dropped that came in more chunks than can be joined: lower the interface's MTU.
    pub too_long_drops: u64,
    /// Descriptors that the kernel refused.
    pub invalid_descriptors: u64,
    /// Descriptors of the kernel that were refused, as they named no chunk that the kernel had: what it says to have received into it is dropped.
    pub refused_descriptors: u64,
    /// Frames that the driver or the link refused when the kernel was to send them, which are lost: longer than the MTU is by now, there was no room
    /// in the driver's ring, or the interface went away.
    pub refused_sends: u64,
    /// Times that the kernel sent nothing of a transmit ring for a second, so that datagrams went by its sockets.
    pub transmit_stuck: u64,
    /// Frames that the kernel may receive into now, of all queues.
    pub fill_level: u64,
    /// Frames that the kernel has not sent, or not given back, now.
    pub transmit_level: u64,
    /// Queues whose packets come by the kernel's sockets now, as their interface has gone, or has returned and is not served again.
    pub unserved_queues: u64,
    /// Packets that the program gave to us. All counts of the program are of the interface, and of no partition more than of
    /// another: each has what it was the first to see, and all have together what there is.
    pub redirected: u64,
    /// Packets left to the kernel: not IP.
    pub pass_not_ip: u64,
    /// Packets left to the kernel: not UDP.
    pub pass_not_udp: u64,
    /// Packets left to the kernel: fragments.
    pub pass_fragment: u64,
    /// Packets left to the kernel: with lengths that contradict each other, or with a wrong checksum of the IPv4 header.
    pub pass_malformed: u64,
    /// Packets left to the kernel: cut off, as by a NIC that puts the rest of what does not fit a chunk into another one. Lower the interface's MTU,
    /// or let the kernel copy ([`CopyMode::Copy`](crate::config::CopyMode::Copy)).
    pub pass_cut_off: u64,
    /// Packets left to the kernel: to other addresses or ports.
    pub pass_not_ours: u64,
    /// Packets left to the kernel: on queues that are not served.
    pub pass_no_socket: u64,
    /// Packets left to the kernel: in frames to groups, or to other hosts.
    pub pass_other_host: u64,
    /// Packets left to the kernel: of VLANs that this host does not have on the interface.
    pub pass_other_vlan: u64,
    /// Packets left to the kernel: with IPv4 options or IPv6 extension headers.
    pub pass_options: u64,
    /// Packets left to the kernel, which drops most of them: from addresses or ports that nobody may answer to.
    pub pass_source: u64,
    /// Packets left to the kernel: by a rule for where they come from. What each rule was applied to,
    /// [`SourceFilter`] tells.
    pub pass_rule: u64,
    /// Packets left to the kernel: longer than the interface's MTU ever was, as are several datagrams that the kernel joined below it, or that a
    /// peer's kernel left to ours to cut (GRO, GSO); or longer than a socket's chunks, as the MTU has grown since the start.
    pub pass_too_long: u64,
    /// Packets dropped: by a rule for where they come from.
    pub drop_rule: u64,
}

/// Called with each burst that has arrived. [`ControlFlow::Break`] means that it has enough to do for this turn: it gets only what the current
/// call has received already, which is a few bursts.
pub type BurstVisitor<'a> = dyn FnMut(Burst<'_>) -> ControlFlow<()> + 'a;

/// Goes with an endpoint that a device is to give up, and is dropped when the device has closed it, on whichever thread and in whichever turn that
/// is: its `Drop` may tell whoever waits for the port to be free. `Box::new(())`: nobody does.
pub type DetachNotice = Box<dyn Any + Send>;

/// What a device of one kind does. Calls that are not explained here are those of [`Device`](crate::device::Device).
///
/// Implemented for the backends and for the enum of them, never called through a trait object: an enum is matched once per call, so that no
/// dynamic dispatch and no generic parameter reaches the layers above.
pub(crate) trait DeviceBackend {
    /// The bound endpoints that it serves.
    type Port;

    fn capabilities(&self) -> &Capabilities;

    /// Adds to [`Capabilities::notes`].
    fn add_note(&mut self, note: String);

    /// Registers the device with the queue that its context sleeps on. Called before [`DeviceBackend::attach`].
    fn register(&mut self, queue: &EventQueue) -> io::Result<()>;

    fn attach(&mut self, id: PortId, port: Self::Port) -> io::Result<()>;

    /// Gives up an endpoint; the notice is dropped when it is closed, which may be in a later turn.
    fn detach(&mut self, id: PortId, notice: DetachNotice);

    fn receive(&mut self, now: Instant, visit: &mut BurstVisitor<'_>) -> io::Result<usize>;

    fn slot(&mut self) -> Option<&mut [u8]>;

    fn commit(&mut self, now: Instant, meta: &TransmitMeta, len: usize);

    fn flush(&mut self);

    fn take_refusal(&mut self) -> Option<Refusal>;

    /// Prepares the device for a worker on another thread, once, at the start: gives the chunks that pass between the two.
    fn supply_chunks(&mut self) -> ChunkSupply;

    /// Sends datagrams from a chunk that it has supplied, as [`DeviceBackend::commit`] does from a slot. The chunk comes back by
    /// [`DeviceBackend::reclaim`].
    fn commit_chunk(&mut self, now: Instant, meta: &TransmitMeta, filled: FilledChunk);

    /// Gives back chunks whose datagrams went out, or were given up.
    fn reclaim(&mut self, chunks: &mut Vec<Chunk>);

    /// Bytes in front of the next datagram that its headers will take, most likely: one that begins there is not moved.
    fn headroom(&self) -> usize {
        0
    }

    /// Shows what it receives and sends to these from now on, in the place of others.
    fn set_taps(&mut self, taps: Taps);

    /// What applies rules for sources, for as long as there are devices of it.
    fn source_filter(&self) -> Option<Weak<dyn SourceFilter>> {
        None
    }

    fn prepare_sleep(&mut self) -> bool {
        true
    }

    fn end_sleep(&mut self) {}

    fn stats(&self) -> DeviceStats;
}
