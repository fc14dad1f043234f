//! What tasks want of a stream, and the call of the callback API that it is.

use bytes::Bytes;
use ringway::{CallError, StreamShutdown};

use crate::stream_ref::StreamShared;

/// What a task wants of a stream.
pub(crate) enum StreamCall {
    Send {
        data: Bytes,
        /// Nothing follows.
        fin: bool,
    },
    Finish,
    Reset(u64),
    Stop(u64),
    /// The reader has room again.
    Resume,
    SetPriority(u16),
}

/// The context of a send whose completion nobody waits for: no more is written behind it.
pub(crate) const UNCOUNTED: u64 = 0;

impl StreamCall {
    /// It has its place among what is sent.
    pub(crate) fn is_send(&self) -> bool {
        matches!(self, StreamCall::Send { .. } | StreamCall::Finish)
    }

    /// Carries it out, once; false for a send for which the connection's send queue has no room.
    pub(crate) fn carry_out(&mut self, stream: &StreamShared) -> bool {
        let Some(callback) = stream.callback.get() else {
            // It has ended before it began.
            return true;
        };
        // Another `Err`: the stream or the connection has ended, as its events say.
        let _ = match self {
            StreamCall::Send { data, fin } => {
                let context = if *fin { UNCOUNTED } else { data.len() as u64 };
                match callback.send(data.clone(), context, *fin) {
                    Err(CallError::QueueFull) => return false,
                    result => result,
                }
            }
            StreamCall::Finish => callback.shutdown(StreamShutdown::Graceful),
            StreamCall::Reset(code) => callback.shutdown(StreamShutdown::AbortSend(*code)),
            StreamCall::Stop(code) => callback.shutdown(StreamShutdown::AbortReceive(*code)),
            StreamCall::Resume => callback.set_receive_enabled(true),
            StreamCall::SetPriority(priority) => callback.set_priority(*priority),
        };
        true
    }
}
