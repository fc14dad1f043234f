//! Datagrams that were not taken for their size, or as there is no way to where they were to go, for those who sent them to be told.

use std::io;
use std::net::SocketAddr;

use crate::meta::TransmitMeta;

/// Datagrams that the kernel, or the device itself, has refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Refusal {
    /// Who sent them: [`TransmitMeta::sender`].
    pub sender: u32,
    /// Where they were to go.
    pub remote: SocketAddr,
    /// Size of each of them in bytes but the last, which may be shorter.
    pub segment_size: usize,
    /// Bytes of all of them.
    pub bytes: usize,
    /// Why.
    pub reason: RefusalReason,
}

/// Why datagrams were refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RefusalReason {
    /// The link that they would go out by carries none so large (`EMSGSIZE`).
    TooBig,
    /// This host has no way there, or no address to send from, for this errno.
    Unreachable(i32),
}

/// Refusals that nobody has taken yet. There is a place for each of a turn's senders, about; those of more are forgotten, and their senders
/// find out by their timers.
#[derive(Debug)]
pub(crate) struct Refusals {
    list: Vec<Refusal>,
}

/// Also the room between the threads of a device that is split.
pub(crate) const REFUSALS_MAX: usize = 64;

impl Refusals {
    pub(crate) fn new() -> Self {
        Refusals {
            list: Vec::with_capacity(REFUSALS_MAX),
        }
    }

    /// Keeps for its sender that a message of `bytes` bytes was refused for its size. Gives how many datagrams it held.
    pub(crate) fn add(&mut self, meta: &TransmitMeta, bytes: usize) -> u64 {
        self.add_for(meta, bytes, RefusalReason::TooBig)
    }

    /// Keeps for its sender that a message of `bytes` bytes was refused for this error, if the sender is to know of that.
    pub(crate) fn add_error(&mut self, meta: &TransmitMeta, bytes: usize, error: &io::Error) {
        // Not those that other hosts cause, or a firewall: they pass.
        if let Some(errno) = error.raw_os_error()
            && matches!(
                errno,
                libc::ENETUNREACH | libc::EADDRNOTAVAIL | libc::EAFNOSUPPORT
            )
        {
            self.add_for(meta, bytes, RefusalReason::Unreachable(errno));
        }
    }

    fn add_for(&mut self, meta: &TransmitMeta, bytes: usize, reason: RefusalReason) -> u64 {
        let refusal = Refusal {
            sender: meta.sender,
            remote: meta.remote,
            segment_size: meta.segment_size,
            bytes,
            reason,
        };
        let is_like = |other: &&mut Refusal| Refusal { bytes, ..**other } == refusal;
        // A flight of a handshake is several messages of one kind.
        if let Some(last) = self.list.last_mut().filter(is_like) {
            last.bytes += bytes;
        } else if self.list.len() < REFUSALS_MAX {
            self.list.push(refusal);
        }
        bytes.div_ceil(meta.segment_size.max(1)) as u64
    }

    pub(crate) fn take(&mut self) -> Option<Refusal> {
        self.list.pop()
    }
}

/// Whether the kernel has refused a message for its size.
///
/// Up to Linux 6.13 it says `EINVAL` of runs (GSO) whose datagrams do not fit the link. The other reasons for that are none of ours, but for
/// datagrams that every link carries.
pub(crate) fn is_too_big(error: &io::Error, segment: Option<u16>) -> bool {
    match error.raw_os_error() {
        Some(libc::EMSGSIZE) => true,
        Some(libc::EINVAL) => segment.is_some_and(|size| size > EVERY_LINK_CARRIES),
        _ => false,
    }
}

/// RFC 9000 section 14.
const EVERY_LINK_CARRIES: u16 = 1200;

#[cfg(test)]
mod tests {
    use ringway_types::{Ecn, PortId};

    use super::*;

    fn meta(sender: u32, segment_size: usize) -> TransmitMeta {
        TransmitMeta {
            port: PortId(0),
            remote: "192.0.2.1:1".parse().unwrap(),
            local_ip: None,
            ecn: Ecn::NotEct,
            dscp: 0,
            segment_size,
            sender,
            probe_timeouts: 0,
        }
    }

    #[test]
    fn refusals_of_one_kind_are_one_and_their_number_is_bounded() {
        let mut refusals = Refusals::new();
        for _ in 0..3 {
            assert_eq!(refusals.add(&meta(1, 1240), 2000), 2);
        }
        let Refusal { sender, bytes, .. } = refusals.take().unwrap();
        assert_eq!((sender, bytes), (1, 6000));
        assert_eq!(refusals.take(), None);
        let room = refusals.list.capacity();
        for sender in 0..1000 {
            refusals.add(&meta(sender, 1240), 1240);
        }
        assert_eq!(
            (refusals.list.len(), refusals.list.capacity()),
            (REFUSALS_MAX, room)
        );
    }

    #[test]
    fn runs_that_older_kernels_call_invalid_are_too_big_if_anything_could_be() {
        let error = io::Error::from_raw_os_error;
        assert!(is_too_big(&error(libc::EMSGSIZE), None));
        assert!(is_too_big(&error(libc::EINVAL), Some(1472)));
        assert!(!is_too_big(&error(libc::EINVAL), Some(1200)));
        assert!(!is_too_big(&error(libc::EINVAL), None));
        assert!(!is_too_big(&error(libc::EIO), Some(1472)));
    }
}
