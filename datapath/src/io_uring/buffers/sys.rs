//! The ring by which buffers are given to the kernel: memory that both read and write.

use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

use ::io_uring::{IoUring, types};

/// Entries in pages of their own, present and zeroed.
pub(super) struct BufferRing {
    start: NonNull<u8>,
    count: u16,
    /// Buffers given to the kernel since the ring was made, modulo 2^16.
    tail: u16,
}

// SAFETY: the mapping belongs to the value alone, and is bound to no thread.
unsafe impl Send for BufferRing {}

impl BufferRing {
    /// Of as many entries, a power of two.
    pub(super) fn new(count: u16) -> io::Result<BufferRing> {
        // SAFETY: a new mapping at an address of the kernel's choice touches no memory of ours.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                mapped_bytes(count),
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | POPULATE,
                -1,
                0,
            )
        };
        match NonNull::new(start.cast::<u8>()) {
            Some(start) if start.as_ptr() != libc::MAP_FAILED.cast() => Ok(BufferRing {
                start,
                count,
                tail: 0,
            }),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Tells the kernel where it lies. Requests are what makes it read there: they own this memory too.
    pub(super) fn register(&self, uring: &IoUring, group: u16) -> io::Result<()> {
        // SAFETY: zeroed memory of its own pages, with `count` entries, which the owner of the requests keeps until they have ended.
        unsafe {
            uring
                .submitter()
                .register_buf_ring_with_flags(self.start.as_ptr() as u64, self.count, group, 0)
        }
    }

    /// Adds a buffer, which the kernel sees after [`BufferRing::publish`].
    pub(super) fn add(&mut self, index: u16, memory: &mut [u8]) {
        let place = usize::from(self.tail & (self.count - 1));
        let entries = self.start.as_ptr().cast::<types::BufRingEntry>();
        // SAFETY: within the mapping, which has an entry for each buffer.
        let entry = unsafe { entries.add(place) };
        // SAFETY: zeroed memory is a valid entry; the kernel does not read entries from the tail on.
        let entry = unsafe { &mut *entry };
        entry.set_addr(memory.as_mut_ptr() as u64);
        entry.set_len(memory.len() as u32);
        entry.set_bid(index);
        self.tail = self.tail.wrapping_add(1);
    }

    /// Shows the kernel what was added.
    pub(super) fn publish(&mut self) {
        // SAFETY: the mapping begins with the first entry of the ring of buffers.
        let tail = unsafe { types::BufRingEntry::tail(self.start.as_ptr().cast()) };
        // SAFETY: the tail is aligned, lives as long as the mapping, and is written by us alone and atomically.
        let tail = unsafe { AtomicU16::from_ptr(tail.cast_mut()) };
        tail.store(self.tail, Ordering::Release);
    }

    #[cfg(test)]
    pub(super) fn added(&self) -> u16 {
        self.tail
    }
}

/// Miri, which has no pages, takes no wish for them to be present.
const POPULATE: libc::c_int = if cfg!(miri) { 0 } else { libc::MAP_POPULATE };

fn mapped_bytes(count: u16) -> usize {
    usize::from(count) * size_of::<types::BufRingEntry>()
}

impl Drop for BufferRing {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, of this length, and nobody uses it any more.
        unsafe { libc::munmap(self.start.as_ptr().cast(), mapped_bytes(self.count)) };
    }
}
