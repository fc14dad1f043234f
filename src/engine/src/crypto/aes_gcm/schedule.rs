//! What is derived of a key once.

use zeroize::{Zeroize, zeroize_bytes};

use super::ghash::Products;
use super::vectors::Vectors;
use super::vectors::block::BLOCK_LEN;

/// Blocks that go into one step of the hash, at most.
const STEP_MAX: usize = 16;

/// A key of AES with so many rounds (10: AES-128; 14: AES-256), and the key of its hash, of which one step takes `N` vectors.
// No block lies in two cache lines.
#[repr(align(16))]
pub(super) struct Schedule<V: Vectors, const N: usize, const ROUNDS: usize> {
    /// H to the power of the blocks of a step and 1, ..., 1, as [`Products`] takes it; then zeros, so that a vector may be read from any of them on.
    powers: [[u8; BLOCK_LEN]; STEP_MAX + 4],
    round_keys: RoundKeys<ROUNDS>,
    pub(super) vectors: V,
}

/// The key of each round of AES.
// No block lies in two cache lines.
#[repr(align(16))]
pub(super) struct RoundKeys<const ROUNDS: usize>([[u8; BLOCK_LEN]; 15]);

impl<V: Vectors, const N: usize, const ROUNDS: usize> Schedule<V, N, ROUNDS> {
    /// Blocks that go into one step of the hash.
    const STEP: usize = {
        assert!(N * V::BLOCKS <= STEP_MAX && V::BLOCKS <= 4);
        N * V::BLOCKS
    };

    #[inline(always)]
    pub(super) fn new(v: V, key: &[u8]) -> Self {
        let mut schedule = Schedule {
            powers: [[0; BLOCK_LEN]; STEP_MAX + 4],
            round_keys: RoundKeys::new(v, key),
            vectors: v,
        };
        let zeros = schedule.round_keys.encrypt(v, v.zero());
        let h = times_x(v.to_number(v.reverse(zeros)));
        let h = v.first_block(h);
        // As many as a vector has, then a vector at a time.
        let mut power = h;
        schedule.set_power(1, power);
        for i in 2..=V::BLOCKS {
            power = Products::of(v, power, h).reduce(v);
            schedule.set_power(i, power);
        }
        let factor = schedule.power(V::BLOCKS);
        let mut powers = schedule.powers_down_from(V::BLOCKS);
        for i in 2..=N {
            powers = Products::of(v, powers, factor).reduce(v);
            let at = (Self::STEP + 1 - i * V::BLOCKS) * BLOCK_LEN;
            v.store(&mut schedule.powers.as_flattened_mut()[at..], powers);
        }
        schedule.set_power(Self::STEP + 1, Products::of(v, powers, h).reduce(v));
        schedule
    }

    #[inline(always)]
    fn set_power(&mut self, power: usize, value: V::Vector) {
        self.powers[Self::STEP + 1 - power] = self.vectors.to_number(value).to_le_bytes();
    }

    /// The key of a round, for each block of a vector.
    #[inline(always)]
    pub(super) fn round_key(&self, round: usize) -> V::Vector {
        self.round_keys.get(self.vectors, round)
    }

    /// H to this power and the next lower ones; zeros for those below 1.
    #[inline(always)]
    pub(super) fn powers_down_from(&self, power: usize) -> V::Vector {
        let at = (Self::STEP + 1 - power) * BLOCK_LEN;
        self.vectors.load(&self.powers.as_flattened()[at..])
    }

    /// H to this power, for each block of a vector.
    #[inline(always)]
    pub(super) fn power(&self, power: usize) -> V::Vector {
        self.vectors.broadcast(&self.powers[Self::STEP + 1 - power])
    }
}

impl<V: Vectors, const N: usize, const ROUNDS: usize> Drop for Schedule<V, N, ROUNDS> {
    fn drop(&mut self) {
        zeroize_bytes(self.powers.as_flattened_mut());
    }
}

impl<const ROUNDS: usize> RoundKeys<ROUNDS> {
    /// The key expansion (FIPS 197 section 5.2).
    #[inline(always)]
    pub(super) fn new<V: Vectors>(v: V, key: &[u8]) -> Self {
        let key_words = key.len() / 4;
        assert_eq!(key_words + 6, ROUNDS, "the key has the length of its suite");
        let mut words = [0; 60];
        for (word, bytes) in words.iter_mut().zip(key.as_chunks().0) {
            *word = u32::from_le_bytes(*bytes);
        }
        let mut round_constant = 1;
        for i in key_words..4 * (ROUNDS + 1) {
            let mut word = words[i - 1];
            if i % key_words == 0 {
                word = v.substitute_word(word).rotate_right(8) ^ round_constant;
                round_constant = round_constant << 1 ^ if round_constant & 0x80 != 0 { 0x11b } else { 0 };
            } else if key_words > 6 && i % key_words == 4 {
                word = v.substitute_word(word);
            }
            words[i] = words[i - key_words] ^ word;
        }
        let mut keys = RoundKeys([[0; BLOCK_LEN]; 15]);
        for (bytes, word) in keys.0.as_flattened_mut().as_chunks_mut().0.iter_mut().zip(words) {
            *bytes = word.to_le_bytes();
        }
        words.zeroize();
        keys
    }

    /// The key of a round, for each block of a vector.
    #[inline(always)]
    fn get<V: Vectors>(&self, v: V, round: usize) -> V::Vector {
        v.broadcast(&self.0[round])
    }

    /// The blocks of a vector, ciphered.
    #[inline(always)]
    pub(super) fn encrypt<V: Vectors>(&self, v: V, blocks: V::Vector) -> V::Vector {
        let mut blocks = v.xor(blocks, self.get(v, 0));
        for round in 1..ROUNDS {
            blocks = v.round(blocks, self.get(v, round));
        }
        v.last_round(blocks, self.get(v, ROUNDS))
    }
}

impl<const ROUNDS: usize> Drop for RoundKeys<ROUNDS> {
    fn drop(&mut self) {
        zeroize_bytes(self.0.as_flattened_mut());
    }
}

/// The product with x (`mulX_POLYVAL` of RFC 8452 appendix A).
#[inline(always)]
fn times_x(number: u128) -> u128 {
    // In the same time whatever the key: the highest bit makes the mask.
    let carry = ((number as i128) >> 127) as u128;
    number << 1 ^ carry & (0xc2 << 120 | 1)
}
