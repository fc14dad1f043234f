//! The QUIC layer of one partition: its connections, their timers, the calls of other threads, and the delivery of
//! events to the application.
//!
//! A worker never blocks and never reads a clock: [`context::ExecutionContext`] polls it and passes the time. The files
//! follow a packet's way: `receive` finds its connection, `accept` opens a new one, `deliver` calls the application,
//! and `transmit` fills the device's slots.

mod accept;
mod adaptive_spin;
mod admission;
pub(crate) mod between_turns;
pub(crate) mod calls;
pub(crate) mod context;
mod counting;
mod counts;
pub(crate) mod current;
mod deliver;
pub(crate) mod events;
pub(crate) mod facts;
#[cfg(all(test, feature = "sim"))]
pub(crate) mod fault;
mod gate;
pub(crate) mod handles;
mod holdup;
pub(crate) mod hosted_connection;
pub(crate) mod idle_policy;
pub(crate) mod inbox;
pub(crate) mod known;
pub(crate) mod limits;
pub(crate) mod listener;
mod memory;
mod movement;
pub(crate) mod port_lease;
mod receive;
mod receive_buffers;
pub(crate) mod received;
mod refusals;
mod routes;
mod rss_tracker;
mod stateless;
pub(crate) mod stats;
pub(crate) mod ticket_store;
pub(crate) mod timer_wheel;
pub(crate) mod token_store;
mod transmit;
pub(crate) mod unix_time;
pub(crate) mod wake_ups;

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Weak};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use ringway_datapath::heap::give_back_freed_memory;
use ringway_datapath::partition::Partitioning;
use ringway_engine::connection as engine;
use ringway_engine::connection::close::CloseReason;
use ringway_engine::crypto::reset::ResetKey;
use ringway_engine::crypto::token::TokenKeys;
use ringway_engine::streams::forget_kept_states;
use ringway_engine::wire::cid::ConnectionId;
use ringway_engine::wire::error::{TransportError, TransportErrorCode};
use ringway_types::{Instant, LOCAL_CID_LEN};
use slab::Slab;

use self::admission::{Handshake, Handshakes};
use self::counts::Delay;
use self::handles::ConnectionShared;
use self::hosted_connection::HostedConnection;
use self::inbox::{ClientStart, Inbox, Operation};
use self::limits::Limits;
use self::listener::{ListenerEntry, ListenerShared};
use self::memory::Memory;
use self::port_lease::PortLease;
use self::routes::Routes;
use self::stateless::StatelessQueue;
use self::stats::WorkerStats;
use self::ticket_store::TicketDestination;
use self::timer_wheel::TimerWheel;
use self::unix_time::unix_time_secs;

/// The QUIC layer of one partition.
pub(crate) struct Worker {
    inbox: Arc<Inbox>,
    /// The inboxes of all workers, by partition, including this one's.
    inboxes: Arc<[Arc<Inbox>]>,
    partitioning: Partitioning,
    slots: Slab<Slot>,
    routes: Routes,
    handshakes: Handshakes,
    memory: Memory,
    timers: TimerWheel,
    /// The slots of connections that may have something to send. One may have become empty since.
    ready: VecDeque<u32>,
    /// The slots of connections that wait for calls of other threads before their last event.
    ending: Vec<u32>,
    /// The slots of connections that were worked on since the last turn.
    entered: Vec<u32>,
    /// Some handler has notified its own connection, which hears of it in the next turn.
    is_notified: bool,
    listeners: Vec<ListenerEntry>,
    /// Ports on which a listener has stopped.
    left_ports: Vec<Weak<PortLease>>,
    /// How often all connections have been shut down, and the last application error code.
    shutdowns: (u64, u64),
    /// When connections that have been shut down are abandoned, whatever their peers still do; after all of them.
    abandon_at: Instant,
    reset_key: ResetKey,
    tokens: TokenKeys,
    stateless: StatelessQueue,
    connections_max: usize,
    /// How many operations one turn runs.
    pub(crate) operations_max: usize,
    handshakes_before_retry: usize,
    /// There are as many handshakes.
    under_load: bool,
    /// The device's limits that the engine plans with.
    limits: engine::transmit::TransmitLimits,
    stats: WorkerStats,
    /// When the turn began.
    turn: Instant,
    /// There was nothing to do at its end.
    idle: bool,
    turn_delay: Delay,
    delay_max: Duration,
    rng: StdRng,
    expired: Vec<u32>,
}

/// A slot in the table of connections.
struct Slot {
    /// `None` only while the worker works on the connection.
    hosted: Option<Box<HostedConnection>>,
    /// It is in [`Worker::ready`], since then.
    ready: bool,
    ready_since: Instant,
    /// It is in [`Worker::entered`].
    entered: bool,
    /// It is in [`Worker::handshakes`].
    handshake: Option<Handshake>,
    /// When its timer fires; never later than the engine's deadline.
    armed: Instant,
    /// The connection ID that the client chose, while it is routed here.
    initial: Option<Box<(std::net::SocketAddr, ConnectionId)>>,
}

/// What the workers of a registration share.
pub(crate) struct WorkerConfig {
    /// How connection IDs name partitions.
    pub partitioning: Partitioning,
    /// The inboxes of all workers, by partition.
    pub inboxes: Arc<[Arc<Inbox>]>,
    /// The key of stateless reset tokens; the same on all workers.
    pub reset_key: [u8; 32],
    /// The secret that seals address validation tokens; the same on all workers.
    pub token_secret: [u8; 32],
    /// Seeds the worker's random numbers, together with the partition.
    pub seed: [u8; 32],
    /// How much clients may make it hold.
    pub limits: Limits,
}

impl Worker {
    /// The worker of a partition.
    pub(crate) fn new(
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
            handshakes: Handshakes::new(config.limits),
            memory: Memory::new(config.limits.memory),
            timers: TimerWheel::new(now),
            ready: VecDeque::new(),
            ending: Vec::new(),
            entered: Vec::new(),
            is_notified: false,
            listeners: Vec::new(),
            left_ports: Vec::new(),
            shutdowns: (0, 0),
            abandon_at: Instant::FAR_FUTURE,
            reset_key: ResetKey::new(config.reset_key),
            tokens: TokenKeys::new(config.token_secret),
            stateless: StatelessQueue::new(config.limits.stateless_replies_per_turn),
            operations_max: config.limits.operations_per_turn,
            connections_max: config.limits.connections,
            handshakes_before_retry: config.limits.handshakes_before_retry,
            under_load: false,
            limits,
            stats: WorkerStats::default(),
            turn: now,
            idle: true,
            turn_delay: Delay::default(),
            delay_max: config.limits.turn_delay,
            rng: StdRng::from_seed(seed),
            expired: Vec::new(),
        }
    }

    /// The inbox that other threads post to.
    pub(crate) fn inbox(&self) -> &Arc<Inbox> {
        &self.inbox
    }

    /// Counters since the worker was created.
    pub(crate) fn stats(&self) -> WorkerStats {
        WorkerStats {
            memory: self.memory.held(),
            handshakes: self.handshakes.len() as u64,
            queued_connections: self.ready.len() as u64,
            turn_delay: self.turn_delay.average(),
            queued_operations: self.inbox.len() as u64,
            stateless_replies: self.stateless.written(),
            queued_stateless_replies: self.stateless.len() as u64,
            ..self.stats
        }
    }

    /// Counts a turn of the loop.
    pub(crate) fn count_turn(&mut self) {
        self.stats.turns += 1;
    }

    /// Counts a turn that took longer than [`stats::SLOW_TURN`].
    pub(crate) fn count_slow_turn(&mut self) {
        self.stats.slow_turns += 1;
    }

    /// True if there are no connections.
    pub(crate) fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// When a timer fires next, connections are to be abandoned, or memory is to be given back.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let abandon = Some(self.abandon_at).filter(|&at| at != Instant::FAR_FUTURE);
        [self.timers.next_deadline(), abandon, self.memory.deadline()]
            .into_iter()
            .flatten()
            .min()
    }

    /// Runs an operation from the inbox, `left` of them in this turn at most. Gives how many there were: a call with priority brings along
    /// those before it.
    pub(crate) fn run(&mut self, now: Instant, operation: Operation, left: usize) -> usize {
        self.stats.operations += 1;
        match operation {
            Operation::Call(shared) => self.run_calls(now, shared, 1),
            Operation::PriorityCalls(shared) => {
                // Not those that are made meanwhile: a thread that calls again and again would keep the worker here.
                let count = shared.waiting_calls().clamp(1, left.max(1));
                self.run_calls(now, shared, count);
                return count;
            }
            Operation::Datagram(handed_over) => self.on_handed_over(now, handed_over),
            Operation::OpenConnection(start) => self.open_connection(now, *start),
            Operation::MoveIn(hosted) => self.move_in(now, hosted),
            Operation::ForgetMovedCids(cids) => self.forget_moved_cids(&cids),
            Operation::AddListener(entry) => self.listeners.push(entry),
            Operation::RemoveListener(listener) => self.remove_listener(&listener),
            Operation::ShutdownConnections { code, timeout } => self.shutdown_connections(now, code, timeout),
            Operation::SetResetKey(key) => self.reset_key = ResetKey::new(key),
            Operation::SetTokenSecrets(secrets) => self.tokens.set_secrets(&secrets),
            Operation::Stop => self.inbox.stop(),
            Operation::Device(_) => debug_assert!(false, "the context keeps work for the device"),
        }
        1
    }

    /// Runs the next calls of a connection, at most so many; if the connection has moved, passes them on. Calls that have run before their turn leave
    /// operations behind that find nothing.
    fn run_calls(&mut self, now: Instant, shared: Arc<ConnectionShared>, count: usize) {
        if shared.partition() == self.inbox.partition {
            let Some(index) = shared.slot_index() else {
                if shared.gate().is_closed() {
                    return shared.gate().leave();
                }
                // The connection is about to arrive in this inbox: try again after that.
                return self.inbox.requeue(Operation::Call(shared));
            };
            if let Some(mut hosted) = self.take(index) {
                let mut left = count;
                while left > 0
                    && let Some((posted, call)) = shared.next_call()
                {
                    left -= 1;
                    hosted.delays.calls.add(waited(now, posted));
                    hosted.guarded(now, |hosted| call(hosted, now));
                }
                shared.gate().leave();
                return self.put_back(now, index, hosted);
            }
            return shared.gate().leave();
        }
        match shared.inbox().reserve() {
            Some(permit) => permit.post(Operation::Call(Arc::clone(&shared))),
            // That worker ends, and the connection with it; the connection's end runs the calls that are left.
            None => shared.gate().leave(),
        }
    }

    /// Fires the timers that are due.
    pub(crate) fn expire(&mut self, now: Instant) {
        let mut expired = std::mem::take(&mut self.expired);
        self.timers.expire(now, |index| expired.push(index));
        for index in expired.drain(..) {
            let Some(mut hosted) = self.take(index) else {
                continue;
            };
            self.slots[index as usize].armed = Instant::FAR_FUTURE;
            if hosted.engine.deadline().is_some_and(|deadline| deadline <= now) {
                hosted.guarded(now, |hosted| hosted.engine.on_timeout(now));
            }
            self.put_back(now, index, hosted);
        }
        self.expired = expired;
    }

    /// Gives memory back to the system, if much of it was freed a while ago. To be called when there is nothing else to do.
    pub(crate) fn on_idle(&mut self, now: Instant) {
        if self.memory.is_give_back_due(now) {
            self.slots.shrink_to_fit();
            self.routes.shrink_to_fit();
            self.handshakes.shrink_to_fit();
            self.ready.shrink_to_fit();
            self.expired.shrink_to_fit();
            forget_kept_states();
            if memory::may_give_back(now) {
                give_back_freed_memory();
                self.stats.given_back += 1;
            }
        }
    }

    /// Abandons the connections that were shut down, if their time is over. To be called when they have had the chance to
    /// tell their peers.
    pub(crate) fn abandon_overdue(&mut self, now: Instant) {
        if self.abandon_at <= now {
            self.abandon_at = Instant::FAR_FUTURE;
            self.abandon_connections(now, |engine| !engine.is_open());
        }
    }

    /// True if another thread is just entering or leaving a call on a connection that ends, or on a stream that does. The worker must not
    /// sleep until it has.
    pub(crate) fn waits_for_callers(&self) -> bool {
        !self.ending.is_empty()
    }

    /// True if a connection is to be notified in the next turn.
    pub(crate) fn begin_notified(&mut self) -> bool {
        std::mem::take(&mut self.is_notified)
    }

    /// Delivers the last events of connections that have waited for calls of other threads.
    pub(crate) fn finish_ending(&mut self, now: Instant) {
        for index in std::mem::take(&mut self.ending) {
            if let Some(hosted) = self.take(index) {
                self.put_back(now, index, hosted);
            }
        }
    }

    /// Opens a connection. From now on, calls on its handle find it.
    fn open_connection(&mut self, now: Instant, start: ClientStart) {
        let index = self.slots.vacant_key() as u32;
        let (cid, reset_token) = self.new_local_cid(index);
        let version = start.config.version;
        let path = engine::PathAddress {
            port: start.port.id,
            local: start.port.local,
            remote: start.remote,
        };
        let token = start.tokens.take(path.remote, version).unwrap_or_default();
        let tickets = start.tickets.as_ref();
        let from_store = || Some(tickets.and_then(TicketDestination::take)?.0);
        let ticket = start.ticket.or_else(from_store);
        let local_cid = engine::LocalCid {
            cid,
            token: reset_token,
        };
        let seed = engine::seed(&mut self.rng);
        let (config, tls, name) = (start.config, start.tls, start.server_name);
        let open = AssertUnwindSafe(|| {
            #[cfg(all(test, feature = "sim"))]
            fault::panic_if_asked();
            engine::Connection::client(now, config, &tls, name, path, local_cid, token, ticket, seed)
        });
        let engine = catch_unwind(open).unwrap_or_else(|payload| {
            tracing::error!(
                "the protocol engine panicked, which is a fault of Ringway; a connection is not opened"
            );
            // Dropping the payload may panic again.
            std::mem::forget(payload);
            let error = TransportError::new(TransportErrorCode::INTERNAL_ERROR, "an internal fault");
            engine::Connection::stillborn(now, path, local_cid, seed, CloseReason::Transport(error))
        });
        self.stats.opened += 1;
        let connecting = start.port.begin_connecting();
        let mut hosted = HostedConnection::new(engine, start.connection, start.port, Some(start.handler));
        hosted.connecting = Some(connecting);
        hosted.set_token_store(start.tokens);
        hosted.set_ticket_destination(start.tickets);
        let index = self.insert(now, hosted, None, None);
        if self.inbox.is_stopping()
            && let Some(mut hosted) = self.take(index)
        {
            // It was opened while all connections were shut down, by a handler that heard of it perhaps.
            let code = self.shutdowns.1;
            hosted.guarded(now, |hosted| hosted.engine.close(now, code));
            self.put_back(now, index, hosted);
        }
    }

    /// Stops listening. Connections live on.
    fn remove_listener(&mut self, listener: &Arc<ListenerShared>) {
        let mut stopped = Vec::new();
        self.listeners.retain(|entry| {
            let stays = !Arc::ptr_eq(&entry.listener, listener);
            if !stays {
                stopped.push(Arc::downgrade(&entry.port));
            }
            stays
        });
        // As long as connections are on them, clients that come are refused.
        self.left_ports.retain(|port| port.strong_count() > 0);
        for port in stopped {
            if port.strong_count() > 0 && !self.left_ports.iter().any(|left| left.ptr_eq(&port)) {
                self.left_ports.push(port);
            }
        }
    }

    /// Shuts down every connection with this application error code. What still waits for its peer after `timeout` is
    /// abandoned.
    pub(crate) fn shutdown_connections(&mut self, now: Instant, code: u64, timeout: Duration) {
        self.shutdowns = (self.shutdowns.0 + 1, code);
        self.abandon_at = self.abandon_at.min(now + timeout);
        for index in self.slot_indices() {
            if let Some(mut hosted) = self.take(index) {
                hosted.guarded(now, |hosted| hosted.engine.close(now, code));
                self.put_back(now, index, hosted);
            }
        }
    }

    /// Ends these connections without waiting for their peers.
    pub(crate) fn abandon_connections(&mut self, now: Instant, which: impl Fn(&engine::Connection) -> bool) {
        for index in self.slot_indices() {
            if let Some(mut hosted) = self.take(index) {
                if which(&hosted.engine) {
                    hosted.engine.abandon(CloseReason::LocalApplication {
                        code: 0,
                        reason: String::new(),
                    });
                }
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
        handshake: Option<Handshake>,
    ) -> u32 {
        let entry = self.slots.vacant_entry();
        let index = entry.key() as u32;
        hosted.shared().set_slot_index(Some(index));
        if let Some((remote, cid)) = initial {
            self.routes.add_initial(remote, cid, index);
        }
        self.stats.connections += 1;
        entry.insert(Slot {
            hosted: None,
            ready: false,
            ready_since: now,
            entered: false,
            handshake,
            armed: Instant::FAR_FUTURE,
            initial: initial.map(Box::new),
        });
        self.put_back(now, index, hosted);
        index
    }

    /// Takes a connection out of its slot to work on it. [`Worker::put_back`] must follow.
    fn take(&mut self, index: u32) -> Option<Box<HostedConnection>> {
        self.slots.get_mut(index as usize)?.hosted.take()
    }

    /// Puts a connection back after work: delivers its events, updates its routes, marks it as ready to send, and
    /// removes it if it has ended.
    fn put_back(&mut self, now: Instant, index: u32, mut hosted: Box<HostedConnection>) {
        if hosted.has_events() {
            hosted = hosted.deliver_events(now);
        }
        if !hosted.engine.is_established() {
            hosted = self.offer_to_listener(now, hosted);
            // The question about the client's ticket comes before anything is sent: the answer leaves with the acknowledgement, in one datagram.
            // Who has the handler notified in `Notified` is heard in the next turn.
            if hosted.engine.has_events() {
                hosted = hosted.deliver_events(now);
            }
        }
        if hosted.engine.has_waiting() {
            hosted = self.deliver_waiting(now, hosted);
        }
        self.follow_cids(now, index, &mut hosted);
        self.follow_handshake(index, &mut hosted);
        self.follow_memory(now, &mut hosted);
        self.follow_counts(&mut hosted);
        if !hosted.engine.is_open() && !hosted.ended {
            match self.end_for_application(now, index, hosted) {
                Some(ended) => hosted = ended,
                None => return,
            }
        }
        if hosted.engine.is_drained() {
            return self.remove(now, index, hosted);
        }
        self.is_notified |= hosted.is_notified();
        let slot = &mut self.slots[index as usize];
        if !slot.ready {
            slot.ready = true;
            slot.ready_since = now;
            self.ready.push_back(index);
        }
        if !hosted.ending.is_empty() {
            return self.end_later(index, hosted);
        }
        slot.hosted = Some(hosted);
    }

    /// Delivers what came before its keys: what a client that was just accepted has sent in 0-RTT, or what has waited for a verdict on a
    /// certificate.
    fn deliver_waiting(&mut self, now: Instant, mut hosted: Box<HostedConnection>) -> Box<HostedConnection> {
        let drops = &mut self.stats.drops;
        hosted.guarded(now, |hosted| hosted.engine.open_waiting(now, drops));
        if hosted.has_events() {
            hosted = hosted.deliver_events(now);
        }
        hosted
    }

    /// Keeps count of what the connection holds.
    #[inline]
    fn follow_memory(&mut self, now: Instant, hosted: &mut HostedConnection) {
        let change = hosted.memory.set(hosted.engine.memory());
        self.memory.add(now, change);
        hosted.engine.freeze_windows(self.memory.is_full());
    }

    /// Keeps count of a client's handshake.
    fn follow_handshake(&mut self, index: u32, hosted: &mut HostedConnection) {
        let slot = &mut self.slots[index as usize];
        let Some(handshake) = &slot.handshake else { return };
        let engine = &mut hosted.engine;
        if !engine.is_established() && !engine.is_drained() {
            if !engine.is_open() {
                // It holds its place for as long as it answers its peer, unless somebody else needs that.
                self.handshakes.on_failed(handshake, index);
            } else if engine.is_address_validated() {
                self.handshakes.on_proven(handshake);
            }
            return;
        }
        self.handshakes.end(handshake);
        slot.handshake = None;
        self.follow_load();
        let engine = &mut hosted.engine;
        if engine.is_established() {
            // With this token its next connection need not prove its address again.
            let (version, remote) = (engine.version(), engine.path().remote.ip());
            engine.send_new_token(self.tokens.seal_new_token(unix_time_secs(), version, remote));
        }
    }

    /// Sets the timer of a connection that has sent all it could.
    fn rearm(&mut self, index: u32) {
        let slot = &mut self.slots[index as usize];
        let Some(deadline) = slot.hosted.as_ref().and_then(|hosted| hosted.engine.deadline()) else {
            return;
        };
        // A timer that fires early is set again; one that need not change costs nothing.
        if deadline < slot.armed {
            slot.armed = deadline;
            self.timers.set(index, deadline);
        }
    }

    /// Updates the routes for the connection IDs that the engine has added or retired.
    #[inline]
    fn follow_cids(&mut self, now: Instant, index: u32, hosted: &mut HostedConnection) {
        if hosted.engine.has_cid_changes() {
            hosted.guarded(now, |hosted| self.follow_changed_cids(index, hosted));
        }
    }

    fn follow_changed_cids(&mut self, index: u32, hosted: &mut HostedConnection) {
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
        // Once the client uses a connection ID of ours, the one that it chose is no longer routed (RFC 9000 section
        // 7.2).
        if hosted.engine.is_established() {
            self.forget_initial(index);
        }
    }

    fn forget_initial(&mut self, index: u32) {
        if let Some(initial) = self.slots[index as usize].initial.take() {
            let (remote, cid) = *initial;
            self.routes.remove_initial(remote, &cid);
        }
    }

    /// Makes an unused connection ID that names this partition, with its reset token, and routes it to the slot.
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

    /// Ends what the application knows of a connection that has ended: its last events, and the calls that were on their
    /// way. What its peer may still ask is answered for a while without it (RFC 9000 section 10.2): gives the
    /// connection back for that, or `None` if calls of other threads have to come first.
    fn end_for_application(
        &mut self,
        now: Instant,
        index: u32,
        mut hosted: Box<HostedConnection>,
    ) -> Option<Box<HostedConnection>> {
        let gate = hosted.shared().gate();
        gate.close();
        if !gate.is_quiet() {
            // Calls of other threads that entered before the gate closed are still in the inbox.
            self.end_later(index, hosted);
            return None;
        }
        while let Some((_, call)) = hosted.shared().next_call() {
            hosted.guarded(now, |hosted| call(hosted, now));
        }
        let mut hosted = hosted.deliver_events(now);
        if hosted.has_events() {
            // The last event of a stream waits for a thread that is just finding out that the connection is closed.
            self.end_later(index, hosted);
            return None;
        }
        hosted.shared().set_slot_index(None);
        self.count_end(&mut hosted);
        Some(hosted.deliver_end(now))
    }

    /// Forgets a connection that has nothing left to send or to wait for.
    fn remove(&mut self, now: Instant, index: u32, mut hosted: Box<HostedConnection>) {
        self.memory.add(now, hosted.memory.set(0));
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
        self.slots.remove(index as usize);
        self.timers.cancel(index);
        self.stats.connections -= 1;
    }
}

/// How long what was posted in this turn has waited; nothing, if its worker was idle then.
fn waited(now: Instant, posted: Instant) -> Duration {
    match posted {
        Instant::ZERO => Duration::ZERO,
        posted => now.since(posted),
    }
}
