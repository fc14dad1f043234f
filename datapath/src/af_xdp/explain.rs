//! Errors of AF_XDP sockets.

use std::io;

/// What the system lacks, in words that say what to do.
pub(super) fn explain(what: &str, error: &io::Error) -> io::Error {
    let hint = match error.raw_os_error() {
        Some(libc::EPERM) => "it needs CAP_NET_RAW",
        Some(libc::ENOBUFS | libc::ENOMEM) => {
            "the locked memory limit does not suffice (ulimit -l, RLIMIT_MEMLOCK, LimitMEMLOCK= of a service) and CAP_IPC_LOCK is missing"
        }
        Some(libc::EBUSY) => "in use: another process has an AF_XDP socket on it",
        Some(libc::EOPNOTSUPP) => "the driver cannot do it this way",
        Some(libc::EINVAL) => "the interface has no such queue, or the driver cannot do it this way",
        Some(libc::EAFNOSUPPORT) => "this kernel has no AF_XDP",
        _ => "it failed",
    };
    io::Error::new(error.kind(), format!("{what}: {hint}: {error}"))
}

/// What of it is of one queue.
pub(super) fn of_queue(queue: u32, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("queue {queue}: {error}"))
}
