//! How an end waits for the calls that got in before it.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Lets calls of other threads through until it is closed, and tells when the last one that got through is done.
///
/// A call enters before it looks whether the gate is closed, and the worker closes before it looks whether somebody is inside; both
/// in sequentially consistent order, so one of the two sees the other.
#[derive(Default)]
pub struct Gate {
    inside: AtomicUsize,
    closed: AtomicBool,
}

impl Gate {
    /// Counts a call in; false, and not counted, if the gate is closed.
    pub fn enter(&self) -> bool {
        self.inside.fetch_add(1, Ordering::SeqCst);
        if self.closed.load(Ordering::SeqCst) {
            self.inside.fetch_sub(1, Ordering::SeqCst);
            return false;
        }
        true
    }

    /// Counts a call out that [`Gate::enter`] counted in, after it ran.
    pub fn leave(&self) {
        self.inside.fetch_sub(1, Ordering::SeqCst);
    }

    /// No call enters any more.
    pub fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
    }

    /// As [`Gate::close`], where no other thread has a way to the gate: at the price of a move.
    pub fn close_unshared(&self) {
        self.closed.store(true, Ordering::Relaxed);
    }

    /// Opens it for another use, where no other thread has a way to it.
    pub fn reopen_unshared(&self) {
        debug_assert!(self.is_quiet());
        self.closed.store(false, Ordering::Relaxed);
    }

    /// True once closed.
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }

    /// True if no call that entered is still to run.
    pub fn is_quiet(&self) -> bool {
        self.inside.load(Ordering::SeqCst) == 0
    }
}
