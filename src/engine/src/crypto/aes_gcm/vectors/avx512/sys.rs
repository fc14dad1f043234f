//! Four blocks of AVX-512, with VAES and VPCLMULQDQ.

use core::arch::x86_64::*;
use std::arch::is_x86_feature_detected;

use crate::crypto::aes_gcm::vectors::block::BLOCK_LEN;
use crate::crypto::aes_gcm::vectors::sys::vectors;

const VECTOR_LEN: usize = 64;
const HALF: usize = VECTOR_LEN / 2;

vectors! {
    /// AVX-512 with VAES and VPCLMULQDQ: Intel from Ice Lake on, AMD from Zen 4 on.
    pub struct Avx512;
    features = "bmi2,aes,pclmulqdq,vaes,vpclmulqdq,avx512f,avx512bw,avx512vl",
    detect = is_x86_feature_detected!("bmi2")
        && is_x86_feature_detected!("aes")
        && is_x86_feature_detected!("pclmulqdq")
        && is_x86_feature_detected!("vaes")
        && is_x86_feature_detected!("vpclmulqdq")
        && is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512vl");
    blocks = 4, holds_round_keys = true, joins = true, vector = __m512i;

    fn zero() -> __m512i {
        _mm512_setzero_si512()
    }

    fn first_block(block: u128) -> __m512i {
        _mm512_zextsi128_si512(number(block))
    }

    fn broadcast(block: &[u8; BLOCK_LEN]) -> __m512i {
        // SAFETY: it reads the 16 bytes of the array, which need no alignment.
        _mm512_broadcast_i32x4(unsafe { _mm_loadu_si128(block.as_ptr().cast()) })
    }

    fn broadcast_number(block: u128) -> __m512i {
        _mm512_broadcast_i32x4(number(block))
    }

    fn counters(first: u32) -> __m512i {
        let [a, b, c, d] = [0, 1, 2, 3].map(|i| (first + i).to_be() as i32);
        _mm512_set_epi32(d, 0, 0, 0, c, 0, 0, 0, b, 0, 0, 0, a, 0, 0, 0)
    }

    fn counter(counter: u32) -> __m512i {
        const LAST_OF_EACH_BLOCK: __mmask16 = 0x8888;
        _mm512_maskz_set1_epi32(LAST_OF_EACH_BLOCK, counter.to_be() as i32)
    }

    fn load(bytes: &[u8]) -> __m512i {
        let bytes = &bytes[..VECTOR_LEN];
        // SAFETY: it reads the 64 bytes of the slice, which need no alignment.
        unsafe { _mm512_loadu_si512(bytes.as_ptr().cast()) }
    }

    fn store(bytes: &mut [u8], vector: __m512i) {
        let bytes = &mut bytes[..VECTOR_LEN];
        // SAFETY: it writes the 64 bytes of the slice, which need no alignment.
        unsafe { _mm512_storeu_si512(bytes.as_mut_ptr().cast(), vector) }
    }

    fn load_first(bytes: &[u8]) -> __m512i {
        let mask = first(bytes.len());
        // SAFETY: the mask keeps it from reading more than the slice has.
        unsafe { _mm512_maskz_loadu_epi8(mask, bytes.as_ptr().cast()) }
    }

    fn store_first(bytes: &mut [u8], vector: __m512i) {
        let mask = first(bytes.len());
        // SAFETY: the mask keeps it from writing more than the slice has.
        unsafe { _mm512_mask_storeu_epi8(bytes.as_mut_ptr().cast(), mask, vector) }
    }

    fn keep_first(vector: __m512i, len: usize) -> __m512i {
        _mm512_maskz_mov_epi8(first(len), vector)
    }

    fn load_joined(bytes: &[u8], behind: &[u8]) -> __m512i {
        let end = HALF + bytes.len();
        let mask = first(end) & !first(HALF);
        // SAFETY: the mask keeps it from reading more than the slice has, which starts in the middle of what is read.
        let vector = unsafe { _mm512_maskz_loadu_epi8(mask, bytes.as_ptr().wrapping_sub(HALF).cast()) };
        if behind.is_empty() {
            return vector;
        }
        let mask = first(end + behind.len()) & !first(end);
        // SAFETY: the mask keeps it from reading more than the slice has, which starts at position `end` of what is read.
        unsafe { _mm512_mask_loadu_epi8(vector, mask, behind.as_ptr().wrapping_sub(end).cast()) }
    }

    fn store_second_half(bytes: &mut [u8], vector: __m512i) {
        let mask = first(HALF + bytes.len()) & !first(HALF);
        // SAFETY: the mask keeps it from writing more than the slice has, which starts in the middle of what is written.
        unsafe { _mm512_mask_storeu_epi8(bytes.as_mut_ptr().wrapping_sub(HALF).cast(), mask, vector) }
    }

    fn keep_second_half(vector: __m512i, len: usize) -> __m512i {
        _mm512_maskz_mov_epi8(first(HALF + len) & !first(HALF), vector)
    }

    fn first_to_second(vector: __m512i) -> __m512i {
        _mm512_inserti32x4(_mm512_setzero_si512(), _mm512_castsi512_si128(vector), 1)
    }

    fn second_to_first(vector: __m512i) -> __m512i {
        _mm512_castsi128_si512(_mm512_extracti32x4_epi32(vector, 1))
    }

    fn to_number(vector: __m512i) -> u128 {
        let block = _mm512_castsi512_si128(vector);
        u128::from(_mm_extract_epi64(block, 1) as u64) << 64 | u128::from(_mm_cvtsi128_si64(block) as u64)
    }

    fn xor(a: __m512i, b: __m512i) -> __m512i {
        _mm512_xor_si512(a, b)
    }

    fn xor3(a: __m512i, b: __m512i, c: __m512i) -> __m512i {
        const EXCLUSIVE_OR_OF_ALL: i32 = 0x96;
        _mm512_ternarylogic_epi64(a, b, c, EXCLUSIVE_OR_OF_ALL)
    }

    fn sum(vector: __m512i) -> __m512i {
        let two = _mm256_xor_si256(_mm512_castsi512_si256(vector), _mm512_extracti64x4_epi64(vector, 1));
        _mm512_zextsi128_si512(_mm_xor_si128(_mm256_castsi256_si128(two), _mm256_extracti128_si256(two, 1)))
    }

    fn reverse(vector: __m512i) -> __m512i {
        _mm512_shuffle_epi8(
            vector,
            _mm512_broadcast_i32x4(_mm_set_epi8(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15)),
        )
    }

    fn swap_halves(vector: __m512i) -> __m512i {
        _mm512_shuffle_epi32(vector, 0x4e)
    }

    fn product_low(a: __m512i, b: __m512i) -> __m512i {
        _mm512_clmulepi64_epi128(a, b, 0x00)
    }

    fn product_high(a: __m512i, b: __m512i) -> __m512i {
        _mm512_clmulepi64_epi128(a, b, 0x11)
    }

    fn product_low_high(a: __m512i, b: __m512i) -> __m512i {
        _mm512_clmulepi64_epi128(a, b, 0x10)
    }

    fn product_high_low(a: __m512i, b: __m512i) -> __m512i {
        _mm512_clmulepi64_epi128(a, b, 0x01)
    }

    fn round(vector: __m512i, key: __m512i) -> __m512i {
        _mm512_aesenc_epi128(vector, key)
    }

    fn last_round(vector: __m512i, key: __m512i) -> __m512i {
        _mm512_aesenclast_epi128(vector, key)
    }

    fn substitute_word(word: u32) -> u32 {
        // The instruction substitutes the bytes of each word; what it does besides goes into other words of its result.
        _mm_cvtsi128_si32(_mm_aeskeygenassist_si128(_mm_set1_epi32(word as i32), 0)) as u32
    }
}

/// A mask of the first `len` bytes of a vector, all if it has less.
#[inline]
#[target_feature(enable = "bmi2")]
fn first(len: usize) -> __mmask64 {
    _bzhi_u64(u64::MAX, len.min(VECTOR_LEN) as u32)
}

#[inline]
#[target_feature(enable = "sse2")]
fn number(block: u128) -> __m128i {
    _mm_set_epi64x((block >> 64) as i64, block as i64)
}
