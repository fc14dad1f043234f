//! HTTP/3, by the crate h3. What makes s2n-quic its transport is written here: s2n-quic's own, `s2n-quic-h3`, is not on crates.io.

use std::sync::Arc;
use std::task::{Context, Poll, ready};

use anyhow::{Context as _, Result, anyhow};
use bytes::{Buf, Bytes};
use h3::error::Code;
use h3::quic::{self, ConnectionErrorIncoming, StreamErrorIncoming, StreamId, WriteBuf};
use ringway_peers::{ALPN_HTTP3, Files, Http3ClientArgs, Http3ServerArgs, get, listening, serve};
use s2n_quic::client::Connect;
use s2n_quic::connection::{self, Handle, StreamAcceptor};
use s2n_quic::provider::tls::s2n_tls;
use s2n_quic::stream::{self, BidirectionalStream, ReceiveStream, SendStream};
use s2n_quic::{Client, Server, application};

use crate::{any_address, limits, read, sockets};

pub(crate) async fn server(args: Http3ServerArgs) -> Result<()> {
    let files = Arc::new(Files::read(&args.root)?);
    let tls = s2n_tls::Server::builder()
        .with_application_protocols([ALPN_HTTP3])?
        .with_certificate(read(&args.cert)?, read(&args.key)?)
        .with_context(|| format!("taking {} and {}", args.cert.display(), args.key.display()))?
        .build()?;
    let mut server = Server::builder()
        .with_tls(tls)?
        .with_io(sockets(args.bind)?)?
        .with_limits(limits(None)?)?
        .start()
        .map_err(|error| anyhow!("binding to {}: {error}", args.bind))?;
    listening(server.local_addr()?);
    while let Some(connection) = server.accept().await {
        tokio::spawn(serve(Transport::new(connection), Arc::clone(&files)));
    }
    Ok(())
}

pub(crate) async fn client(args: Http3ClientArgs) -> Result<()> {
    let tls = s2n_tls::Client::builder()
        .with_application_protocols([ALPN_HTTP3])?
        .with_certificate(read(&args.ca)?)
        .with_context(|| format!("taking {}", args.ca.display()))?
        .build()?;
    let mut client = Client::builder()
        .with_tls(tls)?
        .with_io(sockets(any_address(args.target))?)?
        .with_limits(limits(None)?)?
        .start()
        .map_err(|error| anyhow!("opening a socket: {error}"))?;
    let connect = Connect::new(args.target).with_server_name(args.server_name.as_str());
    let connection = client.connect(connect).await.context("connecting")?;
    get(Transport::new(connection), &args).await?;
    client.wait_idle().await?;
    Ok(())
}

struct Transport {
    handle: Handle,
    acceptor: StreamAcceptor,
}

impl Transport {
    fn new(connection: s2n_quic::Connection) -> Self {
        let (handle, acceptor) = connection.split();
        Transport { handle, acceptor }
    }
}

fn connection_error(error: connection::Error) -> ConnectionErrorIncoming {
    match error {
        connection::Error::Application { error, .. } => ConnectionErrorIncoming::ApplicationClose {
            error_code: error.into(),
        },
        // The end without an error.
        connection::Error::Closed { .. } => ConnectionErrorIncoming::ApplicationClose {
            error_code: Code::H3_NO_ERROR.value(),
        },
        connection::Error::IdleTimerExpired { .. } => ConnectionErrorIncoming::Timeout,
        error => ConnectionErrorIncoming::Undefined(Arc::new(error)),
    }
}

fn lost(error: connection::Error) -> StreamErrorIncoming {
    StreamErrorIncoming::ConnectionErrorIncoming {
        connection_error: connection_error(error),
    }
}

fn stream_error(error: stream::Error) -> StreamErrorIncoming {
    match error {
        stream::Error::StreamReset { error, .. } => StreamErrorIncoming::StreamTerminated {
            error_code: error.into(),
        },
        stream::Error::ConnectionError { error, .. } => lost(error),
        error => StreamErrorIncoming::Unknown(Box::new(error)),
    }
}

fn code(code: u64) -> application::Error {
    application::Error::new(code).unwrap_or(application::Error::UNKNOWN)
}

fn stream_id(id: u64) -> StreamId {
    StreamId::try_from(id).expect("both have 62 bits")
}

impl<B: Buf> quic::Connection<B> for Transport {
    type RecvStream = Receiver;
    type OpenStreams = Opener;

    fn poll_accept_recv(&mut self, cx: &mut Context<'_>) -> Poll<Result<Receiver, ConnectionErrorIncoming>> {
        match ready!(self.acceptor.poll_accept_receive_stream(cx)).map_err(connection_error)? {
            Some(stream) => Poll::Ready(Ok(Receiver(stream))),
            None => Poll::Ready(Err(ConnectionErrorIncoming::ApplicationClose {
                error_code: Code::H3_NO_ERROR.value(),
            })),
        }
    }

    fn poll_accept_bidi(&mut self, cx: &mut Context<'_>) -> Poll<Result<Both<B>, ConnectionErrorIncoming>> {
        match ready!(self.acceptor.poll_accept_bidirectional_stream(cx)).map_err(connection_error)? {
            Some(stream) => Poll::Ready(Ok(Both::new(stream))),
            None => Poll::Ready(Err(ConnectionErrorIncoming::ApplicationClose {
                error_code: Code::H3_NO_ERROR.value(),
            })),
        }
    }

    fn opener(&self) -> Opener {
        Opener(self.handle.clone())
    }
}

impl<B: Buf> quic::OpenStreams<B> for Transport {
    type BidiStream = Both<B>;
    type SendStream = Sender<B>;

    fn poll_open_bidi(&mut self, cx: &mut Context<'_>) -> Poll<Result<Both<B>, StreamErrorIncoming>> {
        self.handle
            .poll_open_bidirectional_stream(cx)
            .map_ok(Both::new)
            .map_err(lost)
    }

    fn poll_open_send(&mut self, cx: &mut Context<'_>) -> Poll<Result<Sender<B>, StreamErrorIncoming>> {
        self.handle
            .poll_open_send_stream(cx)
            .map_ok(Sender::new)
            .map_err(lost)
    }

    fn close(&mut self, error: Code, _: &[u8]) {
        self.handle.close(code(error.value()));
    }
}

#[derive(Clone)]
struct Opener(Handle);

impl<B: Buf> quic::OpenStreams<B> for Opener {
    type BidiStream = Both<B>;
    type SendStream = Sender<B>;

    fn poll_open_bidi(&mut self, cx: &mut Context<'_>) -> Poll<Result<Both<B>, StreamErrorIncoming>> {
        self.0
            .poll_open_bidirectional_stream(cx)
            .map_ok(Both::new)
            .map_err(lost)
    }

    fn poll_open_send(&mut self, cx: &mut Context<'_>) -> Poll<Result<Sender<B>, StreamErrorIncoming>> {
        self.0.poll_open_send_stream(cx).map_ok(Sender::new).map_err(lost)
    }

    fn close(&mut self, error: Code, _: &[u8]) {
        self.0.close(code(error.value()));
    }
}

struct Sender<B: Buf> {
    stream: SendStream,
    writing: Option<WriteBuf<B>>,
}

impl<B: Buf> Sender<B> {
    fn new(stream: SendStream) -> Self {
        Sender {
            stream,
            writing: None,
        }
    }
}

impl<B: Buf> quic::SendStream<B> for Sender<B> {
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        while let Some(data) = &mut self.writing {
            let room = ready!(self.stream.poll_send_ready(cx)).map_err(stream_error)?;
            let piece = data.copy_to_bytes(room.min(data.remaining()));
            self.stream.send_data(piece).map_err(stream_error)?;
            if !data.has_remaining() {
                self.writing = None;
            }
        }
        Poll::Ready(Ok(()))
    }

    fn send_data<T: Into<WriteBuf<B>>>(&mut self, data: T) -> Result<(), StreamErrorIncoming> {
        self.writing = Some(data.into());
        Ok(())
    }

    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        ready!(self.poll_ready(cx))?;
        Poll::Ready(self.stream.finish().map_err(stream_error))
    }

    fn reset(&mut self, reset_code: u64) {
        // `Err`: it has ended.
        let _ = self.stream.reset(code(reset_code));
    }

    fn send_id(&self) -> StreamId {
        stream_id(self.stream.id())
    }
}

struct Receiver(ReceiveStream);

impl quic::RecvStream for Receiver {
    type Buf = Bytes;

    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, StreamErrorIncoming>> {
        self.0.poll_receive(cx).map_err(stream_error)
    }

    fn stop_sending(&mut self, error_code: u64) {
        // `Err`: all has arrived.
        let _ = self.0.stop_sending(code(error_code));
    }

    fn recv_id(&self) -> StreamId {
        stream_id(self.0.id())
    }
}

struct Both<B: Buf> {
    send: Sender<B>,
    receive: Receiver,
}

impl<B: Buf> Both<B> {
    fn new(stream: BidirectionalStream) -> Self {
        let (receive, send) = stream.split();
        Both {
            send: Sender::new(send),
            receive: Receiver(receive),
        }
    }
}

impl<B: Buf> quic::BidiStream<B> for Both<B> {
    type SendStream = Sender<B>;
    type RecvStream = Receiver;

    fn split(self) -> (Sender<B>, Receiver) {
        (self.send, self.receive)
    }
}

impl<B: Buf> quic::SendStream<B> for Both<B> {
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

impl<B: Buf> quic::RecvStream for Both<B> {
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
