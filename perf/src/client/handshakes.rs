//! Handshakes per second, and connections that are merely held.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use anyhow::Result;
use ringway::{Answer, ConnectionEvent};

use super::{Run, connect};

/// Connects, closes, and begins again when the connection has ended.
pub(super) fn start(run: &Arc<Run>) -> Result<()> {
    let owner = Arc::clone(run);
    connect(run, move |connection, event| {
        match event {
            ConnectionEvent::Connected { .. } => {
                owner.operations.fetch_add(1, Ordering::Relaxed);
                let _ = connection.shutdown(0);
            }
            ConnectionEvent::ShutdownComplete {
                handshake_completed: true,
                ..
            } if !owner.is_stopped() => {
                // One ends, the next begins: as many as before are under way.
                owner.active.fetch_add(1, Ordering::Relaxed);
                if let Err(error) = start(&owner) {
                    owner.active.fetch_sub(1, Ordering::Relaxed);
                    owner.fail(format!("{error:#}"));
                }
            }
            _ => {}
        }
        owner.on_common_event(&event);
        Answer::Done
    })?;
    Ok(())
}

/// Connects, and leaves it at that; begins the next, if more are to be held.
pub(super) fn hold(run: &Arc<Run>) -> Result<()> {
    let owner = Arc::clone(run);
    connect(run, move |_, event| {
        if let ConnectionEvent::Connected { .. } = event {
            owner.operations.fetch_add(1, Ordering::Relaxed);
            let one_less = |left: usize| left.checked_sub(1);
            if !owner.is_stopped()
                && owner
                    .left
                    .fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less)
                    .is_ok()
                && let Err(error) = hold(&owner)
            {
                owner.active.fetch_sub(1, Ordering::Relaxed);
                owner.fail(format!("{error:#}"));
            }
        }
        owner.on_common_event(&event);
        Answer::Done
    })?;
    Ok(())
}
