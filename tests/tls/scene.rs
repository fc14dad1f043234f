//! A server and clients, on a virtual network or on the kernel's, and what they see.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ringway::sim::Link;
use ringway::{
    CloseReason, Configuration, ConnectTarget, Connection, ConnectionEvent, ConnectionHandler, Direction,
    EventStatus, Incoming, Limits, Listener, ListenerEvent, ListenerOptions, Registration, RetryPolicy,
    Stream, StreamEvent,
};
use ringway_tests::order::ordered;
use ringway_tests::{ALPN, World, address};

pub(crate) const SERVER: &str = "192.0.2.1:443";
const CLIENT: &str = "198.51.100.1:0";

/// What an application has seen of a connection.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Seen {
    Connected { alpn: Vec<u8>, certificates: usize },
    Certificate { error: Option<String> },
    Failed(CloseReason),
    Closed(u64),
    Ended,
    Received(Vec<u8>),
}

/// What one application has seen of all its connections.
#[derive(Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<Seen>>>);

impl Log {
    pub(crate) fn push(&self, seen: Seen) {
        self.0.lock().unwrap().push(seen);
    }

    pub(crate) fn all(&self) -> Vec<Seen> {
        self.0.lock().unwrap().clone()
    }

    pub(crate) fn is_connected(&self) -> bool {
        self.all()
            .iter()
            .any(|seen| matches!(seen, Seen::Connected { .. }))
    }

    pub(crate) fn has_certificate(&self) -> bool {
        self.all()
            .iter()
            .any(|seen| matches!(seen, Seen::Certificate { .. }))
    }

    pub(crate) fn has_received(&self, data: &[u8]) -> bool {
        self.all().contains(&Seen::Received(data.to_vec()))
    }

    pub(crate) fn failure(&self) -> Option<CloseReason> {
        self.all().into_iter().find_map(|seen| match seen {
            Seen::Failed(reason) => Some(reason),
            _ => None,
        })
    }

    /// The words for why it failed.
    pub(crate) fn failure_text(&self) -> String {
        self.failure()
            .map(|reason| reason.to_string())
            .unwrap_or_default()
    }
}

/// Writes down what it sees, accepts streams, and answers for the peer's certificate with `answer`.
pub(crate) fn watch(
    log: &Log,
    answer: impl Fn(&Connection) -> EventStatus + Send + 'static,
) -> impl ConnectionHandler {
    let log = log.clone();
    ordered(move |connection: &Connection, event: ConnectionEvent<'_>| {
        log.push(match event {
            ConnectionEvent::Connected {
                alpn,
                peer_certificates,
                ..
            } => Seen::Connected {
                alpn: alpn.to_vec(),
                certificates: peer_certificates.len(),
            },
            ConnectionEvent::PeerCertificateReceived { deferred_error, .. } => {
                log.push(Seen::Certificate {
                    error: deferred_error.map(str::to_owned),
                });
                return answer(connection);
            }
            ConnectionEvent::ShutdownByTransport { reason } => Seen::Failed(reason),
            ConnectionEvent::ShutdownByPeer { code, .. } => Seen::Closed(code),
            ConnectionEvent::ShutdownComplete { .. } => Seen::Ended,
            ConnectionEvent::PeerStreamStarted(stream) => {
                let log = log.clone();
                stream.accept(ordered(move |_: &Stream, event: StreamEvent<'_>| {
                    if let StreamEvent::Receive(receive) = event {
                        log.push(Seen::Received(receive.to_vec()));
                    }
                    EventStatus::Done
                }));
                return EventStatus::Done;
            }
            _ => return EventStatus::Done,
        });
        EventStatus::Done
    })
}

pub(crate) fn done(_: &Connection) -> EventStatus {
    EventStatus::Done
}

pub(crate) struct Scene {
    /// `None`: the kernel's network.
    world: Option<World>,
    /// Where the server listens.
    address: SocketAddr,
    pub(crate) server: Registration,
    pub(crate) client: Registration,
    pub(crate) server_log: Log,
    pub(crate) client_log: Log,
    listeners: Vec<Listener>,
}

impl Scene {
    /// For what is to hold in virtual time, and over the kernel's network on the datapath that `TEST_DATAPATH` names.
    pub(crate) const BOTH: [fn() -> Scene; 2] = [Scene::new, Scene::over_the_kernel];

    fn over_the_kernel() -> Scene {
        Scene {
            world: None,
            address: address("127.0.0.1:0"),
            server: ringway_tests::server(1),
            client: ringway_tests::client(1),
            server_log: Log::default(),
            client_log: Log::default(),
            listeners: Vec::new(),
        }
    }

    pub(crate) fn new() -> Scene {
        Scene::with(Limits::default())
    }

    pub(crate) fn with(limits: Limits) -> Scene {
        Scene::seeded(5, limits)
    }

    pub(crate) fn seeded(seed: u64, limits: Limits) -> Scene {
        Scene::made(seed, 1, limits)
    }

    /// A server of several partitions, of which the network chooses one by the client's address alone.
    pub(crate) fn unsteered() -> Scene {
        let mut scene = Scene::made(5, 3, Limits::default());
        scene.world().network.disable_steering();
        scene
    }

    fn made(seed: u64, partitions: usize, limits: Limits) -> Scene {
        let mut world = World::new(seed);
        world.network.set_default_link(Link {
            delay: Duration::from_millis(10),
            ..Link::default()
        });
        Scene {
            server: world.host_with(address(SERVER).ip(), partitions, 1, limits),
            client: world.host(address(CLIENT).ip(), 1, 1),
            world: Some(world),
            address: address(SERVER),
            server_log: Log::default(),
            client_log: Log::default(),
            listeners: Vec::new(),
        }
    }

    /// A server that accepts everybody with this configuration.
    pub(crate) fn of(server: &Arc<Configuration>) -> Scene {
        let mut scene = Scene::new();
        scene.serve(server);
        scene
    }

    pub(crate) fn serve(&mut self, configuration: &Arc<Configuration>) {
        let (configuration, log) = (Arc::clone(configuration), self.server_log.clone());
        self.listen(&[ALPN], RetryPolicy::Never, move |incoming| {
            incoming.accept(&configuration, watch(&log, done));
        });
    }

    pub(crate) fn listen(
        &mut self,
        alpns: &[&[u8]],
        retry: RetryPolicy,
        on_new: impl Fn(Incoming) + Send + Sync + 'static,
    ) {
        let options = ListenerOptions::new(self.address, alpns).with_retry(retry);
        let listener = Listener::start(&self.server, options, move |event| {
            if let ListenerEvent::NewConnection(incoming) = event {
                on_new(incoming);
            }
        });
        let listener = listener.unwrap();
        self.address = listener.local_address();
        self.listeners.push(listener);
    }

    pub(crate) fn connect(&self, configuration: &Arc<Configuration>, name: &str) -> Connection {
        self.connect_with(configuration, name, done)
    }

    pub(crate) fn connect_with(
        &self,
        configuration: &Arc<Configuration>,
        name: &str,
        answer: impl Fn(&Connection) -> EventStatus + Send + 'static,
    ) -> Connection {
        let target = ConnectTarget::new(self.address, name);
        let handler = watch(&self.client_log, answer);
        let connection = Connection::start(&self.client, configuration, &target, handler).unwrap();
        connection.detach();
        connection
    }

    /// The virtual network.
    pub(crate) fn world(&mut self) -> &mut World {
        self.world.as_mut().expect("a virtual network")
    }

    /// The addresses of the server and of the client.
    pub(crate) fn addresses(&self) -> [IpAddr; 2] {
        [SERVER, CLIENT].map(|virtual_one| match self.world {
            Some(_) => address(virtual_one).ip(),
            None => self.address.ip(),
        })
    }

    fn pass(&mut self, time: Duration) {
        match &mut self.world {
            Some(world) => world.run_for(time),
            None => std::thread::sleep(time),
        }
    }

    /// Goes on for so long; over the kernel's network, where that is everybody's time, for a twentieth.
    pub(crate) fn run_for(&mut self, time: Duration) {
        let share = if self.world.is_some() { 1 } else { 20 };
        self.pass(time / share);
    }

    /// Goes on for a while that handshakes do not take.
    pub(crate) fn run(&mut self) {
        self.run_for(Duration::from_secs(2));
    }

    /// Goes on until it is so.
    pub(crate) fn until(&mut self, what: &str, mut done: impl FnMut(&Scene) -> bool) {
        let (server, client) = (self.server_log.clone(), self.client_log.clone());
        for _ in 0..400 {
            if done(self) {
                return;
            }
            self.pass(Duration::from_millis(25));
        }
        panic!("{what}: server {:?}, client {:?}", server.all(), client.all());
    }

    /// Goes on until both sides are connected.
    pub(crate) fn connected(&mut self) {
        self.until("connected", |scene| {
            scene.server_log.is_connected() && scene.client_log.is_connected()
        });
    }
}

/// Sends this on a stream of its own.
pub(crate) fn send(connection: &Connection, data: &[u8]) {
    let handler = ordered(|_: &Stream, _: StreamEvent<'_>| EventStatus::Done);
    let stream = Stream::open(connection, Direction::Unidirectional, handler).unwrap();
    stream.start(false).unwrap();
    stream.send(data.to_vec().into(), 0, true).unwrap();
}
