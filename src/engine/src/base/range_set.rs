//! Sets of 64-bit integers held as ranges: packet numbers received, stream bytes acknowledged, …

use std::ops::Range;

use smallvec::SmallVec;

/// A set of integers as disjoint, non-adjacent, ascending half-open ranges in one vector, which allocates nothing until there are two.
///
/// Cost: extending the last range, which is what nearly always happens, is O(1) and allocates nothing; anything
/// else is a binary search and a move of the ranges above. The caller bounds the number of ranges ([`len`]).
///
/// [`len`]: RangeSet::len
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct RangeSet {
    /// Invariant: `ranges[i].end < ranges[i + 1].start`, and no range is empty.
    ranges: SmallVec<[Range<u64>; 1]>,
}

impl RangeSet {
    /// The empty set. Allocates nothing.
    pub(crate) const fn new() -> Self {
        RangeSet {
            ranges: SmallVec::new_const(),
        }
    }

    /// Adds all integers of `range`; false if all were there already.
    pub(crate) fn insert(&mut self, range: Range<u64>) -> bool {
        if range.is_empty() {
            return false;
        }
        // The ranges that touch or overlap `range` become one.
        let first = match self.ranges.last() {
            Some(last) if last.end < range.start => self.ranges.len(),
            Some(last) if last.start <= range.start => self.ranges.len() - 1,
            _ => self.ranges.partition_point(|r| r.end < range.start),
        };
        let last = first + self.ranges[first..].partition_point(|r| r.start <= range.end);
        if first == last {
            self.ranges.insert(first, range);
            return true;
        }
        if self.ranges[first].start <= range.start && range.end <= self.ranges[first].end {
            return false;
        }
        self.ranges[first].start = self.ranges[first].start.min(range.start);
        self.ranges[first].end = self.ranges[last - 1].end.max(range.end);
        self.ranges.drain(first + 1..last);
        true
    }

    /// Adds one integer; false if it was there already.
    #[inline]
    pub(crate) fn insert_one(&mut self, value: u64) -> bool {
        match self.ranges.last_mut() {
            Some(last) if last.end == value => {
                last.end += 1;
                true
            }
            _ => self.insert(value..value + 1),
        }
    }

    /// Takes all integers of `range` out.
    pub(crate) fn remove(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        let first = self.ranges.partition_point(|r| r.end <= range.start);
        let last = first + self.ranges[first..].partition_point(|r| r.start < range.end);
        if first == last {
            return;
        }
        let before = self.ranges[first].start..range.start;
        let after = range.end..self.ranges[last - 1].end;
        let kept = [before, after].into_iter().filter(|r| !r.is_empty());
        self.ranges.drain(first..last);
        self.ranges.insert_many(first, kept);
    }

    /// Takes all integers below `end` out.
    pub(crate) fn remove_below(&mut self, end: u64) {
        let count = self.ranges.partition_point(|r| r.end <= end);
        if count > 0 {
            self.ranges.drain(..count);
        }
        if let Some(first) = self.ranges.first_mut() {
            first.start = first.start.max(end);
        }
    }

    /// Takes the lowest range out.
    pub(crate) fn pop_first(&mut self) -> Option<Range<u64>> {
        (!self.ranges.is_empty()).then(|| self.ranges.remove(0))
    }

    /// True if `value` is in the set.
    #[inline]
    pub(crate) fn contains(&self, value: u64) -> bool {
        if self.ranges.last().is_none_or(|last| last.end <= value) {
            return false;
        }
        let index = self.ranges.partition_point(|r| r.end <= value);
        self.ranges.get(index).is_some_and(|r| r.start <= value)
    }

    /// The parts of `range` that are not in the set, ascending.
    #[inline]
    pub(crate) fn gaps(&self, range: Range<u64>) -> impl Iterator<Item = Range<u64>> + '_ {
        let first = self.ranges.partition_point(|r| r.end <= range.start);
        let mut held = self.ranges[first..].iter();
        let mut at = range.start;
        std::iter::from_fn(move || {
            while at < range.end {
                let start = at;
                let (gap_end, next) = match held.next() {
                    Some(r) if r.start < range.end => (r.start, r.end),
                    _ => (range.end, range.end),
                };
                at = next;
                if start < gap_end {
                    return Some(start..gap_end);
                }
            }
            None
        })
    }

    /// The lowest part of `range` that is not in the set.
    #[inline]
    pub(crate) fn first_gap(&self, range: Range<u64>) -> Option<Range<u64>> {
        self.gaps(range).next()
    }

    /// The parts of `range` that are in the set, ascending.
    pub(crate) fn intersection(&self, range: Range<u64>) -> impl Iterator<Item = Range<u64>> + '_ {
        let first = self.ranges.partition_point(|r| r.end <= range.start);
        self.ranges[first..]
            .iter()
            .take_while(move |r| r.start < range.end)
            .map(move |r| r.start.max(range.start)..r.end.min(range.end))
    }

    /// The ranges, ascending; `rev()` for descending.
    pub(crate) fn iter(
        &self,
    ) -> impl DoubleEndedIterator<Item = Range<u64>> + ExactSizeIterator + Clone + '_ {
        self.ranges.iter().cloned()
    }

    /// The number of ranges (not of integers).
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.ranges.len()
    }

    /// True if nothing is in the set.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// The lowest range.
    #[inline(always)]
    pub(crate) fn first(&self) -> Option<Range<u64>> {
        self.ranges.first().cloned()
    }

    /// The highest range.
    #[inline(always)]
    pub(crate) fn last(&self) -> Option<Range<u64>> {
        self.ranges.last().cloned()
    }

    /// Bytes that it holds beside itself.
    pub(crate) fn memory(&self) -> usize {
        if self.ranges.spilled() {
            self.ranges.capacity() * size_of::<Range<u64>>()
        } else {
            0
        }
    }

    /// Gives memory back if it holds much more than it needs.
    pub(crate) fn shrink(&mut self) {
        let len = self.ranges.len().max(SHRINK_MIN);
        if self.ranges.capacity() > 4 * len {
            let ranges = self.ranges.drain(..);
            let mut smaller = SmallVec::with_capacity(2 * len);
            smaller.extend(ranges);
            self.ranges = smaller;
        }
    }

    /// Takes everything out; keeps the memory.
    pub(crate) fn clear(&mut self) {
        self.ranges.clear();
    }
}

/// Sets with less are not worth a call of the allocator.
const SHRINK_MIN: usize = 16;

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn behaves_like_a_set_of_integers(ops in prop::collection::vec((any::<bool>(), 0u64..60, 0u64..12), 0..80),
                                          query in (0u64..70, 0u64..20)) {
            let mut set = RangeSet::new();
            let mut model = BTreeSet::new();
            for (insert, start, len) in ops {
                let range = start..start + len;
                if insert && len == 1 {
                    prop_assert_eq!(set.insert_one(start), model.insert(start));
                } else if insert {
                    let before = model.len();
                    model.extend(range.clone());
                    prop_assert_eq!(set.insert(range), model.len() != before);
                } else {
                    model.retain(|v| !range.contains(v));
                    set.remove(range);
                }
                let flat: Vec<u64> = set.iter().flatten().collect();
                prop_assert_eq!(flat, model.iter().copied().collect::<Vec<_>>());
                let ranges: Vec<_> = set.iter().collect();
                prop_assert!(ranges.windows(2).all(|w| w[0].end < w[1].start));
            }
            let range = query.0..query.0 + query.1;
            let gaps: Vec<u64> = set.gaps(range.clone()).flatten().collect();
            prop_assert_eq!(gaps, range.clone().filter(|v| !model.contains(v)).collect::<Vec<_>>());
            let common: Vec<u64> = set.intersection(range.clone()).flatten().collect();
            prop_assert_eq!(common, range.clone().filter(|v| model.contains(v)).collect::<Vec<_>>());
            let mut above = set.clone();
            above.remove_below(range.start);
            let left: Vec<u64> = above.iter().flatten().collect();
            prop_assert_eq!(left, model.range(range.start..).copied().collect::<Vec<_>>());
            for value in 0..70 {
                prop_assert_eq!(set.contains(value), model.contains(&value));
            }
        }
    }
}
