//! Values of options that several commands have.

use clap::ValueEnum;
use ringway::{AttachMode, Backend, ExecutionMode};
use serde::{Deserialize, Serialize};

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

impl Datapath {
    pub(crate) fn backend(self) -> Backend {
        match self {
            Datapath::Auto => Backend::Auto,
            Datapath::AfXdp => Backend::AfXdp,
            Datapath::IoUring => Backend::IoUring,
            Datapath::Socket => Backend::Socket,
        }
    }
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

impl XdpAttach {
    pub(crate) fn attach(self) -> AttachMode {
        match self {
            XdpAttach::Auto => AttachMode::Auto,
            XdpAttach::Native => AttachMode::Native,
            XdpAttach::Generic => AttachMode::Generic,
        }
    }
}

/// The API that server or client is written with.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Api {
    /// Handlers
    #[default]
    Callback,
    /// Futures; each partition in a tokio runtime of one thread, which drives it and runs its tasks
    Async,
    /// Futures; the tasks in one tokio runtime of one thread, beside the library's own threads
    AsyncThreads,
}
