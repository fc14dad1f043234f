//! What peers make the server hold: at most 4 bytes for each byte that they sent, 64 KB for each connection, and 1 KB for each stream that
//! is open.

use std::time::Duration;

use ringway::{Limits, RetryPolicy, Settings};
use ringway_engine::wire::Space;

use super::field::{Application, Attacker, Field, longer, settings};
use super::{frames, heap};

const CONNECTION: u64 = 64 << 10;
const STREAM: u64 = 1 << 10;

/// Asserts what the head of this file says.
fn check(field: &mut Field, connections: u64, streams: u64) {
    field.serve_somebody();
    field.report();
    assert!(
        field.ends.lock().unwrap().is_empty(),
        "the attack was noticed: {:?}",
        field.ends
    );
    let (received, _) = field.bytes();
    let bound = 4 * received + connections * CONNECTION + streams * STREAM;
    let held = field.growth();
    assert!(
        held <= bound,
        "{held} bytes held, {bound} allowed for {received} bytes in {connections} connections with {streams} streams"
    );
}

#[test]
fn a_byte_in_each_block_of_a_stream() {
    let mut field = Field::simple("one byte in each 4 KiB of a stream");
    let mut attacker = Attacker::connected(&mut field, "203.0.113.9:1", 1);
    // The windows of one stream, and of the connection with all its streams.
    let frames = (0..100)
        .flat_map(|stream| (0..16).map(move |block| frames::stream(2 + 4 * stream, block * 4096 + 1, &[1])));
    attacker.send_all(&mut field, frames);
    check(&mut field, 1, 100);
}

#[test]
fn a_byte_in_each_block_of_a_large_window() {
    let settings = Settings {
        stream_receive_window: 16 << 20,
        ..settings()
    };
    let name = "one byte in each 4 KiB of 16 MiB";
    let mut field = Field::new(
        name,
        Limits::default(),
        RetryPolicy::Never,
        settings,
        Application::Reads { answer: 10 },
    );
    for number in 0..longer().min(20) as u8 {
        let mut attacker = Attacker::connected(
            &mut field,
            &format!("203.0.113.9:{}", 100 + u16::from(number)),
            number + 1,
        );
        attacker.send_all(
            &mut field,
            (0..4000).map(|block| frames::stream(2, block * 4096 + 1, &[1])),
        );
    }
    check(&mut field, longer().min(20), longer().min(20));
}

#[test]
fn every_second_byte_of_a_stream() {
    let mut field = Field::simple("every second byte of a stream");
    let mut attacker = Attacker::connected(&mut field, "203.0.113.9:1", 1);
    attacker.send_all(
        &mut field,
        (0..4000).map(|byte| frames::stream(2, byte * 2 + 1, &[1])),
    );
    check(&mut field, 1, 1);
}

#[test]
fn pieces_of_a_handshake() {
    let mut field = Field::simple("pieces of CRYPTO in 200 handshakes");
    for number in 0..200 {
        let mut attacker = Attacker::new(&field, &format!("203.0.113.9:{}", 100 + number), number as u8);
        let mut pieces: Vec<u8> = (0..120)
            .flat_map(|piece| frames::crypto(1000 + piece * 500, &[1]))
            .collect();
        pieces.resize(1170, 0);
        let datagram = attacker.datagram(Space::Initial, &pieces);
        field.send_from(
            format!("203.0.113.9:{}", 100 + number).parse().unwrap(),
            &datagram,
        );
    }
    field.run_for(Duration::from_millis(5));
    check(&mut field, 200, 0);
}

#[test]
fn all_streams_opened_by_one_frame() {
    let settings = Settings {
        peer_uni_stream_count: 10_000,
        peer_bidi_stream_count: 10_000,
        ..settings()
    };
    let name = "20,000 streams opened by two frames";
    let mut field = Field::new(
        name,
        Limits::default(),
        RetryPolicy::Never,
        settings,
        Application::Pauses,
    );
    let mut attacker = Attacker::connected(&mut field, "203.0.113.9:1", 1);
    attacker.send(&field, &frames::stream(4 * 9_999, 0, &[1]));
    attacker.send(&field, &frames::stream(4 * 9_999 + 2, 0, &[1]));
    field.run_for(Duration::from_millis(5));
    // Two were named; those below them are ranges.
    check(&mut field, 1, 2);
}

#[test]
fn streams_reset_as_soon_as_they_are_opened() {
    let mut field = Field::simple("20,000 streams opened and reset");
    let mut attacker = Attacker::connected(&mut field, "203.0.113.9:1", 1);
    for stream in 0..20_000 * longer() {
        attacker.send(
            &field,
            &[
                frames::stream(2 + 4 * stream, 0, &[1]),
                frames::reset_stream(2 + 4 * stream, 0, 1),
            ]
            .concat(),
        );
        if stream % 50 == 49 {
            field.run_for(Duration::from_millis(3));
            attacker.ignore(&field);
        }
    }
    // However many came, none is left but the most that may be open at once.
    check(&mut field, 1, 100);
}

#[test]
fn reader_that_never_reads_lets_go_of_what_was_to_be_sent() {
    let name = "50 readers that acknowledge nothing";
    let answer = 1 << 20;
    let mut field = Field::answering(name, answer);
    for number in 0..50 {
        let mut attacker =
            Attacker::connected(&mut field, &format!("203.0.113.9:{}", 100 + number), number as u8);
        attacker.send(&field, &frames::request());
    }
    // Past the disconnect timeout.
    field.run_for(Duration::from_secs(20));
    assert_eq!(field.ends.lock().unwrap().len(), 50);
    field.serve_somebody();
    field.run_for(Duration::from_secs(2));
    field.report();
    assert!(field.growth() < 256 << 10, "{} bytes held", field.growth());
}

#[test]
fn peer_that_sends_and_acknowledges_nothing_is_given_up() {
    let name = "a sender that acknowledges nothing";
    let answer = 1 << 20;
    let mut field = Field::answering(name, answer);
    let mut attacker = Attacker::connected(&mut field, "203.0.113.9:1", 1);
    attacker.send(&field, &frames::request());
    // It is there, and asks for acknowledgements, which cost a record each.
    for _ in 0..2000 {
        attacker.send(&field, frames::PING);
        field.run_for(Duration::from_millis(10));
        attacker.ignore(&field);
    }
    assert_eq!(field.ends.lock().unwrap().len(), 1);
    field.serve_somebody();
    field.run_for(Duration::from_secs(2));
    field.report();
    assert!(field.growth() < CONNECTION, "{} bytes held", field.growth());
}

#[test]
fn connection_that_is_over_leaves_nothing() {
    let mut field = Field::simple("500 connections that came and went");
    for number in 0..500u32 {
        let at = format!("203.0.113.9:{}", 100 + number);
        let mut attacker = Attacker::connected(&mut field, &at, number as u8);
        attacker.send(&field, &[0x1d, 0, 0]);
    }
    field.run_for(Duration::from_secs(10));
    field.serve_somebody();
    field.report();
    assert!(field.growth() < 256 << 10, "{} bytes held", field.growth());
}

/// Attackers that send what a reader who pauses does not take, each `bytes` on one stream.
fn stuff(field: &mut Field, attackers: std::ops::Range<u16>, bytes: u64) -> Vec<Attacker> {
    attackers
        .map(|number| {
            let at = format!("203.0.113.9:{}", 100 + number);
            let mut attacker = Attacker::connected(field, &at, number as u8);
            let data = [7; 1100];
            let frames = (0..bytes / 1100).map(|piece| frames::stream(2, piece * 1100, &data));
            attacker.send_all(field, frames);
            attacker
        })
        .collect()
}

#[test]
fn process_that_holds_as_much_as_it_may_refuses_newcomers_until_it_holds_less() {
    let limits = Limits {
        memory: Some(4 << 20),
        ..Limits::default()
    };
    let settings = Settings {
        stream_receive_window: 1 << 20,
        idle_timeout: Duration::from_secs(5),
        ..settings()
    };
    let name = "readers that pause, with a bound of 4 MB";
    let mut field = Field::new(name, limits, RetryPolicy::Never, settings, Application::Pauses);
    let attackers = stuff(&mut field, 0..4, 1 << 20);
    let stats = field.stats();
    assert!(stats.memory > 4 << 20, "{}", stats.memory);
    let mut newcomer = Attacker::new(&field, "203.0.113.9:99", 99);
    for _ in 0..10 {
        let initial = newcomer.first_datagram(&field);
        field.send_from("203.0.113.9:99".parse().unwrap(), &initial);
        field.run_for(Duration::from_secs(2));
        if newcomer.is_refused(&field) {
            break;
        }
    }
    assert!(newcomer.is_refused(&field));
    assert_eq!(field.stats().connections, 4);
    assert!(field.growth() < 10 << 20, "{} bytes held", field.growth());
    // They go silent, and time out.
    drop(attackers);
    field.run_for(Duration::from_secs(10));
    field.serve_somebody();
    field.report();
}

#[test]
fn memory_of_a_burst_goes_back_to_the_system() {
    let settings = Settings {
        stream_receive_window: 4 << 20,
        idle_timeout: Duration::from_secs(5),
        ..settings()
    };
    let name = "16 readers that pause over 4 MB";
    let mut field = Field::new(
        name,
        Limits::default(),
        RetryPolicy::Never,
        settings,
        Application::Pauses,
    );
    let attackers = stuff(&mut field, 0..16, 4 << 20);
    let burst = heap::resident();
    drop(attackers);
    // Five seconds until they time out, and ten.
    field.run_for(Duration::from_secs(15));
    field.serve_somebody();
    field.report();
    let after = heap::resident();
    // 64 MiB were held.
    let gone = burst.saturating_sub(after);
    assert!(gone > 48 << 20, "{burst} bytes in the burst, {after} after it");
}
