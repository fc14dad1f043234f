//! The least that moving datagrams costs: one flow, one direction, straight on the interface of the kernel that a device stands on, with
//! nothing of the device's. What a device reaches is compared with it, measured in turn (`ringperf floor`).

mod sys;

use std::io;
use std::net::{SocketAddr, UdpSocket};

pub use self::sys::{DATAGRAM_BYTES, SocketReceiver, SocketSender, UringReceiver, UringSender};
#[cfg(feature = "af_xdp")]
pub use self::sys::{XskReceiver, XskSender};
use crate::config::{Backend, DatapathConfig};

/// Sends datagrams of [`DATAGRAM_BYTES`] to one peer as fast as the kernel takes them.
#[derive(Debug)]
pub enum RawSender {
    /// `sendmsg` with GSO, as many as one message holds.
    Socket(SocketSender),
    /// Such messages through a ring, eight at a time.
    IoUring(Box<UringSender>),
    /// Frames whose headers are written once.
    #[cfg(feature = "af_xdp")]
    AfXdp(Box<XskSender>),
}

/// Receives datagrams of [`DATAGRAM_BYTES`] without sleeping.
#[derive(Debug)]
pub enum RawReceiver {
    /// `recvmsg` with GRO.
    Socket(SocketReceiver),
    /// Multishot receive with GRO into provided buffers.
    IoUring(Box<UringReceiver>),
    /// Frames.
    #[cfg(feature = "af_xdp")]
    AfXdp(Box<XskReceiver>),
}

impl RawSender {
    /// To a peer that listens at `to`, by the backend that `config` names. AF_XDP takes IPv4 neighbours on the same link only.
    ///
    /// # Errors
    ///
    /// Kind `Unsupported`: there is no floor for this kind of device in this program. Others: the system refuses the socket, the ring or the AF_XDP
    /// socket.
    pub fn open(config: &DatapathConfig, to: SocketAddr) -> io::Result<Self> {
        let socket = UdpSocket::bind(if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" })?;
        match config.backend {
            Backend::Socket => SocketSender::new(socket, to).map(RawSender::Socket),
            Backend::IoUring => UringSender::new(socket, to).map(Box::new).map(RawSender::IoUring),
            #[cfg(feature = "af_xdp")]
            Backend::AfXdp => XskSender::new(config, &socket, to)
                .map(Box::new)
                .map(RawSender::AfXdp),
            _ => Err(unsupported()),
        }
    }

    /// Sends as many datagrams as go together, and gives how many; none if the kernel took none. `fill` writes whole ones, back to back.
    ///
    /// # Errors
    ///
    /// The kernel refuses for another reason than that there is no room now.
    pub fn send(&mut self, fill: &mut dyn FnMut(&mut [u8])) -> io::Result<usize> {
        match self {
            RawSender::Socket(sender) => sender.send(fill),
            RawSender::IoUring(sender) => sender.send(fill),
            #[cfg(feature = "af_xdp")]
            RawSender::AfXdp(sender) => sender.send(fill),
        }
    }
}

impl RawReceiver {
    /// At `local`, by the backend that `config` names.
    ///
    /// # Errors
    ///
    /// Kind `Unsupported`: there is no floor for this kind of device in this program. Others: the system refuses the socket, the ring or the AF_XDP
    /// socket.
    pub fn open(config: &DatapathConfig, local: SocketAddr) -> io::Result<Self> {
        let socket = UdpSocket::bind(local)?;
        match config.backend {
            Backend::Socket => SocketReceiver::new(socket).map(RawReceiver::Socket),
            Backend::IoUring => UringReceiver::new(socket).map(Box::new).map(RawReceiver::IoUring),
            #[cfg(feature = "af_xdp")]
            Backend::AfXdp => XskReceiver::new(config, socket)
                .map(Box::new)
                .map(RawReceiver::AfXdp),
            _ => Err(unsupported()),
        }
    }

    /// Where it listens.
    ///
    /// # Errors
    ///
    /// The system does not tell.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        match self {
            RawReceiver::Socket(receiver) => receiver.local_addr(),
            RawReceiver::IoUring(receiver) => receiver.local_addr(),
            #[cfg(feature = "af_xdp")]
            RawReceiver::AfXdp(receiver) => receiver.local_addr(),
        }
    }

    /// Visits what has come, in runs of datagrams of one size, back to back.
    ///
    /// # Errors
    ///
    /// The kernel refuses for another reason than that nothing is there now.
    pub fn receive(&mut self, visit: &mut dyn FnMut(&mut [u8])) -> io::Result<()> {
        match self {
            RawReceiver::Socket(receiver) => receiver.receive(visit),
            RawReceiver::IoUring(receiver) => receiver.receive(visit),
            #[cfg(feature = "af_xdp")]
            RawReceiver::AfXdp(receiver) => {
                receiver.receive(visit);
                Ok(())
            }
        }
    }
}

fn unsupported() -> io::Error {
    io::Error::new(
        io::ErrorKind::Unsupported,
        "there is no floor for this kind of device in this program",
    )
}
