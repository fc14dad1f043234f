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
                begin_another(&owner, start);
            }
            _ => {}
        }
        owner.on_common_event(&event);
        EventStatus::Done
    })?;
    Ok(())
}

/// Connects, and leaves it at that; begins the next, if more are to be held.
pub(super) fn hold(run: &Arc<Run>) -> Result<()> {
    let owner = Arc::clone(run);
    connect(run, move |_, event| {
        if let ConnectionEvent::Connected { .. } = event {
            // Each that comes up is followed by one, as long as there are more than began at once.
            let up_before = owner.operations.fetch_add(1, Ordering::Relaxed);
            if up_before < owner.to_follow && !owner.is_stopped() {
                begin_another(&owner, hold);
            }
        }
        owner.on_common_event(&event);
        EventStatus::Done
    })?;
    Ok(())
}

/// Begins a connection beside those that are under way.
fn begin_another(run: &Arc<Run>, begin: fn(&Arc<Run>) -> Result<()>) {
    run.active.fetch_add(1, Ordering::Relaxed);
    if let Err(error) = begin(run) {
        run.active.fetch_sub(1, Ordering::Relaxed);
        run.fail(format!("{error:#}"));
    }
}
