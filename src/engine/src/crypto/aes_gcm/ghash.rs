//! Multiplication in the field of GHASH (SP 800-38D section 6.3).
//!
//! Blocks have their bytes in reverse, and the key of the hash is multiplied by x: then a product is that of POLYVAL, whose bits lie in the
//! order that processors multiply in (RFC 8452 appendix A).

use super::vectors::Vectors;

/// Sums of products of blocks, of all blocks of a vector side by side, before they are reduced.
#[derive(Clone, Copy)]
pub(super) struct Products<V: Vectors> {
    low: V::Vector,
    middle: V::Vector,
    high: V::Vector,
}

impl<V: Vectors> Products<V> {
    /// The products of the blocks of a vector and a factor for each.
    #[inline(always)]
    pub(super) fn of(v: V, blocks: V::Vector, factors: V::Vector) -> Self {
        Products {
            low: v.product_low(blocks, factors),
            middle: v.xor(
                v.product_low_high(blocks, factors),
                v.product_high_low(blocks, factors),
            ),
            high: v.product_high(blocks, factors),
        }
    }

    /// With the products of another vector and its factors.
    #[inline(always)]
    pub(super) fn and(self, v: V, blocks: V::Vector, factors: V::Vector) -> Self {
        Products {
            low: v.xor(self.low, v.product_low(blocks, factors)),
            middle: v.xor3(
                self.middle,
                v.product_low_high(blocks, factors),
                v.product_high_low(blocks, factors),
            ),
            high: v.xor(self.high, v.product_high(blocks, factors)),
        }
    }

    /// Each of the sums, modulo x^128 + x^127 + x^126 + x^121 + 1: its lower half is added to the upper one, 64 bits at a time.
    #[inline(always)]
    pub(super) fn reduce(self, v: V) -> V::Vector {
        let polynomial = v.broadcast_number(0xc2 << 56);
        let low = v.product_low(self.low, polynomial);
        let middle = v.xor3(self.middle, v.swap_halves(self.low), low);
        let low = v.product_low(middle, polynomial);
        v.xor3(self.high, v.swap_halves(middle), low)
    }
}
