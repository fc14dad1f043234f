//! What the command lines of server and client have in common: how to execute, which datapath to take, how to transfer.

use std::path::PathBuf;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use bytesize::ByteSize;
use clap::{Args, ValueEnum};
use ringway::{
    Capture, CipherSuite, CongestionControl, ContextConfig, CopyMode, Execution, ExecutionConfig,
    ExecutionFlags, KeyExchangeGroup, Registration, Settings, SetupError, Version,
};
use serde::Serialize;

use crate::capture::CaptureFromStartArgs;
use crate::control::{ControlListener, ControlSocket};
use crate::event_loop::EventLoop;
use crate::options::{Api, Datapath, Mode, XdpAttach};
use crate::processors::{self, ProcessorList};
use crate::ranges;
use crate::source_rules::SourceArgs;

/// Options of server and client.
#[derive(Args, Clone, Debug)]
pub(crate) struct EndpointArgs {
    /// A TOML file with the execution configuration; variables RINGWAY_* come before it, and what is given here before both
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// How many threads a partition has
    #[arg(long, value_enum)]
    pub mode: Option<Mode>,
    /// The API that this end is written with
    #[arg(long, value_enum, default_value = "callback")]
    pub api: Api,
    /// Poll from event loops of the harness, as an application with loops of its own does (default: the library's threads)
    #[arg(long, value_enum)]
    pub event_loop: Option<EventLoop>,
    /// Processors to use, one thread each, such as 0-3,8 (default: all)
    #[arg(long, value_name = "LIST")]
    pub cpus: Option<ProcessorList>,
    /// Bind each thread to its processor
    #[arg(long)]
    pub affinitize: bool,
    /// Let threads begin anywhere
    #[arg(long)]
    pub no_ideal_proc: bool,
    /// Let threads come before those of other programs
    #[arg(long)]
    pub high_priority: bool,
    /// Give up all capabilities once the datapath is open
    #[arg(long)]
    pub drop_capabilities: bool,
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
    #[arg(long, value_name = "TIME", value_parser = ranges::time_within(Duration::ZERO, Duration::from_secs(1)))]
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
    /// Group of the key exchange (default: all, x25519mlkem768 preferred)
    #[arg(long, value_enum)]
    pub group: Option<Group>,
    /// Largest UDP payload to send, if the path carries it
    #[arg(long, value_name = "BYTES", default_value_t = 1472, value_parser = clap::value_parser!(u16).range(1200..=65527))]
    pub max_datagram_size: u16,
    /// Mark packets for explicit congestion notification
    #[arg(long)]
    pub ecn: bool,
    /// Update keys each time that so many bytes were sent (default: never in any run that ends)
    #[arg(long, value_name = "SIZE", value_parser = ranges::size(1, Settings::default().max_bytes_per_key))]
    pub key_update_after: Option<ByteSize>,
    /// Say something after this much silence: a client that only receives needs it to outlive a NAT that forgets (default: never)
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = ranges::time_within(Duration::ZERO, Duration::from_secs(3600)))]
    pub keep_alive: Duration,
    /// A peer that acknowledges nothing for so long has gone
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = ranges::time_within(Duration::from_millis(1), Duration::from_secs(600)))]
    pub disconnect_timeout: Duration,
    /// QUIC versions, most preferred first: of a client that offers them, of a server that accepts them (default: all, and the client decides)
    #[arg(long, value_enum, value_delimiter = ',', value_name = "LIST")]
    pub versions: Option<Vec<QuicVersion>>,
    /// Bytes that a stream has under way at most
    #[arg(long, value_name = "SIZE", default_value = "1MiB", value_parser = ranges::size(1, 1 << 30))]
    pub posted: ByteSize,
    /// Bytes in one send call
    #[arg(long, value_name = "SIZE", default_value = "64KiB", value_parser = ranges::size(1, 256 << 20))]
    pub io_size: ByteSize,
    /// Check every byte that arrives
    #[arg(long)]
    pub verify: bool,
    /// Print figures as one line of JSON
    #[arg(long)]
    pub json: bool,
    /// Answer requests of other commands (capture, sources) at a UNIX socket of this name
    #[arg(long, value_name = "PATH")]
    pub control: Option<PathBuf>,
    #[command(flatten)]
    pub capture: CaptureFromStartArgs,
    #[command(flatten)]
    pub sources: SourceArgs,
}

impl EndpointArgs {
    /// What is given here, over variables, over the file, over the defaults.
    fn execution(&self) -> Result<ExecutionConfig, SetupError> {
        let mut execution = ExecutionConfig::load(self.config.as_deref())?;
        set(&mut execution.mode, self.mode.map(Mode::mode));
        set(
            &mut execution.processors,
            self.cpus.clone().map(|list| Some(list.0)),
        );
        set(&mut execution.polling_idle_timeout, self.poll_idle);
        for (given, flag) in [
            (self.affinitize, ExecutionFlags::AFFINITIZE),
            (self.no_ideal_proc, ExecutionFlags::NO_IDEAL_PROC),
            (self.high_priority, ExecutionFlags::HIGH_PRIORITY),
            (self.xdp, ExecutionFlags::XDP),
        ] {
            execution.flags.set(flag, given || execution.flags.contains(flag));
        }
        execution.drop_capabilities |= self.drop_capabilities;
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
        set(&mut af_xdp.source_rules, self.sources.rules());
        Ok(execution)
    }

    /// Opens a registration, with the threads that poll it if they are not its own.
    pub(crate) fn open(&self) -> Result<(Registration, Vec<JoinHandle<()>>)> {
        self.check()?;
        let execution = self.execution()?;
        let opened = match self.event_loop {
            Some(event_loop) => {
                // The library leaves to applications where their loops run.
                if let Some(processors) = &execution.processors {
                    processors::check(processors).with_context(|| self.origin("processors"))?;
                }
                event_loop.open("ringway", &execution)
            }
            None => Registration::open("ringway", &execution).map(|registration| (registration, Vec::new())),
        };
        opened.map_err(|error| self.explain(error))
    }

    /// Opens a registration whose contexts the caller polls.
    pub(crate) fn open_without_threads(&self) -> Result<(Registration, Vec<Execution>)> {
        self.check()?;
        let execution = self.execution()?;
        let execution = ExecutionConfig {
            // Those who poll them give theirs up by themselves, and run where they like.
            drop_capabilities: false,
            flags: execution.flags & ExecutionFlags::XDP,
            ..execution
        };
        let contexts = ContextConfig::for_each_thread(&execution);
        let opened = contexts.and_then(|contexts| Execution::create(&execution, contexts));
        opened.map_err(|error| self.explain(error))
    }

    fn explain(&self, error: SetupError) -> anyhow::Error {
        match error {
            SetupError::InvalidValue { key, problem } => anyhow!("{}: {problem}", self.origin(key)),
            error => error.into(),
        }
    }

    /// All threads give up their capabilities.
    pub(crate) fn drops_capabilities(&self) -> Result<bool> {
        Ok(self.execution()?.drop_capabilities)
    }

    /// The calling thread gives up its capabilities, if all do. Ports are bound before.
    pub(crate) fn drop_capabilities(&self) -> Result<()> {
        if self.drops_capabilities()? {
            ringway::drop_capabilities().context("giving up capabilities")?;
        }
        Ok(())
    }

    /// Does this on a thread that gives up its capabilities before, if all do: threads that it starts have none from their beginning.
    fn without_capabilities<T: Send>(&self, act: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        let act = || {
            self.drop_capabilities()?;
            act()
        };
        let acted = std::thread::scope(|scope| scope.spawn(act).join());
        acted.map_err(|_| anyhow!("a thread has ended with a panic"))?
    }

    /// The control socket, if there is to be one. Those who answer at it have no capabilities, if all give them up.
    pub(crate) fn control(&self, registration: &Registration) -> Result<Option<ControlSocket>> {
        let Some(path) = &self.control else {
            return Ok(None);
        };
        let listener = ControlListener::bind(path)?;
        self.without_capabilities(|| listener.serve(registration).map(Some))
    }

    /// Begins the capture, if there is to be one. What writes it has no capabilities, if all give them up.
    pub(crate) fn capture(&self, registration: &Registration) -> Result<Option<Capture>> {
        let Some(file) = self.capture.create()? else {
            return Ok(None);
        };
        self.without_capabilities(|| self.capture.begin(file, registration).map(Some))
    }

    /// What options contradict each other.
    fn check(&self) -> Result<()> {
        let pieces = self.posted.as_u64().div_ceil(self.io_size.as_u64());
        ensure!(
            pieces <= PIECES_MAX,
            "--posted {} in pieces of --io-size {}: {pieces} sends under way are more than {PIECES_MAX}",
            self.posted,
            self.io_size
        );
        Ok(())
    }

    /// How a value of the execution configuration was given: the option here, the variable, or the key of the file.
    fn origin(&self, key: &str) -> String {
        let given = match key {
            "processors" if self.cpus.is_some() => vec!["--cpus"],
            "datapath.receive_buffers" if self.receive_buffers.is_some() => vec!["--receive-buffers"],
            "datapath.busy_poll" if self.busy_poll.is_some() => vec!["--busy-poll"],
            "datapath.af_xdp.queues" if self.queues.is_some() => vec!["--queues"],
            "datapath.af_xdp.source_rules" if self.sources.rules().is_some() => {
                vec!["--accept-source", "--pass-source", "--drop-source"]
            }
            "flags" => [
                (self.affinitize, "--affinitize"),
                (self.no_ideal_proc, "--no-ideal-proc"),
                (self.high_priority, "--high-priority"),
                (self.xdp, "--xdp"),
            ]
            .into_iter()
            .filter_map(|(given, name)| given.then_some(name))
            .collect(),
            _ => Vec::new(),
        };
        if given.is_empty() {
            return ExecutionConfig::origin(key, self.config.as_deref());
        }
        given.join(", ")
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
            accepted_versions: self.versions(),
            ecn_enabled: self.ecn,
            keep_alive_interval: self.keep_alive,
            max_bytes_per_key: self
                .key_update_after
                .map_or(Settings::default().max_bytes_per_key, |bytes| bytes.as_u64()),
            stream_receive_window: 8 << 20,
            connection_flow_control_window: 128 << 20,
            peer_bidi_stream_count: 10_000,
            disconnect_timeout: self.disconnect_timeout,
            ..Settings::default()
        }
    }

    pub(crate) fn versions(&self) -> Option<Vec<Version>> {
        let versions = self.versions.as_ref()?;
        Some(versions.iter().map(|version| version.version()).collect())
    }

    pub(crate) fn cipher_suites(&self) -> Vec<CipherSuite> {
        match self.cipher {
            None => CipherSuite::ALL.to_vec(),
            Some(Cipher::Aes128) => vec![CipherSuite::Aes128Gcm],
            Some(Cipher::Aes256) => vec![CipherSuite::Aes256Gcm],
            Some(Cipher::Chacha20) => vec![CipherSuite::ChaCha20Poly1305],
        }
    }

    pub(crate) fn key_exchange_groups(&self) -> Vec<KeyExchangeGroup> {
        match self.group {
            None => KeyExchangeGroup::ALL.to_vec(),
            Some(Group::X25519Mlkem768) => vec![KeyExchangeGroup::X25519MlKem768],
            Some(Group::X25519) => vec![KeyExchangeGroup::X25519],
            Some(Group::Secp256r1) => vec![KeyExchangeGroup::Secp256r1],
            Some(Group::Secp384r1) => vec![KeyExchangeGroup::Secp384r1],
        }
    }
}

/// Sends of one stream that may be under way: each is an entry in a queue.
const PIECES_MAX: u64 = 1 << 20;

/// Takes what is given.
fn set<T>(place: &mut T, given: Option<T>) {
    if let Some(given) = given {
        *place = given;
    }
}

/// QUIC version.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum QuicVersion {
    /// RFC 9000
    V1,
    /// RFC 9369
    V2,
}

impl QuicVersion {
    pub(crate) fn version(self) -> Version {
        match self {
            QuicVersion::V1 => Version::V1,
            QuicVersion::V2 => Version::V2,
        }
    }

    pub(crate) fn of(version: Version) -> Self {
        match version {
            Version::V1 => QuicVersion::V1,
            Version::V2 => QuicVersion::V2,
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

/// Group of the key exchange.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
#[value(rename_all = "lowercase")]
pub(crate) enum Group {
    /// X25519 and ML-KEM-768 together
    X25519Mlkem768,
    /// X25519 alone
    X25519,
    /// P-256
    Secp256r1,
    /// P-384
    Secp384r1,
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

impl XdpCopy {
    fn copy(self) -> CopyMode {
        match self {
            XdpCopy::Auto => CopyMode::Auto,
            XdpCopy::Copy => CopyMode::Copy,
            XdpCopy::ZeroCopy => CopyMode::ZeroCopy,
        }
    }
}
