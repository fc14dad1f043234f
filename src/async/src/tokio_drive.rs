//! An execution context as a task of tokio.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::task::Poll;
use std::time::Duration;

use ringway::{ApplicationQueue, Clock, Execution, Wait};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::timeout;

/// Drives an [`Execution`] on tokio, until its registration is closed and no connection is left: connections, their tasks and tokio's
/// timers and sockets are then on one thread, in a runtime of one thread (`tokio::runtime::Builder::new_current_thread().enable_all()`), and no
/// wake-up crosses threads. Works in a runtime of several threads too, but then they do cross.
///
/// Spawn it: as a task it takes its turn when all others have had theirs, and what they have to send leaves together. Where the runtime's main future
/// awaits it, tokio polls that after every 61 tasks, as it does a `LocalSet`. Dropped, it drops the context, which ends its connections.
///
/// # Errors
///
/// tokio cannot watch the context's descriptor; the context's connections end.
pub async fn drive(mut context: Execution) -> io::Result<()> {
    let descriptor = context.as_fd().try_clone_to_owned()?;
    #[allow(
        deprecated,
        reason = "the newer one is for types whose descriptor may change, and a promise that it does not; an OwnedFd keeps its own"
    )]
    let descriptor: AsyncFd<OwnedFd> = AsyncFd::with_interest(descriptor, Interest::READABLE)?;
    let clock = Clock::shared();
    context.receive_last();
    let mut is_idle = false;
    loop {
        let wait = context.poll();
        if context.has_ended() {
            return Ok(());
        }
        if wait == Wait::NoWait {
            is_idle = false;
        } else if !std::mem::replace(&mut is_idle, true) {
            // The tasks that it has woken come first: what they want is perhaps there then.
        } else if matches!(wait, Wait::Until(at) if at.since(clock.now()) < TIMER_STEP) {
            // A timer of tokio's would be late.
        } else {
            let time = context.begin_wait(wait, ApplicationQueue::Descriptor)?;
            if time != Some(Duration::ZERO) {
                let readable = descriptor.readable();
                let woken = match time {
                    Some(time) => timeout(time, readable).await.ok(),
                    None => Some(readable.await),
                };
                if let Some(woken) = woken {
                    woken?.clear_ready();
                }
                is_idle = false;
                continue;
            }
        }
        others_first().await;
    }
}

/// tokio's timers are late by up to so much: what is due sooner, as a paced packet, is waited for awake.
const TIMER_STEP: Duration = Duration::from_millis(1);

/// Lets the other tasks that are to run do so. (tokio's own yield asks the kernel for events each time.)
async fn others_first() {
    let mut has_yielded = false;
    std::future::poll_fn(|cx| {
        if std::mem::replace(&mut has_yielded, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}
