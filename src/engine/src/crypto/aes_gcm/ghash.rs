//! Multiplication in the field of GHASH (SP 800-38D section 6.3).
//!
//! Blocks have their bytes in reverse, and the key of the hash is multiplied by x: then a product is that of POLYVAL, whose bits lie in the
//! order that processors multiply in (RFC 8452 appendix A).

use core::arch::x86_64::*;

use super::sys;

/// Sums of products of blocks, of four at a time side by side, before they are reduced.
#[derive(Clone, Copy)]
pub(super) struct Products {
    low: __m512i,
    middle: __m512i,
    high: __m512i,
}

impl Products {
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(super) fn none() -> Products {
        let zero = _mm512_setzero_si512();
        Products {
            low: zero,
            middle: zero,
            high: zero,
        }
    }

    /// With the products of four blocks and a factor for each.
    #[inline]
    #[target_feature(enable = "avx512f,vpclmulqdq")]
    pub(super) fn and(self, blocks: __m512i, factors: __m512i) -> Products {
        let low = _mm512_clmulepi64_epi128(blocks, factors, 0x00);
        let middle = [
            _mm512_clmulepi64_epi128(blocks, factors, 0x01),
            _mm512_clmulepi64_epi128(blocks, factors, 0x10),
        ];
        let high = _mm512_clmulepi64_epi128(blocks, factors, 0x11);
        Products {
            low: _mm512_xor_si512(self.low, low),
            middle: xor(self.middle, middle[0], middle[1]),
            high: _mm512_xor_si512(self.high, high),
        }
    }

    /// Each of the four sums, modulo x^128 + x^127 + x^126 + x^121 + 1: its lower half is added to the upper one, 64 bits at a time.
    #[inline]
    #[target_feature(enable = "avx512f,vpclmulqdq")]
    pub(super) fn reduce(self) -> __m512i {
        const SWAP_HALVES: i32 = 0x4e;
        let polynomial = _mm512_set1_epi64(0xc2 << 56);
        let low = _mm512_clmulepi64_epi128(self.low, polynomial, 0x00);
        let middle = xor(self.middle, _mm512_shuffle_epi32(self.low, SWAP_HALVES), low);
        let low = _mm512_clmulepi64_epi128(middle, polynomial, 0x00);
        xor(self.high, _mm512_shuffle_epi32(middle, SWAP_HALVES), low)
    }
}

/// The sum of the four blocks of a vector, as its first block, with zeros behind.
#[inline]
#[target_feature(enable = "avx512f,avx512vl")]
pub(super) fn sum(blocks: __m512i) -> __m512i {
    let two = _mm256_xor_si256(
        _mm512_castsi512_si256(blocks),
        _mm512_extracti64x4_epi64(blocks, 1),
    );
    _mm512_zextsi128_si512(_mm_xor_si128(
        _mm256_castsi256_si128(two),
        _mm256_extracti128_si256(two, 1),
    ))
}

/// Blocks with their bytes in reverse.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) fn reverse(blocks: __m512i) -> __m512i {
    const REVERSE: [u8; 16] = [15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0];
    _mm512_shuffle_epi8(blocks, _mm512_broadcast_i32x4(sys::load_block(&REVERSE)))
}

#[inline]
#[target_feature(enable = "avx512f")]
fn xor(a: __m512i, b: __m512i, c: __m512i) -> __m512i {
    const EXCLUSIVE_OR_OF_ALL: i32 = 0x96;
    _mm512_ternarylogic_epi64(a, b, c, EXCLUSIVE_OR_OF_ALL)
}
