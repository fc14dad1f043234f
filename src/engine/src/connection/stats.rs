//! Counters of a connection.

use std::time::Duration;

use ringway_types::Instant;

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

/// Counters and estimates of one connection since its start. Counts are of packets, datagrams and bytes as the names say; bytes of datagrams are UDP
/// payload.
///
/// MsQuic: `QUIC_STATISTICS_V2` and `QUIC_NETWORK_STATISTICS`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct ConnectionStats {
    /// The version in use: that of the client's first flight, until the handshake has negotiated another (RFC 9368).
    pub version: Version,
    /// A version negotiation packet has made the client start again.
    pub version_negotiated: bool,
    /// The server has made the client prove its address with a Retry packet.
    pub stateless_retry: bool,
    /// A client has shown a ticket; a server has got one that it could open.
    pub resumption_attempted: bool,
    /// The session goes on from an earlier one.
    pub resumed: bool,
    /// What became of 0-RTT.
    pub zero_rtt: ZeroRtt,
    /// Both sides take packets whose QUIC bit is 0 (RFC 9287).
    pub grease_quic_bit: bool,
    /// The path is known to carry ECN marks, and packets are marked.
    pub ecn_capable: bool,
    /// When it began, by the clock of its registration ([`Instant`]s compare with each other only). On a server: when the first packet came.
    pub started: Instant,
    /// From the start until the peer's Initial packets were processed, and Handshake keys were there.
    pub initial_flight_time: Option<Duration>,
    /// From the start to the completion of the handshake.
    pub handshake_time: Option<Duration>,
    /// Bytes of TLS messages in the client's first flight.
    pub client_flight1_bytes: u32,
    /// Bytes of TLS messages in the server's answer.
    pub server_flight1_bytes: u32,
    /// Bytes of TLS messages in the client's second flight: its Finished, and its certificate if it has one.
    pub client_flight2_bytes: u32,
    /// Smoothed round trip time.
    pub rtt: Duration,
    /// Mean deviation of the round trip time.
    pub rtt_variance: Duration,
    /// Shortest round trip time.
    pub rtt_min: Duration,
    /// Longest round trip time.
    pub rtt_max: Duration,
    /// Latest round trip time.
    pub rtt_latest: Duration,
    /// Congestion window in bytes.
    pub congestion_window: u64,
    /// Bytes sent, neither acknowledged nor lost.
    pub bytes_in_flight: u64,
    /// Bytes that the application has given to send and that were not sent yet.
    pub posted_bytes: u64,
    /// Bytes that the application should have given at least, so that it never is what limits the sending: twice the congestion window.
    pub ideal_bytes: u64,
    /// What the path carries in bytes a second, by the congestion window and the round trip time.
    pub bandwidth: u64,
    /// UDP payload of a full datagram.
    pub datagram_size: u16,
    /// Datagrams sent.
    pub sent_datagrams: u64,
    /// DATAGRAM frames that the application has given and that were never sent: canceled
    /// ([`DatagramSendState::Canceled`](crate::datagrams::DatagramSendState::Canceled)), or refused in a handler.
    pub unsent_datagram_frames: u64,
    /// UDP payload bytes sent.
    pub sent_bytes: u64,
    /// Packets sent: a datagram may hold several.
    pub sent_packets: u64,
    /// Of these, the ones that the peer must acknowledge.
    pub sent_ack_eliciting_packets: u64,
    /// Stream bytes sent, repetitions included.
    pub sent_stream_bytes: u64,
    /// Packets that counted as lost.
    pub lost_packets: u64,
    /// Packets that counted as lost and arrived after all.
    pub spurious_losses: u64,
    /// Reductions of the congestion window.
    pub congestion_events: u64,
    /// Of these, the ones for marks of the network.
    pub ecn_congestion_events: u64,
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
    /// Of these, the ones that came behind later ones.
    pub reordered_packets: u64,
    /// Stream bytes received, repetitions included.
    pub received_stream_bytes: u64,
    /// ACK frames received that made sense.
    pub received_acks: u64,
    /// Packets dropped, for whatever reason: among them repetitions and what could not be opened.
    pub dropped_packets: u64,
    /// Packets received again.
    pub duplicate_packets: u64,
    /// Packets that could not be opened.
    pub undecryptable_packets: u64,
    /// Key updates, of either side.
    pub key_updates: u64,
    /// How often we have gone over to another connection ID of the peer.
    pub remote_cid_changes: u64,
    /// Changes of the peer's address that were validated.
    pub path_changes: u64,
    /// New addresses of the peer that were given up, as it did not show in time that it receives there.
    pub path_failures: u64,
    /// How long calls of other threads have waited for the connection's worker, from the turn in which they were made to the one that ran them.
    pub call_delay: QueueDelay,
    /// How long the connection has waited, with something to send, for its turn and for the device.
    pub send_delay: QueueDelay,
    /// How long datagrams have waited that another partition had received and handed over.
    pub receive_delay: QueueDelay,
}

/// How long data to be sent was kept back, and by what, on a stream and on its whole connection: by the clock that is read once a turn, so that what
/// lasts less than a turn counts as 0. One reason counts at a time, for each of the two.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct StreamStats {
    /// There was more to send than the connection's share of a turn: others had theirs.
    pub connection_blocked_by_scheduling: Duration,
    /// The pacer let nothing go.
    pub connection_blocked_by_pacing: Duration,
    /// A server may not send more to an address that is not validated (RFC 9000 section 8.1).
    pub connection_blocked_by_amplification_protection: Duration,
    /// The congestion window was full.
    pub connection_blocked_by_congestion_control: Duration,
    /// The peer's limit for the whole connection was reached.
    pub connection_blocked_by_flow_control: Duration,
    /// The stream was to start, and the peer allowed no more streams.
    pub blocked_by_stream_limit: Duration,
    /// The peer's limit for the stream was reached.
    pub blocked_by_flow_control: Duration,
    /// The application had given nothing to send, and had not ended the stream.
    pub blocked_by_application: Duration,
}

/// How long something has waited, by the clock that is read once a turn: what waits within a turn counts as 0.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct QueueDelay {
    /// Moving average, of which each new one is an eighth.
    pub average: Duration,
    /// The longest.
    pub max: Duration,
}

impl QueueDelay {
    /// Of these.
    pub const fn new(average: Duration, max: Duration) -> Self {
        QueueDelay { average, max }
    }
}

/// What is counted as it happens. Kept small: there is one for each connection.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counters {
    pub(super) resumed: bool,
    pub(super) resumption_attempted: bool,
    pub(super) zero_rtt: ZeroRtt,
    pub(super) protocol_error: bool,
    /// When the first flight had come, and when the handshake was complete.
    pub(super) initial_flight: Option<Instant>,
    pub(super) handshake: Option<Instant>,
    /// Bytes of TLS messages, in Initial and in Handshake packets.
    pub(super) tls_sent: [u32; 2],
    pub(super) tls_received: [u32; 2],
    pub(super) sent_datagrams: u64,
    pub(super) unsent_datagram_frames: u64,
    pub(super) sent_bytes: u64,
    pub(super) sent_packets: u64,
    pub(super) sent_ack_eliciting_packets: u64,
    pub(super) sent_stream_bytes: u64,
    pub(super) lost_packets: u64,
    pub(super) spurious_losses: u64,
    pub(super) congestion_events: u32,
    pub(super) ecn_congestion_events: u32,
    pub(super) persistent_congestion_events: u32,
    pub(super) probe_timeouts: u32,
    pub(super) ecn_congestion_marks: u64,
    pub(super) received_datagrams: u64,
    pub(super) received_bytes: u64,
    pub(super) received_packets: u64,
    pub(super) reordered_packets: u64,
    pub(super) received_stream_bytes: u64,
    pub(super) received_acks: u64,
    pub(super) dropped_packets: u64,
    pub(super) duplicate_packets: u64,
    pub(super) undecryptable_packets: u64,
    pub(super) key_updates: u32,
    pub(super) path_changes: u32,
    pub(super) path_failures: u32,
}

/// What a worker adds up over its connections.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Totals {
    /// Packets that counted as lost.
    pub lost_packets: u64,
    /// Stream bytes sent, repetitions included.
    pub sent_stream_bytes: u64,
    /// Stream bytes received, repetitions included.
    pub received_stream_bytes: u64,
    /// Streams that are open.
    pub streams: u64,
    /// New addresses of the peer that were validated.
    pub paths_validated: u64,
    /// New addresses of the peer that were given up.
    pub paths_failed: u64,
}
