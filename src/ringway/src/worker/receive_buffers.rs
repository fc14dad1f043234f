//! Buffers of the application that received data goes into.

use std::collections::VecDeque;

use bytes::BytesMut;

/// The buffers of one stream.
#[derive(Default)]
pub(super) struct ReceiveBuffers {
    empty: VecDeque<BytesMut>,
    /// Data waits for one.
    is_short: bool,
}

impl ReceiveBuffers {
    /// Adds buffers, of which all that they have room for is used. True if data has waited for them.
    pub(super) fn add(&mut self, buffers: Vec<BytesMut>) -> bool {
        let has_room = |buffer: &BytesMut| buffer.capacity() > 0;
        self.empty
            .extend(buffers.into_iter().filter(has_room).map(|mut buffer| {
                buffer.clear();
                buffer
            }));
        !self.empty.is_empty() && std::mem::take(&mut self.is_short)
    }

    /// Copies the beginning of `data` into the next buffer, and gives the part of it that is filled with that. `None`: there is no buffer.
    pub(super) fn fill(&mut self, data: &[u8]) -> Option<BytesMut> {
        let buffer = self.empty.front_mut()?;
        let len = data.len().min(buffer.capacity());
        // Within its room: it does not move.
        buffer.extend_from_slice(&data[..len]);
        if buffer.len() < buffer.capacity() {
            return Some(buffer.split());
        }
        self.empty.pop_front()
    }

    /// Data waits for buffers.
    pub(super) fn wait(&mut self) {
        self.is_short = true;
    }
}
