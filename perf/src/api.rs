//! Where server and client run as tasks on tokio.

use std::thread::JoinHandle;

use anyhow::{Context, Result, ensure};
use ringway::{Execution, Registration};

use crate::endpoint::EndpointArgs;
use crate::options::{Api, Mode};

/// A registration, and where its tasks run: on each partition's own thread, or all on another one.
pub(crate) struct Opened {
    pub registration: Registration,
    contexts: Vec<Option<Execution>>,
    drop_capabilities: bool,
}

impl Opened {
    /// For an API of futures.
    pub(crate) fn new(args: &EndpointArgs) -> Result<Opened> {
        ensure!(
            args.event_loop.is_none(),
            "--event-loop is for --api callback: with --api async the loops are tokio's"
        );
        if args.api == Api::AsyncThreads {
            let (registration, _) = args.open()?;
            return Ok(Opened {
                registration,
                contexts: vec![None],
                drop_capabilities: args.drops_capabilities()?,
            });
        }
        ensure!(
            args.mode != Some(Mode::MaxThroughput),
            "--mode max-throughput needs a thread for the datapath: take --api async-threads"
        );
        let (registration, contexts) = args.open_without_threads()?;
        Ok(Opened {
            registration,
            contexts: contexts.into_iter().map(Some).collect(),
            drop_capabilities: args.drops_capabilities()?,
        })
    }

    /// How many threads run tasks.
    pub(crate) fn thread_count(&self) -> usize {
        self.contexts.len()
    }

    /// Starts the threads, each with its main task, which `main` makes from its number.
    pub(crate) fn start<F: Future<Output = ()> + Send + 'static>(
        &mut self,
        mut main: impl FnMut(usize) -> F,
    ) -> Result<Vec<JoinHandle<()>>> {
        let contexts = std::mem::take(&mut self.contexts).into_iter().enumerate();
        let drop_capabilities = self.drop_capabilities;
        let threads = contexts.map(|(index, context)| {
            let main = main(index);
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .context("making a tokio runtime")?;
            let run = move || {
                if drop_capabilities {
                    ringway::drop_capabilities().expect("capabilities can be given up");
                }
                runtime.block_on(async {
                    let main = tokio::spawn(main);
                    match context {
                        Some(context) => {
                            let driven = tokio::spawn(ringway_async::drive(context)).await;
                            let driven = driven.expect("no handler's panic gets so far");
                            driven.expect("tokio watches a descriptor");
                        }
                        None => main.await.expect("the main task does not panic"),
                    }
                });
            };
            let builder = std::thread::Builder::new().name(format!("ringway/tokio{index}"));
            builder.spawn(run).context("starting a thread")
        });
        threads.collect()
    }
}
