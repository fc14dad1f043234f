//! The content of transfers, and a request as a server reads it.

use bytes::Bytes;

use crate::{HEADER_LEN, IO_SIZE};

/// A prime, so that the content does not repeat with packets or buffers.
const PERIOD: u64 = 251;

/// The content of transfers.
#[derive(Clone)]
pub struct Pattern(Bytes);

impl Default for Pattern {
    fn default() -> Self {
        Pattern(
            (0..IO_SIZE as u64 + PERIOD)
                .map(|offset| (offset % PERIOD) as u8)
                .collect::<Vec<_>>()
                .into(),
        )
    }
}

impl Pattern {
    /// The piece at `offset`, at most `len` bytes and at most [`IO_SIZE`], without a copy.
    pub fn piece(&self, offset: u64, len: u64) -> Bytes {
        let start = (offset % PERIOD) as usize;
        self.0.slice(start..start + len.min(IO_SIZE as u64) as usize)
    }

    /// Whether `data` is what belongs at `offset`.
    pub fn matches(&self, mut offset: u64, data: &[u8]) -> bool {
        data.chunks(IO_SIZE).all(|chunk| {
            let start = (offset % PERIOD) as usize;
            offset += chunk.len() as u64;
            self.0[start..start + chunk.len()] == *chunk
        })
    }
}

/// A request as a server reads it: its header, and whether the rest is right.
#[derive(Clone, Copy, Default)]
pub struct Request {
    header: [u8; HEADER_LEN],
    received: u64,
    wrong: bool,
}

impl Request {
    /// Takes what arrived next; compares it if there is something to compare with.
    pub fn take(&mut self, mut data: &[u8], verify: Option<&Pattern>) {
        if self.received < HEADER_LEN as u64 {
            let at = self.received as usize;
            let count = data.len().min(HEADER_LEN - at);
            self.header[at..at + count].copy_from_slice(&data[..count]);
            self.received += count as u64;
            data = &data[count..];
        }
        if let (Some(pattern), false) = (verify, data.is_empty()) {
            self.wrong |= !pattern.matches(self.received - HEADER_LEN as u64, data);
        }
        self.received += data.len() as u64;
    }

    /// The length of the response; `None` if the request was not right.
    pub fn response_len(&self) -> Option<u64> {
        (self.received >= HEADER_LEN as u64 && !self.wrong).then(|| u64::from_be_bytes(self.header))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_read_in_any_pieces_and_a_wrong_byte_is_seen() {
        let pattern = Pattern::default();
        let mut bytes = 4000u64.to_be_bytes().to_vec();
        bytes.extend_from_slice(&pattern.piece(0, 504));
        let read = |bytes: &[u8], size| {
            let mut request = Request::default();
            bytes
                .chunks(size)
                .for_each(|piece| request.take(piece, Some(&pattern)));
            request.response_len()
        };
        for size in [1, 3, 8, 9, 512] {
            assert_eq!(read(&bytes, size), Some(4000));
        }
        assert_eq!(read(&bytes[..7], 7), None);
        bytes[300] ^= 1;
        assert_eq!(read(&bytes, 100), None);
    }
}
