//! Settings that change while the connection is open.

use std::sync::Arc;

use super::Connection;
use super::config::Config;

impl Connection {
    /// Changes its configuration from now on. What was told to the peer in the handshake holds: of that, only what other frames tell it can change,
    /// which are limits of streams and flow control. What the connection begins with (versions, sizes of datagrams, congestion control) stays.
    pub fn reconfigure(&mut self, change: impl FnOnce(&mut Config)) {
        let mut config = (*self.config).clone();
        change(&mut config);
        self.content.streams.reconfigure(config.streams);
        self.config = Arc::new(config);
    }
}
