//! The content of transfers: the byte at offset `o` is `o mod 251`.

use bytes::Bytes;

/// A prime, so that the pattern does not repeat with packets or buffers.
const PERIOD: u64 = 251;
/// Bytes that a stream is given to send at a time where the command line says nothing.
pub const IO_SIZE: usize = 64 << 10;

/// A buffer from which any piece of the pattern can be cut. It stays until the process ends, so that pieces of it need not be counted.
#[derive(Clone, Debug)]
pub struct Pattern {
    buffer: &'static [u8],
    piece_max: usize,
}

/// For pieces of up to [`IO_SIZE`].
impl Default for Pattern {
    fn default() -> Self {
        Pattern::new(IO_SIZE)
    }
}

impl Pattern {
    /// For pieces of up to `piece_max` bytes.
    pub fn new(piece_max: usize) -> Self {
        let buffer: Vec<u8> = (0..piece_max as u64 + PERIOD)
            .map(|offset| (offset % PERIOD) as u8)
            .collect();
        Pattern {
            buffer: buffer.leak(),
            piece_max,
        }
    }

    /// The piece at `offset`, at most `len` bytes, without a copy.
    #[inline]
    pub fn piece(&self, offset: u64, len: u64) -> Bytes {
        let start = (offset % PERIOD) as usize;
        let len = len.min(self.piece_max as u64) as usize;
        Bytes::from_static(&self.buffer[start..start + len])
    }

    /// Whether `data` is what belongs at `offset`.
    #[inline]
    pub fn matches(&self, mut offset: u64, data: &[u8]) -> bool {
        data.chunks(self.piece_max).all(|chunk| {
            let start = (offset % PERIOD) as usize;
            offset += chunk.len() as u64;
            self.buffer[start..start + chunk.len()] == *chunk
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_fit_together_and_a_wrong_byte_is_seen() {
        let pattern = Pattern::new(1000);
        let mut all = Vec::new();
        while all.len() < 10_000 {
            all.extend_from_slice(&pattern.piece(all.len() as u64, 777));
        }
        assert!(pattern.matches(0, &all));
        assert!(pattern.matches(123, &all[123..5000]));
        all[6000] ^= 1;
        assert!(!pattern.matches(0, &all));
    }
}
