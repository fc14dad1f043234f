//! What travels beside a datagram: addresses, ECN, segment size.

use std::net::{IpAddr, SocketAddr};

use ringway_types::{Ecn, PortId};

/// Where received datagrams came from and how they are packed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReceiveMeta {
    /// The endpoint of the device that received them.
    pub port: PortId,
    /// Source address and port. IPv4-mapped IPv6 addresses are given as IPv4.
    pub remote: SocketAddr,
    /// Destination address and port, as the peer wrote them. The address is the bound one where the
    /// device cannot tell (it may then be unspecified).
    pub local: SocketAddr,
    /// ECN codepoint of the datagrams (equal for all datagrams of a burst).
    pub ecn: Ecn,
    /// Size of each datagram in the burst in bytes, except the last, which may be shorter.
    pub segment_size: usize,
}

/// Where datagrams in a transmit slot go and how they are packed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TransmitMeta {
    /// The endpoint of the device to send from.
    pub port: PortId,
    /// Destination address and port.
    pub remote: SocketAddr,
    /// Source address to send from; the routing table's choice if `None`.
    pub local_ip: Option<IpAddr>,
    /// ECN codepoint to mark the datagrams with.
    pub ecn: Ecn,
    /// Size of each datagram in the slot in bytes, except the last, which may be shorter.
    pub segment_size: usize,
    /// A number of the caller's for who sends, to be told if they are [refused for their size](crate::refusals::Refusal).
    pub sender: u32,
    /// Probe timeouts of the sender since it has heard anything of the peer. The way that packets take may be a dead one then: a device that has
    /// learnt it lets the kernel find it anew.
    pub probe_timeouts: u8,
}
