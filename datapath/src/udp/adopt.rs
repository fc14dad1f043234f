//! Sockets that the application has opened and bound: what must hold of them, and what is set on them.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};

use socket2::{Domain, Protocol, Socket, Type};

use super::bind::{Buffer, SocketPort, buffers, prepare};
use super::{steering, sys};
use crate::config::DatapathConfig;
use crate::partition::Partitioning;

impl SocketPort {
    /// Takes a socket over that this partition receives from, and all send by. An error of kind `InvalidInput` says what is wrong with it.
    pub(crate) fn adopt(
        socket: OwnedFd,
        partitioning: Partitioning,
        partition: usize,
        config: &DatapathConfig,
    ) -> io::Result<Vec<Self>> {
        let port = Self::adopt_one(socket, config)?;
        let others = (1..partitioning.count()).map(|_| port.for_sending());
        let mut ports = others.collect::<io::Result<Vec<_>>>()?;
        ports.insert(partition, port);
        Ok(ports)
    }

    fn adopt_one(socket: OwnedFd, config: &DatapathConfig) -> io::Result<Self> {
        let socket = Socket::from(socket);
        let local = check(&socket)?;
        socket.set_cloexec(true)?;
        socket.set_nonblocking(true)?;
        prepare(&socket, local, config)?;
        let sizes = [socket.recv_buffer_size()?, socket.send_buffer_size()?];
        for (buffer, there) in buffers(config).into_iter().zip(sizes) {
            grow(&socket, buffer, there)?;
        }
        Ok(SocketPort::adopted(socket, local))
    }

    /// Takes over sockets that share one address, one for each partition.
    pub(crate) fn adopt_group(
        sockets: Vec<OwnedFd>,
        partitioning: Partitioning,
        processors: &[usize],
        config: &DatapathConfig,
    ) -> io::Result<Vec<Self>> {
        let (count, needed) = (sockets.len(), partitioning.count());
        if count != needed {
            return Err(refused(format!(
                "{count} sockets were given for {needed} partitions: give one for each, or adopt each by itself"
            )));
        }
        let adopt = |socket| SocketPort::adopt_one(socket, config);
        let ports = sockets.into_iter().map(adopt).collect::<io::Result<Vec<_>>>()?;
        let Some((first, others)) = ports.split_first().filter(|(_, others)| !others.is_empty()) else {
            return Ok(ports);
        };
        if let Some(other) = others
            .iter()
            .find(|other| other.local_addr() != first.local_addr())
        {
            let (one, other) = (first.local_addr(), other.local_addr());
            return Err(refused(format!(
                "one socket is bound to {one}, another to {other}: those of a group share an address"
            )));
        }
        let mut cookies = Vec::new();
        for port in &ports {
            if !port.socket().reuse_port()? {
                return Err(refused(format!(
                    "a socket at {} does not share its port: set SO_REUSEPORT on each before it is bound (ReusePort= of a systemd socket)",
                    port.local_addr()
                )));
            }
            cookies.push(port.socket().cookie()?);
        }
        cookies.sort_unstable();
        cookies.dedup();
        if cookies.len() < count {
            return Err(refused(
                "two of the descriptors are of one socket: open one for each partition".to_owned(),
            ));
        }
        let program = steering::program(partitioning, processors, config.steering);
        sys::attach_reuseport(first.as_fd(), &program)?;
        Ok(ports)
    }
}

/// Sets a buffer size of which the kernel says that it is `there`, if that makes it larger.
fn grow(socket: &Socket, buffer: Buffer, there: usize) -> io::Result<()> {
    // The kernel says twice what was asked for.
    let is_more = |bytes: usize| bytes > there / 2;
    if !is_more(buffer.bytes) || buffer.force(socket).is_ok() {
        return Ok(());
    }
    // Beyond the limit of those who may not, it would be set to that, be it less than what whoever opened the socket had set.
    match buffer.limit() {
        Some(limit) if is_more(buffer.bytes.min(limit)) => buffer.set(socket),
        _ => Ok(()),
    }
}

/// The address that the socket is bound to, if it can serve as a port.
fn check(socket: &Socket) -> io::Result<SocketAddr> {
    let kind = |error: io::Error| match error.raw_os_error() {
        Some(libc::ENOTSOCK) => refused("the descriptor is of no socket".to_owned()),
        _ => error,
    };
    let (domain, ty) = (socket.domain().map_err(kind)?, socket.r#type()?);
    if !matches!(domain, Domain::IPV4 | Domain::IPV6) {
        return Err(refused(format!(
            "the socket is of the address family {}, not of IPv4 or IPv6",
            libc::c_int::from(domain)
        )));
    }
    if ty != Type::DGRAM || socket.protocol()? != Some(Protocol::UDP) {
        return Err(refused("the socket is not a UDP socket".to_owned()));
    }
    let local = socket.local_addr()?.as_socket();
    let Some(local) = local.filter(|local| local.port() != 0) else {
        return Err(refused(
            "the socket is not bound to a port: bind it first, to port 0 if any will do".to_owned(),
        ));
    };
    if let Ok(peer) = socket.peer_addr() {
        let peer = peer
            .as_socket()
            .map_or_else(String::new, |peer| format!(" to {peer}"));
        return Err(refused(format!(
            "the socket is connected{peer}, and so would receive from one peer alone: give one that is bound only"
        )));
    }
    Ok(local)
}

fn refused(text: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, text)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::net::{TcpListener, UdpSocket};

    use super::*;

    fn adopt(socket: impl Into<OwnedFd>) -> io::Result<SocketPort> {
        SocketPort::adopt_one(socket.into(), &DatapathConfig::default())
    }

    fn refusal(socket: impl Into<OwnedFd>) -> String {
        let error = adopt(socket).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        error.to_string()
    }

    fn udp(domain: Domain) -> Socket {
        Socket::new(domain, Type::DGRAM, Some(Protocol::UDP)).unwrap()
    }

    fn any() -> SocketAddr {
        "127.0.0.1:0".parse().unwrap()
    }

    /// Two sockets of one address.
    fn group(reuse: bool) -> Vec<OwnedFd> {
        let first = udp(Domain::IPV4);
        first.set_reuse_port(true).unwrap();
        first.bind(&any().into()).unwrap();
        let second = udp(Domain::IPV4);
        second.set_reuse_port(true).unwrap();
        second.bind(&first.local_addr().unwrap()).unwrap();
        second.set_reuse_port(reuse).unwrap();
        vec![first.into(), second.into()]
    }

    #[test]
    fn descriptor_that_is_no_bound_udp_socket_is_refused_with_what_it_is() {
        assert!(refusal(std::fs::File::open("/dev/null").unwrap()).contains("of no socket"));
        assert!(refusal(TcpListener::bind(any()).unwrap()).contains("not a UDP socket"));
        let local = Socket::new(Domain::UNIX, Type::DGRAM, None).unwrap();
        assert!(refusal(local).contains("address family 1"));
        assert!(refusal(udp(Domain::IPV4)).contains("bind it first"));
        let connected = UdpSocket::bind(any()).unwrap();
        connected.connect("127.0.0.1:9").unwrap();
        assert!(refusal(connected).contains("connected to 127.0.0.1:9"));
    }

    #[test]
    fn larger_buffers_of_the_application_stay_and_smaller_ones_grow() {
        let socket = udp(Domain::IPV4);
        socket.bind(&any().into()).unwrap();
        let there = |bytes| {
            socket.set_recv_buffer_size(bytes).unwrap();
            socket.recv_buffer_size().unwrap()
        };
        let (more, less) = (there(200_000), there(20_000));
        let config = DatapathConfig {
            receive_buffer_bytes: 100_000,
            ..DatapathConfig::default()
        };
        SocketPort::adopt_one(socket.try_clone().unwrap().into(), &config).unwrap();
        assert_eq!(socket.recv_buffer_size().unwrap(), 200_000);
        assert!(less < 200_000);
        there(200_000);
        SocketPort::adopt_one(socket.try_clone().unwrap().into(), &config).unwrap();
        assert_eq!(socket.recv_buffer_size().unwrap(), more);
    }

    #[test]
    fn buffers_that_only_the_opener_could_make_so_large_do_not_shrink() {
        let [receive, send] = buffers(&DatapathConfig::default()).map(|buffer| buffer.limit().unwrap());
        let socket = udp(Domain::IPV4);
        socket.bind(&any().into()).unwrap();
        let config = |more| DatapathConfig {
            receive_buffer_bytes: receive + more,
            send_buffer_bytes: send + more,
            ..DatapathConfig::default()
        };
        let sizes = || [socket.recv_buffer_size(), socket.send_buffer_size()].map(Result::unwrap);
        let forced = buffers(&config(1 << 16)).map(|buffer| buffer.force(&socket));
        if forced.iter().any(Result::is_err) {
            // Without CAP_NET_ADMIN it cannot come to this.
            return;
        }
        let before = sizes();
        let adopted = std::thread::scope(|scope| {
            let adopting = scope.spawn(|| {
                crate::thread::drop_capabilities().unwrap();
                SocketPort::adopt_one(socket.try_clone().unwrap().into(), &config(1 << 20)).map(drop)
            });
            adopting.join().unwrap()
        });
        adopted.unwrap();
        assert_eq!(sizes(), before);
    }

    #[test]
    fn one_partition_receives_and_all_send() {
        let socket = UdpSocket::bind(any()).unwrap();
        let config = DatapathConfig::default();
        let ports = SocketPort::adopt(socket.into(), Partitioning::new(3), 1, &config).unwrap();
        let receive: Vec<bool> = ports.iter().map(SocketPort::receives).collect();
        assert_eq!(receive, [false, true, false]);
    }

    #[test]
    fn group_is_of_different_sockets_that_share_an_address() {
        let adopt =
            |sockets| SocketPort::adopt_group(sockets, Partitioning::new(2), &[], &DatapathConfig::default());
        let refusal = |sockets| adopt(sockets).unwrap_err().to_string();
        assert_eq!(adopt(group(true)).unwrap().len(), 2);
        let one = || OwnedFd::from(UdpSocket::bind(any()).unwrap());
        assert!(refusal(vec![one()]).contains("1 sockets were given for 2"));
        assert!(refusal(vec![one(), one()]).contains("share an address"));
        let one = one();
        assert!(refusal(vec![one.try_clone().unwrap(), one]).contains("SO_REUSEPORT"));
        assert!(refusal(group(false)).contains("SO_REUSEPORT"));
        let twice = group(true).swap_remove(0);
        assert!(refusal(vec![twice.try_clone().unwrap(), twice]).contains("of one socket"));
    }
}
