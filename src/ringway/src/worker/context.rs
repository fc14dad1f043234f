//! What a thread polls: a device and a worker, and the queue that the thread sleeps on.

use std::sync::Arc;
use std::time::Duration;

use ringway_datapath::clock::Clock;
use ringway_datapath::contract::DeviceStats;
use ringway_datapath::device::Device;
use ringway_datapath::event::EventQueue;
use ringway_datapath::local::LocalDevice;
use ringway_datapath::split::{DatapathEnd, split};
use ringway_engine::connection::transmit::TransmitLimits;
use ringway_types::Instant;

use super::adaptive_spin::AdaptiveSpin;
use super::inbox::Operation;
use super::limits::{OPERATIONS_PER_TURN, SLEEP_MAX};
use super::stats::{SLOW_TURN, WorkerStats};
use super::{Worker, WorkerConfig};

/// How long a context may be left alone after a poll.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wait {
    /// Not at all: work is left.
    NoWait,
    /// Until this instant, or until its event queue says that something happened.
    Until(Instant),
    /// Until its event queue says that something happened.
    UntilEvent,
}

/// What one thread polls of a partition, and the event queue that it sleeps on: device and QUIC layer (low-latency mode), or one of
/// the two, while another context has the other (max-throughput mode).
///
/// A thread started by Ringway runs [`ExecutionContext::run`]; an application that brings its own threads calls
/// [`ExecutionContext::poll`] and [`ExecutionContext::sleep`] in a loop of its own. One thread at a time.
pub struct ExecutionContext {
    layer: Layer,
    queue: EventQueue,
    report: Arc<ContextReport>,
    last_report: Instant,
    /// Of the last turn.
    now: Instant,
}

enum Layer {
    /// The QUIC layer, with the device or the end of it that is here.
    Quic {
        device: Box<Device>,
        worker: Box<Worker>,
    },
    /// A device whose worker is elsewhere.
    Datapath(Box<DatapathEnd>),
}

/// Copies of a context's counters that other threads may read, renewed when the context goes to sleep and about once a second.
#[derive(Default)]
pub struct ContextReport {
    inner: std::sync::Mutex<(WorkerStats, DeviceStats)>,
}

impl ContextReport {
    /// The counters as of the last renewal.
    pub fn get(&self) -> (WorkerStats, DeviceStats) {
        *self
            .inner
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl std::fmt::Debug for ExecutionContext {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let layer = match &self.layer {
            Layer::Quic { .. } => "quic",
            Layer::Datapath(_) => "datapath",
        };
        f.debug_struct("ExecutionContext")
            .field("layer", &layer)
            .finish_non_exhaustive()
    }
}

impl ExecutionContext {
    /// A partition on one thread.
    pub fn new(
        config: &WorkerConfig,
        partition: usize,
        mut device: LocalDevice,
        queue: EventQueue,
        now: Instant,
    ) -> std::io::Result<Self> {
        device.register(&queue)?;
        Ok(Self::of_worker(config, partition, device.into(), queue, now))
    }

    /// A partition on two threads: the context of the device, and that of the QUIC layer.
    pub fn split(
        config: &WorkerConfig,
        partition: usize,
        mut device: LocalDevice,
        device_queue: EventQueue,
        queue: EventQueue,
        now: Instant,
    ) -> std::io::Result<(Self, Self)> {
        device.register(&device_queue)?;
        let wakers = (Arc::clone(device_queue.waker()), Arc::clone(queue.waker()));
        let (datapath, device) = split(device, wakers.0, wakers.1);
        let datapath = Layer::Datapath(Box::new(datapath));
        Ok((
            Self::with_layer(datapath, device_queue, now),
            Self::of_worker(config, partition, device.into(), queue, now),
        ))
    }

    fn of_worker(
        config: &WorkerConfig,
        partition: usize,
        device: Device,
        queue: EventQueue,
        now: Instant,
    ) -> Self {
        let capabilities = device.capabilities();
        let limits = TransmitLimits {
            segments_max: capabilities.send_segments_max,
            datagram_bytes_max: capabilities.datagram_bytes_max,
        };
        let worker = Box::new(Worker::new(config, partition, limits, now));
        let device = Box::new(device);
        Self::with_layer(Layer::Quic { device, worker }, queue, now)
    }

    fn with_layer(layer: Layer, queue: EventQueue, now: Instant) -> Self {
        ExecutionContext {
            layer,
            queue,
            report: Arc::default(),
            last_report: now,
            now,
        }
    }

    /// Where the counters can be read from other threads.
    pub fn report(&self) -> &Arc<ContextReport> {
        &self.report
    }

    /// One turn: receive, run the calls of other threads, fire timers, call handlers, transmit; as far as it is this context's part.
    /// Does a bounded amount of work and never waits.
    pub fn poll(&mut self, now: Instant) -> Wait {
        self.now = now;
        let wait = match &mut self.layer {
            Layer::Quic { device, worker } => turn(worker, device, now),
            Layer::Datapath(datapath) => match datapath.poll(now) {
                Ok(true) => Wait::NoWait,
                Ok(false) => Wait::UntilEvent,
                Err(error) => {
                    tracing::warn!(%error, "the device cannot receive");
                    Wait::UntilEvent
                }
            },
        };
        if now.since(self.last_report) >= REPORT_INTERVAL {
            self.last_report = now;
            self.publish();
        }
        wait
    }

    /// Sleeps until the event queue says that something happened, or for as long as `wait` allows. Returns at once if another
    /// thread has called meanwhile.
    pub fn sleep(&mut self, now: Instant, wait: Wait) -> std::io::Result<()> {
        let timeout = match wait {
            Wait::NoWait => return Ok(()),
            Wait::Until(deadline) => deadline.since(now).min(SLEEP_MAX),
            Wait::UntilEvent => SLEEP_MAX,
        };
        let result = if self.prepare_sleep() {
            self.queue.wait(Some(timeout))
        } else {
            Ok(())
        };
        self.end_sleep();
        result
    }

    /// Announces sleep and looks once more. False if it must not sleep: something has come meanwhile. [`ExecutionContext::end_sleep`]
    /// comes after it in either case.
    pub(crate) fn prepare_sleep(&mut self) -> bool {
        self.publish();
        // The order closes the race with a caller: announce the sleep, look once more, then sleep.
        self.queue.waker().prepare_sleep();
        match &mut self.layer {
            Layer::Quic { device, worker } => device.prepare_sleep() && worker.inbox().is_empty(),
            Layer::Datapath(datapath) => datapath.prepare_sleep(),
        }
    }

    /// It does not sleep any more.
    pub(crate) fn end_sleep(&mut self) {
        match &mut self.layer {
            Layer::Quic { device, .. } => device.awake(),
            Layer::Datapath(datapath) => datapath.awake(),
        }
        self.queue.waker().awake();
    }

    /// What it sleeps on.
    pub(crate) fn queue(&self) -> &EventQueue {
        &self.queue
    }

    /// Polls and sleeps until the registration is closed and the worker hosts no connection any more.
    ///
    /// After the last useful work it keeps polling for `polling_idle_timeout` before it sleeps, or for some microseconds where the last sleeps were
    /// so short that they cost more than that.
    pub fn run(mut self, clock: Clock, polling_idle_timeout: Duration) {
        let mut now = clock.now();
        let mut last_work = now;
        let mut idle_turns = 0u32;
        let mut adaptive_spin = AdaptiveSpin::new();
        loop {
            let wait = self.poll(now);
            let after = clock.now();
            if wait == Wait::NoWait {
                if idle_turns > 0 {
                    adaptive_spin.on_found();
                }
                idle_turns = 0;
                last_work = after;
                if after.since(now) > SLOW_TURN {
                    self.count_slow_turn();
                }
                now = after;
                continue;
            }
            if self.has_ended() {
                return self.publish();
            }
            idle_turns = idle_turns.saturating_add(1);
            if idle_turns == 1 && self.lets_others_go_first() {
                std::thread::yield_now();
                now = clock.now();
            } else if after.since(last_work) >= polling_idle_timeout.max(adaptive_spin.budget()) {
                adaptive_spin.on_sleep();
                if let Err(error) = self.sleep(after, wait) {
                    tracing::error!(%error, "the event queue failed; the thread polls instead of sleeping");
                }
                now = clock.now();
                adaptive_spin.on_slept(now.since(after));
                last_work = now;
                idle_turns = 0;
            } else {
                now = after;
            }
        }
    }

    /// Others on the same processor, if there are any, run once before it sleeps: what they send or fill comes in fewer and larger turns, and
    /// nobody has to wake it for each. It makes no difference where a processor is its own.
    fn lets_others_go_first(&self) -> bool {
        matches!(self.layer, Layer::Datapath(_))
    }

    /// Nothing will happen here any more: the registration is closed, and no connection is left.
    pub fn has_ended(&self) -> bool {
        match &self.layer {
            Layer::Quic { worker, .. } => worker.inbox().is_stopping() && worker.is_empty(),
            Layer::Datapath(datapath) => datapath.is_abandoned(),
        }
    }

    fn count_slow_turn(&mut self) {
        if let Layer::Quic { worker, .. } = &mut self.layer {
            worker.count_slow_turn();
        }
    }

    fn publish(&self) {
        let stats = match &self.layer {
            Layer::Quic { device, worker } => (*worker.stats(), device.stats()),
            Layer::Datapath(datapath) => (WorkerStats::default(), datapath.stats()),
        };
        *self
            .report
            .inner
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner) = stats;
    }
}

impl Drop for ExecutionContext {
    /// Connections that are still there end now: their peers are told, as far as one turn can, and their handlers hear the last event, on this
    /// thread.
    fn drop(&mut self) {
        let now = self.now;
        let Layer::Quic { device, worker } = &mut self.layer else {
            return;
        };
        worker.inbox().stop();
        if std::thread::panicking() {
            return worker.inbox().close();
        }
        worker.shutdown_connections(now, 0);
        worker.transmit(now, device);
        device.flush();
        worker.inbox().close();
        while let Some(operation) = worker.inbox().pop() {
            run(worker, device, now, operation);
        }
        while !worker.is_empty() {
            worker.abandon_connections(now);
            worker.finish_ending(now);
        }
    }
}

fn run(worker: &mut Worker, device: &mut Device, now: Instant, operation: Operation) {
    match operation {
        Operation::Device(operation) => operation.run(device),
        operation => worker.run(now, operation),
    }
}

/// One turn of a worker with its device.
fn turn(worker: &mut Worker, device: &mut Device, now: Instant) -> Wait {
    let received = device
        .receive(now, &mut |burst| worker.on_burst(now, burst))
        .unwrap_or_else(|error| {
            tracing::warn!(%error, "the device cannot receive");
            0
        });
    let mut operations = 0;
    while operations < OPERATIONS_PER_TURN
        && let Some(operation) = worker.inbox().pop()
    {
        operations += 1;
        run(worker, device, now, operation);
    }
    worker.expire(now);
    worker.finish_ending(now);
    let sent = worker.transmit(now, device);
    device.flush();
    worker.count_turn();
    if received > 0 || operations > 0 || sent > 0 || worker.waits_for_callers() {
        return Wait::NoWait;
    }
    match worker.deadline() {
        Some(deadline) if deadline <= now => Wait::NoWait,
        Some(deadline) => Wait::Until(deadline),
        None => Wait::UntilEvent,
    }
}

/// How often the counters are renewed while there is work.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);
