//! A server and a client of HTTP/3 that know each other.
#![allow(dead_code, reason = "each test uses some of it")]

use std::future::poll_fn;
use std::time::Duration;

use bytes::{Buf, Bytes};
use h3::error::{Code, ConnectionError, StreamError};
use h3::quic::ConnectionErrorIncoming;
use http::{Request, Response};
use ringway_async::ringway::pki_types::PrivateKeyDer;
use ringway_async::ringway::{
    ClientCredentials, Configuration, ExecutionConfig, ExecutionFlags, ListenerOptions, Registration,
    ServerCredentials, Settings,
};
use ringway_async::{Connection as Transport, Endpoint, Listener};
use ringway_h3::{ALPN, BidiStream, Connection, OpenStreams, settings};

pub(crate) type Server = h3::server::Connection<Connection, Bytes>;
pub(crate) type Driver = h3::client::Connection<Connection, Bytes>;
pub(crate) type SendRequest = h3::client::SendRequest<OpenStreams, Bytes>;
pub(crate) type ServerStream = h3::server::RequestStream<BidiStream<Bytes>, Bytes>;
pub(crate) type ClientStream = h3::client::RequestStream<BidiStream<Bytes>, Bytes>;

/// One thread for each registration, wherever it may run.
fn registration() -> Registration {
    let config = ExecutionConfig {
        processors: Some(vec![0]),
        flags: ExecutionFlags::NO_IDEAL_PROC,
        ..ExecutionConfig::default()
    };
    Registration::open("test", &config).unwrap()
}

/// A server's listener, and a client's endpoint that connects there.
pub(crate) struct Pair {
    pub client: Endpoint,
    pub listener: Listener,
}

impl Pair {
    pub(crate) fn new() -> Pair {
        Pair::with(settings())
    }

    /// With these settings on both sides.
    pub(crate) fn with(settings: Settings) -> Pair {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let chain = vec![made.cert.der().clone()];
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let credentials = ServerCredentials::new(chain.clone(), key);
        let server = Configuration::server(&[ALPN], settings.clone(), credentials).unwrap();
        let roots = ClientCredentials::roots(chain);
        let mut client = Endpoint::new(&registration());
        client.set_default_client_config(Configuration::client(&[ALPN], settings, roots).unwrap());
        let options = ListenerOptions::new("127.0.0.1:0".parse().unwrap(), &[ALPN]);
        let listener = Endpoint::new(&registration()).listen(options, server).unwrap();
        Pair { client, listener }
    }

    /// A connection without HTTP/3 on it: the client's handle, and the server's.
    pub(crate) async fn transport(&self) -> (Transport, Transport) {
        let address = self.listener.local_addr();
        let connecting = self.client.connect(address, "localhost").unwrap();
        let accepted = self.listener.accept().await.unwrap().accept();
        let client = connecting.await.unwrap();
        (client, accepted.await.unwrap())
    }

    pub(crate) async fn connect(&self) -> (Driver, SendRequest, Server) {
        let (mut client, mut server) = (h3::client::builder(), h3::server::builder());
        self.connect_with(&mut client, &mut server).await
    }

    /// With what each end tells the other in its settings of HTTP/3.
    pub(crate) async fn connect_with(
        &self,
        client_builder: &mut h3::client::Builder,
        server_builder: &mut h3::server::Builder,
    ) -> (Driver, SendRequest, Server) {
        let (client, server) = self.transport().await;
        let server = server_builder.build(Connection::new(server));
        let client = client_builder.build(Connection::new(client));
        let (server, client) = tokio::join!(server, client);
        let (driver, send_request) = client.unwrap();
        (driver, send_request, server.unwrap())
    }
}

/// Runs a future on tokio, for a minute at most.
pub(crate) fn run<R>(future: impl Future<Output = R>) -> R {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build();
    runtime
        .unwrap()
        .block_on(async { tokio::time::timeout(Duration::from_secs(60), future).await })
        .expect("it takes too long")
}

pub(crate) fn get(path: &str) -> Request<()> {
    Request::get(format!("https://localhost{path}")).body(()).unwrap()
}

/// Why the connection has ended, after all of its requests.
pub(crate) async fn closed(driver: &mut Driver) -> ConnectionError {
    poll_fn(|cx| driver.poll_close(cx)).await
}

/// The next request, with its headers.
pub(crate) async fn accept(server: &mut Server) -> (Request<()>, ServerStream) {
    let resolver = server.accept().await.unwrap().expect("no request comes");
    resolver.resolve_request().await.unwrap()
}

/// Answers with 200 and nothing.
pub(crate) async fn answer(stream: &mut ServerStream) {
    stream.send_response(Response::new(())).await.unwrap();
    stream.finish().await.unwrap();
}

/// Serves until the connection ends: each request's content comes back. Gives why it has ended, if not by GOAWAY.
pub(crate) async fn serve_echo(mut server: Server) -> Option<ConnectionError> {
    let mut tasks = tokio::task::JoinSet::new();
    let end = loop {
        match server.accept().await {
            Ok(Some(resolver)) => {
                tasks.spawn(async move {
                    let (_, stream) = resolver.resolve_request().await?;
                    echo(stream).await
                });
            }
            Ok(None) => break None,
            Err(error) => break Some(error),
        }
    };
    // Those of clients that have given up fail.
    while tasks.join_next().await.is_some() {}
    end
}

async fn echo(stream: ServerStream) -> Result<(), StreamError> {
    let (mut send, mut receive) = stream.split();
    send.send_response(Response::new(())).await?;
    while let Some(mut data) = receive.recv_data().await? {
        send.send_data(data.copy_to_bytes(data.remaining())).await?;
    }
    if let Some(trailers) = receive.recv_trailers().await? {
        send.send_trailers(trailers).await?;
    }
    send.finish().await
}

/// All content of a response.
pub(crate) async fn content(stream: &mut ClientStream) -> Result<Vec<u8>, StreamError> {
    let mut all = Vec::new();
    while let Some(mut data) = stream.recv_data().await? {
        all.extend_from_slice(&data.copy_to_bytes(data.remaining()));
    }
    Ok(all)
}

/// The code with which the peer has closed the connection.
pub(crate) fn peer_code(error: &ConnectionError) -> u64 {
    match error {
        ConnectionError::Remote(ConnectionErrorIncoming::ApplicationClose { error_code }) => *error_code,
        error => panic!("not closed by the peer: {error:?}"),
    }
}

/// The code with which the peer has reset or stopped a stream.
pub(crate) fn terminated_with(error: &StreamError) -> Code {
    match error {
        StreamError::RemoteTerminate { code } => *code,
        error => panic!("not terminated by the peer: {error:?}"),
    }
}
