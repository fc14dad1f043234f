//! What the stacks that do no I/O of their own have in common. The socket: one thread waits at it, takes in many datagrams with a call
//! (recvmmsg, each message a run of equal datagrams by GRO), and gathers what goes out into runs that the kernel cuts into datagrams (GSO).
//! And the client's part of the scenarios.

mod receive;
mod run;
mod send;

use std::fs::File;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::rc::Rc;

use anyhow::{Context, Error, Result};
use quinn_udp::UdpSocketState;
use rustix::net::sockopt;
use socket2::SockRef;

pub use receive::{Receiver, is_handshake};
pub use run::{Run, Stream};
pub use send::Sender;

/// More than the longest datagram of these stacks.
pub const MAX_DATAGRAM: usize = 2048;
/// Of the kernel, as ringperf has them.
const RECEIVE_BUFFER: usize = 8 << 20;
const SEND_BUFFER: usize = 4 << 20;

/// What both directions need.
struct Socket {
    socket: UdpSocket,
    state: UdpSocketState,
    /// The server of a client.
    server: Option<SocketAddr>,
}

impl Socket {
    fn split(socket: UdpSocket, server: Option<SocketAddr>) -> Result<(Receiver, Sender, SocketAddr)> {
        // Beyond the limit of the system, as root; else up to it.
        if sockopt::set_socket_recv_buffer_size_force(&socket, RECEIVE_BUFFER).is_err() {
            SockRef::from(&socket).set_recv_buffer_size(RECEIVE_BUFFER)?;
        }
        if sockopt::set_socket_send_buffer_size_force(&socket, SEND_BUFFER).is_err() {
            SockRef::from(&socket).set_send_buffer_size(SEND_BUFFER)?;
        }
        let local = socket.local_addr()?;
        let state = UdpSocketState::new((&socket).into()).context("setting up the socket")?;
        let socket = Rc::new(Socket {
            socket,
            state,
            server,
        });
        Ok((Receiver::new(Rc::clone(&socket)), Sender::new(socket), local))
    }

    /// Says what an error of the kernel means.
    fn explain(&self, error: io::Error) -> Error {
        let error = Error::new(error);
        match self.server {
            Some(server) => error.context(format!("talking to {server}: is a server running there?")),
            None => error,
        }
    }
}

/// Opens a socket at `local`; its two directions, and its address.
pub fn bind(local: SocketAddr) -> Result<(Receiver, Sender, SocketAddr)> {
    let socket = UdpSocket::bind(local).with_context(|| format!("binding to {local}"))?;
    Socket::split(socket, None)
}

/// Opens a socket for a client of `server`. It hears of nobody else, and learns when nobody listens there.
pub fn connect(server: SocketAddr) -> Result<(Receiver, Sender, SocketAddr)> {
    let any: IpAddr = match server {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).context("binding a socket")?;
    socket
        .connect(server)
        .with_context(|| format!("connecting to {server}"))?;
    Socket::split(socket, Some(server))
}

/// The name of a file that can be read, for libraries that do not say which file cannot.
pub fn readable(file: &Path) -> Result<&str> {
    File::open(file).with_context(|| format!("opening {}", file.display()))?;
    file.to_str()
        .with_context(|| format!("{}: give a name in UTF-8", file.display()))
}

/// What a CONNECTION_CLOSE says.
pub fn describe(is_app: bool, code: u64, reason: &[u8]) -> String {
    let reason = String::from_utf8_lossy(reason);
    match code {
        code if is_app => format!("application code {code} {reason}"),
        // RFC 9001, section 4.8.
        code @ 0x100..=0x1ff => format!("TLS alert {} {reason}", code - 0x100),
        code => format!("transport error {code:#x} {reason}"),
    }
}
