//! What connections tell of themselves, and how they end.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ringway::{
    CallError, ClosedBy, Connection, ConnectionEvent, Direction, ERROR_CODE_MAX, EventStatus,
    REASON_PHRASE_MAX, Settings, Version,
};
use ringway_tests::{ALPN, address, settings};

use crate::scene::{Log, Scene, echo, open};

/// Everything that a connection tells of itself at once.
fn facts(connection: &Connection) -> String {
    format!(
        "{} {} {:?} {:?} {:?} {} {:?} {}",
        connection.remote_address(),
        connection.local_address(),
        connection.alpn(),
        connection.server_name(),
        connection.cipher_suite(),
        connection.peer_certificates().len(),
        connection.close_reason(),
        connection.partition(),
    )
}

#[test]
fn connection_tells_the_same_in_handlers_and_on_other_threads() {
    let served: Arc<Mutex<Option<(Connection, String)>>> = Arc::default();
    let keeps = Arc::clone(&served);
    let mut scene = Scene::new(
        settings(),
        Settings::default(),
        move |connection: &Connection, event: ConnectionEvent<'_>| {
            if let ConnectionEvent::Connected { .. } = event {
                let stats = connection.stats().unwrap();
                assert!(stats.handshake_time.is_some());
                assert_eq!(connection.version(), Ok(Version::V1));
                *keeps.lock().unwrap() = Some((connection.clone(), facts(connection)));
            }
            EventStatus::Done
        },
    );
    let inside: Arc<Mutex<Option<String>>> = Arc::default();
    let tells = Arc::clone(&inside);
    let connection = scene.connect_with(move |connection: &Connection, event: ConnectionEvent<'_>| {
        if let ConnectionEvent::Connected { .. } = event {
            *tells.lock().unwrap() = Some(facts(connection));
        }
        EventStatus::Done
    });
    assert_eq!(connection.remote_address(), scene.remote);
    assert_eq!((connection.alpn(), connection.tls_info().is_none()), (None, true));
    scene.settle();
    assert_eq!(inside.lock().unwrap().take(), Some(facts(&connection)));
    let (theirs, told) = served.lock().unwrap().take().unwrap();
    assert_eq!(told, facts(&theirs));
    assert_eq!(connection.remote_address(), address("192.0.2.1:443"));
    assert_eq!(connection.local_address(), theirs.remote_address());
    assert_eq!(theirs.local_address(), connection.remote_address());
    for side in [&connection, &theirs] {
        assert_eq!(side.alpn().as_deref(), Some(ALPN));
        assert_eq!(side.server_name().as_deref(), Some("localhost"));
        assert!(side.cipher_suite().is_some());
    }
    assert_eq!(connection.peer_certificates().len(), 1);
    // Both sides have the same secret.
    let exported = [&connection, &theirs].map(|side| {
        let mut material = [0; 16];
        side.tls_info()
            .unwrap()
            .export_keying_material(b"test", b"", &mut material)
            .unwrap();
        material
    });
    assert!(exported[0] == exported[1] && exported[0] != [0; 16]);
}

#[test]
#[allow(
    clippy::mutable_key_type,
    reason = "what changes in a handle is not what it is compared by"
)]
fn connections_are_told_apart_by_identifiers() {
    let mut scene = Scene::new(settings(), Settings::default(), echo);
    let connections: Vec<_> = (0..10).map(|_| scene.connect().0).collect();
    scene.settle();
    let identifiers: HashSet<_> = connections.iter().map(Connection::correlation_id).collect();
    assert_eq!(identifiers.len(), 10);
    let handles: HashSet<Connection> = connections.iter().chain(&connections).cloned().collect();
    assert_eq!(handles.len(), 10);
    let one = &connections[0];
    assert_eq!(
        one.correlation_id().to_string(),
        one.correlation_id().as_u64().to_string()
    );
    assert!(format!("{one:?}").contains(&one.correlation_id().to_string()));
}

#[test]
fn stream_tells_its_priority() {
    let mut scene = Scene::new(settings(), Settings::default(), echo);
    let (connection, _) = scene.connect();
    let (stream, _) = open(&connection, Direction::Bidirectional, EventStatus::Done);
    assert_eq!(stream.priority(), 0x7fff);
    stream.set_priority(3).unwrap();
    assert_eq!(stream.priority(), 3);
    scene.settle();
    assert_eq!(stream.priority(), 3);
}

#[test]
fn other_thread_waits_for_counters_and_handlers_of_other_connections_may_not() {
    let served = Arc::new(Mutex::new(None));
    let keeps = Arc::clone(&served);
    let mut scene = Scene::new(
        settings(),
        Settings::default(),
        move |connection: &Connection, event: ConnectionEvent<'_>| {
            if let ConnectionEvent::Connected { .. } = event {
                *keeps.lock().unwrap() = connection.original_destination_cid().ok();
            }
            EventStatus::Done
        },
    );
    let (connection, _) = scene.connect();
    scene.settle();
    let other = connection.clone();
    let asking = std::thread::spawn(move || (other.stats(), other.original_destination_cid()));
    while !asking.is_finished() {
        scene.world.run_for(Duration::from_millis(1));
        std::thread::yield_now();
    }
    let (stats, cid) = asking.join().unwrap();
    assert!(stats.unwrap().sent_packets > 0);
    let cid = cid.unwrap();
    assert!(cid.as_bytes().len() >= 8);
    assert_eq!(
        served.lock().unwrap().take(),
        Some(cid),
        "it is the same on both sides"
    );
    let refused = Arc::new(Mutex::new(None));
    let answer = Arc::clone(&refused);
    let other = connection.clone();
    let _second = scene.connect_with(move |_: &Connection, event: ConnectionEvent<'_>| {
        if let ConnectionEvent::Connected { .. } = event {
            *answer.lock().unwrap() = other.stats().err();
        }
        EventStatus::Done
    });
    scene.settle();
    assert_eq!(*refused.lock().unwrap(), Some(CallError::WouldWait));
    connection.shutdown(0).unwrap();
    scene.settle();
    assert_eq!(connection.stats(), Err(CallError::Closed));
}

#[test]
fn both_sides_know_who_has_ended_the_connection_with_which_code_and_words() {
    let log = Log::default();
    let served: Arc<Mutex<Option<Connection>>> = Arc::default();
    let (heard, keeps) = (log.clone(), Arc::clone(&served));
    let mut scene = Scene::new(
        settings(),
        Settings::default(),
        move |connection: &Connection, event: ConnectionEvent<'_>| {
            if let ConnectionEvent::ShutdownComplete { reason, .. } = event {
                assert_eq!(
                    (reason.closed_by(), reason.code()),
                    (ClosedBy::PeerApplication, Some(7))
                );
            }
            heard.note(format!("{event:?}"));
            *keeps.lock().unwrap() = Some(connection.clone());
            echo(connection, event)
        },
    );
    let ours = Log::default();
    let ends = ours.clone();
    let connection = scene.connect_with(move |_: &Connection, event: ConnectionEvent<'_>| {
        if let ConnectionEvent::ShutdownComplete { reason, .. } = event {
            ends.note(format!(
                "{:?} {:?} {}",
                reason.closed_by(),
                reason.code(),
                reason.reason_phrase()
            ));
        }
        EventStatus::Done
    });
    let (stream, streams) = open(&connection, Direction::Bidirectional, EventStatus::Done);
    stream.start(false).unwrap();
    stream.send("x".into(), 0, false).unwrap();
    scene.settle();
    assert_eq!(connection.close_reason(), None);
    let long = "x".repeat(REASON_PHRASE_MAX + 1);
    assert_eq!(
        connection.shutdown_with(7, &long),
        Err(CallError::ReasonPhrase { len: 513 })
    );
    let code = ERROR_CODE_MAX + 1;
    assert_eq!(
        connection.shutdown_with(code, ""),
        Err(CallError::ErrorCode { code })
    );
    connection.shutdown_with(7, "tschüß").unwrap();
    scene.settle();
    assert_eq!(ours.all(), ["Application Some(7) tschüß"]);
    assert!(
        log.has("ShutdownByPeer { code: 7, reason_phrase: \"tschüß\" }"),
        "{:?}",
        log.all()
    );
    let last = streams.all().pop().unwrap();
    assert!(
        last.contains("connection_shutdown: true") && last.contains("LocalApplication { code: 7"),
        "{last}"
    );
    assert_eq!(
        connection.close_reason().unwrap().closed_by(),
        ClosedBy::Application
    );
    let theirs = served.lock().unwrap().take().unwrap();
    let reason = theirs.close_reason().unwrap();
    assert_eq!(
        (reason.closed_by(), reason.code()),
        (ClosedBy::PeerApplication, Some(7))
    );
    assert_eq!(reason.reason_phrase(), "tschüß");
}

#[test]
fn longest_reason_phrase_arrives_whole() {
    let log = Log::default();
    let heard = log.clone();
    let mut scene = Scene::new(
        settings(),
        Settings::default(),
        move |_: &Connection, event: ConnectionEvent<'_>| {
            if let ConnectionEvent::ShutdownByPeer { reason_phrase, .. } = event {
                heard.note(reason_phrase.to_owned());
            }
            EventStatus::Done
        },
    );
    let (connection, _) = scene.connect();
    scene.settle();
    let text = "ß".repeat(REASON_PHRASE_MAX / 2);
    connection.shutdown_with(1, &text).unwrap();
    scene.settle();
    assert_eq!(log.all(), [text]);
}

#[test]
fn silent_end_sends_nothing() {
    let log = Log::default();
    let heard = log.clone();
    let mut scene = Scene::new(
        settings(),
        Settings::default(),
        move |_: &Connection, event: ConnectionEvent<'_>| {
            heard.note(format!("{event:?}"));
            EventStatus::Done
        },
    );
    let (connection, ours) = scene.connect();
    scene.settle();
    connection.shutdown_silently(3).unwrap();
    scene.world.run_for(Duration::from_secs(20));
    assert!(ours.has("ShutdownComplete"));
    let reason = connection.close_reason().unwrap();
    assert_eq!(
        (reason.closed_by(), reason.code()),
        (ClosedBy::Application, Some(3))
    );
    assert!(!log.has("Shutdown"), "{:?}", log.all());
    scene.world.run_for(Duration::from_secs(20));
    assert!(
        log.has("ShutdownByTransport { reason: IdleTimeout }"),
        "{:?}",
        log.all()
    );
}

#[test]
fn question_that_waits_is_refused_wherever_a_worker_would_wait_for_it() {
    let mut scene = Scene::new(settings(), Settings::default(), echo);
    let (connection, _) = scene.connect();
    scene.settle();
    let answers: Arc<Mutex<Vec<_>>> = Arc::default();
    // In a look at counters, on the worker's thread and in a handler.
    let (own, keeps) = (connection.clone(), Arc::clone(&answers));
    connection
        .with_stats(move |_| keeps.lock().unwrap().push(own.version()))
        .unwrap();
    scene.settle();
    let (other, keeps) = (connection.clone(), Arc::clone(&answers));
    scene.connect_with(move |connection: &Connection, event: ConnectionEvent<'_>| {
        if let ConnectionEvent::Connected { .. } = event {
            let (own, other, keeps) = (connection.clone(), other.clone(), Arc::clone(&keeps));
            let look = move |_: &ringway::ConnectionStats| {
                keeps.lock().unwrap().extend([own.version(), other.version()])
            };
            connection.with_stats(look).unwrap();
        }
        EventStatus::Done
    });
    scene.settle();
    assert_eq!(*answers.lock().unwrap(), [Err(CallError::WouldWait); 3]);
}

#[test]
fn look_at_counters_that_panics_is_the_applications_and_ends_its_connection() {
    let mut scene = Scene::new(settings(), Settings::default(), echo);
    let (connection, log) = scene.connect();
    scene.settle();
    connection.with_stats(|_| panic!("as the test asked")).unwrap();
    scene.settle();
    assert!(
        log.all()
            .iter()
            .any(|event| event.contains("the application failed")),
        "{:?}",
        log.all()
    );
}
