//! A server and a client on a virtual network.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ringway::sim::Link;
use ringway::{
    Configuration, ConnectTarget, Connection, ConnectionEvent, Direction, EventStatus, ExecutionConfig,
    Listener, ListenerEvent, ListenerOptions, PartitionStats, Registration, RetryPolicy, Settings, Stream,
    StreamEvent,
};
use ringway_tests::order::ordered;
use ringway_tests::{ALPN, World, address, configurations, settings};

/// One way takes this long.
pub(crate) const DELAY: Duration = Duration::from_millis(10);

pub(crate) struct Scene {
    pub world: World,
    pub client: Registration,
    pub configuration: Arc<Configuration>,
    pub remote: SocketAddr,
    _listener: Listener,
    server: Registration,
}

impl Scene {
    /// `serve` handles the events of the server's connections.
    pub(crate) fn new(
        server_settings: Settings,
        client_settings: Settings,
        serve: impl Fn(&Connection, ConnectionEvent<'_>) -> EventStatus + Clone + Send + Sync + 'static,
    ) -> Self {
        let (accepting, connecting) = configurations(server_settings, client_settings);
        Scene::configured(accepting, connecting, serve)
    }

    pub(crate) fn configured(
        accepting: Arc<Configuration>,
        configuration: Arc<Configuration>,
        serve: impl Fn(&Connection, ConnectionEvent<'_>) -> EventStatus + Clone + Send + Sync + 'static,
    ) -> Self {
        Scene::on(&ExecutionConfig::default(), accepting, configuration, serve)
    }

    /// With settings of the datapath.
    pub(crate) fn lending(
        execution: &ExecutionConfig,
        serve: impl Fn(&Connection, ConnectionEvent<'_>) -> EventStatus + Clone + Send + Sync + 'static,
    ) -> Self {
        let (accepting, connecting) = configurations(settings(), Settings::default());
        Scene::on(execution, accepting, connecting, serve)
    }

    fn on(
        execution: &ExecutionConfig,
        accepting: Arc<Configuration>,
        configuration: Arc<Configuration>,
        serve: impl Fn(&Connection, ConnectionEvent<'_>) -> EventStatus + Clone + Send + Sync + 'static,
    ) -> Self {
        let mut world = World::new(7);
        world.network.set_default_link(Link {
            delay: DELAY,
            ..Link::default()
        });
        let server = world.host_as("192.0.2.1".parse().unwrap(), 1, 1, execution);
        let client = world.host("198.51.100.1".parse().unwrap(), 1, 1);
        let options = ListenerOptions::new(address("192.0.2.1:443"), &[ALPN]).with_retry(RetryPolicy::Never);
        let listener = Listener::start(&server, options, move |event| {
            if let ListenerEvent::NewConnection(incoming) = event {
                let _ = incoming.accept(&accepting, ordered(serve.clone()));
            }
        })
        .unwrap();
        Scene {
            world,
            client,
            configuration,
            remote: address("192.0.2.1:443"),
            _listener: listener,
            server,
        }
    }

    /// What the server's one partition has counted.
    pub(crate) fn server_stats(&mut self) -> PartitionStats {
        // It tells once a second, when something is to be done.
        self.world.run_for(Duration::from_millis(1100));
        self.world.turn();
        self.server.stats()[0]
    }

    /// A connection of the client, and what its handler has heard.
    pub(crate) fn connect(&self) -> (Connection, Log) {
        let log = Log::default();
        let heard = log.clone();
        let handler = move |_: &Connection, event: ConnectionEvent<'_>| {
            heard.note(format!("{event:?}"));
            EventStatus::Done
        };
        (self.connect_with(handler), log)
    }

    pub(crate) fn connect_with(
        &self,
        handler: impl FnMut(&Connection, ConnectionEvent<'_>) -> EventStatus + Send + 'static,
    ) -> Connection {
        let target = ConnectTarget::new(self.remote, "localhost");
        let connection =
            Connection::start(&self.client, &self.configuration, &target, ordered(handler)).unwrap();
        connection.detach();
        connection
    }

    /// Goes on until nothing is under way.
    pub(crate) fn settle(&mut self) {
        self.world.run_for(Duration::from_millis(500));
    }
}

/// What handlers have heard.
#[derive(Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<String>>>);

impl Log {
    pub(crate) fn note(&self, what: String) {
        self.0.lock().unwrap().push(what);
    }

    pub(crate) fn all(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }

    pub(crate) fn count(&self, beginning: &str) -> usize {
        let all = self.0.lock().unwrap();
        all.iter().filter(|what| what.starts_with(beginning)).count()
    }

    pub(crate) fn has(&self, beginning: &str) -> bool {
        self.count(beginning) > 0
    }
}

/// A stream of ours whose handler answers `status` to what it receives, and what it has heard.
pub(crate) fn open(connection: &Connection, direction: Direction, status: EventStatus) -> (Stream, Log) {
    let log = Log::default();
    let stream = Stream::open(connection, direction, listening(&log, status)).unwrap();
    stream.detach();
    (stream, log)
}

pub(crate) fn listening(log: &Log, status: EventStatus) -> impl ringway::StreamHandler + use<> {
    let heard = log.clone();
    ordered(move |_: &Stream, event: StreamEvent<'_>| {
        heard.note(format!("{event:?}"));
        match event {
            StreamEvent::Receive(_) => status,
            _ => EventStatus::Done,
        }
    })
}

/// Sends back what comes.
pub(crate) fn echo(_: &Connection, event: ConnectionEvent<'_>) -> EventStatus {
    if let ConnectionEvent::PeerStreamStarted(incoming) = event {
        let both = incoming.direction() == Direction::Bidirectional;
        incoming.accept(ordered(move |stream: &Stream, event: StreamEvent<'_>| {
            if let StreamEvent::Receive(data) = event
                && both
            {
                let _ = stream.send(data.to_vec().into(), 0, data.fin());
            }
            EventStatus::Done
        }));
    }
    EventStatus::Done
}
