//! For people at a terminal: how far it is, the figures so far, and tables in the end.

use std::collections::BTreeSet;
use std::io::IsTerminal;
use std::time::Duration;

use comfy_table::{CellAlignment, LineStyle, Table, presets};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::conclusion::{Conclusion, ContenderConclusion, Spread};
use super::contenders::Contender;
use super::metrics::{Metric, describe, digits};
use crate::output;

/// A bar in units of the time that things take, with the table of what is being measured above it.
pub(super) struct Progress {
    bar: ProgressBar,
    /// Reasons of failures that were told.
    told: BTreeSet<String>,
}

impl Progress {
    pub(super) fn start(estimate: Duration) -> Self {
        let bar = ProgressBar::new(estimate.as_millis() as u64);
        if !std::io::stderr().is_terminal() {
            bar.set_draw_target(ProgressDrawTarget::hidden());
        }
        let template = "{msg}\n{wide_bar} {percent} %, {eta} left, now {prefix}";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        Progress {
            bar,
            told: BTreeSet::new(),
        }
    }

    /// What has its turn.
    pub(super) fn begin(&self, contender: Contender) {
        self.bar.set_prefix(contender.to_string());
    }

    /// Something of this length is done; these are the figures so far.
    pub(super) fn advance(&self, by: Duration, conclusion: &Conclusion) {
        if !self.bar.is_hidden() {
            self.bar.set_message(table(conclusion));
        }
        self.bar.inc(by.as_millis() as u64);
    }

    /// Prints what a scenario has shown, and what has failed in it that did not before.
    pub(super) fn conclude(&mut self, conclusion: &Conclusion) {
        let failures = failures(conclusion).into_iter();
        let failures: Vec<_> = failures.filter(|line| self.told.insert(line.clone())).collect();
        self.say(&format!("{}\n{}", table(conclusion), failures.join("\n")));
    }

    /// Prints something that stays.
    pub(super) fn say(&self, text: &str) {
        self.bar.set_message("");
        self.bar.suspend(|| output::print_line(text));
    }

    pub(super) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

/// Without lines but that below the header.
fn plain_table() -> Table {
    let mut table = Table::new();
    let line = LineStyle::none().fill('─').junction('─');
    table.load_style(presets::NOTHING.header_separator(line));
    table
}

/// What a scenario has shown so far.
fn table(conclusion: &Conclusion) -> String {
    let scenario = conclusion.scenario;
    let metrics = Metric::of(scenario);
    let units = metrics
        .iter()
        .map(|metric| format!("{}\n{}", metric.name(scenario), metric.unit(scenario).0));
    let mut header: Vec<_> = [String::new()].into_iter().chain(units).collect();
    header.extend(["× best\npeer".to_owned(), "× floor".to_owned()]);
    let mut rows: Vec<_> = conclusion
        .contenders
        .iter()
        .map(|contender| row(conclusion, contender))
        .collect();
    // Columns that nothing stands in only take room.
    for column in (0..header.len()).rev() {
        if rows.iter().all(|row| row[column].is_empty()) {
            header.remove(column);
            rows.iter_mut().for_each(|row| drop(row.remove(column)));
        }
    }
    let mut table = plain_table();
    table.set_header(header).add_rows(rows);
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    let (name, what) = describe(scenario);
    format!("{}: {name} ({what})\n{table}", conclusion.network.name())
}

fn row(conclusion: &Conclusion, contender: &ContenderConclusion) -> Vec<String> {
    let scenario = conclusion.scenario;
    let is_best = conclusion.best_peer == Some(contender.contender.stack);
    let mut row = vec![format!(
        "{}{}",
        contender.contender,
        if is_best { " *" } else { "" }
    )];
    for metric in Metric::of(scenario) {
        let divisor = metric.unit(scenario).1;
        let is_chief = *metric == Metric::chief(scenario);
        row.push(match contender.figures.get(metric) {
            Some(spread) if is_chief => spread.in_unit(divisor),
            Some(spread) => digits(spread.median / divisor),
            None if is_chief && !contender.failures.is_empty() => "failed".to_owned(),
            None => String::new(),
        });
    }
    row.extend(
        [contender.of_best_peer, contender.of_floor].map(|ratio| ratio.map(digits).unwrap_or_default()),
    );
    row
}

/// What has failed, and why.
fn failures(conclusion: &Conclusion) -> Vec<String> {
    let contenders = conclusion.contenders.iter();
    let lines = contenders.flat_map(|contender| {
        contender
            .failures
            .keys()
            .map(move |reason| format!("{}: {reason}", contender.contender))
    });
    lines.collect()
}

/// The sum of a comparison, a line for each scenario.
pub(super) fn summary(conclusions: &[Conclusion]) -> String {
    let mut table = plain_table();
    table.set_header(["", "Ringway, best mode", "best peer", "ratio"]);
    for conclusion in conclusions {
        let chief = Metric::chief(conclusion.scenario);
        let (unit, divisor) = chief.unit(conclusion.scenario);
        let text = |spread: Spread| format!("{} {unit}", digits(spread.median / divisor));
        let peer = conclusion.best_peer.map(|stack| {
            let spread = conclusion.chief(Contender::of(stack));
            let figure = spread.map(text).unwrap_or_default();
            format!("{} {figure}", stack.name())
        });
        for contender in conclusion.best_modes() {
            let own = conclusion
                .chief(contender.contender)
                .map(text)
                .unwrap_or_default();
            table.add_row([
                format!(
                    "{}: {}",
                    conclusion.network.name(),
                    describe(conclusion.scenario).0
                ),
                format!("{own}, {}", contender.contender.mode()),
                peer.clone().unwrap_or_else(|| "none".to_owned()),
                contender
                    .of_best_peer
                    .map(|ratio| format!("{} ×", digits(ratio)))
                    .unwrap_or_default(),
            ]);
        }
    }
    table.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::contenders::Stack;
    use crate::compare::{conclusion, example};

    #[test]
    fn tables_have_all_lanes_units_and_reasons() {
        let conclusions = conclusion::conclude(&example::measured());
        let download = table(&conclusions[0]);
        for expected in [
            "Gbit/s",
            "s/GB",
            "Ringway io_uring",
            "quinn *",
            "12.0 (11.0 to 13.0)",
            "MsQuic",
        ] {
            assert!(download.contains(expected), "{expected} is missing:\n{download}");
        }
        assert_eq!(failures(&conclusions[0]), ["MsQuic: msquic-peer is not there"]);
        let summary = summary(&conclusions);
        assert!(
            summary.contains("quinn 8.00 Gbit/s") && summary.contains("1.50 ×"),
            "{summary}"
        );
        assert!(summary.contains(Stack::Tquic.name()), "{summary}");
    }
}
