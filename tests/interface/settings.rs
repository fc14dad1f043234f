//! Settings: each by what it changes, from the start and on open connections.

use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, setsockopt, sockopt};
use ringway::sim::{Captured, Link};
use ringway::{
    Bytes, CallError, Configuration, CongestionControl, ConnectTarget, Connection, Direction, DropReason,
    EventStatus, Instant, Limits, Registration, RetryPolicy, Settings, SettingsChange, Stream, StreamEvent,
    StreamScheduling, Version,
};
use ringway_tests::{address, client, configurations, settings};

use super::scene::{Log, SERVER, Scene, echo, server_address};

const SECOND: Duration = Duration::from_secs(1);

fn change() -> SettingsChange {
    SettingsChange::new()
}

fn client_with(change: impl Fn(&mut Settings)) -> Scene {
    let mut client = settings();
    change(&mut client);
    Scene::with(settings(), client)
}

fn with_delay(scene: &Scene, delay: Duration) {
    scene.world.network.set_default_link(Link {
        delay,
        ..Link::default()
    });
}

/// Times and sizes of the datagrams that go to the server, or come from it.
fn watch(scene: &Scene, to_server: bool) -> Arc<Mutex<Vec<(Instant, usize)>>> {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&seen);
    scene
        .world
        .network
        .set_capture(Box::new(move |captured: Captured<'_>| {
            if (captured.to == server_address()) == to_server {
                log.lock().unwrap().push((captured.time, captured.bytes.len()));
            }
        }));
    seen
}

fn idle(_: &Stream, _: StreamEvent<'_>) -> EventStatus {
    EventStatus::Done
}

/// A stream of ours with so much to send on it.
fn post(connection: &Connection, len: usize) -> Stream {
    let stream = Stream::open(connection, Direction::Unidirectional, idle).unwrap();
    stream.start(false).unwrap();
    stream.send(Bytes::from(vec![1; len]), 0, true).unwrap();
    stream
}

#[test]
fn idle_timeout_of_a_connection_and_its_change() {
    let mut scene = client_with(|settings| settings.idle_timeout = 5 * SECOND);
    let _listener = scene.listen();
    let (client, _) = scene.connect();
    scene.wait(3 * SECOND);
    client
        .change_settings(&change().idle_timeout(2 * SECOND))
        .unwrap();
    scene.wait(SECOND / 10);
    // It has been idle for longer already.
    assert!(
        scene
            .log
            .find("ShutdownByTransport")
            .unwrap()
            .contains("IdleTimeout")
    );
    let connected = scene.log.count("Connected");
    scene.start();
    scene.until("connected", |scene| scene.log.count("Connected") > connected);
    scene.wait(4 * SECOND);
    assert_eq!(
        scene.log.count("ShutdownByTransport"),
        1,
        "another one has the configuration's"
    );
    scene.wait(2 * SECOND);
    assert_eq!(scene.log.count("ShutdownByTransport"), 2);
}

#[test]
fn keep_alive_interval_of_a_connection_and_its_change() {
    let mut scene =
        client_with(|settings| (settings.idle_timeout, settings.keep_alive_interval) = (3 * SECOND, SECOND));
    let _listener = scene.listen();
    let (client, _) = scene.connect();
    scene.wait(20 * SECOND);
    assert_eq!(scene.log.find("ShutdownByTransport"), None);
    client
        .change_settings(&change().keep_alive_interval(Duration::ZERO))
        .unwrap();
    scene.wait(4 * SECOND);
    assert!(scene.log.find("ShutdownByTransport").is_some());
}

#[test]
fn disconnect_timeout_of_a_connection_and_its_change() {
    let mut scene = client_with(|settings| settings.disconnect_timeout = 8 * SECOND);
    let _listener = scene.listen();
    let (client, _) = scene.connect();
    let (other, _) = scene.connect();
    other
        .change_settings(&change().disconnect_timeout(3 * SECOND))
        .unwrap();
    scene.world.network.set_default_link(Link {
        blackout: true,
        ..Link::default()
    });
    let _streams = (post(&client, 10), post(&other, 10));
    scene.wait(4 * SECOND);
    assert_eq!(scene.log.count("ShutdownByTransport"), 1);
    scene.wait(5 * SECOND);
    assert_eq!(scene.log.count("ShutdownByTransport"), 2);
}

#[test]
fn handshake_idle_timeout_ends_a_handshake_without_an_answer() {
    let mut scene = client_with(|settings| settings.handshake_idle_timeout = 3 * SECOND);
    scene.start();
    scene.wait(4 * SECOND);
    assert!(
        scene
            .log
            .find("ShutdownByTransport")
            .unwrap()
            .contains("IdleTimeout")
    );
}

#[test]
fn peer_may_open_more_streams_than_65535_at_once_and_they_take_no_memory_before_that() {
    let server = Settings {
        peer_bidi_stream_count: 1,
        peer_uni_stream_count: 2,
        ..settings()
    };
    let mut scene = Scene::with(server, settings());
    let _listener = scene.listen();
    let (client, server) = scene.connect();
    assert!(scene.log.find("StreamsAvailable { bidi: 1, uni: 2 }").is_some());
    let before = scene.worker_stats(|scene| &scene.server).memory;
    server
        .change_settings(
            &change()
                .peer_bidi_stream_count(70_000)
                .peer_uni_stream_count(1 << 60),
        )
        .unwrap();
    scene.wait(SECOND);
    assert!(
        scene
            .log
            .find(&format!(
                "StreamsAvailable {{ bidi: 70000, uni: {} }}",
                1u64 << 60
            ))
            .is_some()
    );
    let after = scene.worker_stats(|scene| &scene.server).memory;
    assert!(after < before + 512, "{before} to {after} bytes");
    // And they work: the last of them too.
    let streams: Vec<_> = (0..70_000)
        .map(|_| {
            let stream = Stream::open(&client, Direction::Bidirectional, idle).unwrap();
            stream.start(true).unwrap();
            stream
        })
        .collect();
    let last = streams.last().unwrap();
    last.send(Bytes::from_static(b"last"), 0, true).unwrap();
    scene.until("its echo", |scene| scene.server_log.find("4").is_some());
    assert_eq!(last.id(), Some(4 * 69_999));
}

#[test]
fn fewer_streams_hold_when_those_that_were_allowed_are_used_up() {
    let server = Settings {
        peer_bidi_stream_count: 10,
        ..settings()
    };
    let mut scene = Scene::with(server, settings());
    let _listener = scene.listen();
    let (client, server) = scene.connect();
    server
        .change_settings(&change().peer_bidi_stream_count(2))
        .unwrap();
    for _ in 0..9 {
        scene.echo(&client, 10);
    }
    scene.wait(SECOND);
    let most = (3..=10).find(|bidi| {
        scene
            .log
            .find(&format!("StreamsAvailable {{ bidi: {bidi},"))
            .is_some()
    });
    assert_eq!(most, Some(10), "of the handshake");
    assert!(scene.log.find("StreamsAvailable { bidi: 2,").is_some());
}

/// How much a client gets rid of on a stream that the server does not read.
fn sent_unread(scene: &mut Scene, connection: &Connection, direction: Direction) -> u64 {
    let before = scene.stats(connection).sent_stream_bytes;
    let stream = Stream::open(connection, direction, idle).unwrap();
    stream.detach();
    stream.start(false).unwrap();
    stream.send(Bytes::from(vec![1; 2 << 20]), 0, false).unwrap();
    scene.wait(5 * SECOND);
    scene.stats(connection).sent_stream_bytes - before
}

/// A server that reads nothing.
fn unread(server: Settings) -> (Scene, ringway::Listener, Arc<Mutex<Option<Connection>>>) {
    let scene = Scene::with(server, settings());
    let accepted = Arc::new(Mutex::new(None));
    let (configuration, keep) = (Arc::clone(&scene.server_config), Arc::clone(&accepted));
    let listener = scene.listen_with(RetryPolicy::Never, move |incoming| {
        let connection = incoming.accept(
            &configuration,
            |_: &Connection, event: ringway::ConnectionEvent<'_>| {
                if let ringway::ConnectionEvent::PeerStreamStarted(stream) = event {
                    stream.accept(|_: &Stream, event: StreamEvent<'_>| match event {
                        StreamEvent::Receive(_) => EventStatus::Consumed(0),
                        _ => EventStatus::Done,
                    });
                }
                EventStatus::Done
            },
        );
        *keep.lock().unwrap() = Some(connection);
    });
    (scene, listener, accepted)
}

#[test]
fn windows_bound_what_is_sent_unread_and_new_streams_have_those_that_were_changed() {
    let server = Settings {
        stream_receive_window: 50_000,
        stream_receive_window_bidi_remote: Some(30_000),
        stream_receive_window_uni: Some(20_000),
        connection_flow_control_window: 200_000,
        ..settings()
    };
    let (mut scene, _listener, accepted) = unread(server);
    let client = scene.start();
    scene.until("connected", |scene| scene.log.find("Connected").is_some());
    assert_eq!(sent_unread(&mut scene, &client, Direction::Bidirectional), 30_000);
    assert_eq!(
        sent_unread(&mut scene, &client, Direction::Unidirectional),
        20_000
    );
    let server = accepted.lock().unwrap().clone().unwrap();
    server
        .change_settings(&change().stream_receive_window(500_000))
        .unwrap();
    // The connection's window bounds it now, of which 50,000 are used.
    assert_eq!(
        sent_unread(&mut scene, &client, Direction::Bidirectional),
        150_000
    );
    server
        .change_settings(&change().connection_flow_control_window(1_000_000))
        .unwrap();
    scene.wait(SECOND);
    // The rest of the stream's window went at once.
    assert_eq!(scene.stats(&client).sent_stream_bytes, 50_000 + 500_000);
    assert_eq!(
        sent_unread(&mut scene, &client, Direction::Unidirectional),
        450_000
    );
}

#[test]
fn window_of_our_own_streams_bounds_what_comes_back() {
    let client = Settings {
        stream_receive_window_bidi_local: Some(25_000),
        ..settings()
    };
    let mut scene = Scene::with(settings(), client);
    let _listener = scene.listen();
    let (client, server) = scene.connect();
    let stream = Stream::open(
        &client,
        Direction::Bidirectional,
        |_: &Stream, event: StreamEvent<'_>| match event {
            StreamEvent::Receive(_) => EventStatus::Consumed(0),
            _ => EventStatus::Done,
        },
    )
    .unwrap();
    stream.start(false).unwrap();
    stream.send(Bytes::from(vec![1; 100_000]), 0, true).unwrap();
    scene.wait(5 * SECOND);
    assert_eq!(scene.stats(&server).sent_stream_bytes, 25_000);
}

#[test]
fn pacing_spreads_packets_and_without_it_they_go_at_once() {
    for pacing in [true, false] {
        let mut scene = client_with(|settings| settings.initial_window_packets = 200);
        with_delay(&scene, SECOND / 10);
        let _listener = scene.listen();
        let (client, _) = scene.connect();
        client.change_settings(&change().pacing_enabled(pacing)).unwrap();
        scene.wait(SECOND / 2);
        let seen = watch(&scene, true);
        let begin = scene.world.now;
        let _stream = post(&client, 100_000);
        scene.wait(SECOND / 10);
        let seen = seen.lock().unwrap();
        let at_once = seen.iter().filter(|(time, _)| *time == begin).count();
        assert_eq!(at_once > 40, !pacing, "{at_once} of {} at once", seen.len());
    }
}

#[test]
fn scheduling_takes_streams_one_after_another_or_in_turns() {
    for scheduling in [StreamScheduling::Fifo, StreamScheduling::RoundRobin] {
        let mut scene = Scene::new();
        let order = Arc::new(Mutex::new(Vec::new()));
        let (configuration, log) = (Arc::clone(&scene.server_config), Arc::clone(&order));
        let _listener = scene.listen_with(RetryPolicy::Never, move |incoming| {
            let log = Arc::clone(&log);
            incoming.accept(
                &configuration,
                move |_: &Connection, event: ringway::ConnectionEvent<'_>| {
                    if let ringway::ConnectionEvent::PeerStreamStarted(stream) = event {
                        let log = Arc::clone(&log);
                        stream.accept(move |stream: &Stream, event: StreamEvent<'_>| {
                            if let StreamEvent::Receive(_) = event {
                                log.lock().unwrap().push(stream.id().unwrap());
                            }
                            EventStatus::Done
                        });
                    }
                    EventStatus::Done
                },
            );
        });
        let client = scene.start();
        scene.until("connected", |scene| scene.log.find("Connected").is_some());
        client
            .change_settings(&change().stream_scheduling(scheduling))
            .unwrap();
        let _streams = (post(&client, 60_000), post(&client, 60_000));
        scene.wait(2 * SECOND);
        let mut changes = order.lock().unwrap().clone();
        changes.dedup();
        assert_eq!(
            changes.len() > 2,
            scheduling == StreamScheduling::RoundRobin,
            "{changes:?}"
        );
    }
}

#[test]
fn datagrams_are_received_where_the_connection_says_so_at_its_start_and_not_later() {
    let mut scene = Scene::new();
    let log = Log::default();
    let (configuration, of_server) = (Arc::clone(&scene.server_config), log.clone());
    let _listener = scene.listen_with(RetryPolicy::Never, move |incoming| {
        let settings = SettingsChange::new().datagram_receive_enabled(true);
        incoming
            .accept_with(&configuration, &settings, echo(of_server.clone()))
            .unwrap();
    });
    let plain = scene.start();
    scene.until("connected", |scene| scene.log.find("Connected").is_some());
    scene.wait(SECOND);
    assert!(
        scene
            .log
            .find("DatagramStateChanged { send_enabled: true")
            .is_some(),
        "the server takes them"
    );
    assert!(log.find("DatagramStateChanged").is_none(), "the client does not");
    let refused = plain.change_settings(&change().datagram_receive_enabled(true));
    assert!(matches!(refused, Err(CallError::InvalidState(_))));
    let target = ConnectTarget::new(server_address(), "localhost")
        .with_settings(change().datagram_receive_enabled(true));
    let client = scene.start_to(&target);
    scene.until("taken", |_| {
        log.find("DatagramStateChanged { send_enabled: true").is_some()
    });
    client.send_datagram(Bytes::from_static(b"hello"), 0).unwrap();
    scene.until("it came", |_| log.find("DatagramReceived").is_some());
}

#[test]
fn values_that_make_no_sense_are_refused_at_the_call() {
    let mut scene = Scene::new();
    let _listener = scene.listen();
    let (client, _) = scene.connect();
    let wrong = [
        (change().dscp(64), "dscp"),
        (change().stream_receive_window(0), "stream_receive_window"),
        (
            change().connection_flow_control_window(0),
            "connection_flow_control_window",
        ),
        (
            change().peer_bidi_stream_count(u64::MAX),
            "peer_bidi_stream_count",
        ),
        (change().disconnect_timeout(Duration::ZERO), "disconnect_timeout"),
        (
            change().idle_timeout(SECOND).keep_alive_interval(2 * SECOND),
            "keep_alive_interval",
        ),
    ];
    for (change, field) in wrong {
        let Err(CallError::Settings(error)) = client.change_settings(&change) else {
            panic!("{field} was taken");
        };
        assert_eq!(error.field, field);
    }
    client.shutdown(0).unwrap();
    scene.wait(SECOND);
    assert_eq!(client.change_settings(&change()), Err(CallError::Closed));
}

#[test]
fn network_statistics_come_where_they_are_asked_for_and_stop() {
    let mut scene = client_with(|settings| settings.network_statistics_enabled = true);
    let _listener = scene.listen();
    let (client, server) = scene.connect();
    scene.echo(&client, 200_000);
    let told = scene.log.count("NetworkStatistics");
    assert!(told > 5 && scene.server_log.count("NetworkStatistics") == 0);
    client
        .change_settings(&change().network_statistics_enabled(false))
        .unwrap();
    server
        .change_settings(&change().network_statistics_enabled(true))
        .unwrap();
    scene.wait(SECOND);
    let told = scene.log.count("NetworkStatistics");
    scene.echo(&client, 200_000);
    assert_eq!(scene.log.count("NetworkStatistics"), told);
    let last = scene.server_log.find("NetworkStatistics").unwrap();
    for value in [
        "bytes_in_flight",
        "posted_bytes",
        "ideal_bytes",
        "rtt",
        "congestion_window",
        "bandwidth",
    ] {
        assert!(last.contains(value));
    }
}

/// Probes that find nothing on a path that carries less, by when they are sent.
fn probes(scene: &mut Scene, time: Duration) -> usize {
    scene.world.network.set_default_link(Link {
        mtu: 1200,
        ..Link::default()
    });
    let seen = watch(scene, true);
    scene.wait(time);
    let seen = seen.lock().unwrap();
    seen.iter().filter(|(_, len)| *len > 1200).count()
}

#[test]
fn path_mtu_discovery_probes_as_often_as_it_is_told_and_begins_again_when_it_is_told() {
    let count = |probes_of_each: u8, interval: Duration, time: Duration| {
        let mut scene = client_with(|settings| {
            settings.mtu_discovery_probes = probes_of_each;
            settings.mtu_discovery_interval = interval;
            settings.keep_alive_interval = SECOND;
        });
        scene.world.network.set_default_link(Link {
            mtu: 1200,
            ..Link::default()
        });
        let _listener = scene.listen();
        let seen = watch(&scene, true);
        let _connections = scene.connect();
        let before = seen.lock().unwrap().iter().filter(|(_, len)| *len > 1200).count();
        before + probes(&mut scene, time)
    };
    let once = count(1, 600 * SECOND, 60 * SECOND);
    assert_eq!(count(3, 600 * SECOND, 60 * SECOND), 3 * once);
    assert_eq!(count(1, 40 * SECOND, 75 * SECOND), 2 * once);
}

#[test]
fn sizes_of_datagrams_begin_and_end_where_they_are_told() {
    let mut scene = client_with(|settings| {
        (settings.initial_datagram_size, settings.maximum_datagram_size) = (1300, 1400)
    });
    let _listener = scene.listen();
    let (client, _) = scene.connect();
    let seen = watch(&scene, true);
    scene.echo(&client, 100_000);
    assert_eq!(scene.stats(&client).datagram_size, 1400);
    assert_eq!(seen.lock().unwrap().iter().map(|(_, len)| *len).max(), Some(1400));
    let scene = client_with(|settings| {
        (settings.initial_datagram_size, settings.maximum_datagram_size) = (1300, 1400)
    });
    let _listener = scene.listen();
    let seen = watch(&scene, true);
    let mut scene = scene;
    scene.connect();
    assert!(seen.lock().unwrap().iter().any(|(_, len)| *len == 1300));
}

#[test]
fn another_connection_id_is_used_after_a_while_without_data() {
    for (timeout, changes) in [(5 * SECOND, 1), (20 * SECOND, 0), (Duration::ZERO, 0)] {
        let mut scene = client_with(|settings| settings.remote_cid_idle_timeout = timeout);
        let _listener = scene.listen();
        let (client, _) = scene.connect();
        scene.wait(6 * SECOND);
        scene.echo(&client, 100);
        assert_eq!(scene.stats(&client).remote_cid_changes, changes);
        client
            .change_settings(&change().remote_cid_idle_timeout(SECOND))
            .unwrap();
        scene.wait(2 * SECOND);
        scene.echo(&client, 100);
        assert_eq!(scene.stats(&client).remote_cid_changes, changes + 1);
    }
}

/// Packets lost in a first slow start over a link with a long queue.
fn lost_in_slow_start(change: impl Fn(&mut Settings)) -> u64 {
    let mut scene = client_with(change);
    let _listener = scene.listen();
    let (client, _) = scene.connect();
    scene.world.network.set_default_link(Link {
        delay: SECOND / 20,
        rate: Some(2_500_000),
        queue_bytes: 500_000,
        ..Link::default()
    });
    let _stream = post(&client, 10 << 20);
    scene.wait(2 * SECOND);
    scene.stats(&client).lost_packets
}

#[test]
fn hystart_leaves_slow_start_before_the_queue_overflows() {
    let without = lost_in_slow_start(|_| ());
    let with = lost_in_slow_start(|settings| settings.hystart_enabled = true);
    assert!(
        without > 50 && with < without / 2,
        "{without} and {with} packets lost"
    );
}

#[test]
fn congestion_controllers_differ_and_their_first_window_is_as_told() {
    let window = |change: &dyn Fn(&mut Settings)| {
        let mut scene = client_with(change);
        with_delay(&scene, SECOND / 20);
        let _listener = scene.listen();
        let (client, _) = scene.connect();
        let first = scene.stats(&client).congestion_window / 1200;
        scene.world.network.set_default_link(Link {
            delay: SECOND / 20,
            loss: 0.002,
            ..Link::default()
        });
        let _stream = post(&client, 20 << 20);
        scene.wait(5 * SECOND);
        (first, scene.stats(&client).congestion_window)
    };
    let (first, cubic) = window(&|settings| settings.initial_window_packets = 20);
    assert!((20..24).contains(&first), "{first} packets");
    let (_, newreno) = window(&|settings| {
        settings.initial_window_packets = 20;
        settings.congestion_control = CongestionControl::NewReno;
    });
    assert_ne!(cubic, newreno);
}

#[test]
fn congestion_window_goes_back_to_its_beginning_after_a_pause() {
    let window_after_a_pause = |settings: Settings| {
        let mut scene = Scene::with(ringway_tests::settings(), settings);
        with_delay(&scene, SECOND / 20);
        let _listener = scene.listen();
        let (client, _) = scene.connect();
        scene.echo(&client, 2_000_000);
        let grown = scene.stats(&client).congestion_window;
        scene.wait(3 * SECOND);
        let _stream = post(&client, 10);
        scene.world.turn();
        (grown, scene.stats(&client).congestion_window)
    };
    let (grown, after) = window_after_a_pause(Settings {
        send_idle_timeout: 2 * SECOND,
        ..settings()
    });
    assert!(after < grown / 4, "{grown} to {after} bytes");
    let (grown, after) = window_after_a_pause(Settings {
        send_idle_timeout: 4 * SECOND,
        ..settings()
    });
    assert_eq!(grown, after);
}

#[test]
fn first_round_trip_time_and_delay_of_acknowledgements_are_as_told() {
    // Nobody answers: the first repetition comes after three times the round trip time that is assumed.
    let mut scene = client_with(|settings| settings.initial_rtt = SECOND / 10);
    let begun = scene.world.now;
    let seen = watch(&scene, true);
    scene.start();
    scene.wait(2 * SECOND);
    let repeated = seen
        .lock()
        .unwrap()
        .iter()
        .map(|(time, _)| *time)
        .find(|time| *time > begun)
        .unwrap();
    let waited = repeated.since(begun).as_millis();
    assert!((300..=301).contains(&waited), "{waited} ms");
    // A lone packet is acknowledged when the delay is over.
    let mut scene = Scene::with(
        Settings {
            max_ack_delay: SECOND / 5,
            ..settings()
        },
        settings(),
    );
    let _listener = scene.listen();
    let (client, _) = scene.connect();
    scene.wait(SECOND);
    let seen = watch(&scene, false);
    let begun = scene.world.now;
    let stream = Stream::open(&client, Direction::Unidirectional, idle).unwrap();
    stream.start(false).unwrap();
    stream.send(Bytes::from_static(b"one"), 0, false).unwrap();
    scene.wait(SECOND);
    let acknowledged = seen.lock().unwrap()[0].0.since(begun);
    assert!(
        acknowledged >= SECOND / 5 && acknowledged < SECOND / 4,
        "{acknowledged:?}"
    );
}

#[test]
fn client_that_moves_is_followed_where_that_is_allowed() {
    for allowed in [true, false] {
        let server = Settings {
            migration_enabled: allowed,
            ..settings()
        };
        let mut scene = Scene::with(server, settings());
        let _listener = scene.listen();
        let local = address("198.51.100.1:5000");
        let target = ConnectTarget::new(server_address(), "localhost").with_local(local);
        let client = scene.start_to(&target);
        scene.until("connected", |scene| scene.server_log.find("Connected").is_some());
        scene.wait(SECOND);
        scene.world.network.rebind(local, address("198.51.100.1:6000"));
        let _stream = post(&client, 10);
        scene.wait(3 * SECOND);
        assert_eq!(scene.server_log.find("PeerAddressChanged").is_some(), allowed);
    }
}

#[test]
fn keys_are_updated_after_as_many_bytes_as_told() {
    for (bytes, updates) in [(100_000, true), (1 << 38, false)] {
        let mut scene = client_with(|settings| settings.max_bytes_per_key = bytes);
        let _listener = scene.listen();
        let (client, _) = scene.connect();
        scene.echo(&client, 1_000_000);
        assert_eq!(scene.stats(&client).key_updates > 0, updates);
    }
}

#[test]
fn settings_of_registration_configuration_and_connection_come_one_before_another() {
    let mut scene = Scene::new();
    let registration: &Registration = &scene.client;
    registration
        .set_settings(Settings {
            idle_timeout: 4 * SECOND,
            keep_alive_interval: Duration::ZERO,
            handshake_idle_timeout: 7 * SECOND,
            ..Settings::default()
        })
        .unwrap();
    let wrong = Settings {
        dscp: 70,
        ..Settings::default()
    };
    assert_eq!(registration.set_settings(wrong).unwrap_err().field, "dscp");
    // The configuration has its own idle timeout, and the rest of the registration's.
    let configured = Settings {
        idle_timeout: 8 * SECOND,
        ..registration.settings()
    };
    assert_eq!(configured.handshake_idle_timeout, 7 * SECOND);
    let (server_config, client_config) = configurations(settings(), configured);
    (scene.server_config, scene.client_config) = (server_config, client_config);
    let _listener = scene.listen();
    let (_by_configuration, _) = scene.connect();
    let target =
        ConnectTarget::new(server_address(), "localhost").with_settings(change().idle_timeout(2 * SECOND));
    let _by_connection = scene.start_to(&target);
    scene.wait(3 * SECOND);
    assert_eq!(
        scene.log.count("ShutdownByTransport"),
        1,
        "that of the connection"
    );
    scene.wait(2 * SECOND);
    assert_eq!(
        scene.log.count("ShutdownByTransport"),
        1,
        "not that of the registration"
    );
    scene.wait(4 * SECOND);
    assert_eq!(
        scene.log.count("ShutdownByTransport"),
        2,
        "that of the configuration"
    );
}

#[test]
fn operations_and_replies_of_one_turn_are_bounded() {
    let mut scene = Scene::with_limits(Limits {
        operations_per_turn: 2,
        stateless_replies_per_turn: 0,
        ..Limits::default()
    });
    let _listener = scene.listen();
    let (_client, server) = scene.connect();
    let (sender, ran) = channel();
    for _ in 0..5 {
        let sender = sender.clone();
        server
            .with_stats(move |_| sender.send(()).unwrap_or_default())
            .unwrap();
    }
    for (expected, left) in [(2, 3), (2, 1), (1, 0)] {
        // So late that the worker tells its counters.
        scene.world.now += 2 * SECOND;
        scene.world.turn_once();
        assert_eq!(ran.try_iter().count(), expected);
        assert_eq!(scene.server.stats()[0].worker.queued_operations, left);
    }
    // Ten clients of an unknown version at once.
    let mut hello = vec![0xff; 1200];
    hello[1..5].copy_from_slice(&0x1a2a_3a4a_u32.to_be_bytes());
    hello[5..7].copy_from_slice(&[8, 1]);
    hello[15..17].copy_from_slice(&[8, 2]);
    for port in 1..=10 {
        let from = SocketAddr::new("203.0.113.1".parse().unwrap(), port);
        let now = scene.world.now;
        scene.world.network.send(now, from, address(SERVER), &hello);
    }
    let stats = scene.worker_stats(|scene| &scene.server);
    assert_eq!((stats.version_negotiations, stats.stateless_replies), (0, 0));
    assert_eq!(stats.drops.get(DropReason::StatelessLimit), 10);
}

/// The type of service of the next datagram.
fn type_of_service(socket: &UdpSocket) -> u8 {
    let mut bytes = [0; 2000];
    let mut buffers = [std::io::IoSliceMut::new(&mut bytes)];
    let mut control = nix::cmsg_space!(u8);
    let message = recvmsg::<SockaddrStorage>(
        socket.as_raw_fd(),
        &mut buffers,
        Some(&mut control),
        MsgFlags::empty(),
    )
    .unwrap();
    message
        .cmsgs()
        .unwrap()
        .find_map(|message| match message {
            ControlMessageOwned::Ipv4Tos(tos) => Some(tos),
            _ => None,
        })
        .expect("it was asked for")
}

#[test]
fn packets_carry_the_codepoint_of_their_connection_on_the_kernels_network() {
    let client = client(1);
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(10 * SECOND)).unwrap();
    setsockopt(&socket, sockopt::IpRecvTos, &true).unwrap();
    let with = Settings {
        dscp: 46,
        ecn_enabled: true,
        initial_rtt: SECOND / 20,
        ..settings()
    };
    let (_, configuration): (_, Arc<Configuration>) = configurations(settings(), with);
    let target = ConnectTarget::new(socket.local_addr().unwrap(), "localhost");
    let connection = Connection::start(&client, &configuration, &target, echo(Log::default())).unwrap();
    // Expedited forwarding, and ECT(0).
    assert_eq!(type_of_service(&socket), 46 << 2 | 0b10);
    connection.change_settings(&change().dscp(10)).unwrap();
    // What was on its way, and then those that repeat it.
    let changed = (0..20).find(|_| type_of_service(&socket) >> 2 == 10);
    assert!(changed.is_some());
}

#[test]
fn connections_are_spread_over_partitions_as_asked() {
    let scene = Scene::new();
    let mut world = ringway_tests::World::new(3);
    let client = world.host("198.51.100.2".parse().unwrap(), 3, 1);
    for partition in [0, 2, 1] {
        let target = ConnectTarget::new(server_address(), "localhost").with_partition(partition);
        let connection =
            Connection::start(&client, &scene.client_config, &target, echo(Log::default())).unwrap();
        assert_eq!(connection.partition(), partition);
    }
    let nowhere = ConnectTarget::new(server_address(), "localhost").with_partition(3);
    assert!(Connection::start(&client, &scene.client_config, &nowhere, echo(Log::default())).is_err());
}

#[test]
fn lists_of_versions_are_told_to_the_peer() {
    assert_eq!(Version::SUPPORTED, [Version::V1, Version::V2]);
    let server = Settings {
        accepted_versions: Some(vec![Version::V2]),
        fully_deployed_versions: Some(vec![Version::V2]),
        ..settings()
    };
    let mut scene = Scene::with(server, settings());
    let _listener = scene.listen();
    let (client, server) = scene.connect();
    assert_eq!(
        (scene.stats(&client).version, scene.stats(&server).version),
        (Version::V2, Version::V2)
    );
    let alone = Settings {
        offered_versions: Some(vec![Version::V1]),
        ..settings()
    };
    // And one that has no other hears that there is none.
    let server = Settings {
        accepted_versions: Some(vec![Version::V2]),
        ..settings()
    };
    let mut scene = Scene::with(server, alone);
    let _listener = scene.listen();
    scene.start();
    scene.until("told", |scene| scene.log.find("ShutdownByTransport").is_some());
    assert!(scene.log.find("ShutdownByTransport").unwrap().contains("ersion"));
}
