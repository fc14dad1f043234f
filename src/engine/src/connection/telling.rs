//! What a connection tells of itself: counters and estimates.

use std::time::Duration;

use ringway_types::Instant;

use super::Connection;
use super::stats::{ConnectionStats, QueueDelay, Totals};
use crate::wire::Side;

impl Connection {
    /// Counters and estimates.
    pub fn stats(&self, _now: Instant) -> ConnectionStats {
        let counters = &self.content.stats;
        let rtt = self.recovery.rtt();
        let congestion_window = self.path.controller.window();
        let (client, server) = match self.side {
            Side::Client => (counters.tls_sent, counters.tls_received),
            Side::Server => (counters.tls_received, counters.tls_sent),
        };
        ConnectionStats {
            version: self.version,
            version_negotiated: self.handshake.restarted,
            stateless_retry: self.handshake.retry_scid.is_some(),
            resumption_attempted: counters.resumption_attempted,
            resumed: counters.resumed,
            zero_rtt: counters.zero_rtt,
            grease_quic_bit: self.handshake.peer.grease_quic_bit && self.config.grease_quic_bit,
            ecn_capable: self.path.ecn.is_capable(),
            started: self.started,
            initial_flight_time: counters.initial_flight.map(|at| at.since(self.started)),
            handshake_time: counters.handshake.map(|at| at.since(self.started)),
            client_flight1_bytes: client[0],
            server_flight1_bytes: server[0] + server[1],
            client_flight2_bytes: client[1],
            rtt: rtt.smoothed(),
            rtt_variance: rtt.variance(),
            rtt_min: rtt.min(),
            rtt_max: rtt.max(),
            rtt_latest: rtt.latest(),
            congestion_window,
            bytes_in_flight: self.recovery.bytes_in_flight(),
            posted_bytes: self.content.streams.posted(),
            ideal_bytes: 2 * congestion_window,
            bandwidth: bandwidth(congestion_window, rtt.smoothed()),
            datagram_size: self.path.mtu.current(),
            sent_datagrams: counters.sent_datagrams,
            unsent_datagram_frames: counters.unsent_datagram_frames,
            sent_bytes: counters.sent_bytes,
            sent_packets: counters.sent_packets,
            sent_ack_eliciting_packets: counters.sent_ack_eliciting_packets,
            sent_stream_bytes: counters.sent_stream_bytes,
            lost_packets: counters.lost_packets,
            spurious_losses: counters.spurious_losses,
            congestion_events: counters.congestion_events.into(),
            ecn_congestion_events: counters.ecn_congestion_events.into(),
            persistent_congestion_events: counters.persistent_congestion_events.into(),
            probe_timeouts: counters.probe_timeouts.into(),
            ecn_congestion_marks: counters.ecn_congestion_marks,
            received_datagrams: counters.received_datagrams,
            received_bytes: counters.received_bytes,
            received_packets: counters.received_packets,
            reordered_packets: counters.reordered_packets,
            received_stream_bytes: counters.received_stream_bytes,
            received_acks: counters.received_acks,
            dropped_packets: counters.dropped_packets,
            duplicate_packets: counters.duplicate_packets,
            undecryptable_packets: counters.undecryptable_packets,
            key_updates: counters.key_updates.into(),
            remote_cid_changes: self.content.remote_cids.changes().into(),
            path_changes: counters.path_changes.into(),
            path_failures: counters.path_failures.into(),
            // What waits is the caller's.
            call_delay: QueueDelay::default(),
            send_delay: QueueDelay::default(),
            receive_delay: QueueDelay::default(),
        }
    }

    /// What a caller with many connections adds up.
    #[inline]
    pub fn totals(&self) -> Totals {
        let counters = &self.content.stats;
        Totals {
            lost_packets: counters.lost_packets,
            sent_stream_bytes: counters.sent_stream_bytes,
            received_stream_bytes: counters.received_stream_bytes,
            streams: self.content.streams.open(),
            paths_validated: counters.path_changes.into(),
            paths_failed: counters.path_failures.into(),
        }
    }

    /// The session goes on from an earlier one.
    pub fn is_resumed(&self) -> bool {
        self.content.stats.resumed
    }

    /// It was closed by us because the peer has broken the protocol.
    pub fn has_protocol_error(&self) -> bool {
        self.content.stats.protocol_error
    }
}

/// Bytes a second.
fn bandwidth(window: u64, rtt: Duration) -> u64 {
    let nanos = rtt.as_nanos().max(1);
    u64::try_from(u128::from(window) * 1_000_000_000 / nanos).unwrap_or(u64::MAX)
}
