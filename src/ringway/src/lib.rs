//! Ringway: QUIC for Linux servers, with MsQuic's execution model.
//!
//! Each processor has a partition of its own: a datapath (AF_XDP, io_uring or plain UDP sockets), a worker that runs
//! connections, and the memory of both. Applications implement handlers, which the workers call with events; there is no
//! async runtime. The objects are MsQuic's: a [`Registration`] owns the threads, a [`Configuration`] the settings and
//! certificates, a [`Listener`] accepts connections, and a [`Connection`] carries [`Stream`]s and datagrams.
//!
//! # A server
//!
//! It sends back whatever it receives:
//!
//! ```
//! use ringway::*;
//!
//! # fn certificate() -> Result<ServerCredentials, Box<dyn std::error::Error>> {
//! #     let made = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
//! #     let key = pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der())?;
//! #     Ok(ServerCredentials::new(vec![made.cert.der().clone()], key))
//! # }
//! # #[allow(unreachable_code, reason = "a test does not serve for ever")]
//! fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let registration = Registration::open("echo", &ExecutionConfig::default())?;
//!     let settings = Settings { peer_bidi_stream_count: 100, ..Settings::default() };
//!     let configuration = Configuration::server(&[b"echo"], settings, certificate()?)?;
//!     let options = ListenerOptions::new("127.0.0.1:0".parse()?, &[b"echo"]);
//!     let _listener = Listener::start(&registration, options, move |event| {
//!         if let ListenerEvent::NewConnection(incoming) = event {
//!             incoming.accept(&configuration, on_connection_event);
//!         }
//!     })?;
//! #   return Ok(registration.close());
//!     loop { std::thread::park() }
//! }
//!
//! fn on_connection_event(_: &Connection, event: ConnectionEvent<'_>) -> EventStatus {
//!     if let ConnectionEvent::PeerStreamStarted(stream) = event {
//!         stream.accept(on_stream_event);
//!     }
//!     EventStatus::Done
//! }
//!
//! fn on_stream_event(stream: &Stream, event: StreamEvent<'_>) -> EventStatus {
//!     if let StreamEvent::Receive(data) = event {
//!         // `Err` if the stream has ended meanwhile: its last event follows.
//!         let _ = stream.send(data.to_vec().into(), 0, data.fin());
//!     }
//!     EventStatus::Done
//! }
//! ```
//!
//! # Threads
//!
//! 1. Events of a connection and its streams come one at a time, on the worker thread of its partition; never one within another.
//! 2. A call inside a handler of the same connection, or [within it](Connection::enter), takes effect at once; any other is queued, without a lock,
//!    in the caller's order.
//! 3. Calls never block. Handlers must not block either: all connections of the partition wait for them.
//! 4. Received data is valid during its event, or [kept](ReceivedData::keep). Data to send is not copied: it is held until `SendComplete`.
//! 5. What was opened ends when its last handle is dropped, unless it is detached; what was accepted lives on without handles.
//! 6. Every connection, and every stream that was opened or accepted, ends with exactly one `ShutdownComplete`. Calls then return `Closed`.
//!
//! # Manuals
//!
//! - [`manual::execution`]: threads, modes, polling, configuration, event loops of the application, where connections live.
//! - [`manual::calls`]: what a call answers at once, and what events say later.
//! - [`manual::settings`]: levels of settings, what can be changed when, counters, what listeners do with clients, keys of a fleet.
//! - [`manual::tls`]: certificates and names, an application's own rustls, who is trusted and when, what TLS tells.
//! - [`manual::under_attack`]: what strangers and peers can make a server send, hold and refuse, and the settings for it.
//! - [`manual::resumption`]: connections that go on from earlier ones, and data in the first packet (0-RTT).
//! - [`manual::msquic`]: MsQuic's names and ours.
//! - [`manual::operating`]: for whoever runs it: privileges, what passes the kernel, filters, captures, what else is on an interface, sockets of
//!   the application, what log and counters say.
//! - [`manual::datapath`]: how packets travel, how to set up a NIC and a service, what to check when it does not work.
//! - [`manual::cloud`]: a virtual machine in a cloud, step by step.
//!
//! # Features
//!
//! - `af_xdp`: the AF_XDP datapath, and threads placed by the NIC's queues. Building it needs clang, libelf and hwloc; everything else
//!   builds with a C compiler alone.
//! - `fused_aes_gcm` (default): our own one-pass AES-GCM, on processors with AES-NI and AVX, better VAES, or AES of ARMv8. aws-lc does
//!   the rest, and all where it is its FIPS module (`RUSTFLAGS='--cfg ringway_fips'`, or the feature `fips` of rustls).
//! - `sim`: a simulated network in virtual time, for tests of applications (`ringway::sim`).
#![forbid(unsafe_code)]

mod api;
#[cfg(feature = "sim")]
pub mod sim;
#[cfg(all(test, feature = "sim"))]
mod tests;
mod worker;

pub use bytes::Bytes;
pub use ipnet;
pub use ringway_datapath::capture::{CaptureOptions, CaptureStats};
pub use ringway_datapath::clock::Clock;
pub use ringway_datapath::config::{AfXdpConfig, AttachMode, Backend, CopyMode, DatapathConfig, Steering};
pub use ringway_datapath::contract::{Capabilities, DeviceStats};
pub use ringway_datapath::event::{ApplicationQueue, Completion, CompletionHandlers};
pub use ringway_datapath::source_rules::{SOURCE_RULES_MAX, SourceAction, SourceRule, SourceRuleStats};
pub use ringway_datapath::thread::drop_capabilities;
pub use ringway_datapath::uring::leaked_packet_memory;
pub use ringway_engine::congestion::Algorithm as CongestionControl;
pub use ringway_engine::connection::close::{CloseReason, ClosedBy};
pub use ringway_engine::connection::drops::{DropCounts, DropReason};
pub use ringway_engine::connection::resumption::ResumptionAnswer;
pub use ringway_engine::connection::stats::{ConnectionStats, QueueDelay, StreamStats, ZeroRtt};
pub use ringway_engine::crypto::suite::CipherSuite;
pub use ringway_engine::crypto::tickets::{
    ReplayProtection, ResumptionLevel, StrikeRegister, TicketBytes, TicketKey, TicketKeys, TicketUse,
};
pub use ringway_engine::crypto::tls::{
    CertificateReceived, ClientAuthentication, ClientCredentials, DeferredClientVerifier,
    DeferredServerVerifier, Ech, EchOutcome, EchRejected, ExportError, Identity, KeyExchangeGroup,
    ServerCredentials, TicketImportError, TlsConfigError, TlsInfo, UnusableRoot, UnusableRoots,
    key_log_callback,
};
pub use ringway_engine::datagrams::DatagramSendState;
pub use ringway_engine::streams::Scheduling as StreamScheduling;
pub use ringway_engine::wire::Version;
pub use ringway_engine::wire::cid::ConnectionId;
pub use ringway_engine::wire::error::{ERROR_CODE_MAX, TransportError, TransportErrorCode};
pub use ringway_types::Instant;
pub use rustls;
pub use rustls::pki_types;
pub use {bytes, io_uring};

pub use self::api::*;
pub use self::worker::context::Wait;
pub use self::worker::events::{
    ConnectionEvent, ConnectionHandler, EventStatus, Incoming, IncomingStream, ListenerEvent,
    ListenerHandler, StartError, StreamEvent, StreamHandler,
};
pub use self::worker::handles::{Connection, Stream};
pub use self::worker::limits::Limits;
pub use self::worker::listener::{ListenerStats, RetryPolicy};
pub use self::worker::received::{KeptData, ReceivedData, ReceivedDatagram};
pub use self::worker::stats::WorkerStats;
pub use self::worker::ticket_store::{MemoryTicketStore, ResumptionTicket, TicketScope, TicketStore};
pub use self::worker::wake_ups::wake_after_turn;

/// The manuals.
pub mod manual {
    #[doc = include_str!("manual/calls.md")]
    pub mod calls {}

    #[doc = include_str!("manual/cloud.md")]
    pub mod cloud {}

    #[doc = include_str!("manual/datapath.md")]
    pub mod datapath {}

    #[doc = include_str!("manual/execution.md")]
    pub mod execution {}

    #[doc = include_str!("manual/tls.md")]
    pub mod tls {}

    #[doc = include_str!("manual/operating.md")]
    pub mod operating {}

    #[doc = include_str!("manual/resumption.md")]
    pub mod resumption {}

    #[doc = include_str!("manual/settings.md")]
    pub mod settings {}

    #[doc = include_str!("manual/msquic.md")]
    pub mod msquic {}

    #[doc = include_str!("manual/under_attack.md")]
    pub mod under_attack {}
}
