//! Frames into a packet. The caller has checked that there is room.

use std::ops::Range;

use super::ack::EcnCounts;
use super::frames::NewConnectionId;
use super::ty;
use crate::base::coding::Writer;
use crate::base::varint::varint_len;

/// Writes PING.
pub fn encode_ping(w: &mut Writer<'_>) {
    w.varint(ty::PING);
}

/// Writes an ACK of `ranges`, descending and disjoint, as many as fit in `room` bytes. Gives false, and writes nothing, if not even one does.
pub fn encode_ack(
    w: &mut Writer<'_>,
    delay: u64,
    mut ranges: impl Iterator<Item = Range<u64>> + Clone,
    ecn: Option<EcnCounts>,
    room: usize,
) -> bool {
    let Some(first) = ranges.next() else { return false };
    let ecn_len = ecn.map_or(0, |ecn| {
        varint_len(ecn.ect0) + varint_len(ecn.ect1) + varint_len(ecn.ce)
    });
    // The count of ranges takes at most two bytes: the tracker keeps fewer than 2^14.
    let mut used = 1
        + varint_len(first.end - 1)
        + varint_len(delay)
        + 2
        + varint_len(first.end - first.start - 1)
        + ecn_len;
    if used > room {
        return false;
    }
    let mut count = 0u64;
    let mut smallest = first.start;
    for range in ranges.clone() {
        let len = varint_len(smallest - range.end - 1) + varint_len(range.end - range.start - 1);
        if used + len > room {
            break;
        }
        used += len;
        count += 1;
        smallest = range.start;
    }
    w.varint(if ecn.is_some() { ty::ACK_ECN } else { ty::ACK });
    w.varint(first.end - 1);
    w.varint(delay);
    w.varint(count);
    w.varint(first.end - first.start - 1);
    let mut smallest = first.start;
    for range in ranges.take(count as usize) {
        w.varint(smallest - range.end - 1);
        w.varint(range.end - range.start - 1);
        smallest = range.start;
    }
    if let Some(ecn) = ecn {
        w.varint(ecn.ect0);
        w.varint(ecn.ect1);
        w.varint(ecn.ce);
    }
    true
}

/// Writes a frame that is its type and some integers: most control frames.
pub fn encode_integers(w: &mut Writer<'_>, frame_type: u64, values: &[u64]) {
    w.varint(frame_type);
    values.iter().for_each(|value| w.varint(*value));
}

/// Bytes of such a frame.
pub fn integers_len(frame_type: u64, values: &[u64]) -> usize {
    varint_len(frame_type) + values.iter().map(|value| varint_len(*value)).sum::<usize>()
}

/// Bytes of a CRYPTO frame before its data, if it has at most 2^14 - 1 bytes of it.
pub fn crypto_header_len(offset: u64) -> usize {
    1 + varint_len(offset) + 2
}

/// Writes CRYPTO.
pub fn encode_crypto(w: &mut Writer<'_>, offset: u64, data: &[u8]) {
    w.varint(ty::CRYPTO);
    w.varint(offset);
    w.varint_2(data.len() as u16);
    w.bytes(data);
}

/// Bytes of a NEW_TOKEN.
pub fn new_token_len(token: &[u8]) -> usize {
    1 + varint_len(token.len() as u64) + token.len()
}

/// Writes NEW_TOKEN.
pub fn encode_new_token(w: &mut Writer<'_>, token: &[u8]) {
    w.varint(ty::NEW_TOKEN);
    w.varint_bytes(token);
}

/// Bytes of a STREAM frame before its data, with the two-byte Length if `with_len`.
#[inline]
pub fn stream_header_len(id: u64, offset: u64, with_len: bool) -> usize {
    1 + varint_len(id) + if offset == 0 { 0 } else { varint_len(offset) } + if with_len { 2 } else { 0 }
}

/// Writes the STREAM frame before its data; without a length the data reaches to the end of the packet.
#[inline]
pub fn encode_stream_header(w: &mut Writer<'_>, id: u64, offset: u64, len: Option<usize>, fin: bool) {
    let bits = u8::from(offset != 0) << 2 | u8::from(len.is_some()) << 1 | u8::from(fin);
    w.u8(ty::STREAM as u8 | bits);
    w.varint(id);
    if offset != 0 {
        w.varint(offset);
    }
    if let Some(len) = len {
        w.varint_2(len as u16);
    }
}

/// Bytes of a NEW_CONNECTION_ID.
pub fn new_connection_id_len(frame: &NewConnectionId) -> usize {
    1 + varint_len(frame.sequence) + varint_len(frame.retire_prior_to) + 1 + frame.cid.len() + 16
}

/// Writes NEW_CONNECTION_ID.
pub fn encode_new_connection_id(w: &mut Writer<'_>, frame: &NewConnectionId) {
    w.varint(ty::NEW_CONNECTION_ID);
    w.varint(frame.sequence);
    w.varint(frame.retire_prior_to);
    w.u8(frame.cid.len() as u8);
    w.bytes(frame.cid.as_bytes());
    w.bytes(&frame.reset_token.0);
}

/// Bytes of a PATH_CHALLENGE or PATH_RESPONSE.
pub const PATH_FRAME_LEN: usize = 9;

/// Writes PATH_CHALLENGE.
pub fn encode_path_challenge(w: &mut Writer<'_>, data: [u8; 8]) {
    w.varint(ty::PATH_CHALLENGE);
    w.bytes(&data);
}

/// Writes PATH_RESPONSE.
pub fn encode_path_response(w: &mut Writer<'_>, data: [u8; 8]) {
    w.varint(ty::PATH_RESPONSE);
    w.bytes(&data);
}

/// Writes CONNECTION_CLOSE with as much of the reason as fits in `room` bytes; `frame_type` is `None` for an application's close.
pub fn encode_connection_close(
    w: &mut Writer<'_>,
    code: u64,
    frame_type: Option<u64>,
    reason: &[u8],
    room: usize,
) {
    w.varint(if frame_type.is_some() {
        ty::CONNECTION_CLOSE
    } else {
        ty::CONNECTION_CLOSE_APP
    });
    w.varint(code);
    if let Some(frame_type) = frame_type {
        w.varint(frame_type);
    }
    // Type, code and frame type are at most 17 bytes, the length of a reason this short at most 2.
    let reason = &reason[..reason.len().min(room.saturating_sub(19))];
    w.varint_bytes(reason);
}

/// Bytes of a DATAGRAM with a length.
pub fn datagram_len(len: usize) -> usize {
    1 + varint_len(len as u64) + len
}

/// Writes DATAGRAM with a length, and these pieces as its content.
pub fn encode_datagram<'a>(w: &mut Writer<'_>, pieces: impl Iterator<Item = &'a [u8]> + Clone) {
    w.varint(ty::DATAGRAM_LEN);
    w.varint(pieces.clone().map(|piece| piece.len() as u64).sum());
    pieces.for_each(|piece| w.bytes(piece));
}
