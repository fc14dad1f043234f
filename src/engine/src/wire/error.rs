//! Errors that a peer can cause, with the code that goes into CONNECTION_CLOSE (RFC 9000 section 20.1).

use std::borrow::Cow;
use std::fmt;

use super::alert;
use crate::base::coding::UnexpectedEnd;
use crate::base::varint::VARINT_MAX;

/// The largest error code of an application: 2^62 - 1, as a variable-length integer has at most 62 bits (RFC 9000 section 16).
pub const ERROR_CODE_MAX: u64 = VARINT_MAX;

/// A transport error code.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TransportErrorCode(pub u64);

/// One table gives constant, number and text of every code.
macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $value:literal;)*) => {
        impl TransportErrorCode {
            $($(#[$doc])* pub const $name: TransportErrorCode = TransportErrorCode($value);)*
        }

        impl fmt::Debug for TransportErrorCode {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self.0 {
                    $($value => f.write_str(stringify!($name)),)*
                    other => match self.alert() {
                        None => write!(f, "{other:#x}"),
                        Some(number) => match alert::name(number) {
                            Some(name) => write!(f, "TLS alert {number} {name}"),
                            None => write!(f, "TLS alert {number}"),
                        },
                    },
                }
            }
        }
    };
}

codes! {
    /// The connection ends without an error.
    NO_ERROR = 0x0;
    /// We cannot go on for a reason of our own.
    INTERNAL_ERROR = 0x1;
    /// The server takes no new connections.
    CONNECTION_REFUSED = 0x2;
    /// More data than advertised limits allow.
    FLOW_CONTROL_ERROR = 0x3;
    /// More streams than the advertised limit allows.
    STREAM_LIMIT_ERROR = 0x4;
    /// A frame for a stream that is not in a state that allows it.
    STREAM_STATE_ERROR = 0x5;
    /// Data beyond the final size, or a final size that changed.
    FINAL_SIZE_ERROR = 0x6;
    /// A frame that is badly formatted.
    FRAME_ENCODING_ERROR = 0x7;
    /// Transport parameters that are badly formatted, missing or invalid.
    TRANSPORT_PARAMETER_ERROR = 0x8;
    /// More connection IDs than the advertised limit allows.
    CONNECTION_ID_LIMIT_ERROR = 0x9;
    /// A protocol error that no other code describes.
    PROTOCOL_VIOLATION = 0xa;
    /// An Initial with an invalid token.
    INVALID_TOKEN = 0xb;
    /// The application asked for the close before the handshake ended.
    APPLICATION_ERROR = 0xc;
    /// More CRYPTO data than can be buffered.
    CRYPTO_BUFFER_EXCEEDED = 0xd;
    /// A key update that is not allowed.
    KEY_UPDATE_ERROR = 0xe;
    /// The confidentiality or integrity limit of the AEAD is reached.
    AEAD_LIMIT_REACHED = 0xf;
    /// No path to the peer works.
    NO_VIABLE_PATH = 0x10;
    /// Version negotiation information that does not fit (RFC 9368).
    VERSION_NEGOTIATION_ERROR = 0x11;
}

impl TransportErrorCode {
    /// The code for a TLS alert (RFC 9001 section 4.8).
    pub const fn crypto(alert: u8) -> TransportErrorCode {
        TransportErrorCode(0x100 | alert as u64)
    }

    /// It says that the peer has broken the protocol.
    pub const fn is_protocol_error(self) -> bool {
        matches!(self.0, 0x3..=0xa | 0xd | 0xe | 0x11)
    }

    /// The TLS alert, if it is the code of one.
    pub const fn alert(self) -> Option<u8> {
        match self.0 {
            0x100..=0x1ff => Some(self.0 as u8),
            _ => None,
        }
    }
}

/// A transport error that we found: what is wrong, and on which frame.
#[derive(Clone, PartialEq, Eq)]
pub struct TransportError {
    /// The code for CONNECTION_CLOSE.
    pub code: TransportErrorCode,
    /// Type of the frame that caused it; 0 where unknown. The frame dispatch fills it in.
    pub frame_type: u64,
    /// What is wrong, for people. Goes on the wire as the reason phrase if it is a fixed text: what TLS says in its own words may tell of names
    /// and times that are nobody else's business.
    pub reason: Cow<'static, str>,
}

impl TransportError {
    /// An error found by the calling code.
    pub const fn new(code: TransportErrorCode, reason: &'static str) -> Self {
        TransportError {
            code,
            frame_type: 0,
            reason: Cow::Borrowed(reason),
        }
    }

    /// An error in words that were made for it.
    pub fn worded(code: TransportErrorCode, reason: String) -> Self {
        TransportError {
            code,
            frame_type: 0,
            reason: Cow::Owned(reason),
        }
    }

    /// What the peer may know of the reason.
    pub(crate) fn reason_phrase(&self) -> &'static str {
        match &self.reason {
            Cow::Borrowed(reason) => reason,
            Cow::Owned(_) => self.code.alert().and_then(alert::name).unwrap_or_default(),
        }
    }
}

impl From<UnexpectedEnd> for TransportError {
    fn from(_: UnexpectedEnd) -> Self {
        TransportError::new(TransportErrorCode::FRAME_ENCODING_ERROR, "truncated frame")
    }
}

impl fmt::Debug for TransportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl fmt::Display for TransportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({:?}", self.reason, self.code)?;
        // TLS messages come in frames of one type.
        if self.frame_type != 0 && self.code.alert().is_none() {
            write!(f, ", in a frame of type {:#x}", self.frame_type)?;
        }
        f.write_str(")")
    }
}

impl std::error::Error for TransportError {}
