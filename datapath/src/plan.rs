//! The plan: which processor serves which queue of the NIC, and from which NUMA node its memory comes.

use std::collections::VecDeque;
use std::fmt;

use serde::Serialize;
use thiserror::Error;

use crate::config::Placement;
use crate::partition::PARTITIONS_MAX;
use crate::topology::{HashFields, Interface, Machine, Processor};

/// What each partition is made of, before anything is.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Plan {
    /// The interface whose queues they serve.
    pub interface: Option<String>,
    /// What of UDP over IPv4 it hashes to choose a queue, if it has several and the driver says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub udp_v4_hash: Option<HashFields>,
    /// The same of UDP over IPv6.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub udp_v6_hash: Option<HashFields>,
    /// In the order of their index.
    pub partitions: Vec<PartitionPlan>,
    /// What keeps this machine from doing better: sentences for people.
    pub notes: Vec<String>,
}

/// What one partition is made of.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct PartitionPlan {
    /// The processor of its thread, or of that which receives and sends if it has two.
    pub processor: usize,
    /// The processor of the thread that runs connections, if it has one of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quic_processor: Option<usize>,
    /// The core of that.
    pub core: usize,
    /// The NUMA node of its thread and of its memory.
    pub node: usize,
    /// Receive queues of the interface that it serves.
    pub queues: Vec<u32>,
}

impl From<&PartitionPlan> for Placement {
    fn from(plan: &PartitionPlan) -> Placement {
        Placement {
            node: Some(plan.node),
            queues: Some(plan.queues.clone()),
        }
    }
}

/// Why there is no plan.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum PlanError {
    /// A processor that was asked for cannot be had.
    #[error("processor {0} is offline, or there is none; online are {1:?}")]
    Offline(usize, Vec<usize>),
    /// A processor that was asked for is another's.
    #[error(
        "processor {0} is not among those that this process may use: {1:?} (its affinity, the cpuset of its container, or a quota forbid it)"
    )]
    NotAllowed(usize, Vec<usize>),
    /// It was asked for twice.
    #[error("processor {0} is named twice")]
    Duplicate(usize),
    /// None was asked for, or none is left.
    #[error("a plan needs from one to {PARTITIONS_MAX} processors, not {0}")]
    Count(usize),
}

impl Plan {
    /// Puts a partition on each of `processors`, or on all that this process may use, and gives each the queues of the interface that suit
    /// it: those whose interrupts go to its processor, else as many as the others.
    ///
    /// Processors near the interface come first, and of each core one before the other: where there are fewer queues than processors, they
    /// go to those. With `split` a partition has two threads, on neighbouring processors of one node.
    ///
    /// # Errors
    ///
    /// [`PlanError`]: a processor that is asked for is not there, not this process's, or named twice, or there are none or too many of them.
    pub fn new(
        machine: &Machine,
        interface: Option<&Interface>,
        processors: Option<&[usize]>,
        split: bool,
    ) -> Result<Plan, PlanError> {
        let mut chosen = choose(machine, processors)?;
        let mut notes = Vec::new();
        let near = interface.and_then(|interface| interface.node);
        if let (Some(interface), None) = (interface, processors) {
            order(machine, &mut chosen, interface.node);
        }
        let mut partitions = match split {
            false => chosen
                .iter()
                .map(|processor| partition(processor, None))
                .collect(),
            true => pairs(chosen),
        };
        for unpaired in partitions
            .iter()
            .filter(|partition| split && partition.quic_processor.is_none())
        {
            notes.push(format!(
                "processor {} is left over on its node: both threads of its partition are on it",
                unpaired.processor
            ));
        }
        if let Some(interface) = interface {
            assign(interface, &mut partitions, &mut notes);
            notes.extend(hash_note(interface));
            notes.extend(table_note(interface, &partitions));
            notes.extend(interface.surroundings.notes(&interface.name));
            notes.extend(copied_queues_note(interface));
        }
        let several = interface.filter(|interface| interface.queues.len() > 1);
        let rss = several.and_then(|interface| interface.rss.as_ref());
        if let (Some(interface), Some(node)) = (interface, near) {
            let far = partitions
                .iter()
                .filter(|partition| partition.node != node && !partition.queues.is_empty());
            let far: Vec<usize> = far.map(|partition| partition.processor).collect();
            if !far.is_empty() {
                notes.push(format!(
                    "{} is attached to node {node}, and processors {far:?} are not: their packets cross between nodes",
                    interface.name
                ));
            }
        }
        let idle = partitions
            .iter()
            .filter(|partition| partition.queues.is_empty())
            .count();
        if let Some(interface) = interface.filter(|_| idle > 0) {
            notes.push(format!(
                "{} has {} receive queue(s): {idle} partition(s) receive only what others hand over to them",
                interface.name,
                interface.queues.len()
            ));
        }
        for (index, partition) in partitions.iter().enumerate() {
            let before = &partitions[..index];
            if let Some(other) = before.iter().find(|other| other.core == partition.core) {
                notes.push(format!(
                    "processors {} and {} are threads of one core: each has about half of it",
                    other.processor, partition.processor
                ));
            }
        }
        Ok(Plan {
            interface: interface.map(|interface| interface.name.clone()),
            udp_v4_hash: rss.and_then(|rss| rss.udp_v4),
            udp_v6_hash: rss.and_then(|rss| rss.udp_v6),
            partitions,
            notes,
        })
    }
}

/// Queues that the driver has only for an XDP program are served with copies: what to do if none are to be.
fn copied_queues_note(interface: &Interface) -> Option<String> {
    let name = &interface.name;
    // With a program, it has receive queues beside those by which the network stack sends.
    let max = interface
        .queues_max
        .filter(|&max| max > interface.transmit_queues)?;
    let is_zero_copy = interface.surroundings.driver?.zero_copy;
    (is_zero_copy && interface.adds_queues()).then(|| {
        format!(
            "the driver of {name} may have more queues while an XDP program is attached, and those are served with copies: it has none of them with \
             all of its {max} in use (ethtool -L {name} combined {max})"
        )
    })
}

fn partition(processor: &Processor, quic: Option<&Processor>) -> PartitionPlan {
    PartitionPlan {
        processor: processor.number,
        quic_processor: quic.map(|processor| processor.number),
        core: processor.core,
        node: processor.node,
        queues: Vec::new(),
    }
}

/// Each with the next one on its node, of another core if there is one.
fn pairs(processors: Vec<Processor>) -> Vec<PartitionPlan> {
    let mut left = VecDeque::from(processors);
    let mut partitions = Vec::new();
    while let Some(first) = left.pop_front() {
        let neighbours = left
            .iter()
            .enumerate()
            .filter(|(_, other)| other.node == first.node);
        let nearest = neighbours.min_by_key(|(_, other)| other.core == first.core);
        let second = nearest
            .map(|(index, _)| index)
            .and_then(|index| left.remove(index));
        partitions.push(partition(&first, second.as_ref()));
    }
    partitions
}

fn choose(machine: &Machine, processors: Option<&[usize]>) -> Result<Vec<Processor>, PlanError> {
    let allowed = || machine.processors.iter().filter(|processor| processor.allowed);
    let chosen = match processors {
        None => allowed().copied().take(PARTITIONS_MAX).collect(),
        Some(numbers) => {
            let mut chosen: Vec<Processor> = Vec::new();
            for &number in numbers {
                let Some(processor) = machine.processor(number) else {
                    let online = machine
                        .processors
                        .iter()
                        .map(|processor| processor.number)
                        .collect();
                    return Err(PlanError::Offline(number, online));
                };
                if !processor.allowed {
                    let allowed = allowed().map(|processor| processor.number).collect();
                    return Err(PlanError::NotAllowed(number, allowed));
                }
                if chosen.contains(processor) {
                    return Err(PlanError::Duplicate(number));
                }
                chosen.push(*processor);
            }
            chosen
        }
    };
    if chosen.is_empty() || chosen.len() > PARTITIONS_MAX {
        return Err(PlanError::Count(chosen.len()));
    }
    Ok(chosen)
}

/// Near ones first; of each core the first thread before the others.
fn order(machine: &Machine, processors: &mut [Processor], near: Option<usize>) {
    let package = near.and_then(|node| machine.processors.iter().find(|processor| processor.node == node));
    let package = package.map(|processor| processor.package);
    let all = processors.to_vec();
    processors.sort_by_key(|processor| {
        let distance = match near {
            None => 0,
            Some(node) if processor.node == node => 0,
            Some(_) if Some(processor.package) == package => 1,
            Some(_) => 2,
        };
        let siblings_before = all
            .iter()
            .filter(|other| other.core == processor.core && other.number < processor.number)
            .count();
        (distance, siblings_before, processor.number)
    });
}

/// Gives each queue to a partition.
fn assign(interface: &Interface, partitions: &mut [PartitionPlan], notes: &mut Vec<String>) {
    let most = interface.queues.len().div_ceil(partitions.len());
    let mut elsewhere = Vec::new();
    let mut left = Vec::new();
    for queue in &interface.queues {
        let Some((_, targets)) = &queue.interrupt else {
            left.push(queue.number);
            continue;
        };
        let own = partitions
            .iter_mut()
            .find(|partition| targets[..] == [partition.processor] && partition.queues.len() < most);
        match own {
            Some(partition) => partition.queues.push(queue.number),
            None => {
                left.push(queue.number);
                elsewhere.push(queue.number);
            }
        }
    }
    for number in left {
        // The first of those with the fewest: the nearest.
        if let Some(partition) = partitions
            .iter_mut()
            .min_by_key(|partition| partition.queues.len())
        {
            partition.queues.push(number);
        }
    }
    partitions
        .iter_mut()
        .for_each(|partition| partition.queues.sort_unstable());
    if !elsewhere.is_empty() {
        notes.push(format!(
            "interrupts of {}'s queues {elsewhere:?} do not go to the one processor that serves them \
             (/proc/irq/*/smp_affinity_list; irqbalance moves them)",
            interface.name
        ));
    }
}

/// What a hash without ports does.
fn hash_note(interface: &Interface) -> Option<String> {
    let rss = interface.rss.as_ref().filter(|_| interface.queues.len() > 1)?;
    let families = [("IPv4", "udp4", rss.udp_v4), ("IPv6", "udp6", rss.udp_v6)];
    let without = families
        .iter()
        .filter(|(.., fields)| fields.is_some_and(|fields| !fields.has_ports()));
    let (names, commands): (Vec<&str>, Vec<String>) = without
        .map(|(name, flow, _)| {
            (
                *name,
                format!("ethtool -N {} rx-flow-hash {flow} sdfn", interface.name),
            )
        })
        .unzip();
    (!names.is_empty()).then(|| {
        format!(
            "{} hashes no ports of UDP over {}: all connections between two hosts come in on one queue, whatever their ports ({})",
            interface.name,
            names.join(" and "),
            commands.join("; ")
        )
    })
}

/// What a table that names fewer queues than there are does.
fn table_note(interface: &Interface, partitions: &[PartitionPlan]) -> Option<String> {
    let table = &interface.rss.as_ref().filter(|rss| !rss.table.is_empty())?.table;
    let queues = interface.queues.iter().map(|queue| queue.number);
    let out: Vec<u32> = queues.filter(|queue| !table.contains(queue)).collect();
    let without = |partition: &&PartitionPlan| {
        !partition.queues.is_empty() && partition.queues.iter().all(|queue| out.contains(queue))
    };
    let without = match partitions.iter().filter(without).count() {
        0 => String::new(),
        count => format!("; {count} partition(s) have no other queues"),
    };
    (!out.is_empty()).then(|| {
        format!(
            "{name}'s RSS table leaves out queues {out:?}: packets come on them by flow rules alone, if there are any{without} \
             (ethtool -X {name} default)",
            name = interface.name
        )
    })
}

impl fmt::Display for Plan {
    /// A table for people.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(interface) = &self.interface {
            writeln!(f, "interface {interface}")?;
            for (family, fields) in [("IPv4", self.udp_v4_hash), ("IPv6", self.udp_v6_hash)] {
                if let Some(fields) = fields {
                    writeln!(f, "queues by a hash of {fields}: UDP over {family}")?;
                }
            }
        }
        writeln!(
            f,
            "{:>9} {:>9} {:>5} {:>5}  queues",
            "partition", "processor", "core", "node"
        )?;
        for (index, partition) in self.partitions.iter().enumerate() {
            let queues: Vec<String> = partition.queues.iter().map(u32::to_string).collect();
            let queues = if queues.is_empty() {
                "-".to_owned()
            } else {
                queues.join(",")
            };
            let PartitionPlan {
                processor,
                quic_processor,
                core,
                node,
                ..
            } = partition;
            let processor = match quic_processor {
                Some(quic) => format!("{processor}+{quic}"),
                None => processor.to_string(),
            };
            writeln!(f, "{index:>9} {processor:>9} {core:>5} {node:>5}  {queues}")?;
        }
        self.notes.iter().try_for_each(|note| writeln!(f, "note: {note}"))
    }
}

#[cfg(all(test, feature = "topology"))]
mod tests {
    use super::*;
    use crate::topology::{DriverXdp, LinkKind, Queue, Rss, Surroundings};

    fn interface(node: Option<usize>, interrupts: &[Option<&[usize]>]) -> Interface {
        let queues = (0..).zip(interrupts).map(|(number, targets)| Queue {
            number,
            interrupt: targets.map(|targets| (100 + number, targets.to_vec())),
        });
        Interface {
            name: "eth7".to_owned(),
            index: 7,
            driver: Some("ice".to_owned()),
            link: LinkKind::Ethernet,
            mtu: 1500,
            node,
            queues: queues.collect(),
            queues_max: None,
            transmit_queues: interrupts.len() as u32,
            rss: None,
            surroundings: Surroundings::default(),
        }
    }

    /// Two sockets of two nodes of two cores of two threads.
    fn machine() -> Machine {
        Machine::synthetic("pack:2 numa:2 core:2 pu:2").unwrap()
    }

    fn check(plan: &Plan, expected: &str) {
        assert_eq!(format!("{plan}").trim(), expected.trim(), "\n{plan}");
    }

    #[test]
    fn interface_on_a_far_node_has_its_queues_served_by_that_node_first() {
        let plan = Plan::new(&machine(), Some(&interface(Some(2), &[None; 4])), None, false).unwrap();
        check(
            &plan,
            "\
interface eth7
partition processor  core  node  queues
        0         8     4     2  0
        1        10     5     2  1
        2         9     4     2  2
        3        11     5     2  3
        4        12     6     3  -
        5        14     7     3  -
        6        13     6     3  -
        7        15     7     3  -
        8         0     0     0  -
        9         2     1     0  -
       10         4     2     1  -
       11         6     3     1  -
       12         1     0     0  -
       13         3     1     0  -
       14         5     2     1  -
       15         7     3     1  -
note: eth7 has 4 receive queue(s): 12 partition(s) receive only what others hand over to them
note: processors 8 and 9 are threads of one core: each has about half of it
note: processors 10 and 11 are threads of one core: each has about half of it
note: processors 12 and 13 are threads of one core: each has about half of it
note: processors 14 and 15 are threads of one core: each has about half of it
note: processors 0 and 1 are threads of one core: each has about half of it
note: processors 2 and 3 are threads of one core: each has about half of it
note: processors 4 and 5 are threads of one core: each has about half of it
note: processors 6 and 7 are threads of one core: each has about half of it",
        );
    }

    #[test]
    fn partitions_of_two_threads_have_neighbouring_processors_of_one_node() {
        let plan = Plan::new(
            &machine(),
            Some(&interface(Some(2), &[None; 2])),
            Some(&[0, 1, 2, 8, 10, 12]),
            true,
        )
        .unwrap();
        check(
            &plan,
            "\
interface eth7
partition processor  core  node  queues
        0       0+2     0     0  0
        1         1     0     0  1
        2      8+10     4     2  -
        3        12     6     3  -
note: processor 1 is left over on its node: both threads of its partition are on it
note: processor 12 is left over on its node: both threads of its partition are on it
note: eth7 is attached to node 2, and processors [0, 1] are not: their packets cross between nodes
note: eth7 has 2 receive queue(s): 2 partition(s) receive only what others hand over to them
note: processors 0 and 1 are threads of one core: each has about half of it",
        );
    }

    #[test]
    fn queues_go_where_their_interrupts_go() {
        let interrupts: [Option<&[usize]>; 4] = [Some(&[6]), Some(&[4]), Some(&[2]), Some(&[0])];
        let plan = Plan::new(
            &machine(),
            Some(&interface(Some(0), &interrupts)),
            Some(&[0, 2, 4, 6]),
            false,
        )
        .unwrap();
        check(
            &plan,
            "\
interface eth7
partition processor  core  node  queues
        0         0     0     0  3
        1         2     1     0  2
        2         4     2     1  1
        3         6     3     1  0
note: eth7 is attached to node 0, and processors [4, 6] are not: their packets cross between nodes",
        );
    }

    #[test]
    fn interrupts_that_go_elsewhere_are_told_and_their_queues_served_all_the_same() {
        let interrupts: [Option<&[usize]>; 3] = [Some(&[0, 1, 2, 3]), Some(&[15]), Some(&[2])];
        let plan = Plan::new(
            &machine(),
            Some(&interface(Some(0), &interrupts)),
            Some(&[0, 2]),
            false,
        )
        .unwrap();
        check(
            &plan,
            "\
interface eth7
partition processor  core  node  queues
        0         0     0     0  0,1
        1         2     1     0  2
note: interrupts of eth7's queues [0, 1] do not go to the one processor that serves them (/proc/irq/*/smp_affinity_list; irqbalance moves them)",
        );
    }

    #[test]
    fn container_that_is_kept_to_one_node_plans_on_it_alone() {
        let mut machine = machine();
        for processor in &mut machine.processors {
            processor.allowed = matches!(processor.number, 12 | 14);
        }
        let plan = Plan::new(&machine, Some(&interface(Some(0), &[None; 2])), None, false).unwrap();
        check(
            &plan,
            "\
interface eth7
partition processor  core  node  queues
        0        12     6     3  0
        1        14     7     3  1
note: eth7 is attached to node 0, and processors [12, 14] are not: their packets cross between nodes",
        );
        let error = Plan::new(&machine, None, Some(&[12, 3]), false).unwrap_err();
        assert_eq!(error, PlanError::NotAllowed(3, vec![12, 14]));
    }

    #[test]
    fn processors_that_are_offline_are_left_out_and_refused_by_name() {
        let mut machine = machine();
        machine.processors.retain(|processor| processor.number >= 14);
        let plan = Plan::new(&machine, None, None, false).unwrap();
        check(
            &plan,
            "\
partition processor  core  node  queues
        0        14     7     3  -
        1        15     7     3  -
note: processors 14 and 15 are threads of one core: each has about half of it",
        );
        assert_eq!(
            Plan::new(&machine, None, Some(&[0]), false),
            Err(PlanError::Offline(0, vec![14, 15]))
        );
    }

    #[test]
    fn lists_that_make_no_sense_are_refused() {
        assert_eq!(
            Plan::new(&machine(), None, Some(&[]), false),
            Err(PlanError::Count(0))
        );
        assert_eq!(
            Plan::new(&machine(), None, Some(&[1, 2, 1]), false),
            Err(PlanError::Duplicate(1))
        );
    }

    #[test]
    fn what_rss_hashes_is_told_and_a_hash_without_ports_noted() {
        let addresses = HashFields {
            source_port: false,
            destination_port: false,
            ..HashFields::ADDRESSES_AND_PORTS
        };
        let with = |udp_v4, udp_v6, queues: usize| {
            let interface = Interface {
                rss: Some(Rss {
                    key: vec![0; 40],
                    table: vec![0, 1],
                    udp_v4,
                    udp_v6,
                }),
                ..interface(None, &vec![None; queues])
            };
            Plan::new(&machine(), Some(&interface), Some(&[0, 2]), false).unwrap()
        };
        check(
            &with(Some(addresses), Some(HashFields::ADDRESSES_AND_PORTS), 2),
            "\
interface eth7
queues by a hash of addresses: UDP over IPv4
queues by a hash of addresses and ports: UDP over IPv6
partition processor  core  node  queues
        0         0     0     0  0
        1         2     1     0  1
note: eth7 hashes no ports of UDP over IPv4: all connections between two hosts come in on one queue, \
whatever their ports (ethtool -N eth7 rx-flow-hash udp4 sdfn)",
        );
        // Where the driver does not say, nothing is said; and one queue needs no hash.
        assert_eq!(with(None, None, 2).notes, [""; 0]);
        let one = with(Some(addresses), Some(addresses), 1);
        assert_eq!((one.udp_v4_hash, one.udp_v6_hash), (None, None));
        assert!(
            !one.notes.iter().any(|note| note.contains("hashes")),
            "{:?}",
            one.notes
        );
    }

    #[test]
    fn queues_that_virtio_net_adds_for_a_program_are_noted_where_there_can_be_some() {
        let notes = |driver: &str, zero_copy, queues_max| {
            let interface = Interface {
                driver: Some(driver.to_owned()),
                queues_max,
                surroundings: Surroundings {
                    driver: Some(DriverXdp {
                        native: true,
                        zero_copy,
                    }),
                    ..Surroundings::default()
                },
                ..interface(None, &[None; 4])
            };
            let plan = Plan::new(&machine(), Some(&interface), Some(&[0, 2, 4, 6]), false).unwrap();
            plan.notes.join("\n")
        };
        let note = notes("virtio_net", true, Some(8));
        assert!(note.contains("ethtool -L eth7 combined 8"), "{note}");
        // Where all are copied, that is said, and all in use leave none to add.
        let note = notes("virtio_net", false, Some(8));
        assert!(
            note.contains("EOPNOTSUPP") && !note.contains("combined 8"),
            "{note}"
        );
        assert_eq!(notes("virtio_net", true, Some(4)), "");
        assert_eq!(notes("ice", true, Some(8)), "");
    }

    #[test]
    fn queues_that_the_table_of_rss_leaves_out_are_noted_and_partitions_that_have_no_others() {
        let notes = |table: &[u32], processors: &[usize]| {
            let interface = Interface {
                rss: Some(Rss {
                    key: vec![0; 40],
                    table: table.to_vec(),
                    udp_v4: None,
                    udp_v6: None,
                }),
                ..interface(None, &[None; 4])
            };
            let plan = Plan::new(&machine(), Some(&interface), Some(processors), false).unwrap();
            plan.notes.join("\n")
        };
        assert_eq!(
            notes(&[0, 1, 0, 1], &[0, 2, 4]),
            "eth7's RSS table leaves out queues [2, 3]: packets come on them by flow rules alone, if there are any; \
             1 partition(s) have no other queues (ethtool -X eth7 default)"
        );
        assert_eq!(
            notes(&[0, 2, 3], &[0]),
            "eth7's RSS table leaves out queues [1]: packets come on them by flow rules alone, if there are any \
             (ethtool -X eth7 default)"
        );
        // All are in it, or the driver does not say.
        assert_eq!(notes(&[3, 2, 1, 0], &[0, 2]), "");
        assert_eq!(notes(&[], &[0, 2]), "");
    }

    #[test]
    fn more_queues_than_processors_are_spread_evenly() {
        let plan = Plan::new(
            &machine(),
            Some(&interface(None, &[None; 7])),
            Some(&[0, 2, 4]),
            false,
        )
        .unwrap();
        let counts: Vec<usize> = plan
            .partitions
            .iter()
            .map(|partition| partition.queues.len())
            .collect();
        assert_eq!(counts, [3, 2, 2]);
        assert_eq!(plan.notes, [""; 0]);
    }
}
