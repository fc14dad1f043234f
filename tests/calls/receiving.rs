//! Buffers of the application, several deliveries at a time, and credit for streams.

use std::sync::{Arc, Mutex};

use ringway::bytes::BytesMut;
use ringway::{
    CallError, Connection, ConnectionEvent, Direction, EventStatus, OpenFlags, SendFlags, Settings, Stream,
    StreamEvent, StreamShutdown,
};
use ringway_tests::order::ordered;
use ringway_tests::{pattern, settings};

use crate::scene::{Log, Scene, echo, listening, open};

type Filled = Arc<Mutex<Vec<(u64, BytesMut, bool)>>>;

/// Notes what comes in buffers, and gives another one when it is asked, as long as there are some.
fn filling(
    filled: &Filled,
    log: &Log,
    mut more: Vec<usize>,
) -> impl FnMut(&Stream, StreamEvent<'_>) -> EventStatus + use<> {
    let (filled, log) = (Arc::clone(filled), log.clone());
    move |stream: &Stream, event: StreamEvent<'_>| {
        match event {
            StreamEvent::ReceiveBufferFilled { offset, data, fin } => {
                filled.lock().unwrap().push((offset, std::mem::take(data), fin));
            }
            StreamEvent::ReceiveBufferNeeded(bytes) => {
                log.note(format!("needed {bytes}"));
                if let Some(len) = more.pop() {
                    stream
                        .provide_receive_buffers(vec![BytesMut::with_capacity(len)])
                        .unwrap();
                }
            }
            event => log.note(format!("{event:?}")),
        }
        EventStatus::Done
    }
}

/// What came, with the end last, and without a gap.
fn content(filled: &Filled) -> Vec<u8> {
    let mut content = Vec::new();
    for (offset, data, fin) in filled.lock().unwrap().iter() {
        assert_eq!(*offset, content.len() as u64);
        content.extend_from_slice(data);
        assert_eq!(*fin, content.len() == 200_000);
    }
    content
}

#[test]
fn data_of_a_stream_of_the_peer_goes_into_the_buffers_that_it_was_accepted_with() {
    let (filled, log) = (Filled::default(), Log::default());
    let addresses = Arc::new(Mutex::new(Vec::new()));
    let (seen, noted, given) = (Arc::clone(&filled), log.clone(), Arc::clone(&addresses));
    let serve = move |_: &Connection, event: ConnectionEvent<'_>| {
        if let ConnectionEvent::PeerStreamStarted(incoming) = event {
            let stream = incoming.accept(ordered(filling(&seen, &noted, vec![])));
            let buffers: Vec<_> = [50_000, 7, 149_993].map(BytesMut::with_capacity).into();
            given
                .lock()
                .unwrap()
                .extend(buffers.iter().map(|buffer| buffer.as_ptr().addr()));
            stream.provide_receive_buffers(buffers).unwrap();
        }
        EventStatus::Done
    };
    let mut scene = Scene::new(settings(), Settings::default(), serve);
    let (connection, _) = scene.connect();
    let (stream, _) = open(&connection, Direction::Unidirectional, EventStatus::Done);
    stream.start(false).unwrap();
    stream.send(pattern(0, 200_000).into(), 0, true).unwrap();
    scene.settle();
    scene.settle();
    assert!(content(&filled) == pattern(0, 200_000));
    assert!(
        !log.has("needed") && !log.has("Receive") && log.has("PeerSendShutdown"),
        "{:?}",
        log.all()
    );
    // It lies where the application wanted it.
    let filled = filled.lock().unwrap();
    assert_eq!(filled[0].1.as_ptr().addr(), addresses.lock().unwrap()[0]);
    let begins = |at: usize| filled.iter().any(|(_, data, _)| data.as_ptr().addr() == at);
    assert!(addresses.lock().unwrap().iter().all(|&at| begins(at)));
}

#[test]
fn stream_without_room_asks_for_it_and_waits_until_there_is_some() {
    let (filled, log) = (Filled::default(), Log::default());
    let mut scene = Scene::new(settings(), Settings::default(), echo);
    let (connection, _) = scene.connect();
    // One when it is asked, and then none.
    let handler = ordered(filling(&filled, &log, vec![60_000]));
    let flags = OpenFlags::APP_OWNED_BUFFERS;
    let stream = Stream::open_with(&connection, Direction::Bidirectional, flags, handler).unwrap();
    stream.start(false).unwrap();
    stream.send(pattern(0, 200_000).into(), 0, true).unwrap();
    scene.settle();
    scene.settle();
    assert_eq!(log.count("needed"), 2, "{:?}", log.all());
    assert!(content(&filled) == pattern(0, 60_000));
    stream
        .provide_receive_buffers(vec![BytesMut::new(), BytesMut::with_capacity(140_000)])
        .unwrap();
    scene.settle();
    scene.settle();
    assert!(content(&filled) == pattern(0, 200_000));
    assert_eq!(log.count("ShutdownComplete"), 1, "{:?}", log.all());
    assert_eq!(stream.provide_receive_buffers(vec![]), Err(CallError::Closed));
}

#[test]
fn nothing_more_comes_into_buffers_once_the_handler_has_had_enough() {
    let log = Log::default();
    let noted = log.clone();
    let serve = move |_: &Connection, event: ConnectionEvent<'_>| {
        if let ConnectionEvent::PeerStreamStarted(incoming) = event {
            let noted = noted.clone();
            let stream = incoming.accept(ordered(move |stream: &Stream, event: StreamEvent<'_>| {
                noted.note(format!("{event:?}"));
                if let StreamEvent::ReceiveBufferFilled { .. } = event {
                    stream.shutdown(StreamShutdown::AbortReceive(5)).unwrap();
                }
                EventStatus::Done
            }));
            let buffers = (0..1000).map(|_| BytesMut::with_capacity(10)).collect();
            stream.provide_receive_buffers(buffers).unwrap();
        }
        EventStatus::Done
    };
    let mut scene = Scene::new(settings(), Settings::default(), serve);
    let (connection, _) = scene.connect();
    let (stream, ours) = open(&connection, Direction::Unidirectional, EventStatus::Done);
    stream
        .send_with(pattern(0, 900).into(), 0, SendFlags::START)
        .unwrap();
    scene.settle();
    assert_eq!(log.count("ReceiveBufferFilled"), 1, "{:?}", log.all());
    assert!(ours.has("PeerReceiveAborted { code: 5 }"), "{:?}", ours.all());
}

fn multi(window: u32) -> Settings {
    Settings {
        stream_multi_receive_enabled: true,
        stream_receive_window: window,
        ..settings()
    }
}

#[test]
fn deliveries_go_on_while_others_are_pending_and_credit_follows_their_completion() {
    let log = Log::default();
    let held: Arc<Mutex<Option<Stream>>> = Arc::default();
    let (noted, hold) = (log.clone(), Arc::clone(&held));
    let received = Arc::new(Mutex::new(0));
    let count = Arc::clone(&received);
    let serve = move |_: &Connection, event: ConnectionEvent<'_>| {
        if let ConnectionEvent::PeerStreamStarted(incoming) = event {
            let (noted, count) = (noted.clone(), Arc::clone(&count));
            let stream = incoming.accept(ordered(move |_: &Stream, event: StreamEvent<'_>| {
                match event {
                    StreamEvent::Receive(data) => {
                        let mut received = count.lock().unwrap();
                        assert!(data.to_vec() == pattern(*received, data.len()));
                        *received += data.len() as u64;
                        noted.note("receive".to_owned());
                        return EventStatus::Pending;
                    }
                    event => noted.note(format!("{event:?}")),
                }
                EventStatus::Done
            }));
            *hold.lock().unwrap() = Some(stream.clone());
        }
        EventStatus::Done
    };
    let mut scene = Scene::new(multi(16_384), Settings::default(), serve);
    let (connection, _) = scene.connect();
    let (stream, ours) = open(&connection, Direction::Unidirectional, EventStatus::Done);
    stream.start(false).unwrap();
    stream.send(pattern(0, 40_000).into(), 0, true).unwrap();
    scene.settle();
    // As much as the window allows, in several deliveries none of which is complete.
    assert_eq!(*received.lock().unwrap(), 16_384);
    assert!(log.count("receive") > 3, "{:?}", log.all());
    let theirs = held.lock().unwrap().clone().unwrap();
    assert!(matches!(
        theirs.receive_complete(16_385),
        Err(CallError::InvalidState(_))
    ));
    // Of any deliveries, in any number of calls.
    theirs.receive_complete(10_000).unwrap();
    theirs.receive_complete(6_384).unwrap();
    scene.settle();
    let mut completed = 16_384;
    while completed < 39_999 {
        // The window grows, as it is used up fast.
        let there = *received.lock().unwrap();
        assert!(there > completed);
        let count = (there.min(39_999) - completed) as usize;
        let too_much = theirs.receive_complete((there - completed) as usize + 1);
        assert!(matches!(too_much, Err(CallError::InvalidState(_))));
        theirs.receive_complete(count).unwrap();
        completed += count as u64;
        scene.settle();
        assert!(!log.has("PeerSendShutdown"), "{:?}", log.all());
    }
    assert_eq!(*received.lock().unwrap(), 40_000);
    theirs.receive_complete(1).unwrap();
    scene.settle();
    assert!(log.has("PeerSendShutdown"), "{:?}", log.all());
    assert!(
        ours.has("SendShutdownComplete { graceful: true }"),
        "{:?}",
        ours.all()
    );
}

/// What nobody will complete any more is credit for the other streams.
#[test]
fn credit_of_the_connection_comes_back_with_a_stream_that_is_aborted_while_deliveries_are_pending() {
    for by_peer in [false, true] {
        let held: Arc<Mutex<Vec<Stream>>> = Arc::default();
        let hold = Arc::clone(&held);
        let received = Arc::new(Mutex::new(0));
        let count = Arc::clone(&received);
        let serve = move |_: &Connection, event: ConnectionEvent<'_>| {
            if let ConnectionEvent::PeerStreamStarted(incoming) = event {
                let count = Arc::clone(&count);
                let stream = incoming.accept(ordered(move |_: &Stream, event: StreamEvent<'_>| {
                    if let StreamEvent::Receive(data) = event {
                        *count.lock().unwrap() += data.len();
                        return EventStatus::Pending;
                    }
                    EventStatus::Done
                }));
                hold.lock().unwrap().push(stream.clone());
            }
            EventStatus::Done
        };
        let server = Settings {
            connection_flow_control_window: 32_768,
            ..multi(32_768)
        };
        let mut scene = Scene::new(server, Settings::default(), serve);
        let (connection, _) = scene.connect();
        for round in 1..6 {
            let (stream, _) = open(&connection, Direction::Unidirectional, EventStatus::Done);
            stream.start(false).unwrap();
            stream.send(pattern(0, 40_000).into(), 0, false).unwrap();
            scene.settle();
            assert_eq!(
                *received.lock().unwrap(),
                32_768 * round,
                "by the peer: {by_peer}"
            );
            if by_peer {
                stream.shutdown(StreamShutdown::AbortSend(1)).unwrap();
            } else {
                let theirs = held.lock().unwrap().pop().unwrap();
                theirs.shutdown(StreamShutdown::AbortReceive(1)).unwrap();
            }
            scene.settle();
        }
    }
}

#[test]
fn peer_may_open_another_stream_when_the_application_has_let_go_of_one_whose_credit_it_holds() {
    for delay in [false, true] {
        let held: Arc<Mutex<Vec<Stream>>> = Arc::default();
        let hold = Arc::clone(&held);
        let serve = move |_: &Connection, event: ConnectionEvent<'_>| {
            if let ConnectionEvent::PeerStreamStarted(incoming) = event {
                if delay {
                    incoming.delay_stream_credit();
                }
                let log = Log::default();
                let stream = incoming.accept(listening(&log, EventStatus::Done));
                hold.lock().unwrap().push(stream.clone());
            }
            EventStatus::Done
        };
        let server = Settings {
            peer_uni_stream_count: 3,
            ..settings()
        };
        let mut scene = Scene::new(server, Settings::default(), serve);
        let (connection, _) = scene.connect();
        let logs: Vec<_> = (0..5)
            .map(|_| {
                let (stream, log) = open(&connection, Direction::Unidirectional, EventStatus::Done);
                stream
                    .send_with("x".into(), 0, SendFlags::START | SendFlags::FIN)
                    .unwrap();
                log
            })
            .collect();
        scene.settle();
        let ended = || logs.iter().filter(|log| log.has("ShutdownComplete")).count();
        assert_eq!(ended(), if delay { 3 } else { 5 });
        held.lock().unwrap().clear();
        scene.settle();
        assert_eq!(ended(), 5);
    }
}
