//! Packets out: runs of full datagrams, sealed straight from application memory.

use std::time::Duration;

use ringway_types::{Ecn, Instant};

use super::Connection;
use super::close::{CloseFrame, State};
use super::content::{Content, Filled};
use super::paths::{Blocked, DATAGRAM_MIN, PathAddress};
use super::resumption::Early;
use crate::base::coding::Writer;
use crate::crypto::packet::{begin_long, finish_long, seal};
use crate::crypto::suite::TAG_LEN;
use crate::path::mtu::{self, TooBig};
use crate::recovery::SentPacket;
use crate::wire::cid::ConnectionId;
use crate::wire::frame;
use crate::wire::header::{self, LongType};
use crate::wire::{Space, Version, packet_number, stateless};

/// How much may be written into one buffer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TransmitLimits {
    /// Datagrams in one buffer at most: 1 where there is no GSO.
    pub segments_max: usize,
    /// UDP payload of a datagram at most.
    pub datagram_bytes_max: usize,
}

/// Datagrams that were written into a buffer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Transmit {
    /// The addresses.
    pub path: PathAddress,
    /// The ECN codepoint to send them with.
    pub ecn: Ecn,
    /// Their differentiated services codepoint.
    pub dscp: u8,
    /// Size of each but the last, which may be shorter.
    pub segment_size: usize,
    /// Bytes of all of them.
    pub len: usize,
    /// Probe timeouts since anything was acknowledged, up to 255.
    pub probe_timeouts: u8,
}

impl Connection {
    /// Writes datagrams to send now into `buffer`, back to back. Call it until it returns `None`: nothing to send, or not before
    /// [`Connection::deadline`] or the next datagram.
    #[inline]
    pub fn transmit(&mut self, now: Instant, buffer: &mut [u8], limits: &TransmitLimits) -> Option<Transmit> {
        if !self.is_open() {
            return self.transmit_close(now, buffer);
        }
        self.content.streams.set_now(now);
        let transmit = self.transmit_open(now, buffer, limits);
        if transmit.is_none() && self.content.datagrams.is_impatient() {
            self.cancel_impatient_datagrams();
        }
        self.follow_blocked(now, transmit.is_some());
        transmit
    }

    #[inline]
    fn transmit_open(
        &mut self,
        now: Instant,
        buffer: &mut [u8],
        limits: &TransmitLimits,
    ) -> Option<Transmit> {
        if self.has_path_frames()
            && let Some(transmit) = self.transmit_path_frames(now, buffer)
        {
            return Some(transmit);
        }
        if self.handshake.confirmed || (self.handshake.complete && self.handshake.initial.is_none()) {
            if let Some(size) = self.path.mtu.next_probe(now)
                && let Some(transmit) = self.transmit_mtu_probe(now, size, buffer, limits)
            {
                return Some(transmit);
            }
            if self.handshake.confirmed {
                return self.transmit_run(now, buffer, limits);
            }
        }
        self.transmit_handshake(now, buffer, limits)
    }

    /// The device did not take a message of `bytes` bytes in datagrams of `size`: the link that they would have gone out by carries no such
    /// datagrams (`EMSGSIZE`). They are sent again in smaller ones at once, and are no sign of congestion (RFC 9000 section 14.4): no probe
    /// timeout is waited for, after which they would be refused again.
    #[cold]
    pub fn on_datagram_too_big(&mut self, now: Instant, size: usize, bytes: usize) {
        if !self.is_open() {
            return;
        }
        let size = u16::try_from(size).unwrap_or(u16::MAX);
        match self.path.mtu.on_too_big(now, size) {
            TooBig::Known => {}
            TooBig::Probe => self.recovery.on_mtu_probe_refused(size, &mut self.content),
            TooBig::Lowered => {
                // Which packets were in it is not known, nor what is still on its way to the device: all of them, which happens once.
                self.recovery.resend_outstanding(&mut self.content);
                self.on_mtu_changed();
            }
        }
        if size > mtu::BASE_PLPMTU {
            // What has not left does not count against the anti-amplification limit.
            self.path.on_refused(bytes);
        }
    }

    /// Full datagrams of one 1-RTT packet each, back to back.
    #[inline]
    fn transmit_run(&mut self, now: Instant, buffer: &mut [u8], limits: &TransmitLimits) -> Option<Transmit> {
        let allowance = self.path.amplification_allowance();
        let size = usize::from(self.path.mtu.current())
            .min(limits.datagram_bytes_max)
            .min(allowance);
        if size < DATAGRAM_MIN {
            return None;
        }
        self.before_sending(now);
        let ecn = self.path.ecn.mark();
        let segments = limits.segments_max.min(buffer.len().min(allowance) / size);
        let mut len = 0;
        for _ in 0..segments {
            let may_send_data = self.may_send_data(size);
            let written = self.build_short(now, &mut buffer[len..len + size], may_send_data, 0, ecn);
            if written == 0 {
                break;
            }
            len += written;
            if written < size {
                break;
            }
        }
        self.finish_transmit(len, size.min(len), ecn)
    }

    /// One datagram of packets of any space, coalesced (RFC 9000 section 12.2).
    fn transmit_handshake(
        &mut self,
        now: Instant,
        buffer: &mut [u8],
        limits: &TransmitLimits,
    ) -> Option<Transmit> {
        let size = usize::from(self.path.mtu.current())
            .min(limits.datagram_bytes_max)
            .min(buffer.len());
        let size = size.min(self.path.amplification_allowance());
        if size < DATAGRAM_MIN {
            return None;
        }
        self.before_sending(now);
        let ecn = self.path.ecn.mark();
        let mut len = 0;
        let mut pad = false;
        for space in Space::ALL {
            let room = size - len;
            if room < COALESCED_MIN || !self.wants(now, space) {
                continue;
            }
            let may_send_data = self.may_send_data(room);
            // Datagrams with an Initial are padded: of a client always, of a server if it is ack-eliciting
            // (RFC 9000 section 14.1).
            pad |= space == Space::Initial
                && (self.side.is_client() || may_send_data && self.content.has_data(space));
            let later = Space::ALL.into_iter().any(|later| {
                later > space
                    && self.wants(now, later)
                    && (may_send_data || self.content.spaces[later].acks.is_due(now))
            });
            let plan = Padding {
                to: if pad {
                    usize::from(mtu::BASE_PLPMTU).saturating_sub(len).min(room)
                } else {
                    0
                },
                // Not if another packet follows, unless this one leaves no room for it.
                unless_room: if later { COALESCED_MIN } else { usize::MAX },
            };
            len += match space {
                Space::Data if self.handshake.one_rtt.is_none() => {
                    // Without an Initial in front of it, it need not be full.
                    let pad_to = if len > 0 { plan.to } else { 0 };
                    self.build_zero_rtt(now, &mut buffer[len..size], may_send_data, pad_to, ecn)
                }
                Space::Data => self.build_short(now, &mut buffer[len..size], may_send_data, plan.to, ecn),
                _ => self.build_long(now, space, &mut buffer[len..size], may_send_data, plan, ecn),
            };
        }
        self.finish_transmit(len, len, ecn)
    }

    /// Whether a packet of this space is to be sent.
    #[inline]
    fn wants(&self, now: Instant, space: Space) -> bool {
        self.handshake.can_send(space)
            && (self.content.has_data(space)
                || self.content.spaces[space].acks.is_due(now)
                || self.probes[space as usize] > 0)
    }

    /// Whether congestion window and pacer let a packet of this size go, or a probe is due, which they do not bind.
    #[inline]
    fn may_send_data(&mut self, size: usize) -> bool {
        if self.probes.iter().any(|&probes| probes > 0) {
            return true;
        }
        let size = size as u64;
        let blocked = if self.recovery.bytes_in_flight() + size > self.path.controller.window() {
            Blocked::CongestionWindow
        } else if self.config.pacing && !self.path.pacer.allows(size) {
            Blocked::Pacing
        } else {
            return true;
        };
        if Space::ALL
            .into_iter()
            .any(|space| self.handshake.can_send(space) && self.content.has_data(space))
        {
            self.blocked = blocked;
        }
        false
    }

    /// Before the first packet of a turn: what the time that has gone by means for congestion window, pace and keys.
    #[inline]
    fn before_sending(&mut self, now: Instant) {
        self.blocked = Blocked::No;
        if self.recovery.bytes_in_flight() == 0 {
            let idle = now.since(self.last_data_sent);
            if idle >= self.config.send_idle_timeout.min(self.config.remote_cid_idle) {
                self.after_idle(now, idle);
            }
        }
        if self.config.pacing {
            let pace = self.path.pace(self.recovery.rtt());
            self.path.pacer.refill(now, &pace);
        }
        if let Some(keys) = &mut self.handshake.one_rtt
            && self.handshake.confirmed
            && now >= self.next_key_update
            && (keys.wants_update() || (self.update_keys_wanted && keys.may_update()))
        {
            self.update_keys_wanted = false;
            keys.update();
            self.content.stats.key_updates += 1;
        }
    }

    /// Nothing was sent for a while.
    #[cold]
    fn after_idle(&mut self, now: Instant, idle: Duration) {
        let is_over = |timeout: Duration| !timeout.is_zero() && idle > timeout;
        if is_over(self.config.send_idle_timeout) {
            self.path.controller.on_idle(self.config.initial_window_packets);
        }
        let may_change = self.handshake.confirmed && self.path.challenge.is_none();
        if is_over(self.config.remote_cid_idle) && may_change && self.content.has_data(Space::Data) {
            // Whoever has seen both does not see by the connection ID that they belong together (RFC 9000 section 9.5).
            self.last_data_sent = now;
            let renewed = self.content.remote_cids.renew();
            self.check(now, renewed);
        }
    }

    fn finish_transmit(&mut self, len: usize, segment_size: usize, ecn: Ecn) -> Option<Transmit> {
        if len == 0 {
            return None;
        }
        self.path.on_sent(len);
        Some(self.count_transmit(len, segment_size, ecn))
    }

    fn count_transmit(&mut self, len: usize, segment_size: usize, ecn: Ecn) -> Transmit {
        self.content.stats.sent_datagrams += len.div_ceil(segment_size) as u64;
        self.content.stats.sent_bytes += len as u64;
        Transmit {
            path: self.path.address,
            ecn,
            dscp: self.config.dscp,
            segment_size,
            len,
            probe_timeouts: self.recovery.pto_count().min(255) as u8,
        }
    }

    /// Builds one 1-RTT packet at the start of `out` and gives its length; 0 if there is nothing to send. It is padded
    /// to `pad_to` bytes.
    #[inline]
    fn build_short(
        &mut self,
        now: Instant,
        out: &mut [u8],
        may_send_data: bool,
        pad_to: usize,
        ecn: Ecn,
    ) -> usize {
        let space = Space::Data;
        let Connection {
            handshake,
            content,
            recovery,
            ..
        } = self;
        let Some(keys) = &mut handshake.one_rtt else {
            return 0;
        };
        let number = recovery.next_number(space);
        let encoded = packet_number::encode(number, recovery.largest_acked(space));
        let capacity = out.len() - TAG_LEN;
        let mut w = Writer::new(&mut out[..capacity]);
        header::encode_short(&mut w, content.remote_cids.current(), keys.phase(), encoded);
        let header_len = w.len();
        content.begin_packet(space, &self.probes);
        let acks = &content.spaces[space].acks;
        if acks.is_due(now)
            && (acks.ranges().len() > RANGES_MANY || keys.wants_confirmation())
            && !recovery.has_ack_eliciting(space)
        {
            // Who only acknowledges needs to be acknowledged at times: to forget old ranges (RFC 9000 section 13.2.4), and to
            // update keys (RFC 9001 section 6.1).
            content.spaces[space].ping = true;
        }
        let filled = content.fill(now, space, &mut w, may_send_data, pad_to > 0);
        if w.len() == header_len {
            return 0;
        }
        if pad_to > 0 && filled.tail.is_none() {
            w.zeros(pad_to.saturating_sub(w.len() + TAG_LEN).min(w.remaining()));
        }
        let tail = filled.tail.map_or(&[][..], |range| {
            content
                .streams
                .bytes_at(range.key, range.offset, usize::from(range.len))
        });
        // Enough bytes for a sample behind the packet number (RFC 9001 section 5.4.2).
        let short = (header_len + 4 - encoded.len).saturating_sub(w.len() + tail.len());
        w.zeros(short);
        let len = w.len() + tail.len() + TAG_LEN;
        let packet = &mut out[..len];
        if handshake.peer.grease_quic_bit && self.config.grease_quic_bit && number & 1 == 1 {
            packet[0] &= !header::FIXED_BIT;
        }
        seal(keys.local(), packet, number, encoded, header_len, tail);
        let result = keys.on_sealed(number);
        self.record(now, space, len, filled, ecn, pad_to > 0);
        self.check(now, result);
        len
    }

    /// Builds one Initial or Handshake packet.
    fn build_long(
        &mut self,
        now: Instant,
        space: Space,
        out: &mut [u8],
        may_send_data: bool,
        padding: Padding,
        ecn: Ecn,
    ) -> usize {
        let Connection {
            handshake,
            content,
            recovery,
            ..
        } = self;
        let keys = if space == Space::Initial {
            &handshake.initial
        } else {
            &handshake.handshake
        };
        let Some(keys) = keys else { return 0 };
        let number = recovery.next_number(space);
        let encoded = packet_number::encode(number, recovery.largest_acked(space));
        let token = (space == Space::Initial).then_some(&handshake.token[..]);
        let cids = (content.remote_cids.current(), &content.local_cids.first().cid);
        if header::long_header_len(cids.0, cids.1, token, encoded.len) + TAG_LEN + LONG_PAYLOAD_MIN
            > out.len()
        {
            return 0;
        }
        let (mut w, header_len, length_offset) =
            begin_long(out, self.version, long_type(space), cids, token, encoded);
        content.begin_packet(space, &self.probes);
        let filled = content.fill(now, space, &mut w, may_send_data, false);
        if w.len() == header_len {
            return 0;
        }
        if w.remaining() < padding.unless_room {
            w.zeros(padding.to.saturating_sub(w.len() + TAG_LEN).min(w.remaining()));
        }
        w.zeros((header_len + 4 - encoded.len).saturating_sub(w.len()));
        let len = w.len() + TAG_LEN;
        finish_long(
            &mut out[..len],
            length_offset,
            &keys.local.expand(),
            number,
            encoded,
            header_len,
        );
        self.record(now, space, len, filled, ecn, padding.to > 0);
        if space == Space::Handshake && self.side.is_client() {
            // RFC 9001 section 4.9.1.
            self.discard(Space::Initial);
        }
        len
    }

    /// Builds one 0-RTT packet, padded to `pad_to` bytes. It is of the version in which the connection has begun, whichever it goes on in (RFC 9369
    /// section 4.1).
    fn build_zero_rtt(
        &mut self,
        now: Instant,
        out: &mut [u8],
        may_send_data: bool,
        pad_to: usize,
        ecn: Ecn,
    ) -> usize {
        let space = Space::Data;
        let Connection {
            handshake,
            content,
            recovery,
            ..
        } = self;
        let Some(Early::Sealing { keys, .. }) = handshake.early.as_deref() else {
            return 0;
        };
        let number = recovery.next_number(space);
        let encoded = packet_number::encode(number, None);
        let cids = (content.remote_cids.current(), &content.local_cids.first().cid);
        if header::long_header_len(cids.0, cids.1, None, encoded.len) + TAG_LEN + LONG_PAYLOAD_MIN > out.len()
        {
            return 0;
        }
        let version = handshake.original_version;
        let (mut w, header_len, length_offset) =
            begin_long(out, version, LongType::ZeroRtt, cids, None, encoded);
        content.begin_packet(space, &self.probes);
        let mut filled = content.fill(now, space, &mut w, may_send_data, pad_to > 0);
        if let Some(range) = filled.tail.take() {
            let len = usize::from(range.len);
            w.bytes(content.streams.bytes_at(range.key, range.offset, len));
        }
        if w.len() == header_len && pad_to == 0 {
            return 0;
        }
        w.zeros(pad_to.saturating_sub(w.len() + TAG_LEN).min(w.remaining()));
        w.zeros((header_len + 4 - encoded.len).saturating_sub(w.len()));
        let len = w.len() + TAG_LEN;
        let keys = keys.expand();
        finish_long(&mut out[..len], length_offset, &keys, number, encoded, header_len);
        self.record(now, space, len, filled, ecn, pad_to > 0);
        len
    }

    #[inline]
    fn record(&mut self, now: Instant, space: Space, len: usize, filled: Filled, ecn: Ecn, padded: bool) {
        let packet = SentPacket {
            size: len as u16,
            ack_eliciting: filled.ack_eliciting,
            in_flight: filled.ack_eliciting || padded,
            mtu_probe: false,
            ecn_marked: ecn == Ecn::Ect0,
        };
        if ecn == Ecn::Ect0 {
            self.path.ecn.on_sent();
        }
        if self.recovery.on_sent(space, now, packet, &self.content.tokens) {
            self.recovery.forget(space, now, &mut self.content);
        }
        self.content.stats.sent_packets += 1;
        if filled.ack_eliciting {
            self.content.stats.sent_ack_eliciting_packets += 1;
            self.path.pacer.consume(len as u64);
            self.last_data_sent = now;
            self.idle.on_sent(now);
            self.probes[space as usize] = self.probes[space as usize].saturating_sub(1);
        }
    }

    /// A datagram of `size` bytes, larger than any before, to see whether the path carries it.
    fn transmit_mtu_probe(
        &mut self,
        now: Instant,
        size: u16,
        buffer: &mut [u8],
        limits: &TransmitLimits,
    ) -> Option<Transmit> {
        let size = usize::from(size);
        if !self.path.validated {
            return None;
        }
        if size > limits.datagram_bytes_max {
            // The device sends none so large: the search goes on with smaller ones.
            self.path.mtu.on_probe_sent(size as u16);
            self.path.mtu.on_too_big(now, size as u16);
            return None;
        }
        if size > buffer.len() {
            return None;
        }
        if self.recovery.bytes_in_flight() + size as u64 > self.path.controller.window() {
            return None;
        }
        self.path.mtu.on_probe_sent(size as u16);
        let ecn = self.path.ecn.mark();
        let dcid = *self.content.remote_cids.current();
        self.build_alone(now, &mut buffer[..size], &dcid, size, frame::encode_ping)?;
        let probe = SentPacket {
            size: size as u16,
            ack_eliciting: true,
            in_flight: true,
            mtu_probe: true,
            ecn_marked: ecn == Ecn::Ect0,
        };
        if probe.ecn_marked {
            self.path.ecn.on_sent();
        }
        self.recovery.on_sent(Space::Data, now, probe, &[]);
        self.content.stats.sent_ack_eliciting_packets += 1;
        self.idle.on_sent(now);
        self.finish_transmit(size, size, ecn)
    }

    /// Builds a 1-RTT packet of these frames alone, padded to `pad_to` bytes. The caller records it.
    fn build_alone(
        &mut self,
        now: Instant,
        out: &mut [u8],
        dcid: &ConnectionId,
        pad_to: usize,
        write: impl FnOnce(&mut Writer<'_>),
    ) -> Option<usize> {
        let keys = self.handshake.one_rtt.as_mut()?;
        let number = self.recovery.next_number(Space::Data);
        let encoded = packet_number::encode(number, self.recovery.largest_acked(Space::Data));
        let capacity = out.len() - TAG_LEN;
        let mut w = Writer::new(&mut out[..capacity]);
        header::encode_short(&mut w, dcid, keys.phase(), encoded);
        let header_len = w.len();
        write(&mut w);
        w.zeros(pad_to.saturating_sub(w.len() + TAG_LEN).min(w.remaining()));
        let len = w.len() + TAG_LEN;
        seal(keys.local(), &mut out[..len], number, encoded, header_len, &[]);
        let result = keys.on_sealed(number);
        self.content.stats.sent_packets += 1;
        self.check(now, result);
        Some(len)
    }

    /// PATH_CHALLENGE, or PATH_RESPONSEs, in a datagram of their own on the path that they are about.
    fn transmit_path_frames(&mut self, now: Instant, buffer: &mut [u8]) -> Option<Transmit> {
        let PathFrames {
            address,
            dcid,
            allowance,
            responses,
            challenge,
        } = self.next_path_frames(now)?;
        // Padded, so that the path is known to carry it (RFC 9000 section 8.2.1); less only if amplification forbids.
        let size = usize::from(mtu::BASE_PLPMTU).min(buffer.len()).min(allowance);
        let len = self.build_alone(now, &mut buffer[..size], &dcid, size, |w| {
            if let Some(data) = challenge {
                frame::encode_path_challenge(w, data);
            }
            for data in responses {
                frame::encode_path_response(w, data);
            }
        })?;
        // Repeated by path validation itself, and no sign of congestion on the path in use.
        let packet = SentPacket {
            size: len as u16,
            ..SentPacket::default()
        };
        self.recovery.on_sent(Space::Data, now, packet, &[]);
        if address.remote == self.path.address.remote {
            self.path.on_sent(len);
        }
        let transmit = self.count_transmit(len, len, Ecn::NotEct);
        Some(Transmit {
            path: address,
            ..transmit
        })
    }

    /// CONNECTION_CLOSE in every space that the peer may be able to read (RFC 9000 section 10.2.3).
    fn transmit_close(&mut self, now: Instant, buffer: &mut [u8]) -> Option<Transmit> {
        if let Some(versions) = self.take_version_negotiation() {
            return self.transmit_version_negotiation(buffer, &versions);
        }
        let frame = match &mut self.state {
            State::Closing(closing) if closing.pending => {
                closing.pending = false;
                closing.frame.clone()
            }
            State::Draining { answer, .. } if *answer => {
                *answer = false;
                CloseFrame {
                    code: 0,
                    frame_type: Some(0),
                    reason: "".into(),
                }
            }
            _ => return None,
        };
        let size = usize::from(mtu::BASE_PLPMTU)
            .min(buffer.len())
            .min(self.path.amplification_allowance());
        let mut len = 0;
        for space in Space::ALL {
            if size - len < CLOSE_PACKET_MIN {
                break;
            }
            let out = &mut buffer[len..size];
            len += match space {
                Space::Data if self.handshake.complete => self.build_short_close(now, out, &frame),
                Space::Data => 0,
                Space::Initial if self.handshake.complete => 0,
                _ => self.build_long_close(now, space, out, &frame.in_handshake()),
            };
        }
        self.finish_transmit(len, len, Ecn::NotEct)
    }

    /// A version negotiation packet that answers the client's first one, after which the connection is forgotten: the next first flight may have
    /// the same connection IDs.
    fn transmit_version_negotiation(&mut self, buffer: &mut [u8], versions: &[Version]) -> Option<Transmit> {
        self.state = State::Drained;
        let mut rng = self.random();
        let dcid = self.handshake.original_dcid.as_bytes();
        let scid = self.content.remote_cids.first().as_bytes();
        let len = stateless::version_negotiation(buffer, dcid, scid, versions, &mut rng)?;
        self.finish_transmit(len, len, Ecn::NotEct)
    }

    fn build_short_close(&mut self, now: Instant, out: &mut [u8], frame: &CloseFrame) -> usize {
        let dcid = *self.content.remote_cids.current();
        let Some(len) = self.build_alone(now, out, &dcid, 0, |w| write_close(w, frame)) else {
            return 0;
        };
        // Nobody acknowledges it: no record but its number.
        self.recovery
            .on_sent(Space::Data, now, SentPacket::default(), &[]);
        len
    }

    fn build_long_close(&mut self, now: Instant, space: Space, out: &mut [u8], frame: &CloseFrame) -> usize {
        let Connection {
            handshake,
            content,
            recovery,
            ..
        } = self;
        let keys = if space == Space::Initial {
            &handshake.initial
        } else {
            &handshake.handshake
        };
        let Some(keys) = keys else { return 0 };
        let number = recovery.next_number(space);
        let encoded = packet_number::encode(number, None);
        let token = (space == Space::Initial).then_some(&handshake.token[..]);
        let cids = (content.remote_cids.current(), &content.local_cids.first().cid);
        if header::long_header_len(cids.0, cids.1, token, encoded.len) + TAG_LEN + CLOSE_FRAME_ROOM
            > out.len()
        {
            return 0;
        }
        let (mut w, header_len, length_offset) =
            begin_long(out, self.version, long_type(space), cids, token, encoded);
        if handshake.complete {
            // The end of the handshake goes along, with which the server can read the close in the 1-RTT packet behind it.
            content.write_handshake_again(now, space, &mut w);
            if w.len() == header_len {
                return 0;
            }
        } else {
            write_close(&mut w, frame);
        }
        if space == Space::Initial && self.side.is_client() && handshake.handshake.is_none() {
            w.zeros(w.remaining());
        }
        let len = w.len() + TAG_LEN;
        finish_long(
            &mut out[..len],
            length_offset,
            &keys.local.expand(),
            number,
            encoded,
            header_len,
        );
        self.recovery.on_sent(space, now, SentPacket::default(), &[]);
        self.content.stats.sent_packets += 1;
        len
    }
}

/// How a packet is padded.
#[derive(Clone, Copy)]
struct Padding {
    /// To this many bytes.
    to: usize,
    /// But not if this many are left: another packet follows.
    unless_room: usize,
}

/// Frames about a path, and where they go.
pub(super) struct PathFrames {
    pub(super) address: PathAddress,
    pub(super) dcid: ConnectionId,
    /// Bytes that may go there.
    pub(super) allowance: usize,
    pub(super) responses: Vec<[u8; 8]>,
    pub(super) challenge: Option<[u8; 8]>,
}

impl Content {
    /// A probe must be ack-eliciting, whatever there is to send (RFC 9002 section 6.2.4).
    #[inline]
    fn begin_packet(&mut self, space: Space, probes: &[u8; 3]) {
        if probes[space as usize] > 0 && !self.has_data(space) {
            self.spaces[space].ping = true;
        }
    }
}

pub(super) fn long_type(space: Space) -> LongType {
    match space {
        Space::Initial => LongType::Initial,
        Space::Handshake => LongType::Handshake,
        Space::Data => LongType::ZeroRtt,
    }
}

fn write_close(w: &mut Writer<'_>, frame: &CloseFrame) {
    let room = w.remaining();
    // What does not fit is left out by whole characters.
    let mut len = frame.reason.len().min(room.saturating_sub(CLOSE_FIELDS_MAX));
    while !frame.reason.is_char_boundary(len) {
        len -= 1;
    }
    let reason = &frame.reason.as_bytes()[..len];
    frame::encode_connection_close(w, frame.code, frame.frame_type, reason, room);
}

/// The least that the rest of a datagram must hold for another packet to begin.
const COALESCED_MIN: usize = 128;
/// Ranges of received packets from which on the peer is asked to acknowledge an acknowledgement.
const RANGES_MANY: usize = 8;
/// Room for frames below which no packet with a long header begins.
const LONG_PAYLOAD_MIN: usize = 32;
/// Room for a packet that closes.
const CLOSE_PACKET_MIN: usize = 96;
const CLOSE_FRAME_ROOM: usize = 24;
/// Bytes of CONNECTION_CLOSE in front of its reason at most.
const CLOSE_FIELDS_MAX: usize = 19;
