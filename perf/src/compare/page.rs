//! The page: one file that needs no other, for wide screens and telephones, in the light and in the dark.

use std::collections::BTreeMap;

use anyhow::Result;
use clap::ValueEnum;
use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::contenders::{Contender, NetworkKind, Stack};
use super::metrics::{Metric, digits};
use super::runs::{Comparison, LeftOut, Note};
use super::summary::{ContenderSummary, ScenarioSummary, Spread};
use super::{colors, method, plots};

const STYLE: &str = include_str!("page.css");
/// Ratios within it say that both are as good.
const LEVEL: std::ops::RangeInclusive<f64> = 0.97..=1.03;
/// What other programs may take of the processors before readers have to know.
const QUIET_MAX: f64 = 0.03;

pub(super) fn render(comparison: &Comparison, summaries: &[ScenarioSummary]) -> Result<String> {
    let networks: Vec<_> = comparison
        .networks
        .iter()
        .map(|network| network.network)
        .collect();
    let mut sections = Vec::new();
    for network in &networks {
        sections.push(section(comparison, *network, summaries)?);
    }
    let picture = plots::picture(summaries)?;
    let environment = &comparison.environment;
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { "Ringway beside other QUIC stacks" }
                style { (PreEscaped(colors::style())) (PreEscaped(STYLE)) }
            }
            body {
                h1 { "Ringway beside other QUIC stacks" }
                p.muted {
                    (environment.processor) ", " (environment.kernel) ", " (environment.date.split('T').next().unwrap_or_default())
                    ". Medians of " (comparison.rounds) " rounds in which all took turns, " (comparison.seconds) " s each; one processor for the "
                    "server, one for the client."
                }
                nav {
                    @for network in &networks { a href={ "#" (id(*network)) } { (network.name()) } }
                    a href="#method" { "Method" }
                    a href="#environment" { "Environment" }
                }
                div.picture { (PreEscaped(&picture)) }
                (headline(summaries))
                @if let Some(interference) = comparison.interference && interference.others > QUIET_MAX {
                    div.notice {
                        h3 { "This machine was busy" }
                        p { "While this was measured, " (interference) ". Trust figures of a quiet machine only." }
                    }
                }
                (missing(comparison, summaries))
                @for section in &sections { (section) }
                (method::method(comparison))
                (method::environment(comparison))
            }
        }
    };
    Ok(page.into_string())
}

fn id(network: NetworkKind) -> String {
    let value = network.to_possible_value();
    value.map(|value| value.get_name().to_owned()).unwrap_or_default()
}

/// A figure in its unit, with three digits.
fn number(value: f64, summary: &ScenarioSummary, metric: Metric) -> String {
    digits(value / metric.unit(summary.scenario).1)
}

fn pill(ratio: f64) -> Markup {
    let class = match ratio {
        level if LEVEL.contains(&level) => "level",
        ahead if ahead > 1.0 => "ahead",
        _ => "behind",
    };
    html! { span class={ "ratio " (class) } { (digits(ratio)) " ×" } }
}

/// All scenarios at a glance: ours first, the best of the others marked.
fn headline(summaries: &[ScenarioSummary]) -> Markup {
    let has_figures = |stack: &&Stack| {
        stack.peer().is_some()
            && summaries
                .iter()
                .any(|summary| summary.primary(Contender::of(**stack)).is_some())
    };
    let others: Vec<_> = Stack::value_variants().iter().filter(has_figures).collect();
    let mut networks: Vec<NetworkKind> = summaries.iter().map(|summary| summary.network).collect();
    networks.dedup();
    html! {
        p {
            "The ratio is that of Ringway, in its best mode, to the best of the other QUIC stacks, marked " span.best { "★" }
            ": more than one is better for Ringway, also where less is better of the figure itself. "
            "TLS over TCP is there for reference and in no ratio."
        }
        table.headline {
            thead {
                tr {
                    th {} th { "Ringway" } th { "ratio" }
                    @for stack in &others { th { (stack.name()) } }
                }
            }
            @for network in networks {
                tbody {
                    tr.network { th colspan=(others.len() + 3) { (network.name()) } }
                    @for summary in summaries.iter().filter(|summary| summary.network == network) {
                        @for entry in summary.best_modes() { (headline_row(summary, entry, &others)) }
                    }
                }
            }
        }
    }
}

fn headline_row(summary: &ScenarioSummary, own: &ContenderSummary, others: &[&Stack]) -> Markup {
    let primary = Metric::primary(summary.scenario);
    let text = |spread: Spread| number(spread.median, summary, primary);
    let name = summary.describe().0;
    html! {
        tr {
            td {
                (name) (own.contender.variety())
                small { (primary.unit(summary.scenario).0) }
            }
            td.own data-name="Ringway" {
                span { @if let Some(spread) = summary.primary(own.contender) { (text(spread)) } small { (own.contender.mode()) } }
            }
            td.ratios { @if let Some(ratio) = own.ratio_to_best_peer { (pill(ratio)) } }
            @for stack in others {
                @let spread = summary.primary(Contender::of(**stack));
                @let best = summary.best_peer == Some(**stack);
                td.best[best].none[spread.is_none()] data-name=(stack.name()) {
                    @if let Some(spread) = spread { span { (text(spread)) } } @else { span { "–" } }
                }
            }
        }
    }
}

/// What is not there, and why: nothing is left out in silence.
fn missing(comparison: &Comparison, summaries: &[ScenarioSummary]) -> Markup {
    let mut reasons: BTreeMap<(String, &str), Vec<String>> = BTreeMap::new();
    for summary in summaries {
        for LeftOut { stack, reason } in &summary.left_out {
            let place = format!("{}, {}", summary.network.name(), summary.describe().0);
            reasons
                .entry((stack.name().to_owned(), reason))
                .or_default()
                .push(place);
        }
        for entry in &summary.contenders {
            for (reason, count) in &entry.failures {
                let place = format!("{}, {}", summary.network.name(), summary.describe().0);
                let rounds = if *count as u32 == comparison.rounds {
                    place
                } else {
                    format!("{place} ({count} of {} rounds)", comparison.rounds)
                };
                reasons
                    .entry((entry.contender.to_string(), reason))
                    .or_default()
                    .push(rounds);
            }
        }
    }
    let scenarios = summaries.len();
    let skipped = comparison
        .networks
        .iter()
        .filter_map(|network| match &network.note {
            Note::Skipped(reason) => Some((network.network, reason)),
            Note::Setup(_) => None,
        });
    let skipped: Vec<_> = skipped.collect();
    html! {
        @if !reasons.is_empty() || !skipped.is_empty() {
            div.notice {
                h3 { "Missing, or not in all rounds" }
                ul {
                    @for (network, reason) in skipped { li { b { (network.name()) } ": " (reason) } }
                    @for ((contender, reason), places) in &reasons {
                        li {
                            b { (contender) } ": " (reason) " "
                            small {
                                @if places.len() == scenarios { "(everywhere)" } @else { "(" (places.join("; ")) ")" }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn section(comparison: &Comparison, network: NetworkKind, summaries: &[ScenarioSummary]) -> Result<Markup> {
    let note = comparison.networks.iter().find(|found| found.network == network);
    let mut scenarios = Vec::new();
    for summary in summaries.iter().filter(|summary| summary.network == network) {
        scenarios.push(scenario(summary)?);
    }
    Ok(html! {
        h2 id=(id(network)) { (network.name()) }
        @match note.map(|found| &found.note) {
            Some(Note::Setup(setup)) => p.muted { (setup) "." },
            Some(Note::Skipped(reason)) => p.muted { "Skipped: " (reason) "." },
            None => {},
        }
        @if !scenarios.is_empty() { (legend()) }
        @for scenario in &scenarios { (scenario) }
    })
}

fn legend() -> Markup {
    html! {
        div.legend {
            @for (variable, name) in [
                ("ringway", "Ringway"), ("best-peer", "best other QUIC stack"), ("peer", "other QUIC stacks"),
                ("reference", "TLS over TCP, for reference"), ("floor", "no protocol: copied, sealed, sent"),
            ] {
                span { i style={ "background: var(--" (variable) ")" } {} (name) }
            }
            span { i.range {} "from the lowest to the highest of all rounds; the bar is the median" }
        }
    }
}

fn scenario(summary: &ScenarioSummary) -> Result<Markup> {
    let (name, what) = summary.describe();
    let mut drawn = Vec::new();
    for metric in &Metric::of(summary.scenario)[..2] {
        if let Some(svg) = plots::panel(summary, *metric)? {
            drawn.push((*metric, svg));
        }
    }
    let better = |metric: Metric| {
        if metric.more_is_better() {
            "more is better"
        } else {
            "less is better"
        }
    };
    Ok(html! {
        section.scenario {
            header {
                h3 { (name) }
                @for entry in summary.best_modes() {
                    @if let (Some(ratio), Some(peer)) = (entry.ratio_to_best_peer, summary.best_peer) {
                        span { (pill(ratio)) " " small { (entry.contender.mode()) " to " (peer.name()) } }
                    }
                }
            }
            p.muted { (what) "." }
            div.plots {
                @for (metric, svg) in &drawn {
                    div {
                        h4 { (metric.name(summary.scenario)) ", " (metric.unit(summary.scenario).0) " (" (better(*metric)) ")" }
                        (PreEscaped(svg))
                    }
                }
            }
            details { summary { "All figures" } div.scroll { (all_figures(summary)) } }
        }
    })
}

fn all_figures(summary: &ScenarioSummary) -> Markup {
    let scenario = summary.scenario;
    let metrics = Metric::of(scenario);
    html! {
        table {
            thead {
                tr {
                    th {}
                    @for metric in metrics { th { (metric.name(scenario)) br; (metric.unit(scenario).0) } }
                    th { "ratio to the" br; "best peer" }
                    @if scenario.is_bulk() { th { "ratio to" br; "the floor" } }
                }
            }
            tbody {
                @for entry in &summary.contenders {
                    tr {
                        td { (entry.contender) }
                        @for metric in metrics {
                            td {
                                @if let Some(spread) = entry.figures.get(metric) {
                                    (number(spread.median, summary, *metric))
                                    small {
                                        (number(spread.min, summary, *metric)) " to " (number(spread.max, summary, *metric))
                                    }
                                }
                            }
                        }
                        td { @if let Some(ratio) = entry.ratio_to_best_peer { (digits(ratio)) } }
                        @if scenario.is_bulk() { td { @if let Some(ratio) = entry.ratio_to_floor { (digits(ratio)) } } }
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::{example, summary};

    fn page() -> String {
        let comparison = example::comparison();
        render(&comparison, &summary::summarize(&comparison)).unwrap()
    }

    #[test]
    fn the_page_needs_nothing_from_elsewhere() {
        let page = page().replace("http://www.w3.org/2000/svg", "");
        for reference in [
            "http:", "https:", "//", "<script", "<link", "<img", "src=", "url(", "@import",
        ] {
            assert!(!page.contains(reference), "{reference}");
        }
        assert!(page.contains("name=\"viewport\"") && page.contains("prefers-color-scheme: dark"));
    }

    #[test]
    fn the_page_has_figures_with_units_and_the_reasons_for_those_that_are_missing() {
        let page = page();
        for expected in [
            "Gbit/s",
            "s/GB",
            "µs",
            "1.50 ×",
            "io_uring to quinn",
            "more is better",
            "less is better",
            "msquic-peer is not there",
            "network namespaces need root",
            "Some &lt;Processor&gt; &amp; more",
            "Latency of a request, polling",
            ", tasks<small>",
            "at the client a task for each stream at a time",
        ] {
            assert!(page.contains(expected), "{expected} is missing");
        }
        assert!(!page.contains("NaN") && !page.contains("inf "));
    }
}
