//! What a capture has done, as it is told.

use std::fmt;

use ringway::CaptureStats;
use serde::{Deserialize, Serialize};

/// What was captured.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct CaptureReport {
    pub packets: u64,
    pub bytes: u64,
    pub seen: u64,
    pub dropped: u64,
}

impl From<CaptureStats> for CaptureReport {
    fn from(stats: CaptureStats) -> Self {
        CaptureReport {
            packets: stats.packets,
            bytes: stats.bytes,
            seen: stats.seen,
            dropped: stats.dropped,
        }
    }
}

impl fmt::Display for CaptureReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let CaptureReport {
            packets,
            bytes,
            seen,
            dropped,
        } = self;
        write!(
            f,
            "{packets} packets captured of {seen} that went by, {bytes} bytes"
        )?;
        match dropped {
            0 => Ok(()),
            _ => write!(f, "; {dropped} dropped, as the file was written too slowly"),
        }
    }
}
