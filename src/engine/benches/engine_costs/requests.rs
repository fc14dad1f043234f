//! Requests and responses, each pair on a stream of its own that ends with them; a few at a time.

use bytes::Bytes;
use ringway_engine::streams::{Dir, StreamEvent, StreamKey, Streams, StreamsConfig};

use crate::endpoint::{Application, Pair, config};
use crate::meter::Meter;

const REQUEST: usize = 512;
const RESPONSE: usize = 4000;
/// Requests that wait for their response at once.
const AT_A_TIME: u64 = 10;
const WARM_UP: u64 = 1000;
const REQUESTS: u64 = 5000;

/// Asks again when a response is whole.
struct Client {
    request: Bytes,
    /// Requests still to be made.
    left: u64,
    received: u64,
    /// Streams that have ended.
    ended: u64,
}

impl Client {
    fn ask(&mut self, streams: &mut Streams) {
        if self.left == 0 {
            return;
        }
        self.left -= 1;
        let key = streams.create(Dir::Bi);
        streams.start(key, false).expect("the stream is new");
        streams
            .send(key, self.request.clone(), 0, true)
            .expect("the stream is open");
    }
}

impl Application for Client {
    fn on_data(&mut self, streams: &mut Streams, _: StreamKey, data: &[u8], fin: bool) {
        self.received += data.len() as u64;
        if fin {
            self.ask(streams);
        }
    }

    fn on_event(&mut self, _: &mut Streams, event: StreamEvent) {
        self.ended += u64::from(matches!(event, StreamEvent::ShutdownComplete { .. }));
    }
}

/// Answers when a request is whole.
struct Server {
    response: Bytes,
}

impl Application for Server {
    fn on_data(&mut self, streams: &mut Streams, key: StreamKey, _: &[u8], fin: bool) {
        if fin {
            streams
                .send(key, self.response.clone(), 0, true)
                .expect("the stream is open");
        }
    }

    fn on_event(&mut self, _: &mut Streams, _: StreamEvent) {}
}

pub(crate) fn run(meter: &mut Meter) -> u64 {
    let mut pair = Pair::established(config(StreamsConfig {
        peer_streams: [100, 0],
        ..StreamsConfig::default()
    }));
    let mut client = Client {
        request: Bytes::from(vec![1; REQUEST]),
        left: 0,
        received: 0,
        ended: 0,
    };
    let mut server = Server {
        response: Bytes::from(vec![2; RESPONSE]),
    };
    for count in [WARM_UP, REQUESTS] {
        client.left = count;
        for _ in 0..AT_A_TIME {
            client.ask(pair.client.connection.streams_mut());
        }
        pair.exchange(meter, &mut client, &mut server);
        meter.begin();
    }
    assert_eq!(client.received, (WARM_UP + REQUESTS) * RESPONSE as u64);
    assert_eq!(client.ended, WARM_UP + REQUESTS);
    REQUESTS
}
