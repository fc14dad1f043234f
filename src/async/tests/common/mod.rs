//! A server and a client that know each other.
#![allow(dead_code, reason = "each test uses some of it")]

use std::sync::Arc;
use std::time::Duration;

use ringway::pki_types::PrivateKeyDer;
use ringway::{
    Backend, ClientCredentials, Configuration, ContextConfig, DatapathConfig, Execution, ExecutionConfig,
    ExecutionFlags, ExecutionMode, ListenerOptions, Registration, ServerCredentials, Settings,
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

/// One partition, in the mode and on the datapath that the environment variables `TEST_MODE` and `TEST_DATAPATH` name, as the tests of the
/// callback API have them.
pub(crate) fn execution() -> ExecutionConfig {
    let mode = match std::env::var("TEST_MODE").as_deref() {
        Ok("max_throughput") => ExecutionMode::MaxThroughput,
        _ => ExecutionMode::LowLatency,
    };
    let mut datapath = DatapathConfig::default();
    match std::env::var("TEST_DATAPATH").as_deref() {
        Ok("af_xdp") => {
            datapath.backend = Backend::AfXdp;
            datapath.af_xdp.interface = Some("lo".to_owned());
        }
        Ok("io_uring") => datapath.backend = Backend::IoUring,
        Ok("socket") => datapath.backend = Backend::Socket,
        Ok(other) => panic!("TEST_DATAPATH={other}: af_xdp, io_uring or socket"),
        Err(_) => {}
    }
    ExecutionConfig {
        mode,
        processors: Some(match mode {
            ExecutionMode::LowLatency => vec![0],
            ExecutionMode::MaxThroughput => vec![0, 1],
        }),
        flags: ExecutionFlags::NO_IDEAL_PROC,
        datapath,
        ..ExecutionConfig::default()
    }
}

/// A server's. The one before may still have the interface of AF_XDP for a moment.
pub(crate) fn registration() -> Registration {
    let mut tries = 0..200;
    loop {
        match Registration::open("test", &execution()) {
            Err(error) if format!("{error:?}").contains("in use") && tries.next().is_some() => {
                std::thread::sleep(Duration::from_millis(50));
            }
            result => return result.unwrap(),
        }
    }
}

/// A client's. Only one of both can have AF_XDP, which takes no frames of many datagrams.
fn client_execution() -> ExecutionConfig {
    let mut execution = execution();
    if execution.datapath.backend == Backend::AfXdp {
        execution.datapath = DatapathConfig {
            backend: Backend::Socket,
            gso: false,
            ..DatapathConfig::default()
        };
    }
    execution
}

pub(crate) fn client_registration() -> Registration {
    Registration::open("client", &client_execution()).unwrap()
}

/// A context that the test drives, of one thread whatever the mode, and the endpoint that uses it.
pub(crate) fn local() -> (Endpoint, Execution) {
    let config = ExecutionConfig {
        mode: ExecutionMode::LowLatency,
        flags: ExecutionFlags::empty(),
        processors: None,
        ..client_execution()
    };
    let (registration, mut contexts) = Execution::create(&config, vec![ContextConfig::new(0)]).unwrap();
    (Endpoint::new(&registration), contexts.remove(0))
}

/// A server's listener, and a client's endpoint that connects there.
pub(crate) struct Pair {
    pub(crate) server: Endpoint,
    pub(crate) client: Endpoint,
    pub(crate) listener: Listener,
    pub(crate) server_config: Arc<Configuration>,
}

impl Pair {
    pub(crate) fn new() -> Pair {
        Pair::with(settings(), settings())
    }

    pub(crate) fn with(server: Settings, client: Settings) -> Pair {
        let endpoints = [registration(), client_registration()]
            .each_ref()
            .map(Endpoint::new);
        Pair::of(endpoints, server, client)
    }

    /// Of a server and a client.
    pub(crate) fn of([server, mut client]: [Endpoint; 2], of_server: Settings, of_client: Settings) -> Pair {
        let (server_config, client_config) = configurations(of_server, of_client);
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
        .enable_all()
        .build()
        .unwrap();
    runtime
        .block_on(async { tokio::time::timeout(Duration::from_secs(60), future).await })
        .expect("it takes too long")
}
