//! Loss detection (RFC 9002 sections 3 to 6) and acknowledgements to send (RFC 9000 section 13.2).
//!
//! [`Recovery`] holds what was sent in the three packet number spaces and decides when it counts as lost and when
//! to probe. It knows nothing of frames: each packet carries tokens of the caller's type, which come back through a
//! [`Sink`] when the packet is acknowledged or lost. What losses mean for the congestion window is the caller's
//! business: outcomes say what happened.

pub(crate) mod ack_tracker;
pub(crate) mod rtt;
mod sent;
#[cfg(test)]
mod tests;

use std::ops::Range;
use std::time::Duration;

use ringway_types::Instant;

use self::rtt::RttEstimator;
pub(crate) use self::sent::{PACKET_THRESHOLD, SentPacket};
use self::sent::{Record, SentPackets};
use crate::wire::error::{TransportError, TransportErrorCode};
use crate::wire::{Side, Space};

/// Takes the tokens of packets whose fate is known.
pub(crate) trait Sink<T> {
    /// The packet was acknowledged.
    fn on_acked(&mut self, space: Space, token: T);
    /// The packet counts as lost.
    fn on_lost(&mut self, space: Space, token: T);
    /// The packet was acknowledged after [`Sink::on_lost`].
    fn on_acked_late(&mut self, space: Space, token: T) {
        self.on_acked(space, token);
    }
    /// After [`Sink::on_lost`], the packet is given up: an acknowledgement of it would not be known any more.
    fn on_forgotten(&mut self, _space: Space, _token: T) {}
}

/// Sent packets of all spaces, the round trip time, and the timers of loss detection.
pub(crate) struct Recovery<T> {
    side: Side,
    rtt: RttEstimator,
    spaces: [Option<Box<SentPackets<T>>>; 3],
    bytes_in_flight: u64,
    /// Probe timeouts in a row without an acknowledgement.
    pto_count: u32,
    /// The longest that the peer says it holds back acknowledgements.
    max_ack_delay: Duration,
    /// The first packet number of the Data space on the path in use.
    path_start: u64,
    /// State of the generator that decides which packet numbers are skipped.
    skip_state: u64,
    /// Since when the peer owes an acknowledgement, if something is outstanding.
    waiting_since: Instant,
}

/// An ACK frame, with its delay decoded (zero for Initial and Handshake).
pub(crate) struct Ack<R> {
    /// The largest packet number acknowledged.
    pub largest: u64,
    /// How long the peer held it back.
    pub delay: Duration,
    /// What is acknowledged, highest range first.
    pub ranges: R,
}

/// What an acknowledgement brought.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct AckOutcome {
    /// Packets newly acknowledged.
    pub packets: u64,
    /// Bytes newly acknowledged that were in flight.
    pub bytes: u64,
    /// The largest newly acknowledged packet number and when the packet was sent.
    pub largest: Option<(u64, Instant)>,
    /// The largest of them went over the path in use.
    pub on_path: bool,
    /// The acknowledgement gave a sample of the round trip time.
    pub rtt_sampled: bool,
    /// Newly acknowledged packets that were sent with ECT(0).
    pub ecn_marked: u64,
    /// Size of a newly acknowledged MTU probe.
    pub mtu_probe: Option<u16>,
    /// Size of the largest newly acknowledged packet.
    pub size_max: u16,
    /// When the latest-sent packet was sent that had counted as lost and now turned out to have arrived.
    pub spurious: Option<Spurious>,
    /// Packets that count as lost now.
    pub loss: Option<Loss>,
}

/// Packets that had counted as lost and were acknowledged after all.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Spurious {
    /// How many.
    pub packets: u64,
    /// When the last of them was sent.
    pub latest_sent: Instant,
    /// No other packet counts as lost.
    pub all: bool,
}

/// Packets that count as lost.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Loss {
    /// How many, MTU probes not counted.
    pub packets: u64,
    /// Bytes of them that were in flight.
    pub bytes: u64,
    /// When the last of them was sent.
    pub latest_sent: Instant,
    /// Nothing got through for so long that the path must be taken as congested (RFC 9002 section 7.6).
    pub persistent: bool,
    /// Size of a lost MTU probe: no sign of congestion.
    pub mtu_probe: Option<u16>,
    /// Size of the largest of them.
    pub size_max: u16,
}

/// What a timeout asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Timeout {
    /// The timer had not expired.
    Nothing,
    /// Packets count as lost.
    Lost(Loss),
    /// Send one or two ack-eliciting packets in this space (RFC 9002 section 6.2.4).
    Probe(Space),
}

/// What loss detection needs to know of the handshake to arm its timer (RFC 9002 section 6.2.2.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct HandshakeState {
    /// Keys for Handshake packets are there.
    pub has_handshake_keys: bool,
    /// The handshake is confirmed (RFC 9001 section 4.1.2).
    pub confirmed: bool,
    /// The peer is known to have validated our address. Always true on servers.
    pub address_validated_by_peer: bool,
    /// The anti-amplification limit forbids sending: no timer for what cannot be sent.
    pub blocked_by_amplification: bool,
}

impl<T: Copy> Recovery<T> {
    /// Nothing sent. `initial_rtt` serves until the first sample; `seed` decides which packet numbers are skipped.
    pub(crate) fn new(side: Side, initial_rtt: Duration, seed: u64) -> Self {
        Recovery {
            side,
            rtt: RttEstimator::new(initial_rtt),
            spaces: std::array::from_fn(|_| Some(Box::default())),
            bytes_in_flight: 0,
            pto_count: 0,
            max_ack_delay: Duration::from_millis(25),
            path_start: 0,
            skip_state: seed | 1,
            waiting_since: Instant::ZERO,
        }
    }

    /// The peer's transport parameter.
    pub(crate) fn set_max_ack_delay(&mut self, delay: Duration) {
        self.max_ack_delay = delay;
    }

    /// Frees records of packets that nobody will acknowledge, and lists that are empty.
    pub(crate) fn shrink_to_fit(&mut self) {
        self.spaces
            .iter_mut()
            .flatten()
            .for_each(|sent| sent.shrink_to_fit());
    }

    /// Bytes that it holds beside itself: what is remembered of packets sent.
    pub(crate) fn memory(&self) -> usize {
        self.spaces.iter().flatten().map(|sent| sent.memory()).sum()
    }

    /// The round trip time.
    #[inline]
    pub(crate) fn rtt(&self) -> &RttEstimator {
        &self.rtt
    }

    /// Bytes sent, neither acknowledged nor lost.
    #[inline]
    pub(crate) fn bytes_in_flight(&self) -> u64 {
        self.bytes_in_flight
    }

    /// Probe timeouts in a row.
    pub(crate) fn pto_count(&self) -> u32 {
        self.pto_count
    }

    /// Ack-eliciting packets are outstanding in `space`.
    #[inline]
    pub(crate) fn has_ack_eliciting(&self, space: Space) -> bool {
        self.space(space).is_some_and(|sent| sent.ack_eliciting > 0)
    }

    /// Ack-eliciting packets are outstanding in some space.
    #[inline]
    pub(crate) fn has_any_ack_eliciting(&self) -> bool {
        Space::ALL.into_iter().any(|space| self.has_ack_eliciting(space))
    }

    /// Since when something is outstanding without an acknowledgement of anything; `None` if nothing is.
    #[inline]
    pub(crate) fn waiting_since(&self) -> Option<Instant> {
        self.has_any_ack_eliciting().then_some(self.waiting_since)
    }

    /// The number of the next packet in `space`.
    ///
    /// In the Data space a number is left out now and then: a peer that acknowledges it acknowledges what it has not
    /// seen (RFC 9000 section 21.4).
    #[inline]
    pub(crate) fn next_number(&self, space: Space) -> u64 {
        self.space(space).map_or(0, |sent| sent.next())
    }

    /// The largest packet number that the peer has acknowledged in `space`.
    #[inline]
    pub(crate) fn largest_acked(&self, space: Space) -> Option<u64> {
        self.space(space)?.largest_acked
    }

    /// A packet with the number [`Recovery::next_number`] goes out. True if [`Recovery::forget`] should follow.
    #[inline]
    pub(crate) fn on_sent(&mut self, space: Space, now: Instant, packet: SentPacket, tokens: &[T]) -> bool {
        let Some(sent) = &mut self.spaces[space as usize] else {
            return false;
        };
        if packet.ack_eliciting && sent.ack_eliciting == 0 {
            self.waiting_since = now;
        }
        sent.push(now, packet, tokens);
        if packet.in_flight {
            self.bytes_in_flight += u64::from(packet.size);
        }
        if space == Space::Data && sent.next() >= sent.next_skip {
            // Intervals of 128 to 4,223 packets: too rare to cost anything, too often to be guessed.
            self.skip_state = self
                .skip_state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            if sent.next_skip != 0 {
                sent.push_skipped(now);
            }
            sent.next_skip = sent.next() + 128 + (self.skip_state >> 52);
        }
        // A connection that only receives sends what nobody acknowledges.
        !packet.ack_eliciting && sent.len() % FORGET_INTERVAL == 0
    }

    /// An ACK frame arrived.
    #[inline]
    pub(crate) fn on_ack(
        &mut self,
        space: Space,
        now: Instant,
        ack: Ack<impl Iterator<Item = Range<u64>>>,
        state: HandshakeState,
        sink: &mut impl Sink<T>,
    ) -> Result<AckOutcome, TransportError> {
        let mut outcome = AckOutcome::default();
        let Some(sent) = &mut self.spaces[space as usize] else {
            return Ok(outcome);
        };
        if ack.largest >= sent.next() {
            return Err(never_sent());
        }
        let mut eliciting = false;
        for range in ack.ranges {
            if sent.skips_in(&range) {
                return Err(never_sent());
            }
            let mut on_packet = |number, record: &Record, was_lost| {
                if was_lost {
                    if !record.in_flight() {
                        return;
                    }
                    let spurious = outcome.spurious.get_or_insert(Spurious {
                        packets: 0,
                        latest_sent: record.time_sent,
                        all: false,
                    });
                    spurious.packets += 1;
                    spurious.latest_sent = spurious.latest_sent.max(record.time_sent);
                    return;
                }
                outcome.packets += 1;
                outcome.ecn_marked += u64::from(record.ecn_marked());
                eliciting |= record.ack_eliciting();
                if record.in_flight() {
                    outcome.bytes += u64::from(record.size);
                }
                if record.mtu_probe() {
                    outcome.mtu_probe = Some(record.size);
                }
                outcome.size_max = outcome.size_max.max(record.size);
                if outcome.largest.is_none_or(|(largest, _)| number > largest) {
                    outcome.largest = Some((number, record.time_sent));
                }
            };
            sent.acknowledge(range, &mut on_packet, &mut |token, is_late| {
                if is_late {
                    sink.on_acked_late(space, token);
                } else {
                    sink.on_acked(space, token);
                }
            });
        }
        self.bytes_in_flight -= outcome.bytes;
        sent.largest_acked = sent.largest_acked.max(Some(ack.largest));
        if let Some(spurious) = &mut outcome.spurious {
            spurious.all = sent.nothing_lost();
        }
        let Some((largest, time_sent)) = outcome.largest else {
            return Ok(outcome);
        };
        self.waiting_since = now;

        // A sample only from the largest acknowledged, newly so, with something ack-eliciting (RFC 9002 section 5.1).
        outcome.on_path = space != Space::Data || largest >= self.path_start;
        if largest == ack.largest && eliciting && outcome.on_path {
            // The peer's promise on delays holds once the handshake is confirmed (RFC 9002 section 5.3).
            let delay = if state.confirmed {
                ack.delay.min(self.max_ack_delay)
            } else {
                ack.delay
            };
            self.rtt.sample(now, now.since(time_sent), delay);
            outcome.rtt_sampled = true;
        }
        outcome.loss = self.detect_losses(space, now, sink);
        // A client that may still be blocked at the server keeps backing off (RFC 9002 section 6.2.1).
        if state.address_validated_by_peer {
            self.pto_count = 0;
        }
        self.forget(space, now, sink);
        Ok(outcome)
    }

    /// When [`Recovery::on_timeout`] is due (RFC 9002 section 6.2.2.1, SetLossDetectionTimer).
    #[inline]
    pub(crate) fn deadline(&self, state: HandshakeState) -> Option<Instant> {
        if let Some((time, _)) = self.earliest_loss_time() {
            return Some(time);
        }
        if state.blocked_by_amplification {
            return None;
        }
        if !self.has_any_ack_eliciting() && state.address_validated_by_peer {
            return None;
        }
        self.pto_deadline(state).map(|(time, _)| time)
    }

    /// The timer may have expired (OnLossDetectionTimeout).
    pub(crate) fn on_timeout(
        &mut self,
        now: Instant,
        state: HandshakeState,
        sink: &mut impl Sink<T>,
    ) -> Timeout {
        if let Some((time, space)) = self.earliest_loss_time() {
            if time > now {
                return Timeout::Nothing;
            }
            let loss = self.detect_losses(space, now, sink);
            self.forget(space, now, sink);
            return loss.map_or(Timeout::Nothing, Timeout::Lost);
        }
        if self.deadline(state).is_none_or(|deadline| deadline > now) {
            return Timeout::Nothing;
        }
        let Some((_, space)) = self.pto_deadline(state) else {
            return Timeout::Nothing;
        };
        self.pto_count = self.pto_count.saturating_add(1);
        Timeout::Probe(space)
    }

    /// When the last packet was sent that the peer must acknowledge.
    pub(crate) fn last_ack_eliciting(&self, space: Space) -> Option<Instant> {
        Some(self.space(space)?.last_ack_eliciting)
    }

    /// A probe timeout ends before its time.
    pub(crate) fn expire_early(&mut self) {
        self.pto_count = self.pto_count.saturating_add(1);
    }

    /// Tokens of the oldest outstanding ack-eliciting packets of a space, for probes to carry again
    /// (RFC 9002 section 6.2.4). The packets stay outstanding.
    pub(crate) fn oldest_tokens(&self, space: Space, mut visit: impl FnMut(T)) {
        if let Some(sent) = self.space(space) {
            sent.oldest_tokens(PROBE_PACKETS, &mut visit);
        }
    }

    /// The probe timeout without backoff; with the peer's delay for the Data space (RFC 9002 section 6.2.1).
    #[inline]
    pub(crate) fn pto(&self, space: Space) -> Duration {
        let delay = if space == Space::Data {
            self.max_ack_delay
        } else {
            Duration::ZERO
        };
        self.rtt.pto() + delay
    }

    /// The keys of a space are discarded: its packets no longer count (RFC 9002 section 6.4).
    pub(crate) fn discard(&mut self, space: Space) {
        if let Some(sent) = self.spaces[space as usize].take() {
            self.bytes_in_flight -= sent.bytes_in_flight();
            self.pto_count = 0;
        }
    }

    /// Everything outstanding in a space is to be sent again, and none of it is a sign of congestion: after a Retry.
    pub(crate) fn resend_all(&mut self, space: Space, sink: &mut impl Sink<T>) {
        let Some(sent) = &mut self.spaces[space as usize] else {
            return;
        };
        self.bytes_in_flight -= sent.bytes_in_flight();
        sent.lose_all(&mut |token, was_lost| {
            if !was_lost {
                sink.on_lost(space, token);
            }
            sink.on_forgotten(space, token);
        });
        self.pto_count = 0;
    }

    /// Tokens of all packets of a space that are neither acknowledged nor given up.
    pub(crate) fn unsettled_tokens(&self, space: Space, mut visit: impl FnMut(T)) {
        if let Some(sent) = self.space(space) {
            sent.unsettled_tokens(&mut visit);
        }
    }

    /// What went out last has not left this machine: everything outstanding is to be sent again, and none of it is a sign of congestion. What
    /// did leave before may still be acknowledged.
    #[cold]
    pub(crate) fn resend_outstanding(&mut self, sink: &mut impl Sink<T>) {
        for space in Space::ALL {
            self.lose_silently(space, |_| true, sink);
        }
    }

    /// A probe for a datagram size has not left this machine.
    #[cold]
    pub(crate) fn on_mtu_probe_refused(&mut self, size: u16, sink: &mut impl Sink<T>) {
        let is_it = |record: &Record| record.mtu_probe() && record.size == size;
        self.lose_silently(Space::Data, is_it, sink);
    }

    #[cold]
    fn lose_silently(&mut self, space: Space, which: impl Fn(&Record) -> bool, sink: &mut impl Sink<T>) {
        let Some(sent) = &mut self.spaces[space as usize] else {
            return;
        };
        let mut in_flight = 0;
        let mut on_packet = |record: &Record| {
            if record.in_flight() {
                in_flight += u64::from(record.size);
            }
        };
        sent.lose_where(which, &mut on_packet, &mut |token| sink.on_lost(space, token));
        self.bytes_in_flight -= in_flight;
    }

    /// The peer is reached over another path, with this round trip time: what becomes of packets that went over the one before says nothing
    /// of the new one (RFC 9000 section 9.4). Their tokens come back as those of others do.
    pub(crate) fn on_path_change(&mut self, rtt: RttEstimator) {
        self.rtt = rtt;
        self.pto_count = 0;
        if let Some(sent) = &mut self.spaces[Space::Data as usize] {
            self.bytes_in_flight -= sent.bytes_in_flight();
            sent.detach_path();
            self.path_start = sent.next();
        }
    }

    #[inline]
    fn space(&self, space: Space) -> Option<&SentPackets<T>> {
        self.spaces[space as usize].as_deref()
    }

    #[inline]
    fn earliest_loss_time(&self) -> Option<(Instant, Space)> {
        Space::ALL
            .into_iter()
            .filter_map(|space| Some((self.space(space)?.loss_time?, space)))
            .min_by_key(|&(time, _)| time)
    }

    /// GetPtoTimeAndSpace.
    fn pto_deadline(&self, state: HandshakeState) -> Option<(Instant, Space)> {
        // 2^16 probe timeouts are hours: the idle timeout has long ended the connection.
        let backoff = 1 << self.pto_count.min(16);
        if !self.has_any_ack_eliciting() {
            // A client unblocks a server that may be at its anti-amplification limit (RFC 9002 section 6.2.2.1).
            debug_assert!(self.side.is_client());
            let space = if state.has_handshake_keys {
                Space::Handshake
            } else {
                Space::Initial
            };
            let last = Space::ALL
                .into_iter()
                .filter_map(|space| self.space(space)?.last_sent)
                .max()?;
            return Some((last + self.rtt.pto() * backoff, space));
        }
        let mut earliest: Option<(Instant, Space)> = None;
        for space in Space::ALL {
            let Some(sent) = self.space(space).filter(|sent| sent.ack_eliciting > 0) else {
                continue;
            };
            if space == Space::Data && !state.confirmed {
                // The peer may not yet be able to read, or to acknowledge, these packets.
                break;
            }
            let time = sent.last_ack_eliciting + self.pto(space) * backoff;
            if earliest.is_none_or(|(other, _)| time < other) {
                earliest = Some((time, space));
            }
        }
        earliest
    }

    /// DetectAndRemoveLostPackets.
    #[inline]
    fn detect_losses(&mut self, space: Space, now: Instant, sink: &mut impl Sink<T>) -> Option<Loss> {
        let sent = self.spaces[space as usize].as_mut()?;
        let delay = self.rtt.loss_delay();
        let mut loss: Option<Loss> = None;
        let mut in_flight = 0;
        let mut on_packet = |record: &Record| {
            let loss = loss.get_or_insert(Loss {
                packets: 0,
                bytes: 0,
                latest_sent: Instant::ZERO,
                persistent: false,
                mtu_probe: None,
                size_max: 0,
            });
            if record.in_flight() {
                in_flight += u64::from(record.size);
            }
            if record.mtu_probe() {
                loss.mtu_probe = Some(record.size);
            } else if record.in_flight() {
                loss.packets += 1;
                loss.bytes += u64::from(record.size);
                loss.latest_sent = loss.latest_sent.max(record.time_sent);
                loss.size_max = loss.size_max.max(record.size);
            }
        };
        sent.detect_losses(now, delay, &mut on_packet, &mut |token| {
            sink.on_lost(space, token)
        });
        self.bytes_in_flight -= in_flight;
        let loss = loss.as_mut()?;
        if let Some(first_sample) = self.rtt.first_sample() {
            let period = (self.rtt.pto() + self.max_ack_delay) * PERSISTENT_CONGESTION_THRESHOLD;
            loss.persistent = loss.packets > 0 && sent.persistent_congestion(first_sample, period);
        }
        Some(*loss)
    }

    /// Lets go of records that nothing will come for any more.
    #[inline]
    pub(crate) fn forget(&mut self, space: Space, now: Instant, sink: &mut impl Sink<T>) {
        // Late acknowledgements are looked for during three probe timeouts.
        let horizon = now - self.pto(space) * 3;
        if let Some(sent) = &mut self.spaces[space as usize] {
            sent.forget(horizon, &mut |token| sink.on_forgotten(space, token));
        }
    }
}

fn never_sent() -> TransportError {
    TransportError::new(
        TransportErrorCode::PROTOCOL_VIOLATION,
        "acknowledgement of a packet that was not sent",
    )
}

/// RFC 9002 section 7.6.1.
const PERSISTENT_CONGESTION_THRESHOLD: u32 = 3;
/// Records after which those of packets that nobody acknowledges are looked through.
const FORGET_INTERVAL: usize = 64;
/// RFC 9002 section 6.2.4.
const PROBE_PACKETS: usize = 2;
