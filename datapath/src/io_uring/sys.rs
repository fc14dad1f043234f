//! The ring: system calls and memory that it shares with the kernel, behind safe functions.
//!
//! Invariants that the `unsafe` blocks rest on:
//!
//! - Memory that a request points to (arena, chunks, headers of messages, receive buffers) is on the heap or mapped, never moves, and lives
//!   as long as the request or the ring: it is freed after the ring is closed. Requests on sockets touch memory only while their thread is
//!   within a system call on the ring (deferred or cooperative task work), so that none does after it is closed.
//! - The part of the arena that requests read, `..used`, is not given out again until none is in flight.
//! - A receive buffer belongs to the kernel from [`Ring::give_back`] to the completion that names it, and to us otherwise.

use std::io;
use std::mem::MaybeUninit;
use std::ops::Range;
use std::os::fd::{AsRawFd, RawFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering, fence};
use std::thread::ThreadId;

use ::io_uring::{EnterFlags, IoUring, cqueue, opcode, squeue, types};

use crate::chunk::{self, ReceivedMemory};
use crate::udp::message::{CONTROL_BYTES, HeaderBuffers, IncomingMessage, NAME_BYTES, OutgoingMessage};

/// The most sends in flight.
pub(super) const BATCH: usize = 64;
/// Entries of the submission queue: sends, and receives of ports that are armed at the same time.
const SUBMISSIONS: u32 = 128;
/// Room for completions.
const COMPLETIONS: u32 = 1024;
/// Sockets that are registered with the ring; more are used by their descriptors.
const FILES: u32 = 512;
/// The one group of provided buffers.
const BUFFER_GROUP: u16 = 0;

/// How the kernel lays a received message out in a buffer: four counts, name, control messages, payload.
const COUNTS_BYTES: usize = 16;
const NAME_ROOM: usize = 32;
const PAYLOAD: usize = COUNTS_BYTES + NAME_ROOM + CONTROL_BYTES;
/// A full message of 64 KiB, and the above.
pub(super) const BUFFER_BYTES: usize = 66 * 1024;

const _: () = assert!(NAME_BYTES <= NAME_ROOM && PAYLOAD + (1 << 16) <= BUFFER_BYTES);

/// What a completion says.
#[derive(Debug)]
pub(super) struct Completion {
    pub(super) user_data: u64,
    pub(super) result: io::Result<u32>,
    /// The buffer that was filled.
    pub(super) buffer: Option<u16>,
    /// The request goes on: more completions come.
    pub(super) more: bool,
}

/// A file of the ring: by its place among those registered, or by descriptor.
#[derive(Clone, Copy, Debug)]
pub(super) enum File {
    Registered(u32),
    Descriptor(RawFd),
}

/// A message to be sent and what the kernel reads of it, in memory that does not move.
struct Header {
    message: libc::msghdr,
    slice: libc::iovec,
    buffers: HeaderBuffers,
    /// What it is sent from, if not from the arena.
    chunk: Option<Box<[u8]>>,
}

/// The bytes of a message: of a chunk, or else of the arena.
pub(super) struct Payload {
    pub(super) chunk: Option<Box<[u8]>>,
    pub(super) range: Range<usize>,
}

/// Memory of its own pages.
struct Mapping {
    start: NonNull<u8>,
    len: usize,
}

impl Mapping {
    /// Zeroed, present in memory.
    fn new(len: usize) -> io::Result<Mapping> {
        // SAFETY: a new mapping at an address of the kernel's choice touches no memory of ours.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                len,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_POPULATE,
                -1,
                0,
            )
        };
        match NonNull::new(start.cast::<u8>()) {
            Some(start) if start.as_ptr() != libc::MAP_FAILED.cast() => Ok(Mapping { start, len }),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, of this length, and nobody uses it any more.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.len) };
    }
}

/// Fields are dropped in this order: the ring first, then what it points to.
pub(super) struct Ring {
    uring: IoUring,
    /// The thread on which the ring's descriptor is registered.
    registered_on: Option<(ThreadId, u32)>,
    /// Before the first system call of the thread that owns it.
    disabled: bool,
    arena: Box<[u8]>,
    used: usize,
    in_flight: usize,
    headers: Box<[Header]>,
    /// Says how much room names and control messages have; shared by all receives.
    receive_header: Box<libc::msghdr>,
    /// Each belongs to the kernel or to us.
    buffers: Vec<Box<[u8]>>,
    buffer_ring: Mapping,
    buffer_count: u16,
    /// Buffers given to the kernel since the ring was made, modulo 2^16.
    tail: u16,
    files: Vec<u32>,
}

// SAFETY: the pointers inside point to memory that belongs to the value alone; the ring is used by one thread at a time.
unsafe impl Send for Ring {}

impl std::fmt::Debug for Ring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Ring")
    }
}

fn make(one_thread: bool) -> io::Result<IoUring> {
    let mut builder = IoUring::builder();
    builder
        .setup_cqsize(COMPLETIONS)
        .setup_taskrun_flag()
        .setup_submit_all();
    if one_thread {
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
    builder.build(SUBMISSIONS)
}

impl Ring {
    /// `buffers` must be a power of two. With `one_thread` only the thread that calls first may use the ring from then on, which is
    /// cheaper.
    pub(super) fn new(buffers: u16, arena_bytes: usize, one_thread: bool) -> io::Result<Ring> {
        // On a thread that ends at once: the kernel interrupts, when a ring closes, whatever system call the threads wait in that made or used it.
        let uring = std::thread::scope(|scope| {
            let builder = std::thread::Builder::new().name("ringway/ring".to_owned());
            let made = builder.spawn_scoped(scope, || make(one_thread))?.join();
            made.unwrap_or_else(|_| Err(io::Error::other("making a ring panicked")))
        })?;
        let buffer_ring = Mapping::new(usize::from(buffers) * size_of::<types::BufRingEntry>())?;
        // SAFETY: the ring of buffers is zeroed memory of its own pages, and outlives the ring.
        unsafe {
            uring.submitter().register_buf_ring_with_flags(
                buffer_ring.start.as_ptr() as u64,
                buffers,
                BUFFER_GROUP,
                0,
            )?;
        }
        // A limit on open files may stand against it: sockets are used by their descriptors then.
        let files = if uring.submitter().register_files_sparse(FILES).is_ok() {
            (0..FILES).rev().collect()
        } else {
            Vec::new()
        };
        // SAFETY: all zero is a valid value of this plain C structure.
        let message = unsafe { MaybeUninit::<libc::msghdr>::zeroed().assume_init() };
        let slice = libc::iovec {
            iov_base: std::ptr::null_mut(),
            iov_len: 0,
        };
        let mut ring = Ring {
            uring,
            registered_on: None,
            disabled: one_thread,
            arena: vec![0; arena_bytes].into(),
            used: 0,
            in_flight: 0,
            headers: (0..BATCH)
                .map(|_| Header {
                    message,
                    slice,
                    buffers: HeaderBuffers::EMPTY,
                    chunk: None,
                })
                .collect(),
            receive_header: Box::new(libc::msghdr {
                msg_namelen: NAME_ROOM as libc::socklen_t,
                msg_controllen: CONTROL_BYTES as _,
                ..message
            }),
            buffers: (0..buffers).map(|_| chunk::prefaulted(BUFFER_BYTES)).collect(),
            buffer_ring,
            buffer_count: buffers,
            tail: 0,
            files,
        };
        for buffer in 0..buffers {
            ring.give_back(buffer);
        }
        ring.publish_buffers();
        Ok(ring)
    }

    /// Signals an eventfd when completions come, or work that leads to some, while [`Ring::set_signals`] says so. (The ring's own
    /// descriptor, watched by epoll, does not tell of deferred work.)
    pub(super) fn signal(&mut self, eventfd: RawFd) -> io::Result<()> {
        self.uring.submitter().register_eventfd(eventfd)?;
        self.set_signals(false);
        Ok(())
    }

    /// Signals are wanted while the thread sleeps only: each costs a wake-up.
    pub(super) fn set_signals(&mut self, on: bool) {
        let completions = self.uring.completion();
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
        !self.uring.completion().is_empty()
    }

    /// Takes the ring into use on this thread.
    pub(super) fn enable(&mut self) -> io::Result<()> {
        if !self.disabled {
            return Ok(());
        }
        self.uring.submitter().register_enable_rings()?;
        self.disabled = false;
        self.register_ring();
        Ok(())
    }

    /// Lets this thread name the ring by an index, which saves the look-up of the descriptor in each system call.
    fn register_ring(&mut self) {
        let mut update = RegisterUpdate {
            offset: u32::MAX,
            reserved: 0,
            data: self.uring.as_raw_fd() as u64,
        };
        // SAFETY: `update` has the layout of `struct io_uring_rsrc_update` and lives during the call.
        let result = unsafe {
            libc::syscall(
                libc::SYS_io_uring_register,
                self.uring.as_raw_fd(),
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
        match self.uring.submitter().register_files_update(index, &[descriptor]) {
            Ok(_) => {
                self.files.pop();
                File::Registered(index)
            }
            Err(_) => File::Descriptor(descriptor),
        }
    }

    /// The ring forgets a socket. No request on it may be in flight.
    pub(super) fn remove_file(&mut self, file: File) {
        if let File::Registered(index) = file
            && self.uring.submitter().register_files_update(index, &[-1]).is_ok()
        {
            self.files.push(index);
        }
    }

    /// Receives messages from a socket, each into a buffer, until further notice. False if the submission queue is full.
    pub(super) fn push_receive(&mut self, file: File, user_data: u64) -> bool {
        let header: *const libc::msghdr = &raw const *self.receive_header;
        let entry = match file {
            File::Registered(index) => {
                opcode::RecvMsgMulti::new(types::Fixed(index), header, BUFFER_GROUP).build()
            }
            File::Descriptor(fd) => opcode::RecvMsgMulti::new(types::Fd(fd), header, BUFFER_GROUP).build(),
        };
        self.push(entry.user_data(user_data))
    }

    /// Ends a request; its last completion comes still. Nothing tells of the cancellation itself.
    pub(super) fn push_cancel(&mut self, user_data: u64, own: u64) -> bool {
        self.push(opcode::AsyncCancel::new(user_data).build().user_data(own))
    }

    fn push(&mut self, entry: squeue::Entry) -> bool {
        // SAFETY: what the entry points to is memory of `self` that stays in place, by the invariants above.
        unsafe { self.uring.submission().push(&entry) }.is_ok()
    }

    /// The part of the arena that is free, from [`Ring::used`] on.
    pub(super) fn free(&mut self) -> &mut [u8] {
        &mut self.arena[self.used..]
    }

    /// Bytes of the arena that hold messages.
    pub(super) fn used(&self) -> usize {
        self.used
    }

    /// Takes `len` bytes more of the arena into use.
    pub(super) fn take(&mut self, len: usize) {
        self.used = self.arena.len().min(self.used + len);
    }

    /// Sends that the kernel has not finished.
    pub(super) fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Frees the arena, if no send is in flight.
    pub(super) fn reset_arena(&mut self) {
        if self.in_flight == 0 {
            self.used = 0;
        }
    }

    /// True if something can be pushed.
    pub(super) fn has_room(&mut self) -> bool {
        !self.uring.submission().is_full()
    }

    /// Sends `payload` as `message` says, whose bytes are not looked at. `index` must be of no other send in flight. There must be room.
    pub(super) fn push_send(
        &mut self,
        file: File,
        index: usize,
        message: &OutgoingMessage<'_>,
        payload: Payload,
        user_data: u64,
    ) {
        let header = &mut self.headers[index];
        let Payload { chunk, range } = payload;
        header.chunk = chunk;
        let bytes = &header.chunk.as_deref().unwrap_or(&self.arena[..self.used])[range];
        let (name_len, control_len) = header.buffers.write(message);
        header.slice = libc::iovec {
            iov_base: bytes.as_ptr().cast_mut().cast(),
            iov_len: bytes.len(),
        };
        header.message.msg_name = header.buffers.name.as_mut_ptr().cast();
        header.message.msg_namelen = name_len as libc::socklen_t;
        header.message.msg_iov = &raw mut header.slice;
        header.message.msg_iovlen = 1;
        header.message.msg_control = if control_len == 0 {
            std::ptr::null_mut()
        } else {
            header.buffers.control.as_mut_ptr().cast()
        };
        header.message.msg_controllen = control_len as _;
        let header: *const libc::msghdr = &raw const header.message;
        let entry = match file {
            File::Registered(index) => opcode::SendMsg::new(types::Fixed(index), header).build(),
            File::Descriptor(fd) => opcode::SendMsg::new(types::Fd(fd), header).build(),
        };
        let pushed = self.push(entry.user_data(user_data));
        debug_assert!(pushed, "there was room");
        self.in_flight += 1;
    }

    /// A send has come to its end: gives back the chunk that it was sent from.
    pub(super) fn send_ended(&mut self, index: usize) -> Option<Box<[u8]>> {
        self.in_flight -= 1;
        self.headers.get_mut(index)?.chunk.take()
    }

    /// True if [`Ring::enter`] would do something: entries to submit, or work to finish.
    pub(super) fn has_work(&mut self) -> bool {
        let submission = self.uring.submission();
        !submission.is_empty() || submission.taskrun() || submission.cq_overflow()
    }

    /// Submits what was pushed and finishes what the kernel has deferred to this thread: one system call.
    pub(super) fn enter(&mut self) -> io::Result<()> {
        let pushed = self.uring.submission().len() as u32;
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
            // SAFETY: takes no pointer.
            None => unsafe {
                self.uring
                    .submitter()
                    .enter::<libc::sigset_t>(pushed, 0, flags, None)
            }
            .map(drop),
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
        let entry = self.uring.completion().next()?;
        let flags = entry.flags();
        Some(Completion {
            user_data: entry.user_data(),
            result: u32::try_from(entry.result()).map_err(|_| io::Error::from_raw_os_error(-entry.result())),
            buffer: cqueue::buffer_select(flags),
            more: cqueue::more(flags),
        })
    }

    /// A message in the buffer that a completion has named, and its payload.
    pub(super) fn message(
        &mut self,
        buffer: u16,
        len: usize,
    ) -> Option<(IncomingMessage, ReceivedMemory<'_>)> {
        let buffer = self.buffers.get_mut(usize::from(buffer))?;
        let (head, payload) = buffer.get(..len)?.split_at_checked(PAYLOAD)?;
        let count = |index: usize| {
            let bytes = head[index * 4..].first_chunk().copied().unwrap_or_default();
            u32::from_ne_bytes(bytes) as usize
        };
        // struct io_uring_recvmsg_out: namelen, controllen, payloadlen, flags.
        let (name_len, control_len, flags) = (count(0).min(NAME_ROOM), count(1).min(CONTROL_BYTES), count(3));
        let name = &head[COUNTS_BYTES..COUNTS_BYTES + name_len];
        let control = &head[COUNTS_BYTES + NAME_ROOM..][..control_len];
        Some((
            IncomingMessage::read(name, control, payload.len(), flags as libc::c_int),
            ReceivedMemory::Heap(buffer, PAYLOAD..len),
        ))
    }

    /// Gives a buffer to the kernel, which sees it after [`Ring::publish_buffers`].
    pub(super) fn give_back(&mut self, buffer: u16) {
        let Some(memory) = self.buffers.get_mut(usize::from(buffer)) else {
            return;
        };
        let (address, len) = (memory.as_mut_ptr() as u64, memory.len() as u32);
        let place = usize::from(self.tail & (self.buffer_count - 1));
        let entries = self.buffer_ring.start.as_ptr().cast::<types::BufRingEntry>();
        // SAFETY: within the mapping, which has an entry for each buffer.
        let entry = unsafe { entries.add(place) };
        // SAFETY: zeroed memory is a valid entry; the kernel does not read entries from the tail on.
        let entry = unsafe { &mut *entry };
        entry.set_addr(address);
        entry.set_len(len);
        entry.set_bid(buffer);
        self.tail = self.tail.wrapping_add(1);
    }

    /// Shows the kernel the buffers that were given back.
    pub(super) fn publish_buffers(&mut self) {
        // SAFETY: the mapping begins with the first entry of the ring of buffers.
        let tail = unsafe { types::BufRingEntry::tail(self.buffer_ring.start.as_ptr().cast()) };
        // SAFETY: the tail is aligned, lives as long as the mapping, and is written by us alone and atomically.
        let tail = unsafe { AtomicU16::from_ptr(tail.cast_mut()) };
        tail.store(self.tail, Ordering::Release);
    }

    /// Lets the kernel poll the NIC's queues of our sockets for so long before it sleeps.
    pub(super) fn busy_poll(&mut self, micros: u32) -> io::Result<()> {
        let mut napi = types::Napi::new()
            .set_busy_poll_timeout(micros)
            .set_prefer_busy_poll(true);
        self.uring.submitter().register_napi(&mut napi)
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
                    self.uring.as_raw_fd(),
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
