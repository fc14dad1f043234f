//! Streams that are read as their data arrives.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use ringway::sim::Link;
use ringway::{
    CallError, Connection, ConnectionEvent, Direction, EventStatus, OpenFlags, ReceivedData, SendFlags,
    Settings, Stream, StreamEvent,
};
use ringway_tests::order::ordered;
use ringway_tests::{pattern, settings};

use crate::scene::{DELAY, Log, Scene, echo, listening, open};

const LEN: usize = 600_000;

/// What has come: how often each byte, and how much out of order.
#[derive(Default)]
struct Seen {
    times: Vec<u8>,
    next: u64,
    out_of_order: usize,
}

impl Seen {
    fn note(&mut self, data: &ReceivedData<'_>) {
        self.times.resize(LEN, 0);
        assert!(data.to_vec() == pattern(data.offset(), data.len()));
        let from = data.offset() as usize;
        for times in &mut self.times[from..from + data.len()] {
            *times += 1;
        }
        self.out_of_order += usize::from(data.offset() != self.next);
        self.next = data.offset() + data.len() as u64;
        assert!(!data.fin() || self.next == LEN as u64);
    }

    fn is_whole(&self) -> bool {
        self.times.len() == LEN && self.times.iter().all(|&times| times == 1)
    }
}

type Shared = Arc<Mutex<Seen>>;

fn reading(
    seen: &Shared,
    log: &Log,
    status: EventStatus,
) -> impl FnMut(&Stream, StreamEvent<'_>) -> EventStatus + Send + use<> {
    let (seen, log) = (Arc::clone(seen), log.clone());
    move |_: &Stream, event: StreamEvent<'_>| match event {
        StreamEvent::Receive(data) => {
            seen.lock().unwrap().note(&data);
            status
        }
        event => {
            log.note(format!("{event:?}"));
            EventStatus::Done
        }
    }
}

/// A server that reads its streams so, and holds the last of them.
fn serving(
    seen: &Shared,
    log: &Log,
    held: &Arc<Mutex<Option<Stream>>>,
    status: EventStatus,
) -> impl Fn(&Connection, ConnectionEvent<'_>) -> EventStatus + Clone + Send + Sync + 'static {
    let (seen, log, held) = (Arc::clone(seen), log.clone(), Arc::clone(held));
    move |_: &Connection, event: ConnectionEvent<'_>| {
        if let ConnectionEvent::PeerStreamStarted(incoming) = event {
            incoming.read_unordered().unwrap();
            let stream = incoming.accept(ordered(reading(&seen, &log, status)));
            *held.lock().unwrap() = Some(stream.clone());
        }
        EventStatus::Done
    }
}

#[test]
fn each_byte_comes_once_over_a_network_that_loses_repeats_and_reorders() {
    for percent in 1..6 {
        let (seen, log) = (Shared::default(), Log::default());
        let serve = serving(&seen, &log, &Arc::default(), EventStatus::Done);
        let mut scene = Scene::new(settings(), Settings::default(), serve);
        let (connection, _) = scene.connect();
        scene.settle();
        scene.world.network.set_default_link(Link {
            delay: DELAY,
            jitter: DELAY,
            loss: f64::from(percent) / 100.0,
            duplication: 0.05,
            ..Link::default()
        });
        let (stream, ours) = open(&connection, Direction::Unidirectional, EventStatus::Done);
        stream.start(false).unwrap();
        stream.send(pattern(0, LEN).into(), 0, true).unwrap();
        let done = scene
            .world
            .run_until(Duration::from_secs(120), |_| ours.has("ShutdownComplete"));
        scene.settle();
        let seen = seen.lock().unwrap();
        assert!(
            done && log.has("PeerSendShutdown"),
            "{percent} %: {:?}",
            log.all()
        );
        assert!(seen.is_whole() && seen.out_of_order > 10, "{percent} %");
        assert_eq!(log.count("ShutdownComplete"), 1);
    }
}

#[test]
fn lost_packet_holds_up_nothing_behind_it() {
    let (seen, log) = (Shared::default(), Log::default());
    let mut scene = Scene::new(settings(), Settings::default(), echo);
    let (connection, _) = scene.connect();
    scene.settle();
    let handler = ordered(reading(&seen, &log, EventStatus::Done));
    let flags = OpenFlags::UNORDERED;
    let stream = Stream::open_with(&connection, Direction::Bidirectional, flags, handler).unwrap();
    stream.start(false).unwrap();
    stream.send(pattern(0, LEN).into(), 0, true).unwrap();
    scene.world.network.set_default_link(Link {
        delay: DELAY,
        loss: 0.05,
        ..Link::default()
    });
    let mut most_behind = 0;
    let arrived = scene.world.run_until(Duration::from_secs(120), |_| {
        let seen = seen.lock().unwrap();
        let first = seen.times.iter().position(|&times| times == 0);
        let behind = seen.times[first.unwrap_or(seen.times.len())..].iter();
        most_behind = most_behind.max(behind.filter(|&&times| times > 0).count());
        log.has("ShutdownComplete")
    });
    assert!(arrived && seen.lock().unwrap().is_whole(), "{:?}", log.all());
    assert!(most_behind > 10_000, "{most_behind} bytes came before others");
}

#[test]
fn credit_for_what_is_pending_comes_with_its_completion() {
    let (seen, log, held) = (Shared::default(), Log::default(), Arc::default());
    let server = Settings {
        stream_receive_window: 32_768,
        ..settings()
    };
    let serve = serving(&seen, &log, &held, EventStatus::Pending);
    let mut scene = Scene::new(server, Settings::default(), serve);
    let (connection, _) = scene.connect();
    let (stream, _) = open(&connection, Direction::Unidirectional, EventStatus::Done);
    stream.start(false).unwrap();
    stream.send(pattern(0, LEN).into(), 0, true).unwrap();
    scene.settle();
    let come = || {
        seen.lock()
            .unwrap()
            .times
            .iter()
            .filter(|&&times| times > 0)
            .count()
    };
    assert_eq!(come(), 32_768);
    let theirs = held.lock().unwrap().take().unwrap();
    let mut completed = 0;
    while completed < LEN {
        assert!(!log.has("PeerSendShutdown"), "{completed}");
        let count = come() - completed;
        assert!(count > 0);
        theirs.receive_complete(count).unwrap();
        completed += count;
        scene.settle();
    }
    assert!(log.has("PeerSendShutdown") && seen.lock().unwrap().is_whole());
}

#[test]
fn end_that_comes_by_itself_is_told() {
    let (seen, log) = (Shared::default(), Log::default());
    let serve = serving(&seen, &log, &Arc::default(), EventStatus::Done);
    let mut scene = Scene::new(settings(), Settings::default(), serve);
    let (connection, _) = scene.connect();
    let (stream, _) = open(&connection, Direction::Unidirectional, EventStatus::Done);
    stream
        .send_with(pattern(0, LEN).into(), 0, SendFlags::START)
        .unwrap();
    scene.settle();
    scene.settle();
    assert!(seen.lock().unwrap().is_whole() && !log.has("PeerSendShutdown"));
    stream.send("".into(), 0, true).unwrap();
    scene.settle();
    assert_eq!(log.count("PeerSendShutdown"), 1, "{:?}", log.all());
}

#[test]
fn stream_is_read_as_its_data_arrives_or_into_buffers_but_not_both() {
    fn is_refused<T>(outcome: Result<T, CallError>) -> bool {
        matches!(outcome, Err(CallError::InvalidState(_)))
    }
    let log = Log::default();
    let heard = log.clone();
    let serve = move |_: &Connection, event: ConnectionEvent<'_>| {
        if let ConnectionEvent::PeerStreamStarted(incoming) = event {
            let buffers = || vec![ringway::bytes::BytesMut::with_capacity(100)];
            let refused = if incoming.direction() == Direction::Bidirectional {
                incoming.read_unordered().unwrap();
                is_refused(incoming.stream().provide_receive_buffers(buffers()))
            } else {
                incoming.stream().provide_receive_buffers(buffers()).unwrap();
                is_refused(incoming.read_unordered())
            };
            heard.note(format!("refused: {refused}"));
            incoming.accept(listening(&heard, EventStatus::Done));
        }
        EventStatus::Done
    };
    let mut scene = Scene::new(settings(), Settings::default(), serve);
    let (connection, _) = scene.connect();
    for direction in [Direction::Bidirectional, Direction::Unidirectional] {
        let (stream, _) = open(&connection, direction, EventStatus::Done);
        stream.send_with("x".into(), 0, SendFlags::START).unwrap();
        let flags = OpenFlags::UNORDERED | OpenFlags::APP_OWNED_BUFFERS;
        let handler = listening(&log, EventStatus::Done);
        assert!(is_refused(Stream::open_with(
            &connection,
            direction,
            flags,
            handler
        )));
    }
    let handler = listening(&log, EventStatus::Done);
    let flags = OpenFlags::UNORDERED;
    let stream = Stream::open_with(&connection, Direction::Bidirectional, flags, handler).unwrap();
    assert!(is_refused(stream.provide_receive_buffers(Vec::new())));
    scene.settle();
    assert_eq!(log.count("refused: true"), 2, "{:?}", log.all());
    assert_eq!(
        log.count("Receive(") + log.count("ReceiveBufferFilled"),
        2,
        "{:?}",
        log.all()
    );
}
