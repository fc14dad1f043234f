//! Flow control credit that goes to the peer while it has plenty.

use super::*;

/// Limits that the server tells its peer while 400 KB come, on so many streams.
fn limits(streams: u64) -> Vec<u64> {
    let config = Config {
        max_ack_delay: Duration::from_millis(25),
        ..config()
    };
    let mut bench = bench(config, true);
    let mut limits = Vec::new();
    for index in 0..400 {
        bench.receive(&stream(4 * (index % streams), index / streams * 1000, &[1; 1000]));
        while let Some((_, packet)) = bench.transmit() {
            let number_len = usize::from(packet[0] & 3) + 1;
            let mut frames = FrameReader::new(&packet[9 + number_len..packet.len() - 16]);
            while let Some(frame) = frames.next_frame() {
                if let Frame::MaxData(limit) = frame.unwrap() {
                    limits.push(limit);
                }
            }
        }
    }
    limits
}

#[test]
fn credit_goes_with_acknowledgements_each_64_kib_on_one_stream_and_on_many() {
    for streams in [1, 7, 100] {
        let limits = limits(streams);
        assert!((5..=7).contains(&limits.len()), "{streams} streams: {limits:?}");
        assert!(limits.is_sorted_by(|a, b| a + 64 * 1024 <= *b), "{limits:?}");
    }
}
