//! A connection as its worker hosts it: the engine and the application's handlers, and the delivery of events from
//! the one to the others.
//!
//! Handlers are called between calls of the engine, never from within it. While one runs, the connection is lent to
//! [`current`], so that calls which the handler makes on it act at once. A handler that panics ends its connection
//! with an error; the worker goes on.

use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use ringway_engine::connection::close::CloseReason;
use ringway_engine::connection::events::Event;
use ringway_engine::connection::receive::Delivery;
use ringway_engine::connection::{self as engine};
use ringway_engine::streams::{self, Streams};
use ringway_types::Instant;
use slab::Slab;

use super::current;
use super::events::{
    ConnectionEvent, ConnectionHandler, EventStatus, ReceivedData, StartError, StreamEvent, StreamHandler,
};
use super::movement::Landing;
use super::shared::{Connection, ConnectionShared, IncomingStream, Stream, StreamShared};
use super::token_store::TokenStore;

/// One connection on its worker.
pub struct Hosted {
    /// The protocol engine.
    pub engine: engine::Connection,
    handle: Connection,
    /// With the handle that it is lent. `None` until the application has accepted the connection, and while the handler runs.
    handler: Option<(Connection, Box<dyn ConnectionHandler>)>,
    streams: Slab<HostedStream>,
    /// Of streams of the peer that have gone, for those to come: requests follow each other, and each would take memory and a handle of the
    /// connection.
    spare_shared: Vec<Arc<StreamShared>>,
    /// Streams whose last event waits for calls of other threads that got in before the end.
    ending: Vec<u32>,
    /// Sends that other threads made and the engine no longer took: their completions.
    refused_sends: Vec<(u32, u64)>,
    /// Where tokens of the server are kept; `None` on a server.
    tokens: Option<Arc<TokenStore>>,
    /// The end of the connection has been announced to the streams.
    closing: bool,
    /// Its port is that of a listener on all partitions: it can live on any of them.
    pub(super) has_port_everywhere: bool,
    /// Where its packets land.
    pub(super) landing: Landing,
    /// Partitions that hand its datagrams on.
    pub(super) moved_from: Vec<usize>,
    /// [`super::Worker`]'s number of shutdowns when it left.
    pub(super) shutdowns: u64,
}

struct HostedStream {
    key: streams::StreamKey,
    /// `None` while the handler runs: it is lent the handle.
    application: Option<StreamApplication>,
}

/// A stream as the application knows it.
struct StreamApplication {
    stream: Stream,
    /// `None` until the application has accepted the stream.
    handler: Option<Box<dyn StreamHandler>>,
}

impl HostedStream {
    /// What the handles of the stream share; `None` while its handler runs.
    fn shared(&self) -> Option<&Arc<StreamShared>> {
        self.application.as_ref().map(|application| &application.stream.0)
    }
}

impl Hosted {
    /// A connection with its engine and handle; `handler` may come later by [`Hosted::set_handler`].
    pub fn new(
        engine: engine::Connection,
        handle: Connection,
        handler: Option<Box<dyn ConnectionHandler>>,
    ) -> Box<Self> {
        Box::new(Hosted {
            engine,
            handler: handler.map(|handler| (handle.clone(), handler)),
            handle,
            streams: Slab::new(),
            spare_shared: Vec::new(),
            ending: Vec::new(),
            refused_sends: Vec::new(),
            tokens: None,
            closing: false,
            has_port_everywhere: false,
            landing: Landing::default(),
            moved_from: Vec::new(),
            shutdowns: 0,
        })
    }

    /// What the handles of the connection share.
    pub fn shared(&self) -> &Arc<ConnectionShared> {
        &self.handle.0
    }

    /// A handle of the connection.
    pub fn handle(&self) -> &Connection {
        &self.handle
    }

    /// Sets the application's handler (of an accepted connection).
    pub fn set_handler(&mut self, handler: Box<dyn ConnectionHandler>) {
        self.handler = Some((self.handle.clone(), handler));
    }

    /// Keeps tokens of the server in `tokens`.
    pub fn set_token_store(&mut self, tokens: Arc<TokenStore>) {
        self.tokens = Some(tokens);
    }

    /// Takes a stream of ours, not yet started, into the connection. Its handler hears `StartComplete` and
    /// `ShutdownComplete` even if the connection is already ending.
    pub fn add_stream(&mut self, stream: Stream, dir: streams::Dir, handler: Box<dyn StreamHandler>) {
        let key = self.engine.streams_mut().create(dir);
        self.insert_stream(stream, key, Some(handler));
    }

    fn insert_stream(
        &mut self,
        stream: Stream,
        key: streams::StreamKey,
        handler: Option<Box<dyn StreamHandler>>,
    ) -> u32 {
        let entry = self.streams.vacant_entry();
        let place = entry.key() as u32;
        stream.0.set_place(Some(place));
        entry.insert(HostedStream {
            key,
            application: Some(StreamApplication { stream, handler }),
        });
        self.engine.streams_mut().set_user_data(key, u64::from(place));
        place
    }

    /// What the handles of a stream share; `None` while its handler runs.
    fn stream_shared(&self, place: u32) -> Option<&Arc<StreamShared>> {
        self.streams.get(place as usize)?.shared()
    }

    /// The engine's streams and the key of this one; `None` once the stream has gone.
    pub fn stream(&mut self, stream: &StreamShared) -> Option<(&mut Streams, streams::StreamKey)> {
        let key = self.streams.get(stream.place()? as usize)?.key;
        Some((self.engine.streams_mut(), key))
    }

    /// Notes that a send which another thread was promised could not be made.
    pub fn refuse_send(&mut self, stream: &StreamShared, context: u64) {
        if let Some(place) = stream.place() {
            self.refused_sends.push((place, context));
        }
    }

    /// Delivers everything the engine has to tell, until nothing is left.
    pub fn deliver_events(mut self: Box<Self>, now: Instant) -> Box<Self> {
        loop {
            if let Some(event) = self.engine.next_event() {
                self = self.deliver_event(now, event);
            } else if let Some(event) = self.engine.streams_mut().next_event() {
                self = self.deliver_stream_event(now, event);
            } else if let Some(key) = self.engine.streams_mut().next_readable() {
                self = self.deliver_buffered(now, key);
            } else if let Some((place, context)) = self.refused_sends.pop() {
                self = self
                    .call_stream(
                        now,
                        place,
                        StreamEvent::SendComplete {
                            context,
                            canceled: true,
                        },
                    )
                    .0;
            } else if let Some(place) = self.next_ended_stream() {
                self = self.end_stream(now, place);
            } else {
                return self;
            }
        }
    }

    /// True if [`Hosted::deliver_events`] has something to do.
    pub fn has_events(&self) -> bool {
        self.engine.has_events() || !self.refused_sends.is_empty() || !self.ending.is_empty()
    }

    /// Delivers what a received packet brought, out of the packet's own memory.
    pub fn deliver(mut self: Box<Self>, now: Instant, delivery: Delivery<'_>) -> Box<Self> {
        match delivery {
            Delivery::Stream {
                key,
                offset,
                data,
                fin,
            } => {
                // What happened before (say, that the peer opened this stream) is told first.
                if self.engine.has_events() {
                    self = self.deliver_events(now);
                }
                let place = self.engine.streams_mut().user_data(key) as u32;
                let slices = [data];
                let receive = ReceivedData {
                    offset,
                    slices: if data.is_empty() { &[] } else { &slices },
                    fin,
                };
                let (hosted, answer) = self.call_stream(now, place, StreamEvent::Receive(receive));
                self = hosted;
                let (consumed, pause) = consumption(answer, data.len());
                self.engine
                    .on_stream_delivered(now, key, offset, data, fin, consumed, pause);
                self
            }
            Delivery::Datagram(data) => {
                if self.engine.has_events() {
                    self = self.deliver_events(now);
                }
                self.call_connection(now, ConnectionEvent::DatagramReceived(data))
                    .0
            }
        }
    }

    /// Tells the application that the connection is on this thread from now on.
    pub(super) fn deliver_partition(self: Box<Self>, now: Instant, partition: usize) -> Box<Self> {
        self.call_connection(now, ConnectionEvent::IdealProcessorChanged { partition })
            .0
    }

    /// Delivers the last event of the connection. Nothing is left to deliver before it, and no call can come any more.
    pub fn deliver_end(self: Box<Self>, now: Instant) {
        let stats = self.engine.stats(now);
        let event = ConnectionEvent::ShutdownComplete {
            handshake_completed: self.engine.is_established(),
            peer_acknowledged: self.engine.peer_acknowledged_close(),
            stats: &stats,
        };
        drop(self.call_connection(now, event));
    }

    fn deliver_event(mut self: Box<Self>, now: Instant, event: Event) -> Box<Self> {
        let event = match event {
            Event::Connected {
                ref alpn,
                ref peer_certificates,
            } => ConnectionEvent::Connected {
                alpn,
                peer_certificates,
            },
            Event::Closing(reason) => {
                self.closing = true;
                match reason {
                    // The application asked for it: nothing to tell but the end.
                    CloseReason::LocalApplication { .. } => return self,
                    CloseReason::PeerApplication { code, .. } => ConnectionEvent::ShutdownByPeer { code },
                    reason => ConnectionEvent::ShutdownByTransport { reason },
                }
            }
            Event::LocalAddressChanged(address) => ConnectionEvent::LocalAddressChanged(address),
            Event::PeerAddressChanged(address) => ConnectionEvent::PeerAddressChanged(address),
            Event::DatagramStateChanged {
                send_enabled,
                max_send_len,
            } => ConnectionEvent::DatagramStateChanged {
                send_enabled,
                max_send_len,
            },
            Event::NewToken(token) => {
                if let Some(tokens) = &self.tokens {
                    tokens.put(self.engine.path().remote, token);
                }
                return self;
            }
            Event::DeferredDatagram(ref data) => ConnectionEvent::DatagramReceived(data),
            Event::DatagramSendStateChanged { context, state } => {
                ConnectionEvent::DatagramSendStateChanged { context, state }
            }
        };
        self.call_connection(now, event).0
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
                let place = self.engine.streams_mut().user_data(key) as u32;
                if let Some(stream) = self.stream_shared(place) {
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
            } => (key, StreamEvent::SendComplete { context, canceled }),
            streams::StreamEvent::PeerSendShutdown { key } => (key, StreamEvent::PeerSendShutdown),
            streams::StreamEvent::PeerSendAborted { key, code } => {
                (key, StreamEvent::PeerSendAborted { code })
            }
            streams::StreamEvent::PeerReceiveAborted { key, code } => {
                (key, StreamEvent::PeerReceiveAborted { code })
            }
            streams::StreamEvent::SendShutdownComplete { key, graceful } => {
                (key, StreamEvent::SendShutdownComplete { graceful })
            }
            streams::StreamEvent::ShutdownComplete { key } => {
                let place = self.engine.streams_mut().user_data(key) as u32;
                self.ending.push(place);
                if let Some(stream) = self.stream_shared(place) {
                    stream.close();
                }
                return self;
            }
        };
        let place = self.engine.streams_mut().user_data(key) as u32;
        self.call_stream(now, place, event).0
    }

    /// Offers a stream that the peer has opened to the connection's handler.
    fn offer_stream(
        mut self: Box<Self>,
        now: Instant,
        key: streams::StreamKey,
        id: streams::StreamId,
    ) -> Box<Self> {
        let shared = self
            .spare_shared
            .pop()
            .unwrap_or_else(|| StreamShared::new(self.handle.clone()));
        shared.set_id(id.value());
        let place = self.insert_stream(Stream(shared), key, None);
        let Some(mut application) = self.take_application(place) else {
            return self;
        };
        let StreamApplication { stream, handler } = &mut application;
        let incoming = IncomingStream {
            stream,
            bidirectional: id.dir() == streams::Dir::Bi,
            handler,
        };
        let (mut hosted, answer) = self.call_connection(now, ConnectionEvent::PeerStreamStarted(incoming));
        if application.handler.is_none() {
            let code = if let EventStatus::Refuse(code) = answer {
                code
            } else {
                0
            };
            let clock = hosted.engine.flow_clock(now);
            hosted.engine.streams_mut().abort(clock, key, code);
        }
        hosted.give_back_application(place, application);
        hosted
    }

    /// Delivers data that had to be buffered.
    fn deliver_buffered(mut self: Box<Self>, now: Instant, key: streams::StreamKey) -> Box<Self> {
        let Some(ready) = self.engine.streams_mut().take_ready(key) else {
            return self;
        };
        let place = self.engine.streams_mut().user_data(key) as u32;
        let slices = ready.slices();
        let receive = ReceivedData {
            offset: ready.offset(),
            slices: &slices,
            fin: ready.fin(),
        };
        let len = receive.len();
        let (mut hosted, answer) = self.call_stream(now, place, StreamEvent::Receive(receive));
        drop(slices);
        let (consumed, pause) = consumption(answer, len);
        hosted.engine.on_ready_delivered(now, key, ready, consumed, pause);
        hosted
    }

    /// A stream that has ended and has no more calls to wait for.
    fn next_ended_stream(&mut self) -> Option<u32> {
        let quiet = |place: &u32| {
            self.stream_shared(*place)
                .is_none_or(|stream| stream.gate().is_quiet())
        };
        let index = self.ending.iter().position(quiet)?;
        Some(self.ending.swap_remove(index))
    }

    fn end_stream(self: Box<Self>, now: Instant, place: u32) -> Box<Self> {
        let connection_shutdown = self.closing;
        let (mut hosted, _) =
            self.call_stream(now, place, StreamEvent::ShutdownComplete { connection_shutdown });
        if let Some(HostedStream { key, application }) = hosted.streams.try_remove(place as usize) {
            hosted.engine.streams_mut().release(key);
            if let Some(StreamApplication {
                stream: Stream(shared),
                ..
            }) = application
            {
                shared.set_place(None);
                // Handles of our own streams are made by whoever opens them.
                let is_peer_initiated = shared.id().is_some_and(|id| hosted.engine.is_peer_initiated(id));
                if is_peer_initiated && hosted.spare_shared.len() < SPARE_SHARED_MAX && shared.renew() {
                    hosted.spare_shared.push(shared);
                }
            }
        }
        hosted
    }

    fn call_connection(
        mut self: Box<Self>,
        now: Instant,
        event: ConnectionEvent<'_>,
    ) -> (Box<Self>, EventStatus) {
        let Some(mut lent) = self.handler.take() else {
            return (self, EventStatus::Done);
        };
        let (handle, handler) = &mut lent;
        let (mut hosted, answer) = self.call(now, || handler.on_event(handle, event));
        hosted.handler = Some(lent);
        (hosted, answer)
    }

    fn call_stream(
        mut self: Box<Self>,
        now: Instant,
        place: u32,
        event: StreamEvent<'_>,
    ) -> (Box<Self>, EventStatus) {
        let Some(mut application) = self.take_application(place) else {
            return (self, EventStatus::Done);
        };
        let StreamApplication { stream, handler } = &mut application;
        // Captured by reference: by value it would be copied from closure to closure.
        let mut event = Some(event);
        let (mut hosted, answer) = self.call(now, || match (handler, event.take()) {
            (Some(handler), Some(event)) => handler.on_event(stream, event),
            _ => EventStatus::Done,
        });
        hosted.give_back_application(place, application);
        (hosted, answer)
    }

    /// Calls a handler, with this as the current connection. If it panics, the connection ends.
    fn call(
        self: Box<Self>,
        now: Instant,
        handler: impl FnOnce() -> EventStatus,
    ) -> (Box<Self>, EventStatus) {
        let mut answer = EventStatus::Done;
        // Not the result of the closure: that would go through memory in pieces of other sizes than it is read in, which stalls.
        let call = AssertUnwindSafe(|| answer = handler());
        let (mut hosted, result) = current::lend(self, now, || catch_unwind(call));
        if let Err(payload) = result {
            tracing::error!(connection = ?hosted.handle, "an event handler panicked; its connection is closed");
            // Dropping the payload may panic again.
            mem::forget(payload);
            hosted.engine.close_for_panic(now);
        }
        (hosted, answer)
    }

    /// Takes handle and handler of a stream out of the table, to lend them to the handler.
    fn take_application(&mut self, place: u32) -> Option<StreamApplication> {
        self.streams.get_mut(place as usize)?.application.take()
    }

    fn give_back_application(&mut self, place: u32, application: StreamApplication) {
        if let Some(entry) = self.streams.get_mut(place as usize) {
            entry.application = Some(application);
        }
    }
}

/// Of so many streams that have gone, something is kept.
const SPARE_SHARED_MAX: usize = 128;

/// How many of `len` bytes an answer to `Receive` consumes, and what happens to receiving afterwards.
fn consumption(answer: EventStatus, len: usize) -> (usize, streams::AfterReceive) {
    match answer {
        EventStatus::Done | EventStatus::Refuse(_) => (len, streams::AfterReceive::Continue),
        EventStatus::Continue(n) => (n.min(len), streams::AfterReceive::Continue),
        EventStatus::Consumed(n) if n >= len => (len, streams::AfterReceive::Continue),
        EventStatus::Consumed(n) => (n, streams::AfterReceive::Pause),
        EventStatus::Pending => (0, streams::AfterReceive::Pending),
    }
}
