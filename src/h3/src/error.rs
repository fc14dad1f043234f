//! What the crate h3 is told of errors.

use std::sync::Arc;

use h3::quic::{ConnectionErrorIncoming, StreamErrorIncoming};
use ringway_async::{ConnectionError, ReadError, WriteError};

pub(crate) fn connection(error: ConnectionError) -> ConnectionErrorIncoming {
    match error {
        ConnectionError::ApplicationClosed(close) => ConnectionErrorIncoming::ApplicationClose {
            error_code: close.error_code.into_inner(),
        },
        ConnectionError::TimedOut => ConnectionErrorIncoming::Timeout,
        error => ConnectionErrorIncoming::Undefined(Arc::new(error)),
    }
}

pub(crate) fn lost(error: ConnectionError) -> StreamErrorIncoming {
    StreamErrorIncoming::ConnectionErrorIncoming {
        connection_error: connection(error),
    }
}

pub(crate) fn read(error: ReadError) -> StreamErrorIncoming {
    match error {
        ReadError::Reset(code) => StreamErrorIncoming::StreamTerminated {
            error_code: code.into_inner(),
        },
        ReadError::ConnectionLost(error) => lost(error),
        error => StreamErrorIncoming::Unknown(Box::new(error)),
    }
}

pub(crate) fn write(error: WriteError) -> StreamErrorIncoming {
    match error {
        WriteError::Stopped(code) => StreamErrorIncoming::StreamTerminated {
            error_code: code.into_inner(),
        },
        WriteError::ConnectionLost(error) => lost(error),
        error => StreamErrorIncoming::Unknown(Box::new(error)),
    }
}

#[cfg(test)]
mod tests {
    use ringway_async::{ApplicationClose, VarInt};

    use super::*;

    fn closed_by_peer() -> ConnectionError {
        ConnectionError::ApplicationClosed(ApplicationClose {
            error_code: VarInt::from_u32(0x107),
            reason: "load".to_owned(),
        })
    }

    #[test]
    fn codes_of_the_peer_arrive_at_h3() {
        let code = VarInt::from_u32(0x10c);
        for error in [read(ReadError::Reset(code)), write(WriteError::Stopped(code))] {
            assert!(matches!(
                error,
                StreamErrorIncoming::StreamTerminated { error_code: 0x10c }
            ));
        }
        for error in [
            read(closed_by_peer().into()),
            write(closed_by_peer().into()),
            lost(closed_by_peer()),
        ] {
            let StreamErrorIncoming::ConnectionErrorIncoming { connection_error } = error else {
                panic!("{error:?}");
            };
            assert!(matches!(
                connection_error,
                ConnectionErrorIncoming::ApplicationClose { error_code: 0x107 }
            ));
        }
    }

    #[test]
    fn what_h3_has_no_word_for_keeps_its_own() {
        assert!(matches!(
            connection(ConnectionError::TimedOut),
            ConnectionErrorIncoming::Timeout
        ));
        let ConnectionErrorIncoming::Undefined(error) = connection(ConnectionError::Reset) else {
            panic!("a reset is not h3's");
        };
        assert_eq!(error.to_string(), ConnectionError::Reset.to_string());
        let StreamErrorIncoming::Unknown(error) = write(WriteError::ClosedStream) else {
            panic!("it is no error of the peer");
        };
        assert_eq!(error.to_string(), WriteError::ClosedStream.to_string());
    }
}
