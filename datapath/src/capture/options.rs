//! What a capture takes, and what it has done.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::contract::Capabilities;

/// What a capture takes, and where it ends. The default: every packet, whole, of all partitions and queues, until it is told to end.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CaptureOptions {
    /// One of so many packets is taken, of each partition. Default: 1, each.
    pub every: u32,
    /// Bytes of each packet that are taken, with its headers; at least 64. Default: 65,535, all of it.
    pub snap_length: u32,
    /// The capture ends after so many packets. Default (`None`): it does not.
    pub packets: Option<u64>,
    /// The capture ends before the file has more bytes than this. Default (`None`): it does not.
    pub bytes: Option<u64>,
    /// The capture ends after this time. Default (`None`): it does not.
    #[serde(with = "humantime_serde")]
    pub duration: Option<Duration>,
    /// Partitions whose packets are taken. Default (`None`): all.
    pub partitions: Option<Vec<usize>>,
    /// Receive queues of the interface whose frames are taken, with what goes out by them; what comes and goes by the kernel's sockets is not
    /// (AF_XDP). Default (`None`): all, and the sockets.
    pub queues: Option<Vec<u32>>,
    /// Bytes of memory in which packets of each partition wait until they are written, with what is known of each; 256 KiB to 1 GiB. Twice as many with
    /// AF_XDP, for frames and for what goes by its sockets, and no more than 4 GiB for all partitions together. Default: 8 MiB.
    pub buffer_bytes: usize,
}

impl Default for CaptureOptions {
    fn default() -> Self {
        CaptureOptions {
            every: 1,
            snap_length: 65_535,
            packets: None,
            bytes: None,
            duration: None,
            partitions: None,
            queues: None,
            buffer_bytes: 8 << 20,
        }
    }
}

/// What a capture has done so far.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct CaptureStats {
    /// Packets that went by at the devices since it began.
    pub seen: u64,
    /// Packets in the file.
    pub packets: u64,
    /// Bytes in the file.
    pub bytes: u64,
    /// Packets that were to be taken and found no room: the file was written too slowly.
    pub dropped: u64,
}

impl CaptureOptions {
    /// The field that says what cannot be, and what is wrong with it.
    /// The devices of all partitions have these capabilities.
    pub fn check(&self, devices: &[Capabilities]) -> Result<(), (&'static str, String)> {
        let partitions = devices.len();
        if self.every == 0 {
            return Err(("every", "one of 0 packets is none: 1 takes each".to_owned()));
        }
        if !(SNAP_MIN..=SNAP_MAX).contains(&self.snap_length) {
            let problem = format!(
                "{} is not within {SNAP_MIN} to {SNAP_MAX} bytes",
                self.snap_length
            );
            return Err(("snap_length", problem));
        }
        if !(BUFFER_MIN..=BUFFER_MAX).contains(&self.buffer_bytes) {
            let problem = format!(
                "{} is not within {BUFFER_MIN} to {BUFFER_MAX} bytes",
                self.buffer_bytes
            );
            return Err(("buffer_bytes", problem));
        }
        let lacking = self
            .partitions
            .iter()
            .flatten()
            .find(|partition| **partition >= partitions);
        if let Some(partition) = lacking {
            let problem = format!("there is no partition {partition}: there are {partitions}");
            return Err(("partitions", problem));
        }
        let is_served = |queue: u32| {
            let mut served = devices.iter().flat_map(|device| &device.queues);
            served.any(|served| served.queue == queue)
        };
        if let Some(queue) = self.queues.iter().flatten().find(|queue| !is_served(**queue)) {
            return Err(("queues", format!("no AF_XDP socket serves a queue {queue} here")));
        }
        let taps = devices.iter().enumerate().map(|(partition, device)| {
            let Tapped { frames, datagrams } = self.tapped(partition, device);
            u64::from(frames) + u64::from(datagrams)
        });
        self.check_memory(taps.sum())
    }

    /// Of what this partition's device has, what is taken.
    pub(super) fn tapped(&self, partition: usize, device: &Capabilities) -> Tapped {
        let is_taken = (self.partitions.as_ref()).is_none_or(|taken| taken.contains(&partition));
        Tapped {
            frames: is_taken && device.backend == "af_xdp",
            datagrams: is_taken && self.queues.is_none(),
        }
    }

    /// The memory of so many buffers must not be too much.
    fn check_memory(&self, taps: u64) -> Result<(), (&'static str, String)> {
        let sum = taps.saturating_mul(self.buffer_bytes as u64);
        if sum <= BUFFERS_MAX {
            return Ok(());
        }
        let problem = format!(
            "{} bytes, {taps} times, are {sum} bytes: more than {BUFFERS_MAX}; take less, or fewer partitions",
            self.buffer_bytes
        );
        Err(("buffer_bytes", problem))
    }
}

/// What is taken of a device.
pub(super) struct Tapped {
    /// Frames of its queues.
    pub(super) frames: bool,
    /// Datagrams of its sockets.
    pub(super) datagrams: bool,
}

/// The headers of a datagram, about.
const SNAP_MIN: u32 = 64;
const SNAP_MAX: u32 = 262_144;
/// Some of the longest packets.
const BUFFER_MIN: usize = 256 << 10;
const BUFFER_MAX: usize = 1 << 30;
const BUFFERS_MAX: u64 = 4 << 30;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_of_all_buffers_together_is_bounded_and_the_default_fits_large_machines() {
        let options = |buffer_bytes| CaptureOptions {
            buffer_bytes,
            ..CaptureOptions::default()
        };
        let default = CaptureOptions::default();
        assert_eq!(default.check_memory(512), Ok(()));
        assert_eq!(options(BUFFER_MAX).check_memory(4), Ok(()));
        let (key, problem) = options(BUFFER_MAX).check_memory(5).unwrap_err();
        assert_eq!(key, "buffer_bytes");
        assert!(
            problem.contains("5368709120") && problem.contains("4294967296"),
            "{problem}"
        );
    }
}
