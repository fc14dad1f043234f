//! Whole connections over a network in memory.

mod by_hand;
mod early;
mod first_flight;
mod own_rustls;
mod pair;
#[cfg(feature = "null-crypto")]
mod raw;
mod verdict;
mod versions;

use std::cell::RefCell;
use std::rc::Rc;

use bytes::Bytes;

use self::pair::{CLIENT, Datagram, Pair, SERVER, config, server_address};
use super::*;
use crate::base::coding::Writer;
use crate::connection::content::{Acknowledged, Content, FrameToken};
use crate::connection::drops::DropReason;
use crate::crypto::keys::Keys;
use crate::datagrams::DatagramOptions;
use crate::recovery::Sink;
use crate::streams::{Dir, StreamEvent, StreamKey, StreamsConfig};
use crate::wire::header::{self, LongType};
use crate::wire::{frame, packet_number};

fn pattern(len: usize) -> Bytes {
    (0..len).map(|at| (at % 251) as u8).collect::<Vec<_>>().into()
}

fn open(pair: &mut Pair, side: usize, dir: Dir, data: Bytes) -> StreamKey {
    let streams = pair.peers[side].connection.streams_mut();
    let key = streams.create(dir);
    streams.start(key, false).unwrap();
    streams.send(key, data, 1, true).unwrap();
    key
}

fn close_reason(pair: &Pair, side: usize) -> Option<CloseReason> {
    pair.peers[side].events.iter().find_map(|event| match event {
        Event::Closing(reason) => Some(reason.clone()),
        _ => None,
    })
}

#[test]
fn handshake_completes_and_is_confirmed_on_both_sides() {
    for version in Version::SUPPORTED {
        let mut pair = Pair::with(Config { version, ..config() }, config());
        pair.connect();
        for peer in &pair.peers {
            assert!(
                matches!(&peer.events[0], Event::Connected(info) if info.alpn.as_deref() == Some(&b"test"[..]))
            );
            assert_eq!(peer.connection.version(), version);
            assert!(
                peer.connection.handshake.initial.is_none() && peer.connection.handshake.handshake.is_none()
            );
        }
        assert!(
            matches!(&pair.peers[CLIENT].events[0], Event::Connected(info) if !info.peer_certificates.is_empty())
        );
        assert_eq!(pair.handshake_time(), Duration::from_millis(20), "one round trip");
    }
}

#[test]
fn data_goes_both_ways_on_many_streams() {
    let mut pair = Pair::connected();
    let data = pattern(200_000);
    for _ in 0..20 {
        open(&mut pair, CLIENT, Dir::Bi, data.clone());
        open(&mut pair, SERVER, Dir::Uni, data.clone());
    }
    assert!(pair.run_until(|pair| pair.peers.iter().all(|peer| peer.ended.len() == 20)));
    for peer in &pair.peers {
        assert!(peer.received.values().all(|received| *received == data));
        assert_eq!(close_reason(&pair, CLIENT), None);
    }
}

#[test]
fn every_byte_arrives_over_a_network_that_loses_repeats_and_reorders() {
    for seed in 0..40u64 {
        let mut pair = Pair::new();
        let mut state = seed * 2 + 1;
        let mut random = move || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % 100
        };
        let loss = seed % 11;
        pair.network = Box::new(move |mut datagram| {
            if random() < loss {
                return vec![];
            }
            if random() < 5 {
                datagram.at += Duration::from_millis(random() / 5);
            }
            if random() < 3 {
                vec![datagram.clone(), datagram]
            } else {
                vec![datagram]
            }
        });
        assert!(
            pair.run_until(|pair| pair.peers.len() == 2
                && pair.peers.iter().all(|peer| peer.connection.is_established())),
            "handshake, seed {seed}"
        );
        let data = pattern(300_000);
        open(&mut pair, CLIENT, Dir::Bi, data.clone());
        open(&mut pair, SERVER, Dir::Bi, data.clone());
        assert!(
            pair.run_until(|pair| pair.peers.iter().all(|peer| peer.ended.len() == 1)),
            "data, seed {seed}"
        );
        assert!(
            pair.peers
                .iter()
                .all(|peer| peer.received.values().all(|received| *received == data))
        );
        let now = pair.now;
        pair.client().connection.close(now, 7);
        assert!(
            pair.run_until(|pair| pair.peers.iter().all(|peer| peer.connection.is_drained())),
            "end, seed {seed}"
        );
    }
}

#[test]
fn close_of_the_application_is_heard_and_ends_within_one_round_trip_on_its_side() {
    let mut pair = Pair::connected();
    let now = pair.now;
    pair.client().connection.close(now, 42);
    assert!(pair.run_until(|pair| pair.client().connection.is_drained()));
    assert!(pair.now.since(now) <= Duration::from_millis(20));
    assert_eq!(
        close_reason(&pair, SERVER),
        Some(CloseReason::PeerApplication {
            code: 42,
            reason: String::new()
        })
    );
    assert_eq!(
        close_reason(&pair, CLIENT),
        Some(CloseReason::LocalApplication {
            code: 42,
            reason: String::new()
        })
    );
    assert!(pair.client().connection.is_established());
    assert!(pair.client().connection.peer_acknowledged_close());
}

#[test]
fn connection_that_has_ended_has_no_changes_of_its_connection_ids_for_ever() {
    let mut pair = Pair::new();
    // Before it has given out any of its connection IDs.
    pair.client_closes = Some(3);
    assert!(pair.run_until(|pair| pair.client().connection.is_established()));
    let client = &mut pair.client().connection;
    while client.next_retired_local_cid().is_some() {}
    while client.next_reset_token_change().is_some() {}
    assert!(!client.is_drained() && client.local_cids_wanted() == 0);
    assert!(!client.has_cid_changes(), "the worker would turn for nothing");
}

#[test]
fn close_in_the_handshake_is_heard_though_keys_differ() {
    for steps in 0..6 {
        let mut pair = Pair::new();
        for _ in 0..steps {
            pair.step();
        }
        if pair.peers.len() < 2 {
            continue;
        }
        for side in [CLIENT, SERVER] {
            if pair.peers[side].connection.is_open() {
                let now = pair.now;
                pair.peers[side].connection.close(now, 5);
                break;
            }
        }
        assert!(
            pair.run_until(|pair| pair.peers.iter().all(|peer| !peer.connection.is_open())),
            "after {steps} steps"
        );
    }
}

#[test]
fn client_that_closes_as_soon_as_it_is_connected_completes_the_handshake_of_the_server() {
    let mut pair = Pair::new();
    pair.client_closes = Some(3);
    assert!(pair.run_until(|pair| pair.peers.iter().all(|peer| peer.connection.is_drained())));
    assert!(matches!(pair.server().events[0], Event::Connected { .. }));
    let reason = CloseReason::PeerApplication {
        code: 3,
        reason: String::new(),
    };
    assert_eq!(close_reason(&pair, SERVER), Some(reason));
}

#[test]
fn server_forgets_a_client_that_closes_at_once_after_three_times_the_round_trip_time_rather_than_three_seconds()
 {
    let mut pair = Pair::new();
    pair.client_closes = Some(3);
    assert!(pair.run_until(|pair| pair.peers.len() == 2 && !pair.server().connection.is_open()));
    let closed = pair.now;
    assert!(pair.run_until(|pair| pair.server().connection.is_drained()));
    assert!(
        pair.now.since(closed) < Duration::from_millis(500),
        "after {:?}",
        pair.now.since(closed)
    );
}

/// A server that has just refused its client.
fn refused() -> Pair {
    let mut pair = Pair::new();
    pair.accept = false;
    assert!(pair.run_until(|pair| pair.peers.len() == 2 && pair.server().connection.take_client_hello().is_some()));
    let now = pair.now;
    pair.server().connection.refuse(
        now,
        TransportError::new(TransportErrorCode::CONNECTION_REFUSED, "refused"),
    );
    pair
}

#[test]
fn refused_client_hears_the_code() {
    let mut pair = refused();
    assert!(pair.run_until(|pair| pair.peers.iter().all(|peer| peer.connection.is_drained())));
    assert!(matches!(
        close_reason(&pair, CLIENT),
        Some(CloseReason::PeerTransport {
            code: TransportErrorCode::CONNECTION_REFUSED,
            ..
        })
    ));
}

#[test]
fn client_refused_before_its_first_sample_ends_within_round_trips() {
    let mut pair = refused();
    assert!(pair.run_until(|pair| !pair.client().connection.is_open()));
    let (heard, age) = (pair.now, pair.now.since(pair.client().connection.started));
    assert!(pair.run_until(|pair| pair.client().connection.is_drained()));
    // Three probe timeouts (RFC 9000 section 10.2) of a round trip that is at most as long as the connection is old.
    let most = (age * 3 + Duration::from_millis(25)) * 3;
    let waited = pair.now.since(heard);
    assert!(waited <= most, "{waited:?} after {age:?}");
}

#[test]
fn server_sends_at_most_three_times_what_an_unvalidated_client_sent() {
    let mut pair = Pair::new();
    // Nothing of the client but its first datagram arrives.
    let mut count = 0;
    pair.network = Box::new(move |datagram| {
        if datagram.to == SERVER {
            count += 1;
            if count > 1 {
                return vec![];
            }
        }
        vec![datagram]
    });
    pair.run_for(Duration::from_secs(9));
    let sent: usize = pair
        .sent
        .iter()
        .filter(|(side, _)| *side == SERVER)
        .map(|(_, len)| len)
        .sum();
    assert!(sent > 0 && sent <= 3 * 1200, "{sent}");
}

#[test]
fn lost_server_flight_is_repaired_when_the_client_probes() {
    let mut pair = Pair::new();
    let mut lost = 0;
    pair.network = Box::new(move |datagram| {
        if datagram.to == CLIENT && lost < 3 {
            lost += 1;
            return vec![];
        }
        vec![datagram]
    });
    pair.connect();
}

#[test]
fn datagrams_with_an_initial_are_padded_by_the_client_and_by_the_server() {
    let sizes: Rc<RefCell<Vec<(usize, usize)>>> = Rc::default();
    let seen = Rc::clone(&sizes);
    let mut pair = Pair::new();
    pair.network = Box::new(move |datagram| {
        let first = datagram.bytes[0];
        if first & 0x80 != 0 && (first >> 4) & 3 == 0 {
            seen.borrow_mut().push((datagram.to, datagram.bytes.len()));
        }
        vec![datagram]
    });
    pair.connect();
    assert!(sizes.borrow().iter().any(|(to, _)| *to == CLIENT));
    // A server's Initial that only acknowledges need not be padded.
    assert!(
        sizes
            .borrow()
            .iter()
            .all(|&(to, len)| len >= 1200 || to == CLIENT),
        "{:?}",
        sizes.borrow()
    );
}

#[test]
fn idle_connection_ends_without_a_packet() {
    let mut pair = Pair::connected();
    let sent = pair.sent.len();
    assert!(pair.run_until(|pair| pair.peers.iter().all(|peer| peer.connection.is_drained())));
    assert_eq!(close_reason(&pair, CLIENT), Some(CloseReason::IdleTimeout));
    assert_eq!(pair.sent.len(), sent);
}

#[test]
fn keep_alive_keeps_an_idle_connection_alive() {
    let mut pair = Pair::with(
        Config {
            keep_alive_interval: Duration::from_secs(5),
            ..config()
        },
        config(),
    );
    pair.connect();
    pair.run_for(Duration::from_secs(120));
    assert!(pair.peers.iter().all(|peer| peer.connection.is_open()));
}

#[test]
fn sender_without_credit_keeps_the_connection_alive() {
    let streams = StreamsConfig {
        connection_window: 4_000,
        window_uni: 1_000,
        peer_streams: [0, 1],
        ..config().streams
    };
    let mut pair = Pair::with(config(), Config { streams, ..config() });
    pair.connect();
    pair.server().set_reads(false);
    // The first stream has no credit, the second may not start.
    open(&mut pair, CLIENT, Dir::Uni, pattern(10_000));
    open(&mut pair, CLIENT, Dir::Uni, pattern(10_000));
    let sent = pair.sent.len();
    pair.run_for(Duration::from_secs(120));
    assert!(
        pair.peers.iter().all(|peer| peer.connection.is_open()),
        "it lasts"
    );
    let sent = pair.sent.len() - sent;
    assert!(sent < 200, "{sent} datagrams in two minutes");
    pair.server().set_reads(true);
    assert!(pair.run_until(|pair| pair.server().ended.len() == 2));
}

#[test]
fn sender_that_has_used_all_credit_of_the_connection_keeps_it_alive() {
    let streams = StreamsConfig {
        connection_window: 5_000,
        window_uni: 10_000,
        ..config().streams
    };
    let mut pair = Pair::with(config(), Config { streams, ..config() });
    pair.connect();
    pair.server().set_reads(false);
    open(&mut pair, CLIENT, Dir::Uni, pattern(5_000));
    pair.run_for(Duration::from_secs(1));
    open(&mut pair, CLIENT, Dir::Uni, pattern(5_000));
    pair.run_for(Duration::from_secs(120));
    assert!(
        pair.peers.iter().all(|peer| peer.connection.is_open()),
        "it lasts"
    );
    pair.server().set_reads(true);
    assert!(pair.run_until(|pair| pair.server().ended.len() == 2));
}

#[test]
fn peer_that_vanishes_is_given_up_after_the_disconnect_timeout() {
    let mut pair = Pair::connected();
    pair.network = Box::new(|_| vec![]);
    let start = pair.now;
    open(&mut pair, CLIENT, Dir::Bi, pattern(100));
    assert!(pair.run_until(|pair| pair.client().connection.is_drained()));
    assert_eq!(close_reason(&pair, CLIENT), Some(CloseReason::Unresponsive));
    assert!(pair.now.since(start) < Duration::from_secs(20));
    let probes = pair.client().connection.content.stats.probe_timeouts;
    assert!((5..20).contains(&probes), "{probes}: probes back off");
}

/// Whether a transfer survives that nothing arrives for so long, in either direction.
fn survives(outage: Duration, idle_timeout: Duration) -> bool {
    let config = Config {
        idle_timeout,
        ..config()
    };
    let mut pair = Pair::with(config.clone(), config);
    pair.connect();
    let data = pattern(1_000_000);
    open(&mut pair, CLIENT, Dir::Uni, data.clone());
    pair.run_for(Duration::from_millis(100));
    pair.network = Box::new(|_| vec![]);
    pair.run_for(outage);
    pair.network = Box::new(|datagram| vec![datagram]);
    pair.run_until(|pair| {
        pair.server().ended.len() == 1 || pair.peers.iter().any(|peer| peer.connection.is_drained())
    });
    pair.server().received.values().all(|received| *received == data) && pair.server().ended.len() == 1
}

#[test]
fn path_that_comes_back_before_the_peer_is_given_up_saves_the_connection() {
    // Probe timeouts are seconds apart by then, and the last but one may be just before.
    for quarters in 1..60 {
        let outage = Duration::from_millis(250) * quarters;
        assert!(
            survives(outage, Duration::from_secs(30)),
            "disconnect timeout: {outage:?}"
        );
        if quarters < 32 {
            assert!(
                survives(outage, Duration::from_secs(9)),
                "idle timeout: {outage:?}"
            );
        }
    }
    assert!(survives(Duration::from_millis(15_900), Duration::from_secs(30)));
    assert!(!survives(Duration::from_secs(17), Duration::from_secs(30)));
}

#[test]
fn keys_are_updated_on_request_and_by_volume_while_data_flows() {
    let mut pair = Pair::with(
        Config {
            packets_per_key: 200,
            ..config()
        },
        config(),
    );
    pair.connect();
    let data = pattern(20_000_000);
    open(&mut pair, CLIENT, Dir::Bi, data.clone());
    open(&mut pair, SERVER, Dir::Bi, data.clone());
    pair.server().connection.update_keys();
    assert!(pair.run_until(|pair| pair.peers.iter().all(|peer| peer.ended.len() == 1)));
    assert!(
        pair.peers
            .iter()
            .all(|peer| peer.received.values().all(|received| *received == data))
    );
    for peer in &pair.peers {
        assert!(
            peer.connection.content.stats.key_updates >= 3,
            "{:?}",
            peer.connection.content.stats
        );
    }
}

#[test]
fn side_that_only_acknowledges_updates_its_keys_again_and_again() {
    // Windows so large that no credit is ever given, and nothing else that would be acknowledged is sent.
    let streams = StreamsConfig {
        connection_window: 1 << 30,
        window_uni: 1 << 30,
        ..config().streams
    };
    let mut pair = Pair::with(
        config(),
        Config {
            packets_per_key: 8,
            streams,
            ..config()
        },
    );
    pair.connect();
    for round in 1..=10 {
        open(&mut pair, CLIENT, Dir::Uni, pattern(200_000));
        assert!(pair.run_until(|pair| pair.server().ended.len() == round));
        pair.run_for(Duration::from_millis(300));
    }
    let stats = pair.server().connection.content.stats;
    assert!(stats.key_updates >= 3, "{stats:?}");
}

#[test]
fn rebound_client_is_validated_at_its_new_address_and_data_goes_on() {
    let mut pair = Pair::connected();
    let data = pattern(3_000_000);
    open(&mut pair, CLIENT, Dir::Bi, data.clone());
    open(&mut pair, SERVER, Dir::Bi, data.clone());
    pair.run_for(Duration::from_millis(50));
    pair.client_address = "198.51.100.7:50001".parse().unwrap();
    assert!(pair.run_until(|pair| pair.peers.iter().all(|peer| peer.ended.len() == 1)));
    let address = pair.client_address;
    assert!(
        pair.server()
            .events
            .iter()
            .any(|event| matches!(event, Event::PeerAddressChanged(to) if *to == address))
    );
    assert_eq!(pair.server().connection.path().remote, address);
    assert!(pair.server().connection.path.validated);
}

#[test]
fn spoofed_address_is_given_up_and_the_old_path_goes_on() {
    let mut pair = Pair::connected();
    open(&mut pair, CLIENT, Dir::Bi, pattern(100_000));
    let old = pair.client_address;
    // An attacker lets one datagram of the client seem to come from elsewhere.
    let spoof: std::net::SocketAddr = "203.0.113.9:1".parse().unwrap();
    let mut done = false;
    pair.network = Box::new(move |mut datagram| {
        if !done && datagram.to == SERVER && datagram.bytes.len() > 1000 {
            done = true;
            datagram.from = spoof;
        }
        vec![datagram]
    });
    pair.run_for(Duration::from_secs(5));
    assert_eq!(pair.server().connection.path().remote, old);
    assert!(pair.server().connection.is_open());
    let data = pattern(1000);
    open(&mut pair, SERVER, Dir::Uni, data.clone());
    assert!(pair.run_until(|pair| pair.client().received.values().any(|received| *received == data)));
}

#[test]
fn path_mtu_grows_to_what_the_path_carries_and_falls_in_a_black_hole() {
    let mut pair = Pair::new();
    let limit = Rc::new(RefCell::new(1400));
    let now_limit = Rc::clone(&limit);
    pair.network = Box::new(move |datagram| {
        if datagram.bytes.len() > *now_limit.borrow() {
            vec![]
        } else {
            vec![datagram]
        }
    });
    pair.connect();
    open(&mut pair, CLIENT, Dir::Bi, pattern(1_000_000));
    assert!(pair.run_until(|pair| pair.server().ended.len() == 1));
    let mtu = pair.client().connection.path.mtu.current();
    assert!((1380..=1400).contains(&mtu), "{mtu}");
    *limit.borrow_mut() = 1200;
    open(&mut pair, CLIENT, Dir::Bi, pattern(100_000));
    assert!(pair.run_until(|pair| pair.server().ended.len() == 2));
    assert_eq!(pair.client().connection.path.mtu.current(), 1200);
}

/// IPv6 over WireGuard, 6in4 or Tailscale has an MTU of 1280: 1232 bytes of UDP payload.
const NARROW_LINK: usize = 1232;

#[test]
fn handshake_over_a_link_that_refuses_its_datagrams_waits_for_no_probe_timeout() {
    // Larger than the link carries, as an application may have set it; each side refused, or both.
    for link in [
        [NARROW_LINK, usize::MAX],
        [usize::MAX, NARROW_LINK],
        [NARROW_LINK, NARROW_LINK],
    ] {
        let large = Config {
            initial_datagram_size: 1240,
            ..config()
        };
        let mut pair = Pair::with(large.clone(), large);
        pair.link = link;
        pair.connect();
        open(&mut pair, CLIENT, Dir::Uni, pattern(100_000));
        open(&mut pair, SERVER, Dir::Uni, pattern(100_000));
        assert!(pair.run_until(|pair| pair.peers.iter().all(|peer| peer.ended.len() == 1)));
        for side in [CLIENT, SERVER] {
            let stats = pair.peers[side].connection.stats(pair.now);
            assert_eq!(stats.probe_timeouts, 0, "{link:?}");
            assert_eq!((stats.lost_packets, stats.congestion_events), (0, 0), "{link:?}");
            let size = usize::from(pair.peers[side].connection.path.mtu.current());
            assert!(size >= 1200 && size <= link[side], "{link:?}: {size}");
        }
    }
}

#[test]
fn probes_that_the_link_refuses_are_no_loss_and_the_search_ends_below_what_it_carries() {
    let mut pair = Pair::new();
    pair.link = [NARROW_LINK; 2];
    pair.connect();
    open(&mut pair, CLIENT, Dir::Bi, pattern(1_000_000));
    assert!(pair.run_until(|pair| pair.server().ended.len() == 1));
    let stats = pair.peers[CLIENT].connection.stats(pair.now);
    assert_eq!(
        (stats.lost_packets, stats.probe_timeouts, stats.congestion_events),
        (0, 0, 0)
    );
    let size = pair.client().connection.path.mtu.current();
    assert!((1216..=1232).contains(&size), "{size}");
}

#[test]
fn link_that_gets_narrower_in_the_middle_of_a_transfer_costs_no_timeout_and_no_congestion() {
    let mut pair = Pair::connected();
    assert_eq!(pair.client().connection.path.mtu.current(), 1472);
    open(&mut pair, CLIENT, Dir::Bi, pattern(1_000_000));
    for _ in 0..20 {
        pair.step();
    }
    pair.link[CLIENT] = 1300;
    assert!(pair.run_until(|pair| pair.server().ended.len() == 1));
    let stats = pair.peers[CLIENT].connection.stats(pair.now);
    assert_eq!((stats.probe_timeouts, stats.congestion_events), (0, 0));
    let size = pair.client().connection.path.mtu.current();
    assert!((1284..=1300).contains(&size), "{size}");
    // It never goes below what every path carries, whatever is refused.
    let now = pair.now;
    pair.client().connection.on_datagram_too_big(now, 1250, 1250);
    pair.client().connection.on_datagram_too_big(now, 1200, 1200);
    assert_eq!(pair.client().connection.path.mtu.current(), 1200);
}

#[test]
fn what_a_device_never_sends_is_not_probed_for_again_and_again() {
    let mut pair = Pair::new();
    pair.peers[CLIENT].limits.datagram_bytes_max = 1300;
    // Nor has it room for any, where it sends them one by one.
    pair.peers[CLIENT].limits.segments_max = 1;
    pair.buffer = 1300;
    pair.connect();
    pair.run_for(Duration::from_secs(1));
    let size = pair.client().connection.path.mtu.current();
    assert!((1284..=1300).contains(&size), "{size}");
}

#[test]
fn first_packets_after_the_handshake_are_as_large_as_ethernet_carries_within_a_round_trip() {
    let mut pair = Pair::new();
    assert!(pair.run_until(|pair| pair.peers.len() == 2 && pair.server().connection.handshake.confirmed));
    // The probe goes with the first packets behind the confirmation: acknowledged one round trip and a held-back acknowledgement later.
    pair.run_for(Duration::from_millis(2 * 10 + 26));
    assert_eq!(pair.server().connection.path.mtu.current(), 1472);
}

/// Over a path on which packets come one by one: how many datagrams the client sends while it receives this much, and how long after it has
/// all the server knows.
fn receive_one_by_one(len: usize, prepare: impl FnOnce(&mut Pair)) -> (usize, Duration) {
    let streams = StreamsConfig {
        connection_window: 1 << 24,
        window_uni: 1 << 24,
        ..config().streams
    };
    let mut pair = Pair::with(Config { streams, ..config() }, config());
    pair.connect();
    let mut last = Instant::ZERO;
    pair.network = Box::new(move |mut datagram| {
        if datagram.to == CLIENT {
            last = datagram.at.max(last + Duration::from_micros(50));
            datagram.at = last;
        }
        vec![datagram]
    });
    prepare(&mut pair);
    pair.sent.clear();
    open(&mut pair, SERVER, Dir::Uni, pattern(len));
    assert!(pair.run_until(|pair| pair.client().ended.len() == 1));
    let received = pair.now;
    assert!(pair.run_until(|pair| pair.server().connection.recovery.bytes_in_flight() == 0));
    (
        pair.sent.iter().filter(|(side, _)| *side == CLIENT).count(),
        pair.now.since(received),
    )
}

#[test]
fn bulk_is_acknowledged_for_many_packets_at_once_and_its_end_without_delay() {
    // The end is at other places behind the last acknowledgement that is due by number.
    for len in [8_000_000, 8_010_000, 8_020_000, 8_030_000] {
        let packets = len / 1440;
        let (usual, _) = receive_one_by_one(len, |pair| {
            pair.server().connection.content.ack_frequency = Default::default()
        });
        assert!(
            usual > packets / 3,
            "every second packet where the peer does not let itself be asked: {usual}"
        );
        let (fewer, known_after) = receive_one_by_one(len, |_| {});
        assert!(
            fewer < packets / 10,
            "{fewer} acknowledgements of {packets} packets"
        );
        assert!(
            known_after < Duration::from_millis(11),
            "{known_after:?}, where an acknowledgement is under way for 10 ms"
        );
    }
}

#[test]
fn congestion_marks_slow_the_sender_and_lose_nothing() {
    let mut pair = Pair::connected();
    pair.network = Box::new(|mut datagram| {
        if datagram.ecn == ringway_types::Ecn::Ect0 && datagram.bytes.len() > 1000 && datagram.bytes[20] < 8 {
            datagram.ecn = ringway_types::Ecn::Ce;
        }
        vec![datagram]
    });
    open(&mut pair, CLIENT, Dir::Bi, pattern(2_000_000));
    assert!(pair.run_until(|pair| pair.server().ended.len() == 1));
    let stats = pair.client().connection.content.stats;
    assert!(stats.ecn_congestion_marks > 0 && stats.congestion_events > 0);
    assert_eq!(stats.lost_packets, 0);
}

#[test]
fn datagrams_arrive_and_their_fate_is_told() {
    let mut pair = Pair::connected();
    let max = pair.client().connection.max_datagram_len();
    assert!(max > 1150, "{max}");
    assert!(
        pair.client()
            .connection
            .send_datagram(pattern(max).into(), 5, DatagramOptions::default())
    );
    pair.run_for(Duration::from_millis(100));
    assert_eq!(pair.server().datagrams, [pattern(max).to_vec()]);
    let states: Vec<_> = pair
        .client()
        .events
        .iter()
        .filter_map(|event| match event {
            Event::DatagramSendStateChanged { context: 5, state } => Some(*state),
            _ => None,
        })
        .collect();
    assert_eq!(states, [DatagramSendState::Sent, DatagramSendState::Acknowledged]);
}

#[test]
fn packets_that_come_before_their_keys_are_kept() {
    let mut pair = Pair::new();
    // The client's second flight (Handshake) comes after its first request.
    let mut held = false;
    pair.network = Box::new(move |mut datagram| {
        if datagram.to == SERVER && !held && datagram.bytes[0] & 0xb0 == 0xa0 {
            held = true;
            datagram.at += Duration::from_millis(5);
        }
        vec![datagram]
    });
    let data = pattern(500);
    open(&mut pair, CLIENT, Dir::Uni, data.clone());
    assert!(pair.run_until(|pair| pair.peers.len() == 2 && pair.server().ended.len() == 1));
    assert_eq!(pair.server().received.values().next(), Some(&data.to_vec()));
}

/// An Initial with a PING, as a server would send that answers the client's first packet under this connection ID.
fn initial_of_server(client: &Connection, scid: ConnectionId) -> Vec<u8> {
    let keys = Keys::initial(Version::V1, &client.handshake.original_dcid, Side::Server)
        .local
        .expand();
    let mut packet = [0; 100];
    let mut w = Writer::new(&mut packet);
    let dcid = client.content.local_cids.first().cid;
    let number = packet_number::encode(7, None);
    let length_offset = header::encode_long(
        &mut w,
        Version::V1,
        LongType::Initial,
        (&dcid, &scid),
        Some(&[]),
        number,
    );
    let header_len = w.len();
    frame::encode_ping(&mut w);
    header::patch_length(&mut packet, length_offset);
    keys.packet.seal(7, &mut packet, header_len, &[]);
    let number_offset = header_len - number.len;
    let mask = keys.header.mask(header::sample(&packet, number_offset).unwrap());
    header::apply_protection(&mut packet, number_offset, number.len, mask);
    packet.to_vec()
}

#[test]
fn client_ignores_a_second_server_that_answers_its_first_packet() {
    let mut pair = Pair::new();
    assert!(pair.run_until(|pair| pair.peers.len() == 2));
    // It comes right behind the flight that completes the handshake, when the client has sent nothing yet under other keys.
    let flight = pair
        .wire
        .iter()
        .rposition(|datagram| datagram.to == CLIENT)
        .unwrap();
    let scid = ConnectionId::new(&[0xaa; 8]).unwrap();
    let bytes = initial_of_server(&pair.client().connection, scid);
    let stray = Datagram {
        bytes,
        ..pair.wire[flight].clone()
    };
    pair.wire.insert(flight + 1, stray);
    pair.connect();
    assert_eq!(pair.client().drops.get(DropReason::UnexpectedAddress), 1);
}

#[test]
fn stateless_reset_ends_the_connection() {
    let mut pair = Pair::connected();
    let now = pair.now;
    pair.client().connection.on_stateless_reset(now);
    assert_eq!(close_reason(&pair, CLIENT), None);
    pair.run_for(Duration::from_secs(2));
    assert_eq!(close_reason(&pair, CLIENT), Some(CloseReason::StatelessReset));
    assert!(pair.client().connection.is_drained());
}

#[test]
fn connection_ids_are_issued_and_replaced_when_retired() {
    let mut pair = Pair::connected();
    assert_eq!(pair.server().connection.local_cids().count(), 4);
    let remote = pair.client().connection.path().remote;
    let cids = &mut pair.client().connection.content.remote_cids;
    cids.on_path_change(remote, false).unwrap();
    let before = pair.server().next_cid();
    open(&mut pair, CLIENT, Dir::Bi, pattern(10_000));
    assert!(pair.run_until(|pair| pair.server().ended.len() == 1));
    assert_eq!(pair.server().connection.local_cids().count(), 4);
    assert_eq!(pair.server().next_cid(), before + 1);
}

#[test]
fn sent_data_is_reported_complete_once_and_only_when_acknowledged() {
    let mut pair = Pair::connected();
    let key = open(&mut pair, CLIENT, Dir::Uni, pattern(50_000));
    assert!(pair.run_until(|pair| {
        pair.client()
            .stream_events
            .contains(&StreamEvent::ShutdownComplete { key })
    }));
    let complete = StreamEvent::SendComplete {
        key,
        context: 1,
        canceled: false,
    };
    assert_eq!(
        pair.client()
            .stream_events
            .iter()
            .filter(|&&event| event == complete)
            .count(),
        1
    );
    assert_eq!(pair.server().ended.len(), 1);
}

#[test]
fn data_acknowledged_in_adjacent_and_other_pieces_completes_each_send_once_all_of_it_is() {
    let mut pair = Pair::connected();
    let keys = [(); 2].map(|()| open(&mut pair, CLIENT, Dir::Uni, pattern(5_000)));
    let content = &mut pair.peers[CLIENT].connection.content;
    let mut pieces = [vec![], vec![]];
    while let Some(frame) = content.streams.next_frame(1_000) {
        pieces[usize::from(frame.range.key == keys[1])].push(FrameToken::Stream(frame.range));
    }
    let [first, second] = pieces;
    assert!(first.len() >= 5 && second.len() >= 5);
    let complete = |content: &mut Content, tokens: &[FrameToken]| {
        let mut acknowledged = Acknowledged::new(content);
        tokens
            .iter()
            .for_each(|&token| acknowledged.on_acked(Space::Data, token));
        acknowledged.finish();
        let events = std::iter::from_fn(|| content.streams.next_event());
        events
            .filter(|event| matches!(event, StreamEvent::SendComplete { .. }))
            .collect::<Vec<_>>()
    };
    let completes = |key| {
        vec![StreamEvent::SendComplete {
            key,
            context: 1,
            canceled: false,
        }]
    };
    // A gap in one stream, and pieces of two streams in turn.
    assert_eq!(complete(content, &[&first[..2], &first[3..]].concat()), []);
    let interleaved: Vec<_> = second
        .iter()
        .zip([FrameToken::HandshakeDone; 9])
        .flat_map(|(&piece, other)| [piece, other, first[0]])
        .collect();
    assert_eq!(complete(content, &interleaved), completes(keys[1]));
    // Acknowledged before what is lost of the same acknowledgement is told.
    let mut acknowledged = Acknowledged::new(content);
    acknowledged.on_acked(Space::Data, first[2]);
    acknowledged.on_lost(Space::Data, first[1]);
    assert_eq!(complete(content, &[]), completes(keys[0]));
    assert!(!content.streams.has_data(), "nothing is sent again");
}

/// A version negotiation packet that answers the client's first datagram.
fn version_negotiation(pair: &mut Pair, versions: &[u32]) -> Vec<u8> {
    let first = Rc::new(RefCell::new(Vec::new()));
    let seen = Rc::clone(&first);
    pair.network = Box::new(move |datagram| {
        seen.borrow_mut().clone_from(&datagram.bytes);
        vec![]
    });
    pair.step();
    let first = first.borrow();
    let dcid_len = usize::from(first[5]);
    let dcid = &first[6..6 + dcid_len];
    let scid_len = usize::from(first[6 + dcid_len]);
    let scid = &first[7 + dcid_len..7 + dcid_len + scid_len];
    let mut packet = vec![0x80, 0, 0, 0, 0, scid_len as u8];
    packet.extend(scid);
    packet.push(dcid_len as u8);
    packet.extend(dcid);
    versions
        .iter()
        .for_each(|version| packet.extend(version.to_be_bytes()));
    packet
}

fn to_client(pair: &mut Pair, bytes: Vec<u8>) {
    let datagram = Datagram {
        at: pair.now,
        to: CLIENT,
        from: server_address(),
        ecn: Default::default(),
        bytes,
    };
    pair.wire.push(datagram);
    pair.run_for(Duration::from_millis(1));
}

#[test]
fn client_gives_up_when_the_server_speaks_none_of_its_versions_and_only_then() {
    let mut pair = Pair::new();
    let packet = version_negotiation(&mut pair, &[0x1a2a_3a4a, Version::V1.number()]);
    to_client(&mut pair, packet);
    assert!(
        pair.client().connection.is_open(),
        "a list with the version in use is a forgery"
    );
    let mut pair = Pair::new();
    let mut packet = version_negotiation(&mut pair, &[0x1a2a_3a4a]);
    let wrong = packet.len() - 5;
    packet[wrong] ^= 1;
    to_client(&mut pair, packet.clone());
    assert!(
        pair.client().connection.is_open(),
        "another connection ID is a forgery"
    );
    packet[wrong] ^= 1;
    to_client(&mut pair, packet);
    assert_eq!(
        close_reason(&pair, CLIENT),
        Some(CloseReason::VersionNegotiation {
            offered: vec![0x1a2a_3a4a]
        })
    );
}

#[test]
fn retry_that_is_forged_repeated_or_late_is_ignored() {
    let mut pair = Pair::new();
    version_negotiation(&mut pair, &[]);
    let dcid = pair.client().connection.handshake.original_dcid;
    let client_cid = pair.client().connection.content.local_cids.first().cid;
    let retry = |scid: u8, token: &[u8]| {
        let scid = ConnectionId::new(&[scid; 8]).unwrap();
        let mut packet = vec![0; 200];
        let len = crate::wire::stateless::retry(&mut packet, Version::V1, &client_cid, &scid, token);
        packet.truncate(len);
        packet.extend(crate::crypto::retry::integrity_tag(Version::V1, &dcid, &packet));
        packet
    };
    let mut forged = retry(9, b"token");
    *forged.last_mut().unwrap() ^= 1;
    to_client(&mut pair, forged);
    assert_eq!(pair.client().connection.handshake.retry_scid, None);
    to_client(&mut pair, retry(9, b""));
    assert_eq!(
        pair.client().connection.handshake.retry_scid,
        None,
        "without a token"
    );
    to_client(&mut pair, retry(9, b"token"));
    assert_eq!(pair.client().connection.handshake.token[..], b"token"[..]);
    to_client(&mut pair, retry(8, b"other"));
    assert_eq!(
        pair.client().connection.handshake.token[..],
        b"token"[..],
        "one Retry only"
    );
}

#[test]
fn server_that_did_not_send_the_retry_is_found_out() {
    // The client has followed a Retry that the server knows nothing of: the transport parameters do not match.
    let mut pair = Pair::new();
    pair.client().connection.handshake.retry_scid = Some(ConnectionId::new(&[1; 8]).unwrap());
    assert!(pair.run_until(|pair| !pair.client().connection.is_open()));
    let Some(CloseReason::Transport(error)) = close_reason(&pair, CLIENT) else {
        panic!()
    };
    assert_eq!(error.code, TransportErrorCode::TRANSPORT_PARAMETER_ERROR);
}

#[test]
fn handshake_data_without_end_is_refused_before_it_takes_memory() {
    let mut stream = crypto_stream::CryptoStream::new();
    stream.receive(60_000, &[0; 1000]).unwrap();
    let error = stream.receive(65_000, &[0; 1000]).unwrap_err();
    assert_eq!(error.code, TransportErrorCode::CRYPTO_BUFFER_EXCEEDED);
}
