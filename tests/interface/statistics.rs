//! Counters and estimates: each moves when what it counts happens, and not before.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use ringway::sim::{Captured, Link};
use ringway::{
    CipherSuite, Connection, Direction, DropReason, EventStatus, Limits, Registration, ResumptionLevel,
    RetryPolicy, SendFlags, Settings, Stream, StreamEvent, Version, ZeroRtt,
};
use ringway_tests::{address, settings};

use super::scene::{SERVER, Scene};

const DELAY: Duration = Duration::from_millis(10);

fn delayed(scene: &Scene) {
    scene.world.network.set_default_link(Link {
        delay: DELAY,
        ..Link::default()
    });
}

#[test]
fn handshake_is_told_in_flights_times_and_bytes_alike_on_both_sides() {
    let mut scene = Scene::new();
    delayed(&scene);
    let begun = scene.world.now;
    let _listener = scene.listen();
    let (client, server) = scene.connect();
    let client = scene.stats(&client);
    let server = scene.stats(&server);
    assert_eq!((client.started, server.started), (begun, begun + DELAY));
    assert_eq!(client.initial_flight_time, Some(2 * DELAY));
    assert_eq!(client.handshake_time, Some(2 * DELAY));
    assert_eq!(server.initial_flight_time, Some(Duration::ZERO));
    assert_eq!(server.handshake_time, Some(2 * DELAY));
    for of in [
        |s: &ringway::ConnectionStats| s.client_flight1_bytes,
        |s: &ringway::ConnectionStats| s.server_flight1_bytes,
        |s: &ringway::ConnectionStats| s.client_flight2_bytes,
    ] {
        assert_eq!(of(&client), of(&server));
    }
    // A ClientHello with a post-quantum share; a server's flight with a certificate; a Finished alone.
    assert!(client.client_flight1_bytes > 1200 && client.server_flight1_bytes > 1500);
    assert_eq!(client.client_flight2_bytes, 4 + 32);
    for stats in [client, server] {
        assert!(
            !stats.stateless_retry
                && !stats.version_negotiated
                && !stats.resumption_attempted
                && !stats.resumed
        );
        assert!(!stats.grease_quic_bit && !stats.ecn_capable);
        assert_eq!(stats.zero_rtt, ZeroRtt::NotOffered);
    }
}

#[test]
fn flags_tell_of_retry_grease_and_marks() {
    let with = Settings {
        ecn_enabled: true,
        grease_quic_bit_enabled: true,
        ..settings()
    };
    let mut scene = Scene::with(with.clone(), with);
    let configuration = Arc::clone(&scene.server_config);
    let log = scene.server_log.clone();
    let _listener = scene.listen_with(RetryPolicy::Always, move |incoming| {
        incoming.accept(&configuration, super::scene::echo(log.clone()));
    });
    let client = scene.start();
    scene.until("connected", |scene| scene.log.find("Connected").is_some());
    scene.echo(&client, 100_000);
    let stats = scene.stats(&client);
    assert!(
        stats.stateless_retry && stats.grease_quic_bit && stats.ecn_capable,
        "{stats:?}"
    );
}

#[test]
fn packets_are_counted_by_what_becomes_of_them() {
    let mut scene = Scene::new();
    let link = Link {
        delay: DELAY,
        jitter: Duration::from_millis(4),
        loss: 0.02,
        duplication: 0.02,
        ..Link::default()
    };
    scene.world.network.set_default_link(link);
    let _listener = scene.listen();
    let (client, server) = scene.connect();
    scene.echo(&client, 2_000_000);
    let (client, server) = (scene.stats(&client), scene.stats(&server));
    for stats in [client, server] {
        assert!(stats.sent_ack_eliciting_packets > 1000, "{stats:?}");
        assert!(stats.sent_ack_eliciting_packets < stats.sent_packets, "{stats:?}");
        assert!(stats.lost_packets > 0 && stats.congestion_events > 0, "{stats:?}");
        assert!(
            stats.reordered_packets > 0 && stats.reordered_packets < stats.received_packets,
            "{stats:?}"
        );
        assert!(
            stats.received_acks > 0 && stats.received_acks < stats.received_packets,
            "{stats:?}"
        );
        assert!(
            stats.duplicate_packets > 0 && stats.dropped_packets >= stats.duplicate_packets,
            "{stats:?}"
        );
        assert!(
            stats.rtt_min < stats.rtt_max && stats.rtt_max >= stats.rtt_latest,
            "{stats:?}"
        );
        assert!(stats.rtt_variance > Duration::ZERO, "{stats:?}");
        let bandwidth = stats.congestion_window as f64 / stats.rtt.as_secs_f64();
        assert!((bandwidth - stats.bandwidth as f64).abs() < 1.0 + bandwidth / 1e6);
        assert_eq!(stats.ideal_bytes, 2 * stats.congestion_window);
        assert!(stats.received_stream_bytes >= 2_000_000 && stats.sent_stream_bytes >= 2_000_000);
    }
}

#[test]
fn what_is_posted_and_not_sent_is_told() {
    let mut scene = Scene::new();
    delayed(&scene);
    let _listener = scene.listen();
    let (client, _) = scene.connect();
    let stream = Stream::open(
        &client,
        Direction::Unidirectional,
        |_: &Stream, _: StreamEvent<'_>| EventStatus::Done,
    )
    .unwrap();
    stream.start(false).unwrap();
    stream.send(vec![0; 1 << 20].into(), 0, false).unwrap();
    let stats = scene.stats(&client);
    assert_eq!(stats.posted_bytes + stats.sent_stream_bytes, 1 << 20);
    assert!(
        stats.posted_bytes > 1 << 19 && stats.bytes_in_flight > 0,
        "{stats:?}"
    );
}

#[test]
fn another_connection_id_of_the_peer_and_a_new_address_are_counted() {
    let mut scene = Scene::new();
    delayed(&scene);
    let _listener = scene.listen();
    let local = address("198.51.100.1:5000");
    let (client, server) = scene.connect_from(local);
    scene.wait(Duration::from_secs(1));
    assert_eq!(scene.stats(&server).remote_cid_changes, 0);
    // The client's NAT forgets it: the same host, seen at another port.
    scene.world.network.rebind(local, address("198.51.100.1:6000"));
    scene.echo(&client, 10_000);
    scene.wait(Duration::from_secs(1));
    let stats = scene.stats(&server);
    assert_eq!((stats.path_changes, stats.path_failures), (1, 0), "{stats:?}");
    assert_eq!(stats.remote_cid_changes, 1);
    let worker = scene.worker_stats(|scene| &scene.server);
    assert_eq!((worker.paths_validated, worker.path_failures), (1, 0));
    assert!(scene.server_log.find("PeerAddressChanged").is_some());
}

#[test]
fn workers_count_connections_streams_and_bytes_of_all_that_they_host() {
    let with = Settings {
        server_resumption_level: ResumptionLevel::ResumeOnly,
        ..settings()
    };
    let mut scene = Scene::with(with, settings());
    delayed(&scene);
    let _listener = scene.listen();
    let (client, of_client) = scene.connect();
    of_client.send_resumption_ticket(b"").unwrap();
    scene.wait(Duration::from_secs(1));
    let (other, of_other) = scene.connect();
    assert!(scene.stats(&other).resumption_attempted && scene.stats(&of_other).resumption_attempted);
    assert!(scene.stats(&other).resumed && scene.stats(&of_other).resumed);
    scene.echo(&client, 50_000);
    scene.echo(&other, 30_000);
    let server: fn(&Scene) -> &Registration = |scene| &scene.server;
    let stats = scene.worker_stats(server);
    assert_eq!((stats.connections, stats.connected, stats.streams), (2, 2, 0));
    assert_eq!(
        (stats.received_stream_bytes, stats.sent_stream_bytes),
        (80_000, 80_000)
    );
    assert_eq!(
        (stats.resumed, stats.handshake_failures, stats.protocol_errors),
        (1, 0, 0),
        "the second one went on from the first"
    );
    assert_eq!(
        (
            stats.queued_operations,
            stats.queued_connections,
            stats.queued_stateless_replies
        ),
        (0, 0, 0)
    );
    assert!(stats.turn_delay < Duration::from_millis(1));
    let open = |of: &Connection| {
        let handler = |_: &Stream, _: StreamEvent<'_>| EventStatus::Done;
        let stream = Stream::open(of, Direction::Bidirectional, handler).unwrap();
        stream.send_with("x".into(), 0, SendFlags::START).unwrap();
        stream
    };
    let _streams = [open(&client), open(&client), open(&other)];
    assert_eq!(scene.worker_stats(server).streams, 3);
    assert_eq!(scene.worker_stats(|scene| &scene.client).streams, 3);
    client.shutdown(0).unwrap();
    let stats = scene.worker_stats(server);
    assert_eq!((stats.connected, stats.streams), (1, 1));
    assert!(scene.client.stats()[0].worker.operations > 4);
}

#[test]
fn refused_clients_and_those_without_a_common_protocol_are_told_apart() {
    let mut scene = Scene::new();
    let listener = scene.listen_with(RetryPolicy::Never, |incoming| incoming.refuse());
    scene.start();
    scene.until("refused", |scene| scene.log.find("ShutdownComplete").is_some());
    let stats = scene.worker_stats(|scene| &scene.server);
    assert_eq!(
        (
            stats.application_refusals,
            stats.handshake_failures,
            stats.no_common_protocol
        ),
        (1, 1, 0)
    );
    assert_eq!((listener.stats().accepted, listener.stats().rejected), (0, 1));
    drop(listener);
    let other = ringway::ListenerOptions::new(super::scene::options(RetryPolicy::Never).local, &[b"other"])
        .with_retry(RetryPolicy::Never);
    let listener = ringway::Listener::start(&scene.server, other, |_| {}).unwrap();
    scene.start();
    scene.until("refused", |scene| scene.log.count("ShutdownComplete") == 2);
    let stats = scene.worker_stats(|scene| &scene.server);
    assert_eq!(
        (
            stats.application_refusals,
            stats.handshake_failures,
            stats.no_common_protocol
        ),
        (1, 2, 1)
    );
    assert_eq!(stats.protocol_errors, 0);
    assert_eq!(listener.stats().rejected, 1);
    // And what opens no connection.
    let now = scene.world.now;
    scene
        .world
        .network
        .send(now, address("198.51.100.7:99"), address(SERVER), &[0xc0; 30]);
    scene.wait(Duration::from_secs(1));
    assert_eq!(listener.stats().dropped, 1);
}

#[test]
fn accepted_clients_are_counted_by_their_listener() {
    let mut scene = Scene::new();
    let listener = scene.listen();
    scene.connect();
    scene.connect();
    assert_eq!(
        (
            listener.stats().accepted,
            listener.stats().rejected,
            listener.stats().dropped
        ),
        (2, 0, 0)
    );
}

#[test]
fn client_that_was_told_to_start_again_in_another_version_says_so_if_it_may() {
    // RFC 9368 section 4: it goes on only if the server's list does not have the version that it would have preferred.
    for (fully_deployed, goes_on) in [
        (Some(vec![Version::V2]), true),
        (Some(vec![Version::V1, Version::V2]), false),
    ] {
        let with = Settings {
            accepted_versions: Some(vec![Version::V2, Version::V1]),
            fully_deployed_versions: fully_deployed,
            ..settings()
        };
        let mut scene = Scene::with(with, settings());
        let first = Arc::new(Mutex::new(None));
        let log = Arc::clone(&first);
        scene
            .world
            .network
            .set_capture(Box::new(move |captured: Captured<'_>| {
                let datagram = (captured.from, captured.bytes.to_vec());
                log.lock().unwrap().get_or_insert(datagram);
            }));
        let client = scene.start();
        scene.world.turn();
        let (from, hello) = first.lock().unwrap().take().unwrap();
        // RFC 8999 section 6: version 0, the connection IDs the other way round, and the versions.
        let (dcid, rest) = hello[6..].split_at(usize::from(hello[5]));
        let scid = &rest[1..1 + usize::from(rest[0])];
        let mut packet = vec![0x80, 0, 0, 0, 0];
        for cid in [scid, dcid] {
            packet.push(cid.len() as u8);
            packet.extend(cid);
        }
        packet.extend(Version::V2.number().to_be_bytes());
        let now = scene.world.now;
        scene.world.network.send(now, address(SERVER), from, &packet);
        scene.world.turn();
        let _listener = scene.listen();
        scene.wait(Duration::from_secs(3));
        assert_eq!(scene.log.find("Connected").is_some(), goes_on);
        if goes_on {
            let stats = scene.stats(&client);
            assert!(
                stats.version_negotiated && stats.version == Version::V2,
                "{stats:?}"
            );
        } else {
            let end = scene.log.find("ShutdownByTransport").unwrap();
            assert!(end.contains("VERSION_NEGOTIATION_ERROR"), "{end}");
        }
    }
}

#[test]
fn turns_that_take_too_long_make_the_server_refuse_newcomers_until_it_has_caught_up() {
    let mut scene = Scene::with_limits(Limits {
        turn_delay: Duration::from_millis(5),
        ..Limits::default()
    });
    let _listener = scene.listen();
    let (_client, server) = scene.connect();
    // Its turns take 20 ms: each finds a call that was made in the one before.
    for _ in 0..50 {
        server.with_stats(|_| ()).unwrap();
        scene.world.turn_once();
        scene.world.now += Duration::from_millis(20);
    }
    server.with_stats(|_| ()).unwrap();
    let told = scene.stats(&server);
    assert!(
        told.call_delay.average > Duration::from_millis(15)
            && told.call_delay.max == Duration::from_millis(20),
        "{told:?}"
    );
    let busy_turn = |scene: &mut Scene| {
        server.with_stats(|_| ()).unwrap();
        scene.world.turn_once();
        scene.world.now += Duration::from_millis(20);
    };
    for _ in 0..8 {
        busy_turn(&mut scene);
    }
    let refused = scene.start();
    for _ in 0..50 {
        if scene.log.find("ShutdownByTransport").is_none() {
            busy_turn(&mut scene);
        }
    }
    assert!(
        scene
            .log
            .find("ShutdownByTransport")
            .unwrap()
            .contains("CONNECTION_REFUSED")
    );
    drop(refused);
    // Nothing waits any more.
    scene.world.turn_once();
    scene.connect();
}

#[test]
fn every_counter_moves_when_what_it_counts_happens() {
    let with = Settings {
        ecn_enabled: true,
        ..settings()
    };
    let mut scene = Scene::with(with.clone(), with);
    delayed(&scene);
    let _listener = scene.listen();
    let (client, server) = scene.connect();
    let before = scene.stats(&client);
    assert!(before.sent_bytes > 1500 && before.received_bytes > 1500 && before.undecryptable_packets == 0);
    // Bits that change.
    scene.world.network.set_default_link(Link {
        delay: DELAY,
        corruption: 0.05,
        ..Link::default()
    });
    scene.echo(&client, 1_000_000);
    let stats = scene.stats(&server);
    assert!(
        stats.undecryptable_packets > 0 && stats.received_bytes > 1_000_000 && stats.sent_bytes > 1_000_000
    );
    let worker = scene.worker_stats(|scene| &scene.server);
    assert!(worker.drops.get(DropReason::DecryptionFailed) >= stats.undecryptable_packets);
    assert!(worker.lost_packets >= stats.lost_packets && stats.lost_packets > 0);
    // Marks of the network.
    assert_eq!(stats.ecn_congestion_events, 0);
    scene.world.network.set_default_link(Link {
        delay: DELAY,
        congestion_marking: 0.05,
        ..Link::default()
    });
    scene.echo(&client, 1_000_000);
    let stats = scene.stats(&client);
    assert!(
        stats.ecn_congestion_events > 0 && stats.ecn_congestion_marks >= stats.ecn_congestion_events,
        "{stats:?}"
    );
    assert!(stats.rtt_variance < stats.rtt);
    // Packets that arrive, and later than it seemed: a path that gets much longer for a while.
    assert_eq!(stats.persistent_congestion_events, 0);
    scene.world.network.set_default_link(Link {
        delay: DELAY,
        jitter: Duration::from_millis(30),
        ..Link::default()
    });
    scene.echo(&client, 2_000_000);
    assert!(scene.stats(&client).spurious_losses > 0);
    // Nothing gets through for long.
    let stream = Stream::open(
        &client,
        Direction::Unidirectional,
        |_: &Stream, _: StreamEvent<'_>| EventStatus::Done,
    )
    .unwrap();
    stream.start(false).unwrap();
    stream.send(vec![0; 10_000_000].into(), 0, false).unwrap();
    scene.wait(Duration::from_millis(500));
    scene.world.network.set_default_link(Link {
        blackout: true,
        ..Link::default()
    });
    scene.wait(Duration::from_secs(5));
    delayed(&scene);
    scene.wait(Duration::from_secs(10));
    let stats = scene.stats(&client);
    assert!(
        stats.persistent_congestion_events > 0 && stats.probe_timeouts > 0,
        "{stats:?}"
    );
}

#[test]
fn new_address_where_nobody_answers_is_counted_as_given_up() {
    let mut scene = Scene::new();
    delayed(&scene);
    let _listener = scene.listen();
    let local = address("198.51.100.1:5000");
    let (client, server) = scene.connect_from(local);
    scene.wait(Duration::from_secs(1));
    // Somebody copies a packet of the client's and sends it first, from elsewhere.
    let copies = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&copies);
    scene
        .world
        .network
        .set_capture(Box::new(move |captured: Captured<'_>| {
            if captured.to == address(SERVER) {
                log.lock().unwrap().push(captured.bytes.to_vec());
            }
        }));
    scene.world.network.set_default_link(Link {
        delay: Duration::from_secs(1),
        ..Link::default()
    });
    let stream = Stream::open(
        &client,
        Direction::Unidirectional,
        |_: &Stream, _: StreamEvent<'_>| EventStatus::Done,
    )
    .unwrap();
    stream.start(false).unwrap();
    stream.send(vec![0; 100].into(), 0, true).unwrap();
    scene.world.turn();
    // The client itself is not heard for a while.
    delayed(&scene);
    let silent = Link {
        blackout: true,
        ..Link::default()
    };
    let (from, to) = (local.ip(), address(SERVER).ip());
    scene.world.network.set_link(from, to, silent);
    let now = scene.world.now;
    let copy = copies.lock().unwrap().last().unwrap().clone();
    scene
        .world
        .network
        .send(now, address("203.0.113.5:5"), address(SERVER), &copy);
    scene.wait(Duration::from_secs(5));
    scene.world.network.set_link(from, to, Link::default());
    scene.wait(Duration::from_secs(5));
    let stats = scene.stats(&server);
    assert_eq!((stats.path_changes, stats.path_failures), (0, 1), "{stats:?}");
    assert_eq!(scene.worker_stats(|scene| &scene.server).path_failures, 1);
}

#[test]
fn sends_and_datagrams_that_wait_are_told_with_their_time() {
    // Windows are wide, and stay so over a pause.
    let with = Settings {
        send_idle_timeout: Duration::from_secs(60),
        stream_receive_window: 1 << 20,
        ..settings()
    };
    let mut scene = Scene::with(with.clone(), with);
    delayed(&scene);
    let _listener = scene.listen();
    let (client, _) = scene.connect();
    scene.echo(&client, 1_000_000);
    let stats = scene.stats(&client);
    assert_eq!(
        (stats.send_delay.max, stats.receive_delay.max),
        (Duration::ZERO, Duration::ZERO),
        "virtual time stands still in a turn"
    );
    // More than goes in a turn, in turns that take 7 ms; the first is so late that the worker tells its counters.
    scene.world.now += Duration::from_secs(2);
    client
        .change_settings(&ringway::SettingsChange::new().pacing_enabled(false))
        .unwrap();
    let stream = Stream::open(
        &client,
        Direction::Unidirectional,
        |_: &Stream, _: StreamEvent<'_>| EventStatus::Done,
    )
    .unwrap();
    stream.start(false).unwrap();
    stream.send(vec![0; 10_000_000].into(), 0, true).unwrap();
    scene.world.turn_once();
    assert_eq!(scene.client.stats()[0].worker.queued_connections, 1);
    for _ in 0..100 {
        scene.world.now += Duration::from_millis(7);
        scene.world.turn_once();
    }
    let stats = scene.stats(&client);
    assert!(stats.send_delay.max >= Duration::from_millis(7), "{stats:?}");
    assert!(
        stats.send_delay.average > Duration::ZERO && stats.send_delay.average <= stats.send_delay.max,
        "{stats:?}"
    );
}

#[test]
fn datagrams_that_another_partition_hands_over_are_told_with_their_time() {
    let with = Settings {
        follow_rss: false,
        ..settings()
    };
    let mut scene = Scene::with_partitions(2, with);
    delayed(&scene);
    scene.world.network.disable_steering();
    let _listener = scene.listen();
    let local = address("198.51.100.1:5000");
    let (client, server) = scene.connect_from(local);
    scene.wait(Duration::from_secs(1));
    // The network takes it to a partition by its address: to another one, sooner or later.
    for port in 6000..6040 {
        scene
            .world
            .network
            .rebind(local, address(&format!("198.51.100.1:{port}")));
        scene.echo(&client, 100);
        let stream = Stream::open(
            &client,
            Direction::Unidirectional,
            |_: &Stream, _: StreamEvent<'_>| EventStatus::Done,
        )
        .unwrap();
        stream.start(false).unwrap();
        stream.send(vec![0; 10].into(), 0, true).unwrap();
        for _ in 0..10 {
            scene.world.turn_once();
            scene.world.now += Duration::from_millis(3);
        }
        scene.wait(Duration::from_secs(1));
        let waited = scene.stats(&server).receive_delay;
        if waited.max > Duration::ZERO {
            assert!(
                waited.max <= Duration::from_millis(3) && waited.average <= waited.max,
                "{waited:?}"
            );
            return;
        }
    }
    panic!("nothing was handed over");
}

#[test]
fn devices_count_what_passes_them() {
    let mut scene = Scene::new();
    let _listener = scene.listen();
    let (client, _) = scene.connect();
    scene.echo(&client, 100_000);
    scene.worker_stats(|scene| &scene.client);
    let (client, server) = (scene.client.stats()[0], scene.server.stats()[0]);
    assert_eq!(
        (
            client.worker.opened,
            client.worker.accepted,
            server.worker.opened,
            server.worker.accepted
        ),
        (1, 0, 0, 1)
    );
    let (client, server) = (client.device, server.device);
    assert_eq!(client.sent_datagrams, server.received_datagrams);
    assert_eq!(client.received_bytes, server.sent_bytes);
    assert!(server.received_bytes > 100_000 && client.sent_bytes == server.received_bytes);
    assert!(server.receive_calls > 0 && server.receive_calls <= server.received_datagrams);
    assert!(server.send_calls > 0 && server.send_calls <= server.sent_datagrams);
}

#[test]
fn cipher_suites_tell_their_parts() {
    let parts = |suite: CipherSuite| (suite.cipher(), suite.key_bits(), suite.hash(), suite.hash_bits());
    assert_eq!(
        parts(CipherSuite::Aes128Gcm),
        ("AES-128-GCM", 128, "SHA-256", 256)
    );
    assert_eq!(
        parts(CipherSuite::Aes256Gcm),
        ("AES-256-GCM", 256, "SHA-384", 384)
    );
    assert_eq!(
        parts(CipherSuite::ChaCha20Poly1305),
        ("ChaCha20-Poly1305", 256, "SHA-256", 256)
    );
}
