//! tquic, with the command line of ringperf. tquic does no I/O: one thread waits at one socket and serves all connections.

mod client;
mod output;
mod server;

use std::process::ExitCode;

use anyhow::Result;
use ringway_peers::{CONNECTION_WINDOW, DATAGRAM, STREAM_WINDOW, STREAMS};
use tquic::{Config, CongestionControlAlgorithm};

/// Silence that ends a connection.
const IDLE_TIMEOUT_MS: u64 = 30_000;

fn main() -> ExitCode {
    ringway_peers::main(|args| server::run(&args), |args| client::run(&args))
}

/// What both ends have.
fn config() -> Result<Config> {
    let mut config = Config::new()?;
    config.set_congestion_control_algorithm(CongestionControlAlgorithm::Cubic);
    config.set_max_idle_timeout(IDLE_TIMEOUT_MS);
    config.set_recv_udp_payload_size(DATAGRAM);
    config.set_send_udp_payload_size(DATAGRAM.into());
    // The size is known, and need not be found.
    config.enable_dplpmtud(false);
    // Limits come before what they limit.
    config.set_max_connection_window(CONNECTION_WINDOW.into());
    config.set_max_stream_window(STREAM_WINDOW.into());
    config.set_initial_max_data(CONNECTION_WINDOW.into());
    config.set_initial_max_stream_data_bidi_local(STREAM_WINDOW.into());
    config.set_initial_max_stream_data_bidi_remote(STREAM_WINDOW.into());
    config.set_initial_max_streams_bidi(STREAMS.into());
    Ok(config)
}
