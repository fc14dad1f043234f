//! Headers in front of what is sent: Ethernet with VLAN tags, IPv4 or IPv6, UDP.

use std::net::{IpAddr, SocketAddr};

/// The Ethernet header of frames to a neighbour: addresses, VLAN tags, protocol.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct LinkHeader {
    pub(crate) bytes: [u8; LINK_BYTES_MAX],
    pub(crate) len: usize,
}

/// Two addresses, two VLAN tags, protocol.
pub(crate) const LINK_BYTES_MAX: usize = 22;
pub(crate) const IPV4_BYTES: usize = 20;
pub(crate) const IPV6_BYTES: usize = 40;
pub(crate) const UDP_BYTES: usize = 8;
/// The most bytes of headers that are written before a payload.
pub(crate) const HEADERS_MAX: usize = LINK_BYTES_MAX + IPV6_BYTES + UDP_BYTES;

pub(crate) const PROTOCOL_UDP: u8 = 17;
const HOP_LIMIT: u8 = 64;
const DO_NOT_FRAGMENT: u16 = 0x4000;

impl LinkHeader {
    /// For packets that begin with the IP header.
    pub(crate) const NONE: LinkHeader = LinkHeader {
        bytes: [0; LINK_BYTES_MAX],
        len: 0,
    };

    /// Bytes of all headers before the payload.
    fn headers_len(&self, is_v6: bool) -> usize {
        self.len + if is_v6 { IPV6_BYTES } else { IPV4_BYTES } + UDP_BYTES
    }
}

/// The headers of datagrams from one address to another, all but what depends on the datagram.
#[derive(Clone, Debug)]
pub(crate) struct HeaderTemplate {
    bytes: [u8; HEADERS_MAX],
    len: usize,
    /// Where the IP header begins.
    ip: usize,
    is_v6: bool,
    udp_checksum: bool,
    /// Sum of the IPv4 header without its length.
    ip_sum: u64,
    /// Sum of what the UDP checksum covers but lengths and payload.
    udp_sum: u64,
}

impl HeaderTemplate {
    /// `None` if the addresses are of different families. Over IPv4 the UDP checksum may be left out.
    pub(crate) fn new(
        link: &LinkHeader,
        source: SocketAddr,
        destination: SocketAddr,
        traffic_class: u8,
        udp_checksum: bool,
    ) -> Option<HeaderTemplate> {
        let is_v6 = destination.is_ipv6();
        let len = link.headers_len(is_v6);
        let mut bytes = [0; HEADERS_MAX];
        bytes[..link.len].copy_from_slice(&link.bytes[..link.len]);
        let ip = &mut bytes[link.len..];
        let mut ip_sum = 0;
        let addresses = match (source.ip(), destination.ip()) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                ip[..2].copy_from_slice(&[0x45, traffic_class]);
                // The identification has no meaning without fragments, and is zero (RFC 6864 section 4.1).
                ip[6..8].copy_from_slice(&DO_NOT_FRAGMENT.to_be_bytes());
                ip[8..10].copy_from_slice(&[HOP_LIMIT, PROTOCOL_UDP]);
                ip[12..16].copy_from_slice(&from.octets());
                ip[16..20].copy_from_slice(&to.octets());
                ip_sum = sum(&ip[..IPV4_BYTES]);
                sum(&ip[12..20])
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                ip[..2].copy_from_slice(&[0x60 | traffic_class >> 4, traffic_class << 4]);
                ip[6..8].copy_from_slice(&[PROTOCOL_UDP, HOP_LIMIT]);
                ip[8..24].copy_from_slice(&from.octets());
                ip[24..40].copy_from_slice(&to.octets());
                sum(&ip[8..40])
            }
            _ => return None,
        };
        let udp = &mut bytes[len - UDP_BYTES..];
        udp[..2].copy_from_slice(&source.port().to_be_bytes());
        udp[2..4].copy_from_slice(&destination.port().to_be_bytes());
        let ports = u64::from(source.port()) + u64::from(destination.port());
        Some(HeaderTemplate {
            bytes,
            len,
            ip: link.len,
            is_v6,
            udp_checksum: udp_checksum || is_v6,
            ip_sum,
            udp_sum: addresses + u64::from(PROTOCOL_UDP) + ports,
        })
    }

    /// Bytes of all headers before the payload.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Writes the headers into the beginning of `frame`, whose payload is there already and reaches to its end. False if that is too long
    /// for them: nothing is sent then.
    #[cfg(feature = "af_xdp")]
    pub(crate) fn write(&self, frame: &mut [u8]) -> bool {
        match frame.len().checked_sub(self.len) {
            Some(payload) => self.write_for(frame, payload),
            None => false,
        }
    }

    /// The same for a payload of which only a part may be there: without a UDP checksum that is right then.
    pub(crate) fn write_for(&self, frame: &mut [u8], payload: usize) -> bool {
        let Ok(total) = u16::try_from(payload + UDP_BYTES + IPV4_BYTES) else {
            return false;
        };
        let udp_len = total - IPV4_BYTES as u16;
        frame[..self.len].copy_from_slice(&self.bytes[..self.len]);
        let (ip, udp) = (self.ip, self.len - UDP_BYTES);
        if self.is_v6 {
            frame[ip + 4..ip + 6].copy_from_slice(&udp_len.to_be_bytes());
        } else {
            let checksum = !fold(self.ip_sum + u64::from(total));
            frame[ip + 2..ip + 4].copy_from_slice(&total.to_be_bytes());
            frame[ip + 10..ip + 12].copy_from_slice(&checksum.to_be_bytes());
        }
        frame[udp + 4..udp + 6].copy_from_slice(&udp_len.to_be_bytes());
        if self.udp_checksum && frame.len() == self.len + payload {
            // The length is summed twice: of the pseudo header and of the header.
            let checksum = !fold(self.udp_sum + 2 * u64::from(udp_len) + sum(&frame[self.len..]));
            // Zero means that there is none (RFC 768).
            let checksum = if checksum == 0 { 0xffff } else { checksum };
            frame[udp + 6..udp + 8].copy_from_slice(&checksum.to_be_bytes());
        } else if self.is_v6 {
            // There must be one (RFC 8200 section 8.1), and nobody can check it.
            frame[udp + 6..udp + 8].fill(0xff);
        }
        true
    }
}

/// The sum of 16-bit words in network order, carries not yet added (RFC 1071): of 32-bit words, of which the carries come out the same.
pub(crate) fn sum(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<4>();
    let mut sum: u64 = words
        .iter()
        .map(|word| u64::from(u32::from_be_bytes(*word)))
        .sum();
    let mut last = [0; 4];
    last[..rest.len()].copy_from_slice(rest);
    sum += u64::from(u32::from_be_bytes(last));
    sum
}

pub(crate) fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}
