//! The connection whose event handler is running on this thread.
//!
//! While a handler runs, its connection is kept here, so that the handler's calls on it take effect at once, without a
//! queue or a lock. Moving it here and back moves one pointer.

use std::cell::RefCell;
use std::sync::Arc;

use ringway_types::Instant;

use super::handles::ConnectionShared;
use super::holdup;
use super::hosted_connection::HostedConnection;
use super::inbox::Inbox;

struct Current {
    hosted: Box<HostedConnection>,
    now: Instant,
}

thread_local! {
    static CURRENT: RefCell<Option<Current>> = const { RefCell::new(None) };
}

/// Runs `handler` with `hosted` as the current connection, and returns both. `handler` must not unwind.
pub(crate) fn scope<R>(
    hosted: Box<HostedConnection>,
    now: Instant,
    handler: impl FnOnce() -> R,
) -> (Box<HostedConnection>, R) {
    // A handler may itself drive another execution context. What was current before is current again afterwards.
    let outer = CURRENT.replace(Some(Current { hosted, now }));
    let result = handler();
    let current = CURRENT
        .replace(outer)
        .expect("nobody else takes the current connection away");
    (current.hosted, result)
}

/// The partition of the connection whose handler is running on this thread, if it belongs to these inboxes.
pub(crate) fn partition(inboxes: &Arc<[Arc<Inbox>]>) -> Option<usize> {
    CURRENT.with_borrow(|current| {
        let shared = current.as_ref()?.hosted.shared();
        shared.belongs_to(inboxes).then(|| shared.partition())
    })
}

/// Takes the current connection out for a handler within a handler, and puts it back afterwards. Nothing happens if it is not that of `shared`.
pub(crate) fn lend(
    shared: &Arc<ConnectionShared>,
    work: impl FnOnce(Box<HostedConnection>, Instant) -> Box<HostedConnection>,
) {
    if !is_of(shared) {
        return;
    }
    if let Some(Current { hosted, now }) = CURRENT.take() {
        let hosted = work(hosted, now);
        CURRENT.set(Some(Current { hosted, now }));
    }
}

/// True if a worker waits for what runs on this thread.
pub(crate) fn is_inside() -> bool {
    holdup::is_on_worker()
        || CURRENT.with(|current| current.try_borrow().map_or(true, |current| current.is_some()))
}

/// True if this thread is inside a handler of the connection of `shared`, or of one of its streams.
pub(crate) fn is_of(shared: &Arc<ConnectionShared>) -> bool {
    // It is not there where a handle is dropped with what else belongs to a thread.
    CURRENT
        .try_with(|current| {
            let current = current.try_borrow();
            current.is_ok_and(|current| {
                let current = current.as_ref();
                current.is_some_and(|current| Arc::ptr_eq(current.hosted.shared(), shared))
            })
        })
        .unwrap_or(false)
}

/// False where no connection can become the current one: this is a call of the application within a call, or the thread ends.
pub(crate) fn is_free() -> bool {
    CURRENT
        .try_with(|current| current.try_borrow_mut().is_ok())
        .unwrap_or(false)
}

/// Runs `operation` on the current connection if that is the one of `shared`; otherwise returns it.
pub(crate) fn with<R, F: FnOnce(&mut HostedConnection, Instant) -> R>(
    shared: &Arc<ConnectionShared>,
    operation: F,
) -> Result<R, F> {
    // A handle may be dropped with what else belongs to a thread, when that ends.
    if CURRENT.try_with(|_| ()).is_err() {
        return Err(operation);
    }
    CURRENT.with(|current| {
        // It is borrowed by a call of the application within a call.
        let Ok(mut current) = current.try_borrow_mut() else {
            return Err(operation);
        };
        match &mut *current {
            Some(current) if Arc::ptr_eq(current.hosted.shared(), shared) => {
                Ok(operation(&mut current.hosted, current.now))
            }
            _ => Err(operation),
        }
    })
}
