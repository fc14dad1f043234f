//! Counters of a worker.

use std::time::Duration;

use ringway_engine::connection::drops::DropCounts;

/// Counters of one worker since it was made.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct WorkerStats {
    /// Connections hosted now.
    pub connections: u64,
    /// Connections that clients opened to us, since the start.
    pub accepted: u64,
    /// Connections that we opened, since the start.
    pub opened: u64,
    /// Handshakes of accepted connections that are under way now.
    pub handshakes: u64,
    /// Turns of the loop.
    pub turns: u64,
    /// Operations of other threads that were run.
    pub operations: u64,
    /// Datagrams that arrived here and belong to another partition.
    pub handed_over: u64,
    /// Connections that moved to another partition, as their packets did.
    pub moved_away: u64,
    /// Retry packets sent.
    pub retries: u64,
    /// Version negotiation packets sent.
    pub version_negotiations: u64,
    /// Stateless resets sent.
    pub stateless_resets: u64,
    /// Turns that took longer than 10 ms: some handler of the application delays all connections of the partition.
    pub slow_turns: u64,
    /// Datagrams and packets dropped, by reason.
    pub drops: DropCounts,
}

/// Turns longer than this are counted as slow.
pub const SLOW_TURN: Duration = Duration::from_millis(10);
