//! Events, and the statuses that handlers return.
//!
//! Handlers run on the worker thread of the connection's partition; if the connection moves to another partition, that
//! thread changes between two events. Events of one connection and of all its streams are delivered one after another:
//! never in parallel, and never from within each other. A handler must not block, because every connection of its
//! partition waits for it.
//!
//! Circle with `handles`, `hosted_connection`, `inbox`, `listener` and `port_lease`: because handlers receive handles, a handle
//! queues calls for the hosted connection, and the hosted connection owns the handlers.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use ringway_engine::connection::close::CloseReason;
use ringway_engine::connection::stats::ConnectionStats;
use ringway_engine::connection::stats::ZeroRtt;
use ringway_engine::crypto::client_hello::ClientHelloInfo;
use ringway_engine::datagrams::DatagramSendState;
use ringway_engine::wire::Version;

use super::handles::{Connection, ConnectionShared, Stream};
use super::listener::ListenerShared;
use super::received::{ReceivedData, ReceivedDatagram};
use super::ticket_store::ResumptionTicket;

/// What a handler returns for an event.
///
/// The documentation of each event says what the statuses mean there. Where it says nothing, return
/// [`EventStatus::Done`]; any other status means the same. A closure that returns nothing returns that.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum EventStatus {
    /// The event has been handled.
    #[default]
    Done,
    /// The handler consumed this many bytes; indicate the rest again at once (`Receive`).
    Continue(usize),
    /// The handler consumed this many bytes; indicate the rest when receiving is enabled again (`Receive`).
    Consumed(usize),
    /// A later call will complete the event (`Receive`, `PeerCertificateReceived`, `Resumed`).
    Pending,
    /// The application refuses, with this application error code (`PeerStreamStarted`, `CancelOnLoss`), or without one (`PeerCertificateReceived`,
    /// `Resumed`). One above [`ERROR_CODE_MAX`](crate::ERROR_CODE_MAX) is told in the log, and that goes out in its place.
    Refuse(u64),
}

/// For handlers that never say anything but [`Done`](EventStatus::Done).
impl From<()> for EventStatus {
    fn from((): ()) -> Self {
        Self::Done
    }
}

/// Events of a listener. All partitions deliver them in parallel.
#[derive(Debug)]
#[non_exhaustive]
pub enum ListenerEvent {
    /// A client wants to connect. Accept it with a configuration and a handler, now or later; dropping the value
    /// refuses the connection. MsQuic: `NEW_CONNECTION`.
    NewConnection(Incoming),
    /// On this partition, handshakes have become so many that clients must prove their address where [`RetryPolicy`](crate::RetryPolicy) is
    /// `UnderLoad`, or are no longer so many ([`Limits::handshakes_before_retry`](crate::Limits::handshakes_before_retry)). MsQuic:
    /// `DOS_MODE_CHANGED`.
    LoadChanged {
        /// The partition.
        partition: usize,
        /// They are so many.
        under_load: bool,
    },
    /// The last event: the listener has stopped on every partition. MsQuic: `STOP_COMPLETE`.
    StopComplete,
}

/// Events of a connection.
#[derive(Debug)]
#[non_exhaustive]
pub enum ConnectionEvent<'a> {
    /// The handshake is complete. MsQuic: `CONNECTED`.
    Connected {
        /// The negotiated application protocol.
        alpn: &'a [u8],
        /// The peer's certificate chain (DER, end entity first); empty if the peer presented none.
        peer_certificates: &'a [rustls::pki_types::CertificateDer<'static>],
        /// The session of an earlier connection goes on.
        resumed: bool,
        /// What became of 0-RTT. What was not accepted has not been processed, and is sent again by itself.
        zero_rtt: ZeroRtt,
    },
    /// A client shows a ticket that this server, or one with the same keys, gave out with this data
    /// ([`Connection::send_resumption_ticket`](crate::Connection::send_resumption_ticket)); the handshake waits for the answer. It comes before
    /// `Connected`, and before everything that the client sends in 0-RTT. Whether the client has the ticket's secret, and so is who got the ticket,
    /// `Connected` says (`resumed`).
    ///
    /// - [`EventStatus::Done`]: the session is resumed, with 0-RTT if that is possible.
    /// - [`EventStatus::Refuse`]: it is not, whatever the number: the client gets a full handshake.
    /// - [`EventStatus::Pending`]: the call
    ///   [`resumption_ticket_validation_complete`](crate::Connection::resumption_ticket_validation_complete)
    ///   will say,
    ///   within the time for handshakes.
    ///
    /// MsQuic: `RESUMED`.
    Resumed {
        /// What the application has written into the ticket.
        data: &'a [u8],
    },
    /// The server has given a ticket, which is kept in the configuration's store for later connections. MsQuic: `RESUMPTION_TICKET_RECEIVED`.
    ResumptionTicketReceived(&'a ResumptionTicket),
    /// The peer has presented a certificate and proven that it has its key; the handshake waits for the answer. Delivered, before `Connected`, if
    /// the credentials ask for it ([`CertificateReceived`](crate::CertificateReceived)), and not on connections that resume a session. Until it is
    /// answered, nothing that follows from trust leaves: no Finished of a client, no ticket, no data, and none is delivered.
    ///
    /// - [`EventStatus::Done`]: what the verification says: the peer is trusted if there is no `deferred_error`.
    /// - [`EventStatus::Pending`]: [`Connection::certificate_valid`] will say, within the time for handshakes.
    /// - [`EventStatus::Refuse`]: the peer is not trusted, whatever the number.
    ///
    /// A handler that trusts the peer in spite of `deferred_error` calls [`Connection::certificate_valid`] itself. MsQuic:
    /// `PEER_CERTIFICATE_RECEIVED`.
    PeerCertificateReceived {
        /// The chain (DER), end entity first, as the peer has sent it.
        chain: &'a [rustls::pki_types::CertificateDer<'static>],
        /// What a deferred verification has found, in the words of rustls; `None`: nothing.
        deferred_error: Option<&'a str>,
    },
    /// The transport has ended the connection: a protocol error, a timeout or a stateless reset. MsQuic:
    /// `SHUTDOWN_INITIATED_BY_TRANSPORT`.
    ShutdownByTransport {
        /// Why.
        reason: CloseReason,
    },
    /// The peer's application has ended the connection. MsQuic: `SHUTDOWN_INITIATED_BY_PEER`.
    ShutdownByPeer {
        /// The peer's application error code.
        code: u64,
        /// What it says for people; empty if nothing. What is not UTF-8 in it has been replaced.
        reason_phrase: &'a str,
    },
    /// The last event: the connection has ended. From now on, calls on its handles return `Closed`. It comes as soon as
    /// either side has closed, and does not wait for the peer to hear of it: the worker goes on telling the peer by itself.
    /// MsQuic: `SHUTDOWN_COMPLETE`.
    ShutdownComplete {
        /// The handshake had completed.
        handshake_completed: bool,
        /// The peer closed the connection itself, or has answered our close.
        closed_by_peer: bool,
        /// Who ended it, and why: the first reason that there was. [`Connection::close_reason`] gives it later.
        reason: &'a CloseReason,
        /// The counters of the whole connection.
        stats: &'a ConnectionStats,
    },
    /// The local address has changed: the peer's packets arrive at another one. MsQuic: `LOCAL_ADDRESS_CHANGED`.
    LocalAddressChanged(SocketAddr),
    /// The peer's address has changed, and the new one is validated. MsQuic: `PEER_ADDRESS_CHANGED`.
    PeerAddressChanged(SocketAddr),
    /// The connection has moved to the partition where its packets arrive. This is the first event on that partition's
    /// thread. MsQuic: `IDEAL_PROCESSOR_CHANGED`.
    IdealProcessorChanged {
        /// The partition that now hosts the connection.
        partition: usize,
    },
    /// The peer has opened a stream. Accept it during this event with [`IncomingStream::accept`]. If the handler does
    /// not, both directions are aborted with the code of [`EventStatus::Refuse`], or with 0. MsQuic:
    /// `PEER_STREAM_STARTED`.
    PeerStreamStarted(IncomingStream<'a>),
    /// How many more streams the peer now allows us to open. MsQuic: `STREAMS_AVAILABLE`.
    StreamsAvailable {
        /// Bidirectional streams.
        bidi: u64,
        /// Unidirectional streams.
        uni: u64,
    },
    /// The peer wants to open more streams than we allow. MsQuic: `PEER_NEEDS_STREAMS`.
    PeerNeedsStreams {
        /// Bidirectional streams, rather than unidirectional ones.
        bidi: bool,
    },
    /// Whether DATAGRAM frames can be sent, or how large they may be, has changed. MsQuic: `DATAGRAM_STATE_CHANGED`.
    DatagramStateChanged {
        /// The peer accepts datagrams.
        send_enabled: bool,
        /// The largest datagram that can be sent now, in bytes.
        max_send_len: usize,
    },
    /// Somebody has called [`Connection::notify`](crate::Connection::notify) since the last one. Calls that are made in it take effect at once, as
    /// in every event: so a thread that has much for a connection puts it where this handler finds it, and notifies once.
    Notified,
    /// A datagram has arrived. The bytes lie in the received packet and are valid during this event only. MsQuic:
    /// `DATAGRAM_RECEIVED`.
    DatagramReceived(ReceivedDatagram<'a>),
    /// An acknowledgement has changed what is known of the network: bytes in flight and posted, round trip time, congestion window, bandwidth.
    /// Comes if the settings ask for it ([`Settings::network_statistics_enabled`](crate::Settings::network_statistics_enabled)), for each
    /// acknowledgement at most once, and once for several where nothing else is told between them. MsQuic: `NETWORK_STATISTICS`.
    NetworkStatistics(&'a ConnectionStats),
    /// The state of a sent datagram has changed. MsQuic: `DATAGRAM_SEND_STATE_CHANGED`.
    DatagramSendStateChanged {
        /// The context that was passed to `send_datagram`.
        context: u64,
        /// The new state.
        state: DatagramSendState,
    },
}

/// Events of a stream.
#[derive(Debug)]
#[non_exhaustive]
pub enum StreamEvent<'a> {
    /// A stream that we opened has started (`Ok` with its ID), or cannot start. Delivered exactly once for each start,
    /// as the first event of the stream unless sends were canceled before it. MsQuic: `START_COMPLETE`.
    StartComplete(Result<u64, StartError>),
    /// The peer allows a stream that was started with [`StartFlags::INDICATE_PEER_ACCEPT`](crate::StartFlags::INDICATE_PEER_ACCEPT). MsQuic:
    /// `PEER_ACCEPTED`.
    PeerAccepted,
    /// Data of a stream counts as lost that was sent with [`SendFlags::CANCEL_ON_LOSS`](crate::SendFlags::CANCEL_ON_LOSS): both directions are
    /// aborted when
    /// the handler has returned, with the code of [`EventStatus::Refuse`], or with 0. MsQuic: `CANCEL_ON_LOSS`.
    CancelOnLoss,
    /// Data has arrived, in order.
    ///
    /// - [`EventStatus::Done`]: all bytes are consumed.
    /// - [`EventStatus::Consumed`]`(n)`: the first `n` bytes are consumed. If `n` is less than the length, the
    ///   connection keeps the rest and pauses receiving until [`Stream::set_receive_enabled`].
    /// - [`EventStatus::Continue`]`(n)`: the first `n` bytes are consumed. The rest is indicated again: at once if `n`
    ///   > 0, otherwise with the next data.
    /// - [`EventStatus::Pending`]: the connection keeps the bytes, indicates no more, and gives the peer no flow
    ///   control credit until [`Stream::receive_complete`] says how many bytes are consumed.
    ///
    /// With [`Settings::stream_multi_receive_enabled`](crate::Settings::stream_multi_receive_enabled), `Pending` means: the bytes are the
    /// application's, which has [kept](ReceivedData::keep) or copied what it needs, the connection keeps none of them, and goes on delivering; the
    /// peer gets credit, and [`PeerSendShutdown`](Self::PeerSendShutdown) comes, when [`Stream::receive_complete`] has said, in as many
    /// calls as it likes
    /// and for any number of deliveries, that the bytes are consumed.
    ///
    /// Not for streams with buffers of the application ([`Stream::provide_receive_buffers`]), which have
    /// [`ReceiveBufferFilled`](Self::ReceiveBufferFilled) instead. MsQuic: `RECEIVE`.
    Receive(ReceivedData<'a>),
    /// Data has arrived, in order, and was put into a buffer of the application, which has this part of it back: the buffer's next bytes, filled. Its
    /// room that is left is for what comes next. The bytes are consumed, whatever the status.
    ReceiveBufferFilled {
        /// Offset in the stream of the first byte.
        offset: u64,
        /// The data; no bytes, if only the end of the stream has come. The handler's to take ([`std::mem::take`], or by `split`): what it leaves is
        /// dropped.
        data: &'a mut bytes::BytesMut,
        /// The stream ends after it.
        fin: bool,
    },
    /// So many bytes have arrived for which there is no buffer. [`Stream::provide_receive_buffers`] may give some at once or later; until then
    /// nothing is delivered, and what the peer may send stays within the stream's window. MsQuic: `RECEIVE_BUFFER_NEEDED`, which ends the
    /// connection if
    /// none is given at once.
    ReceiveBufferNeeded(usize),
    /// The peer has acknowledged a send, or the send was canceled. Its buffer is released. Delivered exactly once for
    /// each send. MsQuic: `SEND_COMPLETE`.
    SendComplete {
        /// The context that was passed to `send`.
        context: u64,
        /// Not all of the data was acknowledged.
        canceled: bool,
    },
    /// So many bytes should be queued on the stream from now on ([`Stream::ideal_send_buffer_size`]), so that there is always something to send:
    /// more is in flight than before. It only grows. Delivered on each stream that can send. MsQuic: `IDEAL_SEND_BUFFER_SIZE`.
    IdealSendBufferSize(u64),
    /// The peer has finished sending, and all of its data is consumed. MsQuic: `PEER_SEND_SHUTDOWN`.
    PeerSendShutdown,
    /// The peer has reset its sending side (RESET_STREAM). MsQuic: `PEER_SEND_ABORTED`.
    PeerSendAborted {
        /// The peer's application error code.
        code: u64,
    },
    /// The peer has asked us to stop sending (STOP_SENDING), and our sending side has been reset. MsQuic:
    /// `PEER_RECEIVE_ABORTED`.
    PeerReceiveAborted {
        /// The peer's application error code.
        code: u64,
    },
    /// Our sending side has ended. Not delivered for a stream that never started. MsQuic: `SEND_SHUTDOWN_COMPLETE`.
    SendShutdownComplete {
        /// The peer has acknowledged all data and the end of the stream; otherwise the stream was reset.
        graceful: bool,
    },
    /// The last event: the stream has ended. From now on, calls on its handles return `Closed`. MsQuic:
    /// `SHUTDOWN_COMPLETE`.
    ShutdownComplete {
        /// The stream ended because its connection did.
        connection_shutdown: bool,
        /// Then: who ended the connection, and why.
        reason: Option<&'a CloseReason>,
    },
}

/// Why a stream could not start.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum StartError {
    /// The peer's stream limit is reached, and the caller asked to fail rather than wait.
    #[error("the peer allows no more streams now")]
    LimitReached,
    /// The connection or the stream ended first.
    #[error("the connection or the stream has ended")]
    Closed,
}

/// A stream that the peer has opened and the application has yet to accept. Valid during the event that brings it.
pub struct IncomingStream<'a> {
    pub(crate) stream: &'a Stream,
    pub(crate) bidirectional: bool,
    pub(crate) zero_rtt: bool,
    pub(crate) handler: &'a mut Option<Box<dyn StreamHandler>>,
}

impl fmt::Debug for IncomingStream<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IncomingStream")
            .field("stream", self.stream)
            .finish_non_exhaustive()
    }
}

/// A connection that a client has requested. Accept it during the event that brings it, or later; dropping it refuses
/// the connection.
pub struct Incoming {
    pub(crate) connection: Arc<ConnectionShared>,
    pub(crate) hello: Box<ClientHelloInfo>,
    pub(crate) version: Version,
    pub(crate) local: SocketAddr,
    pub(crate) remote: SocketAddr,
    pub(crate) alpn: Vec<u8>,
    pub(crate) listener: Arc<ListenerShared>,
    pub(crate) address_validated: bool,
    /// Neither accepted nor refused yet.
    pub(crate) open: bool,
}

impl fmt::Debug for Incoming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Incoming")
            .field("connection", &self.connection.facts.number)
            .field("hello", &self.hello)
            .field("remote", &self.remote)
            .finish_non_exhaustive()
    }
}

/// Receives the events of a listener. Implemented for closures. All partitions call it in parallel.
pub trait ListenerHandler: Send + Sync + 'static {
    /// Called for each event, on the worker thread of the partition where it happened.
    fn on_event(&self, event: ListenerEvent);
}

impl<F: Fn(ListenerEvent) + Send + Sync + 'static> ListenerHandler for F {
    fn on_event(&self, event: ListenerEvent) {
        self(event);
    }
}

/// Receives the events of a connection. Implemented for closures that return an [`EventStatus`], or nothing, which is [`EventStatus::Done`].
pub trait ConnectionHandler: Send + 'static {
    /// Called for each event, on the connection's worker thread.
    fn on_event(&mut self, connection: &Connection, event: ConnectionEvent<'_>) -> EventStatus;
}

impl<F, R> ConnectionHandler for F
where
    F: FnMut(&Connection, ConnectionEvent<'_>) -> R + Send + 'static,
    R: Into<EventStatus>,
{
    fn on_event(&mut self, connection: &Connection, event: ConnectionEvent<'_>) -> EventStatus {
        self(connection, event).into()
    }
}

/// Receives the events of a stream. Implemented for closures that return an [`EventStatus`], or nothing, which is [`EventStatus::Done`].
pub trait StreamHandler: Send + 'static {
    /// Called for each event, on the connection's worker thread.
    fn on_event(&mut self, stream: &Stream, event: StreamEvent<'_>) -> EventStatus;
}

impl<F, R> StreamHandler for F
where
    F: FnMut(&Stream, StreamEvent<'_>) -> R + Send + 'static,
    R: Into<EventStatus>,
{
    fn on_event(&mut self, stream: &Stream, event: StreamEvent<'_>) -> EventStatus {
        self(stream, event).into()
    }
}
