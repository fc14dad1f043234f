//! SIGINT and SIGTERM: the first ends a run in good order, a second one ends the process at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use anyhow::{Context, Result};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

/// What has come.
#[derive(Clone, Debug, Default)]
pub(crate) struct Signals {
    came: Arc<AtomicBool>,
    number: Arc<AtomicUsize>,
}

impl Signals {
    /// Takes them from now on.
    pub(crate) fn catch() -> Result<Self> {
        let signals = Signals::default();
        for signal in [SIGINT, SIGTERM] {
            let (came, number) = (&signals.came, Arc::clone(&signals.number));
            // Actions run in the order in which they were registered: the first signal must not find the flag that it sets.
            flag::register_conditional_shutdown(signal, exit_code(signal), Arc::clone(came))
                .and_then(|_| flag::register_usize(signal, number, signal.unsigned_abs() as usize))
                .and_then(|_| flag::register(signal, Arc::clone(came)))
                .context("catching signals")?;
        }
        Ok(signals)
    }

    /// The exit code of a process that a signal has ended, if one has come.
    pub(crate) fn received(&self) -> Option<i32> {
        let came = self.came.load(Ordering::SeqCst);
        came.then(|| exit_code(self.number.load(Ordering::SeqCst) as i32))
    }
}

/// As shells have it of a process that a signal has ended.
fn exit_code(signal: i32) -> i32 {
    128 + signal
}

/// A signal has ended what was under way: told as an error, with an exit code of its own.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Interrupted {
    pub(crate) exit_code: i32,
}

impl std::fmt::Display for Interrupted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("interrupted by a signal: the figures are of the run up to then")
    }
}

impl std::error::Error for Interrupted {}
