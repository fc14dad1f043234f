//! Calls on streams.

use bytes::Bytes;
use ringway_engine::streams::{Dir, FlowClock, SendError, StreamKey, Streams};

use super::error::{CallError, checked_code};
use crate::worker::calls::CallOutcome;
use crate::worker::events::{IncomingStream, StreamHandler};
use crate::worker::handles::{Connection, Stream, StreamShared};
use crate::worker::hosted_connection::HostedConnection;
use crate::worker::known::{Misfit, StreamKnown};

/// Which ends of a stream may send.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Direction {
    /// Both.
    Bidirectional,
    /// Only the end that opened the stream.
    Unidirectional,
}

/// How to end a stream, or one direction of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StreamShutdown {
    /// The sending side ends after the data that has been queued.
    Graceful,
    /// The sending side is reset at once, with this application error code (RESET_STREAM).
    AbortSend(u64),
    /// The peer is asked to stop sending, with this application error code (STOP_SENDING).
    AbortReceive(u64),
    /// Both directions are aborted, with this application error code.
    Abort(u64),
}

/// How data is sent. MsQuic: `QUIC_SEND_FLAGS`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct SendFlags(u8);

impl SendFlags {
    /// None of them.
    pub const NONE: SendFlags = SendFlags(0);
    /// The sending side ends after this data.
    pub const FIN: SendFlags = SendFlags(1);
    /// A client that has a ticket for it may send this data in 0-RTT, before the handshake is complete. **Others can have the server read it
    /// again**: it should only ask for what may be done twice. What the server does not take in 0-RTT, or what there is no ticket for, is sent when
    /// the handshake is complete. Of a stream, only the first data can go in 0-RTT, up to the first without this flag.
    pub const ALLOW_0_RTT: SendFlags = SendFlags(2);
    /// Of datagrams: it goes before those that have no priority. MsQuic: `QUIC_SEND_FLAG_DGRAM_PRIORITY`.
    pub const DATAGRAM_PRIORITY: SendFlags = SendFlags(4);
    /// Of datagrams: if it cannot be sent at once, because the congestion window is full, pacing holds it back or the handshake is not complete, it is
    /// canceled. MsQuic: `QUIC_SEND_FLAG_CANCEL_ON_BLOCKED`.
    pub const CANCEL_ON_BLOCKED: SendFlags = SendFlags(8);

    /// True if all of `flags` are set.
    pub const fn contains(self, flags: SendFlags) -> bool {
        self.0 & flags.0 == flags.0
    }
}

impl std::ops::BitOr for SendFlags {
    type Output = SendFlags;

    fn bitor(self, other: SendFlags) -> SendFlags {
        SendFlags(self.0 | other.0)
    }
}

impl StreamShutdown {
    fn code(self) -> Option<u64> {
        match self {
            StreamShutdown::Graceful => None,
            StreamShutdown::AbortSend(code)
            | StreamShutdown::AbortReceive(code)
            | StreamShutdown::Abort(code) => Some(code),
        }
    }
}

impl Stream {
    /// Creates a stream. Data can be queued at once, but nothing is sent before [`Stream::start`]. MsQuic:
    /// `StreamOpen`.
    pub fn open(
        connection: &Connection,
        direction: Direction,
        handler: impl StreamHandler,
    ) -> Result<Stream, CallError> {
        let known = StreamKnown::of_ours(direction == Direction::Bidirectional);
        let stream = Stream(StreamShared::new(connection.clone(), known));
        let dir = match direction {
            Direction::Bidirectional => Dir::Bi,
            Direction::Unidirectional => Dir::Uni,
        };
        let handler: Box<dyn StreamHandler> = Box::new(handler);
        let added = stream.clone();
        match connection
            .0
            .call(move |hosted, _| hosted.add_stream(added, dir, handler))
        {
            CallOutcome::Completed(()) | CallOutcome::Queued => Ok(stream),
            CallOutcome::Closed => Err(CallError::Closed),
        }
    }

    /// Starts the stream. Exactly one [`StartComplete`](crate::StreamEvent::StartComplete) follows. If the peer's limit
    /// is reached, it follows when the peer raises the limit, or, with `fail_if_blocked`, at once with the reason.
    /// MsQuic: `StreamStart`.
    ///
    /// # Errors
    ///
    /// [`CallError::InvalidState`]: the stream has been started already. [`CallError::Closed`]: the stream has ended.
    pub fn start(&self, fail_if_blocked: bool) -> Result<(), CallError> {
        self.check(StreamKnown::start)?;
        self.call(move |streams, key, _| streams.start(key, fail_if_blocked))
    }

    /// Queues data; with `fin`, the sending side ends after it. MsQuic: `StreamSend`.
    ///
    /// After `Ok`, exactly one [`SendComplete`](crate::StreamEvent::SendComplete) with `context` follows. `data` is not
    /// copied: it is held until then.
    ///
    /// # Errors
    ///
    /// [`CallError::InvalidState`]: the sending side has ended, or the stream has none. [`CallError::QueueFull`]: as much is queued on the
    /// connection's streams as [`Settings::send_queue_limit`](crate::Settings::send_queue_limit) allows: send again after a `SendComplete` of one of
    /// them. [`CallError::Closed`]: the stream has ended.
    pub fn send(&self, data: Bytes, context: u64, fin: bool) -> Result<(), CallError> {
        self.send_with(data, context, if fin { SendFlags::FIN } else { SendFlags::NONE })
    }

    /// The same with flags.
    ///
    /// # Errors
    ///
    /// As [`Stream::send`].
    pub fn send_with(&self, data: Bytes, context: u64, flags: SendFlags) -> Result<(), CallError> {
        let fin = flags.contains(SendFlags::FIN);
        self.check(StreamKnown::send)?;
        if !self.0.connection.0.known.has_send_room() {
            return Err(CallError::QueueFull);
        }
        if fin {
            self.check(StreamKnown::finish)?;
        }
        let len = data.len();
        let send = move |hosted: &mut HostedConnection, stream: &StreamShared, _| {
            let sent = match hosted.stream(stream) {
                Some((streams, key)) if flags.contains(SendFlags::ALLOW_0_RTT) => {
                    streams.send_early(key, data, context, fin)
                }
                Some((streams, key)) => streams.send(key, data, context, fin),
                None => Err(SendError::Closed),
            };
            hosted.tell_send_room();
            sent
        };
        let failed =
            move |hosted: &mut HostedConnection, stream: &StreamShared| hosted.cancel_send(stream, context);
        result(self.0.call_or(len, send, failed))
    }

    /// Ends the stream, or one direction of it. MsQuic: `StreamShutdown`.
    ///
    /// # Errors
    ///
    /// [`CallError::ErrorCode`]: the code is above [`ERROR_CODE_MAX`](crate::ERROR_CODE_MAX). [`CallError::InvalidState`]: the sending side has
    /// ended already, or the stream has none. [`CallError::Closed`]: the stream has ended.
    pub fn shutdown(&self, how: StreamShutdown) -> Result<(), CallError> {
        how.code().map_or(Ok(0), checked_code)?;
        self.check(|known| match how {
            StreamShutdown::Graceful => known.finish(),
            StreamShutdown::AbortSend(_) => known.abort_send(),
            StreamShutdown::AbortReceive(_) => {
                known.withdraw();
                known.receive()
            }
            StreamShutdown::Abort(_) => {
                known.withdraw();
                known.end_send();
                Ok(())
            }
        })?;
        self.call(move |streams, key, clock| {
            match how {
                StreamShutdown::Graceful => return streams.finish_sending(key),
                StreamShutdown::AbortSend(code) => streams.reset(key, code),
                StreamShutdown::AbortReceive(code) => streams.stop_sending(clock, key, code),
                StreamShutdown::Abort(code) => streams.abort(clock, key, code),
            }
            Ok(())
        })
    }

    /// Completes a `Receive` event whose status was [`Pending`](crate::EventStatus::Pending): `bytes` of its data are
    /// consumed. If that is less than all, receiving pauses until [`Stream::set_receive_enabled`]. MsQuic:
    /// `StreamReceiveComplete`.
    ///
    /// # Errors
    ///
    /// [`CallError::InvalidState`]: no `Receive` event waits to be completed, or it had fewer bytes. [`CallError::Closed`]: the stream has ended.
    pub fn receive_complete(&self, bytes: usize) -> Result<(), CallError> {
        let mut len = 0;
        self.check(|known| known.complete(bytes).map(|pending| len = pending))?;
        let completed = self.call(move |streams, key, clock| {
            if streams.receive_complete(clock, key, bytes as u64) {
                Ok(())
            } else {
                Err(SendError::InvalidState)
            }
        });
        if let Err(CallError::InvalidState(_)) = completed {
            // The handler that has the data calls this: it may yet return `Pending`.
            self.0.known.offer(len);
            return Err(CallError::InvalidState(
                "the Receive event waits to be completed only after its handler has returned Pending",
            ));
        }
        completed
    }

    /// Pauses or resumes receiving. MsQuic: `StreamReceiveSetEnabled`.
    ///
    /// # Errors
    ///
    /// [`CallError::InvalidState`]: the stream has no receiving side. [`CallError::Closed`]: the stream has ended.
    pub fn set_receive_enabled(&self, enabled: bool) -> Result<(), CallError> {
        self.check(StreamKnown::receive)?;
        self.call(move |streams, key, _| {
            streams.set_receive_enabled(key, enabled);
            Ok(())
        })
    }

    /// Sets the priority. Streams with higher priorities send first. Default: 0x7fff. MsQuic: `QUIC_PARAM_STREAM_PRIORITY`.
    ///
    /// # Errors
    ///
    /// [`CallError::Closed`]: the stream has ended.
    pub fn set_priority(&self, priority: u16) -> Result<(), CallError> {
        self.call(move |streams, key, _| {
            streams.set_priority(key, priority);
            Ok(())
        })
    }

    /// How many bytes should be queued on a stream of the connection, so that there is always something to send; more than twice as much only
    /// takes memory. It begins at 128 KiB and grows with what is in flight ([`IdealSendBufferSize`](crate::StreamEvent::IdealSendBufferSize)).
    /// MsQuic: `QUIC_PARAM_STREAM_IDEAL_SEND_BUFFER_SIZE`.
    pub fn ideal_send_buffer_size(&self) -> u64 {
        self.0.connection.0.known.ideal_send()
    }

    /// The stream ID, once the stream has started.
    pub fn id(&self) -> Option<u64> {
        self.0.id()
    }

    /// The connection of the stream.
    pub fn connection(&self) -> &Connection {
        &self.0.connection
    }

    /// What is known of the stream already decides whether a call fits it.
    #[inline]
    fn check(&self, call: impl FnOnce(&StreamKnown) -> Result<(), Misfit>) -> Result<(), CallError> {
        match call(&self.0.known) {
            Err(_) if self.0.is_closed() => Err(CallError::Closed),
            Err(misfit) => Err(CallError::InvalidState(misfit)),
            Ok(()) => Ok(()),
        }
    }

    fn call(
        &self,
        operation: impl FnOnce(&mut Streams, StreamKey, FlowClock) -> Result<(), SendError> + Send + 'static,
    ) -> Result<(), CallError> {
        let operation = move |hosted: &mut HostedConnection, stream: &StreamShared, now| {
            let clock = hosted.flow_clock(now);
            match hosted.stream(stream) {
                Some((streams, key)) => operation(streams, key, clock),
                None => Err(SendError::Closed),
            }
        };
        result(self.0.call_or(0, operation, |_, _| ()))
    }
}

fn result(outcome: CallOutcome<Result<(), SendError>>) -> Result<(), CallError> {
    match outcome {
        CallOutcome::Completed(result) => result.map_err(call_error),
        CallOutcome::Queued => Ok(()),
        CallOutcome::Closed => Err(CallError::Closed),
    }
}

fn call_error(error: SendError) -> CallError {
    match error {
        SendError::Closed => CallError::Closed,
        SendError::InvalidState => CallError::InvalidState(
            "this side of the stream has ended, or the stream has been started already",
        ),
    }
}

impl<'a> IncomingStream<'a> {
    /// Accepts the stream; `handler` receives its events. Clone the handle to keep it.
    pub fn accept(self, handler: impl StreamHandler) -> &'a Stream {
        *self.handler = Some(Box::new(handler));
        self.stream
    }

    /// Which ends may send.
    pub fn direction(&self) -> Direction {
        if self.bidirectional {
            Direction::Bidirectional
        } else {
            Direction::Unidirectional
        }
    }

    /// The client has opened it in 0-RTT: others may have sent the same before, or may send it again.
    pub fn is_zero_rtt(&self) -> bool {
        self.zero_rtt
    }

    /// The stream ID.
    pub fn id(&self) -> u64 {
        self.stream.id().unwrap_or_default()
    }

    /// The handle of the stream, for calls before it is accepted.
    pub fn stream(&self) -> &'a Stream {
        self.stream
    }
}
