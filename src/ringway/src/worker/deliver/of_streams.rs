//! Events of streams, and what their handlers answer to received data.

use ringway_engine::streams::{self, AfterReceive};
use ringway_engine::wire::error::ERROR_CODE_MAX;
use ringway_types::Instant;

use super::super::events::{ConnectionEvent, EventStatus, IncomingStream, StartError, StreamEvent};
use super::super::hosted_connection::{ApplicationStream, HostedConnection, Reading};
use super::super::known::StreamKnown;
use super::super::received::{Keeper, KeptBytes, Received, ReceivedData};

impl HostedConnection {
    pub(super) fn deliver_stream_event(
        mut self: Box<Self>,
        now: Instant,
        event: streams::StreamEvent,
    ) -> Box<Self> {
        let (key, event) = match event {
            streams::StreamEvent::PeerOpened { key, id } => return self.offer_stream(now, key, id),
            streams::StreamEvent::StreamsAvailable { bidi, uni } => {
                return self
                    .call_connection(now, ConnectionEvent::StreamsAvailable { bidi, uni })
                    .0;
            }
            streams::StreamEvent::PeerNeedsStreams { dir } => {
                let bidi = dir == streams::Dir::Bi;
                return self
                    .call_connection(now, ConnectionEvent::PeerNeedsStreams { bidi })
                    .0;
            }
            streams::StreamEvent::Started { key, id } => {
                let index = self.engine.streams_mut().user_data(key) as u32;
                if let Some(stream) = self.stream_shared(index) {
                    stream.set_id(id.value());
                }
                (key, StreamEvent::StartComplete(Ok(id.value())))
            }
            streams::StreamEvent::StartFailed { key, blocked } => {
                let error = if blocked {
                    StartError::LimitReached
                } else {
                    StartError::Closed
                };
                (key, StreamEvent::StartComplete(Err(error)))
            }
            streams::StreamEvent::SendComplete {
                key,
                context,
                canceled,
            } => {
                // Its handler may send again, on any stream: a call of a handler has perhaps canceled more since.
                self.tell_send_room();
                (key, StreamEvent::SendComplete { context, canceled })
            }
            streams::StreamEvent::PeerSendShutdown { key } => (key, StreamEvent::PeerSendShutdown),
            streams::StreamEvent::PeerSendAborted { key, code } => {
                self.note(key, StreamKnown::withdraw);
                (key, StreamEvent::PeerSendAborted { code })
            }
            streams::StreamEvent::PeerReceiveAborted { key, code } => {
                self.note(key, StreamKnown::end_send);
                (key, StreamEvent::PeerReceiveAborted { code })
            }
            streams::StreamEvent::SendShutdownComplete { key, graceful } => {
                self.note(key, StreamKnown::end_send);
                (key, StreamEvent::SendShutdownComplete { graceful })
            }
            streams::StreamEvent::PeerAccepted { key } => (key, StreamEvent::PeerAccepted),
            streams::StreamEvent::CancelOnLoss { key } => return self.deliver_cancel_on_loss(now, key),
            streams::StreamEvent::IdealSendBufferSize { key, bytes } => {
                self.shared().known.set_ideal_send(bytes);
                (key, StreamEvent::IdealSendBufferSize(bytes))
            }
            streams::StreamEvent::ShutdownComplete { key } => {
                let index = self.engine.streams_mut().user_data(key) as u32;
                self.ending.push_back(index);
                if let Some(stream) = self.stream_shared(index) {
                    stream.close();
                }
                return self;
            }
        };
        let index = self.engine.streams_mut().user_data(key) as u32;
        self.call_stream(now, index, event).0
    }

    /// Tells a stream that data of it was lost, which makes it useless, and cancels it.
    pub(super) fn deliver_cancel_on_loss(
        mut self: Box<Self>,
        now: Instant,
        key: streams::StreamKey,
    ) -> Box<Self> {
        let index = self.engine.streams_mut().user_data(key) as u32;
        let (mut hosted, status) = self.call_stream(now, index, StreamEvent::CancelOnLoss);
        let code = match status {
            EventStatus::Refuse(code) => refusal_code(code),
            _ => 0,
        };
        let clock = hosted.engine.flow_clock(now);
        hosted.guarded(now, |hosted| hosted.engine.streams_mut().abort(clock, key, code));
        hosted
    }

    /// Offers a stream that the peer has opened to the connection's handler.
    pub(super) fn offer_stream(
        mut self: Box<Self>,
        now: Instant,
        key: streams::StreamKey,
        id: streams::StreamId,
    ) -> Box<Self> {
        let index = self.add_peer_stream(key, id);
        let Some(mut application) = self.take_application_stream(index) else {
            return self;
        };
        let zero_rtt = self.engine.streams_mut().has_early_data(key);
        let ApplicationStream { stream, handler } = &mut application;
        let incoming = IncomingStream {
            stream,
            bidirectional: id.dir() == streams::Dir::Bi,
            zero_rtt,
            handler,
        };
        let (mut hosted, status) = self.call_connection(now, ConnectionEvent::PeerStreamStarted(incoming));
        if application.handler.is_none() {
            let code = match status {
                EventStatus::Refuse(code) => refusal_code(code),
                _ => 0,
            };
            hosted.guarded(now, |hosted| {
                let clock = hosted.engine.flow_clock(now);
                hosted.engine.streams_mut().abort(clock, key, code);
            });
        }
        hosted.put_back_application_stream(index, application);
        hosted
    }

    /// Delivers data that had to be buffered.
    pub(super) fn deliver_buffered(mut self: Box<Self>, now: Instant, key: streams::StreamKey) -> Box<Self> {
        let ready = self.guarded(now, |hosted| hosted.engine.streams_mut().take_ready(key));
        let Some(ready) = ready.flatten() else {
            return self;
        };
        let index = self.engine.streams_mut().user_data(key) as u32;
        let zero_rtt = self.engine.streams_mut().is_early(key, ready.offset());
        let slices = ready.slices();
        let mut kept = KeptBytes::default();
        let received = Received {
            offset: ready.offset(),
            slices: &slices,
            fin: ready.fin(),
            zero_rtt,
            keeper: Keeper {
                loan: None,
                kept: &kept,
            },
        };
        let len = ready.len();
        let (mut hosted, (consumed, after)) = self.call_receive(now, index, &received, len);
        hosted.counted.add_kept(&mut kept);
        drop(slices);
        hosted.guarded(now, |hosted| {
            hosted.engine.on_ready_delivered(now, key, ready, consumed, after);
        });
        hosted
    }

    /// Gives a handler data. As long as it has it, and after it has returned `Pending`, the data can be completed. Returns how many bytes are
    /// consumed, and whether receiving goes on.
    #[inline]
    pub(super) fn call_receive(
        self: Box<Self>,
        now: Instant,
        index: u32,
        received: &Received<'_>,
        len: usize,
    ) -> (Box<Self>, (usize, AfterReceive)) {
        let reading = self.reading(index);
        let takes_many = match reading {
            Reading::InOrder => false,
            Reading::Many | Reading::Unordered => true,
            Reading::IntoBuffers => {
                let (hosted, status) = self.deliver_into_buffers(now, index, received);
                return (hosted, consumption(Reading::InOrder, status, len));
            }
        };
        if let Some(stream) = self.stream_shared(index) {
            match takes_many {
                true => stream.known.offer_more(len),
                false => stream.known.offer(len),
            }
        }
        let (hosted, status) = self.call_stream(now, index, StreamEvent::Receive(ReceivedData(received)));
        if status != EventStatus::Pending
            && let Some(stream) = hosted.stream_shared(index)
        {
            match takes_many {
                true => stream.known.withdraw_some(len),
                false => stream.known.withdraw(),
            }
        }
        (hosted, consumption(reading, status, len))
    }

    /// Lets calls of other threads know.
    pub(super) fn note(&mut self, key: streams::StreamKey, what: impl FnOnce(&StreamKnown)) {
        let index = self.engine.streams_mut().user_data(key) as u32;
        if let Some(stream) = self.stream_shared(index) {
            what(&stream.known);
        }
    }

    /// Tells a stream of a send that failed after its caller had been told `Ok`.
    pub(super) fn deliver_canceled_send(
        self: Box<Self>,
        now: Instant,
        index: u32,
        context: u64,
    ) -> Box<Self> {
        let event = StreamEvent::SendComplete {
            context,
            canceled: true,
        };
        self.call_stream(now, index, event).0
    }

    pub(super) fn end_stream(self: Box<Self>, now: Instant, index: u32) -> Box<Self> {
        let closing = self.closing.clone();
        let event = StreamEvent::ShutdownComplete {
            connection_shutdown: closing.is_some(),
            reason: closing.as_deref(),
        };
        let (mut hosted, _) = self.call_stream(now, index, event);
        hosted.remove_stream(index);
        hosted
    }
}

/// How many of `len` bytes a handler of `Receive` has consumed, and whether receiving goes on.
#[inline]
fn consumption(reading: Reading, status: EventStatus, len: usize) -> (usize, AfterReceive) {
    match status {
        EventStatus::Pending if reading != Reading::InOrder => (len, AfterReceive::Uncredited),
        EventStatus::Pending => (0, AfterReceive::Pending),
        EventStatus::Done | EventStatus::Refuse(_) => (len, AfterReceive::Continue),
        _ if reading == Reading::Unordered => (len, AfterReceive::Continue),
        EventStatus::Continue(n) => (n.min(len), AfterReceive::Continue),
        EventStatus::Consumed(n) if n >= len => (len, AfterReceive::Continue),
        EventStatus::Consumed(n) => (n, AfterReceive::Pause),
    }
}

/// The code with which a stream is refused: only one that can be sent.
fn refusal_code(code: u64) -> u64 {
    if code > ERROR_CODE_MAX {
        tracing::error!(
            code,
            "a stream is refused with a code of more than 62 bits: the largest one goes out"
        );
    }
    code.min(ERROR_CODE_MAX)
}
