//! Connection IDs and paths, as a peer may treat them: late repeats, probes, moves, and addresses that are not its own.

use super::*;
use crate::wire::Space;

fn new_cid(sequence: u64, retire_prior_to: u64) -> Vec<u8> {
    frames(|w| {
        frame::encode_new_connection_id(
            w,
            &NewConnectionId {
                sequence,
                retire_prior_to,
                cid: ConnectionId::new(&[sequence as u8 + 100; 8]).unwrap(),
                reset_token: ResetToken([sequence as u8; 16]),
            },
        );
    })
}

fn integers(ty: u64, values: &[u64]) -> Vec<u8> {
    frames(|w| frame::encode_integers(w, ty, values))
}

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// Frames as sent: type, destination, connection ID, size of the packet.
fn packets(bench: &mut Bench) -> Vec<(SocketAddr, [u8; 8], Vec<Frame<'static>>, usize)> {
    let mut packets = Vec::new();
    while let Some((transmit, packet)) = bench.transmit() {
        let len = packet.len();
        let packet: &'static [u8] = packet.leak();
        let number_len = usize::from(packet[0] & 3) + 1;
        let mut reader = FrameReader::new(&packet[9 + number_len..len - 16]);
        let frames = std::iter::from_fn(|| reader.next_frame()).map(Result::unwrap);
        let frames = frames.filter(|frame| *frame != Frame::Padding).collect();
        packets.push((
            transmit.path.remote,
            packet[1..9].try_into().unwrap(),
            frames,
            len,
        ));
    }
    packets
}

/// A server whose client has given it three more connection IDs.
fn server_with_spares() -> Bench {
    let mut bench = server();
    for sequence in 1..4 {
        bench.receive_from(CLIENT, sequence as u32, &new_cid(sequence, 0));
    }
    bench.sent();
    bench
}

/// Answers the challenge that the server has sent last.
fn validate(bench: &mut Bench, remote: &str, number: u32) {
    let challenge = bench
        .connection
        .path
        .challenge
        .clone()
        .expect("a challenge is under way");
    bench.receive_from(
        remote,
        number,
        &frames(|w| frame::encode_path_response(w, challenge.data)),
    );
}

fn current(bench: &Bench) -> [u8; 8] {
    bench
        .connection
        .content
        .remote_cids
        .current()
        .as_bytes()
        .try_into()
        .unwrap()
}

#[test]
fn repeated_announcement_of_a_retired_connection_id_does_not_bring_it_back() {
    let mut bench = server_with_spares();
    for (number, remote) in [(4, "198.51.100.7:50001"), (5, "198.51.100.7:50002")] {
        bench.receive_from(remote, number, &stream(0, u64::from(number - 4) * 400, &[1; 400]));
        bench.sent();
    }
    assert_eq!(current(&bench), [102; 8]);
    // The acknowledgement of the first was lost: the client says it again, as it must.
    bench.receive_from("198.51.100.7:50002", 6, &new_cid(1, 0));
    bench.receive_from("198.51.100.7:50003", 7, &stream(0, 800, &[1; 400]));
    assert_eq!(bench.error(), None);
    assert_eq!(
        current(&bench),
        [103; 8],
        "a connection ID that was retired is in use again"
    );
}

#[test]
fn repeated_announcement_of_a_retired_connection_id_does_not_count_against_the_limit() {
    let mut bench = server_with_spares();
    bench.receive_from("198.51.100.7:50001", 4, &stream(0, 0, &[1; 1200]));
    bench.sent();
    validate(&mut bench, "198.51.100.7:50001", 5);
    // In place of 0 the client has issued 4: four are active, as many as we said that we keep.
    bench.receive_from("198.51.100.7:50001", 6, &new_cid(4, 0));
    for number in 7..10 {
        bench.receive_from("198.51.100.7:50001", number, &new_cid(1, 0));
    }
    assert_eq!(bench.error(), None, "a repetition closes the connection");
}

#[test]
fn connection_id_of_the_old_path_is_retired_once_the_new_one_is_validated() {
    let mut bench = server_with_spares();
    bench.receive_from("198.51.100.7:50001", 4, &stream(0, 0, &[1; 1200]));
    let types: Vec<u64> = bench.sent().into_iter().map(|(ty, _)| ty).collect();
    assert!(
        types.contains(&ty::PATH_CHALLENGE) && !types.contains(&ty::RETIRE_CONNECTION_ID),
        "{types:x?}"
    );
    validate(&mut bench, "198.51.100.7:50001", 5);
    let types: Vec<u64> = bench.sent().into_iter().map(|(ty, _)| ty).collect();
    assert!(types.contains(&ty::RETIRE_CONNECTION_ID), "{types:x?}");
}

#[test]
fn path_that_is_not_validated_is_left_for_the_one_before_with_its_connection_id() {
    let mut bench = server_with_spares();
    let before = current(&bench);
    bench.receive_from("203.0.113.5:5", 4, &stream(0, 0, &[1; 1200]));
    bench.sent();
    assert_ne!(current(&bench), before);
    for _ in 0..100 {
        bench.now += Duration::from_millis(100);
        bench.connection.on_timeout(bench.now);
        bench.sent();
    }
    assert_eq!(bench.connection.path().remote, address(CLIENT));
    assert_eq!(current(&bench), before);
    assert!(bench.connection.is_open());
}

#[test]
fn answers_to_path_challenges_stay_within_three_times_what_came() {
    for (challenges, pad_to) in [(1, 0), (4, 0), (1, 300), (4, 300), (40, 600), (4, 1200)] {
        let mut bench = server_with_spares();
        let (mut came, mut went) = (0, 0);
        for index in 0..100u32 {
            let challenge = frames(|w| {
                for number in 0..challenges {
                    frame::encode_path_challenge(w, [number; 8]);
                }
                w.zeros(usize::saturating_sub(pad_to, w.len()));
            });
            came += 1 + 8 + 4 + 16 + challenge.len();
            let victim = format!("203.0.113.5:{}", 1000 + index);
            bench.receive_from(&victim, 50 + index, &challenge);
            went += packets(&mut bench)
                .into_iter()
                .filter(|(remote, ..)| *remote == address(&victim))
                .map(|(.., len)| len)
                .sum::<usize>();
        }
        assert!(
            0 < went && went <= 3 * came,
            "{challenges} challenges: {went} bytes for {came}"
        );
        assert_eq!(bench.error(), None);
    }
}

#[test]
fn answer_to_a_full_challenge_is_a_full_datagram() {
    let mut bench = server_with_spares();
    let challenge = frames(|w| {
        frame::encode_path_challenge(w, *b"whothere");
        w.zeros(1150);
    });
    bench.receive_from("203.0.113.5:5", 50, &challenge);
    let answer = packets(&mut bench)
        .into_iter()
        .find(|(remote, ..)| *remote == address("203.0.113.5:5"));
    let (.., frames, len) = answer.unwrap();
    assert_eq!(frames, [Frame::PathResponse(*b"whothere")]);
    assert_eq!(len, 1200);
}

/// A packet to the connection ID of ours with this first byte.
fn receive_at(bench: &mut Bench, own: u8, remote: &str, number: u32, frames: &[u8]) {
    let mut datagram = vec![0x43];
    datagram.extend([own; 8]);
    datagram.extend(number.to_be_bytes());
    datagram.extend(frames);
    datagram.extend([0; 16]);
    let path = PathAddress {
        remote: address(remote),
        ..bench.path
    };
    let mut receive = bench.connection.receive(&path, Ecn::NotEct, &mut datagram);
    while bench
        .connection
        .receive_next(bench.now, &mut receive, &mut bench.drops)
        .is_some()
    {}
}

#[test]
fn probe_with_a_fresh_connection_id_is_answered_with_a_fresh_one_which_the_new_path_goes_on_with() {
    let mut bench = server_with_spares();
    bench.connection.add_local_cid(cid(70));
    bench.sent();
    let before = current(&bench);
    let probe = frames(|w| {
        frame::encode_path_challenge(w, *b"whothere");
        w.zeros(600);
    });
    receive_at(&mut bench, 70, "203.0.113.5:5", 50, &probe);
    let there = address("203.0.113.5:5");
    let of_answer = |bench: &mut Bench| {
        let sent = packets(bench).into_iter().find(|(remote, ..)| *remote == there);
        sent.map(|(_, dcid, ..)| dcid)
    };
    let dcid = of_answer(&mut bench).unwrap();
    assert_ne!(
        dcid, before,
        "an observer sees one connection ID at two addresses"
    );
    assert_eq!(current(&bench), before);
    // A second probe from there goes to the same one, and so does all when the client moves there.
    receive_at(&mut bench, 70, "203.0.113.5:5", 51, &probe);
    assert_eq!(of_answer(&mut bench), Some(dcid));
    receive_at(&mut bench, 70, "203.0.113.5:5", 52, &stream(0, 0, &[1; 1200]));
    assert_eq!(current(&bench), dcid);
}

#[test]
fn probe_is_not_answered_when_no_connection_id_is_left_for_it() {
    let mut bench = server();
    bench.connection.add_local_cid(cid(70));
    bench.sent();
    let probe = frames(|w| frame::encode_path_challenge(w, *b"whothere"));
    receive_at(&mut bench, 70, "203.0.113.5:5", 50, &probe);
    assert!(
        packets(&mut bench)
            .iter()
            .all(|(remote, ..)| *remote == address(CLIENT))
    );
    // One that the network moved uses the connection ID that it used before, and so may we.
    bench.receive_from("203.0.113.5:6", 51, &probe);
    assert!(
        packets(&mut bench)
            .iter()
            .any(|(remote, ..)| *remote == address("203.0.113.5:6"))
    );
}

#[test]
fn path_validated_by_less_than_a_full_datagram_is_validated_again_by_a_full_one() {
    let mut bench = server_with_spares();
    let there = "203.0.113.5:5";
    bench.receive_from(there, 4, &stream(0, 0, &[1; 100]));
    let challenge = |bench: &mut Bench| {
        let sent = packets(bench).into_iter();
        sent.filter(|(.., frames, _)| {
            frames
                .iter()
                .any(|frame| matches!(frame, Frame::PathChallenge(_)))
        })
        .map(|(.., len)| len)
        .collect::<Vec<_>>()
    };
    let sizes = challenge(&mut bench);
    assert!(sizes.len() == 1 && sizes[0] < 1200, "{sizes:?}");
    validate(&mut bench, there, 5);
    assert_eq!(challenge(&mut bench), [1200]);
    assert_eq!(bench.connection.stats(bench.now).path_changes, 0);
    validate(&mut bench, there, 6);
    assert_eq!(bench.connection.stats(bench.now).path_changes, 1);
    assert!(challenge(&mut bench).is_empty());
}

/// A server that has sent full packets over the old path, and whose client is at another address now, from which much came.
fn moved_with_packets_under_way() -> (Bench, u64) {
    let config = Config {
        initial_window_packets: 10,
        pacing: false,
        ..config()
    };
    let mut bench = bench(config, true);
    bench.receive_from(CLIENT, 1, &stream(0, 0, b"hello"));
    let streams = bench.connection.streams_mut();
    let key = streams.create(Dir::Uni);
    streams.start(key, true).unwrap();
    streams.send(key, vec![0; 50_000].into(), 0, false).unwrap();
    bench.sent();
    let sent = bench.connection.recovery.next_number(Space::Data);
    assert!(sent >= 8, "{sent}");
    bench.now += Duration::from_millis(10);
    bench.receive_from("203.0.113.5:5", 2, &stream(0, 5, &[0; 1200]));
    assert_eq!(bench.connection.path().remote, address("203.0.113.5:5"));
    (bench, sent)
}

#[test]
fn acknowledgement_of_packets_of_the_old_path_says_nothing_of_the_new_one() {
    let (mut bench, sent) = moved_with_packets_under_way();
    assert_eq!(
        bench.connection.recovery.bytes_in_flight(),
        0,
        "nothing is in flight on the new path"
    );
    let window = bench.connection.path.controller.window();
    bench.now += Duration::from_millis(700);
    bench.receive_from(
        "203.0.113.5:5",
        3,
        &integers(ty::ACK, &[sent - 1, 0, 0, sent - 1]),
    );
    let rtt = bench.connection.recovery.rtt();
    let sample = rtt.first_sample().map(|_| rtt.latest());
    assert_eq!(
        (sample, bench.connection.path.controller.window()),
        (None, window)
    );
}

#[test]
fn loss_of_packets_of_the_old_path_does_not_shrink_the_window_of_the_new_one_and_is_repaired() {
    let (mut bench, sent) = moved_with_packets_under_way();
    let window = bench.connection.path.controller.window();
    let before = bench.connection.stats(bench.now).sent_stream_bytes;
    bench.now += Duration::from_millis(700);
    // The last of them is acknowledged: the others count as lost.
    bench.receive_from("203.0.113.5:5", 3, &integers(ty::ACK, &[sent - 1, 0, 0, 0]));
    assert!(bench.connection.path.controller.window() >= window);
    bench.sent();
    assert!(
        bench.connection.stats(bench.now).sent_stream_bytes > before,
        "what was lost goes again"
    );
}

#[test]
fn peer_that_takes_a_fresh_connection_id_for_each_address_and_retires_none_is_given_more() {
    for limit in [2, 4, 8, 1000] {
        rebind_twenty_times(limit);
    }
}

fn rebind_twenty_times(limit: u64) {
    let mut bench = server_with_spares();
    bench.connection.content.local_cids.set_peer_limit(limit);
    let mut given: Vec<u8> = vec![2];
    let give = |bench: &mut Bench, given: &mut Vec<u8>| {
        for _ in 0..bench.connection.local_cids_wanted() {
            let next = given.len() as u8 + 70;
            bench.connection.add_local_cid(cid(next));
            given.push(next);
        }
        packets(bench)
    };
    give(&mut bench, &mut given);
    let mut number = 50;
    for rebinding in 1..=20usize {
        assert!(
            given.len() > rebinding,
            "no fresh connection ID for rebinding {rebinding}"
        );
        let remote = format!("198.51.100.7:{}", 50_000 + rebinding);
        receive_at(
            &mut bench,
            given[rebinding],
            &remote,
            number,
            &stream(0, 0, &[1; 1200]),
        );
        bench.sent();
        let challenge = bench.connection.path.challenge.clone().unwrap();
        let response = frames(|w| frame::encode_path_response(w, challenge.data));
        receive_at(&mut bench, given[rebinding], &remote, number + 1, &response);
        number += 2;
        // It retires what it is asked to, and no more.
        let asked = give(&mut bench, &mut given)
            .into_iter()
            .flat_map(|(.., frames, _)| frames);
        let prior_to = asked.filter_map(|frame| match frame {
            Frame::NewConnectionId(new) => Some(new.retire_prior_to),
            _ => None,
        });
        for sequence in 0..prior_to.max().unwrap_or(0) {
            receive_at(
                &mut bench,
                given[rebinding],
                &remote,
                number,
                &integers(ty::RETIRE_CONNECTION_ID, &[sequence]),
            );
            number += 1;
        }
        assert!(bench.connection.local_cids().count() as u64 <= limit.min(8));
        assert_eq!(bench.error(), None);
    }
}

#[test]
fn peer_that_never_retires_is_given_no_more_than_twice_what_it_may_have() {
    let mut bench = server_with_spares();
    bench.connection.content.local_cids.set_peer_limit(1000);
    let mut given: Vec<u8> = vec![2];
    for rebinding in 0..50usize {
        for _ in 0..bench.connection.local_cids_wanted() {
            let next = given.len() as u8 + 70;
            bench.connection.add_local_cid(cid(next));
            given.push(next);
        }
        bench.sent();
        let remote = format!("198.51.100.7:{}", 50_001 + rebinding);
        let own = *given.get(rebinding + 1).unwrap_or(given.last().unwrap());
        let number = 50 + 2 * rebinding as u32;
        receive_at(&mut bench, own, &remote, number, &stream(0, 0, &[1; 1200]));
        bench.sent();
        if let Some(challenge) = &bench.connection.path.challenge {
            let response = frames(|w| frame::encode_path_response(w, challenge.data));
            receive_at(&mut bench, own, &remote, number + 1, &response);
        }
    }
    assert!(bench.connection.local_cids().count() <= 16);
}
