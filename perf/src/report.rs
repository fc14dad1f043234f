//! What the reports of server and client have in common: times, and what devices and workers counted.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use procfs::process::Process;
use ringway::Registration;
use ringway_datapath::contract::{QueueCapabilities, XdpStats};
use ringway_datapath::thread;
use serde::Serialize;

use crate::source_rules::SourceRuleReport;

/// Wall and processor time of a run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stopwatch {
    wall: Instant,
    processor: Duration,
}

impl Stopwatch {
    pub(crate) fn start() -> Self {
        Stopwatch {
            wall: Instant::now(),
            processor: thread::process_cpu_time(),
        }
    }

    pub(crate) fn read(&self) -> Times {
        Times {
            wall: self.wall.elapsed(),
            cpu: thread::process_cpu_time() - self.processor,
        }
    }
}

/// How long something took: wall time, and processor time of all threads of this process.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Times {
    pub wall: Duration,
    pub cpu: Duration,
}

/// Processor time of each thread of this process in seconds, by name.
pub(crate) fn thread_times() -> BTreeMap<String, f64> {
    let mut threads = BTreeMap::new();
    let Ok(tasks) = Process::myself().and_then(|process| process.tasks()) else {
        return threads;
    };
    for task in tasks.flatten() {
        // A thread may have ended by now.
        if let (Ok(stat), Ok(schedstat)) = (task.stat(), task.schedstat()) {
            *threads.entry(stat.comm).or_default() += schedstat.sum_exec_runtime as f64 / 1e9;
        }
    }
    threads
}

/// What the device and the workers counted, all partitions together.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Counters {
    pub backend: String,
    pub send_segments_max: usize,
    pub receive_segments_max: usize,
    /// How each receive queue is served (AF_XDP), of all partitions.
    pub queues: Vec<QueueReport>,
    /// What the device cannot do, and why.
    pub notes: Vec<String>,
    pub sent_datagrams: u64,
    pub sent_bytes: u64,
    pub send_calls: u64,
    pub send_errors: u64,
    pub send_too_big: u64,
    pub send_blocked: u64,
    pub worker_behind_drops: u64,
    pub bypass_sent_datagrams: u64,
    pub bypass_received_datagrams: u64,
    pub xdp: BTreeMap<&'static str, u64>,
    /// The rules for where datagrams come from, with what each was applied to.
    pub source_rules: Vec<SourceRuleReport>,
    pub received_datagrams: u64,
    pub received_bytes: u64,
    pub receive_calls: u64,
    pub receive_errors: u64,
    pub accepted: u64,
    pub opened: u64,
    pub retries: u64,
    pub handed_over: u64,
    /// How often a connection has moved to another partition, and its handler was told so.
    pub ideal_processor_changes: u64,
    pub turns: u64,
    /// Datagrams and packets dropped, by reason.
    pub drops: BTreeMap<String, u64>,
    /// What is told of each partition.
    pub partitions: Vec<PartitionCounters>,
}

/// What one partition's device and worker counted.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct PartitionCounters {
    /// Connections that it hosts now.
    pub connections: u64,
    pub accepted: u64,
    pub opened: u64,
    /// Those that have moved to another partition.
    pub moved_away: u64,
    pub received_datagrams: u64,
    pub bypass_received_datagrams: u64,
    pub sent_datagrams: u64,
    pub bypass_sent_datagrams: u64,
    /// Of those received, the datagrams of other partitions' connections.
    pub handed_over: u64,
}

/// How a receive queue is served.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct QueueReport {
    pub queue: u32,
    /// Which partition serves it.
    pub partition: usize,
    /// Where the XDP program runs: `native` or `generic`.
    pub xdp: &'static str,
    /// Whether the NIC reads and writes packet memory itself: `zero-copy`, or `copy`.
    pub copy: &'static str,
    pub chunk_bytes: u32,
    /// Why it is `copy`, where it was not asked for.
    pub copy_reason: Option<String>,
}

impl QueueReport {
    fn new(partition: usize, queue: &QueueCapabilities) -> Self {
        QueueReport {
            queue: queue.queue,
            partition,
            xdp: if queue.native { "native" } else { "generic" },
            copy: if queue.zero_copy { "zero-copy" } else { "copy" },
            chunk_bytes: queue.chunk_bytes,
            copy_reason: queue.copy_reason.clone(),
        }
    }
}

impl Counters {
    /// With the number of events [`IdealProcessorChanged`](ringway::ConnectionEvent::IdealProcessorChanged) that handlers have counted.
    pub(crate) fn of(registration: &Registration, ideal_processor_changes: u64) -> Self {
        // What cannot be read cannot be told: the interface may be gone.
        let source_rules = SourceRuleReport::all(registration).unwrap_or_default();
        Counters::sum(registration, source_rules, ideal_processor_changes)
    }

    /// Counts again, once the registration is closed and its threads have ended: then nothing is missing. What there is now, and not counted, stays
    /// as it was before.
    pub(crate) fn complete(&mut self, registration: &Registration) {
        let source_rules = std::mem::take(&mut self.source_rules);
        let before = std::mem::take(&mut self.partitions);
        *self = Counters::sum(registration, source_rules, self.ideal_processor_changes);
        for (partition, before) in self.partitions.iter_mut().zip(before) {
            partition.connections = before.connections;
        }
    }

    fn sum(
        registration: &Registration,
        source_rules: Vec<SourceRuleReport>,
        ideal_processor_changes: u64,
    ) -> Self {
        let mut sum = Counters {
            ideal_processor_changes,
            source_rules,
            ..Counters::default()
        };
        if let Some(capabilities) = registration.capabilities().first() {
            sum.backend = capabilities.backend.to_owned();
            sum.send_segments_max = capabilities.send_segments_max;
            sum.receive_segments_max = capabilities.receive_segments_max;
        }
        for (partition, device) in registration.capabilities().iter().enumerate() {
            let queues = device
                .queues
                .iter()
                .map(|queue| QueueReport::new(partition, queue));
            sum.queues.extend(queues);
            for note in &device.notes {
                if !sum.notes.contains(note) {
                    sum.notes.push(note.clone());
                }
            }
        }
        sum.queues.sort_by_key(|queue| queue.queue);
        for partition in registration.stats() {
            let (device, worker) = (partition.device, partition.worker);
            sum.sent_datagrams += device.sent_datagrams;
            sum.sent_bytes += device.sent_bytes;
            sum.send_calls += device.send_calls;
            sum.send_errors += device.send_errors;
            sum.send_too_big += device.send_too_big;
            sum.send_blocked += device.send_blocked;
            sum.worker_behind_drops += device.worker_behind_drops;
            sum.bypass_sent_datagrams += device.bypass_sent_datagrams;
            sum.bypass_received_datagrams += device.bypass_received_datagrams;
            for (name, count) in xdp(&device.xdp) {
                *sum.xdp.entry(name).or_default() += count;
            }
            sum.received_datagrams += device.received_datagrams;
            sum.received_bytes += device.received_bytes;
            sum.receive_calls += device.receive_calls;
            sum.receive_errors += device.receive_errors;
            sum.accepted += worker.accepted;
            sum.opened += worker.opened;
            sum.retries += worker.retries;
            sum.handed_over += worker.handed_over;
            sum.turns += worker.turns;
            sum.partitions.push(PartitionCounters {
                connections: worker.connections,
                accepted: worker.accepted,
                opened: worker.opened,
                moved_away: worker.moved_away,
                received_datagrams: device.received_datagrams,
                bypass_received_datagrams: device.bypass_received_datagrams,
                sent_datagrams: device.sent_datagrams,
                bypass_sent_datagrams: device.bypass_sent_datagrams,
                handed_over: worker.handed_over,
            });
            for (reason, count) in worker.drops.iter() {
                *sum.drops.entry(format!("{reason:?}")).or_default() += count;
            }
        }
        sum
    }
}

/// By name, levels of rings and counts of packets.
fn xdp(stats: &XdpStats) -> [(&'static str, u64); 26] {
    [
        ("dropped_no_frame", stats.no_frame_drops),
        ("dropped_ring_full", stats.ring_full_drops),
        ("dropped_other", stats.other_drops),
        ("dropped_too_long", stats.too_long_drops),
        ("invalid_descriptors", stats.invalid_descriptors),
        ("refused_descriptors", stats.refused_descriptors),
        ("refused_sends", stats.refused_sends),
        ("transmit_stuck", stats.transmit_stuck),
        ("level_fill", stats.fill_level),
        ("level_transmit", stats.transmit_level),
        ("unserved_queues", stats.unserved_queues),
        ("redirected", stats.redirected),
        ("passed_not_ip", stats.pass_not_ip),
        ("passed_not_udp", stats.pass_not_udp),
        ("passed_fragment", stats.pass_fragment),
        ("passed_malformed", stats.pass_malformed),
        ("passed_cut_off", stats.pass_cut_off),
        ("passed_not_ours", stats.pass_not_ours),
        ("passed_no_socket", stats.pass_no_socket),
        ("passed_other_host", stats.pass_other_host),
        ("passed_other_vlan", stats.pass_other_vlan),
        ("passed_options", stats.pass_options),
        ("passed_source", stats.pass_source),
        ("passed_rule", stats.pass_rule),
        ("passed_too_long", stats.pass_too_long),
        ("dropped_rule", stats.drop_rule),
    ]
}

impl fmt::Display for Counters {
    /// The lines about the device.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let per_call = |datagrams: u64, calls: u64| datagrams as f64 / calls.max(1) as f64;
        writeln!(
            f,
            "  {:<11} {:>12} sent, {:.1} a call, {} refused ({} too big)   {} received, {:.1} a call, {} unfit   blocked {} times",
            self.backend,
            self.sent_datagrams,
            per_call(self.sent_datagrams, self.send_calls),
            self.send_errors,
            self.send_too_big,
            self.received_datagrams,
            per_call(self.received_datagrams, self.receive_calls),
            self.receive_errors,
            self.send_blocked,
        )?;
        for group in self.queues.chunk_by(|one, next| {
            (one.xdp, one.copy, one.chunk_bytes) == (next.xdp, next.copy, next.chunk_bytes)
        }) {
            let numbers: Vec<String> = group.iter().map(|queue| queue.queue.to_string()).collect();
            let QueueReport {
                xdp,
                copy,
                chunk_bytes,
                ..
            } = &group[0];
            writeln!(
                f,
                "  queue       {:>12} XDP {xdp}, {copy}, chunks of {chunk_bytes} bytes",
                numbers.join(" ")
            )?;
        }
        if self.bypass_sent_datagrams + self.bypass_received_datagrams > 0 {
            writeln!(
                f,
                "  past kernel {:>12} sent, {} received",
                self.bypass_sent_datagrams, self.bypass_received_datagrams
            )?;
            for (name, count) in self.xdp.iter().filter(|(_, count)| **count > 0) {
                writeln!(f, "  XDP         {count:>12} {name}")?;
            }
        }
        self.source_rules
            .iter()
            .try_for_each(|rule| writeln!(f, "{rule}"))?;
        if self.handed_over + self.ideal_processor_changes > 0 {
            writeln!(
                f,
                "  partitions  {:>12} datagrams handed over, {} moves of connections",
                self.handed_over, self.ideal_processor_changes
            )?;
        }
        if self.worker_behind_drops > 0 {
            writeln!(f, "  dropped     {:>12} WorkerBehind", self.worker_behind_drops)?;
        }
        for (reason, count) in &self.drops {
            writeln!(f, "  dropped     {count:>12} {reason}")?;
        }
        self.notes
            .iter()
            .try_for_each(|note| writeln!(f, "  note: {note}"))
    }
}

pub(crate) fn write_thread_times(f: &mut fmt::Formatter<'_>, threads: &BTreeMap<String, f64>) -> fmt::Result {
    for (name, seconds) in threads.iter().filter(|(_, seconds)| **seconds >= 0.001) {
        writeln!(f, "    thread    {seconds:>12.3} s        {name}")?;
    }
    Ok(())
}
