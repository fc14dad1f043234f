//! Covering sets: of all combinations of values the few in which every two values meet.

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};

/// Indices of rows of which every two values that meet in any row meet in one at least. Each row has a value for each of `N` factors.
///
/// Takes again and again the row in which most values meet for the first time, and of several such the one whose values were used least: not
/// the smallest set, but close to it, and always the same.
pub fn covering<const N: usize>(rows: &[[usize; N]]) -> Vec<usize> {
    let mut missing: HashSet<Pair> = rows.iter().flat_map(pairs).collect();
    let mut uses: HashMap<(usize, usize), usize> = HashMap::new();
    let mut chosen = Vec::new();
    while !missing.is_empty() {
        let rank = |row: &[usize; N]| {
            let new = pairs(row).filter(|pair| missing.contains(pair)).count();
            let used = row
                .iter()
                .copied()
                .enumerate()
                .filter_map(|value| uses.get(&value));
            (new, Reverse(used.sum::<usize>()))
        };
        let Some(best) = (0..rows.len()).max_by_key(|&index| rank(&rows[index])) else {
            break;
        };
        for pair in pairs(&rows[best]) {
            missing.remove(&pair);
        }
        for value in rows[best].iter().copied().enumerate() {
            *uses.entry(value).or_default() += 1;
        }
        chosen.push(best);
    }
    chosen
}

/// Two factors, each with its value.
type Pair = [(usize, usize); 2];

/// All pairs of values of a row.
pub fn pairs<const N: usize>(row: &[usize; N]) -> impl Iterator<Item = Pair> {
    (0..N).flat_map(move |second| (0..second).map(move |first| [(first, row[first]), (second, row[second])]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn product(sizes: [usize; 4]) -> Vec<[usize; 4]> {
        let mut rows = vec![[0; 4]];
        for (factor, size) in sizes.into_iter().enumerate() {
            rows = rows
                .into_iter()
                .flat_map(|row| {
                    (0..size).map(move |value| {
                        let mut row = row;
                        row[factor] = value;
                        row
                    })
                })
                .collect();
        }
        rows
    }

    #[test]
    fn every_two_values_meet_in_few_rows() {
        let rows = product([5, 4, 3, 2]);
        let chosen = covering(&rows);
        for (a, sizes) in [5, 4, 3, 2].into_iter().enumerate() {
            for (b, others) in [5, 4, 3, 2].into_iter().enumerate().skip(a + 1) {
                for (x, y) in (0..sizes).flat_map(|x| (0..others).map(move |y| (x, y))) {
                    assert!(
                        chosen
                            .iter()
                            .any(|&index| rows[index][a] == x && rows[index][b] == y)
                    );
                }
            }
        }
        // 20 are needed, for the two largest factors.
        assert!(chosen.len() <= 24, "{} of {}", chosen.len(), rows.len());
    }

    #[test]
    fn values_that_can_never_meet_are_not_missed() {
        let possible = |row: &[usize; 4]| !(row[0] == 1 && row[1] == 1);
        let rows: Vec<_> = product([2, 2, 2, 2]).into_iter().filter(possible).collect();
        let met: HashSet<Pair> = covering(&rows)
            .iter()
            .flat_map(|&index| pairs(&rows[index]))
            .collect();
        let all: HashSet<Pair> = rows.iter().flat_map(pairs).collect();
        assert_eq!(met, all);
        assert!(!met.contains(&[(0, 1), (1, 1)]));
    }
}
