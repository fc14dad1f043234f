//! Version negotiation packets: a client starts again in a version that the server has (RFC 9368 section 2.1), unless it was misled.

use super::checks::{assert_refused, information, server_says, with};
use super::*;

/// A client that has started with `from`, has a version negotiation packet of `there`, and has sent a new first flight. The server speaks
/// `accepted`.
fn restarted(client: Config, there: &[u32], accepted: &[Version]) -> Pair {
    let mut pair = Pair::with(client, server_config(accepted));
    let packet = version_negotiation(&mut pair, there);
    let before = pair.client().connection.handshake.original_dcid;
    pair.network = Box::new(|datagram| vec![datagram]);
    to_client(&mut pair, packet);
    assert!(pair.client().connection.is_open());
    let after = pair.client().connection.handshake.original_dcid;
    assert_ne!(before, after, "another connection to the peer");
    pair
}

#[test]
fn client_starts_again_in_a_version_that_the_server_has() {
    for (from, to) in BOTH_WAYS {
        let there = [0x1a2a_3a4a, to.number(), 0xff00_001d];
        let mut pair = restarted(client_config(from, &[from, to]), &there, &[to]);
        assert_eq!(pair.client().connection.version(), to);
        let seen = record(&mut pair);
        pair.connect();
        assert_versions(&pair, to);
        assert!(seen.borrow().iter().all(|(_, packet)| packet.version == to));
        assert_eq!(pair.client().connection.content.stats.lost_packets, 0);
        exchange(&mut pair, 10_000);
    }
}

#[test]
fn second_version_negotiation_is_ignored() {
    let mut pair = Pair::with(client_config(V1, &[V1, V2]), config());
    let first = version_negotiation(&mut pair, &[V2.number()]);
    let again = first.clone();
    to_client(&mut pair, first);
    assert_eq!(pair.client().connection.version(), V2);
    let dcid = pair.client().connection.handshake.original_dcid;
    // The one that came again, and one that answers the new first flight.
    let mut second = again.clone();
    let at = second.len() - 4 - 8;
    second[at..at + 8].copy_from_slice(dcid.as_bytes());
    second[at + 8..].copy_from_slice(&V1.number().to_be_bytes());
    for packet in [again, second] {
        to_client(&mut pair, packet);
        assert_eq!(pair.client().connection.handshake.original_dcid, dcid);
        assert!(pair.client().connection.is_open());
    }
    let drops = &pair.client().drops;
    assert_eq!(drops.get(DropReason::UnexpectedVersionNegotiation), 2);
}

#[test]
fn client_without_a_version_in_common_gives_up() {
    for offered in [&[V1][..], &[V1, V2]] {
        let mut pair = Pair::with(client_config(V1, offered), config());
        let there = vec![0x0a1a_2a3a, 0xff00_001d];
        let packet = version_negotiation(&mut pair, &there);
        to_client(&mut pair, packet);
        let reason = CloseReason::VersionNegotiation { offered: there };
        assert_eq!(close_reason(&pair, CLIENT), Some(reason));
    }
}

#[test]
fn token_of_another_version_is_not_sent_again() {
    let mut pair = Pair::with(client_config(V1, &[V1, V2]), config());
    pair.client().connection.handshake.token = b"of version 1"[..].into();
    let packet = version_negotiation(&mut pair, &[V2.number()]);
    to_client(&mut pair, packet);
    assert_eq!(pair.client().connection.version(), V2);
    assert!(pair.client().connection.handshake.token.is_empty());
}

#[test]
fn forged_version_negotiation_is_found_out() {
    let code = TransportErrorCode::VERSION_NEGOTIATION_ERROR;
    for (better, worse) in BOTH_WAYS {
        // The server has both, and somebody on the way says that it has only the one.
        for accepted in [&[worse, better][..], &[better, worse]] {
            let client = client_config(better, &[better, worse]);
            let mut pair = restarted(client, &[worse.number()], accepted);
            assert_refused(&mut pair, CLIENT, code, "the server has the first version too");
        }
        // It would have chosen the same: nothing was lost.
        let client = client_config(better, &[worse, better]);
        let mut pair = restarted(client, &[worse.number()], &[worse, better]);
        pair.connect();
        assert_versions(&pair, worse);
    }
}

#[test]
fn server_s_list_after_version_negotiation_must_lead_to_the_same_version() {
    let code = TransportErrorCode::VERSION_NEGOTIATION_ERROR;
    for (from, to) in BOTH_WAYS {
        let restarted = || restarted(client_config(from, &[from, to]), &[to.number()], &[to]);
        let mut pair = restarted();
        server_says(&mut pair, |own| with(own, information(to, &[])));
        assert_refused(&mut pair, CLIENT, code, "an empty list");
        let mut pair = restarted();
        server_says(&mut pair, |own| with(own, information(to, &[to, from])));
        assert_refused(&mut pair, CLIENT, code, "a list with the first version");
        // The version in use need not be fully deployed.
        let mut pair = restarted();
        server_says(&mut pair, |own| {
            let others = VersionInformation {
                chosen: to.number(),
                available: vec![0x1a2a_3a4a],
            };
            with(own, Some(others))
        });
        pair.connect();
        assert_versions(&pair, to);
    }
}

#[test]
fn silence_after_version_negotiation_means_version_1_and_no_other() {
    // RFC 9368 section 8.
    let mut pair = restarted(client_config(V2, &[V2, V1]), &[V1.number()], &[V1]);
    server_says(&mut pair, |own| with(own, None));
    pair.connect();
    assert_versions(&pair, V1);
    let mut pair = restarted(client_config(V1, &[V1, V2]), &[V2.number()], &[V2]);
    server_says(&mut pair, |own| with(own, None));
    let code = TransportErrorCode::VERSION_NEGOTIATION_ERROR;
    assert_refused(&mut pair, CLIENT, code, "version 2 and silent");
}

#[test]
fn version_may_change_once_more_after_version_negotiation() {
    // RFC 9368 section 2.3, figure 2: what the client has chosen is not what the server prefers.
    let mut pair = restarted(client_config(V1, &[V2, V1]), &[V2.number()], &[V1, V2]);
    pair.connect();
    assert_versions(&pair, V1);
}

#[test]
fn client_none_of_whose_versions_is_accepted_is_told_those_that_are() {
    let mut pair = Pair::with(client_config(V1, &[V1]), server_config(&[V2]));
    assert!(pair.run_until(|pair| close_reason(pair, CLIENT).is_some()));
    let Some(CloseReason::VersionNegotiation { offered }) = close_reason(&pair, CLIENT) else {
        panic!()
    };
    assert_eq!(offered[0], V2.number());
    assert_eq!(offered.len(), 2, "and a reserved one");
    assert_eq!(offered[1] & 0x0f0f_0f0f, 0x0a0a_0a0a);
    assert!(pair.server().connection.is_drained(), "it keeps nothing of it");
    let Some(CloseReason::Transport(error)) = close_reason(&pair, SERVER) else {
        panic!()
    };
    assert_eq!(error.code, TransportErrorCode::VERSION_NEGOTIATION_ERROR);
}
