//! What the application hears, and what it may answer.
//!
//! Handlers run on the worker thread of the connection's partition, which may change between two of them.
//! Events of one connection and of all its streams
//! come one after another, never in parallel and never from within each other. A handler must not block: it delays
//! every connection of its partition.

use std::fmt;
use std::net::SocketAddr;

use ringway_engine::connection::close::CloseReason;
use ringway_engine::connection::stats::ConnectionStats;
use ringway_engine::crypto::client_hello::ClientHelloInfo;
use ringway_engine::datagrams::DatagramSendState;
use ringway_engine::wire::Version;

use super::handles::{Connection, Stream};

/// What a handler returns for an event. What each status means is said at the event; where it says nothing,
/// [`EventStatus::Done`] is the answer and any other counts as it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum EventStatus {
    /// The event is dealt with.
    #[default]
    Done,
    /// This many bytes are consumed and the rest should be indicated again at once (`Receive`).
    Continue(usize),
    /// This many bytes are consumed; indicate the rest when receiving is enabled again (`Receive`).
    Consumed(usize),
    /// The event will be completed later by a call (`Receive`).
    Pending,
    /// The application refuses, with this application error code (`PeerStreamStarted`).
    Refuse(u64),
}

/// Events of a listener. Delivered in parallel by all partitions.
#[derive(Debug)]
#[non_exhaustive]
pub enum ListenerEvent {
    /// A client wants to connect. Accept it with a configuration and a handler, now or later; dropping the
    /// value refuses the connection. MsQuic: `NEW_CONNECTION`.
    NewConnection(Incoming),
    /// The listener has stopped on every partition; the last event. MsQuic: `STOP_COMPLETE`.
    StopComplete,
}

/// Events of a connection.
#[derive(Debug)]
#[non_exhaustive]
pub enum ConnectionEvent<'a> {
    /// The handshake is complete. MsQuic: `CONNECTED`.
    Connected {
        /// The application protocol agreed on.
        alpn: &'a [u8],
        /// The peer's certificate chain (DER, end entity first), if the peer showed one.
        peer_certificates: &'a [rustls::pki_types::CertificateDer<'static>],
    },
    /// The transport ends the connection: a protocol error, a timeout, a reset. MsQuic: `SHUTDOWN_INITIATED_BY_TRANSPORT`.
    ShutdownByTransport {
        /// What happened.
        reason: CloseReason,
    },
    /// The peer's application ended the connection. MsQuic: `SHUTDOWN_INITIATED_BY_PEER`.
    ShutdownByPeer {
        /// The peer's application error code.
        code: u64,
    },
    /// The connection has ended; the last event. Calls on its handles answer `Closed` from now on. MsQuic: `SHUTDOWN_COMPLETE`.
    ShutdownComplete {
        /// The handshake had been completed.
        handshake_completed: bool,
        /// The peer has seen the close, or closed itself.
        peer_acknowledged: bool,
        /// Counters of the whole connection.
        stats: &'a ConnectionStats,
    },
    /// The local address has changed: packets of the peer arrive at another one. MsQuic: `LOCAL_ADDRESS_CHANGED`.
    LocalAddressChanged(SocketAddr),
    /// The peer's address has changed and is validated. MsQuic: `PEER_ADDRESS_CHANGED`.
    PeerAddressChanged(SocketAddr),
    /// The connection has moved to the partition where its packets arrive: this event is the first one on the thread of that.
    /// MsQuic: `IDEAL_PROCESSOR_CHANGED`.
    IdealProcessorChanged {
        /// The partition that hosts it from now on.
        partition: usize,
    },
    /// The peer has opened a stream. Accept it within this event by [`IncomingStream::accept`]; if the handler does not,
    /// both directions are aborted, with the code of [`EventStatus::Refuse`] or 0. MsQuic: `PEER_STREAM_STARTED`.
    PeerStreamStarted(IncomingStream<'a>),
    /// The peer allows this many more streams to be opened now. MsQuic: `STREAMS_AVAILABLE`.
    StreamsAvailable {
        /// Bidirectional streams.
        bidi: u64,
        /// Unidirectional streams.
        uni: u64,
    },
    /// The peer wants to open more streams than its limit. MsQuic: `PEER_NEEDS_STREAMS`.
    PeerNeedsStreams {
        /// True for bidirectional streams.
        bidi: bool,
    },
    /// Whether DATAGRAM frames can be sent, and how large, has changed. MsQuic: `DATAGRAM_STATE_CHANGED`.
    DatagramStateChanged {
        /// The peer takes datagrams.
        send_enabled: bool,
        /// The most bytes that fit in one datagram now.
        max_send_len: usize,
    },
    /// A datagram has arrived. The bytes lie in the received packet and are valid during the event only.
    /// MsQuic: `DATAGRAM_RECEIVED`.
    DatagramReceived(&'a [u8]),
    /// What became of a datagram. MsQuic: `DATAGRAM_SEND_STATE_CHANGED`.
    DatagramSendStateChanged {
        /// The context that `send_datagram` was given.
        context: u64,
        /// The new state.
        state: DatagramSendState,
    },
}

/// Events of a stream.
#[derive(Debug)]
#[non_exhaustive]
pub enum StreamEvent<'a> {
    /// The start of a stream that we opened is done: `Ok` with its ID, or the reason why it cannot start. Exactly
    /// one for each start, and the first event but for sends that are given up before. MsQuic: `START_COMPLETE`.
    StartComplete(Result<u64, StartError>),
    /// Data has arrived, in order.
    ///
    /// - [`EventStatus::Done`]: all bytes are consumed.
    /// - [`EventStatus::Consumed`]`(n)`: the first `n` are consumed. If that is less than all, the rest stays with the connection and
    ///   receiving pauses until [`Stream::set_receive_enabled`].
    /// - [`EventStatus::Continue`]`(n)`: the first `n` are consumed. The rest is indicated again at once if `n` > 0, with the next
    ///   data otherwise.
    /// - [`EventStatus::Pending`]: the bytes stay with the connection, no more are indicated, and no credit is given to the peer until
    ///   [`Stream::receive_complete`] says how many are consumed.
    ///
    /// MsQuic: `RECEIVE`.
    Receive(ReceivedData<'a>),
    /// A send has been acknowledged, or given up; its buffer is released. Exactly one for each send. MsQuic: `SEND_COMPLETE`.
    SendComplete {
        /// The context that `send` was given.
        context: u64,
        /// The data was not (or not all) acknowledged.
        canceled: bool,
    },
    /// All of the peer's data is consumed. MsQuic: `PEER_SEND_SHUTDOWN`.
    PeerSendShutdown,
    /// The peer has reset its sending side with this code. MsQuic: `PEER_SEND_ABORTED`.
    PeerSendAborted {
        /// The peer's application error code.
        code: u64,
    },
    /// The peer has asked us to stop sending, and our sending side has been reset. MsQuic: `PEER_RECEIVE_ABORTED`.
    PeerReceiveAborted {
        /// The peer's application error code.
        code: u64,
    },
    /// Our sending side has ended: all data and its end acknowledged if `graceful`, else reset. Not of a stream
    /// that has not started. MsQuic: `SEND_SHUTDOWN_COMPLETE`.
    SendShutdownComplete {
        /// The peer has it all.
        graceful: bool,
    },
    /// The stream has ended; the last event. Calls on its handles answer `Closed` from now on. MsQuic: `SHUTDOWN_COMPLETE`.
    ShutdownComplete {
        /// The whole connection ended.
        connection_shutdown: bool,
    },
}

/// Why a stream could not be started.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum StartError {
    /// The peer's limit is reached and the start was asked to fail rather than to wait.
    #[error("the peer allows no more streams now")]
    LimitReached,
    /// The connection or the stream ended first.
    #[error("the connection or the stream has ended")]
    Closed,
}

/// Received data of a stream, in order: slices of decrypted packets, valid during the event.
#[derive(Clone, Copy)]
pub struct ReceivedData<'a> {
    pub(crate) offset: u64,
    pub(crate) slices: &'a [&'a [u8]],
    pub(crate) fin: bool,
}

impl<'a> ReceivedData<'a> {
    /// Position of the first byte in the stream.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The data. The slices follow each other without a gap.
    pub fn slices(&self) -> &'a [&'a [u8]] {
        self.slices
    }

    /// Bytes in all slices. May be 0 if `fin`.
    pub fn len(&self) -> usize {
        self.slices.iter().map(|slice| slice.len()).sum()
    }

    /// True if there are no bytes, only the end of the stream.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The stream ends behind this data.
    pub fn fin(&self) -> bool {
        self.fin
    }

    /// A copy of the data that may be kept.
    pub fn to_vec(&self) -> Vec<u8> {
        self.slices.concat()
    }
}

impl fmt::Debug for ReceivedData<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReceivedData")
            .field("offset", &self.offset)
            .field("len", &self.len())
            .field("fin", &self.fin)
            .finish()
    }
}

/// A stream that the peer has opened and the application has yet to accept, within the event that brings it.
pub struct IncomingStream<'a> {
    pub(crate) stream: &'a Stream,
    pub(crate) bidirectional: bool,
    pub(crate) handler: &'a mut Option<Box<dyn StreamHandler>>,
}

impl fmt::Debug for IncomingStream<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IncomingStream")
            .field("stream", self.stream)
            .finish_non_exhaustive()
    }
}

/// A connection that a client has asked for and the application has yet to accept, in the event that brings it or
/// later. Dropping it refuses the connection.
pub struct Incoming {
    pub(crate) connection: Connection,
    pub(crate) hello: ClientHelloInfo,
    pub(crate) version: Version,
    pub(crate) local: SocketAddr,
    pub(crate) remote: SocketAddr,
    pub(crate) alpn: Vec<u8>,
    /// Neither accepted nor refused yet.
    pub(crate) open: bool,
}

impl fmt::Debug for Incoming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Incoming")
            .field("connection", &self.connection)
            .field("hello", &self.hello)
            .field("remote", &self.remote)
            .finish_non_exhaustive()
    }
}

/// Hears the events of a listener. Implemented by closures. Called in parallel by all partitions.
pub trait ListenerHandler: Send + Sync + 'static {
    /// Called with each event, on the worker thread of the partition that it happened on.
    fn on_event(&self, event: ListenerEvent);
}

impl<F: Fn(ListenerEvent) + Send + Sync + 'static> ListenerHandler for F {
    fn on_event(&self, event: ListenerEvent) {
        self(event);
    }
}

/// Hears the events of a connection. Implemented by closures.
pub trait ConnectionHandler: Send + 'static {
    /// Called with each event, on the worker thread of the connection.
    fn on_event(&mut self, connection: &Connection, event: ConnectionEvent<'_>) -> EventStatus;
}

impl<F: FnMut(&Connection, ConnectionEvent<'_>) -> EventStatus + Send + 'static> ConnectionHandler for F {
    fn on_event(&mut self, connection: &Connection, event: ConnectionEvent<'_>) -> EventStatus {
        self(connection, event)
    }
}

/// Hears the events of a stream. Implemented by closures.
pub trait StreamHandler: Send + 'static {
    /// Called with each event, on the worker thread of the connection.
    fn on_event(&mut self, stream: &Stream, event: StreamEvent<'_>) -> EventStatus;
}

impl<F: FnMut(&Stream, StreamEvent<'_>) -> EventStatus + Send + 'static> StreamHandler for F {
    fn on_event(&mut self, stream: &Stream, event: StreamEvent<'_>) -> EventStatus {
        self(stream, event)
    }
}
