//! How much is to be sent, and how much is too much.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use ringway::{
    CallError, Connection, ConnectionEvent, Direction, EventStatus, Settings, Stream, StreamEvent,
    StreamShutdown,
};
use ringway_tests::order::ordered;
use ringway_tests::settings;

use crate::scene::{DELAY, Log, Scene, echo, open};

#[test]
fn ideal_amount_grows_with_what_is_in_flight() {
    let mut scene = Scene::new(settings(), Settings::default(), echo);
    let (connection, _) = scene.connect();
    let sizes: Arc<Mutex<Vec<u64>>> = Arc::default();
    let told = Arc::clone(&sizes);
    let ended = Log::default();
    let end = ended.clone();
    // Keeps as much under way as it is told to.
    let (mut posted, mut left) = (0u64, 30_000_000u64);
    let mut ideal = 128 * 1024;
    let handler = ordered(move |stream: &Stream, event: StreamEvent<'_>| {
        match event {
            StreamEvent::StartComplete(_) => assert_eq!(stream.ideal_send_buffer_size(), ideal),
            StreamEvent::SendComplete { context, .. } => posted -= context,
            StreamEvent::IdealSendBufferSize(bytes) => {
                assert_eq!(stream.ideal_send_buffer_size(), bytes);
                told.lock().unwrap().push(bytes);
                ideal = bytes;
            }
            StreamEvent::ShutdownComplete { .. } => end.note("end".to_owned()),
            _ => return EventStatus::Done,
        }
        while posted < ideal && left > 0 {
            let len = left.min(32 * 1024);
            left -= len;
            posted += len;
            stream.send(vec![0; len as usize].into(), len, left == 0).unwrap();
        }
        EventStatus::Done
    });
    let stream = Stream::open(&connection, Direction::Unidirectional, handler).unwrap();
    stream.start(false).unwrap();
    assert!(
        scene
            .world
            .run_until(std::time::Duration::from_secs(60), |_| ended.has("end"))
    );
    let sizes = sizes.lock().unwrap();
    assert!(!sizes.is_empty() && sizes[0] == 256 * 1024, "{sizes:?}");
    assert!(sizes.is_sorted_by(|a, b| *b == 2 * a), "{sizes:?}");
    assert!(*sizes.last().unwrap() >= 1024 * 1024, "{sizes:?}");
}

#[test]
fn send_that_finds_too_much_queued_is_refused_and_room_comes_back_with_acknowledgements() {
    let limited = Settings {
        send_queue_limit: 100_000,
        ..Settings::default()
    };
    let mut scene = Scene::new(settings(), limited, echo);
    let (connection, _) = scene.connect();
    let (one, log) = open(&connection, Direction::Unidirectional, EventStatus::Done);
    let (other, _) = open(&connection, Direction::Unidirectional, EventStatus::Done);
    one.start(false).unwrap();
    other.start(false).unwrap();
    let piece = || vec![1; 60_000].into();
    one.send(piece(), 1, false).unwrap();
    other.send(piece(), 2, false).unwrap();
    // Before the worker has seen the first two, and after.
    assert_eq!(one.send(piece(), 3, false), Err(CallError::QueueFull));
    scene.world.turn();
    assert_eq!(one.send(piece(), 4, false), Err(CallError::QueueFull));
    assert_eq!(other.send(piece(), 5, true), Err(CallError::QueueFull));
    scene.settle();
    // The refused end was none.
    other.send(piece(), 6, true).unwrap();
    one.send(piece(), 7, true).unwrap();
    scene.settle();
    assert!(log.has("ShutdownComplete"));
    assert_eq!(log.count("SendComplete"), 2);
}

#[test]
fn send_on_a_stream_that_could_not_start_is_refused_for_that_however_much_others_have_queued() {
    let one = Settings {
        peer_uni_stream_count: 1,
        ..settings()
    };
    let limited = Settings {
        send_queue_limit: 100_000,
        ..Settings::default()
    };
    let mut scene = Scene::new(one, limited, echo);
    let (connection, _) = scene.connect();
    scene.settle();
    let (full, _) = open(&connection, Direction::Unidirectional, EventStatus::Done);
    let (blocked, log) = open(&connection, Direction::Unidirectional, EventStatus::Done);
    full.start(false).unwrap();
    full.send(vec![1; 100_000].into(), 1, false).unwrap();
    blocked.start(true).unwrap();
    scene.world.turn();
    assert!(log.has("ShutdownComplete"));
    assert_eq!(full.send("x".into(), 2, false), Err(CallError::QueueFull));
    assert_eq!(blocked.send("x".into(), 2, false), Err(CallError::Closed));
}

#[test]
fn handler_that_sends_too_much_is_refused_at_once() {
    let limited = Settings {
        send_queue_limit: 100_000,
        ..Settings::default()
    };
    let sent = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&sent);
    let mut scene = Scene::new(settings(), limited, echo);
    let connection = scene.connect_with(move |connection: &Connection, event: ConnectionEvent<'_>| {
        if let ConnectionEvent::Connected { .. } = event {
            let (stream, _) = open(connection, Direction::Unidirectional, EventStatus::Done);
            stream.start(false).unwrap();
            while stream.send(vec![1; 10_000].into(), 0, false).is_ok() {
                count.fetch_add(1, Ordering::Relaxed);
            }
            assert_eq!(stream.send("x".into(), 0, false), Err(CallError::QueueFull));
        }
        EventStatus::Done
    });
    scene.settle();
    assert_eq!(sent.load(Ordering::Relaxed), 10);
    drop(connection);
}

#[test]
fn handler_that_hears_of_the_send_that_an_abort_has_canceled_may_send_on_another_stream() {
    let limited = Settings {
        send_queue_limit: 100_000,
        ..Settings::default()
    };
    let sent: Arc<Mutex<Vec<Result<(), CallError>>>> = Arc::default();
    let answers = Arc::clone(&sent);
    let mut scene = Scene::new(settings(), limited, echo);
    let connection = scene.connect_with(move |connection: &Connection, event: ConnectionEvent<'_>| {
        if let ConnectionEvent::Connected { .. } = event {
            let (other, _) = open(connection, Direction::Unidirectional, EventStatus::Done);
            other.start(false).unwrap();
            let answers = Arc::clone(&answers);
            let handler = ordered(move |_: &Stream, event: StreamEvent<'_>| {
                if let StreamEvent::SendComplete { canceled: true, .. } = event {
                    answers.lock().unwrap().push(other.send("x".into(), 2, true));
                }
                EventStatus::Done
            });
            let stream = Stream::open(connection, Direction::Unidirectional, handler).unwrap();
            stream.start(false).unwrap();
            stream.send(vec![1; 100_000].into(), 1, false).unwrap();
            assert_eq!(stream.send("x".into(), 0, false), Err(CallError::QueueFull));
            stream.shutdown(StreamShutdown::Abort(3)).unwrap();
        }
        EventStatus::Done
    });
    scene.settle();
    assert_eq!(*sent.lock().unwrap(), [Ok(())]);
    drop(connection);
}

#[test]
fn peer_is_said_to_need_streams_only_if_it_has_said_so() {
    let two = Settings {
        peer_bidi_stream_count: 2,
        ..Settings::default()
    };
    let log = Log::default();
    let heard = log.clone();
    let mut scene = Scene::new(
        two,
        Settings::default(),
        move |connection: &Connection, event: ConnectionEvent<'_>| {
            heard.note(format!("{event:?}"));
            echo(connection, event)
        },
    );
    let (connection, _) = scene.connect();
    // Before the handshake is complete, when nothing is known of the server's limits.
    let (first, _) = open(&connection, Direction::Bidirectional, EventStatus::Done);
    first.start(false).unwrap();
    first.send("x".into(), 0, false).unwrap();
    scene.settle();
    assert_eq!(log.count("PeerNeedsStreams"), 0, "{:?}", log.all());
    let others: Vec<_> = (0..2)
        .map(|_| open(&connection, Direction::Bidirectional, EventStatus::Done))
        .collect();
    others.iter().for_each(|(stream, _)| stream.start(false).unwrap());
    scene.settle();
    assert_eq!(log.count("PeerNeedsStreams { bidi: true }"), 1, "{:?}", log.all());
}

#[test]
fn device_that_was_full_at_first_is_filled_again_as_soon_as_it_has_room() {
    // What goes out before anybody sleeps, and so before an acknowledgement comes.
    let sent_at_once = |room: usize| {
        let mut scene = Scene::new(settings(), Settings::default(), echo);
        let (connection, _) = scene.connect();
        scene.settle();
        let (stream, _) = open(&connection, Direction::Unidirectional, EventStatus::Done);
        stream.start(false).unwrap();
        scene.world.turn();
        let before = scene.world.network.stats().sent;
        scene.world.network.set_room(room);
        stream.send(vec![0; 100_000].into(), 0, true).unwrap();
        scene.world.turn();
        scene.world.network.stats().sent - before
    };
    assert_eq!(sent_at_once(1), sent_at_once(usize::MAX));
}

#[test]
fn answers_of_no_connection_go_out_too_as_soon_as_a_device_that_was_full_has_room() {
    let mut scene = Scene::new(settings(), Settings::default(), echo);
    let stranger = scene
        .world
        .network
        .bind_raw("203.0.113.9:5000".parse().unwrap())
        .unwrap();
    // Of a version that there is not.
    let mut datagram = vec![0; 1200];
    datagram[..15].copy_from_slice(&[0xc0, 0x1a, 0x2a, 0x3a, 0x4a, 8, 1, 2, 3, 4, 5, 6, 7, 8, 0]);
    scene.world.network.set_room(1);
    for _ in 0..3 {
        let (now, from) = (scene.world.now, stranger.local_addr());
        scene.world.network.send(now, from, scene.remote, &datagram);
    }
    let before = scene.world.network.stats().sent;
    scene.world.now += DELAY;
    scene.world.turn();
    assert_eq!(scene.world.network.stats().sent - before, 3);
}
