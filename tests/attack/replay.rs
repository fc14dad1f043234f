//! An attacker who records a client's first flight, ClientHello and 0-RTT, and sends it again.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use ringway::pki_types::PrivateKeyDer;
use ringway::sim::Link;
use ringway::{
    Bytes, ClientCredentials, Configuration, ConnectTarget, Connection, ConnectionEvent, Direction,
    EventStatus, Listener, ListenerEvent, ListenerOptions, Registration, ReplayProtection, ResumptionLevel,
    RetryPolicy, SendFlags, ServerCredentials, Settings, Stream, StreamEvent, StrikeRegister, TicketKey,
    TicketUse, ZeroRtt,
};
use ringway_tests::{ALPN, World, address};

use super::field::alone;

const SERVER: &str = "192.0.2.1:443";
const FLEET: [&str; 2] = [SERVER, "192.0.2.2:443"];
const CLIENT: &str = "198.51.100.1:0";
/// A round trip takes twice as long.
const DELAY: Duration = Duration::from_millis(10);

/// What the server's application has done.
#[derive(Default)]
struct Done {
    /// Of requests: whether they came in 0-RTT.
    requests: Vec<bool>,
    /// Connections whose ClientHello brought 0-RTT that was not accepted.
    rejected: usize,
}

/// What went to the server, and whether it has answered.
#[derive(Default)]
struct Recorded {
    flight: Vec<Vec<u8>>,
    is_answered: bool,
}

struct Scene {
    world: World,
    /// They end with the scene.
    _servers: Vec<Registration>,
    client: Registration,
    configuration: Arc<Configuration>,
    _listeners: Vec<Listener>,
    done: Arc<Mutex<Done>>,
    recorded: Arc<Mutex<Recorded>>,
    _alone: MutexGuard<'static, ()>,
}

impl Scene {
    fn new() -> Scene {
        Scene::of(&[None])
    }

    /// A fleet that shares its ticket keys: a server with each of these, or what there is by default. The client goes to the first.
    fn of(protections: &[Option<Arc<dyn ReplayProtection>>]) -> Scene {
        let alone = alone();
        let mut world = World::new(11);
        world.network.set_default_link(Link {
            delay: DELAY,
            ..Link::default()
        });
        let settings = Settings {
            server_resumption_level: ResumptionLevel::ResumeAndZeroRtt,
            peer_bidi_stream_count: 10,
            ..Settings::default()
        };
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let chain = vec![made.cert.der().clone()];
        let roots = ClientCredentials::roots(chain.clone());
        let of_client = Configuration::client(&[ALPN], Settings::default(), roots).unwrap();
        let client = world.host(address(CLIENT).ip(), 1, 1);
        let done: Arc<Mutex<Done>> = Arc::default();
        let key = TicketKey::random().unwrap();
        let (mut servers, mut listeners) = (Vec::new(), Vec::new());
        for (protection, at) in protections.iter().zip(FLEET) {
            let private = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
            let credentials = ServerCredentials::new(chain.clone(), private);
            let of_server = Configuration::server(&[ALPN], settings.clone(), credentials).unwrap();
            of_server.set_ticket_keys(std::slice::from_ref(&key));
            of_server.set_ticket_context(b"fleet");
            if let Some(protection) = protection {
                of_server.set_replay_protection(Arc::clone(protection));
            }
            // Copies from other addresses come to any of its partitions.
            let server = world.host(address(at).ip(), 2, 1);
            let options = ListenerOptions::new(address(at), &[ALPN]).with_retry(RetryPolicy::Never);
            let log = Arc::clone(&done);
            let listener = Listener::start(&server, options, move |event| {
                if let ListenerEvent::NewConnection(incoming) = event {
                    let log = Arc::clone(&log);
                    incoming.accept(
                        &of_server,
                        move |connection: &Connection, event: ConnectionEvent<'_>| {
                            serve(&log, connection, event);
                            EventStatus::Done
                        },
                    );
                }
            });
            listeners.push(listener.unwrap());
            servers.push(server);
        }
        let recorded: Arc<Mutex<Recorded>> = Arc::default();
        let tape = Arc::clone(&recorded);
        world.network.set_capture(Box::new(move |captured| {
            let mut tape = tape.lock().unwrap();
            let client = address(CLIENT).ip();
            if captured.to.ip() == client {
                tape.is_answered = true;
            } else if captured.from.ip() == client && !tape.is_answered {
                tape.flight.push(captured.bytes.to_vec());
            }
        }));
        Scene {
            world,
            _servers: servers,
            client,
            configuration: of_client,
            _listeners: listeners,
            done,
            recorded,
            _alone: alone,
        }
    }

    /// A client connects. What it sends before the first answer is recorded.
    fn connect(&mut self) -> (Connection, Arc<Mutex<Vec<ZeroRtt>>>) {
        *self.recorded.lock().unwrap() = Recorded::default();
        let outcome: Arc<Mutex<Vec<ZeroRtt>>> = Arc::default();
        let told = Arc::clone(&outcome);
        let target = ConnectTarget::new(address(SERVER), "localhost");
        let handler = move |_: &Connection, event: ConnectionEvent<'_>| {
            if let ConnectionEvent::Connected { zero_rtt, .. } = event {
                told.lock().unwrap().push(zero_rtt);
            }
            EventStatus::Done
        };
        let connection = Connection::start(&self.client, &self.configuration, &target, handler).unwrap();
        connection.detach();
        (connection, outcome)
    }

    /// A client that has got a ticket makes a request in 0-RTT.
    fn request(&mut self) -> Arc<Mutex<Vec<ZeroRtt>>> {
        let (first, _) = self.connect();
        self.world.run_for(Duration::from_secs(1));
        first.shutdown(0).unwrap();
        self.world.run_for(Duration::from_secs(1));
        let (connection, outcome) = self.connect();
        let handler = |_: &Stream, _: StreamEvent<'_>| EventStatus::Done;
        let stream = Stream::open(&connection, Direction::Bidirectional, handler).unwrap();
        stream.detach();
        stream.start(false).unwrap();
        let request = Bytes::from(vec![1; 500]);
        stream
            .send_with(request, 0, SendFlags::FIN | SendFlags::ALLOW_0_RTT)
            .unwrap();
        outcome
    }

    /// Sends what was recorded, from another address.
    fn replay(&self, from: SocketAddr) {
        self.replay_to(from, SERVER);
    }

    fn replay_to(&self, from: SocketAddr, server: &str) {
        let flight = self.recorded.lock().unwrap().flight.clone();
        assert!(!flight.is_empty());
        for datagram in &flight {
            self.world
                .network
                .send(self.world.now, from, address(server), datagram);
        }
    }

    fn set_blackout(&self, blackout: bool) {
        let link = Link {
            delay: DELAY,
            blackout,
            ..Link::default()
        };
        self.world
            .network
            .set_link(address(CLIENT).ip(), address(SERVER).ip(), link);
    }

    /// Requests that were done in 0-RTT, and after a handshake.
    fn requests(&self) -> (usize, usize) {
        let done = self.done.lock().unwrap();
        let early = done.requests.iter().filter(|&&early| early).count();
        (early, done.requests.len() - early)
    }
}

fn serve(log: &Arc<Mutex<Done>>, connection: &Connection, event: ConnectionEvent<'_>) {
    match event {
        ConnectionEvent::Connected { .. } => {
            let _ = connection.send_resumption_ticket(b"");
        }
        ConnectionEvent::PeerStreamStarted(stream) => {
            let (log, mut early) = (Arc::clone(log), stream.is_zero_rtt());
            stream.accept(move |stream: &Stream, event: StreamEvent<'_>| {
                if let StreamEvent::Receive(data) = event {
                    early |= data.is_zero_rtt();
                    if data.fin() {
                        log.lock().unwrap().requests.push(early);
                        let _ = stream.send(Bytes::from_static(b"done"), 0, true);
                    }
                }
                EventStatus::Done
            });
        }
        ConnectionEvent::ShutdownComplete { stats, .. } if stats.zero_rtt == ZeroRtt::Rejected => {
            log.lock().unwrap().rejected += 1;
        }
        _ => {}
    }
}

/// Addresses of the attacker.
fn attackers(count: u8) -> impl Iterator<Item = SocketAddr> {
    (1..=count).map(|number| address(&format!("203.0.113.{number}:4000")))
}

#[test]
fn recorded_first_flight_does_nothing_when_it_comes_again() {
    let mut scene = Scene::new();
    let outcome = scene.request();
    scene.world.run_for(Duration::from_secs(1));
    assert_eq!(*outcome.lock().unwrap(), [ZeroRtt::Accepted]);
    assert_eq!(scene.requests(), (1, 0));
    // At once and later, from many addresses.
    for from in attackers(20) {
        scene.replay(from);
        scene.world.run_for(Duration::from_secs(4));
    }
    // Handshakes that nobody completes have ended.
    scene.world.run_for(Duration::from_secs(60));
    assert_eq!(scene.done.lock().unwrap().rejected, 20, "each began a connection");
    assert_eq!(scene.requests(), (1, 0));
}

#[test]
fn copies_that_come_together_are_accepted_once() {
    // The attacker holds the original back, lets copies through from everywhere at once, and then the original.
    let mut scene = Scene::new();
    let outcome = scene.request();
    scene.set_blackout(true);
    scene.world.turn();
    scene.world.turn();
    let flights: HashSet<SocketAddr> = attackers(20).collect();
    for &from in &flights {
        scene.replay(from);
    }
    scene.world.run_for(Duration::from_millis(100));
    assert_eq!(scene.requests(), (1, 0), "one of the copies");
    assert!(outcome.lock().unwrap().is_empty());
    scene.set_blackout(false);
    scene.world.run_for(Duration::from_secs(5));
    // The client is told that its 0-RTT was rejected, and asks again, as it would have without: this is done a second time (RFC 8446 section 8).
    assert_eq!(*outcome.lock().unwrap(), [ZeroRtt::Rejected]);
    assert_eq!(scene.requests(), (1, 1));
    for &from in &flights {
        scene.replay(from);
    }
    scene.world.run_for(Duration::from_secs(60));
    assert_eq!(scene.requests(), (1, 1));
}

/// What all servers of a fleet ask.
#[derive(Default)]
struct OfFleet(Mutex<HashSet<[u8; 16]>>);

impl ReplayProtection for OfFleet {
    fn claim(&self, ticket_use: &TicketUse) -> bool {
        self.0.lock().unwrap().insert(ticket_use.ticket)
    }

    fn withdraw(&self, ticket_use: &TicketUse) {
        self.0.lock().unwrap().remove(&ticket_use.ticket);
    }
}

#[test]
fn first_flight_is_accepted_once_by_each_server_of_a_fleet_or_once_by_all_that_ask_the_same_register() {
    let of_fleet: Arc<dyn ReplayProtection> = Arc::new(OfFleet::default());
    // As processes have them: of each its own.
    let own = || Arc::new(StrikeRegister::new(100)) as Arc<dyn ReplayProtection>;
    for (protections, accepted) in [([own(), own()], 2), ([Arc::clone(&of_fleet), of_fleet], 1)] {
        let mut scene = Scene::of(&protections.map(Some));
        let outcome = scene.request();
        scene.world.run_for(Duration::from_secs(1));
        assert_eq!(*outcome.lock().unwrap(), [ZeroRtt::Accepted]);
        for from in attackers(5) {
            for server in FLEET {
                scene.replay_to(from, server);
            }
            scene.world.run_for(Duration::from_secs(1));
        }
        assert_eq!(scene.requests(), (accepted, 0));
        // Handshakes that nobody completes have ended.
        scene.world.run_for(Duration::from_secs(60));
        assert_eq!(scene.done.lock().unwrap().rejected, 11 - accepted);
        assert_eq!(scene.requests(), (accepted, 0));
    }
}
