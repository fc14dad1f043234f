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
