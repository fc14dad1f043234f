//! A client sends full packets on one stream, in runs, and the server acknowledges every so many of them.

use bytes::Bytes;
use ringway_engine::streams::{Dir, StreamEvent, StreamKey, Streams, StreamsConfig};

use crate::endpoint::{Application, Flight, ONE_WAY, Pair, RUN, SLOTS, config};
use crate::meter::{Meter, Part};

const WARM_UP_RUNS: u64 = 100;
const RUNS: u64 = 500;
/// Bytes of one send, and sends that are queued.
const SEND: usize = 64 * 1024;
const SENDS: usize = 4;

/// Keeps data queued: each send that is complete is followed by another.
struct Sender {
    data: Bytes,
}

impl Application for Sender {
    fn on_data(&mut self, _: &mut Streams, _: StreamKey, _: &[u8], _: bool) {}

    fn on_event(&mut self, streams: &mut Streams, event: StreamEvent) {
        if let StreamEvent::SendComplete { key, .. } = event {
            let sent = streams.send(key, self.data.clone(), 0, false);
            assert!(sent.is_ok(), "the stream is never ended");
        }
    }
}

struct Receiver {
    bytes: u64,
}

impl Application for Receiver {
    fn on_data(&mut self, _: &mut Streams, _: StreamKey, data: &[u8], _: bool) {
        self.bytes += data.len() as u64;
    }

    fn on_event(&mut self, _: &mut Streams, _: StreamEvent) {}
}

pub(crate) fn run(meter: &mut Meter, ack_every: usize) -> u64 {
    let mut pair = Pair::established(config(StreamsConfig {
        peer_streams: [0, 1],
        ..StreamsConfig::default()
    }));
    let data = Bytes::from(vec![7; SEND]);
    let mut sender = Sender { data };
    let mut receiver = Receiver { bytes: 0 };
    let streams = pair.client.connection.streams_mut();
    let key = streams.create(Dir::Uni);
    streams.start(key, true).expect("one stream is allowed");
    for _ in 0..SENDS {
        streams
            .send(key, sender.data.clone(), 0, false)
            .expect("the stream is open");
    }
    let mut run = Flight::new(1);
    let mut acks = Flight::new(RUN);
    for index in 0..WARM_UP_RUNS + RUNS {
        if index == WARM_UP_RUNS {
            meter.begin();
            receiver.bytes = 0;
        }
        pair.now += ONE_WAY;
        let (client, server, now) = (&mut pair.client, &mut pair.server, pair.now);
        meter.run(Part::Send, || client.transmit(now, 1, &mut run));
        let now = now + ONE_WAY;
        for (run, segment) in run.drain() {
            for piece in run.chunks_mut(ack_every * segment) {
                meter.run(Part::Receive, || {
                    server.receive(now, piece, segment, &mut receiver)
                });
                meter.run(Part::SendAck, || server.transmit(now, SLOTS, &mut acks));
            }
        }
        let now = now + ONE_WAY;
        for (ack, segment) in acks.drain() {
            meter.run(Part::ReceiveAck, || {
                client.receive(now, ack, segment, &mut sender)
            });
        }
        pair.now = now;
    }
    let packets = RUNS * RUN as u64;
    let full = receiver.bytes / packets;
    assert!(full > 1400, "{full} bytes in a packet: not all runs were full");
    packets
}
