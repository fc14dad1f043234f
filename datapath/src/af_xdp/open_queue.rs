//! How the socket of a queue is made: in the best mode in which packets move.

use std::io;
use std::time::Duration;

use super::chunk_size::ChunkSize;
use super::explain::explain;
use super::reserve::Reserve;
use super::socket::{BindMode, Binding, Kernel, XskSocket};
use super::xsk::{Counts, Xsk};
use crate::config::CopyMode;
use crate::contract::QueueCapabilities;
use crate::lent::LENT_SHARE;
use crate::topology::{self, Interface};
use crate::umem::RingSizes;

/// What a queue is opened for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Request<'a> {
    pub(super) interface: &'a Interface,
    pub(super) queue: u32,
    /// The place of the queue in its device.
    pub(super) place: usize,
    /// The XDP program runs in the driver.
    pub(super) native: bool,
    /// The driver has the queue only while it has an XDP program.
    pub(super) is_of_program: bool,
    pub(super) copy: CopyMode,
    /// Chunks may be with a worker on another thread.
    pub(super) split: bool,
    /// Bytes that the application may hold on to.
    pub(super) lent_bytes: usize,
    pub(super) if_busy: IfBusy,
    /// Where sockets are taken from.
    pub(super) reserve: &'a Reserve,
}

/// What to do where a queue is another socket's still.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum IfBusy {
    /// Wait a second at most, on this thread: the program of the one that had it is gone, or we were not here; its socket the kernel closes a
    /// little later.
    Wait,
    /// It is an error at once. A thread that polls tries again in a later turn.
    Refuse,
}

impl IfBusy {
    fn bind(self, mut bind: impl FnMut() -> io::Result<()>, mut pause: impl FnMut()) -> io::Result<()> {
        let mut tries = match self {
            IfBusy::Wait => 0..BUSY_TRIES,
            IfBusy::Refuse => 0..0,
        };
        loop {
            match bind() {
                Err(error) if error.kind() == io::ErrorKind::ResourceBusy && tries.next().is_some() => {
                    pause()
                }
                result => return result,
            }
        }
    }
}

impl Request<'_> {
    /// The socket, and how it serves the queue.
    pub(super) fn open(&self) -> io::Result<(Xsk<XskSocket>, QueueCapabilities)> {
        // A driver may take a socket in zero-copy mode while it knows of no program, which is the network stack's, and never send a frame.
        let zero_copy = || {
            let refuse = |reason: &str| Err(io::Error::new(io::ErrorKind::Unsupported, reason));
            if !self.native {
                return refuse(
                    "without copies there is only native XDP, and the program runs in the network stack (generic)",
                );
            }
            if self.is_of_program {
                return refuse(OF_PROGRAM);
            }
            self.open_in(BindMode::ZeroCopy)
        };
        let copy = || self.open_in(BindMode::Copy);
        let (opened, reason) = match self.copy {
            CopyMode::Copy => (copy()?, None),
            CopyMode::ZeroCopy if !self.is_of_program => (zero_copy()?, None),
            CopyMode::Auto | CopyMode::ZeroCopy => match zero_copy() {
                Ok(opened) => (opened, None),
                Err(error) => (copy()?, Some(error.to_string())),
            },
        };
        let (xsk, mode, chunk_bytes) = opened;
        let capabilities = QueueCapabilities {
            queue: self.queue,
            native: self.native,
            zero_copy: mode == BindMode::ZeroCopy,
            chunk_bytes,
            copy_reason: reason,
        };
        Ok((xsk, capabilities))
    }

    fn open_in(&self, mode: BindMode) -> io::Result<(Xsk<XskSocket>, BindMode, u32)> {
        let Interface { name, index, mtu, .. } = self.interface;
        let size = ChunkSize::of(*mtu, mode);
        let counts = Counts {
            receive: match mode {
                BindMode::Copy => RECEIVE_RING,
                // Even if nobody takes what was received, the NIC has all the chunks that it wants, and finds more.
                BindMode::ZeroCopy => {
                    let nic = topology::receive_ring_entries(name).unwrap_or(NIC_RING);
                    RECEIVE_RING + nic.min(NIC_RING_MAX) + BETWEEN_RINGS
                }
            },
            transmit: TRANSMIT_RING,
            spare: if self.split { SPARES } else { 0 },
            lent: 0,
        };
        let lent = (self.lent_bytes / size.bytes as usize).min(counts.receive as usize / LENT_SHARE);
        let counts = Counts {
            lent: lent as u32,
            ..counts
        };
        let sizes = RingSizes {
            fill: (2 * counts.receive).next_power_of_two(),
            receive: RECEIVE_RING,
            transmit: TRANSMIT_RING,
        };
        let chunks = counts.receive + counts.transmit + counts.spare;
        let descriptor = self.reserve.take();
        let (socket, rings, chunks) = descriptor
            .and_then(|descriptor| XskSocket::new(descriptor, size.bytes, chunks, self.place, sizes))
            .map_err(|error| explain("packet memory and an AF_XDP socket", &error))?;
        let binding = Binding {
            interface: *index,
            queue: self.queue,
            mode,
            multi_buffer: size.multi_buffer,
        };
        // Chunks are there before the driver looks for some.
        let xsk = Xsk::new(socket, rings, chunks, counts, binding);
        let Some(socket) = xsk.kernel() else {
            return Err(io::ErrorKind::NotConnected.into());
        };
        self.if_busy
            .bind(|| socket.bind(binding), || std::thread::park_timeout(BUSY_PAUSE))
            .map_err(|error| explain("binding an AF_XDP socket", &error))?;
        socket.raise_budget();
        if mode == BindMode::ZeroCopy {
            will_send(socket.send())?;
        }
        Ok((xsk, mode, size.bytes))
    }
}

/// A driver that will not send says so when it is asked to, whether or not there is anything to send.
fn will_send(answer: io::Result<()>) -> io::Result<()> {
    match answer {
        Err(error)
            if !matches!(
                error.raw_os_error(),
                // Not now: it is down, or it is just starting its queues anew.
                Some(libc::ENETDOWN | libc::EAGAIN | libc::EBUSY | libc::ENOBUFS | libc::EINTR)
            ) =>
        {
            let what =
                format!("the driver takes an AF_XDP socket in zero-copy mode, but does not send: {error}");
            Err(io::Error::new(error.kind(), what))
        }
        _ => Ok(()),
    }
}

/// virtio_net refuses to give packet memory back for a queue that it no longer uses, which is when the program has gone before the socket; with
/// the next program it takes memory that is no more, and the kernel stops (seen with Linux 7.3). A process that is killed cannot see to the order.
const OF_PROGRAM: &str = "the driver has the queue only while a program is attached, and would not give packet memory back after that; \
     with all of its queues in use before (`ethtool -L`, `combined` at its maximum) it has none of those";
/// Frames that may wait for us. Where the kernel copies, there are chunks for no more.
const RECEIVE_RING: u32 = 2048;
/// Frames that may wait for the kernel, and chunks to send from.
const TRANSMIT_RING: u32 = 1024;
/// Chunks of each queue that may be with a worker on another thread.
const SPARES: u32 = 1024;
/// Chunks that a driver wants for its NIC, where it does not say; and not more than so many.
const NIC_RING: u32 = 1024;
const NIC_RING_MAX: u32 = 8192;
/// Chunks that are being visited, or wait to be given to the kernel in one go; and as many that the fill ring has besides.
const BETWEEN_RINGS: u32 = 256;
/// How often, and after which pause each time, a queue is asked for whose last socket is just being closed.
const BUSY_TRIES: u32 = 50;
const BUSY_PAUSE: Duration = Duration::from_millis(20);

#[cfg(test)]
mod tests {
    use super::*;

    /// How often a queue was asked for that is another's the first two times, and how often this thread slept.
    fn bind(if_busy: IfBusy) -> (io::Result<()>, u32, u32) {
        let (mut binds, mut pauses) = (0, 0);
        let result = if_busy.bind(
            || {
                binds += 1;
                match binds {
                    1 | 2 => Err(io::ErrorKind::ResourceBusy.into()),
                    _ => Ok(()),
                }
            },
            || pauses += 1,
        );
        (result, binds, pauses)
    }

    #[test]
    fn driver_that_takes_a_socket_and_will_never_send_is_found_out_but_not_one_that_is_only_down() {
        let answer = |errno| will_send(Err(io::Error::from_raw_os_error(errno)));
        // As igb answers that has no program of its own.
        for never in [libc::ENXIO, libc::EOPNOTSUPP, libc::EINVAL] {
            let error = answer(never).unwrap_err().to_string();
            assert!(
                error.contains("does not send") && error.contains("os error"),
                "{error}"
            );
        }
        for later in [
            libc::ENETDOWN,
            libc::EAGAIN,
            libc::EBUSY,
            libc::ENOBUFS,
            libc::EINTR,
        ] {
            answer(later).unwrap();
        }
        will_send(Ok(())).unwrap();
    }

    #[test]
    fn queue_whose_last_socket_is_being_closed_is_waited_for_but_not_by_a_thread_that_polls() {
        let (result, binds, pauses) = bind(IfBusy::Wait);
        result.unwrap();
        assert_eq!((binds, pauses), (3, 2));
        let (result, binds, pauses) = bind(IfBusy::Refuse);
        assert_eq!(result.unwrap_err().kind(), io::ErrorKind::ResourceBusy);
        assert_eq!((binds, pauses), (1, 0));
    }
}
