//! The link that attaches an XDP program to an interface, and a map of the program as memory, behind safe functions.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

use ringway_bpf::QUEUES_MAX;

// linux/bpf.h, linux/if_link.h
const BPF_LINK_CREATE: libc::c_int = 28;
const BPF_XDP: u32 = 37;
const XDP_FLAGS_SKB_MODE: u32 = 2;
const XDP_FLAGS_DRV_MODE: u32 = 4;

/// The part of `union bpf_attr` that creates a link.
#[repr(C)]
#[derive(Default)]
struct LinkCreate {
    program: u32,
    interface: u32,
    kind: u32,
    flags: u32,
    /// More of the union, zero.
    rest: [u64; 6],
}

/// Attaches an XDP program to an interface for as long as the descriptor that it gives is open: also if the process is killed.
pub(super) fn attach(program: BorrowedFd<'_>, interface: u32, native: bool) -> io::Result<OwnedFd> {
    let request = LinkCreate {
        program: program.as_raw_fd() as u32,
        interface,
        kind: BPF_XDP,
        flags: if native {
            XDP_FLAGS_DRV_MODE
        } else {
            XDP_FLAGS_SKB_MODE
        },
        ..LinkCreate::default()
    };
    // SAFETY: `request` has the layout of this part of the union, lives during the call, and its size is given.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            BPF_LINK_CREATE,
            &raw const request,
            size_of::<LinkCreate>() as libc::c_uint,
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just given us this descriptor; nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(result as libc::c_int) })
}

/// Which processor serves each receive queue: a map of the XDP program, seen as memory.
#[derive(Debug)]
pub(super) struct QueueProcessors {
    processors: NonNull<[AtomicU64; QUEUES_MAX as usize]>,
}

// SAFETY: atomics, and a mapping that is bound to no thread.
unsafe impl Send for QueueProcessors {}
// SAFETY: as above.
unsafe impl Sync for QueueProcessors {}

impl QueueProcessors {
    /// See [`XdpProgram::processors`](ringway_bpf::XdpProgram::processors).
    pub(super) fn map(processors: BorrowedFd<'_>) -> io::Result<QueueProcessors> {
        // SAFETY: a new mapping, anywhere.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                size_of::<[AtomicU64; QUEUES_MAX as usize]>(),
                libc::PROT_READ,
                libc::MAP_SHARED,
                processors.as_raw_fd(),
                0,
            )
        };
        match NonNull::new(start) {
            Some(start) if start.as_ptr() != libc::MAP_FAILED => Ok(QueueProcessors {
                processors: start.cast(),
            }),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// The one that served a queue last. `None` before any datagram to an endpoint came.
    pub(super) fn of(&self, queue: u32) -> Option<usize> {
        // SAFETY: mapped as long as `self` lives, of this size and aligned to pages; the program writes whole values only.
        let processors = unsafe { self.processors.as_ref() };
        let noted = processors.get(queue as usize)?.load(Ordering::Relaxed);
        usize::try_from(noted.checked_sub(1)?).ok()
    }
}

impl Drop for QueueProcessors {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and nobody has borrowed it.
        unsafe {
            libc::munmap(
                self.processors.as_ptr().cast(),
                size_of::<[AtomicU64; QUEUES_MAX as usize]>(),
            )
        };
    }
}
