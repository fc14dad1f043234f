//! The delivery of a connection's events to the application's handlers.
//!
//! Handlers are called between calls of the engine, never from within one. While a handler runs, the connection is the
//! thread's [`current`] one, so that the handler's calls on it take effect at once. A handler that panics ends its
//! connection with an error; the worker goes on.

mod buffers;
mod of_streams;
mod questions;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use ringway_datapath::lent::Lender;
use ringway_engine::connection::close::CloseReason;
use ringway_engine::connection::events::Event;
use ringway_engine::connection::receive::Delivery;
use ringway_engine::streams;
use ringway_engine::wire::error::{TransportError, TransportErrorCode};
use ringway_types::Instant;

use super::events::{ConnectionEvent, EventStatus, StreamEvent};
use super::handles::StreamShared;
use super::hosted_connection::{ApplicationStream, HostedConnection};
use super::received::{Keeper, KeptBytes, Received, ReceivedDatagram};
use super::ticket_store::ResumptionTicket;
use super::{current, holdup};

impl HostedConnection {
    /// Delivers all events of the engine, until none is left. Who notifies the connection in `Notified` is heard in the next turn.
    pub(crate) fn deliver_events(mut self: Box<Self>, now: Instant) -> Box<Self> {
        self.tell_send_room();
        let mut failed = false;
        let mut was_notified = false;
        loop {
            let Some(next) = self.guarded(now, HostedConnection::next_of_engine) else {
                if std::mem::replace(&mut failed, true) {
                    return self;
                }
                continue;
            };
            self = match next {
                Next::OfStream(event) => self.deliver_stream_event(now, event),
                Next::OfConnection => self.deliver_event(now),
                Next::Readable(key) => self.deliver_buffered(now, key),
                Next::Nothing => match self.deliver_other(now, &mut was_notified) {
                    (hosted, true) => hosted,
                    (hosted, false) => return hosted,
                },
            };
        }
    }

    /// Delivers what is not of the engine, if there is anything.
    fn deliver_other(mut self: Box<Self>, now: Instant, was_notified: &mut bool) -> (Box<Self>, bool) {
        let hosted = if let Some((index, context)) = self.canceled_sends.pop() {
            self.deliver_canceled_send(now, index, context)
        } else if self.notified && !*was_notified {
            (self.notified, *was_notified) = (false, true);
            self.shared().known.begin_notified();
            self.call_connection(now, ConnectionEvent::Notified).0
        } else if let Some(index) = self.next_ended_stream() {
            self.end_stream(now, index)
        } else {
            return (self, false);
        };
        (hosted, true)
    }

    /// The next that the engine has for the application.
    #[inline]
    fn next_of_engine(&mut self) -> Next {
        if self.engine.has_own_events() {
            return Next::OfConnection;
        }
        let streams = self.engine.streams_mut();
        if let Some(event) = streams.next_event() {
            return Next::OfStream(event);
        }
        streams.next_readable().map_or(Next::Nothing, Next::Readable)
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
                    self.ending.swap_remove_back(position);
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
                let received = Received {
                    offset,
                    slices: if data.is_empty() { &[] } else { &slices },
                    fin,
                    zero_rtt: early,
                    keeper: Keeper {
                        loan: Some(lender.loan(data)),
                        kept: &kept,
                    },
                };
                let (hosted, (consumed, after)) = self.call_receive(now, index, &received, data.len());
                self = hosted;
                self.counted.add_kept(&mut kept);
                self.guarded(now, |hosted| {
                    hosted
                        .engine
                        .on_stream_delivered(now, key, offset, data, fin, consumed, after);
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

    /// Delivers the next event of the connection itself. Streams have more of them: what both share stays small without these.
    #[inline(never)]
    fn deliver_event(mut self: Box<Self>, now: Instant) -> Box<Self> {
        let Some(event) = self.engine.next_event() else {
            return self;
        };
        let event = match event {
            Event::Connected(ref info) => {
                self.connecting = None;
                self.shared()
                    .known
                    .set_tickets(self.engine.tickets_left(), self.engine.ticket_data_max());
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

    pub(super) fn call_stream(
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
    OfStream(streams::StreamEvent),
    /// An event of the connection.
    OfConnection,
    /// A stream has data that had to be buffered.
    Readable(streams::StreamKey),
    Nothing,
}

/// Handlers within handlers.
const DEPTH_MAX: u8 = 16;
