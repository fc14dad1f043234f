//! Custom execution: contexts on the application's own threads and event queues.

use std::io;
use std::time::Duration;

use ringway_datapath::clock::Clock;
use ringway_datapath::event::{ApplicationQueue, Completion, Watch};
use ringway_types::Instant;

use super::error::SetupError;
use super::execution::{ExecutionConfig, ExecutionFlags, ExecutionMode};
use super::registration::Registration;
use crate::worker::context::{ExecutionContext, Wait};

/// Where the application runs a context. MsQuic: `QUIC_EXECUTION_CONFIG`.
#[derive(Debug)]
pub struct ContextConfig<'a> {
    /// The processor on which the application will poll the context. It decides where the context's memory is, and
    /// which of an interface's queues it serves.
    pub ideal_processor: usize,
    /// The event queue that the application will wait on.
    pub event_queue: ApplicationQueue<'a>,
    /// Identifies the context's completions on the event queue. Nothing else on that queue may use the same number.
    pub user_data: u64,
}

/// A context that the application polls on its own thread and event queue. MsQuic: `QUIC_EXECUTION`.
///
/// The application's loop is:
///
/// 1. Call [`Execution::poll`], which does the work that is due and says how long to wait.
/// 2. Wait for completions on the event queue for at most that long (with io_uring: submit and wait).
/// 3. Pass completions with the context's number to [`Execution::complete`], and the application's own to their
///    handlers. [`CompletionHandlers`](crate::CompletionHandlers) is a table of handlers for both.
///
/// Handlers of connections run inside `poll`. Only one thread at a time may use a context.
///
/// A context may be deleted or dropped at any time, in any order with the registration and the handles. Its remaining
/// connections end then: their peers are told, and their handlers receive their last events on the thread that drops
/// the context. Later calls on their handles return [`Closed`](crate::CallError::Closed).
#[derive(Debug)]
pub struct Execution {
    context: ExecutionContext,
    watch: Watch,
    clock: Clock,
    polling_idle_timeout: Duration,
    last_work: Instant,
    /// The application is waiting, or about to.
    asleep: bool,
    /// The event queue has signalled since the last turn.
    signalled: bool,
}

impl Execution {
    /// Creates one partition for each context or, in [`ExecutionMode::MaxThroughput`], one for each pair of contexts:
    /// the first of the pair runs the datapath, the second one the connections. MsQuic: `ExecutionCreate`.
    ///
    /// `config.processors` must be `None`, because the contexts say where they run. Flags that concern threads are an
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
        if config.processors.is_some() {
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
        let config = ExecutionConfig {
            processors: Some(contexts.iter().map(|context| context.ideal_processor).collect()),
            // The threads are the application's: whether it really has these processors is not known here.
            flags: config.flags | ExecutionFlags::NO_IDEAL_PROC,
            ..config.clone()
        };
        let (registration, made) = Registration::open_without_threads(&config)?;
        let clock = Clock::shared();
        let now = clock.now();
        let executions = made.into_iter().zip(contexts).map(|(context, own)| {
            let watch = Watch::begin(context.queue(), &own.event_queue, own.user_data)?;
            Ok(Execution {
                context,
                watch,
                clock,
                polling_idle_timeout: config.polling_idle_timeout,
                last_work: now,
                asleep: false,
                signalled: false,
            })
        });
        let executions: io::Result<Vec<_>> = executions.collect();
        let executions = executions.map_err(SetupError::io(
            "watching a context in the event queue of the application",
        ))?;
        Ok((registration, executions))
    }

    /// Does a bounded amount of work, and returns how long the application may wait on its event queue: zero if there
    /// is more work, or `None` to wait until the queue brings something. MsQuic: `ExecutionPoll`.
    ///
    /// `queue` is the one that was passed to [`Execution::create`]. An io_uring gets an entry that watches the context,
    /// which goes with the application's next submission.
    ///
    /// # Errors
    ///
    /// The queue does not take what is needed to watch the context: make the ring larger, or submit what is in it, and call again.
    pub fn poll<'a>(&mut self, queue: impl Into<ApplicationQueue<'a>>) -> io::Result<Option<Duration>> {
        if std::mem::take(&mut self.asleep) {
            self.context.end_sleep();
        }
        if std::mem::take(&mut self.signalled) {
            // The poll below does the work; this only clears the signal.
            self.context.queue().wait(Some(Duration::ZERO))?;
        }
        let now = self.clock.now();
        let wait = self.context.poll(now);
        if wait == Wait::NoWait {
            self.last_work = now;
            return Ok(Some(Duration::ZERO));
        }
        if now.since(self.last_work) < self.polling_idle_timeout {
            return Ok(Some(Duration::ZERO));
        }
        self.asleep = true;
        // A loop that ends must not wait for events that will not come.
        if !self.context.prepare_sleep() || self.context.has_ended() {
            return Ok(Some(Duration::ZERO));
        }
        self.watch.arm(self.context.queue(), &mut queue.into())?;
        Ok(match wait {
            Wait::NoWait => Some(Duration::ZERO),
            Wait::Until(deadline) => Some(deadline.since(now)),
            Wait::UntilEvent => None,
        })
    }

    /// Takes a completion from the event queue; false if it is not this context's. The next [`Execution::poll`] does
    /// the work; until then, an epoll instance reports the same event again.
    pub fn complete(&mut self, completion: &Completion) -> bool {
        let is_ours = self.watch.on_completion(completion);
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
    /// The queue does not take what ends the watching, as [`Execution::poll`]; the context has ended all the same.
    pub fn delete<'a>(self, queue: impl Into<ApplicationQueue<'a>>) -> io::Result<()> {
        self.watch.end(self.context.queue(), &mut queue.into())
    }
}
