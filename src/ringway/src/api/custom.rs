//! Custom execution: contexts on threads and event queues of the application.

use std::io;
use std::time::Duration;

use ringway_datapath::clock::Clock;
use ringway_datapath::event::{ApplicationQueue, Completion, Watch};
use ringway_types::Instant;

use super::error::SetupError;
use super::execution::{ExecutionConfig, ExecutionFlags, ExecutionMode};
use super::registration::Registration;
use crate::worker::context::{ExecutionContext, Wait};

/// Where a context of the application's is to run. MsQuic: `QUIC_EXECUTION_CONFIG`.
#[derive(Debug)]
pub struct ContextConfig<'a> {
    /// The processor on which the application will poll it: its memory and its share of an interface's queues are chosen by it.
    pub ideal_processor: usize,
    /// The event queue that the application will wait on.
    pub event_queue: ApplicationQueue<'a>,
    /// What the event queue is to bring with the context's completions: a number that nothing else on that queue has.
    pub user_data: u64,
}

/// A context that the application polls, on a thread and with an event queue of its own. MsQuic: `QUIC_EXECUTION`.
///
/// The application's loop is:
///
/// 1. [`Execution::poll`], which does what there is to do and tells how long to wait;
/// 2. wait for completions on the event queue, for as long at most (an io_uring: submit and wait);
/// 3. give those with the context's number to [`Execution::complete`], and the application's own to whom they belong
///    ([`Completions`](crate::Completions) keeps handlers of both).
///
/// Handlers of connections run within `poll`. One thread at a time may use it.
///
/// It may be deleted, or dropped, at any time and in any order with the registration and the handles: connections that are left end then,
/// their peers are told, and their handlers hear the last event on the thread that drops it. Calls on their handles answer
/// [`Closed`](crate::CallError::Closed) afterwards.
#[derive(Debug)]
pub struct Execution {
    context: ExecutionContext,
    watch: Watch,
    clock: Clock,
    polling_idle_timeout: Duration,
    last_work: Instant,
    /// The application waits, or is about to.
    asleep: bool,
    /// The event queue has told of something since the last turn.
    signalled: bool,
}

impl Execution {
    /// Makes a partition for each context, or for each two of them with [`ExecutionMode::MaxThroughput`]: the first one has the datapath, the
    /// second one the connections. MsQuic: `ExecutionCreate`.
    ///
    /// `config.processors` must be `None`: the contexts say where they are. What flags say of threads is the application's business, and
    /// an error here.
    pub fn create(
        config: &ExecutionConfig,
        contexts: Vec<ContextConfig<'_>>,
    ) -> Result<(Registration, Vec<Execution>), SetupError> {
        let invalid = |text: &str| Err(SetupError::InvalidConfig(text.to_owned()));
        if config.processors.is_some() {
            return invalid(
                "custom execution: leave the list of processors out; the contexts say where they run",
            );
        }
        if !ExecutionFlags::XDP.contains(config.flags) {
            return invalid(
                "custom execution: of the flags only XDP has a meaning; threads are the application's",
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

    /// Does what there is to do, for a bounded time, and tells how long the application may wait on its event queue: not at all, because
    /// work is left; for this long; or, `None`, until the queue brings something. MsQuic: `ExecutionPoll`.
    ///
    /// `queue` is the one that [`Execution::create`] was given. An io_uring gets an entry that tells it to look, which goes with the
    /// application's submission. An error is the queue's: it does not take what makes it tell of this context.
    pub fn poll<'a>(&mut self, queue: impl Into<ApplicationQueue<'a>>) -> io::Result<Option<Duration>> {
        if std::mem::take(&mut self.asleep) {
            self.context.end_sleep();
        }
        if std::mem::take(&mut self.signalled) {
            // What has signalled is polled below; this only clears the signal.
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
        // A loop that ends does not wait for what will not come.
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

    /// Takes a completion of the event queue; false if it is not this context's. The next [`Execution::poll`] does the work: an epoll
    /// instance brings the same again until then.
    pub fn complete(&mut self, completion: &Completion) -> bool {
        let is_ours = self.watch.on_completion(completion);
        self.signalled |= is_ours;
        is_ours
    }

    /// Nothing will happen here any more: the registration is closed, and no connection is left. Time to leave the loop.
    pub fn has_ended(&self) -> bool {
        self.context.has_ended()
    }

    /// Ends the context and all that is left in it, and takes it out of the application's event queue. MsQuic: `ExecutionDelete`.
    ///
    /// Dropping it does the same with an epoll instance; an io_uring would keep looking at a queue that nothing comes into any more. It
    /// stops with the application's next submission, and brings a last completion (`-ECANCELED`).
    pub fn delete<'a>(self, queue: impl Into<ApplicationQueue<'a>>) -> io::Result<()> {
        self.watch.end(self.context.queue(), &mut queue.into())
    }
}
