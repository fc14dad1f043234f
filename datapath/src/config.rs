//! Settings of the devices, as applications write them.

use std::io;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::source_rules::SourceRule;
use crate::topology::Interface;

/// A kind of device. MsQuic has one for each platform; here it is chosen at run time.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Backend {
    /// The first of `af_xdp` (where an interface is named), `io_uring` and `socket` that this system lets us have. The notes of its
    /// [`Capabilities`](crate::contract::Capabilities) say why it is not an earlier one.
    #[default]
    Auto,
    /// Frames from the queues of a NIC, past the kernel's network stack. Needs the crate's feature `af_xdp`.
    AfXdp,
    /// Kernel sockets through io_uring.
    IoUring,
    /// Kernel sockets and epoll: works everywhere.
    Socket,
}

/// Where the XDP program runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AttachMode {
    /// In the driver if it can, else in the network stack.
    #[default]
    Auto,
    /// In the driver.
    Native,
    /// In the network stack: works with every driver.
    Generic,
}

/// Whether the NIC reads and writes our memory itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CopyMode {
    /// If the driver can.
    #[default]
    Auto,
    /// The kernel copies.
    Copy,
    /// It must: an error if the driver cannot. Not for queues that the driver has only while an XDP program is attached (virtio_net), which
    /// the kernel always copies to and from.
    ZeroCopy,
}

/// To which partition's socket the kernel gives a datagram of a port that all partitions have (`socket`, `io_uring`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Steering {
    /// To that of the partition that its connection ID names, wherever it arrived.
    #[default]
    ConnectionId,
    /// To that of the partition on whose processor it arrived, if threads are bound, else by a hash of its addresses: connections follow what
    /// the NIC does with their flows.
    Flow,
}

/// Settings of AF_XDP.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AfXdpConfig {
    /// The interface whose queues are served. Without a name there is no AF_XDP.
    pub interface: Option<String>,
    /// Its receive queues that are served; what comes in on the others is the kernel's. Default (`None`): all.
    pub queues: Option<Vec<u32>>,
    /// Where the XDP program runs. Default: [`AttachMode::Auto`].
    pub attach: AttachMode,
    /// Whether the NIC reads and writes our memory itself. Default: [`CopyMode::Auto`].
    pub copy: CopyMode,
    /// Send UDP checksums over IPv4. Without, datagrams say that they have none (RFC 768), which saves reading each once more: for links
    /// on which the AEAD of each packet is check enough. IPv6 always has them (RFC 8200 section 8.1). Default: true.
    pub udp_checksum: bool,
    /// What is done with datagrams to our ports, by where they come from: the counterpart to rules of nftables, which does not see what comes
    /// past the kernel. In files: `source_rules = [{ prefix = "192.0.2.0/24", action = "drop" }]`. Default: none, and none are
    /// looked for.
    pub source_rules: Vec<SourceRule>,
}

impl Default for AfXdpConfig {
    fn default() -> Self {
        AfXdpConfig {
            interface: None,
            queues: None,
            attach: AttachMode::default(),
            copy: CopyMode::default(),
            udp_checksum: true,
            source_rules: Vec::new(),
        }
    }
}

/// Settings of the devices.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DatapathConfig {
    /// The kind of device. Default: [`Backend::Auto`].
    pub backend: Backend,
    /// Generic segmentation offload, where the kernel has it: many datagrams in one system call. Default: true.
    pub gso: bool,
    /// Generic receive offload, where the kernel has it. Default: true.
    pub gro: bool,
    /// To which partition's socket the kernel gives a datagram. Default: [`Steering::ConnectionId`].
    pub steering: Steering,
    /// Bytes that the kernel may keep for each socket before they are received. Beyond the system's limit (`net.core.rmem_max`) only with
    /// CAP_NET_ADMIN; as much as is allowed otherwise. Default: 8 MiB.
    pub receive_buffer_bytes: usize,
    /// Bytes that the kernel may keep for each socket before they are sent, likewise. Default: 4 MiB.
    pub send_buffer_bytes: usize,
    /// Receive buffers of 66 KiB that each partition gives the kernel (io_uring): messages that can be handed over before some are
    /// given back. A power of two. Default: 16.
    pub receive_buffers: u16,
    /// Bytes of packet memory that each partition lends at most, at a time, to an application that keeps what it has received where it is
    /// (`ReceivedData::keep`); what it keeps beyond that is copied. Counted are whole buffers (64 KiB) and chunks (AF_XDP), of which a part is kept.
    /// Buffers for those that are lent are made as they are needed; of AF_XDP's chunks, and of those between two threads of a partition, a
    /// quarter is lent at most. 0: everything is copied. Default: 8 MiB.
    pub lent_bytes: usize,
    /// How long the kernel polls the NIC before a thread sleeps: io_uring (Linux 6.9), AF_XDP (Linux 5.11, CAP_NET_ADMIN), where the driver
    /// has NAPI identifiers. Default: zero, not at all.
    #[serde(with = "humantime_serde")]
    pub busy_poll: Duration,
    /// Settings of AF_XDP.
    pub af_xdp: AfXdpConfig,
}

impl Default for DatapathConfig {
    fn default() -> Self {
        DatapathConfig {
            backend: Backend::Auto,
            gso: true,
            gro: true,
            steering: Steering::default(),
            receive_buffer_bytes: 8 << 20,
            send_buffer_bytes: 4 << 20,
            receive_buffers: 16,
            lent_bytes: 8 << 20,
            busy_poll: Duration::ZERO,
            af_xdp: AfXdpConfig::default(),
        }
    }
}

/// Where the device of a partition belongs.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Placement {
    /// The NUMA node that its memory should come from. Default: any.
    pub node: Option<usize>,
    /// Receive queues of the interface that it serves (AF_XDP). Default: its share, queue *q* being that of partition *q* modulo their number.
    pub queues: Option<Vec<u32>>,
}

impl Placement {
    /// The queues that each partition serves of those that an interface has: those of its placement, and its part of those that are in
    /// nobody's. An interface may have more queues by now than when it was planned: drivers add some for an XDP program.
    pub fn shares(partitions: &[Placement], interface: &Interface) -> Vec<Vec<u32>> {
        let there = || interface.queues.iter().map(|queue| queue.number);
        let named = |partition: &Placement, number| {
            let queues = partition.queues.as_ref();
            queues.is_some_and(|queues| queues.contains(&number))
        };
        let mut shares: Vec<Vec<u32>> = partitions
            .iter()
            .map(|partition| there().filter(|number| named(partition, *number)).collect())
            .collect();
        for number in there().filter(|number| !partitions.iter().any(|partition| named(partition, *number))) {
            if partitions.iter().all(|partition| partition.queues.is_none()) {
                shares[number as usize % partitions.len()].push(number);
            } else if let Some(fewest) = shares.iter_mut().min_by_key(|share| share.len()) {
                // Of those that have as few, the first.
                fewest.push(number);
            }
        }
        shares
    }
}

/// Which threads use a device.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Threading {
    /// Only one thread ever uses it, the first that receives or sends with it. Some kinds are cheaper then.
    pub one_thread: bool,
    /// It will be [split](crate::split::split) off from the worker.
    pub split: bool,
}

impl AfXdpConfig {
    /// Reads the interface that is named, with the queues that are served.
    ///
    /// # Errors
    ///
    /// Kind `InvalidInput`: no interface is named, or it has no queue of a number that is. Others as those of [`Interface::read`].
    pub fn read_interface(&self) -> io::Result<Interface> {
        let Some(name) = &self.interface else {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "AF_XDP needs the name of an interface",
            ));
        };
        let mut interface = Interface::read(name)?;
        if let Some(queues) = &self.queues {
            interface.retain_queues(queues)?;
        }
        Ok(interface)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topology::Queue;

    fn shares(placements: &[Option<&[u32]>], queues: u32) -> Vec<Vec<u32>> {
        let placements: Vec<Placement> = placements
            .iter()
            .map(|queues| Placement {
                node: None,
                queues: queues.map(<[u32]>::to_vec),
            })
            .collect();
        let queue = |number| Queue {
            number,
            interrupt: None,
        };
        let interface = Interface {
            queues: (0..queues).map(queue).collect(),
            ..Interface::read("lo").unwrap()
        };
        Placement::shares(&placements, &interface)
    }

    #[test]
    fn queues_that_a_driver_has_added_are_shared_out() {
        // As virtio_net does, which doubles them for a program.
        assert_eq!(shares(&[Some(&[0]), Some(&[1])], 4), [vec![0, 2], vec![1, 3]]);
        assert_eq!(
            shares(&[Some(&[0, 1, 2]), Some(&[3])], 6),
            [vec![0, 1, 2], vec![3, 4, 5]]
        );
        assert_eq!(shares(&[Some(&[]), Some(&[0])], 2), [vec![1], vec![0]]);
    }

    #[test]
    fn queues_that_are_gone_are_nobodys_and_those_without_a_plan_are_dealt_in_turn() {
        assert_eq!(shares(&[Some(&[0, 2]), Some(&[1, 3])], 2), [vec![0], vec![1]]);
        assert_eq!(shares(&[None, None], 5), [vec![0, 2, 4], vec![1, 3]]);
    }
}
