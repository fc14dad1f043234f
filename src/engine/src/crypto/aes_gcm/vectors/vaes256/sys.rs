//! Two blocks of AVX2, with VAES and VPCLMULQDQ.

use core::arch::x86_64::*;
use std::arch::is_x86_feature_detected;

use crate::crypto::aes_gcm::vectors::aesni::sys::{number, of_vector};
use crate::crypto::aes_gcm::vectors::block::{self, BLOCK_LEN};
use crate::crypto::aes_gcm::vectors::sys::vectors;

const VECTOR_LEN: usize = 32;

vectors! {
    /// AVX2 with VAES and VPCLMULQDQ: AMD Zen 3, Intel from Alder Lake on.
    pub struct Vaes256;
    features = "aes,pclmulqdq,vaes,vpclmulqdq,avx2",
    detect = is_x86_feature_detected!("aes")
        && is_x86_feature_detected!("pclmulqdq")
        && is_x86_feature_detected!("vaes")
        && is_x86_feature_detected!("vpclmulqdq")
        && is_x86_feature_detected!("avx2");
    blocks = 2, holds_round_keys = false, joins = false, vector = __m256i;

    fn zero() -> __m256i {
        _mm256_setzero_si256()
    }

    fn first_block(block: u128) -> __m256i {
        _mm256_zextsi128_si256(number(block))
    }

    fn broadcast(block: &[u8; BLOCK_LEN]) -> __m256i {
        // SAFETY: it reads the 16 bytes of the array, which need no alignment.
        _mm256_broadcastsi128_si256(unsafe { _mm_loadu_si128(block.as_ptr().cast()) })
    }

    fn broadcast_number(block: u128) -> __m256i {
        _mm256_broadcastsi128_si256(number(block))
    }

    fn counters(first: u32) -> __m256i {
        _mm256_set_epi32((first + 1).to_be() as i32, 0, 0, 0, first.to_be() as i32, 0, 0, 0)
    }

    fn counter(counter: u32) -> __m256i {
        let counter = counter.to_be() as i32;
        _mm256_broadcastsi128_si256(_mm_set_epi32(counter, 0, 0, 0))
    }

    fn load(bytes: &[u8]) -> __m256i {
        let bytes = &bytes[..VECTOR_LEN];
        // SAFETY: it reads the 32 bytes of the slice, which need no alignment.
        unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) }
    }

    fn store(bytes: &mut [u8], vector: __m256i) {
        let bytes = &mut bytes[..VECTOR_LEN];
        // SAFETY: it writes the 32 bytes of the slice, which need no alignment.
        unsafe { _mm256_storeu_si256(bytes.as_mut_ptr().cast(), vector) }
    }

    fn load_first(bytes: &[u8]) -> __m256i {
        let (first, second) = bytes.split_at(bytes.len().min(BLOCK_LEN));
        _mm256_set_m128i(number(block::read(second)), number(block::read(first)))
    }

    fn store_first(bytes: &mut [u8], vector: __m256i) {
        let (first, second) = bytes.split_at_mut(bytes.len().min(BLOCK_LEN));
        block::write(first, of_vector(_mm256_castsi256_si128(vector)));
        block::write(second, of_vector(_mm256_extracti128_si256(vector, 1)));
    }

    fn keep_first(vector: __m256i, len: usize) -> __m256i {
        let [first, second] = [len, len.saturating_sub(BLOCK_LEN)].map(block::mask);
        _mm256_and_si256(vector, _mm256_set_m128i(number(second), number(first)))
    }

    fn load_joined(_bytes: &[u8], _behind: &[u8]) -> __m256i {
        unreachable!("these vectors do not join")
    }

    fn store_second_half(_bytes: &mut [u8], _vector: __m256i) {
        unreachable!("these vectors do not join")
    }

    fn keep_second_half(_vector: __m256i, _len: usize) -> __m256i {
        unreachable!("these vectors do not join")
    }

    fn first_to_second(vector: __m256i) -> __m256i {
        // The lower half becomes the upper one, and the lower one zeros.
        _mm256_permute2x128_si256(vector, vector, 0x08)
    }

    fn second_to_first(vector: __m256i) -> __m256i {
        _mm256_castsi128_si256(_mm256_extracti128_si256(vector, 1))
    }

    fn to_number(vector: __m256i) -> u128 {
        of_vector(_mm256_castsi256_si128(vector))
    }

    fn xor(a: __m256i, b: __m256i) -> __m256i {
        _mm256_xor_si256(a, b)
    }

    fn xor3(a: __m256i, b: __m256i, c: __m256i) -> __m256i {
        _mm256_xor_si256(_mm256_xor_si256(a, b), c)
    }

    fn sum(vector: __m256i) -> __m256i {
        let sum = _mm_xor_si128(_mm256_castsi256_si128(vector), _mm256_extracti128_si256(vector, 1));
        _mm256_zextsi128_si256(sum)
    }

    fn reverse(vector: __m256i) -> __m256i {
        _mm256_shuffle_epi8(
            vector,
            _mm256_broadcastsi128_si256(_mm_set_epi8(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15)),
        )
    }

    fn swap_halves(vector: __m256i) -> __m256i {
        _mm256_shuffle_epi32(vector, 0x4e)
    }

    fn product_low(a: __m256i, b: __m256i) -> __m256i {
        _mm256_clmulepi64_epi128(a, b, 0x00)
    }

    fn product_high(a: __m256i, b: __m256i) -> __m256i {
        _mm256_clmulepi64_epi128(a, b, 0x11)
    }

    fn product_low_high(a: __m256i, b: __m256i) -> __m256i {
        _mm256_clmulepi64_epi128(a, b, 0x10)
    }

    fn product_high_low(a: __m256i, b: __m256i) -> __m256i {
        _mm256_clmulepi64_epi128(a, b, 0x01)
    }

    fn round(vector: __m256i, key: __m256i) -> __m256i {
        _mm256_aesenc_epi128(vector, key)
    }

    fn last_round(vector: __m256i, key: __m256i) -> __m256i {
        _mm256_aesenclast_epi128(vector, key)
    }

    fn substitute_word(word: u32) -> u32 {
        // The instruction substitutes the bytes of each word; what it does besides goes into other words of its result.
        _mm_cvtsi128_si32(_mm_aeskeygenassist_si128(_mm_set1_epi32(word as i32), 0)) as u32
    }
}
