//! How connections and registrations end: at once for the application, and within a time that is ours, whatever the peer does.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use ringway::sim::Link;
use ringway::{
    CallError, ConnectTarget, Connection, ConnectionEvent, Direction, ERROR_CODE_MAX, EventStatus, Listener,
    ListenerEvent, ListenerOptions, Registration, RetryPolicy, Settings, Stream, StreamEvent, StreamShutdown,
};
use ringway_tests::{ALPN, World, address, configurations, execution, settings};

const SERVER: &str = "192.0.2.1:443";

/// Names of the events of one connection, in order.
type Seen = Arc<Mutex<Vec<&'static str>>>;

fn watch(
    seen: &Seen,
) -> impl FnMut(&Connection, ConnectionEvent<'_>) -> EventStatus + Send + 'static + use<> {
    let seen = Arc::clone(seen);
    move |_: &Connection, event: ConnectionEvent<'_>| {
        let name = match event {
            ConnectionEvent::Connected { .. } => "connected",
            ConnectionEvent::ShutdownByTransport { .. } => "by transport",
            ConnectionEvent::ShutdownByPeer { .. } => "by peer",
            ConnectionEvent::ShutdownComplete { .. } => "complete",
            _ => return EventStatus::Done,
        };
        seen.lock().unwrap().push(name);
        EventStatus::Done
    }
}

struct Scene {
    world: World,
    _server: Registration,
    client: Registration,
    _listener: Listener,
    connection: Connection,
    server_seen: Seen,
    client_seen: Seen,
}

/// A server that accepts or refuses, and a client that is connecting to it.
fn scene(accepts: bool, delay: Duration) -> Scene {
    let mut world = World::new(3);
    world.network.set_default_link(Link {
        delay,
        ..Link::default()
    });
    let (server_configuration, client_configuration) = configurations(settings(), settings());
    let server = world.host(address(SERVER).ip(), 1, 1);
    let client = world.host("198.51.100.1".parse().unwrap(), 1, 1);
    let server_seen: Seen = Arc::default();
    let seen = Arc::clone(&server_seen);
    let options = ListenerOptions::new(address(SERVER), &[ALPN]).with_retry(RetryPolicy::Never);
    let listener = Listener::start(&server, options, move |event| {
        if let ListenerEvent::NewConnection(incoming) = event
            && accepts
        {
            incoming.accept(&server_configuration, watch(&seen));
        }
    })
    .unwrap();
    let client_seen: Seen = Arc::default();
    let target = ConnectTarget::new(address(SERVER), "localhost");
    let connection = Connection::start(&client, &client_configuration, &target, watch(&client_seen)).unwrap();
    Scene {
        world,
        _server: server,
        client,
        _listener: listener,
        connection,
        server_seen,
        client_seen,
    }
}

impl Scene {
    /// Lets the handshake complete. Gives what the client has seen.
    fn connected(&mut self) -> Seen {
        let seen = Arc::clone(&self.client_seen);
        assert!(
            self.world
                .run_until(Duration::from_secs(5), |_| *seen.lock().unwrap() == ["connected"])
        );
        seen
    }
}

fn ended(seen: &Seen) -> bool {
    seen.lock().unwrap().last() == Some(&"complete")
}

#[test]
fn last_event_does_not_wait_for_the_closing_period() {
    let mut scene = scene(true, Duration::from_millis(100));
    let client_seen = scene.connected();
    scene.connection.shutdown(0).unwrap();
    let start = scene.world.now;
    assert!(
        scene
            .world
            .run_until(Duration::from_secs(2), |_| ended(&client_seen))
    );
    assert_eq!(scene.world.now, start);
    // The server is told nevertheless, and its application hears the end at once too.
    let server_seen = Arc::clone(&scene.server_seen);
    assert!(
        scene
            .world
            .run_until(Duration::from_millis(101), |_| ended(&server_seen))
    );
    assert_eq!(*server_seen.lock().unwrap(), ["connected", "by peer", "complete"]);
}

#[test]
fn connection_refused_in_its_handshake_ends_after_a_round_trip() {
    let mut scene = scene(false, Duration::from_millis(10));
    let client_seen = Arc::clone(&scene.client_seen);
    assert!(
        scene
            .world
            .run_until(Duration::from_millis(21), |_| ended(&client_seen))
    );
    assert_eq!(*client_seen.lock().unwrap(), ["by transport", "complete"]);
    // Nor does the client's state stay much longer: three probe timeouts of what the round trip is known to be.
    scene.world.run_for(Duration::from_millis(1500));
    assert_eq!(scene.client.stats()[0].worker.connections, 0);
}

#[test]
fn close_of_a_registration_does_not_wait_for_peers_that_have_gone() {
    let mut scene = scene(true, Duration::from_millis(400));
    let client_seen = scene.connected();
    // Nobody answers any more, and three probe timeouts take more than a second on this path.
    scene.world.network.set_default_link(Link {
        blackout: true,
        ..Link::default()
    });
    let start = scene.world.now;
    scene.client.shutdown(0).unwrap();
    assert!(
        scene
            .world
            .run_until(Duration::from_secs(20), |_| ended(&client_seen))
    );
    assert_eq!(scene.world.now, start);
    scene.world.run_for(Duration::from_millis(1100));
    // Counters are published once a second.
    scene.world.run_for(Duration::from_millis(1100));
    scene.world.turn();
    assert_eq!(scene.client.stats()[0].worker.connections, 0);
}

#[test]
fn shutdown_within_no_time_abandons_at_once_what_has_been_told() {
    let mut scene = scene(true, Duration::from_millis(400));
    scene.connected();
    scene.client.shutdown_within(7, Duration::ZERO).unwrap();
    scene.world.turn();
    scene.world.run_for(Duration::from_millis(1));
    // Nothing is left to be done here, and the peer hears of it all the same.
    let server_seen = Arc::clone(&scene.server_seen);
    assert!(
        scene
            .world
            .run_until(Duration::from_millis(450), |_| ended(&server_seen))
    );
    assert_eq!(*server_seen.lock().unwrap(), ["connected", "by peer", "complete"]);
}

#[test]
fn handshake_ends_at_its_absolute_limit_whatever_arrives() {
    let mut world = World::new(3);
    let settings = Settings {
        handshake_timeout: Duration::from_secs(5),
        handshake_idle_timeout: Duration::from_secs(10),
        ..settings()
    };
    let (server_configuration, client_configuration) = configurations(settings.clone(), settings);
    drop(server_configuration);
    let server = world.host(address(SERVER).ip(), 1, 1);
    let client = world.host("198.51.100.1".parse().unwrap(), 1, 1);
    let options = ListenerOptions::new(address(SERVER), &[ALPN]).with_retry(RetryPolicy::Never);
    // The application of the server cannot make up its mind: the server acknowledges, and says no more.
    let undecided: Arc<Mutex<Vec<ListenerEvent>>> = Arc::default();
    let kept = Arc::clone(&undecided);
    let _listener = Listener::start(&server, options, move |event| kept.lock().unwrap().push(event)).unwrap();
    let seen: Seen = Arc::default();
    let target = ConnectTarget::new(address(SERVER), "localhost");
    let _connection = Connection::start(&client, &client_configuration, &target, watch(&seen)).unwrap();
    let start = world.now;
    assert!(world.run_until(Duration::from_secs(30), |_| ended(&seen)));
    assert_eq!(world.now.since(start).as_millis(), 5000);
    assert_eq!(*seen.lock().unwrap(), ["by transport", "complete"]);
    undecided.lock().unwrap().clear();
}

#[test]
fn close_ends_though_handlers_open_connections_when_they_hear_of_it_and_clients_go_on_coming() {
    let mut scene = scene(true, Duration::from_millis(5));
    scene.connected();
    let (_, client_configuration) = configurations(settings(), settings());
    let again = scene.client.clone();
    let reopened: Arc<Mutex<Option<Connection>>> = Arc::default();
    let opened = Arc::clone(&reopened);
    let configuration = Arc::clone(&client_configuration);
    let target = ConnectTarget::new(address(SERVER), "localhost");
    let _second = Connection::start(
        &scene.client,
        &client_configuration,
        &target,
        move |_: &Connection, event: ConnectionEvent<'_>| {
            if let ConnectionEvent::ShutdownComplete { .. } = event {
                let target = ConnectTarget::new(address(SERVER), "localhost");
                let ignore = |_: &Connection, _: ConnectionEvent<'_>| EventStatus::Done;
                *opened.lock().unwrap() = Connection::start(&again, &configuration, &target, ignore).ok();
            }
            EventStatus::Done
        },
    )
    .unwrap();
    scene.world.run_for(Duration::from_millis(100));
    // The worker closes it with the others.
    let Scene {
        mut world,
        client,
        _server: server,
        ..
    } = scene;
    let closing = std::thread::spawn(move || client.close_within(Duration::from_millis(500)));
    closing.join().unwrap();
    world.run_for(Duration::from_secs(2));
    assert_eq!(world.contexts_ended(), 1);
    // A server that ends takes no more clients, which hear of it at once.
    let stranger = world.host("198.51.100.9".parse().unwrap(), 1, 1);
    drop(server);
    let seen: Seen = Arc::default();
    let target = ConnectTarget::new(address(SERVER), "localhost");
    let _late = Connection::start(&stranger, &client_configuration, &target, watch(&seen));
    world.run_for(Duration::from_secs(3));
    assert_eq!(*seen.lock().unwrap(), ["by transport", "complete"]);
    drop(reopened);
}

#[test]
fn error_codes_that_cannot_be_sent_are_refused_at_the_call() {
    let scene = scene(true, Duration::from_millis(1));
    let too_large = ERROR_CODE_MAX + 1;
    let refused = Err(CallError::ErrorCode { code: too_large });
    assert_eq!(scene.client.shutdown(too_large), refused);
    assert_eq!(scene.client.shutdown_within(too_large, Duration::ZERO), refused);
    assert_eq!(
        scene.connection.shutdown(u64::MAX),
        Err(CallError::ErrorCode { code: u64::MAX })
    );
    let ignore = |_: &Stream, _: StreamEvent<'_>| EventStatus::Done;
    let stream = Stream::open(&scene.connection, Direction::Bidirectional, ignore).unwrap();
    for how in [
        StreamShutdown::Abort(too_large),
        StreamShutdown::AbortSend(too_large),
        StreamShutdown::AbortReceive(too_large),
    ] {
        assert_eq!(stream.shutdown(how), refused);
    }
    assert_eq!(stream.shutdown(StreamShutdown::Abort(ERROR_CODE_MAX)), Ok(()));
}

/// A peer is refused a stream with a code that does not exist: with the largest that does.
#[test]
fn stream_that_is_refused_with_a_code_that_cannot_be_sent_is_refused_with_the_largest() {
    let mut world = World::new(4);
    let (accepting, connecting) = configurations(settings(), settings());
    let server = world.host(address(SERVER).ip(), 1, 1);
    let client = world.host("198.51.100.1".parse().unwrap(), 1, 1);
    let options = ListenerOptions::new(address(SERVER), &[ALPN]).with_retry(RetryPolicy::Never);
    let _listener = Listener::start(&server, options, move |event| {
        if let ListenerEvent::NewConnection(incoming) = event {
            incoming.accept(
                &accepting,
                |_: &Connection, event: ConnectionEvent<'_>| match event {
                    ConnectionEvent::PeerStreamStarted(_) => EventStatus::Refuse(u64::MAX),
                    _ => EventStatus::Done,
                },
            );
        }
    })
    .unwrap();
    let target = ConnectTarget::new(address(SERVER), "localhost");
    let ignore = |_: &Connection, _: ConnectionEvent<'_>| EventStatus::Done;
    let connection = Connection::start(&client, &connecting, &target, ignore).unwrap();
    let seen: Arc<Mutex<Option<u64>>> = Arc::default();
    let aborted = Arc::clone(&seen);
    let stream = Stream::open(
        &connection,
        Direction::Bidirectional,
        move |_: &Stream, event: StreamEvent<'_>| {
            if let StreamEvent::PeerSendAborted { code } = event {
                *aborted.lock().unwrap() = Some(code);
            }
            EventStatus::Done
        },
    )
    .unwrap();
    stream.send("hello".into(), 0, true).unwrap();
    stream.start(false).unwrap();
    assert!(world.run_until(Duration::from_secs(5), |_| seen.lock().unwrap().is_some()));
    assert_eq!(*seen.lock().unwrap(), Some(ERROR_CODE_MAX));
}

#[test]
fn program_may_end_right_behind_the_drop_of_its_registration() {
    let (accepting, connecting) = configurations(settings(), settings());
    let server = ringway_tests::open(&execution(1)).unwrap();
    let options =
        ListenerOptions::new("127.0.0.1:0".parse().unwrap(), &[ALPN]).with_retry(RetryPolicy::Never);
    let listener = Listener::start(&server, options, move |event| {
        if let ListenerEvent::NewConnection(incoming) = event {
            let ignore = |_: &Connection, _: ConnectionEvent<'_>| EventStatus::Done;
            incoming.accept(&accepting, ignore);
        }
    })
    .unwrap();
    let client = Registration::open("leaves", &execution(1)).unwrap();
    let target = ConnectTarget::new(listener.local_address(), "localhost");
    let (sender, connected) = std::sync::mpsc::channel();
    let connection = Connection::start(
        &client,
        &connecting,
        &target,
        move |_: &Connection, event: ConnectionEvent<'_>| {
            if let ConnectionEvent::Connected { .. } = event {
                let _ = sender.send(());
            }
            EventStatus::Done
        },
    )
    .unwrap();
    connected.recv_timeout(Duration::from_secs(10)).unwrap();
    connection.shutdown(5).unwrap();
    drop(client);
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let names = tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok());
    let left: Vec<_> = names.filter(|name| name.starts_with("leaves/")).collect();
    assert!(
        left.is_empty(),
        "what these threads had to say may be lost: {left:?}"
    );
    drop(listener);
    server.close();
}
