//! What the server prints in the end.

use std::collections::BTreeMap;
use std::fmt;

use ringway::Registration;
use ringway_perf_protocol::cpu_s_per_gb;
use serde::Serialize;

use super::responder::Shared;
use crate::report::{Counters, Times, thread_times, write_thread_times};

/// Figures of a server.
#[derive(Clone, Debug, Serialize)]
pub(super) struct ServerReport {
    pub seconds: f64,
    pub cpu_seconds: f64,
    pub requests: u64,
    pub request_bytes: u64,
    pub response_bytes: u64,
    pub verification_failures: u64,
    /// Connections that have ended, and had resumed a session.
    pub resumed: u64,
    /// Of those that have ended, whose 0-RTT was accepted; whose was rejected.
    pub zero_rtt_accepted: u64,
    pub zero_rtt_rejected: u64,
    /// Processor time for each gigabyte (10^9 bytes) of requests and responses.
    pub cpu_s_per_gb: Option<f64>,
    /// Processor time of each thread since its start in seconds.
    pub threads: BTreeMap<String, f64>,
    pub counters: Counters,
}

impl ServerReport {
    /// Of a server up to now.
    pub(super) fn new(registration: &Registration, shared: &Shared, times: Times) -> Self {
        let request_bytes = shared.sum(|counters| &counters.request_bytes);
        let response_bytes = shared.sum(|counters| &counters.response_bytes);
        let cpu_seconds = times.cpu.as_secs_f64();
        ServerReport {
            seconds: times.wall.as_secs_f64(),
            cpu_seconds,
            requests: shared.sum(|counters| &counters.requests),
            request_bytes,
            response_bytes,
            verification_failures: shared.sum(|counters| &counters.verification_failures),
            resumed: shared.sum(|counters| &counters.resumed),
            zero_rtt_accepted: shared.sum(|counters| &counters.zero_rtt_accepted),
            zero_rtt_rejected: shared.sum(|counters| &counters.zero_rtt_rejected),
            cpu_s_per_gb: cpu_s_per_gb(cpu_seconds, request_bytes + response_bytes),
            threads: thread_times(),
            counters: Counters::of(
                registration,
                shared.sum(|counters| &counters.ideal_processor_changes),
            ),
        }
    }
}

impl fmt::Display for ServerReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} requests on {} connections: {} bytes received, {} bytes sent",
            self.requests, self.counters.accepted, self.request_bytes, self.response_bytes
        )?;
        if self.resumed + self.zero_rtt_rejected > 0 {
            writeln!(
                f,
                "  {} sessions resumed; 0-RTT accepted on {} connections, rejected on {}",
                self.resumed, self.zero_rtt_accepted, self.zero_rtt_rejected
            )?;
        }
        write!(f, "  CPU {:.3} s in {:.3} s", self.cpu_seconds, self.seconds)?;
        if let Some(cost) = self.cpu_s_per_gb {
            write!(f, ", {cost:.3} s/GB")?;
        }
        writeln!(f)?;
        write_thread_times(f, &self.threads)?;
        write!(f, "{}", self.counters)
    }
}
