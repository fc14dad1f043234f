//! A thread that has much for a connection's handler notifies it once.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Wake, Waker};

use ringway::{
    Bytes, CallError, ConnectionEvent, Direction, EventStatus, Settings, Stream, StreamEvent, wake_after_turn,
};
use ringway_tests::settings;

use crate::scene::{Log, Scene, echo, listening};

#[test]
fn handler_is_notified_once_for_all_that_was_said_before() {
    let mut scene = Scene::new(settings(), Settings::default(), echo);
    let (connection, log) = scene.connect();
    scene.settle();
    for _ in 0..100 {
        connection.notify().unwrap();
    }
    scene.settle();
    assert_eq!(log.count("Notified"), 1);
    connection.notify().unwrap();
    scene.settle();
    assert_eq!(log.count("Notified"), 2);
    connection.shutdown(0).unwrap();
    scene.settle();
    assert_eq!(connection.notify(), Err(CallError::Closed));
}

#[test]
fn calls_in_the_event_take_effect_at_once_and_those_before_it_have_had_theirs() {
    let mut scene = Scene::new(settings(), Settings::default(), echo);
    let log = Log::default();
    let to_send: Arc<Mutex<Vec<Bytes>>> = Arc::default();
    let (events, work) = (log.clone(), Arc::clone(&to_send));
    let connection = scene.connect_with(move |connection, event| {
        if let ConnectionEvent::Notified = event {
            for data in work.lock().unwrap().drain(..) {
                let stream = Stream::open(
                    connection,
                    Direction::Bidirectional,
                    listening(&events, EventStatus::Done),
                )
                .unwrap();
                stream.detach();
                stream.start(true).unwrap();
                stream.send(data, 0, true).unwrap();
                events.note(format!("stream {:?}", stream.id()));
            }
            // Within the event it is said again: it comes again, behind it.
            if events.count("again") == 0 {
                events.note("again".to_owned());
                connection.notify().unwrap();
            }
            events.note("Notified".to_owned());
        }
        EventStatus::Done
    });
    scene.settle();
    to_send
        .lock()
        .unwrap()
        .extend([Bytes::from_static(b"one"), Bytes::from_static(b"two")]);
    connection.notify().unwrap();
    scene.settle();
    assert_eq!(log.count("Notified"), 2);
    assert_eq!(log.count("Receive"), 2, "{:?}", log.all());
    assert_eq!(log.count("PeerSendShutdown"), 2);
}

#[test]
fn handler_that_notifies_its_own_connection_for_ever_keeps_nothing_else_waiting() {
    const TIMES: usize = 1000;
    let mut scene = Scene::new(settings(), Settings::default(), echo);
    let log = Log::default();
    let heard = log.clone();
    let busy = scene.connect_with(move |connection, event| {
        if let ConnectionEvent::Notified = event {
            heard.note("busy".to_owned());
            if heard.count("busy") < TIMES {
                connection.notify().unwrap();
            }
        }
        EventStatus::Done
    });
    let heard = log.clone();
    let other = scene.connect_with(move |_, event| {
        if let ConnectionEvent::Notified = event {
            heard.note(format!("other after {}", heard.count("busy")));
        }
        EventStatus::Done
    });
    scene.settle();
    busy.notify().unwrap();
    other.notify().unwrap();
    // A turn that says that there is nothing to do would end here.
    scene.settle();
    assert_eq!(log.count("busy"), TIMES);
    assert!(log.all().contains(&"other after 1".to_owned()));
}

#[test]
fn handler_that_notifies_its_own_connection_is_heard_no_more_often_before_the_handshake_is_complete() {
    let mut scene = Scene::new(settings(), Settings::default(), echo);
    let (log, goes_on) = (Log::default(), Arc::new(AtomicBool::new(false)));
    let (heard, again) = (log.clone(), Arc::clone(&goes_on));
    let connection = scene.connect_with(move |connection, event| {
        heard.note(format!("{event:?}"));
        if matches!(event, ConnectionEvent::Notified) && again.load(Ordering::Relaxed) {
            connection.notify().unwrap();
        }
        EventStatus::Done
    });
    let count_in_turns = |scene: &mut Scene| {
        scene.world.turn();
        let before = log.count("Notified");
        goes_on.store(true, Ordering::Relaxed);
        connection.notify().unwrap();
        (0..10).for_each(|_| scene.world.turn_once());
        goes_on.store(false, Ordering::Relaxed);
        log.count("Notified") - before
    };
    let in_handshake = count_in_turns(&mut scene);
    assert!(!log.has("Connected"));
    scene.settle();
    assert!(log.has("Connected"));
    assert_eq!(in_handshake, count_in_turns(&mut scene));
}

#[test]
fn task_that_a_handler_wakes_is_woken_behind_everything_that_the_turn_delivers() {
    struct Note(Log, AtomicUsize);
    impl Wake for Note {
        fn wake(self: Arc<Self>) {
            self.1.fetch_add(1, Ordering::Relaxed);
            self.0.note("woken".to_owned());
        }
    }
    let mut scene = Scene::new(settings(), Settings::default(), echo);
    let (connection, _) = scene.connect();
    scene.settle();
    let log = Log::default();
    let note = Arc::new(Note(log.clone(), AtomicUsize::new(0)));
    for _ in 0..2 {
        let (heard, note) = (log.clone(), Arc::clone(&note));
        let stream = Stream::open(
            &connection,
            Direction::Bidirectional,
            move |_: &Stream, event: StreamEvent<'_>| {
                if let StreamEvent::StartComplete(_) = event {
                    heard.note("started".to_owned());
                    wake_after_turn(Waker::from(Arc::clone(&note)));
                }
                EventStatus::Done
            },
        )
        .unwrap();
        stream.detach();
        stream.start(false).unwrap();
    }
    scene.settle();
    assert_eq!(log.all(), ["started", "started", "woken", "woken"]);
}
