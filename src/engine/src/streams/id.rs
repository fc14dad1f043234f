//! Stream IDs, and the keys of streams in the table.

use crate::wire::Side;

/// Direction of a stream.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum Dir {
    /// Both ends send.
    Bi = 0,
    /// Only the end that opened it sends.
    Uni = 1,
}

impl Dir {
    /// Both directions.
    pub const ALL: [Dir; 2] = [Dir::Bi, Dir::Uni];
}

/// A stream ID (RFC 9000 section 2.1): below 2^62.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct StreamId(u64);

impl StreamId {
    /// The stream with this number on the wire.
    pub const fn from_value(value: u64) -> Self {
        StreamId(value)
    }

    /// The `index`-th stream that `initiator` opens in direction `dir`.
    pub const fn new(initiator: Side, dir: Dir, index: u64) -> Self {
        let server = !initiator.is_client() as u64;
        StreamId(index << 2 | (dir as u64) << 1 | server)
    }

    /// The number on the wire.
    pub const fn value(self) -> u64 {
        self.0
    }

    /// Who opened it.
    pub const fn initiator(self) -> Side {
        if self.0 & 1 == 0 {
            Side::Client
        } else {
            Side::Server
        }
    }

    /// Its direction.
    pub const fn dir(self) -> Dir {
        if self.0 & 2 == 0 { Dir::Bi } else { Dir::Uni }
    }

    /// How many streams of its kind were opened before it.
    pub const fn index(self) -> u64 {
        self.0 >> 2
    }
}

/// The key of a stream in the table of its connection. It stays invalid after [`Streams::release`](super::Streams::release), even when
/// another stream has taken the slot.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct StreamKey {
    pub(super) slot: u32,
    pub(super) generation: u32,
}
