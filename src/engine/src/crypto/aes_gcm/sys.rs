//! Vectors to and from memory.

use core::arch::x86_64::*;

/// Bytes of a vector.
pub(super) const VECTOR_LEN: usize = 64;
/// Bytes of a block of AES.
pub(super) const BLOCK_LEN: usize = 16;

#[inline]
pub(super) fn load_block(bytes: &[u8; BLOCK_LEN]) -> __m128i {
    // SAFETY: it reads the 16 bytes of the array, which need no alignment.
    unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) }
}

#[inline]
pub(super) fn store_block(bytes: &mut [u8; BLOCK_LEN], block: __m128i) {
    // SAFETY: it writes the 16 bytes of the array, which need no alignment.
    unsafe { _mm_storeu_si128(bytes.as_mut_ptr().cast(), block) }
}

#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn load(bytes: &[u8; VECTOR_LEN]) -> __m512i {
    // SAFETY: it reads the 64 bytes of the array, which need no alignment.
    unsafe { _mm512_loadu_si512(bytes.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn store(bytes: &mut [u8; VECTOR_LEN], vector: __m512i) {
    // SAFETY: it writes the 64 bytes of the array, which need no alignment.
    unsafe { _mm512_storeu_si512(bytes.as_mut_ptr().cast(), vector) }
}

/// The bytes, the first 64 if there are more, and zeros.
#[inline]
#[target_feature(enable = "bmi2,avx512f,avx512bw")]
pub(super) fn load_first(bytes: &[u8]) -> __m512i {
    let mask = first(bytes.len());
    // SAFETY: the mask keeps it from reading more than the slice has.
    unsafe { _mm512_maskz_loadu_epi8(mask, bytes.as_ptr().cast()) }
}

/// Writes the first bytes of the vector, all if there is room for them.
#[inline]
#[target_feature(enable = "bmi2,avx512f,avx512bw")]
pub(super) fn store_first(bytes: &mut [u8], vector: __m512i) {
    let mask = first(bytes.len());
    // SAFETY: the mask keeps it from writing more than the slice has.
    unsafe { _mm512_mask_storeu_epi8(bytes.as_mut_ptr().cast(), mask, vector) }
}

/// The first `len` bytes of the vector, and zeros.
#[inline]
#[target_feature(enable = "bmi2,avx512f,avx512bw")]
pub(super) fn keep_first(vector: __m512i, len: usize) -> __m512i {
    _mm512_maskz_mov_epi8(first(len), vector)
}

/// A half of a vector: these bytes, those behind them, as many as there is room for, and zeros.
#[inline]
#[target_feature(enable = "bmi2,avx512bw,avx512vl")]
pub(super) fn load_half(bytes: &[u8], behind: &[u8]) -> __m256i {
    let len = bytes.len();
    let mask = first(len) as __mmask32;
    // SAFETY: the mask keeps it from reading more than the slice has.
    let half = unsafe { _mm256_maskz_loadu_epi8(mask, bytes.as_ptr().cast()) };
    if behind.is_empty() {
        return half;
    }
    let mask = first(len + behind.len()) as __mmask32 & !mask;
    // SAFETY: the mask keeps it from reading more than the slice has, which starts at position `len` of what is read.
    unsafe { _mm256_mask_loadu_epi8(half, mask, behind.as_ptr().wrapping_sub(len).cast()) }
}

/// Writes the first bytes of a half of a vector, all if there is room for them.
#[inline]
#[target_feature(enable = "bmi2,avx512bw,avx512vl")]
pub(super) fn store_half(bytes: &mut [u8], half: __m256i) {
    let mask = first(bytes.len()) as __mmask32;
    // SAFETY: the mask keeps it from writing more than the slice has.
    unsafe { _mm256_mask_storeu_epi8(bytes.as_mut_ptr().cast(), mask, half) }
}

/// A mask of the first `len` bytes of a vector, all if it has less.
#[inline]
#[target_feature(enable = "bmi2")]
fn first(len: usize) -> __mmask64 {
    _bzhi_u64(u64::MAX, len.min(VECTOR_LEN) as u32)
}
