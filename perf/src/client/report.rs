//! What the client prints.

use std::collections::BTreeMap;
use std::fmt;

use ringway::{ConnectionStats, ZeroRtt};
use ringway_perf_protocol::{ClientFigures, Scenario};
use serde::Serialize;

use crate::endpoint::QuicVersion;
use crate::report::{Counters, write_thread_times};

/// Figures of a client's run.
#[derive(Clone, Debug, Serialize)]
pub(super) struct ClientReport {
    pub scenario: Scenario,
    pub target: String,
    pub connections_at_a_time: usize,
    pub streams_at_a_time: usize,
    pub processors: usize,
    #[serde(flatten)]
    pub figures: ClientFigures,
    pub failures: u64,
    /// Processor time of each thread since its start in seconds.
    pub threads: BTreeMap<String, f64>,
    pub connections: ConnectionTotals,
    pub counters: Counters,
}

impl fmt::Display for ClientReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:?} with {}: {} connection(s), {} stream(s) each, {} processor(s), {} datapath",
            self.scenario,
            self.target,
            self.connections_at_a_time,
            self.streams_at_a_time,
            self.processors,
            self.counters.backend
        )?;
        let figures = &self.figures;
        if figures.bytes > 0 {
            writeln!(
                f,
                "  goodput     {:>12.3} Gbit/s   ({} bytes in the {:.3} s from the opening of the first stream to the last byte)",
                figures.goodput_gbit_s, figures.bytes, figures.flow_seconds
            )?;
        }
        if figures.operations > 0 {
            writeln!(
                f,
                "  operations  {:>12.0} /s        ({})",
                figures.operations_per_s, figures.operations
            )?;
        }
        if let Some(latency) = figures.latency {
            writeln!(
                f,
                "  latency     {:>12.1} us median  p90 {:.1}  p99 {:.1}  p99.9 {:.1}  max {:.1}",
                latency.p50_us, latency.p90_us, latency.p99_us, latency.p999_us, latency.max_us
            )?;
        }
        write!(
            f,
            "  CPU         {:>12.3} s        in {:.3} s",
            figures.cpu_seconds, figures.seconds
        )?;
        if let Some(cost) = figures.cpu_s_per_gb {
            write!(f, ", {cost:.3} s/GB")?;
        }
        writeln!(f)?;
        write_thread_times(f, &self.threads)?;
        let c = &self.connections;
        writeln!(
            f,
            "  packets     {:>12} sent     {} lost, {} of them not really, {} probe timeouts, {} congestion events",
            c.sent_packets, c.lost_packets, c.spurious_losses, c.probe_timeouts, c.congestion_events
        )?;
        if c.resumed > 0 {
            writeln!(
                f,
                "  resumed     {:>12} of {} connections, {} with 0-RTT",
                c.resumed, c.ended, c.zero_rtt_accepted
            )?;
        }
        writeln!(
            f,
            "  path        {:>12.1} us RTT   {} byte datagrams, window {} bytes",
            c.rtt_us, c.datagram_size, c.congestion_window
        )?;
        if self.failures > 0 {
            writeln!(f, "  failures    {:>12}", self.failures)?;
        }
        write!(f, "{}", self.counters)
    }
}

/// What became of the connections of a client: sums, and the estimates of the last one.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(super) struct ConnectionTotals {
    pub ended: u64,
    /// Those that have resumed a session.
    pub resumed: u64,
    /// Those whose 0-RTT the server has accepted.
    pub zero_rtt_accepted: u64,
    /// Those whose 0-RTT the server has rejected, so that it was sent again.
    pub zero_rtt_rejected: u64,
    pub sent_packets: u64,
    pub lost_packets: u64,
    pub spurious_losses: u64,
    pub congestion_events: u64,
    pub probe_timeouts: u64,
    pub key_updates: u64,
    pub datagram_size: u16,
    pub congestion_window: u64,
    pub rtt_us: f64,
    pub handshake_us: f64,
    /// The version that was negotiated.
    pub quic: Option<QuicVersion>,
}

impl ConnectionTotals {
    pub(super) fn add(&mut self, stats: &ConnectionStats) {
        self.ended += 1;
        self.resumed += u64::from(stats.resumed);
        self.zero_rtt_accepted += u64::from(stats.zero_rtt == ZeroRtt::Accepted);
        self.zero_rtt_rejected += u64::from(stats.zero_rtt == ZeroRtt::Rejected);
        self.sent_packets += stats.sent_packets;
        self.lost_packets += stats.lost_packets;
        self.spurious_losses += stats.spurious_losses;
        self.congestion_events += stats.congestion_events;
        self.probe_timeouts += stats.probe_timeouts;
        self.key_updates += stats.key_updates;
        self.quic = Some(QuicVersion::of(stats.version));
        self.datagram_size = stats.datagram_size;
        self.congestion_window = stats.congestion_window;
        self.rtt_us = stats.rtt.as_secs_f64() * 1e6;
        self.handshake_us = stats.handshake_time.unwrap_or_default().as_secs_f64() * 1e6;
    }
}
