//! The receiving half of a stream.

use std::fmt;
use std::future::poll_fn;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};

use crate::batch::Batch;
use crate::error::{ClosedStream, ReadError, ReadExactError, ReadToEndError};
use crate::events::RECEIVE_BUFFER;
use crate::shared::ConnectionRef;
use crate::slots::{Found, SideEnd};
use crate::stream_call::StreamCall;
use crate::stream_ref::StreamRef;
use crate::turn::keep_batch;
use crate::var_int::{StreamId, VarInt};

/// The receiving half of a stream.
///
/// What arrives waits here to be read, up to 512 KiB with what its chunks take; beyond that, it waits within the flow control windows of the
/// [`Settings`](ringway::Settings), and then at the sender, which is told to stop.
///
/// **Dropped before its end was reached**, it is stopped with code 0 (STOP_SENDING), unless all has arrived.
///
/// # Cancel safety
///
/// [`read`](Self::read), [`read_chunk`](Self::read_chunk), [`read_chunks`](Self::read_chunks) and [`received_reset`](Self::received_reset) take
/// nothing before they are ready: their futures can be dropped at any time. [`read_exact`](Self::read_exact) and
/// [`read_to_end`](Self::read_to_end) lose what they have read so far.
pub struct RecvStream {
    connection: ConnectionRef,
    stream: StreamRef,
    /// Chunks that were taken from the worker, and how many of them have been read.
    batch: Option<Box<Batch>>,
    next: usize,
    /// What has been read of them, and the worker has not been told.
    read: usize,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    /// The end, or a reset, has been told.
    Ended(SideEnd),
    Stopped,
}

impl fmt::Debug for RecvStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RecvStream({})", self.stream.id)
    }
}

impl RecvStream {
    pub(crate) fn new(connection: &ConnectionRef, stream: StreamRef) -> Self {
        RecvStream {
            connection: connection.clone(),
            stream,
            batch: None,
            next: 0,
            read: 0,
            state: State::Open,
        }
    }

    /// The stream's ID.
    pub fn id(&self) -> StreamId {
        self.stream.id
    }

    /// The peer has opened it in 0-RTT: others may have sent the same before, or may send it again.
    pub fn is_0rtt(&self) -> bool {
        self.stream.zero_rtt
    }

    /// Waits for data. Gives the first chunk that has not been read, to take from; `None`: the stream has ended.
    fn poll_front(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<&mut Bytes>, ReadError>> {
        match self.state {
            State::Open => {}
            State::Ended(end) => return Poll::Ready(self.ended(end)),
            State::Stopped => return Poll::Ready(Err(ReadError::ClosedStream)),
        }
        loop {
            self.give_back();
            if self.batch.is_some() {
                break;
            }
            match ready!(self.stream.receive.poll(cx)) {
                Found::Data(batch) => self.batch = Some(batch),
                Found::End(end) => {
                    self.state = State::Ended(end);
                    return Poll::Ready(self.ended(end));
                }
            }
        }
        let next = self.next;
        Poll::Ready(Ok(self.batch.as_mut().and_then(|batch| batch.get_mut(next))))
    }

    fn ended(&self, end: SideEnd) -> Result<Option<&mut Bytes>, ReadError> {
        match end {
            SideEnd::Finished => Ok(None),
            SideEnd::ByPeer(code) => Err(ReadError::Reset(VarInt::of_peer(code))),
            SideEnd::Lost => Err(ReadError::ConnectionLost(self.connection.lost())),
        }
    }

    /// So many bytes of the first chunk have been read, which is empty or not.
    fn on_read(&mut self, len: usize, is_empty: bool) {
        self.read += len;
        if is_empty {
            self.next += 1;
        }
        if self.read >= RECEIVE_BUFFER / 4 {
            self.tell_read();
        }
    }

    /// A batch of which all was read serves again, and what it took besides makes room.
    fn give_back(&mut self) {
        if let Some(batch) = self.batch.take_if(|batch| self.next == batch.len()) {
            self.next = 0;
            self.read += batch.overhead();
            keep_batch(batch);
            self.tell_read();
        }
    }

    /// The worker is told when a batch has been read, or a good part of what may be held.
    fn tell_read(&mut self) {
        let read = std::mem::take(&mut self.read);
        if self.stream.receive.on_read(read, RECEIVE_BUFFER) {
            self.connection.call(&self.stream, StreamCall::Resume);
        }
    }

    /// Waits for data and gives a chunk of it, of at most `max_len` bytes, without another copy; `None`: the stream has ended, and all was read.
    ///
    /// Kept, a chunk takes up to four times its bytes; a part of one, as a small `max_len` gives it, keeps all of it alive, up to 16 KiB.
    ///
    /// # Errors
    ///
    /// [`ReadError::Reset`]: the peer has reset the stream. [`ReadError::ConnectionLost`]: the connection has ended. [`ReadError::ClosedStream`]: the
    /// stream was stopped.
    pub async fn read_chunk(&mut self, max_len: usize) -> Result<Option<Bytes>, ReadError> {
        poll_fn(|cx| self.poll_read_chunk(cx, max_len)).await
    }

    /// As [`read_chunk`](Self::read_chunk), polled.
    ///
    /// # Errors
    ///
    /// As [`RecvStream::read_chunk`].
    pub fn poll_read_chunk(
        &mut self,
        cx: &mut Context<'_>,
        max_len: usize,
    ) -> Poll<Result<Option<Bytes>, ReadError>> {
        let Some(front) = ready!(self.poll_front(cx))? else {
            return Poll::Ready(Ok(None));
        };
        let is_whole = front.len() <= max_len;
        let chunk = if is_whole {
            std::mem::take(front)
        } else {
            front.split_to(max_len)
        };
        self.on_read(chunk.len(), is_whole);
        Poll::Ready(Ok(Some(chunk)))
    }

    /// Waits for data and fills these with as many chunks as there are. Gives how many; `None`: the stream has ended, and all was read.
    ///
    /// # Errors
    ///
    /// As [`RecvStream::read_chunk`].
    pub async fn read_chunks(&mut self, chunks: &mut [Bytes]) -> Result<Option<usize>, ReadError> {
        if chunks.is_empty() {
            return Ok(Some(0));
        }
        poll_fn(|cx| {
            let Some(front) = ready!(self.poll_front(cx))? else {
                return Poll::Ready(Ok(None));
            };
            chunks[0] = std::mem::take(front);
            self.on_read(chunks[0].len(), true);
            let mut count = 1;
            while count < chunks.len()
                && let Some(chunk) = self.take_ready()
            {
                chunks[count] = chunk;
                count += 1;
            }
            Poll::Ready(Ok(Some(count)))
        })
        .await
    }

    /// A chunk, if there is one in what was taken from the worker.
    fn take_ready(&mut self) -> Option<Bytes> {
        let chunk = std::mem::take(self.batch.as_mut()?.get_mut(self.next)?);
        self.on_read(chunk.len(), true);
        Some(chunk)
    }

    /// Waits for data and copies what there is room for into `buf`. Gives how many bytes; `None`: the stream has ended, and all was read.
    ///
    /// # Errors
    ///
    /// As [`RecvStream::read_chunk`].
    pub async fn read(&mut self, buf: &mut [u8]) -> Result<Option<usize>, ReadError> {
        poll_fn(|cx| self.poll_read(cx, buf)).await
    }

    /// As [`read`](Self::read), polled.
    ///
    /// # Errors
    ///
    /// As [`RecvStream::read_chunk`].
    pub fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<Result<Option<usize>, ReadError>> {
        if buf.is_empty() {
            return Poll::Ready(Ok(Some(0)));
        }
        let mut filled = 0;
        while filled < buf.len() {
            let front = match self.poll_front(cx) {
                Poll::Ready(Ok(Some(front))) => front,
                // Told next time.
                _ if filled > 0 => break,
                Poll::Ready(Ok(None)) => return Poll::Ready(Ok(None)),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return Poll::Pending,
            };
            let len = front.len().min(buf.len() - filled);
            buf[filled..filled + len].copy_from_slice(&front[..len]);
            let is_empty = front.len() == len;
            if is_empty {
                *front = Bytes::new();
            } else {
                bytes::Buf::advance(front, len);
            }
            self.on_read(len, is_empty);
            filled += len;
        }
        Poll::Ready(Ok(Some(filled)))
    }

    /// Fills `buf`.
    ///
    /// # Errors
    ///
    /// [`ReadExactError::FinishedEarly`]: the stream has ended before. Else as [`RecvStream::read_chunk`].
    pub async fn read_exact(&mut self, buf: &mut [u8]) -> Result<(), ReadExactError> {
        let mut filled = 0;
        while filled < buf.len() {
            match self.read(&mut buf[filled..]).await? {
                Some(len) => filled += len,
                None => return Err(ReadExactError::FinishedEarly(filled)),
            }
        }
        Ok(())
    }

    /// Reads all that is left, `size_limit` bytes at most.
    ///
    /// # Errors
    ///
    /// [`ReadToEndError::TooLong`]: there is more. The stream is stopped when it is dropped. Else as [`RecvStream::read_chunk`].
    pub async fn read_to_end(&mut self, size_limit: usize) -> Result<Vec<u8>, ReadToEndError> {
        let mut all = BytesMut::new();
        while let Some(chunk) = self.read_chunk(usize::MAX).await? {
            if all.len() + chunk.len() > size_limit {
                return Err(ReadToEndError::TooLong);
            }
            all.extend_from_slice(&chunk);
        }
        Ok(all.into())
    }

    /// Asks the peer to send no more, with this application error code (STOP_SENDING), and drops what has not been read.
    ///
    /// # Errors
    ///
    /// It was stopped already, or its end was reached.
    pub fn stop(&mut self, error_code: VarInt) -> Result<(), ClosedStream> {
        if self.state != State::Open {
            return Err(ClosedStream);
        }
        self.stop_with(error_code.into_inner());
        self.state = State::Stopped;
        self.batch = None;
        self.stream.receive.abandon();
        Ok(())
    }

    fn stop_with(&self, code: u64) {
        // What has all arrived needs no more word. The worker may be about to tell so: then the command finds nothing to stop.
        if self.stream.receive.has_ended().is_none() {
            self.connection.call(&self.stream, StreamCall::Stop(code));
        }
    }

    /// Waits until the peer resets the stream, and gives its application error code; `None`: it has ended as it should. Reads nothing: beside what
    /// waits to be read, no more arrives meanwhile than windows allow.
    ///
    /// # Errors
    ///
    /// The connection has ended, or the stream was stopped.
    pub async fn received_reset(&mut self) -> Result<Option<VarInt>, ReadError> {
        // The end may wait behind the room that this makes.
        self.give_back();
        if self.read > 0 {
            self.tell_read();
        }
        poll_fn(|cx| match self.state {
            State::Stopped => Poll::Ready(Err(ReadError::ClosedStream)),
            _ => match ready!(self.stream.receive.poll_end(cx)) {
                SideEnd::Finished => Poll::Ready(Ok(None)),
                SideEnd::ByPeer(code) => Poll::Ready(Ok(Some(VarInt::of_peer(code)))),
                SideEnd::Lost => Poll::Ready(Err(ReadError::ConnectionLost(self.connection.lost()))),
            },
        })
        .await
    }
}

impl Drop for RecvStream {
    fn drop(&mut self) {
        if self.state == State::Open {
            self.stop_with(0);
        }
        self.stream.receive.abandon();
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::sync::Arc;
    use std::task::Waker;

    use futures_executor::block_on;

    use super::*;
    use crate::shared::{Command, ConnectionShared};
    use crate::turn::WorkerStream;

    #[test]
    fn stream_that_is_stopped_drops_what_has_not_been_read() {
        struct Kept {
            _memory: Arc<()>,
        }
        impl AsRef<[u8]> for Kept {
            fn as_ref(&self) -> &[u8] {
                b"data"
            }
        }
        let memory = Arc::new(());
        let connection = ConnectionRef::new(ConnectionShared::new(true));
        let stream = StreamRef::new(StreamId(0), false, true);
        let worker = WorkerStream::new(&stream);
        let mut receive = RecvStream::new(&connection, stream);
        let arrive = || {
            assert!(worker.receive.reserve(4, RECEIVE_BUFFER));
            let mut batch = Box::<Batch>::default();
            let chunk = Bytes::from_owner(Kept {
                _memory: Arc::clone(&memory),
            });
            batch.push(chunk, 0);
            assert!(worker.receive.give(batch).is_none());
            worker.receive.tell();
        };
        arrive();
        let read = block_on(receive.read_chunk(1));
        assert_eq!(read, Ok(Some(Bytes::from_static(b"d"))));
        arrive();
        drop(read);
        assert_eq!(Arc::strong_count(&memory), 3);
        receive.stop(VarInt::from_u32(0)).unwrap();
        assert_eq!(Arc::strong_count(&memory), 1);
    }

    #[test]
    fn who_has_read_all_and_waits_for_the_end_makes_room_for_what_is_before_it() {
        let connection = ConnectionRef::new(ConnectionShared::new(true));
        let stream = StreamRef::new(StreamId(0), false, true);
        let worker = WorkerStream::new(&stream);
        let mut receive = RecvStream::new(&connection, stream);
        let mut count = 0;
        while worker.receive.reserve(4096, RECEIVE_BUFFER) {
            let mut batch = Box::<Batch>::default();
            batch.push(vec![0; 4096].into(), 12_288);
            worker.receive.give(batch);
            count += 1;
        }
        worker.receive.tell();
        for _ in 0..count {
            assert!(matches!(block_on(receive.read_chunk(usize::MAX)), Ok(Some(_))));
        }
        assert!(connection.commands.is_empty());
        let mut cx = Context::from_waker(Waker::noop());
        assert!(pin!(receive.received_reset()).poll(&mut cx).is_pending());
        let command = connection.commands.pop();
        assert!(matches!(
            command,
            Some(Command::Call {
                call: StreamCall::Resume,
                ..
            })
        ));
    }
}
