//! What a call from another thread answers: all that can be known at once.

use std::sync::{Arc, Mutex};

use ringway::{
    CallError, Connection, ConnectionEvent, Direction, EventStatus, ResumptionAnswer, Settings, Stream,
    StreamShutdown,
};
use ringway_tests::settings;

use crate::scene::{Log, Scene, echo, listening, open};

fn is_invalid(answer: Result<(), CallError>) -> bool {
    matches!(answer, Err(CallError::InvalidState(_)))
}

#[test]
fn second_start_is_refused() {
    let mut scene = Scene::new(settings(), Settings::default(), echo);
    let (connection, _) = scene.connect();
    let (stream, log) = open(&connection, Direction::Bidirectional, EventStatus::Done);
    stream.start(false).unwrap();
    assert!(is_invalid(stream.start(false)));
    scene.settle();
    assert!(is_invalid(stream.start(false)));
    assert_eq!(log.count("StartComplete(Ok"), 1);
}

#[test]
fn send_after_the_end_is_refused_whatever_ended_it() {
    let mut scene = Scene::new(settings(), Settings::default(), echo);
    let (connection, _) = scene.connect();
    let ends: [&dyn Fn(&Stream); 3] = [
        &|stream| stream.send("last".into(), 1, true).unwrap(),
        &|stream| stream.shutdown(StreamShutdown::Graceful).unwrap(),
        &|stream| stream.shutdown(StreamShutdown::AbortSend(1)).unwrap(),
    ];
    for end in ends {
        let (stream, log) = open(&connection, Direction::Bidirectional, EventStatus::Done);
        stream.start(false).unwrap();
        stream.send("first".into(), 0, false).unwrap();
        scene.settle();
        end(&stream);
        assert!(is_invalid(stream.send("more".into(), 2, false)));
        assert!(is_invalid(stream.send("more".into(), 3, true)));
        assert!(is_invalid(stream.shutdown(StreamShutdown::Graceful)));
        scene.settle();
        assert!(
            !log.all()
                .iter()
                .any(|event| event.contains("context: 2") || event.contains("context: 3"))
        );
        let _ = stream.shutdown(StreamShutdown::Abort(0));
    }
}

#[test]
fn send_after_the_peer_wants_no_more_is_refused() {
    let mut scene = Scene::new(
        settings(),
        Settings::default(),
        |_: &Connection, event: ConnectionEvent<'_>| {
            if let ConnectionEvent::PeerStreamStarted(incoming) = event {
                let stream = incoming.accept(listening(&Log::default(), EventStatus::Done));
                stream.shutdown(StreamShutdown::AbortReceive(9)).unwrap();
            }
            EventStatus::Done
        },
    );
    let (connection, _) = scene.connect();
    let (stream, log) = open(&connection, Direction::Bidirectional, EventStatus::Done);
    stream.start(false).unwrap();
    stream.send("x".into(), 0, false).unwrap();
    scene.settle();
    assert!(log.has("PeerReceiveAborted { code: 9 }"));
    assert!(is_invalid(stream.send("y".into(), 1, false)));
}

#[test]
fn completion_of_a_receive_that_nobody_waits_for_is_refused() {
    let mut scene = Scene::new(settings(), Settings::default(), echo);
    let (connection, _) = scene.connect();
    let (stream, log) = open(&connection, Direction::Bidirectional, EventStatus::Pending);
    stream.start(false).unwrap();
    assert!(is_invalid(stream.receive_complete(0)));
    stream.send("four".into(), 0, false).unwrap();
    scene.settle();
    assert_eq!(log.count("Receive"), 1);
    assert!(is_invalid(stream.receive_complete(5)), "there were four bytes");
    stream.receive_complete(4).unwrap();
    assert!(is_invalid(stream.receive_complete(0)), "it is complete");
    stream.send("more".into(), 0, true).unwrap();
    scene.settle();
    assert_eq!(log.count("Receive"), 2);
    stream.receive_complete(4).unwrap();
    scene.settle();
    assert!(log.has("ShutdownComplete"));
    assert_eq!(stream.receive_complete(0), Err(CallError::Closed));
}

#[test]
fn completion_after_the_peer_has_aborted_is_refused() {
    let mut scene = Scene::new(
        settings(),
        Settings::default(),
        |_: &Connection, event: ConnectionEvent<'_>| {
            if let ConnectionEvent::PeerStreamStarted(incoming) = event {
                let stream = incoming
                    .accept(listening(&Log::default(), EventStatus::Done))
                    .clone();
                stream.send("data".into(), 0, false).unwrap();
            }
            EventStatus::Done
        },
    );
    let (connection, _) = scene.connect();
    let (stream, log) = open(&connection, Direction::Bidirectional, EventStatus::Pending);
    stream.start(false).unwrap();
    stream.send("x".into(), 0, false).unwrap();
    scene.settle();
    assert_eq!(log.count("Receive"), 1);
    stream.shutdown(StreamShutdown::AbortReceive(1)).unwrap();
    assert!(is_invalid(stream.receive_complete(4)));
}

#[test]
fn calls_for_a_side_that_a_stream_does_not_have_are_refused() {
    let theirs = Arc::new(Mutex::new(None));
    let taken = Arc::clone(&theirs);
    let serve = move |_: &Connection, event: ConnectionEvent<'_>| {
        if let ConnectionEvent::PeerStreamStarted(incoming) = event {
            let stream = incoming.accept(listening(&Log::default(), EventStatus::Done));
            *taken.lock().unwrap() = Some(stream.clone());
        }
        EventStatus::Done
    };
    let mut scene = Scene::new(settings(), Settings::default(), serve);
    let (connection, _) = scene.connect();
    let (ours, _) = open(&connection, Direction::Unidirectional, EventStatus::Done);
    ours.start(false).unwrap();
    ours.send("x".into(), 0, false).unwrap();
    assert!(is_invalid(ours.receive_complete(0)));
    assert!(is_invalid(ours.set_receive_enabled(false)));
    assert!(is_invalid(ours.shutdown(StreamShutdown::AbortReceive(1))));
    scene.settle();
    let theirs = theirs.lock().unwrap().take().unwrap();
    assert!(is_invalid(theirs.start(false)));
    assert!(is_invalid(theirs.send("x".into(), 0, false)));
    assert!(is_invalid(theirs.shutdown(StreamShutdown::Graceful)));
    assert!(is_invalid(theirs.shutdown(StreamShutdown::AbortSend(1))));
    theirs.set_receive_enabled(true).unwrap();
    theirs.shutdown(StreamShutdown::Abort(1)).unwrap();
}

#[test]
fn answers_that_nobody_asked_for_are_refused() {
    let mut scene = Scene::new(settings(), Settings::default(), echo);
    let (connection, log) = scene.connect();
    assert!(is_invalid(connection.certificate_valid(true)));
    let answer = connection.resumption_ticket_validation_complete(ResumptionAnswer::Accept);
    assert!(is_invalid(answer));
    assert!(
        is_invalid(connection.send_resumption_ticket(b"")),
        "a client gives no tickets"
    );
    scene.settle();
    assert!(log.has("Connected"));
    assert!(is_invalid(connection.certificate_valid(true)));
}
