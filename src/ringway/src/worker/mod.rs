//! The QUIC layer of one partition: its connections, their timers, the calls of other threads, and the events that
//! the application hears.
//!
//! A worker never waits and never reads a clock: [`context::ExecutionContext`] polls it with the time. The files
//! follow a packet's way: `receive` finds its connection, `accept` opens one, `hosted` tells the
//! application, `transmit` fills the device's slots.

mod accept;
mod adaptive_spin;
pub mod calls;
pub mod context;
pub mod current;
mod deliver;
pub mod events;
mod gate;
pub mod handles;
pub mod hosted_connection;
pub mod inbox;
pub mod limits;
pub mod listener;
mod movement;
mod receive;
mod routes;
mod rss_tracker;
mod stateless;
pub mod stats;
pub mod timer_wheel;
pub mod token_store;
mod transmit;
mod unix_time;

use std::collections::VecDeque;
use std::sync::Arc;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use ringway_datapath::meta::Partitioning;
use ringway_engine::connection as engine;
use ringway_engine::crypto::reset::ResetKey;
use ringway_engine::crypto::token::TokenKeys;
use ringway_engine::wire::cid::ConnectionId;
use ringway_types::{Instant, LOCAL_CID_LEN};
use slab::Slab;

use self::handles::ConnectionShared;
use self::hosted_connection::HostedConnection;
use self::inbox::{ClientStart, Inbox, Operation};
use self::listener::{ListenerEntry, ListenerShared};
use self::routes::Routes;
use self::stateless::StatelessQueue;
use self::stats::WorkerStats;
use self::timer_wheel::TimerWheel;
use self::unix_time::unix_time_secs;

/// The QUIC layer of one partition.
pub struct Worker {
    inbox: Arc<Inbox>,
    /// All workers of the process by partition, this one included.
    inboxes: Arc<[Arc<Inbox>]>,
    partitioning: Partitioning,
    slots: Slab<Slot>,
    routes: Routes,
    timers: TimerWheel,
    /// Connections that may have something to send. A place may be stale: of a connection that has gone since.
    ready: VecDeque<u32>,
    /// Connections whose last event waits for calls that got in before the end.
    ending: Vec<u32>,
    listeners: Vec<ListenerEntry>,
    /// How often all connections were shut down, and with which code the last time.
    shutdowns: (u64, u64),
    reset_key: ResetKey,
    tokens: TokenKeys,
    stateless: StatelessQueue,
    /// What the device says it can do, as far as the engine plans with it.
    limits: engine::transmit::TransmitLimits,
    stats: WorkerStats,
    rng: StdRng,
    expired: Vec<u32>,
}

/// A place in the table of connections.
struct Slot {
    /// `None` only while the connection is being worked on.
    hosted: Option<Box<HostedConnection>>,
    /// In [`Worker::ready`].
    ready: bool,
    /// Counted in [`WorkerStats::handshakes`].
    handshaking: bool,
    /// When the timer wheel calls; never later than the engine's deadline.
    armed: Instant,
    /// The connection ID that the client chose, while it leads here.
    initial: Option<(std::net::SocketAddr, ConnectionId)>,
}

/// What all workers of a process have in common.
pub struct WorkerConfig {
    /// How connection IDs name partitions.
    pub partitioning: Partitioning,
    /// All workers by partition.
    pub inboxes: Arc<[Arc<Inbox>]>,
    /// Makes stateless reset tokens; equal on all workers.
    pub reset_key: [u8; 32],
    /// Seals address validation tokens; equal on all workers.
    pub token_secret: [u8; 32],
    /// Seeds the worker's random numbers, together with its partition.
    pub seed: [u8; 32],
}

impl Worker {
    /// The worker of partition `partition`.
    pub fn new(
        config: &WorkerConfig,
        partition: usize,
        limits: engine::transmit::TransmitLimits,
        now: Instant,
    ) -> Self {
        let mut seed = config.seed;
        seed[..8]
            .iter_mut()
            .zip((partition as u64).to_le_bytes())
            .for_each(|(byte, index)| *byte ^= index);
        Worker {
            inbox: Arc::clone(&config.inboxes[partition]),
            inboxes: Arc::clone(&config.inboxes),
            partitioning: config.partitioning,
            slots: Slab::new(),
            routes: Routes::default(),
            timers: TimerWheel::new(now),
            ready: VecDeque::new(),
            ending: Vec::new(),
            listeners: Vec::new(),
            shutdowns: (0, 0),
            reset_key: ResetKey::new(config.reset_key),
            tokens: TokenKeys::new(config.token_secret),
            stateless: StatelessQueue::default(),
            limits,
            stats: WorkerStats::default(),
            rng: StdRng::from_seed(seed),
            expired: Vec::new(),
        }
    }

    /// What other threads see of the worker.
    pub fn inbox(&self) -> &Arc<Inbox> {
        &self.inbox
    }

    /// Counters since the start.
    pub fn stats(&self) -> &WorkerStats {
        &self.stats
    }

    /// Counts a turn of the loop.
    pub fn count_turn(&mut self) {
        self.stats.turns += 1;
    }

    /// Counts a turn that took longer than [`stats::SLOW_TURN`].
    pub fn count_slow_turn(&mut self) {
        self.stats.slow_turns += 1;
    }

    /// True if no connection is hosted.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// When [`Worker::expire`] has something to do next.
    pub fn deadline(&self) -> Option<Instant> {
        self.timers.next_deadline()
    }

    /// Runs one operation of another thread.
    pub fn run(&mut self, now: Instant, operation: Operation) {
        self.stats.operations += 1;
        match operation {
            Operation::Call(shared) => self.run_call(now, shared),
            Operation::Datagram(handed_over) => self.on_handed_over(now, handed_over),
            Operation::OpenConnection(start) => self.open_connection(now, *start),
            Operation::MoveIn(hosted) => self.move_in(now, hosted),
            Operation::ForgetMovedCids(cids) => self.forget_moved_cids(&cids),
            Operation::AddListener(entry) => self.listeners.push(entry),
            Operation::RemoveListener(listener) => self.remove_listener(&listener),
            Operation::ShutdownConnections(code) => self.shutdown_connections(now, code),
            Operation::Stop => self.inbox.stop(),
            Operation::Device(_) => debug_assert!(false, "the context keeps work for the device"),
        }
    }

    /// Runs the next call of a connection, or sends it after one that has moved.
    fn run_call(&mut self, now: Instant, shared: Arc<ConnectionShared>) {
        if shared.partition() == self.inbox.partition {
            let Some(index) = shared.slot_index() else {
                if shared.gate().is_closed() {
                    return shared.gate().leave();
                }
                // It is just being put into the inbox here: after that.
                return self.inbox.requeue(Operation::Call(shared));
            };
            let hosted = self.take(index);
            let call = shared.next_call();
            if let (Some(mut hosted), Some(call)) = (hosted, call) {
                call(&mut hosted, now);
                shared.gate().leave();
                return self.put_back(now, index, hosted);
            }
            return shared.gate().leave();
        }
        match shared.inbox().reserve() {
            Some(permit) => permit.post(Operation::Call(Arc::clone(&shared))),
            // The worker there goes, and the connection with it: it runs what is left.
            None => shared.gate().leave(),
        }
    }

    /// Fires the timers that are due.
    pub fn expire(&mut self, now: Instant) {
        let mut expired = std::mem::take(&mut self.expired);
        self.timers.expire(now, |index| expired.push(index));
        for index in expired.drain(..) {
            let Some(mut hosted) = self.take(index) else {
                continue;
            };
            self.slots[index as usize].armed = Instant::FAR_FUTURE;
            if hosted.engine.deadline().is_some_and(|deadline| deadline <= now) {
                hosted.engine.on_timeout(now);
            }
            self.put_back(now, index, hosted);
        }
        self.expired = expired;
    }

    /// Somebody is on the way into or out of a call on a connection that ends: no sleep before that is over.
    pub fn waits_for_callers(&self) -> bool {
        !self.ending.is_empty()
    }

    /// Delivers the last event of connections that had calls to wait for.
    pub fn finish_ending(&mut self, now: Instant) {
        for index in std::mem::take(&mut self.ending) {
            if let Some(hosted) = self.take(index) {
                self.put_back(now, index, hosted);
            }
        }
    }

    /// Hosts a connection that we open. The handle's calls find it from now on.
    fn open_connection(&mut self, now: Instant, start: ClientStart) {
        let index = self.slots.vacant_key() as u32;
        let (cid, token) = self.new_local_cid(index);
        let engine = engine::Connection::client(
            now,
            start.config,
            &start.tls,
            start.server_name,
            start.path,
            engine::LocalCid { cid, token },
            start.tokens.take(start.path.remote).unwrap_or_default(),
            engine::seed(&mut self.rng),
        );
        self.stats.opened += 1;
        let mut hosted = HostedConnection::new(engine, start.connection, Some(start.handler));
        hosted.set_token_store(start.tokens);
        self.insert(now, hosted, None);
    }

    /// Stops listening. Connections live on.
    fn remove_listener(&mut self, listener: &Arc<ListenerShared>) {
        self.listeners
            .retain(|entry| !Arc::ptr_eq(&entry.listener, listener));
    }

    /// Shuts down every connection with this application error code.
    pub fn shutdown_connections(&mut self, now: Instant, code: u64) {
        self.shutdowns = (self.shutdowns.0 + 1, code);
        for index in self.slot_indices() {
            if let Some(mut hosted) = self.take(index) {
                hosted.engine.close(now, code);
                self.put_back(now, index, hosted);
            }
        }
    }

    /// Ends every connection without waiting for its peer.
    pub fn abandon_connections(&mut self, now: Instant) {
        for index in self.slot_indices() {
            if let Some(mut hosted) = self.take(index) {
                hosted.engine.abandon();
                self.put_back(now, index, hosted);
            }
        }
    }

    fn slot_indices(&self) -> Vec<u32> {
        self.slots.iter().map(|(index, _)| index as u32).collect()
    }

    fn insert(
        &mut self,
        now: Instant,
        hosted: Box<HostedConnection>,
        initial: Option<(std::net::SocketAddr, ConnectionId)>,
    ) -> u32 {
        let entry = self.slots.vacant_entry();
        let index = entry.key() as u32;
        hosted.shared().set_slot_index(Some(index));
        let handshaking = initial.is_some();
        if let Some((remote, cid)) = initial {
            self.routes.add_initial(remote, cid, index);
        }
        self.stats.connections += 1;
        self.stats.handshakes += u64::from(handshaking);
        entry.insert(Slot {
            hosted: None,
            ready: false,
            handshaking,
            armed: Instant::FAR_FUTURE,
            initial,
        });
        self.put_back(now, index, hosted);
        index
    }

    /// Takes a connection out of its slot to work on it. [`Worker::put_back`] must follow.
    fn take(&mut self, index: u32) -> Option<Box<HostedConnection>> {
        self.slots.get_mut(index as usize)?.hosted.take()
    }

    /// Puts a connection back after work: delivers its events, follows its connection IDs, arms its timer, notes that it may have
    /// something to send, and lets it go if it has ended.
    fn put_back(&mut self, now: Instant, index: u32, mut hosted: Box<HostedConnection>) {
        if hosted.has_events() {
            hosted = hosted.deliver_events(now);
        }
        hosted = self.offer_to_listener(now, hosted);
        self.follow_cids(index, &mut hosted);
        if hosted.engine.is_drained() {
            return self.end(now, index, hosted);
        }
        let slot = &mut self.slots[index as usize];
        if slot.handshaking && hosted.engine.is_established() {
            slot.handshaking = false;
            self.stats.handshakes -= 1;
            // Its next connection need not prove its address again.
            let remote = hosted.engine.path().remote.ip();
            hosted
                .engine
                .send_new_token(self.tokens.seal_new_token(unix_time_secs(), remote));
        }
        if !slot.ready {
            slot.ready = true;
            self.ready.push_back(index);
        }
        slot.hosted = Some(hosted);
    }

    /// Arms the timer of a connection that has sent all it could.
    fn rearm(&mut self, index: u32) {
        let slot = &mut self.slots[index as usize];
        let Some(deadline) = slot.hosted.as_ref().and_then(|hosted| hosted.engine.deadline()) else {
            return;
        };
        // A timer that fires early looks again; one that need not move costs nothing.
        if deadline < slot.armed {
            slot.armed = deadline;
            self.timers.set(index, deadline);
        }
    }

    /// Brings the routing tables in line with the connection IDs that the engine uses.
    fn follow_cids(&mut self, index: u32, hosted: &mut HostedConnection) {
        if !hosted.engine.has_cid_changes() {
            return;
        }
        while let Some(cid) = hosted.engine.next_retired_local_cid() {
            self.routes.remove_local_cid(&cid);
            self.forget_cids_elsewhere(hosted, &[cid]);
        }
        for _ in 0..hosted.engine.local_cids_wanted() {
            let (cid, token) = self.new_local_cid(index);
            hosted.engine.add_local_cid(engine::LocalCid { cid, token });
        }
        while let Some(change) = hosted.engine.next_reset_token_change() {
            match change {
                engine::cids::ResetTokenChange::Add(remote, token) => {
                    self.routes.add_reset_token(remote, &token, index);
                }
                engine::cids::ResetTokenChange::Remove(remote, token) => {
                    self.routes.remove_reset_token(remote, &token);
                }
            }
        }
        // Once the client uses a connection ID of ours, the one it chose leads nowhere (RFC 9000 section 7.2).
        if hosted.engine.is_established() {
            self.forget_initial(index);
        }
    }

    fn forget_initial(&mut self, index: u32) {
        if let Some((remote, cid)) = self.slots[index as usize].initial.take() {
            self.routes.remove_initial(remote, &cid);
        }
    }

    /// A connection ID that names this partition and is not in use, entered for `place`, with its reset token.
    fn new_local_cid(&mut self, index: u32) -> (ConnectionId, ringway_engine::wire::cid::ResetToken) {
        loop {
            let mut bytes = [0; LOCAL_CID_LEN];
            self.rng.fill_bytes(&mut bytes);
            self.partitioning.write(self.inbox.partition, &mut bytes);
            let cid = ConnectionId::new(&bytes).expect("8 bytes are within the limit of 20");
            if self.routes.add_local_cid(&cid, index) {
                return (cid, self.reset_key.token(&bytes));
            }
        }
    }

    fn end_later(&mut self, index: u32, hosted: Box<HostedConnection>) {
        self.slots[index as usize].hosted = Some(hosted);
        if !self.ending.contains(&index) {
            self.ending.push(index);
        }
    }

    /// Lets a connection go that has nothing more to send or to wait for: last events, then the slot.
    fn end(&mut self, now: Instant, index: u32, mut hosted: Box<HostedConnection>) {
        let gate = hosted.shared().gate();
        gate.close();
        if !gate.is_quiet() {
            // Calls of other threads that got in before the gate closed are in the inbox: after them.
            return self.end_later(index, hosted);
        }
        while let Some(call) = hosted.shared().next_call() {
            call(&mut hosted, now);
        }
        let mut hosted = hosted.deliver_events(now);
        if hosted.has_events() {
            // The last event of a stream waits for somebody who is just finding out that the connection is closed.
            return self.end_later(index, hosted);
        }
        let cids: Vec<_> = hosted.engine.local_cids().collect();
        cids.iter().for_each(|cid| self.routes.remove_local_cid(cid));
        self.forget_cids_elsewhere(&hosted, &cids);
        hosted.engine.retire_reset_tokens();
        while let Some(change) = hosted.engine.next_reset_token_change() {
            if let engine::cids::ResetTokenChange::Remove(remote, token) = change {
                self.routes.remove_reset_token(remote, &token);
            }
        }
        self.forget_initial(index);
        hosted.shared().set_slot_index(None);
        let slot = self.slots.remove(index as usize);
        self.timers.cancel(index);
        self.stats.connections -= 1;
        self.stats.handshakes -= u64::from(slot.handshaking);
        hosted.deliver_end(now);
    }
}
