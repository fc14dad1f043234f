//! Tasks of the application that handlers wake: all together when the turn ends, not one by one within it.
//!
//! A handler may drive another context. Whom that one's turn wakes, who drives it may wait for: so any turn's end wakes all that are to be woken,
//! also those of the turn that it is part of.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::task::Waker;

use ringway_datapath::prefetch::prefetch;

thread_local! {
    /// Turns of contexts that this thread is in.
    static TURNS: Cell<u32> = const { Cell::new(0) };
    static WAKERS: RefCell<VecDeque<Waker>> = const { RefCell::new(VecDeque::new()) };
}

/// Wakes a task when the worker's turn ends on this thread, after what the turn had to send has been sent (or, where a turn
/// [receives last](crate::Execution::receive_last), before what is received is acknowledged). Then the task finds all that the turn has brought at
/// once, and neither it nor its executor's thread runs while the turn still works. Outside of a turn, as on a thread that drops an
/// [`Execution`](crate::Execution), it wakes the task at once.
///
/// For handlers that hand things over to tasks. Nothing is allocated once the list has grown to what a turn needs. A waker that panics is told in the
/// log, and harms no other.
pub fn wake_after_turn(waker: Waker) {
    if TURNS.get() == 0 {
        return wake(waker);
    }
    // Of many tasks, each has left the processor's cache since it ran last: its waker is touched when the turn ends, and the task itself when it
    // runs.
    prefetch(waker.data(), TASK_BYTES);
    WAKERS.with_borrow_mut(|wakers| wakers.push_back(waker));
}

/// What of a task is fetched ahead: with executors that wake by a pointer to the task, as tokio does, its header, and the first of its future.
const TASK_BYTES: usize = 256;

/// Runs a turn, and then wakes whom it has to wake.
pub(super) fn in_turn<R>(turn: impl FnOnce() -> R) -> R {
    /// It ends also if it unwinds.
    struct End;
    impl Drop for End {
        fn drop(&mut self) {
            // Within the turn still: whom a waker has woken, that has more to hand over, comes behind it.
            wake_all();
            TURNS.set(TURNS.get() - 1);
        }
    }
    TURNS.set(TURNS.get() + 1);
    let _end = End;
    turn()
}

/// The same for what is no turn, and may be part of one, whose end wakes then.
pub(super) fn in_any_turn<R>(work: impl FnOnce() -> R) -> R {
    match TURNS.get() {
        0 => in_turn(work),
        _ => work(),
    }
}

/// False where the thread ends.
pub(super) fn are_there() -> bool {
    WAKERS.try_with(|_| ()).is_ok()
}

/// Wakes whom the turn has to wake up to now: what is handed over goes before what another thread may hand over from here on.
pub(super) fn wake_all() {
    // One after the other: a waker may run anything of its executor's, even a turn of another context, which wakes those behind it; and one that
    // hands things over has others woken.
    while let Some(waker) = WAKERS.with_borrow_mut(VecDeque::pop_front) {
        wake(waker);
    }
}

fn wake(waker: Waker) {
    if let Err(payload) = catch_unwind(AssertUnwindSafe(|| waker.wake())) {
        tracing::error!("the waker of a task panicked");
        // Dropping the payload may panic again.
        std::mem::forget(payload);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn tasks_are_woken_when_the_turn_has_ended_also_if_it_was_part_of_another_one() {
        let count = Arc::new(Count::default());
        let woken = || count.0.load(Ordering::Relaxed);
        in_turn(|| {
            wake_after_turn(Arc::clone(&count).into());
            in_turn(|| {
                wake_after_turn(Arc::clone(&count).into());
                assert_eq!(woken(), 0);
            });
            assert_eq!(woken(), 2);
            wake_after_turn(Arc::clone(&count).into());
            assert_eq!(woken(), 2);
        });
        assert_eq!(woken(), 3);
    }

    #[test]
    fn whom_a_waker_has_woken_is_woken_by_the_end_of_the_same_turn() {
        /// Hands something over, for which a task waits.
        struct HandsOver(Arc<Count>);
        impl Wake for HandsOver {
            fn wake(self: Arc<Self>) {
                wake_after_turn(Arc::clone(&self.0).into());
            }
        }
        let count = Arc::new(Count::default());
        in_turn(|| {
            in_turn(|| wake_after_turn(Arc::new(HandsOver(Arc::clone(&count))).into()));
            assert_eq!(count.0.load(Ordering::Relaxed), 1);
        });
    }

    /// Drives a context, and needs what was to come before: then the count is one.
    struct Drives(Arc<Count>);

    impl Wake for Drives {
        fn wake(self: Arc<Self>) {
            in_turn(|| {});
            assert_eq!((self.0).0.swap(2, Ordering::Relaxed), 1);
        }
    }

    #[test]
    fn turn_that_a_waker_drives_wakes_also_who_is_behind_that_waker() {
        let count = Arc::new(Count::default());
        in_turn(|| {
            wake_after_turn(Arc::new(Drives(Arc::clone(&count))).into());
            wake_after_turn(Arc::clone(&count).into());
        });
        assert_eq!(count.0.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn whom_a_waker_has_woken_does_not_run_within_it() {
        struct HandsOver(Arc<Count>);
        impl Wake for HandsOver {
            fn wake(self: Arc<Self>) {
                wake_after_turn(Arc::new(Drives(Arc::clone(&self.0))).into());
                // Another stream's data.
                Arc::clone(&self.0).wake();
            }
        }
        let count = Arc::new(Count::default());
        in_turn(|| wake_after_turn(Arc::new(HandsOver(Arc::clone(&count))).into()));
        assert_eq!(count.0.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn outside_of_a_turn_they_are_woken_at_once() {
        let count = Arc::new(Count::default());
        wake_after_turn(Arc::clone(&count).into());
        assert_eq!(count.0.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn waker_that_panics_harms_no_other() {
        struct Panics;
        impl Wake for Panics {
            fn wake(self: Arc<Self>) {
                panic!("as it should");
            }
        }
        let count = Arc::new(Count::default());
        in_turn(|| {
            wake_after_turn(Arc::new(Panics).into());
            wake_after_turn(Arc::clone(&count).into());
        });
        assert_eq!(count.0.load(Ordering::Relaxed), 1);
    }
}
