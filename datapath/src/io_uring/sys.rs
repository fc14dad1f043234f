//! The ring of a device: its system calls, behind safe functions. What requests point to is [`Memory`], which the ring owns.
//!
//! Invariants that the `unsafe` blocks rest on:
//!
//! - Memory that a request points to (arena, chunks, headers of messages, receive buffers) is on the heap or mapped, and never moves.
//!   [`OwningRing`] frees it only when all requests were seen to end.
//! - [`Sends`] gives memory of a send in flight to nobody; [`ReceiveBuffers`] that of a buffer which the kernel holds to nobody.

use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::sync::OnceLock;
use std::sync::atomic::{Ordering, fence};
use std::thread::ThreadId;
use std::time::Duration;

use ::io_uring::{EnterFlags, IoUring, cqueue, opcode, types};

use super::buffers::{self, ReceiveBuffers, ReceivedBuffer};
use super::sends::{self, File, Sends};
use crate::chunk::ReceivedMemory;
use crate::event::EventQueue;
use crate::udp::StagedRun;
use crate::udp::message::{CONTROL_BYTES, IncomingMessage};
use crate::uring::{OwningRing, RequestMemory};

/// Entries of the submission queue: sends, and receives of ports that are armed at the same time.
const SUBMISSIONS: u32 = 128;
/// Room for completions.
const COMPLETIONS: u32 = 1024;
/// Sockets that are registered with the ring; more are used by their descriptors.
const FILES: u32 = 512;

/// What a request was for: in the upper half of its user data; an index is in the lower.
const RECEIVE: u64 = 1 << 32;
const SEND: u64 = 2 << 32;
const CANCEL: u64 = 3 << 32;

/// What a completion says.
#[derive(Debug)]
pub(super) enum Completion {
    /// Of a receive request.
    Received {
        /// As the request was pushed with.
        key: u32,
        /// Bytes in the buffer, with what stands in front of the payload.
        result: io::Result<u32>,
        /// The buffer that was filled.
        buffer: Option<ReceivedBuffer>,
        /// The request goes on: more completions come.
        more: bool,
    },
    /// A run was sent, or not.
    Sent { run: StagedRun, result: io::Result<u32> },
}

/// All that requests point to.
struct Memory {
    sends: Sends,
    buffers: ReceiveBuffers,
    /// Says how much room names and control messages have; shared by all receives.
    receive_header: Box<libc::msghdr>,
}

impl RequestMemory for Memory {
    fn bytes(&self) -> usize {
        self.sends.bytes() + self.buffers.bytes()
    }
}

pub(super) struct Ring {
    ring: OwningRing<Memory>,
    /// The thread on which the ring's descriptor is registered.
    registered_on: Option<(ThreadId, u32)>,
    /// Before the first system call of the thread that owns it.
    disabled: bool,
    files: Vec<u32>,
}

// SAFETY: the pointers inside point to memory that belongs to the value alone; the ring is used by one thread at a time.
unsafe impl Send for Ring {}

impl std::fmt::Debug for Ring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Ring")
    }
}

/// A ring, and whether its work waits for its thread.
fn make(one_thread: bool) -> io::Result<(IoUring, bool)> {
    let deferred = one_thread && signals_deferred_work();
    let mut builder = IoUring::builder();
    builder
        .setup_cqsize(COMPLETIONS)
        .setup_taskrun_flag()
        .setup_submit_all();
    if deferred {
        // Disabled at first: the thread that enables it owns it.
        builder
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_r_disabled();
    } else {
        // Receiving without end came with Linux 6.0, after all that such a ring asks for: refuse an older kernel by what it lacks too.
        <IoUring>::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .build(1)?;
        builder.setup_coop_taskrun();
    }
    Ok((builder.build(SUBMISSIONS)?, deferred))
}

/// True if a ring that leaves work to its thread signals an eventfd each time that there is some. Linux 6.12.117 does it once for what wakes a
/// socket, and never again: a thread would sleep on all that comes later. Asked once in a process; where it cannot be, the ring says what is amiss.
pub(super) fn signals_deferred_work() -> bool {
    static ANSWER: OnceLock<bool> = OnceLock::new();
    *ANSWER.get_or_init(|| ask_for_signals().unwrap_or(true))
}

fn ask_for_signals() -> io::Result<bool> {
    let mut uring: IoUring = IoUring::builder()
        .setup_single_issuer()
        .setup_defer_taskrun()
        .build(1)?;
    let queue = EventQueue::new()?;
    uring.submitter().register_eventfd(queue.waker().descriptor())?;
    let (mut reader, mut writer) = io::pipe()?;
    for _ in 0..2 {
        let entry = opcode::PollAdd::new(types::Fd(reader.as_raw_fd()), libc::POLLIN as u32).build();
        // SAFETY: the request points to nothing.
        unsafe { uring.submission().push(&entry) }.map_err(io::Error::other)?;
        uring.submit()?;
        writer.write_all(&[0])?;
        let mut signal = libc::pollfd {
            fd: queue.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        };
        // SAFETY: one descriptor, which lives during the call.
        if unsafe { libc::poll(&raw mut signal, 1, SIGNAL_WAIT_MILLIS) } == 0 {
            return Ok(false);
        }
        // SAFETY: takes no pointer.
        unsafe {
            uring
                .submitter()
                .enter::<libc::sigset_t>(0, 0, EnterFlags::GETEVENTS.bits(), None)
        }?;
        while uring.completion().next().is_some() {}
        reader.read_exact(&mut [0])?;
        // Takes the signals away, of completions too.
        queue.wait(Some(Duration::ZERO))?;
    }
    Ok(true)
}

/// Some kernels signal only when all processors have been seen outside the kernel. One that takes longer counts as one that does not.
const SIGNAL_WAIT_MILLIS: libc::c_int = 250;

impl Ring {
    /// `buffers` must be a power of two. With `one_thread` only the thread that calls first may use the ring from then on, which is
    /// cheaper.
    pub(super) fn new(
        buffers: u16,
        lent_bytes: usize,
        arena_bytes: usize,
        one_thread: bool,
    ) -> io::Result<Ring> {
        // On a thread that ends at once: the kernel interrupts, when a ring closes, whatever system call the threads wait in that made or used it.
        let (uring, deferred) = std::thread::scope(|scope| {
            let builder = std::thread::Builder::new().name("ringway/ring".to_owned());
            let made = builder.spawn_scoped(scope, || make(one_thread))?.join();
            made.unwrap_or_else(|_| Err(io::Error::other("making a ring panicked")))
        })?;
        let memory = Memory {
            sends: Sends::new(arena_bytes),
            buffers: ReceiveBuffers::new(buffers, lent_bytes)?,
            receive_header: Box::new(libc::msghdr {
                msg_namelen: buffers::NAME_ROOM as libc::socklen_t,
                msg_controllen: CONTROL_BYTES as _,
                ..sends::empty_message()
            }),
        };
        let mut ring = OwningRing::new(uring, memory);
        let (uring, memory) = ring.parts();
        memory.buffers.register(uring)?;
        // A limit on open files may stand against it: sockets are used by their descriptors then.
        let files = if uring.submitter().register_files_sparse(FILES).is_ok() {
            (0..FILES).rev().collect()
        } else {
            Vec::new()
        };
        Ok(Ring {
            ring,
            registered_on: None,
            disabled: deferred,
            files,
        })
    }

    fn uring(&mut self) -> &mut IoUring {
        self.ring.parts().0
    }

    /// What is sent, and the arena for it.
    pub(super) fn sends(&mut self) -> &mut Sends {
        &mut self.ring.parts().1.sends
    }

    /// Signals an eventfd when completions come, or work that leads to some, while [`Ring::set_signals`] says so. (The ring's own
    /// descriptor, watched by epoll, does not tell of deferred work.)
    pub(super) fn signal(&mut self, eventfd: RawFd) -> io::Result<()> {
        self.uring().submitter().register_eventfd(eventfd)?;
        self.set_signals(false);
        Ok(())
    }

    /// Signals are wanted while the thread sleeps only: each costs a wake-up.
    pub(super) fn set_signals(&mut self, on: bool) {
        let completions = self.uring().completion();
        if on {
            completions.enable_eventfd();
            // Before what the caller looks at next.
            fence(Ordering::SeqCst);
        } else {
            completions.disable_eventfd();
        }
    }

    /// True if [`Ring::completion`] would give one.
    pub(super) fn has_completions(&mut self) -> bool {
        !self.uring().completion().is_empty()
    }

    /// Takes the ring into use on this thread.
    pub(super) fn enable(&mut self) -> io::Result<()> {
        if !self.disabled {
            return Ok(());
        }
        self.uring().submitter().register_enable_rings()?;
        self.disabled = false;
        self.register_ring();
        Ok(())
    }

    /// Lets this thread name the ring by an index, which saves the look-up of the descriptor in each system call.
    fn register_ring(&mut self) {
        let mut update = RegisterUpdate {
            offset: u32::MAX,
            reserved: 0,
            data: self.uring().as_raw_fd() as u64,
        };
        // SAFETY: `update` has the layout of `struct io_uring_rsrc_update` and lives during the call.
        let result = unsafe {
            libc::syscall(
                libc::SYS_io_uring_register,
                self.uring().as_raw_fd(),
                REGISTER_RING_FDS,
                &raw mut update,
                1,
            )
        };
        // Without (before Linux 5.18, or too many in this thread) all works as well, a little slower.
        if result == 1 {
            self.registered_on = Some((std::thread::current().id(), update.offset));
        }
    }

    /// Names a socket to the ring.
    pub(super) fn add_file(&mut self, descriptor: RawFd) -> File {
        let Some(&index) = self.files.last() else {
            return File::Descriptor(descriptor);
        };
        match self
            .uring()
            .submitter()
            .register_files_update(index, &[descriptor])
        {
            Ok(_) => {
                self.files.pop();
                File::Registered(index)
            }
            Err(_) => File::Descriptor(descriptor),
        }
    }

    /// The ring forgets a socket. Requests on it go on.
    pub(super) fn remove_file(&mut self, file: File) {
        if let File::Registered(index) = file
            && self
                .uring()
                .submitter()
                .register_files_update(index, &[-1])
                .is_ok()
        {
            self.files.push(index);
        }
    }

    /// True if something can be pushed.
    pub(super) fn has_room(&mut self) -> bool {
        self.ring.has_room()
    }

    /// Receives messages from a socket, each into a buffer, until further notice. False if the submission queue is full.
    pub(super) fn push_receive(&mut self, file: File, key: u32) -> bool {
        let header: *const libc::msghdr = &raw const *self.ring.parts().1.receive_header;
        let entry = match file {
            File::Registered(index) => {
                opcode::RecvMsgMulti::new(types::Fixed(index), header, buffers::GROUP).build()
            }
            File::Descriptor(fd) => opcode::RecvMsgMulti::new(types::Fd(fd), header, buffers::GROUP).build(),
        };
        // SAFETY: the header is in a box of the ring's memory and never changes; buffers are those which the kernel holds.
        unsafe { self.ring.push(&entry.user_data(RECEIVE | u64::from(key))) }
    }

    /// Ends a receive request; its last completion comes still. False if the submission queue is full.
    pub(super) fn push_cancel(&mut self, key: u32) -> bool {
        self.ring.push_cancel(RECEIVE | u64::from(key), CANCEL)
    }

    /// Sends a run from its chunk, or from the arena. Gives it back if there is no room for it.
    pub(super) fn push_send(&mut self, file: File, v6_socket: bool, run: StagedRun) -> Result<(), StagedRun> {
        if !self.ring.has_room() {
            return Err(run);
        }
        let (entry, place) = self.sends().begin(file, v6_socket, run)?;
        let entry = entry.user_data(SEND | u64::from(place));
        // SAFETY: the header and what it points to are memory of the ring that stays as it is until `end` is called for its place.
        let pushed = unsafe { self.ring.push(&entry) };
        if pushed {
            return Ok(());
        }
        self.sends().end(place).map_or(Ok(()), Err)
    }

    /// True if [`Ring::enter`] would do something: entries to submit, or work to finish.
    pub(super) fn has_work(&mut self) -> bool {
        let submission = self.uring().submission();
        !submission.is_empty() || submission.taskrun() || submission.cq_overflow()
    }

    /// Submits what was pushed and finishes what the kernel has deferred to this thread: one system call.
    pub(super) fn enter(&mut self) -> io::Result<()> {
        let pushed = self.uring().submission().len() as u32;
        let flags = EnterFlags::GETEVENTS.bits();
        let result = match self.registered_on {
            Some((_, index)) => {
                // SAFETY: takes no pointer; the index is of this ring in this thread, as the contract of one thread says.
                let result = unsafe {
                    libc::syscall(
                        libc::SYS_io_uring_enter,
                        index,
                        pushed,
                        0,
                        flags | ENTER_REGISTERED_RING,
                        std::ptr::null::<libc::sigset_t>(),
                        0usize,
                    )
                };
                if result < 0 {
                    Err(io::Error::last_os_error())
                } else {
                    Ok(())
                }
            }
            None => {
                let submitter = self.uring().submitter();
                // SAFETY: takes no pointer.
                unsafe { submitter.enter::<libc::sigset_t>(pushed, 0, flags, None) }.map(drop)
            }
        };
        match result {
            // The kernel wants completions to be taken first, or a signal came: the next turn goes on.
            Err(error)
                if matches!(
                    error.raw_os_error(),
                    Some(libc::EAGAIN | libc::EBUSY | libc::EINTR)
                ) =>
            {
                Ok(())
            }
            result => result,
        }
    }

    /// Takes the next completion.
    pub(super) fn completion(&mut self) -> Option<Completion> {
        loop {
            let entry = self.ring.completion()?;
            let memory = self.ring.parts().1;
            let result =
                u32::try_from(entry.result()).map_err(|_| io::Error::from_raw_os_error(-entry.result()));
            let index = entry.user_data() as u32;
            match entry.user_data() & !u64::from(u32::MAX) {
                RECEIVE => {
                    let buffer = cqueue::buffer_select(entry.flags());
                    return Some(Completion::Received {
                        key: index,
                        result,
                        buffer: buffer.and_then(|buffer| memory.buffers.take(buffer)),
                        more: cqueue::more(entry.flags()),
                    });
                }
                SEND => {
                    if let Some(run) = memory.sends.end(index as u16) {
                        return Some(Completion::Sent { run, result });
                    }
                }
                _ => {}
            }
        }
    }

    /// A message in the buffer that a completion has named, and its payload.
    pub(super) fn message(
        &mut self,
        buffer: &ReceivedBuffer,
        len: usize,
    ) -> Option<(IncomingMessage, ReceivedMemory<'_>)> {
        self.ring.parts().1.buffers.message(buffer, len)
    }

    /// Gives a buffer to the kernel, which sees it after [`Ring::publish_buffers`].
    pub(super) fn give_back(&mut self, buffer: ReceivedBuffer) {
        self.ring.parts().1.buffers.give_back(buffer);
    }

    /// Looks for buffers that are lent no more, and gives how many bytes of them still are.
    pub(super) fn reclaim_buffers(&mut self) -> usize {
        let buffers = &mut self.ring.parts().1.buffers;
        buffers.reclaim();
        buffers.lent_bytes()
    }

    /// Shows the kernel the buffers that were given back.
    pub(super) fn publish_buffers(&mut self) {
        self.ring.parts().1.buffers.publish();
    }

    /// Lets the kernel poll the NIC's queues of our sockets for so long before it sleeps.
    pub(super) fn busy_poll(&mut self, micros: u32) -> io::Result<()> {
        let mut napi = types::Napi::new()
            .set_busy_poll_timeout(micros)
            .set_prefer_busy_poll(true);
        self.uring().submitter().register_napi(&mut napi)
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        let Some((thread, index)) = self.registered_on else {
            return;
        };
        // On another thread the index would be of another ring; the kernel cleans up when the thread ends.
        if thread == std::thread::current().id() {
            let mut update = RegisterUpdate {
                offset: index,
                reserved: 0,
                data: 0,
            };
            // SAFETY: as in `register_ring`.
            unsafe {
                libc::syscall(
                    libc::SYS_io_uring_register,
                    self.uring().as_raw_fd(),
                    UNREGISTER_RING_FDS,
                    &raw mut update,
                    1,
                )
            };
        }
    }
}

/// `struct io_uring_rsrc_update`.
#[repr(C)]
struct RegisterUpdate {
    offset: u32,
    reserved: u32,
    data: u64,
}

// linux/io_uring.h
const REGISTER_RING_FDS: libc::c_uint = 20;
const UNREGISTER_RING_FDS: libc::c_uint = 21;
const ENTER_REGISTERED_RING: u32 = 1 << 4;
