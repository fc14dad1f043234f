//! What the API promises, with real threads over the kernel's network: on the datapath, in the mode and on the event loop that `TEST_DATAPATH`,
//! `TEST_MODE` and `TEST_EVENT_LOOP` name.

use std::net::{SocketAddr, UdpSocket};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::ThreadId;
use std::time::Duration;

use ringway::{
    ApplicationQueue, Bytes, CallError, CloseReason, Configuration, ConnectTarget, Connection,
    ConnectionEvent, ConnectionHandler, ConnectionStats, ContextConfig, Direction, EventStatus, Execution,
    ExecutionConfig, ExecutionMode, Incoming, KeptData, Listener, ListenerEvent, ListenerOptions,
    Registration, RetryPolicy, SendFlags, Settings, StartError, Stream, StreamEvent, StreamHandler,
    StreamShutdown, TransportErrorCode, Version,
};
use ringway_tests::order::ordered;
use ringway_tests::{
    ALPN, address, client, configurations, execution, mode, patiently, pattern, server, settings,
};

const TIMEOUT: Duration = Duration::from_secs(20);

/// What happened, as far as the tests look at it.
#[derive(Debug, PartialEq)]
enum Event {
    Connected,
    ByTransport(CloseReason),
    ByPeer(u64),
    Ended { handshake_completed: bool },
    StreamStarted(Result<u64, StartError>),
    Received(Vec<u8>, bool),
    SendComplete(u64, bool),
    PeerSendAborted(u64),
    PeerReceiveAborted(u64),
    StreamEnded,
    Other,
}

fn listener_options(retry: RetryPolicy) -> ListenerOptions {
    ListenerOptions::new(address("127.0.0.1:0"), &[ALPN]).with_retry(retry)
}

fn listen(
    registration: &Registration,
    retry: RetryPolicy,
    on_new: impl Fn(Incoming) + Send + Sync + 'static,
) -> Listener {
    Listener::start(registration, listener_options(retry), move |event| {
        if let ListenerEvent::NewConnection(incoming) = event {
            on_new(incoming);
        }
    })
    .unwrap()
}

fn on_connection(sender: Sender<Event>) -> impl ConnectionHandler {
    ordered(move |_: &Connection, event: ConnectionEvent<'_>| {
        let event = match event {
            ConnectionEvent::Connected { .. } => Event::Connected,
            ConnectionEvent::ShutdownByTransport { reason } => Event::ByTransport(reason),
            ConnectionEvent::ShutdownByPeer { code, .. } => Event::ByPeer(code),
            ConnectionEvent::ShutdownComplete {
                handshake_completed, ..
            } => Event::Ended { handshake_completed },
            _ => return EventStatus::Done,
        };
        let _ = sender.send(event);
        EventStatus::Done
    })
}

fn on_stream(sender: Sender<Event>) -> impl StreamHandler {
    ordered(move |_: &Stream, event: StreamEvent<'_>| {
        let _ = sender.send(match event {
            StreamEvent::StartComplete(result) => Event::StreamStarted(result),
            StreamEvent::Receive(receive) => Event::Received(receive.to_vec(), receive.fin()),
            StreamEvent::SendComplete { context, canceled } => Event::SendComplete(context, canceled),
            StreamEvent::PeerSendAborted { code } => Event::PeerSendAborted(code),
            StreamEvent::PeerReceiveAborted { code } => Event::PeerReceiveAborted(code),
            StreamEvent::ShutdownComplete { .. } => Event::StreamEnded,
            _ => Event::Other,
        });
        EventStatus::Done
    })
}

/// Accepts streams and sends back what comes on them.
fn echo() -> impl ConnectionHandler {
    ordered(|_: &Connection, event: ConnectionEvent<'_>| {
        if let ConnectionEvent::PeerStreamStarted(stream) = event {
            stream.accept(ordered(|stream: &Stream, event: StreamEvent<'_>| {
                match event {
                    StreamEvent::Receive(receive) => {
                        let _ = stream.send(receive.to_vec().into(), 0, receive.fin());
                    }
                    StreamEvent::PeerSendAborted { code } => {
                        let _ = stream.shutdown(StreamShutdown::AbortSend(code));
                    }
                    _ => {}
                }
                EventStatus::Done
            }));
        }
        EventStatus::Done
    })
}

fn connect(
    registration: &Registration,
    configuration: &Arc<Configuration>,
    remote: SocketAddr,
) -> (Connection, Receiver<Event>) {
    let (sender, receiver) = channel();
    let target = ConnectTarget::new(remote, "localhost");
    (
        Connection::start(registration, configuration, &target, on_connection(sender)).unwrap(),
        receiver,
    )
}

/// Waits for something, and lets everything else pass.
fn expect(receiver: &Receiver<Event>, what: impl Fn(&Event) -> bool) -> Event {
    loop {
        let event = receiver.recv_timeout(TIMEOUT).expect("it never happened");
        if what(&event) {
            return event;
        }
    }
}

/// One request and its echo, made from the thread of the test.
fn round_trip(connection: &Connection, data: &[u8]) -> Vec<u8> {
    let (sender, receiver) = channel();
    let stream = Stream::open(connection, Direction::Bidirectional, on_stream(sender)).unwrap();
    stream.start(false).unwrap();
    stream.send(Bytes::copy_from_slice(data), 9, true).unwrap();
    let mut echo = Vec::new();
    loop {
        if let Event::Received(data, fin) = expect(&receiver, |event| matches!(event, Event::Received(..))) {
            echo.extend(data);
            if fin {
                break;
            }
        }
    }
    expect(&receiver, |event| *event == Event::StreamEnded);
    echo
}

fn echo_server(partitions: usize, retry: RetryPolicy) -> (Registration, Listener, Arc<Configuration>) {
    echo_server_with(partitions, retry, settings(), settings())
}

fn echo_server_with(
    partitions: usize,
    retry: RetryPolicy,
    server_settings: Settings,
    client_settings: Settings,
) -> (Registration, Listener, Arc<Configuration>) {
    let (server_config, client_config) = configurations(server_settings, client_settings);
    let server = server(partitions);
    let listener = listen(&server, retry, move |incoming| {
        drop(incoming.accept(&server_config, echo()))
    });
    (server, listener, client_config)
}

#[test]
fn calls_from_any_thread_work_and_handles_answer_closed_afterwards() {
    let (server, listener, config) = echo_server(2, RetryPolicy::Never);
    let client = client(1);
    let (connection, receiver) = connect(&client, &config, listener.local_address());
    // Before the handshake is complete, and from several threads at once.
    std::thread::scope(|scope| {
        for thread in 0..4u8 {
            let connection = &connection;
            scope.spawn(move || {
                for round in 0..10u8 {
                    let data = vec![thread * 16 + round; 1 + usize::from(round) * 3000];
                    assert_eq!(round_trip(connection, &data), data);
                }
            });
        }
    });
    expect(&receiver, |event| *event == Event::Connected);
    connection.shutdown(3).unwrap();
    expect(&receiver, |event| {
        *event
            == Event::Ended {
                handshake_completed: true,
            }
    });
    assert_eq!(connection.shutdown(0), Err(CallError::Closed));
    let (sender, _receiver) = channel();
    assert_eq!(
        Stream::open(&connection, Direction::Bidirectional, on_stream(sender)),
        Err(CallError::Closed)
    );
    client.close();
    listener.stop();
    server.close();
}

#[test]
fn buffers_of_one_send_arrive_whole_and_in_order_however_they_are_cut() {
    let (server, listener, config) = echo_server(1, RetryPolicy::Never);
    let client = client(1);
    let (connection, receiver) = connect(&client, &config, listener.local_address());
    for sizes in [
        vec![1; 300],
        vec![700, 0, 1300, 5, 60_000, 1],
        vec![1200; 100],
        vec![0, 0],
    ] {
        let data: Vec<Bytes> = sizes
            .iter()
            .scan(0, |offset, &size| {
                *offset += size as u64;
                Some(Bytes::from(pattern(*offset - size as u64, size)))
            })
            .collect();
        let (sender, events) = channel();
        let stream = Stream::open(&connection, Direction::Bidirectional, on_stream(sender)).unwrap();
        stream
            .send_vectored(data, 9, SendFlags::START | SendFlags::FIN)
            .unwrap();
        let (mut echo, mut completed) = (Vec::new(), 0);
        loop {
            match events.recv_timeout(TIMEOUT).expect("it never happened") {
                Event::Received(data, _) => echo.extend(data),
                Event::SendComplete(9, false) => completed += 1,
                Event::StreamEnded => break,
                _ => {}
            }
        }
        assert_eq!(completed, 1);
        assert!(echo == pattern(0, sizes.iter().sum()), "{} bytes", echo.len());
    }
    connection.shutdown_with(3, "done").unwrap();
    expect(&receiver, |event| matches!(event, Event::Ended { .. }));
    client.close();
    drop(listener);
    server.close();
}

#[test]
fn many_connections_reach_the_partition_that_hosts_them() {
    let (server, listener, config) = echo_server(4, RetryPolicy::Never);
    let client = client(2);
    let connections: Vec<_> = (0..60)
        .map(|_| {
            // An endpoint of its own each, so that the kernel spreads them.
            let (sender, receiver) = channel();
            let target =
                ConnectTarget::new(listener.local_address(), "localhost").with_local(address("127.0.0.1:0"));
            (
                Connection::start(&client, &config, &target, on_connection(sender)).unwrap(),
                receiver,
            )
        })
        .collect();
    for (connection, receiver) in &connections {
        expect(receiver, |event| *event == Event::Connected);
        assert_eq!(round_trip(connection, b"hello"), b"hello");
    }
    std::thread::sleep(Duration::from_millis(100));
    let accepted: Vec<u64> = server.stats().iter().map(|stats| stats.worker.accepted).collect();
    // The one queue of the loopback interface is of the first partition.
    let reached = if server.capabilities()[0].backend == "af_xdp" {
        1
    } else {
        2
    };
    assert!(
        accepted.iter().filter(|&&count| count > 0).count() >= reached,
        "{accepted:?}"
    );
    client.close();
    drop(listener);
    server.close();
    assert_eq!(ringway::leaked_packet_memory(), 0);
}

#[test]
fn events_of_a_connection_come_one_after_another_and_its_last_one_last() {
    let (server, listener, config) = echo_server(1, RetryPolicy::Never);
    let client = client(1);
    let inside = Arc::new(AtomicBool::new(false));
    let ended = Arc::new(AtomicBool::new(false));
    let thread: Arc<Mutex<Option<ThreadId>>> = Arc::default();
    let guard = {
        let (inside, ended, thread) = (Arc::clone(&inside), Arc::clone(&ended), Arc::clone(&thread));
        move |work: &mut dyn FnMut()| {
            assert!(!inside.swap(true, Ordering::SeqCst), "an event within an event");
            assert!(!ended.load(Ordering::SeqCst), "an event after the last");
            let here = std::thread::current().id();
            assert_eq!(
                *thread.lock().unwrap().get_or_insert(here),
                here,
                "always the same thread"
            );
            work();
            inside.store(false, Ordering::SeqCst);
        }
    };
    let (sender, receiver) = channel();
    let on_streams = guard.clone();
    let handler = move |connection: &Connection, event: ConnectionEvent<'_>| {
        guard(&mut || match &event {
            ConnectionEvent::Connected { .. } => {
                for round in 0..20u64 {
                    let guard = on_streams.clone();
                    let sender = sender.clone();
                    let mut order = Vec::new();
                    let stream = Stream::open(connection, Direction::Bidirectional, {
                        move |stream: &Stream, event: StreamEvent<'_>| {
                            guard(&mut || {
                                order.push(match &event {
                                    StreamEvent::StartComplete(_) => "started",
                                    StreamEvent::SendComplete { .. } => "complete",
                                    StreamEvent::ShutdownComplete { .. } => "ended",
                                    _ => "",
                                });
                                // A call from within acts at once, and what it causes is heard later.
                                let _ = stream.set_priority(round as u16);
                                if matches!(event, StreamEvent::ShutdownComplete { .. }) {
                                    let count = |what| order.iter().filter(|&&event| event == what).count();
                                    assert_eq!(
                                        (count("started"), count("complete"), count("ended")),
                                        (1, 2, 1)
                                    );
                                    let _ = sender.send(Event::StreamEnded);
                                }
                            });
                            EventStatus::Done
                        }
                    })
                    .unwrap();
                    stream.detach();
                    stream.start(false).unwrap();
                    stream.send(Bytes::from_static(b"one"), 1, false).unwrap();
                    stream.send(Bytes::from_static(b"two"), 2, true).unwrap();
                    assert!(matches!(
                        stream.send(Bytes::new(), 3, false),
                        Err(CallError::InvalidState(_))
                    ));
                }
            }
            ConnectionEvent::ShutdownComplete { .. } => {
                ended.store(true, Ordering::SeqCst);
                let _ = sender.send(Event::Ended {
                    handshake_completed: true,
                });
            }
            _ => {}
        });
        EventStatus::Done
    };
    let target = ConnectTarget::new(listener.local_address(), "localhost");
    let connection = Connection::start(&client, &config, &target, handler).unwrap();
    for _ in 0..20 {
        expect(&receiver, |event| *event == Event::StreamEnded);
    }
    connection.shutdown(0).unwrap();
    expect(&receiver, |event| matches!(event, Event::Ended { .. }));
    client.close();
    server.close();
}

#[test]
fn handler_that_panics_ends_its_connection_and_no_other() {
    let (server_config, config) = configurations(settings(), settings());
    let server = server(1);
    let first = AtomicBool::new(true);
    let listener = listen(&server, RetryPolicy::Never, move |incoming| {
        if first.swap(false, Ordering::SeqCst) {
            incoming.accept(&server_config, |_: &Connection, event: ConnectionEvent<'_>| {
                if matches!(event, ConnectionEvent::PeerStreamStarted(_)) {
                    panic!("the application fails (as this test wants it to)");
                }
                EventStatus::Done
            });
        } else {
            incoming.accept(&server_config, echo());
        }
    });
    let client = client(1);
    let (unlucky, receiver) = connect(&client, &config, listener.local_address());
    expect(&receiver, |event| *event == Event::Connected);
    let (lucky, lucky_receiver) = connect(&client, &config, listener.local_address());
    expect(&lucky_receiver, |event| *event == Event::Connected);
    let (sender, _streams) = channel();
    let stream = Stream::open(&unlucky, Direction::Bidirectional, on_stream(sender)).unwrap();
    stream.start(true).unwrap();
    stream.send(Bytes::from_static(b"x"), 0, true).unwrap();
    let ended = expect(&receiver, |event| matches!(event, Event::ByTransport(_)));
    let Event::ByTransport(CloseReason::PeerTransport { code, .. }) = ended else {
        panic!("{ended:?}")
    };
    assert_eq!(code, TransportErrorCode::INTERNAL_ERROR);
    assert_eq!(round_trip(&lucky, b"still here"), b"still here");
    client.close();
    drop(listener);
    server.close();
}

#[test]
fn client_that_is_not_accepted_is_refused_and_one_without_a_common_protocol_too() {
    let (_, config) = configurations(settings(), settings());
    let server = server(1);
    let listener = listen(&server, RetryPolicy::Never, drop);
    let client = client(1);
    let (_connection, receiver) = connect(&client, &config, listener.local_address());
    let ended = expect(&receiver, |event| matches!(event, Event::ByTransport(_)));
    let Event::ByTransport(CloseReason::PeerTransport { code, .. }) = ended else {
        panic!("{ended:?}")
    };
    assert_eq!(code, TransportErrorCode::CONNECTION_REFUSED);
    expect(&receiver, |event| {
        *event
            == Event::Ended {
                handshake_completed: false,
            }
    });

    let other = Configuration::client(
        &[b"other"],
        settings(),
        ringway::ClientCredentials::no_verification(),
    )
    .unwrap();
    let (_connection, receiver) = connect(&client, &other, listener.local_address());
    let ended = expect(&receiver, |event| matches!(event, Event::ByTransport(_)));
    let Event::ByTransport(CloseReason::PeerTransport { code, .. }) = ended else {
        panic!("{ended:?}")
    };
    assert_eq!(code, TransportErrorCode::crypto(120));
    client.close();
    drop(listener);
    server.close();
}

#[test]
fn connection_may_be_accepted_later_from_another_thread() {
    let (server_config, config) = configurations(settings(), settings());
    let server = server(1);
    let (sender, incoming) = channel();
    let sender = Mutex::new(sender);
    let listener = listen(&server, RetryPolicy::Never, move |incoming| {
        drop(sender.lock().unwrap().send(incoming))
    });
    let client = client(1);
    let (connection, receiver) = connect(&client, &config, listener.local_address());
    let incoming: Incoming = incoming.recv_timeout(TIMEOUT).unwrap();
    assert_eq!(incoming.server_name(), Some("localhost"));
    assert_eq!(incoming.alpn(), ALPN);
    std::thread::sleep(Duration::from_millis(50));
    incoming.accept(&server_config, echo());
    expect(&receiver, |event| *event == Event::Connected);
    assert_eq!(round_trip(&connection, b"late"), b"late");
    client.close();
    drop(listener);
    server.close();
}

#[test]
fn client_with_a_token_of_an_earlier_connection_needs_no_retry() {
    let (server, listener, config) = echo_server(1, RetryPolicy::Always);
    let client = client(1);
    for round in 0..3 {
        let (connection, receiver) = connect(&client, &config, listener.local_address());
        expect(&receiver, |event| *event == Event::Connected);
        // The token has arrived when the echo has.
        assert_eq!(round_trip(&connection, b"hello"), b"hello");
        connection.shutdown(0).unwrap();
        expect(&receiver, |event| matches!(event, Event::Ended { .. }));
        std::thread::sleep(Duration::from_millis(200));
        let retries: u64 = server.stats().iter().map(|stats| stats.worker.retries).sum();
        // One for each datagram of the first connection's ClientHello.
        assert_eq!(retries, 2, "after connection {round}");
    }
    client.close();
    drop(listener);
    server.close();
}

#[test]
fn stream_beyond_the_limit_fails_at_once_if_asked_or_waits() {
    let few = Settings {
        peer_bidi_stream_count: 1,
        ..settings()
    };
    let (server_config, config) = configurations(few, settings());
    let server = server(1);
    let listener = listen(&server, RetryPolicy::Never, move |incoming| {
        drop(incoming.accept(&server_config, echo()))
    });
    let client = client(1);
    let (connection, receiver) = connect(&client, &config, listener.local_address());
    expect(&receiver, |event| *event == Event::Connected);
    let open = || {
        let (sender, receiver) = channel();
        (
            Stream::open(&connection, Direction::Bidirectional, on_stream(sender)).unwrap(),
            receiver,
        )
    };
    let started = |event: &Event| matches!(event, Event::StreamStarted(_));
    let (first, first_receiver) = open();
    first.start(true).unwrap();
    assert_eq!(expect(&first_receiver, started), Event::StreamStarted(Ok(0)));
    let (failing, failing_receiver) = open();
    failing.start(true).unwrap();
    assert_eq!(
        expect(&failing_receiver, started),
        Event::StreamStarted(Err(StartError::LimitReached))
    );
    expect(&failing_receiver, |event| *event == Event::StreamEnded);
    let (waiting, waiting_receiver) = open();
    waiting.start(false).unwrap();
    first.send(Bytes::from_static(b"done"), 0, true).unwrap();
    assert_eq!(expect(&waiting_receiver, started), Event::StreamStarted(Ok(4)));
    client.close();
    drop(listener);
    server.close();
}

#[test]
fn aborts_arrive_with_their_codes_and_sends_are_canceled() {
    let (server_config, config) = configurations(settings(), settings());
    let server = server(1);
    let (server_sender, server_receiver) = channel();
    let server_sender = Mutex::new(server_sender);
    let listener = listen(&server, RetryPolicy::Never, move |incoming| {
        let sender = server_sender.lock().unwrap().clone();
        incoming.accept(
            &server_config,
            move |_: &Connection, event: ConnectionEvent<'_>| {
                if let ConnectionEvent::PeerStreamStarted(stream) = event {
                    let stream = stream.accept(on_stream(sender.clone()));
                    let _ = stream.shutdown(StreamShutdown::AbortReceive(77));
                }
                EventStatus::Done
            },
        );
    });
    let client = client(1);
    let (connection, receiver) = connect(&client, &config, listener.local_address());
    expect(&receiver, |event| *event == Event::Connected);
    let (sender, stream_receiver) = channel();
    let stream = Stream::open(&connection, Direction::Bidirectional, on_stream(sender)).unwrap();
    stream.start(true).unwrap();
    stream.send(vec![0; 200_000].into(), 5, false).unwrap();
    expect(&stream_receiver, |event| *event == Event::PeerReceiveAborted(77));
    expect(&stream_receiver, |event| *event == Event::SendComplete(5, true));
    stream.shutdown(StreamShutdown::AbortReceive(88)).unwrap();
    expect(&server_receiver, |event| *event == Event::PeerReceiveAborted(88));
    client.close();
    drop(listener);
    server.close();
}

#[test]
fn garbage_and_foreign_packets_are_dropped_with_a_reason_and_serve_no_attack() {
    let (server, listener, config) = echo_server(1, RetryPolicy::Never);
    let attacker = UdpSocket::bind("127.0.0.1:0").unwrap();
    attacker
        .set_read_timeout(Some(Duration::from_millis(300)))
        .unwrap();
    let mut answered = 0u64;
    let mut sent = 0u64;
    for byte in 0..=255u8 {
        for len in [1, 20, 100, 1200] {
            let mut datagram = vec![byte; len];
            if let Some(version) = datagram.get_mut(1..5) {
                // Half of them claim to be QUIC version 1.
                version.copy_from_slice(&[0, 0, 0, byte % 2]);
            }
            sent += len as u64;
            attacker.send_to(&datagram, listener.local_address()).unwrap();
        }
    }
    let mut buffer = [0; 2048];
    while let Ok(len) = attacker.recv(&mut buffer) {
        answered += len as u64;
    }
    assert!(answered < sent, "no amplification: {answered} bytes for {sent}");
    let client = client(1);
    let (connection, receiver) = connect(&client, &config, listener.local_address());
    expect(&receiver, |event| *event == Event::Connected);
    assert_eq!(round_trip(&connection, b"alive"), b"alive");
    std::thread::sleep(Duration::from_millis(100));
    let drops: u64 = server
        .stats()
        .iter()
        .map(|stats| {
            stats.device.worker_behind_drops + stats.worker.drops.iter().map(|(_, n)| n).sum::<u64>()
        })
        .sum();
    assert!(drops > 500, "{drops} drops are counted");
    client.close();
    drop(listener);
    server.close();
}

#[test]
fn statistics_of_a_connection_can_be_asked_for() {
    let (server, listener, config) = echo_server(1, RetryPolicy::Never);
    let client = client(1);
    let (connection, receiver) = connect(&client, &config, listener.local_address());
    expect(&receiver, |event| *event == Event::Connected);
    round_trip(&connection, &[1; 50_000]);
    let bytes = Arc::new(AtomicU64::new(0));
    let (sender, done) = channel();
    let sum = Arc::clone(&bytes);
    connection
        .with_stats(move |stats| {
            sum.store(stats.sent_stream_bytes, Ordering::SeqCst);
            let _ = sender.send(());
        })
        .unwrap();
    done.recv_timeout(TIMEOUT).unwrap();
    assert!(bytes.load(Ordering::SeqCst) >= 50_000);
    client.close();
    drop(listener);
    server.close();
}

/// A datagram of 1200 bytes in a version that nobody speaks.
fn of_unknown_version() -> Vec<u8> {
    let mut datagram = vec![0xc0, 0x1a, 0x2a, 0x3a, 0x4a, 4, 1, 2, 3, 4, 3, 5, 6, 7];
    datagram.resize(1200, 0);
    datagram
}

#[test]
fn listener_answers_from_the_moment_that_it_has_started() {
    let server = server(1);
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(TIMEOUT)).unwrap();
    for round in 0..500 {
        let listener = listen(&server, RetryPolicy::Never, drop);
        socket
            .send_to(&of_unknown_version(), listener.local_address())
            .unwrap();
        assert!(socket.recv(&mut [0; 2048]).is_ok(), "round {round}");
        drop(listener);
    }
    server.close();
}

#[test]
fn client_of_an_unknown_version_is_told_the_versions_there_are() {
    let (server, listener, _config) = echo_server(1, RetryPolicy::Never);
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(TIMEOUT)).unwrap();
    let datagram = of_unknown_version();
    socket.send_to(&datagram, listener.local_address()).unwrap();
    let mut answer = [0; 2048];
    let len = socket.recv(&mut answer).unwrap();
    let answer = &answer[..len];
    assert_eq!(
        &answer[1..14],
        [0, 0, 0, 0, 3, 5, 6, 7, 4, 1, 2, 3, 4],
        "version 0, connection IDs changed round"
    );
    let versions: Vec<u32> = answer[14..]
        .chunks(4)
        .map(|v| u32::from_be_bytes(v.try_into().unwrap()))
        .collect();
    assert!(
        versions.contains(&1) && versions.contains(&0x6b33_43cf),
        "{versions:x?}"
    );
    // The same in less than 1200 bytes could be meant to make us flood somebody else.
    socket
        .send_to(&datagram[..1199], listener.local_address())
        .unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    assert!(socket.recv(&mut [0; 2048]).is_err());
    drop(listener);
    server.close();
}

/// The version that a connection speaks.
fn version_of(connection: &Connection) -> Version {
    let (sender, receiver) = channel();
    let look = move |stats: &ConnectionStats| {
        let _ = sender.send(stats.version);
    };
    connection.with_stats(look).unwrap();
    receiver.recv_timeout(TIMEOUT).unwrap()
}

#[test]
fn client_that_has_the_version_that_the_server_prefers_gets_it() {
    for (from, to) in [(Version::V1, Version::V2), (Version::V2, Version::V1)] {
        for retry in [RetryPolicy::Never, RetryPolicy::Always] {
            let server_settings = Settings {
                accepted_versions: Some(vec![to, from]),
                ..settings()
            };
            let client_settings = Settings {
                version: from,
                offered_versions: Some(vec![from, to]),
                ..settings()
            };
            let (server, listener, config) = echo_server_with(2, retry, server_settings, client_settings);
            let client = client(1);
            // The second has a token of the first, which serves the version in which it was given: not that of the first packet.
            for _ in 0..2 {
                let (connection, receiver) = connect(&client, &config, listener.local_address());
                expect(&receiver, |event| *event == Event::Connected);
                assert_eq!(version_of(&connection), to);
                assert_eq!(round_trip(&connection, &[7; 100_000]), [7; 100_000]);
                connection.update_keys().unwrap();
                assert_eq!(round_trip(&connection, b"with other keys"), b"with other keys");
                connection.shutdown(0).unwrap();
                expect(&receiver, |event| matches!(event, Event::Ended { .. }));
            }
            // A ClientHello takes two datagrams, and each is answered. Threads tell what they have counted before they sleep.
            let wanted = if retry == RetryPolicy::Always { 4 } else { 0 };
            let retries = || -> u64 { server.stats().iter().map(|stats| stats.worker.retries).sum() };
            let start = std::time::Instant::now();
            while retries() < wanted && start.elapsed() < TIMEOUT {
                std::thread::sleep(Duration::from_millis(5));
            }
            assert_eq!(retries(), wanted);
            client.close();
            drop(listener);
            server.close();
        }
    }
}

#[test]
fn client_none_of_whose_versions_is_accepted_is_told_those_that_are() {
    let server_settings = Settings {
        accepted_versions: Some(vec![Version::V2]),
        ..settings()
    };
    let client_settings = Settings {
        offered_versions: Some(vec![Version::V1]),
        ..settings()
    };
    let (server, listener, config) =
        echo_server_with(1, RetryPolicy::Never, server_settings, client_settings);
    let client = client(1);
    let (_connection, receiver) = connect(&client, &config, listener.local_address());
    let told = expect(&receiver, |event| matches!(event, Event::ByTransport(_)));
    match told {
        Event::ByTransport(CloseReason::VersionNegotiation { offered }) => {
            assert_eq!(offered[0], Version::V2.number());
        }
        // The ClientHello takes two datagrams. If the first was acknowledged by itself, the client must ignore a version negotiation packet (RFC 9000
        // section 6.2).
        Event::ByTransport(CloseReason::PeerTransport {
            code: TransportErrorCode::VERSION_NEGOTIATION_ERROR,
            ..
        }) => {}
        other => panic!("{other:?}"),
    }
    expect(&receiver, |event| matches!(event, Event::Ended { .. }));
    let start = std::time::Instant::now();
    while server.stats().iter().any(|stats| stats.worker.connections > 0) {
        assert!(start.elapsed() < TIMEOUT, "the server keeps it");
        std::thread::sleep(Duration::from_millis(5));
    }
    client.close();
    drop(listener);
    server.close();
}

#[test]
fn contexts_that_are_dropped_end_their_connections_and_tell_the_peers() {
    let (server_config, config) = configurations(settings(), settings());
    let epoll = rustix::event::epoll::create(rustix::event::epoll::CreateFlags::CLOEXEC).unwrap();
    let config_of_execution = ExecutionConfig {
        processors: None,
        ..execution(1)
    };
    let count = if mode() == ExecutionMode::LowLatency { 1 } else { 2 };
    let context = |user_data| ContextConfig::new(0).with_event_queue(&epoll, user_data);
    let create = || Execution::create(&config_of_execution, (0..count).map(context).collect());
    let (server, mut contexts) = patiently(create);
    let (sender, server_receiver) = channel();
    let listener = listen(&server, RetryPolicy::Never, move |incoming| {
        drop(incoming.accept(&server_config, on_connection(sender.clone())))
    });
    let client = client(1);
    let (connection, receiver) = connect(&client, &config, listener.local_address());
    let poll = |contexts: &mut Vec<Execution>| {
        for context in contexts {
            let wait = context.poll();
            context.begin_wait(wait, &epoll).unwrap();
        }
    };
    // The server knows that it is complete when the client does, and a little later.
    while server_receiver.try_recv() != Ok(Event::Connected) {
        poll(&mut contexts);
    }
    // That of the worker, which is the last; if the datapath has one of its own, that has the last words to send.
    drop(contexts.pop());
    poll(&mut contexts);
    drop(contexts);
    expect(&server_receiver, |event| {
        *event
            == Event::Ended {
                handshake_completed: true,
            }
    });
    expect(&receiver, |event| *event == Event::ByPeer(0));
    drop(connection);
    client.close();
}

fn application_queue<'a>(
    ring: &'a mut Option<io_uring::IoUring>,
    epoll: &'a OwnedFd,
) -> ApplicationQueue<'a> {
    match ring {
        Some(ring) => ring.into(),
        None => epoll.into(),
    }
}

#[test]
fn thread_that_asks_a_context_whose_thread_panics_hears_that_it_has_ended() {
    let (_, config) = configurations(settings(), settings());
    let epoll = rustix::event::epoll::create(rustix::event::epoll::CreateFlags::CLOEXEC).unwrap();
    let context = ContextConfig::new(0).with_event_queue(&epoll, 7);
    let (client, mut executions) = Execution::create(&ExecutionConfig::default(), vec![context]).unwrap();
    let execution = executions.pop().unwrap();
    let target = ConnectTarget::new(address("127.0.0.1:9"), "localhost");
    let ignore = |_: &Connection, _: ConnectionEvent<'_>| EventStatus::Done;
    let connection = Connection::start(&client, &config, &target, ignore).unwrap();
    let (about_to_ask, asking) = channel();
    let (sender, answer) = channel();
    std::thread::spawn(move || {
        about_to_ask.send(()).unwrap();
        let _ = sender.send(connection.stats().map(drop));
    });
    asking.recv().unwrap();
    // Either way it must hear: this gives it the time to be in the middle of it.
    std::thread::sleep(Duration::from_millis(50));
    let panicking = std::panic::AssertUnwindSafe(move || {
        let _execution = execution;
        panic!("as the test asked");
    });
    std::panic::catch_unwind(panicking).unwrap_err();
    assert_eq!(answer.recv_timeout(TIMEOUT), Ok(Err(CallError::Closed)));
}

/// A context of an event loop that is gone with everything that is left in it, before or after the registration and the handles.
#[test]
fn parts_of_custom_execution_go_in_any_order() {
    let orders = [
        [0, 1, 2, 3],
        [3, 2, 1, 0],
        [1, 0, 3, 2],
        [2, 3, 0, 1],
        [0, 2, 1, 3],
        [3, 1, 0, 2],
    ];
    for order in orders {
        let (server_config, config) = configurations(settings(), settings());
        // Half of the orders with a ring, where there can be one.
        let mut ring = io_uring::IoUring::new(8).ok().filter(|_| order[0] < 2);
        let epoll = rustix::event::epoll::create(rustix::event::epoll::CreateFlags::CLOEXEC).unwrap();
        let context = ContextConfig::new(0).with_event_queue(application_queue(&mut ring, &epoll), 7);
        let (server, mut executions) = Execution::create(&ExecutionConfig::default(), vec![context]).unwrap();
        let mut execution = executions.pop().unwrap();
        let (sender, server_receiver) = channel();
        let (tell_stopped, stopped) = channel();
        let listener = Listener::start(
            &server,
            listener_options(RetryPolicy::Never),
            move |event| match event {
                ListenerEvent::NewConnection(incoming) => {
                    tell_stopped
                        .send(Some(
                            incoming.accept(&server_config, on_connection(sender.clone())),
                        ))
                        .unwrap();
                }
                _ => tell_stopped.send(None).unwrap(),
            },
        );
        let listener = listener.unwrap();
        let client = client(1);
        let (_connection, receiver) = connect(&client, &config, listener.local_address());
        while server_receiver.try_recv() != Ok(Event::Connected) {
            let wait = execution.poll();
            execution
                .begin_wait(wait, application_queue(&mut ring, &epoll))
                .unwrap();
        }
        let accepted = stopped.recv().unwrap().unwrap();
        let (mut server, mut execution, mut listener) = (Some(server), Some(execution), Some(listener));
        let mut handle = Some(accepted.clone());
        for part in order {
            match part {
                0 => drop(server.take()),
                1 => execution
                    .take()
                    .unwrap()
                    .delete(application_queue(&mut ring, &epoll))
                    .unwrap(),
                2 => drop(listener.take()),
                _ => drop(handle.take()),
            }
        }
        let ended = Event::Ended {
            handshake_completed: true,
        };
        expect(&server_receiver, |event| *event == ended);
        expect(&receiver, |event| *event == Event::ByPeer(0));
        assert!(
            stopped.recv_timeout(TIMEOUT).unwrap().is_none(),
            "the listener has stopped"
        );
        assert_eq!(accepted.shutdown(1), Err(CallError::Closed));
        assert!(stopped.recv().is_err(), "nothing is left that could send");
        client.close();
    }
}

/// A reader on a thread of its own that holds on to much of what has arrived, longer than the connection and the registration.
#[test]
fn kept_data_is_what_it_was_however_long_it_is_held_and_its_memory_comes_back() {
    const LEN: u64 = 10_000_000;
    let mut with = execution(1);
    with.datapath.lent_bytes = 1 << 20;
    let server = patiently(|| ringway_tests::open(&with));
    let (server_config, config) = configurations(settings(), settings());
    let (keep, keeping) = channel::<(u64, KeptData, bool)>();
    let keep = Mutex::new(keep);
    let listener = listen(&server, RetryPolicy::Never, move |incoming| {
        let keep = keep.lock().unwrap().clone();
        incoming.accept(
            &server_config,
            move |_: &Connection, event: ConnectionEvent<'_>| {
                if let ConnectionEvent::PeerStreamStarted(stream) = event {
                    let keep = keep.clone();
                    stream.accept(move |_: &Stream, event: StreamEvent<'_>| {
                        if let StreamEvent::Receive(data) = event {
                            let _ = keep.send((data.offset(), data.keep(), data.fin()));
                        }
                        EventStatus::Done
                    });
                }
                EventStatus::Done
            },
        );
    });
    let reader = std::thread::spawn(move || {
        let (mut held, mut total) = (Vec::new(), 0);
        let check = |(offset, kept): &(u64, KeptData)| assert!(**kept == pattern(*offset, kept.len()));
        loop {
            let (offset, kept, fin) = keeping.recv_timeout(TIMEOUT).expect("it never arrived");
            total += kept.len() as u64;
            held.push((offset, kept));
            if held.len() > 3000 {
                // Not in the order in which they came.
                held.drain(500..2500).for_each(|kept| check(&kept));
            }
            if fin {
                return (held, total);
            }
        }
    });
    let client = client(1);
    let (connection, receiver) = connect(&client, &config, listener.local_address());
    expect(&receiver, |event| *event == Event::Connected);
    let (sender, _streams) = channel();
    let stream = Stream::open(&connection, Direction::Unidirectional, on_stream(sender)).unwrap();
    stream.start(false).unwrap();
    stream.send(pattern(0, LEN as usize).into(), 0, true).unwrap();
    let (mut held, total) = reader.join().unwrap();
    assert_eq!(total, LEN);
    connection.shutdown(0).unwrap();
    client.close();
    let begin = std::time::Instant::now();
    let until = |what: &str, done: &dyn Fn(&ringway::PartitionStats) -> bool| {
        while !done(&server.stats()[0]) {
            assert!(begin.elapsed() < TIMEOUT, "{what}: {:?}", server.stats()[0]);
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    let all =
        |stats: &ringway::PartitionStats| stats.worker.kept_bytes + stats.worker.kept_copied_bytes == LEN;
    until("counted", &all);
    let stats = server.stats()[0];
    assert!(
        stats.worker.kept_bytes > 0 && stats.device.lent_bytes <= 1 << 20,
        "{stats:?}"
    );
    let last = held.split_off(held.len() - 10);
    held.iter()
        .for_each(|(offset, kept)| assert!(**kept == pattern(*offset, kept.len())));
    drop(held);
    // Looked for in the partition's turns: something must happen there.
    let poke = UdpSocket::bind("127.0.0.1:0").unwrap();
    let few = last
        .iter()
        .map(|(_, kept)| kept.len() as u64 + (1 << 16))
        .sum::<u64>();
    until("given back", &|stats| {
        let _ = poke.send_to(&[0x40; 30], listener.local_address());
        stats.device.lent_bytes <= few
    });
    drop(listener);
    server.close();
    for (offset, kept) in last {
        assert!(*kept == pattern(offset, kept.len()));
    }
}
