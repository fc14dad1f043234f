//! What the programs of the other stacks have in common: one command line, one protocol, one content, one measurement. They are those of
//! ringperf, so that any client can ask any server, and one program can drive all of them.
//!
//! The protocol is that of `ringway-perf-protocol`, whose words stand here too.
//!
//! Programs whose stack has futures get the scenarios from here as well (feature `tokio`: [`Endpoint`], [`run`], [`answer`]), and those whose
//! stack takes rustls its configuration (feature `rustls`: [`tls`]); those that the crate h3 runs on, HTTP/3 (feature `h3`: [`serve`], [`get`]).

mod args;
#[cfg(feature = "tokio")]
mod client;
#[cfg(feature = "h3")]
mod h3;
mod http3;
mod measure;
mod request;
#[cfg(feature = "tokio")]
mod stream;
#[cfg(feature = "tokio")]
mod tickets;
#[cfg(feature = "rustls")]
pub mod tls;

use std::process::ExitCode;

use anyhow::{Result, ensure};
use clap::Parser;

pub use args::{Args, ClientArgs, Command, Group, Http3ClientArgs, Http3ServerArgs, Resumption, ServerArgs};
#[cfg(feature = "tokio")]
pub use client::{block_on, run};
#[cfg(feature = "h3")]
pub use h3::{get, serve};
pub use http3::{ALPN_HTTP3, Files};
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

/// Is the server or the client, as the command line says.
pub fn main(
    server: impl FnOnce(ServerArgs) -> Result<()>,
    client: impl FnOnce(ClientArgs) -> Result<()>,
) -> ExitCode {
    with_http3(server, client, |_| cannot("HTTP/3"), |_| cannot("HTTP/3"))
}

/// The same, with either end of HTTP/3. What goes wrong is told in one line.
pub fn with_http3(
    server: impl FnOnce(ServerArgs) -> Result<()>,
    client: impl FnOnce(ClientArgs) -> Result<()>,
    http3_server: impl FnOnce(Http3ServerArgs) -> Result<()>,
    http3_client: impl FnOnce(Http3ClientArgs) -> Result<()>,
) -> ExitCode {
    let result = match Args::parse().command {
        Command::Server(args) => server(args),
        Command::Client(args) => client(args),
        Command::Http3Server(args) => http3_server(args),
        Command::Http3Client(args) => http3_client(args),
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

/// Fails if a connection that began with a ticket was set up by a full handshake: a run that resumes sessions is to measure no other.
pub fn ensure_resumed(is_resumed: bool) -> Result<()> {
    ensure!(
        is_resumed,
        "a session was not resumed: a connection that had a ticket was set up by a full handshake"
    );
    Ok(())
}

/// Ends the program for want of something in its stack.
pub fn cannot(what: &str) -> ! {
    eprintln!("this stack cannot: {what}");
    std::process::exit(CANNOT)
}
