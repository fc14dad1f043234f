//! What operations fail with.

use std::io;
use std::sync::Arc;

use ringway::{CloseReason, TransportError, TransportErrorCode};
use thiserror::Error;

use crate::var_int::VarInt;

/// Why a connection has ended.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
#[non_exhaustive]
pub enum ConnectionError {
    /// The server speaks none of the client's versions.
    #[error("the server speaks none of our versions")]
    VersionMismatch,
    /// We have found an error in what the peer does, or the handshake has failed here.
    #[error(transparent)]
    TransportError(TransportError),
    /// The peer's transport has found an error, or refuses the connection.
    #[error("the peer has closed the connection: {0}")]
    ConnectionClosed(ConnectionClose),
    /// The peer's application has closed it.
    #[error("the peer's application has closed the connection: {0}")]
    ApplicationClosed(ApplicationClose),
    /// The peer no longer knows the connection.
    #[error("the peer no longer knows the connection")]
    Reset,
    /// Nothing was received, or nothing acknowledged, or the handshake not completed, within its time.
    #[error("timed out")]
    TimedOut,
    /// It was closed on this side: by `close`, by the drop of its last handle, or with its registration.
    #[error("closed")]
    LocallyClosed,
    /// It has ended for another reason.
    #[error("{0}")]
    Other(Arc<CloseReason>),
}

/// What the peer's transport says as it closes a connection.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
#[error("{error_code:?}: {reason}")]
pub struct ConnectionClose {
    /// The transport error code.
    pub error_code: TransportErrorCode,
    /// Type of the frame that caused it; 0 if unknown.
    pub frame_type: u64,
    /// For people.
    pub reason: String,
}

/// What the peer's application says as it closes a connection.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
#[error("code {error_code}: {reason}")]
pub struct ApplicationClose {
    /// The application error code.
    pub error_code: VarInt,
    /// For people.
    pub reason: String,
}

impl From<&CloseReason> for ConnectionError {
    fn from(reason: &CloseReason) -> Self {
        match reason {
            CloseReason::LocalApplication { .. } => ConnectionError::LocallyClosed,
            CloseReason::PeerApplication { code, reason } => {
                ConnectionError::ApplicationClosed(ApplicationClose {
                    error_code: VarInt::of_peer(*code),
                    reason: reason.clone(),
                })
            }
            CloseReason::Transport(error) => ConnectionError::TransportError(error.clone()),
            CloseReason::PeerTransport {
                code,
                frame_type,
                reason,
            } => ConnectionError::ConnectionClosed(ConnectionClose {
                error_code: *code,
                frame_type: *frame_type,
                reason: reason.clone(),
            }),
            CloseReason::IdleTimeout | CloseReason::HandshakeTimeout | CloseReason::Unresponsive => {
                ConnectionError::TimedOut
            }
            CloseReason::StatelessReset => ConnectionError::Reset,
            CloseReason::VersionNegotiation { .. } => ConnectionError::VersionMismatch,
            reason => ConnectionError::Other(Arc::new(reason.clone())),
        }
    }
}

/// Why nothing can be read from a stream.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The peer has reset the stream, with this application error code.
    #[error("the peer has reset the stream with code {0}")]
    Reset(VarInt),
    /// The connection has ended.
    #[error("the connection has ended: {0}")]
    ConnectionLost(#[from] ConnectionError),
    /// It was stopped, or has been read to its end.
    #[error("the stream is closed")]
    ClosedStream,
}

/// Why nothing can be written to a stream.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
#[non_exhaustive]
pub enum WriteError {
    /// The peer has no use for more, and says so with this application error code.
    #[error("the peer has stopped the stream with code {0}")]
    Stopped(VarInt),
    /// The connection has ended.
    #[error("the connection has ended: {0}")]
    ConnectionLost(#[from] ConnectionError),
    /// It was finished or reset.
    #[error("the stream is closed")]
    ClosedStream,
}

/// It is not known whether the peer has got everything.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
#[non_exhaustive]
pub enum StoppedError {
    /// The connection has ended.
    #[error("the connection has ended: {0}")]
    ConnectionLost(#[from] ConnectionError),
    /// The stream was reset here.
    #[error("the stream is closed")]
    ClosedStream,
}

/// The stream has been finished, reset or stopped already.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[error("the stream is closed")]
pub struct ClosedStream;

/// Why a buffer was not filled.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
#[non_exhaustive]
pub enum ReadExactError {
    /// The stream ended after so many bytes.
    #[error("the stream has ended after {0} bytes")]
    FinishedEarly(usize),
    /// Nothing can be read.
    #[error(transparent)]
    ReadError(#[from] ReadError),
}

/// Why a stream could not be read to its end.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
#[non_exhaustive]
pub enum ReadToEndError {
    /// It has more bytes than the caller takes.
    #[error("the stream is longer than the limit")]
    TooLong,
    /// Nothing can be read.
    #[error(transparent)]
    Read(#[from] ReadError),
}

/// Why a datagram was not sent.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
#[non_exhaustive]
pub enum SendDatagramError {
    /// The peer takes no datagrams.
    #[error("the peer takes no datagrams")]
    UnsupportedByPeer,
    /// It fits no packet: at most [`max_datagram_size`](crate::Connection::max_datagram_size) bytes do.
    #[error("the datagram is too large")]
    TooLarge,
    /// So many wait already that another one would only be late: drop it, or wait with
    /// [`send_datagram_wait`](crate::Connection::send_datagram_wait).
    #[error("too many datagrams wait")]
    QueueFull,
    /// The connection has ended.
    #[error("the connection has ended: {0}")]
    ConnectionLost(#[from] ConnectionError),
}

impl From<ConnectionError> for io::Error {
    fn from(error: ConnectionError) -> io::Error {
        let kind = match error {
            ConnectionError::TimedOut => io::ErrorKind::TimedOut,
            ConnectionError::Reset => io::ErrorKind::ConnectionReset,
            ConnectionError::ApplicationClosed(_) | ConnectionError::ConnectionClosed(_) => {
                io::ErrorKind::ConnectionAborted
            }
            ConnectionError::LocallyClosed => io::ErrorKind::NotConnected,
            _ => io::ErrorKind::Other,
        };
        io::Error::new(kind, error)
    }
}

impl From<ReadError> for io::Error {
    fn from(error: ReadError) -> io::Error {
        match error {
            ReadError::Reset(_) => io::Error::new(io::ErrorKind::ConnectionReset, error),
            ReadError::ConnectionLost(error) => error.into(),
            ReadError::ClosedStream => io::Error::new(io::ErrorKind::NotConnected, error),
        }
    }
}

impl From<WriteError> for io::Error {
    fn from(error: WriteError) -> io::Error {
        match error {
            WriteError::Stopped(_) => io::Error::new(io::ErrorKind::ConnectionReset, error),
            WriteError::ConnectionLost(error) => error.into(),
            WriteError::ClosedStream => io::Error::new(io::ErrorKind::NotConnected, error),
        }
    }
}

impl From<ClosedStream> for io::Error {
    fn from(error: ClosedStream) -> io::Error {
        io::Error::new(io::ErrorKind::NotConnected, error)
    }
}
