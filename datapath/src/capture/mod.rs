//! Captures: what devices receive and send, written to a pcapng file that Wireshark opens.
//!
//! A device copies packets into a ring of a bounded size, which the thread that writes empties: without a lock, without memory of its own, and
//! without waiting. What finds no room is counted as dropped, by the capture alone. Without a capture, it costs a device one look at whether there is
//! one for each burst and each slot.

mod file;
mod options;
pub(crate) mod tap;

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use ringway_types::Instant;

pub use self::file::CaptureFile;
pub use self::options::{CaptureOptions, CaptureStats};
use self::tap::TapReader;
pub use self::tap::Taps;
pub(crate) use self::tap::{Direction, Tap, running};
use crate::contract::{Burst, BurstVisitor, Capabilities};
use crate::meta::TransmitMeta;

/// Calls `receive` with a visitor that shows what it is given to the tap first, if there is one.
#[inline]
pub(crate) fn tapped<T>(
    tap: &mut Option<Box<Tap>>,
    now: Instant,
    visit: &mut BurstVisitor<'_>,
    receive: impl FnOnce(&mut BurstVisitor<'_>) -> T,
) -> T {
    let Some(tap) = running(tap) else {
        return receive(visit);
    };
    receive(&mut |Burst { meta, mut memory }| {
        let ends = (meta.remote, meta.local);
        let class = meta.ecn as u8;
        tap.datagrams(
            now,
            Direction::Received,
            ends,
            class,
            memory.bytes(),
            meta.segment_size,
        );
        visit(Burst { meta, memory })
    })
}

/// Shows what is sent from a port of this address to the tap.
pub(crate) fn sent(
    tap: &mut Tap,
    now: Instant,
    local: Option<SocketAddr>,
    meta: &TransmitMeta,
    bytes: &[u8],
) {
    let Some(mut local) = local else { return };
    if let Some(ip) = meta.local_ip {
        local.set_ip(ip);
    }
    let ends = (local, meta.remote);
    tap.datagrams(
        now,
        Direction::Sent,
        ends,
        meta.traffic_class(),
        bytes,
        meta.segment_size,
    );
}

/// Whether devices with these capabilities can be captured so. The error is the option that cannot be, and what is wrong with it.
///
/// # Errors
///
/// The option that cannot be, and what is wrong with it.
pub fn check(options: &CaptureOptions, devices: &[Capabilities]) -> Result<(), (&'static str, String)> {
    let frames: Vec<bool> = devices.iter().map(has_frames).collect();
    let queues = devices.iter().flat_map(|device| &device.queues);
    let queues: Vec<u32> = queues.map(|queue| queue.queue).collect();
    options.check(&frames, &queues)
}

fn has_frames(device: &Capabilities) -> bool {
    device.backend == "af_xdp"
}

/// Begins a capture of devices with these capabilities, on an interface of this name if that matters: gives what each of them is to have, and what
/// writes the file. `now` is the time of the devices' clock at `unix_time` since 1970.
///
/// # Errors
///
/// The output gave this error for the beginning of the file.
pub fn begin<W: io::Write>(
    options: &CaptureOptions,
    devices: &[Capabilities],
    interface: Option<&str>,
    output: W,
    now: Instant,
    unix_time: Duration,
) -> io::Result<(Vec<Taps>, CaptureFile<W>)> {
    #[cfg(not(feature = "af_xdp"))]
    let _ = interface;
    let mut readers: Vec<TapReader> = Vec::new();
    let mut taps = Vec::new();
    for (partition, device) in devices.iter().enumerate() {
        let tapped = options.tapped(partition, has_frames(device));
        let mut tap = |name: &str, queues: Option<Vec<u32>>| {
            let (tap, reader) = tap::tap(options, name, partition, queues);
            readers.push(reader);
            Box::new(tap)
        };
        #[cfg(feature = "af_xdp")]
        let frames = tapped.frames.then(|| {
            let served = device.queues.iter().map(|queue| queue.queue);
            let is_wanted =
                |queue: &u32| (options.queues.as_ref()).is_none_or(|wanted| wanted.contains(queue));
            let queues = served.filter(is_wanted).collect();
            tap(interface.unwrap_or("af_xdp"), Some(queues))
        });
        // Which interface its sockets send by is the kernel's business.
        let sockets = if device.backend == "af_xdp" {
            "sockets"
        } else {
            device.backend
        };
        taps.push(Taps {
            #[cfg(feature = "af_xdp")]
            frames,
            datagrams: tapped.datagrams.then(|| tap(sockets, None)),
        });
    }
    let file = CaptureFile::new(options, readers, output, now, unix_time)?;
    Ok((taps, file))
}
