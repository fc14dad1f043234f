//! What keeps data back, and for how long, as streams tell it.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use ringway::sim::Link;
use ringway::{
    Connection, ConnectionEvent, Direction, EventStatus, SendFlags, Settings, Stream, StreamStats,
};
use ringway_tests::{address, pattern, settings};

use crate::scene::{DELAY, Log, Scene, listening, open};

const HALF: Duration = Duration::from_millis(500);

/// A server that answers this to what it receives.
fn answering(
    status: EventStatus,
) -> impl Fn(&Connection, ConnectionEvent<'_>) -> EventStatus + Clone + Send + Sync + 'static {
    move |_: &Connection, event: ConnectionEvent<'_>| {
        if let ConnectionEvent::PeerStreamStarted(incoming) = event {
            incoming.accept(listening(&Log::default(), status));
        }
        EventStatus::Done
    }
}

fn stats(scene: &mut Scene, stream: &Stream) -> StreamStats {
    let stream = stream.clone();
    scene.ask(move || stream.stats()).unwrap()
}

/// About as long as it should be: a round trip more, at most.
#[track_caller]
fn assert_about(time: Duration, expected: Duration) {
    assert!(
        time >= expected && time <= expected + 4 * DELAY,
        "{time:?}, not {expected:?}"
    );
}

fn nothing_of_the_connection(stats: &StreamStats) -> bool {
    [
        stats.connection_blocked_by_pacing,
        stats.connection_blocked_by_congestion_control,
        stats.connection_blocked_by_flow_control,
        stats.connection_blocked_by_amplification_protection,
    ]
    .iter()
    .all(|time| *time < 4 * DELAY)
}

#[test]
fn stream_tells_how_long_it_waited_for_the_peers_limit_of_streams_and_for_the_application() {
    let server = Settings {
        peer_uni_stream_count: 1,
        ..settings()
    };
    let mut scene = Scene::new(server, Settings::default(), answering(EventStatus::Done));
    let (connection, _) = scene.connect();
    scene.settle();
    let (first, _) = open(&connection, Direction::Unidirectional, EventStatus::Done);
    first.start(false).unwrap();
    let (second, _) = open(&connection, Direction::Unidirectional, EventStatus::Done);
    second.send_with("x".into(), 0, SendFlags::START).unwrap();
    scene.settle();
    let waiting = stats(&mut scene, &second);
    assert_about(waiting.blocked_by_stream_limit, HALF);
    let idle = stats(&mut scene, &first);
    assert_about(idle.blocked_by_application, HALF);
    assert_eq!(idle.blocked_by_stream_limit, Duration::ZERO);
    first.send("x".into(), 0, true).unwrap();
    scene.settle();
    // It has started, and sent all that there was.
    let now = stats(&mut scene, &second);
    assert_about(now.blocked_by_stream_limit, HALF);
    assert!(now.blocked_by_application >= HALF - 4 * DELAY, "{now:?}");
    assert_eq!(now.blocked_by_flow_control, Duration::ZERO);
    assert!(nothing_of_the_connection(&now), "{now:?}");
}

#[test]
fn stream_tells_how_long_it_waited_for_the_peers_limit_of_its_data_or_of_the_connections() {
    for of_connection in [false, true] {
        let server = Settings {
            stream_receive_window: if of_connection { 65_536 } else { 16_384 },
            connection_flow_control_window: if of_connection { 16_384 } else { 1 << 20 },
            ..settings()
        };
        let mut scene = Scene::new(server, Settings::default(), answering(EventStatus::Pending));
        let (connection, _) = scene.connect();
        scene.settle();
        let (stream, _) = open(&connection, Direction::Unidirectional, EventStatus::Done);
        stream.start(false).unwrap();
        stream.send(pattern(0, 50_000).into(), 0, true).unwrap();
        scene.settle();
        let waiting = stats(&mut scene, &stream);
        let (told, other) = match of_connection {
            false => (
                waiting.blocked_by_flow_control,
                waiting.connection_blocked_by_flow_control,
            ),
            true => (
                waiting.connection_blocked_by_flow_control,
                waiting.blocked_by_flow_control,
            ),
        };
        assert!(told > HALF - 4 * DELAY && told <= HALF, "{waiting:?}");
        assert_eq!(other, Duration::ZERO, "{waiting:?}");
        assert_eq!(waiting.blocked_by_application, Duration::ZERO, "{waiting:?}");
    }
}

#[test]
fn stream_tells_how_long_congestion_control_and_pacing_kept_its_connection_back() {
    for pacing in [false, true] {
        let client = Settings {
            pacing_enabled: pacing,
            ..Settings::default()
        };
        let mut scene = Scene::new(settings(), client, answering(EventStatus::Done));
        scene.world.network.set_default_link(Link {
            delay: 10 * DELAY,
            ..Link::default()
        });
        let (connection, _) = scene.connect();
        scene.settle();
        let (stream, _) = open(&connection, Direction::Unidirectional, EventStatus::Done);
        stream.start(false).unwrap();
        stream.send(pattern(0, 4_000_000).into(), 0, false).unwrap();
        scene.settle();
        let waiting = stats(&mut scene, &stream);
        let (congestion, paced) = (
            waiting.connection_blocked_by_congestion_control,
            waiting.connection_blocked_by_pacing,
        );
        // A window is sent in a fraction of a round trip of 200 ms, at once or spread.
        assert!(congestion > 10 * DELAY, "{waiting:?}");
        assert_eq!(paced > DELAY, pacing, "{waiting:?}");
        assert!(congestion + paced <= HALF, "{waiting:?}");
    }
}

#[test]
fn stream_tells_how_long_others_had_their_turn() {
    let server = Settings {
        stream_receive_window: 4 << 20,
        connection_flow_control_window: 16 << 20,
        ..settings()
    };
    let client = Settings {
        pacing_enabled: false,
        initial_window_packets: 2000,
        ..Settings::default()
    };
    let mut scene = Scene::new(server, client, answering(EventStatus::Done));
    let (connection, _) = scene.connect();
    scene.settle();
    let (stream, _) = open(&connection, Direction::Unidirectional, EventStatus::Done);
    stream.start(false).unwrap();
    stream.send(pattern(0, 1_000_000).into(), 0, false).unwrap();
    // More than goes in a turn, in turns of 7 ms.
    for _ in 0..10 {
        scene.world.turn_once();
        scene.world.now += Duration::from_millis(7);
    }
    scene.settle();
    let waiting = stats(&mut scene, &stream);
    let scheduling = waiting.connection_blocked_by_scheduling;
    assert!(scheduling >= 3 * Duration::from_millis(7), "{waiting:?}");
    assert!(scheduling <= 10 * Duration::from_millis(7), "{waiting:?}");
}

#[test]
fn stream_of_a_server_tells_how_long_it_waited_for_its_client_to_prove_a_new_address() {
    let held: Arc<Mutex<Option<Stream>>> = Arc::default();
    let hold = Arc::clone(&held);
    let serve = move |connection: &Connection, event: ConnectionEvent<'_>| match event {
        ConnectionEvent::Connected { .. } => {
            let handler = listening(&Log::default(), EventStatus::Done);
            let stream = Stream::open(connection, Direction::Unidirectional, handler).unwrap();
            stream.start(false).unwrap();
            *hold.lock().unwrap() = Some(stream);
            EventStatus::Done
        }
        event => answering(EventStatus::Done)(connection, event),
    };
    let mut scene = Scene::new(settings(), settings(), serve);
    let (connection, _) = scene.connect();
    scene.settle();
    // It is heard from its new address, where nothing reaches it.
    let (before, now) = (address("198.51.100.1:49152"), address("198.51.100.9:1"));
    scene.world.network.rebind(before, now);
    let blackout = Link {
        blackout: true,
        ..Link::default()
    };
    scene
        .world
        .network
        .set_link(scene.remote.ip(), now.ip(), blackout);
    let server = held.lock().unwrap().take().unwrap();
    let (client, _) = open(&connection, Direction::Unidirectional, EventStatus::Done);
    client.send_with("x".into(), 0, SendFlags::START).unwrap();
    scene.world.run_for(2 * DELAY);
    server.send(pattern(0, 100_000).into(), 0, true).unwrap();
    scene.settle();
    let waiting = stats(&mut scene, &server);
    assert!(
        waiting.connection_blocked_by_amplification_protection > HALF / 4,
        "{waiting:?}"
    );
}

#[test]
fn connection_tells_the_highest_ids_that_its_streams_may_have() {
    let server = Settings {
        peer_bidi_stream_count: 7,
        peer_uni_stream_count: 0,
        ..Settings::default()
    };
    let client = Settings {
        peer_bidi_stream_count: 1,
        peer_uni_stream_count: 5,
        ..Settings::default()
    };
    let mut scene = Scene::new(server, client, answering(EventStatus::Done));
    let (connection, _) = scene.connect();
    scene.settle();
    let ids = scene.ask(move || connection.max_stream_ids());
    // Of the client 0, 4, ... and 2, 6, ..., of the server 1, 5, ... and 3, 7, ...
    assert_eq!(ids, Ok([Some(6 * 4), Some(1), None, Some(4 * 4 + 3)]));
}
