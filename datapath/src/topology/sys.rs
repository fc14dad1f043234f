//! The ethtool interface: what sysfs does not say of an interface.

use std::os::fd::AsRawFd;

use socket2::{Domain, Socket, Type};

use super::rss::{HashFields, Rss};

// linux/ethtool.h
#[cfg(feature = "af_xdp")]
const ETHTOOL_GRINGPARAM: u32 = 0x10;
#[cfg(feature = "af_xdp")]
const ETHTOOL_GFLAGS: u32 = 0x25;
const ETHTOOL_GRXFH: u32 = 0x29;
const ETHTOOL_GCHANNELS: u32 = 0x3c;
const ETHTOOL_GRSSH: u32 = 0x46;
/// `struct ethtool_rxfh` without its variable part, in words: command, context, entries of the table, bytes of the key, hash function (a
/// byte), one that is reserved.
const RXFH_WORDS: usize = 6;
const RXNFC_WORDS: usize = 48;
const CHANNELS_WORDS: usize = 9;
#[cfg(feature = "af_xdp")]
const RINGPARAM_WORDS: usize = 9;
/// Of the flags: VLAN tags are taken off what is received.
#[cfg(feature = "af_xdp")]
const ETH_FLAG_RXVLAN: u32 = 1 << 8;
/// The hash function.
const TOEPLITZ: u8 = 1;
/// Kinds of flows.
const UDP_V4_FLOW: u32 = 2;
const UDP_V6_FLOW: u32 = 6;
/// More than any NIC has: entries of the table, and words of the key.
const TABLE_MAX: usize = 4096;
const KEY_WORDS_MAX: usize = 64;

/// Words of the structure of a command, which the kernel reads and writes. `None` if it is none of those that are used here.
fn room(words: &[u32]) -> Option<usize> {
    match *words.first()? {
        // struct ethtool_rxnfc. For this command it counts up to its member `data`, but a driver may write to the whole.
        ETHTOOL_GRXFH => Some(RXNFC_WORDS),
        // struct ethtool_channels
        ETHTOOL_GCHANNELS => Some(CHANNELS_WORDS),
        // struct ethtool_value
        #[cfg(feature = "af_xdp")]
        ETHTOOL_GFLAGS => Some(2),
        // struct ethtool_ringparam
        #[cfg(feature = "af_xdp")]
        ETHTOOL_GRINGPARAM => Some(RINGPARAM_WORDS),
        // The kernel fills the variable part if it has the lengths that are given, and not at all if they are zero.
        ETHTOOL_GRSSH => {
            let (table, key) = (*words.get(2)?, *words.get(3)?);
            RXFH_WORDS
                .checked_add(table as usize)?
                .checked_add(key.div_ceil(4) as usize)
        }
        _ => None,
    }
}

/// Runs an ethtool command: `words` is its structure, which the kernel fills. `None` if it refuses, or has no room to answer.
fn ethtool(interface: &str, words: &mut [u32]) -> Option<()> {
    if words.len() < room(words)? {
        return None;
    }
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, None).ok()?;
    let mut request = libc::ifreq {
        ifr_name: name_of(interface),
        ifr_ifru: libc::__c_anonymous_ifr_ifru {
            ifru_data: words.as_mut_ptr().cast(),
        },
    };
    // SAFETY: `request` lives during the call and points to `words`, which has room for all that its command writes: as was seen above.
    let result = unsafe {
        libc::ioctl(
            socket.as_raw_fd(),
            libc::SIOCETHTOOL as libc::Ioctl,
            &raw mut request,
        )
    };
    (result >= 0).then_some(())
}

/// Receive queues in use.
pub(crate) fn channels(interface: &str) -> Option<u32> {
    // struct ethtool_channels: command; the most of receive, transmit, other, combined; and those in use, in the same order.
    let mut words = [0; CHANNELS_WORDS];
    words[0] = ETHTOOL_GCHANNELS;
    ethtool(interface, &mut words)?;
    Some(words[5] + words[8])
}

/// Receive queues that there may be.
pub(super) fn channels_max(interface: &str) -> Option<u32> {
    let mut words = [0; CHANNELS_WORDS];
    words[0] = ETHTOOL_GCHANNELS;
    ethtool(interface, &mut words)?;
    Some(words[1] + words[4])
}

/// How an interface spreads what it receives, if its hash is Toeplitz's, over what packets have.
pub(super) fn rss(interface: &str) -> Option<Rss> {
    let mut words = vec![0; RXFH_WORDS + TABLE_MAX + KEY_WORDS_MAX];
    words[0] = ETHTOOL_GRSSH;
    // Without room first: the kernel says how much it has.
    ethtool(interface, &mut words)?;
    let (table_len, key_len) = (words[2] as usize, words[3] as usize);
    if table_len == 0 || table_len > TABLE_MAX || key_len > KEY_WORDS_MAX * 4 {
        return None;
    }
    ethtool(interface, &mut words)?;
    // A transformation of the input makes both directions of a flow alike: then it is not hashed as it is.
    let [function, transformation, ..] = words[4].to_ne_bytes();
    if function != TOEPLITZ || transformation != 0 {
        return None;
    }
    let (table, rest) = words[RXFH_WORDS..].split_at(table_len);
    let key = rest
        .iter()
        .flat_map(|word| word.to_ne_bytes())
        .take(key_len)
        .collect();
    Some(Rss {
        key,
        table: table.to_vec(),
        udp_v4: hash_fields(interface, UDP_V4_FLOW),
        udp_v6: hash_fields(interface, UDP_V6_FLOW),
    })
}

/// What of a kind of packets is hashed, if the driver says so.
fn hash_fields(interface: &str, flow: u32) -> Option<HashFields> {
    let mut words = [0; RXNFC_WORDS];
    words[0] = ETHTOOL_GRXFH;
    words[1] = flow;
    ethtool(interface, &mut words)?;
    // RXH_IP_SRC, RXH_IP_DST, RXH_L4_B_0_1 and RXH_L4_B_2_3 of the member `data`, of 64 bits: all that are used are in the lower half.
    let low = if cfg!(target_endian = "little") {
        words[2]
    } else {
        words[3]
    };
    let has = |bit: u32| low & 1 << bit != 0;
    Some(HashFields {
        source_address: has(4),
        destination_address: has(5),
        source_port: has(6),
        destination_port: has(7),
        others: low & !0xf0 != 0,
    })
}

/// Entries of the ring by which the driver gives its NIC memory to receive into.
#[cfg(feature = "af_xdp")]
pub(crate) fn receive_ring_entries(interface: &str) -> Option<u32> {
    // struct ethtool_ringparam: command; the most of receive, mini, jumbo, transmit; and those in use, in the same order.
    let mut words = [0; RINGPARAM_WORDS];
    words[0] = ETHTOOL_GRINGPARAM;
    ethtool(interface, &mut words)?;
    Some(words[5]).filter(|entries| *entries > 0)
}

/// True if VLAN tags are taken off what an interface receives.
#[cfg(feature = "af_xdp")]
pub(crate) fn strips_tags(interface: &str) -> bool {
    let mut words = [ETHTOOL_GFLAGS, 0];
    ethtool(interface, &mut words).is_some() && words[1] & ETH_FLAG_RXVLAN != 0
}

/// Bytes of the largest IP packet that an interface carries now.
#[cfg(feature = "af_xdp")]
pub(crate) fn mtu(interface: &str) -> Option<u32> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, None).ok()?;
    let mut request = libc::ifreq {
        ifr_name: name_of(interface),
        ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_mtu: 0 },
    };
    // SAFETY: `request` lives during the call, and has the form that this request takes.
    let result = unsafe {
        libc::ioctl(
            socket.as_raw_fd(),
            libc::SIOCGIFMTU as libc::Ioctl,
            &raw mut request,
        )
    };
    // SAFETY: written by us, and by the kernel.
    let mtu = unsafe { request.ifr_ifru.ifru_mtu };
    (result >= 0).then_some(mtu)?.try_into().ok()
}

fn name_of(interface: &str) -> [libc::c_char; libc::IFNAMSIZ] {
    let mut name = [0; libc::IFNAMSIZ];
    // The last byte stays zero.
    for (to, from) in name[..libc::IFNAMSIZ - 1].iter_mut().zip(interface.bytes()) {
        *to = from as libc::c_char;
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn structure_that_is_too_short_for_an_answer_is_not_given_to_the_kernel() {
        let long = |words: &[u32], len: usize| {
            let mut all = words.to_vec();
            all.resize(len, 0);
            all
        };
        for (words, needed) in [
            (&[ETHTOOL_GCHANNELS][..], 9),
            (&[ETHTOOL_GRXFH], 48),
            (&[ETHTOOL_GRSSH, 0, 0, 0], 6),
            (&[ETHTOOL_GRSSH, 0, 128, 40], 6 + 128 + 10),
            (&[ETHTOOL_GRSSH, 0, 128, 41], 6 + 128 + 11),
        ] {
            assert_eq!(room(words), Some(needed));
            assert_eq!(ethtool("lo", &mut long(words, needed - 1)), None);
        }
        assert_eq!(room(&[ETHTOOL_GRSSH, 0, 128]), None);
        assert_eq!(
            room(&[0x1]),
            None,
            "what a command of another kind writes is not known"
        );
        assert_eq!(room(&[]), None);
    }
}
