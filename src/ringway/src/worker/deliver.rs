//! The delivery of a connection's events to the application's handlers.
//!
//! Handlers are called between calls of the engine, never from within one. While a handler runs, the connection is the
//! thread's [`current`] one, so that the handler's calls on it take effect at once. A handler that panics ends its
//! connection with an error; the worker goes on.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use ringway_datapath::lent::Lender;
use ringway_engine::connection::close::CloseReason;
use ringway_engine::connection::events::Event;
use ringway_engine::connection::receive::Delivery;
use ringway_engine::connection::resumption::ResumptionAnswer;
use ringway_engine::streams;
use ringway_engine::wire::error::{ERROR_CODE_MAX, TransportError, TransportErrorCode};
use ringway_types::Instant;
use rustls::pki_types::CertificateDer;

use super::events::{ConnectionEvent, EventStatus, IncomingStream, StartError, StreamEvent};
use super::handles::StreamShared;
use super::hosted_connection::{ApplicationStream, HostedConnection};
use super::known::{Question, StreamKnown};
use super::received::{Keeper, KeptBytes, ReceivedData, ReceivedDatagram};
use super::ticket_store::{ResumptionTicket, TicketScope};
use super::{current, holdup};

impl HostedConnection {
    /// Delivers all events of the engine, until none is left.
    pub(crate) fn deliver_events(mut self: Box<Self>, now: Instant) -> Box<Self> {
        self.tell_send_room();
        let mut failed = false;
        loop {
            let Some(next) = self.guarded(now, HostedConnection::next_of_engine) else {
                if std::mem::replace(&mut failed, true) {
                    return self;
                }
                continue;
            };
            if let Some(next) = next {
                self = match next {
                    Next::Event(event) => self.deliver_event(now, event),
                    Next::OfStream(event) => self.deliver_stream_event(now, event),
                    Next::Readable(key, ready) => self.deliver_buffered(now, key, ready),
                };
            } else if let Some((index, context)) = self.canceled_sends.pop() {
                self = self.deliver_canceled_send(now, index, context);
            } else if std::mem::take(&mut self.notified) {
                self.shared().known.begin_notified();
                self = self.call_connection(now, ConnectionEvent::Notified).0;
            } else if let Some(index) = self.next_ended_stream() {
                self = self.end_stream(now, index);
            } else {
                return self;
            }
        }
    }

    /// The next that the engine has for the application.
    #[inline]
    fn next_of_engine(&mut self) -> Option<Next> {
        if let Some(event) = self.engine.next_event() {
            return Some(Next::Event(event));
        }
        let streams = self.engine.streams_mut();
        if let Some(event) = streams.next_event() {
            return Some(Next::OfStream(event));
        }
        while let Some(key) = streams.next_readable() {
            if let Some(ready) = streams.take_ready(key) {
                return Some(Next::Readable(key, ready));
            }
        }
        None
    }

    /// Delivers what there is of one stream, within the handler of another. What is of the stream whose handler runs, or too deep in it, comes when
    /// that has returned.
    pub(crate) fn deliver_inline(mut self: Box<Self>, now: Instant, stream: &StreamShared) -> Box<Self> {
        while self.depth < DEPTH_MAX
            && let Some(index) = stream.slot_index().filter(|&index| self.is_at_rest(index))
            && let Some((streams, key)) = self.stream(stream)
        {
            let event = streams.next_event_of(key);
            self.depth += 1;
            let depth = self.depth;
            let mut is_over = false;
            if let Some(event) = event {
                self = self.deliver_stream_event(now, event);
            } else if let Some(context) = self.next_canceled_send_of(index) {
                // Before the stream ends: its index may then be that of another.
                self = self.deliver_canceled_send(now, index, context);
            } else {
                is_over = true;
                if let Some(position) = self.ending.iter().position(|&ending| ending == index)
                    && stream.gate().is_quiet()
                {
                    self.ending.swap_remove(position);
                    self = self.end_stream(now, index);
                }
            }
            debug_assert_eq!(self.depth, depth);
            self.depth -= 1;
            if is_over {
                break;
            }
        }
        self
    }

    /// Delivers the content of a received packet, straight from the packet's memory.
    pub(crate) fn deliver<'a>(
        mut self: Box<Self>,
        now: Instant,
        delivery: Delivery<'a>,
        lender: Lender<'a>,
    ) -> Box<Self> {
        let mut kept = KeptBytes::default();
        match delivery {
            Delivery::Stream {
                key,
                offset,
                data,
                fin,
                early,
            } => {
                // Earlier events (such as the opening of this very stream) come first.
                if self.engine.has_events() {
                    self = self.deliver_events(now);
                }
                let index = self.engine.streams_mut().user_data(key) as u32;
                let slices = [data];
                let receive = ReceivedData {
                    offset,
                    slices: if data.is_empty() { &[] } else { &slices },
                    fin,
                    zero_rtt: early,
                    keeper: Keeper {
                        loan: Some(lender.loan(data)),
                        kept: &kept,
                    },
                };
                let (hosted, status) = self.call_receive(now, index, receive, data.len());
                self = hosted;
                self.counted.add_kept(&mut kept);
                let (consumed, pause) = consumption(status, data.len());
                self.guarded(now, |hosted| {
                    hosted
                        .engine
                        .on_stream_delivered(now, key, offset, data, fin, consumed, pause);
                });
                self
            }
            Delivery::Datagram { data, early } => {
                if self.engine.has_events() {
                    self = self.deliver_events(now);
                }
                let datagram = ReceivedDatagram {
                    data,
                    zero_rtt: early,
                    keeper: Keeper {
                        loan: Some(lender.loan(data)),
                        kept: &kept,
                    },
                };
                let event = ConnectionEvent::DatagramReceived(datagram);
                let mut hosted = self.call_connection(now, event).0;
                hosted.counted.add_kept(&mut kept);
                hosted
            }
        }
    }

    /// Tells the application that the connection now runs on this thread.
    pub(super) fn deliver_ideal_processor_changed(
        self: Box<Self>,
        now: Instant,
        partition: usize,
    ) -> Box<Self> {
        self.call_connection(now, ConnectionEvent::IdealProcessorChanged { partition })
            .0
    }

    /// Delivers the connection's last event, and drops its handler. Nothing else may be left to deliver, and no call may
    /// be on its way.
    pub(crate) fn deliver_end(self: Box<Self>, now: Instant) -> Box<Self> {
        let stats = self.stats(now);
        let reason = self.closing.clone().unwrap_or_else(|| {
            let error = TransportError::new(TransportErrorCode::INTERNAL_ERROR, "it ended without a reason");
            Arc::new(CloseReason::Transport(error))
        });
        let event = ConnectionEvent::ShutdownComplete {
            handshake_completed: self.engine.is_established(),
            closed_by_peer: self.engine.peer_acknowledged_close(),
            reason: &reason,
            stats: &stats,
        };
        let (mut hosted, _) = self.call_connection(now, event);
        holdup::drop_handler(hosted.handler.take());
        hosted.ended = true;
        hosted
    }

    fn deliver_event(mut self: Box<Self>, now: Instant, event: Event) -> Box<Self> {
        let event = match event {
            Event::Connected(ref info) => {
                self.connecting = None;
                self.shared().known.set_tickets(self.engine.tickets_left());
                self.shared()
                    .known
                    .set_datagram_max(self.engine.max_datagram_len());
                let path = self.engine.path();
                let mut facts = self.shared().facts.get();
                (facts.local, facts.remote) = (path.local, path.remote);
                facts.tls = Some(Arc::clone(info));
                drop(facts);
                ConnectionEvent::Connected {
                    alpn: info.alpn.as_deref().unwrap_or_default(),
                    peer_certificates: &info.peer_certificates,
                    resumed: info.resumed,
                    zero_rtt: self.engine.zero_rtt(),
                }
            }
            Event::Resuming(data) => return self.deliver_resumed(now, &data),
            Event::TicketReceived(ticket) => return self.deliver_ticket(now, ResumptionTicket(ticket)),
            Event::PeerCertificateReceived {
                chain,
                deferred_error,
            } => return self.deliver_peer_certificate(now, &chain, deferred_error.as_deref()),
            Event::Closing(reason) => {
                let reason = Arc::new(reason);
                self.closing = Some(Arc::clone(&reason));
                self.shared().facts.get().end = Some(Arc::clone(&reason));
                let event = match &*reason {
                    // The application asked for it, so there is only the last event to deliver.
                    CloseReason::LocalApplication { .. } => return self,
                    CloseReason::PeerApplication { code, reason } => ConnectionEvent::ShutdownByPeer {
                        code: *code,
                        reason_phrase: reason,
                    },
                    reason => ConnectionEvent::ShutdownByTransport {
                        reason: reason.clone(),
                    },
                };
                return self.call_connection(now, event).0;
            }
            Event::LocalAddressChanged(address) => {
                self.shared().facts.get().local = address;
                ConnectionEvent::LocalAddressChanged(address)
            }
            Event::PeerAddressChanged(address) => {
                self.shared().facts.get().remote = address;
                ConnectionEvent::PeerAddressChanged(address)
            }
            Event::DatagramStateChanged {
                send_enabled,
                max_send_len,
            } => {
                self.shared().known.set_datagram_max(max_send_len);
                ConnectionEvent::DatagramStateChanged {
                    send_enabled,
                    max_send_len,
                }
            }
            Event::NetworkStatistics => {
                let stats = self.engine.stats(now);
                return self
                    .call_connection(now, ConnectionEvent::NetworkStatistics(&stats))
                    .0;
            }
            Event::NewToken(token) => {
                // For another version than that in which it starts no connection can use it (RFC 9369 section 5).
                let version = self.engine.version();
                if let Some(tokens) = &self.tokens
                    && version == self.engine.original_version()
                {
                    tokens.put(self.engine.path().remote, version, token);
                }
                return self;
            }
            Event::DeferredDatagram { ref data, early } => {
                let mut kept = KeptBytes::default();
                let datagram = ReceivedDatagram {
                    data,
                    zero_rtt: early,
                    keeper: Keeper {
                        loan: None,
                        kept: &kept,
                    },
                };
                let event = ConnectionEvent::DatagramReceived(datagram);
                let mut hosted = self.call_connection(now, event).0;
                hosted.counted.add_kept(&mut kept);
                return hosted;
            }
            Event::DatagramSendStateChanged { context, state } => {
                ConnectionEvent::DatagramSendStateChanged { context, state }
            }
        };
        self.call_connection(now, event).0
    }

    /// Asks the application about a ticket of a client.
    fn deliver_resumed(self: Box<Self>, now: Instant, data: &[u8]) -> Box<Self> {
        self.shared().known.ask(Question::Ticket);
        let (mut hosted, status) = self.call_connection(now, ConnectionEvent::Resumed { data });
        let answer = match status {
            EventStatus::Pending => return hosted,
            EventStatus::Refuse(_) => ResumptionAnswer::Refuse,
            EventStatus::Done | EventStatus::Continue(_) | EventStatus::Consumed(_) => {
                ResumptionAnswer::Accept
            }
        };
        // The handler may have answered already.
        if hosted.shared().known.answer(Question::Ticket) {
            hosted.guarded(now, |hosted| hosted.engine.complete_resumption(now, answer));
        }
        hosted
    }

    /// Keeps a ticket of the server.
    fn deliver_ticket(self: Box<Self>, now: Instant, ticket: ResumptionTicket) -> Box<Self> {
        let event = ConnectionEvent::ResumptionTicketReceived(&ticket);
        let (hosted, _) = self.call_connection(now, event);
        if let Some(destination) = &hosted.tickets {
            let scope = TicketScope {
                version: ticket.0.version(),
                ..destination.scope.clone()
            };
            destination.put(&scope, ticket);
        }
        hosted
    }

    /// Asks the application about the peer's certificate.
    fn deliver_peer_certificate(
        self: Box<Self>,
        now: Instant,
        chain: &[CertificateDer<'static>],
        deferred_error: Option<&str>,
    ) -> Box<Self> {
        let event = ConnectionEvent::PeerCertificateReceived {
            chain,
            deferred_error,
        };
        self.shared().known.ask(Question::Certificate);
        let (mut hosted, status) = self.call_connection(now, event);
        let valid = match status {
            EventStatus::Pending => return hosted,
            EventStatus::Refuse(_) => false,
            EventStatus::Done | EventStatus::Continue(_) | EventStatus::Consumed(_) => {
                deferred_error.is_none()
            }
        };
        // The handler may have answered already.
        if hosted.shared().known.answer(Question::Certificate) {
            hosted.guarded(now, |hosted| hosted.engine.set_certificate_valid(now, valid));
        }
        hosted
    }

    fn deliver_stream_event(mut self: Box<Self>, now: Instant, event: streams::StreamEvent) -> Box<Self> {
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
                self.ending.push(index);
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
    fn deliver_cancel_on_loss(mut self: Box<Self>, now: Instant, key: streams::StreamKey) -> Box<Self> {
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
    fn offer_stream(
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
    fn deliver_buffered(
        mut self: Box<Self>,
        now: Instant,
        key: streams::StreamKey,
        ready: streams::ReadyData,
    ) -> Box<Self> {
        let index = self.engine.streams_mut().user_data(key) as u32;
        let zero_rtt = self.engine.streams_mut().is_early(key, ready.offset());
        let slices = ready.slices();
        let mut kept = KeptBytes::default();
        let receive = ReceivedData {
            offset: ready.offset(),
            slices: &slices,
            fin: ready.fin(),
            zero_rtt,
            keeper: Keeper {
                loan: None,
                kept: &kept,
            },
        };
        let len = receive.len();
        let (mut hosted, status) = self.call_receive(now, index, receive, len);
        hosted.counted.add_kept(&mut kept);
        drop(slices);
        let (consumed, pause) = consumption(status, len);
        hosted.guarded(now, |hosted| {
            hosted.engine.on_ready_delivered(now, key, ready, consumed, pause);
        });
        hosted
    }

    /// Gives a handler data. As long as it has it, and after it has returned `Pending`, the data can be completed.
    #[inline]
    fn call_receive(
        self: Box<Self>,
        now: Instant,
        index: u32,
        receive: ReceivedData<'_>,
        len: usize,
    ) -> (Box<Self>, EventStatus) {
        if let Some(stream) = self.stream_shared(index) {
            stream.known.offer(len);
        }
        let (hosted, status) = self.call_stream(now, index, StreamEvent::Receive(receive));
        if status != EventStatus::Pending
            && let Some(stream) = hosted.stream_shared(index)
        {
            stream.known.withdraw();
        }
        (hosted, status)
    }

    /// Lets calls of other threads know.
    fn note(&mut self, key: streams::StreamKey, what: impl FnOnce(&StreamKnown)) {
        let index = self.engine.streams_mut().user_data(key) as u32;
        if let Some(stream) = self.stream_shared(index) {
            what(&stream.known);
        }
    }

    /// Tells a stream of a send that failed after its caller had been told `Ok`.
    fn deliver_canceled_send(self: Box<Self>, now: Instant, index: u32, context: u64) -> Box<Self> {
        let event = StreamEvent::SendComplete {
            context,
            canceled: true,
        };
        self.call_stream(now, index, event).0
    }

    fn end_stream(self: Box<Self>, now: Instant, index: u32) -> Box<Self> {
        let closing = self.closing.clone();
        let event = StreamEvent::ShutdownComplete {
            connection_shutdown: closing.is_some(),
            reason: closing.as_deref(),
        };
        let (mut hosted, _) = self.call_stream(now, index, event);
        hosted.remove_stream(index);
        hosted
    }

    fn call_connection(
        mut self: Box<Self>,
        now: Instant,
        event: ConnectionEvent<'_>,
    ) -> (Box<Self>, EventStatus) {
        let Some(mut taken) = self.handler.take() else {
            return (self, EventStatus::Done);
        };
        let (handle, handler) = &mut taken;
        let (mut hosted, status) = self.call(now, || handler.on_event(handle, event));
        hosted.handler = Some(taken);
        (hosted, status)
    }

    fn call_stream(
        mut self: Box<Self>,
        now: Instant,
        index: u32,
        event: StreamEvent<'_>,
    ) -> (Box<Self>, EventStatus) {
        let Some(mut application) = self.take_application_stream(index) else {
            return (self, EventStatus::Done);
        };
        let ApplicationStream { stream, handler } = &mut application;
        // Captured by reference: by value it would be copied from closure to closure.
        let mut event = Some(event);
        let (mut hosted, status) = self.call(now, || match (handler, event.take()) {
            (Some(handler), Some(event)) => handler.on_event(stream, event),
            _ => EventStatus::Done,
        });
        hosted.put_back_application_stream(index, application);
        (hosted, status)
    }

    /// Calls a handler, with this as the current connection. If it panics, the connection ends.
    fn call(
        self: Box<Self>,
        now: Instant,
        handler: impl FnOnce() -> EventStatus,
    ) -> (Box<Self>, EventStatus) {
        let mut status = EventStatus::Done;
        // Not the closure's result: that would be written and read back in pieces of different sizes, which stalls.
        let call = AssertUnwindSafe(|| status = handler());
        let (mut hosted, result) = current::scope(self, now, || catch_unwind(call));
        if let Err(payload) = result {
            hosted.on_application_panic(now, payload);
        }
        (hosted, status)
    }
}

/// What the engine has for the application.
enum Next {
    Event(Event),
    OfStream(streams::StreamEvent),
    /// Data that had to be buffered.
    Readable(streams::StreamKey, streams::ReadyData),
}

/// Handlers within handlers.
const DEPTH_MAX: u8 = 16;

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

/// How many of `len` bytes a handler of `Receive` has consumed, and whether receiving goes on.
fn consumption(status: EventStatus, len: usize) -> (usize, streams::AfterReceive) {
    match status {
        EventStatus::Done | EventStatus::Refuse(_) => (len, streams::AfterReceive::Continue),
        EventStatus::Continue(n) => (n.min(len), streams::AfterReceive::Continue),
        EventStatus::Consumed(n) if n >= len => (len, streams::AfterReceive::Continue),
        EventStatus::Consumed(n) => (n, streams::AfterReceive::Pause),
        EventStatus::Pending => (0, streams::AfterReceive::Pending),
    }
}
