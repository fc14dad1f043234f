//! s2n-quic as ringperf's peer.
//!
//! With s2n-tls, the TLS that its documentation recommends on Linux, as that comes: AES-128-GCM, P-256 for the key exchange, unless the
//! post-quantum one is asked for. It resumes sessions (its feature `unstable_resumption`), but knows no 0-RTT: of the secrets of s2n-tls it
//! leaves the early one aside.
//! Tuned as the documentation says: windows and socket buffers for fast paths, the datagrams of a full Ethernet frame from the start (should
//! one not get through, MTU probing begins again from the smallest), CUBIC. Segmentation and receive offload are its default. The send
//! buffer bounds what an upload counts although it is not acknowledged.

mod http3;

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, anyhow};
use bytes::Bytes;
use ringway_peers::{
    ALPN, CONNECTION_WINDOW, ClientArgs, Connection, DATAGRAM, Endpoint, Group, Pattern, Resumption,
    STREAM_WINDOW, STREAMS, ServerArgs, Stream, Tickets, answer, block_on, cannot, listening, run,
};
use s2n_quic::client::Connect;
use s2n_quic::connection::{Handle, StreamAcceptor};
use s2n_quic::provider::endpoint_limits::{ConnectionAttempt, Limiter, Outcome};
use s2n_quic::provider::io::tokio as io;
use s2n_quic::provider::limits::Limits;
use s2n_quic::provider::tls::s2n_tls;
use s2n_quic::provider::tls::s2n_tls::callbacks::{
    ConnectionFuture, SessionTicket, SessionTicketCallback, VerifyHostNameCallback,
};
use s2n_quic::provider::tls::s2n_tls::config::ConnectionInitializer;
use s2n_quic::provider::tls::s2n_tls::security::Policy;
use s2n_quic::stream::BidirectionalStream;
use s2n_quic::{Client, Server};
use tokio::sync::Mutex;

/// Bytes of a stream that are sent or wait for it, and not acknowledged.
const SEND_BUFFER: u32 = 8 << 20;
/// Of sockets, in each direction; the kernel gives what it allows.
const SOCKET_BUFFER: usize = 4 << 20;
/// IPv4 and UDP, which its MTU includes.
const HEADERS: u16 = 20 + 8;

fn main() -> ExitCode {
    ringway_peers::with_http3(
        |args| block_on(server(args)),
        |args| block_on(client(args)),
        |args| block_on(http3::server(args)),
        |args| block_on(http3::client(args)),
    )
}

fn sockets(local: SocketAddr) -> Result<io::Provider> {
    Ok(io::Builder::default()
        .with_receive_address(local)?
        .with_recv_buffer_size(SOCKET_BUFFER)?
        .with_send_buffer_size(SOCKET_BUFFER)?
        .with_initial_mtu(DATAGRAM + HEADERS)?
        .with_max_mtu(DATAGRAM + HEADERS)?
        .build()?)
}

fn limits(keep_alive: Option<Duration>) -> Result<Limits> {
    let limits = Limits::new()
        .with_data_window(CONNECTION_WINDOW.into())?
        .with_bidirectional_local_data_window(STREAM_WINDOW.into())?
        .with_bidirectional_remote_data_window(STREAM_WINDOW.into())?
        .with_max_open_local_bidirectional_streams(STREAMS.into())?
        .with_max_open_remote_bidirectional_streams(STREAMS.into())?
        .with_max_send_buffer_size(SEND_BUFFER)?;
    Ok(match keep_alive {
        Some(period) => limits.with_max_keep_alive_period(period)?,
        None => limits,
    })
}

fn read(file: &Path) -> Result<String> {
    std::fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))
}

/// Answers clients that have not proven their address with a Retry, if it is told to.
struct Retry(bool);

impl Limiter for Retry {
    fn on_connection_attempt(&mut self, _: &ConnectionAttempt<'_>) -> Outcome {
        if self.0 {
            Outcome::retry()
        } else {
            Outcome::allow()
        }
    }
}

async fn server(args: ServerArgs) -> Result<()> {
    let mut tls = s2n_tls::Server::builder()
        .with_application_protocols([ALPN])?
        .with_certificate(read(&args.cert)?, read(&args.key)?)
        .with_context(|| format!("taking {} and {}", args.cert.display(), args.key.display()))?;
    match args.resumption {
        Resumption::None => {}
        Resumption::Resume => {
            let key: [u8; 32] = rand::random();
            tls.config_mut()
                .add_session_ticket_key(b"ours", &key, SystemTime::now())?;
        }
        Resumption::ZeroRtt => cannot("receive 0-RTT"),
    }
    if let Some(file) = &args.client_ca {
        tls = tls
            .with_trusted_certificate(read(file)?)?
            .with_client_authentication()?;
        // The names of clients are nobody's concern here.
        tls.config_mut().set_verify_host_callback(AnyName)?;
    }
    prefer(args.group, tls.config_mut())?;
    // To the file that SSLKEYLOGFILE names, if it names one.
    let tls = tls.with_key_logging()?.build()?;
    let mut server = Server::builder()
        .with_tls(tls)?
        .with_io(sockets(args.bind)?)?
        .with_limits(limits(None)?)?
        .with_endpoint_limits(Retry(args.retry))?
        .start()
        .map_err(|error| anyhow!("binding to {}: {error}", args.bind))?;
    listening(server.local_addr()?);
    let pattern = Pattern::default();
    while let Some(mut connection) = server.accept().await {
        let pattern = pattern.clone();
        tokio::spawn(async move {
            while let Ok(Some(stream)) = connection.accept_bidirectional_stream().await {
                let pattern = pattern.clone();
                // What fails ends the stream, which its client sees.
                tokio::spawn(async move { answer(&mut S2nStream(stream), &pattern, args.verify).await });
            }
        });
    }
    Ok(())
}

async fn client(args: ClientArgs) -> Result<()> {
    let mut tls = s2n_tls::Client::builder()
        .with_application_protocols([ALPN])?
        .with_certificate(read(&args.ca)?)
        .with_context(|| format!("taking {}", args.ca.display()))?;
    let store = Arc::new(Store::default());
    if args.resume {
        tls.config_mut()
            .set_session_ticket_callback(Keep(store.clone()))?
            .set_connection_initializer(Keep(store.clone()))?;
    }
    if let Some((chain, key)) = args.identity() {
        tls = tls.with_client_identity(read(chain)?, read(key)?)?;
    }
    prefer(args.group, tls.config_mut())?;
    let tls = tls.with_key_logging()?.build()?;
    let client = Client::builder()
        .with_tls(tls)?
        .with_io(sockets(any_address(args.target))?)?
        .with_limits(limits(args.keep_alive)?)?
        .start()
        .map_err(|error| anyhow!("opening a socket: {error}"))?;
    let endpoint = S2nEndpoint {
        client,
        connect: Connect::new(args.target).with_server_name(args.server_name.as_str()),
        keep_alive: args.keep_alive.is_some(),
        store,
    };
    run(args, endpoint).await
}

fn any_address(target: SocketAddr) -> SocketAddr {
    match target {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    }
}

#[derive(Clone)]
struct S2nEndpoint {
    client: Client,
    connect: Connect,
    keep_alive: bool,
    store: Arc<Store>,
}

/// Tickets, as s2n-tls writes them down.
type Store = Tickets<Vec<u8>>;

/// Keeps tickets, and gives each connection one.
struct Keep(Arc<Store>);

impl SessionTicketCallback for Keep {
    fn on_session_ticket(&self, connection: &mut s2n_tls::connection::Connection, ticket: &SessionTicket) {
        // Each server here gives one ticket.
        if !connection.resumed() {
            self.0.note_full_handshake();
        }
        let mut data = vec![0; ticket.len().unwrap_or_default()];
        if ticket.data(&mut data).is_ok() {
            self.0.put(data);
        }
    }
}

impl ConnectionInitializer for Keep {
    fn initialize_connection(
        &self,
        connection: &mut s2n_tls::connection::Connection,
    ) -> Result<Option<std::pin::Pin<Box<dyn ConnectionFuture>>>, s2n_tls::error::Error> {
        if let Some(ticket) = self.0.take() {
            connection.set_session_ticket(&ticket)?;
        }
        Ok(None)
    }
}

struct AnyName;

impl VerifyHostNameCallback for AnyName {
    fn verify_host_name(&self, _: &str) -> bool {
        true
    }
}

fn prefer(group: Group, config: &mut s2n_tls::config::Builder) -> Result<()> {
    if group == Group::X25519MlKem768 {
        config.set_security_policy(&Policy::from_version("default_pq")?)?;
    }
    Ok(())
}

impl Endpoint for S2nEndpoint {
    type Connection = S2nConnection;

    async fn connect(&self) -> Result<S2nConnection> {
        let mut connection = self
            .client
            .connect(self.connect.clone())
            .await
            .context("connecting")?;
        connection.keep_alive(self.keep_alive)?;
        let (handle, acceptor) = connection.split();
        let acceptor = Arc::new(Mutex::new(acceptor));
        Ok(S2nConnection { handle, acceptor })
    }

    async fn ticket(&self) {
        self.store.wait().await;
    }

    fn ensure_resumed(&self) -> Result<()> {
        self.store.ensure_resumed()
    }

    async fn settle(mut self) {
        // An error is that of a connection, whose figures are taken.
        let _ = self.client.wait_idle().await;
    }
}

#[derive(Clone)]
struct S2nConnection {
    handle: Handle,
    acceptor: Arc<Mutex<StreamAcceptor>>,
}

impl Connection for S2nConnection {
    type Stream = S2nStream;

    async fn open(&self) -> Result<S2nStream> {
        let stream = self.handle.clone().open_bidirectional_stream().await;
        Ok(S2nStream(stream.context("opening a stream")?))
    }

    async fn ended(&self) -> anyhow::Error {
        // Servers open no streams here: what ends the waiting is the end of the connection.
        match self.acceptor.lock().await.accept().await {
            Err(error) => error.into(),
            Ok(_) => anyhow!("closed"),
        }
    }

    fn close(self) {
        self.handle.close(0u8.into());
    }
}

struct S2nStream(BidirectionalStream);

impl Stream for S2nStream {
    async fn send(&mut self, data: Bytes) -> Result<()> {
        self.0.send(data).await.context("sending")
    }

    async fn finish(&mut self) -> Result<()> {
        self.0.finish().context("finishing")
    }

    async fn receive(&mut self, mut see: impl FnMut(&[u8]) + Send) -> Result<bool> {
        let mut pieces: [Bytes; 32] = Default::default();
        let (count, more) = self.0.receive_vectored(&mut pieces).await.context("receiving")?;
        pieces[..count].iter().for_each(|piece| see(piece));
        Ok(more)
    }

    fn refuse(&mut self) {
        // It may be closed already, which says the same.
        let _ = self.0.reset(1u8.into());
    }
}
