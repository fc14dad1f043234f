//! Received data that applications keep.

use std::sync::{Arc, Mutex};

use ringway::sim::Link;
use ringway::{
    Bytes, Connection, ConnectionEvent, Direction, EventStatus, KeptData, SendFlags, Settings, Stream,
    StreamEvent,
};
use ringway_tests::order::ordered;
use ringway_tests::{pattern, settings};

use crate::scene::{DELAY, Scene, open};

type Kept = Arc<Mutex<Vec<(u64, KeptData)>>>;

/// A server that keeps all that it receives, by where it is in the stream.
fn keeping(
    kept: &Kept,
    status: EventStatus,
) -> impl Fn(&Connection, ConnectionEvent<'_>) -> EventStatus + Clone + Send + Sync + 'static {
    let kept = Arc::clone(kept);
    move |_: &Connection, event: ConnectionEvent<'_>| {
        match event {
            ConnectionEvent::PeerStreamStarted(incoming) => {
                let kept = Arc::clone(&kept);
                incoming.accept(ordered(move |_: &Stream, event: StreamEvent<'_>| {
                    if let StreamEvent::Receive(data) = event {
                        kept.lock().unwrap().push((data.offset(), data.keep()));
                        return status;
                    }
                    EventStatus::Done
                }));
            }
            ConnectionEvent::DatagramReceived(datagram) => {
                kept.lock().unwrap().push((0, datagram.keep()));
            }
            _ => {}
        }
        EventStatus::Done
    }
}

/// What was sent, put together of what was kept.
fn content(kept: &Kept) -> Vec<u8> {
    let mut kept = kept.lock().unwrap().clone();
    kept.sort_by_key(|(offset, _)| *offset);
    kept.iter().flat_map(|(_, data)| data.to_vec()).collect()
}

#[test]
fn what_is_kept_stays_in_its_packet_for_any_thread_and_after_the_connection() {
    let kept: Kept = Arc::default();
    let mut scene = Scene::new(settings(), Settings::default(), keeping(&kept, EventStatus::Done));
    let (connection, _) = scene.connect();
    let (stream, _) = open(&connection, Direction::Unidirectional, EventStatus::Done);
    stream.start(false).unwrap();
    stream.send(pattern(0, 500_000).into(), 0, true).unwrap();
    scene.world.run_for(20 * DELAY);
    connection.shutdown(0).unwrap();
    scene.settle();
    let stats = scene.server_stats();
    assert_eq!(
        (stats.worker.kept_bytes, stats.worker.kept_copied_bytes),
        (500_000, 0)
    );
    assert!(stats.device.lent_bytes >= 500_000, "{}", stats.device.lent_bytes);
    drop(scene);
    let reader = Arc::clone(&kept);
    let (whole, copies) = std::thread::spawn(move || {
        let copies = reader
            .lock()
            .unwrap()
            .iter()
            .filter(|(_, kept)| kept.is_copy())
            .count();
        (content(&reader), copies)
    })
    .join()
    .unwrap();
    assert!(whole == pattern(0, 500_000) && copies == 0);
    // Its parts, and what becomes of it, lie where it is.
    let (_, mut first) = kept.lock().unwrap()[0].clone();
    let at = first.as_ptr();
    let head = first.split_to(10);
    assert_eq!((head.as_ptr(), head.len()), (at, 10));
    let bytes = Bytes::from(first.slice(5..));
    assert_eq!(bytes.as_ptr(), at.wrapping_add(15));
    kept.lock().unwrap().clear();
    drop(first);
    assert_eq!(bytes[..20], pattern(15, 20)[..]);
}

#[test]
fn what_arrives_out_of_order_or_in_bulk_beyond_the_bound_is_copied_and_the_rest_is_not() {
    let kept: Kept = Arc::default();
    let mut execution = ringway::ExecutionConfig::default();
    execution.datapath.lent_bytes = 100_000;
    let mut scene = Scene::lending(&execution, keeping(&kept, EventStatus::Done));
    scene.world.network.set_default_link(Link {
        delay: DELAY,
        loss: 0.02,
        ..Link::default()
    });
    let (connection, _) = scene.connect();
    let (stream, _) = open(&connection, Direction::Unidirectional, EventStatus::Done);
    stream.start(false).unwrap();
    stream.send(pattern(0, 1_000_000).into(), 0, true).unwrap();
    for _ in 0..10 {
        assert!(scene.server_stats().device.lent_bytes <= 100_000);
    }
    assert!(content(&kept) == pattern(0, 1_000_000));
    let stats = scene.server_stats().worker;
    assert_eq!(stats.kept_bytes + stats.kept_copied_bytes, 1_000_000);
    assert!(
        stats.kept_bytes > 50_000 && stats.kept_bytes <= 100_000,
        "{stats:?}"
    );
    // What is let go can be lent again.
    kept.lock().unwrap().clear();
    scene.settle();
    let (stream, _) = open(&connection, Direction::Unidirectional, EventStatus::Done);
    stream.start(false).unwrap();
    stream.send(pattern(0, 30_000).into(), 0, true).unwrap();
    scene.settle();
    scene.settle();
    assert!(content(&kept) == pattern(0, 30_000));
    assert!(scene.server_stats().worker.kept_bytes > stats.kept_bytes + 15_000);
}

#[test]
fn nothing_is_lent_where_nothing_may_be() {
    let kept: Kept = Arc::default();
    let mut execution = ringway::ExecutionConfig::default();
    execution.datapath.lent_bytes = 0;
    let mut scene = Scene::lending(&execution, keeping(&kept, EventStatus::Done));
    let (connection, _) = scene.connect();
    let (stream, _) = open(&connection, Direction::Unidirectional, EventStatus::Done);
    stream.start(false).unwrap();
    stream.send(pattern(0, 10_000).into(), 0, true).unwrap();
    scene.settle();
    assert!(content(&kept) == pattern(0, 10_000));
    assert!(kept.lock().unwrap().iter().all(|(_, kept)| kept.is_copy()));
    assert_eq!(scene.server_stats().worker.kept_copied_bytes, 10_000);
}

/// Keeping says nothing of flow control.
#[test]
fn peer_gets_no_credit_for_what_is_kept_and_not_consumed() {
    let kept: Kept = Arc::default();
    let small = Settings {
        stream_receive_window: 16_384,
        ..settings()
    };
    let mut scene = Scene::new(small, Settings::default(), keeping(&kept, EventStatus::Pending));
    let (connection, _) = scene.connect();
    let (stream, log) = open(&connection, Direction::Unidirectional, EventStatus::Done);
    stream.start(false).unwrap();
    stream.send(pattern(0, 100_000).into(), 0, true).unwrap();
    scene.settle();
    scene.settle();
    assert_eq!(kept.lock().unwrap().len(), 1, "one delivery is pending");
    assert!(!log.has("SendComplete"), "{:?}", log.all());
}

#[test]
fn datagrams_are_kept_too() {
    let kept: Kept = Arc::default();
    let server = Settings {
        datagram_receive_enabled: true,
        ..settings()
    };
    let mut scene = Scene::new(server, Settings::default(), keeping(&kept, EventStatus::Done));
    let (connection, _) = scene.connect();
    scene.settle();
    connection.send_datagram(Bytes::from(vec![7; 1000]), 0).unwrap();
    let (stream, _) = open(&connection, Direction::Unidirectional, EventStatus::Done);
    stream.send_with("and this".into(), 0, SendFlags::START).unwrap();
    scene.settle();
    let kept = kept.lock().unwrap();
    let datagram = &kept[0].1;
    assert!(**datagram == [7; 1000] && !datagram.is_copy());
    assert_eq!(&*kept[1].1, b"and this");
}
