//! The command line.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytesize::ByteSize;
use clap::{Parser, Subcommand, ValueEnum};
use ringway_perf_protocol::{ENDLESS, Pattern, Scenario};

/// Another stack, with the command line of ringperf.
#[derive(Parser, Debug)]
pub struct Args {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Subcommand, Debug)]
pub enum Command {
    /// Serve until killed; prints `LISTENING address` when ready
    Server(ServerArgs),
    /// Run one scenario; prints one line of JSON
    Client(ClientArgs),
    /// Serve the files of a folder by HTTP/3 until killed; prints `LISTENING address` when ready
    Http3Server(Http3ServerArgs),
    /// Get files by HTTP/3, all at the same time
    Http3Client(Http3ClientArgs),
}

#[derive(clap::Args, Clone, Debug)]
pub struct Http3ServerArgs {
    /// Address and port to listen on
    #[arg(long)]
    pub bind: SocketAddr,
    /// Certificate chain (PEM)
    #[arg(long)]
    pub cert: PathBuf,
    /// Its private key (PEM)
    #[arg(long)]
    pub key: PathBuf,
    /// What is there is read at the start; folders below it are not
    #[arg(long)]
    pub root: PathBuf,
}

impl Http3ServerArgs {
    /// A server of ringperf's protocol with the same address and certificate, as it is by default.
    pub fn server(&self) -> ServerArgs {
        ServerArgs {
            bind: self.bind,
            cert: self.cert.clone(),
            key: self.key.clone(),
            retry: false,
            resumption: Resumption::None,
            client_ca: None,
            group: Group::X25519,
            verify: false,
        }
    }
}

#[derive(clap::Args, Clone, Debug)]
pub struct Http3ClientArgs {
    /// Server to connect to
    #[arg(long)]
    pub target: SocketAddr,
    /// Name that the server's certificate must have
    #[arg(long, default_value = "localhost")]
    pub server_name: String,
    /// Certificates to trust (PEM)
    #[arg(long)]
    pub ca: PathBuf,
    /// Folder to write the files to
    #[arg(long)]
    pub output: PathBuf,
    /// Their names at the server, where none is in a folder
    #[arg(required = true)]
    pub names: Vec<String>,
}

#[derive(clap::Args, Clone, Debug)]
pub struct ServerArgs {
    /// Address and port to listen on
    #[arg(long)]
    pub bind: SocketAddr,
    /// Certificate chain (PEM)
    #[arg(long)]
    pub cert: PathBuf,
    /// Its private key (PEM)
    #[arg(long)]
    pub key: PathBuf,
    /// Make every client prove its address first
    #[arg(long)]
    pub retry: bool,
    /// What clients may do with tickets
    #[arg(long, value_enum, default_value = "none")]
    pub resumption: Resumption,
    /// Demand a certificate of every client that leads to one of these (PEM)
    #[arg(long)]
    pub client_ca: Option<PathBuf>,
    /// Group of the key exchange
    #[arg(long, value_enum, default_value = "x25519")]
    pub group: Group,
    /// Check every byte that arrives
    #[arg(long)]
    pub verify: bool,
}

/// What clients may do with tickets.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub enum Resumption {
    /// There are none, or nobody uses them
    None,
    /// Resume sessions
    Resume,
    /// Resume sessions, and send requests in 0-RTT
    ZeroRtt,
}

/// Of the key exchange: this one before others.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
#[value(rename_all = "lower")]
pub enum Group {
    X25519,
    X25519MlKem768,
}

#[derive(clap::Args, Clone, Debug)]
pub struct ClientArgs {
    /// Server to connect to
    #[arg(long)]
    pub target: SocketAddr,
    /// Name that the server's certificate must have
    #[arg(long, default_value = "localhost")]
    pub server_name: String,
    /// Certificates to trust (PEM)
    #[arg(long)]
    pub ca: PathBuf,
    /// What to do
    #[arg(long, value_enum)]
    pub scenario: Scenario,
    /// Bytes to transfer on each stream (upload, download), instead of for a time
    #[arg(long)]
    pub bytes: Option<ByteSize>,
    /// How long to run
    #[arg(long, value_parser = humantime::parse_duration, default_value = "2s")]
    pub time: Duration,
    /// Give up when nothing has been achieved for this long. Of an upload, what counts is that the stack takes data: all of `--bytes` may be in its
    /// buffers long before it has arrived; give as much time as that takes
    #[arg(long, value_parser = humantime::parse_duration, default_value = "10s")]
    pub timeout: Duration,
    /// Connections at a time (default: 1; rps-multi and hps: 16; idle: 2000, set up 16 at a time)
    #[arg(long)]
    pub connections: Option<usize>,
    /// Streams at a time on each connection (default: 1; rps and rps-multi: 100)
    #[arg(long)]
    pub streams: Option<usize>,
    /// Request size
    #[arg(long, default_value = "512B")]
    pub request: ByteSize,
    /// Response size
    #[arg(long, default_value = "4000B")]
    pub response: ByteSize,
    /// Say something after so much silence
    #[arg(long, value_parser = humantime::parse_duration)]
    pub keep_alive: Option<Duration>,
    /// Update keys in the middle of a transfer of `--bytes`
    #[arg(long, requires = "bytes")]
    pub key_update: bool,
    /// Resume the session of an earlier connection (hps): each connection ends when it has a ticket for the next. The run fails if one with a ticket
    /// gets a full handshake
    #[arg(long)]
    pub resume: bool,
    /// Certificate chain to show (PEM)
    #[arg(long, requires = "key")]
    pub cert: Option<PathBuf>,
    /// Its private key (PEM)
    #[arg(long, requires = "cert")]
    pub key: Option<PathBuf>,
    /// Group of the key exchange
    #[arg(long, value_enum, default_value = "x25519")]
    pub group: Group,
    /// Check every byte that arrives
    #[arg(long)]
    pub verify: bool,
    /// Figures as one line of JSON: what is printed in any case
    #[arg(long)]
    pub json: bool,
}

impl ClientArgs {
    /// Connections at a time.
    pub fn connection_count(&self) -> usize {
        self.connections
            .unwrap_or(self.scenario.default_connections(1))
            .max(1)
    }

    /// Connections that start at once; each that is up is followed by another until all are.
    pub fn initial_connections(&self) -> usize {
        self.scenario.initial_connections(self.connection_count())
    }

    /// Streams at a time on each connection.
    pub fn stream_count(&self) -> usize {
        self.streams.unwrap_or(self.scenario.default_streams()).max(1)
    }

    /// Whether streams are requests, each followed by a new one when it is answered, until the time is over.
    pub fn is_requests(&self) -> bool {
        self.scenario.is_requests()
    }

    /// Whether connections use tickets of earlier ones.
    pub fn resumes(&self) -> bool {
        self.resume || self.is_early()
    }

    /// Whether each connection carries one request in its first flight.
    pub fn is_early(&self) -> bool {
        self.scenario == Scenario::LatencyZeroRtt
    }

    /// What a client shows, if it has something to show.
    pub fn identity(&self) -> Option<(&Path, &Path)> {
        self.cert.as_deref().zip(self.key.as_deref())
    }

    /// Bytes to transfer on each stream; `None`: the time ends the run.
    pub fn transfer_len(&self) -> Option<u64> {
        match self.scenario {
            Scenario::Upload | Scenario::Download => self.bytes.map(|bytes| bytes.as_u64()),
            _ => None,
        }
    }

    /// Bytes of response that each stream asks for.
    pub fn response_len(&self) -> u64 {
        match self.scenario {
            Scenario::Download => self.transfer_len().unwrap_or(ENDLESS),
            Scenario::Latency | Scenario::LatencyZeroRtt | Scenario::Rps | Scenario::RpsMulti => {
                self.response.as_u64()
            }
            Scenario::Upload | Scenario::Hps | Scenario::Idle => 0,
        }
    }

    /// Bytes that each stream sends behind its header, without an end if the time ends it.
    pub fn upload_len(&self) -> u64 {
        match self.scenario {
            Scenario::Upload => self.transfer_len().unwrap_or(ENDLESS),
            _ => 0,
        }
    }

    /// A whole request of the scenarios that make requests.
    pub fn request(&self, pattern: &Pattern) -> bytes::Bytes {
        ringway_perf_protocol::request(self.response_len(), self.request.as_u64(), pattern)
    }
}
