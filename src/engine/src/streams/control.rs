//! Control frames of the connection and of streams.

use super::id::{Dir, StreamKey};
use crate::wire::frame;

/// A control frame to send: its type and its fields.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Control {
    /// Comes back when the packet is acknowledged or lost.
    pub token: ControlToken,
    /// Frame type.
    pub frame_type: u64,
    pub(super) values: [u64; 3],
    pub(super) count: u8,
}

impl Control {
    /// The frame's fields.
    pub(crate) fn values(&self) -> &[u64] {
        &self.values[..usize::from(self.count)]
    }

    /// Bytes that the frame takes.
    pub(super) fn len(&self) -> usize {
        frame::integers_len(self.frame_type, self.values())
    }
}

/// Names a control frame, not its content: what is repeated after a loss is what holds then.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct ControlToken {
    /// `None`: of the connection.
    pub(super) key: Option<StreamKey>,
    pub(super) kind: u8,
}

// Kinds of control frames of the connection.
pub(super) const MAX_DATA: u8 = 1;
pub(super) const DATA_BLOCKED: u8 = 2;
pub(super) const MAX_STREAMS_BIDI: u8 = 4;
pub(super) const MAX_STREAMS_UNI: u8 = 8;
pub(super) const STREAMS_BLOCKED_BIDI: u8 = 16;
pub(super) const STREAMS_BLOCKED_UNI: u8 = 32;
// Kinds of control frames of a stream.
pub(super) const MAX_STREAM_DATA: u8 = 1;
pub(super) const STREAM_DATA_BLOCKED: u8 = 2;
pub(super) const RESET_STREAM: u8 = 4;
pub(super) const STOP_SENDING: u8 = 8;

pub(super) fn max_streams(dir: Dir) -> u8 {
    if dir == Dir::Bi {
        MAX_STREAMS_BIDI
    } else {
        MAX_STREAMS_UNI
    }
}

pub(super) fn streams_blocked(dir: Dir) -> u8 {
    if dir == Dir::Bi {
        STREAMS_BLOCKED_BIDI
    } else {
        STREAMS_BLOCKED_UNI
    }
}
