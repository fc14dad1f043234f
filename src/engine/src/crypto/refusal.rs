//! How a client is turned away before there is a connection for it.

use super::keys::Keys;
use super::packet::{begin_long, finish_long};
use super::suite::TAG_LEN;
use crate::wire::cid::ConnectionId;
use crate::wire::error::TransportErrorCode;
use crate::wire::frame::encode_connection_close;
use crate::wire::header::LongType;
use crate::wire::{Side, Version, packet_number};

/// Writes an Initial that closes the connection which a client wants to open (RFC 9000 section 10.2.3), and gives its
/// length; `None` if `out` is shorter than 128 bytes. Nothing is kept: a client that does not hear it asks again.
///
/// `dcid` and `peer_cid` are the Destination and Source Connection ID of the client's Initial.
pub fn initial_close(
    out: &mut [u8],
    version: Version,
    dcid: &ConnectionId,
    peer_cid: &ConnectionId,
    code: TransportErrorCode,
) -> Option<usize> {
    let out = out.get_mut(..PACKET_MAX)?;
    let number = packet_number::encode(0, None);
    let cids = (peer_cid, dcid);
    let (mut writer, header_len, length_offset) =
        begin_long(out, version, LongType::Initial, cids, Some(&[]), number);
    encode_connection_close(&mut writer, code.0, Some(0), b"", 0);
    let len = writer.len() + TAG_LEN;
    let keys = Keys::initial(version, dcid, Side::Server).local.expand();
    finish_long(&mut out[..len], length_offset, &keys, 0, number, header_len);
    Some(len)
}

/// Room for a header with two connection IDs of 20 bytes, the frame and the tag.
const PACKET_MAX: usize = 128;
