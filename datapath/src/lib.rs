//! The datapath of Ringway: datagrams in and out of a partition, past the kernel's network stack or through it.
//!
//! A [`Device`](device::Device) receives and sends for one partition. It is on the thread of its worker, or [`split`] off to a thread of its
//! own. [`open::open_devices`] chooses the fastest kind that the system allows, and says why it is not a faster one.
//!
//! | part | what it is |
//! |---|---|
//! | [`open`] | which devices are made, and why not others |
//! | [`device`] | the device of a worker: local or split, in one enum |
//! | [`split`] | a device on one thread and its worker on another, with rings of chunks between them |
//! | [`local`] | a device of this thread: the enum of the backends, matched once per call |
//! | `af_xdp` | backend: frames from the queues of a NIC, past the kernel's network stack (feature `af_xdp`) |
//! | [`io_uring`] | backend: kernel UDP sockets through a ring, one system call a turn for all of them |
//! | [`socket`] | backend: kernel UDP sockets by system calls, on epoll; works everywhere |
//! | `sim` | backend: a seeded virtual network in virtual time, for tests (feature `sim`) |
//! | [`port`] | bound endpoints on their way to a device |
//! | [`udp`] | what backends on kernel sockets share: binding, steering, GSO, GRO, ECN, packet info |
//! | [`contract`] | what every device does, hands up and counts; [`Capabilities`](contract::Capabilities) |
//! | `chunk`, `umem` | packet memory: of the heap, and shared with a NIC's queue |
//! | [`lent`] | packet memory that the application holds on to |
//! | [`uring`] | a ring of io_uring that owns the memory of its requests |
//! | [`event`] | the queue that a context sleeps on, and how other threads wake it |
//! | [`topology`], [`plan`] | what this machine has, and which processor serves which queue (reading processors: feature `topology`) |
//! | [`config`], [`partition`], [`meta`] | plain data: settings, partitions in connection IDs, what travels beside a datagram |
//! | [`capture`] | what devices receive and send, in a pcapng file |
//! | [`source_rules`] | rules for where datagrams come from, which the XDP program applies |
//! | [`heap`] | memory that was freed, given back to the system |
//! | [`thread`], [`clock`] | affinity and NUMA policy of threads; the monotonic clock |
//! | `floor` | the least that moving datagrams costs, to compare devices with (feature `floor`) |
//!
//! Imports go one way:
//!
//! ```text
//! open → device → split → local → { port, af_xdp, io_uring, socket, sim } → udp → contract → chunk → lent → umem
//!                         plan → topology          any of them → { config, source_rules, event, meta, partition, thread, cpu }
//! ```
//!
//! The crate knows nothing of QUIC beyond where the partition index sits in a connection ID. `unsafe` stands in files named `sys.rs` only.

#[cfg(feature = "af_xdp")]
pub mod af_xdp;
pub mod capture;
mod chunk;
pub mod clock;
pub mod config;
pub mod contract;
#[cfg(feature = "af_xdp")]
mod cpu;
pub mod device;
pub mod event;
#[cfg(feature = "floor")]
pub mod floor;
mod headers;
pub mod heap;
pub mod io_uring;
pub mod lent;
pub mod local;
pub mod meta;
pub mod open;
pub mod partition;
pub mod plan;
pub mod port;
pub mod prefetch;
pub mod refusals;
#[cfg(feature = "sim")]
pub mod sim;
pub mod socket;
pub mod source_rules;
pub mod split;
pub mod thread;
pub mod topology;
pub mod udp;
#[cfg(feature = "af_xdp")]
mod umem;
pub mod uring;
