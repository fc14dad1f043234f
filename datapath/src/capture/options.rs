//! What a capture takes, and what it has done.

use std::time::Duration;

use serde::{Deserialize, Serialize};

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
    /// Bytes that packets of each partition may wait in until they are written; at least 256 KiB. Twice as many with AF_XDP, for frames and for what
    /// goes by its sockets. Default: 8 MiB.
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
    /// There are so many partitions, and AF_XDP sockets of these queues.
    pub fn check(&self, partitions: usize, queues: &[u32]) -> Result<(), (&'static str, String)> {
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
        if let Some(queue) = self.queues.iter().flatten().find(|queue| !queues.contains(queue)) {
            return Err(("queues", format!("no AF_XDP socket serves a queue {queue} here")));
        }
        Ok(())
    }
}

/// The headers of a datagram, about.
const SNAP_MIN: u32 = 64;
const SNAP_MAX: u32 = 262_144;
/// Some of the longest packets.
const BUFFER_MIN: usize = 256 << 10;
const BUFFER_MAX: usize = 1 << 30;
