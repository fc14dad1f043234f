//! Path MTU discovery (RFC 9000 section 14.3, RFC 8899).
//!
//! Probes are packets of PING and PADDING, larger than any other. One that is acknowledged raises the size of all
//! packets; one that is lost says nothing about congestion.

use std::time::Duration;

use ringway_types::Instant;

/// The size of datagrams on one path: UDP payload bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MtuDiscovery {
    current: u16,
    /// Sizes that most paths carry, those of the address family.
    common: [u16; 2],
    /// The largest size to try: ours, the peer's and the device's.
    limit: u16,
    /// The same without the peer's.
    own_limit: u16,
    /// Sizes from this on have failed.
    failed: u16,
    /// Size and number of losses of the probe under way.
    probe: Option<u16>,
    losses: u8,
    /// When the search begins again.
    next_search: Instant,
    /// Losses of a probe after which its size counts as failed.
    probes: u8,
    /// How long after a search the next one begins, in milliseconds.
    raise_ms: u32,
    /// Bursts of loss of packets larger than the base size since one of them was acknowledged.
    suspicions: u8,
}

impl MtuDiscovery {
    /// Starts with datagrams of `initial` bytes; tries no more than `limit`, or 20 bytes less with `ipv6`, whose header is longer by that.
    pub(crate) fn new(initial: u16, limit: u16, ipv6: bool) -> Self {
        let longer = if ipv6 { IPV6_HEADER_LONGER } else { 0 };
        let limit = limit.saturating_sub(longer).max(BASE_PLPMTU);
        MtuDiscovery {
            current: initial.clamp(BASE_PLPMTU, limit),
            common: if ipv6 { COMMON_IPV6 } else { COMMON_IPV4 },
            limit,
            own_limit: limit,
            failed: limit.saturating_add(1),
            probe: None,
            losses: 0,
            next_search: Instant::ZERO,
            probes: PROBES_MAX,
            raise_ms: RAISE_TIMER.as_millis() as u32,
            suspicions: 0,
        }
    }

    /// Sizes fail after so many lost probes, and a search is followed by another one after this time.
    pub(crate) fn with_search(mut self, probes: u8, raise: Duration) -> Self {
        self.probes = probes;
        self.raise_ms = u32::try_from(raise.as_millis()).unwrap_or(u32::MAX);
        self
    }

    /// The peer takes no datagrams larger than `limit` (`max_udp_payload_size`). What it has said before, on a connection whose parameters 0-RTT
    /// goes by, does not hold any more.
    pub(crate) fn limit(&mut self, limit: u64) {
        let has_failed = self.failed <= self.limit;
        let limit = limit.clamp(u64::from(BASE_PLPMTU), u64::from(u16::MAX)) as u16;
        self.limit = self.own_limit.min(limit);
        self.current = self.current.min(self.limit);
        let beyond = self.limit.saturating_add(1);
        self.failed = if has_failed {
            self.failed.min(beyond)
        } else {
            beyond
        };
    }

    /// The size of a full datagram now.
    #[inline]
    pub(crate) fn current(&self) -> u16 {
        self.current
    }

    /// The size of a probe that should be sent now.
    #[inline]
    pub(crate) fn next_probe(&self, now: Instant) -> Option<u16> {
        // Nothing to find most of the time.
        if self.current >= self.limit || self.probe.is_some() || now < self.next_search {
            return None;
        }
        let next = if self.failed > self.limit {
            // Nothing has failed yet: what most paths carry, then the most.
            self.common
                .into_iter()
                .find(|&size| size > self.current && size < self.limit)
                .unwrap_or(self.limit)
        } else {
            // The largest that is common and has not failed, then halves.
            let mut common = self.common.into_iter().rev();
            common
                .find(|&size| size > self.current && size < self.failed)
                .unwrap_or(self.current + (self.failed - self.current) / 2)
        };
        (next > self.current && next < self.failed).then_some(next)
    }

    /// A probe of this size went out.
    pub(crate) fn on_probe_sent(&mut self, size: u16) {
        self.probe = Some(size);
    }

    /// A probe was acknowledged. True if packets may be larger now.
    pub(crate) fn on_probe_acked(&mut self, now: Instant, size: u16) -> bool {
        if self.probe == Some(size) {
            self.probe = None;
            self.losses = 0;
        }
        if size <= self.current || size > self.limit {
            return false;
        }
        self.current = size;
        self.suspicions = 0;
        self.settle(now);
        true
    }

    /// Datagrams of this size were not taken by the device: the link that they would go out by carries less (which
    /// needs no proof, as a message from the network would: it comes from ourselves). Sizes from this one on fail at once; packets of such a size go
    /// back to the base size, and the search goes on from there.
    #[cold]
    pub(crate) fn on_too_big(&mut self, now: Instant, size: u16) -> TooBig {
        if size > self.current {
            if self.probe != Some(size) {
                // Sent before it was known.
                return TooBig::Known;
            }
            self.probe = None;
            self.losses = 0;
            self.failed = self.failed.min(size);
            self.settle(now);
            return TooBig::Probe;
        }
        if size <= BASE_PLPMTU || self.current == BASE_PLPMTU {
            // Every path of QUIC must carry that much: there is nothing to go back to.
            return TooBig::Known;
        }
        self.current = BASE_PLPMTU;
        self.suspicions = 0;
        self.probe = None;
        self.losses = 0;
        self.failed = self.failed.min(size);
        self.next_search = now;
        self.settle(now);
        TooBig::Lowered
    }

    /// A probe was lost.
    pub(crate) fn on_probe_lost(&mut self, now: Instant, size: u16) {
        if self.probe != Some(size) {
            return;
        }
        self.probe = None;
        self.losses += 1;
        if self.losses >= self.probes {
            self.losses = 0;
            self.failed = size;
            self.settle(now);
        }
    }

    /// Ends the search when it is narrow enough, to begin again much later.
    fn settle(&mut self, now: Instant) {
        if self.failed <= self.limit && self.failed - self.current <= NARROW {
            self.failed = self.limit.saturating_add(1);
            self.next_search = now + Duration::from_millis(self.raise_ms.into());
        }
    }

    /// A packet of this size was acknowledged.
    #[inline]
    pub(crate) fn on_acked(&mut self, size: u16) {
        if size > BASE_PLPMTU {
            self.suspicions = 0;
        }
    }

    /// Packets up to this size were lost together. True if the path seems to carry no such packets any more: packets
    /// go back to the base size.
    pub(crate) fn on_lost(&mut self, now: Instant, size_max: u16) -> bool {
        if size_max <= BASE_PLPMTU || self.current == BASE_PLPMTU {
            return false;
        }
        self.suspicions += 1;
        self.suspicions >= BLACK_HOLE_LOSSES && self.fall_back(now)
    }

    /// Nothing was acknowledged during this many probe timeouts. True if packets go back to the base size: it may be
    /// their size that keeps them from arriving.
    pub(crate) fn on_probe_timeout(&mut self, now: Instant, count: u32) -> bool {
        count >= BLACK_HOLE_TIMEOUTS && self.current > BASE_PLPMTU && self.fall_back(now)
    }

    fn fall_back(&mut self, now: Instant) -> bool {
        self.suspicions = 0;
        self.current = BASE_PLPMTU;
        self.probe = None;
        self.losses = 0;
        self.failed = self.limit.saturating_add(1);
        // The path has changed: look again soon, but not at once.
        self.next_search = now + BLACK_HOLE_PAUSE;
        true
    }
}

/// What it means that the device did not take datagrams for their size.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum TooBig {
    /// Nothing new, or nothing that could be helped.
    Known,
    /// The probe under way has failed.
    Probe,
    /// Packets go back to the base size.
    Lowered,
}

/// The size that every path of QUIC carries (RFC 9000 section 14).
pub(crate) const BASE_PLPMTU: u16 = 1200;
/// UDP payloads that fill packets of 1500 and of 9000 bytes.
const COMMON_IPV4: [u16; 2] = [1472, 8972];
const COMMON_IPV6: [u16; 2] = [1452, 8952];
/// By how many bytes an IPv6 header is longer than an IPv4 one.
const IPV6_HEADER_LONGER: u16 = 20;
/// Probes of one size before it counts as failed (RFC 8899 section 5.1.2, MAX_PROBES).
pub(crate) const PROBES_MAX: u8 = 3;
/// A search ends when no more than this could be gained.
const NARROW: u16 = 16;
/// RFC 8899 section 5.1.1, PMTU_RAISE_TIMER.
pub(crate) const RAISE_TIMER: Duration = Duration::from_secs(600);
/// Losses of large packets without any acknowledged in between that make a black hole.
const BLACK_HOLE_LOSSES: u8 = 4;
/// Probe timeouts in a row that do.
const BLACK_HOLE_TIMEOUTS: u32 = 3;
/// Time before a black hole is probed.
const BLACK_HOLE_PAUSE: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Instant = Instant::from_nanos(1);

    /// Runs the search on a path that carries `carries` bytes; gives the number of probes.
    fn search(mtu: &mut MtuDiscovery, carries: u16) -> usize {
        let mut probes = 0;
        while let Some(size) = mtu.next_probe(NOW) {
            probes += 1;
            assert!(probes < 100, "the search must end");
            mtu.on_probe_sent(size);
            assert_eq!(mtu.next_probe(NOW), None, "one probe at a time");
            if size <= carries {
                assert!(mtu.on_probe_acked(NOW, size));
            } else {
                mtu.on_probe_lost(NOW, size);
            }
        }
        probes
    }

    #[test]
    fn ethernet_is_found_with_one_probe() {
        for (limit, ipv6, carries) in [
            (1472, false, 1472),
            (8972, false, 1472),
            (1472, true, 1452),
            (8972, true, 1452),
        ] {
            let mut mtu = MtuDiscovery::new(BASE_PLPMTU, limit, ipv6);
            let first = mtu.next_probe(NOW).unwrap();
            assert_eq!(first, carries);
            mtu.on_probe_sent(first);
            assert!(mtu.on_probe_acked(NOW, first));
        }
        let mut mtu = MtuDiscovery::new(BASE_PLPMTU, 1472, false);
        assert_eq!(search(&mut mtu, 1472), 1);
        // What PPPoE leaves of it.
        search_anew(1464, 1472, false);
    }

    /// Searches and checks what is found.
    fn search_anew(carries: u16, limit: u16, ipv6: bool) {
        let mut mtu = MtuDiscovery::new(BASE_PLPMTU, limit, ipv6);
        search(&mut mtu, carries);
        assert!(
            mtu.current() <= carries && carries - mtu.current() <= NARROW,
            "{carries}: {mtu:?}"
        );
    }

    #[test]
    fn probe_that_the_link_refuses_fails_at_once() {
        let mut mtu = MtuDiscovery::new(BASE_PLPMTU, 1472, true);
        // IPv6 over WireGuard, 6in4 or Tailscale: 1280 bytes, 1232 of them UDP payload.
        let mut refused = Vec::new();
        while let Some(size) = mtu.next_probe(NOW) {
            mtu.on_probe_sent(size);
            if size <= 1232 {
                assert!(mtu.on_probe_acked(NOW, size));
            } else {
                assert_eq!(mtu.on_too_big(NOW, size), TooBig::Probe);
                refused.push(size);
            }
        }
        assert!((1216..=1232).contains(&mtu.current()), "{mtu:?}");
        let mut each_once = refused.clone();
        each_once.dedup();
        assert_eq!(refused, each_once, "no size is tried twice");
        assert!(refused.len() <= 6, "{refused:?}");
        assert_eq!(
            mtu.on_too_big(NOW, 1472),
            TooBig::Known,
            "a late refusal says nothing new"
        );
    }

    #[test]
    fn size_that_the_link_refuses_goes_back_to_the_base_at_once_and_never_below() {
        let mut mtu = MtuDiscovery::new(1240, 1472, true);
        assert_eq!(mtu.on_too_big(NOW, 1240), TooBig::Lowered);
        assert_eq!(mtu.current(), BASE_PLPMTU);
        assert_eq!(mtu.on_too_big(NOW, 1240), TooBig::Known, "of the same flight");
        assert_eq!(mtu.on_too_big(NOW, 1200), TooBig::Known, "nothing is smaller");
        assert_eq!(mtu.current(), BASE_PLPMTU);
        // The search goes on at once, below what was refused.
        let next = mtu.next_probe(NOW).unwrap();
        assert!((1201..1240).contains(&next), "{next}");
    }

    #[test]
    fn any_size_is_found_to_within_the_margin() {
        for carries in (1200..8972).step_by(7) {
            search_anew(carries, 8972, false);
            search_anew(carries.min(8952), 8972, true);
        }
    }

    #[test]
    fn search_begins_again_after_ten_minutes() {
        let mut mtu = MtuDiscovery::new(1200, 1472, false);
        search(&mut mtu, 1300);
        assert_eq!(mtu.next_probe(NOW), None);
        assert!(mtu.next_probe(NOW + RAISE_TIMER).is_some());
    }

    #[test]
    fn probes_and_the_time_between_searches_are_as_set() {
        let mut mtu = MtuDiscovery::new(1200, 1472, false).with_search(1, Duration::from_secs(5));
        let probes = search(&mut mtu, 1300);
        let mut usual = MtuDiscovery::new(1200, 1472, false);
        assert!(search(&mut usual, 1300) > probes, "each size is tried once");
        assert_eq!(mtu.next_probe(NOW + Duration::from_millis(4999)), None);
        assert!(mtu.next_probe(NOW + Duration::from_secs(5)).is_some());
    }

    #[test]
    fn black_hole_falls_back_to_the_base_size_and_is_probed_again() {
        let mut mtu = MtuDiscovery::new(1472, 1472, false);
        for _ in 0..3 {
            assert!(!mtu.on_lost(NOW, 1472));
        }
        mtu.on_acked(1472);
        for _ in 0..3 {
            assert!(!mtu.on_lost(NOW, 1472));
        }
        assert!(!mtu.on_lost(NOW, 1000), "small packets say nothing");
        assert!(mtu.on_lost(NOW, 1472));
        assert_eq!(mtu.current(), 1200);
        assert!(mtu.next_probe(NOW + BLACK_HOLE_PAUSE).is_some());
    }

    #[test]
    fn peer_with_small_buffers_is_respected() {
        let mut mtu = MtuDiscovery::new(1472, 9000, false);
        mtu.limit(1300);
        assert_eq!(mtu.current(), 1300);
        assert_eq!(mtu.next_probe(NOW), None);
        mtu.limit(u64::MAX >> 2);
        assert_eq!(mtu.current(), 1300);
    }

    #[test]
    fn peer_that_takes_larger_datagrams_than_it_did_gets_them() {
        // It said less on the connection that 0-RTT goes on from.
        let mut mtu = MtuDiscovery::new(1472, 9000, false);
        mtu.limit(1300);
        mtu.limit(8000);
        let mut sizes = Vec::new();
        while let Some(size) = mtu.next_probe(NOW) {
            mtu.on_probe_sent(size);
            mtu.on_probe_acked(NOW, size);
            sizes.push(size);
        }
        assert_eq!(mtu.current(), 8000, "{sizes:?}");
        mtu.limit(u64::MAX >> 2);
        assert!(mtu.next_probe(NOW) > Some(8000), "up to ours");
    }

    #[test]
    fn late_acknowledgement_of_a_probe_that_failed_still_counts() {
        let mut mtu = MtuDiscovery::new(1200, 1472, false);
        let size = mtu.next_probe(NOW).unwrap();
        mtu.on_probe_sent(size);
        mtu.on_probe_lost(NOW, size);
        assert!(mtu.on_probe_acked(NOW, size));
        assert_eq!(mtu.current(), size);
    }
}
