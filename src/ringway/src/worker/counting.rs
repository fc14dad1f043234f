//! What a worker counts of its connections: totals that follow what each connection counts for itself, and how long things wait.
//!
//! A connection counts as it works; the worker takes over what is new whenever it puts the connection back, so nothing is counted twice for a packet.

use std::time::Duration;

use ringway_engine::connection::stats::{ConnectionStats, QueueDelay, Totals};
use ringway_types::Instant;

use super::Worker;
use super::hosted_connection::HostedConnection;

/// What of a connection is in the counters of its worker.
#[derive(Default)]
pub(super) struct Counted {
    totals: Totals,
    /// It counts as connected.
    connected: bool,
    /// The application has refused it.
    pub(super) refused: bool,
}

/// How long what belongs to a connection has waited.
#[derive(Default)]
pub(super) struct Delays {
    pub(super) calls: Delay,
    pub(super) sends: Delay,
    pub(super) datagrams: Delay,
}

/// How long something has waited, in microseconds: small, as there are some for each connection.
#[derive(Clone, Copy, Default)]
pub(super) struct Delay {
    /// Eight times the moving average.
    average8: u32,
    max: u32,
}

impl Delay {
    #[inline]
    pub(super) fn add(&mut self, waited: Duration) {
        let micros = u32::try_from(waited.as_nanos() / 1000).unwrap_or(u32::MAX);
        self.average8 = (self.average8 - self.average8 / 8).saturating_add(micros);
        self.max = self.max.max(micros);
    }

    pub(super) fn average(self) -> Duration {
        Duration::from_micros(u64::from(self.average8 / 8))
    }

    fn told(self) -> QueueDelay {
        QueueDelay::new(self.average(), Duration::from_micros(self.max.into()))
    }
}

impl Delays {
    pub(super) fn tell(&self, stats: &mut ConnectionStats) {
        stats.call_delay = self.calls.told();
        stats.send_delay = self.sends.told();
        stats.receive_delay = self.datagrams.told();
    }
}

impl Worker {
    /// Adds what the connection has counted since it was here last.
    #[inline]
    pub(super) fn follow_counts(&mut self, hosted: &mut HostedConnection) {
        let totals = hosted.engine.totals();
        let before = std::mem::replace(&mut hosted.counted.totals, totals);
        let stats = &mut self.stats;
        stats.lost_packets += totals.lost_packets - before.lost_packets;
        stats.sent_stream_bytes += totals.sent_stream_bytes - before.sent_stream_bytes;
        stats.received_stream_bytes += totals.received_stream_bytes - before.received_stream_bytes;
        stats.streams = (stats.streams + totals.streams).wrapping_sub(before.streams);
        stats.paths_validated += totals.paths_validated - before.paths_validated;
        stats.path_failures += totals.paths_failed - before.paths_failed;
        if !hosted.counted.connected && hosted.engine.is_established() && hosted.engine.is_open() {
            hosted.counted.connected = true;
            stats.connected += 1;
            stats.resumed += u64::from(hosted.engine.is_resumed());
        }
    }

    /// The connection leaves for another worker, or comes from one: what is counted of it as it is now goes along.
    pub(super) fn count_moved(&mut self, hosted: &HostedConnection, in_or_out: fn(u64, u64) -> u64) {
        let counted = &hosted.counted;
        self.stats.connections = in_or_out(self.stats.connections, 1);
        self.stats.connected = in_or_out(self.stats.connected, u64::from(counted.connected));
        self.stats.streams = in_or_out(self.stats.streams, counted.totals.streams);
    }

    /// The application hears of the connection no more.
    pub(super) fn count_end(&mut self, hosted: &mut HostedConnection) {
        self.follow_counts(hosted);
        let counted = &mut hosted.counted;
        if std::mem::take(&mut counted.connected) {
            self.stats.connected -= 1;
        } else {
            self.stats.handshake_failures += 1;
        }
        self.stats.application_refusals += u64::from(counted.refused);
        self.stats.protocol_errors += u64::from(hosted.engine.has_protocol_error());
    }

    /// A turn begins: what has come since the one before has waited for it, if there was something to do at its end.
    #[inline]
    pub(crate) fn begin_turn(&mut self, now: Instant) {
        let before = std::mem::replace(&mut self.turn, now);
        let idle = std::mem::replace(&mut self.idle, false);
        let waited = if idle { Duration::ZERO } else { now.since(before) };
        self.turn_delay.add(waited);
        self.inbox.set_turn(now);
    }

    /// There is nothing to do until the next turn.
    #[inline]
    pub(crate) fn begin_idle(&mut self) {
        self.idle = true;
        self.inbox.set_turn(Instant::ZERO);
    }

    /// So much waits for each turn that no more is to be taken on.
    pub(super) fn is_overloaded(&self) -> bool {
        self.turn_delay.average() > self.delay_max
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_are_averaged_over_eight_and_their_most_is_kept() {
        let mut delay = Delay::default();
        for _ in 0..100 {
            delay.add(Duration::from_micros(80));
        }
        let average = delay.average();
        assert!((70..=80).contains(&average.as_micros()), "{average:?}");
        delay.add(Duration::from_secs(3600 * 24));
        for _ in 0..200 {
            delay.add(Duration::ZERO);
        }
        assert!(delay.average() < Duration::from_micros(8));
        assert_eq!(delay.told().max, Duration::from_micros(u32::MAX.into()));
    }
}
