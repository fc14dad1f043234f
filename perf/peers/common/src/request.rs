//! A request as a server reads it.

use ringway_perf_protocol::{Pattern, RequestHeader};

/// What has arrived of a request: its header, and whether the rest is right.
#[derive(Clone, Copy, Default)]
pub struct Request {
    header: RequestHeader,
    /// Bytes behind the header.
    received: u64,
    wrong: bool,
}

impl Request {
    /// Takes what arrived next; compares it if there is something to compare with.
    pub fn take(&mut self, data: &[u8], verify: Option<&Pattern>) {
        let data = self.header.take(data);
        if let (Some(pattern), false) = (verify, data.is_empty()) {
            self.wrong |= !pattern.matches(self.received, data);
        }
        self.received += data.len() as u64;
    }

    /// The length of the response; `None` if the request was not right.
    pub fn response_len(&self) -> Option<u64> {
        self.header.response_len().filter(|_| !self.wrong)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_read_in_any_pieces_and_a_wrong_byte_is_seen() {
        let pattern = Pattern::default();
        let mut bytes = ringway_perf_protocol::request(4000, 512, &pattern).to_vec();
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
