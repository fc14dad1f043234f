//! The device of a worker: on the thread of the worker, or split off to another one.

use std::io;

use ringway_types::{Instant, PortId};

use crate::capture::Taps;
use crate::contract::{BurstVisitor, Capabilities, DetachNotice, DeviceBackend, DeviceStats};
use crate::local::LocalDevice;
use crate::meta::TransmitMeta;
use crate::port::BoundPort;
use crate::refusals::Refusal;
use crate::split::SplitDevice;

/// A datapath instance of one partition: receives and sends datagrams.
///
/// Used by one thread at a time. None of the calls but [`Device::attach`] allocates or blocks.
#[allow(
    clippy::large_enum_variant,
    reason = "it is made once, and boxed with the context that has it"
)]
#[derive(Debug)]
pub enum Device {
    /// On this thread.
    Local(LocalDevice),
    /// On another thread.
    Split(SplitDevice),
}

impl From<LocalDevice> for Device {
    fn from(device: LocalDevice) -> Device {
        Device::Local(device)
    }
}

impl From<SplitDevice> for Device {
    fn from(device: SplitDevice) -> Device {
        Device::Split(device)
    }
}

impl Device {
    /// What this device can do.
    pub fn capabilities(&self) -> &Capabilities {
        match self {
            Device::Local(device) => device.capabilities(),
            Device::Split(device) => device.capabilities(),
        }
    }

    /// Begins to serve a bound endpoint. `id` names it from now on; the caller chooses it.
    ///
    /// # Errors
    ///
    /// The system does not let the socket be watched or made fit for the device, or the endpoint is of another kind than the device's (a simulated
    /// one, say): it is closed, and the device is as before. A device that is split off tells of it in the log of its other thread instead.
    pub fn attach(&mut self, id: PortId, port: BoundPort) -> io::Result<()> {
        match self {
            Device::Local(device) => device.attach(id, port),
            Device::Split(device) => {
                device.attach(id, port);
                Ok(())
            }
        }
    }

    /// Gives up an endpoint. What was committed for it and not yet sent is dropped. The notice is dropped when the endpoint is closed: now, or in a
    /// later turn of the thread that has the device.
    pub fn detach(&mut self, id: PortId, notice: DetachNotice) {
        match self {
            Device::Local(device) => device.detach(id, notice),
            Device::Split(device) => device.detach(id, notice),
        }
    }

    /// Visits bursts that have arrived, and gives how many datagrams they held; zero means that nothing was there.
    ///
    /// What is left comes in the next turn: what a turn causes to be sent goes out first, so that the peer works on it meanwhile. A turn is what
    /// one system call (or ring poll) of each endpoint gives. Where datagrams come one by one (without GRO), a call gives few, and a turn of so
    /// few would acknowledge and send as little: there are more calls, up to some 64 datagrams, until the visitor says that it has enough to do.
    ///
    /// # Errors
    ///
    /// A system call failed for another reason than that nothing is there or that the network has reported something of a peer: a want of memory,
    /// say. What was visited before stays so, and nothing else is lost: try again in the next turn.
    #[inline]
    pub fn receive(&mut self, now: Instant, visit: &mut BurstVisitor<'_>) -> io::Result<usize> {
        match self {
            Device::Local(device) => device.receive(now, visit),
            Device::Split(device) => Ok(device.receive(visit)),
        }
    }

    /// Where to write the next datagrams: at least [`Capabilities::slot_bytes_min`] and at most
    /// [`Capabilities::slot_bytes`] long. `None` while the device is blocked; the event queue wakes the context when it no longer is.
    #[inline]
    pub fn slot(&mut self) -> Option<&mut [u8]> {
        match self {
            Device::Local(device) => device.slot(),
            Device::Split(device) => device.slot(),
        }
    }

    /// Hands over the first `len` bytes of the slot given last by [`Device::slot`]. The device may send at once
    /// or keep it until `flush`.
    #[inline]
    pub fn commit(&mut self, now: Instant, meta: &TransmitMeta, len: usize) {
        match self {
            Device::Local(device) => device.commit(now, meta, len),
            Device::Split(device) => device.commit(meta, len),
        }
    }

    /// Sends all that was committed, as far as the kernel takes it. Called once at the end of a turn.
    #[inline]
    pub fn flush(&mut self) {
        match self {
            Device::Local(device) => device.flush(),
            Device::Split(device) => device.flush(),
        }
    }

    /// The next of the datagrams that were refused for their size since this was asked last. Ask when a turn is over, until there is none.
    #[inline]
    pub fn take_refusal(&mut self) -> Option<Refusal> {
        match self {
            Device::Local(device) => device.take_refusal(),
            Device::Split(device) => device.take_refusal(),
        }
    }

    /// Shows what is received and sent from now on to a capture, in the place of another one. Not of a simulated network.
    pub fn set_taps(&mut self, taps: Taps) {
        match self {
            Device::Local(device) => device.set_taps(taps),
            Device::Split(device) => device.set_taps(taps),
        }
    }

    /// The context is about to sleep on the event queue. False if something waits that the queue will not tell of: it must not sleep.
    /// [`Device::end_sleep`] comes after it in either case.
    #[inline]
    pub fn prepare_sleep(&mut self) -> bool {
        match self {
            Device::Local(device) => device.prepare_sleep(),
            Device::Split(device) => device.prepare_sleep(),
        }
    }

    /// The context does not sleep any more.
    #[inline]
    pub fn end_sleep(&mut self) {
        match self {
            Device::Local(device) => device.end_sleep(),
            Device::Split(_) => {}
        }
    }

    /// Counters since the device was made. What a device on another thread counts,
    /// [`DatapathEnd::stats`](crate::split::DatapathEnd::stats) tells.
    pub fn stats(&self) -> DeviceStats {
        match self {
            Device::Local(device) => device.stats(),
            Device::Split(_) => DeviceStats::default(),
        }
    }
}
