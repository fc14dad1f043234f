//! Queues that an interface gets while we run.

use std::io;

use super::program::Program;
use crate::config::{DatapathConfig, Placement, Threading};
use crate::topology::{self, Interface};

/// What it takes to serve queues that an interface gets while we run.
#[derive(Clone, Debug)]
pub(super) struct LateQueues {
    pub(super) config: DatapathConfig,
    pub(super) partitions: Vec<Placement>,
    /// Which of the partitions this is.
    pub(super) index: usize,
    pub(super) threading: Threading,
    /// How many queues the interface had when all were served.
    pub(super) known: usize,
    /// How many a device had announced when this one looked last.
    pub(super) announced: usize,
}

impl LateQueues {
    /// How many queues the interface has, if these are more than it had when all were served, and whether that is news. Other devices are told.
    /// Those of one that has its name, and does not have the program, are not served.
    pub(super) fn look(&mut self, interface: &str, index: u32, program: &Program) -> Option<(usize, bool)> {
        let count = topology::channels(interface).map(|count| count as usize);
        let is_ours = || topology::index(interface) == Some(index);
        let Some(count) = count.filter(|count| *count > self.known && is_ours()) else {
            self.announced = program.queue_count();
            return None;
        };
        program.announce_queue_count(count);
        let is_news = self.announced != count;
        self.announced = count;
        Some((count, is_news))
    }

    /// The interface as it is now, and this partition's share of its queues without those that are served.
    pub(super) fn share(&self, is_served: impl Fn(u32) -> bool) -> io::Result<(Interface, Vec<u32>)> {
        let interface = self.config.af_xdp.read_interface()?;
        let mut shares = Placement::shares(&self.partitions, &interface);
        let mut share = shares.swap_remove(self.index);
        share.retain(|queue| !is_served(*queue));
        Ok((interface, share))
    }
}
