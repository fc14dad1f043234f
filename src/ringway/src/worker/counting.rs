//! What a worker counts of its connections: totals that follow what each connection counts for itself, and how long turns take.
//!
//! A connection counts as it works; the worker takes over what is new whenever it puts the connection back, so nothing is counted twice for a packet.

use std::time::Duration;

use ringway_types::Instant;

use super::Worker;
use super::hosted_connection::HostedConnection;

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
        let (in_place, copied) = std::mem::take(&mut hosted.counted.kept);
        stats.kept_bytes += in_place;
        stats.kept_copied_bytes += copied;
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
        } else if hosted.engine.is_established() {
            // It has ended in the very turn.
            self.stats.resumed += u64::from(hosted.engine.is_resumed());
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
        // All is done: what waits from now on has not waited for what was before. A pause of the machine would have clients refused for many turns.
        self.turn_delay.forget();
        self.inbox.set_turn(Instant::ZERO);
    }

    /// So much waits for each turn that no more is to be taken on.
    pub(super) fn is_overloaded(&self) -> bool {
        self.turn_delay.average() > self.delay_max
    }
}
