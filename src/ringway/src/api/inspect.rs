//! What connections tell of themselves.

use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, mpsc};

use ringway_engine::connection::close::CloseReason;
use ringway_engine::connection::stats::ConnectionStats;
use ringway_engine::crypto::suite::CipherSuite;
use ringway_engine::crypto::tls::TlsInfo;
use ringway_engine::wire::Version;
use ringway_engine::wire::cid::ConnectionId;
use ringway_types::Instant;
use rustls::pki_types::CertificateDer;

use super::error::CallError;
use crate::worker::calls::CallOutcome;
use crate::worker::current;
use crate::worker::handles::Connection;
use crate::worker::hosted_connection::HostedConnection;

/// Tells a connection from all others of this process, for as long as it lasts. MsQuic: `CorrelationId`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct CorrelationId(u64);

impl CorrelationId {
    /// As a number, counted from 1 as connections are made.
    pub fn as_u64(self) -> u64 {
        self.0
    }
}

impl fmt::Display for CorrelationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What any thread can ask at any time, also when the connection has ended. These calls never wait for the worker: they tell what handlers
/// have been told last.
impl Connection {
    /// Tells the connection from all others of this process. Handles of one connection are equal and have the same.
    pub fn correlation_id(&self) -> CorrelationId {
        CorrelationId(self.0.facts.number)
    }

    /// The peer's address, in use or used last. MsQuic: `QUIC_PARAM_CONN_REMOTE_ADDRESS`.
    pub fn remote_address(&self) -> SocketAddr {
        self.0.facts.get().remote
    }

    /// Our address, in use or used last. Before a client has had an answer, its IP address may be unspecified. MsQuic:
    /// `QUIC_PARAM_CONN_LOCAL_ADDRESS`.
    pub fn local_address(&self) -> SocketAddr {
        self.0.facts.get().local
    }

    /// What the handshake has agreed on, from [`Connected`](crate::ConnectionEvent::Connected) on; it also exports keying material. `None` before:
    /// see [`Connection::with_tls_info`]. MsQuic: `QUIC_PARAM_TLS_HANDSHAKE_INFO`.
    pub fn tls_info(&self) -> Option<Arc<TlsInfo>> {
        self.0.facts.get().tls.clone()
    }

    /// The application protocol (ALPN), from [`Connected`](crate::ConnectionEvent::Connected) on. MsQuic: `QUIC_PARAM_TLS_NEGOTIATED_ALPN`.
    pub fn alpn(&self) -> Option<Box<[u8]>> {
        self.tls_info()?.alpn.clone()
    }

    /// The server's name as the client has asked for it (SNI), from [`Connected`](crate::ConnectionEvent::Connected) on.
    pub fn server_name(&self) -> Option<Box<str>> {
        self.tls_info()?.server_name.clone()
    }

    /// The cipher suite, from [`Connected`](crate::ConnectionEvent::Connected) on.
    pub fn cipher_suite(&self) -> Option<CipherSuite> {
        self.tls_info()?.cipher_suite
    }

    /// The peer's certificate chain (DER, end entity first), from [`Connected`](crate::ConnectionEvent::Connected) on; empty before, and if the peer
    /// has shown none.
    pub fn peer_certificates(&self) -> Arc<[CertificateDer<'static>]> {
        let info = self.tls_info();
        info.map_or_else(|| [].into(), |info| Arc::clone(&info.peer_certificates))
    }

    /// Who has ended the connection, and why, with the code and the text of CONNECTION_CLOSE, from the first event that says so on; `None` before.
    pub fn close_reason(&self) -> Option<Arc<CloseReason>> {
        self.0.facts.get().end.clone()
    }

    /// The partition that hosts the connection now. An accepted connection may move
    /// ([`IdealProcessorChanged`](crate::ConnectionEvent::IdealProcessorChanged)).
    pub fn partition(&self) -> usize {
        self.0.partition()
    }
}

/// What only the worker knows. In handlers of the connection these calls answer at once. **On other threads they wait for the worker**, about a turn
/// of its loop: so they are refused in handlers of other connections and of listeners, and must not be called on a thread that itself polls the
/// contexts of the registration, which would wait for ever.
impl Connection {
    /// Counters and estimates. MsQuic: `QUIC_PARAM_CONN_STATISTICS_V2`.
    ///
    /// # Errors
    ///
    /// [`CallError::WouldWait`]: called in a handler of another connection or of a listener. [`CallError::Closed`]: the connection has ended,
    /// and [`ShutdownComplete`](crate::ConnectionEvent::ShutdownComplete) has had its last counters.
    pub fn stats(&self) -> Result<ConnectionStats, CallError> {
        self.ask(|hosted, now| hosted.stats(now))
    }

    /// The version of QUIC in use. The handshake may change it (RFC 9368). MsQuic: `QUIC_PARAM_CONN_QUIC_VERSION`.
    ///
    /// # Errors
    ///
    /// As [`Connection::stats`].
    pub fn version(&self) -> Result<Version, CallError> {
        self.ask(|hosted, _| hosted.version())
    }

    /// The Destination Connection ID of the client's very first packet: the same on both sides, for logs. MsQuic: `QUIC_PARAM_CONN_ORIG_DEST_CID`.
    ///
    /// # Errors
    ///
    /// As [`Connection::stats`].
    pub fn original_destination_cid(&self) -> Result<ConnectionId, CallError> {
        self.ask(|hosted, _| hosted.original_destination_cid())
    }

    /// The highest ID that streams may have by now: those that the client opens, bidirectional, and the server, then unidirectional ones likewise
    /// (the order of RFC 9000 section 2.1); `None`: there may be none. MsQuic: `QUIC_PARAM_CONN_MAX_STREAM_IDS`.
    ///
    /// # Errors
    ///
    /// As [`Connection::stats`].
    pub fn max_stream_ids(&self) -> Result<[Option<u64>; 4], CallError> {
        self.ask(|hosted, _| hosted.max_stream_ids())
    }

    /// Asks the worker, and waits for the answer.
    pub(super) fn ask<R: Send + 'static>(
        &self,
        question: impl FnOnce(&mut HostedConnection, Instant) -> R + Send + 'static,
    ) -> Result<R, CallError> {
        if current::is_inside() && !current::is_of(&self.0) {
            return Err(CallError::WouldWait);
        }
        let (sender, receiver) = mpsc::sync_channel(1);
        // The caller waits: there is somebody to send to.
        let answer = move |answer, _: &mut HostedConnection| drop(sender.send(answer));
        match self.0.call_then(question, answer, false) {
            CallOutcome::Completed(answer) => Ok(answer),
            CallOutcome::Queued => receiver.recv().map_err(|_| CallError::Closed),
            CallOutcome::Closed => Err(CallError::Closed),
        }
    }
}
