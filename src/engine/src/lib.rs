//! The QUIC protocol engine of Ringway: no I/O, no clock, no threads.
//!
//! It is a package of its own, as `quinn-proto` and `neqo-transport` are: whoever has sockets, a simulated network or a test of their own drives
//! connections with it. `ringway` does so with workers over AF_XDP, io_uring and sockets; most applications want that package.
//!
//! # Four doors
//!
//! A [`Connection`] is a state machine. It is passed datagrams and the time, never asks for either, and is worked through four doors:
//!
//! | door | call |
//! |---|---|
//! | datagrams in | [`Connection::receive`], then [`Connection::receive_next`] until it returns `None` |
//! | timeout in | [`Connection::on_timeout`] |
//! | datagrams out | [`Connection::transmit`] until it returns `None` |
//! | next deadline | [`Connection::deadline`] |
//!
//! The application's own calls are those of the connection (`close`, `send_datagram`, …) and of its [`Streams`](streams::Streams).
//!
//! # What the caller does
//!
//! - It hands in a monotonic [`Instant`] with each call, and it reads its clock only once for many calls if it likes.
//! - After each of its calls it takes the events, of [the connection](connection::Connection::next_event) and of
//!   [the streams](streams::Streams::next_event), delivers [data that became ready](streams::Streams::next_readable), sends what there is to
//!   send, and sets its timer to the deadline.
//! - Stream data in order comes out of `receive_next` as a slice of the decrypted packet. The caller reports how much of it was consumed by
//!   [`on_stream_delivered`](connection::Connection::on_stream_delivered); the engine buffers the rest.
//! - It issues connection IDs, of [`LOCAL_CID_LEN`] bytes, and routes datagrams by them:
//!   [`has_cid_changes`](connection::Connection::has_cid_changes) says when to look after them. [`wire::header`] finds the ID of a datagram.
//! - A server makes a connection of a client's first Initial ([`ServerStart`](connection::ServerStart)) and accepts it once the ClientHello is
//!   complete. Version negotiation, Retry and stateless resets are sent without a connection: [`wire::stateless`], [`crypto::token`],
//!   [`crypto::retry`], [`crypto::reset`]. A connection goes over to another version by itself when it is accepted, as its
//!   [`Config`](connection::config::Config) says; tokens go with the version that [`version`](connection::Connection::version) tells then.
//! - Seeds ([`connection::seed`]) and connection IDs must be unpredictable.
//!
//! `examples/in_memory.rs` does all this in one file: `cargo run -p ringway-engine --example in_memory`.
//!
//! # What is promised
//!
//! What these pages show. Items that are public and hidden here (frames, transport parameters, TLS sessions, connections without protection) are
//! for fuzzers, benchmarks and simulations, and may change at any time.
//!
//! # Features
//!
//! - `fused_aes_gcm` (default): AES-GCM of our own, where the processor has AES-NI and AVX, better VAES, or AES of ARMv8. Without it the package has
//!   no `unsafe` code. It is not used where aws-lc is its FIPS module.
//! - `null-crypto`: a packet protection that protects nothing, for benchmarks and fuzzers. Never switch it on in a product.
//!
//! [`Connection`]: connection::Connection
//! [`Connection::receive`]: connection::Connection::receive
//! [`Connection::receive_next`]: connection::Connection::receive_next
//! [`Connection::on_timeout`]: connection::Connection::on_timeout
//! [`Connection::transmit`]: connection::Connection::transmit
//! [`Connection::deadline`]: connection::Connection::deadline
#![deny(unsafe_code)]
#![cfg_attr(not(feature = "fused_aes_gcm"), forbid(unsafe_code))]

#[doc(hidden)]
pub mod base;
pub mod congestion;
pub mod connection;
pub mod crypto;
pub mod datagrams;
mod path;
mod recovery;
pub mod streams;
pub mod wire;

pub use ringway_types::{Ecn, Instant, LOCAL_CID_LEN, PortId};
