//! The command line.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::thread::JoinHandle;
use std::time::Duration;

use bytesize::ByteSize;
use clap::{Args as ClapArgs, Parser, Subcommand, ValueEnum};
use ringway::{
    AfXdpConfig, AttachMode, Backend, CipherSuite, CongestionControl, CopyMode, DatapathConfig,
    ExecutionConfig, ExecutionFlags, ExecutionMode, Registration, RetryPolicy, Settings, SetupError, Version,
};

use crate::compare::{NetworkKind, Stack};
use crate::event_loop::EventLoop;
use crate::floor::{By, End, Work};

/// Performance harness of Ringway.
#[derive(Parser, Debug)]
#[command(version, about, long_about = None)]
pub(crate) struct Args {
    /// Which end to be.
    #[command(subcommand)]
    pub command: Command,
}

/// Which end to be.
#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// Serve clients until interrupted.
    Server(ServerArgs),
    /// Run one scenario against a server, and print figures.
    Client(ClientArgs),
    /// Say which processors would serve which queues of an interface, and what keeps this machine from doing better.
    Plan(PlanArgs),
    /// Measure what this machine can move at most, without any protocol, and what the devices reach of it.
    Floor(FloorArgs),
    /// Compare with other stacks on this machine: a table, figures as JSON, and a page with plots.
    Compare(CompareArgs),
    /// One end of a measurement of `floor`, which starts it.
    #[command(hide = true)]
    FloorLane(LaneArgs),
}

/// What `floor` measures. Namespaces let AF_XDP send from one end of a virtual link to the other.
#[derive(ClapArgs, Clone, Debug)]
pub(crate) struct FloorArgs {
    /// Devices (default: socket, io_uring, and af_xdp where an interface is named)
    #[arg(long, value_enum, value_delimiter = ',')]
    pub datapath: Vec<Datapath>,
    /// The interface of AF_XDP, of this name at both ends
    #[arg(long, value_name = "NAME")]
    pub interface: Option<String>,
    /// Where the XDP program runs (AF_XDP)
    #[arg(long, value_enum, default_value = "auto")]
    pub xdp_attach: XdpAttach,
    /// Address of the receiving end
    #[arg(long, default_value_t = crate::floor::LOOPBACK)]
    pub address: IpAddr,
    /// Network namespace of the sending end
    #[arg(long, value_name = "NAMESPACE")]
    pub send_in: Option<String>,
    /// Network namespace of the receiving end
    #[arg(long, value_name = "NAMESPACE")]
    pub receive_in: Option<String>,
    /// Processors of the sending and the receiving end
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "0,1",
        value_name = "SEND,RECEIVE"
    )]
    pub cpus: Vec<usize>,
    /// How often each lane has its turn
    #[arg(long, default_value_t = 5, value_name = "N")]
    pub rounds: usize,
    /// How long a turn is
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = humantime::parse_duration)]
    pub time: Duration,
    /// Print figures as one line of JSON
    #[arg(long)]
    pub json: bool,
}

/// One end of a measurement.
#[derive(ClapArgs, Clone, Debug)]
pub(crate) struct LaneArgs {
    #[arg(value_enum)]
    pub end: End,
    #[arg(long, value_enum)]
    pub by: By,
    #[arg(long, value_enum)]
    pub work: Work,
    #[arg(long, value_enum)]
    pub datapath: Datapath,
    #[arg(long)]
    pub address: SocketAddr,
    #[arg(long, value_parser = humantime::parse_duration)]
    pub time: Duration,
    #[arg(long, value_enum)]
    pub xdp_attach: XdpAttach,
    #[arg(long)]
    pub interface: Option<String>,
    #[arg(long)]
    pub cpu: Option<usize>,
}

/// What `compare` measures.
#[derive(ClapArgs, Clone, Debug)]
pub(crate) struct CompareArgs {
    /// Networks (default: all)
    #[arg(long, value_enum, value_delimiter = ',', value_name = "LIST")]
    pub network: Vec<NetworkKind>,
    /// Scenarios (default: all)
    #[arg(long, value_enum, value_delimiter = ',', value_name = "LIST")]
    pub scenario: Vec<Scenario>,
    /// Stacks (default: all)
    #[arg(long, value_enum, value_delimiter = ',', value_name = "LIST")]
    pub stack: Vec<Stack>,
    /// How often each lane has its turn
    #[arg(long, default_value_t = 5, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub rounds: u32,
    /// How long a turn is
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = humantime::parse_duration)]
    pub time: Duration,
    /// Where the programs of the other stacks are
    #[arg(long, value_name = "DIRECTORY", default_value = "perf/peers/target/release")]
    pub peers: PathBuf,
    /// Processors of servers and of clients
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "0,1",
        value_name = "SERVER,CLIENT"
    )]
    pub cpus: Vec<usize>,
    /// Where the results are put: compare.json, compare.html and compare.svg
    #[arg(long, value_name = "DIRECTORY", default_value = "target/compare")]
    pub output: PathBuf,
    /// Measure nothing: make page and picture of the figures in this file, the compare.json of an earlier run
    #[arg(long, value_name = "FILE", conflicts_with_all = ["network", "scenario", "stack", "rounds", "time", "peers", "cpus"])]
    pub from: Option<PathBuf>,
}

/// What a plan is made for.
#[derive(ClapArgs, Clone, Debug)]
pub(crate) struct PlanArgs {
    /// The interface whose queues are to be served
    #[arg(long, value_name = "NAME")]
    pub interface: Option<String>,
    /// Processors to use (default: all)
    #[arg(long, value_delimiter = ',', value_name = "LIST")]
    pub cpus: Option<Vec<usize>>,
    /// How many threads a partition has
    #[arg(long, value_enum, default_value = "low-latency")]
    pub mode: Mode,
    /// Print it, with all that it was made from, as JSON
    #[arg(long)]
    pub json: bool,
}

/// What both ends have.
#[derive(ClapArgs, Clone, Debug)]
pub(crate) struct CommonArgs {
    /// A TOML file with the execution configuration; variables RINGWAY_* come before it, and what is given here before both
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// How many threads a partition has
    #[arg(long, value_enum)]
    pub mode: Option<Mode>,
    /// Poll from event loops of the harness, as an application with loops of its own does (default: the library's threads)
    #[arg(long, value_enum)]
    pub event_loop: Option<Loop>,
    /// Processors to use, one thread each (default: all)
    #[arg(long, value_delimiter = ',', value_name = "LIST")]
    pub cpus: Option<Vec<usize>>,
    /// Bind each thread to its processor
    #[arg(long)]
    pub affinitize: bool,
    /// Let threads begin anywhere
    #[arg(long)]
    pub no_ideal_proc: bool,
    /// Let threads come before those of other programs
    #[arg(long)]
    pub high_priority: bool,
    /// Take no datapath but AF_XDP
    #[arg(long)]
    pub xdp: bool,
    /// Keep polling for this long after the last work before sleeping (default: not at all)
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    pub poll_idle: Option<Duration>,
    /// How datagrams reach the kernel (default: the first that works)
    #[arg(long, value_enum)]
    pub datapath: Option<Datapath>,
    /// The interface whose queues are served (AF_XDP)
    #[arg(long, value_name = "NAME")]
    pub interface: Option<String>,
    /// Its receive queues to serve (AF_XDP; default: all)
    #[arg(long, value_delimiter = ',', value_name = "LIST")]
    pub queues: Option<Vec<u32>>,
    /// Where the XDP program runs (AF_XDP)
    #[arg(long, value_enum)]
    pub xdp_attach: Option<XdpAttach>,
    /// Whether the NIC reads and writes our memory itself (AF_XDP)
    #[arg(long, value_enum)]
    pub xdp_copy: Option<XdpCopy>,
    /// Send no UDP checksums over IPv4: for links where the AEAD is check enough (AF_XDP)
    #[arg(long)]
    pub no_udp_checksum: bool,
    /// Receive buffers of each partition (io_uring)
    #[arg(long, value_name = "COUNT")]
    pub receive_buffers: Option<u16>,
    /// Let the kernel poll the NIC for this long before a thread sleeps (io_uring, AF_XDP)
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    pub busy_poll: Option<Duration>,
    /// Do without generic segmentation offload
    #[arg(long)]
    pub no_gso: bool,
    /// Do without generic receive offload
    #[arg(long)]
    pub no_gro: bool,
    /// Congestion control
    #[arg(long, value_enum, default_value = "cubic")]
    pub cc: Cc,
    /// Cipher suite (default: all, AES-128 preferred)
    #[arg(long, value_enum)]
    pub cipher: Option<Cipher>,
    /// Largest UDP payload to send, if the path carries it
    #[arg(long, value_name = "BYTES", default_value_t = 1472)]
    pub max_datagram_size: u16,
    /// Mark packets for explicit congestion notification
    #[arg(long)]
    pub ecn: bool,
    /// Update keys each time that so many bytes were sent (default: never in any run that ends)
    #[arg(long, value_name = "SIZE")]
    pub key_update_after: Option<ByteSize>,
    /// Say something after this much silence: a client that only receives needs it to outlive a NAT that forgets (default: never)
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = humantime::parse_duration)]
    pub keep_alive: Duration,
    /// Bytes that a stream has under way at most
    #[arg(long, value_name = "SIZE", default_value = "1MiB")]
    pub posted: ByteSize,
    /// Bytes in one send call
    #[arg(long, value_name = "SIZE", default_value = "64KiB")]
    pub io_size: ByteSize,
    /// Check every byte that arrives
    #[arg(long)]
    pub verify: bool,
    /// Print figures as one line of JSON
    #[arg(long)]
    pub json: bool,
}

/// What a server has.
#[derive(ClapArgs, Clone, Debug)]
pub(crate) struct ServerArgs {
    /// Address and port to listen on
    #[arg(long, default_value = "[::]:4433")]
    pub bind: SocketAddr,
    /// Certificate chain (PEM); without one, a self-signed certificate is made
    #[arg(long, requires = "key", value_name = "FILE")]
    pub cert: Option<PathBuf>,
    /// Private key of the certificate (PEM)
    #[arg(long, requires = "cert", value_name = "FILE")]
    pub key: Option<PathBuf>,
    /// Make every client prove its address first
    #[arg(long)]
    pub retry: bool,
    /// End after this time
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    pub duration: Option<Duration>,
    #[command(flatten)]
    pub common: CommonArgs,
}

/// What a client has.
#[derive(ClapArgs, Clone, Debug)]
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
    #[arg(long, value_name = "SIZE")]
    pub bytes: Option<ByteSize>,
    /// How long to run (default: 12 s; requests 20 s)
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration, conflicts_with = "bytes")]
    pub time: Option<Duration>,
    /// Connections at a time (default: 1; rps-multi and hps: 16 for each processor; idle: 2000, set up 16 at a time)
    #[arg(long, value_name = "N")]
    pub connections: Option<usize>,
    /// Streams at a time on each connection (default: 1; rps and rps-multi: 100)
    #[arg(long, value_name = "N")]
    pub streams: Option<usize>,
    /// Request size
    #[arg(long, value_name = "SIZE", default_value = "512B")]
    pub request: ByteSize,
    /// Response size
    #[arg(long, value_name = "SIZE", default_value = "4000B")]
    pub response: ByteSize,
    /// QUIC version to start with
    #[arg(long, value_enum, default_value = "v1")]
    pub quic: QuicVersion,
    /// Give up when nothing has been achieved for this long
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = humantime::parse_duration)]
    pub timeout: Duration,
    /// Write the distribution of latencies to this file (HdrHistogram percentiles)
    #[arg(long, value_name = "FILE")]
    pub hdr_file: Option<PathBuf>,
    #[command(flatten)]
    pub common: CommonArgs,
}

/// What a client does.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Scenario {
    /// Send as much as possible
    Upload,
    /// Receive as much as possible
    Download,
    /// One request at a time
    Latency,
    /// Many requests at a time on one connection
    Rps,
    /// Many requests at a time on many connections
    RpsMulti,
    /// Connect and close, again and again
    Hps,
    /// Hold connections open and do nothing: for the memory that they take
    Idle,
}

/// How many threads a partition has.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Mode {
    /// One
    LowLatency,
    /// Two: one receives and sends, the other runs connections
    MaxThroughput,
}

impl Mode {
    pub(crate) fn mode(self) -> ExecutionMode {
        match self {
            Mode::LowLatency => ExecutionMode::LowLatency,
            Mode::MaxThroughput => ExecutionMode::MaxThroughput,
        }
    }
}

/// Which event loop.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Loop {
    /// An epoll instance for each thread
    Epoll,
    /// An io_uring for each thread
    IoUring,
}

impl Loop {
    fn event_loop(self) -> EventLoop {
        match self {
            Loop::Epoll => EventLoop::Epoll,
            Loop::IoUring => EventLoop::IoUring,
        }
    }
}

/// Congestion control.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Cc {
    /// RFC 9438
    Cubic,
    /// RFC 9002
    Newreno,
}

/// Cipher suite.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Cipher {
    /// TLS_AES_128_GCM_SHA256
    Aes128,
    /// TLS_AES_256_GCM_SHA384
    Aes256,
    /// TLS_CHACHA20_POLY1305_SHA256
    Chacha20,
}

/// Kind of device.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Datapath {
    /// The first of the others that this system lets us have
    Auto,
    /// Frames from the queues of a NIC, past the kernel's network stack: needs --interface
    #[value(name = "af_xdp")]
    AfXdp,
    /// Sockets through io_uring
    #[value(name = "io_uring")]
    IoUring,
    /// Sockets and epoll
    Socket,
}

/// Where the XDP program runs.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum XdpAttach {
    /// In the driver if it can, else in the network stack
    Auto,
    /// In the driver
    Native,
    /// In the network stack
    Generic,
}

/// Whether the NIC reads and writes our memory itself.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum XdpCopy {
    /// If the driver can
    Auto,
    /// The kernel copies
    Copy,
    /// It must
    #[value(name = "zero-copy")]
    ZeroCopy,
}

/// QUIC version.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum QuicVersion {
    /// RFC 9000
    V1,
    /// RFC 9369
    V2,
}

impl Datapath {
    fn backend(self) -> Backend {
        match self {
            Datapath::Auto => Backend::Auto,
            Datapath::AfXdp => Backend::AfXdp,
            Datapath::IoUring => Backend::IoUring,
            Datapath::Socket => Backend::Socket,
        }
    }
}

impl XdpAttach {
    fn attach(self) -> AttachMode {
        match self {
            XdpAttach::Auto => AttachMode::Auto,
            XdpAttach::Native => AttachMode::Native,
            XdpAttach::Generic => AttachMode::Generic,
        }
    }
}

impl XdpCopy {
    fn copy(self) -> CopyMode {
        match self {
            XdpCopy::Auto => CopyMode::Auto,
            XdpCopy::Copy => CopyMode::Copy,
            XdpCopy::ZeroCopy => CopyMode::ZeroCopy,
        }
    }
}

/// Takes what is given.
fn set<T>(place: &mut T, given: Option<T>) {
    if let Some(given) = given {
        *place = given;
    }
}

impl FloorArgs {
    pub(crate) fn datapaths(&self) -> Vec<Datapath> {
        if !self.datapath.is_empty() {
            return self.datapath.clone();
        }
        let xdp = self.interface.is_some().then_some(Datapath::AfXdp);
        [Datapath::Socket, Datapath::IoUring]
            .into_iter()
            .chain(xdp)
            .collect()
    }
}

impl LaneArgs {
    pub(crate) fn config(&self) -> DatapathConfig {
        DatapathConfig {
            backend: self.datapath.backend(),
            af_xdp: AfXdpConfig {
                interface: self.interface.clone(),
                attach: self.xdp_attach.attach(),
                // As the frames that it is compared with.
                udp_checksum: false,
                ..AfXdpConfig::default()
            },
            ..DatapathConfig::default()
        }
    }
}

impl CommonArgs {
    /// What is given here, over variables, over the file, over the defaults.
    fn execution(&self) -> Result<ExecutionConfig, SetupError> {
        let mut execution = ExecutionConfig::load(self.config.as_deref())?;
        set(&mut execution.mode, self.mode.map(Mode::mode));
        set(&mut execution.processors, self.cpus.clone().map(Some));
        set(&mut execution.polling_idle_timeout, self.poll_idle);
        for (given, flag) in [
            (self.affinitize, ExecutionFlags::AFFINITIZE),
            (self.no_ideal_proc, ExecutionFlags::NO_IDEAL_PROC),
            (self.high_priority, ExecutionFlags::HIGH_PRIORITY),
            (self.xdp, ExecutionFlags::XDP),
        ] {
            execution.flags.set(flag, given || execution.flags.contains(flag));
        }
        let datapath = &mut execution.datapath;
        set(&mut datapath.backend, self.datapath.map(Datapath::backend));
        set(&mut datapath.receive_buffers, self.receive_buffers);
        set(&mut datapath.busy_poll, self.busy_poll);
        datapath.gso &= !self.no_gso;
        datapath.gro &= !self.no_gro;
        let af_xdp = &mut datapath.af_xdp;
        set(&mut af_xdp.interface, self.interface.clone().map(Some));
        set(&mut af_xdp.queues, self.queues.clone().map(Some));
        set(&mut af_xdp.attach, self.xdp_attach.map(XdpAttach::attach));
        set(&mut af_xdp.copy, self.xdp_copy.map(XdpCopy::copy));
        af_xdp.udp_checksum &= !self.no_udp_checksum;
        Ok(execution)
    }

    /// Opens a registration, with the threads that poll it if they are not its own.
    pub(crate) fn open(&self) -> Result<(Registration, Vec<JoinHandle<()>>), SetupError> {
        let execution = self.execution()?;
        match self.event_loop {
            Some(kind) => kind.event_loop().open("ringway", &execution),
            None => Ok((Registration::open("ringway", &execution)?, Vec::new())),
        }
    }

    /// Settings of secnetperf: large windows, many streams.
    pub(crate) fn settings(&self) -> Settings {
        Settings {
            congestion_control: match self.cc {
                Cc::Cubic => CongestionControl::Cubic,
                Cc::Newreno => CongestionControl::NewReno,
            },
            maximum_datagram_size: self.max_datagram_size,
            initial_datagram_size: Settings::default()
                .initial_datagram_size
                .min(self.max_datagram_size),
            ecn_enabled: self.ecn,
            keep_alive_interval: self.keep_alive,
            max_bytes_per_key: self
                .key_update_after
                .map_or(Settings::default().max_bytes_per_key, |bytes| bytes.as_u64()),
            stream_receive_window: 8 << 20,
            connection_flow_control_window: 128 << 20,
            peer_bidi_stream_count: 10_000,
            disconnect_timeout: Duration::from_secs(10),
            ..Settings::default()
        }
    }

    pub(crate) fn cipher_suites(&self) -> Vec<CipherSuite> {
        match self.cipher {
            None => CipherSuite::ALL.to_vec(),
            Some(Cipher::Aes128) => vec![CipherSuite::Aes128Gcm],
            Some(Cipher::Aes256) => vec![CipherSuite::Aes256Gcm],
            Some(Cipher::Chacha20) => vec![CipherSuite::ChaCha20Poly1305],
        }
    }
}

impl ServerArgs {
    pub(crate) fn retry_policy(&self) -> RetryPolicy {
        if self.retry {
            RetryPolicy::Always
        } else {
            RetryPolicy::WhenLoaded
        }
    }
}

/// Handshakes at a time where connections are set up to be idle.
const HANDSHAKES_AT_A_TIME: usize = 16;

impl ClientArgs {
    pub(crate) fn version(&self) -> Version {
        match self.quic {
            QuicVersion::V1 => Version::V1,
            QuicVersion::V2 => Version::V2,
        }
    }

    pub(crate) fn run_time(&self) -> Duration {
        let default = match self.scenario {
            Scenario::Upload | Scenario::Download | Scenario::Hps | Scenario::Idle => Duration::from_secs(12),
            Scenario::Latency | Scenario::Rps | Scenario::RpsMulti => Duration::from_secs(20),
        };
        self.time.unwrap_or(default)
    }

    pub(crate) fn connection_count(&self, processors: usize) -> usize {
        let default = match self.scenario {
            Scenario::RpsMulti | Scenario::Hps => 16 * processors,
            Scenario::Idle => 2000,
            _ => 1,
        };
        self.connections.unwrap_or(default).max(1)
    }

    /// Connections that are begun at once; each that is up is followed by another until all are. Those of [`Scenario::Idle`] are few: what many
    /// handshakes at once take is not what idle connections take.
    pub(crate) fn begun_at_once(&self, processors: usize) -> usize {
        let count = self.connection_count(processors);
        match self.scenario {
            Scenario::Idle => count.min(HANDSHAKES_AT_A_TIME),
            _ => count,
        }
    }

    pub(crate) fn stream_count(&self) -> usize {
        let default = match self.scenario {
            Scenario::Rps | Scenario::RpsMulti => 100,
            _ => 1,
        };
        self.streams.unwrap_or(default).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_line_is_consistent() {
        use clap::CommandFactory;
        Args::command().debug_assert();
    }

    #[test]
    fn sizes_and_times_take_units() {
        let args = Args::parse_from(
            "ringperf client --target localhost:4433 --scenario upload --bytes 10MB --poll-idle 50us --cpus 0,1".split(' '),
        );
        let Command::Client(args) = args.command else {
            panic!()
        };
        assert_eq!(args.bytes.unwrap().as_u64(), 10_000_000);
        assert_eq!(args.common.poll_idle, Some(Duration::from_micros(50)));
        assert_eq!(args.common.cpus, Some(vec![0, 1]));
    }
}
