//! The timers of connections: one for each, set and cancelled in constant time.
//!
//! A hierarchy of wheels of 64 slots. A timer is in the finest wheel whose slots tell its time from the current one, in
//! an intrusive list, and moves to finer wheels as its time approaches.

use ringway_types::Instant;

/// Timers by key. Keys are small integers; each has one timer.
pub(crate) struct TimerWheel {
    /// The tick up to which timers have fired.
    current: u64,
    entries: Vec<Entry>,
    heads: [[u32; SLOTS]; LEVELS],
    /// Which slots are not empty, one bit each.
    occupied: [u64; LEVELS],
}

#[derive(Clone, Copy)]
struct Entry {
    /// `NEVER` if the timer is not set.
    tick: u64,
    next: u32,
    previous: u32,
    level: u8,
    slot: u8,
}

const SLOTS: usize = 64;
const LEVELS: usize = 7;
/// A tick is 2^14 ns or 16 µs: finer than any kernel timer wakes a thread.
const TICK_BITS: u32 = 14;
const SLOT_BITS: u32 = 6;
const NEVER: u64 = u64::MAX;
const NONE: u32 = u32::MAX;
/// The furthest that the wheels reach: 2 years.
const TICKS_MAX: u64 = 1 << (SLOT_BITS * LEVELS as u32);
/// How many timers of a coarse slot are searched for the earliest. If there are more, the thread wakes a little early
/// instead.
const SCANNED_MAX: usize = 32;

impl TimerWheel {
    /// Without timers, at this time.
    pub(crate) fn new(now: Instant) -> Self {
        TimerWheel {
            current: now.as_nanos() >> TICK_BITS,
            entries: Vec::new(),
            heads: [[NONE; SLOTS]; LEVELS],
            occupied: [0; LEVELS],
        }
    }

    /// Sets the timer of `key`, replacing its previous time.
    pub(crate) fn set(&mut self, key: u32, at: Instant) {
        self.cancel(key);
        if self.entries.len() <= key as usize {
            let unset = Entry {
                tick: NEVER,
                next: NONE,
                previous: NONE,
                level: 0,
                slot: 0,
            };
            self.entries.resize(key as usize + 1, unset);
        }
        // Rounded up: a timer never fires before its time.
        let tick = (at.as_nanos() >> TICK_BITS).saturating_add(1);
        self.insert(key, tick.clamp(self.current, self.current + TICKS_MAX / 2));
    }

    /// Cancels the timer of `key`.
    pub(crate) fn cancel(&mut self, key: u32) {
        let Some(entry) = self
            .entries
            .get(key as usize)
            .copied()
            .filter(|entry| entry.tick != NEVER)
        else {
            return;
        };
        self.entries[key as usize].tick = NEVER;
        let (level, slot) = (usize::from(entry.level), usize::from(entry.slot));
        match entry.previous {
            NONE => self.heads[level][slot] = entry.next,
            previous => self.entries[previous as usize].next = entry.next,
        }
        if entry.next != NONE {
            self.entries[entry.next as usize].previous = entry.previous;
        }
        if self.heads[level][slot] == NONE {
            self.occupied[level] &= !(1 << slot);
        }
    }

    /// When the next timer fires; possibly a little early, never late.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        let (level, slot, start) = self.next_slot()?;
        let mut at = self.heads[level][slot];
        let mut earliest = NEVER;
        for _ in 0..SCANNED_MAX {
            if at == NONE {
                return Some(Instant::from_nanos(earliest << TICK_BITS));
            }
            let entry = &self.entries[at as usize];
            earliest = earliest.min(entry.tick);
            at = entry.next;
        }
        Some(Instant::from_nanos(start << TICK_BITS))
    }

    /// Fires all timers up to `now`. They are no longer set when `fire` is called.
    pub(crate) fn expire(&mut self, now: Instant, mut fire: impl FnMut(u32)) {
        let target = (now.as_nanos() >> TICK_BITS).max(self.current);
        while let Some((level, slot, start)) = self.next_slot().filter(|&(_, _, start)| start <= target) {
            self.current = self.current.max(start);
            let mut at = std::mem::replace(&mut self.heads[level][slot], NONE);
            self.occupied[level] &= !(1 << slot);
            while at != NONE {
                let Entry { tick, next, .. } = self.entries[at as usize];
                self.entries[at as usize].tick = NEVER;
                if tick <= target {
                    fire(at);
                } else {
                    self.insert(at, tick);
                }
                at = next;
            }
        }
        self.current = target;
    }

    fn insert(&mut self, key: u32, tick: u64) {
        // The highest bit in which the two times differ determines the wheel.
        let differing = (tick ^ self.current) | (SLOTS as u64 - 1);
        let level = (((63 - differing.leading_zeros()) / SLOT_BITS) as usize).min(LEVELS - 1);
        let slot = (tick >> (SLOT_BITS * level as u32)) as usize % SLOTS;
        let next = self.heads[level][slot];
        self.entries[key as usize] = Entry {
            tick,
            next,
            previous: NONE,
            level: level as u8,
            slot: slot as u8,
        };
        if next != NONE {
            self.entries[next as usize].previous = key;
        }
        self.heads[level][slot] = key;
        self.occupied[level] |= 1 << slot;
    }

    /// The first slot with timers, and the tick at which it begins.
    fn next_slot(&self) -> Option<(usize, usize, u64)> {
        // All timers of a finer wheel are earlier than those of a coarser one.
        let level = self.occupied.iter().position(|&occupied| occupied != 0)?;
        let shift = SLOT_BITS * level as u32;
        let here = (self.current >> shift) as u32 % SLOTS as u32;
        let ahead = self.occupied[level].rotate_right(here).trailing_zeros();
        let slot = ((here + ahead) % SLOTS as u32) as usize;
        let start = ((self.current >> shift) + u64::from(ahead)) << shift;
        Some((level, slot, start))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn behaves_like_a_sorted_list_of_timers(
            ops in prop::collection::vec((0u8..4, 0u32..20, 0u64..1 << 40, 0u32..40), 1..200),
        ) {
            let mut now = Instant::from_nanos(123_456_789_000);
            let mut wheel = TimerWheel::new(now);
            let mut model: BTreeMap<u32, Instant> = BTreeMap::new();
            for (op, key, nanos, shift) in ops {
                let step = Duration::from_nanos(nanos >> shift);
                match op {
                    0 | 1 => { wheel.set(key, now + step); model.insert(key, now + step); }
                    2 => { wheel.cancel(key); model.remove(&key); }
                    _ => {
                        now += step;
                        let mut fired = Vec::new();
                        wheel.expire(now, |key| fired.push(key));
                        for key in fired {
                            let at = model.remove(&key);
                            prop_assert!(at.is_some_and(|at| at <= now), "never early, never twice");
                        }
                        // What is left is later, except for rounding to a tick.
                        let tick = Duration::from_nanos(1 << TICK_BITS);
                        prop_assert!(model.values().all(|&at| at + tick > now));
                        match (model.values().min(), wheel.next_deadline()) {
                            (None, None) => {}
                            (Some(&at), Some(deadline)) => prop_assert!(deadline <= at + tick),
                            other => prop_assert!(false, "{other:?}"),
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn lone_timer_wakes_once_and_not_before_its_time() {
        let now = Instant::from_nanos(5_000_000_000);
        let mut wheel = TimerWheel::new(now);
        for millis in [1, 25, 300, 30_000, 3_600_000] {
            let at = now + Duration::from_millis(millis);
            wheel.set(0, at);
            let deadline = wheel.next_deadline().unwrap();
            assert!(deadline >= at && deadline.since(at) < Duration::from_micros(17));
            let mut fired = 0;
            wheel.expire(deadline, |_| fired += 1);
            assert_eq!(fired, 1);
            wheel = TimerWheel::new(now);
        }
    }
}
