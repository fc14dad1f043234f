//! Connections follow their packets from partition to partition while data flows both ways: no byte is lost, repeated or out of order, and
//! nothing is left behind.

use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use ringway::sim::Link;
use ringway::{
    Configuration, ConnectTarget, Connection, ConnectionEvent, Direction, EventStatus, Listener,
    ListenerEvent, ListenerOptions, ReceivedData, Registration, RetryPolicy, Settings, Steering, Stream,
    StreamEvent,
};
use ringway_async::Endpoint;
use ringway_tests::order::ordered;
use ringway_tests::{ALPN, World, address, configurations, pattern, settings, with_seeds};

const PARTITIONS: usize = 4;
const MOVES: u64 = 100;

/// What both sides have seen, and who is still there to see it.
#[derive(Default)]
struct Seen {
    moves: AtomicU64,
    partition: AtomicU64,
    echoed: AtomicU64,
    connected: AtomicBool,
    finished: AtomicBool,
    ended: AtomicU64,
    /// The client is to finish.
    stop: AtomicBool,
}

impl Seen {
    fn moves(&self) -> u64 {
        self.moves.load(Ordering::SeqCst)
    }

    fn echoed(&self) -> u64 {
        self.echoed.load(Ordering::SeqCst)
    }
}

/// A server that sends back what it gets.
fn serve(
    server: &Registration,
    local: SocketAddr,
    configuration: Arc<Configuration>,
    seen: &Arc<Seen>,
) -> Listener {
    let options = ListenerOptions::new(local, &[ALPN]).with_retry(RetryPolicy::Never);
    let seen = Arc::clone(seen);
    let listener = Listener::start(server, options, move |event| {
        let ListenerEvent::NewConnection(incoming) = event else {
            return;
        };
        let seen = Arc::clone(&seen);
        incoming.accept(
            &configuration,
            ordered(move |connection: &Connection, event: ConnectionEvent<'_>| {
                match event {
                    ConnectionEvent::IdealProcessorChanged { partition } => {
                        assert_eq!(connection.partition(), partition);
                        seen.partition.store(partition as u64, Ordering::SeqCst);
                        seen.moves.fetch_add(1, Ordering::SeqCst);
                    }
                    ConnectionEvent::Connected { .. } => {
                        seen.partition
                            .store(connection.partition() as u64, Ordering::SeqCst);
                    }
                    ConnectionEvent::PeerStreamStarted(stream) => {
                        stream.accept(ordered(|stream: &Stream, event: StreamEvent<'_>| {
                            if let StreamEvent::Receive(data) = event {
                                stream.send(data.to_vec().into(), 0, data.fin()).unwrap();
                            }
                            EventStatus::Done
                        }));
                    }
                    ConnectionEvent::ShutdownComplete { .. } => {
                        seen.ended.fetch_add(1, Ordering::SeqCst);
                    }
                    _ => {}
                }
                EventStatus::Done
            }),
        );
    });
    listener.unwrap()
}

/// A client that sends until it is to stop, and checks every byte that comes back.
fn send(
    client: &Registration,
    target: SocketAddr,
    configuration: &Arc<Configuration>,
    seen: &Arc<Seen>,
) -> (Connection, Stream) {
    let state = Arc::clone(seen);
    let target = ConnectTarget::new(target, "localhost");
    let connection = Connection::start(
        client,
        configuration,
        &target,
        ordered(move |_: &Connection, event: ConnectionEvent<'_>| {
            match event {
                ConnectionEvent::Connected { .. } => state.connected.store(true, Ordering::SeqCst),
                ConnectionEvent::ShutdownByTransport { reason } => panic!("{reason}"),
                ConnectionEvent::ShutdownComplete { .. } => {
                    state.ended.fetch_add(1, Ordering::SeqCst);
                }
                _ => {}
            }
            EventStatus::Done
        }),
    )
    .unwrap();
    let seen = Arc::clone(seen);
    let (mut sent, mut outstanding) = (0, 0);
    let mut finished = false;
    let stream = Stream::open(
        &connection,
        Direction::Bidirectional,
        ordered(move |stream: &Stream, event: StreamEvent<'_>| {
            match event {
                StreamEvent::StartComplete(result) => _ = result.unwrap(),
                StreamEvent::SendComplete { canceled: false, .. } => outstanding -= 1,
                StreamEvent::Receive(data) => {
                    check(&data, seen.echoed());
                    seen.echoed.fetch_add(data.len() as u64, Ordering::SeqCst);
                    if data.fin() {
                        assert_eq!(seen.echoed(), sent);
                        seen.finished.store(true, Ordering::SeqCst);
                    }
                }
                _ => return EventStatus::Done,
            }
            // The way back may carry less than the way there: what has not come back yet is bounded, or the end would take minutes.
            while !finished && outstanding < SENDS && sent < seen.echoed() + AHEAD_MAX {
                finished = seen.stop.load(Ordering::SeqCst);
                stream
                    .send(pattern(sent, SEND_BYTES).into(), 0, finished)
                    .unwrap();
                sent += SEND_BYTES as u64;
                outstanding += 1;
            }
            EventStatus::Done
        }),
    );
    let stream = stream.unwrap();
    stream.start(false).unwrap();
    (connection, stream)
}

fn check(data: &ReceivedData<'_>, expected: u64) {
    assert_eq!(data.offset(), expected);
    assert!(data.to_vec() == pattern(data.offset(), data.len()), "wrong bytes");
}

const SENDS: usize = 16;
const SEND_BYTES: usize = 4096;
const AHEAD_MAX: u64 = 1 << 20;

fn no_connection_is_left(registration: &Registration) -> bool {
    registration
        .stats()
        .iter()
        .all(|stats| stats.worker.connections == 0)
}

fn moved(seed: u64) {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut world = World::new(seed);
    world.network.disable_steering();
    let (server_ip, client_ip) = (address("192.0.2.1:443").ip(), address("198.51.100.7:0").ip());
    for (from, to) in [(server_ip, client_ip), (client_ip, server_ip)] {
        let link = Link {
            delay: Duration::from_millis(rng.random_range(1..20)),
            loss: rng.random_range(0.0..0.02),
            ..Link::default()
        };
        world.network.set_link(from, to, link);
    }
    let (server_config, client_config) = configurations(settings(), settings());
    let server = world.host(server_ip, PARTITIONS, 8);
    let client = world.host(client_ip, 1, 8);
    let seen: Arc<Seen> = Arc::default();
    let listener = serve(&server, address("192.0.2.1:443"), server_config, &seen);
    let handles = send(&client, address("192.0.2.1:443"), &client_config, &seen);
    assert!(
        world.run_until(Duration::from_secs(20), |_| seen.echoed() > 10_000),
        "it begins"
    );
    let mut port = 2000;
    while seen.moves() < MOVES {
        let (moves, echoed) = (seen.moves(), seen.echoed());
        let before = seen.partition.load(Ordering::SeqCst);
        port += rng.random_range(1..PARTITIONS as u16);
        if u64::from(port) % PARTITIONS as u64 == before {
            port += 1;
        }
        world.network.rebind(
            SocketAddr::new(client_ip, 49_152),
            SocketAddr::new(client_ip, port),
        );
        let follows = world.run_until(Duration::from_secs(60), |_| {
            seen.moves() > moves && seen.echoed() > echoed + 50_000
        });
        assert!(follows, "after {moves} moves");
        assert_eq!(
            seen.partition.load(Ordering::SeqCst),
            u64::from(port) % PARTITIONS as u64
        );
    }
    seen.stop.store(true, Ordering::SeqCst);
    assert!(
        world.run_until(Duration::from_secs(60), |_| seen.finished.load(Ordering::SeqCst)),
        "all of it"
    );
    handles.0.shutdown(0).unwrap();
    assert!(
        world.run_until(Duration::from_secs(60), |_| seen.ended.load(Ordering::SeqCst)
            == 2),
        "both end"
    );
    drop((handles, listener));
    world.run_for(Duration::from_secs(5));
    assert_eq!(world.turn(), None, "no timer is left");
    assert!(no_connection_is_left(&server) && no_connection_is_left(&client));
    assert_eq!(Arc::strong_count(&seen), 1, "no handler is left");
    let by_hand: u64 = server.stats().iter().map(|stats| stats.worker.moved_away).sum();
    assert_eq!(by_hand, seen.moves());
}

#[test]
fn connection_follows_its_packets_over_any_network() {
    with_seeds(6, "movement over_any_network", moved);
}

/// The table of a NIC, or the processor that serves its interrupt, may change when a handshake has begun: a client's next Initial packets carry a
/// connection ID that another partition has issued, and look like those of a new client.
#[test]
fn handshake_goes_on_where_it_began_when_the_network_brings_it_elsewhere() {
    let mut world = World::new(1);
    let (server_ip, client_ip) = (address("192.0.2.1:443").ip(), address("198.51.100.7:0").ip());
    for (from, to) in [(server_ip, client_ip), (client_ip, server_ip)] {
        let link = Link {
            delay: Duration::from_millis(10),
            ..Link::default()
        };
        world.network.set_link(from, to, link);
    }
    let (server_config, client_config) = configurations(settings(), settings());
    let server = world.host(server_ip, PARTITIONS, 8);
    let client = world.host(client_ip, 1, 8);
    let seen: Arc<Seen> = Arc::default();
    let listener = serve(&server, address("192.0.2.1:443"), server_config, &seen);
    let handles = send(&client, address("192.0.2.1:443"), &client_config, &seen);
    // The client's first packets have arrived, and the answer is on its way.
    world.run_for(Duration::from_millis(15));
    world.network.shift_flows();
    assert!(world.run_until(Duration::from_secs(20), |_| seen.echoed() > 10_000));
    seen.stop.store(true, Ordering::SeqCst);
    assert!(world.run_until(Duration::from_secs(20), |_| seen.finished.load(Ordering::SeqCst)));
    // Until the partitions have told what they counted.
    world.run_for(Duration::from_secs(2));
    world.turn();
    let stats = server.stats();
    let dropped =
        |stats: &ringway::PartitionStats| stats.worker.drops.iter().map(|(_, count)| count).sum::<u64>();
    assert_eq!(stats.iter().map(dropped).sum::<u64>(), 0, "{stats:?}");
    assert_eq!(stats.iter().map(|stats| stats.worker.accepted).sum::<u64>(), 1);
    assert!(
        stats.iter().any(|stats| stats.worker.handed_over > 0),
        "{stats:?}"
    );
    drop((handles, listener));
}

/// What stands between a client and a server, and can change the port that it sends from.
struct Nat {
    address: SocketAddr,
    outside: Arc<Mutex<Arc<UdpSocket>>>,
    server: SocketAddr,
    inside: UdpSocket,
    client: Arc<Mutex<Option<SocketAddr>>>,
    stop: Arc<AtomicBool>,
}

impl Nat {
    fn new(server: SocketAddr) -> Nat {
        let inside = socket();
        let nat = Nat {
            address: inside.local_addr().unwrap(),
            outside: Arc::new(Mutex::new(Arc::new(socket()))),
            server,
            inside,
            client: Arc::default(),
            stop: Arc::default(),
        };
        let (inside, client, outside) = (
            nat.inside.try_clone().unwrap(),
            Arc::clone(&nat.client),
            Arc::clone(&nat.outside),
        );
        let stop = Arc::clone(&nat.stop);
        std::thread::spawn(move || {
            let mut datagram = [0; 2048];
            while !stop.load(Ordering::SeqCst) {
                let Ok((len, from)) = inside.recv_from(&mut datagram) else {
                    continue;
                };
                *client.lock().unwrap() = Some(from);
                let outside = Arc::clone(&*outside.lock().unwrap());
                let _ = outside.send_to(&datagram[..len], server);
            }
        });
        nat.change_port();
        nat
    }

    fn change_port(&self) {
        let socket = Arc::new(socket());
        *self.outside.lock().unwrap() = Arc::clone(&socket);
        let (inside, client, outside) = (
            self.inside.try_clone().unwrap(),
            Arc::clone(&self.client),
            Arc::clone(&self.outside),
        );
        let (stop, server) = (Arc::clone(&self.stop), self.server);
        std::thread::spawn(move || {
            let mut datagram = [0; 2048];
            while !stop.load(Ordering::SeqCst) && Arc::ptr_eq(&socket, &outside.lock().unwrap()) {
                let Ok((len, from)) = socket.recv_from(&mut datagram) else {
                    continue;
                };
                if from == server
                    && let Some(client) = *client.lock().unwrap()
                {
                    let _ = inside.send_to(&datagram[..len], client);
                }
            }
        });
    }
}

impl Drop for Nat {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
    }
}

fn socket() -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    socket
}

fn wait(what: &str, done: impl Fn() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < Duration::from_secs(60), "{what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// A server whose sockets get what the kernel's hash of addresses brings them.
fn server_that_follows_flows() -> Registration {
    assert!(
        std::env::var("TEST_DATAPATH").as_deref() != Ok("af_xdp"),
        "not over AF_XDP: the loopback interface has one queue, and nothing arrives on another"
    );
    let mut execution = ringway_tests::execution(PARTITIONS);
    execution.datapath.steering = Steering::Flow;
    ringway_tests::open(&execution).unwrap()
}

#[test]
fn connection_that_must_not_move_stays_and_hears_all_the_same() {
    let server = server_that_follows_flows();
    let stays = Settings {
        follow_rss: false,
        ..settings()
    };
    let (server_config, client_config) = configurations(stays, settings());
    let client = ringway_tests::client(1);
    let seen: Arc<Seen> = Arc::default();
    let listener = serve(&server, address("127.0.0.1:0"), server_config, &seen);
    let nat = Nat::new(listener.local_address());
    let _handles = send(&client, nat.address, &client_config, &seen);
    // Not before the handshake is confirmed: until then a client must stay where it is (RFC 9000 section 9), and data shows it.
    wait("data goes", || seen.echoed() > 0);
    for _ in 0..20 {
        let echoed = seen.echoed();
        nat.change_port();
        wait("data goes on", || seen.echoed() > echoed + 200_000);
    }
    assert_eq!(seen.moves(), 0);
    let stats = server.stats();
    assert!(
        stats.iter().any(|stats| stats.worker.handed_over > 0),
        "{stats:?}"
    );
}

#[test]
fn tasks_read_in_order_what_came_before_and_behind_a_move() {
    let server = server_that_follows_flows();
    // A client that waits for credit sends nothing, and behind a NAT that has forgotten it nobody could give it any: now and then it says where
    // it is.
    let says_where_it_is = Settings {
        keep_alive_interval: Duration::from_millis(100),
        ..settings()
    };
    let (server_config, client_config) = configurations(settings(), says_where_it_is);
    let options = ListenerOptions::new(address("127.0.0.1:0"), &[ALPN]);
    let listener = Endpoint::new(&server).listen(options, server_config).unwrap();
    let nat = Nat::new(listener.local_addr());
    let seen: Arc<Seen> = Arc::default();
    let at_server = Arc::clone(&seen);
    let reads = async move {
        let connection = listener.accept().await.unwrap().await.unwrap();
        let partition = || connection.callback_handle().partition() as u64;
        let mut receive = connection.accept_uni().await.unwrap();
        at_server.partition.store(partition(), Ordering::SeqCst);
        while let Some(chunk) = receive.read_chunk(usize::MAX).await.unwrap() {
            let received = at_server.echoed();
            assert!(chunk == pattern(received, chunk.len()), "behind {received} bytes");
            at_server.echoed.fetch_add(chunk.len() as u64, Ordering::SeqCst);
            let before = at_server.partition.swap(partition(), Ordering::SeqCst);
            let moves = u64::from(before != partition());
            at_server.moves.fetch_add(moves, Ordering::SeqCst);
        }
        // It lives until both ends have what they wait for.
        (at_server.echoed(), connection)
    };
    let reads = std::thread::spawn(|| futures_executor::block_on(reads));
    let (target, at_client) = (nat.address, Arc::clone(&seen));
    let writes = async move {
        let mut client = Endpoint::new(&ringway_tests::client(1));
        client.set_default_client_config(client_config);
        let connection = client.connect(target, "localhost").unwrap().await.unwrap();
        let mut send = connection.open_uni().await.unwrap();
        let mut sent = 0;
        while !at_client.stop.load(Ordering::SeqCst) {
            send.write_all(&pattern(sent, SEND_BYTES)).await.unwrap();
            sent += SEND_BYTES as u64;
        }
        send.finish().unwrap();
        send.stopped().await.unwrap();
        (sent, client, connection)
    };
    let writes = std::thread::spawn(|| futures_executor::block_on(writes));
    wait("data goes", || seen.echoed() > 0);
    while seen.moves() < 20 {
        let received = seen.echoed();
        nat.change_port();
        wait("data goes on", || {
            seen.echoed() > received + 200_000 || reads.is_finished()
        });
        assert!(!reads.is_finished(), "{:?}", reads.join());
    }
    seen.stop.store(true, Ordering::SeqCst);
    let (received, _at_server) = reads.join().unwrap();
    let (sent, _client, _at_client) = writes.join().unwrap();
    assert_eq!(received, sent);
}

#[test]
fn listener_on_one_partition_accepts_there_what_arrives_anywhere() {
    let server = server_that_follows_flows();
    let (server_config, client_config) = configurations(settings(), settings());
    let options = |partition| {
        ListenerOptions::new(address("127.0.0.1:0"), &[ALPN])
            .with_retry(RetryPolicy::Always)
            .with_partition(partition)
    };
    assert!(Listener::start(&server, options(PARTITIONS), drop).is_err());
    let (sender, partitions) = std::sync::mpsc::channel();
    let listener = Listener::start(&server, options(2), move |event| {
        let ListenerEvent::NewConnection(incoming) = event else {
            return;
        };
        let sender = sender.clone();
        incoming.accept(
            &server_config,
            move |connection: &Connection, event: ConnectionEvent<'_>| {
                if let ConnectionEvent::Connected { .. } = event {
                    sender.send(connection.partition()).unwrap();
                }
                EventStatus::Done
            },
        );
    });
    let listener = listener.unwrap();
    let client = ringway_tests::client(1);
    for _ in 0..12 {
        let target =
            ConnectTarget::new(listener.local_address(), "localhost").with_local(address("127.0.0.1:0"));
        let silent = |_: &Connection, _: ConnectionEvent<'_>| EventStatus::Done;
        Connection::start(&client, &client_config, &target, silent)
            .unwrap()
            .detach();
        assert_eq!(partitions.recv_timeout(Duration::from_secs(20)), Ok(2));
    }
}

#[test]
fn connection_follows_its_packets_over_real_sockets() {
    let server = server_that_follows_flows();
    let (server_config, client_config) = configurations(settings(), settings());
    let client = ringway_tests::client(1);
    let seen: Arc<Seen> = Arc::default();
    let listener = serve(&server, address("127.0.0.1:0"), server_config, &seen);
    let nat = Nat::new(listener.local_address());
    let handles = send(&client, nat.address, &client_config, &seen);
    wait("it begins", || seen.echoed() > 100_000);
    let mut rebindings = 0;
    while seen.moves() < MOVES {
        let (moves, echoed) = (seen.moves(), seen.echoed());
        nat.change_port();
        rebindings += 1;
        assert!(rebindings < 20 * MOVES, "{moves} moves only");
        // The kernel's hash brings a new port to the same partition as before now and then.
        wait("data goes on", || {
            seen.moves() > moves || seen.echoed() > echoed + 300_000
        });
        wait("data goes on after a move", || seen.echoed() > echoed + 50_000);
    }
    seen.stop.store(true, Ordering::SeqCst);
    wait("all of it", || seen.finished.load(Ordering::SeqCst));
    handles.0.shutdown(0).unwrap();
    wait("both end", || seen.ended.load(Ordering::SeqCst) == 2);
    drop((handles, listener));
    wait("no connection is left", || {
        no_connection_is_left(&server) && no_connection_is_left(&client)
    });
    server.close();
    client.close();
    wait("no handler is left", || Arc::strong_count(&seen) == 1);
}
