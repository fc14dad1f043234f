//! The page: one file that needs no other, for wide screens and telephones, in the light and in the dark.

use std::collections::BTreeMap;

use anyhow::Result;
use clap::ValueEnum;
use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::conclusion::{Conclusion, ContenderConclusion, Spread};
use super::contenders::{Contender, NetworkKind, Stack};
use super::metrics::{Metric, describe, digits};
use super::results::{Measured, Note};
use super::{colors, method, plots};

const STYLE: &str = include_str!("page.css");
/// Ratios within it say that both are as good.
const LEVEL: std::ops::RangeInclusive<f64> = 0.97..=1.03;
/// What other programs may take of the processors before readers have to know.
const QUIET_MAX: f64 = 0.03;

pub(super) fn render(measured: &Measured, conclusions: &[Conclusion]) -> Result<String> {
    let networks: Vec<_> = measured.networks.iter().map(|network| network.network).collect();
    let mut sections = Vec::new();
    for network in &networks {
        sections.push(section(measured, *network, conclusions)?);
    }
    let picture = plots::picture(conclusions)?;
    let environment = &measured.environment;
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
                    ". Medians of " (measured.rounds) " rounds in which all took turns, " (measured.seconds) " s each; one processor for the "
                    "server, one for the client."
                }
                nav {
                    @for network in &networks { a href={ "#" (id(*network)) } { (network.name()) } }
                    a href="#method" { "Method" }
                    a href="#environment" { "Environment" }
                }
                div.picture { (PreEscaped(&picture)) }
                (headline(conclusions))
                @if let Some(interference) = measured.interference && interference.others > QUIET_MAX {
                    div.notice {
                        h3 { "This machine was busy" }
                        p { "While this was measured, " (interference) ". Trust figures of a quiet machine only." }
                    }
                }
                (missing(measured, conclusions))
                @for section in &sections { (section) }
                (method::method(measured))
                (method::environment(measured))
            }
        }
    };
    Ok(page.into_string())
}

fn id(network: NetworkKind) -> String {
    let value = network.to_possible_value();
    value.map(|value| value.get_name().to_owned()).unwrap_or_default()
}

/// How a figure is told: in its unit, with three digits.
fn number(value: f64, conclusion: &Conclusion, metric: Metric) -> String {
    digits(value / metric.unit(conclusion.scenario).1)
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
fn headline(conclusions: &[Conclusion]) -> Markup {
    let has_figures = |stack: &&Stack| {
        stack.peer().is_some()
            && conclusions
                .iter()
                .any(|conclusion| conclusion.chief(Contender::of(**stack)).is_some())
    };
    let others: Vec<_> = Stack::value_variants().iter().filter(has_figures).collect();
    let mut networks: Vec<NetworkKind> = conclusions.iter().map(|conclusion| conclusion.network).collect();
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
                    @for conclusion in conclusions.iter().filter(|conclusion| conclusion.network == network) {
                        @for contender in conclusion.best_modes() { (headline_row(conclusion, contender, &others)) }
                    }
                }
            }
        }
    }
}

fn headline_row(conclusion: &Conclusion, own: &ContenderConclusion, others: &[&Stack]) -> Markup {
    let chief = Metric::chief(conclusion.scenario);
    let text = |spread: Spread| number(spread.median, conclusion, chief);
    let name = describe(conclusion.scenario).0;
    html! {
        tr {
            td {
                (name) @if own.contender.polling { ", polling" }
                small { (chief.unit(conclusion.scenario).0) }
            }
            td.own data-name="Ringway" {
                span { @if let Some(spread) = conclusion.chief(own.contender) { (text(spread)) } small { (own.contender.mode()) } }
            }
            td.ratios { @if let Some(ratio) = own.of_best_peer { (pill(ratio)) } }
            @for stack in others {
                @let spread = conclusion.chief(Contender::of(**stack));
                @let best = conclusion.best_peer == Some(**stack);
                td.best[best].none[spread.is_none()] data-name=(stack.name()) {
                    @if let Some(spread) = spread { span { (text(spread)) } } @else { span { "–" } }
                }
            }
        }
    }
}

/// What is not there, and why: nothing is left out in silence.
fn missing(measured: &Measured, conclusions: &[Conclusion]) -> Markup {
    let mut reasons: BTreeMap<(String, &str), Vec<String>> = BTreeMap::new();
    for conclusion in conclusions {
        for contender in &conclusion.contenders {
            for (reason, count) in &contender.failures {
                let place = format!(
                    "{}, {}",
                    conclusion.network.name(),
                    describe(conclusion.scenario).0
                );
                let rounds = if *count as u32 == measured.rounds {
                    place
                } else {
                    format!("{place} ({count} of {} rounds)", measured.rounds)
                };
                reasons
                    .entry((contender.contender.to_string(), reason))
                    .or_default()
                    .push(rounds);
            }
        }
    }
    let blocks = conclusions.len();
    let skipped = measured
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
                                @if places.len() == blocks { "(everywhere)" } @else { "(" (places.join("; ")) ")" }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn section(measured: &Measured, network: NetworkKind, conclusions: &[Conclusion]) -> Result<Markup> {
    let note = measured.networks.iter().find(|found| found.network == network);
    let mut scenarios = Vec::new();
    for conclusion in conclusions
        .iter()
        .filter(|conclusion| conclusion.network == network)
    {
        scenarios.push(scenario(conclusion)?);
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

fn scenario(conclusion: &Conclusion) -> Result<Markup> {
    let (name, what) = describe(conclusion.scenario);
    let mut drawn = Vec::new();
    for metric in &Metric::of(conclusion.scenario)[..2] {
        if let Some(svg) = plots::panel(conclusion, *metric)? {
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
                @for contender in conclusion.best_modes() {
                    @if let (Some(ratio), Some(peer)) = (contender.of_best_peer, conclusion.best_peer) {
                        span { (pill(ratio)) " " small { (contender.contender.mode()) " to " (peer.name()) } }
                    }
                }
            }
            p.muted { (what) "." }
            div.plots {
                @for (metric, svg) in &drawn {
                    div {
                        h4 { (metric.name(conclusion.scenario)) ", " (metric.unit(conclusion.scenario).0) " (" (better(*metric)) ")" }
                        (PreEscaped(svg))
                    }
                }
            }
            details { summary { "All figures" } div.scroll { (all_figures(conclusion)) } }
        }
    })
}

fn all_figures(conclusion: &Conclusion) -> Markup {
    let scenario = conclusion.scenario;
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
                @for contender in &conclusion.contenders {
                    tr {
                        td { (contender.contender) }
                        @for metric in metrics {
                            td {
                                @if let Some(spread) = contender.figures.get(metric) {
                                    (number(spread.median, conclusion, *metric))
                                    small {
                                        (number(spread.min, conclusion, *metric)) " to " (number(spread.max, conclusion, *metric))
                                    }
                                }
                            }
                        }
                        td { @if let Some(ratio) = contender.of_best_peer { (digits(ratio)) } }
                        @if scenario.is_bulk() { td { @if let Some(ratio) = contender.of_floor { (digits(ratio)) } } }
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::{conclusion, example};

    fn page() -> String {
        let measured = example::measured();
        render(&measured, &conclusion::conclude(&measured)).unwrap()
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
        ] {
            assert!(page.contains(expected), "{expected} is missing");
        }
        assert!(!page.contains("NaN") && !page.contains("inf "));
    }
}
