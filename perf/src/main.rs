//! `ringperf`: moves data and requests over Ringway, and says how fast and at what cost.
//!
//! It speaks the QUIC-PERF protocol: see `ringway-perf-protocol`.

mod args;
mod certificates;
mod client;
mod compare;
use ringway_perf::event_loop;
mod floor;
mod plan;
mod process;
mod report;
mod server;

use std::process::ExitCode;

use clap::Parser;

use crate::args::{Args, Command};

fn main() -> ExitCode {
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_writer(std::io::stderr)
        .init();
    let result = match Args::parse().command {
        Command::Server(args) => server::run(&args),
        Command::Client(args) => client::run(&args),
        Command::Plan(args) => plan::run(&args),
        Command::Floor(args) => floor::run(&args),
        Command::Compare(args) => compare::run(&args),
        Command::FloorLane(args) => floor::run_lane(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report::complain(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}
