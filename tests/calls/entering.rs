//! Calls between the turns of a context, on the thread that polls it.

use std::cell::RefCell;
use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::task::{Wake, Waker};
use std::time::{Duration, Instant};

use ringway::{
    ApplicationQueue, CallError, ConnectTarget, Connection, ConnectionEvent, ContextConfig, Direction,
    EventStatus, Execution, ExecutionConfig, Listener, ListenerEvent, ListenerOptions, Settings, Stream,
    Wait, wake_after_turn,
};
use ringway_tests::{ALPN, configurations, settings};

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
fn panic_within_ends_the_connection_and_no_other_one() {
    let mut scene = Scene::new(settings(), Settings::default(), echo);
    let [(connection, log), (other, others)] = [scene.connect(), scene.connect()];
    scene.settle();
    assert!(connection.enter(|| panic!("as the test asked")));
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
    // A thread is often where one has been that has ended.
    for _ in 0..3 {
        let there = connection.clone();
        let elsewhere = std::thread::spawn(move || {
            work(&mut context);
            (can_enter(&there), context)
        });
        let (entered, back) = elsewhere.join().unwrap();
        assert!(entered);
        context = back;
    }
    let wait = work(&mut context);
    assert!(can_enter(&connection));
    let time = context.begin_wait(wait, ApplicationQueue::Descriptor);
    assert_eq!(time.unwrap(), Some(Duration::ZERO));
}

/// What the engine does after a pause, it does at the time that it is: the closing period is not over before it has begun.
#[test]
fn close_between_turns_after_a_pause_is_heard_by_the_peer() {
    const CODE: u64 = 7;
    let of_client = Settings {
        // Due when the pause is over.
        keep_alive_interval: Duration::from_millis(100),
        ..settings()
    };
    let (accepting, connecting) = configurations(settings(), of_client);
    let server = ringway_tests::server(1);
    let (sender, heard) = channel();
    let options = ListenerOptions::new("127.0.0.1:0".parse().unwrap(), &[ALPN]);
    let listener = Listener::start(&server, options, move |event| {
        if let ListenerEvent::NewConnection(incoming) = event {
            let sender = sender.clone();
            incoming.accept(&accepting, move |_: &Connection, event: ConnectionEvent<'_>| {
                if let ConnectionEvent::ShutdownByPeer { code, .. } = event {
                    sender.send(code).unwrap();
                }
            });
        }
    })
    .unwrap();
    let (client, mut contexts) =
        Execution::create(&ExecutionConfig::default(), vec![ContextConfig::new(0)]).unwrap();
    let mut context = contexts.remove(0);
    let is_connected = Arc::new(AtomicBool::new(false));
    let connected = Arc::clone(&is_connected);
    let handler = move |_: &Connection, event: ConnectionEvent<'_>| {
        if let ConnectionEvent::Connected { .. } = event {
            connected.store(true, Ordering::Relaxed);
        }
    };
    let target = ConnectTarget::new(listener.local_address(), "localhost");
    let connection = Connection::start(&client, &connecting, &target, handler).unwrap();
    let mut poll = |done: &dyn Fn() -> bool| {
        let start = Instant::now();
        while !done() {
            assert!(start.elapsed() < Duration::from_secs(10));
            let wait = context.poll();
            context.sleep_unless(wait, || true).unwrap();
        }
    };
    poll(&|| is_connected.load(Ordering::Relaxed));
    let quiet = Instant::now();
    poll(&|| quiet.elapsed() > Duration::from_millis(50));
    std::thread::sleep(Duration::from_secs(1));
    assert!(connection.enter(|| connection.shutdown(CODE).unwrap()));
    let code = std::cell::Cell::new(None);
    poll(&|| {
        code.set(heard.try_recv().ok());
        code.get().is_some()
    });
    assert_eq!(code.get(), Some(CODE));
}

#[test]
fn nobody_enters_while_what_belongs_to_a_thread_is_dropped() {
    struct Enters(Connection);
    impl Drop for Enters {
        fn drop(&mut self) {
            assert!(!can_enter(&self.0));
        }
    }
    thread_local! {
        static HELD: RefCell<Option<Enters>> = const { RefCell::new(None) };
    }
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let thread = std::thread::spawn(move || {
        let (_, connecting) = configurations(settings(), settings());
        let config = ExecutionConfig::default();
        let (registration, mut contexts) = Execution::create(&config, vec![ContextConfig::new(0)]).unwrap();
        // What is looked at last goes first: what handlers need has gone then, and what tells which contexts a thread polls has not.
        contexts[0].poll();
        HELD.with_borrow(|held| assert!(held.is_none()));
        let target = ConnectTarget::new(silent.local_addr().unwrap(), "localhost");
        let handler = |_: &Connection, _: ConnectionEvent<'_>| {};
        let connection = Connection::start(&registration, &connecting, &target, handler).unwrap();
        while contexts[0].poll() == Wait::NoWait {}
        assert!(can_enter(&connection));
        HELD.set(Some(Enters(connection)));
        (registration, contexts)
    });
    drop(thread.join().unwrap());
}
