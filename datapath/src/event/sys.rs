//! System calls of the event queue.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

use io_uring::{IoUring, opcode, squeue, types};

/// The most events taken from the kernel at once.
pub(super) const EVENTS_MAX: usize = 16;

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

pub(super) fn epoll_create() -> io::Result<OwnedFd> {
    // SAFETY: takes no pointer.
    let fd = check(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })?;
    // SAFETY: the kernel has just given us this descriptor; nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

pub(super) fn eventfd() -> io::Result<OwnedFd> {
    // SAFETY: takes no pointer.
    let fd = check(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) })?;
    // SAFETY: the kernel has just given us this descriptor; nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Readable after this time.
#[cfg(feature = "af_xdp")]
pub(super) fn timer(time: Duration) -> io::Result<OwnedFd> {
    // SAFETY: takes no pointer.
    let fd = check(unsafe {
        libc::timerfd_create(libc::CLOCK_MONOTONIC, libc::TFD_CLOEXEC | libc::TFD_NONBLOCK)
    })?;
    // SAFETY: the kernel has just given us this descriptor; nobody else owns it.
    let timer = unsafe { OwnedFd::from_raw_fd(fd) };
    let zero = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    let once = libc::itimerspec {
        it_interval: zero,
        it_value: libc::timespec {
            tv_sec: time.as_secs() as libc::time_t,
            tv_nsec: time.subsec_nanos() as libc::c_long,
        },
    };
    // SAFETY: `once` lives during the call, and nothing is written.
    check(unsafe { libc::timerfd_settime(fd, 0, &raw const once, std::ptr::null_mut()) })?;
    Ok(timer)
}

pub(super) fn epoll_control(epoll: &OwnedFd, op: libc::c_int, fd: RawFd, events: u32) -> io::Result<()> {
    control(epoll, op, fd, events, fd as u64)
}

/// Watches an epoll instance in another one.
pub(super) fn epoll_watch(epoll: &OwnedFd, watched: BorrowedFd<'_>, user_data: u64) -> io::Result<()> {
    control(
        epoll,
        libc::EPOLL_CTL_ADD,
        watched.as_raw_fd(),
        libc::EPOLLIN as u32,
        user_data,
    )
}

pub(super) fn epoll_unwatch(epoll: &OwnedFd, watched: BorrowedFd<'_>) -> io::Result<()> {
    control(epoll, libc::EPOLL_CTL_DEL, watched.as_raw_fd(), 0, 0)
}

fn control(epoll: &OwnedFd, op: libc::c_int, fd: RawFd, events: u32, user_data: u64) -> io::Result<()> {
    let mut event = libc::epoll_event {
        events,
        u64: user_data,
    };
    // SAFETY: `event` lives during the call, and the kernel keeps no pointer to it.
    check(unsafe { libc::epoll_ctl(epoll.as_raw_fd(), op, fd, &mut event) }).map(drop)
}

/// Waits for events and calls `ready` with the descriptors that have one.
pub(super) fn epoll_wait(
    epoll: &OwnedFd,
    timeout: Option<Duration>,
    mut ready: impl FnMut(RawFd),
) -> io::Result<()> {
    let mut events = [libc::epoll_event { events: 0, u64: 0 }; EVENTS_MAX];
    let time = timeout.map(|timeout| libc::timespec {
        tv_sec: timeout.as_secs().min(i32::MAX as u64) as libc::time_t,
        tv_nsec: timeout.subsec_nanos() as libc::c_long,
    });
    let time = time.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
    // SAFETY: `events` has room for as many as are asked for; `time` is null or points to a value that lives during the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_epoll_pwait2,
            epoll.as_raw_fd(),
            events.as_mut_ptr(),
            EVENTS_MAX as libc::c_int,
            time,
            std::ptr::null::<libc::sigset_t>(),
            0usize,
        )
    };
    let count = if result < 0 {
        let error = io::Error::last_os_error();
        match error.raw_os_error() {
            Some(libc::EINTR) => 0,
            // Linux before 5.11, and some sandboxes: milliseconds, rounded up so that no timer fires early and spins.
            Some(libc::ENOSYS) => epoll_wait_millis(epoll, timeout, &mut events)?,
            _ => return Err(error),
        }
    } else {
        result as usize
    };
    events[..count].iter().for_each(|event| ready(event.u64 as RawFd));
    Ok(())
}

fn epoll_wait_millis(
    epoll: &OwnedFd,
    timeout: Option<Duration>,
    events: &mut [libc::epoll_event; EVENTS_MAX],
) -> io::Result<usize> {
    let millis = timeout.map_or(-1, |timeout| {
        timeout.as_nanos().div_ceil(1_000_000).min(i32::MAX as u128) as i32
    });
    // SAFETY: `events` has room for as many as are asked for.
    let result = unsafe {
        libc::epoll_wait(
            epoll.as_raw_fd(),
            events.as_mut_ptr(),
            EVENTS_MAX as libc::c_int,
            millis,
        )
    };
    match check(result) {
        Ok(count) => Ok(count as usize),
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(0),
        Err(error) => Err(error),
    }
}

pub(super) fn eventfd_signal(fd: BorrowedFd<'_>) {
    let one = 1u64;
    // SAFETY: writes 8 bytes from a value that lives during the call. An error (the counter is full) leaves it signalled.
    let _ = unsafe { libc::write(fd.as_raw_fd(), std::ptr::from_ref(&one).cast(), 8) };
}

pub(super) fn eventfd_clear(fd: BorrowedFd<'_>) {
    let mut count = 0u64;
    // SAFETY: reads 8 bytes into a value that lives during the call. An error means that it was clear.
    let _ = unsafe { libc::read(fd.as_raw_fd(), std::ptr::from_mut(&mut count).cast(), 8) };
}

/// Watches an epoll instance in a ring, until it is readable. From the next submission on: completions are the business of the thread that
/// submits.
pub(super) fn ring_watch(ring: &mut IoUring, watched: BorrowedFd<'_>, user_data: u64) -> io::Result<()> {
    let poll = opcode::PollAdd::new(types::Fd(watched.as_raw_fd()), libc::POLLIN as u32);
    push(ring, &poll.build().user_data(user_data))
}

/// Ends what [`ring_watch`] began, with the next submission.
pub(super) fn ring_unwatch(ring: &mut IoUring, user_data: u64) -> io::Result<()> {
    let remove = opcode::PollRemove::new(user_data).build();
    // Its own completion is nobody's.
    let remove = remove.flags(squeue::Flags::SKIP_SUCCESS).user_data(u64::MAX);
    push(ring, &remove)
}

fn push(ring: &mut IoUring, entry: &squeue::Entry) -> io::Result<()> {
    if ring.submission().is_full() {
        ring.submit()?;
    }
    // SAFETY: the entry polls, or ends a poll: it points to no memory. A descriptor that is closed before the submission makes it fail.
    let pushed = unsafe { ring.submission().push(entry) };
    pushed.map_err(|_| {
        io::Error::new(
            io::ErrorKind::WouldBlock,
            "the submission queue of the io_uring stays full",
        )
    })
}
