//! Where threads and devices are put.

use std::time::Duration;

use ringway_datapath::clock::Clock;
#[cfg(feature = "af_xdp")]
use ringway_datapath::config::Backend;
use ringway_datapath::config::Placement;
use ringway_datapath::partition::PARTITIONS_MAX;
use ringway_datapath::plan::{PartitionPlan, Plan};
use ringway_datapath::thread;
#[cfg(feature = "af_xdp")]
use ringway_datapath::topology::{Machine, Rss};

use super::error::SetupError;
use super::execution::{ExecutionConfig, ExecutionFlags, ExecutionMode};
use super::return_path::ReturnPaths;
use crate::worker::context::ExecutionContext;

/// Where threads and devices are to be.
pub(super) struct Places {
    pub(super) partitions: Vec<Place>,
    pub(super) devices: Vec<Placement>,
    pub(super) binding: Binding,
    pub(super) return_paths: Option<ReturnPaths>,
}

/// The processors of a partition: twice the same where it has one thread, or no other processor.
pub(super) struct Place {
    pub(super) datapath: usize,
    pub(super) quic: usize,
}

/// How closely a thread keeps to its processor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Binding {
    /// It runs nowhere else.
    Processor,
    /// It begins there and stays on that NUMA node.
    Node,
    /// It runs anywhere.
    None,
}

/// What is done with a thread before it begins.
#[derive(Clone, Copy, Debug)]
pub(super) struct ThreadSetup {
    pub(super) processor: usize,
    pub(super) binding: Binding,
    pub(super) high_priority: bool,
    pub(super) polling_idle_timeout: Duration,
}

impl ThreadSetup {
    /// On the thread itself. An error says what is missing.
    pub(super) fn apply(&self) -> Result<(), SetupError> {
        let processor = self.processor;
        match self.binding {
            Binding::Processor => thread::pin(processor).map_err(SetupError::io(format!(
                "binding a thread to processor {processor}"
            )))?,
            Binding::Node => {
                // One that there is not only counts.
                if let Err(error) = thread::set_ideal_processor(processor) {
                    tracing::debug!(%error, processor, "a thread runs anywhere");
                }
            }
            Binding::None => {}
        }
        if self.high_priority {
            let hint = "raising the priority of a thread (the flag HIGH_PRIORITY needs CAP_SYS_NICE, or an RLIMIT_RTPRIO of 1 or more)";
            thread::raise_priority().map_err(SetupError::io(hint))?;
        }
        Ok(())
    }

    /// Polls a context to its end.
    pub(super) fn run(&self, context: ExecutionContext, clock: Clock) {
        context.run(clock, self.polling_idle_timeout);
    }
}

pub(super) fn places(config: &ExecutionConfig) -> Result<Places, SetupError> {
    config.check()?;
    let processors = checked_processors(config)?;
    #[cfg(feature = "af_xdp")]
    if let Some((plan, rss)) = plan(config)? {
        let queues = plan.partitions.iter().map(|partition| partition.queues.clone());
        let queues = queues.collect();
        let place = |partition: &PartitionPlan| Place {
            datapath: partition.processor,
            quic: partition.quic_processor.unwrap_or(partition.processor),
        };
        return Ok(Places {
            partitions: plan.partitions.iter().map(place).collect(),
            devices: plan.partitions.iter().map(Placement::from).collect(),
            binding: Binding::Processor,
            return_paths: rss.map(|rss| ReturnPaths { rss, queues }),
        });
    }
    let threads = match config.mode {
        ExecutionMode::LowLatency => 1,
        ExecutionMode::MaxThroughput => 2,
    };
    let place = |processors: &[usize]| Place {
        datapath: processors[0],
        quic: processors[processors.len() - 1],
    };
    let partitions: Vec<Place> = processors.chunks(threads).map(place).collect();
    Ok(Places {
        devices: vec![Placement::default(); partitions.len()],
        partitions,
        binding: if config.flags.contains(ExecutionFlags::AFFINITIZE) {
            Binding::Processor
        } else if config.flags.contains(ExecutionFlags::NO_IDEAL_PROC) {
            Binding::None
        } else {
            Binding::Node
        },
        return_paths: None,
    })
}

/// A plan that follows the interface, if one is named, and processors are left to us or mean what they say.
#[cfg(feature = "af_xdp")]
fn plan(config: &ExecutionConfig) -> Result<Option<(Plan, Option<Rss>)>, SetupError> {
    let unbound = config.processors.is_some() && !config.flags.contains(ExecutionFlags::AFFINITIZE);
    if unbound
        || config.flags.contains(ExecutionFlags::NO_IDEAL_PROC)
        || config.datapath.af_xdp.interface.is_none()
    {
        return Ok(None);
    }
    let interface = match config.datapath.af_xdp.read_interface() {
        Ok(interface) => interface,
        Err(error) if config.datapath().backend != Backend::AfXdp => {
            tracing::warn!(%error, "threads are put anywhere");
            return Ok(None);
        }
        Err(error) => return Err(SetupError::io("reading the interface")(error)),
    };
    let split = config.mode == ExecutionMode::MaxThroughput;
    let machine = Machine::read().map_err(SetupError::io("reading the topology of this machine"))?;
    let plan = Plan::new(&machine, Some(&interface), config.processors.as_deref(), split)
        .map_err(|error| SetupError::InvalidConfig(error.to_string()))?;
    tracing::info!("\n{plan}");
    let rss = interface.rss.filter(|_| interface.queues.len() > 1);
    Ok(Some((plan, rss)))
}

fn checked_processors(config: &ExecutionConfig) -> Result<Vec<usize>, SetupError> {
    let allowed =
        thread::processors().map_err(SetupError::io("asking for the processors of this process"))?;
    let Some(wanted) = &config.processors else {
        return Ok(allowed.into_iter().take(PARTITIONS_MAX).collect());
    };
    let invalid = |text: String| Err(SetupError::InvalidConfig(text));
    if wanted.is_empty() {
        return invalid(
            "the list of processors is empty: name at least one, or leave it out for all".to_owned(),
        );
    }
    if wanted.len() > PARTITIONS_MAX {
        return invalid(format!("at most {PARTITIONS_MAX} processors"));
    }
    if config.flags.contains(ExecutionFlags::AFFINITIZE)
        && let Some(missing) = wanted.iter().find(|processor| !allowed.contains(processor))
    {
        return invalid(format!(
            "processor {missing} is not among those that this process may use: {allowed:?}"
        ));
    }
    Ok(wanted.clone())
}
