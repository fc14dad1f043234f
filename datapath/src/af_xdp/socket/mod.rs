//! The AF_XDP socket of a queue, and what only the kernel can do.

mod sys;

use std::io;
use std::os::fd::BorrowedFd;

pub(super) use self::sys::XskSocket;

/// The kernel behind the rings of a queue: the socket, or a mock of it in tests.
pub(super) trait Kernel {
    /// Makes it send what is on the transmit ring, or some of it.
    fn send(&self) -> io::Result<()>;

    /// Makes it look at the fill ring.
    fn receive(&self) -> io::Result<()>;

    /// What it has counted.
    fn counts(&self) -> io::Result<Counts>;

    /// Polls the NIC when it is asked for frames, for so many microseconds at most, rather than be interrupted by it.
    fn prefer_busy_poll(&self, micros: i32, budget: i32) -> io::Result<()>;

    /// For an event queue, and the map of the XDP program.
    fn descriptor(&self) -> BorrowedFd<'_>;
}

/// What the kernel counts for a socket.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Counts {
    pub(super) dropped: u64,
    pub(super) invalid_descriptors: u64,
    pub(super) ring_full: u64,
    pub(super) fill_ring_empty: u64,
}

/// Whether the NIC reads and writes our memory itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum BindMode {
    /// The kernel copies.
    Copy,
    /// It does.
    ZeroCopy,
}

/// To what a socket is bound.
#[derive(Clone, Copy, Debug)]
pub(super) struct Binding {
    pub(super) interface: u32,
    pub(super) queue: u32,
    pub(super) mode: BindMode,
    /// A packet may lie in several chunks (Linux 6.6).
    pub(super) multi_buffer: bool,
}
