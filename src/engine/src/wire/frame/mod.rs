//! Frames (RFC 9000 section 19, RFC 9221 section 4, draft-ietf-quic-ack-frequency sections 4 and 5).

mod ack;
mod decode;
mod encode;
mod frames;
#[cfg(test)]
mod tests;
pub mod ty;

pub use self::ack::{AckFrame, EcnCounts};
pub use self::decode::FrameReader;
pub use self::encode::*;
pub use self::frames::{AckFrequency, Frame, NewConnectionId, PacketType, STREAMS_MAX, StreamFrame};
