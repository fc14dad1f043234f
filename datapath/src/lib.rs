//! The datapath of Ringway: packets in and out.
//!
//! | part | what it is |
//! |---|---|
//! | `af_xdp` | frames from the queues of a NIC, past the kernel's network stack (feature `af_xdp`) |
//! | [`config`] | what devices take, and which of them is made |
//! | [`device`] | the contract that every backend fulfils, and [`device::Capabilities`] |
//! | [`socket`] | kernel UDP sockets with GSO, GRO, ECN and packet info, on epoll |
//! | [`io_uring`] | the same sockets through a ring: one system call a turn, however many sockets |
//! | `sim` | a seeded virtual network in virtual time, for tests (feature `sim`) |
//! | [`port`] | endpoints on their way to a device |
//! | `floor` | the least that moving datagrams costs, to compare devices with (feature `floor`) |
//! | [`event`] | the queue a context sleeps on, and how other threads wake it |
//! | [`meta`] | what travels beside a datagram; where a connection ID names its partition |
//! | [`thread`] | processors this process may use, pinning and naming of threads |
//! | [`clock`] | the machine's monotonic clock |
//! | [`topology`] | processors, NUMA nodes, NIC queues, and a plan that follows them |
//!
//! The crate knows nothing of QUIC beyond where the partition index sits in a connection ID. `unsafe` stands in
//! the files named `sys.rs` only.

#[cfg(feature = "af_xdp")]
pub mod af_xdp;
#[cfg(feature = "af_xdp")]
mod cache;
mod chunk;
pub mod clock;
pub mod config;
pub mod contract;
pub mod device;
pub mod event;
#[cfg(feature = "floor")]
pub mod floor;
pub mod io_uring;
pub mod local;
pub mod meta;
pub mod open;
pub mod port;
#[cfg(feature = "sim")]
pub mod sim;
pub mod socket;
pub mod split;
pub mod thread;
pub mod topology;
pub mod udp;
#[cfg(feature = "af_xdp")]
mod umem;
