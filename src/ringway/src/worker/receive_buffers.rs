//! Buffers of the application that received data goes into.

use std::collections::VecDeque;

use bytes::BytesMut;
use ringway_types::Instant;

use super::events::{EventStatus, StreamEvent};
use super::hosted_connection::HostedConnection;
use super::received::ReceivedData;

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
    fn fill(&mut self, data: &[u8]) -> Option<BytesMut> {
        let buffer = self.empty.front_mut()?;
        let len = data.len().min(buffer.capacity());
        // Within its room: it does not move.
        buffer.extend_from_slice(&data[..len]);
        if buffer.len() < buffer.capacity() {
            return Some(buffer.split());
        }
        self.empty.pop_front()
    }
}

impl HostedConnection {
    /// Delivers data into the stream's buffers, as much as they have room for.
    pub(super) fn deliver_into_buffers(
        mut self: Box<Self>,
        now: Instant,
        index: u32,
        receive: ReceivedData<'_>,
    ) -> (Box<Self>, EventStatus) {
        let len = receive.len();
        let mut consumed = 0;
        let mut was_asked = false;
        for slice in receive.slices() {
            let mut rest = *slice;
            // A handler may have had enough.
            while !rest.is_empty() && self.wants_data(index) {
                let Some(data) = self.receive_buffers(index).and_then(|buffers| buffers.fill(rest)) else {
                    if was_asked {
                        if let Some(buffers) = self.receive_buffers(index) {
                            buffers.is_short = true;
                        }
                        return (self, EventStatus::Consumed(consumed));
                    }
                    was_asked = true;
                    let event = StreamEvent::ReceiveBufferNeeded(len - consumed);
                    self = self.call_stream(now, index, event).0;
                    continue;
                };
                was_asked = false;
                rest = &rest[data.len()..];
                let offset = receive.offset() + consumed as u64;
                consumed += data.len();
                let fin = receive.fin() && consumed == len;
                let event = StreamEvent::ReceiveBufferFilled { offset, data, fin };
                self = self.call_stream(now, index, event).0;
            }
        }
        if len == 0 {
            let event = StreamEvent::ReceiveBufferFilled {
                offset: receive.offset(),
                data: BytesMut::new(),
                fin: receive.fin(),
            };
            self = self.call_stream(now, index, event).0;
        }
        (self, EventStatus::Done)
    }
}
