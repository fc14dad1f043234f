//! How streams end, which go first, and when they receive.

use std::time::Duration;

use ringway::{
    Connection, ConnectionEvent, Direction, EventStatus, SendFlags, Settings, Stream, StreamEvent,
    StreamShutdown,
};
use ringway_tests::order::ordered;
use ringway_tests::settings;

use crate::scene::{Log, Scene, listening, open};

/// A server that notes what streams hear, and sends a byte on each, so that there is something to refuse.
fn noting(
    log: &Log,
) -> impl Fn(&Connection, ConnectionEvent<'_>) -> EventStatus + Clone + Send + Sync + 'static {
    let log = log.clone();
    move |_: &Connection, event: ConnectionEvent<'_>| {
        if let ConnectionEvent::PeerStreamStarted(incoming) = event {
            let stream = incoming.accept(listening(&log, EventStatus::Done));
            stream.send("y".into(), 0, false).unwrap();
        }
        EventStatus::Done
    }
}

#[test]
fn each_way_of_ending_a_stream_is_told_on_both_sides_with_its_code() {
    // Whether the peer hears of the end, of an abort and that nobody reads, and whether our side has ended gracefully.
    let cases = [
        (StreamShutdown::Graceful, true, None, None, Some(true)),
        (StreamShutdown::AbortSend(5), false, Some(5), None, Some(false)),
        (StreamShutdown::AbortReceive(6), false, None, Some(6), None),
        (StreamShutdown::Abort(7), false, Some(7), Some(7), Some(false)),
    ];
    for (how, end, send_aborted, receive_aborted, graceful) in cases {
        let theirs = Log::default();
        let mut scene = Scene::new(settings(), Settings::default(), noting(&theirs));
        let (connection, _) = scene.connect();
        let (stream, ours) = open(&connection, Direction::Bidirectional, EventStatus::Done);
        stream.send_with("x".into(), 0, SendFlags::START).unwrap();
        scene.settle();
        stream.shutdown(how).unwrap();
        scene.settle();
        let heard = theirs.all();
        assert_eq!(theirs.has("PeerSendShutdown"), end, "{how:?}: {heard:?}");
        let told = |event: &str| {
            let beginning = format!("{event} {{ code: ");
            heard
                .iter()
                .find_map(|event| event.strip_prefix(&beginning)?.strip_suffix(" }")?.parse().ok())
        };
        assert_eq!(told("PeerSendAborted"), send_aborted, "{how:?}: {heard:?}");
        assert_eq!(told("PeerReceiveAborted"), receive_aborted, "{how:?}: {heard:?}");
        for value in [true, false] {
            assert_eq!(
                ours.has(&format!("SendShutdownComplete {{ graceful: {value} }}")),
                graceful == Some(value),
                "{how:?}: {:?}",
                ours.all()
            );
        }
    }
}

#[test]
fn stream_that_is_not_to_receive_hears_of_no_data_until_it_is() {
    let theirs = Log::default();
    let mut scene = Scene::new(settings(), Settings::default(), noting(&theirs));
    let (connection, _) = scene.connect();
    let (stream, ours) = open(&connection, Direction::Bidirectional, EventStatus::Done);
    stream.set_receive_enabled(false).unwrap();
    stream.send_with("x".into(), 0, SendFlags::START).unwrap();
    scene.settle();
    assert!(theirs.has("Receive"));
    assert!(!ours.has("Receive"), "{:?}", ours.all());
    stream.set_receive_enabled(true).unwrap();
    scene.settle();
    assert_eq!(ours.count("Receive"), 1, "{:?}", ours.all());
}

#[test]
fn stream_with_a_higher_priority_goes_before_one_that_has_sent_earlier() {
    for raised in [true, false] {
        let ends = Log::default();
        let notes = ends.clone();
        let serve = move |_: &Connection, event: ConnectionEvent<'_>| {
            if let ConnectionEvent::PeerStreamStarted(incoming) = event {
                let notes = notes.clone();
                incoming.accept(ordered(move |stream: &Stream, event: StreamEvent<'_>| {
                    if let StreamEvent::Receive(data) = event
                        && data.fin()
                    {
                        notes.note(stream.id().unwrap().to_string());
                    }
                    EventStatus::Done
                }));
            }
            EventStatus::Done
        };
        let mut scene = Scene::new(settings(), Settings::default(), serve);
        let (connection, _) = scene.connect();
        scene.settle();
        let [first, second] =
            [(); 2].map(|()| open(&connection, Direction::Unidirectional, EventStatus::Done).0);
        if raised {
            second.set_priority(first.priority() + 1).unwrap();
        }
        for stream in [&first, &second] {
            let flags = SendFlags::START | SendFlags::FIN;
            stream.send_with(vec![0; 100_000].into(), 0, flags).unwrap();
        }
        scene.world.run_for(Duration::from_secs(5));
        let expected = if raised { ["6", "2"] } else { ["2", "6"] };
        assert_eq!(ends.all(), expected);
    }
}
