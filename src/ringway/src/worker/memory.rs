//! What all connections of the process hold together, and that it goes back to the system.
//!
//! Each connection keeps to a bound of its own ([`engine::Connection::memory`](ringway_engine::connection::Connection::memory)).
//! That does not help against many of them, so there is one for the process: [`Limits::memory`](super::limits::Limits::memory).

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ringway_types::Instant;

/// Bytes that connections of the process hold.
static HELD: AtomicU64 = AtomicU64::new(0);

/// What one connection has in [`HELD`].
#[derive(Default)]
pub(super) struct MemoryShare(u64);

impl MemoryShare {
    /// The connection holds this much now. Gives how much more that is than before.
    #[inline]
    pub(super) fn set(&mut self, bytes: usize) -> i64 {
        let bytes = bytes as u64;
        let change = bytes.wrapping_sub(self.0) as i64;
        if change != 0 {
            self.0 = bytes;
            // It wraps round for less.
            HELD.fetch_add(change as u64, Ordering::Relaxed);
        }
        change
    }
}

impl Drop for MemoryShare {
    fn drop(&mut self) {
        self.set(0);
    }
}

/// The memory of a worker's connections.
pub(super) struct Memory {
    max: u64,
    /// Bytes that its connections hold.
    held: u64,
    /// The most that they held since freed memory was given back.
    most: u64,
    /// When freed memory is given back, if there is much of it.
    give_back: Option<Instant>,
}

impl Memory {
    /// `max`: what connections of the process may hold together; `None`: half of what the process may use.
    pub(super) fn new(max: Option<u64>) -> Self {
        Memory {
            max: max.unwrap_or_else(half_of_the_memory),
            held: 0,
            most: 0,
            give_back: None,
        }
    }

    /// Bytes that the worker's connections hold.
    pub(super) fn held(&self) -> u64 {
        self.held
    }

    /// The connections of the process hold as much as they may.
    #[inline]
    pub(super) fn is_full(&self) -> bool {
        HELD.load(Ordering::Relaxed) >= self.max
    }

    /// A connection holds so many bytes more.
    #[inline]
    pub(super) fn add(&mut self, now: Instant, change: i64) {
        self.held = self.held.wrapping_add_signed(change);
        self.most = self.most.max(self.held);
        if change < 0 && self.give_back.is_none() && self.has_much_freed() {
            self.give_back = Some(now + GIVE_BACK_AFTER);
        }
    }

    fn has_much_freed(&self) -> bool {
        self.most - self.held >= GIVE_BACK_MIN && self.held < self.most / 2
    }

    /// When [`Memory::is_give_back_due`] is next to be asked.
    #[inline]
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.give_back
    }

    /// True, once, if a burst was over a while ago.
    #[inline]
    pub(super) fn is_give_back_due(&mut self, now: Instant) -> bool {
        if self.give_back.is_none_or(|at| at > now) {
            return false;
        }
        self.give_back = None;
        let is_due = self.has_much_freed();
        if is_due {
            self.most = self.held;
        }
        is_due
    }
}

/// True if nobody in the process has given memory back for a while: it is one heap, and the walk through it holds others up.
pub(super) fn may_give_back(now: Instant) -> bool {
    static LAST: AtomicU64 = AtomicU64::new(0);
    let last = LAST.load(Ordering::Relaxed);
    let (now, interval) = (now.as_nanos(), GIVE_BACK_AFTER.as_nanos() as u64);
    (last == 0 || now.abs_diff(last) >= interval)
        && LAST
            .compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed)
            .is_ok()
}

/// How long after a burst memory is given back: there may be another one.
const GIVE_BACK_AFTER: Duration = Duration::from_secs(3);
/// It is not worth the walk through the heap for less.
const GIVE_BACK_MIN: u64 = 4 << 20;

/// Half of the machine's memory, or of what the process's control group may use.
fn half_of_the_memory() -> u64 {
    static HALF: OnceLock<u64> = OnceLock::new();
    let number = |text: &str| text.trim().parse::<u64>().ok();
    *HALF.get_or_init(|| {
        let machine = fs::read_to_string("/proc/meminfo").ok().and_then(|text| {
            let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
            Some(number(line.trim_end_matches("kB"))? * 1024)
        });
        let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let group = limit_files(&groups)
            .iter()
            .filter_map(|file| number(&fs::read_to_string(file).ok()?))
            .min();
        machine.into_iter().chain(group).min().unwrap_or(MEMORY_UNKNOWN) / 2
    })
}

/// Files that limit the memory of a process with this `/proc/self/cgroup`: of its groups, and of those around them.
fn limit_files(groups: &str) -> Vec<PathBuf> {
    let of = |line: &str| -> Option<(&str, &str, PathBuf)> {
        let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
        let path = PathBuf::from(path.trim_start_matches('/'));
        match controllers {
            "" => Some(("/sys/fs/cgroup", "memory.max", path)),
            "memory" => Some(("/sys/fs/cgroup/memory", "memory.limit_in_bytes", path)),
            _ => None,
        }
    };
    let files = groups.lines().filter_map(of).flat_map(|(root, file, path)| {
        let around: Vec<_> = path
            .ancestors()
            .map(|group| Path::new(root).join(group).join(file))
            .collect();
        around
    });
    files.collect()
}

/// Where the system does not say how much memory there is.
const MEMORY_UNKNOWN: u64 = 1 << 30;

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Instant {
        Instant::from_nanos(seconds * 1_000_000_000)
    }

    #[test]
    fn memory_of_a_burst_is_given_back_some_seconds_after_it() {
        let mut memory = Memory::new(None);
        let mut share = MemoryShare::default();
        memory.add(at(1), share.set(100 << 20));
        assert_eq!(memory.deadline(), None);
        memory.add(at(2), share.set(1 << 20));
        assert_eq!(memory.deadline(), Some(at(5)));
        assert!(!memory.is_give_back_due(at(4)));
        assert!(memory.is_give_back_due(at(5)));
        assert!(!memory.is_give_back_due(at(6)));
        assert_eq!(memory.held(), 1 << 20);
    }

    #[test]
    fn nothing_is_given_back_if_another_burst_follows_at_once_or_little_was_freed() {
        let mut memory = Memory::new(None);
        let mut share = MemoryShare::default();
        for bytes in [100 << 20, 1 << 20, 90 << 20] {
            memory.add(at(1), share.set(bytes));
        }
        assert!(!memory.is_give_back_due(at(10)));
        memory.add(at(11), share.set(88 << 20));
        assert_eq!(memory.deadline(), None);
    }

    #[test]
    fn limits_of_a_process_are_those_of_its_groups_and_of_those_around_them() {
        let files = limit_files("12:memory:/a/b\n3:cpu,cpuacct:/c\n0::/system.slice/server.service\n");
        let expected = [
            "/sys/fs/cgroup/memory/a/b/memory.limit_in_bytes",
            "/sys/fs/cgroup/memory/a/memory.limit_in_bytes",
            "/sys/fs/cgroup/memory/memory.limit_in_bytes",
            "/sys/fs/cgroup/system.slice/server.service/memory.max",
            "/sys/fs/cgroup/system.slice/memory.max",
            "/sys/fs/cgroup/memory.max",
        ];
        assert_eq!(files, expected.map(PathBuf::from));
        assert!(limit_files("nonsense").is_empty());
    }

    #[test]
    fn default_bound_is_within_the_memory_of_the_machine() {
        let half = half_of_the_memory();
        assert!((64 << 20..1 << 50).contains(&half), "{half}");
    }
}
