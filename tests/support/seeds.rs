//! Tests with seeds: how many, and what is said of one that fails.

use std::io::Write;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A number that an environment variable names.
pub fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

/// Runs a test with each of so many seeds, or as many as the environment variable `TEST_RUNS` says, from the seed on that `TEST_FIRST` names;
/// with `TEST_SEED` alone if that is given. Where it fails, says how to run that seed again.
pub fn with_seeds(runs: u64, test: &str, run: fn(u64)) {
    let seeds = match number("TEST_SEED") {
        Some(seed) => seed..seed + 1,
        None => {
            let first = number("TEST_FIRST").unwrap_or(0);
            first..first.saturating_add(number("TEST_RUNS").unwrap_or(runs))
        }
    };
    for seed in seeds {
        with_seed(seed, test, run);
    }
}

/// Runs a test with one seed.
pub fn with_seed(seed: u64, test: &str, run: fn(u64)) {
    let this = (seed, test.to_owned());
    running().push(this.clone());
    let result = std::panic::catch_unwind(|| run(seed));
    if let Err(panic) = result {
        tell(&this);
        std::panic::resume_unwind(panic);
    }
    running().retain(|one| *one != this);
}

/// Says of each seed that runs now how to run it again: for whoever ends the process.
pub(crate) fn tell_running() {
    running().iter().for_each(tell);
}

fn tell((seed, test): &(u64, String)) {
    let mut environment = format!("TEST_SEED={seed}");
    for variable in ["TEST_MODE", "TEST_DATAPATH", "TEST_EVENT_LOOP"] {
        if let Ok(value) = std::env::var(variable) {
            environment += &format!(" {variable}={value}");
        }
    }
    write_error(&format!(
        "seed {seed} fails; again: {environment} cargo test -p ringway-tests --test {test}"
    ));
}

/// Straight to standard error: what goes there by way of the test harness is gone with the process if that is aborted.
pub(crate) fn write_error(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Seeds that run now, with their tests, of which some run beside each other.
fn running() -> MutexGuard<'static, Vec<(u64, String)>> {
    static RUNNING: Mutex<Vec<(u64, String)>> = Mutex::new(Vec::new());
    RUNNING.lock().unwrap_or_else(PoisonError::into_inner)
}
