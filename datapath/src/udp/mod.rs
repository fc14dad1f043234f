//! UDP sockets of the kernel, as both devices that serve them use them: bound alone and in groups, steered by connection ID, with GSO, GRO,
//! ECN and packet info. The devices differ only in how messages reach the kernel.

mod adopt;
mod bind;
pub(crate) mod message;
mod steering;
mod sys;
#[cfg(all(test, not(loom)))]
mod tests;

use std::io;
use std::net::SocketAddr;
use std::ops::{ControlFlow, Range};

use ringway_types::PortId;

pub use self::bind::SocketPort;
pub(crate) use self::bind::probe;
use self::message::IncomingMessage;
use crate::chunk::ReceivedMemory;
use crate::contract::{Burst, BurstVisitor, Capabilities, DeviceStats};
use crate::lent::PacketBuffer;
use crate::meta::{ReceiveMeta, TransmitMeta};

/// A run of datagrams in the arena, or in a chunk of another thread.
#[derive(Debug)]
pub(crate) struct StagedRun {
    pub(crate) meta: TransmitMeta,
    pub(crate) range: Range<usize>,
    pub(crate) chunk: Option<PacketBuffer>,
    /// It is a datagram of a run that the kernel has refused for what may be GSO's fault: that it is, is known when this one goes out.
    pub(crate) refused_run: Option<i32>,
}

impl StagedRun {
    pub(crate) fn bytes<'a>(&'a self, arena: &'a [u8]) -> &'a [u8] {
        &self.chunk.as_deref().unwrap_or(arena)[self.range.clone()]
    }

    pub(crate) fn datagrams(&self) -> u64 {
        self.range.len().div_ceil(self.meta.segment_size) as u64
    }

    /// More than one datagram.
    pub(crate) fn is_run(&self) -> bool {
        self.meta.segment_size < self.range.len()
    }

    /// What the kernel is told to cut it into.
    pub(crate) fn segment(&self) -> Option<u16> {
        self.is_run().then_some(self.meta.segment_size as u16)
    }
}

/// What devices on kernel sockets can do.
pub(crate) fn capabilities(
    backend: &'static str,
    burst_max: usize,
    gso: bool,
    gro: bool,
    notes: Vec<String>,
) -> Capabilities {
    Capabilities {
        backend,
        send_segments_max: if gso { SEGMENTS_MAX } else { 1 },
        receive_segments_max: if gro { SEGMENTS_MAX } else { 1 },
        slot_bytes: MESSAGE_BYTES,
        slot_bytes_min: SLOT_BYTES_MIN,
        datagram_bytes_max: DATAGRAM_BYTES_MAX,
        headroom_bytes: 0,
        burst_max,
        ecn: true,
        packet_info: true,
        checksum_offload: true,
        zero_copy: false,
        queues: Vec::new(),
        busy_poll: false,
        notes,
    }
}

/// The errno of a run that was refused for what may be GSO's fault: the interface of its route cannot do it after all. Other causes befall its
/// datagrams by themselves as well, such as a local address that is gone.
pub(crate) fn may_be_gso(error: &io::Error) -> Option<i32> {
    error
        .raw_os_error()
        .filter(|errno| matches!(*errno, libc::EIO | libc::EINVAL))
}

/// A run was refused, and a datagram of it was not: from now on one datagram each.
pub(crate) fn disable_gso(capabilities: &mut Capabilities, errno: i32) {
    if capabilities.send_segments_max > 1 {
        let error = io::Error::from_raw_os_error(errno);
        tracing::warn!(%error, "GSO fails on a route and is turned off for this device");
        capabilities.send_segments_max = 1;
        capabilities.notes.push(format!("GSO failed on a route: {error}"));
    }
}

/// Counts a message and shows it to the visitor; gives how many datagrams it held, and what the visitor said.
pub(crate) fn deliver(
    stats: &mut DeviceStats,
    port: PortId,
    mut local: SocketAddr,
    incoming: &IncomingMessage,
    memory: ReceivedMemory<'_>,
    visit: &mut BurstVisitor<'_>,
) -> (usize, ControlFlow<()>) {
    let (Some(remote), false) = (incoming.remote, incoming.truncated) else {
        stats.receive_errors += 1;
        return (0, ControlFlow::Continue(()));
    };
    let len = incoming.len;
    if len == 0 {
        return (0, ControlFlow::Continue(()));
    }
    let segment_size = incoming.segment.unwrap_or(len);
    let run = len.div_ceil(segment_size);
    stats.received_datagrams += run as u64;
    stats.received_bytes += len as u64;
    if let Some(ip) = incoming.local {
        local.set_ip(ip);
    }
    let meta = ReceiveMeta {
        port,
        remote,
        local,
        ecn: incoming.ecn,
        segment_size,
    };
    (run, visit(Burst { meta, memory }))
}

/// Errors that a socket reports about datagrams sent earlier.
pub(crate) fn is_about_peer(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(
            libc::ECONNREFUSED
                | libc::EHOSTUNREACH
                | libc::ENETUNREACH
                | libc::EHOSTDOWN
                | libc::ENETDOWN
                | libc::EMSGSIZE
                | libc::EPROTO
                | libc::ENOPROTOOPT
        )
    )
}

/// The most datagrams in one message: the kernel's UDP_MAX_SEGMENTS was 64 up to Linux 6.9.
pub(crate) const SEGMENTS_MAX: usize = 64;
/// Bytes of one message: the most that the kernel gives or takes.
pub(crate) const MESSAGE_BYTES: usize = 65_507;
/// UDP payload of one datagram at most.
const DATAGRAM_BYTES_MAX: usize = 65_507;
/// Datagrams of one port in a turn, about. What is left comes in the next: what these cause to be sent goes out first, so that the peer
/// works on it meanwhile. Runs (GRO) are that many in a call; where each datagram comes by itself, it takes several calls, and
/// fewer would bring about as many turns, acknowledgements and small packets.
pub(crate) const DATAGRAMS_PER_TURN: usize = 64;
/// The least that a slot has: a run worth its system call.
pub(crate) const SLOT_BYTES_MIN: usize = MESSAGE_BYTES;
/// A run of this size is sent at once.
pub(crate) const SEND_AT_ONCE_BYTES: usize = 16 * 1024;
