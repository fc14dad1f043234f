//! Blocks of which there are only some bytes, as numbers: for processors that mask no loads and stores.
//!
//! They are put together of words that overlap. How many bytes there are decides on what is done, what they are does not.

/// Bytes of a block of AES.
pub(in crate::crypto::aes_gcm) const BLOCK_LEN: usize = 16;

/// The bytes, at most 16, and zeros.
#[inline(always)]
pub(super) fn read(bytes: &[u8]) -> u128 {
    let len = bytes.len();
    if let Some(block) = bytes.first_chunk() {
        u128::from_le_bytes(*block)
    } else if let (Some(first), Some(last)) = (bytes.first_chunk(), bytes.last_chunk()) {
        // Of 8 to 15 bytes.
        let (first, last) = (u64::from_le_bytes(*first), u64::from_le_bytes(*last));
        // In two steps: a shift by all 64 bits is none.
        let last = last >> 8 >> (8 * (15 - len));
        u128::from(last) << 64 | u128::from(first)
    } else if let (Some(first), Some(last)) = (bytes.first_chunk(), bytes.last_chunk()) {
        // Of 4 to 7 bytes.
        let (first, last) = (u32::from_le_bytes(*first), u32::from_le_bytes(*last));
        u128::from(u64::from(last) << (8 * (len - 4)) | u64::from(first))
    } else if let [first, ..] = bytes {
        // Of 1 to 3.
        let (middle, last) = (bytes[len / 2], bytes[len - 1]);
        u128::from(
            u32::from(*first) | u32::from(middle) << (8 * (len / 2)) | u32::from(last) << (8 * (len - 1)),
        )
    } else {
        0
    }
}

/// Writes the first bytes of a block, at most 16.
#[inline(always)]
pub(super) fn write(bytes: &mut [u8], block: u128) {
    let len = bytes.len();
    if let Some(place) = bytes.first_chunk_mut() {
        *place = block.to_le_bytes();
    } else if let Some(first) = bytes.first_chunk_mut() {
        *first = (block as u64).to_le_bytes();
        if let Some(last) = bytes.last_chunk_mut() {
            *last = ((block >> (8 * (len - 8))) as u64).to_le_bytes();
        }
    } else if let Some(first) = bytes.first_chunk_mut() {
        *first = (block as u32).to_le_bytes();
        if let Some(last) = bytes.last_chunk_mut() {
            *last = ((block as u64 >> (8 * (len - 4))) as u32).to_le_bytes();
        }
    } else if !bytes.is_empty() {
        let block = block as u32;
        bytes[0] = block as u8;
        bytes[len / 2] = (block >> (8 * (len / 2))) as u8;
        bytes[len - 1] = (block >> (8 * (len - 1))) as u8;
    }
}

/// A block whose first bytes, at most 16, are all ones, and the others zeros.
#[inline(always)]
pub(super) fn mask(len: usize) -> u128 {
    if len >= BLOCK_LEN {
        u128::MAX
    } else {
        (1 << (8 * len)) - 1
    }
}
