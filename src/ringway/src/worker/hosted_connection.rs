//! A connection as its worker hosts it: the engine, the application's handlers, and the table of streams between them.

use std::sync::Arc;

use bytes::Bytes;
use ringway_engine::connection as engine;
use ringway_engine::connection::config::Config;
use ringway_engine::connection::stats::ConnectionStats;
use ringway_engine::crypto::tls::ServerTls;
use ringway_engine::streams::{self, Streams};
use ringway_engine::wire::error::TransportErrorCode;
use ringway_types::Instant;
use slab::Slab;

use super::events::{ConnectionHandler, StreamHandler};
use super::handles::{Connection, ConnectionShared, Stream, StreamShared};
use super::rss_tracker::RssTracker;
use super::token_store::TokenStore;

/// One connection on its worker.
pub struct HostedConnection {
    /// The protocol engine.
    pub(super) engine: engine::Connection,
    handle: Connection,
    /// With the handle that it is lent. `None` until the application has accepted the connection, and while the handler runs.
    pub(super) handler: Option<(Connection, Box<dyn ConnectionHandler>)>,
    streams: Slab<HostedStream>,
    /// Of streams of the peer that have gone, for those to come: requests follow each other, and each would take memory and a handle of the
    /// connection.
    spare_streams: Vec<Arc<StreamShared>>,
    /// Streams whose last event waits for calls of other threads that got in before the end.
    pub(super) ending: Vec<u32>,
    /// Sends that other threads made and the engine no longer took: their completions.
    pub(super) canceled_sends: Vec<(u32, u64)>,
    /// Where tokens of the server are kept; `None` on a server.
    pub(super) tokens: Option<Arc<TokenStore>>,
    /// The end of the connection has been announced to the streams.
    pub(super) closing: bool,
    /// Its port is that of a listener on all partitions: it can live on any of them.
    pub(super) has_port_everywhere: bool,
    /// Where its packets arrive.
    pub(super) rss: RssTracker,
    /// Partitions that hand its datagrams on.
    pub(super) moved_from: Vec<usize>,
    /// [`super::Worker`]'s number of shutdowns when it left.
    pub(super) shutdowns: u64,
}

struct HostedStream {
    key: streams::StreamKey,
    /// `None` while the handler runs: it is lent the handle.
    application: Option<ApplicationStream>,
}

/// A stream as the application knows it.
pub(super) struct ApplicationStream {
    pub(super) stream: Stream,
    /// `None` until the application has accepted the stream.
    pub(super) handler: Option<Box<dyn StreamHandler>>,
}

impl HostedStream {
    /// What the handles of the stream share; `None` while its handler runs.
    fn shared(&self) -> Option<&Arc<StreamShared>> {
        self.application.as_ref().map(|application| &application.stream.0)
    }
}

impl HostedConnection {
    /// A connection with its engine and handle; `handler` may come later by [`HostedConnection::set_handler`].
    pub fn new(
        engine: engine::Connection,
        handle: Connection,
        handler: Option<Box<dyn ConnectionHandler>>,
    ) -> Box<Self> {
        Box::new(HostedConnection {
            engine,
            handler: handler.map(|handler| (handle.clone(), handler)),
            handle,
            streams: Slab::new(),
            spare_streams: Vec::new(),
            ending: Vec::new(),
            canceled_sends: Vec::new(),
            tokens: None,
            closing: false,
            has_port_everywhere: false,
            rss: RssTracker::default(),
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

    /// Takes a stream that the peer has opened into the connection. It has no handler yet.
    pub(super) fn add_peer_stream(&mut self, key: streams::StreamKey, id: streams::StreamId) -> u32 {
        let shared = self
            .spare_streams
            .pop()
            .unwrap_or_else(|| StreamShared::new(self.handle.clone()));
        shared.set_id(id.value());
        self.insert_stream(Stream(shared), key, None)
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
        entry.insert(HostedStream {
            key,
            application: Some(ApplicationStream { stream, handler }),
        });
        self.engine.streams_mut().set_user_data(key, u64::from(index));
        index
    }

    /// What the handles of a stream share; `None` while its handler runs.
    pub(super) fn stream_shared(&self, index: u32) -> Option<&Arc<StreamShared>> {
        self.streams.get(index as usize)?.shared()
    }

    /// The engine's streams and the key of this one; `None` once the stream has gone.
    pub fn stream(&mut self, stream: &StreamShared) -> Option<(&mut Streams, streams::StreamKey)> {
        let key = self.streams.get(stream.slot_index()? as usize)?.key;
        Some((self.engine.streams_mut(), key))
    }

    /// What flow control needs of the connection for calls of its streams.
    pub fn flow_clock(&self, now: Instant) -> streams::FlowClock {
        self.engine.flow_clock(now)
    }

    /// Goes on with the handshake of a connection that the application has accepted.
    pub fn accept(&mut self, now: Instant, config: Arc<Config>, tls: &ServerTls) {
        self.engine.accept(now, config, tls);
    }

    /// Refuses a connection that was not accepted.
    pub fn refuse(&mut self, now: Instant, code: TransportErrorCode) {
        self.engine.refuse(now, code);
    }

    /// Ends the connection with an application error code.
    pub fn shutdown(&mut self, now: Instant, code: u64) {
        self.engine.close(now, code);
    }

    /// Begins a key update as soon as one may begin.
    pub fn update_keys(&mut self) {
        self.engine.update_keys();
    }

    /// The most bytes that fit in a DATAGRAM frame now; 0 if the peer takes none.
    pub fn max_datagram_len(&self) -> usize {
        self.engine.max_datagram_len()
    }

    /// Queues a datagram; false if the queue is full.
    pub fn send_datagram(&mut self, data: Bytes, context: u64) -> bool {
        self.engine.send_datagram(data, context)
    }

    /// Tells the application that a datagram will not be sent.
    pub fn cancel_datagram(&mut self, context: u64) {
        self.engine.cancel_datagram(context);
    }

    /// Counters and estimates.
    pub fn stats(&self, now: Instant) -> ConnectionStats {
        self.engine.stats(now)
    }

    /// Notes that a send which another thread was promised could not be made.
    pub fn cancel_send(&mut self, stream: &StreamShared, context: u64) {
        if let Some(index) = stream.slot_index() {
            self.canceled_sends.push((index, context));
        }
    }

    /// True if [`HostedConnection::deliver_events`] has something to do.
    pub fn has_events(&self) -> bool {
        self.engine.has_events() || !self.canceled_sends.is_empty() || !self.ending.is_empty()
    }

    /// A stream that has ended and has no more calls to wait for.
    pub(super) fn next_ended_stream(&mut self) -> Option<u32> {
        let quiet = |index: &u32| {
            self.stream_shared(*index)
                .is_none_or(|stream| stream.gate().is_quiet())
        };
        let position = self.ending.iter().position(quiet)?;
        Some(self.ending.swap_remove(position))
    }

    /// Lets a stream go whose last event has been delivered.
    pub(super) fn remove_stream(&mut self, index: u32) {
        let Some(HostedStream { key, application }) = self.streams.try_remove(index as usize) else {
            return;
        };
        self.engine.streams_mut().release(key);
        let Some(ApplicationStream {
            stream: Stream(shared),
            ..
        }) = application
        else {
            return;
        };
        shared.set_slot_index(None);
        // Handles of our own streams are made by whoever opens them.
        let is_peer_initiated = shared.id().is_some_and(|id| self.engine.is_peer_initiated(id));
        if is_peer_initiated && self.spare_streams.len() < SPARE_STREAMS_MAX && shared.renew() {
            self.spare_streams.push(shared);
        }
    }

    /// Takes handle and handler of a stream out of the table, to lend them to the handler.
    #[inline]
    pub(super) fn take_application_stream(&mut self, index: u32) -> Option<ApplicationStream> {
        self.streams.get_mut(index as usize)?.application.take()
    }

    /// Puts them back.
    #[inline]
    pub(super) fn put_back_application_stream(&mut self, index: u32, application: ApplicationStream) {
        if let Some(entry) = self.streams.get_mut(index as usize) {
            entry.application = Some(application);
        }
    }
}

/// Of so many streams that have gone, something is kept.
const SPARE_STREAMS_MAX: usize = 128;
