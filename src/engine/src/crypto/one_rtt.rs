//! The keys of 1-RTT packets and their updates (RFC 9001 section 6).

use std::time::Duration;

use ringway_types::Instant;

use super::keys::{DecryptError, DirectionalKeys, Keys, PacketKey, StoredKeys, UpdateSecrets};
use super::suite::{CipherSuite, KeyBytes};
use crate::wire::Version;
use crate::wire::error::{TransportError, TransportErrorCode};

/// 1-RTT keys: of the current phase, of the one before for packets that come late, and of the next once they are likely to be
/// needed.
pub struct OneRttKeys {
    suite: CipherSuite,
    /// Key updates have labels of their own in each version.
    version: Version,
    local: Direction,
    remote: Direction,
    /// `None` for keys made without a handshake (benchmarks): such keys cannot be updated.
    secrets: Option<Box<UpdateSecrets>>,
    /// Made before they are needed, so that opening a packet of the next phase takes no longer than of this one
    /// (RFC 9001 section 9.5).
    next: Option<Box<(NextKey, NextKey)>>,
    previous: Option<Box<Previous>>,
    phase: bool,
    /// The lowest packet number received in the current phase.
    first_received: Option<u64>,
    /// Packets sealed in the current phase.
    sealed: u64,
    /// The first packet number sealed in the current phase.
    first_sealed: Option<u64>,
    /// The peer has acknowledged a packet of the current phase: it has the keys, and the next update may begin.
    confirmed: bool,
    /// Packets sealed in one phase before an update begins by itself.
    update_after: u64,
    /// Packets that did not open, in all phases.
    failures: u64,
    /// Updates begun by either side.
    updates: u64,
}

/// The keys of the current phase in one direction.
struct Direction {
    stored: StoredKeys,
    /// The keys as packets need them. While few packets have been seen they are dropped after each turn: [`OneRttKeys::drop_expanded`].
    expanded: Option<Box<DirectionalKeys>>,
    /// Packets, up to [`FEW_PACKETS`].
    packets: u8,
}

impl Direction {
    fn new(stored: StoredKeys) -> Self {
        Direction {
            stored,
            expanded: None,
            packets: 0,
        }
    }

    #[inline]
    fn expanded(&mut self) -> &mut DirectionalKeys {
        self.expanded
            .get_or_insert_with(|| Box::new(self.stored.expand()))
    }

    #[inline]
    fn count_packet(&mut self) {
        self.packets = FEW_PACKETS.min(self.packets + 1);
    }

    /// Goes over to the next phase; gives the key of this one.
    fn advance(&mut self, next: NextKey) -> PacketKey {
        let last = std::mem::replace(&mut self.expanded().packet, next.expanded);
        self.stored.set_packet(next.stored);
        last
    }

    #[inline]
    fn is_new(&self) -> bool {
        self.packets < FEW_PACKETS
    }

    fn drop_expanded(&mut self) {
        if self.is_new() {
            self.expanded = None;
        }
    }
}

/// A packet key of the next phase.
struct NextKey {
    stored: KeyBytes,
    expanded: PacketKey,
}

struct Previous {
    remote: PacketKey,
    /// `None` until the peer is seen to use the current phase.
    expires: Option<Instant>,
}

/// Why a packet was not opened.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum OpenError {
    /// The packet is not authentic, or of a phase whose keys are gone: drop it.
    Decrypt,
    /// The connection must be closed.
    Fatal(TransportError),
}

impl OneRttKeys {
    pub(super) fn new(
        suite: CipherSuite,
        version: Version,
        keys: Keys,
        secrets: Option<UpdateSecrets>,
    ) -> Self {
        OneRttKeys {
            suite,
            version,
            local: Direction::new(keys.local),
            remote: Direction::new(keys.remote),
            secrets: secrets.map(Box::new),
            next: None,
            previous: None,
            phase: false,
            first_received: None,
            sealed: 0,
            first_sealed: None,
            confirmed: false,
            update_after: suite.confidentiality_limit() / 8 * 7,
            failures: 0,
            updates: 0,
        }
    }

    /// Keys that protect nothing, for benchmarks.
    #[cfg(feature = "null-crypto")]
    pub fn null() -> Self {
        let keys = Keys {
            local: StoredKeys::null(),
            remote: StoredKeys::null(),
        };
        OneRttKeys::new(CipherSuite::ChaCha20Poly1305, Version::V1, keys, None)
    }

    /// Lets an update begin after this many packets, if that is fewer than the AEAD allows.
    pub fn set_update_after(&mut self, packets: u64) {
        self.update_after = self.update_after.min(packets.max(1));
    }

    /// The current phase.
    #[inline]
    pub fn phase(&self) -> bool {
        self.phase
    }

    /// Keys for packets that we send, in the current phase. [`OneRttKeys::on_sealed`] must follow.
    #[inline]
    pub fn local(&mut self) -> &DirectionalKeys {
        self.local.expanded()
    }

    /// The mask that hides the header of a packet that we received, for its sample.
    #[inline]
    pub fn remote_mask(&mut self, sample: &[u8; 16]) -> [u8; 5] {
        self.remote.expanded().header.mask(sample)
    }

    /// True as long as few packets have been sealed, or few opened.
    #[inline]
    pub fn are_new(&self) -> bool {
        self.local.is_new() || self.remote.is_new()
    }

    /// Drops the expanded keys of a direction that has seen few packets; the next packet expands them again.
    pub fn drop_expanded(&mut self) {
        self.local.drop_expanded();
        self.remote.drop_expanded();
    }

    /// Counts a packet as sealed. An error: no packet may be sealed any more.
    #[inline]
    pub fn on_sealed(&mut self, number: u64) -> Result<(), TransportError> {
        self.local.count_packet();
        if self.sealed == 0 {
            self.first_sealed = Some(number);
        }
        self.sealed += 1;
        if self.sealed >= self.suite.confidentiality_limit() {
            return Err(TransportError::new(
                TransportErrorCode::AEAD_LIMIT_REACHED,
                "confidentiality limit reached without a key update",
            ));
        }
        Ok(())
    }

    /// True if so much was sealed in this phase that an update should begin, and may.
    #[inline]
    pub fn wants_update(&self) -> bool {
        self.sealed >= self.update_after && self.may_update()
    }

    /// True if an update is due before long and no packet of this phase has been acknowledged, without which none may begin: who
    /// sends only acknowledgements must send something that is acknowledged.
    #[inline]
    pub fn wants_confirmation(&self) -> bool {
        !self.confirmed && self.sealed >= self.update_after / 2 && self.secrets.is_some()
    }

    /// RFC 9001 section 6.1: an update may begin once a packet of the current phase is acknowledged. The caller
    /// knows whether the handshake is confirmed.
    pub fn may_update(&self) -> bool {
        self.confirmed && self.secrets.is_some()
    }

    /// Begins an update: packets are sealed with the next keys from now on.
    pub fn update(&mut self) {
        debug_assert!(self.may_update());
        // The keys of the phase before last are still waiting for their time: they go now.
        self.advance(None);
    }

    /// An acknowledgement for packet `largest` arrived. True if it is the first for a packet of this phase.
    #[inline]
    pub fn on_ack(&mut self, largest: u64) -> bool {
        let mut first_of_phase = false;
        if self.first_sealed.is_some_and(|first| largest >= first) {
            first_of_phase = !self.confirmed;
            self.confirmed = true;
            // Short connections never update: they need not pay for the next keys.
            if self.next.is_none() && self.sealed >= PREPARE_NEXT_AFTER {
                self.prepare_next();
            }
        }
        first_of_phase
    }

    /// Opens a packet with the key that its phase bit and its number call for, and follows an update of the peer. `retention` is three times
    /// the probe timeout.
    #[inline]
    pub fn open<'a>(
        &mut self,
        now: Instant,
        number: u64,
        phase: bool,
        header: &[u8],
        payload: &'a mut [u8],
        retention: impl Fn() -> Duration,
    ) -> Result<&'a mut [u8], OpenError> {
        if phase == self.phase {
            let opened = self.remote.expanded().packet.open(number, header, payload);
            if opened.is_ok() {
                self.remote.count_packet();
                self.on_received(now, number, retention);
            }
            return opened.map_err(|_| self.on_failure());
        }
        // The other phase bit: of the phase before if the packet is older than this phase, else of the next.
        let is_old = self.first_received.is_none_or(|first| number < first);
        if is_old {
            let Some(previous) = &self.previous else {
                return Err(self.on_failure());
            };
            if previous.expires.is_some_and(|expires| expires <= now) {
                self.previous = None;
                return Err(self.on_failure());
            }
            return previous
                .remote
                .open(number, header, payload)
                .map_err(|_| self.on_failure());
        }
        self.prepare_next();
        let Some(next) = &self.next else {
            return Err(self.on_failure());
        };
        let opened = match next.1.expanded.open(number, header, payload) {
            Ok(opened) => opened,
            Err(DecryptError) => return Err(self.on_failure()),
        };
        if self.sealed == 0 && self.updates > 0 {
            // RFC 9001 section 6.2: the peer cannot have had an acknowledgement in this phase.
            return Err(OpenError::Fatal(TransportError::new(
                TransportErrorCode::KEY_UPDATE_ERROR,
                "second key update before the first was confirmed",
            )));
        }
        self.advance(Some(now + retention()));
        self.remote.count_packet();
        self.first_received = Some(number);
        Ok(opened)
    }

    /// The number of key updates so far.
    pub fn updates(&self) -> u64 {
        self.updates
    }

    #[inline]
    fn on_received(&mut self, now: Instant, number: u64, retention: impl Fn() -> Duration) {
        match self.first_received {
            Some(first) if first <= number => {}
            Some(_) => self.first_received = Some(number),
            None => {
                // RFC 9001 section 6.5: the peer uses the current phase; what is older has this long to arrive.
                self.first_received = Some(number);
                if let Some(previous) = &mut self.previous {
                    previous.expires.get_or_insert_with(|| now + retention());
                }
            }
        }
    }

    fn on_failure(&mut self) -> OpenError {
        self.failures += 1;
        if self.failures >= self.suite.integrity_limit() {
            return OpenError::Fatal(TransportError::new(
                TransportErrorCode::AEAD_LIMIT_REACHED,
                "integrity limit reached",
            ));
        }
        OpenError::Decrypt
    }

    fn prepare_next(&mut self) {
        if self.next.is_none()
            && let Some(secrets) = &mut self.secrets
        {
            let suite = self.suite;
            let expanded = |stored| NextKey {
                expanded: PacketKey::new(&stored, suite),
                stored,
            };
            let (local, remote) = secrets.next(suite, self.version);
            self.next = Some(Box::new((expanded(local), expanded(remote))));
        }
    }

    fn advance(&mut self, previous_expires: Option<Instant>) {
        self.prepare_next();
        let Some(next) = self.next.take() else { return };
        let (local, remote) = *next;
        self.local.advance(local);
        let remote = self.remote.advance(remote);
        self.previous = Some(Box::new(Previous {
            remote,
            expires: previous_expires,
        }));
        self.phase = !self.phase;
        self.first_received = None;
        self.first_sealed = None;
        self.sealed = 0;
        self.confirmed = false;
        self.updates += 1;
    }
}

/// Packets in one direction after which its keys stay expanded.
const FEW_PACKETS: u8 = 16;
/// Packets sealed before the keys of the next phase are prepared.
const PREPARE_NEXT_AFTER: u64 = 64;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::suite::TAG_LEN;
    use crate::crypto::tests::one_rtt_pair;

    struct Peer {
        keys: OneRttKeys,
        next: u64,
    }

    type Packet = (u64, bool, Vec<u8>);

    impl Peer {
        fn seal(&mut self) -> Packet {
            let number = self.next;
            self.next += 1;
            let phase = self.keys.phase();
            let mut packet = vec![phase as u8, 1, 2, 3];
            packet.resize(4 + TAG_LEN, 0);
            self.keys.local().packet.seal(number, &mut packet, 1, &[]);
            self.keys.on_sealed(number).unwrap();
            (number, phase, packet)
        }

        fn open(&mut self, now_ms: u64, packet: &Packet) -> Result<(), OpenError> {
            let (number, phase, mut bytes) = packet.clone();
            let (header, payload) = bytes.split_at_mut(1);
            let now = Instant::from_nanos(now_ms * 1_000_000);
            let plain = self
                .keys
                .open(now, number, phase, header, payload, || Duration::from_millis(30))?;
            assert_eq!(plain, [1, 2, 3]);
            Ok(())
        }

        /// One packet each way and an acknowledgement for ours.
        fn exchange(&mut self, other: &mut Peer, now_ms: u64) {
            let packet = self.seal();
            other.open(now_ms, &packet).unwrap();
            let back = other.seal();
            self.open(now_ms, &back).unwrap();
            self.keys.on_ack(packet.0);
            other.keys.on_ack(back.0);
        }
    }

    fn pair() -> (Peer, Peer) {
        let (client, server) = one_rtt_pair();
        (
            Peer {
                keys: client,
                next: 0,
            },
            Peer {
                keys: server,
                next: 0,
            },
        )
    }

    #[test]
    fn update_is_followed_by_the_peer_and_can_be_repeated() {
        let (mut a, mut b) = pair();
        for round in 0..5 {
            a.exchange(&mut b, round);
            assert!(a.keys.may_update());
            a.keys.update();
            assert!(
                !a.keys.may_update(),
                "not before the peer has acknowledged the new phase"
            );
            a.exchange(&mut b, round);
            assert_eq!((a.keys.updates(), b.keys.updates()), (round + 1, round + 1));
        }
    }

    #[test]
    fn keys_expanded_anew_for_each_packet_protect_the_same_in_every_phase() {
        let (mut a, mut b) = pair();
        let drop_expanded = |a: &mut Peer, b: &mut Peer| {
            for peer in [a, b] {
                peer.keys.drop_expanded();
                let is_expanded =
                    [&peer.keys.local, &peer.keys.remote].map(|direction| direction.expanded.is_some());
                assert_eq!(is_expanded, [!peer.keys.are_new(); 2]);
            }
        };
        for round in 0..FEW_PACKETS.into() {
            a.exchange(&mut b, round);
            drop_expanded(&mut a, &mut b);
            if round % 3 == 1 {
                a.keys.update();
                drop_expanded(&mut a, &mut b);
            }
        }
        assert!(!a.keys.are_new() && b.keys.updates() > 2);
        a.exchange(&mut b, 100);
    }

    #[test]
    fn packets_of_the_phase_before_open_for_a_while_after_an_update() {
        let (mut a, mut b) = pair();
        a.exchange(&mut b, 0);
        let late = [a.seal(), a.seal()];
        a.keys.update();
        let new = a.seal();
        b.open(10, &new).unwrap();
        b.open(39, &late[0]).unwrap();
        assert_eq!(b.open(40, &late[1]), Err(OpenError::Decrypt));
    }

    #[test]
    fn both_sides_may_update_at_once() {
        let (mut a, mut b) = pair();
        a.exchange(&mut b, 0);
        a.keys.update();
        b.keys.update();
        a.exchange(&mut b, 1);
        assert_eq!((a.keys.updates(), b.keys.updates()), (1, 1));
    }

    #[test]
    fn forged_packet_with_the_other_phase_bit_changes_nothing() {
        let (mut a, mut b) = pair();
        a.exchange(&mut b, 0);
        let (number, phase, packet) = a.seal();
        assert_eq!(
            b.open(1, &(number, !phase, packet.clone())),
            Err(OpenError::Decrypt)
        );
        b.open(1, &(number, phase, packet)).unwrap();
        assert_eq!(b.keys.updates(), 0);
        assert_eq!(b.keys.failures, 1);
    }

    #[test]
    fn second_update_of_the_peer_before_the_first_was_answered_is_an_error() {
        let (mut a, mut b) = pair();
        a.exchange(&mut b, 0);
        a.keys.update();
        let first = a.seal();
        b.open(1, &first).unwrap();
        // A peer that does not wait for an acknowledgement in the new phase.
        a.keys.advance(None);
        let second = a.seal();
        let Err(OpenError::Fatal(error)) = b.open(2, &second) else {
            panic!()
        };
        assert_eq!(error.code, TransportErrorCode::KEY_UPDATE_ERROR);
    }

    #[test]
    fn update_is_wanted_after_the_configured_number_of_packets() {
        let (mut a, mut b) = pair();
        a.keys.set_update_after(3);
        a.exchange(&mut b, 0);
        assert!(!a.keys.wants_update());
        a.seal();
        a.seal();
        assert!(a.keys.wants_update());
    }
}
