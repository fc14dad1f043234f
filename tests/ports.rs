//! Local ports: who shares them, and when they are free again: this over the kernel's network, as `TEST_DATAPATH`, `TEST_MODE` and `TEST_EVENT_LOOP`
//! say.

use std::net::UdpSocket;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ringway::{
    ClientCredentials, CloseReason, Configuration, ConnectTarget, Connection, ConnectionEvent, EventStatus,
    Incoming, Listener, ListenerEvent, ListenerOptions, Registration, RetryPolicy, ServerCredentials,
    Settings, SetupError, TransportErrorCode,
};
use ringway_tests::{ALPN, World, address, client, configurations, server, settings};

const SERVER: &str = "192.0.2.1:443";
const TIMEOUT: Duration = Duration::from_secs(10);

/// What became of a connection.
#[derive(Clone, Debug, PartialEq)]
enum Fate {
    Connected(Vec<u8>),
    Failed(CloseReason),
    Ended,
}

fn tell(fates: Sender<Fate>) -> impl FnMut(&Connection, ConnectionEvent<'_>) -> EventStatus + Send + 'static {
    move |_, event| {
        let fate = match event {
            ConnectionEvent::Connected { alpn, .. } => Fate::Connected(alpn.to_vec()),
            ConnectionEvent::ShutdownByTransport { reason } => Fate::Failed(reason),
            ConnectionEvent::ShutdownComplete { .. } => Fate::Ended,
            _ => return EventStatus::Done,
        };
        let _ = fates.send(fate);
        EventStatus::Done
    }
}

fn ignore(_: &Connection, _: ConnectionEvent<'_>) -> EventStatus {
    EventStatus::Done
}

fn options(local: &str, alpn: &[u8]) -> ListenerOptions {
    ListenerOptions::new(address(local), &[alpn]).with_retry(RetryPolicy::Never)
}

fn listen(
    server: &Registration,
    local: &str,
    configuration: &Arc<Configuration>,
) -> Result<Listener, SetupError> {
    listen_for(server, local, ALPN, configuration)
}

fn listen_for(
    server: &Registration,
    local: &str,
    alpn: &[u8],
    configuration: &Arc<Configuration>,
) -> Result<Listener, SetupError> {
    let configuration = Arc::clone(configuration);
    Listener::start(server, options(local, alpn), move |event| {
        if let ListenerEvent::NewConnection(incoming) = event {
            incoming.accept(&configuration, ignore);
        }
    })
}

fn connect(
    client: &Registration,
    configuration: &Arc<Configuration>,
    target: &ConnectTarget,
) -> (Connection, Receiver<Fate>) {
    let (sender, fates) = channel();
    let connection = Connection::start(client, configuration, target, tell(sender)).unwrap();
    (connection, fates)
}

/// A host for a server and one for a client, on a virtual network.
struct Hosts {
    world: World,
    server: Registration,
    client: Registration,
}

impl Hosts {
    fn new() -> Self {
        let mut world = World::new(5);
        let server = world.host(address(SERVER).ip(), 2, 1);
        let client = world.host("198.51.100.1".parse().unwrap(), 2, 1);
        Hosts {
            world,
            server,
            client,
        }
    }

    fn next(&mut self, fates: &Receiver<Fate>, within: Duration) -> Option<Fate> {
        let mut next = None;
        self.world.run_until(within, |_| {
            next = fates.try_recv().ok();
            next.is_some()
        });
        next
    }
}

fn connected(alpn: &[u8]) -> Option<Fate> {
    Some(Fate::Connected(alpn.to_vec()))
}

fn refused(fate: Option<Fate>) -> bool {
    matches!(
        fate,
        Some(Fate::Failed(CloseReason::PeerTransport {
            code: TransportErrorCode::CONNECTION_REFUSED,
            ..
        }))
    )
}

#[test]
fn client_that_comes_after_the_listener_has_stopped_is_refused_at_once_and_others_live_on() {
    let mut hosts = Hosts::new();
    let (accepting, connecting) = configurations(settings(), settings());
    let target = ConnectTarget::new(address(SERVER), "localhost");
    let listener = listen(&hosts.server, SERVER, &accepting).unwrap();
    let (_early, early) = connect(&hosts.client, &connecting, &target);
    assert_eq!(hosts.next(&early, TIMEOUT), connected(ALPN));
    listener.stop();
    let (_late, late) = connect(&hosts.client, &connecting, &target);
    assert!(refused(hosts.next(&late, Duration::from_millis(500))));
    assert_eq!(hosts.next(&early, Duration::from_secs(1)), None, "it lives on");
    // The port is listened on again while it does.
    let listener = listen(&hosts.server, SERVER, &accepting).unwrap();
    let (_again, again) = connect(&hosts.client, &connecting, &target);
    assert_eq!(hosts.next(&again, TIMEOUT), connected(ALPN));
    assert_eq!(hosts.next(&early, Duration::from_secs(1)), None, "it lives on");
    drop(listener);
    let (_last, last) = connect(&hosts.client, &connecting, &target);
    assert!(refused(hosts.next(&last, Duration::from_millis(500))));
}

#[test]
fn listeners_share_a_port_by_what_clients_offer() {
    let mut hosts = Hosts::new();
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let chain = vec![made.cert.der().clone()];
    let names: [&[u8]; 2] = [b"one", b"two"];
    let listeners: Vec<Listener> = names
        .iter()
        .map(|&alpn| {
            let key = ringway::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
            let credentials = ServerCredentials::new(chain.clone(), key);
            let accepting = Configuration::server(&[alpn], Settings::default(), credentials).unwrap();
            listen_for(&hosts.server, SERVER, alpn, &accepting).unwrap()
        })
        .collect();
    let target = ConnectTarget::new(address(SERVER), "localhost");
    for alpn in names {
        let trusted = ClientCredentials::roots(chain.clone());
        let connecting = Configuration::client(&[alpn], Settings::default(), trusted).unwrap();
        let (_connection, fates) = connect(&hosts.client, &connecting, &target);
        assert_eq!(hosts.next(&fates, TIMEOUT), connected(alpn));
    }
    let taken = Listener::start(&hosts.server, options(SERVER, b"two"), |_| ()).unwrap_err();
    assert!(taken.to_string().contains("\"two\""), "{taken}");
    let another = Listener::start(&hosts.server, options(SERVER, b"three"), |_| ());
    drop((another.unwrap(), listeners));
}

#[test]
fn client_that_nobody_answers_is_told_when_the_handshake_has_taken_too_long() {
    let mut hosts = Hosts::new();
    let patient = Settings {
        handshake_idle_timeout: Duration::from_secs(60),
        handshake_timeout: Duration::from_secs(60),
        ..settings()
    };
    let (_, connecting) = configurations(settings(), patient);
    let kept: Arc<Mutex<Vec<Incoming>>> = Arc::default();
    let keep = Arc::clone(&kept);
    let _listener = Listener::start(&hosts.server, options(SERVER, ALPN), move |event| {
        if let ListenerEvent::NewConnection(incoming) = event {
            keep.lock().unwrap().push(incoming);
        }
    })
    .unwrap();
    let (_connection, fates) = connect(
        &hosts.client,
        &connecting,
        &ConnectTarget::new(address(SERVER), "localhost"),
    );
    let begun = hosts.world.now;
    assert!(refused(hosts.next(&fates, Duration::from_secs(40))));
    let waited = hosts.world.now.since(begun);
    assert!((20..25).contains(&waited.as_secs()), "{waited:?}");
}

#[test]
fn connections_share_a_local_address_that_they_ask_for_and_free_it() {
    let mut hosts = Hosts::new();
    let (accepting, connecting) = configurations(settings(), settings());
    let _listener = listen(&hosts.server, SERVER, &accepting).unwrap();
    let from = |partition| {
        ConnectTarget::new(address(SERVER), "localhost")
            .with_partition(partition)
            .with_local(address("198.51.100.1:5000"))
    };
    let both: Vec<_> = (0..2)
        .map(|_| connect(&hosts.client, &connecting, &from(0)))
        .collect();
    for (_, fates) in &both {
        assert_eq!(hosts.next(fates, TIMEOUT), connected(ALPN));
    }
    let elsewhere = Connection::start(&hosts.client, &connecting, &from(1), ignore).unwrap_err();
    assert!(elsewhere.to_string().contains("another partition"), "{elsewhere}");
    for (connection, fates) in both {
        connection.shutdown(0).unwrap();
        assert_eq!(hosts.next(&fates, TIMEOUT), Some(Fate::Ended));
    }
    // It answers the server for a while.
    hosts.world.run_for(Duration::from_secs(5));
    let (_other, fates) = connect(&hosts.client, &connecting, &from(1));
    assert_eq!(hosts.next(&fates, TIMEOUT), connected(ALPN));
}

/// A peer of other peers: it accepts and connects on one port.
#[test]
fn connection_goes_out_from_the_port_of_a_listener() {
    let mut hosts = Hosts::new();
    let (accepting, connecting) = configurations(settings(), settings());
    let _here = listen(&hosts.client, "198.51.100.1:443", &accepting).unwrap();
    let _there = listen(&hosts.server, SERVER, &accepting).unwrap();
    for partition in 0..2 {
        let out = ConnectTarget::new(address(SERVER), "localhost")
            .with_partition(partition)
            .with_local(address("198.51.100.1:443"));
        let (_out, fates) = connect(&hosts.client, &connecting, &out);
        assert_eq!(hosts.next(&fates, TIMEOUT), connected(ALPN));
    }
    let back = ConnectTarget::new(address("198.51.100.1:443"), "localhost");
    let (_back, fates) = connect(&hosts.server, &connecting, &back);
    assert_eq!(hosts.next(&fates, TIMEOUT), connected(ALPN));
}

fn open_descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

#[test]
fn ports_of_connections_and_listeners_are_free_when_these_have_ended() {
    let (accepting, connecting) = configurations(settings(), settings());
    let (server, client) = (server(1), client(1));
    let listener = listen(&server, "127.0.0.1:0", &accepting).unwrap();
    let to = listener.local_address();
    let before = open_descriptors();
    for _ in 0..20 {
        let target = ConnectTarget::new(to, "localhost").with_local(address("127.0.0.1:0"));
        let (connection, fates) = connect(&client, &connecting, &target);
        assert!(matches!(fates.recv_timeout(TIMEOUT), Ok(Fate::Connected(_))));
        connection.shutdown(0).unwrap();
        assert_eq!(fates.recv_timeout(TIMEOUT), Ok(Fate::Ended));
    }
    let until = |what: &str, done: &dyn Fn() -> bool| {
        let start = Instant::now();
        while !done() {
            assert!(start.elapsed() < TIMEOUT, "{what}");
            std::thread::sleep(Duration::from_millis(10));
        }
    };
    // Others of this process open and close theirs meanwhile.
    until("descriptors stay behind", &|| open_descriptors() <= before + 5);
    let (connection, fates) = connect(&client, &connecting, &ConnectTarget::new(to, "localhost"));
    assert!(matches!(fates.recv_timeout(TIMEOUT), Ok(Fate::Connected(_))));
    drop(listener);
    let again = listen(&server, &to.to_string(), &accepting).unwrap();
    drop(again);
    connection.shutdown(0).unwrap();
    until("the port is not free", &|| UdpSocket::bind(to).is_ok());
    client.close();
    server.close();
}
