//! Cursors over packet bytes. Reading checks every length and never panics on what a peer sent; writing panics
//! if the caller writes past the space it had, which is a bug of the caller.

use super::varint::{VARINT_MAX, varint_len};

/// The input ended before the value did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct UnexpectedEnd;

/// Reads values off the front of a byte slice.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reader<'a> {
    remaining: &'a [u8],
}

impl<'a> Reader<'a> {
    /// A cursor at the start of `bytes`.
    #[inline]
    pub(crate) const fn new(bytes: &'a [u8]) -> Self {
        Reader { remaining: bytes }
    }

    /// Bytes not yet read.
    #[inline]
    pub(crate) const fn remaining(&self) -> usize {
        self.remaining.len()
    }

    /// True when all has been read.
    #[inline]
    pub(crate) const fn is_empty(&self) -> bool {
        self.remaining.is_empty()
    }

    /// All bytes not yet read; the cursor stays where it is.
    #[inline]
    pub(crate) const fn as_slice(&self) -> &'a [u8] {
        self.remaining
    }

    /// The next byte, which stays unread.
    #[inline]
    pub(crate) fn peek(&self) -> Result<u8, UnexpectedEnd> {
        self.remaining.first().copied().ok_or(UnexpectedEnd)
    }

    /// The next `len` bytes.
    #[inline]
    pub(crate) fn bytes(&mut self, len: usize) -> Result<&'a [u8], UnexpectedEnd> {
        let (head, rest) = self.remaining.split_at_checked(len).ok_or(UnexpectedEnd)?;
        self.remaining = rest;
        Ok(head)
    }

    /// The next `N` bytes as an array.
    #[inline]
    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], UnexpectedEnd> {
        let (head, rest) = self.remaining.split_first_chunk::<N>().ok_or(UnexpectedEnd)?;
        self.remaining = rest;
        Ok(*head)
    }

    /// One byte.
    #[inline]
    pub(crate) fn u8(&mut self) -> Result<u8, UnexpectedEnd> {
        self.array::<1>().map(|[byte]| byte)
    }

    /// A big-endian 16-bit integer.
    #[inline]
    pub(crate) fn u16(&mut self) -> Result<u16, UnexpectedEnd> {
        self.array().map(u16::from_be_bytes)
    }

    /// A big-endian 32-bit integer.
    #[inline]
    pub(crate) fn u32(&mut self) -> Result<u32, UnexpectedEnd> {
        self.array().map(u32::from_be_bytes)
    }

    /// A variable-length integer (RFC 9000 section 16).
    #[inline]
    pub(crate) fn varint(&mut self) -> Result<u64, UnexpectedEnd> {
        let first = self.peek()?;
        match first >> 6 {
            0b00 => self.u8().map(u64::from),
            0b01 => self.u16().map(|v| u64::from(v & 0x3fff)),
            0b10 => self.u32().map(|v| u64::from(v & 0x3fff_ffff)),
            _ => self.array().map(|v| u64::from_be_bytes(v) & VARINT_MAX),
        }
    }

    /// Bytes preceded by their length as a variable-length integer.
    #[inline]
    pub(crate) fn varint_bytes(&mut self) -> Result<&'a [u8], UnexpectedEnd> {
        let len = self.varint()?;
        // A length that does not fit `usize` is longer than any input.
        self.bytes(usize::try_from(len).map_err(|_| UnexpectedEnd)?)
    }
}

/// Writes values to the front of a byte slice.
#[derive(Debug)]
pub struct Writer<'a> {
    buf: &'a mut [u8],
    len: usize,
}

impl<'a> Writer<'a> {
    /// A cursor at the start of `buf`.
    #[inline]
    pub fn new(buf: &'a mut [u8]) -> Self {
        Writer { buf, len: 0 }
    }

    /// Bytes written so far.
    #[inline]
    #[allow(
        clippy::len_without_is_empty,
        reason = "nobody asks whether nothing was written"
    )]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Bytes that can still be written.
    #[inline]
    pub fn remaining(&self) -> usize {
        self.buf.len() - self.len
    }

    /// Ends writing and gives what was written.
    #[inline]
    pub fn into_written(self) -> &'a mut [u8] {
        &mut self.buf[..self.len]
    }

    /// Appends `bytes`.
    #[inline]
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.buf[self.len..self.len + bytes.len()].copy_from_slice(bytes);
        self.len += bytes.len();
    }

    /// Appends the first `len` bytes of `padded`: copied whole where there is room for it, in a few moves, instead of a call for a few bytes.
    #[inline]
    pub fn prefix<const N: usize>(&mut self, padded: &[u8; N], len: usize) {
        match self.buf[self.len..].first_chunk_mut::<N>() {
            Some(room) => *room = *padded,
            None => return self.bytes(&padded[..len]),
        }
        self.len += len;
    }

    /// Appends `count` zero bytes (PADDING frames are zero).
    #[inline]
    pub fn zeros(&mut self, count: usize) {
        if count > 0 {
            self.buf[self.len..self.len + count].fill(0);
            self.len += count;
        }
    }

    /// Appends bytes of a number known here.
    #[inline]
    fn array<const N: usize>(&mut self, bytes: [u8; N]) {
        *self.buf[self.len..].first_chunk_mut::<N>().expect("room for it") = bytes;
        self.len += N;
    }

    /// One byte.
    #[inline]
    pub fn u8(&mut self, value: u8) {
        self.array([value]);
    }

    /// A big-endian 16-bit integer.
    #[inline]
    pub fn u16(&mut self, value: u16) {
        self.array(value.to_be_bytes());
    }

    /// A big-endian 32-bit integer.
    #[inline]
    pub fn u32(&mut self, value: u32) {
        self.array(value.to_be_bytes());
    }

    /// A variable-length integer in its shortest form. `value` must not exceed [`VARINT_MAX`].
    #[inline]
    pub fn varint(&mut self, value: u64) {
        // At the upper end of the word; the first two bits say how long it is.
        let (word, len) = match varint_len(value) {
            1 => (value << 56, 1),
            2 => ((value | 0x4000) << 48, 2),
            4 => ((value | 0x8000_0000) << 32, 4),
            _ => (value | 0xc000_0000_0000_0000, 8),
        };
        self.prefix(&word.to_be_bytes(), len);
    }

    /// A variable-length integer of less than 2^14 in two bytes: for lengths that are filled in later.
    #[inline]
    pub fn varint_2(&mut self, value: u16) {
        debug_assert!(value < 1 << 14);
        self.u16(value | 0x4000);
    }

    /// Bytes preceded by their length as a variable-length integer.
    #[inline]
    pub fn varint_bytes(&mut self, bytes: &[u8]) {
        self.varint(bytes.len() as u64);
        self.bytes(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 9000 Appendix A.1.
    #[test]
    fn varint_examples_of_rfc_9000_decode_and_encode() {
        let examples: [(&[u8], u64); 4] = [
            (
                &[0xc2, 0x19, 0x7c, 0x5e, 0xff, 0x14, 0xe8, 0x8c],
                151_288_809_941_952_652,
            ),
            (&[0x9d, 0x7f, 0x3e, 0x7d], 494_878_333),
            (&[0x7b, 0xbd], 15_293),
            (&[0x25], 37),
        ];
        for (bytes, value) in examples {
            assert_eq!(Reader::new(bytes).varint(), Ok(value));
            let mut buf = [0; 8];
            let mut writer = Writer::new(&mut buf);
            writer.varint(value);
            assert_eq!(writer.into_written(), bytes);
        }
        assert_eq!(Reader::new(&[0x40, 0x25]).varint(), Ok(37));
    }

    #[test]
    fn truncated_varint_is_an_error_at_every_length() {
        let bytes = [0xc2, 0x19, 0x7c, 0x5e, 0xff, 0x14, 0xe8, 0x8c];
        for len in 0..bytes.len() {
            assert_eq!(Reader::new(&bytes[..len]).varint(), Err(UnexpectedEnd));
        }
    }

    #[test]
    fn length_beyond_the_input_is_an_error() {
        let mut reader = Reader::new(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]);
        assert_eq!(reader.varint_bytes(), Err(UnexpectedEnd));
    }
}
