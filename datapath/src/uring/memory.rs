//! What requests point to, and what becomes of it if their end cannot be seen.

use std::sync::atomic::{AtomicU64, Ordering};

/// Memory that requests of a ring point to.
pub(crate) trait RequestMemory {
    /// So much of it is lost if it cannot be freed.
    fn bytes(&self) -> usize;
}

static LEAKED: AtomicU64 = AtomicU64::new(0);

/// Bytes of packet memory that this process has given up rather than free them, since requests of an io_uring that point there could not be
/// seen to end. An error in the log tells of each time. It stays 0 where devices are dropped on the thread that used them.
pub fn leaked_packet_memory() -> u64 {
    LEAKED.load(Ordering::Relaxed)
}

pub(super) fn leak<M: RequestMemory>(memory: M, in_flight: usize) {
    let bytes = memory.bytes();
    std::mem::forget(memory);
    LEAKED.fetch_add(bytes as u64, Ordering::Relaxed);
    tracing::error!(
        bytes,
        in_flight,
        "io_uring: requests could not be seen to end, so their memory is not freed: drop a device on the thread that used it"
    );
}
