//! The command line of the client.

use std::path::PathBuf;
use std::time::Duration;

use bytesize::ByteSize;
use clap::Args;
use ringway_perf_protocol::{ENDLESS, HEADER_LEN, Scenario};

use crate::endpoint::{EndpointArgs, QuicVersion};
use crate::ranges;

/// Options of a client.
#[derive(Args, Clone, Debug)]
pub(crate) struct ClientArgs {
    /// Server to connect to: name or address, and port
    #[arg(long, value_name = "HOST:PORT")]
    pub target: String,
    /// Name that the server's certificate must have (default: the host of the target)
    #[arg(long, value_name = "NAME")]
    pub server_name: Option<String>,
    /// Certificates to trust (PEM); without them every server is trusted
    #[arg(long, value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// What to do
    #[arg(long, value_enum, default_value = "download")]
    pub scenario: Scenario,
    /// Bytes to transfer on each stream (upload, download), instead of for a time
    #[arg(long, value_name = "SIZE", value_parser = ranges::size(1, ENDLESS - 1))]
    pub bytes: Option<ByteSize>,
    /// How long to run (default: 12 s; requests 20 s)
    #[arg(long, value_name = "TIME", value_parser = ranges::time, conflicts_with = "bytes")]
    pub time: Option<Duration>,
    /// Connections at a time (default: 1; rps-multi and hps: 16 for each processor; idle: 2000, set up 16 at a time)
    #[arg(long, value_name = "N", value_parser = ranges::count(1_000_000))]
    pub connections: Option<usize>,
    /// Streams at a time on each connection (default: 1; rps and rps-multi: 100)
    #[arg(long, value_name = "N", value_parser = ranges::count(10_000))]
    pub streams: Option<usize>,
    /// Request size
    #[arg(long, value_name = "SIZE", default_value = "512B", value_parser = ranges::size(HEADER_LEN as u64, 256 << 20))]
    pub request: ByteSize,
    /// Response size
    #[arg(long, value_name = "SIZE", default_value = "4000B", value_parser = ranges::size(0, ENDLESS - 1))]
    pub response: ByteSize,
    /// Resume the session of an earlier connection (hps): each connection ends when it has a ticket for the next. The run fails if one with a ticket
    /// gets a full handshake
    #[arg(long)]
    pub resume: bool,
    /// Resume each session once (hps): a connection that has resumed one ends at once, as some servers give no ticket on it
    #[arg(long, requires = "resume")]
    pub resume_once: bool,
    /// Time requests, too, whose 0-RTT the server has rejected, and which went out again (latency-0rtt)
    #[arg(long)]
    pub time_rejected: bool,
    /// Certificate chain to show to servers that ask for one (PEM)
    #[arg(long, requires = "key", value_name = "FILE")]
    pub cert: Option<PathBuf>,
    /// Private key of the certificate (PEM)
    #[arg(long, requires = "cert", value_name = "FILE")]
    pub key: Option<PathBuf>,
    /// QUIC version to start with
    #[arg(long, value_enum, default_value = "v1")]
    pub quic: QuicVersion,
    /// Give up when nothing has been achieved for this long
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = ranges::time)]
    pub timeout: Duration,
    /// Write the distribution of latencies to this file (HdrHistogram percentiles)
    #[arg(long, value_name = "FILE")]
    pub hdr_file: Option<PathBuf>,
    #[command(flatten)]
    pub endpoint: EndpointArgs,
}

impl ClientArgs {
    /// Whether connections use tickets of earlier ones.
    pub(crate) fn resumes(&self) -> bool {
        self.resume || self.scenario == Scenario::LatencyZeroRtt
    }

    pub(crate) fn run_time(&self) -> Duration {
        let default = match self.scenario {
            Scenario::Upload | Scenario::Download | Scenario::Hps | Scenario::Idle => Duration::from_secs(12),
            Scenario::Latency | Scenario::LatencyZeroRtt | Scenario::Rps | Scenario::RpsMulti => {
                Duration::from_secs(20)
            }
        };
        self.time.unwrap_or(default)
    }

    pub(crate) fn connection_count(&self, processors: usize) -> usize {
        let default = self.scenario.default_connections(processors);
        self.connections.unwrap_or(default)
    }

    pub(crate) fn stream_count(&self) -> usize {
        self.streams.unwrap_or(self.scenario.default_streams())
    }
}
