//! What goes into packets: the sources of frames, and what becomes of a frame when its packet is acknowledged or lost.

use std::collections::VecDeque;
use std::ops::Range;

use ringway_types::{Ecn, Instant};

use super::ack_frequency::{self, AckFrequency};
use super::cids::{LocalCids, RemoteCids};
use super::events::Event;
use super::spaces::PacketSpaces;
use super::stats::Counters;
use crate::base::coding::Writer;
use crate::datagrams::{DatagramSendState, SendQueue, Waiting};
use crate::recovery::Sink;
use crate::streams::{ControlToken, NextFrame, StreamKey, StreamRange, Streams};
use crate::wire::Space;
use crate::wire::frame::{self, ty};

/// A frame in a packet, as far as it matters when the packet is acknowledged or lost.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum FrameToken {
    Stream(StreamRange),
    Ack { largest: u64 },
    Control(ControlToken),
    Crypto { offset: u64, len: u16 },
    Datagram { context: u64 },
    NewConnectionId { sequence: u64 },
    RetireConnectionId { sequence: u64 },
    HandshakeDone,
    NewToken,
    AckFrequency { sequence: u64 },
}

/// The sources of frames of a connection.
pub(super) struct Content {
    pub(super) ack_frequency: AckFrequency,
    pub(super) spaces: PacketSpaces,
    pub(super) streams: Streams,
    pub(super) datagrams: SendQueue,
    pub(super) local_cids: LocalCids,
    pub(super) remote_cids: RemoteCids,
    /// HANDSHAKE_DONE is to be sent.
    pub(super) handshake_done: bool,
    /// NEW_TOKEN to be sent, and whether it is.
    pub(super) new_token: Box<[u8]>,
    pub(super) new_token_pending: bool,
    pub(super) events: VecDeque<Event>,
    pub(super) stats: Counters,
    /// Tokens of the packet that is being built.
    pub(super) tokens: Vec<FrameToken>,
}

/// What was written into a packet.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Filled {
    /// The packet must be acknowledged.
    pub(super) ack_eliciting: bool,
    /// Stream data that is to be sealed from where it lies, behind what was written.
    pub(super) tail: Option<StreamRange>,
}

impl Content {
    /// Writes frames into a packet of `space`. Without `may_send_data` only acknowledgements. A tail makes
    /// the packet full if it `must_fill`.
    #[inline]
    pub(super) fn fill(
        &mut self,
        now: Instant,
        space: Space,
        w: &mut Writer<'_>,
        may_send_data: bool,
        must_fill: bool,
    ) -> Filled {
        let mut filled = Filled::default();
        self.tokens.clear();
        if may_send_data && space == Space::Data && self.spaces[space].acks.is_due(now) {
            self.streams.on_ack_due();
        }
        let acks = &self.spaces[space].acks;
        if acks.is_due(now) || (may_send_data && acks.has_unacked() && self.has_data(space)) {
            self.write_ack(now, space, w);
        }
        if !may_send_data {
            return filled;
        }
        if self.spaces[space].ping {
            self.spaces[space].ping = false;
            frame::encode_ping(w);
            filled.ack_eliciting = true;
        }
        self.write_crypto(space, w, &mut filled);
        if space != Space::Data {
            return filled;
        }
        if self.has_control_frames() {
            self.write_control_frames(w, &mut filled);
        }
        self.write_streams(w, &mut filled, must_fill);
        if filled.ack_eliciting && filled.tail.is_none() && self.wants_ack_soon() && w.remaining() > 0 {
            ack_frequency::write_immediate_ack(w);
        }
        filled
    }

    /// True if there is something ack-eliciting to send in `space`.
    #[inline]
    pub(super) fn has_data(&self, space: Space) -> bool {
        self.spaces[space].ping
            || self.spaces[space].crypto.has_data()
            || (space == Space::Data && (self.streams.has_data() || self.has_control_frames()))
    }

    /// The peer may wait for more packets, and there are none to come.
    #[inline]
    fn wants_ack_soon(&self) -> bool {
        self.ack_frequency.is_relaxed() && !self.streams.has_data()
    }

    #[inline]
    fn has_control_frames(&self) -> bool {
        self.streams.has_control()
            || self.datagrams.is_ready()
            || self.handshake_done
            || self.new_token_pending
            || self.local_cids.has_pending()
            || self.remote_cids.next_retirement().is_some()
            || self.ack_frequency.has_frames()
    }

    fn write_ack(&mut self, now: Instant, space: Space, w: &mut Writer<'_>) {
        let acks = &mut self.spaces[space].acks;
        let Some(largest) = acks.largest() else { return };
        // Delays in the handshake are not used (RFC 9002 section 5.3).
        let delay = if space == Space::Data {
            (acks.delay(now).as_micros() as u64) >> ACK_DELAY_EXPONENT
        } else {
            0
        };
        let room = w.remaining();
        if frame::encode_ack(w, delay, acks.ranges(), acks.ecn_counts(), room) {
            acks.on_ack_sent();
            self.tokens.push(FrameToken::Ack { largest });
        }
    }

    #[inline]
    fn write_crypto(&mut self, space: Space, w: &mut Writer<'_>, filled: &mut Filled) {
        let crypto = &mut self.spaces[space].crypto;
        while crypto.has_data() {
            let room = w.remaining();
            let fits = |offset| room.saturating_sub(frame::crypto_header_len(offset));
            let Some((offset, data)) = crypto.next(fits) else {
                return;
            };
            frame::encode_crypto(w, offset, data);
            self.tokens.push(FrameToken::Crypto {
                offset,
                len: data.len() as u16,
            });
            filled.ack_eliciting = true;
        }
    }

    /// Writes handshake data again from its start, for a connection that closes, and acknowledges: without either the peer has no round
    /// trip time, and would keep what is left of the connection for seconds.
    pub(super) fn write_handshake_again(&mut self, now: Instant, space: Space, w: &mut Writer<'_>) {
        self.spaces[space].crypto.rewind();
        self.tokens.clear();
        self.write_ack(now, space, w);
        self.write_crypto(space, w, &mut Filled::default());
    }

    /// Frames that few packets carry.
    fn write_control_frames(&mut self, w: &mut Writer<'_>, filled: &mut Filled) {
        if self.handshake_done && w.remaining() >= 1 {
            self.handshake_done = false;
            frame::encode_integers(w, ty::HANDSHAKE_DONE, &[]);
            self.push(filled, FrameToken::HandshakeDone);
        }
        if self.ack_frequency.has_frames() {
            let before = w.len();
            if let Some(sequence) = self.ack_frequency.write(w) {
                self.tokens.push(FrameToken::AckFrequency { sequence });
            }
            filled.ack_eliciting |= w.len() > before;
        }
        while let Some(new) = self.local_cids.next_pending() {
            if w.remaining() < frame::new_connection_id_len(&new) || self.tokens.len() >= TOKENS_MAX {
                break;
            }
            frame::encode_new_connection_id(w, &new);
            self.local_cids.pop_pending();
            self.push(
                filled,
                FrameToken::NewConnectionId {
                    sequence: new.sequence,
                },
            );
        }
        while let Some(sequence) = self.remote_cids.next_retirement() {
            if w.remaining() < frame::integers_len(ty::RETIRE_CONNECTION_ID, &[sequence])
                || self.tokens.len() >= TOKENS_MAX
            {
                break;
            }
            frame::encode_integers(w, ty::RETIRE_CONNECTION_ID, &[sequence]);
            self.remote_cids.pop_retirement();
            self.push(filled, FrameToken::RetireConnectionId { sequence });
        }
        if self.new_token_pending && w.remaining() >= frame::new_token_len(&self.new_token) {
            self.new_token_pending = false;
            frame::encode_new_token(w, &self.new_token);
            self.push(filled, FrameToken::NewToken);
        }
        while self.tokens.len() < TOKENS_MAX
            && let Some(control) = self.streams.next_control(w.remaining())
        {
            frame::encode_integers(w, control.frame_type, control.values());
            self.push(filled, FrameToken::Control(control.token));
        }
        while self.tokens.len() < TOKENS_MAX
            && let Some(len) = self.datagrams.next_len()
            && w.remaining() >= frame::datagram_len(len)
        {
            let Some(Waiting { data, context, .. }) = self.datagrams.pop() else {
                break;
            };
            frame::encode_datagram(w, data.buffers().iter().map(|buffer| &buffer[..]));
            self.push(filled, FrameToken::Datagram { context });
            self.events.push_back(Event::DatagramSendStateChanged {
                context,
                state: DatagramSendState::Sent,
            });
        }
    }

    #[inline]
    fn push(&mut self, filled: &mut Filled, token: FrameToken) {
        filled.ack_eliciting = true;
        self.tokens.push(token);
    }

    #[inline]
    fn write_streams(&mut self, w: &mut Writer<'_>, filled: &mut Filled, must_fill: bool) {
        while w.remaining() >= STREAM_FRAME_MIN && self.tokens.len() < TOKENS_MAX && self.streams.has_data() {
            let Some(NextFrame {
                range,
                id,
                with_len,
                header_len,
                is_whole,
            }) = self.streams.next_frame(w.remaining())
            else {
                return;
            };
            let len = usize::from(range.len);
            self.stats.sent_stream_bytes += len as u64;
            self.push(filled, FrameToken::Stream(range));
            let mut left = w.remaining() - header_len - len;
            let is_last = left < STREAM_FRAME_MIN;
            if is_last && left > 0 && self.wants_ack_soon() {
                left -= 1;
                ack_frequency::write_immediate_ack(w);
            }
            if is_last && (!with_len || must_fill || self.streams.has_data()) {
                // PADDING in front: the frame is the last, and only datagrams of equal size go as one run.
                w.zeros(left);
            }
            frame::encode_stream_header(w, id, range.offset, with_len.then_some(len), range.fin);
            if is_last && is_whole {
                filled.tail = Some(range);
                return;
            }
            let mut copied = 0;
            while copied < len {
                let piece = self
                    .streams
                    .bytes_at(range.key, range.offset + copied as u64, len - copied);
                debug_assert!(!piece.is_empty());
                w.bytes(piece);
                copied += piece.len();
            }
            if is_last {
                return;
            }
        }
    }

    /// Frees lists that are empty.
    pub(super) fn shrink_to_fit(&mut self) {
        self.tokens = Vec::new();
        if self.events.is_empty() {
            self.events = VecDeque::new();
        }
        self.streams.shrink_to_fit();
    }

    /// Sends again what the oldest outstanding packets carried.
    pub(super) fn resend(&mut self, space: Space, token: FrameToken) {
        match token {
            // Datagrams are not repeated, and not lost either.
            FrameToken::Datagram { .. } => {}
            token => self.on_lost(space, token),
        }
    }
}

impl Sink<FrameToken> for Content {
    #[inline]
    fn on_acked(&mut self, space: Space, token: FrameToken) {
        match token {
            FrameToken::Stream(range) => self.streams.on_data_acked(range.key, range.offsets(), range.fin),
            FrameToken::Ack { largest } => self.spaces[space].acks.on_ack_acked(largest),
            FrameToken::Control(control) => self.streams.on_control_acked(control),
            FrameToken::Crypto { offset, len } => self.spaces[space].crypto.on_acked(offset, u64::from(len)),
            FrameToken::Datagram { context } => {
                let state = DatagramSendState::Acknowledged;
                self.events
                    .push_back(Event::DatagramSendStateChanged { context, state });
            }
            // There is one for each connection.
            FrameToken::NewToken => {
                self.new_token = Box::default();
                self.new_token_pending = false;
            }
            FrameToken::NewConnectionId { .. }
            | FrameToken::RetireConnectionId { .. }
            | FrameToken::HandshakeDone
            | FrameToken::AckFrequency { .. } => {}
        }
    }

    fn on_acked_late(&mut self, space: Space, token: FrameToken) {
        match token {
            FrameToken::Datagram { context } => {
                let state = DatagramSendState::AcknowledgedSpurious;
                self.events
                    .push_back(Event::DatagramSendStateChanged { context, state });
            }
            token => self.on_acked(space, token),
        }
    }

    fn on_forgotten(&mut self, _: Space, token: FrameToken) {
        if let FrameToken::Datagram { context } = token {
            let state = DatagramSendState::LostDiscarded;
            self.events
                .push_back(Event::DatagramSendStateChanged { context, state });
        }
    }

    fn on_lost(&mut self, space: Space, token: FrameToken) {
        match token {
            FrameToken::Stream(range) => self.streams.on_data_lost(range),
            // The next one says more.
            FrameToken::Ack { .. } => {}
            FrameToken::Control(control) => self.streams.on_control_lost(control),
            FrameToken::Crypto { offset, len } => self.spaces[space].crypto.on_lost(offset, u64::from(len)),
            FrameToken::Datagram { context } => {
                let state = DatagramSendState::LostSuspect;
                self.events
                    .push_back(Event::DatagramSendStateChanged { context, state });
            }
            FrameToken::NewConnectionId { sequence } => self.local_cids.on_lost(sequence),
            FrameToken::RetireConnectionId { sequence } => self.remote_cids.on_retirement_lost(sequence),
            FrameToken::HandshakeDone => self.handshake_done = true,
            // It is empty if the packet of a repetition has been acknowledged.
            FrameToken::NewToken => self.new_token_pending = !self.new_token.is_empty(),
            FrameToken::AckFrequency { sequence } => self.ack_frequency.on_lost(sequence),
        }
    }
}

/// The content while an acknowledgement is taken in. Stream data that follows one another goes to the streams as one: in a long transfer an
/// acknowledgement is of many packets, each with the next piece.
pub(super) struct Acknowledged<'a> {
    content: &'a mut Content,
    /// Acknowledged data that the streams do not know of yet.
    data: Option<(StreamKey, Range<u64>, bool)>,
}

impl<'a> Acknowledged<'a> {
    pub(super) fn new(content: &'a mut Content) -> Self {
        Acknowledged { content, data: None }
    }

    /// Passes on what the streams do not know of yet.
    #[inline]
    pub(super) fn finish(&mut self) {
        if let Some((key, data, fin)) = self.data.take() {
            self.content.streams.on_data_acked(key, data, fin);
        }
    }
}

impl Sink<FrameToken> for Acknowledged<'_> {
    #[inline]
    fn on_acked(&mut self, space: Space, token: FrameToken) {
        match (token, &mut self.data) {
            (FrameToken::Stream(range), Some((key, data, fin)))
                if *key == range.key && data.end == range.offset =>
            {
                data.end = range.offsets().end;
                *fin |= range.fin;
            }
            (FrameToken::Stream(range), _) => {
                self.finish();
                self.data = Some((range.key, range.offsets(), range.fin));
            }
            (token, _) => self.content.on_acked(space, token),
        }
    }

    fn on_lost(&mut self, space: Space, token: FrameToken) {
        self.finish();
        self.content.on_lost(space, token);
    }

    fn on_acked_late(&mut self, space: Space, token: FrameToken) {
        match token {
            FrameToken::Datagram { .. } => self.content.on_acked_late(space, token),
            token => self.on_acked(space, token),
        }
    }

    fn on_forgotten(&mut self, space: Space, token: FrameToken) {
        self.content.on_forgotten(space, token);
    }
}

/// A packet was received whole.
impl Content {
    #[inline]
    pub(super) fn on_packet(
        &mut self,
        now: Instant,
        space: Space,
        number: u64,
        ack_eliciting: bool,
        ecn: Ecn,
    ) {
        self.spaces[space]
            .acks
            .on_received(now, number, ack_eliciting, ecn);
    }
}

/// Our transport parameter has the default value (RFC 9000 section 18.2).
pub(super) const ACK_DELAY_EXPONENT: u32 = 3;
/// Frames in one packet that are kept track of.
const TOKENS_MAX: usize = 64;
/// Bytes below which no stream frame is begun: more header than data.
const STREAM_FRAME_MIN: usize = 32;
