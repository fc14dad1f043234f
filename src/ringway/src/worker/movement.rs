//! Connections that follow RSS to another partition.
//!
//! When the NIC or the kernel brings a flow to a partition other than the one that its connection IDs name, its
//! datagrams are handed over one by one. If that goes on, the connection moves: it crosses with all its state in one
//! message, and then issues connection IDs that name the new partition. Until the peer has retired the old ones, the
//! old partition hands over whatever arrives for them.

use ringway_engine::wire::cid::ConnectionId;
use ringway_types::Instant;

use super::hosted_connection::HostedConnection;
use super::inbox::Operation;
use super::routes::Route;
use super::rss_tracker::RssTracker;
use super::{Slot, Worker, wake_ups};

impl Worker {
    /// Moves a connection to where RSS has brought its packets for a while.
    pub(super) fn follow_rss(&mut self, now: Instant, index: u32) {
        let Some(hosted) = self
            .slots
            .get(index as usize)
            .and_then(|slot| slot.hosted.as_ref())
        else {
            return;
        };
        let Some(to) = hosted.rss.target() else {
            return;
        };
        let may_move = hosted.may_move
            && hosted.engine.can_change_partition()
            && to != self.inbox.partition
            && !self.inbox.is_stopping();
        if may_move {
            self.move_away(now, index, to);
        }
    }

    fn move_away(&mut self, now: Instant, index: u32, to: usize) {
        let inboxes = std::sync::Arc::clone(&self.inboxes);
        let Some(permit) = inboxes[to].reserve() else {
            return;
        };
        let Some(mut hosted) = self.take(index) else {
            return;
        };
        hosted = hosted.deliver_events(now);
        self.follow_cids(now, index, &mut hosted);
        self.follow_counts(&mut hosted);
        for cid in hosted.engine.local_cids() {
            self.routes.set_local_cid(&cid, Route::Moved(to));
        }
        if let Some((remote, token)) = hosted.engine.reset_token() {
            self.routes.remove_reset_token(remote, &token);
        }
        self.slots.remove(index as usize);
        self.memory.add(now, hosted.memory.set(0));
        self.timers.cancel(index);
        self.count_moved(&hosted, |count, one| count.wrapping_sub(one));
        self.stats.moved_away += 1;
        hosted
            .moved_from
            .retain(|&partition| partition != to && partition != self.inbox.partition);
        hosted.moved_from.push(self.inbox.partition);
        hosted.shutdowns = self.shutdowns.0;
        hosted.shared().set_slot_index(None);
        // Calls that get there first wait for it.
        hosted.shared().set_partition(to);
        // The other worker's turn may end before this one.
        wake_ups::wake_all();
        permit.post(Operation::MoveIn(hosted));
    }

    /// Takes over a connection from another worker.
    pub(super) fn move_in(&mut self, now: Instant, mut hosted: Box<HostedConnection>) {
        let index = self.slots.vacant_key() as u32;
        for cid in hosted.engine.local_cids() {
            self.routes.set_local_cid(&cid, Route::Here(index));
        }
        if let Some((remote, token)) = hosted.engine.reset_token() {
            self.routes.add_reset_token(remote, &token, index);
        }
        hosted.rss = RssTracker::default();
        hosted.engine.replace_local_cids();
        self.slots.insert(Slot {
            hosted: None,
            ready: false,
            ready_since: now,
            entered: false,
            handshake: None,
            armed: Instant::FAR_FUTURE,
            initial: None,
        });
        self.count_moved(&hosted, u64::wrapping_add);
        hosted.shared().set_slot_index(Some(index));
        if hosted.shutdowns < self.shutdowns.0 {
            // All connections were shut down while it was between two workers.
            let code = self.shutdowns.1;
            hosted.guarded(now, |hosted| hosted.engine.close(now, code));
        }
        let hosted = hosted.deliver_ideal_processor_changed(now, self.inbox.partition);
        self.put_back(now, index, hosted);
    }

    /// Tells the partitions that the connection was on before that it has retired connection IDs, which they need no
    /// longer forward.
    pub(super) fn forget_cids_elsewhere(&self, hosted: &HostedConnection, cids: &[ConnectionId]) {
        for &partition in &hosted.moved_from {
            self.inboxes[partition].post(Operation::ForgetMovedCids(cids.to_vec()));
        }
    }

    /// Removes the routes of connections that moved away and have retired these connection IDs.
    pub(super) fn forget_moved_cids(&mut self, cids: &[ConnectionId]) {
        for cid in cids {
            if let Some(Route::Moved(_)) = self.routes.route(cid.as_bytes()) {
                self.routes.remove_local_cid(cid);
            }
        }
    }
}
