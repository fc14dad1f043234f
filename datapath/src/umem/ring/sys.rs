//! Entries in memory that two sides share.
//!
//! Invariant that the `unsafe` blocks rest on: an entry is touched by the producer while it is free, and by the consumer from the release of the
//! producer's index to that of its own. The pointers point into memory that the ring keeps alive. The other side may be wrong: its index is
//! trusted for no more entries than there are.

use std::any::Any;
use std::cell::UnsafeCell;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// `struct xdp_desc`.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Descriptor {
    pub(crate) address: u64,
    pub(crate) len: u32,
    pub(crate) options: u32,
}

/// Where the parts of a ring are. Each side has one.
struct RingMemory<T> {
    producer: NonNull<AtomicU32>,
    consumer: NonNull<AtomicU32>,
    flags: NonNull<AtomicU32>,
    entries: NonNull<T>,
    /// Entries, a power of two.
    size: u32,
    /// The memory that they are in.
    _memory: Arc<dyn Any + Send + Sync>,
}

// SAFETY: the memory is bound to no thread, nor is what lies in it; indices and flags are atomics.
unsafe impl<T: Send> Send for RingMemory<T> {}

/// Both sides of a ring. `offsets`: bytes from `start` to the producer's index, the consumer's, the flags, and the entries.
///
/// # Safety
///
/// `memory` keeps what is at `start` alive, which is zeroed at first, and these offsets are within it, aligned for what lies there, with
/// `size` entries. Nobody else has a side of the ring, unless it is the kernel, whose side is not used here.
pub(crate) unsafe fn sides<T: Copy>(
    memory: Arc<dyn Any + Send + Sync>,
    start: NonNull<u8>,
    offsets: [usize; 4],
    size: u32,
) -> (Producer<T>, Consumer<T>) {
    assert!(size.is_power_of_two());
    // SAFETY: within the memory, as the caller promises.
    let [producer, consumer, flags, entries] = offsets.map(|offset| unsafe { start.add(offset) });
    let ring = |memory| RingMemory {
        producer: producer.cast(),
        consumer: consumer.cast(),
        flags: flags.cast(),
        entries: entries.cast(),
        size,
        _memory: memory,
    };
    let producer = Producer {
        ring: ring(Arc::clone(&memory)),
        next: 0,
        consumed: 0,
    };
    let consumer = Consumer {
        ring: ring(memory),
        next: 0,
        produced: 0,
    };
    (producer, consumer)
}

/// Memory that both sides write.
struct Shared(Box<[UnsafeCell<u64>]>);

// SAFETY: the ring's protocol says who touches what.
unsafe impl Sync for Shared {}

/// Both sides of a ring in memory of the process.
pub(crate) fn of_heap<T: Copy>(size: u32) -> (Producer<T>, Consumer<T>) {
    let words = 3 + size as usize * size_of::<T>().div_ceil(8);
    let shared = Arc::new(Shared((0..words).map(|_| UnsafeCell::new(0)).collect()));
    let start = NonNull::from(&shared.0[..]).cast();
    let memory: Arc<dyn Any + Send + Sync> = shared;
    // SAFETY: three words for the indices and the flags, and then the entries, of the memory that is kept alive with it.
    unsafe { sides(memory, start, [0, 8, 16, 24], size) }
}

impl<T: Copy> RingMemory<T> {
    fn producer(&self) -> &AtomicU32 {
        // SAFETY: alive, and an atomic of two sides.
        unsafe { self.producer.as_ref() }
    }

    fn consumer(&self) -> &AtomicU32 {
        // SAFETY: as above.
        unsafe { self.consumer.as_ref() }
    }

    fn flags(&self) -> &AtomicU32 {
        // SAFETY: as above.
        unsafe { self.flags.as_ref() }
    }

    fn entry(&self, index: u32) -> NonNull<T> {
        // SAFETY: below `size`.
        unsafe { self.entries.add((index & (self.size - 1)) as usize) }
    }
}

/// The side that produces.
pub(crate) struct Producer<T> {
    ring: RingMemory<T>,
    /// The next entry. What is before it and not published yet is ours still.
    next: u32,
    /// The consumer's index, as it was read last.
    consumed: u32,
}

impl<T: Copy> Producer<T> {
    /// Entries that it has room for.
    pub(crate) fn size(&self) -> u32 {
        self.ring.size
    }

    /// Entries that the consumer has not taken, published or not, as of a moment ago.
    fn pending(&self) -> u32 {
        self.next.wrapping_sub(self.consumed).min(self.ring.size)
    }

    /// Room for so many entries, or as many as there is room for.
    #[inline]
    pub(crate) fn room(&mut self, wanted: u32) -> u32 {
        let room = self.ring.size - self.pending();
        if room >= wanted {
            return wanted;
        }
        wanted.min(self.ring.size - self.unconsumed())
    }

    /// Entries that the consumer has not taken.
    #[inline]
    pub(crate) fn unconsumed(&mut self) -> u32 {
        self.consumed = self.ring.consumer().load(Ordering::Acquire);
        self.pending()
    }

    /// The consumer's index, as it was read last.
    pub(crate) fn consumed(&self) -> u32 {
        self.consumed
    }

    /// Writes an entry, if there is room; the consumer sees it when it is published.
    #[inline]
    pub(crate) fn push(&mut self, entry: T) -> bool {
        if self.room(1) == 0 {
            return false;
        }
        // SAFETY: free, so that the consumer does not touch it.
        unsafe { self.ring.entry(self.next).write(entry) };
        self.next = self.next.wrapping_add(1);
        true
    }

    #[inline]
    pub(crate) fn publish(&self) {
        self.ring.producer().store(self.next, Ordering::Release);
    }

    /// The kernel waits for a system call.
    #[inline]
    pub(crate) fn needs_wakeup(&self) -> bool {
        self.ring.flags().load(Ordering::Relaxed) & NEED_WAKEUP != 0
    }
}

/// The side that consumes.
pub(crate) struct Consumer<T> {
    ring: RingMemory<T>,
    /// The next entry. What is before it and not released yet is ours still.
    next: u32,
    /// The producer's index, as it was read last.
    produced: u32,
}

impl<T: Copy> Consumer<T> {
    /// Entries that it has room for.
    pub(crate) fn size(&self) -> u32 {
        self.ring.size
    }

    fn seen(&self) -> u32 {
        self.produced.wrapping_sub(self.next).min(self.ring.size)
    }

    /// Entries that are there.
    #[inline]
    pub(crate) fn available(&mut self) -> u32 {
        self.produced = self.ring.producer().load(Ordering::Acquire);
        self.seen()
    }

    /// The next entry; the producer may use its place when it is released.
    #[inline]
    pub(crate) fn pop(&mut self) -> Option<T> {
        if self.seen() == 0 && self.available() == 0 {
            return None;
        }
        // SAFETY: published, so that the producer does not touch it.
        let entry = unsafe { self.ring.entry(self.next).read() };
        self.next = self.next.wrapping_add(1);
        Some(entry)
    }

    #[inline]
    pub(crate) fn release(&self) {
        self.ring.consumer().store(self.next, Ordering::Release);
    }
}

#[cfg(test)]
impl<T: Copy> Producer<T> {
    /// Publishes what was never written: old entries.
    pub(crate) fn skip(&mut self, entries: u32) {
        self.next = self.next.wrapping_add(entries);
        self.publish();
    }
}

#[cfg(test)]
impl<T: Copy> Consumer<T> {
    /// As the kernel does.
    pub(crate) fn set_needs_wakeup(&self, needs: bool) {
        let flags = if needs { NEED_WAKEUP } else { 0 };
        self.ring.flags().store(flags, Ordering::Relaxed);
    }
}

// linux/if_xdp.h: XDP_RING_NEED_WAKEUP
const NEED_WAKEUP: u32 = 1;
