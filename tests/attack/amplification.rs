//! What the server sends to addresses that have not asked for it: at most three times what came in their names (RFC 9000 section 8.1).

use std::time::Duration;

use ringway::{Limits, RetryPolicy};
use ringway_engine::wire::Space;

use super::field::{Application, Attacker, Field, longer, settings};
use super::frames;

const VICTIM: &str = "198.51.100.66";

fn victim(port: u16) -> std::net::SocketAddr {
    format!("{VICTIM}:{port}").parse().unwrap()
}

fn field(name: &'static str, retry: RetryPolicy) -> Field {
    let field = Field::new(
        name,
        Limits::default(),
        retry,
        settings(),
        Application::Reads { answer: 10 },
    );
    field.watch(VICTIM);
    field
}

/// What the victim got for what was sent in its name.
fn check(field: &Field, times: u64) {
    let (sent, received) = field.watched(VICTIM);
    field.report();
    assert!(sent > 0, "nothing was tried");
    assert!(received <= times * sent, "{received} bytes for {sent}");
}

#[test]
fn initials_in_the_name_of_a_victim() {
    let mut field = field("amplification by Initial", RetryPolicy::Never);
    let mut attacker = Attacker::new(&field, "203.0.113.9:1", 1);
    let initial = attacker.first_datagram(&field);
    for port in 0..100 {
        field.send_from(victim(1000 + port), &initial);
    }
    // All retransmissions.
    field.run_for(Duration::from_secs(30));
    check(&field, 3);
}

#[test]
fn small_packets_behind_an_initial_earn_no_more_than_their_size() {
    let mut field = field("amplification by small packets", RetryPolicy::Never);
    let mut attacker = Attacker::new(&field, "203.0.113.9:1", 1);
    let initial = attacker.first_datagram(&field);
    field.send_from(victim(1000), &initial);
    for _ in 0..500 {
        let ping = attacker.datagram(Space::Initial, frames::PING);
        field.send_from(victim(1000), &ping);
        field.run_for(Duration::from_millis(20));
    }
    check(&field, 3);
}

#[test]
fn retry_is_shorter_than_what_asked_for_it() {
    let mut field = field("amplification by Retry", RetryPolicy::Always);
    let initial = Attacker::new(&field, "203.0.113.9:1", 1).first_datagram(&field);
    for port in 0..1000 {
        field.send_from(victim(1000 + port), &initial);
        field.run_for(Duration::from_millis(1));
    }
    assert!(field.stats().retries >= 1000);
    check(&field, 1);
}

#[test]
fn invalid_token_is_refused_in_few_bytes_and_nothing_is_kept() {
    let mut field = field("amplification by an invalid token", RetryPolicy::Always);
    let mut initial = Attacker::new(&field, "203.0.113.9:1", 1).first_datagram(&field);
    // The token's length, behind two connection IDs of 8 bytes; what follows is no longer what it was.
    assert_eq!(initial[23], 0);
    initial.splice(23..24, [vec![60, 0x52], vec![9; 59]].concat());
    for port in 0..1000 {
        field.send_from(victim(1000 + port), &initial);
        field.run_for(Duration::from_millis(1));
    }
    let stats = field.stats();
    assert_eq!((stats.refusals, stats.handshakes), (1000, 0));
    check(&field, 1);
}

#[test]
fn version_negotiation_and_stateless_reset_are_no_longer_than_their_cause() {
    let mut field = field(
        "amplification by version negotiation, reset",
        RetryPolicy::UnderLoad,
    );
    let mut unknown = Attacker::new(&field, "203.0.113.9:1", 1).first_datagram(&field);
    unknown[1..5].copy_from_slice(&0x0b0b_0b0bu32.to_be_bytes());
    for port in 0..500 {
        field.send_from(victim(1000 + port), &unknown);
        // Of no connection: the shortest packets that look like 1-RTT, and longer ones.
        for len in [1, 20, 22, 43, 100] {
            let mut short = vec![0x41; len];
            short[len / 2] = port as u8;
            field.send_from(victim(1000 + port), &short);
        }
        field.run_for(Duration::from_millis(1));
    }
    let stats = field.stats();
    assert!(
        stats.version_negotiations >= 500 && stats.stateless_resets >= 500,
        "{stats:?}"
    );
    check(&field, 1);
}

#[test]
fn client_that_moves_in_the_name_of_a_victim_aims_no_more_than_three_times_at_it() {
    let mut field = field("amplification by path validation", RetryPolicy::UnderLoad);
    let mut attacker = Attacker::connected(&mut field, "203.0.113.9:1", 1);
    for number in 0..400 * longer() {
        // Four challenges in a small packet, from another address each time or from the same one.
        let frames: Vec<u8> = (0..4)
            .flat_map(|index| frames::path_challenge(number * 4 + index))
            .collect();
        let datagram = attacker.datagram(Space::Data, &frames);
        field.send_from(victim(1000 + (number % 40) as u16), &datagram);
        field.run_for(Duration::from_millis(2));
    }
    field.run_for(Duration::from_secs(5));
    check(&field, 3);
}

#[test]
fn move_to_a_victim_while_data_flows_stops_at_the_limit() {
    let name = "amplification by a move while data flows";
    let mut field = Field::answering(name, 10 << 20);
    field.watch(VICTIM);
    let mut attacker = Attacker::connected(&mut field, "203.0.113.9:1", 1);
    // A request for 10 MiB, and then the attacker says that it is where the victim is.
    attacker.send(&field, &frames::request());
    field.run_for(Duration::from_millis(5));
    for _ in 0..50 {
        let datagram = attacker.datagram(Space::Data, frames::PING);
        field.send_from(victim(1000), &datagram);
        field.run_for(Duration::from_millis(50));
    }
    field.run_for(Duration::from_secs(10));
    check(&field, 3);
}

#[test]
fn closing_connection_answers_ever_more_rarely() {
    let mut field = field("amplification by a closing connection", RetryPolicy::UnderLoad);
    let mut attacker = Attacker::connected(&mut field, "203.0.113.9:1", 1);
    // A frame that no client may send: the server closes.
    attacker.send(&field, &[0x1e]);
    field.run_for(Duration::from_millis(5));
    field.watch("203.0.113.9");
    for _ in 0..1000 {
        attacker.send(&field, frames::PING);
    }
    field.run_for(Duration::from_secs(5));
    let (sent, received) = field.watched("203.0.113.9");
    field.report();
    assert!(received < sent / 10, "{received} bytes for {sent}");
}
