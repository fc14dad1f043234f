//! Invariant that the `unsafe` blocks rest on: what a request points to is memory of [`OwningRing::memory`] that lies on the heap or in a
//! mapping and stays where it is. It is freed only when the last completion of each request has been seen; else never.

use std::mem::ManuallyDrop;
use std::time::Duration;

use io_uring::{IoUring, cqueue, opcode, squeue, types};

use super::memory::{RequestMemory, leak};

/// A ring that counts its requests, with the memory that they point to.
pub(crate) struct OwningRing<M: RequestMemory> {
    uring: ManuallyDrop<IoUring>,
    memory: ManuallyDrop<M>,
    /// Requests whose last completion has not been seen.
    in_flight: usize,
}

impl<M: RequestMemory> OwningRing<M> {
    pub(crate) fn new(uring: IoUring, memory: M) -> Self {
        OwningRing {
            uring: ManuallyDrop::new(uring),
            memory: ManuallyDrop::new(memory),
            in_flight: 0,
        }
    }

    /// The ring, for what submits, waits and registers (requests go through [`OwningRing::push`]); and the memory.
    pub(crate) fn parts(&mut self) -> (&mut IoUring, &mut M) {
        (&mut self.uring, &mut self.memory)
    }

    /// Requests whose last completion has not been seen.
    #[cfg(any(test, feature = "floor"))]
    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// True if something can be pushed.
    pub(crate) fn has_room(&mut self) -> bool {
        !self.uring.submission().is_full()
    }

    /// Queues a request that completes at least once. False if the submission queue is full.
    ///
    /// # Safety
    ///
    /// What the request points to is memory of `M` that does not move with it, and is neither freed nor touched until its last completion has
    /// been taken, other than as the request's kind allows.
    pub(crate) unsafe fn push(&mut self, entry: &squeue::Entry) -> bool {
        // SAFETY: as the caller promises.
        let pushed = unsafe { self.uring.submission().push(entry) }.is_ok();
        self.in_flight += usize::from(pushed);
        pushed
    }

    /// Queues the end of a request of this name, whose last completion comes still. False if the submission queue is full.
    pub(crate) fn push_cancel(&mut self, user_data: u64, own: u64) -> bool {
        let entry = opcode::AsyncCancel::new(user_data).build().user_data(own);
        // SAFETY: the request points to nothing.
        unsafe { self.push(&entry) }
    }

    /// Takes the next completion.
    pub(crate) fn completion(&mut self) -> Option<cqueue::Entry> {
        let entry = self.uring.completion().next()?;
        if !cqueue::more(entry.flags()) {
            self.in_flight = self.in_flight.saturating_sub(1);
        }
        Some(entry)
    }

    /// Ends all requests and sees their last completions. False if that cannot be had: another thread owns the ring, say.
    fn end_requests(&mut self) -> bool {
        // The kernel knows of no request that was not submitted.
        if self.in_flight == self.uring.submission().len() {
            return true;
        }
        let pause = types::Timespec::from(PAUSE);
        let arguments = types::SubmitArgs::new().timespec(&pause);
        let mut is_cancelled = false;
        for _ in 0..PAUSES_MAX {
            if !is_cancelled {
                let entry = opcode::AsyncCancel2::new(types::CancelBuilder::any()).build();
                // SAFETY: the request points to nothing.
                is_cancelled = unsafe { self.push(&entry) };
            }
            let waited = self.uring.submitter().submit_with_args(1, &arguments);
            while self.completion().is_some() {}
            if self.in_flight == 0 {
                return true;
            }
            match waited.map_err(|error| error.raw_os_error()) {
                Ok(_) | Err(Some(libc::ETIME | libc::EINTR | libc::EBUSY | libc::EAGAIN)) => {}
                Err(_) => return false,
            }
        }
        false
    }
}

/// How long, and how often, the end of requests is waited for. They end at once, but where another thread has to be woken for it.
const PAUSE: Duration = Duration::from_millis(10);
const PAUSES_MAX: usize = 20;

impl<M: RequestMemory> Drop for OwningRing<M> {
    fn drop(&mut self) {
        let ended = self.end_requests();
        // SAFETY: `self` is dropped, and nothing uses the ring after this.
        unsafe { ManuallyDrop::drop(&mut self.uring) };
        // SAFETY: `self` is dropped, and nothing uses the memory after this.
        let memory = unsafe { ManuallyDrop::take(&mut self.memory) };
        if !ended {
            leak(memory, self.in_flight);
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::net::UdpSocket;
    use std::os::fd::AsRawFd;
    use std::sync::Arc;

    use super::super::memory::leaked_packet_memory;
    use super::*;

    const BYTES: usize = 1000;

    /// What a receive request writes to; its `Arc` tells whether it was freed.
    struct Buffer {
        bytes: Box<[u8; BYTES]>,
        _alive: Arc<()>,
    }

    impl RequestMemory for Buffer {
        fn bytes(&self) -> usize {
            BYTES
        }
    }

    /// A ring with a request that waits for a datagram on `socket`, and its memory's sign of life. `None` where io_uring is forbidden.
    #[allow(clippy::print_stdout, reason = "the reason why a test is skipped")]
    fn waiting(socket: &UdpSocket, submit: bool) -> Option<(OwningRing<Buffer>, Arc<()>)> {
        let alive = Arc::new(());
        let uring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .build(8);
        let Ok(uring) = uring.map_err(|error| println!("SKIP io_uring: {error}")) else {
            return None;
        };
        let memory = Buffer {
            bytes: Box::new([0; BYTES]),
            _alive: Arc::clone(&alive),
        };
        let mut ring = OwningRing::new(uring, memory);
        let bytes = ring.parts().1.bytes.as_mut_ptr();
        let entry = opcode::Recv::new(types::Fd(socket.as_raw_fd()), bytes, BYTES as u32).build();
        // SAFETY: it points to the box of the ring's memory, which nobody touches.
        assert!(unsafe { ring.push(&entry) });
        if submit {
            ring.parts().0.submit().unwrap();
        }
        Some((ring, alive))
    }

    #[test]
    fn request_in_flight_ends_before_its_memory_is_freed() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        for submit in [true, false] {
            let Some((mut ring, alive)) = waiting(&socket, submit) else {
                return;
            };
            assert_eq!((ring.in_flight(), ring.has_room()), (1, true));
            assert!(ring.end_requests());
            assert_eq!(ring.in_flight(), usize::from(!submit), "its completion was seen");
            drop(ring);
            assert_eq!(Arc::strong_count(&alive), 1, "freed");
        }
    }

    #[test]
    fn memory_of_a_request_that_is_not_seen_to_end_is_leaked_and_counted() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let Some((ring, alive)) = waiting(&socket, true) else {
            return;
        };
        let before = leaked_packet_memory();
        // Another thread may not use this ring.
        std::thread::spawn(move || drop(ring)).join().unwrap();
        assert_eq!(Arc::strong_count(&alive), 2, "not freed");
        assert!(leaked_packet_memory() >= before + BYTES as u64);
    }
}
