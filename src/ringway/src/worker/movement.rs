//! Connections that follow their packets to another partition.
//!
//! The NIC, or the kernel, brings a flow to another partition than the one that its connection IDs name: its datagrams are handed over one by
//! one. When that goes on, the connection crosses as one message, with all that belongs to it, and gives its peer connection IDs that
//! name its new partition. Until the peer has retired the old ones, their partition hands over what comes by them.

use ringway_engine::connection::{self as engine, PathAddress};
use ringway_engine::wire::cid::ConnectionId;
use ringway_types::Instant;

use super::hosted::Hosted;
use super::remote::Operation;
use super::routes::Route;
use super::{Slot, Worker};

/// Where the packets of a connection arrive, as far as it is not where it lives.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Landing {
    partition: usize,
    /// Runs of valid datagrams on its path that arrived there, one after another and none elsewhere.
    runs: u32,
    /// Packets that had been received before the last run.
    packets: u64,
}

impl Landing {
    /// A run of datagrams has been given to the engine. `landed`: it came over from this partition.
    #[inline]
    pub(super) fn note(&mut self, engine: &engine::Connection, path: &PathAddress, landed: Option<usize>) {
        let Some(partition) = landed else {
            self.runs = 0;
            return;
        };
        let packets = engine.received_packets();
        let counts = packets > self.packets && engine.path().remote == path.remote;
        self.packets = packets;
        if partition != self.partition {
            *self = Landing {
                partition,
                runs: 0,
                packets,
            };
        }
        self.runs += u32::from(counts);
    }
}

impl Worker {
    /// Moves a connection to where its packets have arrived for a while.
    pub(super) fn follow_packets(&mut self, now: Instant, place: u32) {
        let Some(hosted) = self
            .slots
            .get(place as usize)
            .and_then(|slot| slot.hosted.as_ref())
        else {
            return;
        };
        let to = hosted.landing.partition;
        let may_move = hosted.landing.runs >= RUNS_BEFORE_MOVE
            && hosted.has_port_everywhere
            && hosted.engine.can_change_partition()
            && to != self.remote.partition
            && !self.remote.is_closed();
        if may_move {
            self.send_off(now, place, to);
        }
    }

    fn send_off(&mut self, now: Instant, place: u32, to: usize) {
        let workers = std::sync::Arc::clone(&self.workers);
        let Some(reservation) = workers[to].reserve() else {
            return;
        };
        let Some(mut hosted) = self.take(place) else {
            return;
        };
        hosted = hosted.deliver_events(now);
        self.follow_cids(place, &mut hosted);
        for cid in hosted.engine.local_cids() {
            self.routes.set_local_cid(&cid, Route::Moved(to));
        }
        if let Some((remote, token)) = hosted.engine.reset_token() {
            self.routes.remove_reset_token(remote, &token);
        }
        self.slots.remove(place as usize);
        self.timers.cancel(place);
        self.stats.connections -= 1;
        self.stats.moved_away += 1;
        hosted
            .moved_from
            .retain(|&partition| partition != to && partition != self.remote.partition);
        hosted.moved_from.push(self.remote.partition);
        hosted.shutdowns = self.shutdowns.0;
        hosted.shared().set_place(None);
        // Calls that find it there already wait until it is.
        hosted.shared().set_partition(to);
        reservation.post(Operation::Arrival(hosted));
    }

    /// A connection moves here.
    pub(super) fn arrive(&mut self, now: Instant, mut hosted: Box<Hosted>) {
        let place = self.slots.vacant_key() as u32;
        for cid in hosted.engine.local_cids() {
            self.routes.set_local_cid(&cid, Route::Here(place));
        }
        if let Some((remote, token)) = hosted.engine.reset_token() {
            self.routes.add_reset_token(remote, &token, place);
        }
        hosted.landing = Landing::default();
        hosted.engine.replace_local_cids();
        self.slots.insert(Slot {
            hosted: None,
            ready: false,
            handshaking: false,
            armed: Instant::FAR_FUTURE,
            initial: None,
        });
        self.stats.connections += 1;
        hosted.shared().set_place(Some(place));
        if hosted.shutdowns < self.shutdowns.0 {
            // It was between two workers when all were shut down.
            hosted.engine.close(now, self.shutdowns.1);
        }
        let hosted = hosted.deliver_partition(now, self.remote.partition);
        self.put_back(now, place, hosted);
    }

    /// Connection IDs are no longer in use: partitions that the connection was on before need not hand on what comes by them.
    pub(super) fn forget_elsewhere(&self, hosted: &Hosted, cids: &[ConnectionId]) {
        for &partition in &hosted.moved_from {
            let cids = cids.to_vec();
            self.workers[partition].post(Operation::Worker(Box::new(move |worker, _| {
                for cid in cids {
                    if let Some(Route::Moved(_)) = worker.routes.route(cid.as_bytes()) {
                        worker.routes.remove_local_cid(&cid);
                    }
                }
            })));
        }
    }
}

/// What comes over in so many runs of datagrams will go on to: a few packets that were on their way when the flow moved do not make a connection
/// follow them.
const RUNS_BEFORE_MOVE: u32 = 8;
