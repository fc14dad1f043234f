//! Packets that come before their keys (RFC 9001 section 5.7).

use ringway_types::Ecn;

use super::paths::PathAddress;

/// A packet that came before its keys.
pub(super) struct DeferredPacket {
    pub(super) path: PathAddress,
    pub(super) ecn: Ecn,
    pub(super) packet: Box<[u8]>,
}

/// Packets that are kept until their keys come: the rest of a server's first flight, or the first request of a client.
pub(super) const DEFERRED_PACKETS_MAX: usize = 16;
/// DATAGRAM frames of such packets that are kept: an empty one takes two bytes of a packet, and many more here.
pub(super) const DEFERRED_DATAGRAMS_MAX: usize = 64;
