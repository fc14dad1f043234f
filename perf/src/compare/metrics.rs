//! What is measured in each scenario, in which unit, and which way is better.

use ringway_perf_protocol::Scenario;
use serde::{Deserialize, Serialize};

/// A figure of a run. Its name in files has its unit.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Metric {
    GoodputGbitS,
    OperationsPerS,
    LatencyP50Us,
    LatencyP90Us,
    LatencyP99Us,
    LatencyP999Us,
    ServerCpuSPerGb,
    ClientCpuSPerGb,
    ServerCpuUsPerOperation,
    ClientCpuUsPerOperation,
    ServerBytesPerConnection,
    ClientBytesPerConnection,
}

impl Metric {
    /// What a scenario is about, the primary one first; those that are drawn are the first two.
    pub(crate) fn of(scenario: Scenario) -> &'static [Metric] {
        use Metric::*;
        match scenario {
            Scenario::Download | Scenario::Upload => &[GoodputGbitS, ServerCpuSPerGb, ClientCpuSPerGb],
            Scenario::Rps | Scenario::RpsMulti => &[
                OperationsPerS,
                ServerCpuUsPerOperation,
                ClientCpuUsPerOperation,
                LatencyP50Us,
                LatencyP99Us,
            ],
            Scenario::Latency | Scenario::LatencyZeroRtt => &[
                LatencyP50Us,
                LatencyP99Us,
                LatencyP90Us,
                LatencyP999Us,
                ServerCpuUsPerOperation,
                ClientCpuUsPerOperation,
            ],
            Scenario::Hps => &[OperationsPerS, ServerCpuUsPerOperation, ClientCpuUsPerOperation],
            Scenario::Idle => &[ServerBytesPerConnection, ClientBytesPerConnection],
        }
    }

    pub(crate) fn primary(scenario: Scenario) -> Metric {
        Metric::of(scenario)[0]
    }

    pub(crate) fn more_is_better(self) -> bool {
        matches!(self, Metric::GoodputGbitS | Metric::OperationsPerS)
    }

    /// What people call it.
    pub(crate) fn name(self, scenario: Scenario) -> &'static str {
        match self {
            Metric::GoodputGbitS => "Goodput",
            Metric::OperationsPerS if scenario == Scenario::Hps => "Handshakes",
            Metric::OperationsPerS => "Requests",
            Metric::LatencyP50Us => "Median latency",
            Metric::LatencyP90Us => "90 % within",
            Metric::LatencyP99Us => "99 % within",
            Metric::LatencyP999Us => "99.9 % within",
            Metric::ServerCpuSPerGb | Metric::ServerCpuUsPerOperation => "Server CPU",
            Metric::ClientCpuSPerGb | Metric::ClientCpuUsPerOperation => "Client CPU",
            Metric::ServerBytesPerConnection => "Server memory",
            Metric::ClientBytesPerConnection => "Client memory",
        }
    }

    /// The unit that people read it in, and how many of the stored unit that is.
    pub(crate) fn unit(self, scenario: Scenario) -> (&'static str, f64) {
        match self {
            Metric::GoodputGbitS => ("Gbit/s", 1.0),
            Metric::OperationsPerS => ("thousand/s", 1e3),
            Metric::LatencyP50Us | Metric::LatencyP90Us | Metric::LatencyP99Us | Metric::LatencyP999Us => {
                ("µs", 1.0)
            }
            Metric::ServerCpuSPerGb | Metric::ClientCpuSPerGb => ("s/GB", 1.0),
            Metric::ServerCpuUsPerOperation | Metric::ClientCpuUsPerOperation => match scenario {
                Scenario::Hps => ("µs/handshake", 1.0),
                _ => ("µs/request", 1.0),
            },
            Metric::ServerBytesPerConnection | Metric::ClientBytesPerConnection => ("KB/connection", 1e3),
        }
    }
}

/// What people call a scenario, and what it does.
pub(crate) fn describe(scenario: Scenario) -> (&'static str, &'static str) {
    match scenario {
        Scenario::Download => (
            "Download",
            "one connection, one stream, server to client, as fast as it goes",
        ),
        Scenario::Upload => (
            "Upload",
            "one connection, one stream, client to server, as fast as it goes",
        ),
        Scenario::Rps => (
            "Requests, one connection",
            "100 requests at a time, 512 B each, answered with 4000 B, a stream each",
        ),
        Scenario::RpsMulti => (
            "Requests, 16 connections",
            "100 requests at a time on each, 512 B each, answered with 4000 B, a stream each",
        ),
        Scenario::Latency => (
            "Latency of a request",
            "one at a time, 512 B answered with 4000 B, a stream each",
        ),
        Scenario::LatencyZeroRtt => (
            "Latency of a connection with a request in 0-RTT",
            "one at a time, 512 B answered with 4000 B, each on a connection of its own that resumes the one before",
        ),
        Scenario::Hps => (
            "Handshakes",
            "16 at a time, each connection closed when its handshake is done",
        ),
        Scenario::Idle => ("Memory of idle connections", "2000 connections that do nothing"),
    }
}

/// The same of handshakes that resume sessions.
pub(crate) const RESUMED: (&str, &str) = (
    "Resumed handshakes",
    "16 at a time, each resumes the session of one before; a connection is closed when it has brought a ticket for another",
);

/// Three digits: what a measurement is good for.
pub(crate) fn digits(value: f64) -> String {
    match value.abs() {
        size if size >= 99.95 => format!("{value:.0}"),
        size if size >= 9.995 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::contenders::SCENARIOS;

    #[test]
    fn every_scenario_has_something_to_draw() {
        for scenario in SCENARIOS {
            assert!(Metric::of(scenario).len() >= 2);
        }
    }

    #[test]
    fn numbers_have_three_digits() {
        for (value, text) in [
            (0.4567, "0.46"),
            (9.994, "9.99"),
            (12.74, "12.7"),
            (99.96, "100"),
            (380.2, "380"),
        ] {
            assert_eq!(digits(value), text);
        }
    }
}
