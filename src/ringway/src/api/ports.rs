//! How endpoints are bound: on the kernel, or on a virtual network.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ringway_datapath::config::DatapathConfig;
use ringway_datapath::partition::Partitioning;
use ringway_datapath::port::BoundPort;
#[cfg(feature = "sim")]
use ringway_datapath::sim::SimNetwork;

use super::return_path::ReturnPaths;

/// What a registration binds its endpoints on.
pub(super) enum Ports {
    Kernel {
        config: DatapathConfig,
        /// Processors that the threads which receive are bound to, by partition; empty if they are not.
        bound: Vec<usize>,
        /// Of the interface, if it is known and has more than one queue.
        return_paths: Option<ReturnPaths>,
    },
    #[cfg(feature = "sim")]
    Sim {
        network: SimNetwork,
        /// Where connections that we open come from.
        ip: IpAddr,
    },
}

impl Ports {
    /// Binds an endpoint for one partition.
    pub(super) fn bind(&self, local: SocketAddr) -> io::Result<BoundPort> {
        match self {
            Ports::Kernel { config, .. } => BoundPort::socket(local, config),
            #[cfg(feature = "sim")]
            Ports::Sim { network, .. } => network.bind(local).map(BoundPort::Sim),
        }
    }

    /// Binds an endpoint for all partitions; by partition.
    pub(super) fn bind_group(
        &self,
        local: SocketAddr,
        partitioning: Partitioning,
    ) -> io::Result<Vec<BoundPort>> {
        match self {
            Ports::Kernel { config, bound, .. } => {
                BoundPort::socket_group(local, partitioning, bound, config)
            }
            #[cfg(feature = "sim")]
            Ports::Sim { network, .. } => {
                let ports = network.bind_group(local, partitioning)?;
                Ok(ports.into_iter().map(BoundPort::Sim).collect())
            }
        }
    }

    /// From which addresses answers come in on a queue of the partition, where the NIC says how it spreads what it receives.
    pub(super) fn return_paths(&self) -> Option<&ReturnPaths> {
        match self {
            Ports::Kernel { return_paths, .. } => return_paths.as_ref(),
            #[cfg(feature = "sim")]
            Ports::Sim { .. } => None,
        }
    }

    /// Where connections that we open come from.
    pub(super) fn client_ip(&self, is_ipv6: bool) -> IpAddr {
        match self {
            Ports::Kernel { .. } if is_ipv6 => Ipv6Addr::UNSPECIFIED.into(),
            Ports::Kernel { .. } => Ipv4Addr::UNSPECIFIED.into(),
            #[cfg(feature = "sim")]
            Ports::Sim { ip, .. } => *ip,
        }
    }
}
