//! Many streams of one connection, all open at once and taking turns, with little data each: from their start to their end.

use bytes::Bytes;
use ringway_engine::streams::{Dir, Scheduling, StreamEvent, StreamKey, Streams, StreamsConfig};

use crate::endpoint::{Application, Pair, config};
use crate::meter::{Meter, Part};

const STREAMS: u64 = 10_000;
/// Bytes that each stream sends at once, and how often.
const PIECE: usize = 100;
const PIECES: u64 = 3;

/// Counts the streams that have ended.
struct Client {
    ended: u64,
}

impl Application for Client {
    fn on_data(&mut self, _: &mut Streams, _: StreamKey, _: &[u8], _: bool) {}

    fn on_event(&mut self, _: &mut Streams, event: StreamEvent) {
        self.ended += u64::from(matches!(event, StreamEvent::ShutdownComplete { .. }));
    }
}

/// Ends a stream when the client does.
struct Server {
    received: u64,
    ended: u64,
}

impl Application for Server {
    fn on_data(&mut self, streams: &mut Streams, key: StreamKey, data: &[u8], fin: bool) {
        self.received += data.len() as u64;
        if fin {
            streams.finish_sending(key).expect("the stream is open");
        }
    }

    fn on_event(&mut self, _: &mut Streams, event: StreamEvent) {
        self.ended += u64::from(matches!(event, StreamEvent::ShutdownComplete { .. }));
    }
}

pub(crate) fn run(meter: &mut Meter) -> u64 {
    let config = config(StreamsConfig {
        peer_streams: [STREAMS, 0],
        scheduling: Scheduling::RoundRobin,
        ..StreamsConfig::default()
    });
    let ack_delay = config.max_ack_delay;
    let mut pair = Pair::established(config);
    let mut client = Client { ended: 0 };
    let mut server = Server {
        received: 0,
        ended: 0,
    };
    let data = Bytes::from(vec![1; PIECE]);
    meter.begin();
    let mut keys = Vec::with_capacity(STREAMS as usize);
    for piece in 1..=PIECES {
        let streams = pair.client.connection.streams_mut();
        meter.run(Part::Client, || {
            if keys.is_empty() {
                keys.extend((0..STREAMS).map(|_| streams.create(Dir::Bi)));
                for &key in &keys {
                    streams.start(key, true).expect("the stream is new");
                }
            }
            for &key in &keys {
                streams
                    .send(key, data.clone(), 0, piece == PIECES)
                    .expect("the stream is open");
            }
        });
        pair.exchange(meter, &mut client, &mut server);
    }
    // The last acknowledgement may have been held back.
    pair.now += ack_delay;
    pair.exchange(meter, &mut client, &mut server);
    assert_eq!(server.received, STREAMS * PIECES * PIECE as u64);
    assert_eq!((client.ended, server.ended), (STREAMS, STREAMS));
    STREAMS
}
