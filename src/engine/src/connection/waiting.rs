//! What keeps the data of all streams back, and how long it did: by the time of the turn, in which something is sent or not.

use ringway_types::Instant;

use super::Connection;
use super::paths::{Blocked, DATAGRAM_MIN};
use super::stats::StreamStats;
use crate::base::blocked::NOTHING;
use crate::streams::StreamKey;

/// What keeps a connection's data back.
#[derive(Clone, Copy)]
enum Reason {
    /// Others have their turn.
    Scheduling,
    Pacing,
    AmplificationProtection,
    CongestionControl,
    FlowControl,
}

impl Connection {
    /// A run of datagrams was written, or there is none to write.
    #[inline]
    pub(super) fn follow_blocked(&mut self, now: Instant, has_sent: bool) {
        let reason = match self.content.streams.is_idle() {
            true => NOTHING,
            false => self.kept_back_by(has_sent).map_or(NOTHING, |reason| reason as u8),
        };
        self.blocked_times.set(now, reason);
    }

    fn kept_back_by(&self, has_sent: bool) -> Option<Reason> {
        if !self.content.streams.has_data() {
            return self
                .content
                .streams
                .is_flow_blocked()
                .then_some(Reason::FlowControl);
        }
        if has_sent {
            // Until it is asked for more, which is at once if it is not others' turn.
            return Some(Reason::Scheduling);
        }
        if self.path.amplification_allowance() < DATAGRAM_MIN {
            return Some(Reason::AmplificationProtection);
        }
        match self.blocked {
            Blocked::CongestionWindow => Some(Reason::CongestionControl),
            Blocked::Pacing => Some(Reason::Pacing),
            Blocked::No => None,
        }
    }

    /// What has kept a stream back.
    pub fn stream_stats(&self, now: Instant, key: StreamKey) -> StreamStats {
        let [
            scheduling,
            pacing,
            amplification_protection,
            congestion_control,
            flow_control,
        ] = self.blocked_times.times(now);
        let [stream_limit, stream_flow_control, application] = self.content.streams.blocked_times(now, key);
        StreamStats {
            connection_blocked_by_scheduling: scheduling,
            connection_blocked_by_pacing: pacing,
            connection_blocked_by_amplification_protection: amplification_protection,
            connection_blocked_by_congestion_control: congestion_control,
            connection_blocked_by_flow_control: flow_control,
            blocked_by_stream_limit: stream_limit,
            blocked_by_flow_control: stream_flow_control,
            blocked_by_application: application,
        }
    }
}
