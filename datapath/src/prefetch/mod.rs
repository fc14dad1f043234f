//! Memory that is read soon, asked for ahead: the processor fetches it meanwhile instead of waiting for it then.

mod sys;

/// Asks for so many bytes from this address on, as cache lines. Any address will do: of memory that cannot be read, nothing is fetched, and nothing
/// else happens.
#[inline]
pub fn prefetch(start: *const (), bytes: usize) {
    for offset in (0..bytes).step_by(CACHE_LINE) {
        sys::prefetch_line(start.cast::<u8>().wrapping_add(offset));
    }
}

const CACHE_LINE: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_that_cannot_be_read_is_left_alone() {
        for address in [0, 4096, usize::MAX] {
            prefetch(std::ptr::without_provenance(address), 4 * CACHE_LINE);
        }
        let readable = [7_u8; 256];
        prefetch(readable.as_ptr().cast(), readable.len());
        assert_eq!(readable, [7; 256]);
    }
}
