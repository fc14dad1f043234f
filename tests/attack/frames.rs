//! Frames as bytes, with any content (RFC 9000 section 19).

/// A variable-length integer (RFC 9000 section 16).
pub(crate) fn varint(out: &mut Vec<u8>, value: u64) {
    match value {
        0..0x40 => out.push(value as u8),
        0x40..0x4000 => out.extend((value as u16 | 0x4000).to_be_bytes()),
        0x4000..0x4000_0000 => out.extend((value as u32 | 0x8000_0000).to_be_bytes()),
        _ => out.extend((value | 0xc000_0000_0000_0000).to_be_bytes()),
    }
}

/// A frame of integers, whose first one is its type.
pub(crate) fn integers(values: &[u64]) -> Vec<u8> {
    let mut out = Vec::new();
    values.iter().for_each(|&value| varint(&mut out, value));
    out
}

/// STREAM with offset and length.
pub(crate) fn stream(id: u64, offset: u64, data: &[u8]) -> Vec<u8> {
    let mut out = integers(&[0x0e, id, offset, data.len() as u64]);
    out.extend(data);
    out
}

/// A request, for which the application of the server has an answer: on the first stream, with its end.
pub(crate) fn request() -> Vec<u8> {
    let mut frame = stream(0, 0, b"please");
    frame[0] |= 0x01;
    frame
}

/// CRYPTO.
pub(crate) fn crypto(offset: u64, data: &[u8]) -> Vec<u8> {
    let mut out = integers(&[0x06, offset, data.len() as u64]);
    out.extend(data);
    out
}

/// RESET_STREAM.
pub(crate) fn reset_stream(id: u64, code: u64, final_size: u64) -> Vec<u8> {
    integers(&[0x04, id, code, final_size])
}

/// ACK of the numbers from `first` to `last`.
pub(crate) fn ack(first: u64, last: u64) -> Vec<u8> {
    integers(&[0x02, last, 0, 0, last - first])
}

/// NEW_CONNECTION_ID.
pub(crate) fn new_connection_id(sequence: u64, retire_prior_to: u64) -> Vec<u8> {
    let mut out = integers(&[0x18, sequence, retire_prior_to]);
    out.push(8);
    out.extend((sequence ^ 0x5555_5555_5555_5555).to_be_bytes());
    out.extend([sequence.to_be_bytes(), sequence.to_le_bytes()].concat());
    out
}

/// RETIRE_CONNECTION_ID.
pub(crate) fn retire_connection_id(sequence: u64) -> Vec<u8> {
    integers(&[0x19, sequence])
}

/// PATH_CHALLENGE.
pub(crate) fn path_challenge(data: u64) -> Vec<u8> {
    let mut out = vec![0x1a];
    out.extend(data.to_be_bytes());
    out
}

pub(crate) const PING: &[u8] = &[0x01];
