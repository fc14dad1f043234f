//! Counters of a connection.

use std::time::Duration;

use crate::wire::Version;

/// What became of 0-RTT on a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum ZeroRtt {
    /// The client has offered none.
    #[default]
    NotOffered,
    /// The client has offered it, and the server has not answered yet.
    Offered,
    /// The server has accepted it.
    Accepted,
    /// The server has not accepted it. Nothing that was sent so was processed.
    Rejected,
}

/// Counters of one connection since its start.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct ConnectionStats {
    /// The version in use: that of the client's first flight, until the handshake has negotiated another (RFC 9368).
    pub version: Version,
    /// The session goes on from an earlier one.
    pub resumed: bool,
    /// What became of 0-RTT.
    pub zero_rtt: ZeroRtt,
    /// From the start to the completion of the handshake.
    pub handshake_time: Option<Duration>,
    /// Smoothed round trip time.
    pub rtt: Duration,
    /// Mean deviation of the round trip time.
    pub rtt_variance: Duration,
    /// Shortest round trip time.
    pub rtt_min: Duration,
    /// Latest round trip time.
    pub rtt_latest: Duration,
    /// Congestion window in bytes.
    pub congestion_window: u64,
    /// Bytes sent, neither acknowledged nor lost.
    pub bytes_in_flight: u64,
    /// UDP payload of a full datagram.
    pub datagram_size: u16,
    /// Datagrams sent.
    pub sent_datagrams: u64,
    /// UDP payload bytes sent.
    pub sent_bytes: u64,
    /// Packets sent: a datagram may hold several.
    pub sent_packets: u64,
    /// Stream bytes sent, repetitions included.
    pub sent_stream_bytes: u64,
    /// Packets that counted as lost.
    pub lost_packets: u64,
    /// Packets that counted as lost and arrived after all.
    pub spurious_losses: u64,
    /// Reductions of the congestion window.
    pub congestion_events: u64,
    /// Times of persistent congestion.
    pub persistent_congestion_events: u64,
    /// Probe timeouts.
    pub probe_timeouts: u64,
    /// Packets that arrived marked "congestion experienced" at the peer.
    pub ecn_congestion_marks: u64,
    /// Datagrams received.
    pub received_datagrams: u64,
    /// UDP payload bytes received.
    pub received_bytes: u64,
    /// Packets received and opened.
    pub received_packets: u64,
    /// Stream bytes received, repetitions included.
    pub received_stream_bytes: u64,
    /// Packets received again.
    pub duplicate_packets: u64,
    /// Packets that could not be opened.
    pub undecryptable_packets: u64,
    /// Key updates, of either side.
    pub key_updates: u64,
    /// Changes of the peer's address that were validated.
    pub path_changes: u64,
}
