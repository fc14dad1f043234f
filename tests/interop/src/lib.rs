//! What all peers have: one command line, one protocol, one content.
//!
//! The protocol is QUIC-PERF: ALPN `perf`; the first eight bytes of each stream that a client opens are the length of
//! the response, big-endian; the end of the stream starts the response. The byte at offset `o` of a response, or of a request
//! behind its first eight bytes, is `o mod 251`.

pub mod proxy;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::{Parser, Subcommand, ValueEnum};

pub const ALPN: &[u8] = b"perf";
pub const HEADER_LEN: usize = 8;
/// Flow control windows of all peers: more than any path here needs.
pub const WINDOW: u32 = 128 << 20;
/// UDP payload of full datagrams.
pub const DATAGRAM: u16 = 1472;
/// A response that outlasts any run.
pub const ENDLESS: u64 = 1 << 60;

#[derive(Parser, Debug)]
pub struct Args {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Subcommand, Debug)]
pub enum Command {
    /// Serve until killed; prints `LISTENING address` when ready.
    Server {
        #[arg(long)]
        listen: SocketAddr,
        #[arg(long)]
        cert: PathBuf,
        #[arg(long)]
        key: PathBuf,
        /// Make every client prove its address first
        #[arg(long)]
        retry: bool,
    },
    /// One transfer; prints one line of JSON.
    Client(ClientArgs),
}

#[derive(clap::Args, Clone, Debug)]
pub struct ClientArgs {
    #[arg(long)]
    pub connect: SocketAddr,
    #[arg(long, default_value = "localhost")]
    pub server_name: String,
    #[arg(long)]
    pub ca: PathBuf,
    #[arg(long, value_enum)]
    pub scenario: Scenario,
    /// Bytes to transfer
    #[arg(long, default_value_t = 10_000_000)]
    pub bytes: u64,
    /// Transfer for so many seconds instead
    #[arg(long)]
    pub seconds: Option<f64>,
    /// Update keys in the middle
    #[arg(long)]
    pub key_update: bool,
}

#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scenario {
    Upload,
    Download,
}

impl ClientArgs {
    /// When a timed transfer ends.
    pub fn end(&self) -> Option<Instant> {
        self.seconds
            .map(|seconds| Instant::now() + Duration::from_secs_f64(seconds))
    }

    pub fn response_len(&self) -> u64 {
        match (self.scenario, self.seconds) {
            (Scenario::Upload, _) => 0,
            (Scenario::Download, None) => self.bytes,
            (Scenario::Download, Some(_)) => ENDLESS,
        }
    }

    pub fn upload_len(&self) -> u64 {
        match (self.scenario, self.seconds) {
            (Scenario::Upload, None) => self.bytes,
            (Scenario::Upload, Some(_)) => ENDLESS,
            (Scenario::Download, _) => 0,
        }
    }
}

/// Exit code of a peer that cannot do what is asked.
pub const CANNOT: i32 = 77;

/// Prints the figures of a transfer.
pub fn report(bytes: u64, start: Instant) {
    let seconds = start.elapsed().as_secs_f64();
    println!(
        "{}",
        serde_json::json!({ "bytes": bytes, "seconds": seconds, "goodput_gbit_s": bytes as f64 * 8e-9 / seconds })
    );
}

const PIECE: usize = 64 * 1024;

/// The content of transfers.
#[derive(Clone)]
pub struct Pattern(bytes::Bytes);

impl Default for Pattern {
    fn default() -> Self {
        Pattern(
            (0..PIECE + 251)
                .map(|offset| (offset % 251) as u8)
                .collect::<Vec<_>>()
                .into(),
        )
    }
}

impl Pattern {
    /// The piece at `offset`, at most `len` bytes and at most 64 KiB.
    pub fn piece(&self, offset: u64, len: u64) -> bytes::Bytes {
        let start = (offset % 251) as usize;
        self.0.slice(start..start + len.min(PIECE as u64) as usize)
    }

    pub fn matches(&self, mut offset: u64, data: &[u8]) -> bool {
        data.chunks(PIECE).all(|chunk| {
            let start = (offset % 251) as usize;
            offset += chunk.len() as u64;
            self.0[start..start + chunk.len()] == *chunk
        })
    }
}

/// A request as a server reads it: its header, and whether the rest is right.
#[derive(Clone, Copy, Default)]
pub struct Request {
    header: [u8; HEADER_LEN],
    received: u64,
    wrong: bool,
}

impl Request {
    pub fn take(&mut self, mut data: &[u8], pattern: &Pattern) {
        while self.received < HEADER_LEN as u64 && !data.is_empty() {
            self.header[self.received as usize] = data[0];
            data = &data[1..];
            self.received += 1;
        }
        if !data.is_empty() {
            self.wrong |= !pattern.matches(self.received - HEADER_LEN as u64, data);
            self.received += data.len() as u64;
        }
    }

    /// The length of the response; `None` if the request was not right.
    pub fn response_len(&self) -> Option<u64> {
        (self.received >= HEADER_LEN as u64 && !self.wrong).then(|| u64::from_be_bytes(self.header))
    }
}
