//! What disturbed a comparison: time of its processors that other programs, and other machines on the same hardware, took meanwhile.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::param::clock_ticks_per_second;
use serde::{Deserialize, Serialize};

use super::accounting;

/// Shares of the time of the processors of servers and of clients.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub(crate) struct Interference {
    pub others: f64,
    /// By the hypervisor.
    pub stolen: f64,
}

impl std::fmt::Display for Interference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (others, stolen) = (100.0 * self.others, 100.0 * self.stolen);
        write!(
            f,
            "other programs took {others:.1} % of the time of these processors, the hypervisor {stolen:.1} %"
        )
    }
}

/// The times at the start.
pub(super) struct InterferenceMonitor {
    cpus: [usize; 2],
    at_start: CpuTimes,
}

impl InterferenceMonitor {
    pub(super) fn start(cpus: [usize; 2]) -> Result<Self> {
        Ok(InterferenceMonitor {
            cpus,
            at_start: CpuTimes::read(cpus)?,
        })
    }

    /// Up to now. All programs that were started meanwhile must have ended.
    pub(super) fn read(&self) -> Result<Interference> {
        let now = CpuTimes::read(self.cpus)?;
        let since =
            |time: fn(&CpuTimes) -> Duration| time(&now).saturating_sub(time(&self.at_start)).as_secs_f64();
        let all = since(|times| times.all).max(f64::MIN_POSITIVE);
        let others = since(|times| times.programs) - since(|times| times.own);
        Ok(Interference {
            others: (others / all).clamp(0.0, 1.0),
            stolen: since(|times| times.stolen) / all,
        })
    }
}

#[derive(Default)]
struct CpuTimes {
    /// Taken by this process and by those that it has started.
    own: Duration,
    programs: Duration,
    stolen: Duration,
    all: Duration,
}

impl CpuTimes {
    fn read(cpus: [usize; 2]) -> Result<Self> {
        // By name: the crate procfs knows processors by their place among those that are on.
        let text = fs::read_to_string("/proc/stat").context("reading /proc/stat")?;
        let mut times = CpuTimes {
            own: accounting::own_cpu_time()? + accounting::ended_children_cpu_time()?,
            ..CpuTimes::default()
        };
        let ticks = clock_ticks_per_second();
        let time = |count: u64| Duration::from_millis(count * 1000 / ticks);
        let names = cpus.map(|processor| format!("cpu{processor}"));
        for line in text.lines() {
            let mut words = line.split_whitespace();
            if !words
                .next()
                .is_some_and(|name| names.iter().any(|own| own == name))
            {
                continue;
            }
            let fields: Vec<u64> = words.flat_map(str::parse).collect();
            let [user, nice, system, idle, waiting, irq, softirq, steal, ..] = fields[..] else {
                bail!("/proc/stat has a line {line:?}");
            };
            times.programs += time(user + nice + system);
            times.stolen += time(steal);
            times.all += time(user + nice + system + idle + waiting + irq + softirq + steal);
        }
        Ok(times)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_work_is_not_that_of_others() {
        let monitor = InterferenceMonitor::start([0, 0]).unwrap();
        let start = std::time::Instant::now();
        let mut value = 0u64;
        while start.elapsed() < Duration::from_millis(300) {
            value = std::hint::black_box(value + 1);
        }
        let interference = monitor.read().unwrap();
        let shares = [interference.others, interference.stolen];
        assert!(
            shares.iter().all(|share| (0.0..=1.0).contains(share)),
            "{interference}"
        );
    }
}
