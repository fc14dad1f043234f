//! What is drawn: the figures of a scenario, and the ratios of all scenarios in one picture.

use anyhow::Result;

use super::bars::{Bar, Bars, Row, Scale};
use super::colors::{self, Role};
use super::contenders::{NetworkKind, Stack};
use super::metrics::{Metric, digits};
use super::summary::{ContenderSummary, ScenarioSummary, Spread};
use crate::floor::DatagramKind;

/// A figure of all contenders of a scenario; `None` if no contender has it.
pub(super) fn panel(summary: &ScenarioSummary, metric: Metric) -> Result<Option<String>> {
    let (unit, divisor) = metric.unit(summary.scenario);
    let mut contenders: Vec<_> = summary.contenders.iter().collect();
    // Ours first, then the others, the best of them first.
    contenders.sort_by(|a, b| {
        key(summary, a)
            .partial_cmp(&key(summary, b))
            .unwrap_or(std::cmp::Ordering::Equal)
    });
    let rows = contenders.into_iter().filter_map(|entry| {
        // It is so far off that nothing else could be told apart beside it.
        if entry.contender.datagrams == Some(DatagramKind::Raw) {
            return None;
        }
        let spread = *entry.figures.get(&metric)?;
        let spread = Spread {
            median: spread.median / divisor,
            min: spread.min / divisor,
            max: spread.max / divisor,
        };
        Some(Row {
            // That of the floor which is drawn is the sealed one.
            label: entry.contender.to_string().replace(", sealed", ""),
            bold: entry.contender.stack == Stack::Ringway,
            bar: Some(Bar {
                text: digits(spread.median),
                role: role(summary, entry.contender.stack),
                spread,
            }),
        })
    });
    let rows: Vec<_> = rows.collect();
    if rows.is_empty() {
        return Ok(None);
    }
    let bars = Bars {
        rows: &rows,
        scale: Scale::Amount,
        description: unit,
        width: 380,
        margin: 2,
    };
    let name = metric.name(summary.scenario);
    let label = format!(
        "{name} in {unit}: {}, {}",
        summary.describe().0,
        summary.network.name()
    );
    Ok(Some(with_attributes(
        &bars.svg()?,
        &format!("role=\"img\" aria-label=\"{label}\""),
    )))
}

/// Where a contender stands.
fn key(summary: &ScenarioSummary, entry: &ContenderSummary) -> (usize, f64) {
    let group = match entry.contender.stack {
        Stack::Ringway => 0,
        Stack::TlsTcp => 2,
        Stack::Floor => 3,
        _ => 1,
    };
    let primary = entry.figures.get(&Metric::primary(summary.scenario));
    let size = match (group, primary) {
        (1, Some(spread)) if Metric::primary(summary.scenario).more_is_better() => -spread.median,
        (1, Some(spread)) => spread.median,
        _ => 0.0,
    };
    (group, size)
}

fn role(summary: &ScenarioSummary, stack: Stack) -> Role {
    match stack {
        Stack::Ringway => Role::Ringway,
        Stack::TlsTcp => Role::Reference,
        Stack::Floor => Role::Floor,
        peer if summary.best_peer == Some(peer) => Role::BestPeer,
        _ => Role::Peer,
    }
}

/// The picture as a file that stands alone, for a README.
pub(super) fn picture_file(summaries: &[ScenarioSummary]) -> Result<String> {
    let svg = with_attributes(&picture(summaries)?, "font-family=\"sans-serif\"");
    Ok(svg.replacen('>', &format!(">\n<style>\n{}</style>", colors::style()), 1))
}

/// Ringway's ratio to the best of the others, of all scenarios at a glance.
pub(super) fn picture(summaries: &[ScenarioSummary]) -> Result<String> {
    let mut rows = Vec::new();
    let mut network: Option<NetworkKind> = None;
    for summary in summaries {
        for entry in summary.best_modes() {
            let (Some(ratio), Some(peer)) = (entry.ratio_to_best_peer, summary.best_peer) else {
                continue;
            };
            if network.replace(summary.network) != Some(summary.network) {
                rows.push(Row {
                    label: summary.network.name().to_owned(),
                    bold: true,
                    bar: None,
                });
            }
            rows.push(Row {
                label: format!("{}{}", summary.describe().0, entry.contender.variety()),
                bold: false,
                bar: Some(Bar {
                    spread: Spread {
                        median: ratio,
                        min: ratio,
                        max: ratio,
                    },
                    role: if ratio >= 1.0 {
                        Role::Ringway
                    } else {
                        Role::BestPeer
                    },
                    text: format!("{} × {}", digits(ratio), peer.name()),
                }),
            });
        }
    }
    if rows.is_empty() {
        rows.push(Row {
            label: "No other stack was measured".to_owned(),
            bold: false,
            bar: None,
        });
    }
    let bars = Bars {
        rows: &rows,
        scale: Scale::Ratio,
        description: "Ringway ÷ best other QUIC stack",
        width: 440,
        margin: 8,
    };
    let label = "Ringway to the best other QUIC stack: more than 1 is better";
    Ok(with_attributes(
        &bars.svg()?,
        &format!("role=\"img\" aria-label=\"{label}\""),
    ))
}

/// Adds attributes to the root of an SVG document.
fn with_attributes(svg: &str, attributes: &str) -> String {
    svg.replacen("<svg ", &format!("<svg {attributes} "), 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::{example, summary};

    #[test]
    fn panels_have_bars_for_all_that_have_figures_with_axis_and_unit() {
        let summaries = summary::summarize(&example::comparison());
        let svg = panel(&summaries[0], Metric::GoodputGbitS).unwrap().unwrap();
        for expected in [
            "Gbit/s",
            "Ringway io_uring",
            "quinn",
            "TLS/TCP",
            "floor socket",
            "12.0",
            ">\n0\n<",
            ">\n10\n<",
        ] {
            assert!(svg.contains(expected), "{expected} is missing:\n{svg}");
        }
        assert!(!svg.contains("MsQuic"), "it has no figures");
        let color = |role: Role| format!("fill=\"{}\"", colors::hexadecimal(role.light()));
        for role in [Role::Ringway, Role::BestPeer, Role::Reference, Role::Floor] {
            assert!(svg.contains(&color(role)), "{role:?} is missing");
        }
        assert!(panel(&summaries[0], Metric::LatencyP50Us).unwrap().is_none());
    }

    #[test]
    fn the_picture_stands_alone_and_has_a_ratio_for_each_scenario() {
        let summaries = summary::summarize(&example::comparison());
        let svg = picture_file(&summaries).unwrap();
        for expected in [
            "prefers-color-scheme: dark",
            "1.50 × quinn",
            "1.10 × tquic",
            "4.40 × tquic",
            "Loopback",
        ] {
            assert!(svg.contains(expected), "{expected} is missing:\n{svg}");
        }
        assert!(picture_file(&[]).unwrap().contains("No other stack"));
    }
}
