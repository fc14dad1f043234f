//! Bound local endpoints, on their way from the thread that binds them to the device that serves them.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use crate::config::DatapathConfig;
use crate::partition::Partitioning;
#[cfg(feature = "sim")]
use crate::sim::SimPort;
use crate::udp::SocketPort;

/// A local UDP endpoint that no device serves yet.
///
/// Binding is apart from the device so that an application's thread can do it and see its errors at once, while the
/// device belongs to another thread.
#[derive(Debug)]
pub enum BoundPort {
    /// A socket of the kernel.
    Socket(SocketPort),
    /// An endpoint of a virtual network.
    #[cfg(feature = "sim")]
    Sim(SimPort),
}

impl BoundPort {
    /// Binds one socket for one partition alone. Port 0 lets the kernel choose.
    ///
    /// # Errors
    ///
    /// The system refuses the address: somebody has the port (`AddrInUse`), it is none of this machine's (`AddrNotAvailable`), or it takes a
    /// privilege (`PermissionDenied`). Or it refuses an option that is needed.
    pub fn socket(local: SocketAddr, config: &DatapathConfig) -> io::Result<Self> {
        SocketPort::bind(local, config).map(BoundPort::Socket)
    }

    /// Binds sockets for all partitions that share one port; arriving datagrams are steered by the partition that
    /// their connection ID names. Those that name none go to the partition whose processor received them, if `processors` says to which
    /// one the thread of each partition is bound, else by the kernel's choice. Fails if anybody has the port already.
    ///
    /// # Errors
    ///
    /// As [`BoundPort::socket`], and if the kernel does not let the program be attached that steers datagrams.
    pub fn socket_group(
        local: SocketAddr,
        partitioning: Partitioning,
        processors: &[usize],
        config: &DatapathConfig,
    ) -> io::Result<Vec<Self>> {
        let ports = SocketPort::bind_group(local, partitioning, processors, config)?;
        Ok(ports.into_iter().map(BoundPort::Socket).collect())
    }

    /// Takes over a UDP socket that the application has opened and bound. The device of this partition receives from it; all send by it. An
    /// error of kind `InvalidInput` says what is wrong with the socket.
    ///
    /// # Errors
    ///
    /// Kind `InvalidInput`: the descriptor is of no UDP socket, or of one that is not bound, or connected, as the error says. Others: the system
    /// refuses an option that is needed. The descriptor is closed.
    pub fn adopt(
        socket: OwnedFd,
        partitioning: Partitioning,
        partition: usize,
        config: &DatapathConfig,
    ) -> io::Result<Vec<Self>> {
        let ports = SocketPort::adopt(socket, partitioning, partition, config)?;
        Ok(ports.into_iter().map(BoundPort::Socket).collect())
    }

    /// Takes over sockets that share one address (SO_REUSEPORT), one for each partition, with what [`BoundPort::socket_group`] has else.
    ///
    /// # Errors
    ///
    /// As [`BoundPort::adopt`], and of kind `InvalidInput`: there are more or fewer sockets than partitions, two are the same, or they do not share
    /// an address by SO_REUSEPORT.
    pub fn adopt_group(
        sockets: Vec<OwnedFd>,
        partitioning: Partitioning,
        processors: &[usize],
        config: &DatapathConfig,
    ) -> io::Result<Vec<Self>> {
        let ports = SocketPort::adopt_group(sockets, partitioning, processors, config)?;
        Ok(ports.into_iter().map(BoundPort::Socket).collect())
    }

    /// The local address, with the port that was chosen.
    pub fn local_addr(&self) -> SocketAddr {
        match self {
            BoundPort::Socket(port) => port.local_addr(),
            #[cfg(feature = "sim")]
            BoundPort::Sim(port) => port.local_addr(),
        }
    }

    /// It is an IPv6 socket that takes no IPv4.
    pub fn is_only_v6(&self) -> bool {
        match self {
            BoundPort::Socket(port) => port.is_only_v6(),
            #[cfg(feature = "sim")]
            BoundPort::Sim(_) => false,
        }
    }

    /// For a device on sockets.
    pub(crate) fn into_socket(self) -> io::Result<SocketPort> {
        match self {
            BoundPort::Socket(port) => Ok(port),
            #[cfg(feature = "sim")]
            BoundPort::Sim(_) => Err(other_kind()),
        }
    }

    /// For a device on a virtual network.
    #[cfg(feature = "sim")]
    pub(crate) fn into_sim(self) -> io::Result<SimPort> {
        match self {
            BoundPort::Sim(port) => Ok(port),
            BoundPort::Socket(_) => Err(other_kind()),
        }
    }
}

#[cfg(feature = "sim")]
fn other_kind() -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidInput,
        "the endpoint is of another kind of device",
    )
}
