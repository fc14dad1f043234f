//! MsQuic, with the command line and the protocol of ringperf.

mod client;
mod outgoing;
mod server;
mod sys;

use std::process::ExitCode;

use anyhow::{Context, Result};
use msquic::{BufferRef, Configuration, CredentialConfig, Registration, RegistrationConfig, Settings};
use ringway_peers::{ALPN, CONNECTION_WINDOW, DATAGRAM, STREAM_WINDOW, STREAMS};

/// Of IPv4 and UDP: MsQuic's MTU contains them.
const HEADERS: u16 = 28;
/// As secnetperf has it.
const DISCONNECT_TIMEOUT_MS: u32 = 10_000;

fn main() -> ExitCode {
    ringway_peers::main(|args| server::run(&args), |args| client::run(&args))
}

/// One thread for each processor, which does everything (low latency, the default): on one core, a second one for the datapath only costs.
fn register() -> Result<Registration> {
    sys::keep_to_processors()?;
    Registration::new(&RegistrationConfig::new().set_app_name("msquic-peer".to_owned()))
        .context("starting MsQuic")
}

/// What both ends have. Congestion control is CUBIC, and GSO and GRO are used, by default.
fn settings() -> Settings {
    Settings::new()
        .set_PeerBidiStreamCount(STREAMS as u16)
        .set_ConnFlowControlWindow(CONNECTION_WINDOW)
        .set_StreamRecvWindowDefault(STREAM_WINDOW)
        .set_MaximumMtu(DATAGRAM + HEADERS)
        .set_DisconnectTimeoutMs(DISCONNECT_TIMEOUT_MS)
}

fn configure(
    registration: &Registration,
    settings: &Settings,
    credential: &CredentialConfig,
) -> Result<Configuration> {
    let configuration = Configuration::open(registration, &[BufferRef::from(ALPN)], Some(settings))
        .context("setting MsQuic up")?;
    sys::disable_send_buffering(&configuration)?;
    configuration
        .load_credential(credential)
        .context("loading certificates: are the files there, in PEM, and do they fit together?")?;
    Ok(configuration)
}
