//! TLS 1.3 over TCP as ringperf's peer: what QUIC is compared with.
//!
//! TCP has one stream, so a connection of the scenarios is as many TCP connections as it has requests at a time, each used again when its request
//! has been answered, as with HTTP/1.1. A request has no end of its own there: its length goes ahead of it, in eight bytes, big-endian;
//! then comes the request as over QUIC. The response is as long as was asked for; for one of no bytes there comes a byte of zero, so that
//! it is seen to come.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use bytes::Bytes;
use ringway_peers::{
    ClientArgs, Connection, Endpoint, HEADER_LEN, Pattern, ServerArgs, Stream, answer, block_on, cannot,
    listening, run, tls,
};
use rustix::process::{Resource, getrlimit, setrlimit};
use rustls::client::Resumption;
use rustls::pki_types::ServerName;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

/// Bytes of the length ahead of a request.
const LENGTH_LEN: usize = 8;
/// How long a server may take to close.
const CLOSING: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    ringway_peers::main(|args| block_on(server(args)), |args| block_on(client(args)))
}

/// Each TCP connection is a file: as many as the system allows.
fn allow_files() -> Result<()> {
    let mut files = getrlimit(Resource::Nofile);
    files.current = files.maximum;
    Ok(setrlimit(Resource::Nofile, files)?)
}

async fn server(args: ServerArgs) -> Result<()> {
    if args.retry {
        cannot("answer with a Retry");
    }
    allow_files()?;
    let acceptor = TlsAcceptor::from(Arc::new(tls::server(&args)?));
    let listener = TcpListener::bind(args.bind)
        .await
        .with_context(|| format!("binding to {}", args.bind))?;
    listening(listener.local_addr()?);
    let pattern = Pattern::default();
    loop {
        let tcp = match listener.accept().await {
            Ok((tcp, _)) => tcp,
            // It has gone again.
            Err(error) if error.kind() == ErrorKind::ConnectionAborted => continue,
            Err(error) => bail!("accepting: {error}"),
        };
        let (acceptor, pattern) = (acceptor.clone(), pattern.clone());
        // What fails ends the connection, which its client sees.
        tokio::spawn(async move { serve(tcp, &acceptor, &pattern, args.verify).await });
    }
}

/// Answers one request after the other, until the client closes.
async fn serve(tcp: TcpStream, acceptor: &TlsAcceptor, pattern: &Pattern, verify: bool) -> Result<()> {
    tcp.set_nodelay(true)?;
    let pool = Pool::default();
    pool.put(TlsStream::from(acceptor.accept(tcp).await?));
    while let Some(mut connection) = pool.take() {
        let length = connection.read_u64().await?;
        let mut exchange = Exchange {
            connection: Some(connection),
            pool: pool.clone(),
            ahead: None,
            sent: Sent::Nothing,
            unread: length,
            is_empty: false,
        };
        answer(&mut exchange, pattern, verify).await?;
    }
    Ok(())
}

async fn client(args: ClientArgs) -> Result<()> {
    allow_files()?;
    let keep_alive = args.keep_alive.map(|period| {
        if period.subsec_nanos() != 0 || period.is_zero() {
            cannot("keep alive but by whole seconds");
        }
        TcpKeepalive::new().with_time(period).with_interval(period)
    });
    let request_len = match args.is_requests() {
        true => args.request(&Pattern::default()).len() as u64,
        false => HEADER_LEN as u64 + args.upload_len(),
    };
    let endpoint = TcpEndpoint {
        target: args.target,
        connector: TlsConnector::from(Arc::new(tls::client(&args, Resumption::disabled())?)),
        name: ServerName::try_from(args.server_name.clone())?,
        keep_alive,
        streams: args.stream_count(),
        request_len,
        response_len: args.response_len(),
    };
    run(args, endpoint).await
}

/// TCP connections that wait for their next request.
#[derive(Clone, Default)]
struct Pool(Arc<Mutex<Vec<TlsStream<TcpStream>>>>);

impl Pool {
    fn take(&self) -> Option<TlsStream<TcpStream>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    fn put(&self, connection: TlsStream<TcpStream>) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(connection);
    }
}

#[derive(Clone)]
struct TcpEndpoint {
    target: SocketAddr,
    connector: TlsConnector,
    name: ServerName<'static>,
    keep_alive: Option<TcpKeepalive>,
    streams: usize,
    request_len: u64,
    response_len: u64,
}

impl TcpEndpoint {
    async fn connect_one(&self) -> Result<TlsStream<TcpStream>> {
        let context = || format!("connecting to {}", self.target);
        let tcp = TcpStream::connect(self.target).await.with_context(context)?;
        tcp.set_nodelay(true)?;
        if let Some(keep_alive) = &self.keep_alive {
            SockRef::from(&tcp).set_tcp_keepalive(keep_alive)?;
        }
        let connection = self.connector.connect(self.name.clone(), tcp).await;
        Ok(TlsStream::from(connection.with_context(context)?))
    }
}

impl Endpoint for TcpEndpoint {
    type Connection = TcpConnection;

    async fn connect(&self) -> Result<TcpConnection> {
        let mut connecting = JoinSet::new();
        for _ in 0..self.streams {
            let endpoint = self.clone();
            connecting.spawn(async move { endpoint.connect_one().await });
        }
        let pool = Pool::default();
        while let Some(connection) = connecting.join_next().await {
            pool.put(connection.context("a task has panicked")??);
        }
        let (request_len, response_len) = (self.request_len, self.response_len);
        Ok(TcpConnection {
            pool,
            request_len,
            response_len,
        })
    }

    async fn ticket(&self) {
        cannot("resume sessions, in this harness");
    }

    fn ensure_resumed(&self) -> Result<()> {
        cannot("resume sessions, in this harness");
    }

    async fn settle(self) {
        // The tasks that close do so by themselves.
        tokio::task::yield_now().await;
    }
}

#[derive(Clone)]
struct TcpConnection {
    pool: Pool,
    request_len: u64,
    response_len: u64,
}

impl Connection for TcpConnection {
    type Stream = Exchange;

    async fn open(&self) -> Result<Exchange> {
        let connection = self.pool.take().context("all TCP connections are in use")?;
        Ok(Exchange {
            connection: Some(connection),
            pool: self.pool.clone(),
            ahead: Some(self.request_len.to_be_bytes()),
            sent: Sent::Nothing,
            unread: self.response_len.max(1),
            is_empty: self.response_len == 0,
        })
    }

    fn update_keys(&self, stream: &mut Exchange) -> Result<()> {
        if let Some(TlsStream::Client(connection)) = &mut stream.connection {
            connection.get_mut().1.refresh_traffic_keys()?;
        }
        Ok(())
    }

    async fn ended(&self) -> anyhow::Error {
        let Some(mut connection) = self.pool.take() else {
            return anyhow!("not connected");
        };
        match connection.fill_buf().await {
            Err(error) => error.into(),
            Ok([]) => anyhow!("closed"),
            Ok(_) => anyhow!("data that nobody asked for"),
        }
    }

    /// Leaves it to the server to close first: the port of whoever does is out of use for a minute, and a client has but so many.
    fn close(self) {
        while let Some(mut connection) = self.pool.take() {
            connection.get_mut().1.send_close_notify();
            tokio::spawn(async move {
                connection.flush().await?;
                let _ = timeout(CLOSING, connection.fill_buf()).await;
                anyhow::Ok(())
            });
        }
    }
}

/// A request and its response on a TCP connection, which goes back to the pool when both are complete.
struct Exchange {
    connection: Option<TlsStream<TcpStream>>,
    pool: Pool,
    /// The length to send ahead of what is sent first.
    ahead: Option<[u8; LENGTH_LEN]>,
    sent: Sent,
    /// Bytes that are still to be received.
    unread: u64,
    /// They stand for none.
    is_empty: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Sent {
    Nothing,
    Something,
    All,
}

impl Exchange {
    fn connection(&mut self) -> Result<&mut TlsStream<TcpStream>> {
        self.connection.as_mut().context("this request is over")
    }

    fn give_back(&mut self) {
        if self.sent == Sent::All && self.unread == 0 {
            self.connection
                .take()
                .into_iter()
                .for_each(|connection| self.pool.put(connection));
        }
    }
}

impl Stream for Exchange {
    async fn send(&mut self, data: Bytes) -> Result<()> {
        let data = match self.ahead.take() {
            // One record of both: this is but a header, or a small request.
            Some(length) => [&length, &data[..]].concat().into(),
            None => data,
        };
        self.sent = Sent::Something;
        self.connection()?.write_all(&data).await.context("sending")
    }

    async fn finish(&mut self) -> Result<()> {
        if self.sent == Sent::Nothing {
            self.send(Bytes::from_static(&[0])).await?;
        }
        self.connection()?.flush().await.context("sending")?;
        self.sent = Sent::All;
        self.give_back();
        Ok(())
    }

    async fn receive(&mut self, mut see: impl FnMut(&[u8]) + Send) -> Result<bool> {
        if self.unread > 0 {
            let (unread, is_empty) = (self.unread, self.is_empty);
            let connection = self.connection()?;
            let piece = connection.fill_buf().await.context("receiving")?;
            ensure!(!piece.is_empty(), "the connection was closed in the middle");
            let count = unread.min(piece.len() as u64) as usize;
            if !is_empty {
                see(&piece[..count]);
            }
            connection.consume(count);
            self.unread -= count as u64;
        }
        self.give_back();
        Ok(self.unread > 0)
    }

    fn refuse(&mut self) {
        self.connection = None;
    }
}
