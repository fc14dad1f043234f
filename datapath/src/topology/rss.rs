//! Receive side scaling: which queue a NIC chooses for a datagram.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use serde::Serialize;

/// How a NIC spreads what it receives: a Toeplitz hash over addresses and ports, looked up in a table.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Rss {
    /// The secret of the hash: 40 bytes, or 52 where the hash covers more.
    pub key: Vec<u8>,
    /// Queues, by hash modulo the length.
    pub table: Vec<u32>,
    /// What it hashes of UDP over IPv4, if the driver says so.
    pub udp_v4: Option<HashFields>,
    /// What it hashes of UDP over IPv6, if the driver says so.
    pub udp_v6: Option<HashFields>,
}

/// What of a packet is hashed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct HashFields {
    /// The address that it comes from.
    pub source_address: bool,
    /// The address that it goes to.
    pub destination_address: bool,
    /// The port that it comes from.
    pub source_port: bool,
    /// The port that it goes to.
    pub destination_port: bool,
    /// Anything else, such as a VLAN or a flow label.
    pub others: bool,
}

impl HashFields {
    /// Addresses and ports: each flow of UDP goes its own way.
    pub const ADDRESSES_AND_PORTS: HashFields = HashFields {
        source_address: true,
        destination_address: true,
        source_port: true,
        destination_port: true,
        others: false,
    };

    /// True if a port makes a difference.
    pub fn has_ports(&self) -> bool {
        self.source_port || self.destination_port
    }
}

impl fmt::Display for HashFields {
    /// As in `addresses and ports`, `addresses`, `source address, destination port`, `nothing`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let both = |source, destination, kind: &str, kinds: &str| match (source, destination) {
            (true, true) => kinds.to_owned(),
            (true, false) => format!("source {kind}"),
            (false, true) => format!("destination {kind}"),
            (false, false) => String::new(),
        };
        let mut parts = vec![
            both(
                self.source_address,
                self.destination_address,
                "address",
                "addresses",
            ),
            both(self.source_port, self.destination_port, "port", "ports"),
        ];
        if self.others {
            parts.push("more than that".to_owned());
        }
        parts.retain(|part| !part.is_empty());
        match &parts[..] {
            [] => f.write_str("nothing"),
            parts => f.write_str(&parts.join(" and ")),
        }
    }
}

impl Rss {
    /// What it hashes of datagrams over IPv4 or IPv6. Where the driver does not say so, addresses and ports are taken for granted.
    pub fn hash_fields(&self, v6: bool) -> HashFields {
        let fields = if v6 { self.udp_v6 } else { self.udp_v4 };
        fields.unwrap_or(HashFields::ADDRESSES_AND_PORTS)
    }

    /// The queue of a datagram on its way in. `None` if the table is empty, the addresses are of different families, or what is hashed is
    /// not known well enough.
    pub fn queue(&self, source: SocketAddr, destination: SocketAddr) -> Option<u32> {
        let hash = self.hash(source, destination)?;
        let len = u32::try_from(self.table.len()).ok().filter(|&len| len > 0)?;
        self.table.get((hash % len) as usize).copied()
    }

    fn hash(&self, source: SocketAddr, destination: SocketAddr) -> Option<u32> {
        let (from, to) = (source.ip().to_canonical(), destination.ip().to_canonical());
        let fields = self.hash_fields(from.is_ipv6());
        if fields.others {
            return None;
        }
        // What is hashed, in this order, without what is not.
        let mut input = [0; 36];
        let mut len = 0;
        let mut put = |is_hashed: bool, bytes: &[u8]| {
            if is_hashed {
                input[len..len + bytes.len()].copy_from_slice(bytes);
                len += bytes.len();
            }
        };
        match (from, to) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                put(fields.source_address, &from.octets());
                put(fields.destination_address, &to.octets());
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                put(fields.source_address, &from.octets());
                put(fields.destination_address, &to.octets());
            }
            _ => return None,
        }
        put(fields.source_port, &source.port().to_be_bytes());
        put(fields.destination_port, &destination.port().to_be_bytes());
        Some(toeplitz(&self.key, &input[..len]))
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
            udp_v4: None,
            udp_v6: Some(HashFields::ADDRESSES_AND_PORTS),
        }
    }

    const ADDRESSES: HashFields = HashFields {
        source_port: false,
        destination_port: false,
        ..HashFields::ADDRESSES_AND_PORTS
    };

    #[test]
    fn hashes_are_those_of_the_verification_suite() {
        let by_addresses = Rss {
            udp_v4: Some(ADDRESSES),
            udp_v6: Some(ADDRESSES),
            ..rss(4)
        };
        for (source, destination, hash, of_addresses) in [
            (
                "66.9.149.187:2794",
                "161.142.100.80:1766",
                0x51cc_c178,
                0x323e_8fc2,
            ),
            (
                "199.92.111.2:14230",
                "65.69.140.83:4739",
                0xc626_b0ea,
                0xd718_262a,
            ),
            (
                "24.19.198.95:12898",
                "12.22.207.184:38024",
                0x5c2b_394a,
                0xd2d0_a5de,
            ),
            (
                "38.27.205.30:48228",
                "209.142.163.6:2217",
                0xafc7_327f,
                0x8298_9176,
            ),
            (
                "153.39.163.191:44251",
                "202.188.127.2:1303",
                0x10e8_28a2,
                0x5d18_09c5,
            ),
            (
                "[3ffe:2501:200:1fff::7]:2794",
                "[3ffe:2501:200:3::1]:1766",
                0x4020_7d3d,
                0x2cc1_8cd5,
            ),
            (
                "[3ffe:501:8::260:97ff:fe40:efab]:14230",
                "[ff02::1]:4739",
                0xdde5_1bbf,
                0x0f0c_461c,
            ),
            (
                "[3ffe:1900:4545:3:200:f8ff:fe21:67cf]:44251",
                "[fe80::200:f8ff:fe21:67cf]:38024",
                0x02d1_feef,
                0x4b61_e985,
            ),
        ] {
            let (source, destination) = (source.parse().unwrap(), destination.parse().unwrap());
            assert_eq!(
                rss(4).hash(source, destination),
                Some(hash),
                "{source} to {destination}"
            );
            assert_eq!(
                by_addresses.hash(source, destination),
                Some(of_addresses),
                "{source} to {destination}"
            );
        }
    }

    #[test]
    fn what_is_hashed_is_told_in_words() {
        let none = HashFields {
            source_address: false,
            destination_address: false,
            ..ADDRESSES
        };
        for (fields, expected) in [
            (HashFields::ADDRESSES_AND_PORTS, "addresses and ports"),
            (ADDRESSES, "addresses"),
            (none, "nothing"),
            (
                HashFields {
                    destination_port: true,
                    ..none
                },
                "destination port",
            ),
            (
                HashFields {
                    source_address: true,
                    others: true,
                    ..none
                },
                "source address and more than that",
            ),
        ] {
            assert_eq!(fields.to_string(), expected);
        }
    }

    #[test]
    fn hash_over_what_is_not_known_says_no_queue() {
        let fields = HashFields {
            others: true,
            ..HashFields::ADDRESSES_AND_PORTS
        };
        let rss = Rss {
            udp_v4: Some(fields),
            ..rss(4)
        };
        let address = "192.0.2.1:443".parse().unwrap();
        assert_eq!(rss.queue(address, address), None);
    }

    #[test]
    fn short_key_empty_table_and_mixed_families_are_no_danger() {
        let [v4, v6]: [SocketAddr; 2] =
            ["192.0.2.1:443", "[2001:db8::1]:443"].map(|text| text.parse().unwrap());
        assert_eq!(rss(1).queue(v4, v6), None);
        assert_eq!(
            Rss {
                key: Vec::new(),
                table: Vec::new(),
                ..rss(1)
            }
            .queue(v4, v4),
            None
        );
        assert_eq!(
            Rss {
                key: vec![1],
                table: vec![3],
                ..rss(1)
            }
            .queue(v6, v6),
            Some(3)
        );
    }
}
