//! What the programs of the other stacks have in common: one command line, one protocol, one content, one measurement. They are those of
//! ringperf, so that any client can ask any server, and one program can drive all of them.
//!
//! The protocol is that of `ringway-perf-protocol`, whose words stand here too.
//!
//! Programs whose stack has futures get the scenarios from here as well (feature `tokio`: [`Endpoint`], [`run`], [`answer`]), and those whose
//! stack takes rustls its configuration (feature `rustls`: [`tls`]).

mod args;
#[cfg(feature = "tokio")]
mod client;
mod measure;
mod request;
#[cfg(feature = "tokio")]
mod stream;
#[cfg(feature = "tokio")]
mod tickets;
#[cfg(feature = "rustls")]
pub mod tls;

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;

pub use args::{Args, ClientArgs, Command, Group, Resumption, ServerArgs};
#[cfg(feature = "tokio")]
pub use client::{block_on, run};
pub use measure::Meter;
pub use request::Request;
pub use ringway_perf_protocol::{ALPN, ENDLESS, HEADER_LEN, IO_SIZE, Pattern, Scenario};
#[cfg(feature = "tokio")]
pub use stream::{Connection, Endpoint, Stream, answer};
#[cfg(feature = "tokio")]
pub use tickets::Tickets;

/// Flow control windows of connections: more than any path here needs.
pub const CONNECTION_WINDOW: u32 = 128 << 20;
/// Flow control windows of streams.
pub const STREAM_WINDOW: u32 = 8 << 20;
/// Bytes that an upload or a download has with its stack, unsent or unacknowledged, where the stack asks for a bound.
pub const POSTED: u64 = 1 << 20;
/// UDP payload of full datagrams.
pub const DATAGRAM: u16 = 1472;
/// Streams that a client may have open at a time.
pub const STREAMS: u32 = 10_000;
/// Exit code of a program whose stack cannot do what is asked.
pub const CANNOT: i32 = 77;

/// Is the server or the client, as the command line says. What goes wrong is told in one line.
pub fn main(
    server: impl FnOnce(ServerArgs) -> Result<()>,
    client: impl FnOnce(ClientArgs) -> Result<()>,
) -> ExitCode {
    let result = match Args::parse().command {
        Command::Server(args) => server(args),
        Command::Client(args) => client(args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Tells whoever started this server where it listens, and that it is ready.
pub fn listening(address: std::net::SocketAddr) {
    use std::io::Write;
    println!("LISTENING {address}");
    // Somebody waits for it behind a pipe.
    let _ = std::io::stdout().flush();
}

/// The file that SSLKEYLOGFILE names, for the secrets of connections, if it names one.
pub fn key_log() -> Option<std::fs::File> {
    let path = std::env::var_os("SSLKEYLOGFILE")?;
    std::fs::OpenOptions::new()
        .append(true)
        .create(true)
        .open(path)
        .ok()
}

/// Ends the program for want of something in its stack.
pub fn cannot(what: &str) -> ! {
    eprintln!("this stack cannot: {what}");
    std::process::exit(CANNOT)
}
