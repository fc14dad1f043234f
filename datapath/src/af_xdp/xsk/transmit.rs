//! Chunks to send from: written, given to the kernel, and taken back.

use std::io;

use super::{Stage, TRANSMIT_BATCH, Xsk};
use crate::af_xdp::jumbo::JUMBO_CHUNKS;
use crate::af_xdp::socket::Kernel;
use crate::umem::{Outgoing, UmemChunk};

impl<K: Kernel> Xsk<K> {
    /// The chunk that is sent next. `None` while all are with the kernel.
    pub(in crate::af_xdp) fn frame(&mut self) -> Option<&mut [u8]> {
        if self.jumbo.is_some() {
            if self.free.len() < JUMBO_CHUNKS {
                self.flush();
            }
            // If it can go by the sockets only, it needs none.
            let has_room = self.free.len() >= JUMBO_CHUNKS || !self.can_send();
            return self
                .jumbo
                .as_mut()
                .filter(|_| has_room)
                .map(|jumbo| &mut jumbo.building[..]);
        }
        if self.building.is_none() {
            if self.free.is_empty() {
                self.flush();
            }
            self.building = self.free.pop();
        }
        self.building.as_mut().map(UmemChunk::bytes)
    }

    /// Sends the first `len` bytes of it.
    pub(in crate::af_xdp) fn commit(&mut self, len: usize) {
        if let Some(jumbo) = &self.jumbo {
            let mut rest = &jumbo.building[..len];
            // Of another thread, when the kernel has just begun to send again.
            if self.free.len() < JUMBO_CHUNKS {
                self.refused_sends += 1;
                return;
            }
            while let Some(mut chunk) = self.free.pop_if(|_| !rest.is_empty()) {
                let bytes = chunk.bytes();
                let part;
                (part, rest) = rest.split_at(rest.len().min(bytes.len()));
                bytes[..part.len()].copy_from_slice(part);
                self.ready.push(Outgoing {
                    chunk,
                    len: part.len() as u32,
                    more: !rest.is_empty(),
                });
            }
        } else if let Some(chunk) = self.building.take() {
            self.ready.push(Outgoing {
                chunk,
                len: len as u32,
                more: false,
            });
        }
        if self.ready.len() >= TRANSMIT_BATCH {
            self.flush();
        }
    }

    /// Hands over what is committed, and takes back what is sent.
    pub(in crate::af_xdp) fn flush(&mut self) {
        if self.stage != Stage::Bound {
            return;
        }
        self.rings.complete(&mut self.free);
        if !self.ready.is_empty() {
            self.rings.send(&mut self.ready);
        }
        // Without something that the kernel has not taken yet there is nothing to tell it: what it has sent it returns when it is freed.
        let mut unsent = self.rings.unsent();
        if unsent == 0 && !self.drain.has_left() {
            return;
        }
        let mut kicks = 0;
        self.network_down = false;
        while unsent > 0
            && kicks < KICKS_MAX
            && self.rings.transmit_needs_wakeup()
            && let Some(kernel) = &self.kernel
        {
            kicks += 1;
            let answer = kernel.send();
            let before = std::mem::replace(&mut unsent, self.rings.unsent());
            if !self.on_answer(answer, unsent != before) || unsent == before {
                break;
            }
        }
        self.kicks += u64::from(kicks);
        self.drain
            .on_asked(self.rings.begun(), unsent > 0 && !self.network_down);
        self.rings.complete(&mut self.free);
    }

    /// What is committed and not on the ring is lost.
    pub(super) fn give_up_ready(&mut self) {
        self.refused_sends += self.ready.len() as u64;
        self.free
            .extend(self.ready.drain(..).map(|outgoing| outgoing.chunk));
    }

    /// What the kernel says when it is asked to send; false if there is no point in asking again.
    ///
    /// Where it copies, a call ends at a budget, with `EAGAIN`, and behind each frame that the link refuses, with `EBUSY`: that frame is lost, and
    /// what is behind it has not been tried.
    fn on_answer(&mut self, answer: io::Result<()>, something_went: bool) -> bool {
        let Err(error) = answer else { return true };
        match error.raw_os_error() {
            Some(libc::EBUSY) => {
                self.refused_sends += u64::from(something_went);
                true
            }
            Some(libc::EAGAIN | libc::ENOBUFS | libc::EINTR) => true,
            // Frames wait, which is no fault.
            Some(libc::ENETDOWN) => {
                self.network_down = true;
                false
            }
            // Not bound any more: the interface was deleted. Drivers say so too, while the NIC may write to our memory.
            Some(libc::ENXIO) if self.kernel.as_ref().is_some_and(Kernel::is_unbound) => {
                tracing::error!(%error, "the interface of an AF_XDP socket is gone: its datagrams go by the kernel's sockets");
                self.stage = Stage::Lost;
                self.give_up_ready();
                false
            }
            _ => {
                tracing::debug!(%error, queue = self.queue, "AF_XDP does not send");
                false
            }
        }
    }
}

/// How often the kernel is asked to go on sending in one go: it may lose a frame each time.
const KICKS_MAX: u32 = 256;
