//! Event queues of the application, and the queue of a context watched in one of them.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use io_uring::{IoUring, cqueue};

use super::{EventQueue, sys};

/// An event queue that the application made and waits on.
pub enum ApplicationQueue<'a> {
    /// An epoll instance. Events carry what they belong to in `epoll_event.data.u64`.
    Epoll(BorrowedFd<'a>),
    /// An io_uring. Completions carry it in `io_uring_cqe.user_data`.
    IoUring(&'a mut IoUring),
}

impl std::fmt::Debug for ApplicationQueue<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            ApplicationQueue::Epoll(epoll) => f.debug_tuple("Epoll").field(epoll).finish(),
            ApplicationQueue::IoUring(_) => f.write_str("IoUring"),
        }
    }
}

impl<'a> From<BorrowedFd<'a>> for ApplicationQueue<'a> {
    fn from(epoll: BorrowedFd<'a>) -> Self {
        ApplicationQueue::Epoll(epoll)
    }
}

impl<'a> From<&'a OwnedFd> for ApplicationQueue<'a> {
    fn from(epoll: &'a OwnedFd) -> Self {
        ApplicationQueue::Epoll(epoll.as_fd())
    }
}

impl<'a> From<&'a mut IoUring> for ApplicationQueue<'a> {
    fn from(ring: &'a mut IoUring) -> Self {
        ApplicationQueue::IoUring(ring)
    }
}

/// What an event queue says of one thing that happened, whichever kind of queue it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Completion {
    /// What it belongs to: the number given when the event or the operation was entered.
    pub user_data: u64,
    /// Result of an operation (io_uring: negative is an error number); events that are ready (epoll: `EPOLLIN` and so on).
    pub result: i32,
    /// Flags of a completion (io_uring); 0 from an epoll instance.
    pub flags: u32,
}

impl Completion {
    /// Of an event of an epoll instance: its data, and its flags.
    pub fn epoll(data: u64, events: u32) -> Self {
        Completion {
            user_data: data,
            result: events as i32,
            flags: 0,
        }
    }

    /// More completions of this operation will follow (io_uring, multishot).
    pub fn has_more(&self) -> bool {
        cqueue::more(self.flags)
    }
}

impl From<&cqueue::Entry> for Completion {
    fn from(entry: &cqueue::Entry) -> Self {
        Completion {
            user_data: entry.user_data(),
            result: entry.result(),
            flags: entry.flags(),
        }
    }
}

/// The queue of a context, watched in one of the application: that brings a completion with `user_data` when this one has something.
///
/// An epoll instance brings it again and again until [`Watch::on_completion`] has been called and the context polled; an io_uring once
/// for each time that something comes, from the application's next submission on.
#[derive(Debug)]
pub struct Watch {
    user_data: u64,
    /// The application's epoll instance, if it is one.
    epoll: Option<OwnedFd>,
}

impl Watch {
    /// Begins to watch.
    pub fn begin(
        queue: &EventQueue,
        application: &mut ApplicationQueue<'_>,
        user_data: u64,
    ) -> io::Result<Self> {
        let epoll = match application {
            ApplicationQueue::Epoll(epoll) => {
                let epoll = epoll.try_clone_to_owned()?;
                sys::epoll_watch(&epoll, queue.epoll.as_fd(), user_data)?;
                Some(epoll)
            }
            ApplicationQueue::IoUring(ring) => {
                sys::ring_watch(ring, queue.epoll.as_fd(), user_data)?;
                None
            }
        };
        Ok(Watch { user_data, epoll })
    }

    /// Takes a completion; false if it is none of this watch's.
    pub fn on_completion(
        &self,
        queue: &EventQueue,
        application: &mut ApplicationQueue<'_>,
        completion: &Completion,
    ) -> io::Result<bool> {
        if completion.user_data != self.user_data {
            return Ok(false);
        }
        if let ApplicationQueue::IoUring(ring) = application
            && !completion.has_more()
        {
            // The kernel ends it when the completion queue was full, say.
            sys::ring_watch(ring, queue.epoll.as_fd(), self.user_data)?;
        }
        Ok(true)
    }

    /// Ends it. An io_uring still brings a last completion (`-ECANCELED`).
    pub fn end(&self, queue: &EventQueue, application: &mut ApplicationQueue<'_>) -> io::Result<()> {
        match (application, &self.epoll) {
            (ApplicationQueue::IoUring(ring), _) => sys::ring_unwatch(ring, self.user_data),
            (ApplicationQueue::Epoll(_), Some(epoll)) => sys::epoll_unwatch(epoll, queue.epoll.as_fd()),
            (ApplicationQueue::Epoll(_), None) => Ok(()),
        }
    }
}
