//! What a thread polls: a device, a worker, or both, and the event queue that it sleeps on.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ringway_datapath::clock::Clock;
use ringway_datapath::contract::{Capabilities, DeviceStats};
use ringway_datapath::device::Device;
use ringway_datapath::event::{EventQueue, Waker};
use ringway_datapath::local::LocalDevice;
use ringway_datapath::split::{DatapathEnd, split};
use ringway_engine::connection::transmit::TransmitLimits;
use ringway_types::Instant;

use super::between_turns::Driven;
use super::holdup;
use super::idle_policy::IdlePolicy;
use super::inbox::Operation;
use super::limits::SLEEP_MAX;
use super::stats::{SLOW_TURN, WorkerStats};
use super::{Worker, WorkerConfig, wake_ups};

/// How long a context may be left alone after [`Execution::poll`](crate::Execution::poll).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wait {
    /// Not at all: there is more work.
    NoWait,
    /// Until this time, or until its event queue signals.
    Until(Instant),
    /// Until its event queue signals.
    UntilEvent,
}

/// The part of a partition that one thread polls, and the event queue that it sleeps on. In low-latency mode that is
/// the device and the QUIC layer; in max-throughput mode there is one context for each of the two.
///
/// Threads that Ringway starts [run](ExecutionContext::run) it, or an [`Execution`](crate::Execution) has it, for the application's. Only one thread
/// at a time may use a context.
pub(crate) struct ExecutionContext {
    layer: Layer,
    queue: EventQueue,
    report: Arc<ContextReport>,
    last_report: Instant,
    /// The time of the last turn.
    now: Instant,
    /// A turn begins with what is to be sent.
    receives_last: bool,
}

enum Layer {
    /// The QUIC layer, with the device or this end of the split device.
    Quic {
        device: Box<Device>,
        worker: Arc<Driven>,
    },
    /// The device of a worker that another context has.
    Datapath(Box<DatapathEnd>),
}

/// A copy of a context's counters for other threads. It is renewed about once a second, when the context goes to
/// sleep, and when it ends.
pub(crate) struct ContextReport {
    inner: Mutex<Report>,
}

struct Report {
    worker: WorkerStats,
    device: DeviceStats,
    capabilities: Capabilities,
}

impl ContextReport {
    fn new(capabilities: &Capabilities) -> Self {
        ContextReport {
            inner: Mutex::new(Report {
                worker: WorkerStats::default(),
                device: DeviceStats::default(),
                capabilities: capabilities.clone(),
            }),
        }
    }

    /// The counters, as of the last renewal.
    pub(crate) fn get(&self) -> (WorkerStats, DeviceStats) {
        let report = self.lock();
        (report.worker, report.device)
    }

    fn renew(&self, worker: WorkerStats, device: DeviceStats, capabilities: &Capabilities) {
        let mut report = self.lock();
        report.worker = worker;
        report.device = device;
        if report.capabilities != *capabilities {
            report.capabilities.clone_from(capabilities);
        }
    }

    /// What the device can do, as of the last renewal.
    pub(crate) fn capabilities(&self) -> Capabilities {
        self.lock().capabilities.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Report> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
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
    /// One context for a whole partition.
    pub(crate) fn new(
        config: &WorkerConfig,
        partition: usize,
        mut device: LocalDevice,
        queue: EventQueue,
        now: Instant,
    ) -> std::io::Result<Self> {
        device.register(&queue)?;
        Ok(Self::of_worker(config, partition, device.into(), queue, now))
    }

    /// Two contexts for a partition: the device's, and the QUIC layer's.
    pub(crate) fn split(
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
        let worker = Driven::new(Box::new(Worker::new(config, partition, limits, now)));
        let device = Box::new(device);
        Self::with_layer(Layer::Quic { device, worker }, queue, now)
    }

    fn with_layer(layer: Layer, queue: EventQueue, now: Instant) -> Self {
        let capabilities = match &layer {
            Layer::Quic { device, .. } => device.capabilities(),
            Layer::Datapath(datapath) => datapath.capabilities(),
        };
        let report = Arc::new(ContextReport::new(capabilities));
        ExecutionContext {
            layer,
            queue,
            report,
            last_report: now,
            now,
            receives_last: false,
        }
    }

    /// From now on a turn sends first, and receives last.
    pub(crate) fn receive_last(&mut self) {
        self.receives_last = true;
    }

    /// Where other threads can read the counters.
    pub(crate) fn report(&self) -> &Arc<ContextReport> {
        &self.report
    }

    /// Takes one turn: receives, runs calls of other threads, fires timers, calls handlers and transmits, as far as
    /// that is this context's part. The amount of work is bounded, and it never blocks.
    pub(crate) fn poll(&mut self, now: Instant) -> Wait {
        self.now = now;
        let receives_last = self.receives_last;
        let wait = match &mut self.layer {
            // Whatever of the application's runs in it, to the last drop of a handler, must not wait for the worker.
            Layer::Quic { device, worker } => wake_ups::in_turn(|| {
                let mut worker = worker.worker();
                let Some(worker) = worker.as_mut().and_then(|worker| worker.as_mut()) else {
                    // The context has come here from another thread, which has not noticed yet.
                    return Wait::NoWait;
                };
                holdup::on_worker(|| turn(worker, device, now, receives_last))
            }),
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

    /// Sleeps until the event queue signals, or for as long as `wait` allows. Returns at once if another thread has
    /// posted something meanwhile, or if there is something else to do: that is asked after wakers have begun to end sleeps.
    pub(crate) fn sleep_unless(
        &mut self,
        now: Instant,
        wait: Wait,
        has_work: impl FnOnce() -> bool,
    ) -> std::io::Result<()> {
        let timeout = match wait {
            Wait::NoWait => return Ok(()),
            Wait::Until(deadline) => deadline.since(now).min(SLEEP_MAX),
            Wait::UntilEvent => SLEEP_MAX,
        };
        let result = if self.prepare_sleep() && !has_work() {
            self.queue.wait(Some(timeout))
        } else {
            Ok(())
        };
        self.end_sleep();
        result
    }

    /// Ends the context's sleep, from any thread. It costs one load while the context is awake.
    pub(crate) fn waker(&self) -> std::task::Waker {
        Arc::new(SleepWaker(Arc::clone(self.queue.waker()))).into()
    }

    /// Announces that the context will sleep, then checks for work once more. False if there is some, in which case it
    /// must not sleep. [`ExecutionContext::end_sleep`] must follow in either case.
    pub(crate) fn prepare_sleep(&mut self) -> bool {
        self.publish();
        // This order closes the race with a caller: announce the sleep, check once more, then sleep.
        self.queue.waker().prepare_sleep();
        match &mut self.layer {
            Layer::Quic { device, worker } => {
                device.prepare_sleep()
                    && worker.inbox().is_empty()
                    && worker.look(|worker| !worker.has_entered()) == Some(true)
            }
            Layer::Datapath(datapath) => datapath.prepare_sleep(),
        }
    }

    /// Announces that the context is awake.
    pub(crate) fn end_sleep(&mut self) {
        match &mut self.layer {
            Layer::Quic { device, .. } => device.end_sleep(),
            Layer::Datapath(datapath) => datapath.end_sleep(),
        }
        self.queue.waker().end_sleep();
    }

    /// The event queue that it sleeps on.
    pub(crate) fn queue(&self) -> &EventQueue {
        &self.queue
    }

    /// Polls and sleeps until the registration is closed and no connection is left.
    ///
    /// It sleeps after `polling_idle_timeout` without useful work. If its last sleeps were shorter than a sleep and a
    /// wake-up cost, it polls for some microseconds first, whatever the timeout.
    pub(crate) fn run(mut self, clock: Clock, polling_idle_timeout: Duration) {
        let mut now = clock.now();
        let mut idle_turns = 0u32;
        let mut policy = IdlePolicy::new(polling_idle_timeout, now);
        loop {
            let wait = self.poll(now);
            let after = clock.now();
            if wait == Wait::NoWait {
                idle_turns = 0;
                policy.on_work(after);
                if after.since(now) > SLOW_TURN {
                    self.count_slow_turn();
                }
                now = after;
                continue;
            }
            if self.has_ended() {
                return;
            }
            idle_turns = idle_turns.saturating_add(1);
            if idle_turns == 1 && self.lets_others_go_first() {
                std::thread::yield_now();
                now = clock.now();
            } else if policy.on_idle(after) {
                if let Err(error) = self.sleep_unless(after, wait, || false) {
                    tracing::error!(%error, "the event queue failed; the thread polls instead of sleeping");
                }
                now = clock.now();
                policy.on_slept(after, now);
                idle_turns = 0;
            } else {
                now = after;
            }
        }
    }

    /// Before a datapath thread sleeps, it lets other threads on its processor run once: what they send or fill then
    /// arrives in fewer and larger turns, and they need not wake it for each. On a processor of its own this changes
    /// nothing.
    fn lets_others_go_first(&self) -> bool {
        matches!(self.layer, Layer::Datapath(_))
    }

    /// True when nothing will happen here any more: the registration is closed, and no connection is left.
    pub(crate) fn has_ended(&self) -> bool {
        match &self.layer {
            Layer::Quic { worker, .. } => {
                worker.inbox().is_stopping() && worker.look(|worker| worker.is_empty()) == Some(true)
            }
            Layer::Datapath(datapath) => datapath.is_abandoned(),
        }
    }

    /// This thread drives it from now on, and may work on its connections between turns.
    pub(crate) fn set_driven_here(&self, is_simulated: bool) {
        if let Layer::Quic { worker, .. } = &self.layer {
            worker.set_driven_here(is_simulated);
        }
    }

    fn count_slow_turn(&mut self) {
        if let Layer::Quic { worker, .. } = &mut self.layer {
            worker.look(Worker::count_slow_turn);
        }
    }

    fn publish(&self) {
        match &self.layer {
            Layer::Quic { device, worker } => {
                if let Some(stats) = worker.look(|worker| worker.stats()) {
                    self.report.renew(stats, device.stats(), device.capabilities());
                }
            }
            Layer::Datapath(datapath) => {
                let stats = WorkerStats::default();
                self.report
                    .renew(stats, datapath.stats(), datapath.capabilities());
            }
        }
    }
}

/// Ends the sleep of a context.
struct SleepWaker(Arc<Waker>);

impl std::task::Wake for SleepWaker {
    fn wake(self: Arc<Self>) {
        self.0.wake();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.wake();
    }
}

impl Drop for ExecutionContext {
    /// Ends the connections that are left: tells their peers, as far as one turn can, and delivers their last events on
    /// this thread.
    fn drop(&mut self) {
        let now = self.now;
        let Layer::Quic { device, worker } = &mut self.layer else {
            return self.publish();
        };
        let Some(mut worker) = worker.take() else { return };
        let worker = &mut *worker;
        worker.inbox().stop();
        if std::thread::panicking() {
            worker.inbox().close();
            return worker.inbox().discard();
        }
        worker.shutdown_connections(now, 0, Duration::ZERO);
        worker.transmit(now, device);
        device.flush();
        worker.inbox().close();
        while let Some(operation) = worker.inbox().pop() {
            run(worker, device, now, operation, usize::MAX);
        }
        // Those for which calls had waited have only now something to tell.
        worker.finish_ending(now);
        worker.transmit(now, device);
        device.flush();
        while !worker.is_empty() {
            worker.abandon_connections(now, |_| true);
            worker.finish_ending(now);
        }
        self.report
            .renew(worker.stats(), device.stats(), device.capabilities());
    }
}

fn run(worker: &mut Worker, device: &mut Device, now: Instant, operation: Operation, left: usize) -> usize {
    match operation {
        Operation::Device(operation) => operation.run(device),
        operation => return worker.run(now, operation, left),
    }
    1
}

/// One turn of a worker and its device. What is received last is answered in the next turn; but before a timer fires, what may have come in time is
/// looked at.
fn turn(worker: &mut Worker, device: &mut Device, now: Instant, receives_last: bool) -> Wait {
    worker.begin_turn(now);
    worker.put_back_entered(now);
    let mut received = 0;
    let receives_last = receives_last && worker.deadline().is_none_or(|deadline| deadline > now);
    if !receives_last {
        received = receive(worker, device, now);
    }
    let mut operations = 0;
    while operations < worker.operations_max
        && let Some(operation) = worker.inbox().pop()
    {
        let left = worker.operations_max - operations;
        operations += run(worker, device, now, operation, left);
    }
    worker.expire(now);
    worker.finish_ending(now);
    let sent = worker.transmit(now, device);
    device.flush();
    worker.abandon_overdue(now);
    if receives_last {
        received = receive(worker, device, now);
    }
    let refused = worker.on_refusals(now, device);
    let notified = worker.begin_notified();
    worker.count_turn();
    if received > 0 || operations > 0 || sent > 0 || refused || notified || worker.waits_for_callers() {
        return Wait::NoWait;
    }
    // It was full when they were to fill it, and has since let something go: nothing else would tell of that.
    if worker.has_ready() && device.slot().is_some() {
        return Wait::NoWait;
    }
    worker.on_idle(now);
    let deadline = worker.deadline();
    if deadline.is_some_and(|deadline| deadline <= now) {
        return Wait::NoWait;
    }
    worker.begin_idle();
    deadline.map_or(Wait::UntilEvent, Wait::Until)
}

fn receive(worker: &mut Worker, device: &mut Device, now: Instant) -> usize {
    let received = device.receive(now, &mut |burst| worker.on_burst(now, burst));
    received.unwrap_or_else(|error| {
        tracing::warn!(%error, "the device cannot receive");
        0
    })
}

/// How often the counters are renewed while there is work.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);
