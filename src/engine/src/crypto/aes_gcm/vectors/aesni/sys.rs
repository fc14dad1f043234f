//! Single blocks of AES-NI and PCLMULQDQ, with the three operands of AVX.

use core::arch::x86_64::*;
use std::arch::is_x86_feature_detected;

use crate::crypto::aes_gcm::vectors::block::{self, BLOCK_LEN};
use crate::crypto::aes_gcm::vectors::sys::vectors;

vectors! {
    /// AES-NI and PCLMULQDQ with AVX: Intel from Sandy Bridge on, AMD from Bulldozer on.
    pub struct AesNi;
    features = "aes,pclmulqdq,avx",
    detect = is_x86_feature_detected!("aes") && is_x86_feature_detected!("pclmulqdq") && is_x86_feature_detected!("avx");
    blocks = 1, holds_round_keys = false, joins = false, vector = __m128i;

    fn zero() -> __m128i {
        _mm_setzero_si128()
    }

    fn first_block(block: u128) -> __m128i {
        number(block)
    }

    fn broadcast(block: &[u8; BLOCK_LEN]) -> __m128i {
        // SAFETY: it reads the 16 bytes of the array, which need no alignment.
        unsafe { _mm_loadu_si128(block.as_ptr().cast()) }
    }

    fn broadcast_number(block: u128) -> __m128i {
        number(block)
    }

    fn counters(first: u32) -> __m128i {
        _mm_set_epi32(first.to_be() as i32, 0, 0, 0)
    }

    fn counter(counter: u32) -> __m128i {
        _mm_set_epi32(counter.to_be() as i32, 0, 0, 0)
    }

    fn load(bytes: &[u8]) -> __m128i {
        let bytes = &bytes[..BLOCK_LEN];
        // SAFETY: it reads the 16 bytes of the slice, which need no alignment.
        unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) }
    }

    fn store(bytes: &mut [u8], vector: __m128i) {
        let bytes = &mut bytes[..BLOCK_LEN];
        // SAFETY: it writes the 16 bytes of the slice, which need no alignment.
        unsafe { _mm_storeu_si128(bytes.as_mut_ptr().cast(), vector) }
    }

    fn load_first(bytes: &[u8]) -> __m128i {
        number(block::read(bytes))
    }

    fn store_first(bytes: &mut [u8], vector: __m128i) {
        block::write(bytes, of_vector(vector));
    }

    fn keep_first(vector: __m128i, len: usize) -> __m128i {
        _mm_and_si128(vector, number(block::mask(len)))
    }

    fn load_joined(_bytes: &[u8], _behind: &[u8]) -> __m128i {
        unreachable!("these vectors do not join")
    }

    fn store_second_half(_bytes: &mut [u8], _vector: __m128i) {
        unreachable!("these vectors do not join")
    }

    fn keep_second_half(_vector: __m128i, _len: usize) -> __m128i {
        unreachable!("these vectors do not join")
    }

    fn first_to_second(vector: __m128i) -> __m128i {
        vector
    }

    fn second_to_first(vector: __m128i) -> __m128i {
        vector
    }

    fn to_number(vector: __m128i) -> u128 {
        of_vector(vector)
    }

    fn xor(a: __m128i, b: __m128i) -> __m128i {
        _mm_xor_si128(a, b)
    }

    fn xor3(a: __m128i, b: __m128i, c: __m128i) -> __m128i {
        _mm_xor_si128(_mm_xor_si128(a, b), c)
    }

    fn sum(vector: __m128i) -> __m128i {
        vector
    }

    fn reverse(vector: __m128i) -> __m128i {
        _mm_shuffle_epi8(vector, _mm_set_epi8(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15))
    }

    fn swap_halves(vector: __m128i) -> __m128i {
        _mm_shuffle_epi32(vector, 0x4e)
    }

    fn product_low(a: __m128i, b: __m128i) -> __m128i {
        _mm_clmulepi64_si128(a, b, 0x00)
    }

    fn product_high(a: __m128i, b: __m128i) -> __m128i {
        _mm_clmulepi64_si128(a, b, 0x11)
    }

    fn product_low_high(a: __m128i, b: __m128i) -> __m128i {
        _mm_clmulepi64_si128(a, b, 0x10)
    }

    fn product_high_low(a: __m128i, b: __m128i) -> __m128i {
        _mm_clmulepi64_si128(a, b, 0x01)
    }

    fn round(vector: __m128i, key: __m128i) -> __m128i {
        _mm_aesenc_si128(vector, key)
    }

    fn last_round(vector: __m128i, key: __m128i) -> __m128i {
        _mm_aesenclast_si128(vector, key)
    }

    fn substitute_word(word: u32) -> u32 {
        // The instruction substitutes the bytes of each word; what it does besides goes into other words of its result.
        _mm_cvtsi128_si32(_mm_aeskeygenassist_si128(_mm_set1_epi32(word as i32), 0)) as u32
    }
}

#[inline]
#[target_feature(enable = "avx")]
pub(in crate::crypto::aes_gcm::vectors) fn number(block: u128) -> __m128i {
    _mm_set_epi64x((block >> 64) as i64, block as i64)
}

#[inline]
#[target_feature(enable = "avx")]
pub(in crate::crypto::aes_gcm::vectors) fn of_vector(block: __m128i) -> u128 {
    u128::from(_mm_extract_epi64(block, 1) as u64) << 64 | u128::from(_mm_cvtsi128_si64(block) as u64)
}
