//! Where an attack takes place: a server, a client that means no harm, and attackers that may send anything from anywhere.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::StdRng;
use ringway::pki_types::ServerName;
use ringway::sim::RawPort;
use ringway::{
    Bytes, Configuration, ConnectTarget, Connection, ConnectionEvent, Direction, DropReason, EventStatus,
    Instant, Limits, Listener, ListenerEvent, ListenerOptions, Registration, RetryPolicy, Settings, Stream,
    StreamEvent, WorkerStats,
};
use ringway_engine::connection as engine;
use ringway_engine::connection::close::CloseReason;
use ringway_engine::connection::config::Config;
use ringway_engine::connection::drops::DropCounts;
use ringway_engine::connection::events::Event;
use ringway_engine::connection::transmit::TransmitLimits;
use ringway_engine::crypto::suite::CipherSuite;
use ringway_engine::crypto::tls::{ClientCredentials, ClientTls, KeyExchangeGroup};
use ringway_engine::wire::Space;
use ringway_engine::wire::cid::{ConnectionId, ResetToken};
use ringway_engine::wire::error::TransportErrorCode;
use ringway_engine::{Ecn, PortId};
use ringway_tests::{ALPN, World, address, configurations};

use super::heap;

pub(crate) const SERVER: &str = "192.0.2.1:443";
const CLIENT: &str = "198.51.100.1:0";

/// What the application of the server does.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Application {
    /// Takes what arrives, and answers on bidirectional streams with so many bytes.
    Reads {
        /// Bytes of an answer.
        answer: usize,
    },
    /// Takes nothing.
    Pauses,
}

/// One scenario at a time: they count the memory of the whole program.
static ALONE: Mutex<()> = Mutex::new(());

/// Until the guard is dropped, no other attack runs: the memory of all would be counted.
pub(crate) fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Bytes on their way to the server and from it.
#[derive(Default)]
struct Traffic {
    /// Of all addresses but the legitimate client's.
    all: (u64, u64),
    /// Of those that are watched.
    watched: HashMap<IpAddr, (u64, u64)>,
}

pub(crate) struct Field {
    pub(crate) world: World,
    pub(crate) server: Registration,
    client: Registration,
    client_configuration: Arc<Configuration>,
    _listener: Listener,
    traffic: Arc<Mutex<Traffic>>,
    /// Why connections of the server ended.
    pub(crate) ends: Arc<Mutex<Vec<String>>>,
    /// How long each legitimate client took.
    served: Vec<Duration>,
    before: u64,
    name: &'static str,
    _alone: MutexGuard<'static, ()>,
}

impl Field {
    pub(crate) fn new(
        name: &'static str,
        limits: Limits,
        retry: RetryPolicy,
        settings: Settings,
        application: Application,
    ) -> Field {
        let alone = alone();
        let mut world = World::new(7);
        let client_settings = Settings {
            peer_uni_stream_count: 10,
            ..Settings::default()
        };
        let (server_configuration, client_configuration) = configurations(settings, client_settings);
        let server = world.host_with(address(SERVER).ip(), 1, 1, limits);
        let client = world.host(address(CLIENT).ip(), 1, 1);
        let ends: Arc<Mutex<Vec<String>>> = Arc::default();
        let server_ends = Arc::clone(&ends);
        let options = ListenerOptions::new(address(SERVER), &[ALPN]).with_retry(retry);
        let listener = Listener::start(&server, options, move |event| {
            if let ListenerEvent::NewConnection(incoming) = event {
                incoming.accept(
                    &server_configuration,
                    serve(application, Arc::clone(&server_ends)),
                );
            }
        })
        .unwrap();
        let traffic: Arc<Mutex<Traffic>> = Arc::default();
        let seen = Arc::clone(&traffic);
        world.network.set_capture(Box::new(move |captured| {
            let mut traffic = seen.lock().unwrap();
            let len = captured.bytes.len() as u64;
            let (other, to, from) = if captured.to == address(SERVER) {
                (captured.from.ip(), len, 0)
            } else {
                (captured.to.ip(), 0, len)
            };
            let add = |sums: &mut (u64, u64)| *sums = (sums.0 + to, sums.1 + from);
            if other != address(CLIENT).ip() {
                add(&mut traffic.all);
            }
            if let Some(sums) = traffic.watched.get_mut(&other) {
                add(sums);
            }
        }));
        let mut field = Field {
            world,
            server,
            client,
            client_configuration,
            _listener: listener,
            traffic,
            ends,
            served: Vec::new(),
            before: 0,
            name,
            _alone: alone,
        };
        // What is made once, at the first connection, is there by then.
        field.serve_somebody();
        field.run_for(Duration::from_secs(1));
        field.served.clear();
        *field.traffic.lock().unwrap() = Traffic::default();
        heap::most();
        field.before = heap::held();
        field
    }

    /// A server that reads, with the default limits and settings for streams.
    pub(crate) fn simple(name: &'static str) -> Field {
        Field::new(
            name,
            Limits::default(),
            RetryPolicy::UnderLoad,
            settings(),
            Application::Reads { answer: 10 },
        )
    }

    /// A server that answers each request with so many bytes, and asks nobody to prove an address.
    pub(crate) fn answering(name: &'static str, answer: usize) -> Field {
        Field::new(
            name,
            Limits::default(),
            RetryPolicy::Never,
            settings(),
            Application::Reads { answer },
        )
    }

    pub(crate) fn now(&self) -> Instant {
        self.world.now
    }

    pub(crate) fn run_for(&mut self, time: Duration) {
        self.world.run_for(time);
    }

    /// Sends a datagram to the server that says it comes from `from`.
    pub(crate) fn send_from(&self, from: SocketAddr, datagram: &[u8]) {
        self.world
            .network
            .send(self.now(), from, address(SERVER), datagram);
    }

    /// A client that means no harm connects and sends a request, and has its answer within a second.
    pub(crate) fn serve_somebody(&mut self) {
        let start = self.now();
        let answered = Arc::new(AtomicBool::new(false));
        let done = Arc::clone(&answered);
        let target = ConnectTarget::new(address(SERVER), "localhost");
        let handler = move |connection: &Connection, event: ConnectionEvent<'_>| {
            if let ConnectionEvent::Connected { .. } = event {
                let done = Arc::clone(&done);
                let stream = Stream::open(
                    connection,
                    Direction::Bidirectional,
                    move |_: &Stream, event: StreamEvent<'_>| {
                        if let StreamEvent::PeerSendShutdown = event {
                            done.store(true, Ordering::Relaxed);
                        }
                        EventStatus::Done
                    },
                )
                .unwrap();
                stream.detach();
                stream.start(true).unwrap();
                stream.send(Bytes::from_static(b"please"), 0, true).unwrap();
            }
            EventStatus::Done
        };
        let connection =
            Connection::start(&self.client, &self.client_configuration, &target, handler).unwrap();
        let in_time = self
            .world
            .run_until(Duration::from_secs(1), |_| answered.load(Ordering::Relaxed));
        assert!(
            in_time,
            "{}: a client that means no harm was not served within a second",
            self.name
        );
        self.served.push(self.now().since(start));
        connection.shutdown(0).unwrap();
    }

    pub(crate) fn stats(&mut self) -> WorkerStats {
        // Counters are published once a second, or when a context goes to sleep.
        self.run_for(Duration::from_millis(1100));
        self.world.turn();
        self.server.stats()[0].worker
    }

    pub(crate) fn drops(&mut self, reason: DropReason) -> u64 {
        self.stats().drops.get(reason)
    }

    /// Bytes that were sent to the server in the names of addresses other than the legitimate client's, and its answers.
    pub(crate) fn bytes(&self) -> (u64, u64) {
        self.traffic.lock().unwrap().all
    }

    /// From now on, counts the bytes of an address by themselves too.
    pub(crate) fn watch(&self, ip: &str) {
        let ip = ip.parse().unwrap();
        self.traffic.lock().unwrap().watched.insert(ip, (0, 0));
    }

    /// Bytes to the server and from it since the address is watched.
    pub(crate) fn watched(&self, ip: &str) -> (u64, u64) {
        self.traffic.lock().unwrap().watched[&ip.parse::<IpAddr>().unwrap()]
    }

    /// Bytes more than before the attack.
    pub(crate) fn growth(&self) -> u64 {
        heap::held().saturating_sub(self.before)
    }

    /// Prints the scenario's line of the table.
    #[allow(clippy::print_stdout, reason = "the table is what the program is for")]
    pub(crate) fn report(&self) {
        let (received, sent) = self.bytes();
        let most = heap::most();
        let slowest = self
            .served
            .iter()
            .max()
            .map_or("nobody asked".to_owned(), |slowest| {
                format!(
                    "{} served, the slowest in {:.0} ms",
                    self.served.len(),
                    slowest.as_secs_f64() * 1e3
                )
            });
        println!(
            "{:<44} in {received:>9} B, out {sent:>9} B; memory {} → {} → {} KB; {slowest}",
            self.name,
            self.before / 1024,
            most / 1024,
            heap::held() / 1024
        );
    }
}

/// Settings of a server with room for streams.
pub(crate) fn settings() -> Settings {
    Settings {
        peer_bidi_stream_count: 100,
        peer_uni_stream_count: 100,
        ..Settings::default()
    }
}

fn serve(
    application: Application,
    ends: Arc<Mutex<Vec<String>>>,
) -> impl FnMut(&Connection, ConnectionEvent<'_>) -> EventStatus + Send + 'static {
    move |_: &Connection, event: ConnectionEvent<'_>| {
        match event {
            ConnectionEvent::PeerStreamStarted(stream) => {
                stream.accept(
                    move |stream: &Stream, event: StreamEvent<'_>| match (application, event) {
                        (Application::Reads { answer }, StreamEvent::PeerSendShutdown) => {
                            let _ = stream.send(Bytes::from(vec![7; answer]), 0, true);
                            EventStatus::Done
                        }
                        (Application::Pauses, StreamEvent::Receive(data)) if data.fin() => {
                            let _ = stream.send(Bytes::from_static(b"yes"), 0, true);
                            EventStatus::Done
                        }
                        (Application::Pauses, StreamEvent::Receive(_)) => EventStatus::Consumed(0),
                        _ => EventStatus::Done,
                    },
                );
            }
            ConnectionEvent::ShutdownByTransport { reason } => ends.lock().unwrap().push(reason.to_string()),
            _ => {}
        }
        EventStatus::Done
    }
}

/// An attacker with a connection: it keeps to the protocol until the handshake is complete, and then sends what it likes.
pub(crate) struct Attacker {
    pub(crate) engine: engine::Connection,
    port: RawPort,
    drops: DropCounts,
    next_number: u64,
    refused: bool,
}

const LIMITS: TransmitLimits = TransmitLimits {
    segments_max: 1,
    datagram_bytes_max: 1500,
};

impl Attacker {
    /// One that has sent nothing yet. Each `number` is another one.
    pub(crate) fn new(field: &Field, at: &str, number: u8) -> Attacker {
        Self::speaking(field, at, number, ALPN)
    }

    /// One that asks for this application protocol.
    pub(crate) fn speaking(field: &Field, at: &str, number: u8, alpn: &[u8]) -> Attacker {
        let port = field.world.network.bind_raw(address(at)).unwrap();
        let mut credentials = ClientCredentials::no_verification();
        credentials.cipher_suites = vec![CipherSuite::Aes128Gcm];
        // A first flight of one packet.
        credentials.key_exchange_groups = vec![KeyExchangeGroup::X25519];
        let tls = ClientTls::new(credentials, vec![alpn.to_vec()]).unwrap();
        let path = engine::PathAddress {
            port: PortId(0),
            local: port.local_addr(),
            remote: address(SERVER),
        };
        let mut config = Config::default();
        config.streams.connection_window = 1 << 30;
        config.streams.window_bidi_local = 1 << 30;
        let engine = engine::Connection::client(
            field.now(),
            Arc::new(config),
            &tls,
            ServerName::try_from("localhost").unwrap(),
            path,
            engine::LocalCid {
                cid: ConnectionId::new(&[number; 8]).unwrap(),
                token: ResetToken([number; 16]),
            },
            Vec::new(),
            None,
            engine::seed(&mut StdRng::seed_from_u64(u64::from(number))),
        );
        Attacker {
            engine,
            port,
            drops: DropCounts::default(),
            // Far behind those of the handshake.
            next_number: 1000,
            refused: false,
        }
    }

    /// One whose handshake is confirmed.
    pub(crate) fn connected(field: &mut Field, at: &str, number: u8) -> Attacker {
        let mut attacker = Attacker::new(field, at, number);
        // Some milliseconds; acknowledgements are done with by the end.
        for _ in 0..60 {
            attacker.turn(field);
            field.run_for(Duration::from_millis(1));
        }
        assert!(
            attacker.engine.is_established(),
            "the attacker's handshake is complete"
        );
        attacker
    }

    /// Takes in what has arrived, and sends what its engine wants to.
    pub(crate) fn turn(&mut self, field: &Field) {
        let now = field.now();
        self.receive(now);
        while let Some(event) = self.engine.next_event() {
            assert!(
                !matches!(event, Event::Closing(_)),
                "the attacker's own connection failed: {event:?}"
            );
        }
        let mut buffer = [0; 1500];
        while let Some(transmit) = self.engine.transmit(now, &mut buffer, &LIMITS) {
            field.send_from(self.port.local_addr(), &buffer[..transmit.len]);
        }
    }

    fn receive(&mut self, now: Instant) {
        let path = self.engine.path();
        while let Some((_, mut datagram)) = self.port.receive(now) {
            let mut receive = self.engine.receive(&path, Ecn::NotEct, &mut datagram);
            while self
                .engine
                .receive_next(now, &mut receive, &mut self.drops)
                .is_some()
            {}
        }
    }

    /// Its first datagram: an Initial with a ClientHello.
    pub(crate) fn first_datagram(&mut self, field: &Field) -> Vec<u8> {
        let mut buffer = [0; 1500];
        let transmit = self.engine.transmit(field.now(), &mut buffer, &LIMITS).unwrap();
        buffer[..transmit.len].to_vec()
    }

    /// Takes in what has arrived, and says whether the server has refused it.
    pub(crate) fn is_refused(&mut self, field: &Field) -> bool {
        self.receive(field.now());
        while let Some(event) = self.engine.next_event() {
            self.refused |= matches!(event, Event::Closing(CloseReason::PeerTransport { code, .. }) if code == TransportErrorCode::CONNECTION_REFUSED);
        }
        self.refused
    }

    /// Throws away what has arrived, and says how many bytes that was.
    pub(crate) fn ignore(&mut self, field: &Field) -> u64 {
        std::iter::from_fn(|| self.port.receive(field.now()))
            .map(|(_, datagram)| datagram.len() as u64)
            .sum()
    }

    /// A datagram of one packet with these frames, whatever they are.
    pub(crate) fn datagram(&mut self, space: Space, frames: &[u8]) -> Vec<u8> {
        let mut datagram = Vec::new();
        self.next_number += 1;
        assert!(
            self.engine.craft(space, self.next_number, frames, &mut datagram),
            "there are keys"
        );
        datagram
    }

    /// Sends a 1-RTT packet of these frames.
    pub(crate) fn send(&mut self, field: &Field, frames: &[u8]) {
        let datagram = self.datagram(Space::Data, frames);
        field.send_from(self.port.local_addr(), &datagram);
    }

    /// Sends frames in as few full packets as will hold them, a hundred packets for each millisecond.
    pub(crate) fn send_all(&mut self, field: &mut Field, frames: impl Iterator<Item = Vec<u8>>) {
        let mut packet = Vec::new();
        let mut sent = 0;
        for frame in frames {
            if packet.len() + frame.len() > 1150 {
                self.send(field, &packet);
                packet.clear();
                sent += 1;
                if sent % 100 == 0 {
                    field.run_for(Duration::from_millis(1));
                    self.ignore(field);
                }
            }
            packet.extend(frame);
        }
        if !packet.is_empty() {
            self.send(field, &packet);
        }
        field.run_for(Duration::from_millis(5));
        self.ignore(field);
    }
}

/// How many times longer than in the test command.
pub(crate) fn longer() -> u64 {
    ringway_tests::number("TEST_RUNS").unwrap_or(1)
}
