//! The socket of a queue whose interface goes away, and the one in its place when the interface is back.

use std::io;
use std::os::fd::OwnedFd;

use super::{Drain, Stage, Xsk};
use crate::af_xdp::chunk_size::{ChunkSize, packet_max};
use crate::af_xdp::explain::explain;
use crate::af_xdp::program::Program;
use crate::af_xdp::reserve::Reserve;
use crate::af_xdp::socket::{BindMode, Binding, Kernel, SpareSocket, XskSocket};
use crate::config::CopyMode;
use crate::thread;

/// How often an interface may return to a process that has dropped its privileges: sockets that are kept for each queue.
const RETURNS: usize = 4;

impl Xsk<XskSocket> {
    /// The interface is gone, as far as is known.
    pub(in crate::af_xdp) fn is_lost(&self) -> bool {
        self.stage == Stage::Lost
    }

    pub(in crate::af_xdp) fn is_bound(&self) -> bool {
        self.stage == Stage::Bound
    }

    pub(in crate::af_xdp) fn is_served(&self) -> bool {
        self.is_bound() && self.receives
    }

    /// The program has taken out all sockets.
    pub(in crate::af_xdp) fn on_sockets_removed(&mut self) {
        self.receives = false;
    }

    /// Lets the program give it what comes in on the queue.
    pub(in crate::af_xdp) fn receive_by(&mut self, program: &Program) -> io::Result<()> {
        let socket = self.kernel.as_ref().ok_or(io::ErrorKind::NotConnected)?;
        let chunk_bytes = self.rings.memory().chunk_bytes();
        let packet_max = packet_max(chunk_bytes, self.wanted, self.jumbo.is_some());
        program.set_socket(self.queue, socket.descriptor(), packet_max)?;
        self.receives = true;
        Ok(())
    }

    /// Closes the socket if its interface is gone, with which the locked memory goes that is accounted to it; chunks and memory stay.
    pub(in crate::af_xdp) fn let_go(&mut self) {
        if self.stage == Stage::Unbound {
            return;
        }
        let Some(kernel) = self.kernel.take() else { return };
        let mut counted = kernel.counts().unwrap_or_default();
        counted.dropped += u64::from(self.rings.received());
        let unsent = u64::from(self.rings.unsent());
        self.kernel = kernel.close(&mut self.rings, &mut self.visited, &mut self.free);
        if self.kernel.is_some() {
            return;
        }
        self.before += counted;
        self.refused_sends += unsent;
        self.stage = Stage::Unbound;
        self.receives = false;
        self.give_up_ready();
        self.drain = Drain::default();
        self.network_down = false;
        self.busy_poll = false;
        self.skipping = false;
        self.empty_polls = 0;
        if let Some(jumbo) = &mut self.jumbo {
            jumbo.forget();
        }
    }

    /// Keeps sockets with which its memory is registered for the times when the interface has gone and returned: as long as there is the privilege,
    /// and where it has no bound.
    pub(in crate::af_xdp) fn keep_sockets(&mut self) {
        while self.spare_sockets.len() < RETURNS && thread::may_lock_memory() {
            match XskSocket::open().and_then(|descriptor| self.register(descriptor)) {
                Ok(spare) => self.spare_sockets.push(spare),
                Err(error) => {
                    return tracing::debug!(%error, "AF_XDP sockets are not kept for an interface that returns");
                }
            }
        }
    }

    /// The memory may be accounted to the former socket still, until the kernel is done with that: the same one is tried again.
    fn register_one_of(&mut self, reserve: &Reserve) -> io::Result<SpareSocket> {
        let kept = self.unregistered.take();
        let descriptor = kept.map_or_else(|| reserve.take(), Ok)?;
        let same = match descriptor.try_clone() {
            Ok(same) => same,
            Err(error) => {
                self.unregistered = Some(descriptor);
                return Err(error);
            }
        };
        self.register(descriptor).inspect_err(|error| {
            // If it has memory already, what failed was behind that: it would never take any.
            if error.raw_os_error() != Some(libc::EBUSY) {
                self.unregistered = Some(same);
            }
        })
    }

    fn register(&self, descriptor: OwnedFd) -> io::Result<SpareSocket> {
        XskSocket::register(descriptor, self.rings.memory(), self.rings.sizes())
    }

    /// Binds to the queue of an interface that is back, with a socket in the place of the one that was closed: in the mode in which it was opened, or
    /// with copies, for the reason that it gives.
    pub(in crate::af_xdp) fn serve_again(
        &mut self,
        interface: u32,
        mtu: u32,
        copy: CopyMode,
        reserve: &Reserve,
    ) -> io::Result<Option<String>> {
        let chunk_bytes = self.rings.memory().chunk_bytes();
        let size = ChunkSize::of(mtu, self.wanted);
        if size.bytes > chunk_bytes || size.multi_buffer && self.jumbo.is_none() {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                format!(
                    "packet memory was made for a smaller MTU than {}: set that of before, or start anew",
                    mtu
                ),
            ));
        }
        if self.kernel.is_none() {
            let spare = match self.spare_sockets.pop() {
                Some(spare) => Ok(spare),
                None => self.register_one_of(reserve),
            };
            let socket = spare.and_then(|spare| XskSocket::replace(spare, &mut self.rings));
            self.kernel = Some(
                socket.map_err(|error| explain("an AF_XDP socket in the place of the former one", &error))?,
            );
            self.refill();
        }
        let Some(socket) = &self.kernel else {
            return Err(io::ErrorKind::NotConnected.into());
        };
        let bind = |mode| {
            let binding = Binding {
                interface,
                queue: self.queue,
                mode,
                multi_buffer: self.jumbo.is_some(),
            };
            let bound = socket.bind(binding);
            bound.map_err(|error| explain("binding an AF_XDP socket", &error))
        };
        let (mode, reason) = bind_again(self.wanted, copy, bind)?;
        socket.raise_budget();
        self.mode = mode;
        self.stage = Stage::Bound;
        self.keep_sockets();
        Ok(reason)
    }

    /// The NIC reads and writes our memory itself.
    pub(in crate::af_xdp) fn is_zero_copy(&self) -> bool {
        self.mode == BindMode::ZeroCopy
    }
}

/// Where copies are not allowed, what has no other way is tried again.
fn bind_again(
    wanted: BindMode,
    copy: CopyMode,
    bind: impl Fn(BindMode) -> io::Result<()>,
) -> io::Result<(BindMode, Option<String>)> {
    match bind(wanted) {
        Err(error) if wanted == BindMode::ZeroCopy && copy != CopyMode::ZeroCopy => {
            bind(BindMode::Copy).map(|()| (BindMode::Copy, Some(error.to_string())))
        }
        bound => bound.map(|()| (wanted, None)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queue_without_copies_comes_back_with_copies_for_a_reason_and_only_where_they_are_allowed() {
        let without = |mode| match mode {
            BindMode::ZeroCopy => Err(io::Error::other("not now")),
            BindMode::Copy => Ok(()),
        };
        let (mode, reason) = bind_again(BindMode::ZeroCopy, CopyMode::Auto, without).unwrap();
        assert_eq!((mode, reason.as_deref()), (BindMode::Copy, Some("not now")));
        bind_again(BindMode::ZeroCopy, CopyMode::ZeroCopy, without).unwrap_err();
        let both = bind_again(BindMode::ZeroCopy, CopyMode::Auto, |_| Ok(())).unwrap();
        assert_eq!(both, (BindMode::ZeroCopy, None));
        let copied = bind_again(BindMode::Copy, CopyMode::ZeroCopy, without).unwrap();
        assert_eq!(copied, (BindMode::Copy, None));
    }
}
