//! Handshakes per second, and connections that are merely held.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use anyhow::Result;
use ringway::{ConnectionEvent, EventStatus};

use super::run::{Run, connect};

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
                start_another(&owner, start);
            }
            _ => {}
        }
        owner.on_common_event(&event);
        EventStatus::Done
    })?;
    Ok(())
}

/// Connects, and leaves it at that; begins the next, if more are to be held.
pub(super) fn start_idle(run: &Arc<Run>) -> Result<()> {
    let owner = Arc::clone(run);
    connect(run, move |_, event| {
        if let ConnectionEvent::Connected { .. } = event {
            // Each that comes up is followed by one, as long as there are more than began at once.
            let up_before = owner.operations.fetch_add(1, Ordering::Relaxed);
            if up_before < owner.deferred && !owner.is_stopped() {
                start_another(&owner, start_idle);
            }
        }
        owner.on_common_event(&event);
        EventStatus::Done
    })?;
    Ok(())
}

/// Starts a connection beside those that are under way.
pub(super) fn start_another(run: &Arc<Run>, start: fn(&Arc<Run>) -> Result<()>) {
    run.active.fetch_add(1, Ordering::Relaxed);
    if let Err(error) = start(run) {
        run.active.fetch_sub(1, Ordering::Relaxed);
        run.fail(format!("{error:#}"));
    }
}
