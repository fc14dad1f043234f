//! System calls of the socket device: message headers, control messages and socket options, behind safe functions.

use std::io;
use std::mem::MaybeUninit;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::fd::{AsRawFd, BorrowedFd};

use socket2::SockAddr;

use crate::meta::Ecn;

/// The most messages in one system call.
pub(super) const BATCH: usize = 64;

/// A message to send.
#[derive(Clone, Copy)]
pub(super) struct Outgoing<'a> {
    pub(super) to: SocketAddr,
    pub(super) from: Option<IpAddr>,
    pub(super) ecn: Ecn,
    pub(super) bytes: &'a [u8],
    /// Size of each datagram, if there is more than one.
    pub(super) segment: Option<u16>,
    /// The socket is of IPv6: IPv4 addresses are written as mapped ones.
    pub(super) v6_socket: bool,
}

/// What came with a received message.
#[derive(Clone, Copy, Debug)]
pub(super) struct Incoming {
    pub(super) len: usize,
    pub(super) remote: Option<SocketAddr>,
    pub(super) local: Option<IpAddr>,
    pub(super) ecn: Ecn,
    pub(super) segment: Option<usize>,
    pub(super) truncated: bool,
}

/// Room for the control messages of one message: packet info (IPv6: 20 bytes), ECN and segment size, with their headers.
const CONTROL_BYTES: usize = 128;

#[derive(Clone, Copy)]
#[repr(C, align(8))]
struct Control([u8; CONTROL_BYTES]);

/// Memory for the headers of a batch of messages; made once, filled anew for each call.
///
/// Invariant: pointers in it are used by the kernel only during the call that has just written them.
pub(super) struct Scratch {
    headers: Box<[libc::mmsghdr]>,
    slices: Box<[libc::iovec]>,
    names: Box<[libc::sockaddr_storage]>,
    controls: Box<[Control]>,
}

// SAFETY: the pointers inside are stale between calls and never followed; the memory belongs to the value alone.
unsafe impl Send for Scratch {}

impl std::fmt::Debug for Scratch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Scratch")
    }
}

impl Scratch {
    pub(super) fn new() -> Self {
        // SAFETY: all zero is a valid value of each of these plain C structures.
        let header = unsafe { MaybeUninit::<libc::mmsghdr>::zeroed().assume_init() };
        // SAFETY: as above.
        let name = unsafe { MaybeUninit::<libc::sockaddr_storage>::zeroed().assume_init() };
        let slice = libc::iovec {
            iov_base: std::ptr::null_mut(),
            iov_len: 0,
        };
        Scratch {
            headers: vec![header; BATCH].into(),
            slices: vec![slice; BATCH].into(),
            names: vec![name; BATCH].into(),
            controls: vec![Control([0; CONTROL_BYTES]); BATCH].into(),
        }
    }

    /// Sends messages, at most [`BATCH`]; gives how many the kernel took. An error is that of the first one.
    pub(super) fn send<'a>(
        &mut self,
        socket: BorrowedFd<'_>,
        messages: impl Iterator<Item = Outgoing<'a>>,
    ) -> io::Result<usize> {
        let mut count = 0;
        for message in messages.take(BATCH) {
            self.write_outgoing(count, &message);
            count += 1;
        }
        // SAFETY: the first `count` headers were written just now; they point into `self`, which is borrowed, and to the bytes of
        // the messages, whose lifetime 'a is longer than this call.
        let result = unsafe {
            libc::sendmmsg(
                socket.as_raw_fd(),
                self.headers.as_mut_ptr(),
                count as libc::c_uint,
                libc::MSG_DONTWAIT,
            )
        };
        if result < 0 {
            Err(io::Error::last_os_error())
        } else {
            Ok(result as usize)
        }
    }

    fn write_outgoing(&mut self, index: usize, message: &Outgoing<'_>) {
        let to = match (message.to, message.v6_socket) {
            (SocketAddr::V4(v4), true) => SocketAddr::new(IpAddr::V6(v4.ip().to_ipv6_mapped()), v4.port()),
            (to, _) => to,
        };
        let address = SockAddr::from(to);
        let name = &mut self.names[index];
        // SAFETY: an address is at most as long as the storage; the two do not overlap.
        unsafe {
            std::ptr::copy_nonoverlapping(
                address.as_ptr().cast::<u8>(),
                std::ptr::from_mut(name).cast::<u8>(),
                address.len() as usize,
            );
        }
        // The kernel only reads what a message to be sent points to.
        self.slices[index] = libc::iovec {
            iov_base: message.bytes.as_ptr().cast_mut().cast(),
            iov_len: message.bytes.len(),
        };
        let mut control = ControlWriter {
            buffer: &mut self.controls[index].0,
            len: 0,
        };
        let is_v4 = message.to.is_ipv4();
        if let Some(segment) = message.segment {
            control.push(libc::SOL_UDP, libc::UDP_SEGMENT, &segment.to_ne_bytes());
        }
        if message.ecn != Ecn::NotEct {
            let ecn = message.ecn as libc::c_int;
            let (level, ty) = if is_v4 {
                (libc::IPPROTO_IP, libc::IP_TOS)
            } else {
                (libc::IPPROTO_IPV6, libc::IPV6_TCLASS)
            };
            control.push(level, ty, &ecn.to_ne_bytes());
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
        let control_len = control.len;
        let header = &mut self.headers[index];
        header.msg_len = 0;
        header.msg_hdr.msg_name = std::ptr::from_mut(name).cast();
        header.msg_hdr.msg_namelen = address.len();
        header.msg_hdr.msg_iov = std::ptr::from_mut(&mut self.slices[index]);
        header.msg_hdr.msg_iovlen = 1;
        header.msg_hdr.msg_control = if control_len == 0 {
            std::ptr::null_mut()
        } else {
            self.controls[index].0.as_mut_ptr().cast()
        };
        header.msg_hdr.msg_controllen = control_len as _;
        header.msg_hdr.msg_flags = 0;
    }

    /// Receives messages, one into each buffer; gives how many.
    pub(super) fn receive(&mut self, socket: BorrowedFd<'_>, buffers: &mut [Box<[u8]>]) -> io::Result<usize> {
        let count = buffers.len().min(BATCH);
        for (index, buffer) in buffers.iter_mut().take(count).enumerate() {
            self.slices[index] = libc::iovec {
                iov_base: buffer.as_mut_ptr().cast(),
                iov_len: buffer.len(),
            };
            let header = &mut self.headers[index];
            header.msg_len = 0;
            header.msg_hdr.msg_name = std::ptr::from_mut(&mut self.names[index]).cast();
            header.msg_hdr.msg_namelen = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
            header.msg_hdr.msg_iov = std::ptr::from_mut(&mut self.slices[index]);
            header.msg_hdr.msg_iovlen = 1;
            header.msg_hdr.msg_control = self.controls[index].0.as_mut_ptr().cast();
            header.msg_hdr.msg_controllen = CONTROL_BYTES as _;
            header.msg_hdr.msg_flags = 0;
        }
        // SAFETY: the first `count` headers were written just now; they point into `self` and into `buffers`, both of which
        // are borrowed for writing during the call, with their right lengths.
        let result = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                self.headers.as_mut_ptr(),
                count as libc::c_uint,
                libc::MSG_DONTWAIT,
                std::ptr::null_mut(),
            )
        };
        if result < 0 {
            Err(io::Error::last_os_error())
        } else {
            Ok(result as usize)
        }
    }

    /// What came with message `index` of the last [`Scratch::receive`].
    pub(super) fn incoming(&self, index: usize) -> Incoming {
        let header = &self.headers[index];
        let mut incoming = Incoming {
            len: header.msg_len as usize,
            remote: address(&self.names[index], header.msg_hdr.msg_namelen),
            local: None,
            ecn: Ecn::NotEct,
            segment: None,
            truncated: header.msg_hdr.msg_flags & (libc::MSG_TRUNC | libc::MSG_CTRUNC) != 0,
        };
        let len = header.msg_hdr.msg_controllen.min(CONTROL_BYTES);
        for (level, ty, data) in control_messages(&self.controls[index].0[..len]) {
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

fn address(storage: &libc::sockaddr_storage, len: libc::socklen_t) -> Option<SocketAddr> {
    // SAFETY: any initialised memory may be looked at as bytes; the storage was zeroed when it was made.
    let bytes = unsafe {
        std::slice::from_raw_parts(
            std::ptr::from_ref(storage).cast::<u8>(),
            size_of::<libc::sockaddr_storage>(),
        )
    };
    let bytes = bytes.get(..len as usize)?;
    // struct sockaddr_in, sockaddr_in6: family in the byte order of the machine, port and addresses in that of the network.
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

/// Sets a socket option that is an int.
pub(super) fn set_option(
    socket: BorrowedFd<'_>,
    level: libc::c_int,
    name: libc::c_int,
    value: libc::c_int,
) -> io::Result<()> {
    // SAFETY: `value` lives during the call and has the size that is given.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            std::ptr::from_ref(&value).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// Attaches a classic BPF program that picks a socket of the reuseport group.
pub(super) fn attach_reuseport(socket: BorrowedFd<'_>, program: &[libc::sock_filter]) -> io::Result<()> {
    let program = libc::sock_fprog {
        len: program.len() as u16,
        filter: program.as_ptr().cast_mut(),
    };
    // SAFETY: `program` and the instructions that it points to live during the call; the kernel copies them.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_REUSEPORT_CBPF,
            std::ptr::from_ref(&program).cast(),
            size_of::<libc::sock_fprog>() as libc::socklen_t,
        )
    };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}
