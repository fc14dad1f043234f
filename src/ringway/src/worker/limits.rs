//! Limits on what one turn does, and on what peers can make a worker hold.

use std::time::Duration;

/// How many operations of other threads one turn runs at most.
pub(crate) const OPERATIONS_PER_TURN: usize = 1024;
/// How many transmit slots one connection fills in one turn at most, so that connections share the device...
pub(crate) const SLOTS_PER_CONNECTION_PER_TURN: usize = 4;
/// ...and how many where a slot holds one datagram only: these go to the device together.
pub(crate) const DATAGRAMS_PER_CONNECTION_PER_TURN: usize = 64;
/// How many connections one worker hosts at most.
pub(crate) const CONNECTIONS_MAX: usize = 1 << 20;
/// How many incomplete handshakes of clients one worker keeps at most. A handshake takes about 10 KiB.
pub(crate) const HANDSHAKES_MAX: usize = 8192;
/// From this many handshakes on, a worker is under load: see [`RetryPolicy::UnderLoad`](super::listener::RetryPolicy).
pub(crate) const HANDSHAKES_RETRY: usize = 1024;
/// How many replies without a connection (version negotiation, Retry, stateless reset) one turn sends at most.
pub(crate) const STATELESS_PER_TURN: usize = 64;
/// The longest such reply in bytes: a Retry with two 20-byte connection IDs and a token.
pub(crate) const STATELESS_BYTES_MAX: usize = 512;
/// The longest sleep, so that a lost deadline is recovered from.
pub(crate) const SLEEP_MAX: Duration = Duration::from_secs(60);
/// Who sends what belongs to no connection, as the device has it: no slot has this index.
pub(super) const NO_SENDER: u32 = u32::MAX;
