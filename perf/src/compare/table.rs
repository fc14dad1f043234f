//! The figures as tables in Markdown, medians with their spreads: what is kept of a comparison.

use std::fmt::Write;

use super::conclusion::{Conclusion, ContenderConclusion};
use super::metrics::{Metric, describe, digits};
use super::results::{Measured, Note};

pub(super) fn render(measured: &Measured, conclusions: &[Conclusion]) -> String {
    let mut text = String::from("# Ringway beside other QUIC stacks\n\n");
    let [server, client] = measured.cpus;
    let _ = writeln!(
        text,
        "Medians of {} rounds of {} s in which all took turns, with the lowest and the highest; server on processor {server}, client on \
         processor {client}. Written by `ringperf compare`, as the page with plots is, which says how it was measured.\n",
        measured.rounds, measured.seconds
    );
    environment(&mut text, measured);
    for network in &measured.networks {
        let _ = writeln!(text, "\n## {}\n", network.network.name());
        let _ = match &network.note {
            Note::Setup(setup) => writeln!(text, "{setup}."),
            Note::Skipped(reason) => writeln!(text, "Skipped: {reason}."),
        };
        let here = |conclusion: &&Conclusion| conclusion.network == network.network;
        for conclusion in conclusions.iter().filter(here) {
            scenario(&mut text, conclusion);
        }
    }
    text
}

fn environment(text: &mut String, measured: &Measured) {
    let environment = &measured.environment;
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
    for (calibration, when) in measured.calibrations.iter().zip(["Before", "After"]) {
        item(when, &calibration.to_string());
    }
    if let Some(interference) = &measured.interference {
        item("Meanwhile", &interference.to_string());
    }
}

fn scenario(text: &mut String, conclusion: &Conclusion) {
    let scenario = conclusion.scenario;
    let metrics = Metric::of(scenario);
    let (name, what) = describe(scenario);
    let _ = writeln!(text, "\n### {name}\n\n{what}.\n");
    let units = metrics
        .iter()
        .map(|metric| format!("{}, {}", metric.name(scenario), metric.unit(scenario).0));
    let mut header: Vec<_> = [String::new()].into_iter().chain(units).collect();
    header.push("to the best peer".to_owned());
    if scenario.is_bulk() {
        header.push("to the floor".to_owned());
    }
    row(text, &header);
    let _ = writeln!(text, "|---{}", "|--:".repeat(header.len() - 1) + "|");
    for contender in &conclusion.contenders {
        row(text, &cells(conclusion, contender));
    }
    for contender in &conclusion.contenders {
        for reason in contender.failures.keys() {
            let _ = writeln!(text, "\n{}: {reason}.", contender.contender);
        }
    }
}

fn row(text: &mut String, cells: &[String]) {
    let _ = writeln!(text, "| {} |", cells.join(" | "));
}

fn cells(conclusion: &Conclusion, contender: &ContenderConclusion) -> Vec<String> {
    let scenario = conclusion.scenario;
    let is_best = conclusion.best_peer == Some(contender.contender.stack);
    let mut cells = vec![match is_best {
        true => format!("**{}**", contender.contender),
        false => contender.contender.to_string(),
    }];
    for metric in Metric::of(scenario) {
        let spread = contender.figures.get(metric);
        let text = spread.map(|spread| spread.in_unit(metric.unit(scenario).1));
        cells.push(text.unwrap_or_default());
    }
    let ratio = |ratio: Option<f64>| {
        ratio
            .map(|ratio| format!("{} ×", digits(ratio)))
            .unwrap_or_default()
    };
    cells.push(ratio(contender.of_best_peer));
    if scenario.is_bulk() {
        cells.push(ratio(contender.of_floor));
    }
    cells
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::{conclusion, example};

    #[test]
    fn tables_have_all_lanes_with_spreads_units_and_reasons() {
        let measured = example::measured();
        let text = render(&measured, &conclusion::conclude(&measured));
        for expected in [
            "| Ringway io_uring | 12.0 (11.0 to 13.0) | 0.67 (0.61 to 0.72) |",
            "| **quinn** | 8.00 (7.33 to 8.67) |",
            "| Goodput, Gbit/s | Server CPU, s/GB |",
            " | 1.50 × | 0.50 × |\n",
            "MsQuic: msquic-peer is not there.",
            "Skipped: network namespaces need root.",
            "- Versions: Ringway 0.1.0\n",
        ] {
            assert!(text.contains(expected), "{expected} is missing:\n{text}");
        }
    }
}
