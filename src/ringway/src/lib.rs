//! Ringway: QUIC for Linux servers.
#![forbid(unsafe_code)]

mod api;
#[cfg(feature = "sim")]
pub mod sim;
mod worker;

pub use bytes::Bytes;
pub use ringway_datapath::clock::Clock;
pub use ringway_datapath::config::{AfXdpConfig, Attach, Backend, CopyMode, DatapathConfig, Steering};
pub use ringway_datapath::contract::{Capabilities, DeviceStats};
pub use ringway_datapath::event::{ApplicationQueue, Completion, Completions};
pub use ringway_engine::congestion::Algorithm as CongestionControl;
pub use ringway_engine::connection::close::CloseReason;
pub use ringway_engine::connection::drops::{DropCounts, DropReason};
pub use ringway_engine::connection::stats::ConnectionStats;
pub use ringway_engine::crypto::suite::CipherSuite;
pub use ringway_engine::datagrams::DatagramSendState;
pub use ringway_engine::streams::Scheduling as StreamScheduling;
pub use ringway_engine::wire::Version;
pub use ringway_engine::wire::error::{TransportError, TransportErrorCode};
pub use ringway_types::Instant;
pub use rustls::pki_types;

pub use self::api::*;
pub use self::worker::context::{ExecutionContext, Wait};
pub use self::worker::events::{
    ConnectionEvent, ConnectionHandler, EventStatus, Incoming, IncomingStream, ListenerEvent,
    ListenerHandler, ReceivedData, StartError, StreamEvent, StreamHandler,
};
pub use self::worker::handles::{Connection, Stream};
pub use self::worker::listener::RetryPolicy;
pub use self::worker::stats::WorkerStats;

/// Manuals: how it works beneath, and how to run it.
pub mod manual {
    #[doc = include_str!("manual/datapath.md")]
    pub mod datapath {}

    #[doc = include_str!("manual/execution.md")]
    pub mod execution {}
}

/// The example of the README is compiled and run.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct Readme;
