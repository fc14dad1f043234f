//! Whether a worker waits for what runs on this thread, other than handlers of connections ([`super::current`]).

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};

thread_local! {
    static ON_WORKER: Cell<bool> = const { Cell::new(false) };
}

/// Runs something of the application on a worker's thread that is no handler of a connection: it must not wait for the worker either.
pub(crate) fn on_worker<R>(work: impl FnOnce() -> R) -> R {
    /// As it was before, also if it unwinds.
    struct Restore(bool);
    impl Drop for Restore {
        fn drop(&mut self) {
            ON_WORKER.set(self.0);
        }
    }
    let _restore = Restore(ON_WORKER.replace(true));
    work()
}

/// Drops a handler of the application. What is in it may panic, which harms nobody else.
pub(super) fn drop_handler<T>(handler: T) {
    if let Err(payload) = catch_unwind(AssertUnwindSafe(|| drop(handler))) {
        tracing::error!("a handler of the application panicked when it was dropped, after its last event");
        // Dropping the payload may panic again.
        std::mem::forget(payload);
    }
}

/// True within [`on_worker`].
pub(super) fn is_on_worker() -> bool {
    ON_WORKER.get()
}
