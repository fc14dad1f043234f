//! How connections end (RFC 9000 section 10).

use std::borrow::Cow;
use std::fmt;

use ringway_types::Instant;

use crate::crypto::tls::EchRejected;
use crate::wire::error::{TransportError, TransportErrorCode};

/// Why a connection ended.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum CloseReason {
    /// Our application ended it.
    LocalApplication {
        /// Application error code.
        code: u64,
        /// For people.
        reason: String,
    },
    /// The peer's application ended it.
    PeerApplication {
        /// Application error code.
        code: u64,
        /// For people.
        reason: String,
    },
    /// We found an error.
    Transport(TransportError),
    /// The server has not decrypted our Encrypted Client Hello.
    EchRejected(EchRejected),
    /// The peer found an error, or refused the connection.
    PeerTransport {
        /// Transport error code.
        code: TransportErrorCode,
        /// Type of the frame that caused it; 0 if unknown.
        frame_type: u64,
        /// For people.
        reason: String,
    },
    /// Nothing was received for the idle timeout.
    IdleTimeout,
    /// The handshake did not complete within its time.
    HandshakeTimeout,
    /// A handshake was given up to let others in.
    Overloaded,
    /// The peer acknowledged nothing for the disconnect timeout.
    Unresponsive,
    /// The peer no longer knows the connection.
    StatelessReset,
    /// The server speaks none of our versions.
    VersionNegotiation {
        /// What it speaks.
        offered: Vec<u32>,
    },
    /// No path to the peer could be validated (RFC 9000 section 9.3.2).
    NoViablePath,
    /// This host has no way to the server, as the system says when the first packets are sent.
    Unreachable {
        /// The system's words.
        error: String,
    },
}

/// Who ended a connection.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum ClosedBy {
    /// Our application.
    Application,
    /// Our transport: an error that it found, or a timeout.
    Transport,
    /// The peer's application.
    PeerApplication,
    /// The peer's transport: an error that it found, a refusal, or it knows the connection no more.
    PeerTransport,
}

impl CloseReason {
    /// Who ended the connection.
    pub fn closed_by(&self) -> ClosedBy {
        match self {
            CloseReason::LocalApplication { .. } => ClosedBy::Application,
            CloseReason::PeerApplication { .. } => ClosedBy::PeerApplication,
            CloseReason::PeerTransport { .. }
            | CloseReason::StatelessReset
            | CloseReason::VersionNegotiation { .. } => ClosedBy::PeerTransport,
            CloseReason::Transport(_)
            | CloseReason::EchRejected(_)
            | CloseReason::IdleTimeout
            | CloseReason::HandshakeTimeout
            | CloseReason::Overloaded
            | CloseReason::Unresponsive
            | CloseReason::NoViablePath
            | CloseReason::Unreachable { .. } => ClosedBy::Transport,
        }
    }

    /// The error code of CONNECTION_CLOSE: the application's, or one of the transport, as [`CloseReason::closed_by`] says; `None` if there is none.
    pub fn code(&self) -> Option<u64> {
        match self {
            CloseReason::LocalApplication { code, .. } | CloseReason::PeerApplication { code, .. } => {
                Some(*code)
            }
            CloseReason::Transport(error) => Some(error.code.0),
            CloseReason::PeerTransport { code, .. } => Some(code.0),
            _ => None,
        }
    }

    /// What CONNECTION_CLOSE says for people; empty if nothing. MsQuic: `QUIC_PARAM_CONN_CLOSE_REASON_PHRASE`.
    pub fn reason_phrase(&self) -> &str {
        match self {
            CloseReason::LocalApplication { reason, .. }
            | CloseReason::PeerApplication { reason, .. }
            | CloseReason::PeerTransport { reason, .. } => reason,
            CloseReason::Transport(error) => error.reason_phrase(),
            _ => "",
        }
    }
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CloseReason::LocalApplication { code, reason } => {
                write!(f, "closed by the application with code {code}")?;
                if !reason.is_empty() {
                    write!(f, ": {reason:?}")?;
                }
                Ok(())
            }
            CloseReason::PeerApplication { code, reason } => {
                write!(f, "closed by the peer's application with code {code}: {reason:?}")
            }
            CloseReason::Transport(error) if error.code.alert().is_some() => {
                write!(f, "we refused the handshake: {error}")
            }
            CloseReason::Transport(error) => write!(f, "we found an error: {error}"),
            CloseReason::EchRejected(rejected) => {
                f.write_str("we refused the server, which did not decrypt the Encrypted Client Hello")?;
                match &rejected.retry_configurations {
                    Some(_) => f.write_str(": it has other configurations to try again with"),
                    None => f.write_str(": it has no configuration for it"),
                }
            }
            CloseReason::PeerTransport {
                code,
                frame_type,
                reason,
            } => {
                let did = if code.alert().is_some() {
                    "refused the handshake"
                } else {
                    "found an error"
                };
                write!(f, "the peer {did}: {code:?}")?;
                if !reason.is_empty() {
                    write!(f, ": {reason:?}")?;
                }
                if *frame_type != 0 && code.alert().is_none() {
                    write!(f, " (in a frame of type {frame_type:#x})")?;
                }
                Ok(())
            }
            CloseReason::IdleTimeout => f.write_str("idle timeout"),
            CloseReason::HandshakeTimeout => f.write_str("the handshake did not complete within its time"),
            CloseReason::Overloaded => f.write_str("too many handshakes at once: this one was given up"),
            CloseReason::Unresponsive => f.write_str("the peer acknowledges nothing any more"),
            CloseReason::StatelessReset => {
                f.write_str("the peer no longer knows the connection (stateless reset)")
            }
            CloseReason::VersionNegotiation { offered } => {
                write!(f, "the server speaks only versions {offered:x?}")
            }
            CloseReason::NoViablePath => f.write_str("no path to the peer works"),
            CloseReason::Unreachable { error } => write!(f, "this host has no way to the server: {error}"),
        }
    }
}

/// How far the end has come.
#[derive(Debug)]
pub(super) enum State {
    /// Not ended.
    Open,
    /// We say why we close, for as long as the peer goes on (section 10.2.1).
    Closing(Closing),
    /// The peer has closed: one answer may go out, then nothing (section 10.2.2).
    Draining {
        /// When the state may be forgotten.
        until: Instant,
        /// The answer is to be sent.
        answer: bool,
    },
    /// Nothing left to do.
    Drained,
}

#[derive(Debug)]
pub(super) struct Closing {
    /// When the state may be forgotten.
    pub(super) until: Instant,
    pub(super) frame: CloseFrame,
    /// The frame is to be sent (again).
    pub(super) pending: bool,
    /// Packets received since.
    pub(super) received: u32,
}

/// What CONNECTION_CLOSE says.
#[derive(Clone, Debug)]
pub(super) struct CloseFrame {
    /// An application's code, or a transport error code with a frame type.
    pub(super) code: u64,
    pub(super) frame_type: Option<u64>,
    pub(super) reason: Cow<'static, str>,
}

impl CloseFrame {
    pub(super) fn application(code: u64, reason: String) -> Self {
        CloseFrame {
            code,
            frame_type: None,
            reason: reason.into(),
        }
    }

    pub(super) fn transport(error: &TransportError) -> Self {
        CloseFrame {
            code: error.code.0,
            frame_type: Some(error.frame_type),
            reason: error.reason_phrase().into(),
        }
    }

    /// As it may go into a packet that others than the peer can read: an application's code would reveal something of the
    /// application (section 10.2.3).
    pub(super) fn in_handshake(&self) -> CloseFrame {
        match self.frame_type {
            Some(_) => self.clone(),
            None => CloseFrame {
                code: TransportErrorCode::APPLICATION_ERROR.0,
                frame_type: Some(0),
                reason: "".into(),
            },
        }
    }
}

impl Closing {
    /// A packet of the peer arrived: it has not seen the close. Answered ever more rarely (section 10.2.1).
    pub(super) fn on_packet(&mut self) {
        self.received += 1;
        self.pending |= self.received.is_power_of_two();
    }
}
