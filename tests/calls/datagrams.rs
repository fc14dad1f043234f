//! Datagrams: when they may be sent, and what becomes of each.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ringway::sim::Link;
use ringway::{
    Bytes, CallError, Connection, ConnectionEvent, ConnectionStats, DatagramSendState, EventStatus,
    SendFlags, Settings,
};
use ringway_tests::settings;

use crate::scene::{DELAY, Scene};

fn taking() -> Settings {
    Settings {
        datagram_receive_enabled: true,
        ..settings()
    }
}

/// The states of each datagram, by its context.
type Fates = Arc<Mutex<HashMap<u64, Vec<DatagramSendState>>>>;

fn note(fates: &Fates, event: &ConnectionEvent<'_>) {
    if let ConnectionEvent::DatagramSendStateChanged { context, state } = event {
        fates.lock().unwrap().entry(*context).or_default().push(*state);
    }
}

type Received = Arc<Mutex<Vec<Vec<u8>>>>;

/// A scene whose server keeps what it receives, and a connection that notes what becomes of datagrams.
fn scene(server: Settings) -> (Scene, Connection, Fates, Received) {
    let received = Received::default();
    let keeps = Arc::clone(&received);
    let scene = Scene::new(
        server,
        Settings::default(),
        move |_: &Connection, event: ConnectionEvent<'_>| {
            if let ConnectionEvent::DatagramReceived(data) = event {
                keeps.lock().unwrap().push(data.to_vec());
            }
            EventStatus::Done
        },
    );
    let (connection, fates) = connect(&scene);
    (scene, connection, fates, received)
}

/// Connects; gives what becomes of datagrams.
fn connect(scene: &Scene) -> (Connection, Fates) {
    let fates = Fates::default();
    let notes = Arc::clone(&fates);
    let connection = scene.connect_with(move |_: &Connection, event: ConnectionEvent<'_>| {
        note(&notes, &event);
        EventStatus::Done
    });
    (connection, fates)
}

#[test]
fn datagrams_that_are_sent_before_the_handshake_is_complete_wait_for_it() {
    let (mut scene, connection, fates, received) = scene(taking());
    for context in 0..3 {
        connection
            .send_datagram(vec![context as u8; 100].into(), context)
            .unwrap();
    }
    // Nobody knows yet that it will not fit.
    connection.send_datagram(vec![9; 1300].into(), 9).unwrap();
    scene.settle();
    assert_eq!(received.lock().unwrap().len(), 3);
    let fates = fates.lock().unwrap();
    for context in 0..3 {
        assert_eq!(
            fates[&context],
            [DatagramSendState::Sent, DatagramSendState::Acknowledged]
        );
    }
    assert_eq!(fates[&9], [DatagramSendState::Canceled]);
    assert_eq!(unsent(&mut scene, &connection), 1);
}

/// How many were never sent, as the connection counts them.
fn unsent(scene: &mut Scene, connection: &Connection) -> u64 {
    let count = Arc::new(Mutex::new(None));
    let set = Arc::clone(&count);
    let look = move |stats: &ConnectionStats| *set.lock().unwrap() = Some(stats.unsent_datagram_frames);
    connection.with_stats(look).unwrap();
    scene.world.turn();
    count.lock().unwrap().unwrap()
}

#[test]
fn datagrams_that_are_refused_in_a_handler_are_counted_as_those_that_are_canceled() {
    let mut scene = Scene::new(taking(), settings(), |_: &Connection, _: ConnectionEvent<'_>| {
        EventStatus::Done
    });
    let connection = scene.connect_with(move |connection: &Connection, event: ConnectionEvent<'_>| {
        if let ConnectionEvent::Connected { .. } = event {
            let long = connection.send_datagram(vec![0; 1300].into(), 0);
            assert!(matches!(long, Err(CallError::DatagramTooLarge { .. })));
        }
        EventStatus::Done
    });
    scene.settle();
    assert_eq!(unsent(&mut scene, &connection), 1);
}

#[test]
fn datagram_behind_the_end_is_refused_in_handlers_and_canceled_elsewhere() {
    let answer = Arc::new(Mutex::new(None));
    let late = Arc::clone(&answer);
    let mut scene = Scene::new(
        taking(),
        taking(),
        move |connection: &Connection, event: ConnectionEvent<'_>| {
            if let ConnectionEvent::ShutdownByPeer { .. } = event {
                *late.lock().unwrap() = Some(connection.send_datagram("late".into(), 1));
            }
            EventStatus::Done
        },
    );
    let (connection, fates) = connect(&scene);
    scene.settle();
    connection.shutdown(0).unwrap();
    // The worker has not seen that yet.
    connection.send_datagram("late".into(), 1).unwrap();
    scene.settle();
    assert_eq!(fates.lock().unwrap()[&1], [DatagramSendState::Canceled]);
    assert_eq!(answer.lock().unwrap().take(), Some(Err(CallError::Closed)));
}

#[test]
fn datagrams_for_a_peer_that_takes_none_are_canceled_and_refused_once_that_is_known() {
    let (mut scene, connection, fates, _) = scene(settings());
    connection.send_datagram("early".into(), 1).unwrap();
    scene.settle();
    assert_eq!(fates.lock().unwrap()[&1], [DatagramSendState::Canceled]);
    let answer = connection.send_datagram("late".into(), 2);
    assert_eq!(answer, Err(CallError::DatagramTooLarge { max: 0 }));
}

#[test]
fn datagram_that_is_too_long_is_refused_on_other_threads_too() {
    let (mut scene, connection, fates, _) = scene(taking());
    let huge = connection.send_datagram(vec![0; 70_000].into(), 1);
    assert!(matches!(huge, Err(CallError::DatagramTooLarge { .. })));
    scene.settle();
    let Err(CallError::DatagramTooLarge { max }) = connection.send_datagram(vec![0; 60_000].into(), 1) else {
        panic!("it was taken");
    };
    connection.send_datagram(vec![0; max].into(), 2).unwrap();
    scene.settle();
    assert_eq!(fates.lock().unwrap().get(&1), None);
    assert_eq!(
        fates.lock().unwrap()[&2].last(),
        Some(&DatagramSendState::Acknowledged)
    );
}

#[test]
fn more_datagrams_than_may_wait_are_refused_in_handlers_and_canceled_elsewhere() {
    let (mut scene, connection, fates, received) = scene(taking());
    for context in 0..5000 {
        connection.send_datagram("x".into(), context).unwrap();
    }
    scene.settle();
    let canceled = |fates: &Fates| {
        let fates = fates.lock().unwrap();
        fates
            .values()
            .filter(|states| **states == [DatagramSendState::Canceled])
            .count()
    };
    assert_eq!(canceled(&fates), 5000 - 4096);
    assert_eq!(received.lock().unwrap().len(), 4096);
    let full = Arc::new(Mutex::new(0));
    let count = Arc::clone(&full);
    scene.connect_with(move |connection: &Connection, event: ConnectionEvent<'_>| {
        if let ConnectionEvent::Connected { .. } = event {
            while connection.send_datagram("x".into(), 0).is_ok() {
                *count.lock().unwrap() += 1;
            }
            assert_eq!(connection.send_datagram("x".into(), 0), Err(CallError::QueueFull));
        }
        EventStatus::Done
    });
    scene.settle();
    assert_eq!(*full.lock().unwrap(), 4096);
}

#[test]
fn each_datagram_has_one_final_state_whatever_the_network_does() {
    let (mut scene, connection, fates, received) = scene(taking());
    scene.settle();
    scene.world.network.set_default_link(Link {
        delay: DELAY,
        loss: 0.2,
        ..Link::default()
    });
    for context in 0..400 {
        connection
            .send_datagram(Bytes::copy_from_slice(&u64::to_be_bytes(context)), context)
            .unwrap();
        scene.world.run_for(Duration::from_millis(3));
    }
    scene.world.run_for(Duration::from_secs(3));
    // What is under way at the end is given up.
    connection.send_datagram("last".into(), 400).unwrap();
    scene.world.turn();
    connection.shutdown(0).unwrap();
    scene.settle();
    let fates = fates.lock().unwrap();
    assert_eq!(fates.len(), 401);
    let mut counts: HashMap<DatagramSendState, usize> = HashMap::new();
    for (context, states) in fates.iter() {
        let finals = states.iter().filter(|state| state.is_final()).count();
        assert!(
            finals == 1 && states.last().unwrap().is_final(),
            "{context}: {states:?}"
        );
        assert_eq!(states[0], DatagramSendState::Sent, "{context}: {states:?}");
        *counts.entry(*states.last().unwrap()).or_default() += 1;
    }
    assert_eq!(
        fates[&400],
        [DatagramSendState::Sent, DatagramSendState::LostDiscarded]
    );
    assert!(counts[&DatagramSendState::LostDiscarded] > 30, "{counts:?}");
    let told = |state| counts.get(&state).copied().unwrap_or_default();
    let arrived = told(DatagramSendState::Acknowledged) + told(DatagramSendState::AcknowledgedSpurious);
    assert!(
        arrived <= received.lock().unwrap().len() && arrived > 250,
        "{counts:?}"
    );
}

#[test]
fn datagram_that_arrives_after_it_counted_as_lost_is_acknowledged_as_such() {
    let (mut scene, connection, fates, _) = scene(taking());
    scene.settle();
    // Delays of up to five times the path's own, so that many are overtaken by three others.
    scene.world.network.set_default_link(Link {
        delay: DELAY,
        jitter: 10 * DELAY,
        ..Link::default()
    });
    for context in 0..300 {
        connection.send_datagram("x".into(), context).unwrap();
        scene.world.run_for(Duration::from_millis(2));
    }
    scene.world.run_for(Duration::from_secs(3));
    let fates = fates.lock().unwrap();
    let spurious = [
        DatagramSendState::Sent,
        DatagramSendState::LostSuspect,
        DatagramSendState::AcknowledgedSpurious,
    ];
    assert!(fates.values().filter(|states| **states == spurious).count() > 10);
}

/// What a client's handler does when it is connected, and in which order it arrives.
fn sent_when_connected(send: impl Fn(&Connection) + Send + 'static) -> (Vec<Vec<u8>>, Fates) {
    let received = Received::default();
    let keeps = Arc::clone(&received);
    let mut scene = Scene::new(
        taking(),
        Settings::default(),
        move |_: &Connection, event: ConnectionEvent<'_>| {
            if let ConnectionEvent::DatagramReceived(data) = event {
                keeps.lock().unwrap().push(data.to_vec());
            }
            EventStatus::Done
        },
    );
    let fates = Fates::default();
    let notes = Arc::clone(&fates);
    let connection = scene.connect_with(move |connection: &Connection, event: ConnectionEvent<'_>| {
        note(&notes, &event);
        if let ConnectionEvent::Connected { .. } = event {
            send(connection);
        }
        EventStatus::Done
    });
    scene.settle();
    drop(connection);
    let received = received.lock().unwrap().clone();
    (received, fates)
}

#[test]
fn datagrams_with_priority_go_first_in_their_order() {
    let (received, _) = sent_when_connected(|connection| {
        for (text, flags) in [
            ("a", SendFlags::NONE),
            ("b", SendFlags::DATAGRAM_PRIORITY),
            ("c", SendFlags::NONE),
            ("d", SendFlags::DATAGRAM_PRIORITY),
        ] {
            connection.send_datagram_with(text.into(), 0, flags).unwrap();
        }
    });
    assert_eq!(received.concat(), b"bdac");
}

#[test]
fn several_buffers_make_one_datagram() {
    let (received, _) = sent_when_connected(|connection| {
        let parts = vec![
            Bytes::from_static(b"one "),
            Bytes::new(),
            Bytes::from_static(b"two"),
        ];
        connection
            .send_datagram_vectored(parts, 0, SendFlags::NONE)
            .unwrap();
        connection
            .send_datagram_vectored(Vec::new(), 0, SendFlags::NONE)
            .unwrap();
    });
    assert_eq!(received, [b"one two".to_vec(), Vec::new()]);
}

#[test]
fn datagrams_that_are_not_to_wait_are_canceled_where_the_window_is_full() {
    let many = 200;
    let (received, fates) = sent_when_connected(move |connection| {
        for context in 0..many {
            let flags = SendFlags::CANCEL_ON_BLOCKED;
            connection
                .send_datagram_with(vec![0; 1000].into(), context, flags)
                .unwrap();
        }
    });
    let fates = fates.lock().unwrap();
    let canceled = fates
        .values()
        .filter(|states| **states == [DatagramSendState::Canceled])
        .count();
    let acknowledged = fates
        .values()
        .filter(|states| states.last() == Some(&DatagramSendState::Acknowledged));
    assert_eq!((fates.len() as u64, acknowledged.count()), (many, received.len()));
    assert!(canceled > 100 && !received.is_empty(), "{canceled} of {many}");
    let (received, _) = sent_when_connected(move |connection| {
        (0..many).for_each(|context| connection.send_datagram(vec![0; 1000].into(), context).unwrap());
    });
    assert_eq!(received.len() as u64, many, "without the flag they wait");
}
