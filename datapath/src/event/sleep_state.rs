//! Whether a thread sleeps and who must wake it, without any system call, so that loom can try all interleavings.
//!
//! The sleeper announces its sleep before it looks at its inboxes for the last time; a caller puts its message there before it looks whether
//! the sleeper sleeps. A fence between each pair makes one of the two see the other.

#[cfg(not(loom))]
use std::sync::atomic::{AtomicBool, Ordering, fence};

#[cfg(loom)]
use loom::sync::atomic::{AtomicBool, Ordering, fence};

/// Whether a thread sleeps, or is about to.
#[derive(Debug)]
pub(super) struct SleepState(AtomicBool);

impl SleepState {
    pub(super) fn new() -> Self {
        SleepState(AtomicBool::new(false))
    }

    /// Announces sleep. The inboxes must be looked at after this and before the sleep.
    pub(super) fn prepare(&self) {
        self.0.swap(true, Ordering::AcqRel);
        fence(Ordering::SeqCst);
    }

    /// Sleep is over.
    pub(super) fn end(&self) {
        self.0.swap(false, Ordering::AcqRel);
    }

    /// True if the caller must wake the sleeper, now that its message is in the inbox. Costs one load while that is awake.
    pub(super) fn must_wake(&self) -> bool {
        fence(Ordering::SeqCst);
        // The first to see it asleep signals, the others need not.
        self.0.load(Ordering::Relaxed) && self.0.swap(false, Ordering::AcqRel)
    }
}

/// `RUSTFLAGS='--cfg loom' cargo test --target-dir target/loom -p ringway-datapath --lib sleep_state`
#[cfg(all(test, loom))]
mod tests {
    use loom::sync::atomic::{AtomicUsize, Ordering};
    use loom::sync::{Arc, Notify};
    use loom::thread;

    use super::*;

    /// A sleeper with an inbox that only counts, and what an eventfd is to it.
    struct Context {
        inbox: AtomicUsize,
        sleep_state: SleepState,
        signal: Notify,
    }

    /// In all interleavings with up to three switches that nobody waits for.
    fn check(model: impl Fn() + Send + Sync + 'static) {
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = Some(3);
        builder.check(model);
    }

    fn context() -> Arc<Context> {
        Arc::new(Context {
            inbox: AtomicUsize::new(0),
            sleep_state: SleepState::new(),
            signal: Notify::new(),
        })
    }

    impl Context {
        fn post(&self) {
            self.inbox.fetch_add(1, Ordering::Release);
            if self.sleep_state.must_wake() {
                self.signal.notify();
            }
        }

        /// Sleeps until so many messages have come: for ever, which loom tells, if a wake-up is lost.
        fn receive(&self, count: usize) {
            while self.inbox.load(Ordering::Acquire) < count {
                self.sleep_state.prepare();
                if self.inbox.load(Ordering::Acquire) < count {
                    self.signal.wait();
                }
                self.sleep_state.end();
            }
        }
    }

    #[test]
    fn no_wake_up_of_one_caller_is_lost() {
        check(|| {
            let context = context();
            let caller = Arc::clone(&context);
            let caller = thread::spawn(move || {
                caller.post();
                caller.post();
            });
            context.receive(2);
            caller.join().unwrap();
        });
    }

    #[test]
    fn no_wake_up_of_two_callers_is_lost() {
        check(|| {
            let context = context();
            let callers = [(); 2].map(|()| {
                let context = Arc::clone(&context);
                thread::spawn(move || context.post())
            });
            context.receive(2);
            callers.into_iter().for_each(|caller| caller.join().unwrap());
        });
    }
}
