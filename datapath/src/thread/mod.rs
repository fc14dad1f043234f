//! Processors that this process may use, pinning of threads, and how much processor time they took.

mod sys;

use std::io;
use std::time::Duration;

/// The processors that this process may run on, ascending.
///
/// That is its affinity mask, which a cpuset restricts. A quota on processor time (cgroup `cpu.max`) bounds how many of
/// them are given: more threads than that only wait for each other.
///
/// # Errors
///
/// The kernel does not tell (a filter of system calls may forbid `sched_getaffinity`).
pub fn processors() -> io::Result<Vec<usize>> {
    let mut processors = sys::affinity()?;
    if let Some(quota) = cgroup_quota() {
        processors.truncate(quota.max(1));
    }
    Ok(processors)
}

/// The processors that the affinity mask of this process has, ascending: all that its threads can be bound to.
///
/// # Errors
///
/// As [`processors`].
pub fn affinity() -> io::Result<Vec<usize>> {
    sys::affinity()
}

/// Binds the calling thread to one processor.
///
/// # Errors
///
/// The processor does not exist, is offline, or is none that this process may use: [`affinity`] has those.
pub fn pin(processor: usize) -> io::Result<()> {
    sys::set_affinity(&[processor])
}

/// Puts the calling thread on a processor, from where it may go to others of the same NUMA node, as far as this process may use them. The memory
/// that it touches first is of that node.
///
/// # Errors
///
/// As [`pin`]. The thread may be bound to that one processor then, or be as before.
pub fn set_ideal_processor(processor: usize) -> io::Result<()> {
    let allowed = sys::affinity()?;
    pin(processor)?;
    let near = near_processors(processor).unwrap_or_else(|| allowed.clone());
    let near: Vec<usize> = near
        .into_iter()
        .filter(|number| allowed.contains(number))
        .collect();
    sys::set_affinity(&near)
}

/// Lets the calling thread come before all ordinary ones: `SCHED_RR` with the lowest priority.
///
/// # Errors
///
/// Kind `PermissionDenied`: it takes CAP_SYS_NICE, or a limit for real-time priorities (RLIMIT_RTPRIO).
pub fn raise_priority() -> io::Result<()> {
    sys::set_round_robin(1)
}

/// The calling thread gives up all its capabilities, for good. Others keep theirs: each thread has its own.
///
/// # Errors
///
/// The kernel refuses, as a filter of system calls may: the thread has the capabilities that it had.
pub fn drop_capabilities() -> io::Result<()> {
    sys::clear_capabilities()
}

/// The calling thread may lock memory that is accounted to nobody.
#[cfg(feature = "af_xdp")]
pub(crate) fn may_lock_memory() -> bool {
    sys::has_capability(CAP_IPC_LOCK)
}

/// The processors of the NUMA node of one. `None` where the kernel tells of no nodes.
fn near_processors(processor: usize) -> Option<Vec<usize>> {
    let entries = std::fs::read_dir(format!("/sys/devices/system/cpu/cpu{processor}")).ok()?;
    let names = entries
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok());
    let node = names.into_iter().find(|name| {
        name.strip_prefix("node")
            .is_some_and(|rest| rest.parse::<u32>().is_ok())
    })?;
    read_cpulist(&format!("/sys/devices/system/node/{node}/cpulist"))
}

/// Numbers that a file of the kernel lists. `None` if there is no such file.
pub(crate) fn read_cpulist(path: &str) -> Option<Vec<usize>> {
    parse_cpulist(&std::fs::read_to_string(path).ok()?)
}

/// Numbers as Linux lists them: `0-3,8`.
pub fn parse_cpulist(text: &str) -> Option<Vec<usize>> {
    let mut numbers = Vec::new();
    for part in text.trim().split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (usize, usize) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        if first > last || last > NUMBER_MAX {
            return None;
        }
        numbers.extend(first..=last);
    }
    Some(numbers)
}

// linux/capability.h
#[cfg(feature = "af_xdp")]
const CAP_IPC_LOCK: u32 = 14;
/// Larger numbers of processors no kernel has.
const NUMBER_MAX: usize = 1 << 16;

/// Does something whose memory is to be near a NUMA node. A wish: where the node has none left, or the system forbids to ask (a container's
/// seccomp filter), it comes from elsewhere.
pub fn with_preferred_node<T>(node: Option<usize>, make: impl FnOnce() -> T) -> T {
    if node.is_none() {
        return make();
    }
    if let Err(error) = sys::prefer_node(node) {
        tracing::debug!(%error, ?node, "memory comes from any NUMA node");
        return make();
    }
    let made = make();
    if let Err(error) = sys::prefer_node(None) {
        tracing::debug!(%error, "memory goes on to come from one NUMA node");
    }
    made
}

/// The processor that the calling thread runs on now.
pub fn current_processor() -> Option<usize> {
    sys::current_processor()
}

/// Processor time that the calling thread has taken.
pub fn thread_cpu_time() -> Duration {
    sys::cpu_time(libc::CLOCK_THREAD_CPUTIME_ID)
}

/// Processor time that all threads of the process have taken.
pub fn process_cpu_time() -> Duration {
    sys::cpu_time(libc::CLOCK_PROCESS_CPUTIME_ID)
}

/// Whole processors that the control group of the process may use, rounded up; `None` without a limit.
fn cgroup_quota() -> Option<usize> {
    let groups = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    let path = groups.lines().find_map(|line| line.strip_prefix("0::"))?;
    let limit = std::fs::read_to_string(format!("/sys/fs/cgroup{path}/cpu.max"))
        .or_else(|_| std::fs::read_to_string("/sys/fs/cgroup/cpu.max"))
        .ok()?;
    parse_quota(&limit)
}

/// `quota period`, both in µs, or `max period`.
fn parse_quota(limit: &str) -> Option<usize> {
    let (quota, period) = limit.trim().split_once(' ')?;
    let (quota, period): (usize, usize) = (quota.parse().ok()?, period.parse().ok()?);
    (period > 0).then(|| quota.div_ceil(period))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quota_is_rounded_up_to_whole_processors() {
        assert_eq!(parse_quota("150000 100000\n"), Some(2));
        assert_eq!(parse_quota("max 100000\n"), None);
        assert_eq!(parse_quota("nonsense"), None);
    }

    #[test]
    fn pinned_thread_runs_where_it_was_pinned() {
        let processors = processors().unwrap();
        let last = *processors.last().unwrap();
        std::thread::spawn(move || {
            pin(last).unwrap();
            assert_eq!(current_processor(), Some(last));
        })
        .join()
        .unwrap();
        assert!(pin(100_000).is_err());
    }

    #[test]
    fn thread_begins_on_the_processor_that_it_prefers_and_may_go_on_elsewhere() {
        let processors = sys::affinity().unwrap();
        let last = *processors.last().unwrap();
        std::thread::spawn(move || {
            set_ideal_processor(last).unwrap();
            let may_use = sys::affinity().unwrap();
            assert!(may_use.contains(&last) && may_use.iter().all(|number| processors.contains(number)));
            let near = near_processors(last).unwrap_or_else(|| processors.clone());
            assert_eq!(
                may_use.len(),
                near.iter().filter(|number| processors.contains(number)).count()
            );
        })
        .join()
        .unwrap();
    }

    #[test]
    fn lists_of_numbers_are_read_as_linux_writes_them() {
        assert_eq!(parse_cpulist("0-2,7\n"), Some(vec![0, 1, 2, 7]));
        assert_eq!(parse_cpulist("5"), Some(vec![5]));
        for nonsense in ["", "3-1", "a", "1-", "0-99999999"] {
            assert_eq!(parse_cpulist(nonsense), None, "{nonsense}");
        }
    }

    #[test]
    fn memory_is_asked_from_the_node_while_something_is_made_and_from_any_afterwards() {
        // The policy of the thread, as the kernel shows it for each mapping. Kernels without NUMA have no such file.
        let policy = || std::fs::read_to_string("/proc/thread-self/numa_maps").unwrap_or_default();
        if policy().is_empty() {
            return;
        }
        assert!(with_preferred_node(Some(0), policy).contains("prefer"));
        assert!(!policy().contains("prefer"));
        assert!(!with_preferred_node(None, policy).contains("prefer"));
        // There is no such node: it is made all the same.
        assert_eq!(with_preferred_node(Some(1_000_000), || 7), 7);
    }

    #[test]
    fn processor_time_goes_on() {
        let before = thread_cpu_time();
        let mut sum = 0u64;
        while thread_cpu_time() == before {
            sum = std::hint::black_box(sum + 1);
        }
        assert!(process_cpu_time() >= thread_cpu_time() - before);
    }
}
