//! Numbers that QUIC sends: at most 62 bits.

use std::fmt;

use ringway::ERROR_CODE_MAX;

/// A number of at most 62 bits (RFC 9000 section 16), as application error codes are.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct VarInt(u64);

impl VarInt {
    /// The largest: 2^62 − 1.
    pub const MAX: VarInt = VarInt(ERROR_CODE_MAX);

    /// Any number of 32 bits is one.
    pub const fn from_u32(value: u32) -> Self {
        VarInt(value as u64)
    }

    /// A number of 64 bits, if it is not too large.
    ///
    /// # Errors
    ///
    /// It has more than 62 bits.
    pub const fn from_u64(value: u64) -> Result<Self, VarIntBoundsExceeded> {
        if value <= ERROR_CODE_MAX {
            Ok(VarInt(value))
        } else {
            Err(VarIntBoundsExceeded)
        }
    }

    /// The number.
    pub const fn into_inner(self) -> u64 {
        self.0
    }

    /// A code that came from the peer or from `ringway`, neither of which has larger ones.
    pub(crate) fn of_peer(code: u64) -> Self {
        VarInt(code.min(ERROR_CODE_MAX))
    }
}

impl From<u8> for VarInt {
    fn from(value: u8) -> Self {
        VarInt(value.into())
    }
}

impl From<u16> for VarInt {
    fn from(value: u16) -> Self {
        VarInt(value.into())
    }
}

impl From<u32> for VarInt {
    fn from(value: u32) -> Self {
        VarInt(value.into())
    }
}

impl TryFrom<u64> for VarInt {
    type Error = VarIntBoundsExceeded;

    fn try_from(value: u64) -> Result<Self, VarIntBoundsExceeded> {
        VarInt::from_u64(value)
    }
}

impl From<VarInt> for u64 {
    fn from(value: VarInt) -> u64 {
        value.0
    }
}

impl fmt::Display for VarInt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A number has more than 62 bits.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the number has more than 62 bits")]
pub struct VarIntBoundsExceeded;

/// The ID of a stream (RFC 9000 section 2.1).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct StreamId(pub(crate) u64);

impl StreamId {
    pub(crate) fn new(number: u64, of_client: bool, dir: Dir) -> Self {
        let uni = dir == Dir::Uni;
        StreamId(number << 2 | u64::from(uni) << 1 | u64::from(!of_client))
    }

    /// Which ends may send.
    pub fn dir(self) -> Dir {
        if self.0 & 2 == 0 { Dir::Bi } else { Dir::Uni }
    }

    /// How many streams of the same kind its initiator had opened before.
    pub fn index(self) -> u64 {
        self.0 >> 2
    }
}

impl From<StreamId> for u64 {
    fn from(id: StreamId) -> u64 {
        id.0
    }
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Which ends of a stream may send.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Dir {
    /// Both.
    Bi = 0,
    /// Only the one that opened it.
    Uni = 1,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_those_of_rfc_9000() {
        assert_eq!(StreamId::new(1, true, Dir::Bi).0, 4);
        assert_eq!(StreamId::new(0, false, Dir::Bi).0, 1);
        assert_eq!(StreamId::new(0, true, Dir::Uni).0, 2);
        assert_eq!(StreamId::new(2, false, Dir::Uni).0, 11);
        assert_eq!((StreamId(11).dir(), StreamId(11).index()), (Dir::Uni, 2));
    }

    #[test]
    fn numbers_of_63_bits_are_refused() {
        assert_eq!(VarInt::from_u64(1 << 62), Err(VarIntBoundsExceeded));
        assert_eq!(VarInt::from_u64((1 << 62) - 1), Ok(VarInt::MAX));
    }
}
