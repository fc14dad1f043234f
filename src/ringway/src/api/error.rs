//! Errors of API calls: what went wrong, and what to do about it.

use std::io;

use ringway_engine::crypto::tls::TicketImportError;
use ringway_engine::wire::error::ERROR_CODE_MAX;
use thiserror::Error;

/// Why a call on a handle failed. It had no effect.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[non_exhaustive]
pub enum CallError {
    /// The object has ended or is about to: its `ShutdownComplete` has been or will be delivered.
    #[error("the object is closed")]
    Closed,
    /// The call does not fit the object's state, such as a send after the one that finished the stream.
    #[error("the call does not fit the object's state: {0}")]
    InvalidState(&'static str),
    /// An application error code has at most 62 bits, as everything that QUIC sends as a variable-length integer (RFC 9000 section 16): take a
    /// smaller one.
    #[error("the application error code {code} is too large: it has at most 62 bits")]
    ErrorCode {
        /// The code.
        code: u64,
    },
    /// A reason phrase is longer than [`REASON_PHRASE_MAX`](crate::REASON_PHRASE_MAX) bytes: take a shorter one.
    #[error("the reason phrase of {len} bytes is too long: it has at most {REASON_PHRASE_MAX}")]
    ReasonPhrase {
        /// Its length in bytes.
        len: usize,
    },
    /// The call waits for the connection's worker, and the calling thread is inside an event handler, which must not wait. In handlers of this
    /// connection it need not: call it there.
    #[error("a call that waits is made from an event handler of another connection")]
    WouldWait,
    /// A setting is out of its range.
    #[error(transparent)]
    Settings(SettingsError),
    /// The peer accepts no DATAGRAM frames, or none of this size.
    #[error("datagram too large or not supported by the peer: at most {max} bytes now")]
    DatagramTooLarge {
        /// The largest datagram that can be sent now, in bytes; 0 if the peer accepts none.
        max: usize,
    },
    /// The queue is full. Try again when earlier items have been reported as sent.
    #[error("the queue is full")]
    QueueFull,
}

/// The most bytes of what [`Connection::shutdown_with`](crate::Connection::shutdown_with) says for people. MsQuic:
/// `QUIC_MAX_CONN_CLOSE_REASON_LENGTH`.
pub const REASON_PHRASE_MAX: usize = 512;

/// Application error codes go on the wire: see [`CallError::ErrorCode`].
pub(super) fn checked_code(code: u64) -> Result<u64, CallError> {
    if code <= ERROR_CODE_MAX {
        Ok(code)
    } else {
        Err(CallError::ErrorCode { code })
    }
}

/// A setting is out of range.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[error("setting {field} must be {range}")]
#[non_exhaustive]
pub struct SettingsError {
    /// Name of the field.
    pub field: &'static str,
    /// The range that it must be in.
    pub range: &'static str,
}

/// Why a configuration could not be made.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ConfigurationError {
    /// A setting is out of range.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// The certificates, keys or cipher suites cannot be used.
    #[error("TLS: {0}")]
    Tls(#[from] ringway_engine::crypto::tls::TlsConfigError),
    /// The credential could not be had, for a reason of the application's
    /// ([`Configuration::load_credential_async`](crate::Configuration::load_credential_async)).
    #[error("the credential could not be had: {0}")]
    Unavailable(String),
    /// The credential is a client's and the configuration a server's, or the other way round.
    #[error(
        "the credential is for the other side: a server's configuration takes a server's, a client's a client's"
    )]
    OtherSide,
    /// There are no random numbers for a ticket key.
    #[error("the system provides no random numbers")]
    Random,
    /// There must be at least one ALPN name, and each must have 1 to 255 bytes (RFC 9001 section 8.1).
    #[error("at least one ALPN name of 1 to 255 bytes is needed")]
    Alpn,
}

/// Why a registration, a listener or a connection could not be set up.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SetupError {
    /// The configuration asks for something impossible.
    #[error("{0}")]
    InvalidConfig(String),
    /// A value of the execution configuration cannot be had. [`ExecutionConfig::origin`](crate::ExecutionConfig::origin)
    /// tells where it came from.
    #[error("{key}: {problem}")]
    InvalidValue {
        /// Its key, as configuration files write it: `processors`, `datapath.receive_buffers`.
        key: &'static str,
        /// What is wrong with it, and what would be right.
        problem: String,
    },
    /// A setting is out of range.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// The operating system refused.
    #[error("{action}: {error}")]
    Io {
        /// What was tried, and what may help.
        action: String,
        /// The system's error.
        error: io::Error,
    },
    /// The server's name is neither a DNS name nor an IP address.
    #[error("{0:?} is neither a DNS name nor an IP address")]
    ServerName(String),
    /// The ticket of another process that a connection should begin with does not serve it: it can begin without.
    #[error("resumption ticket: {0}; start the connection without it")]
    Ticket(TicketImportError),
    /// The registration has been closed.
    #[error("the registration is closed")]
    Closed,
}

impl SetupError {
    pub(crate) fn io(action: impl Into<String>) -> impl FnOnce(io::Error) -> SetupError {
        let action = action.into();
        move |error| SetupError::Io { action, error }
    }
}
