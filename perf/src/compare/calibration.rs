//! What this machine does right now, without any network: to tell whether runs that differ ran on the same machine.

use std::sync::Barrier;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use ringway_datapath::floor::DATAGRAM_BYTES;
use ringway_datapath::thread;
use serde::{Deserialize, Serialize};

use crate::floor::Sealing;

const TIME: Duration = Duration::from_millis(150);
/// Packets between two readings of the clock.
const PACKETS: u32 = 256;
const PASSES: u32 = 20_000;

/// Nanoseconds.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub(crate) struct Calibration {
    /// To copy and seal a full packet, on the server's processor alone and on the client's alone.
    pub seal_alone_ns: [f64; 2],
    /// On both at once.
    pub seal_together_ns: [f64; 2],
    /// For a cache line to come from one processor to the other.
    pub cache_line_ns: Option<f64>,
}

impl Calibration {
    pub(super) fn measure(cpus: [usize; 2]) -> Result<Self> {
        let alone = [seal_on(&cpus[..1])?[0], seal_on(&cpus[1..])?[0]];
        let together = seal_on(&cpus)?;
        // Two threads on one processor would wait for the scheduler.
        let pass = (cpus[0] != cpus[1]).then(|| pass_cache_line(cpus));
        Ok(Calibration {
            seal_alone_ns: alone,
            seal_together_ns: [together[0], together[1]],
            cache_line_ns: pass.transpose()?,
        })
    }
}

impl std::fmt::Display for Calibration {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let ([a, b], [c, d]) = (self.seal_alone_ns, self.seal_together_ns);
        write!(
            f,
            "to copy and seal a full packet {a:.0} and {b:.0} ns alone, {c:.0} and {d:.0} ns at once"
        )?;
        match self.cache_line_ns {
            Some(pass) => write!(f, "; a cache line from one processor to the other {pass:.0} ns"),
            None => Ok(()),
        }
    }
}

/// Nanoseconds for each packet, of a thread on each of these processors.
fn seal_on(processors: &[usize]) -> Result<Vec<f64>> {
    let start = Barrier::new(processors.len());
    std::thread::scope(|scope| {
        let work = |processor| {
            let prepared = Sealing::new();
            let pinned = pin(processor);
            // Whatever has failed: the other one waits.
            start.wait();
            pinned?;
            seal(&mut prepared?)
        };
        let threads: Vec<_> = processors
            .iter()
            .map(|processor| scope.spawn(move || work(*processor)))
            .collect();
        threads.into_iter().map(join).collect()
    })
}

fn seal(sealing: &mut Sealing) -> Result<f64> {
    let mut datagram = [0; DATAGRAM_BYTES];
    let (start, mut packets) = (Instant::now(), 0u32);
    while start.elapsed() < TIME {
        for _ in 0..PACKETS {
            sealing.seal(&mut datagram)?;
        }
        packets += PACKETS;
    }
    Ok(start.elapsed().as_nanos() as f64 / f64::from(packets))
}

/// Two threads take turns at counting up.
fn pass_cache_line(cpus: [usize; 2]) -> Result<f64> {
    let (start, turn) = (Barrier::new(2), AtomicU64::new(0));
    std::thread::scope(|scope| {
        let work = |own: u64, processor| {
            let pinned = pin(processor);
            start.wait();
            let begun = Instant::now();
            for pass in (own..u64::from(2 * PASSES)).step_by(2) {
                while turn.load(Ordering::Acquire) != pass {
                    std::hint::spin_loop();
                }
                turn.store(pass + 1, Ordering::Release);
            }
            let nanos = begun.elapsed().as_nanos() as f64;
            pinned.map(|()| nanos / f64::from(2 * PASSES))
        };
        let threads = [(0, cpus[0]), (1, cpus[1])].map(|(own, cpu)| scope.spawn(move || work(own, cpu)));
        let times: Vec<f64> = threads.into_iter().map(join).collect::<Result<_>>()?;
        times.first().copied().context("no time")
    })
}

fn pin(processor: usize) -> Result<()> {
    thread::pin(processor).with_context(|| format!("binding to processor {processor}"))
}

fn join(thread: std::thread::ScopedJoinHandle<'_, Result<f64>>) -> Result<f64> {
    let ended = thread.join();
    ended.map_err(|_| anyhow!("a thread has ended with a panic"))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_of_this_world() {
        let calibration = Calibration::measure([0, 0]).unwrap();
        assert!(
            calibration.seal_alone_ns.iter().all(|nanos| *nanos > 1.0),
            "{calibration}"
        );
        assert_eq!(calibration.cache_line_ns, None);
        assert!(Calibration::measure([0, 100_000]).is_err());
    }
}
