//! What is derived of a key once.

use core::arch::x86_64::*;

use super::ghash::{self, Products};
use super::sys::{self, BLOCK_LEN, VECTOR_LEN};

/// Blocks that go into one step of the hash: four vectors.
pub(super) const STEP: usize = 16;

/// A key of AES with so many rounds (10: AES-128; 14: AES-256), and the key of its hash.
// No block lies in two cache lines.
#[repr(align(16))]
pub(super) struct Schedule<const ROUNDS: usize> {
    /// H to the power of `STEP` + 1, ..., 1, as [`Products`] takes it; then zeros, so that four may be read from any of them on.
    powers: [[u8; BLOCK_LEN]; STEP + 4],
    round_keys: [[u8; BLOCK_LEN]; 15],
}

impl<const ROUNDS: usize> Schedule<ROUNDS> {
    #[target_feature(enable = "aes,vpclmulqdq,avx512f,avx512bw,avx512vl")]
    pub(super) fn new(key: &[u8]) -> Self {
        let mut schedule = Schedule {
            powers: [[0; BLOCK_LEN]; STEP + 4],
            round_keys: round_keys::<ROUNDS>(key),
        };
        let h = ghash::reverse(_mm512_zextsi128_si512(schedule.encrypt(_mm_setzero_si128())));
        let h = times_x(_mm512_castsi512_si128(h));
        let product = |a, b| Products::none().and(a, b).reduce();
        let square = product(h, h);
        let fourth = product(square, square);
        for (power, value) in [(1, h), (2, square), (3, product(square, h)), (4, fourth)] {
            sys::store_block(
                &mut schedule.powers[STEP + 1 - power],
                _mm512_castsi512_si128(value),
            );
        }
        // Four at a time.
        let fourth = schedule.power(4);
        let mut four = schedule.powers_down_from(4);
        for power in [8, 12, 16] {
            four = product(four, fourth);
            let places = &mut schedule.powers.as_flattened_mut()[(STEP + 1 - power) * BLOCK_LEN..];
            sys::store(places.first_chunk_mut().expect("lower powers follow"), four);
        }
        sys::store_block(&mut schedule.powers[0], _mm512_castsi512_si128(product(four, h)));
        schedule
    }

    /// A block of AES (FIPS 197 section 5.1).
    #[inline]
    #[target_feature(enable = "aes")]
    fn encrypt(&self, block: __m128i) -> __m128i {
        let mut block = _mm_xor_si128(block, sys::load_block(&self.round_keys[0]));
        for key in &self.round_keys[1..ROUNDS] {
            block = _mm_aesenc_si128(block, sys::load_block(key));
        }
        _mm_aesenclast_si128(block, sys::load_block(&self.round_keys[ROUNDS]))
    }

    /// The keys of the rounds, each four times side by side; those behind the last round are zeros.
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(super) fn wide_round_keys(&self) -> [__m512i; 15] {
        let mut keys = [_mm512_setzero_si512(); 15];
        for (wide, key) in keys.iter_mut().zip(&self.round_keys[..=ROUNDS]) {
            *wide = _mm512_broadcast_i32x4(sys::load_block(key));
        }
        keys
    }

    /// H to this power and the next three lower ones; zeros for those below 1.
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(super) fn powers_down_from(&self, power: usize) -> __m512i {
        let at = (STEP + 1 - power) * BLOCK_LEN;
        sys::load(
            self.powers.as_flattened()[at..]
                .first_chunk::<VECTOR_LEN>()
                .expect("three zeros follow the last power"),
        )
    }

    /// H to this power, four times side by side.
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(super) fn power(&self, power: usize) -> __m512i {
        _mm512_broadcast_i32x4(sys::load_block(&self.powers[STEP + 1 - power]))
    }
}

impl<const ROUNDS: usize> Drop for Schedule<ROUNDS> {
    fn drop(&mut self) {
        self.powers.as_flattened_mut().fill(0);
        self.round_keys.as_flattened_mut().fill(0);
        std::hint::black_box(&self);
    }
}

/// The key expansion (FIPS 197 section 5.2).
#[target_feature(enable = "aes")]
fn round_keys<const ROUNDS: usize>(key: &[u8]) -> [[u8; BLOCK_LEN]; 15] {
    // The instruction substitutes the bytes of each word; what it does besides goes into other words of its result.
    let substitute =
        |word: u32| _mm_cvtsi128_si32(_mm_aeskeygenassist_si128(_mm_set1_epi32(word as i32), 0)) as u32;
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
            word = substitute(word).rotate_right(8) ^ round_constant;
            round_constant = round_constant << 1 ^ if round_constant & 0x80 != 0 { 0x11b } else { 0 };
        } else if key_words > 6 && i % key_words == 4 {
            word = substitute(word);
        }
        words[i] = words[i - key_words] ^ word;
    }
    let mut keys = [[0; BLOCK_LEN]; 15];
    for (bytes, word) in keys.as_flattened_mut().as_chunks_mut().0.iter_mut().zip(words) {
        *bytes = word.to_le_bytes();
    }
    words.fill(0);
    std::hint::black_box(&words);
    keys
}

/// The product with x (`mulX_POLYVAL` of RFC 8452 appendix A), as the first block of a vector.
#[target_feature(enable = "avx512f")]
fn times_x(block: __m128i) -> __m512i {
    let mut bytes = [0; BLOCK_LEN];
    sys::store_block(&mut bytes, block);
    let number = u128::from_le_bytes(bytes);
    // In the same time whatever the key: the highest bit makes the mask.
    let carry = ((number as i128) >> 127) as u128;
    let product = number << 1 ^ carry & (0xc2 << 120 | 1);
    _mm512_zextsi128_si512(sys::load_block(&product.to_le_bytes()))
}
