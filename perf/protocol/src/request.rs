//! Requests: the length of the response, and what follows it.

use bytes::Bytes;

use crate::Pattern;

/// Bytes of the length of the response, at the start of each request.
pub const HEADER_LEN: usize = 8;
/// The length of a response that outlasts any run.
pub const ENDLESS: u64 = 1 << 60;

/// A whole request of `len` bytes, or of its header alone if that is longer.
pub fn request(response_len: u64, len: u64, pattern: &Pattern) -> Bytes {
    let mut request = response_len.to_be_bytes().to_vec();
    while (request.len() as u64) < len {
        let piece = pattern.piece((request.len() - HEADER_LEN) as u64, len - request.len() as u64);
        request.extend_from_slice(&piece);
    }
    request.into()
}

/// The length of the response, as its bytes arrive.
#[derive(Clone, Copy, Debug, Default)]
pub struct RequestHeader {
    bytes: [u8; HEADER_LEN],
    len: usize,
}

impl RequestHeader {
    /// Takes what belongs to the header off the front, and gives the rest.
    #[inline]
    pub fn take<'a>(&mut self, data: &'a [u8]) -> &'a [u8] {
        let count = data.len().min(HEADER_LEN - self.len);
        let (head, rest) = data.split_at(count);
        self.bytes[self.len..self.len + count].copy_from_slice(head);
        self.len += count;
        rest
    }

    /// `None` until the header is complete.
    #[inline]
    pub fn response_len(&self) -> Option<u64> {
        (self.len == HEADER_LEN).then(|| u64::from_be_bytes(self.bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn response_length_is_read_however_it_is_cut() {
        let pattern = Pattern::new(100);
        let request = request(4000, 512, &pattern);
        assert_eq!(request.len(), 512);
        for cut in 0..request.len() {
            let mut header = RequestHeader::default();
            let first = header.take(&request[..cut]).to_vec();
            let second = header.take(&request[cut..]);
            assert!(pattern.matches(0, &[&first, second].concat()));
            assert_eq!(header.response_len(), Some(4000));
        }
        let mut short = RequestHeader::default();
        short.take(&request[..7]);
        assert_eq!(short.response_len(), None);
    }

    #[test]
    fn a_request_is_never_shorter_than_its_header() {
        assert_eq!(request(1, 3, &Pattern::new(1))[..], 1u64.to_be_bytes());
    }
}
