//! Many clients at once: from anywhere, from one place, and such as never finish.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use ringway::{DropReason, Limits, RetryPolicy};
use ringway_engine::wire::Space;

use super::field::{Application, Attacker, Field, longer, settings};
use super::frames;

/// Each another address.
fn spoofed(number: u64) -> SocketAddr {
    let ip = Ipv4Addr::from_bits(0x0a00_0000 | number as u32 & 0x00ff_ffff);
    SocketAddr::new(IpAddr::V4(ip), 1024 + (number >> 24) as u16)
}

/// 20,000 Initials a second from addresses that are not the attacker's, while clients come and go.
fn flood(name: &'static str, retry: RetryPolicy) -> Field {
    let limits = Limits::default();
    let mut field = Field::new(name, limits, retry, settings(), Application::Reads { answer: 10 });
    let initial = Attacker::new(&field, "203.0.113.9:1", 1).first_datagram(&field);
    let mut sent = 0;
    for step in 0..1000 * longer() {
        for _ in 0..20 {
            field.send_from(spoofed(sent), &initial);
            sent += 1;
        }
        field.run_for(Duration::from_millis(1));
        if step % 200 == 199 {
            // The flood goes on while this one is served.
            for number in 0..20 {
                field.send_from(spoofed(sent + number), &initial);
            }
            field.serve_somebody();
        }
    }
    let stats = field.stats();
    assert!(stats.handshakes <= limits.handshakes as u64);
    let (received, replied) = field.bytes();
    assert!(
        replied <= 3 * received,
        "RFC 9000 section 8.1: {replied} bytes for {received}"
    );
    field
}

#[test]
fn flood_of_initials_from_anywhere_keeps_no_client_out() {
    let mut field = flood(
        "flood of spoofed Initials, Retry under load",
        RetryPolicy::UnderLoad,
    );
    let stats = field.stats();
    assert!(stats.retries > 15_000, "{stats:?}");
    field.run_for(Duration::from_secs(25));
    assert_eq!(field.stats().handshakes, 0);
    field.report();
    assert!(
        field.growth() < 4 << 20,
        "{} bytes are kept of clients that never were",
        field.growth()
    );
}

#[test]
fn flood_of_initials_keeps_no_client_out_where_nobody_must_prove_an_address() {
    let mut field = flood("flood of spoofed Initials, Retry never", RetryPolicy::Never);
    let stats = field.stats();
    assert!(stats.handshakes_replaced > 10_000, "{stats:?}");
    field.report();
}

/// Limits that few packets reach.
fn tight() -> Limits {
    Limits {
        handshakes: 400,
        handshakes_before_retry: 50,
        handshakes_per_source: 50,
        ..Limits::default()
    }
}

/// One attacker takes up slots, each from another port, and keeps them by packets that restart the idle timeout.
fn slots(name: &'static str, retry: RetryPolicy) -> Field {
    let mut field = Field::new(
        name,
        tight(),
        retry,
        settings(),
        Application::Reads { answer: 10 },
    );
    let mut attacker = Attacker::new(&field, "203.0.113.9:1", 1);
    let initial = attacker.first_datagram(&field);
    let at = |port: u16| SocketAddr::new("203.0.113.9".parse().unwrap(), port);
    let ports = 2000..3000;
    for port in ports.clone() {
        field.send_from(at(port), &initial);
    }
    for _ in 0..30 {
        // A PING in a full datagram, which does restart the idle timeout, and a small one, which is dropped.
        let mut ping = frames::PING.to_vec();
        ping.resize(1160, 0);
        let full = attacker.datagram(Space::Initial, &ping);
        let small = attacker.datagram(Space::Initial, frames::PING);
        for port in ports.clone().step_by(3) {
            field.send_from(at(port), &full);
            field.send_from(at(port), &small);
        }
        field.run_for(Duration::from_millis(400));
        field.serve_somebody();
    }
    let stats = field.stats();
    assert!(
        stats.handshakes <= 60,
        "one address has {} of the handshakes",
        stats.handshakes
    );
    field.run_for(Duration::from_secs(10));
    assert_eq!(
        field.stats().handshakes,
        0,
        "a handshake outlives its absolute limit"
    );
    field
}

#[test]
fn one_address_has_its_share_of_the_handshakes_and_no_more() {
    let mut field = slots(
        "slots taken by one address, Retry under load",
        RetryPolicy::UnderLoad,
    );
    assert!(field.drops(DropReason::InitialTooShort) > 1000);
    field.report();
}

#[test]
fn one_address_has_its_share_of_the_handshakes_where_nobody_must_prove_an_address() {
    let mut field = slots("slots taken by one address, Retry never", RetryPolicy::Never);
    assert!(field.drops(DropReason::SourceFull) > 500);
    field.report();
}

#[test]
fn host_with_a_network_of_ipv6_addresses_is_one_source() {
    let limits = Limits {
        handshakes_before_retry: 400,
        ..tight()
    };
    let name = "slots taken by one IPv6 network";
    let mut field = Field::new(
        name,
        limits,
        RetryPolicy::Never,
        settings(),
        Application::Reads { answer: 10 },
    );
    let initial = Attacker::new(&field, "203.0.113.9:1", 1).first_datagram(&field);
    for host in 1..1000 {
        let ip = Ipv6Addr::from_bits(0x2001_0db8_0000_0000_0000_0000_0000_0000 | host);
        field.send_from(SocketAddr::new(IpAddr::V6(ip), 4000), &initial);
    }
    field.serve_somebody();
    let stats = field.stats();
    assert!(stats.handshakes <= 51, "{}", stats.handshakes);
    assert_eq!(stats.drops.get(DropReason::SourceFull), 999 - 50);
    field.report();
}

/// Floods with handshakes that fail as soon as they begin: each holds its place for as long as it answers its peer.
fn failing(
    name: &'static str,
    retry: RetryPolicy,
    first: impl Fn(&mut Attacker, &Field) -> Vec<u8>,
) -> Field {
    let mut field = Field::new(
        name,
        tight(),
        retry,
        settings(),
        Application::Reads { answer: 10 },
    );
    let mut attacker = Attacker::new(&field, "203.0.113.9:1", 1);
    let datagram = first(&mut attacker, &field);
    for step in 0..200 {
        for number in 0..20 {
            field.send_from(spoofed(step * 20 + number), &datagram);
        }
        field.run_for(Duration::from_millis(1));
    }
    field.serve_somebody();
    let stats = field.stats();
    assert!(
        stats.connections <= 401,
        "{} connections that have failed are kept",
        stats.connections
    );
    field.report();
    field
}

/// An Initial that closes the connection which it opens.
fn closing(attacker: &mut Attacker, _field: &Field) -> Vec<u8> {
    let mut close = vec![0x1c, 0, 0, 0];
    close.resize(1160, 0);
    attacker.datagram(Space::Initial, &close)
}

#[test]
fn handshakes_that_close_at_once_count_as_long_as_they_are_kept() {
    let mut field = failing(
        "Initials that close, Retry under load",
        RetryPolicy::UnderLoad,
        closing,
    );
    assert!(field.stats().retries > 3500);
    let mut field = {
        drop(field);
        failing("Initials that close, Retry never", RetryPolicy::Never, closing)
    };
    assert!(field.stats().handshakes_replaced > 3500);
}

#[test]
fn handshakes_for_a_protocol_that_nobody_speaks_count_as_long_as_they_are_kept() {
    let first = |_: &mut Attacker, field: &Field| {
        Attacker::speaking(field, "203.0.113.9:2", 2, b"nobody").first_datagram(field)
    };
    let mut field = failing("Initials for an unknown protocol", RetryPolicy::Never, first);
    assert!(field.stats().handshakes_replaced > 3500);
}
