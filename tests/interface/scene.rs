//! A server and a client on a virtual network, and what both have seen.

use std::net::SocketAddr;
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ringway::{
    Bytes, Configuration, ConnectTarget, Connection, ConnectionEvent, ConnectionStats, Direction,
    EventStatus, ExecutionConfig, Incoming, Limits, Listener, ListenerEvent, ListenerOptions, Registration,
    RetryPolicy, Settings, Stream, StreamEvent, WorkerStats,
};
use ringway_tests::{ALPN, World, address, configurations, settings};

pub(crate) const SERVER: &str = "192.0.2.1:443";
pub(crate) const CLIENT: &str = "198.51.100.1";
const LONG: Duration = Duration::from_secs(60);

/// Events as they print, in order.
#[derive(Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<String>>>);

impl Log {
    pub(crate) fn add(&self, event: &impl std::fmt::Debug) {
        self.0.lock().unwrap().push(format!("{event:?}"));
    }

    /// The first event that begins so.
    pub(crate) fn find(&self, beginning: &str) -> Option<String> {
        self.0
            .lock()
            .unwrap()
            .iter()
            .find(|event| event.starts_with(beginning))
            .cloned()
    }

    /// The last one.
    pub(crate) fn find_last(&self, beginning: &str) -> Option<String> {
        let events = self.0.lock().unwrap();
        events
            .iter()
            .rev()
            .find(|event| event.starts_with(beginning))
            .cloned()
    }

    pub(crate) fn count(&self, beginning: &str) -> usize {
        self.0
            .lock()
            .unwrap()
            .iter()
            .filter(|event| event.starts_with(beginning))
            .count()
    }
}

pub(crate) struct Scene {
    pub(crate) world: World,
    pub(crate) server: Registration,
    pub(crate) client: Registration,
    pub(crate) server_config: Arc<Configuration>,
    pub(crate) client_config: Arc<Configuration>,
    pub(crate) log: Log,
    pub(crate) server_log: Log,
    accepted: Arc<Mutex<Vec<Connection>>>,
}

impl Scene {
    pub(crate) fn new() -> Self {
        Self::with(settings(), settings())
    }

    pub(crate) fn with(server: Settings, client: Settings) -> Self {
        Self::build(1, server, client, &ExecutionConfig::default())
    }

    /// A server with so many partitions.
    pub(crate) fn with_partitions(partitions: usize, server: Settings) -> Self {
        Self::build(partitions, server, settings(), &ExecutionConfig::default())
    }

    /// Whose server is limited so.
    pub(crate) fn with_limits(limits: Limits) -> Self {
        let execution = ExecutionConfig {
            limits,
            ..ExecutionConfig::default()
        };
        Self::build(1, settings(), settings(), &execution)
    }

    fn build(partitions: usize, server: Settings, client: Settings, execution: &ExecutionConfig) -> Self {
        let (server_config, client_config) = configurations(server, client);
        let mut world = World::new(7);
        let server = world.host_as(address(SERVER).ip(), partitions, 1, execution);
        let client = world.host_as(CLIENT.parse().unwrap(), 1, 1, &ExecutionConfig::default());
        Scene {
            world,
            server,
            client,
            server_config,
            client_config,
            log: Log::default(),
            server_log: Log::default(),
            accepted: Arc::default(),
        }
    }

    /// Accepts clients, which are answered with what they send.
    pub(crate) fn listen(&self) -> Listener {
        let (configuration, accepted, log) = (
            Arc::clone(&self.server_config),
            Arc::clone(&self.accepted),
            self.server_log.clone(),
        );
        self.listen_with(RetryPolicy::Never, move |incoming| {
            let connection = incoming.accept(&configuration, echo(log.clone()));
            accepted.lock().unwrap().push(connection);
        })
    }

    pub(crate) fn listen_with(
        &self,
        retry: RetryPolicy,
        on_new: impl Fn(Incoming) + Send + Sync + 'static,
    ) -> Listener {
        let log = self.server_log.clone();
        Listener::start(&self.server, options(retry), move |event| match event {
            ListenerEvent::NewConnection(incoming) => on_new(incoming),
            event => log.add(&event),
        })
        .unwrap()
    }

    pub(crate) fn start(&self) -> Connection {
        self.start_to(&ConnectTarget::new(address(SERVER), "localhost"))
    }

    pub(crate) fn start_to(&self, target: &ConnectTarget) -> Connection {
        let handler = echo(self.log.clone());
        let connection = Connection::start(&self.client, &self.client_config, target, handler).unwrap();
        connection.detach();
        connection
    }

    /// A connection from its start to the end of the handshake; the server's side of it too.
    pub(crate) fn connect(&mut self) -> (Connection, Connection) {
        self.connect_to(&ConnectTarget::new(address(SERVER), "localhost"))
    }

    /// With a client of this address.
    pub(crate) fn connect_from(&mut self, local: SocketAddr) -> (Connection, Connection) {
        self.connect_to(&ConnectTarget::new(address(SERVER), "localhost").with_local(local))
    }

    pub(crate) fn connect_to(&mut self, target: &ConnectTarget) -> (Connection, Connection) {
        let connected = self.log.count("Connected");
        let client = self.start_to(target);
        self.until("connected", |scene| {
            scene.log.count("Connected") > connected && scene.server_log.count("Connected") > connected
        });
        let server = self.accepted.lock().unwrap().last().unwrap().clone();
        (client, server)
    }

    pub(crate) fn until(&mut self, what: &str, done: impl Fn(&Scene) -> bool) {
        // The world goes on beside the rest.
        let mut world = std::mem::replace(&mut self.world, World::new(0));
        let happened = world.run_until(LONG, |_| done(self));
        self.world = world;
        assert!(happened, "it never happened: {what}");
    }

    pub(crate) fn wait(&mut self, time: Duration) {
        self.world.run_for(time);
    }

    /// Sends so many bytes on a stream of its own, and has them back.
    pub(crate) fn echo(&mut self, connection: &Connection, len: usize) {
        let (sender, back) = channel();
        let stream = Stream::open(
            connection,
            Direction::Bidirectional,
            move |_: &Stream, event: StreamEvent<'_>| {
                match event {
                    StreamEvent::Receive(data) => sender.send(data.len()).unwrap_or_default(),
                    StreamEvent::ShutdownComplete { .. } => sender.send(usize::MAX).unwrap_or_default(),
                    _ => {}
                }
                EventStatus::Done
            },
        )
        .unwrap();
        stream.start(false).unwrap();
        stream.send(Bytes::from(vec![7; len]), 0, true).unwrap();
        let mut received = 0;
        let mut ended = false;
        let done = self.world.run_until(LONG, |_| {
            for piece in back.try_iter() {
                match piece {
                    usize::MAX => ended = true,
                    piece => received += piece,
                }
            }
            ended
        });
        assert!(done && received == len, "{received} of {len} bytes came back");
    }

    pub(crate) fn stats(&mut self, connection: &Connection) -> ConnectionStats {
        let (sender, stats) = channel();
        connection
            .with_stats(move |stats| {
                let _ = sender.send(*stats);
            })
            .unwrap();
        self.world.turn();
        stats.try_recv().unwrap()
    }

    /// The counters of a host, renewed.
    pub(crate) fn worker_stats(&mut self, of: fn(&Scene) -> &Registration) -> WorkerStats {
        self.world.run_for(Duration::from_millis(1100));
        self.world.turn();
        of(self).stats()[0].worker
    }
}

pub(crate) fn options(retry: RetryPolicy) -> ListenerOptions {
    ListenerOptions::new(address(SERVER), &[ALPN]).with_retry(retry)
}

pub(crate) fn server_address() -> SocketAddr {
    address(SERVER)
}

/// Logs events, and sends back what comes on streams.
pub(crate) fn echo(log: Log) -> impl FnMut(&Connection, ConnectionEvent<'_>) -> EventStatus + Send + 'static {
    move |_, event| {
        log.add(&event);
        if let ConnectionEvent::PeerStreamStarted(stream) = event {
            let log = log.clone();
            stream.accept(move |stream: &Stream, event: StreamEvent<'_>| {
                if let StreamEvent::Receive(data) = event {
                    log.add(&data.len());
                    let _ = stream.send(data.to_vec().into(), 0, data.fin());
                }
                EventStatus::Done
            });
        }
        EventStatus::Done
    }
}
