//! What is asked of the kernel, by words of our own.

use std::io;
use std::os::fd::BorrowedFd;

/// The kernel behind the rings of a queue: the socket, or a mock of it in tests.
pub(in crate::af_xdp) trait Kernel {
    /// Makes it send what is on the transmit ring, or some of it.
    fn send(&self) -> io::Result<()>;

    /// The interface that it was bound to is gone, and the kernel is done with that: it reads and writes nothing of our memory any more.
    fn is_unbound(&self) -> bool;

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
pub(in crate::af_xdp) struct Counts {
    pub(in crate::af_xdp) dropped: u64,
    pub(in crate::af_xdp) invalid_descriptors: u64,
    pub(in crate::af_xdp) ring_full: u64,
    pub(in crate::af_xdp) fill_ring_empty: u64,
}

impl std::ops::AddAssign for Counts {
    fn add_assign(&mut self, other: Counts) {
        self.dropped += other.dropped;
        self.invalid_descriptors += other.invalid_descriptors;
        self.ring_full += other.ring_full;
        self.fill_ring_empty += other.fill_ring_empty;
    }
}

/// Whether the NIC reads and writes our memory itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::af_xdp) enum BindMode {
    /// The kernel copies.
    Copy,
    /// It does.
    ZeroCopy,
}

/// To what a socket is bound.
#[derive(Clone, Copy, Debug)]
pub(in crate::af_xdp) struct Binding {
    pub(in crate::af_xdp) interface: u32,
    pub(in crate::af_xdp) queue: u32,
    pub(in crate::af_xdp) mode: BindMode,
    /// A packet may lie in several chunks (Linux 6.6).
    pub(in crate::af_xdp) multi_buffer: bool,
}
