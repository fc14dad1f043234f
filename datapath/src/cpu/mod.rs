//! Which processors share a core, and moving memory out of a core's caches for another one.

mod sys;

pub(crate) use sys::demote_cache_lines;

use crate::thread;

/// Which processors are siblings on one core, and so share the caches that no other core reaches.
#[derive(Debug)]
pub(crate) struct Cores {
    /// By processor: the first one of its core.
    first: Vec<usize>,
}

impl Cores {
    /// Of this machine. Processors that the kernel tells nothing of count as a core each.
    pub(crate) fn read() -> Cores {
        let first = |processor: usize| {
            let path = format!("/sys/devices/system/cpu/cpu{processor}/topology/thread_siblings_list");
            let siblings = thread::read_cpulist(&path);
            siblings.map_or(processor, |siblings| siblings[0])
        };
        let possible = thread::read_cpulist("/sys/devices/system/cpu/possible").unwrap_or_default();
        let count = possible.last().map_or(0, |last| last + 1);
        Cores {
            first: (0..count).map(first).collect(),
        }
    }

    /// True if two processors are on one core.
    pub(crate) fn are_siblings(&self, one: usize, other: usize) -> bool {
        let core = |processor: usize| self.first.get(processor).copied().unwrap_or(processor);
        core(one) == core(other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processors_share_a_core_with_themselves_and_with_what_the_kernel_says() {
        let cores = Cores {
            first: vec![0, 1, 0, 1],
        };
        assert!(cores.are_siblings(0, 2) && cores.are_siblings(3, 1));
        assert!(!cores.are_siblings(0, 1) && !cores.are_siblings(2, 3));
        // Not known, as if it had been added since.
        assert!(cores.are_siblings(9, 9) && !cores.are_siblings(9, 0));
        let here = Cores::read();
        for processor in thread::processors().unwrap() {
            assert!(here.are_siblings(processor, processor));
        }
    }

    #[test]
    fn what_is_demoted_keeps_its_content() {
        let mut bytes: Vec<u8> = (0..5000).map(|index| index as u8).collect();
        for range in [0..5000, 1..2, 63..65, 100..100] {
            bytes[range.clone()].iter_mut().for_each(|byte| *byte ^= 0xff);
            demote_cache_lines(&bytes[range.clone()]);
            bytes[range].iter_mut().for_each(|byte| *byte ^= 0xff);
        }
        assert!(bytes.iter().enumerate().all(|(index, byte)| *byte == index as u8));
    }
}
