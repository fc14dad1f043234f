//! Headers of a received frame: Ethernet with VLAN tags, IPv4 or IPv6, UDP.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ringway_types::Ecn;

use crate::headers::{IPV4_BYTES, IPV6_BYTES, LINK_BYTES_MAX, LinkHeader, PROTOCOL_UDP, UDP_BYTES};

/// A UDP datagram in a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Datagram {
    pub(super) source: SocketAddr,
    pub(super) destination: SocketAddr,
    pub(super) ecn: Ecn,
    /// Where the payload begins and ends.
    pub(super) start: usize,
    pub(super) end: usize,
    /// The Ethernet header for frames back to where it came from.
    pub(super) reply_link: LinkHeader,
}

const VLANS_MAX: usize = 2;
const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_IPV6: u16 = 0x86dd;
const ETHERTYPE_VLAN: u16 = 0x8100;
const ETHERTYPE_SERVICE_VLAN: u16 = 0x88a8;
/// More fragments, or an offset.
const FRAGMENT: u16 = 0x3fff;

fn be16(bytes: &[u8], at: usize) -> Option<u16> {
    bytes
        .get(at..)?
        .first_chunk()
        .map(|bytes| u16::from_be_bytes(*bytes))
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}

/// Finds the UDP datagram in a frame that has come in on an interface of this number. `None` if there is none, whole and unfragmented, directly
/// behind the IP header: the XDP program passes such frames to the kernel, so that one here is a mistake or a change between the two.
///
/// The UDP checksum is not looked at: packets from a kernel on this machine have none yet, and QUIC authenticates its own.
pub(super) fn parse(frame: &[u8], interface: u32) -> Option<Datagram> {
    let (link_len, protocol) = link(frame)?;
    let mut reply_link = LinkHeader {
        bytes: [0; LINK_BYTES_MAX],
        len: link_len,
    };
    reply_link.bytes[..link_len].copy_from_slice(frame.get(..link_len)?);
    reply_link.bytes[..6].copy_from_slice(&frame[6..12]);
    reply_link.bytes[6..12].copy_from_slice(&frame[..6]);
    let (source, destination, tos, at, end) = match protocol {
        ETHERTYPE_IPV4 => {
            let total = usize::from(be16(frame, link_len + 2)?);
            let fragment = be16(frame, link_len + 6)? & FRAGMENT;
            let is_plain = frame[link_len] == 0x45 && total >= IPV4_BYTES && fragment == 0;
            if !is_plain || *frame.get(link_len + 9)? != PROTOCOL_UDP {
                return None;
            }
            let address =
                |at| array::<4>(frame, link_len + at).map(|octets| IpAddr::V4(Ipv4Addr::from(octets)));
            (
                address(12)?,
                address(16)?,
                frame[link_len + 1],
                link_len + IPV4_BYTES,
                link_len + total,
            )
        }
        ETHERTYPE_IPV6 => {
            let first: [u8; 2] = array(frame, link_len)?;
            let payload = usize::from(be16(frame, link_len + 4)?);
            if first[0] >> 4 != 6 || *frame.get(link_len + 6)? != PROTOCOL_UDP {
                return None;
            }
            let address =
                |at| array::<16>(frame, link_len + at).map(|octets| IpAddr::V6(Ipv6Addr::from(octets)));
            let (source, destination) = (address(8)?, address(24)?);
            let end = link_len + IPV6_BYTES + payload;
            let tos = first[0] << 4 | first[1] >> 4;
            (source, destination, tos, link_len + IPV6_BYTES, end)
        }
        _ => return None,
    };
    let length = usize::from(be16(frame, at + 4)?);
    if length < UDP_BYTES || at + length > end || end > frame.len() {
        return None;
    }
    Some(Datagram {
        source: scoped(SocketAddr::new(source, be16(frame, at)?), interface),
        destination: SocketAddr::new(destination, be16(frame, at + 2)?),
        ecn: Ecn::from_bits(tos),
        start: at + UDP_BYTES,
        end: at + length,
        reply_link,
    })
}

/// A link-local address means something together with the interface only (RFC 4007 section 6).
fn scoped(address: SocketAddr, interface: u32) -> SocketAddr {
    match address {
        SocketAddr::V6(mut v6) if v6.ip().is_unicast_link_local() => {
            v6.set_scope_id(interface);
            SocketAddr::V6(v6)
        }
        address => address,
    }
}

/// False if the address is of another interface than this one.
pub(super) fn is_on(address: SocketAddr, interface: u32) -> bool {
    match address {
        SocketAddr::V6(v6) => v6.scope_id() == 0 || v6.scope_id() == interface,
        SocketAddr::V4(_) => true,
    }
}

/// Length of the Ethernet header with its tags, and the protocol.
fn link(frame: &[u8]) -> Option<(usize, u16)> {
    let mut len = 14;
    let mut protocol = be16(frame, 12)?;
    for _ in 0..VLANS_MAX {
        if protocol != ETHERTYPE_VLAN && protocol != ETHERTYPE_SERVICE_VLAN {
            break;
        }
        protocol = be16(frame, len + 2)?;
        len += 4;
    }
    Some((len, protocol))
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::headers::{HeaderTemplate, fold, sum};

    /// Where the frames of these headers go.
    pub(in crate::af_xdp) const LINK_ADDRESS: [u8; 6] = [2, 0, 0, 0, 0, 1];

    fn header(tags: &[u16], protocol: u16) -> LinkHeader {
        let mut header = LinkHeader {
            bytes: [0; LINK_BYTES_MAX],
            len: 14 + 4 * tags.len(),
        };
        header.bytes[..6].copy_from_slice(&LINK_ADDRESS);
        header.bytes[6..12].copy_from_slice(&[2, 0, 0, 0, 0, 2]);
        for (index, tag) in tags.iter().chain([&protocol]).enumerate() {
            header.bytes[12 + 4 * index..][..2].copy_from_slice(&tag.to_be_bytes());
        }
        header
    }

    /// Any way to a neighbour.
    pub(in crate::af_xdp) fn link() -> LinkHeader {
        header(&[], ETHERTYPE_IPV4)
    }

    /// Another one.
    pub(in crate::af_xdp) fn another_link() -> LinkHeader {
        header(&[3], ETHERTYPE_IPV4)
    }

    fn addresses(is_v6: bool) -> [SocketAddr; 2] {
        let texts = if is_v6 {
            ["[2001:db8::1]:4433", "[2001:db8::2]:5555"]
        } else {
            ["192.0.2.1:4433", "192.0.2.2:5555"]
        };
        texts.map(|text| text.parse().unwrap())
    }

    /// As a receiver sums: what is sent, with its checksum, makes all ones.
    fn is_sound(frame: &[u8], link_len: usize, is_v6: bool) -> bool {
        let ip = &frame[link_len..];
        let (addresses, udp) = if is_v6 {
            (&ip[8..40], &ip[IPV6_BYTES..])
        } else {
            (&ip[12..20], &ip[IPV4_BYTES..])
        };
        let ip_is_sound = is_v6 || fold(sum(&ip[..IPV4_BYTES])) == 0xffff;
        ip_is_sound && fold(sum(addresses) + 17 + udp.len() as u64 + sum(udp)) == 0xffff
    }

    proptest! {
        #[test]
        fn frames_are_read_as_they_were_written(
            payload in proptest::collection::vec(any::<u8>(), 0..2000),
            tags in 0usize..3,
            is_v6: bool,
            class: u8,
        ) {
            let ecn = Ecn::from_bits(class);
            let protocol = if is_v6 { ETHERTYPE_IPV6 } else { ETHERTYPE_IPV4 };
            let link = header(&[ETHERTYPE_SERVICE_VLAN, ETHERTYPE_VLAN][2 - tags..], protocol);
            let [source, destination] = addresses(is_v6);
            let template = HeaderTemplate::new(&link, source, destination, class, true).unwrap();
            let mut frame = vec![0xaa; template.len()];
            frame.extend(&payload);
            prop_assert!(template.write(&mut frame));
            prop_assert!(is_sound(&frame, link.len, is_v6));
            let ip = &frame[link.len..];
            prop_assert_eq!(if is_v6 { ip[0] << 4 | ip[1] >> 4 } else { ip[1] }, class);
            // Ethernet pads short frames.
            frame.extend([0; 9]);
            let datagram = parse(&frame, 7).unwrap();
            prop_assert_eq!((datagram.source, datagram.destination, datagram.ecn), (source, destination, ecn));
            prop_assert_eq!(&frame[datagram.start..datagram.end], &payload[..]);
            // The way back, turned once more, is the way here.
            prop_assert_eq!(&datagram.reply_link.bytes[..6], &link.bytes[6..12]);
            prop_assert_eq!(&datagram.reply_link.bytes[6..12], &link.bytes[..6]);
            prop_assert_eq!(&datagram.reply_link.bytes[12..], &link.bytes[12..]);
        }

        #[test]
        fn any_bytes_are_read_without_harm(frame in proptest::collection::vec(any::<u8>(), 0..120)) {
            let _ = parse(&frame, 7);
        }

        #[test]
        fn damaged_frames_are_read_without_harm_and_within_bounds(at in 0usize..60, byte: u8, cut in 0usize..100, is_v6: bool) {
            let protocol = if is_v6 { ETHERTYPE_IPV6 } else { ETHERTYPE_IPV4 };
            let link = header(&[ETHERTYPE_VLAN], protocol);
            let [source, destination] = addresses(is_v6);
            let mut frame = vec![0; 100];
            HeaderTemplate::new(&link, source, destination, Ecn::Ect0 as u8, true).unwrap().write(&mut frame);
            frame[at] = byte;
            frame.truncate(cut);
            if let Some(datagram) = parse(&frame, 7) {
                prop_assert!(datagram.start <= datagram.end && datagram.end <= frame.len());
            }
        }
    }

    fn template(source: SocketAddr, destination: SocketAddr, udp_checksum: bool) -> Option<HeaderTemplate> {
        let protocol = if source.is_ipv6() {
            ETHERTYPE_IPV6
        } else {
            ETHERTYPE_IPV4
        };
        HeaderTemplate::new(&header(&[], protocol), source, destination, 0, udp_checksum)
    }

    #[test]
    fn link_local_source_is_one_of_the_interface_that_it_came_in_on() {
        for (text, scope) in [("[fe80::2]:5555", 7), ("[fd00::2]:5555", 0)] {
            let source: SocketAddr = text.parse().unwrap();
            let link = header(&[], ETHERTYPE_IPV6);
            let to = "[fe80::1]:4433".parse().unwrap();
            let template = HeaderTemplate::new(&link, source, to, 0, true).unwrap();
            let mut frame = vec![0; template.len() + 20];
            assert!(template.write(&mut frame));
            let SocketAddr::V6(read) = parse(&frame, 7).unwrap().source else {
                panic!("IPv6")
            };
            assert_eq!(
                (read.ip(), read.scope_id()),
                (&source.ip().to_string().parse().unwrap(), scope)
            );
            assert!(is_on(read.into(), 7));
            assert_eq!(is_on(read.into(), 8), scope == 0);
        }
    }

    #[test]
    fn addresses_of_two_families_and_payloads_without_measure_make_no_frame() {
        let ([v4, v4_peer], [v6, _]) = (addresses(false), addresses(true));
        assert!(template(v4, v6, true).is_none());
        let template = template(v4, v4_peer, true).unwrap();
        assert!(!template.write(&mut [0; 20]));
        assert!(!template.write(&mut vec![0; 70_000]));
    }

    #[test]
    fn udp_checksum_is_left_out_over_ipv4_only() {
        for is_v6 in [false, true] {
            let [source, destination] = addresses(is_v6);
            let template = template(source, destination, false).unwrap();
            let headers = template.len();
            let mut frame = vec![7; headers + 100];
            assert!(template.write(&mut frame));
            assert_eq!(frame[headers - 2..headers] == [0, 0], !is_v6);
            assert_eq!(is_sound(&frame, 14, is_v6), is_v6);
        }
    }
}
