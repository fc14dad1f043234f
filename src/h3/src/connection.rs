//! Connections, and what opens streams on them.

use std::fmt;
use std::task::{Context, Poll};

use bytes::Buf;
use h3::error::Code;
use h3::quic::{self, ConnectionErrorIncoming, StreamErrorIncoming};
use ringway_async::{Connection as Transport, VarInt, Waiter};

use crate::error;
use crate::streams::{BidiStream, RecvStream, SendStream};

/// A connection as [`h3::client::new`] and [`h3::server::Connection::new`] take it.
///
/// It accepts all streams of the peer, so give each connection to one of them only. Datagrams too: a clone of the
/// [`Connection`](ringway_async::Connection) is good for statistics, addresses and the like.
pub struct Connection {
    transport: Transport,
    opener: OpenStreams,
    accept_uni: Waiter,
    accept_bi: Waiter,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Connection").field(&self.transport).finish()
    }
}

impl Connection {
    /// Uses this connection, which has agreed on [`ALPN`](crate::ALPN).
    ///
    /// A server that waits for the handshake to be complete (awaits [`Connecting`](ringway_async::Connecting)) handles no request of a replayed 0-RTT
    /// flight, since whoever replays it cannot complete the handshake (RFC 8470 section 3).
    pub fn new(connection: Transport) -> Self {
        Connection {
            opener: OpenStreams::new(&connection),
            transport: connection,
            accept_uni: Waiter::default(),
            accept_bi: Waiter::default(),
        }
    }

    #[cfg(feature = "datagram")]
    pub(crate) fn transport(&self) -> &Transport {
        &self.transport
    }
}

impl<B: Buf> quic::Connection<B> for Connection {
    type RecvStream = RecvStream;
    type OpenStreams = OpenStreams;

    fn poll_accept_recv(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<RecvStream, ConnectionErrorIncoming>> {
        self.transport
            .poll_accept_uni(cx, &mut self.accept_uni)
            .map_ok(|stream| RecvStream::new(stream, Code::H3_NO_ERROR))
            .map_err(error::connection)
    }

    fn poll_accept_bidi(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<BidiStream<B>, ConnectionErrorIncoming>> {
        self.transport
            .poll_accept_bi(cx, &mut self.accept_bi)
            .map_ok(BidiStream::accepted)
            .map_err(error::connection)
    }

    fn opener(&self) -> OpenStreams {
        self.opener.clone()
    }
}

impl<B: Buf> quic::OpenStreams<B> for Connection {
    type BidiStream = BidiStream<B>;
    type SendStream = SendStream<B>;

    fn poll_open_bidi(&mut self, cx: &mut Context<'_>) -> Poll<Result<BidiStream<B>, StreamErrorIncoming>> {
        self.opener.poll_open_bidi(cx)
    }

    fn poll_open_send(&mut self, cx: &mut Context<'_>) -> Poll<Result<SendStream<B>, StreamErrorIncoming>> {
        self.opener.poll_open_send(cx)
    }

    fn close(&mut self, code: Code, reason: &[u8]) {
        quic::OpenStreams::<B>::close(&mut self.opener, code, reason);
    }
}

/// Opens streams on a connection; each clone waits for itself.
pub struct OpenStreams {
    transport: Transport,
    open_bi: Waiter,
    open_uni: Waiter,
}

impl fmt::Debug for OpenStreams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("OpenStreams").field(&self.transport).finish()
    }
}

impl OpenStreams {
    fn new(transport: &Transport) -> Self {
        OpenStreams {
            transport: transport.clone(),
            open_bi: Waiter::default(),
            open_uni: Waiter::default(),
        }
    }
}

impl Clone for OpenStreams {
    fn clone(&self) -> Self {
        OpenStreams::new(&self.transport)
    }
}

impl<B: Buf> quic::OpenStreams<B> for OpenStreams {
    type BidiStream = BidiStream<B>;
    type SendStream = SendStream<B>;

    fn poll_open_bidi(&mut self, cx: &mut Context<'_>) -> Poll<Result<BidiStream<B>, StreamErrorIncoming>> {
        self.transport
            .poll_open_bi(cx, &mut self.open_bi)
            .map_ok(BidiStream::opened)
            .map_err(error::lost)
    }

    fn poll_open_send(&mut self, cx: &mut Context<'_>) -> Poll<Result<SendStream<B>, StreamErrorIncoming>> {
        self.transport
            .poll_open_uni(cx, &mut self.open_uni)
            .map_ok(|stream| SendStream::new(stream, false))
            .map_err(error::lost)
    }

    fn close(&mut self, code: Code, reason: &[u8]) {
        self.transport.close(error_code(code.value()), reason);
    }
}

/// A code of h3's. What is too large for QUIC (none of h3's own are) becomes H3_INTERNAL_ERROR.
pub(crate) fn error_code(code: u64) -> VarInt {
    VarInt::from_u64(code).unwrap_or(VarInt::from_u32(0x102))
}
