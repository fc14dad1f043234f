//! What a stream has to send.

use msquic::{SendFlags, Status, Stream};
use ringway_peers::{IO_SIZE, POSTED, Pattern};

use crate::sys;

/// Bytes from the pattern up to an end, of which MsQuic holds a bounded part at a time. It would have more (IdealSendBufferSize), but is not
/// faster with it.
pub struct Outgoing {
    end: u64,
    offset: u64,
    posted: u64,
}

impl Outgoing {
    pub fn new(end: u64) -> Self {
        Outgoing {
            end,
            offset: 0,
            posted: 0,
        }
    }

    pub fn set_end(&mut self, end: u64) {
        self.end = end;
    }

    /// `bytes` were acknowledged, or given up.
    pub fn on_sent(&mut self, bytes: u64) {
        self.posted -= bytes;
    }

    /// Gives MsQuic as much as it may hold; with the last byte the stream ends.
    pub fn send(&mut self, stream: &Stream, pattern: &Pattern) -> Result<(), Status> {
        while self.offset < self.end && self.posted < POSTED {
            let piece = pattern.piece(self.offset, (self.end - self.offset).min(IO_SIZE as u64));
            let len = piece.len() as u64;
            let flags = match self.offset + len == self.end {
                true => SendFlags::FIN,
                false => SendFlags::NONE,
            };
            sys::send(stream, piece, flags)?;
            self.offset += len;
            self.posted += len;
        }
        Ok(())
    }
}
