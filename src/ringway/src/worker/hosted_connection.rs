//! A connection as its worker hosts it: the engine, the application's handlers, and the table of streams between them.
//!
//! Circle with `events`, `handles`, `inbox`, `listener` and `port_lease`: because it owns the handlers and the handles that it passes
//! to them, and calls on those handles are closures over it.

use std::any::Any;
use std::collections::VecDeque;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use bytes::BytesMut;
use ringway_engine::connection as engine;
use ringway_engine::connection::close::CloseReason;
use ringway_engine::connection::config::Config;
use ringway_engine::connection::resumption::{ResumptionAnswer, TicketError};
use ringway_engine::connection::stats::{ConnectionStats, StreamStats};
use ringway_engine::crypto::tls::{ServerTls, TlsInfo};
use ringway_engine::datagrams::{DatagramData, DatagramOptions};
use ringway_engine::streams::{self, Streams};
use ringway_engine::wire::Version;
use ringway_engine::wire::cid::ConnectionId;
use ringway_engine::wire::error::{TransportError, TransportErrorCode};
use ringway_types::Instant;
use slab::Slab;
use thin_vec::ThinVec;

use super::counts::{Counted, Delays};
use super::events::{ConnectionHandler, StreamHandler};
use super::handles::{Connection, ConnectionShared, Stream, StreamShared};
use super::holdup;
use super::known::StreamKnown;
use super::memory::MemoryShare;
use super::port_lease::{Connecting, PortLease};
use super::receive_buffers::ReceiveBuffers;
use super::rss_tracker::RssTracker;
use super::ticket_store::TicketDestination;
use super::token_store::TokenStore;

/// One connection on its worker.
pub(crate) struct HostedConnection {
    /// The protocol engine.
    pub(super) engine: engine::Connection,
    handle: Connection,
    /// Together with the handle that is passed to it. `None` until the application has accepted the connection, and
    /// while the handler runs.
    pub(super) handler: Option<(Connection, Box<dyn ConnectionHandler>)>,
    streams: Slab<HostedStream>,
    /// Handles of the peer's streams that have ended, with the shared state, for reuse: with one stream for each request, each would
    /// allocate one and clone a handle of the connection.
    spare_streams: ThinVec<Stream>,
    /// Streams that wait for calls of other threads before their last event.
    pub(super) ending: VecDeque<u32>,
    /// Handlers that run within others, by shutdowns inline.
    pub(super) depth: u8,
    /// Sends of other threads that failed after the caller had been told `Ok`: stream and context, for their
    /// `SendComplete`.
    pub(super) canceled_sends: ThinVec<(u32, u64)>,
    /// Where to keep the server's tokens; `None` on a server.
    pub(super) tokens: Option<Arc<TokenStore>>,
    /// Where to keep the server's tickets; `None` on a server.
    pub(super) tickets: Option<Box<TicketDestination>>,
    /// Why the connection is closing, and its streams end because of that.
    pub(super) closing: Option<Arc<CloseReason>>,
    /// What it holds.
    pub(super) memory: MemoryShare,
    /// What the worker has counted of it.
    pub(super) counted: Counted,
    /// How long things have waited for it.
    pub(super) delays: Delays,
    /// Its handler is to be notified.
    pub(super) notified: bool,
    /// The application has had its last event.
    pub(super) ended: bool,
    /// The port of its path.
    _port: Arc<PortLease>,
    /// Until the handshake is complete, on a client.
    pub(super) connecting: Option<Connecting>,
    /// The application wants the client to prove its address: the connection is forgotten, and its worker answers this packet.
    pub(super) retry: Option<Box<engine::FirstPacket>>,
    /// It may move to another partition: a listener on all of them has accepted it.
    pub(super) may_move: bool,
    /// Where RSS brings its packets.
    pub(super) rss: RssTracker,
    /// Partitions that forward its datagrams, because it was there before.
    pub(super) moved_from: ThinVec<usize>,
    /// The worker's count of shutdowns when the connection left it.
    pub(super) shutdowns: u64,
}

struct HostedStream {
    key: streams::StreamKey,
    reading: Reading,
    /// Where received data goes, if the application has said so.
    buffers: Option<Box<ReceiveBuffers>>,
    /// `None` while the handler runs: the caller then holds it.
    application: Option<ApplicationStream>,
}

/// How the application gets the data of a stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Reading {
    InOrder,
    /// In order, and several deliveries may be pending.
    Many,
    /// As it arrives. Several deliveries may be pending.
    Unordered,
    IntoBuffers,
}

/// The handle and the handler of a stream.
pub(super) struct ApplicationStream {
    pub(super) stream: Stream,
    /// `None` until the application has accepted the stream.
    pub(super) handler: Option<Box<dyn StreamHandler>>,
}

impl HostedStream {
    /// The shared state of the stream's handles; `None` while its handler runs.
    fn shared(&self) -> Option<&Arc<StreamShared>> {
        self.application.as_ref().map(|application| &application.stream.0)
    }
}

impl HostedConnection {
    /// Puts a connection together. The handler of an accepted one comes later ([`HostedConnection::set_handler`]).
    pub(crate) fn new(
        engine: engine::Connection,
        handle: Connection,
        port: Arc<PortLease>,
        handler: Option<Box<dyn ConnectionHandler>>,
    ) -> Box<Self> {
        Box::new(HostedConnection {
            engine,
            handler: handler.map(|handler| (Connection::of_worker(&handle.0), handler)),
            handle,
            streams: Slab::new(),
            spare_streams: ThinVec::new(),
            ending: VecDeque::new(),
            depth: 0,
            canceled_sends: ThinVec::new(),
            tokens: None,
            tickets: None,
            closing: None,
            memory: MemoryShare::default(),
            counted: Counted::default(),
            delays: Delays::default(),
            notified: false,
            ended: false,
            _port: port,
            connecting: None,
            retry: None,
            may_move: false,
            rss: RssTracker::default(),
            moved_from: ThinVec::new(),
            shutdowns: 0,
        })
    }

    /// Lets the engine work. If it panics, by a fault of ours, this connection ends with INTERNAL_ERROR and its handlers get their last events;
    /// no other connection is touched.
    #[inline]
    pub(crate) fn guarded<R>(&mut self, now: Instant, work: impl FnOnce(&mut Self) -> R) -> Option<R> {
        let guarded = AssertUnwindSafe(|| {
            self.engine.streams_mut().set_now(now);
            #[cfg(all(test, feature = "sim"))]
            super::fault::panic_if_asked();
            work(self)
        });
        match catch_unwind(guarded) {
            Ok(result) => Some(result),
            Err(payload) => {
                self.on_engine_panic(now, payload);
                None
            }
        }
    }

    #[cold]
    fn on_engine_panic(&mut self, now: Instant, payload: Box<dyn Any + Send>) {
        tracing::error!(connection = ?self.handle, "the protocol engine panicked, which is a fault of Ringway; the connection is closed");
        // Dropping the payload may panic again.
        mem::forget(payload);
        let was_open = self.engine.is_open();
        let close = AssertUnwindSafe(|| self.engine.close_for_panic(now, "an internal fault"));
        let closed = catch_unwind(close).map_err(mem::forget);
        // One that was closing already would panic again and again.
        if !was_open || closed.is_err() {
            self.engine.abandon(CloseReason::Transport(TransportError::new(
                TransportErrorCode::INTERNAL_ERROR,
                "an internal fault",
            )));
        }
    }

    /// The shared state of the connection's handles.
    pub(crate) fn shared(&self) -> &Arc<ConnectionShared> {
        &self.handle.0
    }

    /// Sets the application's handler, once the connection is accepted.
    pub(crate) fn set_handler(&mut self, handler: Box<dyn ConnectionHandler>) {
        self.handler = Some((Connection::of_worker(&self.handle.0), handler));
    }

    /// Keeps the server's tokens in `tokens`.
    pub(crate) fn set_token_store(&mut self, tokens: Arc<TokenStore>) {
        self.tokens = Some(tokens);
    }

    /// Keeps the server's tickets there.
    pub(crate) fn set_ticket_destination(&mut self, tickets: Option<TicketDestination>) {
        self.tickets = tickets.map(Box::new);
    }

    /// Gives the client a ticket.
    pub(crate) fn send_resumption_ticket(&mut self, data: &[u8]) -> Result<(), TicketError> {
        self.engine.send_resumption_ticket(data)
    }

    /// The application's answer about a client's ticket.
    pub(crate) fn complete_resumption(&mut self, now: Instant, answer: ResumptionAnswer) {
        self.engine.complete_resumption(now, answer);
    }

    /// Adds a stream of ours that has not started. Its handler receives `StartComplete` and `ShutdownComplete` even if
    /// the connection is already ending.
    pub(crate) fn add_stream(
        &mut self,
        stream: Stream,
        dir: streams::Dir,
        may_be_early: bool,
        reading: Option<Reading>,
        handler: Box<dyn StreamHandler>,
    ) {
        let streams = self.engine.streams_mut();
        let key = streams.create(dir);
        if may_be_early {
            streams.allow_early(key);
        }
        let index = self.insert_stream(stream, key, Some(handler));
        if let Some(reading) = reading {
            self.set_reading(index, reading);
        }
    }

    /// Adds a stream that the peer has opened. It has no handler yet.
    pub(super) fn add_peer_stream(&mut self, key: streams::StreamKey, id: streams::StreamId) -> u32 {
        let stream = self.spare_streams.pop().unwrap_or_else(|| {
            Stream::of_worker(StreamShared::new(&self.handle, StreamKnown::of_ours(true)))
        });
        stream.0.set_id(id.value());
        stream.0.known.become_theirs(id.dir() == streams::Dir::Bi);
        self.insert_stream(stream, key, None)
    }

    fn insert_stream(
        &mut self,
        stream: Stream,
        key: streams::StreamKey,
        handler: Option<Box<dyn StreamHandler>>,
    ) -> u32 {
        let entry = self.streams.vacant_entry();
        let index = entry.key() as u32;
        stream.0.set_slot_index(Some(index));
        let streams = self.engine.streams_mut();
        entry.insert(HostedStream {
            key,
            reading: if streams.takes_many() {
                Reading::Many
            } else {
                Reading::InOrder
            },
            buffers: None,
            application: Some(ApplicationStream { stream, handler }),
        });
        streams.set_user_data(key, u64::from(index));
        index
    }

    /// How the application gets a stream's data from now on.
    pub(crate) fn set_reading(&mut self, index: u32, reading: Reading) {
        let Some(entry) = self.streams.get_mut(index as usize) else {
            return;
        };
        entry.reading = reading;
        match reading {
            // Where there is no receiving half, there is nothing to read.
            Reading::Unordered => drop(self.engine.streams_mut().set_unordered(entry.key)),
            Reading::IntoBuffers => drop(entry.buffers.get_or_insert_default()),
            Reading::InOrder | Reading::Many => {}
        }
    }

    /// How the application gets a stream's data.
    #[inline]
    pub(super) fn reading(&self, index: u32) -> Reading {
        self.streams
            .get(index as usize)
            .map_or(Reading::InOrder, |stream| stream.reading)
    }

    /// Buffers of the application for what is received on a stream.
    #[inline]
    pub(super) fn receive_buffers(&mut self, index: u32) -> Option<&mut ReceiveBuffers> {
        self.streams.get_mut(index as usize)?.buffers.as_deref_mut()
    }

    /// The application has not aborted the receiving side of a stream.
    pub(super) fn wants_data(&mut self, index: u32) -> bool {
        let key = self.streams.get(index as usize).map(|stream| stream.key);
        key.is_some_and(|key| self.engine.streams_mut().wants_data(key))
    }

    /// From now on, what is received on the stream goes into buffers of the application, and these are some; false if the stream has ended.
    pub(crate) fn add_receive_buffers(&mut self, stream: &StreamShared, buffers: Vec<BytesMut>) -> bool {
        let Some(entry) = stream
            .slot_index()
            .and_then(|index| self.streams.get_mut(index as usize))
        else {
            return false;
        };
        let key = entry.key;
        entry.reading = Reading::IntoBuffers;
        if entry.buffers.get_or_insert_default().add(buffers) {
            self.engine.streams_mut().set_receive_enabled(key, true);
        }
        true
    }

    /// What has kept a stream back; `None`: it has ended.
    pub(crate) fn stream_stats(&mut self, now: Instant, stream: &StreamShared) -> Option<StreamStats> {
        let (_, key) = self.stream(stream)?;
        Some(self.engine.stream_stats(now, key))
    }

    /// The shared state of a stream's handles; `None` while its handler runs.
    pub(super) fn stream_shared(&self, index: u32) -> Option<&Arc<StreamShared>> {
        self.streams.get(index as usize)?.shared()
    }

    /// The engine's streams and the key of this one; `None` once the stream has ended.
    pub(crate) fn stream(&mut self, stream: &StreamShared) -> Option<(&mut Streams, streams::StreamKey)> {
        let key = self.streams.get(stream.slot_index()? as usize)?.key;
        Some((self.engine.streams_mut(), key))
    }

    /// What flow control needs to know for calls on streams.
    pub(crate) fn flow_clock(&self, now: Instant) -> streams::FlowClock {
        self.engine.flow_clock(now)
    }

    /// Changes its configuration from now on.
    pub(crate) fn reconfigure(&mut self, change: impl FnOnce(&mut Config)) {
        self.engine.reconfigure(change);
    }

    /// Continues the handshake of a connection that the application has accepted.
    pub(crate) fn accept(&mut self, now: Instant, config: Arc<Config>, tls: &ServerTls) {
        self.engine.accept(now, config, tls);
        self.tell_send_room();
    }

    /// The highest ID that streams may have, by kind.
    pub(crate) fn max_stream_ids(&mut self) -> [Option<u64>; 4] {
        let ids = self.engine.streams_mut().max_ids();
        ids.map(|id| id.map(streams::StreamId::value))
    }

    /// Lets the peer open another stream for one that has ended and that the application has let go of.
    pub(crate) fn give_stream_credit(&mut self, stream: &StreamShared) {
        if let Some(id) = stream.id() {
            let id = streams::StreamId::from_value(id);
            self.engine.streams_mut().give_stream_credit(id);
        }
    }

    /// Lets calls know how much may be sent.
    #[inline]
    pub(crate) fn tell_send_room(&mut self) {
        let room = self.engine.streams_mut().send_room();
        self.handle.0.known.set_send_room(room);
    }

    /// The application refuses a connection that it has not accepted.
    pub(crate) fn refuse(&mut self, now: Instant, error: TransportError) {
        self.counted.refused = true;
        self.engine.refuse(now, error);
    }

    /// The application does not want the client, who is told nothing.
    pub(crate) fn ignore(&mut self) {
        self.counted.refused = true;
        self.engine.abandon(CloseReason::LocalApplication {
            code: 0,
            reason: String::new(),
        });
    }

    /// The application wants the client to prove its address; false if it is too late for that.
    pub(crate) fn retry(&mut self) -> bool {
        self.retry = self.engine.may_retry().map(Box::new);
        if self.retry.is_some() {
            self.engine.abandon(CloseReason::LocalApplication {
                code: 0,
                reason: String::new(),
            });
        }
        self.retry.is_some()
    }

    /// The ClientHello, while the connection waits to be accepted.
    pub(crate) fn client_hello(&self) -> Option<&[u8]> {
        self.engine.client_hello()
    }

    /// The application's answer about the peer's certificate; false if none is awaited.
    pub(crate) fn set_certificate_valid(&mut self, now: Instant, valid: bool) -> bool {
        self.engine.set_certificate_valid(now, valid)
    }

    /// What the handshake has agreed on so far.
    pub(crate) fn tls_info(&self) -> Option<TlsInfo> {
        self.engine.tls_info()
    }

    /// Ends the connection with an application error code.
    pub(crate) fn shutdown(&mut self, now: Instant, code: u64, reason: String) {
        self.engine.close_with(now, code, reason);
    }

    /// Ends the connection without a word to the peer.
    pub(crate) fn shutdown_silently(&mut self, code: u64) {
        self.engine.abandon(CloseReason::LocalApplication {
            code,
            reason: String::new(),
        });
    }

    /// The Destination Connection ID of the client's very first packet.
    pub(crate) fn original_destination_cid(&self) -> ConnectionId {
        self.engine.original_destination_cid()
    }

    /// The version in use.
    pub(crate) fn version(&self) -> Version {
        self.engine.version()
    }

    /// Runs what the application wants to run on the worker's thread. If it panics, that is as if an event handler had.
    pub(crate) fn run_for_application(&mut self, now: Instant, work: impl FnOnce(&mut Self)) {
        if let Err(payload) = catch_unwind(AssertUnwindSafe(|| holdup::on_worker(|| work(self)))) {
            self.on_application_panic(now, payload);
        }
    }

    #[cold]
    pub(super) fn on_application_panic(&mut self, now: Instant, payload: Box<dyn Any + Send>) {
        tracing::error!(connection = ?self.handle, "the application panicked on its worker's thread; its connection is closed");
        // Dropping the payload may panic again.
        mem::forget(payload);
        self.guarded(now, |hosted| {
            hosted.engine.close_for_panic(now, "the application failed")
        });
    }

    /// Has the handler notified, behind the events that there are.
    pub(crate) fn notify(&mut self) {
        self.notified = true;
    }

    /// The handler is to be notified in the next turn.
    #[inline]
    pub(crate) fn is_notified(&self) -> bool {
        self.notified
    }

    /// Starts a key update as soon as one is allowed.
    pub(crate) fn update_keys(&mut self) {
        self.engine.update_keys();
    }

    /// The largest datagram that can be sent now, in bytes; before the handshake is complete, that may turn out to fit; 0 if the peer accepts none.
    pub(crate) fn datagram_len_limit(&self) -> usize {
        self.engine.datagram_len_limit()
    }

    /// It has not begun to end.
    pub(crate) fn is_open(&self) -> bool {
        self.engine.is_open()
    }

    /// Queues a datagram; false if the queue is full.
    pub(crate) fn send_datagram(
        &mut self,
        data: DatagramData,
        context: u64,
        options: DatagramOptions,
    ) -> bool {
        self.engine.send_datagram(data, context, options)
    }

    /// Reports a datagram as canceled.
    pub(crate) fn cancel_datagram(&mut self, context: u64) {
        self.engine.cancel_datagram(context);
    }

    /// Counts a datagram that was refused, which the caller knows.
    pub(crate) fn count_refused_datagram(&mut self) {
        self.engine.count_refused_datagram();
    }

    /// The connection's counters and estimates.
    pub(crate) fn stats(&self, now: Instant) -> ConnectionStats {
        let mut stats = self.engine.stats(now);
        self.delays.tell(&mut stats);
        stats
    }

    /// Reports a send as canceled that failed after its caller had been told `Ok`.
    pub(crate) fn cancel_send(&mut self, stream: &StreamShared, context: u64) {
        if let Some(index) = stream.slot_index() {
            self.canceled_sends.push((index, context));
        }
    }

    /// Takes the context of a send of this stream that is to be reported as canceled.
    pub(super) fn next_canceled_send_of(&mut self, index: u32) -> Option<u64> {
        let position = self.canceled_sends.iter().position(|&(of, _)| of == index)?;
        Some(self.canceled_sends.remove(position).1)
    }

    /// True if [`HostedConnection::deliver_events`] has something to deliver.
    pub(crate) fn has_events(&self) -> bool {
        self.engine.has_events()
            || self.notified
            || !self.canceled_sends.is_empty()
            || !self.ending.is_empty()
    }

    /// Takes a stream that has ended and that no other thread is calling. Looks at some in turn, and the worker comes again until there are none:
    /// each call of another thread has them looked at, and there may be as many calls as streams.
    pub(super) fn next_ended_stream(&mut self) -> Option<u32> {
        for _ in 0..self.ending.len().min(ENDING_AT_ONCE) {
            let index = self.ending.pop_front()?;
            let stream = self.stream_shared(index);
            if stream.is_none_or(|stream| stream.gate().is_quiet()) {
                return Some(index);
            }
            self.ending.push_back(index);
        }
        None
    }

    /// Removes a stream after its last event.
    pub(super) fn remove_stream(&mut self, index: u32) {
        let Some(HostedStream { key, application, .. }) = self.streams.try_remove(index as usize) else {
            return;
        };
        self.engine.streams_mut().release(key);
        let Some(ApplicationStream { stream, handler }) = application else {
            return;
        };
        holdup::drop_handler(handler);
        stream.0.set_slot_index(None);
        if stream.0.end_holds() {
            self.give_stream_credit(&stream.0);
        }
        // Handles of our own streams are made by whoever opens them.
        let is_peer_initiated = stream.0.id().is_some_and(|id| self.engine.is_peer_initiated(id));
        if is_peer_initiated && self.spare_streams.len() < SPARE_STREAMS_MAX && stream.0.renew() {
            self.spare_streams.push(stream);
        }
    }

    /// Takes a stream's handle and handler out of the table, to call the handler.
    #[inline]
    pub(super) fn take_application_stream(&mut self, index: u32) -> Option<ApplicationStream> {
        self.streams.get_mut(index as usize)?.application.take()
    }

    /// The handler of a stream can be called: it is not running.
    pub(super) fn is_at_rest(&self, index: u32) -> bool {
        self.streams
            .get(index as usize)
            .is_some_and(|stream| stream.application.is_some())
    }

    /// Puts a stream's handle and handler back.
    #[inline]
    pub(super) fn put_back_application_stream(&mut self, index: u32, application: ApplicationStream) {
        if let Some(entry) = self.streams.get_mut(index as usize) {
            entry.application = Some(application);
        }
    }
}

/// How many streams that wait for calls of other threads are looked at in one go.
const ENDING_AT_ONCE: usize = 16;

/// How many of the peer's ended streams keep their shared state for reuse.
const SPARE_STREAMS_MAX: usize = 128;
