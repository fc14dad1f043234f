#![allow(
    clippy::single_range_in_vec_init,
    reason = "lists of ranges, of which some have one"
)]

use ringway_types::Ecn;

use super::ack_tracker::AckTracker;
use super::*;
use crate::base::range_set::RangeSet;
use crate::wire::frame::AckFrequency;

const READY: HandshakeState = HandshakeState {
    has_handshake_keys: true,
    confirmed: true,
    address_validated_by_peer: true,
    blocked_by_amplification: false,
};

#[derive(Default)]
struct Seen {
    acked: Vec<u64>,
    lost: Vec<u64>,
}

impl Sink<u64> for Seen {
    fn on_acked(&mut self, _: Space, token: u64) {
        self.acked.push(token);
    }
    fn on_lost(&mut self, _: Space, token: u64) {
        self.lost.push(token);
    }
}

/// A sender whose packets carry their own number as token.
struct Sender {
    recovery: Recovery<u64>,
    seen: Seen,
}

fn ms(ms: u64) -> Instant {
    Instant::from_nanos(1_000_000_000 + ms * 1_000_000)
}

impl Sender {
    fn new() -> Self {
        Sender {
            recovery: Recovery::new(Side::Client, Duration::from_millis(333), 7),
            seen: Seen::default(),
        }
    }

    fn send(&mut self, at: u64, count: usize) -> Vec<u64> {
        (0..count)
            .map(|_| self.send_packet(at, eliciting(1200)))
            .collect()
    }

    fn send_packet(&mut self, at: u64, packet: SentPacket) -> u64 {
        let number = self.recovery.next_number(Space::Data);
        if self.recovery.on_sent(Space::Data, ms(at), packet, &[number]) {
            self.recovery.forget(Space::Data, ms(at), &mut Seen::default());
        }
        number
    }

    fn ack(&mut self, at: u64, ranges: &[Range<u64>]) -> Result<AckOutcome, TransportError> {
        let ack = Ack {
            largest: ranges[0].end - 1,
            delay: Duration::ZERO,
            ranges: ranges.iter().cloned(),
        };
        self.recovery
            .on_ack(Space::Data, ms(at), ack, READY, &mut self.seen)
    }
}

fn eliciting(size: u16) -> SentPacket {
    SentPacket {
        size,
        ack_eliciting: true,
        in_flight: true,
        ..SentPacket::default()
    }
}

#[test]
fn acknowledged_packets_leave_the_flight_and_give_a_round_trip_time() {
    let mut sender = Sender::new();
    sender.send(0, 3);
    assert_eq!(sender.recovery.bytes_in_flight(), 3600);
    let outcome = sender.ack(40, &[0..3]).unwrap();
    assert_eq!((outcome.packets, outcome.bytes), (3, 3600));
    assert_eq!(sender.recovery.rtt().smoothed(), Duration::from_millis(40));
    assert_eq!(sender.recovery.bytes_in_flight(), 0);
    assert_eq!(sender.seen.acked, [0, 1, 2]);
    assert_eq!(sender.recovery.deadline(READY), None);
}

#[test]
fn acknowledgement_of_a_number_never_sent_is_a_protocol_violation() {
    let mut sender = Sender::new();
    sender.send(0, 3);
    assert_eq!(
        sender.ack(1, &[0..4]).unwrap_err().code,
        TransportErrorCode::PROTOCOL_VIOLATION
    );
}

#[test]
fn acknowledgement_of_a_skipped_number_is_a_protocol_violation() {
    let mut sender = Sender::new();
    let numbers = sender.send(0, 20_000);
    let skipped = numbers
        .windows(2)
        .find(|pair| pair[1] != pair[0] + 1)
        .expect("numbers are skipped now and then")[0]
        + 1;
    assert_eq!(
        sender.ack(1, &[skipped..skipped + 1]).unwrap_err().code,
        TransportErrorCode::PROTOCOL_VIOLATION
    );
    // An honest peer leaves the number out.
    sender.ack(1, &[skipped + 1..skipped + 3, 0..skipped]).unwrap();
}

#[test]
fn packet_three_below_an_acknowledged_one_is_lost() {
    let mut sender = Sender::new();
    sender.send(0, 5);
    let outcome = sender.ack(10, &[3..4]).unwrap();
    let loss = outcome.loss.unwrap();
    assert_eq!((loss.packets, loss.bytes), (1, 1200));
    assert_eq!(sender.seen.lost, [0]);
    // The next two are lost by time: 9/8 of the round trip time after they were sent.
    let deadline = sender.recovery.deadline(READY).unwrap();
    assert_eq!(deadline, ms(0) + Duration::from_micros(11_250));
    assert!(matches!(
        sender.recovery.on_timeout(ms(11), READY, &mut sender.seen),
        Timeout::Nothing
    ));
    assert!(matches!(
        sender.recovery.on_timeout(ms(12), READY, &mut sender.seen),
        Timeout::Lost(Loss { packets: 2, .. })
    ));
    assert_eq!(sender.seen.lost, [0, 1, 2]);
    assert_eq!(sender.recovery.bytes_in_flight(), 1200);
}

#[test]
fn late_ack_after_loss_is_reported_as_spurious_once() {
    let mut sender = Sender::new();
    sender.send(0, 5);
    sender.ack(10, &[4..5]).unwrap();
    assert_eq!(sender.seen.lost, [0, 1]);
    let outcome = sender.ack(12, &[4..5, 0..1]).unwrap();
    assert_eq!(
        outcome.spurious,
        Some(Spurious {
            packets: 1,
            latest_sent: ms(0),
            all: false
        })
    );
    assert_eq!(
        outcome.bytes, 0,
        "the bytes left the flight when the packet was declared lost"
    );
    let outcome = sender.ack(12, &[4..5, 0..2]).unwrap();
    assert!(outcome.spurious.unwrap().all);
    assert_eq!(sender.ack(13, &[4..5, 0..2]).unwrap().spurious, None);
    assert_eq!(sender.seen.acked, [4, 0, 1]);
}

#[test]
fn hole_at_the_base_does_not_hold_the_ring_for_ever() {
    let mut sender = Sender::new();
    sender.send(0, 1);
    for round in 0..1000 {
        let numbers = sender.send(round * 10, 10);
        // Contiguous runs, without numbers that were skipped.
        let mut runs: Vec<Range<u64>> = Vec::new();
        for &number in numbers.iter().rev() {
            match runs.last_mut() {
                Some(run) if run.start == number + 1 => run.start = number,
                _ => runs.push(number..number + 1),
            }
        }
        sender.ack(round * 10 + 5, &runs).unwrap();
    }
    assert_eq!(sender.seen.lost, [0]);
    assert!(sender.recovery.spaces[2].as_ref().unwrap().len() < 200);
}

#[test]
fn records_of_packets_that_nobody_acknowledges_go_with_time() {
    let mut sender = Sender::new();
    for at in 0..10_000 {
        sender.send_packet(
            at,
            SentPacket {
                size: 40,
                ..SentPacket::default()
            },
        );
    }
    assert!(
        sender.recovery.spaces[2].as_ref().unwrap().len() < 4000,
        "about three probe timeouts of 1 s"
    );
    assert_eq!(sender.recovery.bytes_in_flight(), 0);
    assert_eq!(sender.recovery.deadline(READY), None);
}

#[test]
fn probe_timeout_doubles_and_an_acknowledgement_resets_it() {
    let mut sender = Sender::new();
    sender.send(0, 1);
    sender.ack(100, &[0..1]).unwrap();
    sender.send(100, 1);
    // 100 + 4 * 50 + 25 ms
    let first = sender.recovery.deadline(READY).unwrap();
    assert_eq!(first, ms(425));
    assert_eq!(
        sender.recovery.on_timeout(first, READY, &mut sender.seen),
        Timeout::Probe(Space::Data)
    );
    assert_eq!(sender.recovery.deadline(READY).unwrap(), ms(750));
    sender.recovery.on_timeout(ms(750), READY, &mut sender.seen);
    assert_eq!(sender.recovery.pto_count(), 2);
    sender.ack(760, &[0..2]).unwrap();
    assert_eq!(sender.recovery.pto_count(), 0);
}

#[test]
fn client_with_nothing_in_flight_probes_until_the_server_has_validated_it() {
    let mut sender = Sender::new();
    let state = HandshakeState {
        has_handshake_keys: false,
        confirmed: false,
        address_validated_by_peer: false,
        blocked_by_amplification: false,
    };
    sender
        .recovery
        .on_sent(Space::Initial, ms(0), eliciting(1200), &[0]);
    let ack = Ack {
        largest: 0,
        delay: Duration::ZERO,
        ranges: std::iter::once(0..1),
    };
    sender
        .recovery
        .on_ack(Space::Initial, ms(50), ack, state, &mut sender.seen)
        .unwrap();
    let deadline = sender.recovery.deadline(state).expect("anti-deadlock timer");
    assert_eq!(
        sender.recovery.on_timeout(deadline, state, &mut sender.seen),
        Timeout::Probe(Space::Initial)
    );
    let with_keys = HandshakeState {
        has_handshake_keys: true,
        ..state
    };
    let deadline = sender.recovery.deadline(with_keys).unwrap();
    assert_eq!(
        sender.recovery.on_timeout(deadline, with_keys, &mut sender.seen),
        Timeout::Probe(Space::Handshake)
    );
}

#[test]
fn data_space_has_no_probe_timeout_before_the_handshake_is_confirmed() {
    let mut sender = Sender::new();
    sender.send(0, 1);
    let unconfirmed = HandshakeState {
        confirmed: false,
        ..READY
    };
    assert_eq!(sender.recovery.deadline(unconfirmed), None);
    assert!(sender.recovery.deadline(READY).is_some());
}

#[test]
fn blackout_longer_than_the_threshold_is_persistent_congestion() {
    let mut sender = Sender::new();
    sender.send(0, 1);
    sender.ack(20, &[0..1]).unwrap();
    // (20 + 4 * 10 + 25) * 3 = 255 ms
    for at in 0..10 {
        sender.send(100 + at * 30, 1);
    }
    sender.send(500, 1);
    let loss = sender.ack(520, &[11..12]).unwrap().loss.unwrap();
    assert!(loss.persistent);
}

#[test]
fn losses_on_both_sides_of_an_acknowledged_packet_are_no_persistent_congestion() {
    let mut sender = Sender::new();
    sender.send(0, 1);
    sender.ack(20, &[0..1]).unwrap();
    for at in 0..10 {
        sender.send(100 + at * 30, 1);
    }
    sender.send(500, 1);
    let loss = sender.ack(520, &[11..12, 5..6]).unwrap().loss.unwrap();
    assert!(!loss.persistent);
}

#[test]
fn lost_mtu_probe_is_no_congestion() {
    let mut sender = Sender::new();
    sender.send_packet(
        0,
        SentPacket {
            mtu_probe: true,
            ..eliciting(1472)
        },
    );
    sender.send(0, 5);
    let loss = sender.ack(10, &[1..6]).unwrap().loss.unwrap();
    assert_eq!((loss.packets, loss.bytes, loss.mtu_probe), (0, 0, Some(1472)));
    assert_eq!(sender.recovery.bytes_in_flight(), 0);
}

#[test]
fn discarded_space_leaves_nothing_in_flight() {
    let mut sender = Sender::new();
    sender
        .recovery
        .on_sent(Space::Initial, ms(0), eliciting(1200), &[0]);
    sender.recovery.discard(Space::Initial);
    assert_eq!(sender.recovery.bytes_in_flight(), 0);
    assert!(!sender.recovery.has_any_ack_eliciting());
}

#[test]
fn everything_outstanding_is_sent_again_after_a_retry() {
    let mut sender = Sender::new();
    sender
        .recovery
        .on_sent(Space::Initial, ms(0), eliciting(1200), &[1]);
    sender
        .recovery
        .on_sent(Space::Initial, ms(0), eliciting(1200), &[2]);
    sender.recovery.resend_all(Space::Initial, &mut sender.seen);
    assert_eq!(sender.seen.lost, [1, 2]);
    assert_eq!(sender.recovery.bytes_in_flight(), 0);
    assert_eq!(
        sender.recovery.next_number(Space::Initial),
        2,
        "packet numbers go on"
    );
}

fn tracker() -> AckTracker {
    AckTracker::new(Duration::from_millis(25))
}

#[test]
fn second_ack_eliciting_packet_makes_an_ack_due_the_first_waits() {
    let mut acks = tracker();
    acks.on_received(ms(0), 0, true, Ecn::NotEct);
    assert!(!acks.is_due(ms(0)));
    assert_eq!(acks.deadline(), Some(ms(25)));
    acks.on_received(ms(1), 1, true, Ecn::NotEct);
    assert!(acks.is_due(ms(1)));
    acks.on_ack_sent();
    assert!(!acks.is_due(ms(100)));
}

#[test]
fn gap_late_packet_and_congestion_mark_make_an_ack_due_at_once() {
    let mut acks = tracker();
    acks.on_received(ms(0), 0, true, Ecn::NotEct);
    acks.on_ack_sent();
    acks.on_received(ms(0), 2, true, Ecn::NotEct);
    assert!(acks.is_due(ms(0)), "gap");
    acks.on_ack_sent();
    acks.on_received(ms(0), 1, true, Ecn::NotEct);
    assert!(acks.is_due(ms(0)), "late packet");
    acks.on_ack_sent();
    acks.on_received(ms(0), 3, true, Ecn::Ce);
    assert!(acks.is_due(ms(0)), "congestion mark");
}

fn request(sequence: u64, threshold: u64, reordering: u64) -> AckFrequency {
    AckFrequency {
        sequence,
        threshold,
        max_delay_us: 8000,
        reordering,
    }
}

#[test]
fn peer_that_asks_for_fewer_acknowledgements_gets_them_for_so_many_packets_or_after_its_delay() {
    let mut acks = tracker();
    acks.on_ack_frequency(&request(1, 4, 3));
    for number in 0..4 {
        acks.on_received(ms(0), number, true, Ecn::NotEct);
        assert!(!acks.is_due(ms(0)), "{number}");
    }
    assert_eq!(acks.deadline(), Some(ms(8)));
    acks.on_received(ms(1), 4, true, Ecn::NotEct);
    assert!(acks.is_due(ms(1)));
    acks.on_ack_sent();
    // An older request and the same one again are ignored, a newer one is not.
    acks.on_ack_frequency(&request(0, 0, 3));
    acks.on_ack_frequency(&request(1, 0, 3));
    acks.on_received(ms(2), 5, true, Ecn::NotEct);
    assert!(!acks.is_due(ms(2)));
    acks.on_ack_frequency(&request(2, 0, 3));
    acks.on_received(ms(2), 6, true, Ecn::NotEct);
    assert!(acks.is_due(ms(2)));
}

#[test]
fn packet_that_asks_for_an_acknowledgement_at_once_gets_it() {
    let mut acks = tracker();
    acks.on_ack_frequency(&request(0, 1000, 0));
    acks.on_immediate_ack();
    acks.on_received(ms(0), 0, true, Ecn::NotEct);
    assert!(acks.is_due(ms(0)));
}

#[test]
fn gaps_make_an_ack_due_when_they_are_as_wide_as_the_peer_asks() {
    // The two tables of draft-ietf-quic-ack-frequency section 6.2.1: packets, and whether each makes one due.
    let tables: [(u64, &[(u64, bool)]); 2] = [
        (
            3,
            &[
                (0, false),
                (1, false),
                (3, false),
                (4, false),
                (5, true),
                (8, false),
                (9, true),
                (10, true),
            ],
        ),
        (
            5,
            &[
                (0, false),
                (1, false),
                (3, false),
                (5, false),
                (6, false),
                (7, true),
                (8, false),
                (9, true),
            ],
        ),
    ];
    for (reordering, packets) in tables {
        let mut acks = tracker();
        acks.on_ack_frequency(&request(0, 1000, reordering));
        for &(number, due) in packets {
            acks.on_received(ms(0), number, true, Ecn::NotEct);
            assert_eq!(acks.is_due(ms(0)), due, "{number}, threshold {reordering}");
            if due {
                acks.on_ack_sent();
            }
        }
        // What the peer must take as lost, and comes.
        acks.on_received(ms(0), 2, true, Ecn::NotEct);
        assert!(acks.is_due(ms(0)));
    }
    let mut acks = tracker();
    acks.on_ack_frequency(&request(0, 1000, 0));
    for number in [0, 9, 5, 70] {
        acks.on_received(ms(0), number, true, Ecn::NotEct);
    }
    assert!(
        !acks.is_due(ms(0)),
        "no gap is reported early where none is asked for"
    );
}

#[test]
fn every_packet_is_acknowledged_once_though_many_may_wait_and_there_are_many_gaps() {
    let mut acks = tracker();
    acks.on_ack_frequency(&request(0, 1000, 0));
    let mut reported = RangeSet::new();
    for number in (0..400).step_by(2) {
        acks.on_received(ms(0), number, true, Ecn::NotEct);
        if acks.is_due(ms(0)) {
            acks.ranges().for_each(|range| {
                reported.insert(range);
            });
            acks.on_ack_sent();
        }
    }
    assert!(
        (0..400)
            .step_by(2)
            .filter(|number| !reported.contains(*number))
            .count()
            < 32,
        "all but the last"
    );
}

#[test]
fn first_of_several_congestion_marks_makes_an_ack_due_where_many_packets_may_wait() {
    let mut acks = tracker();
    acks.on_ack_frequency(&request(0, 1000, 3));
    for (number, (ecn, due)) in (0..).zip([
        (Ecn::Ect0, false),
        (Ecn::Ce, true),
        (Ecn::Ce, false),
        (Ecn::Ect0, false),
        (Ecn::Ce, true),
    ]) {
        acks.on_received(ms(0), number, true, ecn);
        assert_eq!(acks.is_due(ms(0)), due, "{number}");
        if due {
            acks.on_ack_sent();
        }
    }
}

#[test]
fn at_rest_only_what_asks_for_an_acknowledgement_is_remembered() {
    let mut sender = Sender::new();
    let records = |sender: &Sender| sender.recovery.space(Space::Data).unwrap().len();
    let asking = sender.send_packet(0, eliciting(1200));
    let silent = sender.send_packet(
        1,
        SentPacket {
            size: 40,
            ..SentPacket::default()
        },
    );
    sender.recovery.shrink_to_fit();
    assert_eq!(records(&sender), 2);
    sender.ack(2, &[asking..asking + 1]).unwrap();
    sender.recovery.shrink_to_fit();
    assert_eq!(records(&sender), 0);
    // Its acknowledgement tells nothing, and is no error; that of a packet that was not sent is.
    assert_eq!(
        sender.ack(3, &[silent..silent + 1]).unwrap(),
        AckOutcome::default()
    );
    assert!(sender.ack(3, &[silent + 1..silent + 2]).is_err());
    let next = sender.send_packet(4, eliciting(1200));
    assert_eq!(next, silent + 1);
    assert_eq!(sender.ack(5, &[next..next + 1]).unwrap().packets, 1);
}

#[test]
fn at_rest_what_counts_as_lost_is_remembered_for_a_late_acknowledgement() {
    let mut sender = Sender::new();
    let sent = sender.send(0, 5);
    let outcome = sender.ack(10, &[sent[1]..sent[4] + 1]).unwrap();
    assert_eq!(outcome.loss.unwrap().packets, 1);
    sender.recovery.shrink_to_fit();
    assert_eq!(
        sender
            .ack(11, &[sent[0]..sent[4] + 1])
            .unwrap()
            .spurious
            .unwrap()
            .packets,
        1
    );
}

#[test]
fn duplicates_are_known_even_when_ranges_were_dropped() {
    let mut acks = tracker();
    for number in (0..200).step_by(2) {
        acks.on_received(ms(0), number, true, Ecn::NotEct);
    }
    assert_eq!(acks.ranges().count(), 32);
    assert!(acks.is_duplicate(0), "too old to tell");
    assert!(acks.is_duplicate(198));
    assert!(!acks.is_duplicate(197));
    assert!(!acks.is_duplicate(199));
}

#[test]
fn ranges_that_the_peer_knows_are_acknowledged_are_not_repeated() {
    let mut acks = tracker();
    for number in (0..1000).filter(|number| number % 100 != 7) {
        acks.on_received(ms(0), number, true, Ecn::NotEct);
    }
    assert_eq!(acks.ranges().count(), 11);
    acks.on_ack_acked(999);
    assert_eq!(acks.ranges().count(), 3);
    assert!(acks.is_duplicate(5));
    assert!(
        !acks.is_duplicate(907),
        "a packet that is only late is still taken"
    );
}
