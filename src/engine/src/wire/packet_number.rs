//! Packet numbers on the wire: only the low bits travel (RFC 9000 section 17.1 and Appendix A).

/// A packet number as it goes into a packet: its low `len` bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct PacketNumber {
    /// The low 32 bits of the packet number.
    pub low: u32,
    /// Bytes on the wire, 1 to 4.
    pub len: usize,
}

/// Shortens `full` so that a peer which may have received nothing beyond `largest_acked` can restore it: with at least twice as
/// many values as there are packets in flight (RFC 9000 A.2). Never fewer than 2 bytes, so that lengths change rarely.
#[inline]
pub(crate) fn encode(full: u64, largest_acked: Option<u64>) -> PacketNumber {
    let unacked = match largest_acked {
        Some(largest) => full - largest,
        None => full + 1,
    };
    let len = if unacked < 1 << 15 {
        2
    } else if unacked < 1 << 23 {
        3
    } else {
        4
    };
    PacketNumber {
        low: full as u32,
        len,
    }
}

/// Restores a packet number of `len` bytes; `expected` is the next one after the largest received (RFC 9000 A.3).
#[inline]
pub(crate) fn decode(low: u32, len: usize, expected: u64) -> u64 {
    let window = 1u64 << (8 * len);
    let half = window / 2;
    let candidate = (expected & !(window - 1)) | u64::from(low);
    if candidate + half <= expected && candidate < (1 << 62) - window {
        candidate + window
    } else if candidate > expected + half && candidate >= window {
        candidate - window
    } else {
        candidate
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn examples_of_rfc_9000_appendix_a() {
        assert_eq!(encode(0xac5c02, Some(0xabe8b3)).len, 2);
        assert_eq!(encode(0xace8fe, Some(0xabe8b3)).len, 3);
        assert_eq!(decode(0x9b32, 2, 0xa82f30ea + 1), 0xa82f9b32);
    }

    #[test]
    fn every_number_survives_the_wire_around_the_largest_acknowledged() {
        for acked in [0u64, 1, 127, 0xffff, 0x1_0000, 0xff_ffff, 1 << 40] {
            for ahead in [1u64, 2, 100, 0x7fff, 0x8000, 0x7f_ffff, 0x80_0000] {
                let full = acked + ahead;
                let short = encode(full, Some(acked));
                let low = if short.len == 4 {
                    short.low
                } else {
                    short.low & ((1 << (8 * short.len)) - 1)
                };
                for received in [acked, full - 1] {
                    assert_eq!(decode(low, short.len, received + 1), full);
                }
            }
        }
    }
}
