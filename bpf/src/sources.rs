//! Rules for prefixes of source addresses: what the program does with datagrams from them, and how many there were.

use std::collections::HashMap;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

use ipnet::IpNet;
use libbpf_rs::{ErrorKind, MapCore, MapFlags, MapHandle};

use super::counters::{COUNTER_BYTES, into_io, sum_of};

/// What is done with datagrams to endpoints of ours that come from a prefix. In the order of `enum action` of `xdp.bpf.c`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum SourceAction {
    /// As if there were no rule: an exception from a shorter prefix.
    Accept,
    /// They go to the kernel.
    Pass,
    /// They are dropped.
    Drop,
}

/// The most rules of an address family: entries of the maps `rules_v4` and `rules_v6`.
pub const SOURCE_RULES_MAX: usize = 4096;
/// Bytes of `struct prefix_v4` and `prefix_v6`: the length in bits, and an address.
const PREFIX_V4_BYTES: usize = 8;
const PREFIX_V6_BYTES: usize = 20;
/// Bytes of `struct rule`: action and index of the counter.
const RULE_BYTES: usize = 8;

/// The maps of rules, and which counter is whose.
pub(super) struct SourceRules {
    rules_v4: MapHandle,
    rules_v6: MapHandle,
    counts: MapHandle,
    counters: Mutex<Counters>,
}

#[derive(Default)]
struct Counters {
    used: HashMap<IpNet, u32>,
    /// Used once, and given up.
    free: Vec<u32>,
}

impl SourceRules {
    /// `map` finds one by its name and the bytes of its keys and values.
    pub(super) fn new(map: impl Fn(&str, usize, usize) -> io::Result<MapHandle>) -> io::Result<Self> {
        Ok(SourceRules {
            rules_v4: map("rules_v4", PREFIX_V4_BYTES, RULE_BYTES)?,
            rules_v6: map("rules_v6", PREFIX_V6_BYTES, RULE_BYTES)?,
            counts: map("rule_counts", 4, COUNTER_BYTES)?,
            counters: Mutex::default(),
        })
    }

    fn counters(&self) -> MutexGuard<'_, Counters> {
        self.counters.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn of_family(&self, prefix: IpNet) -> &MapHandle {
        match prefix {
            IpNet::V4(_) => &self.rules_v4,
            IpNet::V6(_) => &self.rules_v6,
        }
    }

    /// The counter of a prefix: the one that it has, or another that begins at zero.
    fn counter(&self, counters: &mut Counters, prefix: IpNet) -> io::Result<u32> {
        if let Some(index) = counters.used.get(&prefix) {
            return Ok(*index);
        }
        // Each rule has one, and there are as many as there may be rules: those that are not used are free, or were never used.
        let index = (counters.free.last().copied()).unwrap_or(counters.used.len() as u32);
        let zeros = vec![vec![0; COUNTER_BYTES]; libbpf_rs::num_possible_cpus().map_err(into_io)?];
        self.counts
            .update_percpu(&index.to_ne_bytes(), &zeros, MapFlags::ANY)
            .map_err(into_io)?;
        Ok(index)
    }

    /// See [`XdpProgram::set_source`](super::XdpProgram::set_source).
    pub(super) fn set(&self, prefix: IpNet, action: SourceAction) -> io::Result<Families> {
        let prefix = prefix.trunc();
        let mut counters = self.counters();
        let index = self.counter(&mut counters, prefix)?;
        let mut rule = [0; RULE_BYTES];
        rule[..4].copy_from_slice(&(action as u32).to_ne_bytes());
        rule[4..].copy_from_slice(&index.to_ne_bytes());
        self.of_family(prefix)
            .update(&key(prefix), &rule, MapFlags::ANY)
            .map_err(into_io)?;
        counters.used.insert(prefix, index);
        counters.free.pop_if(|free| *free == index);
        Ok(counters.families())
    }

    /// See [`XdpProgram::remove_source`](super::XdpProgram::remove_source).
    pub(super) fn remove(&self, prefix: IpNet) -> io::Result<Families> {
        let prefix = prefix.trunc();
        let mut counters = self.counters();
        match self.of_family(prefix).delete(&key(prefix)) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(into_io(error)),
            _ => {}
        }
        if let Some(index) = counters.used.remove(&prefix) {
            counters.free.push(index);
        }
        Ok(counters.families())
    }

    /// See [`XdpProgram::source_count`](super::XdpProgram::source_count).
    pub(super) fn count(&self, prefix: IpNet) -> io::Result<Option<u64>> {
        let counters = self.counters();
        let index = counters.used.get(&prefix.trunc());
        index.map(|index| sum_of(&self.counts, *index)).transpose()
    }
}

/// Of which families there are rules.
pub(super) struct Families {
    pub(super) v4: bool,
    pub(super) v6: bool,
}

impl Counters {
    fn families(&self) -> Families {
        Families {
            v4: self.used.keys().any(|prefix| matches!(prefix, IpNet::V4(_))),
            v6: self.used.keys().any(|prefix| matches!(prefix, IpNet::V6(_))),
        }
    }
}

fn key(prefix: IpNet) -> Vec<u8> {
    let mut key = u32::from(prefix.prefix_len()).to_ne_bytes().to_vec();
    match prefix {
        IpNet::V4(v4) => key.extend(v4.network().octets()),
        IpNet::V6(v6) => key.extend(v6.network().octets()),
    }
    key
}
