//! What the runs come to: medians, how far runs differ, who is best, and ratios.

use std::collections::BTreeMap;

use anyhow::Result;
use clap::ValueEnum;
use ringway_perf_protocol::Scenario;
use serde::Serialize;

use super::contenders::{Contender, DatapathKind, Group, Handshakes, NetworkKind, Stack};
use super::metrics::{self, Metric, RESUMED, digits};
use super::runs::{Comparison, ContenderRuns, LeftOut, Outcome, ScenarioRuns};
use crate::floor::DatagramKind;
use crate::options::Api;
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

/// What a contender has reached over all rounds.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub(super) struct ContenderSummary {
    #[serde(flatten)]
    pub contender: Contender,
    pub figures: BTreeMap<Metric, Spread>,
    /// Of the primary figure, how many times as good as the best QUIC stack that is not ours: more than one is better, also where less is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ratio_to_best_peer: Option<f64>,
    /// How much of what its datapath moves without a protocol, sealed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ratio_to_floor: Option<f64>,
    /// Why runs failed, and how many did so.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub failures: BTreeMap<String, usize>,
}

/// What a scenario on a network has shown.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub(super) struct ScenarioSummary {
    pub network: NetworkKind,
    pub scenario: Scenario,
    #[serde(flatten)]
    pub handshakes: Handshakes,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<LeftOut>,
    /// The best QUIC stack that is not ours.
    pub best_peer: Option<Stack>,
    /// The best mode of Ringway, of each API, among those that wait as they come, with nothing configured, as the others do; and among those that
    /// poll.
    pub best_modes: Vec<Contender>,
    pub contenders: Vec<ContenderSummary>,
}

impl ScenarioSummary {
    /// What people call it, and what it does.
    pub(super) fn describe(&self) -> (String, &'static str) {
        let (name, what) = match self.handshakes.resumed {
            true => RESUMED,
            false => metrics::describe(self.scenario),
        };
        match self.handshakes.group {
            Group::X25519 => (name.to_owned(), what),
            Group::X25519Mlkem768 => (format!("{name}, X25519MLKEM768"), what),
        }
    }

    pub(super) fn contender(&self, contender: Contender) -> Option<&ContenderSummary> {
        self.contenders.iter().find(|other| other.contender == contender)
    }

    /// Its primary figure.
    pub(super) fn primary(&self, contender: Contender) -> Option<Spread> {
        let figures = &self.contender(contender)?.figures;
        figures.get(&Metric::primary(self.scenario)).copied()
    }

    /// The best of Ringway: see [`ScenarioSummary::best_modes`].
    pub(super) fn best_modes(&self) -> impl Iterator<Item = &ContenderSummary> {
        self.best_modes
            .iter()
            .filter_map(|contender| self.contender(*contender))
    }
}

pub(super) fn summarize(comparison: &Comparison) -> Vec<ScenarioSummary> {
    comparison.scenarios.iter().map(summarize_scenario).collect()
}

/// Of one scenario on one network.
pub(super) fn summarize_scenario(runs: &ScenarioRuns) -> ScenarioSummary {
    let contenders = runs
        .contenders
        .iter()
        .map(|contender| summarize_contender(contender, runs.scenario))
        .collect();
    let mut summary = ScenarioSummary {
        network: runs.network,
        scenario: runs.scenario,
        handshakes: runs.handshakes,
        left_out: runs.left_out.clone(),
        best_peer: None,
        best_modes: Vec::new(),
        contenders,
    };
    let primary = Metric::primary(runs.scenario);
    let best = |counts: &dyn Fn(&Contender) -> bool| {
        let candidates = summary.contenders.iter().filter(|entry| counts(&entry.contender));
        let medians =
            candidates.filter_map(|entry| Some((entry.contender, entry.figures.get(&primary)?.median)));
        let better = |a: f64, b: f64| if primary.more_is_better() { a > b } else { a < b };
        medians.reduce(|best, other| if better(other.1, best.1) { other } else { best })
    };
    let peer = best(&|contender| contender.stack.is_quic_peer());
    let is_ours = |contender: &Contender| contender.stack == Stack::Ringway;
    let of = |api, polling| best(&|other| is_ours(other) && (other.api, other.polling) == (api, polling));
    let apis = Api::value_variants().iter();
    let best_modes: Vec<_> = apis
        .flat_map(|api| [of(*api, false), of(*api, true)])
        .flatten()
        .map(|(contender, _)| contender)
        .collect();
    let floors: Vec<_> = summary
        .contenders
        .iter()
        .filter(|entry| entry.contender.datagrams == Some(DatagramKind::Sealed))
        .filter_map(|entry| Some((entry.contender.datapath?, entry.figures.get(&primary)?.median)))
        .collect();
    for entry in &mut summary.contenders {
        let Some(own) = entry.figures.get(&primary).map(|spread| spread.median) else {
            continue;
        };
        if entry.contender.stack == Stack::Floor {
            continue;
        }
        entry.ratio_to_best_peer = peer.map(|(_, peer)| match primary.more_is_better() {
            true => own / peer,
            false => peer / own,
        });
        // The other stacks all use sockets.
        let datapath = entry.contender.datapath.unwrap_or(DatapathKind::Socket).floor();
        let floor = floors.iter().find(|(floor, _)| *floor == datapath);
        entry.ratio_to_floor = floor.map(|(_, floor)| own / floor);
    }
    summary.best_peer = peer.map(|(contender, _)| contender.stack);
    summary.best_modes = best_modes;
    summary
}

fn summarize_contender(runs: &ContenderRuns, scenario: Scenario) -> ContenderSummary {
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
    ContenderSummary {
        contender: runs.contender,
        figures,
        ratio_to_best_peer: None,
        ratio_to_floor: None,
        failures,
    }
}

/// A comparison as JSON: what was measured, with what follows from it.
pub(super) fn to_json(comparison: &Comparison, summaries: &[ScenarioSummary]) -> Result<String> {
    #[derive(Serialize)]
    struct Document<'a> {
        #[serde(flatten)]
        comparison: &'a Comparison,
        summaries: &'a [ScenarioSummary],
    }
    let document = Document {
        comparison,
        summaries,
    };
    Ok(serde_json::to_string_pretty(&document)? + "\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runs(
        stack: Stack,
        datapath: Option<DatapathKind>,
        polling: bool,
        metric: Metric,
        values: &[f64],
    ) -> ContenderRuns {
        let figures = |value: &f64| Outcome::Figures([(metric, *value)].into());
        ContenderRuns {
            contender: Contender {
                datapath,
                polling,
                ..Contender::of(stack)
            },
            runs: values.iter().map(figures).collect(),
        }
    }

    fn scenario_runs(scenario: Scenario, contenders: Vec<ContenderRuns>) -> ScenarioRuns {
        ScenarioRuns {
            network: NetworkKind::Loopback,
            scenario,
            handshakes: Handshakes::default(),
            left_out: Vec::new(),
            contenders,
        }
    }

    #[test]
    fn best_peer_and_best_mode_are_those_with_the_best_median() {
        let goodput =
            |stack, datapath, values: &[f64]| runs(stack, datapath, false, Metric::GoodputGbitS, values);
        let mut floor = goodput(Stack::Floor, Some(DatapathKind::Socket), &[20.0, 20.0, 21.0]);
        floor.contender.datagrams = Some(DatagramKind::Sealed);
        let summary = summarize_scenario(&scenario_runs(
            Scenario::Download,
            vec![
                goodput(Stack::Ringway, Some(DatapathKind::Socket), &[14.0, 11.0, 12.0]),
                goodput(Stack::Ringway, Some(DatapathKind::IoUring), &[15.0, 1.0, 16.0]),
                goodput(Stack::Quinn, None, &[9.0, 10.0, 99.0]),
                goodput(Stack::Quiche, None, &[8.0, 8.0, 8.0]),
                goodput(Stack::TlsTcp, None, &[40.0, 40.0, 40.0]),
                floor,
            ],
        ));
        assert_eq!(summary.best_peer, Some(Stack::Quinn));
        let [best] = summary.best_modes[..] else {
            panic!("{:?}", summary.best_modes);
        };
        assert_eq!(best.datapath, Some(DatapathKind::IoUring));
        let best = summary.contender(best).unwrap();
        assert_eq!(best.ratio_to_best_peer, Some(1.5));
        assert_eq!(best.ratio_to_floor, Some(0.75));
        let spread = best.figures[&Metric::GoodputGbitS];
        assert_eq!((spread.median, spread.min, spread.max), (15.0, 1.0, 16.0));
        let quiche = summary.contender(Contender::of(Stack::Quiche)).unwrap();
        assert_eq!(quiche.ratio_to_best_peer, Some(0.8));
        assert_eq!(
            summary
                .contender(Contender::of(Stack::TlsTcp))
                .unwrap()
                .ratio_to_best_peer,
            Some(4.0)
        );
    }

    #[test]
    fn where_less_is_better_the_ratio_is_turned_round_and_polling_is_told_apart() {
        let latency =
            |stack, datapath, polling, value| runs(stack, datapath, polling, Metric::LatencyP50Us, &[value]);
        let summary = summarize_scenario(&scenario_runs(
            Scenario::Latency,
            vec![
                latency(Stack::Ringway, Some(DatapathKind::Socket), false, 50.0),
                latency(Stack::Ringway, Some(DatapathKind::Socket), true, 15.0),
                latency(Stack::Msquic, None, false, 70.0),
                latency(Stack::Tquic, None, false, 60.0),
            ],
        ));
        assert_eq!(summary.best_peer, Some(Stack::Tquic));
        let ratios: Vec<_> = summary
            .best_modes()
            .map(|entry| entry.ratio_to_best_peer)
            .collect();
        assert_eq!(ratios, [Some(1.2), Some(4.0)]);
    }

    #[test]
    fn lanes_without_figures_keep_their_reasons_and_stand_in_no_ratio() {
        let failed = ContenderRuns {
            contender: Contender::of(Stack::Quinn),
            runs: vec![Outcome::Failure("no program".into()); 3],
        };
        let own = runs(
            Stack::Ringway,
            Some(DatapathKind::Socket),
            false,
            Metric::OperationsPerS,
            &[5.0],
        );
        let summary = summarize_scenario(&scenario_runs(Scenario::Rps, vec![own, failed]));
        assert_eq!(summary.best_peer, None);
        assert_eq!(summary.contenders[0].ratio_to_best_peer, None);
        assert_eq!(summary.contenders[1].failures["no program"], 3);
        assert!(summary.contenders[1].figures.is_empty());
        let nothing = summarize_scenario(&scenario_runs(Scenario::Rps, vec![]));
        assert_eq!((nothing.best_modes, nothing.best_peer), (Vec::new(), None));
    }
}
