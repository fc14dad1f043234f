//! Custom execution: contexts on the application's own threads and event queues.

use std::io;
#[cfg(feature = "sim")]
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use ringway_datapath::clock::Clock;
use ringway_datapath::event::{ApplicationQueue, Completion, Watch};
#[cfg(feature = "sim")]
use ringway_datapath::sim::SimNetwork;
use ringway_types::Instant;

use super::error::SetupError;
use super::execution::{ExecutionConfig, ExecutionFlags, ExecutionMode};
use super::registration::Registration;
use super::thread_plan::ThreadPlan;
use crate::worker::context::{ExecutionContext, Wait};
use crate::worker::idle_policy::IdlePolicy;

/// Where the application runs a context. MsQuic: `QUIC_EXECUTION_CONFIG`.
#[derive(Debug)]
#[non_exhaustive]
pub struct ContextConfig<'a> {
    /// The processor on which the application will poll the context. It decides where the context's memory is, and
    /// which of an interface's queues it serves.
    pub ideal_processor: usize,
    /// The event queue that the application will wait on.
    pub event_queue: ApplicationQueue<'a>,
    /// Identifies the context's completions on the event queue. Nothing else on that queue may use the same number.
    pub user_data: u64,
}

impl<'a> ContextConfig<'a> {
    /// A context that will be polled on this processor, with no event queue but its own ([`ApplicationQueue::Descriptor`]).
    pub fn new(ideal_processor: usize) -> Self {
        ContextConfig {
            ideal_processor,
            event_queue: ApplicationQueue::Descriptor,
            user_data: 0,
        }
    }

    /// It is watched in an event queue of the application, which brings its completions with this number.
    #[must_use]
    pub fn with_event_queue(self, event_queue: impl Into<ApplicationQueue<'a>>, user_data: u64) -> Self {
        ContextConfig {
            event_queue: event_queue.into(),
            user_data,
            ..self
        }
    }

    /// One for each thread that [`Registration::open`] would start with this configuration, on the processor where it would run: near the queues of
    /// the interface, if one is named.
    ///
    /// # Errors
    ///
    /// As [`Registration::open`], as far as the configuration and the processors go.
    pub fn for_each_thread(config: &ExecutionConfig) -> Result<Vec<Self>, SetupError> {
        let processors = ThreadPlan::new(config)?.processors(config.mode);
        Ok(processors.into_iter().map(ContextConfig::new).collect())
    }
}

/// A context that the application polls on its own thread. MsQuic: `QUIC_EXECUTION`.
///
/// A thread calls [`poll`](Execution::poll), which does the work that is due, handlers included, and says how long the context may be left alone.
/// Then it waits, in one of two ways, and polls again:
///
/// - A thread that waits for nothing else calls [`sleep_unless`](Execution::sleep_unless). An executor of tasks does, too: the context's
///   [waker](Execution::waker) ends the sleep for a task that another thread wakes.
/// - A thread with an event queue of its own, where the context is watched, calls [`begin_wait`](Execution::begin_wait), waits there for as long as
///   that says (with io_uring: submits and waits), and passes completions with the context's number to [`complete`](Execution::complete).
///   [`CompletionHandlers`](crate::CompletionHandlers) is a table of handlers for those and the application's own.
///
/// Only one thread at a time may use a context.
///
/// A context may be deleted or dropped at any time, in any order with the registration and the handles. Its remaining
/// connections end then: their peers are told, and their handlers receive their last events on the thread that drops
/// the context. Later calls on their handles return [`Closed`](crate::CallError::Closed).
#[derive(Debug)]
pub struct Execution {
    context: ExecutionContext,
    /// In the application's event queue, if one is known.
    watch: Option<Watch>,
    clock: Clock,
    policy: IdlePolicy,
    /// The application is waiting, or about to, since then.
    asleep: Option<Instant>,
    /// The event queue has signalled since the last turn.
    signalled: bool,
}

impl Execution {
    /// Creates one partition for each context or, in [`ExecutionMode::MaxThroughput`], one for each pair of contexts:
    /// the first of the pair runs the datapath, the second one the connections. MsQuic: `ExecutionCreate`.
    ///
    /// The contexts say where they run: `config.processors` must be `None`, or name the same ones. Flags that concern threads are an
    /// error, because the threads are the application's.
    ///
    /// # Errors
    ///
    /// [`SetupError::InvalidConfig`] and [`SetupError::InvalidValue`]: the configuration asks for what cannot be, as it says. [`SetupError::Io`]: the
    /// system does not give a device, an event queue, or room in the application's.
    pub fn create(
        config: &ExecutionConfig,
        contexts: Vec<ContextConfig<'_>>,
    ) -> Result<(Registration, Vec<Execution>), SetupError> {
        let invalid = |text: &str| Err(SetupError::InvalidConfig(text.to_owned()));
        let processors: Vec<_> = contexts.iter().map(|context| context.ideal_processor).collect();
        if config
            .processors
            .as_ref()
            .is_some_and(|named| *named != processors)
        {
            return invalid(
                "custom execution: leave out the list of processors, because the contexts say where they run",
            );
        }
        if !ExecutionFlags::XDP.contains(config.flags) {
            return invalid(
                "custom execution: XDP is the only flag that applies, because the threads are the application's",
            );
        }
        if config.drop_capabilities {
            return invalid(
                "custom execution: leave out drop_capabilities: the application's threads give theirs up by ringway::drop_capabilities",
            );
        }
        if contexts.is_empty() {
            return invalid("custom execution needs at least one context");
        }
        if config.mode == ExecutionMode::MaxThroughput && contexts.len() % 2 == 1 {
            return invalid("custom execution in max-throughput mode needs two contexts for each partition");
        }
        let plan = ThreadPlan::of_application(config, processors)?;
        let now = Clock::shared().now();
        let (registration, made) = Registration::without_threads(config, &plan, now)?;
        let executions = made.into_iter().zip(contexts).map(|(context, own)| {
            let watch = match own.event_queue {
                ApplicationQueue::Descriptor => None,
                queue => Some(Watch::begin(context.queue(), &queue, own.user_data)?),
            };
            Ok(Execution::new(context, watch, config, now))
        });
        let executions: io::Result<Vec<_>> = executions.collect();
        let executions = executions.map_err(SetupError::io(
            "watching a context in the event queue of the application",
        ))?;
        Ok((registration, executions))
    }

    /// Creates partitions on a [simulated network](crate::sim), for tests: [`poll_at`](Execution::poll_at) passes them the time.
    ///
    /// `ip` is the address of connections that the registration opens. `segments_max` is how many datagrams the simulated devices
    /// send or receive in one message: 1 as AF_XDP does, or up to 64 as GSO and GRO do. Of `config`, the mode, the limits and `lent_bytes` count.
    /// There is one context for each partition, or a pair, as [`create`](Execution::create) makes them.
    ///
    /// # Errors
    ///
    /// [`SetupError::InvalidValue`]: a limit cannot be.
    #[cfg(feature = "sim")]
    pub fn create_simulated(
        network: &SimNetwork,
        ip: IpAddr,
        partitions: usize,
        segments_max: usize,
        config: &ExecutionConfig,
        now: Instant,
    ) -> Result<(Registration, Vec<Execution>), SetupError> {
        let (registration, contexts) =
            Registration::simulated(network, ip, partitions, segments_max, config, now)?;
        let executions = contexts
            .into_iter()
            .map(|context| Execution::new(context, None, config, now));
        Ok((registration, executions.collect()))
    }

    fn new(context: ExecutionContext, watch: Option<Watch>, config: &ExecutionConfig, now: Instant) -> Self {
        Execution {
            context,
            watch,
            clock: Clock::shared(),
            policy: IdlePolicy::new(config.polling_idle_timeout, now),
            asleep: None,
            signalled: false,
        }
    }

    /// From now on a turn runs calls, fires timers and transmits first, and receives last. For executors whose tasks run on this thread, between
    /// turns: what they make of what was received leaves in the next turn, in the packets that acknowledge it; otherwise the acknowledgements go out
    /// before it, by themselves. A turn in which a timer is due receives first all the same: what may have come in time counts. What needs no
    /// task, such as the handshakes of new clients and the answers of handlers, then leaves one turn later too: for a context on which only handlers
    /// run, this gains nothing. It holds for the context's life.
    pub fn receive_last(&mut self) {
        self.context.receive_last();
    }

    /// Takes one turn: receives, runs calls of other threads, fires timers, calls handlers and transmits ([`Execution::receive_last`] chooses another
    /// order). The amount of work is bounded, and it never
    /// blocks. Returns how long the context may be left alone. MsQuic: `ExecutionPoll`.
    pub fn poll(&mut self) -> Wait {
        self.turn(self.clock.now(), false)
    }

    /// The same for a context of a simulated network, where it is as late as the caller says; time does not go back.
    #[cfg(feature = "sim")]
    pub fn poll_at(&mut self, now: Instant) -> Wait {
        self.turn(now, true)
    }

    fn turn(&mut self, now: Instant, is_simulated: bool) -> Wait {
        self.end_wait(now);
        self.context.set_driven_here(is_simulated);
        let wait = self.context.poll(now);
        if wait == Wait::NoWait {
            self.policy.on_work(now);
        }
        wait
    }

    fn end_wait(&mut self, now: Instant) {
        let Some(from) = self.asleep.take() else {
            return;
        };
        self.context.end_sleep();
        let is_watched = self.watch.is_some();
        if !is_watched {
            self.policy.on_slept(from, now);
        }
        // The turn that follows does the work; this only clears the signal.
        if (std::mem::take(&mut self.signalled) || !is_watched)
            && let Err(error) = self.context.queue().wait(Some(Duration::ZERO))
        {
            tracing::error!(%error, "the event queue of a context failed");
        }
    }

    /// Sleeps for as long as `wait` allows, which [`poll`](Execution::poll) has given, unless there is work in the context by then, or `has_work`
    /// says that there is some beside it. That is asked after the context's [waker](Execution::waker) has begun to end sleeps: whoever makes work
    /// first, and then calls that waker, is not overlooked.
    ///
    /// It returns without having slept until [`polling_idle_timeout`](ExecutionConfig::polling_idle_timeout) has passed since there was work and, if
    /// the last sleeps were shorter than a sleep and a wake-up cost, for some microseconds longer.
    ///
    /// # Errors
    ///
    /// The system does not let it wait, which leaves polling.
    pub fn sleep_unless(&mut self, wait: Wait, has_work: impl FnOnce() -> bool) -> io::Result<()> {
        let from = self.clock.now();
        if wait == Wait::NoWait || !self.policy.on_idle(from) {
            return Ok(());
        }
        let slept = self.context.sleep_unless(from, wait, has_work);
        self.policy.on_slept(from, self.clock.now());
        slept
    }

    /// Ends the context's sleep or wait, from any thread. It costs one load while the context is awake.
    pub fn waker(&self) -> std::task::Waker {
        self.context.waker()
    }

    /// Says that the context will not be polled until the event queue brings something, and for how long at most: zero if there is work after all, or
    /// if it [shall be polled](ExecutionConfig::polling_idle_timeout) yet; `None` until the queue brings something. The next
    /// [`poll`](Execution::poll) ends the wait.
    ///
    /// `queue` is the one that was passed to [`Execution::create`]. An io_uring gets an entry that watches the context, which goes with the
    /// application's next submission. With [`ApplicationQueue::Descriptor`], poll again when the context's descriptor ([`AsFd`]) is readable.
    ///
    /// # Errors
    ///
    /// The queue does not take what is needed to watch the context: make the ring larger, or submit what is in it, and call again. Or the context was
    /// created without an event queue (`InvalidInput`).
    pub fn begin_wait<'a>(
        &mut self,
        wait: Wait,
        queue: impl Into<ApplicationQueue<'a>>,
    ) -> io::Result<Option<Duration>> {
        let now = self.clock.now();
        let is_idle = match self.watch {
            Some(_) => self.policy.is_idle(now),
            None => self.policy.on_idle(now),
        };
        // A loop that ends must not wait for events that will not come.
        if wait == Wait::NoWait || !is_idle || self.context.has_ended() {
            return Ok(Some(Duration::ZERO));
        }
        if self.asleep.replace(now).is_some() {
            self.context.end_sleep();
        }
        if !self.context.prepare_sleep() {
            return Ok(Some(Duration::ZERO));
        }
        match (&mut self.watch, queue.into()) {
            (Some(watch), mut queue) => watch.arm(self.context.queue(), &mut queue)?,
            (None, ApplicationQueue::Descriptor) => {}
            (None, _) => {
                let text = "the context was created without an event queue of the application";
                return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
            }
        }
        Ok(match wait {
            Wait::NoWait => Some(Duration::ZERO),
            Wait::Until(deadline) => Some(deadline.since(now)),
            Wait::UntilEvent => None,
        })
    }

    /// Takes a completion from the event queue; false if it is not this context's. The next [`Execution::poll`] does
    /// the work; until then, an epoll instance reports the same event again.
    pub fn complete(&mut self, completion: &Completion) -> bool {
        let watch = self.watch.as_mut();
        let is_ours = watch.is_some_and(|watch| watch.on_completion(completion));
        self.signalled |= is_ours;
        is_ours
    }

    /// True when nothing will happen here any more: the registration is closed, and no connection is left. The
    /// application may leave its loop.
    pub fn has_ended(&self) -> bool {
        self.context.has_ended()
    }

    /// Ends the context with everything in it, and removes it from the application's event queue. MsQuic:
    /// `ExecutionDelete`.
    ///
    /// Dropping it does the same for an epoll instance. An io_uring would keep watching an event queue that never
    /// signals again; after this call it stops with the application's next submission, and reports a last completion
    /// (`-ECANCELED`).
    ///
    /// # Errors
    ///
    /// The queue does not take what ends the watching, as [`Execution::begin_wait`]; the context has ended all the same.
    pub fn delete<'a>(self, queue: impl Into<ApplicationQueue<'a>>) -> io::Result<()> {
        match &self.watch {
            Some(watch) => watch.end(self.context.queue(), &mut queue.into()),
            None => Ok(()),
        }
    }
}

impl AsFd for Execution {
    /// The context's own event queue: readable when a wait ends that [`Execution::begin_wait`] has begun, so that there is something to poll for.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.context.queue().as_fd()
    }
}
