//! Received data that goes into buffers of the application.

use bytes::BytesMut;
use ringway_types::Instant;

use super::super::events::{EventStatus, StreamEvent};
use super::super::hosted_connection::HostedConnection;
use super::super::received::{Received, ReceivedData};

impl HostedConnection {
    /// Delivers data into the stream's buffers, as much as they have room for.
    pub(super) fn deliver_into_buffers(
        mut self: Box<Self>,
        now: Instant,
        index: u32,
        received: &Received<'_>,
    ) -> (Box<Self>, EventStatus) {
        let len = ReceivedData(received).len();
        let mut consumed = 0;
        let mut was_asked = false;
        for slice in received.slices {
            let mut rest = *slice;
            // A handler may have had enough.
            while !rest.is_empty() && self.wants_data(index) {
                let Some(mut data) = self.receive_buffers(index).and_then(|buffers| buffers.fill(rest))
                else {
                    if was_asked {
                        if let Some(buffers) = self.receive_buffers(index) {
                            buffers.wait();
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
                let offset = received.offset + consumed as u64;
                consumed += data.len();
                let fin = received.fin && consumed == len;
                let data = &mut data;
                let event = StreamEvent::ReceiveBufferFilled { offset, data, fin };
                self = self.call_stream(now, index, event).0;
            }
        }
        if len == 0 {
            let event = StreamEvent::ReceiveBufferFilled {
                offset: received.offset,
                data: &mut BytesMut::new(),
                fin: received.fin,
            };
            self = self.call_stream(now, index, event).0;
        }
        (self, EventStatus::Done)
    }
}
