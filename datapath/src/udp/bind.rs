//! Binding sockets, alone and in groups.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

use socket2::{Domain, Protocol, Socket, Type};

use super::{steering, sys};
use crate::config::DatapathConfig;
use crate::partition::Partitioning;

/// A bound UDP socket that no device serves yet.
#[derive(Debug)]
pub struct SocketPort {
    socket: Socket,
    local: SocketAddr,
    is_v6: bool,
    /// The application has opened it.
    #[cfg(feature = "af_xdp")]
    is_adopted: bool,
    /// Otherwise the device of another partition does.
    receives: bool,
}

impl SocketPort {
    /// Local address, with the port that was chosen.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    pub(crate) fn is_v6(&self) -> bool {
        self.is_v6
    }

    /// It is an IPv6 socket that takes no IPv4.
    pub(crate) fn is_only_v6(&self) -> bool {
        self.is_v6 && self.socket.only_v6().unwrap_or(false)
    }

    /// The device that serves it receives from it; otherwise it only sends, as the device of another partition receives.
    pub(crate) fn receives(&self) -> bool {
        self.receives
    }

    /// The application has opened it: what it has set holds for what goes through the kernel alone.
    #[cfg(feature = "af_xdp")]
    pub(crate) fn is_adopted(&self) -> bool {
        self.is_adopted
    }

    /// The kernel joins no datagrams for it (GRO).
    #[cfg(feature = "af_xdp")]
    pub(crate) fn refuse_runs(&self) {
        // `Err`: this kernel never does.
        let _ = sys::set_option(self.socket.as_fd(), libc::SOL_UDP, libc::UDP_GRO, 0);
    }

    pub(crate) fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        self.socket.set_nonblocking(nonblocking)
    }

    pub(super) fn adopted(socket: Socket, local: SocketAddr) -> Self {
        SocketPort {
            socket,
            local,
            is_v6: local.is_ipv6(),
            #[cfg(feature = "af_xdp")]
            is_adopted: true,
            receives: true,
        }
    }

    /// The same socket, for a partition whose device only sends.
    pub(super) fn for_sending(&self) -> io::Result<Self> {
        Ok(SocketPort {
            socket: self.socket.try_clone()?,
            receives: false,
            ..*self
        })
    }

    pub(super) fn socket(&self) -> &Socket {
        &self.socket
    }

    pub(crate) fn bind(local: SocketAddr, config: &DatapathConfig) -> io::Result<Self> {
        Self::open(local, config, false)
    }

    pub(crate) fn bind_group(
        local: SocketAddr,
        partitioning: Partitioning,
        processors: &[usize],
        config: &DatapathConfig,
    ) -> io::Result<Vec<Self>> {
        if partitioning.count() == 1 {
            return Ok(vec![Self::bind(local, config)?]);
        }
        // Sockets that ask to share a port share it with any other of this user that asks too. Binding alone first shows that
        // nobody is there now.
        drop(Self::bind(local, config)?);
        let first = Self::open(local, config, true)?;
        sys::attach_reuseport(
            first.socket.as_fd(),
            &steering::program(partitioning, processors, config.steering),
        )?;
        let local = first.local;
        let mut ports = vec![first];
        // The kernel numbers the sockets of a group in the order in which they are bound.
        for _ in 1..partitioning.count() {
            ports.push(Self::open(local, config, true)?);
        }
        Ok(ports)
    }

    fn open(local: SocketAddr, config: &DatapathConfig, shared: bool) -> io::Result<Self> {
        let is_v6 = local.is_ipv6();
        let domain = if is_v6 { Domain::IPV6 } else { Domain::IPV4 };
        let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
        socket.set_nonblocking(true)?;
        if shared {
            socket.set_reuse_port(true)?;
        }
        if is_v6 {
            // [::] takes IPv4 too.
            socket.set_only_v6(false)?;
        }
        prepare(&socket, local, config)?;
        for buffer in buffers(config) {
            buffer.force(&socket).or_else(|_| buffer.set(&socket))?;
        }
        socket
            .bind(&local.into())
            .map_err(|error| bind_error(local, error))?;
        let local = socket
            .local_addr()?
            .as_socket()
            .ok_or(io::ErrorKind::AddrNotAvailable)?;
        Ok(SocketPort {
            socket,
            local,
            is_v6,
            #[cfg(feature = "af_xdp")]
            is_adopted: false,
            receives: true,
        })
    }
}

impl AsFd for SocketPort {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl AsRawFd for SocketPort {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

fn bind_error(local: SocketAddr, error: io::Error) -> io::Error {
    match (error.raw_os_error(), local.port()) {
        (Some(libc::EACCES), 1..1024) => io::Error::new(
            error.kind(),
            format!(
                "port {} takes CAP_NET_BIND_SERVICE, or net.ipv4.ip_unprivileged_port_start not above it: {error}",
                local.port()
            ),
        ),
        _ => error,
    }
}

/// What the devices need of a socket at this address beside its buffers.
pub(super) fn prepare(socket: &Socket, local: SocketAddr, config: &DatapathConfig) -> io::Result<()> {
    let fd = socket.as_fd();
    let is_v6 = local.is_ipv6();
    if is_v6 {
        sys::set_option(fd, libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO, 1)?;
        sys::set_option(fd, libc::IPPROTO_IPV6, libc::IPV6_RECVTCLASS, 1)?;
        // Path MTU discovery is ours: never fragment, and let probes larger than the kernel believes in through.
        sys::set_option(
            fd,
            libc::IPPROTO_IPV6,
            libc::IPV6_MTU_DISCOVER,
            libc::IPV6_PMTUDISC_PROBE,
        )?;
    }
    if takes_v4(local) {
        sys::set_option(fd, libc::IPPROTO_IP, libc::IP_RECVTOS, 1)?;
        sys::set_option(
            fd,
            libc::IPPROTO_IP,
            libc::IP_MTU_DISCOVER,
            libc::IP_PMTUDISC_PROBE,
        )?;
        if !is_v6 {
            sys::set_option(fd, libc::IPPROTO_IP, libc::IP_PKTINFO, 1)?;
        }
    }
    if config.gro {
        // A kernel without it gives datagrams one by one; the device has said so when it was made.
        let _ = sys::set_option(fd, libc::SOL_UDP, libc::UDP_GRO, 1);
    }
    Ok(())
}

/// True if IPv4 may come to this address, unless the socket refuses it.
fn takes_v4(local: SocketAddr) -> bool {
    local.ip().is_unspecified() || local.ip().to_canonical().is_ipv4()
}

/// A buffer of a socket.
#[derive(Clone, Copy, Debug)]
pub(super) struct Buffer {
    /// The option of those who may set it beyond the limit, and that of others.
    force: libc::c_int,
    plain: libc::c_int,
    /// Where the kernel has that limit.
    limit: &'static str,
    /// The size that it is to have.
    pub(super) bytes: usize,
}

impl Buffer {
    /// Sets its size, beyond the limit if need be.
    pub(super) fn force(&self, socket: &Socket) -> io::Result<()> {
        self.set_with(socket, self.force)
    }

    /// Sets its size, or the limit if that is less.
    pub(super) fn set(&self, socket: &Socket) -> io::Result<()> {
        self.set_with(socket, self.plain)
    }

    fn set_with(&self, socket: &Socket, option: libc::c_int) -> io::Result<()> {
        let bytes = self.bytes.min(libc::c_int::MAX as usize / 2) as libc::c_int;
        sys::set_option(socket.as_fd(), libc::SOL_SOCKET, option, bytes)
    }

    /// What those may set who may not force it; `None` where the kernel does not say.
    pub(super) fn limit(&self) -> Option<usize> {
        std::fs::read_to_string(self.limit).ok()?.trim().parse().ok()
    }
}

pub(super) fn buffers(config: &DatapathConfig) -> [Buffer; 2] {
    [
        Buffer {
            force: libc::SO_RCVBUFFORCE,
            plain: libc::SO_RCVBUF,
            limit: "/proc/sys/net/core/rmem_max",
            bytes: config.receive_buffer_bytes,
        },
        Buffer {
            force: libc::SO_SNDBUFFORCE,
            plain: libc::SO_SNDBUF,
            limit: "/proc/sys/net/core/wmem_max",
            bytes: config.send_buffer_bytes,
        },
    ]
}

/// Which offloads the kernel has, tried on a socket that is thrown away.
pub(crate) fn probe(config: &DatapathConfig) -> io::Result<(bool, bool, Vec<String>)> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
    let mut notes = Vec::new();
    let mut try_option = |wanted: bool, option: libc::c_int, value: libc::c_int, name: &str| {
        if !wanted {
            notes.push(format!("{name} is turned off by configuration"));
            return false;
        }
        match sys::set_option(socket.as_fd(), libc::SOL_UDP, option, value) {
            Ok(()) => true,
            Err(error) => {
                notes.push(format!(
                    "{name}: the kernel refuses ({error}); each datagram is a message of its own"
                ));
                false
            }
        }
    };
    let gso = try_option(config.gso, libc::UDP_SEGMENT, 1200, "GSO");
    let gro = try_option(config.gro, libc::UDP_GRO, 1, "GRO");
    Ok((gso, gro, notes))
}
