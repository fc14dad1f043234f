//! Client ports that RSS maps back to the partition of the connection.

use std::net::{SocketAddr, UdpSocket};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use ringway_datapath::config::{AfXdpConfig, Placement};
use ringway_datapath::topology::Rss;

/// Where replies come in, of an interface that may change while we run.
pub(super) struct ReturnPaths {
    interface: AfXdpConfig,
    partitions: Vec<Placement>,
    last: Mutex<Option<(Instant, Option<Spreading>)>>,
}

impl ReturnPaths {
    pub(super) fn new(interface: AfXdpConfig, partitions: Vec<Placement>) -> Self {
        ReturnPaths {
            interface,
            partitions,
            last: Mutex::default(),
        }
    }

    /// How the NIC distributes what it receives, as of the last second. `None` if there is one queue, or the driver does not say.
    pub(super) fn spreading(&self) -> Option<Spreading> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        match &*last {
            Some((read, spreading)) if read.elapsed() < RENEWED_EVERY => spreading.clone(),
            _ => {
                let spreading = self.read();
                *last = Some((Instant::now(), spreading.clone()));
                spreading
            }
        }
    }

    fn read(&self) -> Option<Spreading> {
        let interface = self.interface.read_interface().ok()?;
        let queues = Placement::shares(&self.partitions, &interface);
        let rss = interface.rss.filter(|_| interface.queues.len() > 1)?;
        Some(Spreading { rss, queues })
    }
}

/// How the NIC distributes what it receives, and which of its queues each partition serves.
#[derive(Clone, Debug)]
pub(super) struct Spreading {
    rss: Rss,
    queues: Vec<Vec<u32>>,
}

impl Spreading {
    /// Local addresses, from a random port on, for which replies from `remote` arrive on a queue of the partition.
    /// Empty if it serves no queue, or if our port makes no difference and they arrive elsewhere.
    pub(super) fn addresses(&self, partition: usize, remote: SocketAddr) -> impl Iterator<Item = SocketAddr> {
        let queues = self.queues.get(partition).map_or(&[][..], Vec::as_slice);
        let arrives = move |local: &SocketAddr| {
            self.rss
                .queue(remote, *local)
                .is_some_and(|queue| queues.contains(&queue))
        };
        let any_port = !self
            .rss
            .hash_fields(remote.ip().to_canonical().is_ipv6())
            .destination_port;
        let local = local_for(remote).filter(|local| !any_port || arrives(local));
        let ports = local.into_iter().flat_map(|local| {
            let start = local.port().clamp(EPHEMERAL.start, EPHEMERAL.end);
            let ports = (start..EPHEMERAL.end).chain(EPHEMERAL.start..start);
            ports.map(move |port| SocketAddr::new(local.ip(), port))
        });
        ports.filter(arrives)
    }
}

/// The address that the system would send from, with a port of its choice.
fn local_for(remote: SocketAddr) -> Option<SocketAddr> {
    let any = if remote.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(any).ok()?;
    // Sends nothing: it only selects the source address.
    socket.connect(remote).ok()?;
    socket.local_addr().ok()
}

/// How long what was read of the interface is taken for true.
const RENEWED_EVERY: Duration = Duration::from_secs(1);
/// The kernel chooses from these ports too (`net.ipv4.ip_local_port_range`).
const EPHEMERAL: std::ops::Range<u16> = 32_768..60_999;

#[cfg(test)]
mod tests {
    use ringway_datapath::topology::HashFields;

    use super::*;

    fn spreading(udp: HashFields) -> Spreading {
        Spreading {
            rss: Rss {
                key: (0..40u8).map(|index| index.wrapping_mul(37) ^ 11).collect(),
                table: (0..128).map(|entry| entry % 4).collect(),
                udp_v4: Some(udp),
                udp_v6: Some(udp),
            },
            queues: vec![vec![0, 2], vec![3], vec![]],
        }
    }

    #[test]
    fn answers_come_in_on_the_queues_of_the_partition_that_asked() {
        let spreading = spreading(HashFields::ADDRESSES_AND_PORTS);
        for remote in ["127.0.0.1:4433", "[::1]:4433"] {
            let remote: SocketAddr = remote.parse().unwrap();
            for (partition, queues) in spreading.queues.iter().enumerate() {
                let found: Vec<_> = spreading.addresses(partition, remote).take(20).collect();
                assert_eq!(found.len(), if queues.is_empty() { 0 } else { 20 });
                for local in found {
                    assert_eq!(local.ip(), remote.ip());
                    assert!(queues.contains(&spreading.rss.queue(remote, local).unwrap()));
                }
            }
        }
    }

    #[test]
    fn hash_without_our_port_leaves_every_port_or_none() {
        // What is hashed of a reply: its destination is our port.
        let spreading = spreading(HashFields {
            destination_port: false,
            ..HashFields::ADDRESSES_AND_PORTS
        });
        for remote in ["127.0.0.1:4433", "127.0.0.1:4434", "[::1]:4433"] {
            let remote: SocketAddr = remote.parse().unwrap();
            let queue = spreading
                .rss
                .queue(remote, SocketAddr::new(remote.ip(), 1))
                .unwrap();
            for (partition, queues) in spreading.queues.iter().enumerate() {
                let found = spreading.addresses(partition, remote).count();
                assert_eq!(
                    found,
                    if queues.contains(&queue) {
                        EPHEMERAL.len()
                    } else {
                        0
                    }
                );
            }
        }
    }
}
