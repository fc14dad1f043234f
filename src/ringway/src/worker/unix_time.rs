//! Calendar time, which address validation tokens carry because they may come from an earlier run of the server, and files of captures.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Seconds since 1970. Read once or twice per connection, never per packet.
pub(super) fn unix_time_secs() -> u64 {
    unix_time().as_secs()
}

/// Time since 1970.
pub(crate) fn unix_time() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}
