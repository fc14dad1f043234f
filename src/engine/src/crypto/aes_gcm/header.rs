//! A header protection key.

use super::schedule::RoundKeys;
#[cfg(target_arch = "x86_64")]
use super::vectors::AesNi as Single;
#[cfg(target_arch = "aarch64")]
use super::vectors::Neon as Single;
use super::vectors::{Task, Vectors};

/// A header protection key of AES (RFC 9001 section 5.4.3).
///
/// It ciphers one block for each packet, with the vectors of single blocks, which every processor has that has wider ones.
pub struct AesHeader {
    vectors: Single,
    round_keys: Cipher,
}

enum Cipher {
    Aes128(RoundKeys<10>),
    Aes256(RoundKeys<14>),
}

impl AesHeader {
    /// With a key of 16 or 32 bytes. `None`: this processor does not have the instructions.
    pub fn new(key: &[u8]) -> Option<AesHeader> {
        let vectors = Single::detect()?;
        let round_keys = if key.len() == 16 {
            Cipher::Aes128(vectors.enter(Derive { vectors, key }))
        } else {
            Cipher::Aes256(vectors.enter(Derive { vectors, key }))
        };
        Some(AesHeader { vectors, round_keys })
    }

    /// The mask for a packet with this sample.
    #[inline]
    pub fn mask(&self, sample: &[u8; 16]) -> [u8; 5] {
        let vectors = self.vectors;
        let [mask @ .., _, _, _, _, _, _, _, _, _, _, _] = match &self.round_keys {
            Cipher::Aes128(keys) => vectors.enter(Encrypt {
                vectors,
                keys,
                sample,
            }),
            Cipher::Aes256(keys) => vectors.enter(Encrypt {
                vectors,
                keys,
                sample,
            }),
        };
        mask
    }
}

struct Derive<'a> {
    vectors: Single,
    key: &'a [u8],
}

impl<const ROUNDS: usize> Task<RoundKeys<ROUNDS>> for Derive<'_> {
    #[inline(always)]
    fn run(self) -> RoundKeys<ROUNDS> {
        RoundKeys::new(self.vectors, self.key)
    }
}

struct Encrypt<'a, const ROUNDS: usize> {
    vectors: Single,
    keys: &'a RoundKeys<ROUNDS>,
    sample: &'a [u8; 16],
}

impl<const ROUNDS: usize> Task<[u8; 16]> for Encrypt<'_, ROUNDS> {
    #[inline(always)]
    fn run(self) -> [u8; 16] {
        let v = self.vectors;
        v.to_number(self.keys.encrypt(v, v.broadcast(self.sample)))
            .to_le_bytes()
    }
}
