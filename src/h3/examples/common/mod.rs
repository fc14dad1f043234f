//! What the examples have in common: services of hyper, on HTTP/3 and on HTTP/1.1.
#![allow(dead_code, reason = "each example needs some of it")]
#![allow(clippy::print_stderr, reason = "it is the example's log")]

use std::convert::Infallible;
use std::error::Error;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use h3::error::Code;
use h3::ext::Protocol;
use h3::server::{RequestResolver, RequestStream};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::{Body as HttpBody, Frame};
use hyper_util::rt::TokioIo;
use ringway_async::ringway::{
    ClientCredentials, Configuration, ExecutionConfig, ListenerOptions, Registration, ServerCredentials,
    Settings,
};
use ringway_async::{Endpoint, Listener};
use ringway_h3::{ALPN, BidiStream, Connection, RecvStream, SendStream};
use tokio::net::{TcpListener, TcpStream};

pub(crate) type Fault = Box<dyn Error + Send + Sync>;
/// What may fail, for whatever reason.
pub(crate) type Done<T = ()> = Result<T, Fault>;
/// Content of a request or a response, of whatever protocol.
pub(crate) type Body = UnsyncBoxBody<Bytes, Fault>;
/// How a connection of HTTP/3 ends.
pub(crate) type Server = h3::server::Connection<Connection, Bytes>;

/// Content that is there.
pub(crate) fn full(content: impl Into<Bytes>) -> Body {
    Full::new(content.into())
        .map_err(|never| match never {})
        .boxed_unsync()
}

/// A response of this status, with a line that says so.
pub(crate) fn status(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(full(format!("{status}\n")));
    *response.status_mut() = status;
    response
}

/// What answers requests: a function that can be called at any time, from any task.
pub(crate) trait Service: Clone + Send + Sync + 'static {
    fn call(&self, request: Request<Body>) -> impl Future<Output = Response<Body>> + Send;
}

impl<S, R> Service for S
where
    S: Fn(Request<Body>) -> R + Clone + Send + Sync + 'static,
    R: Future<Output = Response<Body>> + Send,
{
    fn call(&self, request: Request<Body>) -> impl Future<Output = Response<Body>> + Send {
        self(request)
    }
}

/// Threads and datapath as the environment says (`RINGWAY_PROCESSORS`, `RINGWAY_DATAPATH__BACKEND`).
pub(crate) fn endpoint(name: &str) -> Done<Endpoint> {
    let registration = Registration::open(name, &ExecutionConfig::load(None)?)?;
    Ok(Endpoint::new(&registration))
}

/// Listens for HTTP/3.
pub(crate) fn listen(
    endpoint: &Endpoint,
    address: SocketAddr,
    credentials: ServerCredentials,
    settings: Settings,
) -> Done<Listener> {
    let configuration = Configuration::server(&[ALPN], settings, credentials)?;
    let options = ListenerOptions::new(address, &[ALPN]);
    Ok(endpoint.listen(options, configuration)?)
}

/// A client of HTTP/3.
pub(crate) fn client(credentials: ClientCredentials) -> Done<Endpoint> {
    let mut endpoint = endpoint("client")?;
    let configuration = Configuration::client(&[ALPN], ringway_h3::settings(), credentials)?;
    endpoint.set_default_client_config(configuration);
    Ok(endpoint)
}

/// Serves HTTP/3 until the listener is stopped.
pub(crate) async fn serve(listener: Listener, service: impl Service) {
    while let Some(incoming) = listener.accept().await {
        let service = service.clone();
        tokio::spawn(async move {
            if let Err(error) = serve_connection(incoming.await?, service).await {
                eprintln!("connection: {error}");
            }
            Done::Ok(())
        });
    }
}

async fn serve_connection(connection: ringway_async::Connection, service: impl Service) -> Done {
    let mut server = Server::new(Connection::new(connection)).await?;
    loop {
        match server.accept().await {
            Ok(Some(resolver)) => {
                let service = service.clone();
                tokio::spawn(async move {
                    if let Err(error) = serve_request(resolver, service).await {
                        eprintln!("request: {error}");
                    }
                });
            }
            Ok(None) => return Ok(()),
            Err(error) if error.is_h3_no_error() => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}

async fn serve_request(resolver: RequestResolver<Connection, Bytes>, service: impl Service) -> Done {
    let (request, stream) = resolver.resolve_request().await?;
    respond(request, stream, service).await
}

/// Answers a request of HTTP/3 by a service.
pub(crate) async fn respond(
    request: Request<()>,
    stream: RequestStream<BidiStream<Bytes>, Bytes>,
    service: impl Service,
) -> Done {
    let (mut send, receive) = stream.split();
    let is_head = request.method() == Method::HEAD;
    let request = request.map(|()| Received(receive).boxed_unsync());
    let (parts, body) = service.call(request).await.into_parts();
    send.send_response(Response::from_parts(parts, ())).await?;
    let sent = send_content(&mut send, body, is_head).await;
    if sent.is_err() {
        // Nobody takes a part for the whole, nor the headers alone for a response without content.
        send.stop_stream(Code::H3_INTERNAL_ERROR);
    }
    sent
}

async fn send_content(
    send: &mut RequestStream<SendStream<Bytes>, Bytes>,
    mut body: Body,
    is_head: bool,
) -> Done {
    while !is_head && let Some(frame) = body.frame().await {
        match frame?.into_data() {
            Ok(data) => send.send_data(data).await?,
            Err(frame) => {
                send.send_trailers(frame.into_trailers().unwrap_or_default())
                    .await?
            }
        }
    }
    Ok(send.finish().await?)
}

/// Content of a request of HTTP/3, as it arrives.
struct Received(RequestStream<RecvStream, Bytes>);

impl HttpBody for Received {
    type Data = Bytes;
    type Error = Fault;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Fault>>> {
        let stream = &mut self.0;
        if let Some(mut data) = ready!(stream.poll_recv_data(cx))? {
            return Poll::Ready(Some(Ok(Frame::data(data.copy_to_bytes(data.remaining())))));
        }
        let trailers: Option<HeaderMap> = ready!(stream.poll_recv_trailers(cx))?;
        Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))))
    }
}

/// Serves HTTP/1.1 over TCP, and TLS if there is an acceptor, until the task is ended.
pub(crate) async fn serve_http1(
    listener: TcpListener,
    tls: Option<tokio_rustls::TlsAcceptor>,
    service: impl Service,
) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            continue;
        };
        // What ends a connection of a browser is no news.
        tokio::spawn(serve_http1_connection(stream, tls.clone(), service.clone()));
    }
}

async fn serve_http1_connection(
    stream: TcpStream,
    tls: Option<tokio_rustls::TlsAcceptor>,
    service: impl Service,
) -> Done {
    let service = hyper::service::service_fn(move |request: Request<hyper::body::Incoming>| {
        let service = service.clone();
        async move {
            let request = request.map(|body| body.map_err(|error| error.into()).boxed_unsync());
            Ok::<_, Infallible>(service.call(request).await)
        }
    });
    let http1 = hyper::server::conn::http1::Builder::new();
    match tls {
        Some(tls) => {
            let stream = tls.accept(stream).await?;
            http1.serve_connection(TokioIo::new(stream), service).await?;
        }
        None => http1.serve_connection(TokioIo::new(stream), service).await?,
    }
    Ok(())
}

/// A WebTransport session is asked for.
pub(crate) fn is_webtransport(request: &Request<()>) -> bool {
    request.method() == Method::CONNECT
        && request.extensions().get::<Protocol>() == Some(&Protocol::WEB_TRANSPORT)
}

/// A client's requests on one connection, which is driven in a task of its own.
pub(crate) type SendRequest = h3::client::SendRequest<ringway_h3::OpenStreams, Bytes>;

pub(crate) async fn connect(endpoint: &Endpoint, server: SocketAddr, name: &str) -> Done<SendRequest> {
    let connection = endpoint.connect(server, name)?.await?;
    let (mut driver, send_request) = h3::client::new(Connection::new(connection)).await?;
    tokio::spawn(async move { std::future::poll_fn(|cx| driver.poll_close(cx)).await });
    Ok(send_request)
}
