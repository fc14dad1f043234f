//! The plan of threads: on which processors they run, and where their devices are.

use std::time::Duration;

use ringway_datapath::clock::Clock;
#[cfg(feature = "af_xdp")]
use ringway_datapath::config::Backend;
use ringway_datapath::config::Placement;
use ringway_datapath::partition::PARTITIONS_MAX;
#[cfg(feature = "af_xdp")]
use ringway_datapath::plan::{PartitionPlan, Plan};
use ringway_datapath::thread;
#[cfg(feature = "af_xdp")]
use ringway_datapath::topology::Machine;

use super::error::SetupError;
use super::execution::{ExecutionConfig, ExecutionFlags, ExecutionMode};
use crate::worker::context::ExecutionContext;

/// The threads of each partition, and where its device is.
pub(super) struct ThreadPlan {
    pub(super) partitions: Vec<PartitionProcessors>,
    pub(super) devices: Vec<Placement>,
    pub(super) affinity: Affinity,
    /// It was made from the queues of an interface, which the devices serve.
    pub(super) by_interface: bool,
}

/// The processors of a partition's threads. They are the same if there is one thread, or no second processor.
pub(super) struct PartitionProcessors {
    pub(super) datapath: usize,
    pub(super) quic: usize,
}

/// How closely a thread is bound to its processor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Affinity {
    /// It runs only there.
    Processor,
    /// It starts there, and stays on that processor's NUMA node.
    NumaNode,
    /// It runs anywhere.
    Any,
}

/// What a thread needs before it starts polling.
#[derive(Clone, Copy, Debug)]
pub(super) struct ThreadSetup {
    pub(super) processor: usize,
    pub(super) affinity: Affinity,
    pub(super) high_priority: bool,
    pub(super) drop_capabilities: bool,
    pub(super) polling_idle_timeout: Duration,
}

impl ThreadSetup {
    /// Applies it to the calling thread. An error says what is missing.
    pub(super) fn apply(&self) -> Result<(), SetupError> {
        let processor = self.processor;
        match self.affinity {
            Affinity::Processor => thread::pin(processor).map_err(SetupError::io(format!(
                "binding a thread to processor {processor}"
            )))?,
            Affinity::NumaNode => {
                // An application's own loops may name one that does not exist: it only counts a thread.
                if let Err(error) = thread::set_ideal_processor(processor) {
                    tracing::debug!(%error, processor, "a thread may run anywhere");
                }
            }
            Affinity::Any => {}
        }
        if self.high_priority {
            let hint = "raising the priority of a thread (the flag HIGH_PRIORITY needs CAP_SYS_NICE, or an RLIMIT_RTPRIO of 1 or more)";
            thread::raise_priority().map_err(SetupError::io(hint))?;
        }
        if self.drop_capabilities {
            thread::drop_capabilities().map_err(SetupError::io("giving up the capabilities of a thread"))?;
        }
        Ok(())
    }

    /// Polls a context until it has ended.
    pub(super) fn run(&self, context: ExecutionContext, clock: Clock) {
        context.run(clock, self.polling_idle_timeout);
    }
}

impl ThreadPlan {
    /// Plans what the configuration says, or what suits this machine where it says nothing.
    pub(super) fn new(config: &ExecutionConfig) -> Result<Self, SetupError> {
        config.check()?;
        let processors = checked_processors(config)?;
        #[cfg(feature = "af_xdp")]
        if let Some(plan) = interface_plan(config)? {
            let processors_of = |partition: &PartitionPlan| PartitionProcessors {
                datapath: partition.processor,
                quic: partition.quic_processor.unwrap_or(partition.processor),
            };
            return Ok(ThreadPlan {
                partitions: plan.partitions.iter().map(processors_of).collect(),
                devices: plan.partitions.iter().map(Placement::from).collect(),
                affinity: Affinity::Processor,
                by_interface: true,
            });
        }
        let threads = match config.mode {
            ExecutionMode::LowLatency => 1,
            ExecutionMode::MaxThroughput => 2,
        };
        let processors_of = |processors: &[usize]| PartitionProcessors {
            datapath: processors[0],
            quic: processors[processors.len() - 1],
        };
        let partitions: Vec<PartitionProcessors> = processors.chunks(threads).map(processors_of).collect();
        Ok(ThreadPlan {
            devices: vec![Placement::default(); partitions.len()],
            partitions,
            affinity: if config.flags.contains(ExecutionFlags::AFFINITIZE) {
                Affinity::Processor
            } else if config.flags.contains(ExecutionFlags::NO_IDEAL_PROC) {
                Affinity::Any
            } else {
                Affinity::NumaNode
            },
            by_interface: false,
        })
    }

    /// Plans devices for threads of the application on these processors: one for each partition, or two. Whether the threads really run there is not
    /// known here.
    pub(super) fn of_application(
        config: &ExecutionConfig,
        processors: Vec<usize>,
    ) -> Result<Self, SetupError> {
        let named = |flags| ExecutionConfig {
            processors: Some(processors.clone()),
            flags: config.flags | flags,
            ..config.clone()
        };
        // Where each processor is one of this machine's, the devices are where the interface's queues and its memory suit it.
        #[cfg(feature = "af_xdp")]
        if let Ok(plan) = Self::new(&named(ExecutionFlags::AFFINITIZE))
            && plan.by_interface
            && plan.processors(config.mode) == processors
        {
            return Ok(ThreadPlan {
                affinity: Affinity::Any,
                ..plan
            });
        }
        Self::new(&named(ExecutionFlags::NO_IDEAL_PROC))
    }

    /// The processors of its threads, in the order of their contexts.
    pub(super) fn processors(&self, mode: ExecutionMode) -> Vec<usize> {
        let threads = self.partitions.iter().map(|partition| match mode {
            ExecutionMode::LowLatency => vec![partition.quic],
            ExecutionMode::MaxThroughput => vec![partition.datapath, partition.quic],
        });
        threads.flatten().collect()
    }
}

/// A plan by the interface's queues, if an interface is named, and processors are either not given or binding.
#[cfg(feature = "af_xdp")]
fn interface_plan(config: &ExecutionConfig) -> Result<Option<Plan>, SetupError> {
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
            tracing::warn!(%error, "threads are placed without regard to the interface");
            return Ok(None);
        }
        Err(error) => return Err(SetupError::io("reading the interface")(error)),
    };
    let split = config.mode == ExecutionMode::MaxThroughput;
    let machine = Machine::read().map_err(SetupError::io("reading the topology of this machine"))?;
    let plan = Plan::new(&machine, Some(&interface), config.processors.as_deref(), split)
        .map_err(|error| SetupError::InvalidConfig(error.to_string()))?;
    tracing::info!("\n{plan}");
    Ok(Some(plan))
}

fn checked_processors(config: &ExecutionConfig) -> Result<Vec<usize>, SetupError> {
    let reading = || SetupError::io("reading which processors this process may use");
    let Some(wanted) = &config.processors else {
        let all = thread::processors().map_err(reading())?;
        return Ok(all.into_iter().take(PARTITIONS_MAX).collect());
    };
    let key = "processors";
    let invalid = |problem: String| Err(SetupError::InvalidValue { key, problem });
    if wanted.is_empty() {
        return invalid(
            "the list of processors is empty: name at least one, or leave it out to use all".to_owned(),
        );
    }
    if wanted.len() > PARTITIONS_MAX {
        return invalid(format!("a registration uses at most {PARTITIONS_MAX} processors"));
    }
    if config.flags.contains(ExecutionFlags::NO_IDEAL_PROC) {
        return Ok(wanted.clone());
    }
    // A quota on processor time says how many are worth using, not which.
    let allowed = thread::affinity().map_err(reading())?;
    match wanted.iter().find(|processor| !allowed.contains(processor)) {
        None => Ok(wanted.clone()),
        Some(missing) => invalid(format!(
            "processor {missing} is not among those that this process may use: {allowed:?}"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(processors: Vec<usize>, flags: ExecutionFlags) -> ExecutionConfig {
        ExecutionConfig {
            processors: Some(processors),
            flags,
            ..ExecutionConfig::default()
        }
    }

    #[test]
    fn processors_that_cannot_be_had_are_refused_and_counted_where_threads_may_run_anywhere() {
        let allowed = thread::affinity().unwrap();
        for flags in [ExecutionFlags::empty(), ExecutionFlags::AFFINITIZE] {
            checked_processors(&config(vec![allowed[0]], flags)).unwrap();
            for (processors, said) in [
                (vec![99_999], "processors: processor 99999 is not among those"),
                (Vec::new(), "processors: the list of processors is empty"),
                (vec![allowed[0]; PARTITIONS_MAX + 1], "at most"),
            ] {
                let error = checked_processors(&config(processors, flags))
                    .unwrap_err()
                    .to_string();
                assert!(error.contains(said), "{error}");
            }
        }
        let anywhere = checked_processors(&config(vec![99_999], ExecutionFlags::NO_IDEAL_PROC));
        assert_eq!(anywhere.unwrap(), [99_999]);
    }

    #[cfg(feature = "af_xdp")]
    #[test]
    fn devices_of_the_applications_threads_have_the_queues_that_suit_them_only_where_the_plan_has_just_these_threads()
     {
        let mut config = ExecutionConfig::default();
        // Of one queue.
        config.datapath.af_xdp.interface = Some("lo".to_owned());
        let allowed = thread::affinity().unwrap();
        let planned = |processors: Vec<usize>| ThreadPlan::of_application(&config, processors).unwrap();
        let one = planned(vec![allowed[0]]);
        assert!(one.by_interface && matches!(one.affinity, Affinity::Any));
        assert_eq!(one.devices.len(), 1);
        assert_eq!(one.devices[0].queues, Some(vec![0]));
        assert_eq!(one.processors(config.mode), [allowed[0]]);
        // One of these has no queue; of the other nothing is known. Each partition gets its share all the same.
        for processors in [vec![allowed[0]; 2], vec![99_999]] {
            let other = planned(processors.clone());
            assert!(!other.by_interface && matches!(other.affinity, Affinity::Any));
            assert_eq!(other.devices, vec![Placement::default(); processors.len()]);
            assert_eq!(other.processors(config.mode), processors);
        }
    }
}
