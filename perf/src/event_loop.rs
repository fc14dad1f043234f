//! Event loops of our own for a registration, in place of its own threads: an epoll instance or an io_uring for each context.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::thread::JoinHandle;
use std::time::Duration;

use clap::ValueEnum;
use io_uring::{IoUring, types};
use ringway::{
    ApplicationQueue, Completion, ContextConfig, Execution, ExecutionConfig, ExecutionMode, Registration,
    SetupError,
};
use rustix::event::{Timespec, epoll};
use rustix::io::Errno;

/// What its contexts wait on.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub enum EventLoop {
    /// An epoll instance for each thread
    Epoll,
    /// An io_uring for each thread
    IoUring,
}

/// Events taken out of an epoll instance at once.
const EVENTS_MAX: usize = 8;

/// An event queue of one thread.
enum Queue {
    Epoll(OwnedFd),
    IoUring(Box<IoUring>),
}

impl EventLoop {
    /// Opens a registration with a context for each processor of the configuration, and polls each on a thread named after `name` until
    /// the registration has ended.
    ///
    /// # Errors
    ///
    /// As [`Execution::create`](ringway::Execution::create), and [`SetupError::Io`]: the system gives no event queue or no thread.
    pub fn open(
        self,
        name: &str,
        config: &ExecutionConfig,
    ) -> Result<(Registration, Vec<JoinHandle<()>>), SetupError> {
        let threads = match config.mode {
            ExecutionMode::LowLatency => 1,
            ExecutionMode::MaxThroughput => 2,
        };
        let processors = config.processors.clone().unwrap_or_else(|| {
            let count = std::thread::available_parallelism().map_or(1, usize::from);
            (0..count.next_multiple_of(threads)).collect()
        });
        let io = |error| SetupError::Io {
            action: "making an event queue".to_owned(),
            error,
        };
        let queues = processors.iter().map(|_| Queue::new(self));
        let mut queues = queues.collect::<io::Result<Vec<_>>>().map_err(io)?;
        let pairs = queues.iter_mut().zip(&processors);
        let contexts = pairs.map(|(queue, &processor)| {
            ContextConfig::new(processor).with_event_queue(queue.application(), 0)
        });
        let contexts = contexts.collect();
        let drop_capabilities = config.drop_capabilities;
        let config = ExecutionConfig {
            processors: None,
            // Those of the loops are given up by themselves.
            drop_capabilities: false,
            ..config.clone()
        };
        let (registration, executions) = Execution::create(&config, contexts)?;
        let start = |(index, (execution, queue))| {
            let builder = std::thread::Builder::new().name(format!("{name}/loop{index}"));
            let run = move || {
                if drop_capabilities {
                    ringway::drop_capabilities().expect("capabilities can be given up");
                }
                run(execution, queue);
            };
            builder.spawn(run).map_err(io)
        };
        let handles = executions.into_iter().zip(queues).enumerate().map(start);
        let handles = handles.collect::<Result<_, _>>()?;
        Ok((registration, handles))
    }
}

fn run(mut execution: Execution, mut queue: Queue) {
    let mut completions = Vec::with_capacity(EVENTS_MAX);
    while !execution.has_ended() {
        let wait = execution.poll();
        let timeout = execution
            .begin_wait(wait, queue.application())
            .expect("a context can be watched");
        queue
            .wait(timeout, &mut completions)
            .expect("an event queue can be waited on");
        for completion in completions.drain(..) {
            assert!(execution.complete(&completion), "{completion:?} is nobody's");
        }
    }
}

impl Queue {
    fn new(kind: EventLoop) -> io::Result<Self> {
        Ok(match kind {
            EventLoop::Epoll => Queue::Epoll(epoll::create(epoll::CreateFlags::CLOEXEC)?),
            EventLoop::IoUring => Queue::IoUring(Box::new(IoUring::new(8)?)),
        })
    }

    fn application(&mut self) -> ApplicationQueue<'_> {
        match self {
            Queue::Epoll(epoll) => (&*epoll).into(),
            Queue::IoUring(ring) => (&mut **ring).into(),
        }
    }

    /// Waits until something has come, or for so long at most.
    fn wait(&mut self, timeout: Option<Duration>, completions: &mut Vec<Completion>) -> io::Result<()> {
        match self {
            Queue::Epoll(epoll) => {
                let timeout = timeout.map(Timespec::try_from);
                let timeout = timeout.transpose().map_err(io::Error::other)?;
                let mut events = [MaybeUninit::uninit(); EVENTS_MAX];
                match epoll::wait(&*epoll, &mut events, timeout.as_ref()) {
                    Ok((events, _)) => completions.extend(events.iter().map(completion)),
                    Err(Errno::INTR) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            Queue::IoUring(ring) => {
                if timeout != Some(Duration::ZERO) {
                    wait_for_one(ring, timeout)?;
                } else if !ring.submission().is_empty() {
                    ring.submit()?;
                }
                completions.extend(ring.completion().map(|entry| Completion::from(&entry)));
            }
        }
        Ok(())
    }
}

fn completion(&epoll::Event { flags, data }: &epoll::Event) -> Completion {
    Completion::epoll(data.u64(), flags.bits())
}

fn wait_for_one(ring: &mut IoUring, timeout: Option<Duration>) -> io::Result<()> {
    let result = match timeout {
        Some(timeout) => {
            let timespec = types::Timespec::from(timeout);
            ring.submitter()
                .submit_with_args(1, &types::SubmitArgs::new().timespec(&timespec))
        }
        None => ring.submit_and_wait(1),
    };
    match result {
        Ok(_) => Ok(()),
        // It has waited for as long as it should; or a signal has come.
        Err(error) => match Errno::from_io_error(&error) {
            Some(Errno::TIME | Errno::INTR) => Ok(()),
            _ => Err(error),
        },
    }
}
