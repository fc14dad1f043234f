//! The QUIC protocol engine of Ringway: no I/O, no clock, no threads.
#![deny(unsafe_code)]
#![cfg_attr(not(feature = "fused_aes_gcm"), forbid(unsafe_code))]

pub mod base;
pub mod congestion;
pub mod connection;
pub mod crypto;
pub mod datagrams;
pub mod path;
pub mod recovery;
pub mod streams;
pub mod wire;
