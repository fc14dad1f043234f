//! What the protocol engine costs, without sockets.
//!
//! `engine-bench packets N`: a client sends N full packets of stream data to a server in memory, in the clear, in runs of 40
//! that are acknowledged once. Run it under `valgrind --tool=callgrind --toggle-collect=` with `engine_bench::send`,
//! `engine_bench::receive` or `engine_bench::acknowledge` for the instructions of each side; `scripts/engine-cost.sh` does.
//!
//! `engine-bench handshakes N`: N whole handshakes, with the time that each side took; a thread that is taken off its processor
//! meanwhile is seen in the median only if it happens all the time.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use ringway::Bytes;
use ringway::connection::config::Config;
use ringway::connection::drops::DropCounts;
use ringway::connection::receive::Delivery;
use ringway::connection::shortcut::established_pair;
use ringway::connection::transmit::TransmitLimits;
use ringway::connection::{Connection, LocalCid, PathAddress, ServerStart};
use ringway::crypto::suite::CipherSuite;
use ringway::crypto::tls::{ClientTls, ServerTls, ServerVerification, TlsSession, warm_up};
use ringway::pki_types::{PrivateKeyDer, ServerName};
use ringway::streams::{AfterReceive, Dir, StreamEvent, StreamKey, StreamsConfig};
use ringway::wire::Version;
use ringway::wire::cid::{ConnectionId, ResetToken};
use ringway::wire::header::{self, Decoded};
use ringway_datapath::meta::{Ecn, PortId};
use ringway_datapath::time::Instant;

/// Packets in a run, and for each acknowledgement.
const RUN: usize = 40;
/// UDP payload of a full packet.
const DATAGRAM: u16 = 1472;
const LIMITS: TransmitLimits = TransmitLimits {
    segments_max: RUN,
    datagram_bytes_max: 65_507,
};

fn main() {
    let mut args = std::env::args().skip(1);
    let what = args.next().unwrap_or_default();
    let count: u64 = args.next().and_then(|count| count.parse().ok()).unwrap_or(10_000);
    match &what[..] {
        "packets" => packets(count),
        "handshakes" => handshakes(count),
        _ => say("usage: engine-bench packets|handshakes COUNT"),
    }
}

#[allow(clippy::print_stdout, reason = "the figures are its output")]
fn say(text: &str) {
    println!("{text}");
}

fn config() -> Config {
    Config {
        streams: StreamsConfig {
            connection_window: 1 << 40,
            window_bidi_local: 1 << 40,
            window_bidi_remote: 1 << 40,
            window_uni: 1 << 40,
            peer_streams: [100, 100],
            ..StreamsConfig::default()
        },
        initial_window_packets: 1000,
        initial_rtt: Duration::from_millis(1),
        initial_datagram_size: DATAGRAM,
        maximum_datagram_size: DATAGRAM,
        ..Config::default()
    }
}

fn paths() -> [PathAddress; 2] {
    let path = |local: &str, remote: &str| PathAddress {
        port: PortId(0),
        local: local.parse().expect("an address"),
        remote: remote.parse().expect("an address"),
    };
    [
        path("192.0.2.1:1", "192.0.2.2:2"),
        path("192.0.2.2:2", "192.0.2.1:1"),
    ]
}

fn cid(byte: u8) -> LocalCid {
    let cid = ConnectionId::new(&[byte; 8]).expect("8 bytes are within the limit of 20");
    LocalCid {
        cid,
        token: ResetToken([byte; 16]),
    }
}

fn packets(count: u64) {
    let mut now = Instant::from_nanos(1_000_000_000);
    let [mut client, mut server] = established_pair(now, &Arc::new(config()), paths(), [cid(1), cid(2)]);
    let data = Bytes::from(vec![7; 64 * 1024]);
    let streams = client.streams_mut();
    let key = streams.create(Dir::Uni);
    streams.start(key, true).expect("the first stream");
    let mut slot = vec![0; 65_507];
    let mut back = vec![0; 65_507];
    let mut sent = 0;
    let mut received = 0;
    while sent < count {
        now += Duration::from_micros(50);
        give(&mut client, key, &data);
        let (len, segment) = send(&mut client, now, &mut slot);
        sent += len.div_ceil(segment) as u64;
        received += receive(&mut server, now, &mut slot[..len], segment);
        let ack = send(&mut server, now, &mut back);
        acknowledge(&mut client, now, &mut back[..ack.0]);
    }
    say(&format!("{sent} packets, {received} bytes"));
}

/// Keeps enough data queued, as an application that answers completions does.
fn give(client: &mut Connection, key: StreamKey, data: &Bytes) {
    let streams = client.streams_mut();
    let mut completed = 0;
    while let Some(event) = streams.next_event() {
        completed += u64::from(matches!(event, StreamEvent::SendComplete { .. }));
    }
    black_box(completed);
    for _ in 0..1 {
        let _ = streams.send(key, data.clone(), 0, false);
    }
    while client.next_event().is_some() {}
}

#[inline(never)]
fn send(connection: &mut Connection, now: Instant, slot: &mut [u8]) -> (usize, usize) {
    connection
        .transmit(now, slot, &LIMITS)
        .map_or((0, 1), |transmit| (transmit.len, transmit.segment_size))
}

#[inline(never)]
fn receive(server: &mut Connection, now: Instant, run: &mut [u8], segment: usize) -> u64 {
    let mut drops = DropCounts::default();
    let mut bytes = 0;
    for datagram in run.chunks_mut(segment) {
        let mut receive = server.receive(paths_of_server(), Ecn::NotEct, datagram);
        while let Some(delivery) = server.receive_next(now, &mut receive, &mut drops) {
            if let Delivery::Stream {
                key,
                offset,
                data,
                fin,
            } = delivery
            {
                bytes += data.len() as u64;
                server.on_stream_delivered(now, key, offset, data, fin, data.len(), AfterReceive::Continue);
            }
        }
    }
    bytes
}

#[inline(never)]
fn acknowledge(client: &mut Connection, now: Instant, datagram: &mut [u8]) {
    let mut drops = DropCounts::default();
    let mut receive = client.receive(paths_of_client(), Ecn::NotEct, datagram);
    while client.receive_next(now, &mut receive, &mut drops).is_some() {}
}

/// Made once: addresses come with each datagram at no cost of the engine's.
fn paths_of_server() -> &'static PathAddress {
    static PATH: std::sync::LazyLock<PathAddress> = std::sync::LazyLock::new(|| paths()[1]);
    &PATH
}

fn paths_of_client() -> &'static PathAddress {
    static PATH: std::sync::LazyLock<PathAddress> = std::sync::LazyLock::new(|| paths()[0]);
    &PATH
}

fn handshakes(count: u64) {
    warm_up();
    let config = Arc::new(config());
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    let chain = vec![made.cert.der().clone()];
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).expect("a key");
    let alpns = vec![b"perf".to_vec()];
    let suites = [CipherSuite::Aes128Gcm];
    let server_tls =
        ServerTls::new(chain.clone(), key, alpns.clone(), &suites, None).expect("a server's TLS");
    let client_tls =
        ClientTls::new(ServerVerification::Roots(chain), None, alpns, &suites).expect("a client's TLS");
    let name = ServerName::try_from("localhost").expect("a name");
    let mut times: Vec<[Duration; 2]> = (0..count)
        .map(|index| handshake(&config, &client_tls, &server_tls, name.clone(), index))
        .collect();
    let mut alone: Vec<Duration> = (0..count)
        .map(|_| tls_alone(&client_tls, &server_tls, name.clone()))
        .collect();
    alone.sort();
    say(&format!(
        "server, TLS alone: {:.1} us median",
        micros(alone[alone.len() / 2])
    ));
    for (side, who) in ["client", "server"].into_iter().enumerate() {
        times.sort_by_key(|times| times[side]);
        let median = times[times.len() / 2][side];
        let low = times[times.len() / 10][side];
        say(&format!(
            "{who}: {:.1} us median, {:.1} us 10th percentile",
            micros(median),
            micros(low)
        ));
    }
}

fn micros(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}

/// The part of a handshake that TLS alone takes on the server: what the engine adds is the difference.
fn tls_alone(client_tls: &ClientTls, server_tls: &ServerTls, name: ServerName<'static>) -> Duration {
    let mut client =
        TlsSession::client(client_tls, Version::V1, name, vec![1, 1, 5]).expect("a client's session");
    let mut to_server = Vec::new();
    while client.write(&mut to_server).is_some() {}
    let start = std::time::Instant::now();
    let mut server = TlsSession::server(server_tls, Version::V1, vec![1, 1, 6]).expect("a server's session");
    server.read(&to_server).expect("a ClientHello");
    let mut flights = vec![Vec::new()];
    let mut keys = Vec::new();
    while let Some(change) = server.write(flights.last_mut().expect("one at least")) {
        keys.push(change);
        flights.push(Vec::new());
    }
    let mut spent = start.elapsed();
    let mut finished = Vec::new();
    for flight in &flights {
        client.read(flight).expect("a flight of the server");
        while client.write(&mut finished).is_some() {}
    }
    let start = std::time::Instant::now();
    server.read(&finished).expect("a Finished");
    spent += start.elapsed();
    assert!(!server.is_handshaking());
    black_box(keys.len());
    spent
}

/// One handshake up to its confirmation on both sides; the processor time of client and server.
fn handshake(
    config: &Arc<Config>,
    client_tls: &ClientTls,
    server_tls: &ServerTls,
    name: ServerName<'static>,
    index: u64,
) -> [Duration; 2] {
    let mut now = Instant::from_nanos(1_000_000_000);
    let mut spent = [Duration::ZERO; 2];
    let mut seed = [7; 32];
    seed[..8].copy_from_slice(&index.to_le_bytes());
    let paths = paths();
    let start = std::time::Instant::now();
    let mut client = Connection::client(
        now,
        Arc::clone(config),
        client_tls,
        name,
        paths[0],
        cid(1),
        Vec::new(),
        seed,
    );
    spent[0] += start.elapsed();
    let mut server: Option<Connection> = None;
    let mut slot = vec![0; 65_507];
    let mut drops = DropCounts::default();
    // Hello, Finished, HANDSHAKE_DONE, and the acknowledgement of that.
    for _ in 0..4 {
        now += Duration::from_micros(50);
        // What the client sends reaches the server, and the other way round.
        for side in 0..2 {
            loop {
                let begin = std::time::Instant::now();
                let transmit = match (side, &mut server) {
                    (0, _) => client.transmit(now, &mut slot, &LIMITS),
                    (_, Some(server)) => server.transmit(now, &mut slot, &LIMITS),
                    _ => None,
                };
                let middle = std::time::Instant::now();
                spent[side] += middle - begin;
                let Some(transmit) = transmit else { break };
                for datagram in slot[..transmit.len].chunks_mut(transmit.segment_size) {
                    if side == 0 && server.is_none() {
                        let Ok(Decoded::Long(first)) = header::decode(datagram, 8) else {
                            continue;
                        };
                        let start = ServerStart {
                            version: first.version,
                            peer_cid: first.scid,
                            original_dcid: first.dcid,
                            initial_dcid: first.dcid,
                            retry_scid: None,
                            address_validated: false,
                            path: paths[1],
                            local_cid: cid(2),
                        };
                        server = Some(Connection::server(now, &start, seed));
                    }
                    let receiver = if side == 0 {
                        server.as_mut()
                    } else {
                        Some(&mut client)
                    };
                    let Some(receiver) = receiver else { continue };
                    let mut receive = receiver.receive(&paths[1 - side], Ecn::NotEct, datagram);
                    while receiver.receive_next(now, &mut receive, &mut drops).is_some() {}
                    if receiver.take_client_hello().is_some() {
                        receiver.accept(now, Arc::clone(config), server_tls);
                    }
                }
                spent[1 - side] += middle.elapsed();
            }
        }
    }
    assert!(client.is_established() && server.is_some_and(|server| server.is_established()));
    spent
}
