//! Frames out of a decrypted payload.

use super::ack::AckFrame;
use super::frames::{AckFrequency, Frame, NewConnectionId, STREAMS_MAX, StreamFrame};
use super::ty;
use crate::base::coding::Reader;
use crate::base::varint::VARINT_MAX;
use crate::wire::cid::{ConnectionId, ResetToken};
use crate::wire::error::{TransportError, TransportErrorCode};

/// Reads the frames of a packet one by one.
#[derive(Clone, Debug)]
pub struct FrameReader<'a> {
    reader: Reader<'a>,
    frame_type: u64,
}

impl<'a> FrameReader<'a> {
    /// At the start of a payload.
    #[inline]
    pub fn new(payload: &'a [u8]) -> Self {
        FrameReader {
            reader: Reader::new(payload),
            frame_type: 0,
        }
    }

    /// The type of the frame read last, for CONNECTION_CLOSE.
    #[inline]
    pub fn frame_type(&self) -> u64 {
        self.frame_type
    }

    /// The next frame. After an error nothing more can be read.
    pub fn next_frame(&mut self) -> Option<Result<Frame<'a>, TransportError>> {
        if let Some(stream) = self.next_stream() {
            return Some(stream.map(Frame::Stream));
        }
        if self.reader.remaining() == 0 {
            return None;
        }
        let frame = self.other();
        Some(frame.map_err(|error| self.in_frame(error)))
    }

    /// The next frame, if it is a STREAM frame, as nearly all are in bulk: by itself, because a frame of any kind is written and read back in pieces
    /// of different sizes, which stalls. So would this one be, were it called.
    #[inline(always)]
    pub fn next_stream(&mut self) -> Option<Result<StreamFrame<'a>, TransportError>> {
        let first = u64::from(self.reader.peek().ok()?);
        if !(ty::STREAM..=ty::STREAM_LAST).contains(&first) {
            return None;
        }
        self.frame_type = first;
        let frame = stream(&mut self.reader);
        Some(frame.map_err(|error| self.in_frame(error)))
    }

    fn in_frame(&self, error: TransportError) -> TransportError {
        TransportError {
            frame_type: self.frame_type,
            ..error
        }
    }

    fn other(&mut self) -> Result<Frame<'a>, TransportError> {
        let before = self.reader.remaining();
        self.frame_type = self.reader.varint()?;
        if before - self.reader.remaining() != crate::base::varint::varint_len(self.frame_type) {
            // RFC 9000 section 12.4: frame types use the shortest encoding.
            return Err(TransportError::new(
                TransportErrorCode::PROTOCOL_VIOLATION,
                "frame type not in its shortest encoding",
            ));
        }
        frame(self.frame_type, &mut self.reader)
    }
}

fn encoding(reason: &'static str) -> TransportError {
    TransportError::new(TransportErrorCode::FRAME_ENCODING_ERROR, reason)
}

fn frame<'a>(frame_type: u64, r: &mut Reader<'a>) -> Result<Frame<'a>, TransportError> {
    Ok(match frame_type {
        ty::PADDING => {
            let run = r.as_slice().iter().take_while(|byte| **byte == 0).count();
            r.bytes(run)?;
            Frame::Padding
        }
        ty::PING => Frame::Ping,
        ty::ACK | ty::ACK_ECN => Frame::Ack(AckFrame::decode(r, frame_type == ty::ACK_ECN)?),
        ty::RESET_STREAM => Frame::ResetStream {
            id: r.varint()?,
            code: r.varint()?,
            final_size: r.varint()?,
        },
        ty::STOP_SENDING => Frame::StopSending {
            id: r.varint()?,
            code: r.varint()?,
        },
        ty::CRYPTO => {
            let offset = r.varint()?;
            let data = r.varint_bytes()?;
            check_end(offset, data.len(), "CRYPTO beyond 2^62-1")?;
            Frame::Crypto { offset, data }
        }
        ty::NEW_TOKEN => match r.varint_bytes()? {
            [] => return Err(encoding("empty NEW_TOKEN")),
            token => Frame::NewToken(token),
        },
        ty::MAX_DATA => Frame::MaxData(r.varint()?),
        ty::MAX_STREAM_DATA => Frame::MaxStreamData {
            id: r.varint()?,
            max: r.varint()?,
        },
        ty::MAX_STREAMS_BIDI | ty::MAX_STREAMS_UNI => Frame::MaxStreams {
            bidi: frame_type == ty::MAX_STREAMS_BIDI,
            max: stream_count(r)?,
        },
        ty::DATA_BLOCKED => Frame::DataBlocked(r.varint()?),
        ty::STREAM_DATA_BLOCKED => Frame::StreamDataBlocked {
            id: r.varint()?,
            limit: r.varint()?,
        },
        ty::STREAMS_BLOCKED_BIDI | ty::STREAMS_BLOCKED_UNI => Frame::StreamsBlocked {
            bidi: frame_type == ty::STREAMS_BLOCKED_BIDI,
            limit: stream_count(r)?,
        },
        ty::NEW_CONNECTION_ID => Frame::NewConnectionId(new_connection_id(r)?),
        ty::RETIRE_CONNECTION_ID => Frame::RetireConnectionId(r.varint()?),
        ty::PATH_CHALLENGE => Frame::PathChallenge(r.array()?),
        ty::PATH_RESPONSE => Frame::PathResponse(r.array()?),
        ty::CONNECTION_CLOSE | ty::CONNECTION_CLOSE_APP => {
            let application = frame_type == ty::CONNECTION_CLOSE_APP;
            Frame::ConnectionClose {
                application,
                code: r.varint()?,
                frame_type: if application { 0 } else { r.varint()? },
                reason: r.varint_bytes()?,
            }
        }
        ty::HANDSHAKE_DONE => Frame::HandshakeDone,
        ty::DATAGRAM => Frame::Datagram(r.bytes(r.remaining())?),
        ty::DATAGRAM_LEN => Frame::Datagram(r.varint_bytes()?),
        ty::ACK_FREQUENCY => Frame::AckFrequency(AckFrequency {
            sequence: r.varint()?,
            threshold: r.varint()?,
            max_delay_us: r.varint()?,
            reordering: r.varint()?,
        }),
        ty::IMMEDIATE_ACK => Frame::ImmediateAck,
        _ => return Err(encoding("unknown frame type")),
    })
}

#[inline]
fn stream<'a>(r: &mut Reader<'a>) -> Result<StreamFrame<'a>, TransportError> {
    let bits = r.u8()?;
    let id = r.varint()?;
    let offset = if bits & 0x04 != 0 { r.varint()? } else { 0 };
    let data = if bits & 0x02 != 0 {
        r.varint_bytes()?
    } else {
        r.bytes(r.remaining())?
    };
    check_end(offset, data.len(), "STREAM beyond 2^62-1")?;
    Ok(StreamFrame {
        id,
        offset,
        data,
        fin: bits & 0x01 != 0,
    })
}

/// RFC 9000 sections 19.6 and 19.8: the largest offset is 2^62-1.
#[inline]
fn check_end(offset: u64, len: usize, reason: &'static str) -> Result<(), TransportError> {
    if offset + len as u64 > VARINT_MAX {
        Err(encoding(reason))
    } else {
        Ok(())
    }
}

fn stream_count(r: &mut Reader<'_>) -> Result<u64, TransportError> {
    let count = r.varint()?;
    if count > STREAMS_MAX {
        Err(encoding("more than 2^60 streams"))
    } else {
        Ok(count)
    }
}

fn new_connection_id(r: &mut Reader<'_>) -> Result<NewConnectionId, TransportError> {
    let sequence = r.varint()?;
    let retire_prior_to = r.varint()?;
    if retire_prior_to > sequence {
        return Err(encoding("NEW_CONNECTION_ID retires itself"));
    }
    let len = r.u8()?;
    let cid = ConnectionId::new(r.bytes(usize::from(len))?)
        .filter(|cid| !cid.is_empty())
        .ok_or_else(|| encoding("connection ID not of 1 to 20 bytes"))?;
    Ok(NewConnectionId {
        sequence,
        retire_prior_to,
        cid,
        reset_token: ResetToken(r.array()?),
    })
}
