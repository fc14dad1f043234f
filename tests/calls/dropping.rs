//! What becomes of streams and connections whose handles are dropped.

use std::sync::{Arc, Mutex};

use ringway::{
    ConnectTarget, Connection, ConnectionEvent, Direction, EventStatus, SendFlags, Settings, Stream,
    StreamEvent,
};
use ringway_tests::order::ordered;
use ringway_tests::settings;

use crate::scene::{Log, Scene, listening};

/// A server that notes what it hears, and sends a byte on each stream, so that there is something to refuse.
fn noting(
    log: &Log,
) -> impl Fn(&Connection, ConnectionEvent<'_>) -> EventStatus + Clone + Send + Sync + 'static {
    let log = log.clone();
    move |_: &Connection, event: ConnectionEvent<'_>| {
        match event {
            ConnectionEvent::PeerStreamStarted(incoming) => {
                let stream = incoming.accept(listening(&log, EventStatus::Done));
                // The stream may have come with the word that nobody wants it.
                let _ = stream.send("y".into(), 0, false);
            }
            event => log.note(format!("{event:?}")),
        }
        EventStatus::Done
    }
}

fn attached(connection: &Connection) -> (Stream, Log) {
    let log = Log::default();
    let handler = listening(&log, EventStatus::Done);
    let stream = Stream::open(connection, Direction::Bidirectional, handler).unwrap();
    (stream, log)
}

#[test]
fn stream_is_aborted_with_code_0_when_its_last_handle_is_dropped_and_not_before() {
    let theirs = Log::default();
    let mut scene = Scene::new(settings(), Settings::default(), noting(&theirs));
    let (connection, _) = scene.connect();
    let (stream, ours) = attached(&connection);
    stream.send_with("x".into(), 1, SendFlags::START).unwrap();
    let other = stream.clone();
    drop(stream);
    scene.settle();
    assert!(theirs.has("Receive") && !theirs.has("Peer"), "{:?}", theirs.all());
    drop(other);
    scene.settle();
    assert!(theirs.has("PeerSendAborted { code: 0 }"), "{:?}", theirs.all());
    assert!(theirs.has("PeerReceiveAborted { code: 0 }"), "{:?}", theirs.all());
    assert!(
        ours.has("SendShutdownComplete { graceful: false }"),
        "{:?}",
        ours.all()
    );
    assert_eq!(ours.count("ShutdownComplete"), 1, "{:?}", ours.all());
}

#[test]
fn what_was_finished_arrives_though_nobody_holds_the_stream_and_no_answer_is_wanted() {
    let theirs = Log::default();
    let mut scene = Scene::new(settings(), Settings::default(), noting(&theirs));
    let (connection, _) = scene.connect();
    let (stream, ours) = attached(&connection);
    stream.start(false).unwrap();
    stream.send(vec![1; 300_000].into(), 1, true).unwrap();
    drop(stream);
    scene.settle();
    scene.settle();
    assert!(theirs.has("PeerSendShutdown"), "{:?}", theirs.all());
    assert!(theirs.has("PeerReceiveAborted { code: 0 }"), "{:?}", theirs.all());
    assert!(
        ours.has("SendComplete { context: 1, canceled: false }"),
        "{:?}",
        ours.all()
    );
    assert_eq!(ours.count("ShutdownComplete"), 1, "{:?}", ours.all());
}

#[test]
fn stream_that_never_started_ends_when_it_is_dropped_and_its_sends_are_canceled() {
    let mut scene = Scene::new(settings(), Settings::default(), noting(&Log::default()));
    let (connection, _) = scene.connect();
    for fin in [false, true] {
        let (stream, ours) = attached(&connection);
        stream.send("x".into(), 1, fin).unwrap();
        drop(stream);
        scene.settle();
        let heard = ours.all();
        assert!(
            ours.has("SendComplete { context: 1, canceled: true }"),
            "{heard:?}"
        );
        assert!(heard.last().unwrap().starts_with("ShutdownComplete"), "{heard:?}");
    }
}

#[test]
fn detached_stream_lives_on_with_its_handler() {
    let theirs = Log::default();
    let mut scene = Scene::new(settings(), Settings::default(), noting(&theirs));
    let (connection, _) = scene.connect();
    let (stream, ours) = attached(&connection);
    stream.detach();
    stream.send_with("x".into(), 1, SendFlags::START).unwrap();
    drop(stream);
    scene.settle();
    assert!(ours.has("Receive"), "{:?}", ours.all());
    assert!(!theirs.has("Peer") && !ours.has("Shutdown"), "{:?}", theirs.all());
}

#[test]
fn stream_of_the_peer_lives_on_without_handles_unless_it_is_attached() {
    for attach in [false, true] {
        let theirs = Log::default();
        let held: Arc<Mutex<Option<Stream>>> = Arc::default();
        let (log, hold) = (theirs.clone(), Arc::clone(&held));
        let serve = move |_: &Connection, event: ConnectionEvent<'_>| {
            if let ConnectionEvent::PeerStreamStarted(incoming) = event {
                let stream = incoming.accept(listening(&log, EventStatus::Done));
                if attach {
                    stream.attach();
                }
                *hold.lock().unwrap() = Some(stream.clone());
            }
            EventStatus::Done
        };
        let mut scene = Scene::new(settings(), Settings::default(), serve);
        let (connection, _) = scene.connect();
        let (stream, ours) = attached(&connection);
        stream.send_with("x".into(), 1, SendFlags::START).unwrap();
        scene.settle();
        drop(held.lock().unwrap().take());
        scene.settle();
        assert_eq!(
            ours.has("PeerSendAborted { code: 0 }"),
            attach,
            "{:?}",
            ours.all()
        );
        assert_eq!(
            ours.has("PeerReceiveAborted { code: 0 }"),
            attach,
            "{:?}",
            ours.all()
        );
        assert_eq!(theirs.has("ShutdownComplete"), attach, "{:?}", theirs.all());
    }
}

#[test]
fn clone_that_a_handler_drops_ends_a_stream_at_once_only_if_it_is_the_last() {
    let theirs = Log::default();
    let mut scene = Scene::new(settings(), Settings::default(), noting(&theirs));
    let (connection, _) = scene.connect();
    let (log, held) = (Log::default(), Arc::new(Mutex::new(None)));
    let (heard, hold) = (log.clone(), Arc::clone(&held));
    let handler = ordered(move |stream: &Stream, event: StreamEvent<'_>| {
        heard.note(format!("{event:?}"));
        drop(stream.clone());
        if let StreamEvent::Receive(_) = event {
            drop(Option::<Stream>::take(&mut hold.lock().unwrap()));
        }
        EventStatus::Done
    });
    let stream = Stream::open(&connection, Direction::Bidirectional, handler).unwrap();
    stream.send_with("x".into(), 1, SendFlags::START).unwrap();
    *held.lock().unwrap() = Some(stream);
    scene.settle();
    assert!(theirs.has("PeerSendAborted { code: 0 }"), "{:?}", theirs.all());
    assert_eq!(log.count("Receive"), 1, "{:?}", log.all());
    assert_eq!(log.count("ShutdownComplete"), 1, "{:?}", log.all());
}

#[test]
fn connection_is_closed_with_code_0_when_its_last_handle_is_dropped_unless_it_is_detached() {
    for detach in [false, true] {
        let theirs = Log::default();
        let mut scene = Scene::new(settings(), Settings::default(), noting(&theirs));
        let (ours, log) = (Log::default(), Log::default());
        let heard = ours.clone();
        let handler = move |_: &Connection, event: ConnectionEvent<'_>| {
            heard.note(format!("{event:?}"));
            EventStatus::Done
        };
        let target = ConnectTarget::new(scene.remote, "localhost");
        let connection =
            Connection::start(&scene.client, &scene.configuration, &target, ordered(handler)).unwrap();
        let stream = Stream::open(
            &connection,
            Direction::Bidirectional,
            listening(&log, EventStatus::Done),
        )
        .unwrap();
        stream.start(false).unwrap();
        if detach {
            connection.detach();
        }
        let other = stream.connection().clone();
        drop(connection);
        scene.settle();
        assert!(ours.has("Connected") && !ours.has("Shutdown"), "{:?}", ours.all());
        // The stream's handle keeps no connection.
        drop(other);
        // Nobody has waited for it to end.
        assert!(!ours.has("ShutdownComplete"), "{:?}", ours.all());
        scene.settle();
        assert_eq!(
            theirs.has("ShutdownByPeer { code: 0,"),
            !detach,
            "{:?}",
            theirs.all()
        );
        assert_eq!(
            ours.count("ShutdownComplete"),
            usize::from(!detach),
            "{:?}",
            ours.all()
        );
        assert_eq!(
            log.count("ShutdownComplete"),
            usize::from(!detach),
            "{:?}",
            log.all()
        );
    }
}

#[test]
fn connection_that_is_dropped_before_its_worker_has_seen_it_is_closed_and_says_so() {
    let mut scene = Scene::new(settings(), Settings::default(), noting(&Log::default()));
    let ours = Log::default();
    let heard = ours.clone();
    let handler = move |_: &Connection, event: ConnectionEvent<'_>| {
        heard.note(format!("{event:?}"));
        EventStatus::Done
    };
    let target = ConnectTarget::new(scene.remote, "localhost");
    drop(Connection::start(&scene.client, &scene.configuration, &target, ordered(handler)).unwrap());
    scene.settle();
    assert_eq!(ours.all().len(), 1, "{:?}", ours.all());
    assert!(ours.has("ShutdownComplete"), "{:?}", ours.all());
}

#[test]
fn accepted_connection_lives_on_without_handles_unless_it_is_attached() {
    for attach in [false, true] {
        let held: Arc<Mutex<Option<Connection>>> = Arc::default();
        let hold = Arc::clone(&held);
        let serve = move |connection: &Connection, event: ConnectionEvent<'_>| {
            if let ConnectionEvent::Connected { .. } = event {
                if attach {
                    connection.attach();
                }
                *hold.lock().unwrap() = Some(connection.clone());
            }
            EventStatus::Done
        };
        let mut scene = Scene::new(settings(), Settings::default(), serve);
        let (_connection, ours) = scene.connect();
        scene.settle();
        drop(held.lock().unwrap().take().unwrap());
        scene.settle();
        assert_eq!(ours.has("ShutdownByPeer { code: 0,"), attach, "{:?}", ours.all());
    }
}

#[test]
fn handle_may_be_dropped_with_what_else_belongs_to_a_thread() {
    thread_local! {
        static HELD: std::cell::RefCell<Option<Connection>> = const { std::cell::RefCell::new(None) };
    }
    let theirs = Log::default();
    let mut scene = Scene::new(settings(), Settings::default(), noting(&theirs));
    let (connection, _) = scene.connect();
    connection.attach();
    scene.settle();
    let thread = std::thread::spawn(move || {
        HELD.set(Some(connection));
        // What calls look at on each thread is there from now on, and goes first.
        HELD.with_borrow(|held| held.as_ref().map(Connection::update_keys))
    });
    assert_eq!(thread.join().unwrap(), Some(Ok(())));
    scene.settle();
    assert!(theirs.has("ShutdownByPeer { code: 0,"), "{:?}", theirs.all());
}

/// Calls on another thread, and waits for it.
fn elsewhere(call: impl FnOnce() + Send + 'static) {
    std::thread::spawn(call).join().unwrap();
}

#[test]
fn last_handle_that_a_handler_drops_does_not_overtake_the_calls_of_other_threads() {
    let theirs = Log::default();
    let mut scene = Scene::new(settings(), Settings::default(), noting(&theirs));
    let (connection, _) = scene.connect();
    let held = Arc::new(Mutex::new(None::<Stream>));
    let hold = Arc::clone(&held);
    let handler = ordered(move |_: &Stream, event: StreamEvent<'_>| {
        if let StreamEvent::Receive(_) = event
            && let Some(stream) = hold.lock().unwrap().take()
        {
            let other = stream.clone();
            elsewhere(move || other.send("all".into(), 2, true).unwrap());
            drop(stream);
        }
        EventStatus::Done
    });
    let stream = Stream::open(&connection, Direction::Bidirectional, handler).unwrap();
    stream.send_with("x".into(), 1, SendFlags::START).unwrap();
    *held.lock().unwrap() = Some(stream);
    scene.settle();
    assert!(held.lock().unwrap().is_none());
    assert!(theirs.has("PeerSendShutdown"), "{:?}", theirs.all());
    assert!(theirs.has("PeerReceiveAborted { code: 0 }"), "{:?}", theirs.all());

    let last = Arc::new(Mutex::new(None::<Connection>));
    let hold = Arc::clone(&last);
    let connection = scene.connect_with(move |_, event| {
        if let ConnectionEvent::Connected { .. } = event
            && let Some(connection) = hold.lock().unwrap().take()
        {
            let other = connection.clone();
            elsewhere(move || other.shutdown(5).unwrap());
            drop(connection);
        }
        EventStatus::Done
    });
    connection.attach();
    *last.lock().unwrap() = Some(connection);
    scene.settle();
    assert!(last.lock().unwrap().is_none());
    assert!(theirs.has("ShutdownByPeer { code: 5"), "{:?}", theirs.all());
}

#[test]
fn what_a_handler_holds_again_or_detaches_before_it_ends_lives_on() {
    for detach in [false, true] {
        let theirs = Log::default();
        let mut scene = Scene::new(settings(), Settings::default(), noting(&theirs));
        let (connection, _) = scene.connect();
        let held = Arc::new(Mutex::new(Vec::<Stream>::new()));
        let hold = Arc::clone(&held);
        let handler = ordered(move |stream: &Stream, event: StreamEvent<'_>| {
            if let StreamEvent::Receive(_) = event {
                let last = std::mem::take(&mut *hold.lock().unwrap());
                elsewhere(move || drop(last));
                match detach {
                    true => stream.detach(),
                    false => hold.lock().unwrap().push(stream.clone()),
                }
            }
            EventStatus::Done
        });
        let stream = Stream::open(&connection, Direction::Bidirectional, handler).unwrap();
        stream.send_with("x".into(), 1, SendFlags::START).unwrap();
        held.lock().unwrap().push(stream);

        let last = Arc::new(Mutex::new(Vec::<Connection>::new()));
        let hold = Arc::clone(&last);
        let connection = scene.connect_with(move |connection, event| {
            if let ConnectionEvent::Connected { .. } = event {
                let last = std::mem::take(&mut *hold.lock().unwrap());
                elsewhere(move || drop(last));
                match detach {
                    true => connection.detach(),
                    false => hold.lock().unwrap().push(connection.clone()),
                }
            }
            EventStatus::Done
        });
        connection.attach();
        last.lock().unwrap().push(connection);
        scene.settle();
        assert_eq!(theirs.count("Receive"), 1);
        assert!(
            !theirs.has("Peer") && !theirs.has("Shutdown"),
            "{:?}",
            theirs.all()
        );
        held.lock().unwrap().clear();
        last.lock().unwrap().clear();
        scene.settle();
        assert_eq!(
            theirs.has("PeerSendAborted { code: 0 }"),
            !detach,
            "{:?}",
            theirs.all()
        );
        assert_eq!(
            theirs.has("ShutdownByPeer { code: 0"),
            !detach,
            "{:?}",
            theirs.all()
        );
    }
}
