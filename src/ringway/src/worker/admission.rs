//! Which clients may begin a handshake.
//!
//! A handshake costs memory before anything is known of its client. So their number is bounded, each source has a share
//! of it, and clients that have proven their address (RFC 9000 section 8.1) come first: an attacker that sends in the
//! names of others cannot keep them out, and one that answers for its own address takes up no more than its share.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::limits::Limits;

/// The handshakes of clients that are in progress.
pub(super) struct Handshakes {
    limits: Limits,
    /// By source, of clients that only claim their address, and of those that have proven it. The hash is keyed with a
    /// random secret, since peers choose their addresses.
    by_source: HashMap<Source, [u32; 2]>,
    /// The slots of those that may be replaced, oldest first: of clients that only claim their address, or that have failed.
    replaceable: BTreeMap<u64, u32>,
    count: usize,
    next: u64,
}

/// An address without the bits that one host may choose freely.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Source(IpAddr);

/// A handshake that is counted. [`Handshakes::end`] must be told when it is over.
#[derive(Debug)]
pub(super) struct Handshake {
    source: Source,
    proven: bool,
    number: u64,
}

/// What is to be done with a client that wants to begin a handshake.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Admission {
    /// It may.
    Admit,
    /// It may, in place of the handshake in this slot.
    Replace(u32),
    /// Its source has as many as it may have.
    SourceFull,
    /// There are as many as there may be, and all of them come first.
    Full,
}

impl Handshakes {
    pub(super) fn new(limits: Limits) -> Self {
        Handshakes {
            limits,
            by_source: HashMap::new(),
            replaceable: BTreeMap::new(),
            count: 0,
            next: 0,
        }
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.count
    }

    /// What is to be done with a client at this address, which it has proven or only claims.
    pub(super) fn admission(&self, address: IpAddr, proven: bool) -> Admission {
        let of_source = self.by_source.get(&self.source(address));
        if of_source
            .is_some_and(|counts| counts[usize::from(proven)] as usize >= self.limits.handshakes_per_source)
        {
            return Admission::SourceFull;
        }
        if self.count < self.limits.handshakes {
            return Admission::Admit;
        }
        self.oldest_replaceable()
    }

    /// What is to be done with a client for which there is no room.
    pub(super) fn oldest_replaceable(&self) -> Admission {
        match self.replaceable.first_key_value() {
            Some((_, &index)) => Admission::Replace(index),
            None => Admission::Full,
        }
    }

    /// Counts a handshake that begins in this slot.
    pub(super) fn begin(&mut self, index: u32, address: IpAddr, proven: bool) -> Handshake {
        let source = self.source(address);
        self.by_source.entry(source).or_default()[usize::from(proven)] += 1;
        let number = self.next;
        self.next += 1;
        self.count += 1;
        if !proven {
            self.replaceable.insert(number, index);
        }
        Handshake {
            source,
            proven,
            number,
        }
    }

    /// The client has proven its address, by answering what was sent there: its handshake is no longer replaced by others.
    pub(super) fn on_proven(&mut self, handshake: &Handshake) {
        self.replaceable.remove(&handshake.number);
    }

    /// The handshake in this slot has failed: it may be replaced by any other, whatever its client has proven.
    pub(super) fn on_failed(&mut self, handshake: &Handshake, index: u32) {
        self.replaceable.insert(handshake.number, index);
    }

    /// A handshake is over.
    pub(super) fn end(&mut self, handshake: &Handshake) {
        self.count -= 1;
        self.replaceable.remove(&handshake.number);
        if let Some(counts) = self.by_source.get_mut(&handshake.source) {
            counts[usize::from(handshake.proven)] -= 1;
            if *counts == [0, 0] {
                self.by_source.remove(&handshake.source);
            }
        }
    }

    /// Gives back memory that only more handshakes would need.
    pub(super) fn shrink_to_fit(&mut self) {
        self.by_source.shrink_to_fit();
    }

    fn source(&self, address: IpAddr) -> Source {
        let keep = |bits: u8, of: u32| u128::MAX.checked_shl(of - u32::from(bits)).unwrap_or(0);
        Source(match address.to_canonical() {
            IpAddr::V4(ip) => {
                let mask = keep(self.limits.source_prefix_ipv4, 32) as u32;
                IpAddr::V4(Ipv4Addr::from_bits(ip.to_bits() & mask))
            }
            IpAddr::V6(ip) => {
                let mask = keep(self.limits.source_prefix_ipv6, 128);
                IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() & mask))
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn handshakes(handshakes: usize, handshakes_per_source: usize) -> Handshakes {
        Handshakes::new(Limits {
            handshakes,
            handshakes_per_source,
            ..Limits::default()
        })
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn source_has_a_share_and_another_one_has_its_own() {
        let mut table = handshakes(100, 2);
        let begun: Vec<_> = (0..2)
            .map(|index| table.begin(index, ip("192.0.2.1"), false))
            .collect();
        assert_eq!(table.admission(ip("192.0.2.1"), false), Admission::SourceFull);
        assert_eq!(
            table.admission(ip("::ffff:192.0.2.1"), false),
            Admission::SourceFull
        );
        assert_eq!(table.admission(ip("192.0.2.2"), false), Admission::Admit);
        // Whoever has proven the address does not pay for those that claim it.
        assert_eq!(table.admission(ip("192.0.2.1"), true), Admission::Admit);
        table.end(&begun[0]);
        assert_eq!(table.admission(ip("192.0.2.1"), false), Admission::Admit);
    }

    #[test]
    fn network_of_an_ipv6_host_is_one_source() {
        let mut table = handshakes(100, 1);
        table.begin(0, ip("2001:db8:0:1::1"), true);
        assert_eq!(
            table.admission(ip("2001:db8:0:1:ffff::9"), true),
            Admission::SourceFull
        );
        assert_eq!(table.admission(ip("2001:db8:0:2::1"), true), Admission::Admit);
        table.limits.source_prefix_ipv6 = 0;
        table.begin(1, ip("2001:db8:0:1::1"), true);
        assert_eq!(table.admission(ip("fe80::1"), true), Admission::SourceFull);
        table.limits.source_prefix_ipv6 = 128;
        assert_eq!(table.admission(ip("2001:db8:0:1::1"), true), Admission::Admit);
    }

    #[test]
    fn newcomer_takes_the_place_of_the_oldest_that_has_proven_nothing() {
        let mut table = handshakes(3, 100);
        let proven = table.begin(0, ip("192.0.2.1"), true);
        let claimed = table.begin(1, ip("192.0.2.2"), false);
        let later = table.begin(2, ip("192.0.2.3"), false);
        let newcomer = ip("192.0.2.4");
        assert_eq!(table.admission(newcomer, false), Admission::Replace(1));
        assert_eq!(table.admission(newcomer, true), Admission::Replace(1));
        table.on_proven(&claimed);
        assert_eq!(table.admission(newcomer, true), Admission::Replace(2));
        table.on_proven(&later);
        assert_eq!(table.admission(newcomer, true), Admission::Full);
        table.on_failed(&proven, 0);
        assert_eq!(table.admission(newcomer, false), Admission::Replace(0));
        for handshake in [proven, claimed, later] {
            table.end(&handshake);
        }
        assert_eq!(table.len(), 0);
        assert!(table.by_source.is_empty() && table.replaceable.is_empty());
    }
}
