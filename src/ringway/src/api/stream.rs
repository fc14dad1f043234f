//! Calls on streams.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use ringway_engine::connection::stats::StreamStats;
use ringway_engine::streams::{Dir, FlowClock, SendError, SendOptions, StartOptions, StreamKey, Streams};

use super::error::{CallError, checked_code};
use super::flags::{OpenFlags, SendFlags, StartFlags};
use crate::worker::calls::{CallOutcome, Weight};
use crate::worker::current;
use crate::worker::events::{IncomingStream, StreamHandler};
use crate::worker::handles::{Connection, Stream, StreamShared};
use crate::worker::hosted_connection::{HostedConnection, Reading};
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
    /// The same, and [`ShutdownComplete`](crate::StreamEvent::ShutdownComplete) does not wait until the peer knows. MsQuic:
    /// `QUIC_STREAM_SHUTDOWN_FLAG_IMMEDIATE`.
    AbortImmediately(u64),
}

impl StreamShutdown {
    fn code(self) -> Option<u64> {
        match self {
            StreamShutdown::Graceful => None,
            StreamShutdown::AbortSend(code)
            | StreamShutdown::AbortReceive(code)
            | StreamShutdown::Abort(code)
            | StreamShutdown::AbortImmediately(code) => Some(code),
        }
    }
}

impl Stream {
    /// Creates a stream. Data can be queued at once, but nothing is sent before [`Stream::start`]. The stream ends when its last handle is
    /// [dropped](Stream#dropping), unless it is [detached](Stream::detach). MsQuic: `StreamOpen`.
    ///
    /// # Errors
    ///
    /// [`CallError::Closed`]: the connection has ended.
    pub fn open(
        connection: &Connection,
        direction: Direction,
        handler: impl StreamHandler,
    ) -> Result<Stream, CallError> {
        Stream::open_with(connection, direction, OpenFlags::NONE, handler)
    }

    /// The same with flags.
    ///
    /// # Errors
    ///
    /// As [`Stream::open`], and [`CallError::InvalidState`]: [`OpenFlags::UNORDERED`] with [`OpenFlags::APP_OWNED_BUFFERS`].
    pub fn open_with(
        connection: &Connection,
        direction: Direction,
        flags: OpenFlags,
        handler: impl StreamHandler,
    ) -> Result<Stream, CallError> {
        let is_bidirectional = direction == Direction::Bidirectional;
        let has_buffers = flags.contains(OpenFlags::APP_OWNED_BUFFERS);
        let is_unordered = flags.contains(OpenFlags::UNORDERED);
        let known = StreamKnown::of_ours(is_bidirectional);
        if is_unordered {
            known.read_unordered().map_err(CallError::InvalidState)?;
        }
        // Without a receiving side there is nothing to read.
        if has_buffers && (is_bidirectional || is_unordered) {
            known.take_buffers().map_err(CallError::InvalidState)?;
        }
        let stream = Stream::attached(StreamShared::new(connection, known));
        let dir = match direction {
            Direction::Bidirectional => Dir::Bi,
            Direction::Unidirectional => Dir::Uni,
        };
        let may_be_early = flags.contains(OpenFlags::ALLOW_0_RTT);
        let handler: Box<dyn StreamHandler> = Box::new(handler);
        let added = Stream::of_worker(Arc::clone(&stream.0));
        let reading = match (has_buffers, is_unordered) {
            (true, _) => Some(Reading::IntoBuffers),
            (_, true) => Some(Reading::Unordered),
            _ => None,
        };
        match connection.0.call(move |hosted, _| {
            hosted.add_stream(added, dir, may_be_early, reading, handler);
        }) {
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
        self.start_with(if fail_if_blocked {
            StartFlags::FAIL_BLOCKED
        } else {
            StartFlags::NONE
        })
    }

    /// The same with flags.
    ///
    /// # Errors
    ///
    /// As [`Stream::start`].
    pub fn start_with(&self, flags: StartFlags) -> Result<(), CallError> {
        self.check(StreamKnown::start)?;
        let options = StartOptions {
            fail_blocked: flags.contains(StartFlags::FAIL_BLOCKED),
            immediate: flags.contains(StartFlags::IMMEDIATE),
            tell_accepted: flags.contains(StartFlags::INDICATE_PEER_ACCEPT),
        };
        let weight = Weight {
            priority: flags.contains(StartFlags::PRIORITY_WORK),
            ..Weight::default()
        };
        self.call_with(weight, move |streams, key, _| streams.start_with(key, options))
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
        let len = data.len();
        self.queue_send(len, context, flags, move |streams, key, options| {
            streams.send_with(key, data, context, options)
        })
    }

    /// The same with several buffers, which lie one behind the other in the stream. None of them is copied, and all are held until the one
    /// [`SendComplete`](crate::StreamEvent::SendComplete).
    ///
    /// # Errors
    ///
    /// As [`Stream::send`].
    pub fn send_vectored(&self, data: Vec<Bytes>, context: u64, flags: SendFlags) -> Result<(), CallError> {
        let len = data.iter().map(Bytes::len).sum();
        self.queue_send(len, context, flags, move |streams, key, options| {
            streams.send_vectored(key, data, context, options)
        })
    }

    fn queue_send(
        &self,
        len: usize,
        context: u64,
        flags: SendFlags,
        push: impl FnOnce(&mut Streams, StreamKey, SendOptions) -> Result<(), SendError> + Send + 'static,
    ) -> Result<(), CallError> {
        let options = SendOptions {
            fin: flags.contains(SendFlags::FIN),
            may_be_early: flags.contains(SendFlags::ALLOW_0_RTT),
            cancel_on_loss: flags.contains(SendFlags::CANCEL_ON_LOSS),
            delay: flags.contains(SendFlags::DELAY),
        };
        self.check(StreamKnown::send)?;
        if !self.0.connection.0.known.has_send_room() {
            return Err(match self.0.is_closed() {
                true => CallError::Closed,
                false => CallError::QueueFull,
            });
        }
        if options.fin {
            self.check(StreamKnown::finish)?;
        }
        let starts = flags.contains(SendFlags::START) && self.0.known.start().is_ok();
        let send = move |hosted: &mut HostedConnection, stream: &StreamShared, _| {
            let Some((streams, key)) = hosted.stream(stream) else {
                return Err(SendError::Closed);
            };
            let mut sent = push(streams, key, options);
            if starts {
                sent = sent.and(streams.start_with(key, StartOptions::default()));
            }
            hosted.tell_send_room();
            sent
        };
        let failed =
            move |hosted: &mut HostedConnection, stream: &StreamShared| hosted.cancel_send(stream, context);
        let weight = Weight {
            bytes: len,
            priority: flags.contains(SendFlags::PRIORITY_WORK),
        };
        result(self.0.call_or(weight, send, failed))
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
            StreamShutdown::Abort(_) | StreamShutdown::AbortImmediately(_) => {
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
                StreamShutdown::AbortImmediately(code) => streams.abort_immediately(clock, key, code),
            }
            Ok(())
        })
    }

    /// As [`Stream::shutdown`], and what follows from it is delivered before the call returns: [`SendComplete`](crate::StreamEvent::SendComplete) of
    /// sends that it cancels, and [`ShutdownComplete`](crate::StreamEvent::ShutdownComplete) where nothing is waited for, as with
    /// [`StreamShutdown::AbortImmediately`]. **This is the only call within which a handler runs**: that of the stream, within the handler of the
    /// connection or of another of its streams that calls it, or [within the connection](Connection::enter). Hold no lock that both take, nor a
    /// borrow. Events of the stream whose own handler calls it, and of more than 16 handlers within each other, come when that handler has returned.
    /// MsQuic: `QUIC_STREAM_SHUTDOWN_FLAG_INLINE`.
    ///
    /// # Errors
    ///
    /// As [`Stream::shutdown`], and [`CallError::InvalidState`]: it is not called in a handler of the stream's connection, nor within that.
    pub fn shutdown_inline(&self, how: StreamShutdown) -> Result<(), CallError> {
        let connection = &self.0.connection.0;
        if !current::is_of(connection) {
            return Err(CallError::InvalidState(
                "only handlers of the stream's connection can shut a stream down inline, and calls within Connection::enter",
            ));
        }
        self.shutdown(how)?;
        current::lend(connection, |hosted, now| hosted.deliver_inline(now, &self.0));
        Ok(())
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
            self.0.known.restore(len, bytes);
            return Err(CallError::InvalidState(
                "the Receive event waits to be completed only after its handler has returned Pending",
            ));
        }
        completed
    }

    /// From now on, received data goes into buffers of the application, of which these are the next: all that each has room for (its capacity) is
    /// used, and comes back filled with [`ReceiveBufferFilled`](crate::StreamEvent::ReceiveBufferFilled). Data is copied once, from the packet into
    /// the buffer. Called within [`PeerStreamStarted`](crate::ConnectionEvent::PeerStreamStarted), on the accepted stream, it holds for all
    /// data of a stream of the peer; for one of ours, [`OpenFlags::APP_OWNED_BUFFERS`] does. Buffers that are not used are dropped with the stream.
    /// MsQuic: `StreamProvideReceiveBuffers`.
    ///
    /// # Errors
    ///
    /// [`CallError::InvalidState`]: the stream has no receiving side, or is read as its data arrives
    /// ([`IncomingStream::read_unordered`], [`OpenFlags::UNORDERED`]). [`CallError::Closed`]: the stream has ended.
    pub fn provide_receive_buffers(&self, buffers: Vec<BytesMut>) -> Result<(), CallError> {
        self.check(StreamKnown::take_buffers)?;
        let add = move |hosted: &mut HostedConnection, stream: &StreamShared, _| match hosted
            .add_receive_buffers(stream, buffers)
        {
            true => Ok(()),
            false => Err(SendError::Closed),
        };
        result(self.0.call_or(Weight::default(), add, |_, _| ()))
    }

    /// How long data that was to be sent was kept back, on the stream and on its connection, and by what. **On other threads than its handlers' it
    /// waits for the worker**, as [`Connection::stats`] does. MsQuic: `QUIC_PARAM_STREAM_STATISTICS`.
    ///
    /// # Errors
    ///
    /// As [`Connection::stats`], and [`CallError::Closed`]: the stream has ended.
    pub fn stats(&self) -> Result<StreamStats, CallError> {
        let stream = Arc::clone(&self.0);
        let stats = self
            .0
            .connection
            .ask(move |hosted, now| hosted.stream_stats(now, &stream))?;
        stats.ok_or(CallError::Closed)
    }

    /// How many bytes at the beginning of the stream a client has sent in 0-RTT, as far as they have arrived: others may have sent the same before,
    /// or may send it again. Waits as [`Stream::stats`]. MsQuic: `QUIC_PARAM_STREAM_0RTT_LENGTH`.
    ///
    /// # Errors
    ///
    /// As [`Stream::stats`].
    pub fn zero_rtt_len(&self) -> Result<u64, CallError> {
        let stream = Arc::clone(&self.0);
        let len = self.0.connection.ask(move |hosted, _| {
            let (streams, key) = hosted.stream(&stream)?;
            Some(streams.early_len(key))
        })?;
        len.ok_or(CallError::Closed)
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
        self.0.known.set_priority(priority);
        self.call(move |streams, key, _| {
            streams.set_priority(key, priority);
            Ok(())
        })
    }

    /// The priority, as it was set last.
    pub fn priority(&self) -> u16 {
        self.0.known.priority()
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
        self.call_with(Weight::default(), operation)
    }

    fn call_with(
        &self,
        weight: Weight,
        operation: impl FnOnce(&mut Streams, StreamKey, FlowClock) -> Result<(), SendError> + Send + 'static,
    ) -> Result<(), CallError> {
        let operation = move |hosted: &mut HostedConnection, stream: &StreamShared, now| {
            let clock = hosted.flow_clock(now);
            match hosted.stream(stream) {
                Some((streams, key)) => operation(streams, key, clock),
                None => Err(SendError::Closed),
            }
        };
        result(self.0.call_or(weight, operation, |_, _| ()))
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
    /// Accepts the stream; `handler` receives its events. The stream lives on without handles, until it ends; clone the handle to keep one, and
    /// [attach](Stream::attach) the stream for it to end with the last one.
    pub fn accept(self, handler: impl StreamHandler) -> &'a Stream {
        *self.handler = Some(Box::new(handler));
        self.stream
    }

    /// The stream's data is delivered as it arrives, whatever is missing before it: each byte once, at its
    /// [`offset`](crate::ReceivedData::offset), so that a lost packet holds nothing else up.
    /// **Only [`PeerSendShutdown`](crate::StreamEvent::PeerSendShutdown) is certain to tell the end**, when all data has come.
    /// [`fin`](crate::ReceivedData::fin) may say before where the stream ends, and need not: data before that may still come, and where the word
    /// of the end came by itself or with data that was there already, no `Receive` says it.
    /// What a handler gets is consumed, except by [`Pending`](crate::EventStatus::Pending): then the peer gets credit for it by
    /// [`Stream::receive_complete`], as with [`Settings::stream_multi_receive_enabled`](crate::Settings::stream_multi_receive_enabled).
    /// To be called before the stream is accepted, and not for one with buffers of the application. For streams of ours there is
    /// [`OpenFlags::UNORDERED`].
    ///
    /// # Errors
    ///
    /// [`CallError::InvalidState`]: the stream has buffers of the application ([`Stream::provide_receive_buffers`]).
    pub fn read_unordered(&self) -> Result<(), CallError> {
        self.stream.check(StreamKnown::read_unordered)?;
        let shared = &self.stream.0;
        let set = |hosted: &mut HostedConnection, _| {
            if let Some(index) = shared.slot_index() {
                hosted.set_reading(index, Reading::Unordered);
            }
        };
        // Within the event that brings the stream.
        let _ = current::with(&shared.connection.0, set);
        Ok(())
    }

    /// The peer gets credit for another stream (MAX_STREAMS) not when this one ends, but when the application has dropped its last handle of it too:
    /// whoever works on requests behind their streams' ends keeps a handle for as long, and the peer cannot open more streams than are worked
    /// on. To be called before the stream is accepted, or not at all. MsQuic: `QUIC_STREAM_OPEN_FLAG_DELAY_ID_FC_UPDATES`.
    pub fn delay_stream_credit(&self) {
        let shared = &self.stream.0;
        let hold = |hosted: &mut HostedConnection, _| {
            if let Some((streams, key)) = hosted.stream(shared) {
                streams.hold_stream_credit(key);
                shared.hold_credit();
            }
        };
        // Within the event that brings the stream.
        let _ = current::with(&shared.connection.0, hold);
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
