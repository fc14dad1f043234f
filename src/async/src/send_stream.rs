//! The sending half of a stream.

use std::fmt;
use std::future::poll_fn;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};

use crate::error::{ClosedStream, StoppedError, WriteError};
use crate::shared::ConnectionRef;
use crate::slots::SideEnd;
use crate::stream_call::StreamCall;
use crate::stream_ref::StreamRef;
use crate::var_int::{StreamId, VarInt};

/// The sending half of a stream.
///
/// What is written is held until the peer has acknowledged it, up to what the path needs
/// ([`ringway::Stream::ideal_send_buffer_size`]); beyond that, and where the peer takes no more, writing waits: a reader that stops stops its writer.
///
/// **Dropped before [`finish`](Self::finish) or [`reset`](Self::reset)**, it is finished, as by quinn, s2n-quic and the standard library's
/// `TcpStream`; but if its thread panics, it is reset with code 0, so that the peer does not take a part for the whole. A task that is aborted, or
/// a future that is dropped, cannot be told from one that has written all: its streams are finished. Where a part would do harm, let what is sent
/// say how long it is, or
/// [reset](Self::reset) the stream in a guard. What was finished is delivered, also after the drop.
///
/// # Cancel safety
///
/// What a method has not told to be written is not written: a future of [`write`](Self::write), [`write_chunk`](Self::write_chunk),
/// [`write_vectored`](Self::write_vectored), [`finish_with`](Self::finish_with) or [`stopped`](Self::stopped) that is dropped before it was ready
/// has done nothing; the stream is not finished then either. [`write_all`](Self::write_all) and [`write_all_chunks`](Self::write_all_chunks) may
/// have written a part, and only the latter shows how much.
pub struct SendStream {
    connection: ConnectionRef,
    stream: StreamRef,
    /// Bytes written.
    written: u64,
    /// It was finished or reset.
    ended: Option<Ended>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Ended {
    Finished,
    Reset,
}

impl fmt::Debug for SendStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SendStream({})", self.stream.id)
    }
}

impl SendStream {
    pub(crate) fn new(connection: &ConnectionRef, stream: StreamRef) -> Self {
        SendStream {
            connection: connection.clone(),
            stream,
            written: 0,
            ended: None,
        }
    }

    /// The stream's ID.
    pub fn id(&self) -> StreamId {
        self.stream.id
    }

    /// Waits until something can be written. Gives how many bytes the stream takes without waiting again: one chunk may have more.
    ///
    /// # Errors
    ///
    /// As [`SendStream::write`].
    pub fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize, WriteError>> {
        if self.ended.is_some() {
            return Poll::Ready(Err(WriteError::ClosedStream));
        }
        let (connection, send, written) = (&self.connection, &self.stream.send, self.written);
        let look = || {
            if let Some(end) = send.has_ended() {
                return Some(Err(write_error(connection, end)));
            }
            if let Some(end) = connection.end() {
                return Some(Err(WriteError::ConnectionLost(end.clone())));
            }
            let held = written - send.completed();
            let room = connection.ideal_send.load(Ordering::Relaxed).saturating_sub(held);
            (room > 0).then_some(Ok(room as usize))
        };
        send.poll(cx, look)
    }

    /// Writes what there is room for of `data`, at least one byte, and gives how many bytes that are. They are copied once; see
    /// [`write_chunk`](Self::write_chunk) for data that need not be.
    ///
    /// # Errors
    ///
    /// [`WriteError::Stopped`]: the peer wants no more. [`WriteError::ConnectionLost`]: the connection has ended. [`WriteError::ClosedStream`]: the
    /// stream was finished or reset.
    pub async fn write(&mut self, data: &[u8]) -> Result<usize, WriteError> {
        poll_fn(|cx| self.poll_write(cx, data)).await
    }

    /// As [`write`](Self::write), polled.
    ///
    /// # Errors
    ///
    /// As [`SendStream::write`].
    pub fn poll_write(&mut self, cx: &mut Context<'_>, data: &[u8]) -> Poll<Result<usize, WriteError>> {
        let room = ready!(self.poll_ready(cx))?;
        let len = room.min(data.len());
        self.push(Bytes::copy_from_slice(&data[..len]));
        Poll::Ready(Ok(len))
    }

    /// Writes all of `data`.
    ///
    /// # Errors
    ///
    /// As [`SendStream::write`]; a part may have been written.
    pub async fn write_all(&mut self, mut data: &[u8]) -> Result<(), WriteError> {
        while !data.is_empty() {
            let written = self.write(data).await?;
            data = &data[written..];
        }
        Ok(())
    }

    /// Writes what there is room for of several buffers, one behind the other, and gives how many bytes that are. They are copied once.
    ///
    /// # Errors
    ///
    /// As [`SendStream::write`].
    pub async fn write_vectored(&mut self, data: &[std::io::IoSlice<'_>]) -> Result<usize, WriteError> {
        poll_fn(|cx| self.poll_write_vectored(cx, data)).await
    }

    /// As [`write_vectored`](Self::write_vectored), polled.
    ///
    /// # Errors
    ///
    /// As [`SendStream::write`].
    pub fn poll_write_vectored(
        &mut self,
        cx: &mut Context<'_>,
        data: &[std::io::IoSlice<'_>],
    ) -> Poll<Result<usize, WriteError>> {
        let room = ready!(self.poll_ready(cx))?;
        let len = room.min(data.iter().map(|slice| slice.len()).sum());
        let mut chunk = Vec::with_capacity(len);
        for slice in data {
            let left = len - chunk.len();
            chunk.extend_from_slice(&slice[..left.min(slice.len())]);
        }
        self.push(chunk.into());
        Poll::Ready(Ok(len))
    }

    /// Writes all of `data`, once there is any room. It is not copied: it is held until the peer has acknowledged it.
    ///
    /// # Errors
    ///
    /// As [`SendStream::write`]; nothing has been written then.
    pub async fn write_chunk(&mut self, data: Bytes) -> Result<(), WriteError> {
        poll_fn(|cx| self.poll_ready(cx)).await?;
        self.push(data);
        Ok(())
    }

    /// As [`write_chunk`](Self::write_chunk), polled: takes all of `data`, once there is any room, and leaves it empty.
    ///
    /// # Errors
    ///
    /// As [`SendStream::write`].
    pub fn poll_write_chunk(
        &mut self,
        cx: &mut Context<'_>,
        data: &mut Bytes,
    ) -> Poll<Result<(), WriteError>> {
        ready!(self.poll_ready(cx))?;
        self.push(std::mem::take(data));
        Poll::Ready(Ok(()))
    }

    /// Writes all of these chunks, as [`write_chunk`](Self::write_chunk) does. Those that are written are left empty.
    ///
    /// # Errors
    ///
    /// As [`SendStream::write`].
    pub async fn write_all_chunks(&mut self, chunks: &mut [Bytes]) -> Result<(), WriteError> {
        for chunk in chunks {
            if !chunk.is_empty() {
                poll_fn(|cx| self.poll_write_chunk(cx, chunk)).await?;
            }
        }
        Ok(())
    }

    /// [`write_chunk`](Self::write_chunk) and [`finish`](Self::finish) in one: writes all of `data`, once there is any room, and says that nothing
    /// follows. Takes less than both, and the end goes out with the last of the data.
    ///
    /// # Errors
    ///
    /// As [`SendStream::write`]; nothing has been written then, and the stream is not finished.
    pub async fn finish_with(&mut self, data: Bytes) -> Result<(), WriteError> {
        poll_fn(|cx| self.poll_ready(cx)).await?;
        if data.is_empty() {
            return self.finish().map_err(|_| WriteError::ClosedStream);
        }
        self.ended = Some(Ended::Finished);
        self.send(data, true);
        Ok(())
    }

    fn push(&mut self, data: Bytes) {
        if data.has_remaining() {
            self.send(data, false);
        }
    }

    fn send(&mut self, data: Bytes, fin: bool) {
        self.written += data.len() as u64;
        self.connection.call(&self.stream, StreamCall::Send { data, fin });
    }

    /// Says that nothing follows. What was written is delivered before the peer hears that; it need not be waited for.
    ///
    /// # Errors
    ///
    /// It was finished or reset already. That the peer has stopped it, or that the connection has ended, is none.
    pub fn finish(&mut self) -> Result<(), ClosedStream> {
        if self.ended.is_some() {
            return Err(ClosedStream);
        }
        self.ended = Some(Ended::Finished);
        self.connection.call(&self.stream, StreamCall::Finish);
        Ok(())
    }

    /// Ends it at once with this application error code (RESET_STREAM): what was not delivered yet is dropped.
    ///
    /// # Errors
    ///
    /// It was reset already. One that is finished can still be reset, as long as not all has been acknowledged.
    pub fn reset(&mut self, error_code: VarInt) -> Result<(), ClosedStream> {
        if self.ended == Some(Ended::Reset) {
            return Err(ClosedStream);
        }
        self.ended = Some(Ended::Reset);
        let call = StreamCall::Reset(error_code.into_inner());
        self.connection.call(&self.stream, call);
        Ok(())
    }

    /// Waits until the peer has all, `None`, or says that it wants no more, with its application error code. To know that something has arrived, wait
    /// for this after [`finish`](Self::finish).
    ///
    /// # Errors
    ///
    /// [`StoppedError::ConnectionLost`]: the connection has ended. [`StoppedError::ClosedStream`]: the stream was reset here.
    pub async fn stopped(&mut self) -> Result<Option<VarInt>, StoppedError> {
        poll_fn(|cx| self.poll_stopped(cx)).await
    }

    /// As [`stopped`](Self::stopped), polled.
    ///
    /// # Errors
    ///
    /// As [`SendStream::stopped`].
    pub fn poll_stopped(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<VarInt>, StoppedError>> {
        let (connection, send, ended) = (&self.connection, &self.stream.send, self.ended);
        send.poll(cx, || match send.has_ended()? {
            SideEnd::Finished => Some(Ok(None)),
            SideEnd::ByPeer(code) => Some(Ok(Some(VarInt::of_peer(code)))),
            SideEnd::Lost if ended == Some(Ended::Reset) => Some(Err(StoppedError::ClosedStream)),
            SideEnd::Lost => Some(Err(StoppedError::ConnectionLost(connection.lost()))),
        })
    }

    /// How many bytes of what was written the peer has acknowledged, of each call or chunk all or none. Those of
    /// [`finish_with`](Self::finish_with) do not count; of a stream that was reset or has ended with its connection, also those do that nobody will
    /// acknowledge.
    pub fn acknowledged(&self) -> u64 {
        self.stream.send.completed()
    }

    /// Sets its priority: 0 at first; streams with higher ones send first. What is beyond 16 bits counts as the nearest that is not.
    ///
    /// # Errors
    ///
    /// It was finished or reset.
    pub fn set_priority(&self, priority: i32) -> Result<(), ClosedStream> {
        if self.ended.is_some() {
            return Err(ClosedStream);
        }
        let priority = priority.saturating_add(PRIORITY_ZERO).clamp(0, u16::MAX.into()) as u16;
        self.connection
            .call(&self.stream, StreamCall::SetPriority(priority));
        Ok(())
    }
}

/// What `ringway` begins with.
const PRIORITY_ZERO: i32 = 0x7fff;

fn write_error(connection: &ConnectionRef, end: SideEnd) -> WriteError {
    match end {
        SideEnd::ByPeer(code) => WriteError::Stopped(VarInt::of_peer(code)),
        SideEnd::Finished => WriteError::ClosedStream,
        SideEnd::Lost => WriteError::ConnectionLost(connection.lost()),
    }
}

impl Drop for SendStream {
    fn drop(&mut self) {
        self.stream.send.abandon();
        if self.ended.is_some() || self.stream.send.has_ended().is_some() {
            return;
        }
        let call = if std::thread::panicking() {
            StreamCall::Reset(0)
        } else {
            StreamCall::Finish
        };
        self.connection.call(&self.stream, call);
    }
}
