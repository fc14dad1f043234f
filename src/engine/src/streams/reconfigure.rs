//! What the peer is allowed, changed while the connection is open.

use super::control::{MAX_DATA, MAX_STREAM_DATA};
use super::id::Dir;
use super::{Streams, StreamsConfig};

impl Streams {
    /// Allows the peer what `config` says from now on. What it was told it may do it may still do: a limit that is lower holds when the peer has
    /// used up what it has. Windows of streams are those of streams that begin from now on.
    pub(crate) fn reconfigure(&mut self, config: StreamsConfig) {
        let before = std::mem::replace(&mut self.config, config);
        self.scheduler.set_scheduling(config.scheduling);
        if config.connection_window != before.connection_window
            && self.window.set_size(self.consumed, config.connection_window)
        {
            self.set_pending(MAX_DATA);
        }
        self.growth = self.growth.renewed(config.growth());
        for dir in Dir::ALL {
            let index = dir as usize;
            if config.peer_streams[index] > before.peer_streams[index] && self.owed_streams(dir) > 0 {
                self.announce_streams(dir);
            }
        }
    }

    /// A stream of `dir` begins with the window that the peer knows of; it is told if there is more by now.
    pub(super) fn begin_window(&mut self, slot: u32, dir: Dir, local: bool) {
        let window = self.config.initial_window(dir, local);
        if let Some(recv) = &mut self.table[slot].recv
            && window != recv.window.size()
            && recv.window.set_size(0, window)
        {
            self.set_stream_pending(slot, MAX_STREAM_DATA);
        }
    }
}
