//! How other threads wake a sleeper.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};

use super::sleep_state::SleepState;
use super::sys;

/// Wakes the thread that sleeps on an [`EventQueue`](super::EventQueue). Costs one load while that thread is awake.
#[derive(Debug)]
pub struct Waker {
    eventfd: OwnedFd,
    sleep_state: SleepState,
}

impl Waker {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Waker {
            eventfd: sys::eventfd()?,
            sleep_state: SleepState::new(),
        })
    }

    /// Wakes the sleeper, if it sleeps or is about to. Call after the message is in its inbox.
    pub fn wake(&self) {
        if self.sleep_state.must_wake() {
            sys::eventfd_signal(self.eventfd.as_fd());
        }
    }

    /// The sleeper has seen the signal.
    pub(super) fn clear(&self) {
        sys::eventfd_clear(self.eventfd.as_fd());
    }

    /// The eventfd that ends the sleep, for a device whose kernel side signals it.
    pub(crate) fn descriptor(&self) -> RawFd {
        self.eventfd.as_raw_fd()
    }

    /// Announces sleep. The inboxes must be looked at after this and before [`EventQueue::wait`](super::EventQueue::wait).
    pub fn prepare_sleep(&self) {
        self.sleep_state.prepare();
    }

    /// Sleep is over.
    pub fn end_sleep(&self) {
        self.sleep_state.end();
    }
}
