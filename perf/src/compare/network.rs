//! What lies between server and client: loopback, or two network namespaces that are made for the run and gone after it.

use std::ffi::OsStr;
use std::net::{IpAddr, Ipv4Addr};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::contenders::{DatapathKind, NetworkKind};
use crate::namespace::{Namespace, command_in, ip};
use crate::process::run;

/// Which end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Side {
    Server,
    Client,
}

impl Side {
    const BOTH: [Side; 2] = [Side::Server, Side::Client];

    fn name(self) -> &'static str {
        match self {
            Side::Server => "server",
            Side::Client => "client",
        }
    }
}

/// The interface in each namespace.
pub(super) const INTERFACE: &str = "rw0";
const SERVER_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 1);
const CLIENT_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 2);
/// How long the kernel may take to put an interface back when an XDP program has gone.
const RESTORE_MAX: Duration = Duration::from_secs(2);
/// The offloads of an interface that people want to know of.
const SHOWN_OFFLOADS: [&str; 4] = [
    "tx-udp-segmentation",
    "tcp-segmentation-offload",
    "generic-segmentation-offload",
    "generic-receive-offload",
];

/// A network that is up.
pub(super) struct Network {
    pub(super) kind: NetworkKind,
    /// Of server and client; none on loopback.
    namespaces: Option<[Namespace; 2]>,
    /// The offloads of both ends as they were set up.
    offloads: Vec<String>,
}

impl Network {
    /// Fails with the reason where this system does not let us have it.
    pub(super) fn open(kind: NetworkKind) -> Result<Self> {
        let namespaces = kind.is_in_namespaces().then(|| join_namespaces(kind));
        let mut network = Network {
            kind,
            namespaces: namespaces.transpose()?,
            offloads: Vec::new(),
        };
        network.offloads = network.read_offloads().unwrap_or_default();
        Ok(network)
    }

    /// `None` where both ends are in the namespace of this process.
    pub(super) fn namespace(&self, side: Side) -> Option<&str> {
        let [server, client] = self.namespaces.as_ref()?;
        Some(match side {
            Side::Server => server.name(),
            Side::Client => client.name(),
        })
    }

    pub(super) fn address(&self, side: Side) -> IpAddr {
        match (self.kind, side) {
            (NetworkKind::Loopback, _) => Ipv4Addr::LOCALHOST,
            (_, Side::Server) => SERVER_ADDRESS,
            (_, Side::Client) => CLIENT_ADDRESS,
        }
        .into()
    }

    /// A program at this end.
    pub(super) fn command(&self, side: Side, program: impl AsRef<OsStr>) -> Command {
        command_in(self.namespace(side), program)
    }

    /// Sets the interfaces up for a datapath, before a run.
    pub(super) fn prepare(&self, datapath: DatapathKind, cpus: [usize; 2]) -> Result<()> {
        match datapath {
            // Where XDP is in the network stack, the receiver's processor does the receiver's work if it is set to. In the driver, the
            // sender's does it in any case; and sockets are slower so.
            DatapathKind::XdpGeneric => self.steer(cpus.map(mask)),
            _ => Ok(()),
        }
    }

    /// Puts back what a datapath has changed, and makes sure of it: its XDP programs have gone with their processes, and with them what they
    /// did to the offloads.
    pub(super) fn restore(&self, datapath: DatapathKind) -> Result<()> {
        match datapath {
            DatapathKind::Socket | DatapathKind::IoUring => return Ok(()),
            DatapathKind::XdpGeneric => self.steer(["0".to_owned(), "0".to_owned()])?,
            DatapathKind::XdpNative => {}
        }
        let deadline = Instant::now() + RESTORE_MAX;
        while self.read_offloads()? != self.offloads {
            ensure!(
                Instant::now() < deadline,
                "the offloads of {INTERFACE} are not what they were before XDP"
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    fn steer(&self, masks: [String; 2]) -> Result<()> {
        for (side, mask) in Side::BOTH.into_iter().zip(masks) {
            let file = format!("/sys/class/net/{INTERFACE}/queues/rx-0/rps_cpus");
            // A namespace sees its own interfaces in /sys: a command in it has to write.
            let write = format!("echo {mask} >{file}");
            run(self.command(side, "sh").args(["-c", &write]))?;
        }
        Ok(())
    }

    fn interface(&self) -> &'static str {
        match self.kind {
            NetworkKind::Loopback => "lo",
            _ => INTERFACE,
        }
    }

    /// Of each end, what `ethtool -k` prints.
    fn read_offloads(&self) -> Result<Vec<String>> {
        let read = |side| run(self.command(side, "ethtool").args(["-k", self.interface()]));
        match self.namespaces {
            Some(_) => Side::BOTH.into_iter().map(read).collect(),
            None => Ok(vec![read(Side::Server)?]),
        }
    }

    /// For people: what it is, and how it is set.
    pub(super) fn describe(&self) -> String {
        let what = match self.kind {
            NetworkKind::Loopback => "The loopback interface".to_owned(),
            _ => format!(
                "A veth pair between two network namespaces, {INTERFACE} at both ends, one queue, MTU 1500"
            ),
        };
        let settings = |text: &String| {
            let found = SHOWN_OFFLOADS.iter().filter_map(|name| {
                let mut lines = text.lines().filter_map(|line| line.trim().split_once(": "));
                let (_, value) = lines.find(|(key, _)| key == name)?;
                Some(format!("{name} {}", value.split(' ').next()?))
            });
            found.collect::<Vec<_>>().join(", ")
        };
        match self.offloads.first().map(settings) {
            Some(settings) if !settings.is_empty() => format!("{what}; {settings}"),
            _ => what,
        }
    }
}

/// The namespaces of server and client, with a link between them.
fn join_namespaces(kind: NetworkKind) -> Result<[Namespace; 2]> {
    ensure!(
        rustix::process::geteuid().is_root(),
        "network namespaces need root"
    );
    let add = |side: Side| Namespace::add(format!("ringperf-{}-{}", std::process::id(), side.name()));
    let namespaces = [add(Side::Server)?, add(Side::Client)?];
    let [server, client] = &namespaces;
    ip(&format!(
        "link add {INTERFACE} netns {} numrxqueues 1 numtxqueues 1 type veth \
         peer name {INTERFACE} netns {} numrxqueues 1 numtxqueues 1",
        server.name(),
        client.name()
    ))?;
    for (namespace, address) in [(server, SERVER_ADDRESS), (client, CLIENT_ADDRESS)] {
        namespace.ip("link set lo up")?;
        namespace.ip(&format!("link set {INTERFACE} mtu 1500 up"))?;
        namespace.ip(&format!("addr add {address}/24 dev {INTERFACE}"))?;
        if kind == NetworkKind::VethSingle {
            let settings = [
                "-K",
                INTERFACE,
                "tx-udp-segmentation",
                "off",
                "tso",
                "off",
                "gso",
                "off",
            ];
            run(command_in(Some(namespace.name()), "ethtool").args(settings))?;
        }
    }
    Ok(namespaces)
}

/// A processor as the kernel reads sets of them: words of 32 bits in hexadecimal, the highest first.
fn mask(processor: usize) -> String {
    format!(
        "{:x}{}",
        1u32 << (processor % 32),
        ",00000000".repeat(processor / 32)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_of_processors_are_written_as_the_kernel_reads_them() {
        assert_eq!(mask(0), "1");
        assert_eq!(mask(5), "20");
        assert_eq!(mask(33), "2,00000000");
    }

    #[test]
    fn loopback_needs_nothing() {
        let network = Network::open(NetworkKind::Loopback).unwrap();
        assert_eq!(network.address(Side::Client), network.address(Side::Server));
        assert!(network.namespace(Side::Client).is_none());
        let command = network.command(Side::Server, "/program");
        assert_eq!(command.get_program(), "/program");
    }
}
