//! Client ports that RSS maps back to the partition of the connection.

use std::net::{SocketAddr, UdpSocket};

use ringway_datapath::topology::Rss;

/// How the NIC distributes what it receives, and which of its queues each partition serves.
#[derive(Clone, Debug)]
pub(super) struct ReturnPaths {
    pub(super) rss: Rss,
    pub(super) queues: Vec<Vec<u32>>,
}

impl ReturnPaths {
    /// Local addresses, from a random port on, for which replies from `remote` arrive on a queue of the partition.
    /// Empty if it serves no queue.
    pub(super) fn addresses(&self, partition: usize, remote: SocketAddr) -> impl Iterator<Item = SocketAddr> {
        let ports = local_for(remote).into_iter().flat_map(|local| {
            let start = local.port().clamp(EPHEMERAL.start, EPHEMERAL.end);
            let ports = (start..EPHEMERAL.end).chain(EPHEMERAL.start..start);
            ports.map(move |port| SocketAddr::new(local.ip(), port))
        });
        let queues = self.queues.get(partition).map_or(&[][..], Vec::as_slice);
        ports.filter(move |local| {
            self.rss
                .queue(remote, *local)
                .is_some_and(|queue| queues.contains(&queue))
        })
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

/// The kernel chooses from these ports too (`net.ipv4.ip_local_port_range`).
const EPHEMERAL: std::ops::Range<u16> = 32_768..60_999;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_come_in_on_the_queues_of_the_partition_that_asked() {
        let paths = ReturnPaths {
            rss: Rss {
                key: (0..40u8).map(|index| index.wrapping_mul(37) ^ 11).collect(),
                table: (0..128).map(|entry| entry % 4).collect(),
            },
            queues: vec![vec![0, 2], vec![3], vec![]],
        };
        for remote in ["127.0.0.1:4433", "[::1]:4433"] {
            let remote: SocketAddr = remote.parse().unwrap();
            for (partition, queues) in paths.queues.iter().enumerate() {
                let found: Vec<_> = paths.addresses(partition, remote).take(20).collect();
                assert_eq!(found.len(), if queues.is_empty() { 0 } else { 20 });
                for local in found {
                    assert_eq!(local.ip(), remote.ip());
                    assert!(queues.contains(&paths.rss.queue(remote, local).unwrap()));
                }
            }
        }
    }
}
