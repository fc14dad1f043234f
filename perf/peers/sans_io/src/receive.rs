//! Receiving.

use std::io::{ErrorKind, IoSliceMut};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use anyhow::Result;
use quinn_udp::RecvMeta;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use crate::Socket;

/// Messages that are taken with a call. Few, so that their buffers stay in cache, and the peer need not wait long for an answer.
const BATCH: usize = 4;
/// What a run of datagrams can have.
const MESSAGE: usize = 64 << 10;

/// The receiving direction.
pub struct Receiver {
    socket: Rc<Socket>,
    buffer: Box<[u8]>,
    meta: [RecvMeta; BATCH],
}

impl Receiver {
    pub(crate) fn new(socket: Rc<Socket>) -> Self {
        Receiver {
            socket,
            buffer: vec![0; BATCH * MESSAGE].into(),
            meta: [RecvMeta::default(); BATCH],
        }
    }

    /// Waits until there is something to receive, at most for `limit`; `None`: for as long as it takes.
    pub fn wait(&self, limit: Option<Duration>) -> Result<()> {
        // More than a day is no limit.
        let limit = limit.map(|limit| limit.min(Duration::from_secs(86400)));
        let limit = limit.map(|limit| Timespec {
            tv_sec: limit.as_secs() as i64,
            tv_nsec: limit.subsec_nanos().into(),
        });
        match poll(
            &mut [PollFd::new(&self.socket.socket, PollFlags::IN)],
            limit.as_ref(),
        ) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Takes in datagrams with one call, without waiting: each with who sent it.
    pub fn receive(&mut self, mut each: impl FnMut(SocketAddr, &mut [u8]) -> Result<()>) -> Result<()> {
        let mut buffers: [IoSliceMut<'_>; BATCH] = {
            let mut chunks = self.buffer.chunks_exact_mut(MESSAGE);
            std::array::from_fn(|_| IoSliceMut::new(chunks.next().unwrap_or_default()))
        };
        let Socket { socket, state, .. } = &*self.socket;
        let count = match state.recv(socket.into(), &mut buffers, &mut self.meta) {
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(self.socket.explain(error)),
        };
        for (meta, buffer) in self.meta[..count].iter().zip(&mut buffers) {
            // An empty datagram has no stride.
            for datagram in buffer[..meta.len].chunks_mut(meta.stride.max(1)) {
                each(meta.addr, datagram)?;
            }
        }
        Ok(())
    }
}

/// Whether a datagram belongs to a handshake. That costs its receiver so much that what it has to say goes out at once, so that
/// the other end can work meanwhile; else the two would wait for each other.
pub fn is_handshake(datagram: &[u8]) -> bool {
    // A long header (RFC 8999, section 5.1).
    datagram.first().is_some_and(|first| first & 0x80 != 0)
}
