//! How other threads wake a sleeper.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};

use super::asleep::Asleep;
use super::sys;

/// Wakes the thread that sleeps on an [`EventQueue`](super::EventQueue). Costs one load while that thread is awake.
#[derive(Debug)]
pub struct Waker {
    eventfd: OwnedFd,
    asleep: Asleep,
}

impl Waker {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Waker {
            eventfd: sys::eventfd()?,
            asleep: Asleep::new(),
        })
    }

    /// Wakes the sleeper, if it sleeps or is about to. Call after the message is in its inbox.
    pub fn wake(&self) {
        if self.asleep.must_be_woken() {
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
        self.asleep.prepare();
    }

    /// Sleep is over.
    pub fn awake(&self) {
        self.asleep.end();
    }
}
