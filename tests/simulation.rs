//! Applications over a virtual network that loses, reorders, duplicates, corrupts and marks packets, blacks out, refuses what is too large, and
//! rebinds addresses, while keys are updated, all of that at any moment: every byte arrives once and in order, events come in order, and both
//! sides shut down cleanly.
//!
//! A seed decides everything in a run. `TEST_SEED=n` runs that seed alone, `TEST_RUNS=n` so many seeds (from `TEST_FIRST=n` on).

#![allow(clippy::print_stderr, reason = "what a seed that is run alone does")]

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use ringway::sim::{Link, SimNetwork};
use ringway::{
    Bytes, CloseReason, CongestionControl, ConnectTarget, Connection, ConnectionEvent, ConnectionStats,
    Direction, DropReason, EventStatus, Execution, ExecutionConfig, Instant, Listener, ListenerEvent,
    ListenerOptions, RetryPolicy, Settings, Stream, StreamEvent, StreamScheduling, Version,
};
use ringway_tests::order::ordered;
use ringway_tests::{
    ALPN, World, address, configurations, configurations_for, pattern, settings, with_seeds,
};

const SERVER: &str = "10.0.0.1:443";
const CLIENT_IP: &str = "10.0.0.2";

/// What one side's application saw.
#[derive(Default)]
struct Seen {
    /// Connections that the listener has accepted (server).
    accepted: u32,
    connected: u32,
    /// The client's address has changed before the server's handshake was complete: the connection may fail.
    may_fail: bool,
    connection: Option<Connection>,
    path_changes: u64,
    key_updates: u64,
    /// Streams of the peer that ended whole, with their length, by ID.
    received: HashMap<u64, u64>,
    send_completes: u64,
    sends: u64,
    streams_open: i64,
    ended: u32,
    reasons: Vec<CloseReason>,
    paused: Vec<Stream>,
    pending: Vec<(Stream, usize)>,
}

type Shared = Arc<Mutex<Seen>>;

/// Checks one stream's events as they come, and answers receives in a way that follows from `rng`.
struct Checker {
    seen: Shared,
    rng: StdRng,
    started: bool,
    is_ours: bool,
    offset: u64,
    fin: bool,
    finished: bool,
    outstanding: HashMap<u64, ()>,
    ended: bool,
    /// Echo: how many bytes to answer with when the peer's data has ended.
    answer: Option<usize>,
}

impl Checker {
    fn on_event(&mut self, stream: &Stream, event: StreamEvent<'_>) -> EventStatus {
        assert!(!self.ended, "an event after ShutdownComplete: {event:?}");
        match event {
            StreamEvent::StartComplete(result) => {
                assert!(
                    self.is_ours && !self.started,
                    "one StartComplete, on streams of ours"
                );
                assert!(result.is_ok() || self.may_fail(), "{result:?}");
                self.started = true;
            }
            StreamEvent::Receive(receive) => {
                assert_eq!(receive.offset(), self.offset, "in order, once");
                assert!(!self.fin, "data behind the end");
                let data = receive.to_vec();
                assert_eq!(data, pattern(self.offset, data.len()), "content");
                let len = data.len();
                let part = if len > 1 {
                    self.rng.random_range(1..len)
                } else {
                    len
                };
                let (answer, consumed) = match self.rng.random_range(0..20) {
                    0 if part < len => (EventStatus::Continue(part), part),
                    1 if part < len => {
                        self.seen.lock().unwrap().paused.push(stream.clone());
                        (EventStatus::Consumed(part), part)
                    }
                    2 if len > 0 => {
                        self.seen.lock().unwrap().pending.push((stream.clone(), len));
                        (EventStatus::Pending, len)
                    }
                    _ => (EventStatus::Done, len),
                };
                self.offset += consumed as u64;
                self.fin = receive.fin() && consumed == len;
                return answer;
            }
            StreamEvent::PeerSendShutdown => {
                assert!(!self.finished);
                self.finished = true;
                let mut seen = self.seen.lock().unwrap();
                let id = stream.id().unwrap();
                assert_eq!(seen.received.insert(id, self.offset), None, "ended once");
                drop(seen);
                if let Some(len) = self.answer.take() {
                    self.send_all(stream, len);
                }
            }
            StreamEvent::SendComplete { context, canceled } => {
                assert!(!canceled || self.may_fail(), "nothing is given up");
                assert!(
                    self.outstanding.remove(&context).is_some(),
                    "one completion for each send"
                );
                self.seen.lock().unwrap().send_completes += 1;
            }
            StreamEvent::SendShutdownComplete { graceful } => {
                assert!(graceful || self.may_fail());
                assert!(
                    self.outstanding.is_empty() || !graceful,
                    "completions come before the end of sending"
                );
            }
            StreamEvent::ShutdownComplete { .. } => {
                self.ended = true;
                assert!(self.outstanding.is_empty());
                self.seen.lock().unwrap().streams_open -= 1;
            }
            other => panic!("unexpected {other:?}"),
        }
        EventStatus::Done
    }

    fn may_fail(&self) -> bool {
        self.seen.lock().unwrap().may_fail
    }

    fn send_all(&mut self, stream: &Stream, len: usize) {
        let mut sent = 0;
        let mut context = 0;
        loop {
            let piece = self.rng.random_range(1..20_000).min(len - sent);
            let fin = sent + piece == len;
            let taken = stream.send(Bytes::from(pattern(sent as u64, piece)), context, fin);
            if self.may_fail() && taken.is_err() {
                return;
            }
            taken.unwrap();
            self.outstanding.insert(context, ());
            self.seen.lock().unwrap().sends += 1;
            sent += piece;
            context += 1;
            if fin {
                return;
            }
        }
    }
}

/// What the application does outside of its handlers: takes up receiving where it was paused or left pending.
fn catch_up(seen: &Shared) {
    let (paused, pending) = {
        let mut seen = seen.lock().unwrap();
        (
            std::mem::take(&mut seen.paused),
            std::mem::take(&mut seen.pending),
        )
    };
    for stream in paused {
        // An error only if the connection has ended, which shows elsewhere.
        let _ = stream.set_receive_enabled(true);
    }
    for (stream, len) in pending {
        let _ = stream.receive_complete(len);
    }
}

fn checker(seen: &Shared, seed: u64, is_ours: bool, answer: Option<usize>) -> Checker {
    seen.lock().unwrap().streams_open += 1;
    Checker {
        seen: Arc::clone(seen),
        rng: StdRng::seed_from_u64(seed),
        started: false,
        is_ours,
        offset: 0,
        fin: false,
        finished: false,
        outstanding: HashMap::new(),
        ended: false,
        answer,
    }
}

fn on_connection_event(seen: &Shared, event: &ConnectionEvent<'_>) {
    let mut seen = seen.lock().unwrap();
    assert!(
        seen.ended < seen.accepted.max(1),
        "an event after the last: {event:?}"
    );
    match event {
        ConnectionEvent::Connected { alpn, .. } => {
            assert_eq!(*alpn, ALPN);
            seen.connected += 1;
        }
        ConnectionEvent::ShutdownByTransport { reason } => seen.reasons.push(reason.clone()),
        ConnectionEvent::ShutdownComplete { stats, .. } => {
            seen.ended += 1;
            seen.path_changes += stats.path_changes;
            seen.key_updates += stats.key_updates;
        }
        _ => {}
    }
}

/// What happens to a connection from outside.
#[derive(Clone, Debug)]
enum Deed {
    /// The client's NAT forgets its binding: from now on the client is seen at this address.
    Rebind(SocketAddr),
    /// The application of the server, or of the client, asks for a key update.
    UpdateKeys { server: bool },
    /// The network is like this from now on.
    Network(Link),
}

/// What a seed means.
#[derive(Debug)]
struct Plan {
    link: Link,
    /// In order.
    deeds: Vec<(Duration, Deed)>,
    settings: Settings,
    retry: RetryPolicy,
    partitions: usize,
    segments: usize,
    streams: usize,
}

fn plan(seed: u64, rng: &mut StdRng) -> Plan {
    let pick = |rng: &mut StdRng, values: &[u64]| values[rng.random_range(0..values.len())];
    let ms = Duration::from_millis;
    let link = Link {
        delay: ms(pick(rng, &[0, 1, 5, 30, 150])),
        jitter: ms(pick(rng, &[0, 0, 1, 10])),
        rate: [None, None, Some(1_000_000), Some(20_000_000)][rng.random_range(0..4)],
        queue_bytes: 200_000,
        // The grid: 0 to 10 %.
        loss: (seed % 11) as f64 / 100.0,
        duplication: pick(rng, &[0, 0, 2]) as f64 / 100.0,
        corruption: pick(rng, &[0, 0, 2]) as f64 / 100.0,
        mtu: pick(rng, &[1200, 1350, 1500, 9000]) as usize,
        congestion_marking: pick(rng, &[0, 0, 3]) as f64 / 100.0,
        refuses_too_large: rng.random_bool(0.3),
        bleaches_ecn: rng.random_bool(0.2),
        blackout: false,
    };
    let deeds = deeds(&link, rng);
    let moves = deeds.iter().any(|(_, deed)| matches!(deed, Deed::Rebind(_)));
    Plan {
        link,
        deeds,
        settings: Settings {
            version: if rng.random_bool(0.5) {
                Version::V1
            } else {
                Version::V2
            },
            offered_versions: [
                None,
                Some(vec![Version::V1, Version::V2]),
                Some(vec![Version::V2, Version::V1]),
            ][rng.random_range(0..3)]
            .clone(),
            accepted_versions: [
                None,
                Some(vec![Version::V1, Version::V2]),
                Some(vec![Version::V2, Version::V1]),
            ][rng.random_range(0..3)]
            .clone(),
            congestion_control: if rng.random_bool(0.7) {
                CongestionControl::Cubic
            } else {
                CongestionControl::NewReno
            },
            stream_scheduling: if rng.random_bool(0.5) {
                StreamScheduling::Fifo
            } else {
                StreamScheduling::RoundRobin
            },
            stream_receive_window: pick(rng, &[2_000, 65_536, 1 << 20]) as u32,
            connection_flow_control_window: pick(rng, &[30_000, 1 << 20, 16 << 20]) as u32,
            initial_datagram_size: 1200,
            maximum_datagram_size: pick(rng, &[1200, 1472, 8952]) as u16,
            ecn_enabled: rng.random_bool(0.5),
            // Blackout, storm and loss may keep the first flights from arriving for longer than the usual 10 s.
            handshake_idle_timeout: Duration::from_secs(60),
            peer_bidi_stream_count: pick(rng, &[1, 3, 100]),
            peer_uni_stream_count: 2,
            max_bytes_per_key: pick(rng, &[1 << 38, 1 << 38, 120_000]),
            grease_quic_bit_enabled: rng.random_bool(0.3),
            // A client that only waits never learns that its NAT has forgotten it.
            keep_alive_interval: if moves { ms(1000) } else { Duration::ZERO },
            ..settings()
        },
        retry: if rng.random_bool(0.3) {
            RetryPolicy::Always
        } else {
            RetryPolicy::Never
        },
        partitions: rng.random_range(1..4),
        segments: [1, 8, 40][rng.random_range(0..3)],
        streams: rng.random_range(1..12),
    }
}

/// Rebindings, key updates, blackouts and storms, each at a moment that may be in the handshake, in the middle of all, or behind it.
fn deeds(link: &Link, rng: &mut StdRng) -> Vec<(Duration, Deed)> {
    let ms = Duration::from_millis;
    let pick = |rng: &mut StdRng, values: &[u64]| values[rng.random_range(0..values.len())];
    let moment = |rng: &mut StdRng| {
        let latest = pick(rng, &[5, 50, 400, 2000]);
        ms(rng.random_range(0..=latest))
    };
    let mut deeds = Vec::new();
    for number in 0..[0, 0, 1, 1, 2, 3][rng.random_range(0..6)] {
        let seen = match rng.random_range(0..8) {
            // Back to where it was at first.
            0 => local(),
            // A network of its own, and not only another port.
            1 | 2 => SocketAddr::new(format!("10.0.1.{number}").parse().unwrap(), 3000),
            _ => SocketAddr::new(local().ip(), 1024 + number),
        };
        deeds.push((moment(rng), Deed::Rebind(seen)));
    }
    for _ in 0..[0, 0, 1, 4][rng.random_range(0..4)] {
        let server = rng.random_bool(0.5);
        deeds.push((moment(rng), Deed::UpdateKeys { server }));
    }
    if rng.random_bool(0.25) {
        let blackout = Link {
            blackout: true,
            ..link.clone()
        };
        let begins = moment(rng);
        deeds.push((begins, Deed::Network(blackout)));
        deeds.push((
            begins + ms(pick(rng, &[100, 700, 2500])),
            Deed::Network(link.clone()),
        ));
    }
    // What is sent now, control frames above all, is lost, or comes again, late, and in another order.
    for _ in 0..[0, 0, 1, 2][rng.random_range(0..4)] {
        let storm = Link {
            loss: pick(rng, &[0, 20, 40]) as f64 / 100.0,
            duplication: pick(rng, &[0, 30, 80]) as f64 / 100.0,
            jitter: ms(pick(rng, &[0, 20, 300])),
            ..link.clone()
        };
        let begins = moment(rng);
        deeds.push((begins, Deed::Network(storm)));
        deeds.push((
            begins + ms(pick(rng, &[20, 200, 1000])),
            Deed::Network(link.clone()),
        ));
    }
    deeds.sort_by_key(|(at, _)| *at);
    deeds
}

/// The client's own address.
fn local() -> SocketAddr {
    SocketAddr::new(CLIENT_IP.parse().unwrap(), 49_152)
}

/// How a connection may end whose client was moved by its network in the handshake, during which addresses must stay (RFC 9000 section 9).
fn fits_early_move(reason: &CloseReason) -> bool {
    match reason {
        CloseReason::IdleTimeout
        | CloseReason::HandshakeTimeout
        | CloseReason::Unresponsive
        | CloseReason::StatelessReset => true,
        // A token of a Retry is for one address.
        CloseReason::PeerTransport { code, .. } => format!("{code:?}").contains("INVALID_TOKEN"),
        _ => false,
    }
}

/// Whether the connection has. A client that was moved may have begun another at the server, and the one from where it was before fails.
fn has_failed(client: &Seen, server: &Seen) -> bool {
    !client.reasons.is_empty() || (!server.reasons.is_empty() && !client.may_fail)
}

/// What all runs of this process came to.
static TOTALS: Mutex<Totals> = Mutex::new(Totals {
    early_moves: 0,
    failed: 0,
    path_changes: 0,
    key_updates: 0,
});

#[derive(Debug)]
struct Totals {
    /// Connections whose client was moved in the handshake, and those of them that failed.
    early_moves: u64,
    failed: u64,
    /// That servers have followed.
    path_changes: u64,
    key_updates: u64,
}

fn run(seed: u64) {
    let mut rng = StdRng::seed_from_u64(seed);
    let plan = plan(seed, &mut rng);
    if std::env::var_os("TEST_SEED").is_some() {
        eprintln!("{plan:#?}");
    }
    let mut world = World::new(seed);
    world.network.set_default_link(plan.link.clone());
    if std::env::var_os("TEST_SEED").is_some() {
        // What goes over the network, for whoever looks into this one seed.
        world.network.set_capture(Box::new(|seen| {
            let (millis, first) = (seen.time.as_nanos() / 1_000_000, seen.bytes[0]);
            eprintln!(
                "{millis} {} -> {}: {} {first:02x} {:?}",
                seen.from,
                seen.to,
                seen.bytes.len(),
                seen.verdict
            );
        }));
    }
    let (server_config, client_config) = configurations(plan.settings.clone(), plan.settings.clone());
    let server = world.host(address(SERVER).ip(), plan.partitions, plan.segments);
    let client = world.host(CLIENT_IP.parse().unwrap(), 1, plan.segments);
    let (server_seen, client_seen): (Shared, Shared) = Default::default();

    let listener_seen = Arc::clone(&server_seen);
    let options = ListenerOptions::new(address(SERVER), &[ALPN]).with_retry(plan.retry);
    let answer_len = rng.random_range(0..60_000);
    let listener = Listener::start(&server, options, move |event| {
        let ListenerEvent::NewConnection(incoming) = event else {
            return;
        };
        let seen = Arc::clone(&listener_seen);
        let mut next = seed;
        seen.lock().unwrap().accepted += 1;
        incoming.accept(
            &server_config,
            ordered(move |connection: &Connection, event: ConnectionEvent<'_>| {
                on_connection_event(&seen, &event);
                if let ConnectionEvent::Connected { .. } = event {
                    seen.lock().unwrap().connection = Some(connection.clone());
                }
                if let ConnectionEvent::PeerStreamStarted(stream) = event {
                    next += 1;
                    let bidirectional = stream.direction() == Direction::Bidirectional;
                    let mut checker = checker(&seen, next, false, bidirectional.then_some(answer_len));
                    stream.accept(ordered(move |stream: &Stream, event: StreamEvent<'_>| {
                        checker.on_event(stream, event)
                    }));
                }
                EventStatus::Done
            }),
        );
    })
    .unwrap();

    let seen = Arc::clone(&client_seen);
    let target = ConnectTarget::new(address(SERVER), "localhost");
    let connection = Connection::start(
        &client,
        &client_config,
        &target,
        ordered(move |_: &Connection, event: ConnectionEvent<'_>| {
            on_connection_event(&seen, &event);
            EventStatus::Done
        }),
    )
    .unwrap();
    let mut sizes = Vec::new();
    let mut answers = 0;
    for index in 0..plan.streams {
        let direction = if index % 3 == 2 {
            Direction::Unidirectional
        } else {
            Direction::Bidirectional
        };
        answers += usize::from(direction == Direction::Bidirectional);
        let len = rng.random_range(0..80_000);
        sizes.push(len as u64);
        let mut checker = checker(&client_seen, seed + 1000 + index as u64, true, None);
        // Queued before the stream is started, and before the connection exists.
        let sends = Arc::new(Mutex::new(None));
        let slot = Arc::clone(&sends);
        let stream = Stream::open(
            &connection,
            direction,
            ordered(move |stream: &Stream, event: StreamEvent<'_>| {
                if let Some(len) = slot.lock().unwrap().take() {
                    checker.send_all(stream, len);
                }
                checker.on_event(stream, event)
            }),
        )
        .unwrap();
        *sends.lock().unwrap() = Some(len);
        stream.detach();
        stream.start(false).unwrap();
    }

    let start = world.now;
    for (at, deed) in &plan.deeds {
        let left = *at - world.now.since(start).min(*at);
        world.run_until(left, |_| {
            catch_up(&server_seen);
            catch_up(&client_seen);
            false
        });
        match deed {
            Deed::Rebind(seen) => {
                let early = server_seen.lock().unwrap().connected == 0;
                server_seen.lock().unwrap().may_fail |= early;
                client_seen.lock().unwrap().may_fail |= early;
                world.network.rebind(local(), *seen);
            }
            // An error only if the connection is not there yet, or has ended.
            Deed::UpdateKeys { server: false } => drop(connection.update_keys()),
            Deed::UpdateKeys { server: true } => {
                if let Some(connection) = &server_seen.lock().unwrap().connection {
                    let _ = connection.update_keys();
                }
            }
            Deed::Network(link) => world.network.set_default_link(link.clone()),
        }
    }
    let done = world.run_until(Duration::from_secs(600), |_| {
        catch_up(&server_seen);
        catch_up(&client_seen);
        let (server, client) = (server_seen.lock().unwrap(), client_seen.lock().unwrap());
        let failed = has_failed(&client, &server);
        let streams_done =
            client.connected == 1 && client.streams_open == 0 && server.received.len() == plan.streams;
        failed || (streams_done && server.streams_open == 0)
    });
    let may_fail = client_seen.lock().unwrap().may_fail;
    let failed = {
        let (server, client) = (server_seen.lock().unwrap(), client_seen.lock().unwrap());
        has_failed(&client, &server)
    };
    if may_fail && failed {
        // Both sides find out, and say why.
        let ended = world.run_until(Duration::from_secs(200), |_| {
            let (server, client) = (server_seen.lock().unwrap(), client_seen.lock().unwrap());
            client.ended == 1 && server.ended == server.accepted
        });
        assert!(ended, "both sides end");
        let (server, client) = (server_seen.lock().unwrap(), client_seen.lock().unwrap());
        let reasons = || client.reasons.iter().chain(&server.reasons);
        assert!(
            reasons().all(fits_early_move),
            "{:?} {:?}",
            client.reasons,
            server.reasons
        );
    } else {
        let (server, client) = (server_seen.lock().unwrap(), client_seen.lock().unwrap());
        assert!(
            client.reasons.is_empty() && (server.reasons.is_empty() || may_fail),
            "{:?} {:?}",
            client.reasons,
            server.reasons
        );
        assert!(
            done,
            "not done: client has {} streams open, server {}",
            client.streams_open, server.streams_open
        );
        assert_eq!((server.connected, client.connected), (1, 1));
        let mut received: Vec<u64> = server.received.values().copied().collect();
        received.sort();
        sizes.sort();
        assert_eq!(received, sizes, "every byte of the client");
        assert_eq!(client.received.len(), answers);
        assert!(
            client.received.values().all(|&len| len == answer_len as u64),
            "every byte of the server"
        );
        assert_eq!(client.sends, client.send_completes);
        assert_eq!(server.sends, server.send_completes);
    }
    if !failed {
        connection.shutdown(0).unwrap();
        let ended = world.run_until(Duration::from_secs(200), |_| {
            let (server, client) = (server_seen.lock().unwrap(), client_seen.lock().unwrap());
            client.ended == 1 && server.ended == server.accepted
        });
        assert!(ended, "both sides end");
    }
    assert!(connection.shutdown(0).is_err(), "handles answer Closed");
    assert!(server_seen.lock().unwrap().reasons.iter().all(fits_early_move));
    let mut totals = TOTALS.lock().unwrap();
    totals.early_moves += u64::from(may_fail);
    totals.failed += u64::from(failed);
    let server = server_seen.lock().unwrap();
    totals.path_changes += server.path_changes;
    totals.key_updates += server.key_updates + client_seen.lock().unwrap().key_updates;
    drop(listener);
}

#[test]
fn applications_work_over_networks_that_lose_reorder_repeat_black_out_and_move() {
    // The grid of losses 20 times.
    with_seeds(220, "simulation applications_work", run);
    eprintln!("{:?}", TOTALS.lock().unwrap());
}

/// What a connection has come to, as its last event has it.
fn last_stats(stats: &Arc<Mutex<Vec<ConnectionStats>>>, event: &ConnectionEvent<'_>) {
    if let ConnectionEvent::ShutdownComplete { stats: last, .. } = event {
        stats.lock().unwrap().push(**last);
    }
}

#[test]
fn handshake_on_links_that_refuse_its_datagrams_for_their_size_waits_for_no_probe_timeout() {
    // 1280 bytes of IPv6: on the server's side, on the client's, or on both.
    let narrow = Link {
        mtu: 1232,
        refuses_too_large: true,
        ..Link::default()
    };
    let hosts = [address(SERVER).ip(), CLIENT_IP.parse().unwrap()];
    for (initial_datagram_size, segments, narrow_hosts) in [
        (1240, 1, &hosts[..]),
        (1240, 40, &hosts[..]),
        (1240, 8, &hosts[..1]),
        (1240, 8, &hosts[1..]),
        (Settings::default().initial_datagram_size, 8, &hosts[..]),
    ] {
        let mut world = World::new(7);
        for from in narrow_hosts {
            let to = hosts.into_iter().find(|to| to != from).unwrap();
            world.network.set_link(*from, to, narrow.clone());
        }
        let settings = Settings {
            initial_datagram_size,
            ..settings()
        };
        // A certificate that takes several datagrams.
        let names = (0..100).map(|number| format!("very-long-name-{number}.example.org"));
        let names = ["localhost".to_owned()].into_iter().chain(names).collect();
        let (server_config, client_config) = configurations_for(names, settings.clone(), settings);
        let server = world.host(hosts[0], 1, segments);
        let client = world.host(hosts[1], 1, segments);
        let options = ListenerOptions::new(address(SERVER), &[ALPN]).with_retry(RetryPolicy::Never);
        let stats: Arc<Mutex<Vec<ConnectionStats>>> = Arc::default();
        let server_stats = Arc::clone(&stats);
        let listener = Listener::start(&server, options, move |event| {
            if let ListenerEvent::NewConnection(incoming) = event {
                let stats = Arc::clone(&server_stats);
                incoming.accept(
                    &server_config,
                    move |_: &Connection, event: ConnectionEvent<'_>| {
                        last_stats(&stats, &event);
                        if let ConnectionEvent::PeerStreamStarted(stream) = event {
                            stream.accept(|stream: &Stream, event: StreamEvent<'_>| {
                                if let StreamEvent::PeerSendShutdown = event {
                                    stream.send(Bytes::from(pattern(0, 100_000)), 0, true).unwrap();
                                }
                                EventStatus::Done
                            });
                        }
                        EventStatus::Done
                    },
                );
            }
        })
        .unwrap();
        let client_stats = Arc::clone(&stats);
        let target = ConnectTarget::new(address(SERVER), "localhost");
        let handler = move |_: &Connection, event: ConnectionEvent<'_>| {
            last_stats(&client_stats, &event);
            EventStatus::Done
        };
        let connection = Connection::start(&client, &client_config, &target, handler).unwrap();
        let answered = Arc::new(AtomicBool::new(false));
        let handler_answered = Arc::clone(&answered);
        let handler = move |_: &Stream, event: StreamEvent<'_>| {
            if let StreamEvent::PeerSendShutdown = event {
                handler_answered.store(true, Ordering::Relaxed);
            }
            EventStatus::Done
        };
        let stream = Stream::open(&connection, Direction::Bidirectional, handler).unwrap();
        stream.start(false).unwrap();
        stream.send(Bytes::from(pattern(0, 100_000)), 0, true).unwrap();
        let case = format!("{initial_datagram_size} bytes, {segments} at a time, {narrow_hosts:?}");
        assert!(
            world.run_until(Duration::from_secs(10), |_| answered.load(Ordering::Relaxed)),
            "{case}"
        );
        world.run_for(Duration::from_secs(2));
        connection.shutdown(0).unwrap();
        assert!(world.run_until(Duration::from_secs(10), |_| stats.lock().unwrap().len() == 2));
        for last in stats.lock().unwrap().iter() {
            assert_eq!(
                (last.probe_timeouts, last.lost_packets, last.congestion_events),
                (0, 0, 0),
                "{case}"
            );
        }
        world.run_for(Duration::from_secs(2));
        for (host, registration) in hosts.iter().zip([&server, &client]) {
            let refused = registration.stats()[0].device.send_too_big;
            assert_eq!(refused > 0, narrow_hosts.contains(host), "{case}: {refused}");
        }
        drop(listener);
    }
}

#[test]
fn server_that_has_forgotten_a_connection_resets_it() {
    let mut world = World::new(5);
    // The client is the last to be heard, and so the server the first to give up.
    let server_settings = Settings {
        idle_timeout: Duration::from_secs(2),
        ..settings()
    };
    let client_settings = Settings {
        keep_alive_interval: Duration::from_millis(1500),
        ..server_settings.clone()
    };
    let (server_config, client_config) = configurations(server_settings, client_settings);
    let server = world.host(address(SERVER).ip(), 2, 1);
    let client = world.host(CLIENT_IP.parse().unwrap(), 1, 1);
    let options = ListenerOptions::new(address(SERVER), &[ALPN]).with_retry(RetryPolicy::Never);
    let _listener = Listener::start(&server, options, move |event| {
        if let ListenerEvent::NewConnection(incoming) = event {
            incoming.accept(&server_config, |_: &Connection, _: ConnectionEvent<'_>| {
                EventStatus::Done
            });
        }
    })
    .unwrap();
    let seen: Shared = Arc::default();
    let handler_seen = Arc::clone(&seen);
    let target = ConnectTarget::new(address(SERVER), "localhost");
    let _connection = Connection::start(
        &client,
        &client_config,
        &target,
        ordered(move |_: &Connection, event: ConnectionEvent<'_>| {
            on_connection_event(&handler_seen, &event);
            EventStatus::Done
        }),
    )
    .unwrap();
    assert!(world.run_until(Duration::from_secs(1), |_| seen.lock().unwrap().connected == 1));
    world.run_for(Duration::from_millis(500));
    world.network.set_default_link(Link {
        blackout: true,
        ..Link::default()
    });
    world.run_for(Duration::from_millis(2300));
    world.network.set_default_link(Link::default());
    assert!(world.run_until(Duration::from_secs(5), |_| {
        !seen.lock().unwrap().reasons.is_empty()
    }));
    assert_eq!(seen.lock().unwrap().reasons, [CloseReason::StatelessReset]);
}

#[test]
fn strangers_whose_initials_name_another_partition_take_a_quarter_of_its_places() {
    let network = SimNetwork::new(7);
    network.disable_steering();
    let mut now = Instant::from_nanos(1_000_000_000);
    let config = ExecutionConfig::default();
    let opened = Execution::create_simulated(&network, address(SERVER).ip(), 2, 8, &config, now);
    let (server, mut contexts) = opened.unwrap();
    let options = ListenerOptions::new(address(SERVER), &[ALPN]);
    let _listener = Listener::start(&server, options, |_| {}).unwrap();
    for context in &mut contexts {
        context.poll_at(now);
    }
    // A long header of version 1 with a connection ID of 8 bytes that names one of the two partitions; nobody can decrypt the rest.
    let mut initial = [0x5a; 1200];
    initial[..6].copy_from_slice(&[0xc0, 0, 0, 0, 1, 8]);
    initial[14..18].copy_from_slice(&[0, 0, 0x44, 0x92]);
    for source in 1..=40u16 {
        let from = SocketAddr::new(CLIENT_IP.parse().unwrap(), 1000 + source);
        for number in 0..100u8 {
            initial[7] = number & 1;
            initial[8] = number;
            network.send(now, from, address(SERVER), &initial);
        }
    }
    // The other partition is busy with something else.
    for _ in 0..2000 {
        contexts[0].poll_at(now);
        now += Duration::from_millis(1);
    }
    let stats = server.stats()[0].worker;
    assert!((1..=256).contains(&stats.handed_over), "{stats:?}");
    assert!(stats.drops.get(DropReason::InvalidInitial) > 500, "{stats:?}");
    assert_eq!(stats.drops.get(DropReason::HandoverFull), 0, "{stats:?}");
}

#[test]
fn client_that_comes_before_the_worker_has_seen_a_new_listener_is_not_refused() {
    let network = SimNetwork::new(8);
    let mut now = Instant::from_nanos(1_000_000_000);
    let config = ExecutionConfig::default();
    let host = |ip| Execution::create_simulated(&network, ip, 1, 8, &config, now).unwrap();
    let (server, mut at_server) = host(address(SERVER).ip());
    let (client, mut at_client) = host(CLIENT_IP.parse().unwrap());
    let (server_config, client_config) = configurations(settings(), settings());
    let listen = || {
        let config = Arc::clone(&server_config);
        let accept = move |event: ListenerEvent| {
            if let ListenerEvent::NewConnection(incoming) = event {
                incoming.accept(&config, |_: &Connection, _: ConnectionEvent<'_>| {});
            }
        };
        Listener::start(&server, ListenerOptions::new(address(SERVER), &[ALPN]), accept).unwrap()
    };
    let seen: Shared = Arc::default();
    let connect = || {
        let seen = Arc::clone(&seen);
        let handler = move |_: &Connection, event: ConnectionEvent<'_>| on_connection_event(&seen, &event);
        let target = ConnectTarget::new(address(SERVER), "localhost");
        Connection::start(&client, &client_config, &target, handler).unwrap()
    };
    let mut run = |millis: u64, with_server: bool| {
        for _ in 0..millis {
            for context in &mut at_client {
                context.poll_at(now);
            }
            for context in at_server.iter_mut().filter(|_| with_server) {
                context.poll_at(now);
            }
            now += Duration::from_millis(1);
        }
    };
    // Its connection keeps the port after the listener.
    let listener = listen();
    let _first = connect();
    run(200, true);
    assert_eq!(seen.lock().unwrap().connected, 1);
    listener.stop();
    run(100, true);
    let _second = connect();
    // The packet is there when the server's turn begins, and what the listener is to the worker waits for the same turn.
    run(100, false);
    let _listener = listen();
    run(200, true);
    let seen = seen.lock().unwrap();
    assert_eq!((seen.connected, &seen.reasons[..]), (2, &[][..]));
}

#[test]
fn datagrams_that_arrive_at_another_partition_are_handed_over() {
    let mut world = World::new(6);
    world.network.disable_steering();
    let settings = Settings {
        keep_alive_interval: Duration::from_millis(200),
        ..settings()
    };
    let (server_config, client_config) = configurations(settings.clone(), settings);
    let server = world.host(address(SERVER).ip(), 3, 8);
    let client = world.host(CLIENT_IP.parse().unwrap(), 1, 8);
    let options = ListenerOptions::new(address(SERVER), &[ALPN]).with_retry(RetryPolicy::Never);
    let server_seen: Shared = Arc::default();
    let listener_seen = Arc::clone(&server_seen);
    let _listener = Listener::start(&server, options, move |event| {
        let ListenerEvent::NewConnection(incoming) = event else {
            return;
        };
        let seen = Arc::clone(&listener_seen);
        incoming.accept(
            &server_config,
            ordered(move |_: &Connection, event: ConnectionEvent<'_>| {
                on_connection_event(&seen, &event);
                if let ConnectionEvent::PeerStreamStarted(stream) = event {
                    let mut checker = checker(&seen, 1, false, None);
                    stream.accept(ordered(move |stream: &Stream, event: StreamEvent<'_>| {
                        checker.on_event(stream, event)
                    }));
                }
                EventStatus::Done
            }),
        );
    })
    .unwrap();
    let client_seen: Shared = Arc::default();
    let seen = Arc::clone(&client_seen);
    let target = ConnectTarget::new(address(SERVER), "localhost");
    let connection = Connection::start(
        &client,
        &client_config,
        &target,
        ordered(move |_: &Connection, event: ConnectionEvent<'_>| {
            on_connection_event(&seen, &event);
            EventStatus::Done
        }),
    )
    .unwrap();
    for round in 0..6u16 {
        let mut checker = checker(&client_seen, 2, true, None);
        let stream = Stream::open(
            &connection,
            Direction::Unidirectional,
            ordered(move |stream: &Stream, event: StreamEvent<'_>| {
                if matches!(event, StreamEvent::StartComplete(_)) {
                    checker.send_all(stream, 30_000);
                }
                checker.on_event(stream, event)
            }),
        )
        .unwrap();
        stream.start(false).unwrap();
        let arrived = world.run_until(Duration::from_secs(30), |_| {
            catch_up(&server_seen);
            server_seen.lock().unwrap().received.len() == usize::from(round) + 1
        });
        assert!(arrived, "round {round}");
        // From another port the next packets arrive at another partition.
        let ip = CLIENT_IP.parse().unwrap();
        world
            .network
            .rebind(SocketAddr::new(ip, 49_152), SocketAddr::new(ip, 2000 + round));
        world.run_for(Duration::from_secs(1));
    }
    let handed_over: u64 = server.stats().iter().map(|stats| stats.worker.handed_over).sum();
    assert!(handed_over > 0);
    assert!(client_seen.lock().unwrap().reasons.is_empty());
}

/// A transfer in which the client's port changes so many times, `gap` apart, while nothing of the server arrives.
fn transfer_with_port_changes(changes: u16, gap: Duration) {
    let mut world = World::new(u64::from(changes));
    let (server_config, client_config) = configurations(settings(), settings());
    let server = world.host(address(SERVER).ip(), 1, 1);
    let client = world.host(CLIENT_IP.parse().unwrap(), 1, 1);
    let options = ListenerOptions::new(address(SERVER), &[ALPN]).with_retry(RetryPolicy::Never);
    let received = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&received);
    let _listener = Listener::start(&server, options, move |event| {
        if let ListenerEvent::NewConnection(incoming) = event {
            let count = Arc::clone(&count);
            incoming.accept(
                &server_config,
                move |_: &Connection, event: ConnectionEvent<'_>| {
                    if let ConnectionEvent::PeerStreamStarted(stream) = event {
                        let count = Arc::clone(&count);
                        stream.accept(move |_: &Stream, event: StreamEvent<'_>| {
                            if let StreamEvent::Receive(data) = event {
                                count.fetch_add(data.len() as u64, Ordering::Relaxed);
                            }
                            EventStatus::Done
                        });
                    }
                    EventStatus::Done
                },
            );
        }
    })
    .unwrap();
    let seen: Shared = Arc::default();
    let handler_seen = Arc::clone(&seen);
    let target = ConnectTarget::new(address(SERVER), "localhost");
    let connection = Connection::start(
        &client,
        &client_config,
        &target,
        move |connection: &Connection, event: ConnectionEvent<'_>| {
            on_connection_event(&handler_seen, &event);
            if let ConnectionEvent::Connected { .. } = event {
                let stream = Stream::open(
                    connection,
                    Direction::Unidirectional,
                    |_: &Stream, _: StreamEvent<'_>| EventStatus::Done,
                );
                let stream = stream.unwrap();
                stream.start(true).unwrap();
                stream.send(Bytes::from(vec![1; 50_000]), 0, true).unwrap();
            }
            EventStatus::Done
        },
    )
    .unwrap();
    assert!(world.run_until(Duration::from_secs(1), |_| received.load(Ordering::Relaxed) > 0));
    let silence = Link {
        blackout: true,
        ..Link::default()
    };
    world
        .network
        .set_link(address(SERVER).ip(), local().ip(), silence);
    for change in 1..=changes {
        world
            .network
            .rebind(local(), SocketAddr::new(local().ip(), 2000 + change));
        world.run_for(gap);
    }
    world
        .network
        .set_link(address(SERVER).ip(), local().ip(), Link::default());
    let all = world.run_until(Duration::from_secs(30), |_| {
        received.load(Ordering::Relaxed) == 50_000
    });
    assert!(
        all,
        "{changes} changes, {gap:?} apart: {:?}",
        seen.lock().unwrap().reasons
    );
    connection.shutdown(0).unwrap();
    world.run_for(Duration::from_secs(1));
    assert!(
        seen.lock().unwrap().reasons.is_empty(),
        "{changes} changes, {gap:?} apart"
    );
}

#[test]
fn connection_survives_port_changes_while_nothing_of_the_server_arrives() {
    for changes in 2..=5 {
        for step in 1..=34 {
            transfer_with_port_changes(changes, Duration::from_millis(step * 20));
        }
    }
}
