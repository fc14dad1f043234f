//! The formats of RFC 8999, RFC 9000 and RFC 9369 as bytes: packets, frames, transport parameters, errors.
//! Nothing here holds state or keys.

pub mod alert;
pub mod cid;
#[doc(hidden)]
pub mod early_limits;
pub mod error;
#[doc(hidden)]
pub mod frame;
pub mod header;
pub(crate) mod packet_number;
pub mod stateless;
#[doc(hidden)]
pub mod transport_parameters;
#[doc(hidden)]
pub mod version_information;

/// Which end of a connection we are.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Side {
    /// We opened the connection.
    Client,
    /// We accepted it.
    Server,
}

impl Side {
    /// The other end.
    pub const fn peer(self) -> Side {
        match self {
            Side::Client => Side::Server,
            Side::Server => Side::Client,
        }
    }

    /// True for [`Side::Client`].
    pub const fn is_client(self) -> bool {
        matches!(self, Side::Client)
    }
}

/// Packet number space (RFC 9000 section 12.3). 0-RTT and 1-RTT share [`Space::Data`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum Space {
    /// Initial packets.
    Initial = 0,
    /// Handshake packets.
    Handshake = 1,
    /// 0-RTT and 1-RTT packets.
    Data = 2,
}

impl Space {
    /// All spaces in the order in which a connection goes through them.
    pub const ALL: [Space; 3] = [Space::Initial, Space::Handshake, Space::Data];
}

/// A QUIC version that this implementation speaks.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Version {
    /// RFC 9000.
    #[default]
    V1,
    /// RFC 9369.
    V2,
}

impl Version {
    /// The versions we speak, most preferred first.
    pub const SUPPORTED: [Version; 2] = [Version::V1, Version::V2];

    /// The number on the wire.
    pub const fn number(self) -> u32 {
        match self {
            Version::V1 => 0x0000_0001,
            Version::V2 => 0x6b33_43cf,
        }
    }

    /// A first flight of this version can be read as one of the other, so that a server may change the connection over without a round trip
    /// (RFC 9368 section 2.2). Only a specification makes two versions compatible: RFC 9369 section 4 does so for these.
    pub const fn is_compatible_with(self, other: Version) -> bool {
        match (self, other) {
            (Version::V1 | Version::V2, Version::V1 | Version::V2) => true,
        }
    }

    /// One of the versions that nobody will ever speak, so that peers learn to ignore what they do not know (RFC 9000 section 15).
    pub(crate) const fn reserved(random: u32) -> u32 {
        random & 0xf0f0_f0f0 | 0x0a0a_0a0a
    }

    /// The version with this number, if we speak it.
    pub const fn from_number(number: u32) -> Option<Version> {
        match number {
            0x0000_0001 => Some(Version::V1),
            0x6b33_43cf => Some(Version::V2),
            _ => None,
        }
    }
}
