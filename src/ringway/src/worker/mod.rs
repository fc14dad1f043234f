//! The QUIC layer of one partition: its connections, their timers, the calls of other threads, and the events that
//! the application hears.
//!
//! A worker never waits and never reads a clock: [`context::ExecutionContext`] polls it with the time. The files
//! follow a packet's way: `receive` finds its connection, `accept` opens one, `hosted` tells the
//! application, `transmit` fills the device's slots.

mod accept;
mod adaptive_spin;
pub mod context;
pub mod current;
pub mod events;
mod gate;
pub mod hosted;
pub mod limits;
pub mod listener;
mod movement;
mod receive;
pub mod remote;
mod routes;
pub mod shared;
pub mod stats;
pub mod timer_wheel;
pub mod token_store;
mod transmit;

use std::collections::VecDeque;
use std::sync::Arc;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use ringway_datapath::partition::Partitioning;
use ringway_engine::base::Instant;
use ringway_engine::connection as engine;
use ringway_engine::crypto::reset::ResetKey;
use ringway_engine::crypto::token::TokenKeys;
use ringway_engine::wire::cid::ConnectionId;
use ringway_types::LOCAL_CID_LEN;
use slab::Slab;

use self::hosted::Hosted;
use self::listener::ListenerEntry;
use self::remote::{Operation, WorkerRemote};
use self::routes::Routes;
use self::shared::ConnectionShared;
use self::stats::WorkerStats;
use self::timer_wheel::TimerWheel;
use self::token_store::TokenStore;

/// The QUIC layer of one partition.
pub struct Worker {
    remote: Arc<WorkerRemote>,
    /// All workers of the process by partition, this one included.
    workers: Arc<[Arc<WorkerRemote>]>,
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
    stateless: transmit::StatelessQueue,
    /// What the device says it can do, as far as the engine plans with it.
    limits: engine::transmit::TransmitLimits,
    stats: WorkerStats,
    rng: StdRng,
    expired: Vec<u32>,
}

/// A place in the table of connections.
struct Slot {
    /// `None` only while the connection is being worked on.
    hosted: Option<Box<Hosted>>,
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
    pub workers: Arc<[Arc<WorkerRemote>]>,
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
            remote: Arc::clone(&config.workers[partition]),
            workers: Arc::clone(&config.workers),
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
            stateless: transmit::StatelessQueue::default(),
            limits,
            stats: WorkerStats::default(),
            rng: StdRng::from_seed(seed),
            expired: Vec::new(),
        }
    }

    /// What other threads see of the worker.
    pub fn remote(&self) -> &Arc<WorkerRemote> {
        &self.remote
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
            Operation::Worker(run) => run(self, now),
            Operation::Call(shared) => self.run_call(now, shared),
            Operation::Arrival(hosted) => self.arrive(now, hosted),
            Operation::Device(_) => debug_assert!(false, "the context keeps work for the device"),
            Operation::Datagram(handed_over) => self.on_handed_over(now, handed_over),
        }
    }

    /// Runs the next call of a connection, or sends it after one that has moved.
    fn run_call(&mut self, now: Instant, shared: Arc<ConnectionShared>) {
        if shared.partition() == self.remote.partition {
            let Some(place) = shared.place() else {
                if shared.gate().is_closed() {
                    return shared.gate().leave();
                }
                // It is just being put into the inbox here: after that.
                return self.remote.put_back(Operation::Call(shared));
            };
            let hosted = self.take(place);
            let call = shared.next_call();
            if let (Some(mut hosted), Some(call)) = (hosted, call) {
                call(&mut hosted, now);
                shared.gate().leave();
                return self.put_back(now, place, hosted);
            }
            return shared.gate().leave();
        }
        match shared.worker().reserve() {
            Some(place) => place.post(Operation::Call(Arc::clone(&shared))),
            // The worker there goes, and the connection with it: it runs what is left.
            None => shared.gate().leave(),
        }
    }

    /// Fires the timers that are due.
    pub fn expire(&mut self, now: Instant) {
        let mut expired = std::mem::take(&mut self.expired);
        self.timers.expire(now, |place| expired.push(place));
        for place in expired.drain(..) {
            let Some(mut hosted) = self.take(place) else {
                continue;
            };
            self.slots[place as usize].armed = Instant::FAR_FUTURE;
            if hosted.engine.deadline().is_some_and(|deadline| deadline <= now) {
                hosted.engine.on_timeout(now);
            }
            self.put_back(now, place, hosted);
        }
        self.expired = expired;
    }

    /// Somebody is on the way into or out of a call on a connection that ends: no sleep before that is over.
    pub fn waits_for_callers(&self) -> bool {
        !self.ending.is_empty()
    }

    /// Delivers the last event of connections that had calls to wait for.
    pub fn finish_ending(&mut self, now: Instant) {
        for place in std::mem::take(&mut self.ending) {
            if let Some(hosted) = self.take(place) {
                self.put_back(now, place, hosted);
            }
        }
    }

    /// Hosts a connection that we open. The handle's calls find it from now on.
    pub fn host_client(&mut self, now: Instant, shared: &Arc<ConnectionShared>, make: ClientMaker) {
        let place = self.slots.vacant_key() as u32;
        let (cid, token) = self.new_local_cid(place);
        let engine = make.engine(now, cid, token, engine::seed(&mut self.rng));
        self.stats.opened += 1;
        let mut hosted = Hosted::new(engine, shared::Connection(Arc::clone(shared)), Some(make.handler));
        hosted.set_token_store(make.tokens);
        self.insert(now, hosted, None);
    }

    /// Shuts down every connection with this application error code.
    pub fn shutdown_all(&mut self, now: Instant, code: u64) {
        self.shutdowns = (self.shutdowns.0 + 1, code);
        for place in self.places() {
            if let Some(mut hosted) = self.take(place) {
                hosted.engine.close(now, code);
                self.put_back(now, place, hosted);
            }
        }
    }

    /// Ends every connection without waiting for its peer.
    pub fn abandon_all(&mut self, now: Instant) {
        for place in self.places() {
            if let Some(mut hosted) = self.take(place) {
                hosted.engine.abandon();
                self.put_back(now, place, hosted);
            }
        }
    }

    fn places(&self) -> Vec<u32> {
        self.slots.iter().map(|(place, _)| place as u32).collect()
    }

    fn insert(
        &mut self,
        now: Instant,
        hosted: Box<Hosted>,
        initial: Option<(std::net::SocketAddr, ConnectionId)>,
    ) -> u32 {
        let entry = self.slots.vacant_entry();
        let place = entry.key() as u32;
        hosted.shared().set_place(Some(place));
        let handshaking = initial.is_some();
        if let Some((remote, cid)) = initial {
            self.routes.add_initial(remote, cid, place);
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
        self.put_back(now, place, hosted);
        place
    }

    /// Takes a connection out of its slot to work on it. [`Worker::put_back`] must follow.
    fn take(&mut self, place: u32) -> Option<Box<Hosted>> {
        self.slots.get_mut(place as usize)?.hosted.take()
    }

    /// Puts a connection back after work: delivers its events, follows its connection IDs, arms its timer, notes that it may have
    /// something to send, and lets it go if it has ended.
    fn put_back(&mut self, now: Instant, place: u32, mut hosted: Box<Hosted>) {
        if hosted.has_events() {
            hosted = hosted.deliver_events(now);
        }
        hosted = self.offer_to_listener(now, hosted);
        self.follow_cids(place, &mut hosted);
        if hosted.engine.is_drained() {
            return self.end(now, place, hosted);
        }
        let slot = &mut self.slots[place as usize];
        if slot.handshaking && hosted.engine.is_established() {
            slot.handshaking = false;
            self.stats.handshakes -= 1;
            // Its next connection need not prove its address again.
            let remote = hosted.engine.path().remote.ip();
            hosted
                .engine
                .send_new_token(self.tokens.seal_new_token(accept::calendar_secs(), remote));
        }
        if !slot.ready {
            slot.ready = true;
            self.ready.push_back(place);
        }
        slot.hosted = Some(hosted);
    }

    /// Arms the timer of a connection that has sent all it could.
    fn rearm(&mut self, place: u32) {
        let slot = &mut self.slots[place as usize];
        let Some(deadline) = slot.hosted.as_ref().and_then(|hosted| hosted.engine.deadline()) else {
            return;
        };
        // A timer that fires early looks again; one that need not move costs nothing.
        if deadline < slot.armed {
            slot.armed = deadline;
            self.timers.set(place, deadline);
        }
    }

    /// Brings the routing tables in line with the connection IDs that the engine uses.
    fn follow_cids(&mut self, place: u32, hosted: &mut Hosted) {
        if !hosted.engine.has_cid_changes() {
            return;
        }
        while let Some(cid) = hosted.engine.next_retired_local_cid() {
            self.routes.remove_local_cid(&cid);
            self.forget_elsewhere(hosted, &[cid]);
        }
        for _ in 0..hosted.engine.local_cids_wanted() {
            let (cid, token) = self.new_local_cid(place);
            hosted.engine.add_local_cid(engine::LocalCid { cid, token });
        }
        while let Some(change) = hosted.engine.next_reset_token_change() {
            match change {
                engine::cids::ResetTokenChange::Add(remote, token) => {
                    self.routes.add_reset_token(remote, &token, place);
                }
                engine::cids::ResetTokenChange::Remove(remote, token) => {
                    self.routes.remove_reset_token(remote, &token);
                }
            }
        }
        // Once the client uses a connection ID of ours, the one it chose leads nowhere (RFC 9000 section 7.2).
        if hosted.engine.is_established() {
            self.forget_initial(place);
        }
    }

    fn forget_initial(&mut self, place: u32) {
        if let Some((remote, cid)) = self.slots[place as usize].initial.take() {
            self.routes.remove_initial(remote, &cid);
        }
    }

    /// A connection ID that names this partition and is not in use, entered for `place`, with its reset token.
    fn new_local_cid(&mut self, place: u32) -> (ConnectionId, ringway_engine::wire::cid::ResetToken) {
        loop {
            let mut bytes = [0; LOCAL_CID_LEN];
            self.rng.fill_bytes(&mut bytes);
            self.partitioning.write(self.remote.partition, &mut bytes);
            let cid = ConnectionId::new(&bytes).expect("8 bytes are within the limit of 20");
            if self.routes.add_local_cid(&cid, place) {
                return (cid, self.reset_key.token(&bytes));
            }
        }
    }

    fn end_later(&mut self, place: u32, hosted: Box<Hosted>) {
        self.slots[place as usize].hosted = Some(hosted);
        if !self.ending.contains(&place) {
            self.ending.push(place);
        }
    }

    /// Lets a connection go that has nothing more to send or to wait for: last events, then the slot.
    fn end(&mut self, now: Instant, place: u32, mut hosted: Box<Hosted>) {
        let gate = hosted.shared().gate();
        gate.close();
        if !gate.is_quiet() {
            // Calls of other threads that got in before the gate closed are in the inbox: after them.
            return self.end_later(place, hosted);
        }
        while let Some(call) = hosted.shared().next_call() {
            call(&mut hosted, now);
        }
        let mut hosted = hosted.deliver_events(now);
        if hosted.has_events() {
            // The last event of a stream waits for somebody who is just finding out that the connection is closed.
            return self.end_later(place, hosted);
        }
        let cids: Vec<_> = hosted.engine.local_cids().collect();
        cids.iter().for_each(|cid| self.routes.remove_local_cid(cid));
        self.forget_elsewhere(&hosted, &cids);
        hosted.engine.retire_reset_tokens();
        while let Some(change) = hosted.engine.next_reset_token_change() {
            if let engine::cids::ResetTokenChange::Remove(remote, token) = change {
                self.routes.remove_reset_token(remote, &token);
            }
        }
        self.forget_initial(place);
        hosted.shared().set_place(None);
        let slot = self.slots.remove(place as usize);
        self.timers.cancel(place);
        self.stats.connections -= 1;
        self.stats.handshakes -= u64::from(slot.handshaking);
        hosted.deliver_end(now);
    }
}

/// Everything needed to make the engine of a connection that we open, on the worker's thread.
pub struct ClientMaker {
    /// What the connection may do.
    pub config: Arc<engine::config::Config>,
    /// TLS configuration.
    pub tls: ringway_engine::crypto::tls::ClientTls,
    /// The name that the server's certificate must have.
    pub server_name: rustls::pki_types::ServerName<'static>,
    /// The addresses to use.
    pub path: engine::PathAddress,
    /// The application's handler.
    pub handler: Box<dyn events::ConnectionHandler>,
    /// Tokens of servers.
    pub tokens: Arc<TokenStore>,
}

impl ClientMaker {
    fn engine(
        &self,
        now: Instant,
        cid: ConnectionId,
        token: ringway_engine::wire::cid::ResetToken,
        seed: [u8; 32],
    ) -> engine::Connection {
        engine::Connection::client(
            now,
            Arc::clone(&self.config),
            &self.tls,
            self.server_name.clone(),
            self.path,
            engine::LocalCid { cid, token },
            self.tokens.take(self.path.remote).unwrap_or_default(),
            seed,
        )
    }
}
