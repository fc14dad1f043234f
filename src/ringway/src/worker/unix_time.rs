//! Calendar time, which address validation tokens carry because they may come from an earlier run of the server.

use std::time::{SystemTime, UNIX_EPOCH};

/// Seconds since 1970. Read once or twice per connection, never per packet.
pub(super) fn unix_time_secs() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |time| time.as_secs())
}
