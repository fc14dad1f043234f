//! A worker's counters.

use std::time::Duration;

use ringway_engine::connection::drops::DropCounts;

/// Counters of one worker since it was created; what is said to be of now is as of the last renewal
/// ([`Registration::stats`](crate::Registration::stats)). MsQuic: performance counters.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct WorkerStats {
    /// Connections that it hosts now.
    pub connections: u64,
    /// Of these, the ones whose handshake is complete and that are open, now.
    pub connected: u64,
    /// Connections that have something to send, or to be looked at, now.
    pub queued_connections: u64,
    /// Streams of its connections, now.
    pub streams: u64,
    /// Connections that clients have opened.
    pub accepted: u64,
    /// Connections that the application has opened.
    pub opened: u64,
    /// Handshakes of clients that are in progress now.
    pub handshakes: u64,
    /// Connections that ended before their handshake was complete, for whatever reason.
    pub handshake_failures: u64,
    /// Of these, the clients that the application has refused ([`Incoming::refuse`](crate::Incoming::refuse)).
    pub application_refusals: u64,
    /// Clients that had no application protocol in common with the listeners on their port.
    pub no_common_protocol: u64,
    /// Connections that have resumed the session of an earlier one.
    pub resumed: u64,
    /// Connections that were closed because the peer had broken the protocol.
    pub protocol_errors: u64,
    /// Packets that counted as lost.
    pub lost_packets: u64,
    /// Bytes of streams sent, repetitions included.
    pub sent_stream_bytes: u64,
    /// Bytes of streams received, repetitions included.
    pub received_stream_bytes: u64,
    /// Bytes that applications have kept of what they received, where it was ([`ReceivedData::keep`](crate::ReceivedData::keep)). How much is kept
    /// now, [`DeviceStats::lent_bytes`](crate::DeviceStats::lent_bytes) tells.
    pub kept_bytes: u64,
    /// Bytes that applications have kept and that had to be copied for it.
    pub kept_copied_bytes: u64,
    /// New addresses of peers that were validated.
    pub paths_validated: u64,
    /// New addresses of peers that were given up.
    pub path_failures: u64,
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
    /// How long datagrams and calls wait for a turn: moving average of the time from one turn to the next, as
    /// long as there is something to do.
    pub turn_delay: Duration,
    /// Operations that other threads have posted and that have run.
    pub operations: u64,
    /// Operations that other threads have posted and that wait, now.
    pub queued_operations: u64,
    /// Replies that belong to no connection (version negotiation, Retry, refusal, stateless reset) and were written.
    pub stateless_replies: u64,
    /// Of these, the ones that wait for the device, now.
    pub queued_stateless_replies: u64,
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
