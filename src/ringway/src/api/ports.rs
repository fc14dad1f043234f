//! How ports are receive_processors: on the kernel, or on a simulated network.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;

use ringway_datapath::config::DatapathConfig;
use ringway_datapath::partition::Partitioning;
use ringway_datapath::port::BoundPort;
#[cfg(feature = "sim")]
use ringway_datapath::sim::SimNetwork;

use super::return_path::{ReturnPaths, Spreading};

/// What a registration binds its ports on.
pub(super) enum Ports {
    Kernel {
        config: DatapathConfig,
        /// The processors that the receiving threads are bound to, by partition; empty if they are not bound.
        receive_processors: Vec<usize>,
        /// Of the interface, if one is named and threads are placed by its queues.
        return_paths: Option<Box<ReturnPaths>>,
    },
    #[cfg(feature = "sim")]
    Sim {
        network: SimNetwork,
        /// The address of connections that the application opens.
        ip: IpAddr,
    },
}

impl Ports {
    /// Binds a port for one partition.
    pub(super) fn bind(&self, local: SocketAddr) -> io::Result<BoundPort> {
        match self {
            Ports::Kernel { config, .. } => BoundPort::socket(local, config),
            #[cfg(feature = "sim")]
            Ports::Sim { network, .. } => network.bind(local).map(BoundPort::Sim),
        }
    }

    /// Binds a port for all partitions. Returns it by partition.
    pub(super) fn bind_group(
        &self,
        local: SocketAddr,
        partitioning: Partitioning,
    ) -> io::Result<Vec<BoundPort>> {
        match self {
            Ports::Kernel {
                config,
                receive_processors,
                ..
            } => BoundPort::socket_group(local, partitioning, receive_processors, config),
            #[cfg(feature = "sim")]
            Ports::Sim { network, .. } => {
                let ports = network.bind_group(local, partitioning)?;
                Ok(ports.into_iter().map(BoundPort::Sim).collect())
            }
        }
    }

    /// Takes over a socket of the application that this partition receives from. Returns it by partition.
    pub(super) fn adopt(
        &self,
        socket: OwnedFd,
        partitioning: Partitioning,
        partition: usize,
    ) -> io::Result<Vec<BoundPort>> {
        match self {
            Ports::Kernel { config, .. } => BoundPort::adopt(socket, partitioning, partition, config),
            #[cfg(feature = "sim")]
            Ports::Sim { .. } => Err(simulated()),
        }
    }

    /// Takes over sockets of the application that share an address.
    pub(super) fn adopt_group(
        &self,
        sockets: Vec<OwnedFd>,
        partitioning: Partitioning,
    ) -> io::Result<Vec<BoundPort>> {
        match self {
            Ports::Kernel {
                config,
                receive_processors,
                ..
            } => BoundPort::adopt_group(sockets, partitioning, receive_processors, config),
            #[cfg(feature = "sim")]
            Ports::Sim { .. } => Err(simulated()),
        }
    }

    /// Finds client addresses by where RSS brings the replies, if that is known.
    pub(super) fn return_paths(&self) -> Option<Spreading> {
        match self {
            Ports::Kernel { return_paths, .. } => return_paths.as_ref()?.spreading(),
            #[cfg(feature = "sim")]
            Ports::Sim { .. } => None,
        }
    }

    /// The address to bind for connections that the application opens.
    pub(super) fn client_ip(&self, is_ipv6: bool) -> IpAddr {
        match self {
            Ports::Kernel { .. } if is_ipv6 => Ipv6Addr::UNSPECIFIED.into(),
            Ports::Kernel { .. } => Ipv4Addr::UNSPECIFIED.into(),
            #[cfg(feature = "sim")]
            Ports::Sim { ip, .. } => *ip,
        }
    }
}

#[cfg(feature = "sim")]
fn simulated() -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidInput,
        "a registration on a simulated network takes over no sockets",
    )
}
