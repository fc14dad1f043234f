//! A connection that is fed whatever a peer could have sealed: it never panics, never gives the application data out of order,
//! and holds no more than it has allowed.
#![no_main]

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use ringway_engine::connection::config::Config;
use ringway_engine::connection::drops::DropCounts;
use ringway_engine::connection::null_crypto::established_pair;
use ringway_engine::connection::receive::Delivery;
use ringway_engine::connection::transmit::TransmitLimits;
use ringway_engine::connection::{LocalCid, PathAddress};
use ringway_engine::streams::{AfterReceive, Dir, Scheduling, StreamEvent, StreamKey, StreamsConfig};
use ringway_engine::wire::cid::{ConnectionId, ResetToken};
use ringway_types::Instant;
use ringway_types::{Ecn, PortId};

fn config() -> Config {
    Config {
        streams: StreamsConfig {
            connection_window: 100_000,
            window_bidi_local: 20_000,
            window_bidi_remote: 20_000,
            window_uni: 20_000,
            peer_streams: [10, 10],
            scheduling: Scheduling::RoundRobin,
            send_queue_limit: 0,
            multi_receive: false,
        },
        maximum_datagram_size: 1472,
        datagram_receive: true,
        ecn: true,
        grease_quic_bit: true,
        ..Config::default()
    }
}

fuzz_target!(|data: &[u8]| {
    let mut now = Instant::from_nanos(1_000_000_000);
    let path = |local: &str, remote: &str| PathAddress {
        port: PortId(0),
        local: local.parse().unwrap(),
        remote: remote.parse().unwrap(),
    };
    let paths = [
        path("192.0.2.1:1", "192.0.2.2:2"),
        path("192.0.2.2:2", "192.0.2.1:1"),
    ];
    let cid = |byte: u8| LocalCid {
        cid: ConnectionId::new(&[byte; 8]).unwrap(),
        token: ResetToken([byte; 16]),
    };
    let [_, mut server] = established_pair(now, &Arc::new(config()), paths, [cid(1), cid(2)]);
    let mut input = data.iter().copied();
    let mut offsets: HashMap<StreamKey, u64> = HashMap::new();
    let mut drops = DropCounts::default();
    let mut buffer = vec![0; 4096];
    let limits = TransmitLimits {
        segments_max: 2,
        datagram_bytes_max: 1472,
    };
    let mut number = 0u32;
    while let Some(op) = input.next() {
        match op % 8 {
            // A packet: its number, its address, its frames.
            0..5 => {
                let step = u32::from(op >> 3);
                number = number.wrapping_add(step + u32::from(op % 8 != 4));
                let len = usize::from(input.next().unwrap_or(20));
                let mut datagram = vec![0x43 | (op & 0x80) >> 5];
                datagram.extend([2; 8]);
                datagram.extend(number.to_be_bytes());
                datagram.extend(input.by_ref().take(len));
                datagram.extend([0; 20]);
                let mut path = paths[1];
                if op % 8 == 3 {
                    path.remote.set_port(u16::from(op));
                }
                let mut receive = server.receive(&path, Ecn::from_bits(op), &mut datagram);
                while let Some(delivery) = server.receive_next(now, &mut receive, &mut drops) {
                    if let Delivery::Stream {
                        key,
                        offset,
                        data,
                        fin,
                        ..
                    } = delivery
                    {
                        let expected = offsets.entry(key).or_default();
                        assert_eq!(*expected, offset);
                        *expected += data.len() as u64;
                        server.on_stream_delivered(
                            now,
                            key,
                            offset,
                            data,
                            fin,
                            data.len(),
                            AfterReceive::Continue,
                        );
                    }
                }
            }
            5 => {
                now += Duration::from_millis(u64::from(input.next().unwrap_or(0)));
                if server.deadline().is_some_and(|deadline| deadline <= now) {
                    server.on_timeout(now);
                }
            }
            6 => {
                let streams = server.streams_mut();
                let key = streams.create(if op & 8 == 0 { Dir::Bi } else { Dir::Uni });
                let _ = streams.start(key, op & 16 != 0);
                let _ = streams.send(key, Bytes::from(vec![op; 3000]), 1, op & 32 != 0);
            }
            _ => {
                for _ in 0..20 {
                    if server.transmit(now, &mut buffer, &limits).is_none() {
                        break;
                    }
                }
            }
        }
        while let Some(event) = server.streams_mut().next_event() {
            if let StreamEvent::ShutdownComplete { key } = event {
                server.streams_mut().release(key);
            }
        }
        while let Some(key) = server.streams_mut().next_readable() {
            let Some(ready) = server.streams_mut().take_ready(key) else {
                continue;
            };
            let expected = offsets.entry(key).or_default();
            assert_eq!(*expected, ready.offset());
            *expected += ready.len() as u64;
            let len = ready.len();
            server.on_ready_delivered(now, key, ready, len, AfterReceive::Continue);
        }
        while server.next_event().is_some() {}
        while server.next_retired_local_cid().is_some() {}
        while server.next_reset_token_change().is_some() {}
    }
});
