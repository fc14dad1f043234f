//! The ethtool interface: what sysfs does not say of an interface.

use std::os::fd::AsRawFd;

use socket2::{Domain, Socket, Type};

// linux/ethtool.h
#[cfg(feature = "af_xdp")]
const ETHTOOL_GRINGPARAM: u32 = 0x10;
const ETHTOOL_GCHANNELS: u32 = 0x3c;
const ETHTOOL_GRSSH: u32 = 0x46;
/// `struct ethtool_rxfh` without its variable part, in words: command, context, entries of the table, bytes of the key, hash function (a
/// byte), one that is reserved.
const RXFH_WORDS: usize = 6;
/// The hash function.
const TOEPLITZ: u8 = 1;
/// More than any NIC has: entries of the table, and words of the key.
const TABLE_MAX: usize = 4096;
const KEY_WORDS_MAX: usize = 64;

/// Runs an ethtool command: `words` is its structure, which the kernel fills.
fn ethtool(interface: &str, words: &mut [u32]) -> Option<()> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, None).ok()?;
    let mut request = libc::ifreq {
        ifr_name: name_of(interface),
        ifr_ifru: libc::__c_anonymous_ifr_ifru {
            ifru_data: words.as_mut_ptr().cast(),
        },
    };
    // SAFETY: `request` lives during the call and points to `words`, which has room for all that its command writes: the callers see to it.
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
pub(super) fn channels(interface: &str) -> Option<u32> {
    // struct ethtool_channels: command; the most of receive, transmit, other, combined; and those in use, in the same order.
    let mut words = [0; 9];
    words[0] = ETHTOOL_GCHANNELS;
    ethtool(interface, &mut words)?;
    Some(words[5] + words[8])
}

/// The key and the table of receive side scaling, if its hash is Toeplitz's.
pub(super) fn rss(interface: &str) -> Option<(Vec<u8>, Vec<u32>)> {
    let mut words = vec![0; RXFH_WORDS + TABLE_MAX + KEY_WORDS_MAX];
    words[0] = ETHTOOL_GRSSH;
    // Without room first: the kernel says how much it has.
    ethtool(interface, &mut words)?;
    let (table_len, key_len) = (words[2] as usize, words[3] as usize);
    if table_len == 0 || table_len > TABLE_MAX || key_len > KEY_WORDS_MAX * 4 {
        return None;
    }
    ethtool(interface, &mut words)?;
    if words[4].to_ne_bytes()[0] != TOEPLITZ {
        return None;
    }
    let (table, rest) = words[RXFH_WORDS..].split_at(table_len);
    let key = rest
        .iter()
        .flat_map(|word| word.to_ne_bytes())
        .take(key_len)
        .collect();
    Some((key, table.to_vec()))
}

/// Entries of the ring by which the driver gives its NIC memory to receive into.
#[cfg(feature = "af_xdp")]
pub(crate) fn receive_ring_entries(interface: &str) -> Option<u32> {
    // struct ethtool_ringparam: command; the most of receive, mini, jumbo, transmit; and those in use, in the same order.
    let mut words = [0; 9];
    words[0] = ETHTOOL_GRINGPARAM;
    ethtool(interface, &mut words)?;
    Some(words[5]).filter(|entries| *entries > 0)
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
