//! A server and a client that know each other.
#![allow(dead_code, reason = "each test uses some of it")]

use std::sync::Arc;
use std::time::Duration;

use ringway::pki_types::PrivateKeyDer;
use ringway::{
    ClientCredentials, Configuration, ExecutionConfig, ListenerOptions, Registration, ServerCredentials,
    Settings,
};
use ringway_async::{Connection, Endpoint, Listener};

pub(crate) const ALPN: &[u8] = b"test";

pub(crate) fn settings() -> Settings {
    Settings {
        peer_bidi_stream_count: 100,
        peer_uni_stream_count: 100,
        datagram_receive_enabled: true,
        ..Settings::default()
    }
}

/// Configurations of a server and a client.
pub(crate) fn configurations(server: Settings, client: Settings) -> (Arc<Configuration>, Arc<Configuration>) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let chain = vec![made.cert.der().clone()];
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let credentials = ServerCredentials::new(chain.clone(), key);
    (
        Configuration::server(&[ALPN], server, credentials).unwrap(),
        Configuration::client(&[ALPN], client, ClientCredentials::roots(chain)).unwrap(),
    )
}

/// One thread for each registration, wherever it may run.
pub(crate) fn execution() -> ExecutionConfig {
    ExecutionConfig {
        processors: Some(vec![0]),
        flags: ringway::ExecutionFlags::NO_IDEAL_PROC,
        ..ExecutionConfig::default()
    }
}

pub(crate) fn registration() -> Registration {
    Registration::open("test", &execution()).unwrap()
}

/// A server's listener, and a client's endpoint that connects there.
pub(crate) struct Pair {
    pub server: Endpoint,
    pub client: Endpoint,
    pub listener: Listener,
    pub server_config: Arc<Configuration>,
}

impl Pair {
    pub(crate) fn new() -> Pair {
        Pair::with(settings(), settings())
    }

    pub(crate) fn with(server: Settings, client: Settings) -> Pair {
        let (server_config, client_config) = configurations(server, client);
        let server = Endpoint::new(&registration());
        let mut client = Endpoint::new(&registration());
        client.set_default_client_config(client_config);
        let options = ListenerOptions::new("127.0.0.1:0".parse().unwrap(), &[ALPN]);
        let listener = server.listen(options, Arc::clone(&server_config)).unwrap();
        Pair {
            server,
            client,
            listener,
            server_config,
        }
    }

    /// A connection: the client's handle, and the server's.
    pub(crate) async fn connect(&self) -> (Connection, Connection) {
        let connecting = self
            .client
            .connect(self.listener.local_addr(), "localhost")
            .unwrap();
        let accepted = self.listener.accept().await.unwrap().accept();
        let client = connecting.await.unwrap();
        (client, accepted.await.unwrap())
    }
}

/// Runs a future on tokio, for a minute at most.
pub(crate) fn run<R>(future: impl Future<Output = R>) -> R {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    runtime
        .block_on(async { tokio::time::timeout(Duration::from_secs(60), future).await })
        .expect("it takes too long")
}
