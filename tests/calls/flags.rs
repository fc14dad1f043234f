//! What flags of streams and sends change.

use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ringway::sim::Link;
use ringway::{
    Bytes, CallError, Connection, ConnectionEvent, Direction, EventStatus, Limits, SendFlags, Settings,
    StartFlags, Stream, StreamEvent, StreamShutdown,
};
use ringway_tests::order::ordered;
use ringway_tests::settings;

use crate::scene::{DELAY, Log, Scene, echo, listening, open};

/// A server that notes what it hears, of streams with what they bring.
fn noting(
    log: &Log,
) -> impl Fn(&Connection, ConnectionEvent<'_>) -> EventStatus + Clone + Send + Sync + 'static {
    let log = log.clone();
    move |_: &Connection, event: ConnectionEvent<'_>| {
        log.note(format!("{event:?}"));
        if let ConnectionEvent::PeerStreamStarted(incoming) = event {
            let log = log.clone();
            incoming.accept(ordered(move |_: &Stream, event: StreamEvent<'_>| {
                log.note(match &event {
                    StreamEvent::Receive(data) => {
                        format!(
                            "Receive {} fin {}",
                            String::from_utf8_lossy(&data.to_vec()),
                            data.fin()
                        )
                    }
                    event => format!("{event:?}"),
                });
                EventStatus::Done
            }));
        }
        EventStatus::Done
    }
}

/// What has come, one behind the other, with "fin" at ends.
fn received(log: &Log) -> String {
    let all = log.all();
    let pieces = all.iter().filter_map(|event| event.strip_prefix("Receive "));
    pieces
        .map(|piece| piece.replace(" fin true", "fin").replace(" fin false", ""))
        .collect()
}

fn lossy(loss: f64) -> Link {
    Link {
        delay: DELAY,
        loss,
        ..Link::default()
    }
}

#[test]
fn peer_hears_of_an_immediate_stream_before_there_is_data_whatever_is_lost() {
    let log = Log::default();
    let mut scene = Scene::new(settings(), Settings::default(), noting(&log));
    let (connection, _) = scene.connect();
    scene.settle();
    let (quiet, _) = open(&connection, Direction::Bidirectional, EventStatus::Done);
    quiet.start(false).unwrap();
    scene.settle();
    assert!(!log.has("PeerStreamStarted"));
    scene.world.network.set_default_link(lossy(0.3));
    let streams: Vec<_> = (0..30)
        .map(|_| {
            let (stream, streams) = open(&connection, Direction::Bidirectional, EventStatus::Done);
            stream.start_with(StartFlags::IMMEDIATE).unwrap();
            scene.world.run_for(Duration::from_millis(5));
            (stream, streams)
        })
        .collect();
    scene.world.run_for(Duration::from_secs(5));
    assert_eq!(log.count("PeerStreamStarted"), 30);
    // Data goes on from there.
    streams
        .iter()
        .for_each(|(stream, _)| stream.send("x".into(), 0, true).unwrap());
    scene.world.run_for(Duration::from_secs(5));
    assert_eq!(log.count("Receive x fin true"), 30);
}

#[test]
fn stream_that_has_waited_for_the_peers_limit_hears_that_it_is_accepted() {
    let one = Settings {
        peer_bidi_stream_count: 1,
        ..Settings::default()
    };
    let mut scene = Scene::new(one, Settings::default(), echo);
    let (connection, _) = scene.connect();
    let (first, first_log) = open(&connection, Direction::Bidirectional, EventStatus::Done);
    first.start(false).unwrap();
    let (second, log) = open(&connection, Direction::Bidirectional, EventStatus::Done);
    second.start_with(StartFlags::INDICATE_PEER_ACCEPT).unwrap();
    scene.settle();
    assert!(log.all().is_empty(), "{:?}", log.all());
    first.send("x".into(), 0, true).unwrap();
    scene.settle();
    assert!(first_log.has("ShutdownComplete"));
    assert_eq!(log.all(), ["StartComplete(Ok(4))", "PeerAccepted"]);
    assert!(!first_log.has("PeerAccepted"), "nobody asked");
}

#[test]
fn send_starts_the_stream_that_it_is_the_first_of() {
    let log = Log::default();
    let mut scene = Scene::new(settings(), Settings::default(), noting(&log));
    let (connection, _) = scene.connect();
    let (stream, streams) = open(&connection, Direction::Unidirectional, EventStatus::Done);
    stream.send_with("a".into(), 0, SendFlags::START).unwrap();
    stream
        .send_with("b".into(), 1, SendFlags::START | SendFlags::FIN)
        .unwrap();
    assert!(matches!(stream.start(false), Err(CallError::InvalidState(_))));
    scene.settle();
    assert_eq!(streams.count("StartComplete(Ok"), 1);
    assert!(
        streams.has("ShutdownComplete") && received(&log) == "abfin",
        "{:?}",
        log.all()
    );
}

#[test]
fn several_buffers_are_one_send() {
    let log = Log::default();
    let mut scene = Scene::new(settings(), Settings::default(), noting(&log));
    let (connection, _) = scene.connect();
    let (stream, streams) = open(&connection, Direction::Unidirectional, EventStatus::Done);
    let parts = vec![
        Bytes::from_static(b"one "),
        Bytes::new(),
        Bytes::from_static(b"two"),
        Bytes::new(),
    ];
    stream.send_vectored(Vec::new(), 5, SendFlags::NONE).unwrap();
    stream
        .send_vectored(parts, 6, SendFlags::START | SendFlags::FIN)
        .unwrap();
    let (large, _) = open(&connection, Direction::Unidirectional, EventStatus::Done);
    let parts = (0..100).map(|part| vec![part; 777].into()).collect();
    large
        .send_vectored(parts, 7, SendFlags::START | SendFlags::FIN)
        .unwrap();
    scene.settle();
    let completed: Vec<_> = streams
        .all()
        .into_iter()
        .filter(|event| event.starts_with("SendComplete"))
        .collect();
    let expected = [5, 6].map(|context| format!("SendComplete {{ context: {context}, canceled: false }}"));
    assert_eq!(completed, expected);
    assert!(received(&log).starts_with("one twofin"), "{}", received(&log));
    // Canceled whole, too.
    let (stream, streams) = open(&connection, Direction::Unidirectional, EventStatus::Done);
    stream
        .send_vectored(vec!["a".into(), "b".into()], 8, SendFlags::START)
        .unwrap();
    stream.shutdown(StreamShutdown::AbortSend(0)).unwrap();
    scene.settle();
    assert_eq!(streams.count("SendComplete { context: 8, canceled: true }"), 1);
}

#[test]
fn buffers_are_sent_from_where_they_lie_and_held_until_the_end() {
    struct Watched(Vec<u8>, Arc<Mutex<usize>>);
    impl AsRef<[u8]> for Watched {
        fn as_ref(&self) -> &[u8] {
            &self.0
        }
    }
    impl Drop for Watched {
        fn drop(&mut self) {
            *self.1.lock().unwrap() += 1;
        }
    }
    let mut scene = Scene::new(settings(), Settings::default(), echo);
    let (connection, _) = scene.connect();
    scene.settle();
    let dropped = Arc::new(Mutex::new(0));
    let parts = (0..3)
        .map(|_| Bytes::from_owner(Watched(vec![1; 1000], Arc::clone(&dropped))))
        .collect();
    let (stream, streams) = open(&connection, Direction::Unidirectional, EventStatus::Done);
    stream.send_vectored(parts, 0, SendFlags::START).unwrap();
    scene.world.turn();
    assert_eq!(
        (*dropped.lock().unwrap(), streams.count("SendComplete")),
        (0, 0),
        "the peer may want them again"
    );
    scene.settle();
    assert_eq!((*dropped.lock().unwrap(), streams.count("SendComplete")), (3, 1));
}

#[test]
fn loss_cancels_a_stream_that_is_of_no_use_after_it_with_the_code_of_its_handler() {
    let log = Log::default();
    let mut scene = Scene::new(settings(), Settings::default(), noting(&log));
    let (connection, _) = scene.connect();
    scene.settle();
    let heard = Log::default();
    let notes = heard.clone();
    let handler = ordered(move |_: &Stream, event: StreamEvent<'_>| {
        notes.note(format!("{event:?}"));
        match event {
            StreamEvent::CancelOnLoss => EventStatus::Refuse(77),
            _ => EventStatus::Done,
        }
    });
    let stream = Stream::open(&connection, Direction::Bidirectional, handler).unwrap();
    stream
        .send_with("arrives".into(), 0, SendFlags::START | SendFlags::CANCEL_ON_LOSS)
        .unwrap();
    scene.settle();
    assert!(!heard.has("CancelOnLoss"));
    scene.world.network.set_default_link(lossy(1.0));
    // Sticky: the flag need not be given again.
    stream.send("is lost".into(), 1, false).unwrap();
    scene.world.run_for(Duration::from_millis(100));
    scene.world.network.set_default_link(lossy(0.0));
    scene.settle();
    assert_eq!(heard.count("CancelOnLoss"), 1, "{:?}", heard.all());
    assert!(heard.has("SendComplete { context: 1, canceled: true }"));
    assert!(
        log.has("PeerSendAborted { code: 77 }") && !log.has("Receive is lost"),
        "{:?}",
        log.all()
    );
    assert_eq!(stream.send("more".into(), 2, false), Err(CallError::Closed));
}

#[test]
fn data_with_more_to_come_waits_for_it() {
    let log = Log::default();
    let mut scene = Scene::new(settings(), Settings::default(), noting(&log));
    let (connection, _) = scene.connect();
    let (stream, _) = open(&connection, Direction::Unidirectional, EventStatus::Done);
    stream.start(false).unwrap();
    scene.settle();
    stream.send_with("one ".into(), 0, SendFlags::DELAY).unwrap();
    scene.settle();
    assert!(!log.has("Receive"));
    stream.send_with("two ".into(), 1, SendFlags::DELAY).unwrap();
    stream.send("three".into(), 2, false).unwrap();
    scene.settle();
    assert_eq!(log.count("Receive one two three"), 1, "{:?}", log.all());
    stream
        .send_with("end".into(), 3, SendFlags::DELAY | SendFlags::FIN)
        .unwrap();
    scene.settle();
    assert!(log.has("Receive end fin true"));
}

#[test]
fn priority_work_brings_the_calls_of_its_connection_before_those_of_others() {
    let mut scene = Scene::new(settings(), Settings::default(), echo);
    let connections: Vec<_> = (0..2).map(|_| scene.connect().0).collect();
    let streams: Vec<_> = connections
        .iter()
        .map(|connection| open(connection, Direction::Unidirectional, EventStatus::Done).0)
        .collect();
    scene.settle();
    let order = Log::default();
    let mark = |connection: &Connection, name: &'static str| {
        let order = order.clone();
        connection
            .with_stats(move |_| order.note(name.to_owned()))
            .unwrap();
    };
    let works: [&dyn Fn(); 2] = [
        &|| streams[1].start_with(StartFlags::PRIORITY_WORK).unwrap(),
        &|| {
            streams[1]
                .send_with("x".into(), 0, SendFlags::PRIORITY_WORK)
                .unwrap()
        },
    ];
    for work in works {
        mark(&connections[0], "other");
        mark(&connections[1], "before");
        work();
        mark(&connections[1], "after");
        scene.settle();
    }
    let round = ["before", "after", "other"];
    // Calls of the connection that come before the worker looks go along.
    assert_eq!(order.all(), [round, round].concat());
}

/// A call that calls again, so many times.
fn chain(connection: &Connection, ran: &Arc<AtomicUsize>, left: usize) {
    let (next, ran) = (connection.clone(), Arc::clone(ran));
    connection
        .with_stats(move |_| {
            ran.fetch_add(1, Ordering::Relaxed);
            if left > 1 {
                chain(&next, &ran, left - 1);
            }
        })
        .unwrap();
}

#[test]
fn priority_work_brings_no_more_calls_into_a_turn_than_one_may_run() {
    let most = Limits::default().operations_per_turn;
    let mut scene = Scene::new(settings(), Settings::default(), echo);
    let (connection, _) = scene.connect();
    let (stream, _) = open(&connection, Direction::Unidirectional, EventStatus::Done);
    stream.start(false).unwrap();
    scene.settle();
    // Calls that are made while the others run, and calls that wait already.
    for (chains, len) in [(1, 3 * most), (3 * most, 1)] {
        let ran = Arc::new(AtomicUsize::new(0));
        for _ in 0..chains {
            chain(&connection, &ran, len);
        }
        stream.send_with("x".into(), 0, SendFlags::PRIORITY_WORK).unwrap();
        scene.world.turn_once();
        let first = ran.load(Ordering::Relaxed);
        assert!(0 < first && first <= most, "{first} of {chains} * {len}");
        scene.settle();
        assert_eq!(ran.load(Ordering::Relaxed), 3 * most);
    }
}

#[test]
fn stream_that_is_aborted_immediately_has_its_last_event_before_the_peer_knows() {
    let log = Log::default();
    let mut scene = Scene::new(settings(), Settings::default(), noting(&log));
    let (connection, _) = scene.connect();
    scene.settle();
    for round in 0..300 {
        let (stream, streams) = open(&connection, Direction::Bidirectional, EventStatus::Done);
        stream.send_with("x".into(), 1, SendFlags::START).unwrap();
        scene.world.turn();
        stream.shutdown(StreamShutdown::AbortImmediately(9)).unwrap();
        scene.world.turn();
        let all = streams.all();
        assert!(
            all.last().unwrap().starts_with("ShutdownComplete"),
            "{round}: {all:?}"
        );
        assert!(
            all.contains(&"SendComplete { context: 1, canceled: true }".to_owned()),
            "{all:?}"
        );
        assert_eq!(stream.send("y".into(), 0, false), Err(CallError::Closed));
        if round % 50 == 49 {
            scene.settle();
        }
        assert_eq!(streams.count("ShutdownComplete"), 1);
    }
    scene.settle();
    // More than the hundred that may be open: the peer has heard of each end.
    assert_eq!(log.count("PeerSendAborted { code: 9 }"), 300);
    let (stream, streams) = open(&connection, Direction::Bidirectional, EventStatus::Done);
    stream
        .send_with("x".into(), 1, SendFlags::START | SendFlags::FIN)
        .unwrap();
    scene.settle();
    assert!(streams.has("SendShutdownComplete { graceful: true }"));
}

thread_local! {
    static DEPTH: Cell<usize> = const { Cell::new(0) };
}

#[test]
fn inline_shutdown_runs_the_other_streams_handler_within_the_callers_and_nothing_else_does() {
    let depths: Arc<Mutex<Vec<(usize, String)>>> = Arc::default();
    let handler = |other: Option<Stream>| {
        let depths = Arc::clone(&depths);
        let mut other = other;
        move |stream: &Stream, event: StreamEvent<'_>| {
            DEPTH.set(DEPTH.get() + 1);
            depths.lock().unwrap().push((DEPTH.get(), format!("{event:?}")));
            if let StreamEvent::Receive(_) = event
                && let Some(other) = other.take()
            {
                other
                    .shutdown_inline(StreamShutdown::AbortImmediately(4))
                    .unwrap();
                // It is over when the call returns, and its calls know.
                assert_eq!(other.send("x".into(), 0, false), Err(CallError::Closed));
                assert!(
                    depths
                        .lock()
                        .unwrap()
                        .last()
                        .unwrap()
                        .1
                        .starts_with("ShutdownComplete")
                );
                // The handler of this very stream is running: its events come later.
                stream
                    .shutdown_inline(StreamShutdown::AbortImmediately(5))
                    .unwrap();
                assert!(depths.lock().unwrap().last().unwrap().0 == 2);
            }
            DEPTH.set(DEPTH.get() - 1);
            EventStatus::Done
        }
    };
    let mut scene = Scene::new(settings(), Settings::default(), echo);
    let (connection, _) = scene.connect();
    scene.settle();
    let inner = Stream::open(&connection, Direction::Bidirectional, handler(None)).unwrap();
    inner.send_with("inner".into(), 1, SendFlags::START).unwrap();
    scene.settle();
    // Not acknowledged when the other stream hears its echo.
    let outer = Stream::open(
        &connection,
        Direction::Bidirectional,
        handler(Some(inner.clone())),
    )
    .unwrap();
    outer.send_with("outer".into(), 2, SendFlags::START).unwrap();
    assert!(matches!(
        outer.shutdown_inline(StreamShutdown::Graceful),
        Err(CallError::InvalidState(_))
    ));
    scene.settle();
    let depths = depths.lock().unwrap();
    let nested: Vec<_> = depths
        .iter()
        .filter(|(depth, _)| *depth == 2)
        .map(|(_, event)| event.as_str())
        .collect();
    assert_eq!(nested.len(), 2, "{depths:?}");
    assert!(nested[0].starts_with("SendShutdownComplete") && nested[1].starts_with("ShutdownComplete"));
    let ends = depths
        .iter()
        .filter(|(_, event)| event.starts_with("ShutdownComplete"));
    assert_eq!(ends.count(), 2, "{depths:?}");
    assert!(depths.iter().all(|(depth, _)| *depth <= 2));
}

#[test]
fn chain_of_inline_shutdowns_ends_however_long_it_is() {
    let ended = Log::default();
    let mut scene = Scene::new(settings(), Settings::default(), echo);
    let (connection, _) = scene.connect();
    scene.settle();
    let mut next: Option<Stream> = None;
    for _ in 0..90 {
        let (log, mut other) = (ended.clone(), next.take());
        let handler = move |_: &Stream, event: StreamEvent<'_>| {
            if let StreamEvent::ShutdownComplete { .. } = event {
                log.note("end".to_owned());
                if let Some(other) = other.take() {
                    let _ = other.shutdown_inline(StreamShutdown::AbortImmediately(1));
                }
            }
            EventStatus::Done
        };
        let stream = Stream::open(&connection, Direction::Bidirectional, handler).unwrap();
        stream.start(false).unwrap();
        next = Some(stream);
    }
    scene.settle();
    next.unwrap()
        .shutdown(StreamShutdown::AbortImmediately(1))
        .unwrap();
    scene.settle();
    assert_eq!(ended.count("end"), 90);
}

#[test]
fn stream_that_ends_inline_hears_before_of_a_send_that_failed_after_its_caller_was_told_ok() {
    let theirs: Arc<Mutex<Vec<Stream>>> = Arc::default();
    let taken = Arc::clone(&theirs);
    let serve = move |_: &Connection, event: ConnectionEvent<'_>| {
        if let ConnectionEvent::PeerStreamStarted(incoming) = event {
            let stream = incoming.accept(listening(&Log::default(), EventStatus::Done));
            taken.lock().unwrap().push(stream.clone());
        }
        EventStatus::Done
    };
    let mut scene = Scene::new(settings(), Settings::default(), serve);
    let (connection, _) = scene.connect();
    let (ended, log) = open(&connection, Direction::Bidirectional, EventStatus::Done);
    let inner = ended.clone();
    let handler = move |_: &Stream, event: StreamEvent<'_>| {
        if let StreamEvent::SendComplete { context: 2, canceled } = event {
            assert!(canceled);
            inner
                .shutdown_inline(StreamShutdown::AbortImmediately(4))
                .unwrap();
        }
        EventStatus::Done
    };
    let ending = Stream::open(&connection, Direction::Bidirectional, handler).unwrap();
    for stream in [&ended, &ending] {
        stream.send_with("x".into(), 0, SendFlags::START).unwrap();
    }
    scene.settle();
    for stream in theirs.lock().unwrap().iter() {
        stream.shutdown(StreamShutdown::AbortReceive(9)).unwrap();
    }
    scene.world.turn();
    // The peer's word and these calls reach the worker in the same turn, and the calls run at once.
    scene.world.now += DELAY;
    ended.send("y".into(), 1, false).unwrap();
    ending.send_with("z".into(), 2, SendFlags::PRIORITY_WORK).unwrap();
    scene.settle();
    let all = log.all();
    let lost = "SendComplete { context: 1, canceled: true }";
    assert_eq!(log.count(lost), 1, "{all:?}");
    assert!(all.last().unwrap().starts_with("ShutdownComplete"), "{all:?}");
}

#[test]
fn received_data_says_where_the_stream_ends() {
    let (log, ends) = (Log::default(), Log::default());
    let mut scene = Scene::new(settings(), Settings::default(), noting(&log));
    let (connection, _) = scene.connect();
    let stream = Stream::open(
        &connection,
        Direction::Unidirectional,
        listening(&ends, EventStatus::Done),
    )
    .unwrap();
    stream.send_with("x".into(), 0, SendFlags::START).unwrap();
    scene.settle();
    stream.send("".into(), 0, true).unwrap();
    scene.settle();
    assert!(
        log.has("Receive x fin false") && log.has("Receive  fin true"),
        "{:?}",
        log.all()
    );
}
