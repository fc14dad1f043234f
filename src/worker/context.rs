//! What a thread polls: a device and a worker, and the queue that the thread sleeps on.

use std::sync::Arc;
use std::time::Duration;

use ringway_datapath::device::{Device, DeviceStats};
use ringway_datapath::event::EventQueue;
use ringway_datapath::meta::PortId;
use ringway_datapath::port::BoundPort;
use ringway_datapath::time::Clock;

use super::limits::{OPERATIONS_PER_TURN, SLEEP_MAX};
use super::remote::Operation;
use super::stats::{SLOW_TURN, WorkerStats};
use super::{Worker, WorkerConfig};
use crate::base::Instant;
use crate::connection::transmit::TransmitLimits;

/// How long a context may be left alone after a poll.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wait {
    /// Not at all: work is left.
    None,
    /// Until this instant, or until its event queue says that something happened.
    Until(Instant),
    /// Until its event queue says that something happened.
    Event,
}

/// One partition's device and QUIC layer (low-latency mode: both on one thread), and the event queue of the thread
/// that polls them.
///
/// A thread started by Ringway runs [`ExecutionContext::run`]; an application that brings its own threads calls
/// [`ExecutionContext::poll`] and [`ExecutionContext::sleep`] in a loop of its own. One thread at a time.
pub struct ExecutionContext {
    device: Device,
    worker: Worker,
    queue: EventQueue,
    report: Arc<ContextReport>,
    last_report: Instant,
}

/// Copies of a context's counters that other threads may read, renewed when the context goes to sleep and about once a second.
#[derive(Default)]
pub struct ContextReport {
    inner: std::sync::Mutex<(WorkerStats, DeviceStats)>,
}

impl ContextReport {
    /// The counters as of the last renewal.
    pub fn get(&self) -> (WorkerStats, DeviceStats) {
        *self.inner.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl ExecutionContext {
    /// Puts a partition together.
    pub fn new(
        config: &WorkerConfig,
        partition: usize,
        mut device: Device,
        queue: EventQueue,
        now: Instant,
    ) -> std::io::Result<Self> {
        device.register(&queue)?;
        let capabilities = device.capabilities();
        let limits = TransmitLimits {
            segments_max: capabilities.send_segments_max,
            datagram_bytes_max: capabilities.datagram_bytes_max,
        };
        let worker = Worker::new(config, partition, limits, now);
        Ok(ExecutionContext { device, worker, queue, report: Arc::default(), last_report: now })
    }

    /// Where the counters can be read from other threads.
    pub fn report(&self) -> &Arc<ContextReport> {
        &self.report
    }

    /// One turn: receive, run the calls of other threads, fire timers, call handlers, transmit. Does a bounded amount of work and never
    /// waits.
    pub fn poll(&mut self, now: Instant) -> Wait {
        let ExecutionContext { device, worker, .. } = self;
        let received = device
            .receive(now, &mut |burst| worker.on_burst(now, burst))
            .unwrap_or_else(|error| {
                tracing::warn!(%error, "the device cannot receive");
                0
            });
        let mut operations = 0;
        while operations < OPERATIONS_PER_TURN
            && let Some(operation) = worker.remote().pop()
        {
            operations += 1;
            match operation {
                Operation::Device(operation) => operation.run(device),
                operation => worker.run(now, operation),
            }
        }
        worker.expire(now);
        worker.finish_ending(now);
        let sent = worker.transmit(now, device);
        device.flush();
        worker.count_turn();
        if now.since(self.last_report) >= REPORT_INTERVAL {
            self.last_report = now;
            self.publish();
        }
        let worker = &mut self.worker;
        if received > 0 || operations > 0 || sent > 0 {
            return Wait::None;
        }
        match worker.deadline() {
            Some(deadline) if deadline <= now => Wait::None,
            Some(deadline) => Wait::Until(deadline),
            None => Wait::Event,
        }
    }

    /// Sleeps until the event queue says that something happened, or for as long as `wait` allows. Returns at once if another
    /// thread has called meanwhile.
    pub fn sleep(&mut self, now: Instant, wait: Wait) -> std::io::Result<()> {
        let timeout = match wait {
            Wait::None => return Ok(()),
            Wait::Until(deadline) => deadline.since(now).min(SLEEP_MAX),
            Wait::Event => SLEEP_MAX,
        };
        self.publish();
        let waker = self.queue.waker();
        // The order closes the race with a caller: announce the sleep, look once more, then sleep.
        waker.prepare_sleep();
        let may_sleep = self.device.prepare_sleep() && self.worker.remote().is_empty();
        let result = if may_sleep { self.queue.wait(Some(timeout)) } else { Ok(()) };
        self.device.awake();
        waker.awake();
        result
    }

    /// Polls and sleeps until the registration is closed and the worker hosts no connection any more.
    ///
    /// After the last useful work it keeps polling for `polling_idle_timeout` before it sleeps.
    pub fn run(mut self, clock: Clock, polling_idle_timeout: Duration) {
        let mut now = clock.now();
        let mut last_work = now;
        loop {
            let wait = self.poll(now);
            let after = clock.now();
            if wait == Wait::None {
                last_work = after;
                if after.since(now) > SLOW_TURN {
                    self.worker.count_slow_turn();
                }
            } else if self.worker.remote().is_closed() && self.worker.is_empty() {
                return self.publish();
            } else if after.since(last_work) >= polling_idle_timeout {
                if let Err(error) = self.sleep(after, wait) {
                    tracing::error!(%error, "the event queue failed; the worker polls instead of sleeping");
                }
                now = clock.now();
                last_work = now;
                continue;
            }
            now = after;
        }
    }

    fn publish(&self) {
        let stats = (*self.worker.stats(), self.device.stats());
        *self.report.inner.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = stats;
    }

}

/// How often the counters are renewed while there is work.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);

/// What the context does itself, on the device, rather than the worker.
pub enum DeviceOperation {
    /// Takes a bound port in.
    Attach(PortId, BoundPort),
    /// Gives a port up.
    Detach(PortId),
}

impl DeviceOperation {
    /// Carries it out.
    pub fn run(self, device: &mut Device) {
        match self {
            DeviceOperation::Attach(id, port) => {
                if let Err(error) = device.attach(id, port) {
                    tracing::error!(%error, ?id, "the device cannot take the port: nothing arrives on it");
                }
            }
            DeviceOperation::Detach(id) => device.detach(id),
        }
    }
}
