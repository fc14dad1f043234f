//! Which chunks are with the kernel.

/// A bit for each chunk.
pub(super) struct Lent {
    bits: Box<[u64]>,
    count: u32,
}

impl Lent {
    pub(super) fn new(chunks: u32) -> Lent {
        Lent {
            bits: vec![0; chunks.div_ceil(64) as usize].into(),
            count: 0,
        }
    }

    /// The kernel gets a chunk.
    #[inline]
    pub(super) fn set(&mut self, number: u32) {
        self.bits[(number / 64) as usize] |= 1 << (number % 64);
        self.count += 1;
    }

    /// It gives one back; false if it does not have it.
    #[inline]
    pub(super) fn clear(&mut self, number: u32) -> bool {
        let (word, bit) = (&mut self.bits[(number / 64) as usize], 1 << (number % 64));
        let is_set = *word & bit != 0;
        *word &= !bit;
        self.count -= u32::from(is_set);
        is_set
    }

    /// It gives all back.
    pub(super) fn clear_all(&mut self, mut each: impl FnMut(u32)) {
        for (at, word) in self.bits.iter_mut().enumerate() {
            while *word != 0 {
                each(at as u32 * 64 + word.trailing_zeros());
                *word &= *word - 1;
            }
        }
        self.count = 0;
    }

    /// How many it has.
    pub(super) fn count(&self) -> u32 {
        self.count
    }
}
