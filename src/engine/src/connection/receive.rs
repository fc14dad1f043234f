//! Packets in: they are opened in place, their frames are processed, their data is delivered.
//!
//! [`Connection::receive_next`] returns one delivery at a time, borrowed from the packet and not from the connection, so that the
//! application may use the connection while it looks at the data.

use std::mem;
use std::time::Duration;

use ringway_types::{Ecn, Instant, LOCAL_CID_LEN};

use super::Connection;
use super::close::State;
use super::content::Acknowledged;
use super::deferred::{DEFERRED_DATAGRAMS_MAX, DEFERRED_PACKETS_MAX, DeferredPacket};
use super::drops::{DropCounts, DropReason};
use super::events::Event;
use super::paths::{Blocked, PathAddress};
use super::resumption::Early;
use crate::congestion::{Acked, CongestionEvent};
use crate::crypto::keys::Keys;
use crate::crypto::one_rtt::OpenError;
use crate::crypto::retry;
use crate::path::mtu::BASE_PLPMTU;
use crate::recovery::ack_tracker::AckTracker;
use crate::recovery::{Ack, Loss};
use crate::streams::{AfterReceive, FlowClock, ReadyData, ReceiveAction, StreamKey, Streams};
use crate::wire::cid::ConnectionId;
use crate::wire::error::{TransportError, TransportErrorCode};
use crate::wire::frame::{AckFrame, AckFrequency, Frame, FrameReader, PacketType, StreamFrame};
use crate::wire::header::{self, LongHeader, LongType, ProtectedHeader, RetryHeader, UnprotectedHeader};
use crate::wire::{Side, Space, packet_number, stateless};

/// A datagram that was received and whose packets are being processed.
pub struct ReceivedDatagram<'p, 'd> {
    path: &'p PathAddress,
    /// It came from another address than the peer's.
    other_address: bool,
    ecn: Ecn,
    /// Packets that have not been looked at.
    remaining: &'d mut [u8],
    len: usize,
    /// Destination Connection ID of the first packet, if that has a long header.
    dcid: Option<ConnectionId>,
    packet: Option<OpenPacket<'d>>,
}

/// Data for the application, borrowed from the packet that brought it.
#[derive(Debug)]
pub enum Delivery<'d> {
    /// Stream data in order. Report by [`Connection::on_stream_delivered`].
    Stream {
        /// The stream.
        key: StreamKey,
        /// Position of the data.
        offset: u64,
        /// The data.
        data: &'d [u8],
        /// The stream ends behind it.
        fin: bool,
        /// It came in 0-RTT: somebody else may have sent it again.
        early: bool,
    },
    /// A DATAGRAM frame.
    Datagram {
        /// Its content.
        data: &'d [u8],
        /// It came in 0-RTT.
        early: bool,
    },
}

/// A packet that is open and whose frames are being acted on.
struct OpenPacket<'d> {
    packet_type: PacketType,
    number: u64,
    frames: FrameReader<'d>,
    /// Sequence number of the connection ID that it was sent to.
    cid_sequence: Option<u64>,
    /// Size of the datagram, until it has been counted for answers to its path challenges.
    uncounted: usize,
    ack_eliciting: bool,
    /// All frames so far are probing frames (RFC 9000 section 9.1).
    probing: bool,
}

impl Connection {
    /// Begins to process a datagram. Call [`Connection::receive_next`] until it returns `None`.
    #[inline]
    pub fn receive<'p, 'd>(
        &mut self,
        path: &'p PathAddress,
        ecn: Ecn,
        datagram: &'d mut [u8],
    ) -> ReceivedDatagram<'p, 'd> {
        let datagram_len = datagram.len();
        self.content.stats.received_datagrams += 1;
        self.content.stats.received_bytes += datagram_len as u64;
        let other_address = path.remote != self.path.address.remote;
        if !other_address {
            self.path.on_received(datagram_len);
            if path.local != self.path.address.local {
                self.on_local_address(path.local);
            }
        }
        if let State::Closing(closing) = &mut self.state {
            closing.on_packet();
        }
        ReceivedDatagram {
            path,
            other_address,
            ecn,
            remaining: datagram,
            len: datagram_len,
            dcid: None,
            packet: None,
        }
    }

    /// Processes a datagram up to the next delivery; `None` at its end.
    #[inline]
    pub fn receive_next<'d>(
        &mut self,
        now: Instant,
        datagram: &mut ReceivedDatagram<'_, 'd>,
        drops: &mut DropCounts,
    ) -> Option<Delivery<'d>> {
        loop {
            if let Some(packet) = &mut datagram.packet {
                match self.on_frames(now, packet, datagram.path) {
                    Ok(Some(delivery)) => return Some(delivery),
                    Ok(None) => {
                        let moved = datagram.other_address.then_some((datagram.path, datagram.len));
                        self.on_packet_done(now, packet, datagram.ecn, moved);
                    }
                    Err(mut error) => {
                        if error.frame_type == 0 {
                            error.frame_type = packet.frames.frame_type();
                        }
                        datagram.packet = None;
                        self.fail(now, error);
                        return None;
                    }
                }
                datagram.packet = None;
            }
            if datagram.remaining.is_empty() {
                break;
            }
            if matches!(self.state, State::Draining { .. } | State::Drained) {
                drops.add(DropReason::ConnectionClosing);
                break;
            }
            if let Err(reason) = self.next_packet(now, datagram) {
                drops.add(reason);
                self.count_drop(reason);
            }
        }
        self.open_waiting(now, drops);
        None
    }

    fn count_drop(&mut self, reason: DropReason) {
        self.content.stats.dropped_packets += 1;
        match reason {
            DropReason::Duplicate => self.content.stats.duplicate_packets += 1,
            DropReason::DecryptionFailed => self.content.stats.undecryptable_packets += 1,
            _ => {}
        }
    }

    /// Opens the next packet of the datagram. What is opened lies in `datagram` afterwards.
    #[inline]
    fn next_packet(
        &mut self,
        now: Instant,
        datagram: &mut ReceivedDatagram<'_, '_>,
    ) -> Result<(), DropReason> {
        if datagram.other_address && !self.may_migrate() {
            datagram.remaining = &mut [];
            return Err(DropReason::UnexpectedAddress);
        }
        if header::is_long(datagram.remaining) {
            return self.next_long_packet(now, datagram);
        }
        self.open_short(now, datagram)
    }

    fn next_long_packet(
        &mut self,
        now: Instant,
        datagram: &mut ReceivedDatagram<'_, '_>,
    ) -> Result<(), DropReason> {
        let rest = mem::take(&mut datagram.remaining);
        match header::decode(rest, LOCAL_CID_LEN) {
            Ok(ProtectedHeader::Long(header)) => {
                let (packet, tail) = rest.split_at_mut(header.packet_len);
                datagram.remaining = tail;
                if datagram.other_address {
                    return Err(DropReason::UnexpectedAddress);
                }
                if *datagram.dcid.get_or_insert(header.dcid) != header.dcid {
                    return Err(DropReason::CoalescedForOther);
                }
                self.open_long(now, packet, &header, datagram)
            }
            Ok(ProtectedHeader::Retry(retry)) => self.on_retry(rest, &retry),
            Ok(ProtectedHeader::VersionNegotiation(negotiation)) => {
                let offered = header::versions(&rest[negotiation.versions]).collect();
                self.on_version_negotiation(now, &negotiation.dcid, &negotiation.scid, offered)
            }
            Ok(ProtectedHeader::UnsupportedVersion(_)) => Err(DropReason::WrongVersion),
            Ok(ProtectedHeader::Short { .. }) | Err(_) => Err(DropReason::MalformedHeader),
        }
    }

    #[inline]
    fn open_short(
        &mut self,
        now: Instant,
        datagram: &mut ReceivedDatagram<'_, '_>,
    ) -> Result<(), DropReason> {
        let packet = mem::take(&mut datagram.remaining);
        let number_offset = 1 + LOCAL_CID_LEN;
        if !header::fixed_bit(packet[0]) && !self.config.grease_quic_bit {
            return Err(DropReason::MalformedHeader);
        }
        if datagram
            .dcid
            .is_some_and(|dcid| packet.get(1..number_offset) != Some(dcid.as_bytes()))
        {
            return Err(DropReason::CoalescedForOther);
        }
        if !self.handshake.complete {
            return self.defer(packet, datagram);
        }
        let Some(keys) = &mut self.handshake.one_rtt else {
            return Err(DropReason::NoKeys);
        };
        let Some(sample) = header::sample(packet, number_offset) else {
            return Err(DropReason::MalformedHeader);
        };
        // All packets of a datagram are for one connection (RFC 9000 section 12.2).
        let Some(cid_sequence) = self.content.local_cids.sequence_of(&packet[1..number_offset]) else {
            return Err(DropReason::UnknownConnection);
        };
        let mask = keys.remote_mask(sample);
        let reset_token = stateless::reset_token_of(packet);
        let unprotected = header::remove_protection(packet, number_offset, mask);
        let number = full_number(&self.content.spaces[Space::Data].acks, unprotected)?;
        let (head, payload) = packet.split_at_mut(number_offset + unprotected.number_len);
        let updates = keys.updates();
        let recovery = &self.recovery;
        let retention = || recovery.pto(Space::Data) * 3;
        match keys.open(now, number, unprotected.key_phase(), head, payload, retention) {
            Ok(plaintext) => {
                self.content.stats.key_updates += (keys.updates() - updates) as u32;
                self.on_opened(
                    now,
                    PacketType::OneRtt,
                    number,
                    unprotected,
                    Some(cid_sequence),
                    plaintext,
                    datagram,
                )
            }
            Err(OpenError::Decrypt) => {
                // RFC 9000 section 10.3.1.
                if reset_token.is_some_and(|token| self.content.remote_cids.is_reset_token(&token)) {
                    self.on_stateless_reset(now);
                }
                Err(DropReason::DecryptionFailed)
            }
            Err(OpenError::Fatal(error)) => {
                self.fail(now, error);
                Err(DropReason::DecryptionFailed)
            }
        }
    }

    fn open_long<'d>(
        &mut self,
        now: Instant,
        packet: &'d mut [u8],
        header: &LongHeader,
        datagram: &mut ReceivedDatagram<'_, 'd>,
    ) -> Result<(), DropReason> {
        if header.version != self.version && !self.may_have_version(header) {
            return Err(DropReason::WrongVersion);
        }
        if !header::fixed_bit(packet[0]) {
            return Err(DropReason::MalformedHeader);
        }
        let (packet_type, space) = match header.ty {
            LongType::Initial if self.side == Side::Server && datagram.len < usize::from(BASE_PLPMTU) => {
                return Err(DropReason::InitialTooShort);
            }
            LongType::Initial => (PacketType::Initial, Space::Initial),
            LongType::Handshake => (PacketType::Handshake, Space::Handshake),
            LongType::ZeroRtt => return self.open_zero_rtt(now, packet, header, datagram),
        };
        // Once the server has chosen one, all packets come from the same connection ID (RFC 9000 section 7.2).
        let chooses = self.server_may_choose();
        if !chooses && header.scid != *self.content.remote_cids.first() {
            return Err(DropReason::UnexpectedAddress);
        }
        // Of a version that the server seems to have gone over to.
        let mut other_version = None;
        let keys = match space {
            _ if header.version == self.version => match space {
                Space::Initial => &self.handshake.initial,
                _ => &self.handshake.handshake,
            },
            Space::Initial if header.version == self.handshake.original_version => {
                &self.handshake.original_initial
            }
            Space::Initial => {
                other_version = Some(Box::new(self.initial_keys(header.version)));
                &other_version
            }
            // Whether it is negotiated, an Initial will say.
            _ => &None,
        };
        let Some(keys) = keys else {
            let may_come = space == Space::Handshake && !self.handshake.confirmed;
            return if may_come {
                self.defer(packet, datagram)
            } else {
                Err(DropReason::NoKeys)
            };
        };
        let Some(sample) = header::sample(packet, header.number_offset) else {
            return Err(DropReason::MalformedHeader);
        };
        let keys = keys.remote.expand();
        let mask = keys.header.mask(sample);
        let unprotected = header::remove_protection(packet, header.number_offset, mask);
        let number = full_number(&self.content.spaces[space].acks, unprotected)?;
        let (head, payload) = packet.split_at_mut(header.number_offset + unprotected.number_len);
        let Ok(plaintext) = keys.packet.open(number, head, payload) else {
            return Err(DropReason::DecryptionFailed);
        };
        if let Some(keys) = other_version {
            self.change_version(header.version, keys);
        }
        self.handshake.opened_version = header.version;
        if chooses {
            self.content.remote_cids.set_first(header.scid);
        }
        if self.side.is_client() && packet_type == PacketType::Initial && !header.token.is_empty() {
            self.fail(now, violation("token in an Initial of a server"));
            return Ok(());
        }
        if self.side == Side::Server && space == Space::Handshake {
            // The client has read our Initial: it is where it says it is (RFC 9000 section 8.1).
            self.path.validated = true;
            self.discard(Space::Initial);
        }
        self.on_opened(now, packet_type, number, unprotected, None, plaintext, datagram)
    }

    /// A server chooses its connection ID with its first packet. One from that which the client has chosen for it leaves this open until its
    /// ServerHello is there: MsQuic acknowledges the first part of a ClientHello so, and chooses when the rest has come (microsoft/msquic#5557).
    /// RFC 9000 section 7.2 would have the rest discarded. Who could forge a choice has seen the ClientHello, and can end the handshake in other ways
    /// too; what was chosen is verified as ever (section 7.3).
    fn server_may_choose(&self) -> bool {
        let handshake = &self.handshake;
        let of_client = handshake.retry_scid.as_ref().unwrap_or(&handshake.original_dcid);
        let is_open = || handshake.handshake.is_none() && self.content.remote_cids.first() == of_client;
        self.side.is_client() && (!handshake.received || is_open())
    }

    fn open_zero_rtt<'d>(
        &mut self,
        now: Instant,
        packet: &'d mut [u8],
        header: &LongHeader,
        datagram: &mut ReceivedDatagram<'_, 'd>,
    ) -> Result<(), DropReason> {
        if self.side.is_client() {
            return Err(DropReason::ZeroRttRejected);
        }
        if header.version != self.handshake.original_version {
            return Err(DropReason::WrongVersion);
        }
        if header.scid != *self.content.remote_cids.first() {
            return Err(DropReason::UnexpectedAddress);
        }
        let keys = match self.handshake.early.as_deref() {
            Some(Early::Opening { keys, .. }) => keys,
            // Whether it is accepted is not known before the ClientHello is read.
            _ if self.handshake.tls.is_none() && !self.handshake.complete => {
                return self.defer(packet, datagram);
            }
            _ => {
                self.on_early_dropped();
                return Err(DropReason::ZeroRttRejected);
            }
        };
        let Some(sample) = header::sample(packet, header.number_offset) else {
            return Err(DropReason::MalformedHeader);
        };
        let mask = keys.header.mask(sample);
        let unprotected = header::remove_protection(packet, header.number_offset, mask);
        let number = full_number(&self.content.spaces[Space::Data].acks, unprotected)?;
        let (head, payload) = packet.split_at_mut(header.number_offset + unprotected.number_len);
        let Ok(plaintext) = keys.packet.open(number, head, payload) else {
            return Err(DropReason::DecryptionFailed);
        };
        self.on_opened(
            now,
            PacketType::ZeroRtt,
            number,
            unprotected,
            None,
            plaintext,
            datagram,
        )
    }

    #[inline]
    #[allow(
        clippy::too_many_arguments,
        reason = "what is known of a packet, on its way into its place"
    )]
    fn on_opened<'d>(
        &mut self,
        now: Instant,
        packet_type: PacketType,
        number: u64,
        unprotected: UnprotectedHeader,
        cid_sequence: Option<u64>,
        plaintext: &'d mut [u8],
        datagram: &mut ReceivedDatagram<'_, 'd>,
    ) -> Result<(), DropReason> {
        self.handshake.received = true;
        self.content.stats.received_packets += 1;
        self.idle.on_received(now);
        if unprotected.reserved_bits() != 0 {
            self.fail(now, violation("reserved bits are set"));
            return Err(DropReason::MalformedHeader);
        }
        if plaintext.is_empty() {
            self.fail(now, violation("packet without frames"));
            return Err(DropReason::MalformedHeader);
        }
        datagram.packet = Some(OpenPacket {
            packet_type,
            number,
            frames: FrameReader::new(plaintext),
            cid_sequence,
            uncounted: datagram.len,
            ack_eliciting: false,
            probing: true,
        });
        Ok(())
    }

    /// Acts on frames up to the next delivery.
    #[inline]
    fn on_frames<'d>(
        &mut self,
        now: Instant,
        packet: &mut OpenPacket<'d>,
        path: &PathAddress,
    ) -> Result<Option<Delivery<'d>>, TransportError> {
        let takes_streams = packet.packet_type >= PacketType::ZeroRtt;
        loop {
            if takes_streams
                && self.is_open()
                && let Some(stream) = packet.frames.next_stream()
            {
                let stream = stream?;
                packet.ack_eliciting = true;
                packet.probing = false;
                self.content.stats.received_stream_bytes += stream.data.len() as u64;
                let action = self.content.streams.on_stream(self.flow_clock(now), &stream)?;
                let early = packet.packet_type == PacketType::ZeroRtt;
                if early {
                    let end = stream.offset + stream.data.len() as u64;
                    self.content.streams.on_early_data(stream.id, end);
                }
                if let ReceiveAction::Deliver {
                    key,
                    offset,
                    skip,
                    fin,
                } = action
                {
                    return Ok(Some(Delivery::Stream {
                        key,
                        offset,
                        data: &stream.data[skip..],
                        fin,
                        early,
                    }));
                }
                continue;
            }
            let Some(frame) = packet.frames.next_frame() else {
                return Ok(None);
            };
            if let Some(delivery) = self.on_other_frame(now, packet, path, frame?)? {
                return Ok(Some(delivery));
            }
        }
    }

    fn on_other_frame<'d>(
        &mut self,
        now: Instant,
        packet: &mut OpenPacket<'d>,
        path: &PathAddress,
        frame: Frame<'d>,
    ) -> Result<Option<Delivery<'d>>, TransportError> {
        if !frame.is_allowed_in(packet.packet_type) {
            return Err(violation("frame in a packet of a type that cannot have it"));
        }
        packet.ack_eliciting |= frame.is_ack_eliciting();
        packet.probing &= frame.is_probing();
        if !self.is_open() {
            if let Frame::ConnectionClose {
                application,
                code,
                frame_type,
                reason,
            } = frame
            {
                self.on_connection_close(now, application, code, frame_type, reason);
            }
            return Ok(None);
        }
        let clock = self.flow_clock(now);
        let space = space_of(packet.packet_type);
        let streams = &mut self.content.streams;
        match frame {
            Frame::Padding | Frame::Ping => {}
            Frame::Ack(ack) => self.on_ack(now, space, &ack)?,
            Frame::Crypto { offset, data } => self.on_crypto(now, space, offset, data)?,
            // Taken before, where it may be.
            Frame::Stream(_) => {}
            Frame::ResetStream { id, code, final_size } => {
                streams.on_reset_stream(clock, id, code, final_size)?
            }
            Frame::StopSending { id, code } => streams.on_stop_sending(id, code)?,
            Frame::MaxData(max) => streams.on_max_data(max),
            Frame::MaxStreamData { id, max } => streams.on_max_stream_data(id, max)?,
            Frame::MaxStreams { bidi, max } => streams.on_max_streams(Streams::dir_of(bidi), max),
            Frame::DataBlocked(_) => streams.on_data_blocked(),
            Frame::StreamDataBlocked { id, .. } => streams.on_stream_data_blocked(id)?,
            Frame::StreamsBlocked { bidi, limit } => streams.on_streams_blocked(Streams::dir_of(bidi), limit),
            Frame::NewConnectionId(new) => self.content.remote_cids.on_new(&new)?,
            Frame::RetireConnectionId(sequence) => {
                self.content.local_cids.on_retire(sequence, packet.cid_sequence)?;
            }
            Frame::PathChallenge(data) => {
                let received = mem::take(&mut packet.uncounted);
                self.on_path_challenge(*path, received, packet.cid_sequence.unwrap_or(0), data);
            }
            Frame::PathResponse(data) => self.on_path_response(now, data),
            Frame::ConnectionClose {
                application,
                code,
                frame_type,
                reason,
            } => {
                self.on_connection_close(now, application, code, frame_type, reason);
            }
            Frame::NewToken(_) | Frame::HandshakeDone if self.side == Side::Server => {
                return Err(violation("frame that only servers send"));
            }
            Frame::NewToken(token) => self.on_new_token(token),
            Frame::HandshakeDone => self.confirm_handshake(),
            Frame::AckFrequency(request) => self.on_ack_frequency(&request)?,
            Frame::ImmediateAck => self.content.spaces[Space::Data].acks.on_immediate_ack(),
            Frame::Datagram(data) => {
                if !self.config.datagram_receive {
                    return Err(violation("DATAGRAM that was not negotiated"));
                }
                let early = packet.packet_type == PacketType::ZeroRtt;
                return Ok(Some(Delivery::Datagram { data, early }));
            }
        }
        Ok(None)
    }

    /// A token is an offer: of many that come at once a few are kept.
    fn on_new_token(&mut self, token: &[u8]) {
        let events = &mut self.content.events;
        let waiting = events
            .iter()
            .filter(|event| matches!(event, Event::NewToken(_)))
            .count();
        if waiting < NEW_TOKENS_MAX {
            events.push_back(Event::NewToken(token.to_vec()));
        }
    }

    /// `moved`: the packet came from another address, in a datagram of this size.
    #[inline]
    fn on_packet_done(
        &mut self,
        now: Instant,
        packet: &OpenPacket<'_>,
        ecn: Ecn,
        moved: Option<(&PathAddress, usize)>,
    ) {
        let space = space_of(packet.packet_type);
        let largest = self.content.spaces[space].acks.largest();
        self.content.stats.reordered_packets +=
            u64::from(largest.is_some_and(|largest| packet.number < largest));
        // The last packet of the handshake ends its space, in which nothing is acknowledged any more. The space of data never ends.
        if space == Space::Data || self.handshake.can_send(space) {
            self.content
                .on_packet(now, space, packet.number, packet.ack_eliciting, ecn);
        }
        if moved.is_none()
            && let Some(sequence) = packet.cid_sequence
        {
            self.path.local_cid = sequence;
        }
        if let Some((path, datagram_len)) = moved
            && path.remote != self.path.address.remote
            && !packet.probing
            && largest.is_none_or(|largest| packet.number > largest)
            && self.is_open()
        {
            self.migrate(now, *path, datagram_len, packet.cid_sequence);
        }
    }

    fn defer(&mut self, packet: &[u8], datagram: &ReceivedDatagram<'_, '_>) -> Result<(), DropReason> {
        if self.deferred_packets.len() >= DEFERRED_PACKETS_MAX {
            return Err(DropReason::NoKeys);
        }
        let kept = DeferredPacket {
            path: *datagram.path,
            ecn: datagram.ecn,
            packet: packet.into(),
        };
        self.deferred_packets.push(kept);
        Ok(())
    }

    /// Opens packets that came before their keys, if those are there now. To be called when the connection is accepted, or
    /// [`Connection::complete_resumption`] was: 0-RTT packets may have waited for it.
    #[inline]
    pub fn has_waiting(&self) -> bool {
        !self.deferred_packets.is_empty()
    }

    /// Opens what has waited, if its keys are there.
    pub fn open_waiting(&mut self, now: Instant, drops: &mut DropCounts) {
        if !self.deferred_packets.is_empty() {
            self.open_deferred(now, drops);
        }
    }

    /// Opens packets that came before their keys, once those are there. What they bring lies in memory that goes at once: it is kept
    /// in the streams' own.
    fn open_deferred(&mut self, now: Instant, drops: &mut DropCounts) {
        if self.handshake.handshake.is_none() && !self.handshake.complete {
            return;
        }
        let mut datagrams = 0;
        for DeferredPacket {
            path,
            ecn,
            mut packet,
        } in mem::take(&mut self.deferred_packets)
        {
            let datagram_len = packet.len();
            let other_address = path.remote != self.path.address.remote;
            let mut datagram = ReceivedDatagram {
                path: &path,
                other_address,
                ecn,
                remaining: &mut packet,
                len: datagram_len,
                dcid: None,
                packet: None,
            };
            loop {
                let Some(open) = &mut datagram.packet else {
                    if datagram.remaining.is_empty() {
                        break;
                    }
                    if let Err(reason) = self.next_packet(now, &mut datagram) {
                        drops.add(reason);
                    }
                    continue;
                };
                let kept = match self.on_frames(now, open, &path) {
                    Ok(Some(Delivery::Stream {
                        key,
                        offset,
                        data,
                        fin,
                        ..
                    })) => self.content.streams.buffer(
                        key,
                        &StreamFrame {
                            id: 0,
                            offset,
                            data,
                            fin,
                        },
                    ),
                    Ok(Some(Delivery::Datagram { .. })) if datagrams >= DEFERRED_DATAGRAMS_MAX => {
                        drops.add(DropReason::NoKeys);
                        Ok(())
                    }
                    Ok(Some(Delivery::Datagram { data, early })) => {
                        datagrams += 1;
                        let data = data.to_vec();
                        self.content
                            .events
                            .push_back(Event::DeferredDatagram { data, early });
                        Ok(())
                    }
                    Ok(None) => {
                        self.on_packet_done(now, open, ecn, other_address.then_some((&path, datagram_len)));
                        datagram.packet = None;
                        Ok(())
                    }
                    Err(error) => Err(error),
                };
                if let Err(error) = kept {
                    return self.fail(now, error);
                }
            }
        }
    }

    /// Reports that the application consumed `consumed` bytes of a [`Delivery::Stream`].
    #[inline]
    #[allow(
        clippy::too_many_arguments,
        reason = "the delivery, taken apart, and the answer to it"
    )]
    pub fn on_stream_delivered(
        &mut self,
        now: Instant,
        key: StreamKey,
        offset: u64,
        data: &[u8],
        fin: bool,
        consumed: usize,
        after: AfterReceive,
    ) {
        let clock = self.flow_clock(now);
        let delivered = StreamFrame {
            id: 0,
            offset,
            data,
            fin,
        };
        if let Err(error) = self
            .content
            .streams
            .on_delivered(clock, key, delivered, consumed, after)
        {
            self.fail(now, error);
        }
    }

    /// Reports that the application consumed `consumed` bytes of what [`Streams::take_ready`] returned.
    pub fn on_ready_delivered(
        &mut self,
        now: Instant,
        key: StreamKey,
        ready: ReadyData,
        consumed: usize,
        after: AfterReceive,
    ) {
        let clock = self.flow_clock(now);
        self.content
            .streams
            .on_ready_delivered(clock, key, ready, consumed, after);
    }

    /// The time and the round trip time, for calls of [`Streams`].
    #[inline]
    pub fn flow_clock(&self, now: Instant) -> FlowClock {
        FlowClock {
            now,
            rtt: self.recovery.rtt().smoothed(),
        }
    }

    fn on_ack(&mut self, now: Instant, space: Space, frame: &AckFrame<'_>) -> Result<(), TransportError> {
        let delay = if space == Space::Data {
            let micros = frame
                .delay
                .checked_shl(u32::from(self.handshake.peer.ack_delay_exponent));
            Duration::from_micros(micros.filter(|_| frame.delay < 1 << 40).unwrap_or(u64::MAX >> 20))
        } else {
            Duration::ZERO
        };
        let in_flight = self.recovery.bytes_in_flight();
        let state = self.handshake_state();
        let ack = Ack {
            largest: frame.largest,
            delay,
            ranges: frame.ranges(),
        };
        if space == Space::Data
            && self
                .rejected_below()
                .is_some_and(|first| frame.ranges().any(|range| range.start < first))
        {
            return Err(violation("acknowledgement of 0-RTT that was not accepted"));
        }
        let mut acknowledged = Acknowledged::new(&mut self.content);
        let outcome = self.recovery.on_ack(space, now, ack, state, &mut acknowledged)?;
        acknowledged.finish();
        self.content.streams.on_in_flight(in_flight);
        self.content.stats.received_acks += 1;
        if space == Space::Data
            && let Some(keys) = &mut self.handshake.one_rtt
            && keys.on_ack(frame.largest)
            && keys.updates() > 0
        {
            // Packets of the phase before may still be under way (RFC 9001 section 6.5).
            self.next_key_update = now + self.recovery.pto(Space::Data) * 3;
        }
        if let Some(spurious) = outcome.spurious {
            self.content.stats.spurious_losses += spurious.packets;
            if spurious.all {
                self.path.controller.on_spurious(spurious.latest_sent);
            }
        }
        let Some((largest, sent)) = outcome.largest else {
            return Ok(());
        };
        match space {
            Space::Initial => {}
            Space::Handshake => self.handshake.validated_by_peer = true,
            // The server acknowledges 1-RTT packets once it has completed the handshake: it is confirmed as by HANDSHAKE_DONE
            // (RFC 9001 section 4.1.2).
            Space::Data if self.confirms_handshake(largest) => self.confirm_handshake(),
            Space::Data => {}
        }
        self.probes[space as usize] = 0;
        if largest == frame.largest {
            let marks = self.path.ecn.on_ack(space, outcome.ecn_marked, frame.ecn);
            if marks > 0 && outcome.on_path {
                self.content.stats.ecn_congestion_marks += marks;
                let congestion = CongestionEvent {
                    sent,
                    persistent: false,
                    ecn: true,
                };
                let reduced = self.path.controller.on_congestion_event(now, congestion);
                self.content.stats.congestion_events += u32::from(reduced);
                self.content.stats.ecn_congestion_events += u32::from(reduced);
            }
        }
        if let Some(size) = outcome.mtu_probe
            && self.path.mtu.on_probe_acked(now, size)
        {
            self.on_mtu_changed();
        }
        if outcome.on_path {
            self.path.mtu.on_acked(outcome.size_max);
        }
        if let Some(loss) = outcome.loss {
            self.on_loss(now, loss);
        }
        // The window counts as filled if it kept packets back, or was at least half full.
        let app_limited = self.blocked == Blocked::No && in_flight * 2 < self.path.controller.window();
        let rtt = self.recovery.rtt();
        let acked = Acked {
            bytes: outcome.bytes,
            sent,
            rtt: rtt.smoothed(),
            latest: outcome.rtt_sampled.then(|| rtt.latest()),
            app_limited,
        };
        self.path.controller.on_ack(now, acked);
        let packets = self.path.controller.window() / u64::from(self.path.mtu.current());
        self.content.ack_frequency.on_window(packets);
        if self.config.network_statistics && self.handshake.complete {
            self.report_network();
        }
        Ok(())
    }

    /// One report waits at most.
    #[cold]
    fn report_network(&mut self) {
        let events = &mut self.content.events;
        let waits = |event: &Event| matches!(event, Event::NetworkStatistics);
        if !events.iter().any(waits) {
            events.push_back(Event::NetworkStatistics);
        }
    }

    fn on_ack_frequency(&mut self, request: &AckFrequency) -> Result<(), TransportError> {
        let min = self.config.min_ack_delay().as_micros() as u64;
        // As for the transport parameter max_ack_delay: less than 2^14 ms.
        if !(min..(1 << 14) * 1000).contains(&request.max_delay_us) {
            return Err(violation("ACK_FREQUENCY with a delay that cannot be asked for"));
        }
        self.content.spaces[Space::Data].acks.on_ack_frequency(request);
        Ok(())
    }

    /// Packets count as lost.
    pub(super) fn on_loss(&mut self, now: Instant, loss: Loss) {
        if let Some(size) = loss.mtu_probe {
            self.path.mtu.on_probe_lost(now, size);
        }
        if loss.packets == 0 {
            return;
        }
        let stats = &mut self.content.stats;
        stats.lost_packets += loss.packets;
        let congestion = CongestionEvent {
            sent: loss.latest_sent,
            persistent: loss.persistent,
            ecn: false,
        };
        stats.congestion_events += u32::from(self.path.controller.on_congestion_event(now, congestion));
        stats.persistent_congestion_events += u32::from(loss.persistent);
        self.path.ecn.on_loss();
        if self.path.mtu.on_lost(now, loss.size_max) {
            self.on_mtu_changed();
        }
    }

    pub(super) fn on_mtu_changed(&mut self) {
        self.path.controller.set_mtu(u64::from(self.path.mtu.current()));
        self.update_datagram_state();
    }

    fn on_retry(&mut self, packet: &[u8], header: &RetryHeader) -> Result<(), DropReason> {
        let unexpected =
            !self.side.is_client() || self.handshake.received || self.handshake.retry_scid.is_some();
        // One that keeps our connection ID is no Retry (section 17.2.5.1).
        let same_cid = header.scid == self.handshake.original_dcid;
        if unexpected || same_cid || header.version != self.version || header.token.is_empty() {
            return Err(DropReason::UnknownConnection);
        }
        if !retry::verify(self.version, &self.handshake.original_dcid, packet) {
            return Err(DropReason::DecryptionFailed);
        }
        self.handshake.token = packet[header.token.clone()].into();
        self.handshake.retry_scid = Some(header.scid);
        self.content.remote_cids.set_first(header.scid);
        self.handshake.initial = Some(Box::new(Keys::initial(self.version, &header.scid, self.side)));
        self.recovery.resend_all(Space::Initial, &mut self.content);
        // The server has kept none of it, and the keys stay (section 17.2.3).
        self.recovery.resend_all(Space::Data, &mut self.content);
        Ok(())
    }
}

/// Tokens of a server that wait for the caller.
const NEW_TOKENS_MAX: usize = 4;

#[inline]
fn full_number(acks: &AckTracker, unprotected: UnprotectedHeader) -> Result<u64, DropReason> {
    let expected = acks.largest().map_or(0, |largest| largest + 1);
    let number = packet_number::decode(unprotected.number, unprotected.number_len, expected);
    if acks.is_duplicate(number) {
        Err(DropReason::Duplicate)
    } else {
        Ok(number)
    }
}

#[inline]
fn space_of(packet_type: PacketType) -> Space {
    match packet_type {
        PacketType::Initial => Space::Initial,
        PacketType::Handshake => Space::Handshake,
        PacketType::ZeroRtt | PacketType::OneRtt => Space::Data,
    }
}

pub(super) fn violation(reason: &'static str) -> TransportError {
    TransportError::new(TransportErrorCode::PROTOCOL_VIOLATION, reason)
}
