//! Peers that lie: about what they have received, and about connection IDs.

use std::time::Duration;

use super::field::{Attacker, Field, longer};
use super::frames;

#[test]
fn acknowledging_what_was_not_received_ends_the_connection() {
    let name = "optimistic acknowledgement";
    let answer = 100 << 20;
    let mut field = Field::answering(name, answer);
    let mut attacker = Attacker::connected(&mut field, "203.0.113.9:1", 1);
    attacker.send(&field, &frames::request());
    // All numbers so far, and a guess of what comes, ever further: the sender leaves some out (RFC 9000 section 21.4).
    let mut received = 0;
    for round in 0..3000u64 {
        field.run_for(Duration::from_millis(1));
        received += attacker.ignore(&field);
        attacker.send(&field, &frames::ack(0, 10 + round * 4));
        if !field.ends.lock().unwrap().is_empty() {
            break;
        }
    }
    field.run_for(Duration::from_secs(1));
    field.serve_somebody();
    field.report();
    assert_eq!(field.stats().protocol_errors, 1);
    let ends = field.ends.lock().unwrap();
    assert!(
        ends.len() == 1 && ends[0].contains("PROTOCOL_VIOLATION"),
        "{ends:?}"
    );
    assert!(
        received < 20 << 20,
        "{received} bytes to somebody who has not read them"
    );
}

#[test]
fn flood_of_new_connection_ids_holds_nothing() {
    let mut field = Field::simple("flood of NEW_CONNECTION_ID");
    let mut attacker = Attacker::connected(&mut field, "203.0.113.9:1", 1);
    // Each retires the ones before: no limit is exceeded, and each is to be answered by RETIRE_CONNECTION_ID.
    let frames = (2..20_000 * longer()).map(|sequence| frames::new_connection_id(sequence, sequence));
    attacker.send_all(&mut field, frames);
    field.serve_somebody();
    field.report();
    assert!(field.growth() < 256 << 10, "{} bytes held", field.growth());
}

#[test]
fn flood_of_retired_connection_ids_holds_nothing() {
    let mut field = Field::simple("flood of RETIRE_CONNECTION_ID");
    let mut attacker = Attacker::connected(&mut field, "203.0.113.9:1", 1);
    // All but the one in use, again and again as new ones come.
    for round in 0..2000 * longer() {
        let retired: Vec<u8> = (1..8)
            .flat_map(|ahead| frames::retire_connection_id(round + ahead))
            .collect();
        attacker.send(&field, &retired);
        field.run_for(Duration::from_millis(1));
        attacker.ignore(&field);
    }
    field.serve_somebody();
    field.report();
    assert!(field.growth() < 256 << 10, "{} bytes held", field.growth());
}
