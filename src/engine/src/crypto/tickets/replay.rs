//! What is sent in 0-RTT can be sent again by whoever has seen it (RFC 8446 section 8). Here each ticket brings 0-RTT once.

use std::collections::HashSet;
use std::fmt;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};

use rustls::time_provider::{DefaultTimeProvider, TimeProvider};

/// A ticket that is about to bring 0-RTT.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct TicketUse {
    /// Tells tickets apart, on all servers that share keys: bytes that look random.
    pub ticket: [u8; 16],
    /// When it was given out, in seconds of the Unix clock.
    pub issued: u64,
    /// This process has given it out.
    pub is_own: bool,
    /// Now, in seconds of the Unix clock.
    pub now: u64,
}

impl TicketUse {
    pub(super) fn new(ticket: [u8; 16], issued: u64, is_own: bool, now: u64) -> Self {
        TicketUse {
            ticket,
            issued,
            is_own,
            now,
        }
    }

    /// The client's first flight cannot bring 0-RTT any more after this second of the Unix clock, as the age that it says the ticket has would be
    /// off by more than a minute: after it, the use can be forgotten.
    pub fn forget_after(&self) -> u64 {
        self.now + WINDOW_SECS
    }
}

/// Sees to it that a ticket brings 0-RTT once. Called by all workers in parallel, in the middle of handshakes: it must not block.
///
/// The default is a [`StrikeRegister`], which knows the uses in this process. A fleet whose servers share ticket keys can put one before a store
/// that all of them ask, or let one server take a ticket only: what a ticket looks like says nothing of that, but [`TicketUse::is_own`] does. To ask
/// something that takes time, refuse here, or let the application answer
/// [`Resumed`](https://docs.rs/ringway/latest/ringway/enum.ConnectionEvent.html) later.
pub trait ReplayProtection: Send + Sync + 'static {
    /// True if the ticket may bring 0-RTT: it has brought none yet. From now on it has. False: the session is resumed without 0-RTT.
    fn claim(&self, ticket_use: &TicketUse) -> bool;

    /// It did not bring any after all: whoever sent the ticket did not have its secret.
    fn withdraw(&self, ticket_use: &TicketUse);
}

/// Remembers for two minutes which tickets have brought 0-RTT (RFC 8446 section 8.2): longer than the same first flight can bring it. What was
/// sealed elsewhere, and may have been used elsewhere or before this process began, is not known here: of tickets that other
/// processes gave out before this one began, none is taken in its first two minutes; and servers that share keys take a ticket once each.
///
/// It has a bound. With so many tickets in it, others bring no 0-RTT until some can be forgotten: the sessions are resumed all the same.
pub struct StrikeRegister {
    shards: [Mutex<Shard>; SHARDS],
    /// Uses in each of the two generations of a shard at most.
    shard_max: usize,
    /// In seconds of the Unix clock.
    started: u64,
}

#[derive(Default)]
struct Shard {
    /// The present generation, and the one before.
    used: [HashSet<[u8; 16]>; 2],
    /// Since when the present one is filled.
    since: u64,
}

impl fmt::Debug for StrikeRegister {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StrikeRegister")
            .field("started", &self.started)
            .finish_non_exhaustive()
    }
}

impl StrikeRegister {
    /// One that remembers at least this many uses, each in some 40 bytes. It begins now.
    pub fn new(uses_max: usize) -> Self {
        let now = DefaultTimeProvider.current_time();
        Self::starting_at(uses_max, now.map_or(u64::MAX, |now| now.as_secs()))
    }

    pub(super) fn starting_at(uses_max: usize, started: u64) -> Self {
        StrikeRegister {
            shards: Default::default(),
            shard_max: uses_max.div_ceil(SHARDS),
            started,
        }
    }

    /// That of the process, which servers have unless they are given another: 2^20 uses.
    pub fn shared() -> Arc<Self> {
        static SHARED: LazyLock<Arc<StrikeRegister>> =
            LazyLock::new(|| Arc::new(StrikeRegister::new(1 << 20)));
        Arc::clone(&SHARED)
    }

    fn shard(&self, ticket_use: &TicketUse) -> MutexGuard<'_, Shard> {
        let shard = &self.shards[usize::from(ticket_use.ticket[0]) % SHARDS];
        shard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ReplayProtection for StrikeRegister {
    fn claim(&self, ticket_use: &TicketUse) -> bool {
        // Section 8.2: what was used before the start is not known.
        let may_be_used = !ticket_use.is_own && ticket_use.issued <= self.started;
        if may_be_used && ticket_use.now <= self.started.saturating_add(WINDOW_SECS) {
            return false;
        }
        let mut shard = self.shard(ticket_use);
        shard.forget_old(ticket_use.now);
        if shard.used[1].contains(&ticket_use.ticket) || shard.used[0].len() >= self.shard_max {
            return false;
        }
        shard.used[0].insert(ticket_use.ticket)
    }

    fn withdraw(&self, ticket_use: &TicketUse) {
        let mut shard = self.shard(ticket_use);
        for used in &mut shard.used {
            used.remove(&ticket_use.ticket);
        }
    }
}

impl Shard {
    /// A clock that goes back makes the register remember for longer.
    fn forget_old(&mut self, now: u64) {
        let age = now.saturating_sub(self.since);
        if age < WINDOW_SECS {
            return;
        }
        self.used.swap(0, 1);
        self.used[0] = HashSet::new();
        if age >= 2 * WINDOW_SECS {
            self.used[1] = HashSet::new();
        }
        self.since = now;
    }
}

/// By this much the age that a client says its ticket has may differ from what the server reckons, for 0-RTT to be taken (RFC 8446 section 8.3):
/// as in rustls.
pub(super) const AGE_TOLERANCE_MS: u32 = 60_000;
/// The same first flight is taken within twice that, and clocks count whole seconds.
const WINDOW_SECS: u64 = 2 * 60 + 2;
const SHARDS: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    const START: u64 = 1_000_000;

    fn used(ticket: u8, issued: u64, now: u64) -> TicketUse {
        TicketUse::new([ticket; 16], issued, true, now)
    }

    #[test]
    fn ticket_is_taken_once_within_the_window_wherever_that_lies() {
        for offset in 0..2 * WINDOW_SECS {
            let register = StrikeRegister::starting_at(1000, START);
            let first = START + offset;
            assert!(register.claim(&used(1, START, first)));
            for later in [0, 1, 60, 121, WINDOW_SECS - 1] {
                // Others come meanwhile, and turn the generations over.
                register.claim(&used(17, START, first + later));
                assert!(
                    !register.claim(&used(1, START, first + later)),
                    "{offset} {later}"
                );
            }
            assert!(
                register.claim(&used(1, START, first + 2 * WINDOW_SECS)),
                "{offset}"
            );
        }
    }

    #[test]
    fn clock_that_goes_back_does_not_make_it_forget() {
        let register = StrikeRegister::starting_at(1000, START);
        assert!(register.claim(&used(1, START, START + 500)));
        for now in [START + 400, START, START + 499] {
            assert!(!register.claim(&used(1, START, now)));
        }
    }

    #[test]
    fn use_that_was_withdrawn_counts_for_nothing() {
        let register = StrikeRegister::starting_at(1000, START);
        let first = used(1, START, START);
        assert!(register.claim(&first));
        register.withdraw(&first);
        assert!(register.claim(&first));
        assert!(!register.claim(&first));
    }

    #[test]
    fn full_register_takes_no_more_until_some_are_forgotten() {
        let register = StrikeRegister::starting_at(SHARDS, START);
        let ticket = |number: u8, now| {
            let mut bytes = [number; 16];
            bytes[0] = 0;
            TicketUse::new(bytes, START, true, now)
        };
        assert!(register.claim(&ticket(1, START)));
        assert!(!register.claim(&ticket(2, START + 1)));
        assert!(register.claim(&ticket(2, START + WINDOW_SECS)));
        let held: usize = register
            .shards
            .iter()
            .map(|shard| {
                let shard = shard.lock().unwrap();
                shard.used.iter().map(HashSet::len).sum::<usize>()
            })
            .sum();
        assert_eq!(held, 2);
    }

    #[test]
    fn after_a_start_tickets_of_a_process_before_bring_nothing_for_as_long_as_they_may_have_been_used() {
        let register = StrikeRegister::starting_at(1000, START);
        let foreign = |issued, now| TicketUse::new([9; 16], issued, false, now);
        assert!(!register.claim(&foreign(START - 100, START + 1)));
        assert!(!register.claim(&foreign(START, START + WINDOW_SECS)));
        assert!(
            register.claim(&foreign(START + 1, START + 2)),
            "given out later: used later"
        );
        assert!(
            register.claim(&TicketUse::new([8; 16], START, true, START)),
            "of this process"
        );
        let register = StrikeRegister::starting_at(1000, START);
        assert!(register.claim(&foreign(START - 100, START + WINDOW_SECS + 1)));
    }

    #[test]
    fn many_threads_that_bring_the_same_ticket_find_one_winner() {
        let register = StrikeRegister::starting_at(1 << 16, START);
        for ticket in 0..50 {
            let wins: usize = std::thread::scope(|scope| {
                let threads: Vec<_> = (0..8)
                    .map(|_| scope.spawn(|| usize::from(register.claim(&used(ticket, START, START)))))
                    .collect();
                threads.into_iter().map(|thread| thread.join().unwrap()).sum()
            });
            assert_eq!(wins, 1);
        }
    }
}
