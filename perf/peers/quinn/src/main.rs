//! quinn as ringperf's peer.
//!
//! Tuned as its documentation says: windows and socket buffers for fast paths, the datagrams of a full Ethernet frame from the start (should
//! one not get through, MTU discovery begins again from 1200 bytes), CUBIC. Segmentation and receive offload are its default. The send
//! window bounds what an upload counts although it is not acknowledged.

mod http3;

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use bytes::Bytes;
use quinn::congestion::CubicConfig;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{
    EndpointConfig, IdleTimeout, MtuDiscoveryConfig, ReadError, TokioRuntime, TransportConfig, VarInt,
    WriteError,
};
use ringway_peers::{
    CONNECTION_WINDOW, ClientArgs, Connection, DATAGRAM, Endpoint, Pattern, Resumption, STREAM_WINDOW,
    ServerArgs, Stream, Tickets, answer, block_on, listening, run, tls,
};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{
    ClientSessionStore, Tls12ClientSessionValue, Tls13ClientSessionValue, WebPkiServerVerifier,
};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, NamedGroup, SignatureScheme};
use socket2::SockRef;

/// Bytes of all streams of a connection that are sent or wait for it, and not acknowledged.
const SEND_WINDOW: u64 = 8 << 20;
/// Streams that a client may have open at a time: each costs a new connection time and memory here, used or not.
const STREAMS: u32 = 256;
/// Of sockets, in each direction; the kernel gives what it allows.
const SOCKET_BUFFER: usize = 4 << 20;
const IDLE_TIMEOUT_MS: u32 = 30_000;

fn main() -> ExitCode {
    ringway_peers::with_http3(
        |args| block_on(server(args)),
        |args| block_on(client(args)),
        |args| block_on(http3::server(args)),
        |args| block_on(http3::client(args)),
    )
}

/// For a peer that may open so many streams of each direction.
fn transport(streams: u32, uni_streams: u32, keep_alive: Option<Duration>) -> Arc<TransportConfig> {
    let mut mtu = MtuDiscoveryConfig::default();
    mtu.upper_bound(DATAGRAM);
    let mut transport = TransportConfig::default();
    transport
        .max_concurrent_bidi_streams(VarInt::from_u32(streams))
        .max_concurrent_uni_streams(VarInt::from_u32(uni_streams))
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW))
        .receive_window(VarInt::from_u32(CONNECTION_WINDOW))
        .send_window(SEND_WINDOW)
        .congestion_controller_factory(Arc::new(CubicConfig::default()))
        .initial_mtu(DATAGRAM)
        .mtu_discovery_config(Some(mtu))
        .keep_alive_interval(keep_alive)
        .max_idle_timeout(Some(IdleTimeout::from(VarInt::from_u32(IDLE_TIMEOUT_MS))));
    Arc::new(transport)
}

fn endpoint(local: SocketAddr, config: Option<quinn::ServerConfig>) -> Result<quinn::Endpoint> {
    let socket = UdpSocket::bind(local).with_context(|| format!("binding to {local}"))?;
    SockRef::from(&socket).set_recv_buffer_size(SOCKET_BUFFER)?;
    SockRef::from(&socket).set_send_buffer_size(SOCKET_BUFFER)?;
    let runtime = Arc::new(TokioRuntime);
    Ok(quinn::Endpoint::new(
        EndpointConfig::default(),
        config,
        socket,
        runtime,
    )?)
}

async fn server(args: ServerArgs) -> Result<()> {
    let tls = QuicServerConfig::try_from(tls::server(&args)?)?;
    let mut config = quinn::ServerConfig::with_crypto(Arc::new(tls));
    config.transport_config(transport(STREAMS, 0, None));
    let endpoint = endpoint(args.bind, Some(config))?;
    listening(endpoint.local_addr()?);
    let pattern = Pattern::default();
    while let Some(incoming) = endpoint.accept().await {
        if args.retry && !incoming.remote_address_validated() {
            incoming.retry().map_err(|_| anyhow!("a Retry was refused"))?;
            continue;
        }
        let pattern = pattern.clone();
        let takes_early_data = args.resumption == Resumption::ZeroRtt;
        tokio::spawn(async move {
            let Ok(connecting) = incoming.accept() else { return };
            // Requests in 0-RTT are answered at once.
            let connection = if takes_early_data {
                connecting.into_0rtt().map(|(connection, _)| connection)
            } else {
                Err(connecting)
            };
            let connection = match connection {
                Ok(connection) => connection,
                Err(connecting) => match connecting.await {
                    Ok(connection) => connection,
                    Err(_) => return,
                },
            };
            while let Ok((send, receive)) = connection.accept_bi().await {
                let pattern = pattern.clone();
                // What fails ends the stream, which its client sees.
                tokio::spawn(async move {
                    answer(&mut QuinnStream { send, receive }, &pattern, args.verify).await
                });
            }
        });
    }
    Ok(())
}

async fn client(args: ClientArgs) -> Result<()> {
    let store = Arc::new(Store::default());
    let resumption = if args.resumes() {
        rustls::client::Resumption::store(store.clone())
    } else {
        rustls::client::Resumption::disabled()
    };
    let mut tls = tls::client(&args, resumption)?;
    if args.resume {
        let (verifier, store) = (tls::verifier(&args)?, store.clone());
        let verifier = Arc::new(FullHandshakes { verifier, store });
        tls.dangerous().set_certificate_verifier(verifier);
    }
    let tls = QuicClientConfig::try_from(tls)?;
    let mut config = quinn::ClientConfig::new(Arc::new(tls));
    config.transport_config(transport(0, 0, args.keep_alive));
    let mut endpoint = endpoint(any_address(args.target), None)?;
    endpoint.set_default_client_config(config);
    let client = QuinnEndpoint {
        endpoint,
        target: args.target,
        name: args.server_name.as_str().into(),
        store,
    };
    run(args, client).await
}

fn any_address(target: SocketAddr) -> SocketAddr {
    match target {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    }
}

#[derive(Clone)]
struct QuinnEndpoint {
    endpoint: quinn::Endpoint,
    target: SocketAddr,
    name: Arc<str>,
    store: Arc<Store>,
}

/// Tickets, of which no more than one server's come.
#[derive(Default)]
struct Store(Tickets<Tls13ClientSessionValue>);

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Store")
    }
}

impl ClientSessionStore for Store {
    fn set_kx_hint(&self, _: ServerName<'static>, _: NamedGroup) {}

    fn kx_hint(&self, _: &ServerName<'_>) -> Option<NamedGroup> {
        None
    }

    fn set_tls12_session(&self, _: ServerName<'static>, _: Tls12ClientSessionValue) {}

    fn tls12_session(&self, _: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        None
    }

    fn remove_tls12_session(&self, _: &ServerName<'static>) {}

    fn insert_tls13_ticket(&self, _: ServerName<'static>, ticket: Tls13ClientSessionValue) {
        self.0.put(ticket);
    }

    fn take_tls13_ticket(&self, _: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        self.0.take()
    }
}

/// Counts full handshakes, as quinn does not say which these are: in others no server shows a certificate.
#[derive(Debug)]
struct FullHandshakes {
    verifier: Arc<WebPkiServerVerifier>,
    store: Arc<Store>,
}

impl ServerCertVerifier for FullHandshakes {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.store.0.note_full_handshake();
        self.verifier
            .verify_server_cert(certificate, intermediates, name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verifier
            .verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verifier
            .verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier.supported_verify_schemes()
    }
}

impl Endpoint for QuinnEndpoint {
    type Connection = QuinnConnection;

    async fn connect(&self) -> Result<QuinnConnection> {
        let connecting = self.endpoint.connect(self.target, &self.name)?;
        Ok(QuinnConnection(connecting.await.context("connecting")?))
    }

    async fn connect_early(&self) -> Result<QuinnConnection> {
        match self.endpoint.connect(self.target, &self.name)?.into_0rtt() {
            Ok((connection, _)) => Ok(QuinnConnection(connection)),
            Err(connecting) => Ok(QuinnConnection(connecting.await.context("connecting")?)),
        }
    }

    async fn ticket(&self) {
        self.store.0.wait().await;
    }

    fn ensure_resumed(&self) -> Result<()> {
        self.store.0.ensure_resumed()
    }

    fn is_rejection(error: &anyhow::Error) -> bool {
        matches!(error.downcast_ref(), Some(WriteError::ZeroRttRejected))
            || matches!(error.downcast_ref(), Some(ReadError::ZeroRttRejected))
    }

    async fn settle(self) {
        self.endpoint.wait_idle().await;
    }
}

#[derive(Clone)]
struct QuinnConnection(quinn::Connection);

impl Connection for QuinnConnection {
    type Stream = QuinnStream;

    async fn open(&self) -> Result<QuinnStream> {
        let (send, receive) = self.0.open_bi().await.context("opening a stream")?;
        Ok(QuinnStream { send, receive })
    }

    fn update_keys(&self, _: &mut QuinnStream) -> Result<()> {
        self.0.force_key_update();
        Ok(())
    }

    async fn ended(&self) -> anyhow::Error {
        self.0.closed().await.into()
    }

    fn close(self) {
        self.0.close(VarInt::from_u32(0), b"");
    }
}

struct QuinnStream {
    send: quinn::SendStream,
    receive: quinn::RecvStream,
}

impl Stream for QuinnStream {
    async fn send(&mut self, data: Bytes) -> Result<()> {
        self.send.write_chunk(data).await.context("sending")
    }

    async fn finish(&mut self) -> Result<()> {
        self.send.finish().context("finishing")
    }

    async fn receive(&mut self, mut see: impl FnMut(&[u8]) + Send) -> Result<bool> {
        let mut pieces: [Bytes; 32] = Default::default();
        let count = self.receive.read_chunks(&mut pieces).await.context("receiving")?;
        pieces[..count.unwrap_or(0)].iter().for_each(|piece| see(piece));
        Ok(count.is_some())
    }

    fn refuse(&mut self) {
        // It may be closed already, which says the same.
        let _ = self.send.reset(VarInt::from_u32(1));
    }
}
