//! Errors of API calls: whose fault, and what to do.

use std::io;

use thiserror::Error;

/// Why a call on a handle did nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[non_exhaustive]
pub enum CallError {
    /// The object has ended, or is about to: its `ShutdownComplete` has been or will be delivered.
    #[error("the object is closed")]
    Closed,
    /// The call does not fit the state of the object: say, a send after the send that finished the stream.
    #[error("the call does not fit the object's state: {0}")]
    InvalidState(&'static str),
    /// The peer does not take DATAGRAM frames, or none of this size.
    #[error("datagram too large or not supported by the peer: at most {max} bytes now")]
    DatagramTooLarge {
        /// The most bytes that fit now; 0 if the peer takes no datagrams.
        max: usize,
    },
    /// The queue that the call appends to is full; try again when earlier items are reported as sent.
    #[error("the queue is full")]
    QueueFull,
}

/// A setting outside of its range.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[error("setting {field} must be {range}")]
pub struct SettingsError {
    /// Name of the field.
    pub field: &'static str,
    /// What it may be.
    pub range: &'static str,
}

/// Why a configuration could not be made.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ConfigurationError {
    /// A setting is outside of its range.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// Certificates, keys or cipher suites cannot be used.
    #[error("TLS: {0}")]
    Tls(#[from] ringway_engine::crypto::tls::TlsConfigError),
    /// ALPN names must be 1 to 255 bytes long, and there must be at least one (RFC 9001 section 8.1).
    #[error("at least one ALPN name of 1 to 255 bytes is needed")]
    Alpn,
}

/// Why a registration or a listener could not be set up.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SetupError {
    /// The configuration asks for something that cannot be.
    #[error("{0}")]
    InvalidConfig(String),
    /// The operating system refused.
    #[error("{action}: {error}")]
    Io {
        /// What was tried, and what may help.
        action: String,
        /// What the system said.
        error: io::Error,
    },
    /// The server's name is neither a DNS name nor an IP address.
    #[error("{0:?} is neither a DNS name nor an IP address")]
    ServerName(String),
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
