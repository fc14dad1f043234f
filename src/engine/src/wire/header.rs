//! Packet headers (RFC 8999 section 5, RFC 9000 section 17, RFC 9369 section 3.2).
//!
//! Decoding gives offsets rather than slices: the caller holds the datagram mutably, because packets are opened in
//! place.

use std::ops::Range;

use super::Version;
use super::cid::{CID_LEN_MAX, ConnectionId};
use super::packet_number::PacketNumber;
use crate::base::coding::{Reader, UnexpectedEnd, Writer};

/// The first bit: set in packets with a long header.
const LONG_HEADER: u8 = 0x80;
/// The QUIC bit, set unless the peer allows it to be random (RFC 9287).
pub(crate) const FIXED_BIT: u8 = 0x40;
const KEY_PHASE: u8 = 0x04;
/// Bits of the first byte that header protection covers.
const LONG_MASK: u8 = 0x0f;
const SHORT_MASK: u8 = 0x1f;
/// Bytes behind the start of the packet number where the sample for header protection begins (RFC 9001 section 5.4.2).
const SAMPLE_OFFSET: usize = 4;
/// Bytes of the sample.
pub const SAMPLE_LEN: usize = 16;

/// Type of a packet with a long header, other than Retry and version negotiation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LongType {
    /// Initial.
    Initial,
    /// 0-RTT.
    ZeroRtt,
    /// Handshake.
    Handshake,
}

/// The part of a long header that can be read before header protection is removed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LongHeader {
    /// Version of QUIC.
    pub version: Version,
    /// Type of the packet.
    pub ty: LongType,
    /// Destination connection ID.
    pub dcid: ConnectionId,
    /// Source connection ID.
    pub scid: ConnectionId,
    /// Where the token of an Initial lies in the datagram.
    pub token: Range<usize>,
    /// Where the packet number begins.
    pub number_offset: usize,
    /// Length of the whole packet; another may follow in the datagram.
    pub packet_len: usize,
}

/// A Retry packet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RetryHeader {
    /// Version of QUIC.
    pub version: Version,
    /// Destination connection ID.
    pub dcid: ConnectionId,
    /// Source connection ID: the one to send to from now on.
    pub scid: ConnectionId,
    /// Where the token lies; the 16 bytes of the integrity tag follow.
    pub token: Range<usize>,
}

/// A packet of a version that we do not speak; only the fields of RFC 8999.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct UnsupportedVersion {
    /// The version.
    pub version: u32,
    /// Where the destination connection ID lies (up to 255 bytes).
    pub dcid: Range<usize>,
    /// Where the source connection ID lies (up to 255 bytes).
    pub scid: Range<usize>,
}

/// A version negotiation packet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct VersionNegotiation {
    /// Destination connection ID.
    pub dcid: ConnectionId,
    /// Source connection ID.
    pub scid: ConnectionId,
    /// Where the list of versions lies, four bytes each.
    pub versions: Range<usize>,
}

/// The header of the first packet in a datagram, as far as it can be read under header protection.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ProtectedHeader {
    /// Initial, 0-RTT or Handshake.
    Long(LongHeader),
    /// Retry.
    Retry(RetryHeader),
    /// Version negotiation.
    VersionNegotiation(VersionNegotiation),
    /// Of a version we do not speak.
    UnsupportedVersion(UnsupportedVersion),
    /// 1-RTT; the packet number begins at this offset and the packet takes all of the datagram.
    Short {
        /// Where the packet number begins.
        number_offset: usize,
    },
}

/// Why a header cannot be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HeaderError {
    /// The datagram ends before the header does.
    Truncated,
    /// A connection ID of more than 20 bytes in a version that allows no more.
    CidTooLong,
    /// The Length field says more than the datagram has, or too little for a packet number and a sample.
    Length,
}

impl From<UnexpectedEnd> for HeaderError {
    fn from(_: UnexpectedEnd) -> Self {
        HeaderError::Truncated
    }
}

/// True for packets with a long header.
#[inline]
pub fn is_long(datagram: &[u8]) -> bool {
    datagram.first().is_some_and(|first| first & LONG_HEADER != 0)
}

/// True if the QUIC bit is set (RFC 9000 section 17.2; RFC 9287 lets endpoints agree to ignore it).
#[inline]
pub(crate) fn fixed_bit(first: u8) -> bool {
    first & FIXED_BIT != 0
}

/// True for Initial and 0-RTT packets of versions we speak, and for anything of versions we do not: packets that may be the first of a
/// connection, whose destination connection ID the client chose.
pub fn may_open_connection(datagram: &[u8]) -> bool {
    let Some(&[first, a, b, c, d]) = datagram.first_chunk::<5>() else {
        return false;
    };
    match Version::from_number(u32::from_be_bytes([a, b, c, d])) {
        Some(version) => matches!(
            long_type(version, first),
            Some(LongType::Initial | LongType::ZeroRtt)
        ),
        None => true,
    }
}

/// The destination connection ID, which is all that finding the connection needs (RFC 8999 section 5). `local_len`
/// is the length of the IDs that we issue.
#[inline]
pub fn destination_cid(datagram: &[u8], local_len: usize) -> Option<&[u8]> {
    if is_long(datagram) {
        let len = usize::from(*datagram.get(5)?);
        datagram.get(6..6 + len)
    } else {
        datagram.get(1..1 + local_len)
    }
}

/// Reads the header of the first packet in a datagram, as far as header protection allows.
///
/// # Errors
///
/// The datagram is too short for its header, or the header is none of QUIC's.
pub fn decode(datagram: &[u8], local_len: usize) -> Result<ProtectedHeader, HeaderError> {
    let mut reader = Reader::new(datagram);
    let offset = |reader: &Reader<'_>| datagram.len() - reader.remaining();
    let first = reader.u8()?;
    if first & LONG_HEADER == 0 {
        reader.bytes(local_len)?;
        let number_offset = offset(&reader);
        if reader.remaining() < SAMPLE_OFFSET + SAMPLE_LEN {
            return Err(HeaderError::Truncated);
        }
        return Ok(ProtectedHeader::Short { number_offset });
    }
    let number = reader.u32()?;
    let dcid_len = usize::from(reader.u8()?);
    let dcid_at = offset(&reader);
    let dcid = reader.bytes(dcid_len)?;
    let scid_len = usize::from(reader.u8()?);
    let scid_at = offset(&reader);
    let scid = reader.bytes(scid_len)?;
    let version = match Version::from_number(number) {
        Some(version) => version,
        None if number != 0 => {
            return Ok(ProtectedHeader::UnsupportedVersion(UnsupportedVersion {
                version: number,
                dcid: dcid_at..dcid_at + dcid_len,
                scid: scid_at..scid_at + scid_len,
            }));
        }
        None => {
            let cid = |bytes| ConnectionId::new(bytes).ok_or(HeaderError::CidTooLong);
            let versions = offset(&reader)..datagram.len();
            return Ok(ProtectedHeader::VersionNegotiation(VersionNegotiation {
                dcid: cid(dcid)?,
                scid: cid(scid)?,
                versions,
            }));
        }
    };
    if dcid_len > CID_LEN_MAX || scid_len > CID_LEN_MAX {
        return Err(HeaderError::CidTooLong);
    }
    let cid = |bytes| ConnectionId::new(bytes).ok_or(HeaderError::CidTooLong);
    let (dcid, scid) = (cid(dcid)?, cid(scid)?);
    let Some(ty) = long_type(version, first) else {
        let start = offset(&reader);
        let end = datagram
            .len()
            .checked_sub(16)
            .filter(|end| *end >= start)
            .ok_or(HeaderError::Truncated)?;
        return Ok(ProtectedHeader::Retry(RetryHeader {
            version,
            dcid,
            scid,
            token: start..end,
        }));
    };
    let token = if ty == LongType::Initial {
        let len = reader.varint_bytes()?.len();
        offset(&reader) - len..offset(&reader)
    } else {
        0..0
    };
    let len = reader.varint()?;
    let number_offset = offset(&reader);
    if len > reader.remaining() as u64 || len < (SAMPLE_OFFSET + SAMPLE_LEN) as u64 {
        return Err(HeaderError::Length);
    }
    Ok(ProtectedHeader::Long(LongHeader {
        version,
        ty,
        dcid,
        scid,
        token,
        number_offset,
        packet_len: number_offset + len as usize,
    }))
}

/// The versions listed in a version negotiation packet.
pub fn versions(list: &[u8]) -> impl Iterator<Item = u32> + '_ {
    list.as_chunks::<4>()
        .0
        .iter()
        .map(|bytes| u32::from_be_bytes(*bytes))
}

/// The bytes that the mask of header protection is made from.
#[doc(hidden)]
#[inline]
pub fn sample(packet: &[u8], number_offset: usize) -> Option<&[u8; SAMPLE_LEN]> {
    packet.get(number_offset + SAMPLE_OFFSET..)?.first_chunk()
}

/// What header protection hides.
#[doc(hidden)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct UnprotectedHeader {
    /// The first byte.
    pub first: u8,
    /// The truncated packet number.
    pub number: u32,
    /// Its length in bytes.
    pub number_len: usize,
}

impl UnprotectedHeader {
    /// The reserved bits, which must be zero (RFC 9000 sections 17.2 and 17.3.1).
    pub fn reserved_bits(self) -> u8 {
        if self.first & LONG_HEADER != 0 {
            self.first & 0x0c
        } else {
            self.first & 0x18
        }
    }

    /// The key phase of a 1-RTT packet.
    pub fn key_phase(self) -> bool {
        self.first & KEY_PHASE != 0
    }
}

/// Removes header protection in place (RFC 9001 section 5.4.1). The packet must be long enough for a sample.
#[doc(hidden)]
#[inline]
pub fn remove_protection(packet: &mut [u8], number_offset: usize, mask: [u8; 5]) -> UnprotectedHeader {
    let bits = if packet[0] & LONG_HEADER != 0 {
        LONG_MASK
    } else {
        SHORT_MASK
    };
    packet[0] ^= mask[0] & bits;
    let number_len = usize::from(packet[0] & 0x03) + 1;
    let mut number = 0;
    for (byte, mask) in packet[number_offset..number_offset + number_len]
        .iter_mut()
        .zip(&mask[1..])
    {
        *byte ^= mask;
        number = number << 8 | u32::from(*byte);
    }
    UnprotectedHeader {
        first: packet[0],
        number,
        number_len,
    }
}

/// Applies header protection in place to a sealed packet.
#[doc(hidden)]
#[inline]
pub fn apply_protection(packet: &mut [u8], number_offset: usize, number_len: usize, mask: [u8; 5]) {
    let bits = if packet[0] & LONG_HEADER != 0 {
        LONG_MASK
    } else {
        SHORT_MASK
    };
    packet[0] ^= mask[0] & bits;
    let [_, mask @ ..] = mask;
    // Four bytes are there however many of them the number has: the sample is behind them.
    let number = packet[number_offset..]
        .first_chunk_mut()
        .expect("a sealed packet has a sample");
    let mask = u32::from_be_bytes(mask) & u32::MAX << (8 * (4 - number_len));
    *number = (u32::from_be_bytes(*number) ^ mask).to_be_bytes();
}

/// Bytes of a long header up to and including the packet number, with a two-byte Length.
pub(crate) fn long_header_len(
    dcid: &ConnectionId,
    scid: &ConnectionId,
    token: Option<&[u8]>,
    number_len: usize,
) -> usize {
    let token = token.map_or(0, |token| {
        crate::base::varint::varint_len(token.len() as u64) + token.len()
    });
    1 + 4 + 1 + dcid.len() + 1 + scid.len() + token + 2 + number_len
}

/// Writes a long header; `token` must be given for an Initial and for nothing else. Gives the offset of the two-byte Length,
/// to be patched by [`patch_length`].
pub(crate) fn encode_long(
    writer: &mut Writer<'_>,
    version: Version,
    ty: LongType,
    (dcid, scid): (&ConnectionId, &ConnectionId),
    token: Option<&[u8]>,
    number: PacketNumber,
) -> usize {
    debug_assert_eq!(token.is_some(), ty == LongType::Initial);
    writer.u8(LONG_HEADER | FIXED_BIT | type_bits(version, ty) << 4 | (number.len - 1) as u8);
    writer.u32(version.number());
    for cid in [dcid, scid] {
        writer.u8(cid.len() as u8);
        cid.write(writer);
    }
    if let Some(token) = token {
        writer.varint_bytes(token);
    }
    let length_offset = writer.len();
    writer.varint_2(0);
    encode_number(writer, number);
    length_offset
}

/// Writes the Length of a packet with a long header: the bytes behind the field.
pub(crate) fn patch_length(packet: &mut [u8], length_offset: usize) {
    let len = packet.len() - length_offset - 2;
    debug_assert!(len < 1 << 14);
    packet[length_offset..length_offset + 2].copy_from_slice(&(len as u16 | 0x4000).to_be_bytes());
}

/// Bytes of a short header up to and including the packet number.
#[inline]
pub(crate) const fn short_header_len(dcid_len: usize, number_len: usize) -> usize {
    1 + dcid_len + number_len
}

/// Writes a short header.
#[inline]
pub(crate) fn encode_short(
    writer: &mut Writer<'_>,
    dcid: &ConnectionId,
    key_phase: bool,
    number: PacketNumber,
) {
    let phase = if key_phase { KEY_PHASE } else { 0 };
    writer.u8(FIXED_BIT | phase | (number.len - 1) as u8);
    dcid.write(writer);
    encode_number(writer, number);
}

#[inline]
fn encode_number(writer: &mut Writer<'_>, number: PacketNumber) {
    writer.prefix(&(number.low << (8 * (4 - number.len))).to_be_bytes(), number.len);
}

/// `None` is Retry.
fn long_type(version: Version, first: u8) -> Option<LongType> {
    // RFC 9369 section 3.2 moves every type up by one.
    let bits = match version {
        Version::V1 => first >> 4 & 0x03,
        Version::V2 => (first >> 4).wrapping_sub(1) & 0x03,
    };
    match bits {
        0 => Some(LongType::Initial),
        1 => Some(LongType::ZeroRtt),
        2 => Some(LongType::Handshake),
        _ => None,
    }
}

fn type_bits(version: Version, ty: LongType) -> u8 {
    let bits = match ty {
        LongType::Initial => 0,
        LongType::ZeroRtt => 1,
        LongType::Handshake => 2,
    };
    match version {
        Version::V1 => bits,
        Version::V2 => (bits + 1) & 0x03,
    }
}

/// The first byte of a Retry packet without its low bits.
pub(super) fn retry_first_byte(version: Version) -> u8 {
    let bits = match version {
        Version::V1 => 3,
        Version::V2 => 0,
    };
    LONG_HEADER | FIXED_BIT | bits << 4
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::packet_number;

    fn cid(bytes: &[u8]) -> ConnectionId {
        ConnectionId::new(bytes).unwrap()
    }

    #[test]
    fn long_headers_of_both_versions_round_trip() {
        for version in Version::SUPPORTED {
            for ty in [LongType::Initial, LongType::ZeroRtt, LongType::Handshake] {
                let mut buf = [0; 200];
                let mut writer = Writer::new(&mut buf);
                let token = (ty == LongType::Initial).then_some(&b"token"[..]);
                let (dcid, scid) = (cid(&[1; 8]), cid(&[2; 20]));
                let number = packet_number::encode(7, None);
                let at = encode_long(&mut writer, version, ty, (&dcid, &scid), token, number);
                assert_eq!(writer.len(), long_header_len(&dcid, &scid, token, number.len));
                writer.zeros(40);
                let packet = writer.into_written();
                patch_length(packet, at);
                let Ok(ProtectedHeader::Long(header)) = decode(packet, 8) else {
                    panic!("{version:?} {ty:?}")
                };
                assert_eq!(
                    (header.version, header.ty, header.dcid, header.scid),
                    (version, ty, dcid, scid)
                );
                assert_eq!(&packet[header.token.clone()], token.unwrap_or(b""));
                assert_eq!(header.packet_len, packet.len());
                for len in 0..packet.len() {
                    assert!(decode(&packet[..len], 8).is_err());
                }
            }
        }
    }

    #[test]
    fn header_protection_removed_is_header_protection_never_applied() {
        let mut buf = [0; 64];
        let mut writer = Writer::new(&mut buf);
        encode_short(
            &mut writer,
            &cid(&[9; 8]),
            true,
            PacketNumber { low: 0x1234, len: 2 },
        );
        let offset = writer.len() - 2;
        let plain = buf;
        apply_protection(&mut buf, offset, 2, [0xff, 0xaa, 0xbb, 0xcc, 0xdd]);
        assert_ne!(buf, plain);
        let unprotected = remove_protection(&mut buf, offset, [0xff, 0xaa, 0xbb, 0xcc, 0xdd]);
        assert_eq!(buf, plain);
        assert_eq!((unprotected.number, unprotected.number_len), (0x1234, 2));
        assert!(unprotected.key_phase());
        assert_eq!(unprotected.reserved_bits(), 0);
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..100), version in 0u32..2) {
            let _ = decode(&bytes, 8);
            let mut bytes = bytes;
            if bytes.len() > 5 {
                bytes[0] |= 0x80;
                bytes[1..5].copy_from_slice(&Version::SUPPORTED[version as usize].number().to_be_bytes());
                if let Ok(ProtectedHeader::Long(header)) = decode(&bytes, 8) {
                    prop_assert!(header.packet_len <= bytes.len());
                    prop_assert!(sample(&bytes[..header.packet_len], header.number_offset).is_some());
                }
            }
            let _ = destination_cid(&bytes, 8);
        }
    }
}
