//! Packets that do not fit a chunk.

use super::chunk_size::{CHUNK_BYTES_MAX, JUMBO_BYTES};
use crate::lent::PacketBuffer;

/// Chunks that it takes at most.
pub(super) const JUMBO_CHUNKS: usize = JUMBO_BYTES.div_ceil(CHUNK_BYTES_MAX as usize);

/// Packets longer than a chunk lie in several: they are put together and taken apart here, which costs a copy.
pub(super) struct Jumbo {
    pub(super) building: PacketBuffer,
    received: Joining,
}

impl Jumbo {
    pub(super) fn new() -> Jumbo {
        Jumbo {
            building: PacketBuffer::new(vec![0; JUMBO_BYTES].into()),
            received: Joining {
                bytes: Vec::with_capacity(JUMBO_BYTES),
                too_long: false,
            },
        }
    }

    /// The rest of a packet that has begun to come will not.
    pub(super) fn forget(&mut self) {
        self.received.bytes.clear();
        self.received.too_long = false;
    }

    /// Takes the part of a packet in one chunk; if it is the last one, gives the packet to `visit`. False if that is longer than any can be: it is
    /// thrown away.
    pub(super) fn take(&mut self, part: &[u8], more: bool, visit: impl FnOnce(&mut [u8])) -> bool {
        let Joining { bytes, too_long } = &mut self.received;
        *too_long |= bytes.len() + part.len() > JUMBO_BYTES;
        if !*too_long {
            bytes.extend_from_slice(part);
        }
        if more {
            return true;
        }
        let is_whole = !std::mem::take(too_long);
        if is_whole {
            visit(bytes);
        }
        bytes.clear();
        is_whole
    }
}

/// What has come of a packet, if all of it has not.
struct Joining {
    bytes: Vec<u8>,
    /// It is longer than any can be.
    too_long: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_joined_and_what_is_too_long_is_thrown_away_up_to_its_end() {
        let mut jumbo = Jumbo::new();
        let mut packets: Vec<Vec<u8>> = Vec::new();
        let mut take = |part: &[u8], more| jumbo.take(part, more, |packet| packets.push(packet.to_vec()));
        assert!(take(&[1; 3000], true) && take(&[2; 100], false) && take(&[3; 50], false));
        for _ in 0..4 {
            assert!(take(&[4; 3000], true));
        }
        assert!(!take(&[5], false), "12001 bytes");
        assert!(take(&[6; 9280], false));
        let lengths: Vec<usize> = packets.iter().map(Vec::len).collect();
        assert_eq!(lengths, [3100, 50, 9280]);
        assert!(packets[0][..3000] == [1; 3000] && packets[0][3000..] == [2; 100]);
    }
}
