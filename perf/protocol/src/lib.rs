//! QUIC-PERF (draft-banks-quic-performance) as `ringperf` and the programs of the other stacks speak it: any client can ask any server, and
//! one program can drive all of them.
//!
//! The ALPN is `perf`. The first eight bytes of each stream that a client opens are the length of the response that it wants, big-endian;
//! the end of the stream starts the response. The byte at offset `o` of a response, or of a request behind its first eight bytes, is
//! `o mod 251`, so that either end can check what arrives.

mod figures;
mod pattern;
mod request;
mod scenario;

pub use self::figures::{ClientFigures, Latency, RunTimes, cpu_s_per_gb};
pub use self::pattern::{IO_SIZE, Pattern};
pub use self::request::{ENDLESS, HEADER_LEN, RequestHeader, request};
pub use self::scenario::Scenario;

/// The application protocol.
pub const ALPN: &[u8] = b"perf";
