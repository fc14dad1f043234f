//! Receive side scaling: which queue a NIC chooses for a datagram.

use std::net::{IpAddr, SocketAddr};

use serde::Serialize;

/// How a NIC spreads what it receives: a Toeplitz hash over addresses and ports, looked up in a table.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Rss {
    /// The secret of the hash: 40 bytes, or 52 where the hash covers more.
    pub key: Vec<u8>,
    /// Queues, by hash modulo the length.
    pub table: Vec<u32>,
}

impl Rss {
    /// The queue of a datagram on its way in. `None` if the table is empty, or the addresses are of different families.
    pub fn queue(&self, source: SocketAddr, destination: SocketAddr) -> Option<u32> {
        let hash = self.hash(source, destination)?;
        let len = u32::try_from(self.table.len()).ok().filter(|&len| len > 0)?;
        self.table.get((hash % len) as usize).copied()
    }

    /// A port of ours, of those given, for which what `remote` sends back comes in on a queue.
    pub fn port_for_queue(
        &self,
        queue: u32,
        remote: SocketAddr,
        local: IpAddr,
        mut ports: impl Iterator<Item = u16>,
    ) -> Option<u16> {
        ports.find(|&port| self.queue(remote, SocketAddr::new(local, port)) == Some(queue))
    }

    fn hash(&self, source: SocketAddr, destination: SocketAddr) -> Option<u32> {
        let mut input = [0; 36];
        let len = match (source.ip().to_canonical(), destination.ip().to_canonical()) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                input[..4].copy_from_slice(&from.octets());
                input[4..8].copy_from_slice(&to.octets());
                8
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                input[..16].copy_from_slice(&from.octets());
                input[16..32].copy_from_slice(&to.octets());
                32
            }
            _ => return None,
        };
        input[len..len + 2].copy_from_slice(&source.port().to_be_bytes());
        input[len + 2..len + 4].copy_from_slice(&destination.port().to_be_bytes());
        Some(toeplitz(&self.key, &input[..len + 4]))
    }
}

/// For each bit of the input that is set, the 32 bits of the key that begin there, added without carry. Bits beyond the key count as zero.
fn toeplitz(key: &[u8], input: &[u8]) -> u32 {
    let byte = |index: usize| u64::from(key.get(index).copied().unwrap_or(0));
    let mut hash = 0;
    for (index, &input) in input.iter().enumerate() {
        // The 40 bits of the key from this byte on.
        let window = (0..5).fold(0, |window, offset| window << 8 | byte(index + offset));
        for bit in 0..8 {
            if input & (0x80 >> bit) != 0 {
                hash ^= (window >> (8 - bit)) as u32;
            }
        }
    }
    hash
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The key of Microsoft's verification suite ("Verifying the RSS hash calculation"), which the kernel's selftest uses too.
    const KEY: [u8; 40] = [
        0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67, 0x25, 0x3d, 0x43, 0xa3, 0x8f, 0xb0, 0xd0,
        0xca, 0x2b, 0xcb, 0xae, 0x7b, 0x30, 0xb4, 0x77, 0xcb, 0x2d, 0xa3, 0x80, 0x30, 0xf2, 0x0c, 0x6a, 0x42,
        0xb7, 0x3b, 0xbe, 0xac, 0x01, 0xfa,
    ];

    fn rss(queues: u32) -> Rss {
        Rss {
            key: KEY.to_vec(),
            table: (0..128).map(|index| index % queues).collect(),
        }
    }

    #[test]
    fn hashes_are_those_of_the_verification_suite() {
        for (source, destination, hash) in [
            ("66.9.149.187:2794", "161.142.100.80:1766", 0x51cc_c178),
            ("199.92.111.2:14230", "65.69.140.83:4739", 0xc626_b0ea),
            ("24.19.198.95:12898", "12.22.207.184:38024", 0x5c2b_394a),
            ("38.27.205.30:48228", "209.142.163.6:2217", 0xafc7_327f),
            ("153.39.163.191:44251", "202.188.127.2:1303", 0x10e8_28a2),
            (
                "[3ffe:2501:200:1fff::7]:2794",
                "[3ffe:2501:200:3::1]:1766",
                0x4020_7d3d,
            ),
            (
                "[3ffe:501:8::260:97ff:fe40:efab]:14230",
                "[ff02::1]:4739",
                0xdde5_1bbf,
            ),
            (
                "[3ffe:1900:4545:3:200:f8ff:fe21:67cf]:44251",
                "[fe80::200:f8ff:fe21:67cf]:38024",
                0x02d1_feef,
            ),
        ] {
            let (source, destination) = (source.parse().unwrap(), destination.parse().unwrap());
            assert_eq!(
                rss(4).hash(source, destination),
                Some(hash),
                "{source} to {destination}"
            );
        }
    }

    #[test]
    fn each_queue_can_be_reached_by_a_port() {
        let rss = rss(8);
        let remote: SocketAddr = "192.0.2.1:443".parse().unwrap();
        let local: IpAddr = "192.0.2.2".parse().unwrap();
        for queue in 0..8 {
            let port = rss.port_for_queue(queue, remote, local, 49152..=65535).unwrap();
            assert_eq!(rss.queue(remote, SocketAddr::new(local, port)), Some(queue));
        }
        assert_eq!(rss.port_for_queue(8, remote, local, 49152..=65535), None);
    }

    #[test]
    fn short_key_empty_table_and_mixed_families_are_no_danger() {
        let [v4, v6]: [SocketAddr; 2] =
            ["192.0.2.1:443", "[2001:db8::1]:443"].map(|text| text.parse().unwrap());
        assert_eq!(rss(1).queue(v4, v6), None);
        assert_eq!(
            Rss {
                key: Vec::new(),
                table: Vec::new()
            }
            .queue(v4, v4),
            None
        );
        assert_eq!(
            Rss {
                key: vec![1],
                table: vec![3]
            }
            .queue(v6, v6),
            Some(3)
        );
    }
}
