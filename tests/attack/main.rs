//! Attacks on a server, over a virtual network in virtual time: what they make it send, hold and refuse.
//!
//! Each scenario prints a line: bytes that the attackers sent and that left for them, memory before, at its most and after,
//! and what a client that means no harm got meanwhile. What is asserted are counts and bytes. `TEST_RUNS` makes them longer.
//!
//! `cargo test -p ringway-tests --all-features --test attack -- --nocapture` shows the table.

mod amplification;
mod field;
mod floods;
mod frames;
mod heap;
mod holding;
mod lies;
mod replay;
