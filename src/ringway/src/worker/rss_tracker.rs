//! Where RSS brings a connection's packets, if that is not the partition that hosts it.

use ringway_engine::connection::{self as engine, PathAddress};

/// Counts the runs of datagrams that another partition has handed over, until they justify moving the connection there.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct RssTracker {
    partition: usize,
    /// Runs of valid datagrams on the connection's path that arrived at `partition`, with none elsewhere in between.
    runs: u32,
    /// How many packets the connection had received by the end of the last run.
    packets: u64,
}

impl RssTracker {
    /// Notes that the engine has received a run of datagrams. `rss_partition`: where RSS put them, if that is another
    /// partition.
    #[inline]
    pub(super) fn on_run(
        &mut self,
        engine: &engine::Connection,
        path: &PathAddress,
        rss_partition: Option<usize>,
    ) {
        let Some(partition) = rss_partition else {
            self.runs = 0;
            return;
        };
        let packets = engine.received_packets();
        let counts = packets > self.packets && engine.path().remote == path.remote;
        self.packets = packets;
        if partition != self.partition {
            *self = RssTracker {
                partition,
                runs: 0,
                packets,
            };
        }
        self.runs += u32::from(counts);
    }

    /// The partition that the connection should move to, if enough runs have arrived there.
    pub(super) fn target(&self) -> Option<usize> {
        (self.runs >= RUNS_BEFORE_MOVE).then_some(self.partition)
    }
}

/// A few packets may still be on their way when a flow changes its queue. After this many runs, more will come.
const RUNS_BEFORE_MOVE: u32 = 8;
