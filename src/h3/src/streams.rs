//! Streams, and their halves.

use std::fmt;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use h3::error::Code;
use h3::quic::{self, StreamErrorIncoming, StreamId, WriteBuf};
use ringway_async::{RecvStream as Receive, SendStream as Send};

use crate::connection::error_code;
use crate::error;

/// The sending half of a stream.
///
/// Dropped before it was finished or reset, it is reset with H3_REQUEST_CANCELLED: nobody takes a part for the whole. A response of which its headers
/// were written, and nothing else, is finished instead: so h3 itself leaves its answer (431) to a request whose headers are too large. Whoever fails
/// behind the headers therefore says so ([`stop_stream`](h3::server::RequestStream::stop_stream)), or the response looks like a whole, empty one; if
/// the thread panics, the stream is reset with H3_INTERNAL_ERROR.
pub struct SendStream<B: Buf> {
    stream: Send,
    /// What was given to send and is not written yet.
    writing: Option<WriteBuf<B>>,
    /// A response goes on it.
    responds: bool,
    progress: Progress,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Progress {
    Nothing,
    OneFrame,
    More,
    /// It was finished or reset.
    Ended,
}

impl<B: Buf> fmt::Debug for SendStream<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.stream.fmt(f)
    }
}

impl<B: Buf> SendStream<B> {
    pub(crate) fn new(stream: Send, responds: bool) -> Self {
        SendStream {
            stream,
            writing: None,
            responds,
            progress: Progress::Nothing,
        }
    }

    /// Writes what was given before.
    fn poll_written(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        while let Some(data) = &mut self.writing {
            ready!(poll_write(&mut self.stream, cx, data))?;
            if !data.has_remaining() {
                self.writing = None;
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// Writes as much of it as there is room for, and gives how much. A frame's header and the beginning of its content go together.
fn poll_write(
    stream: &mut Send,
    cx: &mut Context<'_>,
    data: &mut impl Buf,
) -> Poll<Result<usize, StreamErrorIncoming>> {
    let room = ready!(stream.poll_ready(cx)).map_err(error::write)?;
    let len = room.min(data.remaining());
    let mut chunk = data.copy_to_bytes(len);
    // There is room, and nobody else writes.
    ready!(stream.poll_write_chunk(cx, &mut chunk)).map_err(error::write)?;
    Poll::Ready(Ok(len))
}

impl<B: Buf> quic::SendStream<B> for SendStream<B> {
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        self.poll_written(cx)
    }

    /// Gives more to send, which [`poll_ready`](quic::SendStream::poll_ready) writes; while it has not, there is no room for more, and this fails.
    fn send_data<T: Into<WriteBuf<B>>>(&mut self, data: T) -> Result<(), StreamErrorIncoming> {
        if self.writing.is_some() {
            return Err(StreamErrorIncoming::Unknown(
                "data was given to a stream that has not written the last: wait until it is ready".into(),
            ));
        }
        self.writing = Some(data.into());
        self.progress = match self.progress {
            Progress::Nothing => Progress::OneFrame,
            _ => Progress::More,
        };
        Ok(())
    }

    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        ready!(self.poll_written(cx))?;
        let finished = self.stream.finish();
        self.progress = Progress::Ended;
        Poll::Ready(finished.map_err(|error| StreamErrorIncoming::Unknown(Box::new(error))))
    }

    fn reset(&mut self, reset_code: u64) {
        self.writing = None;
        self.progress = Progress::Ended;
        // `Err`: it was reset before.
        let _ = self.stream.reset(error_code(reset_code));
    }

    fn send_id(&self) -> StreamId {
        stream_id(self.stream.id())
    }
}

impl<B: Buf> quic::SendStreamUnframed<B> for SendStream<B> {
    fn poll_send<D: Buf>(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut D,
    ) -> Poll<Result<usize, StreamErrorIncoming>> {
        ready!(self.poll_written(cx))?;
        self.progress = Progress::More;
        poll_write(&mut self.stream, cx, buf)
    }
}

impl<B: Buf> Drop for SendStream<B> {
    fn drop(&mut self) {
        // `Err` of these: it has ended, which it has not.
        match self.progress {
            Progress::Ended => {}
            _ if std::thread::panicking() => {
                let _ = self.stream.reset(error_code(Code::H3_INTERNAL_ERROR.value()));
            }
            Progress::OneFrame if self.responds && self.writing.is_none() => {
                let _ = self.stream.finish();
            }
            _ => {
                let _ = self.stream.reset(error_code(Code::H3_REQUEST_CANCELLED.value()));
            }
        }
    }
}

/// The receiving half of a stream.
///
/// Dropped before all has arrived, it is stopped: a request with H3_NO_ERROR, as the response is what counts (RFC 9114 section 4.1), a response with
/// H3_REQUEST_CANCELLED.
#[derive(Debug)]
pub struct RecvStream {
    stream: Receive,
    on_drop: Code,
}

impl RecvStream {
    pub(crate) fn new(stream: Receive, on_drop: Code) -> Self {
        RecvStream { stream, on_drop }
    }
}

impl quic::RecvStream for RecvStream {
    type Buf = Bytes;

    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, StreamErrorIncoming>> {
        self.stream.poll_read_chunk(cx, usize::MAX).map_err(error::read)
    }

    fn stop_sending(&mut self, error_code: u64) {
        // `Err`: there is nothing left to stop.
        let _ = self.stream.stop(self::error_code(error_code));
    }

    fn recv_id(&self) -> StreamId {
        stream_id(self.stream.id())
    }
}

impl Drop for RecvStream {
    fn drop(&mut self) {
        quic::RecvStream::stop_sending(self, self.on_drop.value());
    }
}

/// A bidirectional stream: a request and its response.
pub struct BidiStream<B: Buf> {
    send: SendStream<B>,
    receive: RecvStream,
}

impl<B: Buf> fmt::Debug for BidiStream<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("BidiStream")
            .field(&self.receive.stream.id())
            .finish()
    }
}

impl<B: Buf> BidiStream<B> {
    /// Of a request that we send.
    pub(crate) fn opened((send, receive): (Send, Receive)) -> Self {
        BidiStream {
            send: SendStream::new(send, false),
            receive: RecvStream::new(receive, Code::H3_REQUEST_CANCELLED),
        }
    }

    /// Of a request that we answer. A server that needs no more of it says so without an error (RFC 9114 section 4.1).
    pub(crate) fn accepted((send, receive): (Send, Receive)) -> Self {
        BidiStream {
            send: SendStream::new(send, true),
            receive: RecvStream::new(receive, Code::H3_NO_ERROR),
        }
    }
}

impl<B: Buf> quic::BidiStream<B> for BidiStream<B> {
    type SendStream = SendStream<B>;
    type RecvStream = RecvStream;

    fn split(self) -> (SendStream<B>, RecvStream) {
        (self.send, self.receive)
    }
}

impl<B: Buf> quic::SendStream<B> for BidiStream<B> {
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        self.send.poll_ready(cx)
    }

    fn send_data<T: Into<WriteBuf<B>>>(&mut self, data: T) -> Result<(), StreamErrorIncoming> {
        self.send.send_data(data)
    }

    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        self.send.poll_finish(cx)
    }

    fn reset(&mut self, reset_code: u64) {
        self.send.reset(reset_code);
    }

    fn send_id(&self) -> StreamId {
        self.send.send_id()
    }
}

impl<B: Buf> quic::SendStreamUnframed<B> for BidiStream<B> {
    fn poll_send<D: Buf>(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut D,
    ) -> Poll<Result<usize, StreamErrorIncoming>> {
        self.send.poll_send(cx, buf)
    }
}

impl<B: Buf> quic::RecvStream for BidiStream<B> {
    type Buf = Bytes;

    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, StreamErrorIncoming>> {
        self.receive.poll_data(cx)
    }

    fn stop_sending(&mut self, error_code: u64) {
        self.receive.stop_sending(error_code);
    }

    fn recv_id(&self) -> StreamId {
        self.receive.recv_id()
    }
}

fn stream_id(id: ringway_async::StreamId) -> StreamId {
    StreamId::try_from(u64::from(id)).expect("both have 62 bits")
}
