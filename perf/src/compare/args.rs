//! The command line of `ringperf compare`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use ringway_perf_protocol::Scenario;

use super::contenders::{Group, NetworkKind, Stack};
use crate::options::Api;
use crate::processors::ProcessorList;

/// What says how it is measured.
const MEASURES: [&str; 10] = [
    "network", "scenario", "stack", "api", "resume", "group", "rounds", "time", "peers", "cpus",
];

/// Options of `compare`.
#[derive(Args, Clone, Debug)]
pub(crate) struct CompareArgs {
    /// Networks (default: all)
    #[arg(long, value_enum, value_delimiter = ',', value_name = "LIST")]
    pub network: Vec<NetworkKind>,
    /// Scenarios (default: all but latency-0rtt)
    #[arg(long, value_enum, value_delimiter = ',', value_name = "LIST")]
    pub scenario: Vec<Scenario>,
    /// Stacks (default: all)
    #[arg(long, value_enum, value_delimiter = ',', value_name = "LIST")]
    pub stack: Vec<Stack>,
    /// What Ringway's ends are written with, each in turn
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        value_name = "LIST",
        default_value = "callback"
    )]
    pub api: Vec<Api>,
    /// Handshakes (hps) resume the session of the connection before
    #[arg(long)]
    pub resume: bool,
    /// Group of the key exchange
    #[arg(long, value_enum, default_value = "x25519")]
    pub group: Group,
    /// How often each contender has its turn
    #[arg(long, default_value_t = 5, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub rounds: u32,
    /// How long a turn is
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = humantime::parse_duration)]
    pub time: Duration,
    /// Where the programs of the other stacks are
    #[arg(long, value_name = "DIRECTORY", default_value = "perf/peers/target/release")]
    pub peers: PathBuf,
    /// Processors of servers and of clients
    #[arg(long, default_value = "0,1", value_name = "SERVER,CLIENT")]
    pub cpus: ProcessorList,
    /// Where the results are put: compare.json, compare.md, compare.html and compare.svg
    #[arg(long, value_name = "DIRECTORY", default_value = "target/compare")]
    pub output: PathBuf,
    /// Measure nothing: make tables, page and picture of the figures in this file, the compare.json of an earlier run
    #[arg(long, value_name = "FILE", conflicts_with_all = MEASURES)]
    pub from: Option<PathBuf>,
}
