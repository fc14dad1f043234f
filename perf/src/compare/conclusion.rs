//! What follows from the runs: medians, how far runs differ, who is best, and ratios.

use std::collections::BTreeMap;

use anyhow::Result;
use ringway_perf_protocol::Scenario;
use serde::Serialize;

use super::lanes::{Lane, NetworkKind, Stack};
use super::metrics::{Metric, digits};
use super::results::{Block, LaneRuns, Measured, Outcome};
use crate::floor::Work;
use crate::statistics::median;

/// A figure over all rounds.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub(super) struct Spread {
    pub median: f64,
    pub min: f64,
    pub max: f64,
}

impl Spread {
    /// `None` of no runs.
    fn of(values: &[f64]) -> Option<Self> {
        let (min, max) = (
            values.iter().copied().reduce(f64::min)?,
            values.iter().copied().reduce(f64::max)?,
        );
        Some(Spread {
            median: median(values),
            min,
            max,
        })
    }

    /// In a unit that is so many of the stored one: the median, and from where to where the runs go unless they were alike.
    pub(super) fn in_unit(self, divisor: f64) -> String {
        let text = |value: f64| digits(value / divisor);
        let (median, min, max) = (text(self.median), text(self.min), text(self.max));
        if min == max {
            return median;
        }
        format!("{median} ({min} to {max})")
    }
}

/// What a lane has reached.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub(super) struct LaneConclusion {
    #[serde(flatten)]
    pub lane: Lane,
    pub figures: BTreeMap<Metric, Spread>,
    /// Of the chief figure, how many times as good as the best QUIC stack that is not ours: more than one is better, also where less is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub of_best_peer: Option<f64>,
    /// How much of what its route moves without a protocol, sealed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub of_floor: Option<f64>,
    /// Why runs failed, and how many did so.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub failures: BTreeMap<String, usize>,
}

/// What a scenario on a network has shown.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub(super) struct Conclusion {
    pub network: NetworkKind,
    pub scenario: Scenario,
    /// The best QUIC stack that is not ours.
    pub best_peer: Option<Stack>,
    /// The best mode of Ringway among those that wait as they come, with nothing configured, as the others do.
    pub best_mode: Option<Lane>,
    /// And among those that are told to poll.
    pub best_polling_mode: Option<Lane>,
    pub lanes: Vec<LaneConclusion>,
}

impl Conclusion {
    pub(super) fn lane(&self, lane: Lane) -> Option<&LaneConclusion> {
        self.lanes.iter().find(|other| other.lane == lane)
    }

    /// The median of its chief figure.
    pub(super) fn chief(&self, lane: Lane) -> Option<Spread> {
        let figures = &self.lane(lane)?.figures;
        figures.get(&Metric::chief(self.scenario)).copied()
    }

    /// The best of Ringway, as it comes and polling.
    pub(super) fn best_modes(&self) -> impl Iterator<Item = &LaneConclusion> {
        let modes = [self.best_mode, self.best_polling_mode];
        modes.into_iter().flatten().filter_map(|lane| self.lane(lane))
    }
}

pub(super) fn conclude(measured: &Measured) -> Vec<Conclusion> {
    measured.blocks.iter().map(conclude_block).collect()
}

/// Of one scenario on one network.
pub(super) fn conclude_block(block: &Block) -> Conclusion {
    let lanes = block.lanes.iter().map(|runs| sum(runs, block.scenario)).collect();
    let mut conclusion = Conclusion {
        network: block.network,
        scenario: block.scenario,
        best_peer: None,
        best_mode: None,
        best_polling_mode: None,
        lanes,
    };
    let chief = Metric::chief(block.scenario);
    let best = |counts: &dyn Fn(&Lane) -> bool| {
        let candidates = conclusion.lanes.iter().filter(|lane| counts(&lane.lane));
        let medians = candidates.filter_map(|lane| Some((lane.lane, lane.figures.get(&chief)?.median)));
        let better = |a: f64, b: f64| if chief.more_is_better() { a > b } else { a < b };
        medians.reduce(|best, other| if better(other.1, best.1) { other } else { best })
    };
    let peer = best(&|lane| lane.stack.is_quic_peer());
    let mode = best(&|lane| lane.stack == Stack::Ringway && !lane.polling);
    let polling = best(&|lane| lane.stack == Stack::Ringway && lane.polling);
    let floors: Vec<_> = conclusion
        .lanes
        .iter()
        .filter(|lane| lane.lane.work == Some(Work::Sealed))
        .filter_map(|lane| Some((lane.lane.route?, lane.figures.get(&chief)?.median)))
        .collect();
    for lane in &mut conclusion.lanes {
        let Some(own) = lane.figures.get(&chief).map(|spread| spread.median) else {
            continue;
        };
        if lane.lane.stack == Stack::Floor {
            continue;
        }
        lane.of_best_peer = peer.map(|(_, peer)| match chief.more_is_better() {
            true => own / peer,
            false => peer / own,
        });
        // The other stacks all use sockets.
        let route = lane.lane.route.unwrap_or(super::lanes::Route::Socket).floor();
        let floor = floors.iter().find(|(floor, _)| *floor == route);
        lane.of_floor = floor.map(|(_, floor)| own / floor);
    }
    conclusion.best_peer = peer.map(|(lane, _)| lane.stack);
    conclusion.best_mode = mode.map(|(lane, _)| lane);
    conclusion.best_polling_mode = polling.map(|(lane, _)| lane);
    conclusion
}

fn sum(runs: &LaneRuns, scenario: Scenario) -> LaneConclusion {
    let mut failures = BTreeMap::new();
    let mut figures = BTreeMap::new();
    for outcome in &runs.runs {
        if let Outcome::Failure(reason) = outcome {
            *failures.entry(reason.clone()).or_default() += 1;
        }
    }
    for metric in Metric::of(scenario) {
        let values = runs.runs.iter().filter_map(|outcome| match outcome {
            Outcome::Figures(figures) => figures.get(metric).copied(),
            Outcome::Failure(_) => None,
        });
        if let Some(spread) = Spread::of(&values.collect::<Vec<_>>()) {
            figures.insert(*metric, spread);
        }
    }
    LaneConclusion {
        lane: runs.lane,
        figures,
        of_best_peer: None,
        of_floor: None,
        failures,
    }
}

/// A comparison as JSON: what was measured, with what follows from it.
pub(super) fn to_json(measured: &Measured, conclusions: &[Conclusion]) -> Result<String> {
    #[derive(Serialize)]
    struct Document<'a> {
        #[serde(flatten)]
        measured: &'a Measured,
        conclusions: &'a [Conclusion],
    }
    let document = Document {
        measured,
        conclusions,
    };
    Ok(serde_json::to_string_pretty(&document)? + "\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::lanes::Route;

    fn runs(stack: Stack, route: Option<Route>, polling: bool, metric: Metric, values: &[f64]) -> LaneRuns {
        let figures = |value: &f64| Outcome::Figures([(metric, *value)].into());
        LaneRuns {
            lane: Lane {
                route,
                polling,
                ..Lane::of(stack)
            },
            runs: values.iter().map(figures).collect(),
        }
    }

    fn block(scenario: Scenario, lanes: Vec<LaneRuns>) -> Block {
        Block {
            network: NetworkKind::Loopback,
            scenario,
            lanes,
        }
    }

    #[test]
    fn best_peer_and_best_mode_are_those_with_the_best_median() {
        let goodput = |stack, route, values: &[f64]| runs(stack, route, false, Metric::GoodputGbitS, values);
        let mut floor = goodput(Stack::Floor, Some(Route::Socket), &[20.0, 20.0, 21.0]);
        floor.lane.work = Some(Work::Sealed);
        let conclusion = conclude_block(&block(
            Scenario::Download,
            vec![
                goodput(Stack::Ringway, Some(Route::Socket), &[14.0, 11.0, 12.0]),
                goodput(Stack::Ringway, Some(Route::IoUring), &[15.0, 1.0, 16.0]),
                goodput(Stack::Quinn, None, &[9.0, 10.0, 99.0]),
                goodput(Stack::Quiche, None, &[8.0, 8.0, 8.0]),
                goodput(Stack::TlsTcp, None, &[40.0, 40.0, 40.0]),
                floor,
            ],
        ));
        assert_eq!(conclusion.best_peer, Some(Stack::Quinn));
        let best = conclusion.best_mode.unwrap();
        assert_eq!(best.route, Some(Route::IoUring));
        let best = conclusion.lane(best).unwrap();
        assert_eq!(best.of_best_peer, Some(1.5));
        assert_eq!(best.of_floor, Some(0.75));
        let spread = best.figures[&Metric::GoodputGbitS];
        assert_eq!((spread.median, spread.min, spread.max), (15.0, 1.0, 16.0));
        let quiche = conclusion.lane(Lane::of(Stack::Quiche)).unwrap();
        assert_eq!(quiche.of_best_peer, Some(0.8));
        assert_eq!(
            conclusion.lane(Lane::of(Stack::TlsTcp)).unwrap().of_best_peer,
            Some(4.0)
        );
    }

    #[test]
    fn where_less_is_better_the_ratio_is_turned_round_and_polling_is_told_apart() {
        let latency =
            |stack, route, polling, value| runs(stack, route, polling, Metric::LatencyP50Us, &[value]);
        let conclusion = conclude_block(&block(
            Scenario::Latency,
            vec![
                latency(Stack::Ringway, Some(Route::Socket), false, 50.0),
                latency(Stack::Ringway, Some(Route::Socket), true, 15.0),
                latency(Stack::Msquic, None, false, 70.0),
                latency(Stack::Tquic, None, false, 60.0),
            ],
        ));
        assert_eq!(conclusion.best_peer, Some(Stack::Tquic));
        let ratios: Vec<_> = conclusion.best_modes().map(|lane| lane.of_best_peer).collect();
        assert_eq!(ratios, [Some(1.2), Some(4.0)]);
    }

    #[test]
    fn lanes_without_figures_keep_their_reasons_and_stand_in_no_ratio() {
        let failed = LaneRuns {
            lane: Lane::of(Stack::Quinn),
            runs: vec![Outcome::Failure("no program".into()); 3],
        };
        let own = runs(
            Stack::Ringway,
            Some(Route::Socket),
            false,
            Metric::OperationsPerS,
            &[5.0],
        );
        let conclusion = conclude_block(&block(Scenario::Rps, vec![own, failed]));
        assert_eq!(conclusion.best_peer, None);
        assert_eq!(conclusion.lanes[0].of_best_peer, None);
        assert_eq!(conclusion.lanes[1].failures["no program"], 3);
        assert!(conclusion.lanes[1].figures.is_empty());
        let nothing = conclude_block(&block(Scenario::Rps, vec![]));
        assert_eq!((nothing.best_mode, nothing.best_peer), (None, None));
    }
}
