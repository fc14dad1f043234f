//! Versions of QUIC: one first flight in one version, and a connection that goes on in another (RFC 9368, RFC 9369 section 4).

mod checks;
mod restart;

use super::*;
use crate::crypto::tls::TlsSession;
use crate::wire::Version::{V1, V2};
use crate::wire::header::{LongHeader, ProtectedHeader};
use crate::wire::version_information::VersionInformation;

fn client_config(version: Version, offered: &[Version]) -> Config {
    Config {
        version,
        offered_versions: Some(offered.to_vec()),
        ..config()
    }
}

fn server_config(accepted: &[Version]) -> Config {
    Config {
        accepted_versions: Some(accepted.to_vec()),
        ..config()
    }
}

/// A client that starts with one version and would take the other, and a server that prefers the other.
fn changing(from: Version, to: Version) -> Pair {
    Pair::with(client_config(from, &[from, to]), server_config(&[to, from]))
}

const BOTH_WAYS: [(Version, Version); 2] = [(V1, V2), (V2, V1)];

/// The packets with long headers of a datagram.
fn long_packets(datagram: &[u8]) -> Vec<LongHeader> {
    let mut packets = Vec::new();
    let mut rest = datagram;
    while let Ok(ProtectedHeader::Long(header)) = header::decode(rest, 8) {
        rest = &rest[header.packet_len..];
        packets.push(header);
    }
    packets
}

type Seen = Rc<RefCell<Vec<(usize, LongHeader)>>>;

/// Records the packets with long headers and who sends them.
fn record(pair: &mut Pair) -> Seen {
    let seen = Seen::default();
    let record = Rc::clone(&seen);
    pair.network = Box::new(move |datagram| {
        let packets = long_packets(&datagram.bytes).into_iter();
        record
            .borrow_mut()
            .extend(packets.map(|packet| (1 - datagram.to, packet)));
        vec![datagram]
    });
    seen
}

fn exchange(pair: &mut Pair, len: usize) {
    let data = pattern(len);
    open(pair, CLIENT, Dir::Bi, data.clone());
    open(pair, SERVER, Dir::Bi, data.clone());
    let ended = pair.client().ended.len() + 1;
    assert!(pair.run_until(|pair| pair.peers.iter().all(|peer| peer.ended.len() == ended)));
    assert!(
        pair.peers
            .iter()
            .all(|peer| peer.received.values().all(|received| *received == data))
    );
}

fn assert_versions(pair: &Pair, version: Version) {
    for peer in &pair.peers {
        assert_eq!(peer.connection.version(), version);
        assert_eq!(peer.connection.stats(pair.now).version, version);
    }
}

#[test]
fn server_goes_over_to_the_version_that_it_prefers_without_a_round_trip() {
    for (from, to) in BOTH_WAYS {
        let mut pair = changing(from, to);
        let seen = record(&mut pair);
        pair.connect();
        assert_versions(&pair, to);
        assert_eq!(pair.handshake_time(), Duration::from_millis(20), "one round trip");
        exchange(&mut pair, 50_000);
        for peer in &pair.peers {
            assert_eq!(peer.connection.content.stats.undecryptable_packets, 0);
            assert_eq!(peer.connection.content.stats.probe_timeouts, 0);
            let handshake = &peer.connection.handshake;
            assert!(handshake.initial.is_none() && handshake.original_initial.is_none());
            assert!(handshake.restart.is_none() && handshake.client_versions.is_none());
        }
        for (sender, packet) in seen.borrow().iter() {
            let first_flight = *sender == CLIENT && packet.ty == LongType::Initial && packet.version == from;
            assert!(first_flight || packet.version == to, "{packet:?}");
        }
        assert_eq!(seen.borrow()[0].1.version, from);
    }
}

#[test]
fn keys_are_updated_after_a_change_of_version() {
    for (from, to) in BOTH_WAYS {
        let mut client = client_config(from, &[from, to]);
        client.packets_per_key = 200;
        let mut pair = Pair::with(client, server_config(&[to, from]));
        pair.connect();
        pair.server().connection.update_keys();
        exchange(&mut pair, 6_000_000);
        assert_versions(&pair, to);
        for peer in &pair.peers {
            assert!(peer.connection.content.stats.key_updates >= 2);
        }
    }
}

#[test]
fn client_s_order_of_preference_decides_where_the_server_has_none() {
    let negotiated = |client: Config, server: Config| {
        let mut pair = Pair::with(client, server);
        pair.connect();
        let version = pair.client().connection.version();
        assert_versions(&pair, version);
        version
    };
    for (one, other) in BOTH_WAYS {
        let version = |version| Config { version, ..config() };
        assert_eq!(
            negotiated(version(one), config()),
            one,
            "nothing changes if nobody asks for it"
        );
        assert_eq!(
            negotiated(client_config(one, &[other, one]), config()),
            other,
            "the client would rather have the other"
        );
        assert_eq!(
            negotiated(client_config(one, &[one]), server_config(&[other, one])),
            one,
            "the client has no other"
        );
        assert_eq!(
            negotiated(client_config(one, &[other, one]), server_config(&[one, other])),
            one,
            "the server's preference counts, if it has one"
        );
        assert_eq!(
            negotiated(version(one), server_config(&[other])),
            other,
            "the server takes no other"
        );
    }
}

#[test]
fn retry_is_of_the_original_version_and_authenticated_in_the_negotiated_one() {
    for (from, to) in BOTH_WAYS {
        let mut pair = changing(from, to);
        // Its first datagram is lost.
        version_negotiation(&mut pair, &[]);
        let dcid = pair.client().connection.handshake.original_dcid;
        let client_cid = pair.client().connection.content.local_cids.first().cid;
        let scid = ConnectionId::new(&[9; 8]).unwrap();
        let mut seen = Seen::default();
        for version in [to, from] {
            assert_eq!(pair.client().connection.handshake.retry_scid, None);
            if version == from {
                seen = record(&mut pair);
            }
            let mut packet = vec![0; 200];
            let len = crate::wire::stateless::retry(&mut packet, version, &client_cid, &scid, b"token");
            packet.truncate(len);
            packet.extend(crate::crypto::retry::integrity_tag(version, &dcid, &packet));
            to_client(&mut pair, packet);
        }
        assert_eq!(pair.client().connection.handshake.retry_scid, Some(scid));
        pair.start.retry_of = Some(dcid);
        pair.start.validated = true;
        pair.connect();
        assert_versions(&pair, to);
        let (_, after_retry) = seen
            .borrow()
            .iter()
            .find(|(sender, _)| *sender == CLIENT)
            .unwrap()
            .clone();
        assert_eq!((after_retry.version, after_retry.dcid), (from, scid));
        assert!(!after_retry.token.is_empty());
        exchange(&mut pair, 10_000);
    }
}

/// A pair whose server has acknowledged the ClientHello, and nothing more: the application takes its time to accept.
fn acknowledged_in_the_original_version(from: Version, to: Version) -> (Pair, Seen) {
    let mut pair = changing(from, to);
    pair.accept = false;
    let seen = record(&mut pair);
    assert!(pair.run_until(|pair| pair.client().connection.handshake.received));
    assert_eq!(pair.client().connection.version(), from);
    let acknowledgement = seen
        .borrow()
        .iter()
        .find(|(sender, _)| *sender == SERVER)
        .unwrap()
        .1
        .version;
    assert_eq!(acknowledgement, from, "nothing is negotiated yet");
    (pair, seen)
}

fn accept(pair: &mut Pair) {
    let (now, config, tls) = (pair.now, Arc::clone(&pair.server_config), pair.server_tls.clone());
    assert!(pair.server().connection.take_client_hello().is_some());
    pair.server().connection.accept(now, config, &tls);
}

#[test]
fn client_that_has_seen_an_acknowledgement_in_the_original_version_goes_over_all_the_same() {
    for (from, to) in BOTH_WAYS {
        let (mut pair, _) = acknowledged_in_the_original_version(from, to);
        accept(&mut pair);
        pair.connect();
        assert_versions(&pair, to);
        exchange(&mut pair, 10_000);
    }
}

#[test]
fn rest_of_the_flight_that_comes_before_the_server_s_first_initial_is_kept() {
    for (from, to) in BOTH_WAYS {
        let mut pair = changing(from, to);
        let mut lost = false;
        pair.network = Box::new(move |mut datagram| {
            // The first datagram of the server comes last.
            if datagram.to == CLIENT && !std::mem::replace(&mut lost, true) {
                datagram.at += Duration::from_millis(5);
            }
            vec![datagram]
        });
        assert!(pair.run_until(|pair| pair.client().connection.is_established()));
        assert_eq!(
            pair.handshake_time(),
            Duration::from_millis(25),
            "nothing had to be sent again"
        );
        pair.connect();
        assert_versions(&pair, to);
    }
}

#[test]
fn server_s_initial_is_lost_and_the_client_repeats_its_own_in_the_original_version() {
    for (from, to) in BOTH_WAYS {
        let mut pair = changing(from, to);
        let mut lost = false;
        pair.network = Box::new(move |datagram| {
            if datagram.to == CLIENT && !std::mem::replace(&mut lost, true) {
                vec![]
            } else {
                vec![datagram]
            }
        });
        pair.connect();
        assert_versions(&pair, to);
        exchange(&mut pair, 10_000);
    }
}

#[test]
fn version_changes_over_a_network_that_loses_repeats_and_reorders() {
    for seed in 0..60u64 {
        let (from, to) = BOTH_WAYS[seed as usize % 2];
        let mut pair = changing(from, to);
        let mut state = seed * 2 + 1;
        let mut random = move || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % 100
        };
        pair.network = Box::new(move |mut datagram| {
            if random() < 25 {
                return vec![];
            }
            if random() < 30 {
                datagram.at += Duration::from_millis(random() / 4);
            }
            if random() < 10 {
                vec![datagram.clone(), datagram]
            } else {
                vec![datagram]
            }
        });
        let established = |pair: &mut Pair| {
            pair.peers.len() == 2 && pair.peers.iter().all(|peer| peer.connection.is_established())
        };
        assert!(pair.run_until(established), "seed {seed}");
        assert_versions(&pair, to);
        pair.network = Box::new(|datagram| vec![datagram]);
        exchange(&mut pair, 20_000);
    }
}

/// An Initial of the server in this version, with these frames.
fn initial_of(pair: &Pair, version: Version, number: u64, write: impl FnOnce(&mut Writer<'_>)) -> Vec<u8> {
    initial_from(pair, SERVER, version, number, write)
}

/// An Initial of the client or the server, in a datagram of 1200 bytes.
fn initial_from(
    pair: &Pair,
    from: usize,
    version: Version,
    number: u64,
    write: impl FnOnce(&mut Writer<'_>),
) -> Vec<u8> {
    let side = [Side::Client, Side::Server][from];
    let dcid = &pair.peers[CLIENT].connection.handshake.original_dcid;
    let keys = Keys::initial(version, dcid, side).local.expand();
    let cid = |peer: usize| pair.peers[peer].connection.content.local_cids.first().cid;
    let (to, from) = (cid(1 - from), cid(from));
    let mut packet = [0; 1200];
    let mut w = Writer::new(&mut packet[..1184]);
    let encoded = packet_number::encode(number, None);
    let ty = LongType::Initial;
    let length_offset = header::encode_long(&mut w, version, ty, (&to, &from), Some(&[]), encoded);
    let header_len = w.len();
    write(&mut w);
    w.zeros(w.remaining());
    header::patch_length(&mut packet, length_offset);
    keys.packet.seal(number, &mut packet, header_len, &[]);
    let number_offset = header_len - encoded.len;
    let mask = keys.header.mask(header::sample(&packet, number_offset).unwrap());
    header::apply_protection(&mut packet, number_offset, encoded.len, mask);
    packet.to_vec()
}

#[test]
fn server_opens_initials_of_both_versions_until_a_handshake_packet_has_come() {
    for (from, to) in BOTH_WAYS {
        let mut pair = changing(from, to);
        // Nothing of the server arrives.
        pair.network = Box::new(|datagram| {
            if datagram.to == SERVER {
                vec![datagram]
            } else {
                vec![]
            }
        });
        assert!(pair.run_until(|pair| pair.peers.len() == 2));
        assert_eq!(pair.server().connection.version(), to);
        for (number, version) in [(20, from), (21, to), (22, from)] {
            let mut packet = initial_from(&pair, CLIENT, version, number, frame::encode_ping);
            let (now, client) = (pair.now, pair.client_address);
            let path = PathAddress {
                port: ringway_types::PortId(0),
                local: server_address(),
                remote: client,
            };
            let server = pair.server();
            let mut receive = server.connection.receive(&path, Default::default(), &mut packet);
            let drops = &mut server.drops;
            while server.connection.receive_next(now, &mut receive, drops).is_some() {}
            let acks = &server.connection.content.spaces[Space::Initial].acks;
            assert_eq!(acks.largest(), Some(number));
        }
    }
}

#[test]
fn handshake_data_in_another_version_than_the_negotiated_one_is_an_error() {
    for (from, to) in BOTH_WAYS {
        let (mut pair, _) = acknowledged_in_the_original_version(from, to);
        let packet = initial_of(&pair, to, 20, frame::encode_ping);
        to_client(&mut pair, packet);
        assert_eq!(pair.client().connection.version(), to);
        // What is no handshake data may still come.
        let packet = initial_of(&pair, from, 21, frame::encode_ping);
        to_client(&mut pair, packet);
        assert!(pair.client().connection.is_open());
        let packet = initial_of(&pair, from, 22, |w| frame::encode_crypto(w, 0, &[2, 0]));
        to_client(&mut pair, packet);
        let Some(CloseReason::Transport(error)) = close_reason(&pair, CLIENT) else {
            panic!()
        };
        assert_eq!(error.code, TransportErrorCode::PROTOCOL_VIOLATION);
    }
}

#[test]
fn handshake_data_in_the_original_version_settles_it() {
    for (from, to) in BOTH_WAYS {
        let (mut pair, _) = acknowledged_in_the_original_version(from, to);
        let packet = initial_of(&pair, from, 20, |w| frame::encode_crypto(w, 0, &[2, 0]));
        to_client(&mut pair, packet);
        let packet = initial_of(&pair, to, 21, frame::encode_ping);
        to_client(&mut pair, packet);
        assert_eq!(pair.client().connection.version(), from);
        assert_eq!(pair.client().drops.get(DropReason::WrongVersion), 1);
    }
}

#[test]
fn client_ignores_versions_that_it_did_not_offer() {
    for (from, to) in BOTH_WAYS {
        let mut pair = Pair::with(client_config(from, &[from]), config());
        pair.accept = false;
        assert!(pair.run_until(|pair| pair.client().connection.handshake.received));
        let packet = initial_of(&pair, to, 20, frame::encode_ping);
        to_client(&mut pair, packet);
        assert_eq!(pair.client().connection.version(), from);
        assert_eq!(pair.client().drops.get(DropReason::WrongVersion), 1);
    }
}

#[test]
fn server_drops_handshake_packets_of_the_original_version() {
    for (from, to) in BOTH_WAYS {
        let mut pair = changing(from, to);
        pair.network = Box::new(move |mut datagram| {
            // Somebody on the way changes all headers of the client's second flight.
            let mut at = 0;
            for packet in long_packets(&datagram.bytes) {
                if datagram.to == SERVER && packet.version == to && packet.ty == LongType::Handshake {
                    datagram.bytes[at] = datagram.bytes[at] & 0xcf | if from == V1 { 0x20 } else { 0x30 };
                    datagram.bytes[at + 1..at + 5].copy_from_slice(&from.number().to_be_bytes());
                }
                at += packet.packet_len;
            }
            vec![datagram]
        });
        let client_done = |pair: &mut Pair| pair.client().connection.is_established();
        assert!(pair.run_until(client_done));
        pair.run_for(Duration::from_millis(100));
        assert!(pair.server().drops.get(DropReason::WrongVersion) >= 1);
        assert!(!pair.server().connection.is_established());
        assert!(pair.server().connection.handshake.original_initial.is_some());
    }
}
