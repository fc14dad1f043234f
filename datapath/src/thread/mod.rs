//! Processors that this process may use, pinning of threads, and how much processor time they took.

mod sys;

use std::io;
use std::time::Duration;

/// The processors that this process may run on, ascending.
///
/// That is its affinity mask, which a cpuset restricts. A quota on processor time (cgroup `cpu.max`) bounds how many of
/// them are given: more threads than that only wait for each other.
pub fn processors() -> io::Result<Vec<usize>> {
    let mut processors = sys::affinity()?;
    if let Some(quota) = cgroup_quota() {
        processors.truncate(quota.max(1));
    }
    Ok(processors)
}

/// Binds the calling thread to one processor.
pub fn pin(processor: usize) -> io::Result<()> {
    sys::set_affinity(processor)
}

/// Does something whose memory is to be near a NUMA node. A wish: where the node has none left, or the system forbids to ask (a container's
/// seccomp filter), it comes from elsewhere.
pub fn near_node<T>(node: Option<usize>, make: impl FnOnce() -> T) -> T {
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
    fn memory_is_asked_from_the_node_while_something_is_made_and_from_any_afterwards() {
        // The policy of the thread, as the kernel shows it for each mapping. Kernels without NUMA have no such file.
        let policy = || std::fs::read_to_string("/proc/thread-self/numa_maps").unwrap_or_default();
        if policy().is_empty() {
            return;
        }
        assert!(near_node(Some(0), policy).contains("prefer"));
        assert!(!policy().contains("prefer"));
        assert!(!near_node(None, policy).contains("prefer"));
        // There is no such node: it is made all the same.
        assert_eq!(near_node(Some(1_000_000), || 7), 7);
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
