//! The figures as tables in Markdown, medians with their spreads: what is kept of a comparison.

use std::fmt::Write;

use super::metrics::{Metric, digits};
use super::runs::{Comparison, Note};
use super::summary::{ContenderSummary, ScenarioSummary};

pub(super) fn render(comparison: &Comparison, summaries: &[ScenarioSummary]) -> String {
    let mut text = String::from("# Ringway beside other QUIC stacks\n\n");
    let [server, client] = comparison.cpus;
    let _ = writeln!(
        text,
        "Medians of {} rounds of {} s in which all took turns, with the lowest and the highest; server on processor {server}, client on \
         processor {client}. Written by `ringperf compare`, as the page with plots is, which says how it was measured.\n",
        comparison.rounds, comparison.seconds
    );
    environment(&mut text, comparison);
    for network in &comparison.networks {
        let _ = writeln!(text, "\n## {}\n", network.network.name());
        let _ = match &network.note {
            Note::Setup(setup) => writeln!(text, "{setup}."),
            Note::Skipped(reason) => writeln!(text, "Skipped: {reason}."),
        };
        let here = |summary: &&ScenarioSummary| summary.network == network.network;
        for summary in summaries.iter().filter(here) {
            scenario(&mut text, summary);
        }
    }
    text
}

fn environment(text: &mut String, comparison: &Comparison) {
    let environment = &comparison.environment;
    let mut item = |name: &str, value: &str| {
        let _ = writeln!(text, "- {name}: {value}");
    };
    item(
        "Processor",
        &format!("{}, {} usable", environment.processor, environment.processors),
    );
    item(
        "System",
        &format!("{}, {}", environment.system, environment.kernel),
    );
    item("Compiler", &environment.rustc);
    item("Date", &environment.date);
    let versions = environment.versions.iter();
    let versions: Vec<_> = versions
        .map(|version| format!("{} {}", version.stack.name(), version.version))
        .collect();
    item("Versions", &versions.join(", "));
    for (calibration, when) in comparison.calibrations.iter().zip(["Before", "After"]) {
        item(when, &calibration.to_string());
    }
    if let Some(interference) = &comparison.interference {
        item("Meanwhile", &interference.to_string());
    }
}

fn scenario(text: &mut String, summary: &ScenarioSummary) {
    let (name, what) = summary.describe();
    let _ = writeln!(text, "\n### {name}\n\n{what}.");
    if !summary.contenders.is_empty() {
        figures(text, summary);
    }
    for left_out in &summary.left_out {
        let _ = writeln!(text, "\n{left_out}.");
    }
}

fn figures(text: &mut String, summary: &ScenarioSummary) {
    let scenario = summary.scenario;
    let metrics = Metric::of(scenario);
    let units = metrics
        .iter()
        .map(|metric| format!("{}, {}", metric.name(scenario), metric.unit(scenario).0));
    let mut header: Vec<_> = [String::new()].into_iter().chain(units).collect();
    header.push("to the best peer".to_owned());
    if scenario.is_bulk() {
        header.push("to the floor".to_owned());
    }
    text.push('\n');
    row(text, &header);
    let _ = writeln!(text, "|---{}", "|--:".repeat(header.len() - 1) + "|");
    for entry in &summary.contenders {
        row(text, &cells(summary, entry));
    }
    for entry in &summary.contenders {
        for reason in entry.failures.keys() {
            let _ = writeln!(text, "\n{}: {reason}.", entry.contender);
        }
    }
}

fn row(text: &mut String, cells: &[String]) {
    let _ = writeln!(text, "| {} |", cells.join(" | "));
}

fn cells(summary: &ScenarioSummary, entry: &ContenderSummary) -> Vec<String> {
    let scenario = summary.scenario;
    let is_best = summary.best_peer == Some(entry.contender.stack);
    let mut cells = vec![match is_best {
        true => format!("**{}**", entry.contender),
        false => entry.contender.to_string(),
    }];
    for metric in Metric::of(scenario) {
        let spread = entry.figures.get(metric);
        let text = spread.map(|spread| spread.in_unit(metric.unit(scenario).1));
        cells.push(text.unwrap_or_default());
    }
    let ratio = |ratio: Option<f64>| {
        ratio
            .map(|ratio| format!("{} ×", digits(ratio)))
            .unwrap_or_default()
    };
    cells.push(ratio(entry.ratio_to_best_peer));
    if scenario.is_bulk() {
        cells.push(ratio(entry.ratio_to_floor));
    }
    cells
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::{example, summary};

    #[test]
    fn tables_have_all_lanes_with_spreads_units_and_reasons() {
        let comparison = example::comparison();
        let text = render(&comparison, &summary::summarize(&comparison));
        for expected in [
            "| Ringway io_uring | 12.0 (11.0 to 13.0) | 0.67 (0.61 to 0.72) |",
            "| **quinn** | 8.00 (7.33 to 8.67) |",
            "| Goodput, Gbit/s | Server CPU, s/GB |",
            " | 1.50 × | 0.50 × |\n",
            "MsQuic: msquic-peer is not there.",
            "### Resumed handshakes, X25519MLKEM768\n",
            "tquic is left out: it has no setting.",
            "### Latency of a connection with a request in 0-RTT\n",
            "s2n-quic is left out: it has no 0-RTT.",
            "Skipped: network namespaces need root.",
            "- Versions: Ringway 0.1.0\n",
        ] {
            assert!(text.contains(expected), "{expected} is missing:\n{text}");
        }
    }
}
