//! Messages that are sent: what the kernel reads of each, in memory that does not move, and the arena from which most of them go.

mod sys;

use std::os::fd::RawFd;

use ::io_uring::{opcode, squeue, types};

pub(super) use self::sys::empty_message;
use crate::udp::StagedRun;
use crate::udp::message::{HeaderBuffers, OutgoingMessage};

/// The most sends in flight.
pub(super) const BATCH: usize = 64;

/// A file of the ring: by its place among those registered, or by descriptor.
#[derive(Clone, Copy, Debug)]
pub(super) enum File {
    Registered(u32),
    Descriptor(RawFd),
}

pub(super) struct Sends {
    arena: Box<[u8]>,
    /// The first bytes of the arena that hold messages. Not given out again until no send is in flight.
    used: usize,
    headers: Box<[Header]>,
    /// Places in `headers` of no send in flight.
    free: Vec<u16>,
}

/// A message to be sent and what the kernel reads of it.
struct Header {
    message: libc::msghdr,
    slice: libc::iovec,
    buffers: HeaderBuffers,
    /// While it is in flight.
    run: Option<StagedRun>,
}

impl Sends {
    pub(super) fn new(arena_bytes: usize) -> Self {
        Sends {
            arena: vec![0; arena_bytes].into(),
            used: 0,
            headers: (0..BATCH)
                .map(|_| Header {
                    message: empty_message(),
                    slice: libc::iovec {
                        iov_base: std::ptr::null_mut(),
                        iov_len: 0,
                    },
                    buffers: HeaderBuffers::EMPTY,
                    run: None,
                })
                .collect(),
            free: (0..BATCH as u16).rev().collect(),
        }
    }

    /// The part of the arena that is free, from [`Sends::used`] on.
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

    /// Frees the arena, if no send is in flight.
    pub(super) fn reset_arena(&mut self) {
        if self.in_flight() == 0 {
            self.used = 0;
        }
    }

    pub(super) fn in_flight(&self) -> usize {
        self.headers.len() - self.free.len()
    }

    /// A request that sends `run`, and its place; gives the run back if there is no room for it. The run ends with [`Sends::end`].
    pub(super) fn begin(
        &mut self,
        file: File,
        v6_socket: bool,
        run: StagedRun,
    ) -> Result<(squeue::Entry, u16), StagedRun> {
        let Some(place) = self.free.pop() else {
            return Err(run);
        };
        let header = &mut self.headers[usize::from(place)];
        let run = header.run.insert(run);
        let bytes = run.bytes(&self.arena[..self.used]);
        header.slice = libc::iovec {
            iov_base: bytes.as_ptr().cast_mut().cast(),
            iov_len: bytes.len(),
        };
        let message = OutgoingMessage {
            to: run.meta.remote,
            from: run.meta.local_ip,
            ecn: run.meta.ecn,
            bytes: &[],
            segment: run.segment(),
            v6_socket,
        };
        let (name_len, control_len) = header.buffers.write(&message);
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
        Ok((entry, place))
    }

    /// The send at this place has come to its end: gives back the run. `None` if none was in flight there.
    pub(super) fn end(&mut self, place: u16) -> Option<StagedRun> {
        let run = self.headers.get_mut(usize::from(place))?.run.take()?;
        self.free.push(place);
        Some(run)
    }

    pub(super) fn bytes(&self) -> usize {
        let chunks = self
            .headers
            .iter()
            .filter_map(|header| header.run.as_ref()?.chunk.as_ref());
        self.arena.len() + size_of_val(&*self.headers) + chunks.map(|chunk| chunk.len()).sum::<usize>()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use ringway_types::{Ecn, PortId};

    use super::*;
    use crate::meta::TransmitMeta;

    fn run(range: std::ops::Range<usize>) -> StagedRun {
        let meta = TransmitMeta {
            port: PortId(1),
            remote: "127.0.0.1:9".parse().unwrap(),
            local_ip: None,
            ecn: Ecn::NotEct,
            segment_size: range.len(),
            sender: 0,
            probe_timeouts: 0,
        };
        StagedRun {
            meta,
            range,
            chunk: None,
            refused_run: None,
        }
    }

    #[test]
    fn memory_of_a_send_in_flight_is_not_given_out() {
        let mut sends = Sends::new(64);
        sends.free()[..8].fill(7);
        sends.take(8);
        let (_, place) = sends.begin(File::Descriptor(0), false, run(0..8)).unwrap();
        sends.reset_arena();
        sends.free().fill(1);
        assert_eq!(sends.used(), 8);
        assert_eq!(sends.arena[..8], [7; 8]);
        assert_eq!(sends.end(place).unwrap().range, 0..8);
        assert!(sends.end(place).is_none(), "it ends once");
        assert!(sends.end(BATCH as u16).is_none(), "there is no such place");
        sends.reset_arena();
        assert_eq!((sends.used(), sends.in_flight()), (0, 0));
    }

    #[test]
    fn no_more_sends_are_in_flight_than_there_are_places() {
        let mut sends = Sends::new(8);
        sends.take(8);
        let places: Vec<u16> = (0..BATCH)
            .map(|_| sends.begin(File::Descriptor(0), false, run(0..8)).unwrap().1)
            .collect();
        assert!(sends.begin(File::Descriptor(0), false, run(0..8)).is_err());
        let ended = places.into_iter().filter_map(|place| sends.end(place)).count();
        assert_eq!((ended, sends.in_flight()), (BATCH, 0));
    }
}
