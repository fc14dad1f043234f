//! The nonce of a message.

use crate::crypto::suite::IV_LEN;

/// The nonce of a message, as little-endian numbers: it goes to the cipher in registers.
#[derive(Clone, Copy)]
pub(super) struct Nonce {
    pub(super) first: u64,
    pub(super) last: u32,
}

impl Nonce {
    pub(super) fn of_iv(iv: [u8; IV_LEN]) -> Nonce {
        let [a, b, c, d, e, f, g, h, last @ ..] = iv;
        Nonce {
            first: u64::from_le_bytes([a, b, c, d, e, f, g, h]),
            last: u32::from_le_bytes(last),
        }
    }

    /// The IV, exclusive-or with the packet number, which is big-endian and ends where the IV does (RFC 9001 section 5.3).
    #[inline]
    pub(super) fn of_packet(self, number: u64) -> Nonce {
        let number = number.swap_bytes();
        Nonce {
            first: self.first ^ number << 32,
            last: self.last ^ (number >> 32) as u32,
        }
    }
}
