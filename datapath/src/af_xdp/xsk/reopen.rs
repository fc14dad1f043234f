//! The socket of a queue whose interface goes away, and the one in its place when the interface is back.

use std::io;
use std::os::fd::OwnedFd;

use super::{Drain, Stage, Xsk};
use crate::af_xdp::chunk_size::ChunkSize;
use crate::af_xdp::explain::explain;
use crate::af_xdp::program::Program;
use crate::af_xdp::reserve::Reserve;
use crate::af_xdp::socket::{BindMode, Binding, Kernel, SpareSocket, XskSocket};
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
        program.set_socket(self.queue, socket.descriptor())?;
        self.receives = true;
        Ok(())
    }

    /// Closes the socket if its interface is gone, with which the locked memory goes that is accounted to it; chunks and memory stay.
    pub(in crate::af_xdp) fn let_go(&mut self) {
        if self.stage == Stage::Unbound {
            return;
        }
        let Some(kernel) = self.kernel.take() else { return };
        let counted = kernel.counts().unwrap_or_default();
        self.kernel = kernel.close(&mut self.rings, &mut self.visited, &mut self.free);
        if self.kernel.is_some() {
            return;
        }
        self.before += counted;
        self.stage = Stage::Unbound;
        self.receives = false;
        self.free
            .extend(self.ready.drain(..).map(|outgoing| outgoing.chunk));
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

    /// One to which nothing was done comes back: the memory may be accounted to the former socket still, until the kernel is done with that.
    fn register_one_of(&self, reserve: &Reserve) -> io::Result<SpareSocket> {
        let descriptor = reserve.take()?;
        let same = descriptor.try_clone()?;
        self.register(descriptor).inspect_err(|error| {
            if error.raw_os_error() == Some(libc::ENOBUFS) {
                reserve.give_back(same);
            }
        })
    }

    fn register(&self, descriptor: OwnedFd) -> io::Result<SpareSocket> {
        XskSocket::register(descriptor, self.rings.memory(), self.rings.sizes())
    }

    /// Serves the queue of an interface that is back, with a socket in the place of the one that was closed: in the mode of that, or with copies.
    pub(in crate::af_xdp) fn serve_again(
        &mut self,
        interface: u32,
        mtu: u32,
        reserve: &Reserve,
    ) -> io::Result<()> {
        let chunk_bytes = self.rings.memory().chunk_bytes();
        let size = ChunkSize::of(mtu, self.mode);
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
            self.kernel = Some(socket.map_err(|error| {
                explain(
                    "an AF_XDP socket in the place of the former one",
                    self.queue,
                    &error,
                )
            })?);
            self.refill();
        }
        let Some(socket) = &self.kernel else {
            return Ok(());
        };
        let bind = |mode| {
            socket.bind(Binding {
                interface,
                queue: self.queue,
                mode,
                multi_buffer: self.jumbo.is_some(),
            })
        };
        match bind(self.mode) {
            Err(_) if self.mode == BindMode::ZeroCopy => {
                bind(BindMode::Copy).map(|()| self.mode = BindMode::Copy)
            }
            bound => bound,
        }
        .map_err(|error| explain("binding an AF_XDP socket", self.queue, &error))?;
        socket.raise_budget();
        self.stage = Stage::Bound;
        self.keep_sockets();
        Ok(())
    }

    /// The NIC reads and writes our memory itself.
    pub(in crate::af_xdp) fn is_zero_copy(&self) -> bool {
        self.mode == BindMode::ZeroCopy
    }
}
