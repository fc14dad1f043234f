//! Ringway: QUIC for Linux servers.
#![deny(unsafe_code)]
#![cfg_attr(not(feature = "fused_aes_gcm"), forbid(unsafe_code))]

/// The engine's own modules, for fuzz targets, benchmarks and the simulation tests. No part of the API: anything
/// here may change without notice.
macro_rules! internal {
    ($($name:ident),* $(,)?) => {
        $(
            #[cfg(feature = "internals")]
            #[doc(hidden)]
            pub mod $name;
            #[cfg(not(feature = "internals"))]
            mod $name;
        )*
    };
}

internal!(
    base, wire, crypto, recovery, congestion, streams, datagrams, path, connection, worker
);

mod api;

pub use bytes::Bytes;
pub use ringway_datapath::config::{AfXdpConfig, Attach, Backend, CopyMode, DatapathConfig, Steering};
pub use ringway_datapath::device::{Capabilities, DeviceStats};
pub use ringway_datapath::event::{ApplicationQueue, Completion, Completions};
pub use ringway_datapath::time::{Clock, Instant};
pub use rustls::pki_types;

pub use self::api::*;
pub use self::congestion::Algorithm as CongestionControl;
pub use self::connection::close::CloseReason;
pub use self::connection::drops::{DropCounts, DropReason};
pub use self::connection::stats::ConnectionStats;
pub use self::crypto::suite::CipherSuite;
pub use self::datagrams::DatagramSendState;
pub use self::streams::Scheduling as StreamScheduling;
pub use self::wire::Version;
pub use self::wire::error::{TransportError, TransportErrorCode};
pub use self::worker::context::{ExecutionContext, Wait};
pub use self::worker::events::{
    Answer, ConnectionEvent, ConnectionHandler, ListenerEvent, ListenerHandler, Receive, StartError,
    StreamEvent, StreamHandler,
};
pub use self::worker::listener::RetryPolicy;
pub use self::worker::shared::{Connection, Incoming, IncomingStream, Stream};
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
#[doc = include_str!("../README.md")]
struct Readme;
