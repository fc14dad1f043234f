//! What frames say, one type for each.

use super::ack::AckFrame;
use crate::wire::cid::{ConnectionId, ResetToken};

/// The largest stream count (RFC 9000 section 4.6).
pub const STREAMS_MAX: u64 = 1 << 60;

/// One frame, borrowed from the decrypted packet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Frame<'a> {
    /// A run of PADDING frames.
    Padding,
    /// PING.
    Ping,
    /// ACK, with or without ECN counts.
    Ack(AckFrame<'a>),
    /// RESET_STREAM.
    ResetStream {
        /// Stream ID.
        id: u64,
        /// Application error code.
        code: u64,
        /// Length of the stream.
        final_size: u64,
    },
    /// STOP_SENDING.
    StopSending {
        /// Stream ID.
        id: u64,
        /// Application error code.
        code: u64,
    },
    /// CRYPTO.
    Crypto {
        /// Position of the data.
        offset: u64,
        /// Handshake bytes.
        data: &'a [u8],
    },
    /// NEW_TOKEN.
    NewToken(&'a [u8]),
    /// STREAM.
    Stream(StreamFrame<'a>),
    /// MAX_DATA.
    MaxData(u64),
    /// MAX_STREAM_DATA.
    MaxStreamData {
        /// Stream ID.
        id: u64,
        /// The new limit.
        max: u64,
    },
    /// MAX_STREAMS.
    MaxStreams {
        /// For bidirectional streams.
        bidi: bool,
        /// The new limit.
        max: u64,
    },
    /// DATA_BLOCKED at this limit.
    DataBlocked(u64),
    /// STREAM_DATA_BLOCKED.
    StreamDataBlocked {
        /// Stream ID.
        id: u64,
        /// The limit.
        limit: u64,
    },
    /// STREAMS_BLOCKED.
    StreamsBlocked {
        /// For bidirectional streams.
        bidi: bool,
        /// The limit.
        limit: u64,
    },
    /// NEW_CONNECTION_ID.
    NewConnectionId(NewConnectionId),
    /// RETIRE_CONNECTION_ID of this sequence number.
    RetireConnectionId(u64),
    /// PATH_CHALLENGE.
    PathChallenge([u8; 8]),
    /// PATH_RESPONSE.
    PathResponse([u8; 8]),
    /// CONNECTION_CLOSE.
    ConnectionClose {
        /// Sent by the application (type 0x1d).
        application: bool,
        /// Transport or application error code.
        code: u64,
        /// The frame type that caused a transport error; 0 if unknown.
        frame_type: u64,
        /// For people; need not be UTF-8.
        reason: &'a [u8],
    },
    /// HANDSHAKE_DONE.
    HandshakeDone,
    /// DATAGRAM.
    Datagram(&'a [u8]),
    /// ACK_FREQUENCY.
    AckFrequency(AckFrequency),
    /// IMMEDIATE_ACK.
    ImmediateAck,
}

/// An ACK_FREQUENCY frame (draft-ietf-quic-ack-frequency section 4).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AckFrequency {
    /// Later requests have larger ones.
    pub sequence: u64,
    /// Ack-eliciting packets that may wait for an acknowledgement.
    pub threshold: u64,
    /// How long the first of them may wait at most, in microseconds.
    pub max_delay_us: u64,
    /// Numbers by which a packet must be late for an acknowledgement at once; 0: never.
    pub reordering: u64,
}

/// A STREAM frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StreamFrame<'a> {
    /// Stream ID.
    pub id: u64,
    /// Position of the data.
    pub offset: u64,
    /// The data.
    pub data: &'a [u8],
    /// The stream ends behind the data.
    pub fin: bool,
}

/// A NEW_CONNECTION_ID frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NewConnectionId {
    /// Sequence number of the connection ID.
    pub sequence: u64,
    /// Connection IDs below this one are to be retired.
    pub retire_prior_to: u64,
    /// The connection ID.
    pub cid: ConnectionId,
    /// Its stateless reset token.
    pub reset_token: ResetToken,
}

/// Type of packet, as far as it decides which frames may be in it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum PacketType {
    /// Initial.
    Initial,
    /// Handshake.
    Handshake,
    /// 0-RTT.
    ZeroRtt,
    /// 1-RTT.
    OneRtt,
}

impl Frame<'_> {
    /// True if a packet with this frame must be acknowledged (RFC 9000 section 13.2).
    pub fn is_ack_eliciting(&self) -> bool {
        !matches!(
            self,
            Frame::Padding | Frame::Ack(_) | Frame::ConnectionClose { .. }
        )
    }

    /// True for frames that do not make the receiver migrate (RFC 9000 section 9.1).
    pub fn is_probing(&self) -> bool {
        matches!(
            self,
            Frame::Padding | Frame::PathChallenge(_) | Frame::PathResponse(_) | Frame::NewConnectionId(_)
        )
    }

    /// Whether the frame may be in a packet of this type (RFC 9000 section 12.4, table 3).
    pub fn is_allowed_in(&self, packet_type: PacketType) -> bool {
        match packet_type {
            PacketType::OneRtt => true,
            // Those that answer 1-RTT packets cannot be (section 12.5, draft-ietf-quic-ack-frequency section 5).
            PacketType::ZeroRtt => !matches!(
                self,
                Frame::Ack(_)
                    | Frame::Crypto { .. }
                    | Frame::HandshakeDone
                    | Frame::NewToken(_)
                    | Frame::PathResponse(_)
                    | Frame::RetireConnectionId(_)
                    | Frame::AckFrequency(_)
                    | Frame::ImmediateAck
            ),
            PacketType::Initial | PacketType::Handshake => matches!(
                self,
                Frame::Padding
                    | Frame::Ping
                    | Frame::Ack(_)
                    | Frame::Crypto { .. }
                    | Frame::ConnectionClose {
                        application: false,
                        ..
                    }
            ),
        }
    }
}
