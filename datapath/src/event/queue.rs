//! The queue itself: epoll.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

use super::sys;
use super::waker::Waker;

/// An epoll instance with an eventfd through which other threads wake the thread that sleeps on it.
///
/// Level-triggered, and only there to end a sleep: the woken thread polls its devices to find out what is ready.
#[derive(Debug)]
pub struct EventQueue {
    epoll: OwnedFd,
    waker: Arc<Waker>,
}

/// What a descriptor is watched for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Interest {
    /// Something to read.
    Readable,
    /// Something to read, or room to write.
    ReadableOrWritable,
    /// Room to write.
    Writable,
}

impl Interest {
    fn bits(self) -> u32 {
        match self {
            Interest::Readable => libc::EPOLLIN as u32,
            Interest::ReadableOrWritable => (libc::EPOLLIN | libc::EPOLLOUT) as u32,
            Interest::Writable => libc::EPOLLOUT as u32,
        }
    }
}

/// A handle of an event queue that a device keeps, to change what its descriptors are watched for.
#[derive(Debug)]
pub struct Registry(OwnedFd);

impl Registry {
    /// Begins to watch a descriptor. It must be taken out before its number is used for something else; closing it does that if it is the last
    /// one of its file.
    ///
    /// # Errors
    ///
    /// The descriptor is watched already, cannot be (a file), or there are too many watches.
    pub fn add(&self, fd: RawFd, interest: Interest) -> io::Result<()> {
        sys::epoll_control(&self.0, libc::EPOLL_CTL_ADD, fd, interest.bits())
    }

    /// Ends sleeps after this time, for as long as what it gives is not dropped.
    #[cfg(feature = "af_xdp")]
    pub(crate) fn add_timer(&self, time: Duration) -> io::Result<OwnedFd> {
        let timer = sys::timer(time)?;
        self.add(timer.as_raw_fd(), Interest::Readable)?;
        Ok(timer)
    }

    /// Changes what a descriptor is watched for.
    ///
    /// # Errors
    ///
    /// The descriptor is not watched.
    pub fn change(&self, fd: RawFd, interest: Interest) -> io::Result<()> {
        sys::epoll_control(&self.0, libc::EPOLL_CTL_MOD, fd, interest.bits())
    }

    /// Ends watching a descriptor.
    ///
    /// # Errors
    ///
    /// The descriptor is not watched.
    pub fn remove(&self, fd: RawFd) -> io::Result<()> {
        sys::epoll_control(&self.0, libc::EPOLL_CTL_DEL, fd, 0)
    }
}

impl EventQueue {
    /// An empty queue.
    ///
    /// # Errors
    ///
    /// The process or the system has too many open descriptors.
    pub fn new() -> io::Result<Self> {
        let epoll = sys::epoll_create()?;
        let waker = Waker::new()?;
        sys::epoll_control(
            &epoll,
            libc::EPOLL_CTL_ADD,
            waker.descriptor(),
            Interest::Readable.bits(),
        )?;
        Ok(EventQueue {
            epoll,
            waker: Arc::new(waker),
        })
    }

    /// Wakes the thread that sleeps on this queue, from any other.
    pub fn waker(&self) -> &Arc<Waker> {
        &self.waker
    }

    /// For a device that registers its descriptors.
    ///
    /// # Errors
    ///
    /// The process or the system has too many open descriptors.
    pub fn registry(&self) -> io::Result<Registry> {
        self.epoll.try_clone().map(Registry)
    }

    /// Sleeps until something happens, but not longer than `timeout`. Signals may end it early.
    ///
    /// # Errors
    ///
    /// The kernel refuses to wait, which it does for no queue that is open.
    pub fn wait(&self, timeout: Option<Duration>) -> io::Result<()> {
        let waker = self.waker.descriptor();
        sys::epoll_wait(&self.epoll, timeout, |fd| {
            if fd == waker {
                self.waker.clear();
            }
        })
    }
}

impl AsFd for EventQueue {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }
}

impl AsRawFd for EventQueue {
    /// The epoll descriptor: readable when [`EventQueue::wait`] would return.
    fn as_raw_fd(&self) -> RawFd {
        self.epoll.as_raw_fd()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Instant;

    use super::*;

    #[test]
    fn no_wake_up_is_lost_between_two_threads() {
        let queue = EventQueue::new().unwrap();
        let waker = Arc::clone(queue.waker());
        let posted = Arc::new(AtomicU64::new(0));
        let poster = Arc::clone(&posted);
        const MESSAGES: u64 = 20_000;
        let thread = std::thread::spawn(move || {
            for message in 1..=MESSAGES {
                poster.store(message, Ordering::Release);
                waker.wake();
                if message % 7 == 0 {
                    std::thread::yield_now();
                }
            }
        });
        let mut seen = 0;
        let start = Instant::now();
        while seen < MESSAGES {
            queue.waker().prepare_sleep();
            if posted.load(Ordering::Acquire) == seen {
                let before = Instant::now();
                queue.wait(Some(Duration::from_secs(5))).unwrap();
                assert!(
                    before.elapsed() < Duration::from_secs(4),
                    "a wake-up was lost after {seen} messages"
                );
            }
            queue.waker().end_sleep();
            seen = posted.load(Ordering::Acquire);
            assert!(start.elapsed() < Duration::from_secs(60));
        }
        thread.join().unwrap();
    }

    #[test]
    fn wait_ends_after_its_timeout() {
        let queue = EventQueue::new().unwrap();
        let start = Instant::now();
        queue.wait(Some(Duration::from_millis(20))).unwrap();
        assert!(start.elapsed() >= Duration::from_millis(19));
    }
}
