//! What a thread does with the connections of a context that it drives, between the context's turns: as in their handlers, calls take effect at once,
//! without the worker's inbox.
//!
//! The worker lies behind a lock that nobody waits for: the context has it for its turns, and the thread that took the last turn for what it does
//! between them. Whoever finds it taken goes another way.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};

use ringway_datapath::clock::Clock;
use ringway_types::Instant;

use super::handles::ConnectionShared;
use super::inbox::Inbox;
use super::{Worker, current, wake_ups};

/// A worker, and which thread drives it.
pub(crate) struct Driven {
    inbox: Arc<Inbox>,
    /// `None`: its context has gone.
    worker: Mutex<Option<Box<Worker>>>,
    /// The number of the thread that took the last turn; 0: one of ours, which does nothing between turns.
    thread: AtomicUsize,
    /// Its time is a simulated network's.
    is_simulated: AtomicBool,
}

/// How many threads have numbers.
static THREADS: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    /// The number of this thread. Addresses would come again, on the next thread.
    static THREAD: usize = THREADS.fetch_add(1, Ordering::Relaxed) + 1;
    /// What this thread drives, or has driven.
    static DRIVEN: RefCell<Vec<Arc<Driven>>> = const { RefCell::new(Vec::new()) };
}

/// The number of this thread; `None`: it ends.
fn this_thread() -> Option<usize> {
    THREAD.try_with(|thread| *thread).ok()
}

impl Driven {
    pub(crate) fn new(worker: Box<Worker>) -> Arc<Self> {
        Arc::new(Driven {
            inbox: Arc::clone(worker.inbox()),
            worker: Mutex::new(Some(worker)),
            thread: AtomicUsize::new(0),
            is_simulated: AtomicBool::new(false),
        })
    }

    pub(crate) fn inbox(&self) -> &Arc<Inbox> {
        &self.inbox
    }

    /// The worker; `None` if somebody works with it just now, on this thread or on another one.
    pub(crate) fn worker(&self) -> Option<MutexGuard<'_, Option<Box<Worker>>>> {
        match self.worker.try_lock() {
            Ok(worker) => Some(worker),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    /// Looks at the worker, if nobody works with it just now.
    pub(crate) fn look<R>(&self, look: impl FnOnce(&mut Worker) -> R) -> Option<R> {
        Some(look(self.worker()?.as_mut()?))
    }

    /// Takes the worker away, for its context's end.
    pub(crate) fn take(&self) -> Option<Box<Worker>> {
        self.worker.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// This thread drives it from now on, and may work with it between turns.
    pub(crate) fn set_driven_here(self: &Arc<Self>, is_simulated: bool) {
        let Some(here) = this_thread() else { return };
        if self.thread.load(Ordering::Relaxed) != here {
            self.is_simulated.store(is_simulated, Ordering::Relaxed);
            let is_known = self.register(here);
            self.thread
                .store(if is_known { here } else { 0 }, Ordering::Relaxed);
        }
    }

    /// False if the thread ends, or if this is within [`enter`]: perhaps next time.
    #[cold]
    fn register(self: &Arc<Self>, here: usize) -> bool {
        let register = |driven: &RefCell<Vec<Arc<Driven>>>| {
            let mut driven = driven.try_borrow_mut().ok()?;
            driven.retain(|driven| !Arc::ptr_eq(driven, self) && driven.is_driven_by(here));
            driven.push(Arc::clone(self));
            Some(())
        };
        DRIVEN.try_with(register).ok().flatten().is_some()
    }

    fn is_driven_by(&self, thread: usize) -> bool {
        self.thread.load(Ordering::Relaxed) == thread && self.worker().is_none_or(|worker| worker.is_some())
    }
}

/// Runs `work` with the connection as the current one, as in its handler, if this thread drives its context and is not in a turn of that, and if no
/// call waits for the worker, which would come first. What follows from it comes in the next turn. True if it has run.
pub(crate) fn enter(shared: &Arc<ConnectionShared>, work: impl FnOnce()) -> bool {
    if current::is_of(shared) {
        work();
        return true;
    }
    // What the application runs within a call goes the other way, as does what is dropped with a thread.
    if !current::is_free() || !wake_ups::are_there() {
        return false;
    }
    let Some(here) = this_thread() else {
        return false;
    };
    let enter = |driven: &RefCell<Vec<Arc<Driven>>>| {
        let driven = driven.try_borrow().ok()?;
        let driven = driven
            .iter()
            .find(|driven| Arc::ptr_eq(&driven.inbox, shared.inbox()))?;
        if driven.thread.load(Ordering::Relaxed) != here || shared.waiting_calls() > 0 {
            return None;
        }
        let clock = (!driven.is_simulated.load(Ordering::Relaxed)).then(Clock::shared);
        // Whom it wakes may run at once: behind this, when the worker is free again.
        wake_ups::in_any_turn(|| driven.worker()?.as_mut()?.enter(shared, clock, work))
    };
    DRIVEN.try_with(enter).is_ok_and(|entered| entered.is_some())
}

impl Worker {
    fn enter(
        &mut self,
        shared: &Arc<ConnectionShared>,
        clock: Option<Clock>,
        work: impl FnOnce(),
    ) -> Option<()> {
        if shared.partition() != self.inbox.partition || shared.gate().is_closed() {
            return None;
        }
        let index = shared.slot_index()?;
        let mut hosted = self.take(index)?;
        let now = match clock {
            // The last turn may be any time ago.
            Some(clock) if self.idle => clock.now().max(self.turn),
            _ => self.turn,
        };
        hosted.engine.streams_mut().set_now(now);
        let (mut hosted, result) = current::scope(hosted, now, || catch_unwind(AssertUnwindSafe(work)));
        if let Err(payload) = result {
            hosted.on_application_panic(now, payload);
        }
        let slot = &mut self.slots[index as usize];
        slot.hosted = Some(hosted);
        if !std::mem::replace(&mut slot.entered, true) {
            self.entered.push(index);
            self.inbox.wake();
        }
        Some(())
    }

    /// True if connections were worked on since the last turn.
    pub(super) fn has_entered(&self) -> bool {
        !self.entered.is_empty()
    }

    /// Goes on with connections that were worked on between turns.
    pub(super) fn put_back_entered(&mut self, now: Instant) {
        // Nothing is entered within a turn.
        let mut entered = std::mem::take(&mut self.entered);
        for index in entered.drain(..) {
            // It may have moved or ended meanwhile.
            let Some(hosted) = self.take(index) else { continue };
            self.slots[index as usize].entered = false;
            self.put_back(now, index, hosted);
        }
        self.entered = entered;
    }
}
