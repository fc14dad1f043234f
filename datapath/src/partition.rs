//! How many partitions there are, and how a connection ID names one of them.

use ringway_types::LOCAL_CID_LEN;

/// Where a connection ID that Ringway issued holds its partition: a big-endian `u16` at this offset, of which
/// the low bits (as many as the number of partitions needs) are the index and the others are random.
pub const CID_PARTITION_OFFSET: usize = 0;
/// The most partitions one process may have, as in MsQuic.
pub const PARTITIONS_MAX: usize = 512;

const _: () = {
    assert!(CID_PARTITION_OFFSET + 2 <= LOCAL_CID_LEN);
    // The index must fit the 16 bits that hold it.
    assert!(PARTITIONS_MAX.is_power_of_two() && PARTITIONS_MAX <= 1 << 16);
};

/// How many partitions there are, and how a connection ID names one of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Partitioning {
    count: u16,
}

impl Partitioning {
    /// For `count` partitions. Panics unless `1 <= count <= PARTITIONS_MAX`: the caller checks its configuration.
    pub fn new(count: usize) -> Partitioning {
        assert!(count >= 1, "at least one partition");
        assert!(count <= PARTITIONS_MAX, "at most {PARTITIONS_MAX} partitions");
        Partitioning { count: count as u16 }
    }

    /// The number of partitions.
    pub fn count(self) -> usize {
        usize::from(self.count)
    }

    /// The bits of the 16-bit field that hold the index.
    pub fn mask(self) -> u16 {
        self.count.next_power_of_two() - 1
    }

    /// The partition that a connection ID names, if it is long enough and the index exists.
    pub fn partition_of(self, cid: &[u8]) -> Option<usize> {
        let field = cid.get(CID_PARTITION_OFFSET..CID_PARTITION_OFFSET + 2)?;
        let index = u16::from_be_bytes([field[0], field[1]]) & self.mask();
        (index < self.count).then_some(usize::from(index))
    }

    /// Writes partition `index` into a connection ID that is otherwise random.
    pub fn write(self, index: usize, cid: &mut [u8; LOCAL_CID_LEN]) {
        debug_assert!(index < self.count());
        let field = u16::from_be_bytes([cid[CID_PARTITION_OFFSET], cid[CID_PARTITION_OFFSET + 1]]);
        let field = (field & !self.mask()) | index as u16;
        cid[CID_PARTITION_OFFSET..CID_PARTITION_OFFSET + 2].copy_from_slice(&field.to_be_bytes());
    }
}
