//! Tasks on the worker's own thread.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use ringway::{Execution, Wait};

/// Runs a future and an [`Execution`] on this thread in turns, until the future is ready. Connections of the context, and what the future does
/// with them, are then on one thread: no wake-up crosses threads, and nothing is handed over between them.
///
/// The future may be an executor of many tasks, such as the `LocalExecutor` of the crate async-executor: `block_on(&mut context,
/// executor.run(main))`. What wakes it on other threads ends the context's sleep. It must not block: the context's connections wait for it. The
/// context lives on behind this, and [receives last](Execution::receive_last) from now on: drive it again, or drop it, which ends its connections.
pub fn block_on<R>(context: &mut Execution, future: impl Future<Output = R>) -> R {
    let mut future = pin!(future);
    let woken = Arc::new(Woken {
        flag: AtomicBool::new(true),
        context: context.waker(),
    });
    let waker = Waker::from(Arc::clone(&woken));
    let mut cx = Context::from_waker(&waker);
    context.receive_last();
    loop {
        let is_woken = woken.flag.swap(false, Ordering::AcqRel);
        if is_woken && let Poll::Ready(result) = future.as_mut().poll(&mut cx) {
            return result;
        }
        let wait = context.poll();
        if is_woken || wait == Wait::NoWait {
            continue;
        }
        if let Err(error) = context.sleep_unless(wait, || woken.flag.load(Ordering::Acquire)) {
            tracing::error!(%error, "the event queue failed; the thread polls instead of sleeping");
        }
    }
}

/// The future wants to be polled.
struct Woken {
    flag: AtomicBool,
    context: Waker,
}

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.flag.swap(true, Ordering::AcqRel) {
            self.context.wake_by_ref();
        }
    }
}
