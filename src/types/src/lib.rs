//! Plain data that the protocol engine and the datapath share: time, ECN codepoints, local endpoints, and the length of a
//! connection ID. No I/O and no dependencies, so that neither of the two has to know the other.
#![forbid(unsafe_code)]

mod ecn;
mod instant;

pub use self::ecn::Ecn;
pub use self::instant::Instant;

/// A local UDP endpoint. The devices of a group, which share its address, have the same.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct PortId(pub u32);

/// Length of every connection ID that Ringway issues, in bytes.
pub const LOCAL_CID_LEN: usize = 8;
