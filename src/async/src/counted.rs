//! How many connections of an endpoint there are.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Wake, Waker};

use ringway::wake_after_turn;

use crate::waiters::Waiters;

/// The connections of an endpoint that have begun and not ended.
#[derive(Default)]
pub(crate) struct Connections {
    count: AtomicUsize,
    pub(crate) idle: Waiters,
}

impl fmt::Debug for Connections {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Connections({})", self.count())
    }
}

impl Connections {
    pub(crate) fn count(&self) -> usize {
        self.count.load(Ordering::Acquire)
    }
}

/// Woken, it has one connection less: when the turn ends in which that has ended, and has told its peer so.
impl Wake for Connections {
    fn wake(self: Arc<Self>) {
        if self.count.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.idle.wake();
        }
    }
}

/// One of them. Its handler has this.
pub(crate) struct Counted(Arc<Connections>);

impl Counted {
    pub(crate) fn new(connections: &Arc<Connections>) -> Self {
        connections.count.fetch_add(1, Ordering::Relaxed);
        Counted(Arc::clone(connections))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        wake_after_turn(Waker::from(Arc::clone(&self.0)));
    }
}
