//! `ringperf compare`: Ringway beside other stacks on this machine, for anyone to run again. All contenders of a scenario take turns, round by
//! round, so that what the machine does meanwhile meets all of them; every turn has a fresh server on a processor of its own and a client
//! on another, and what both cost is read from the kernel.
//!
//! The results are tables of medians and spreads, figures as JSON with every run, and a page with plots; all but the JSON can be made again
//! from it.

mod accounting;
mod args;
mod bars;
mod calibration;
mod colors;
mod conclusion;
mod contenders;
mod environment;
#[cfg(test)]
mod example;
mod interference;
mod method;
mod metrics;
mod network;
mod page;
mod plots;
mod results;
mod table;
mod terminal;
mod turn;

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use ringway_perf_protocol::Scenario;

pub(crate) use self::args::CompareArgs;
use self::calibration::Calibration;
use self::contenders::{Contender, SCENARIOS};
pub(crate) use self::contenders::{NetworkKind, Stack};
use self::environment::Environment;
use self::interference::Watch;
use self::network::Network;
use self::results::{Block, ContenderRuns, Measured, NetworkNote, Note, Outcome};
use self::terminal::Progress;
use self::turn::Rig;
use crate::{output, process};

/// Shorter runs measure how programs start, longer ones nobody waits for.
const TIMES: std::ops::RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(600);

pub(crate) fn run(args: &CompareArgs) -> Result<()> {
    let measured = match &args.from {
        Some(file) => Measured::read(file)?,
        None => measure(args)?,
    };
    let conclusions = conclusion::conclude(&measured);
    fs::create_dir_all(&args.output).with_context(|| format!("making {}", args.output.display()))?;
    let write = |name: &str, text: String| {
        let file = args.output.join(name);
        fs::write(&file, text).with_context(|| format!("writing {}", file.display()))
    };
    if args.from.is_none() {
        write("compare.json", conclusion::to_json(&measured, &conclusions)?)?;
    }
    write("compare.html", page::render(&measured, &conclusions)?)?;
    write("compare.md", table::render(&measured, &conclusions))?;
    write("compare.svg", plots::picture_file(&conclusions)?)?;
    output::print_line(&terminal::summary(&conclusions));
    output::print_line(&format!("{}", args.output.join("compare.html").display()));
    ensure!(
        !process::is_interrupted(),
        "interrupted: only what was measured until then is in {}",
        args.output.display()
    );
    Ok(())
}

/// What is measured on a network.
struct Plan {
    network: NetworkKind,
    blocks: Vec<(Scenario, Vec<Contender>)>,
}

/// Memory of idle connections does not depend on the network: one is enough.
fn plan(args: &CompareArgs) -> Result<Vec<Plan>> {
    let networks = chosen(&args.network, NetworkKind::value_variants());
    let scenarios = chosen(&args.scenario, &SCENARIOS);
    let stacks = chosen(&args.stack, Stack::value_variants());
    let blocks = |network: NetworkKind| {
        let scenarios = scenarios.iter().copied();
        scenarios
            .filter(|scenario| *scenario != Scenario::Idle || Some(&network) == networks.first())
            .map(|scenario| (scenario, contenders::contenders(network, scenario, &stacks)))
            .filter(|(_, contenders)| !contenders.is_empty())
            .collect::<Vec<_>>()
    };
    let plans: Vec<_> = networks
        .iter()
        .map(|network| Plan {
            network: *network,
            blocks: blocks(*network),
        })
        .filter(|plan| !plan.blocks.is_empty())
        .collect();
    ensure!(
        !plans.is_empty(),
        "nothing to measure: the floor is one of uploads and downloads alone"
    );
    Ok(plans)
}

/// Those of a list, each once and in its order; all if it is empty.
fn chosen<T: PartialEq + Copy>(list: &[T], all: &[T]) -> Vec<T> {
    let wanted = |one: &&T| list.is_empty() || list.contains(one);
    all.iter().filter(wanted).copied().collect()
}

fn measure(args: &CompareArgs) -> Result<Measured> {
    ensure!(
        TIMES.contains(&args.time),
        "--time is from {} to {}",
        humantime::format_duration(*TIMES.start()),
        humantime::format_duration(*TIMES.end())
    );
    let cpus = environment::check_processors(&args.cpus)?;
    let plans = plan(args)?;
    process::catch_signals()?;
    let rig = Rig::new(&args.peers, cpus, args.time)?;
    let environment = Environment::read(&args.peers)?;
    let mut measured = Measured::new(args.rounds, args.time.as_secs_f64(), cpus, environment);
    let estimate = estimate(&plans, &rig, args.rounds);
    output::print_line(&format!(
        "{} rounds of {}, about {}",
        args.rounds,
        humantime::format_duration(args.time),
        humantime::format_duration(Duration::from_secs(estimate.as_secs()))
    ));
    calibrate(&mut measured)?;
    let watch = Watch::start(cpus)?;
    let mut progress = Progress::start(estimate);
    for plan in &plans {
        measure_network(plan, &rig, args.rounds, &mut measured, &mut progress);
    }
    progress.finish();
    let interference = watch.read()?;
    output::print_line(&format!("Meanwhile {interference}"));
    measured.interference = Some(interference);
    if !process::is_interrupted() {
        calibrate(&mut measured)?;
    }
    Ok(measured)
}

fn calibrate(measured: &mut Measured) -> Result<()> {
    let calibration = Calibration::measure(measured.cpus)?;
    output::print_line(&format!("This machine takes {calibration}"));
    measured.calibrations.push(calibration);
    Ok(())
}

fn estimate(plans: &[Plan], rig: &Rig, rounds: u32) -> Duration {
    let blocks = plans.iter().flat_map(|plan| &plan.blocks);
    blocks
        .map(|(scenario, contenders)| rig.estimate(*scenario) * contenders.len() as u32 * rounds)
        .sum()
}

fn measure_network(plan: &Plan, rig: &Rig, rounds: u32, measured: &mut Measured, progress: &mut Progress) {
    let network = match Network::open(plan.network) {
        Ok(network) => network,
        Err(error) => {
            let reason = format!("{error:#}");
            progress.say(&format!("{}: skipped: {reason}", plan.network.name()));
            measured.networks.push(NetworkNote {
                network: plan.network,
                note: Note::Skipped(reason),
            });
            return;
        }
    };
    measured.networks.push(NetworkNote {
        network: plan.network,
        note: Note::Setup(network.describe()),
    });
    for (scenario, contenders) in &plan.blocks {
        if process::is_interrupted() {
            return;
        }
        let block = measure_block(&network, *scenario, contenders, rig, rounds, progress);
        progress.conclude(&conclusion::conclude_block(&block));
        measured.blocks.push(block);
    }
}

fn measure_block(
    network: &Network,
    scenario: Scenario,
    contenders: &[Contender],
    rig: &Rig,
    rounds: u32,
    progress: &Progress,
) -> Block {
    let runs = |contender: &Contender| ContenderRuns {
        contender: *contender,
        runs: Vec::new(),
    };
    let mut block = Block {
        network: network.kind,
        scenario,
        contenders: contenders.iter().map(runs).collect(),
    };
    for _ in 0..rounds {
        for index in 0..block.contenders.len() {
            let contender = block.contenders[index].contender;
            progress.begin(contender);
            let outcome = match rig.run(network, contender, scenario) {
                Ok(figures) => Outcome::Figures(figures),
                // What the signal ended is no failure of the contender.
                Err(_) if process::is_interrupted() => return block,
                Err(error) => Outcome::Failure(format!("{error:#}")),
            };
            block.contenders[index].runs.push(outcome);
            progress.advance(rig.estimate(scenario), &conclusion::conclude_block(&block));
        }
    }
    block
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use clap::Parser;

    use super::*;

    fn args(line: &str) -> CompareArgs {
        let line = format!("ringperf compare {line}");
        match crate::command_line::Args::parse_from(line.split_whitespace()).command {
            crate::command_line::Command::Compare(args) => args,
            _ => panic!(),
        }
    }

    #[test]
    fn a_full_run_is_over_before_people_lose_patience() {
        let args = args("");
        let plans = plan(&args).unwrap();
        assert_eq!(plans.len(), 3);
        let rig = Rig::new(Path::new("."), [0, 1], args.time).unwrap();
        let estimate = estimate(&plans, &rig, args.rounds);
        assert!(estimate < Duration::from_secs(25 * 60), "{estimate:?}");
    }

    #[test]
    fn idle_connections_are_measured_once_and_what_is_chosen_alone() {
        let plans = plan(&args(
            "--network veth-single,veth --scenario idle,hps --stack quinn,ringway",
        ))
        .unwrap();
        let scenarios: Vec<Vec<_>> = plans
            .iter()
            .map(|plan| plan.blocks.iter().map(|(scenario, _)| *scenario).collect())
            .collect();
        assert_eq!(
            scenarios,
            [vec![Scenario::Hps, Scenario::Idle], vec![Scenario::Hps]]
        );
        assert_eq!(plans[0].blocks[0].1.len(), 3);
        assert!(plan(&args("--scenario hps --stack floor")).is_err());
    }

    #[test]
    fn times_out_of_measure_are_refused() {
        assert!(
            measure(&args("--time 1ms"))
                .unwrap_err()
                .to_string()
                .contains("--time is from")
        );
    }
}
