//! What a client measures, and how it prints it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use hdrhistogram::Histogram;
use ringway_perf_protocol::{ClientFigures, Latency, RunTimes, Scenario};
use rustix::time::{ClockId, clock_gettime};

use crate::ClientArgs;

/// Counts what a run achieves. Any thread may count; the lock of the latencies is for stacks with several, and free in the others.
pub struct Meter {
    args: ClientArgs,
    start: Instant,
    /// When the first stream was opened.
    opened: OnceLock<Instant>,
    cpu: Duration,
    /// Set by whoever looks at the clock; a stack that reads the clock for each packet would measure that.
    over: AtomicBool,
    bytes: AtomicU64,
    operations: AtomicU64,
    latencies: Mutex<Histogram<u64>>,
    /// What was achieved when somebody looked last, and when it was not yet that much.
    progress: Mutex<(u64, Instant)>,
}

impl Meter {
    /// Starts the clocks: call it before connecting.
    pub fn start(args: &ClientArgs) -> Self {
        Meter {
            args: args.clone(),
            start: Instant::now(),
            opened: OnceLock::new(),
            cpu: processor_time(),
            over: AtomicBool::new(false),
            bytes: AtomicU64::new(0),
            operations: AtomicU64::new(0),
            latencies: Mutex::new(Histogram::new(3).expect("three digits are within its limits")),
            progress: Mutex::new((0, Instant::now())),
        }
    }

    /// Whether the time of the run is over. Transfers of a number of bytes have none.
    pub fn is_over(&self) -> bool {
        if self.over.load(Ordering::Relaxed) {
            return true;
        }
        let over = self.remaining().is_some_and(|left| left.is_zero());
        if over {
            self.over.store(true, Ordering::Relaxed);
        }
        over
    }

    /// Time left of the run; `None`: until all bytes are transferred.
    pub fn remaining(&self) -> Option<Duration> {
        self.args
            .transfer_len()
            .is_none()
            .then(|| self.args.time.saturating_sub(self.start.elapsed()))
    }

    /// Streams are opened: data can flow from now on.
    pub fn opened(&self) {
        self.opened.get_or_init(Instant::now);
    }

    /// Payload that arrived (upload: that was given to the stack).
    pub fn moved(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// A request that began at `start` was answered with `bytes`.
    pub fn answered(&self, start: Instant, bytes: u64) -> Result<()> {
        ensure!(
            bytes == self.args.response_len(),
            "a response of {bytes} bytes, not {}",
            self.args.response_len()
        );
        let nanos = start.elapsed().as_nanos() as u64;
        // Beyond the range of the histogram are hours.
        let _ = self.latencies().record(nanos);
        self.operations.fetch_add(1, Ordering::Relaxed);
        self.moved(bytes);
        Ok(())
    }

    /// A handshake is done.
    pub fn connected(&self) {
        self.operations.fetch_add(1, Ordering::Relaxed);
    }

    /// Fails when nothing has been achieved for long. To be called now and then, and as long as the run goes on beyond its time: a server that
    /// has died, or that never was, may be known by nothing but silence.
    pub fn ensure_progress(&self) -> Result<()> {
        // Connections that are merely held achieve nothing, and time ends them.
        if self.last_progress().elapsed() > self.args.timeout && self.args.scenario != Scenario::Idle {
            bail!(
                "nothing achieved for {}: is a server running at {}, and does its protocol get through?",
                humantime::format_duration(self.args.timeout),
                self.args.target
            );
        }
        Ok(())
    }

    /// When something more was achieved, as far as anybody has looked; now, if that is news.
    fn last_progress(&self) -> Instant {
        let achieved = self.bytes.load(Ordering::Relaxed) + self.operations();
        let mut progress = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
        if achieved != progress.0 {
            *progress = (achieved, Instant::now());
        }
        progress.1
    }

    /// Handshakes, or requests answered, so far.
    pub fn operations(&self) -> u64 {
        self.operations.load(Ordering::Relaxed)
    }

    /// Prints the figures; fails if a transfer of a number of bytes moved another number. Call it when the run is over, before
    /// connections are closed.
    pub fn report(&self) -> Result<()> {
        let times = RunTimes {
            wall: self.start.elapsed(),
            flow: self
                .last_progress()
                .saturating_duration_since(*self.opened.get().unwrap_or(&self.start)),
            cpu: processor_time() - self.cpu,
        };
        let bytes = self.bytes.load(Ordering::Relaxed);
        ensure!(bytes > 0 || self.operations() > 0, "nothing was completed");
        if let Some(len) = self.args.transfer_len() {
            let count = (self.args.connection_count() * self.args.stream_count()) as u64;
            let expected = len * count;
            ensure!(
                bytes == expected,
                "{bytes} bytes were transferred, not {expected}"
            );
        }
        let histogram = self.latencies();
        let latency = (!histogram.is_empty()).then(|| Latency::of(&histogram));
        let figures = ClientFigures::new(bytes, self.operations(), times, latency);
        println!("{}", serde_json::to_string(&figures)?);
        Ok(())
    }

    fn latencies(&self) -> std::sync::MutexGuard<'_, Histogram<u64>> {
        self.latencies.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Processor time of all threads of this process.
fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::{Args, Command};

    fn meter(timeout: &str) -> Meter {
        let line = format!(
            "peer client --target 127.0.0.1:1 --ca none --scenario upload --bytes 10MB --timeout {timeout}"
        );
        let Command::Client(args) = Args::parse_from(line.split(' ')).command else {
            panic!()
        };
        Meter::start(&args)
    }

    #[test]
    fn upload_that_the_stack_has_taken_whole_is_waited_for_as_long_as_was_said() {
        for (timeout, is_patient) in [("0s", false), ("1h", true)] {
            let meter = meter(timeout);
            meter.moved(10_000_000);
            meter.last_progress();
            assert_eq!(meter.ensure_progress().is_ok(), is_patient, "{timeout}");
        }
    }
}
