//! Event queues of the application, and the queue of a context watched in one of them.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use io_uring::{IoUring, cqueue};

use super::queue::EventQueue;
use super::sys;

/// An event queue that the application made and waits on.
pub enum ApplicationQueue<'a> {
    /// An epoll instance. Events carry what they belong to in `epoll_event.data.u64`.
    Epoll(BorrowedFd<'a>),
    /// An io_uring. Completions carry it in `io_uring_cqe.user_data`.
    IoUring(&'a mut IoUring),
    /// None that is known here: the context has only its own, on which its thread sleeps, or whose descriptor the reactor of a runtime watches.
    Descriptor,
}

impl std::fmt::Debug for ApplicationQueue<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            ApplicationQueue::Epoll(epoll) => f.debug_tuple("Epoll").field(epoll).finish(),
            ApplicationQueue::IoUring(_) => f.write_str("IoUring"),
            ApplicationQueue::Descriptor => f.write_str("Descriptor"),
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

/// The queue of a context, watched in one of the application: that brings a completion with `user_data` while this one has something.
#[derive(Debug)]
pub struct Watch {
    user_data: u64,
    /// The application's epoll instance, if it is one.
    epoll: Option<OwnedFd>,
    /// An io_uring looks.
    armed: bool,
}

impl Watch {
    /// A watch, with an epoll instance from now on.
    ///
    /// # Errors
    ///
    /// The application's epoll instance cannot watch the queue: it is none, or there are too many descriptors or watches.
    pub fn begin(queue: &EventQueue, application: &ApplicationQueue<'_>, user_data: u64) -> io::Result<Self> {
        let epoll = match application {
            ApplicationQueue::Epoll(epoll) => {
                let epoll = epoll.try_clone_to_owned()?;
                sys::epoll_watch(&epoll, queue.as_fd(), user_data)?;
                Some(epoll)
            }
            ApplicationQueue::IoUring(_) | ApplicationQueue::Descriptor => None,
        };
        Ok(Watch {
            user_data,
            epoll,
            armed: false,
        })
    }

    /// The application is about to wait: an io_uring is told to look, once, with its next submission. It looks at what is there already too.
    ///
    /// # Errors
    ///
    /// The submission queue of the application's ring is full, and submitting does not change that: wait for completions, and try again.
    pub fn arm(&mut self, queue: &EventQueue, application: &mut ApplicationQueue<'_>) -> io::Result<()> {
        if let ApplicationQueue::IoUring(ring) = application
            && !self.armed
        {
            sys::ring_watch(ring, queue.as_fd(), self.user_data)?;
            self.armed = true;
        }
        Ok(())
    }

    /// Takes a completion; false if it is none of this watch's.
    pub fn on_completion(&mut self, completion: &Completion) -> bool {
        let is_ours = completion.user_data == self.user_data;
        self.armed &= !is_ours;
        is_ours
    }

    /// Ends it.
    ///
    /// # Errors
    ///
    /// As [`Watch::arm`], or the epoll instance does not have the watch any more.
    pub fn end(&self, queue: &EventQueue, application: &mut ApplicationQueue<'_>) -> io::Result<()> {
        match (application, &self.epoll) {
            (ApplicationQueue::IoUring(ring), _) if self.armed => sys::ring_unwatch(ring, self.user_data),
            (ApplicationQueue::Epoll(_), Some(epoll)) => sys::epoll_unwatch(epoll, queue.as_fd()),
            _ => Ok(()),
        }
    }
}
