//! Sockets for queues that an interface may get later, opened as long as the process has the privilege.
//!
//! Where locked memory is bounded, those for queues of an interface that goes away and returns are among them: the memory of the former ones is
//! registered with them when that is accounted to nobody any more.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Mutex, PoisonError};

use super::socket::XskSocket;

/// Sockets of which nothing was made yet. All devices of an interface take from it.
#[derive(Debug, Default)]
pub(super) struct Reserve(Mutex<Vec<OwnedFd>>);

impl Reserve {
    /// Keeps sockets for so many queues.
    pub(super) fn fill(&self, queues: usize) {
        let sockets = (0..RESERVE_MAX.min(queues * TRIES)).map(|_| XskSocket::open());
        match sockets.collect::<io::Result<Vec<_>>>() {
            Ok(sockets) => *self.0.lock().unwrap_or_else(PoisonError::into_inner) = sockets,
            // Those that are needed are opened when they are.
            Err(error) => tracing::debug!(%error, "AF_XDP sockets are not kept for later queues"),
        }
    }

    /// A new one, which takes CAP_NET_RAW, or else one of them.
    pub(super) fn take(&self) -> io::Result<OwnedFd> {
        XskSocket::open().or_else(|error| {
            let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
            kept.ok_or(error)
        })
    }
}

/// Sockets that one queue may take: it is tried without copies and with them, and again where the driver is about to start its queues anew.
const TRIES: usize = 4;
const RESERVE_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use std::process::Command;

    use nix::sched::{CloneFlags, unshare};

    use super::super::socket::{BindMode, Binding};
    use super::*;
    use crate::thread;
    use crate::umem::RingSizes;

    fn bind(descriptor: OwnedFd, queue: u32) -> io::Result<()> {
        let sizes = RingSizes {
            fill: 64,
            receive: 64,
            transmit: 64,
        };
        let (socket, _rings, _chunks) = XskSocket::new(descriptor, 4096, 64, 0, sizes)?;
        let veth = nix::net::if_::if_nametoindex("rw0")?;
        socket.bind(Binding {
            interface: veth,
            queue,
            mode: BindMode::Copy,
            multi_buffer: false,
        })
    }

    /// On a thread of its own, in a network namespace of its own.
    #[test]
    #[allow(clippy::print_stdout, reason = "the reason why a test is skipped")]
    fn socket_of_the_reserve_is_bound_when_there_are_no_capabilities_any_more() {
        let test = || {
            if let Err(error) = unshare(CloneFlags::CLONE_NEWNET) {
                return println!("SKIP a network namespace is needed: {error}");
            }
            let words = "link add rw0 numrxqueues 5 numtxqueues 5 type veth peer name rw1";
            let status = Command::new("ip").args(words.split(' ')).status();
            assert!(status.unwrap().success());
            let reserve = Reserve::default();
            reserve.fill(1);
            bind(reserve.take().unwrap(), 0).unwrap();
            thread::drop_capabilities().unwrap();
            for queue in 1..=TRIES as u32 {
                bind(reserve.take().unwrap(), queue).unwrap();
            }
            let refused = reserve.take().unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::PermissionDenied);
        };
        std::thread::scope(|scope| scope.spawn(test).join()).unwrap();
    }
}
