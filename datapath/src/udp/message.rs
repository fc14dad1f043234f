//! What the kernel keeps beside the bytes of a message: its address and its control messages, written and read as bytes.
//!
//! Shared by the devices that serve sockets; they differ in how a message reaches the kernel only.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

use ringway_types::Ecn;

/// A message to send.
#[derive(Clone, Copy)]
pub(crate) struct OutgoingMessage<'a> {
    pub(crate) to: SocketAddr,
    pub(crate) from: Option<IpAddr>,
    /// Differentiated services and ECN.
    pub(crate) traffic_class: u8,
    pub(crate) bytes: &'a [u8],
    /// Size of each datagram, if there is more than one.
    pub(crate) segment: Option<u16>,
    /// The socket is of IPv6: IPv4 addresses are written as mapped ones.
    pub(crate) v6_socket: bool,
}

/// What came with a received message.
#[derive(Clone, Copy, Debug)]
pub(crate) struct IncomingMessage {
    pub(crate) len: usize,
    pub(crate) remote: Option<SocketAddr>,
    pub(crate) local: Option<IpAddr>,
    pub(crate) ecn: Ecn,
    pub(crate) segment: Option<usize>,
    pub(crate) truncated: bool,
}

/// Bytes of the longest address: `struct sockaddr_in6`.
pub(crate) const NAME_BYTES: usize = size_of::<libc::sockaddr_in6>();
/// Room for the control messages of one message: packet info (IPv6: 20 bytes), ECN and segment size, with their headers.
pub(crate) const CONTROL_BYTES: usize = 128;

/// The address and control messages of one message, where the kernel reads or writes them.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
pub(crate) struct HeaderBuffers {
    pub(crate) control: [u8; CONTROL_BYTES],
    pub(crate) name: [u8; NAME_BYTES],
}

impl HeaderBuffers {
    pub(crate) const EMPTY: HeaderBuffers = HeaderBuffers {
        control: [0; CONTROL_BYTES],
        name: [0; NAME_BYTES],
    };

    /// Addresses a message; gives the lengths of name and control messages.
    pub(crate) fn write(&mut self, message: &OutgoingMessage<'_>) -> (usize, usize) {
        let to = match (message.to, message.v6_socket) {
            (SocketAddr::V4(v4), true) => SocketAddr::new(IpAddr::V6(v4.ip().to_ipv6_mapped()), v4.port()),
            (to, _) => to,
        };
        let name_len = write_address(to, &mut self.name);
        let mut control = ControlWriter {
            buffer: &mut self.control,
            len: 0,
        };
        let is_v4 = message.to.is_ipv4();
        if let Some(segment) = message.segment {
            control.push(libc::SOL_UDP, libc::UDP_SEGMENT, &segment.to_ne_bytes());
        }
        if message.traffic_class != 0 {
            let class = libc::c_int::from(message.traffic_class);
            let (level, ty) = if is_v4 {
                (libc::IPPROTO_IP, libc::IP_TOS)
            } else {
                (libc::IPPROTO_IPV6, libc::IPV6_TCLASS)
            };
            control.push(level, ty, &class.to_ne_bytes());
        }
        match message.from {
            Some(IpAddr::V4(from)) if is_v4 => {
                // in_pktinfo: interface index, local address, destination.
                let mut info = [0; 12];
                info[4..8].copy_from_slice(&from.octets());
                control.push(libc::IPPROTO_IP, libc::IP_PKTINFO, &info);
            }
            Some(IpAddr::V6(from)) if !is_v4 => {
                // in6_pktinfo: address, interface index.
                let mut info = [0; 20];
                info[..16].copy_from_slice(&from.octets());
                control.push(libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, &info);
            }
            _ => {}
        }
        (name_len, control.len)
    }
}

impl IncomingMessage {
    /// From what the kernel wrote beside `len` bytes. `flags` are those of the message header.
    pub(crate) fn read(name: &[u8], control: &[u8], len: usize, flags: libc::c_int) -> IncomingMessage {
        let mut incoming = IncomingMessage {
            len,
            remote: read_address(name),
            local: None,
            ecn: Ecn::NotEct,
            segment: None,
            truncated: flags & (libc::MSG_TRUNC | libc::MSG_CTRUNC) != 0,
        };
        for (level, ty, data) in control_messages(control) {
            match (level, ty) {
                (libc::IPPROTO_IP, libc::IP_TOS) => {
                    incoming.ecn = data.first().map_or(Ecn::NotEct, |&tos| Ecn::from_bits(tos));
                }
                // An int, in the byte order of the machine.
                (libc::IPPROTO_IPV6, libc::IPV6_TCLASS) => {
                    incoming.ecn = int(data).map_or(Ecn::NotEct, |class| Ecn::from_bits(class as u8));
                }
                (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                    incoming.local = data
                        .get(8..12)
                        .and_then(|octets| <[u8; 4]>::try_from(octets).ok())
                        .map(|octets| IpAddr::V4(Ipv4Addr::from(octets)));
                }
                (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                    incoming.local = data
                        .get(..16)
                        .and_then(|octets| <[u8; 16]>::try_from(octets).ok())
                        .map(|octets| IpAddr::V6(Ipv6Addr::from(octets)).to_canonical());
                }
                (libc::SOL_UDP, libc::UDP_GRO) => {
                    incoming.segment = int(data)
                        .and_then(|size| usize::try_from(size).ok())
                        .filter(|&size| size > 0);
                }
                _ => {}
            }
        }
        incoming
    }
}

fn int(data: &[u8]) -> Option<i32> {
    data.first_chunk().map(|bytes| i32::from_ne_bytes(*bytes))
}

/// `struct sockaddr_in` and `sockaddr_in6`: family in the byte order of the machine, port and addresses in that of the network.
fn write_address(address: SocketAddr, out: &mut [u8; NAME_BYTES]) -> usize {
    out.fill(0);
    out[2..4].copy_from_slice(&address.port().to_be_bytes());
    match address {
        SocketAddr::V4(v4) => {
            out[..2].copy_from_slice(&(libc::AF_INET as u16).to_ne_bytes());
            out[4..8].copy_from_slice(&v4.ip().octets());
            size_of::<libc::sockaddr_in>()
        }
        SocketAddr::V6(v6) => {
            out[..2].copy_from_slice(&(libc::AF_INET6 as u16).to_ne_bytes());
            out[4..8].copy_from_slice(&v6.flowinfo().to_be_bytes());
            out[8..24].copy_from_slice(&v6.ip().octets());
            out[24..28].copy_from_slice(&v6.scope_id().to_ne_bytes());
            NAME_BYTES
        }
    }
}

/// IPv4-mapped IPv6 addresses are given as IPv4.
fn read_address(bytes: &[u8]) -> Option<SocketAddr> {
    let family = libc::c_int::from(u16::from_ne_bytes(*bytes.first_chunk()?));
    let port = u16::from_be_bytes(*bytes.get(2..)?.first_chunk()?);
    match family {
        libc::AF_INET => {
            let ip = Ipv4Addr::from(*bytes.get(4..)?.first_chunk::<4>()?);
            Some(SocketAddr::new(IpAddr::V4(ip), port))
        }
        libc::AF_INET6 => {
            let ip = Ipv6Addr::from(*bytes.get(8..)?.first_chunk::<16>()?);
            if let Some(v4) = ip.to_ipv4_mapped() {
                return Some(SocketAddr::new(IpAddr::V4(v4), port));
            }
            let scope = u32::from_ne_bytes(*bytes.get(24..)?.first_chunk()?);
            Some(SocketAddr::V6(SocketAddrV6::new(ip, port, 0, scope)))
        }
        _ => None,
    }
}

/// Writes control messages one after another, as `CMSG_NXTHDR` would find them.
struct ControlWriter<'a> {
    buffer: &'a mut [u8; CONTROL_BYTES],
    len: usize,
}

const HEADER_BYTES: usize = align(size_of::<libc::cmsghdr>());

const fn align(len: usize) -> usize {
    let to = size_of::<usize>();
    len.div_ceil(to) * to
}

impl ControlWriter<'_> {
    fn push(&mut self, level: libc::c_int, ty: libc::c_int, data: &[u8]) {
        let len = HEADER_BYTES + data.len();
        let out = &mut self.buffer[self.len..self.len + align(len)];
        out.fill(0);
        // struct cmsghdr: length (usize on Linux with glibc and musl of 64 bits), level, type.
        out[..8].copy_from_slice(&len.to_ne_bytes());
        out[8..12].copy_from_slice(&level.to_ne_bytes());
        out[12..16].copy_from_slice(&ty.to_ne_bytes());
        out[HEADER_BYTES..len].copy_from_slice(data);
        self.len += align(len);
    }
}

const _: () = assert!(
    size_of::<libc::cmsghdr>() == 16,
    "the layout that is written above: 64-bit Linux"
);

/// Takes control messages apart.
fn control_messages(mut rest: &[u8]) -> impl Iterator<Item = (libc::c_int, libc::c_int, &[u8])> {
    std::iter::from_fn(move || {
        let len = usize::from_ne_bytes(*rest.first_chunk()?);
        let level = int(rest.get(8..)?)?;
        let ty = int(rest.get(12..)?)?;
        let data = rest.get(HEADER_BYTES..len)?;
        rest = rest.get(align(len)..).unwrap_or_default();
        Some((level, ty, data))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_they_were_written() {
        for text in ["192.0.2.1:4433", "[2001:db8::1]:65535", "[fe80::1%7]:1"] {
            let address: SocketAddr = text.parse().unwrap();
            let mut name = [0xff; NAME_BYTES];
            let len = write_address(address, &mut name);
            assert_eq!(read_address(&name[..len]), Some(address));
        }
        assert_eq!(read_address(&[]), None);
        assert_eq!(read_address(&[0; NAME_BYTES]), None);
    }

    #[test]
    fn control_messages_cut_anywhere_are_no_danger() {
        let message = OutgoingMessage {
            to: "[2001:db8::1]:1".parse().unwrap(),
            from: Some("2001:db8::2".parse().unwrap()),
            traffic_class: 46 << 2 | Ecn::Ce as u8,
            bytes: &[],
            segment: Some(1200),
            v6_socket: true,
        };
        let mut buffers = HeaderBuffers::EMPTY;
        let (name_len, control_len) = buffers.write(&message);
        for cut in 0..=control_len {
            let incoming = IncomingMessage::read(&buffers.name[..name_len], &buffers.control[..cut], 10, 0);
            assert_eq!(incoming.remote, Some(message.to));
            // The last message ends with four bytes of padding.
            assert_eq!(incoming.local, message.from.filter(|_| cut + 4 >= control_len));
        }
    }
}
