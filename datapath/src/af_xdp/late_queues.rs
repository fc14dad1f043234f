//! Queues that an interface gets while we run.

use std::io;

use super::AfXdpDevice;
use crate::config::{DatapathConfig, Placement, Threading};
use crate::{thread, topology};

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

impl AfXdpDevice {
    /// Serves its share of the queues that the interface has got since it was opened.
    pub(super) fn open_late_queues(&mut self) {
        let channels = topology::channels(&self.interface).map(|count| count as usize);
        let Some(count) = channels.filter(|count| *count > self.late.known) else {
            self.late.announced = self.program.queue_count();
            return;
        };
        self.program.announce_queue_count(count);
        let is_new = self.late.announced != count;
        self.late.announced = count;
        let late = self.late.clone();
        let open = || -> io::Result<()> {
            let interface = late.config.af_xdp.read_interface()?;
            let shares = Placement::shares(&late.partitions, &interface);
            for &queue in &shares[late.index] {
                if self.capabilities.queues.iter().any(|open| open.queue == queue) {
                    continue;
                }
                if self.queues.is_empty() && late.threading.split {
                    return Err(io::Error::other(
                        "this partition had no queue before, and none of its thread's memory is for one",
                    ));
                }
                // What is watched are the sockets that there are then.
                self.watch(false)?;
                let threading = Threading {
                    split: false,
                    ..late.threading
                };
                self.open_queue(&late.config, &interface, queue, false, threading)?;
                tracing::info!(queue, "AF_XDP: a queue of {} is new, and served", interface.name);
            }
            Ok(())
        };
        match thread::with_preferred_node(late.partitions[late.index].node, open) {
            Ok(()) => self.late.known = count,
            // The driver may be about to start its queues: it is tried again.
            Err(error) if is_new => {
                tracing::warn!(%error, "AF_XDP: {} has {count} queues now, which are not all served", self.interface);
            }
            Err(error) => tracing::debug!(%error, "AF_XDP: a queue is still not served"),
        }
    }
}
