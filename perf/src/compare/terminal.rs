//! For people at a terminal: how far it is, the figures so far, and tables in the end.

use std::collections::BTreeSet;
use std::io::IsTerminal;
use std::time::Duration;

use comfy_table::{CellAlignment, LineStyle, Table, presets};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::contenders::Contender;
use super::metrics::{Metric, digits};
use super::runs::LeftOut;
use super::summary::{ContenderSummary, ScenarioSummary, Spread};
use crate::output;

/// A bar in units of the time that things take, with the table of what is being measured above it.
pub(super) struct Progress {
    bar: ProgressBar,
    /// Failures that were printed.
    reported: BTreeSet<String>,
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
            reported: BTreeSet::new(),
        }
    }

    /// What has its turn.
    pub(super) fn begin(&self, contender: Contender) {
        self.bar.set_prefix(contender.to_string());
    }

    /// Something of this length is done; these are the figures so far.
    pub(super) fn advance(&self, by: Duration, summary: &ScenarioSummary) {
        if !self.bar.is_hidden() {
            self.bar.set_message(table(summary));
        }
        self.bar.inc(by.as_millis() as u64);
    }

    /// Prints what a scenario has shown, and what has failed in it that did not before.
    pub(super) fn finish_scenario(&mut self, summary: &ScenarioSummary) {
        let failures = failures(summary).into_iter();
        let failures: Vec<_> = failures
            .filter(|line| self.reported.insert(line.clone()))
            .collect();
        self.print(&format!("{}\n{}", table(summary), failures.join("\n")));
    }

    /// Prints something that stays.
    pub(super) fn print(&self, text: &str) {
        self.bar.set_message("");
        // Where standard output takes nothing, the table at the end fails the run, when the files with the figures are written.
        let _ = self.bar.suspend(|| output::print_line(text));
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
fn table(summary: &ScenarioSummary) -> String {
    let scenario = summary.scenario;
    let (name, what) = summary.describe();
    let title = format!("{}: {name} ({what})", summary.network.name());
    if summary.contenders.is_empty() {
        return title;
    }
    let metrics = Metric::of(scenario);
    let units = metrics
        .iter()
        .map(|metric| format!("{}\n{}", metric.name(scenario), metric.unit(scenario).0));
    let mut header: Vec<_> = [String::new()].into_iter().chain(units).collect();
    header.extend(["× best\npeer".to_owned(), "× floor".to_owned()]);
    let mut rows: Vec<_> = summary
        .contenders
        .iter()
        .map(|entry| row(summary, entry))
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
    format!("{title}\n{table}")
}

fn row(summary: &ScenarioSummary, entry: &ContenderSummary) -> Vec<String> {
    let scenario = summary.scenario;
    let is_best = summary.best_peer == Some(entry.contender.stack);
    let mut row = vec![format!("{}{}", entry.contender, if is_best { " *" } else { "" })];
    for metric in Metric::of(scenario) {
        let divisor = metric.unit(scenario).1;
        let is_primary = *metric == Metric::primary(scenario);
        row.push(match entry.figures.get(metric) {
            Some(spread) if is_primary => spread.in_unit(divisor),
            Some(spread) => digits(spread.median / divisor),
            None if is_primary && !entry.failures.is_empty() => "failed".to_owned(),
            None => String::new(),
        });
    }
    row.extend(
        [entry.ratio_to_best_peer, entry.ratio_to_floor].map(|ratio| ratio.map(digits).unwrap_or_default()),
    );
    row
}

/// What has failed or was left out, and why.
fn failures(summary: &ScenarioSummary) -> Vec<String> {
    let contenders = summary.contenders.iter();
    let lines = contenders.flat_map(|entry| {
        entry
            .failures
            .keys()
            .map(move |reason| format!("{}: {reason}", entry.contender))
    });
    let left_out = summary.left_out.iter();
    lines.chain(left_out.map(LeftOut::to_string)).collect()
}

/// All of a comparison, a line for each scenario.
pub(super) fn overview(summaries: &[ScenarioSummary]) -> String {
    let mut table = plain_table();
    table.set_header(["", "Ringway, best mode", "best peer", "ratio"]);
    for summary in summaries {
        let primary = Metric::primary(summary.scenario);
        let (unit, divisor) = primary.unit(summary.scenario);
        let text = |spread: Spread| format!("{} {unit}", digits(spread.median / divisor));
        let peer = summary.best_peer.map(|stack| {
            let spread = summary.primary(Contender::of(stack));
            let figure = spread.map(text).unwrap_or_default();
            format!("{} {figure}", stack.name())
        });
        for entry in summary.best_modes() {
            let own = summary.primary(entry.contender).map(text).unwrap_or_default();
            table.add_row([
                format!("{}: {}", summary.network.name(), summary.describe().0),
                format!("{own}, {}", entry.contender.mode()),
                peer.clone().unwrap_or_else(|| "none".to_owned()),
                entry
                    .ratio_to_best_peer
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
    use crate::compare::{example, summary};

    #[test]
    fn tables_have_all_lanes_units_and_reasons() {
        let summaries = summary::summarize(&example::comparison());
        let download = table(&summaries[0]);
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
        assert_eq!(failures(&summaries[0]), ["MsQuic: msquic-peer is not there"]);
        let nobody = &summaries[3];
        assert_eq!(table(nobody).lines().count(), 1, "{}", table(nobody));
        assert_eq!(failures(nobody), ["s2n-quic is left out: it has no 0-RTT"]);
        let overview = overview(&summaries);
        assert!(
            overview.contains("quinn 8.00 Gbit/s") && overview.contains("1.50 ×"),
            "{overview}"
        );
        assert!(overview.contains(Stack::Tquic.name()), "{overview}");
    }
}
