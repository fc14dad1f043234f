//! Data that had to be buffered, on streams that are read out of order or whose deliveries are completed later.

use super::*;

fn peer_stream(config: StreamsConfig) -> (Streams, StreamKey) {
    let mut server = Streams::new(Side::Server, config);
    server.set_peer_params(&params(&config));
    events(&mut server);
    server.on_stream(clock(), &frame(0, 0, b"", false)).unwrap();
    let Some(StreamEvent::PeerOpened { key, .. }) = server.next_event() else {
        panic!("no stream")
    };
    (server, key)
}

/// Where each buffered delivery that comes now begins and ends.
fn ranges(streams: &mut Streams, after: AfterReceive) -> Vec<(u64, u64)> {
    let mut ranges = Vec::new();
    while let Some(key) = streams.next_readable() {
        let ready = streams.take_ready(key).unwrap();
        let len = ready.len();
        ranges.push((ready.offset(), ready.offset() + len as u64));
        streams.on_ready_delivered(clock(), key, ready, len, after);
    }
    ranges
}

#[test]
fn unordered_stream_brings_all_ranges_that_wait() {
    for after in [AfterReceive::Continue, AfterReceive::Uncredited] {
        // Around what came before.
        let (mut server, key) = peer_stream(CONFIG);
        server.set_unordered(key).unwrap();
        assert_eq!(consume(&mut server, &frame(0, 10, &[1; 10], false)).len(), 10);
        let action = server.on_stream(clock(), &frame(0, 0, &[2; 30], false)).unwrap();
        assert_eq!(action, ReceiveAction::Nothing);
        assert_eq!(ranges(&mut server, after), [(0, 10), (20, 30)], "{after:?}");

        // While the application takes nothing.
        let (mut server, key) = peer_stream(CONFIG);
        server.set_unordered(key).unwrap();
        server.set_receive_enabled(key, false);
        for offset in [5, 15, 25] {
            server
                .on_stream(clock(), &frame(0, offset, &[3; 5], false))
                .unwrap();
        }
        assert_eq!(ranges(&mut server, after), []);
        server.set_receive_enabled(key, true);
        let all = [(5, 10), (15, 20), (25, 30)];
        assert_eq!(ranges(&mut server, after), all, "{after:?}");
    }
}

#[test]
fn earlier_delivery_is_completed_while_the_handler_has_a_buffered_one() {
    let config = StreamsConfig {
        multi_receive: true,
        ..CONFIG
    };
    let (mut server, key) = peer_stream(config);
    let data: Vec<u8> = (0..90).collect();
    let deliver = |server: &mut Streams, from: usize, to: usize| {
        let frame = frame(0, from as u64, &data[from..to], false);
        server.on_stream(clock(), &frame).unwrap()
    };
    let ReceiveAction::Deliver { .. } = deliver(&mut server, 0, 10) else {
        panic!("in order")
    };
    let first = frame(0, 0, &data[..10], false);
    server
        .on_delivered(clock(), key, first, 10, AfterReceive::Uncredited)
        .unwrap();
    // The packet before these was lost, and so was one behind.
    deliver(&mut server, 40, 60);
    deliver(&mut server, 70, 90);
    deliver(&mut server, 10, 40);
    assert_eq!(server.next_readable(), Some(key));
    let ready = server.take_ready(key).unwrap();
    assert!(server.receive_complete(clock(), key, 10));
    assert_eq!(ready.slices().concat(), data[10..60]);
    let len = ready.len();
    server.on_ready_delivered(clock(), key, ready, len, AfterReceive::Uncredited);
    assert_eq!(server.next_readable(), None);
    deliver(&mut server, 60, 70);
    assert_eq!(server.next_readable(), Some(key));
    let ready = server.take_ready(key).unwrap();
    assert_eq!(ready.slices().concat(), data[60..90]);
    server.on_ready_delivered(clock(), key, ready, 30, AfterReceive::Uncredited);
    assert!(server.receive_complete(clock(), key, 80));
    assert!(!server.receive_complete(clock(), key, 1));
}
