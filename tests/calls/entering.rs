//! Calls between the turns of a context, on the thread that polls it.

use std::net::UdpSocket;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::task::{Wake, Waker};
use std::time::Duration;

use ringway::{
    ApplicationQueue, CallError, ConnectTarget, Connection, ConnectionEvent, ContextConfig, Direction,
    EventStatus, Execution, ExecutionConfig, Settings, Stream, Wait, wake_after_turn,
};
use ringway_tests::{configurations, settings};

use crate::scene::{Log, Scene, echo, listening, open};

fn can_enter(connection: &Connection) -> bool {
    let mut has_run = false;
    let entered = connection.enter(|| has_run = true);
    assert_eq!(entered, has_run);
    entered
}

#[test]
fn calls_between_turns_take_effect_at_once_and_what_follows_comes_in_the_next_turn() {
    let mut scene = Scene::new(settings(), Settings::default(), echo);
    let (connection, _) = scene.connect();
    scene.settle();
    let log = Log::default();
    let mut opened = None;
    assert!(connection.enter(|| {
        let handler = listening(&log, EventStatus::Done);
        let stream = Stream::open(&connection, Direction::Bidirectional, handler).unwrap();
        stream.detach();
        stream.start(false).unwrap();
        stream.send("question".into(), 7, true).unwrap();
        opened = Some(stream);
    }));
    let stream = opened.unwrap();
    // Outside of it, that would wait for the turn.
    assert!(connection.enter(|| assert!(stream.stats().is_ok())));
    assert_eq!(log.all(), [""; 0]);
    scene.world.turn();
    assert!(log.has("StartComplete(Ok(0))"));
    scene.settle();
    assert!(log.has("SendComplete { context: 7") && log.has("ShutdownComplete"));
    // What fails is told to who calls.
    let late = || assert_eq!(stream.send("more".into(), 8, false), Err(CallError::Closed));
    assert!(connection.enter(late));
}

#[test]
fn nobody_enters_from_another_thread_or_past_calls_that_wait_or_after_the_end() {
    let mut scene = Scene::new(settings(), Settings::default(), echo);
    let (connection, _) = scene.connect();
    assert!(!can_enter(&connection), "its context has not heard of it");
    scene.settle();
    let other = connection.clone();
    assert!(!std::thread::spawn(move || can_enter(&other)).join().unwrap());
    assert!(can_enter(&connection));
    connection.notify().unwrap();
    assert!(!can_enter(&connection), "the call comes first");
    scene.settle();
    assert!(connection.enter(|| connection.shutdown(0).unwrap()));
    scene.settle();
    assert!(!can_enter(&connection));
    let (left, _) = scene.connect();
    scene.settle();
    drop(scene);
    assert!(!can_enter(&left), "its context has gone");
}

#[test]
fn handlers_enter_their_own_connection_and_no_other_one_of_their_context() {
    let mut scene = Scene::new(settings(), Settings::default(), echo);
    let (other, _) = scene.connect();
    scene.settle();
    let (sender, entered) = channel();
    let of_handler = other.clone();
    let connection = scene.connect_with(move |connection, event| {
        if let ConnectionEvent::Notified = event {
            let both = (can_enter(connection), can_enter(&of_handler));
            sender.send(both).unwrap();
        }
        EventStatus::Done
    });
    scene.settle();
    assert!(connection.enter(|| {
        // It hears of it in the next turn.
        connection.notify().unwrap();
        assert!(can_enter(&connection) && !can_enter(&other));
    }));
    scene.settle();
    assert_eq!(entered.try_recv(), Ok((true, false)));
}

#[test]
fn tasks_that_are_woken_within_run_behind_it() {
    struct Enters(Connection, AtomicBool);
    impl Wake for Enters {
        fn wake(self: Arc<Self>) {
            self.1.store(can_enter(&self.0), Ordering::SeqCst);
        }
    }
    let mut scene = Scene::new(settings(), Settings::default(), echo);
    let (connection, _) = scene.connect();
    scene.settle();
    let task = Arc::new(Enters(connection.clone(), AtomicBool::new(false)));
    let has_entered = || task.1.load(Ordering::SeqCst);
    assert!(connection.enter(|| {
        wake_after_turn(Waker::from(Arc::clone(&task)));
        assert!(!has_entered());
    }));
    assert!(has_entered());
}

#[test]
fn panic_within_ends_the_connection_and_goes_on() {
    let mut scene = Scene::new(settings(), Settings::default(), echo);
    let [(connection, log), (other, others)] = [scene.connect(), scene.connect()];
    scene.settle();
    let panics = AssertUnwindSafe(|| connection.enter(|| panic!("as the test asked")));
    let payload = catch_unwind(panics).unwrap_err();
    assert_eq!(payload.downcast_ref(), Some(&"as the test asked"));
    scene.settle();
    assert!(log.has("ShutdownComplete") && !others.has("Shutdown"));
    let (stream, streams) = open(&other, Direction::Bidirectional, EventStatus::Done);
    stream.start(false).unwrap();
    stream.send("x".into(), 0, true).unwrap();
    scene.settle();
    assert!(streams.has("PeerSendShutdown"));
}

#[test]
fn context_is_entered_on_the_thread_that_has_polled_it_last_and_does_not_sleep_over_it() {
    let (_, connecting) = configurations(settings(), settings());
    let config = ExecutionConfig::default();
    let (registration, mut contexts) = Execution::create(&config, vec![ContextConfig::new(0)]).unwrap();
    let mut context = contexts.remove(0);
    // Nobody answers: its handshake goes on for as long as the test.
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let target = ConnectTarget::new(silent.local_addr().unwrap(), "localhost");
    let handler = |_: &Connection, _: ConnectionEvent<'_>| {};
    let connection = Connection::start(&registration, &connecting, &target, handler).unwrap();
    let work = |context: &mut Execution| {
        loop {
            match context.poll() {
                Wait::NoWait => {}
                wait => break wait,
            }
        }
    };
    work(&mut context);
    assert!(can_enter(&connection));
    let there = connection.clone();
    let elsewhere = std::thread::spawn(move || {
        let before = can_enter(&there);
        work(&mut context);
        (before, can_enter(&there), context)
    });
    let (before, behind, mut context) = elsewhere.join().unwrap();
    assert!(!before && behind);
    assert!(!can_enter(&connection));
    let wait = work(&mut context);
    assert!(can_enter(&connection));
    let time = context.begin_wait(wait, ApplicationQueue::Descriptor);
    assert_eq!(time.unwrap(), Some(Duration::ZERO));
}
