//! Tasks that wait for something of a connection that several of them may wait for.
//!
//! `tests/interleavings.rs` compiles this file with loom's atomics too.

use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use crate::sync::{AtomicBool, AtomicUsize, AtomicWaker, Ordering, SegQueue, fence, wake_after_turn};

/// One waiting task's place, for the `poll` calls that several tasks may make at a time. Keep one for as long as the same thing is waited for; with
/// its drop the wait ends, and leaves nothing behind.
#[derive(Debug, Default)]
pub struct Waiter(Option<Arc<Ticket>>);

#[derive(Debug, Default)]
struct Ticket {
    waker: AtomicWaker,
    /// It is in the list.
    listed: AtomicBool,
}

impl Drop for Waiter {
    fn drop(&mut self) {
        if let Some(ticket) = &self.0 {
            drop(ticket.waker.take());
        }
    }
}

/// Tasks that wait. Those that no longer do leave an empty ticket behind, which goes with the next event, or when there are many.
#[derive(Default)]
pub(crate) struct Waiters {
    tickets: SegQueue<Arc<Ticket>>,
    /// With so many tickets it is time to see which are empty; 0: [`TICKETS_MIN`].
    sweep_at: AtomicUsize,
}

pub(crate) const TICKETS_MIN: usize = 64;

impl Waiters {
    /// What `look` finds; or the task is woken when something has changed.
    pub(crate) fn poll<R>(
        &self,
        cx: &mut Context<'_>,
        waiter: &mut Waiter,
        mut look: impl FnMut() -> Option<R>,
    ) -> Poll<R> {
        if let Some(found) = look() {
            return Poll::Ready(found);
        }
        self.register(waiter, cx.waker());
        // Either this look finds what has changed, or who has changed it finds the ticket.
        fence(Ordering::SeqCst);
        look().map_or(Poll::Pending, Poll::Ready)
    }

    fn register(&self, waiter: &mut Waiter, waker: &Waker) {
        let ticket = waiter.0.get_or_insert_default();
        ticket.waker.register(waker);
        if !ticket.listed.swap(true, Ordering::SeqCst) {
            self.tickets.push(Arc::clone(ticket));
            let len = self.tickets.len();
            if len > self.sweep_at.load(Ordering::Relaxed).max(TICKETS_MIN) {
                // Who still waits is woken for nothing, looks, and lists itself again.
                let live = self.call(Waker::wake);
                self.sweep_at.store(2 * live, Ordering::Relaxed);
            }
        }
    }

    /// Wakes those that wait, when the worker's turn ends.
    pub(crate) fn wake(&self) {
        // What has changed before is seen by whoever lists itself behind this: see `poll`.
        fence(Ordering::SeqCst);
        self.call(wake_after_turn);
    }

    fn call(&self, wake: impl Fn(Waker)) -> usize {
        let mut live = 0;
        // Not those that come meanwhile.
        for _ in 0..self.tickets.len() {
            let Some(ticket) = self.tickets.pop() else { break };
            // An exchange: whoever has found itself listed has put its waker there before.
            ticket.listed.swap(false, Ordering::SeqCst);
            if let Some(waker) = ticket.waker.take() {
                live += 1;
                wake(waker);
            }
        }
        live
    }

    /// Tickets in the list.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.tickets.len()
    }
}
