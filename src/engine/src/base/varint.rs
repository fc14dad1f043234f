//! Variable-length integers (RFC 9000 section 16).

/// The largest value a variable-length integer can hold: 2^62 - 1.
pub(crate) const VARINT_MAX: u64 = (1 << 62) - 1;

/// Bytes that the shortest encoding of `value` takes: 1, 2, 4 or 8. `value` must not exceed [`VARINT_MAX`].
#[inline]
pub(crate) const fn varint_len(value: u64) -> usize {
    debug_assert!(value <= VARINT_MAX);
    if value < 1 << 6 {
        1
    } else if value < 1 << 14 {
        2
    } else if value < 1 << 30 {
        4
    } else {
        8
    }
}
