//! What a client can be asked to do.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// What a client does.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scenario {
    /// Send as much as possible
    Upload,
    /// Receive as much as possible
    Download,
    /// One request at a time
    Latency,
    /// Connect and make one request in the first flight, again and again, with a ticket of the connection before
    #[value(name = "latency-0rtt")]
    #[serde(rename = "latency-0rtt")]
    LatencyZeroRtt,
    /// Many requests at a time on one connection
    Rps,
    /// Many requests at a time on many connections
    RpsMulti,
    /// Connect and close, again and again
    Hps,
    /// Hold connections open and do nothing: for the memory that they take
    Idle,
}

/// Handshakes at a time where connections are set up to be idle.
const IDLE_HANDSHAKES_MAX: usize = 16;

impl Scenario {
    /// Connections at a time where the command line says nothing, of a client on this many processors.
    pub fn default_connections(self, processors: usize) -> usize {
        match self {
            Scenario::RpsMulti | Scenario::Hps => 16 * processors,
            Scenario::Idle => 2000,
            _ => 1,
        }
    }

    /// Streams at a time on each connection where the command line says nothing.
    pub fn default_streams(self) -> usize {
        match self {
            Scenario::Rps | Scenario::RpsMulti => 100,
            _ => 1,
        }
    }

    /// Of this many connections those that start at once; each that is up is followed by another until all are. Those of
    /// [`Scenario::Idle`] are few: what many handshakes at once take is not what idle connections take.
    pub fn initial_connections(self, connections: usize) -> usize {
        match self {
            Scenario::Idle => connections.min(IDLE_HANDSHAKES_MAX),
            _ => connections,
        }
    }

    /// Whether it moves as much data as it can, one way.
    pub fn is_bulk(self) -> bool {
        matches!(self, Scenario::Download | Scenario::Upload)
    }

    /// Whether streams are requests, each followed by a new one when it is answered.
    pub fn is_requests(self) -> bool {
        matches!(
            self,
            Scenario::Latency | Scenario::LatencyZeroRtt | Scenario::Rps | Scenario::RpsMulti
        )
    }
}
