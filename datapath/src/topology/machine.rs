//! Processors, their cores and NUMA nodes, from hwloc.

#[cfg(feature = "topology")]
use std::io;

#[cfg(feature = "topology")]
use hwlocality::{
    Topology, object::TopologyObject, object::types::ObjectType, topology::builder::TopologyBuilder,
};
use serde::Serialize;

#[cfg(feature = "topology")]
use crate::thread;

/// The processors of a machine.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Machine {
    /// All that are online, by number.
    pub processors: Vec<Processor>,
}

/// A logical processor: what a thread is bound to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct Processor {
    /// The system's number.
    pub number: usize,
    /// Its core: processors of one core share it (SMT).
    pub core: usize,
    /// Its socket.
    pub package: usize,
    /// The NUMA node whose memory is nearest.
    pub node: usize,
    /// This process may run on it: neither its affinity nor a cpuset nor a quota forbids it.
    pub allowed: bool,
}

#[cfg(feature = "topology")]
impl Machine {
    /// This machine, as this process sees it.
    ///
    /// # Errors
    ///
    /// The system's description of its processors cannot be read, or it does not tell which of them this process may use.
    pub fn read() -> io::Result<Machine> {
        let topology = Topology::new().map_err(io::Error::other)?;
        let allowed = thread::processors()?;
        let mut machine = Machine::of(&topology);
        for processor in &mut machine.processors {
            processor.allowed = allowed.contains(&processor.number);
        }
        Ok(machine)
    }

    /// A machine that is made up, from hwloc's description, as `pack:2 numa:2 core:4 pu:2`.
    ///
    /// # Errors
    ///
    /// That is no description that hwloc understands.
    pub fn synthetic(description: &str) -> io::Result<Machine> {
        let topology = TopologyBuilder::new()
            .from_synthetic(description)
            .map_err(io::Error::other)?
            .build()
            .map_err(io::Error::other)?;
        Ok(Machine::of(&topology))
    }

    fn of(topology: &Topology) -> Machine {
        let mut processors: Vec<Processor> = topology
            .objects_with_type(ObjectType::PU)
            .filter_map(|unit| {
                let number = unit.os_index()?;
                let above = |kind: ObjectType| {
                    let object = unit
                        .ancestors()
                        .find(|object: &&TopologyObject| object.object_type() == kind)?;
                    Some(object.logical_index())
                };
                let node = unit.nodeset().and_then(|nodes| nodes.first_set());
                Some(Processor {
                    number,
                    core: above(ObjectType::Core).unwrap_or(number),
                    package: above(ObjectType::Package).unwrap_or(0),
                    node: node.map_or(0, usize::from),
                    allowed: true,
                })
            })
            .collect();
        processors.sort_by_key(|processor| processor.number);
        Machine { processors }
    }
}

impl Machine {
    /// A processor by its number.
    pub fn processor(&self, number: usize) -> Option<&Processor> {
        self.processors
            .iter()
            .find(|processor| processor.number == number)
    }
}

#[cfg(all(test, feature = "topology"))]
mod tests {
    use super::*;

    #[test]
    fn two_sockets_of_four_nodes_with_two_threads_to_a_core() {
        let machine = Machine::synthetic("pack:2 numa:4 core:2 pu:2").unwrap();
        assert_eq!(machine.processors.len(), 32);
        let expected = |number: usize| Processor {
            number,
            core: number / 2,
            package: number / 16,
            node: number / 4,
            allowed: true,
        };
        for processor in &machine.processors {
            assert_eq!(*processor, expected(processor.number));
        }
    }

    #[test]
    fn this_machine_has_the_processors_that_we_run_on() {
        let machine = Machine::read().unwrap();
        for number in thread::processors().unwrap() {
            assert!(machine.processor(number).unwrap().allowed);
        }
    }

    #[test]
    fn nonsense_is_an_error() {
        assert!(Machine::synthetic("three of them").is_err());
    }
}
