//! Packets as a peer could have sealed them, whatever is in them: a connection without protection takes them in the clear.

mod credit;
mod late_tls;
mod memory;
mod paths;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ringway_types::{Ecn, Instant, PortId};

use super::pair::config;
use crate::base::coding::Writer;
use crate::connection::cids::LocalCid;
use crate::connection::close::CloseReason;
use crate::connection::config::Config;
use crate::connection::drops::{DropCounts, DropReason};
use crate::connection::events::Event;
use crate::connection::null_crypto::established_pair;
use crate::connection::receive::Delivery;
use crate::connection::transmit::{Transmit, TransmitLimits};
use crate::connection::{Connection, PathAddress};
use crate::streams::Dir;
use crate::wire::cid::{ConnectionId, ResetToken};
use crate::wire::error::TransportErrorCode;
use crate::wire::frame::{self, Frame, FrameReader, NewConnectionId, ty};

const CLIENT: &str = "198.51.100.7:50000";
const SERVER: &str = "192.0.2.1:443";

/// A connection and what is needed to talk to it in the clear.
struct Bench {
    now: Instant,
    connection: Connection,
    path: PathAddress,
    number: u32,
    drops: DropCounts,
    delivered: Vec<Vec<u8>>,
}

fn cid(byte: u8) -> LocalCid {
    LocalCid {
        cid: ConnectionId::new(&[byte; 8]).unwrap(),
        token: ResetToken([byte; 16]),
    }
}

fn bench(config: Config, server: bool) -> Bench {
    let now = Instant::from_nanos(1_000_000_000);
    let path = |local: &str, remote: &str| PathAddress {
        port: PortId(0),
        local: local.parse().unwrap(),
        remote: remote.parse().unwrap(),
    };
    let paths = [path(CLIENT, SERVER), path(SERVER, CLIENT)];
    let [client, server_side] = established_pair(now, &Arc::new(config), paths, [cid(1), cid(2)]);
    let (connection, path) = if server {
        (server_side, paths[1])
    } else {
        (client, paths[0])
    };
    Bench {
        now,
        connection,
        path,
        number: 0,
        drops: DropCounts::default(),
        delivered: Vec::new(),
    }
}

fn server() -> Bench {
    bench(config(), true)
}

impl Bench {
    /// Takes in a packet of these frames with the next number, from `remote`.
    fn receive_from(&mut self, remote: &str, number: u32, frames: &[u8]) {
        let own = if self.path.local == SERVER.parse::<SocketAddr>().unwrap() {
            2
        } else {
            1
        };
        let mut datagram = vec![0x43];
        datagram.extend([own; 8]);
        datagram.extend(number.to_be_bytes());
        datagram.extend(frames);
        datagram.extend([0; 16]);
        let path = PathAddress {
            remote: remote.parse().unwrap(),
            ..self.path
        };
        let mut receive = self.connection.receive(&path, Ecn::NotEct, &mut datagram);
        while let Some(delivery) = self
            .connection
            .receive_next(self.now, &mut receive, &mut self.drops)
        {
            if let Delivery::Stream {
                key,
                offset,
                data,
                fin,
                ..
            } = delivery
            {
                self.delivered.push(data.to_vec());
                let after = crate::streams::AfterReceive::Continue;
                self.connection
                    .on_stream_delivered(self.now, key, offset, data, fin, data.len(), after);
            }
        }
    }

    fn receive(&mut self, frames: &[u8]) {
        let remote = self.path.remote.to_string();
        self.number += 1;
        self.receive_from(&remote, self.number, frames);
    }

    fn transmit(&mut self) -> Option<(Transmit, Vec<u8>)> {
        let mut slot = vec![0; 4096];
        let limits = TransmitLimits {
            segments_max: 1,
            datagram_bytes_max: 1500,
        };
        let transmit = self.connection.transmit(self.now, &mut slot, &limits)?;
        slot.truncate(transmit.len);
        Some((transmit, slot))
    }

    /// All frame types that are sent now, with where their packets go.
    fn sent(&mut self) -> Vec<(u64, SocketAddr)> {
        let mut sent = Vec::new();
        for _ in 0..1000 {
            let Some((transmit, packet)) = self.transmit() else {
                return sent;
            };
            let number_len = usize::from(packet[0] & 3) + 1;
            let mut frames = FrameReader::new(&packet[9 + number_len..packet.len() - 16]);
            while let Some(frame) = frames.next_frame() {
                if frame.unwrap() != Frame::Padding {
                    sent.push((frames.frame_type(), transmit.path.remote));
                }
            }
        }
        panic!("it never stops sending");
    }

    fn error(&mut self) -> Option<TransportErrorCode> {
        std::iter::from_fn(|| self.connection.next_event()).find_map(|event| match event {
            Event::Closing(CloseReason::Transport(error)) => Some(error.code),
            _ => None,
        })
    }
}

fn frames(write: impl FnOnce(&mut Writer<'_>)) -> Vec<u8> {
    let mut buffer = [0; 1400];
    let mut w = Writer::new(&mut buffer);
    write(&mut w);
    // Enough for the sample of header protection.
    let short = 4usize.saturating_sub(w.len());
    w.zeros(short);
    w.into_written().to_vec()
}

fn stream(id: u64, offset: u64, data: &[u8]) -> Vec<u8> {
    frames(|w| {
        frame::encode_stream_header(w, id, offset, Some(data.len()), false);
        w.bytes(data);
    })
}

#[test]
fn protocol_errors_of_the_peer_close_with_the_code_of_the_rfc() {
    let integers = |ty: u64, values: &[u64]| frames(|w| frame::encode_integers(w, ty, values));
    let violation = TransportErrorCode::PROTOCOL_VIOLATION;
    let cases: Vec<(&str, Vec<u8>, TransportErrorCode)> = vec![
        (
            "ACK of what was never sent",
            integers(ty::ACK, &[9, 0, 0, 0]),
            violation,
        ),
        (
            "HANDSHAKE_DONE to a server",
            integers(ty::HANDSHAKE_DONE, &[]),
            violation,
        ),
        (
            "NEW_TOKEN to a server",
            frames(|w| frame::encode_new_token(w, b"token")),
            violation,
        ),
        ("no frame at all", vec![], violation),
        (
            "handshake data after the handshake",
            frames(|w| frame::encode_crypto(w, 0, b"x")),
            TransportErrorCode::crypto(10),
        ),
        (
            "unknown frame",
            integers(0x21, &[]),
            TransportErrorCode::FRAME_ENCODING_ERROR,
        ),
        (
            "stream of ours that is not open",
            stream(1, 0, b"x"),
            TransportErrorCode::STREAM_STATE_ERROR,
        ),
        (
            "stream beyond the limit",
            stream(400, 0, b"x"),
            TransportErrorCode::STREAM_LIMIT_ERROR,
        ),
        (
            "data beyond the window",
            stream(0, 1 << 30, b"x"),
            TransportErrorCode::FLOW_CONTROL_ERROR,
        ),
        (
            "retirement of a connection ID never issued",
            integers(ty::RETIRE_CONNECTION_ID, &[7]),
            violation,
        ),
        (
            "retirement of the connection ID in use",
            integers(ty::RETIRE_CONNECTION_ID, &[0]),
            violation,
        ),
        (
            "acknowledgements sooner than we can",
            integers(ty::ACK_FREQUENCY, &[0, 1, 999, 3]),
            violation,
        ),
        (
            "acknowledgements later than may be",
            integers(ty::ACK_FREQUENCY, &[0, 1, 16_384_000, 3]),
            violation,
        ),
        (
            "more streams than can be",
            integers(ty::MAX_STREAMS_BIDI, &[(1 << 60) + 1]),
            TransportErrorCode::FRAME_ENCODING_ERROR,
        ),
    ];
    for (what, frames, code) in cases {
        let mut bench = server();
        bench.receive(&frames);
        assert_eq!(bench.error(), Some(code), "{what}");
        assert!(
            bench.sent().iter().all(|(ty, _)| *ty == ty::CONNECTION_CLOSE),
            "{what}"
        );
    }
}

#[test]
fn datagram_that_was_not_negotiated_is_an_error() {
    let mut bench = bench(
        Config {
            datagram_receive: false,
            ..config()
        },
        true,
    );
    bench.receive(&frames(|w| {
        frame::encode_datagram(w, [&b"hello"[..]].into_iter())
    }));
    assert_eq!(bench.error(), Some(TransportErrorCode::PROTOCOL_VIOLATION));
}

#[test]
fn reserved_bits_are_an_error_once_the_packet_is_authentic() {
    let mut bench = server();
    let mut datagram = vec![0x43 | 0x18];
    datagram.extend([2; 8]);
    datagram.extend([0, 0, 0, 1]);
    datagram.extend([1; 20]);
    let path = bench.path;
    let mut receive = bench.connection.receive(&path, Ecn::NotEct, &mut datagram);
    assert!(
        bench
            .connection
            .receive_next(bench.now, &mut receive, &mut bench.drops)
            .is_none()
    );
    assert_eq!(bench.error(), Some(TransportErrorCode::PROTOCOL_VIOLATION));
}

#[test]
fn packet_that_comes_again_is_acted_on_once() {
    let mut bench = server();
    let data = stream(0, 0, b"once");
    let remote = bench.path.remote.to_string();
    for _ in 0..3 {
        bench.receive_from(&remote, 7, &data);
    }
    assert_eq!(bench.delivered, [b"once"]);
    assert_eq!(bench.drops.get(DropReason::Duplicate), 2);
}

#[test]
fn flood_of_path_challenges_gets_few_answers_and_takes_no_memory() {
    let mut bench = server();
    for index in 0..1000u64 {
        bench.receive(&frames(|w| frame::encode_path_challenge(w, index.to_be_bytes())));
    }
    let responses = bench
        .sent()
        .iter()
        .filter(|(ty, _)| *ty == ty::PATH_RESPONSE)
        .count();
    assert!((1..=4).contains(&responses), "{responses}");
}

#[test]
fn flood_of_connection_ids_is_an_error() {
    let mut bench = server();
    for sequence in 1..100u8 {
        bench.receive(&frames(|w| {
            frame::encode_new_connection_id(
                w,
                &NewConnectionId {
                    sequence: u64::from(sequence),
                    retire_prior_to: 0,
                    cid: ConnectionId::new(&[sequence + 100; 8]).unwrap(),
                    reset_token: ResetToken([sequence; 16]),
                },
            );
        }));
    }
    assert_eq!(bench.error(), Some(TransportErrorCode::CONNECTION_ID_LIMIT_ERROR));
}

#[test]
fn probing_packet_from_elsewhere_is_answered_there_but_does_not_move_the_connection() {
    let mut bench = server();
    bench.receive(&stream(0, 0, b"hello"));
    bench.receive_from(
        "203.0.113.5:5",
        50,
        &frames(|w| frame::encode_path_challenge(w, *b"whothere")),
    );
    let there: SocketAddr = "203.0.113.5:5".parse().unwrap();
    assert!(bench.sent().contains(&(ty::PATH_RESPONSE, there)));
    assert_eq!(bench.connection.path().remote, CLIENT.parse().unwrap());
}

#[test]
fn only_a_newer_packet_moves_the_connection_and_its_new_address_is_challenged_within_three_times_what_came() {
    let mut bench = server();
    bench.receive_from(CLIENT, 50, &stream(0, 0, b"hello"));
    bench.sent();
    bench.receive_from("203.0.113.5:5", 49, &stream(0, 5, b"late"));
    assert_eq!(
        bench.connection.path().remote,
        CLIENT.parse().unwrap(),
        "an older packet is only late"
    );
    bench.receive_from("203.0.113.5:5", 51, &stream(0, 9, b"moved"));
    let there: SocketAddr = "203.0.113.5:5".parse().unwrap();
    assert_eq!(bench.connection.path().remote, there);
    // Much to send, and little that came from there.
    let streams = bench.connection.streams_mut();
    let key = streams.create(Dir::Uni);
    streams.start(key, true).unwrap();
    streams.send(key, vec![0; 50_000].into(), 0, false).unwrap();
    let mut bytes = 0;
    let mut challenged = false;
    while let Some((transmit, packet)) = bench.transmit() {
        assert_eq!(transmit.path.remote, there);
        bytes += packet.len();
        challenged |= packet.contains(&(ty::PATH_CHALLENGE as u8));
    }
    let came = 1 + 8 + 4 + 16 + stream(0, 9, b"moved").len();
    assert!(challenged && bytes <= 3 * came, "{bytes} bytes for {came}");
}

#[test]
fn closing_connection_answers_ever_more_rarely_and_never_after_the_peer_has_closed() {
    let mut bench = server();
    bench.connection.close(bench.now, 5);
    let mut closes = 0;
    for _ in 0..200 {
        closes += bench.sent().len();
        bench.receive(&stream(0, 0, b"still talking"));
    }
    assert!((2..=10).contains(&closes), "{closes}");
    assert!(bench.delivered.is_empty());
    bench.receive(&frames(|w| frame::encode_connection_close(w, 0, None, b"", 100)));
    assert!(bench.connection.is_drained());
    assert_eq!(bench.sent(), []);
}

#[test]
fn peer_that_closes_gets_one_answer_and_nothing_more() {
    let mut bench = server();
    bench.receive(&frames(|w| {
        frame::encode_connection_close(w, 9, None, b"bye", 100)
    }));
    assert_eq!(bench.sent(), [(ty::CONNECTION_CLOSE, bench.path.remote)]);
    for _ in 0..10 {
        bench.receive(&frames(frame::encode_ping));
        assert_eq!(bench.sent(), []);
    }
    bench.now += Duration::from_secs(60);
    bench.connection.on_timeout(bench.now);
    assert!(bench.connection.is_drained());
}

#[test]
fn idle_timeout_is_never_shorter_than_three_probe_timeouts() {
    let short = Config {
        idle_timeout: Duration::from_millis(10),
        initial_rtt: Duration::from_millis(200),
        ..config()
    };
    let bench = bench(short, true);
    // 200 ms + 4 * 100 ms, and 25 ms, three times.
    assert!(bench.connection.deadline().unwrap() >= bench.now + Duration::from_millis(1800));
}

#[test]
fn nothing_is_said_after_a_stateless_reset() {
    let mut bench = server();
    bench.connection.on_stateless_reset(bench.now);
    assert!(!bench.connection.is_open());
    assert_eq!(bench.sent(), [], "nothing is said to who has forgotten us");
}
