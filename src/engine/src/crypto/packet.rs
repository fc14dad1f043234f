//! Packets, sealed: what connections send, and what is sent without one.

use super::keys::DirectionalKeys;
use super::suite::TAG_LEN;
use crate::base::coding::Writer;
use crate::wire::Version;
use crate::wire::cid::ConnectionId;
use crate::wire::header::{self, LongType};
use crate::wire::packet_number::PacketNumber;

/// Begins a packet with a long header: gives a writer for its payload, the length of its header, and where that says
/// the packet's length. Room for the tag is left.
pub(crate) fn begin_long<'a>(
    out: &'a mut [u8],
    version: Version,
    ty: LongType,
    cids: (&ConnectionId, &ConnectionId),
    token: Option<&[u8]>,
    number: PacketNumber,
) -> (Writer<'a>, usize, usize) {
    let capacity = out.len() - TAG_LEN;
    let mut w = Writer::new(&mut out[..capacity]);
    let length_offset = header::encode_long(&mut w, version, ty, cids, token, number);
    let header_len = w.len();
    (w, header_len, length_offset)
}

/// Seals a packet whose payload is written.
pub(crate) fn finish_long(
    packet: &mut [u8],
    length_offset: usize,
    keys: &DirectionalKeys,
    number: u64,
    encoded: PacketNumber,
    header_len: usize,
) {
    header::patch_length(packet, length_offset);
    seal(keys, packet, number, encoded, header_len, &[]);
}

/// Seals a packet and hides its number.
#[inline]
pub(crate) fn seal(
    keys: &DirectionalKeys,
    packet: &mut [u8],
    number: u64,
    encoded: PacketNumber,
    header_len: usize,
    tail: &[u8],
) {
    keys.packet.seal(number, packet, header_len, tail);
    let number_offset = header_len - encoded.len;
    let sample = header::sample(packet, number_offset).expect("packets are padded to hold a sample");
    let mask = keys.header.mask(sample);
    header::apply_protection(packet, number_offset, encoded.len, mask);
}
