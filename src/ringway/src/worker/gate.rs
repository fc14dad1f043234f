//! Rundown protection: how an ending object waits for the calls that entered before it closed.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Lets calls of other threads in until it is closed, and tells when the last of them has left.
///
/// A call enters before it checks whether the gate is closed, and the worker closes before it checks whether anyone is
/// inside. Both are sequentially consistent, so one of the two sees the other.
#[derive(Default)]
pub(crate) struct Gate {
    inside: AtomicUsize,
    closed: AtomicBool,
}

impl Gate {
    /// Counts a call in; false, and not counted, if the gate is closed.
    pub(crate) fn enter(&self) -> bool {
        self.inside.fetch_add(1, Ordering::SeqCst);
        if self.closed.load(Ordering::SeqCst) {
            self.inside.fetch_sub(1, Ordering::SeqCst);
            return false;
        }
        true
    }

    /// Counts a call out that [`Gate::enter`] has counted in.
    pub(crate) fn leave(&self) {
        self.inside.fetch_sub(1, Ordering::SeqCst);
    }

    /// Bars further calls.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
    }

    /// Like [`Gate::close`], where no other thread can reach the gate: a plain store.
    pub(crate) fn close_unshared(&self) {
        self.closed.store(true, Ordering::Relaxed);
    }

    /// Opens the gate again for another object, where no other thread can reach it.
    pub(crate) fn reopen_unshared(&self) {
        debug_assert!(self.is_quiet());
        self.closed.store(false, Ordering::Relaxed);
    }

    /// True once closed.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }

    /// True if no call is inside.
    pub(crate) fn is_quiet(&self) -> bool {
        self.inside.load(Ordering::SeqCst) == 0
    }
}
