//! Bounds on what one turn does and on what peers can make a worker hold.

use std::time::Duration;

/// Operations of other threads that one turn runs at most.
pub const OPERATIONS_PER_TURN: usize = 1024;
/// Transmit slots that one connection fills in one turn at most, so that connections share the device...
pub const SLOTS_PER_CONNECTION_PER_TURN: usize = 4;
/// ...unless a slot holds one datagram only: then as many, which go to the device together.
pub const SINGLES_PER_CONNECTION_PER_TURN: usize = 64;
/// Connections that one worker hosts at most.
pub const CONNECTIONS_MAX: usize = 1 << 20;
/// Handshakes of clients, not yet complete, that one worker keeps at most. A handshake holds about 10 KiB.
pub const HANDSHAKES_MAX: usize = 8192;
/// From this many handshakes on, clients must prove their address by a Retry, where the listener says "when loaded".
pub const HANDSHAKES_RETRY: usize = 1024;
/// Answers without a connection (version negotiation, Retry, stateless reset) that one turn sends at most.
pub const STATELESS_PER_TURN: usize = 64;
/// The longest such answer in bytes: a Retry of two 20-byte connection IDs and a token.
pub const STATELESS_BYTES_MAX: usize = 512;
/// The longest sleep, so that a lost deadline heals.
pub const SLEEP_MAX: Duration = Duration::from_secs(60);
