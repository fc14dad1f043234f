//! The command lines of `ringperf floor`, and of the two processes that it starts for each measurement.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use clap::{Args, ValueEnum};
use ringway::{AfXdpConfig, DatapathConfig};
use serde::{Deserialize, Serialize};

use crate::options::{Datapath, XdpAttach};
use crate::processors::ProcessorList;
use crate::ranges;

/// Options of `floor`. Namespaces let AF_XDP send from one end of a virtual link to the other.
#[derive(Args, Clone, Debug)]
pub(crate) struct FloorArgs {
    /// Devices (default: socket, io_uring, and af_xdp where an interface is named)
    #[arg(long, value_enum, value_delimiter = ',')]
    pub datapath: Vec<Datapath>,
    /// The interface of AF_XDP, of this name at both ends
    #[arg(long, value_name = "NAME")]
    pub interface: Option<String>,
    /// Where the XDP program runs (AF_XDP)
    #[arg(long, value_enum, default_value = "auto")]
    pub xdp_attach: XdpAttach,
    /// Address of the receiving end
    #[arg(long, default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    pub address: IpAddr,
    /// Network namespace of the sending end
    #[arg(long, value_name = "NAMESPACE")]
    pub send_in: Option<String>,
    /// Network namespace of the receiving end
    #[arg(long, value_name = "NAMESPACE")]
    pub receive_in: Option<String>,
    /// Processors of the sending and the receiving end
    #[arg(long, default_value = "0,1", value_name = "SEND,RECEIVE")]
    pub cpus: ProcessorList,
    /// How often everything has its turn
    #[arg(long, default_value_t = 5, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub rounds: u32,
    /// How long a turn is
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = ranges::time)]
    pub time: Duration,
    /// Print figures as one line of JSON
    #[arg(long)]
    pub json: bool,
}

/// Options of one endpoint of a measurement.
#[derive(Args, Clone, Debug)]
pub(crate) struct FloorEndpointArgs {
    #[arg(value_enum)]
    pub role: Role,
    #[arg(long, value_enum)]
    pub layer: Layer,
    #[arg(long, value_enum)]
    pub datagrams: DatagramKind,
    #[arg(long, value_enum)]
    pub datapath: Datapath,
    #[arg(long)]
    pub address: SocketAddr,
    #[arg(long, value_parser = humantime::parse_duration)]
    pub time: Duration,
    #[arg(long, value_enum)]
    pub xdp_attach: XdpAttach,
    #[arg(long)]
    pub interface: Option<String>,
    #[arg(long)]
    pub cpu: Option<usize>,
}

/// What moves the datagrams: the layer that is measured.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Layer {
    /// The kernel's interface itself
    Kernel,
    /// The device that stands on it
    Device,
}

/// What the datagrams are.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum DatagramKind {
    /// As they are: nothing is done with them
    Raw,
    /// Copied and sealed; opened and copied
    Sealed,
}

/// Which endpoint of a measurement.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Role {
    /// Sends until it is killed
    Sender,
    /// Receives for a time, and prints how much
    Receiver,
}

impl FloorArgs {
    pub(crate) fn datapaths(&self) -> Vec<Datapath> {
        if !self.datapath.is_empty() {
            return self.datapath.clone();
        }
        let xdp = self.interface.is_some().then_some(Datapath::AfXdp);
        [Datapath::Socket, Datapath::IoUring]
            .into_iter()
            .chain(xdp)
            .collect()
    }
}

impl FloorEndpointArgs {
    pub(crate) fn config(&self) -> DatapathConfig {
        DatapathConfig {
            backend: self.datapath.backend(),
            af_xdp: AfXdpConfig {
                interface: self.interface.clone(),
                attach: self.xdp_attach.attach(),
                // As the frames that it is compared with.
                udp_checksum: false,
                ..AfXdpConfig::default()
            },
            ..DatapathConfig::default()
        }
    }
}
