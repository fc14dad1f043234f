//! A worker's counters.

use std::time::Duration;

use ringway_engine::connection::drops::DropCounts;

/// Counters of one worker since it was created.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct WorkerStats {
    /// Connections that it hosts now.
    pub connections: u64,
    /// Connections that clients have opened.
    pub accepted: u64,
    /// Connections that the application has opened.
    pub opened: u64,
    /// Handshakes of clients that are in progress now.
    pub handshakes: u64,
    /// Bytes that its connections hold now.
    pub memory: u64,
    /// How often the process's freed memory was given back to the system from here, after a burst.
    pub given_back: u64,
    /// Handshakes of clients that were given up to make room for others: see [`Limits::handshakes`](crate::Limits::handshakes).
    pub handshakes_replaced: u64,
    /// Connections refused without keeping anything of them, because of an invalid token or for want of memory.
    pub refusals: u64,
    /// Turns of the loop.
    pub turns: u64,
    /// Operations that other threads have posted and that have run.
    pub operations: u64,
    /// Datagrams that arrived here and were handed over to another partition.
    pub handed_over: u64,
    /// Connections that have moved to another partition, following RSS.
    pub moved_away: u64,
    /// Retry packets sent.
    pub retries: u64,
    /// Version negotiation packets sent.
    pub version_negotiations: u64,
    /// Stateless resets sent.
    pub stateless_resets: u64,
    /// Turns that took longer than 10 ms, typically because a handler delayed all connections of the partition.
    pub slow_turns: u64,
    /// Dropped datagrams and packets, by reason.
    pub drops: DropCounts,
}

/// A turn that takes longer than this counts as slow.
pub(crate) const SLOW_TURN: Duration = Duration::from_millis(10);
