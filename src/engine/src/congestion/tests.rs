use std::time::Duration;

use proptest::prelude::*;
use ringway_types::Instant;

use super::controller::WINDOW_MAX;
use super::pacer::{Pace, Pacer};
use super::*;

const MTU: u64 = 1200;

fn at(ms: u64) -> Instant {
    Instant::from_nanos(1_000_000_000 + ms * 1_000_000)
}

fn acked(bytes: u64, sent: Instant) -> Acked {
    Acked {
        bytes,
        sent,
        rtt: Duration::from_millis(100),
        latest: None,
        app_limited: false,
    }
}

fn loss(sent: Instant) -> CongestionEvent {
    CongestionEvent {
        sent,
        persistent: false,
        ecn: false,
    }
}

#[test]
fn slow_start_doubles_the_window_per_round_trip() {
    for algorithm in [Algorithm::Cubic, Algorithm::NewReno] {
        let mut controller = Controller::new(algorithm, MTU, 10);
        assert_eq!(controller.window(), 12_000);
        controller.on_ack(at(100), acked(12_000, at(0)));
        assert_eq!(controller.window(), 24_000);
    }
}

#[test]
fn window_is_reduced_once_per_round_trip() {
    let mut controller = Controller::new(Algorithm::NewReno, MTU, 100);
    assert!(controller.on_congestion_event(at(100), loss(at(0))));
    assert_eq!(controller.window(), 60_000);
    assert!(
        !controller.on_congestion_event(at(110), loss(at(50))),
        "sent before the reduction"
    );
    assert_eq!(controller.window(), 60_000);
    assert!(controller.on_congestion_event(at(210), loss(at(120))));
    assert_eq!(controller.window(), 30_000);
}

#[test]
fn cubic_reduces_to_seven_tenths_and_returns_to_where_it_was() {
    let mut controller = Controller::new(Algorithm::Cubic, MTU, 1000);
    let before = controller.window();
    controller.on_congestion_event(at(0), loss(at(0)));
    assert_eq!(controller.window(), before * 7 / 10);
    // K = cbrt(300 / 0.4) = 9.1 s
    let mut windows = Vec::new();
    for round in 1..=120 {
        let now = at(round * 100);
        controller.on_ack(now, acked(controller.window(), now));
        windows.push(controller.window());
    }
    let at_plateau = windows[89] as f64 / before as f64;
    assert!((0.97..1.03).contains(&at_plateau), "{at_plateau}");
    assert!(windows.is_sorted());
    assert!(windows[119] > before);
}

#[test]
fn cubic_on_short_paths_is_no_slower_than_newreno() {
    let mut cubic = Controller::new(Algorithm::Cubic, MTU, 40);
    let mut reno = Controller::new(Algorithm::NewReno, MTU, 28);
    cubic.on_congestion_event(at(0), loss(at(0)));
    reno.on_congestion_event(at(0), loss(at(0)));
    for round in 1..2000 {
        for controller in [&mut cubic, &mut reno] {
            let ack = Acked {
                rtt: Duration::from_millis(1),
                ..acked(controller.window(), at(round))
            };
            controller.on_ack(at(round), ack);
        }
    }
    assert!(
        cubic.window() * 10 >= reno.window() * 5,
        "{} {}",
        cubic.window(),
        reno.window()
    );
}

#[test]
fn persistent_congestion_leaves_the_minimum_window() {
    for algorithm in [Algorithm::Cubic, Algorithm::NewReno] {
        let mut controller = Controller::new(algorithm, MTU, 100);
        controller.on_congestion_event(
            at(100),
            CongestionEvent {
                sent: at(0),
                persistent: true,
                ecn: false,
            },
        );
        assert_eq!(controller.window(), 2 * MTU);
    }
}

#[test]
fn window_comes_back_when_all_losses_prove_spurious() {
    for algorithm in [Algorithm::Cubic, Algorithm::NewReno] {
        let mut controller = Controller::new(algorithm, MTU, 100);
        controller.on_congestion_event(at(100), loss(at(0)));
        controller.on_spurious(at(0));
        assert_eq!(controller.window(), 120_000);
        assert!(controller.in_slow_start());
        // Only once, and not after a mark of the network.
        controller.on_congestion_event(
            at(200),
            CongestionEvent {
                sent: at(150),
                persistent: false,
                ecn: true,
            },
        );
        let reduced = controller.window();
        controller.on_spurious(at(150));
        assert_eq!(controller.window(), reduced);
    }
}

#[test]
fn window_that_is_not_filled_does_not_grow() {
    for algorithm in [Algorithm::Cubic, Algorithm::NewReno] {
        let mut controller = Controller::new(algorithm, MTU, 10);
        controller.on_ack(
            at(100),
            Acked {
                app_limited: true,
                ..acked(12_000, at(0))
            },
        );
        assert_eq!(controller.window(), 12_000);
    }
}

#[test]
fn idle_path_starts_again_from_the_initial_window() {
    let mut controller = Controller::new(Algorithm::Cubic, MTU, 10);
    controller.on_ack(at(100), acked(12_000, at(0)));
    controller.on_idle(10);
    assert_eq!(controller.window(), 12_000);
    assert!(controller.in_slow_start(), "up to where it was");
}

proptest! {
    #[test]
    fn no_sequence_of_events_leaves_the_bounds(
        cubic: bool,
        events in prop::collection::vec((0u8..6, 0u64..1 << 40, 0u64..3_600_000_000_000, 1u64..u64::MAX / 4), 0..200),
    ) {
        let algorithm = if cubic { Algorithm::Cubic } else { Algorithm::NewReno };
        let mut controller = Controller::new(algorithm, MTU, 10);
        let mut pacer = Pacer::new(Instant::ZERO);
        let mut now = Instant::ZERO;
        for (kind, bytes, step, rtt) in events {
            let sent = now;
            now += Duration::from_nanos(step);
            let rtt = Duration::from_nanos(rtt);
            match kind {
                0 | 1 => controller.on_ack(now, Acked { bytes, sent: now, rtt, latest: Some(rtt), app_limited: false }),
                2 => { controller.on_congestion_event(now, loss(sent)); }
                3 => { controller.on_congestion_event(now, CongestionEvent { sent, persistent: true, ecn: false }); }
                4 => controller.on_spurious(sent),
                _ => controller.on_idle(10),
            }
            prop_assert!(controller.window() >= 2 * MTU);
            prop_assert!(controller.window() <= WINDOW_MAX);
            let pace = Pace { window: controller.window(), rtt, slow_start: controller.in_slow_start(), mtu: MTU };
            pacer.consume(bytes);
            pacer.refill(now, &pace);
            if !pacer.allows(MTU) {
                prop_assert!(pacer.next_release(&pace).is_some_and(|release| release > now));
            }
        }
    }
}

#[test]
fn paced_sender_reaches_the_pace_and_not_more() {
    let pace = Pace {
        window: 1_200_000,
        rtt: Duration::from_millis(100),
        slow_start: false,
        mtu: MTU,
    };
    let mut pacer = Pacer::new(at(0));
    let mut now = at(0);
    let mut sent = 0;
    while now < at(10_000) {
        pacer.refill(now, &pace);
        if !pacer.allows(MTU) {
            now = pacer.next_release(&pace).expect("blocked");
            continue;
        }
        pacer.consume(MTU);
        sent += MTU;
    }
    // 5/4 of 12 MB/s.
    let rate = sent as f64 / 10.0 / 15e6;
    assert!((0.99..1.01).contains(&rate), "{rate}");
}

#[test]
fn short_paths_are_not_paced() {
    let pace = Pace {
        window: 12_000,
        rtt: Duration::from_micros(900),
        slow_start: false,
        mtu: MTU,
    };
    let mut pacer = Pacer::new(at(0));
    pacer.consume(u64::MAX);
    pacer.refill(at(0), &pace);
    assert!(pacer.allows(u64::MAX));
    assert_eq!(pacer.next_release(&pace), None);
}
