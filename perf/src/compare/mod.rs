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
mod runner;
mod runs;
mod summary;
mod table;
mod terminal;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use ringway_perf_protocol::Scenario;

pub(crate) use self::args::CompareArgs;
use self::calibration::Calibration;
use self::contenders::{Contender, Handshakes, SCENARIOS};
pub(crate) use self::contenders::{NetworkKind, Stack};
use self::environment::Environment;
use self::interference::InterferenceMonitor;
use self::network::Network;
use self::runner::{Runner, Turn};
use self::runs::{Comparison, ContenderRuns, LeftOut, NetworkNote, Note, Outcome, ScenarioRuns};
use self::terminal::Progress;
use crate::options::Api;
use crate::{output, process, processors};

/// Shorter runs measure how programs start, longer ones nobody waits for.
const TIMES: std::ops::RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(600);

pub(crate) fn run(args: &CompareArgs) -> Result<()> {
    let earlier = args.from.as_deref().map(Comparison::read).transpose()?;
    prepare(&args.output)?;
    let comparison = match earlier {
        Some(comparison) => comparison,
        None => measure(args)?,
    };
    let summaries = summary::summarize(&comparison);
    let write = |name: &str, text: String| {
        let file = args.output.join(name);
        fs::write(&file, text).with_context(|| format!("writing {}", file.display()))
    };
    if args.from.is_none() {
        write("compare.json", summary::to_json(&comparison, &summaries)?)?;
    }
    write("compare.html", page::render(&comparison, &summaries)?)?;
    write("compare.md", table::render(&comparison, &summaries))?;
    write("compare.svg", plots::picture_file(&summaries)?)?;
    output::print_line(&terminal::overview(&summaries))?;
    output::print_line(&format!("{}", args.output.join("compare.html").display()))?;
    ensure!(
        !process::is_interrupted(),
        "interrupted: only what was measured until then is in {}",
        args.output.display()
    );
    Ok(())
}

/// Makes the directory of the results, and tries whether it takes files: what cannot be written in the end is told before anything is measured.
fn prepare(directory: &Path) -> Result<()> {
    fs::create_dir_all(directory)
        .and_then(|()| tempfile::tempfile_in(directory))
        .with_context(|| format!("--output: writing into {}", directory.display()))?;
    Ok(())
}

/// What is measured on a network.
struct NetworkPlan {
    network: NetworkKind,
    scenarios: Vec<ScenarioPlan>,
}

struct ScenarioPlan {
    scenario: Scenario,
    handshakes: Handshakes,
    contenders: Vec<Contender>,
    left_out: Vec<LeftOut>,
}

impl ScenarioPlan {
    fn new(
        network: NetworkKind,
        scenario: Scenario,
        stacks: &[Stack],
        apis: &[Api],
        args: &CompareArgs,
    ) -> Self {
        let handshakes = Handshakes {
            resumed: args.resume && scenario == Scenario::Hps,
            group: args.group,
        };
        let lacks = |stack: &Stack| stack.lacks(scenario, handshakes);
        let able: Vec<_> = stacks
            .iter()
            .copied()
            .filter(|stack| lacks(stack).is_none())
            .collect();
        let left_out = stacks.iter().filter_map(|stack| {
            let reason = lacks(stack)?.to_owned();
            Some(LeftOut {
                stack: *stack,
                reason,
            })
        });
        ScenarioPlan {
            scenario,
            handshakes,
            contenders: contenders::contenders(network, scenario, &able, apis),
            left_out: left_out.collect(),
        }
    }
}

/// Memory of idle connections does not depend on the network: one is enough.
fn plan(args: &CompareArgs) -> Result<Vec<NetworkPlan>> {
    let networks = chosen(&args.network, NetworkKind::value_variants());
    let scenarios = match args.scenario[..] {
        [] => SCENARIOS.to_vec(),
        _ => chosen(&args.scenario, Scenario::value_variants()),
    };
    ensure!(
        !args.resume || scenarios.contains(&Scenario::Hps),
        "--resume is for hps: latency-0rtt resumes anyway, and other scenarios connect once"
    );
    let stacks = chosen(&args.stack, Stack::value_variants());
    let apis = chosen(&args.api, Api::value_variants());
    let resumes = args.resume || scenarios.contains(&Scenario::LatencyZeroRtt);
    ensure!(
        !resumes || apis == [Api::Callback] || !stacks.contains(&Stack::Ringway),
        "--resume and latency-0rtt are for --api callback"
    );
    let scenarios = |network: NetworkKind| {
        let scenarios = scenarios.iter().copied();
        scenarios
            .filter(|scenario| *scenario != Scenario::Idle || Some(&network) == networks.first())
            .map(|scenario| ScenarioPlan::new(network, scenario, &stacks, &apis, args))
            .collect::<Vec<_>>()
    };
    let plans: Vec<_> = networks
        .iter()
        .map(|network| NetworkPlan {
            network: *network,
            scenarios: scenarios(*network),
        })
        .filter(|plan| !plan.scenarios.is_empty())
        .collect();
    let scenarios = plans.iter().flat_map(|plan| &plan.scenarios);
    let left_out: BTreeSet<_> = scenarios
        .clone()
        .flat_map(|plan| &plan.left_out)
        .map(LeftOut::to_string)
        .collect();
    ensure!(
        scenarios.clone().any(|plan| !plan.contenders.is_empty()),
        "nothing to measure: {}",
        left_out.into_iter().collect::<Vec<_>>().join("; ")
    );
    Ok(plans)
}

/// Those of a list, each once and in its order; all if it is empty.
fn chosen<T: PartialEq + Copy>(list: &[T], all: &[T]) -> Vec<T> {
    let wanted = |one: &&T| list.is_empty() || list.contains(one);
    all.iter().filter(wanted).copied().collect()
}

fn measure(args: &CompareArgs) -> Result<Comparison> {
    ensure!(
        TIMES.contains(&args.time),
        "--time is from {} to {}",
        humantime::format_duration(*TIMES.start()),
        humantime::format_duration(*TIMES.end())
    );
    let cpus = processors::pair(&args.cpus, "that of servers", "that of clients")?;
    let plans = plan(args)?;
    process::catch_signals()?;
    let runner = Runner::new(&args.peers, cpus, args.time)?;
    let environment = Environment::read(&args.peers)?;
    let mut comparison = Comparison::new(args.rounds, args.time.as_secs_f64(), cpus, environment);
    let estimate = estimate(&plans, &runner, args.rounds);
    output::print_line(&format!(
        "{} rounds of {}, about {}",
        args.rounds,
        humantime::format_duration(args.time),
        humantime::format_duration(Duration::from_secs(estimate.as_secs()))
    ))?;
    calibrate(&mut comparison)?;
    let monitor = InterferenceMonitor::start(cpus)?;
    let mut progress = Progress::start(estimate);
    for plan in &plans {
        measure_network(plan, &runner, args.rounds, &mut comparison, &mut progress);
    }
    progress.finish();
    let interference = monitor.read()?;
    output::print_line(&format!("Meanwhile {interference}"))?;
    comparison.interference = Some(interference);
    if !process::is_interrupted() {
        calibrate(&mut comparison)?;
    }
    Ok(comparison)
}

fn calibrate(comparison: &mut Comparison) -> Result<()> {
    let calibration = Calibration::measure(comparison.cpus)?;
    output::print_line(&format!("This machine takes {calibration}"))?;
    comparison.calibrations.push(calibration);
    Ok(())
}

fn estimate(plans: &[NetworkPlan], runner: &Runner, rounds: u32) -> Duration {
    let scenarios = plans.iter().flat_map(|plan| &plan.scenarios);
    scenarios
        .map(|plan| runner.estimate(plan.scenario) * plan.contenders.len() as u32 * rounds)
        .sum()
}

fn measure_network(
    plan: &NetworkPlan,
    runner: &Runner,
    rounds: u32,
    comparison: &mut Comparison,
    progress: &mut Progress,
) {
    let network = match Network::open(plan.network) {
        Ok(network) => network,
        Err(error) => {
            let reason = format!("{error:#}");
            progress.print(&format!("{}: skipped: {reason}", plan.network.name()));
            comparison.networks.push(NetworkNote {
                network: plan.network,
                note: Note::Skipped(reason),
            });
            return;
        }
    };
    comparison.networks.push(NetworkNote {
        network: plan.network,
        note: Note::Setup(network.describe()),
    });
    for plan in &plan.scenarios {
        if process::is_interrupted() {
            return;
        }
        let runs = measure_scenario(&network, plan, runner, rounds, progress);
        progress.finish_scenario(&summary::summarize_scenario(&runs));
        comparison.scenarios.push(runs);
    }
}

fn measure_scenario(
    network: &Network,
    plan: &ScenarioPlan,
    runner: &Runner,
    rounds: u32,
    progress: &Progress,
) -> ScenarioRuns {
    let no_runs = |contender: &Contender| ContenderRuns {
        contender: *contender,
        runs: Vec::new(),
    };
    let mut runs = ScenarioRuns {
        network: network.kind,
        scenario: plan.scenario,
        handshakes: plan.handshakes,
        left_out: plan.left_out.clone(),
        contenders: plan.contenders.iter().map(no_runs).collect(),
    };
    let turn = |contender| Turn {
        network,
        contender,
        scenario: plan.scenario,
        handshakes: plan.handshakes,
    };
    for _ in 0..rounds {
        for index in 0..runs.contenders.len() {
            let contender = runs.contenders[index].contender;
            progress.begin(contender);
            let outcome = match runner.run(turn(contender)) {
                Ok(figures) => Outcome::Figures(figures),
                // What the signal ended is no failure of the contender.
                Err(_) if process::is_interrupted() => return runs,
                Err(error) => Outcome::Failure(format!("{error:#}")),
            };
            runs.contenders[index].runs.push(outcome);
            progress.advance(
                runner.estimate(plan.scenario),
                &summary::summarize_scenario(&runs),
            );
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::contenders::Group;
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
        let runner = Runner::new(Path::new("."), [0, 1], args.time).unwrap();
        let estimate = estimate(&plans, &runner, args.rounds);
        assert!(estimate < Duration::from_secs(25 * 60), "{estimate:?}");
    }

    #[test]
    fn requests_in_0_rtt_are_measured_where_they_are_asked_for_and_only_handshakes_resume() {
        let scenarios = |line: &str| -> Vec<_> {
            let plans = plan(&args(line)).unwrap();
            plans[0].scenarios.iter().map(|plan| plan.scenario).collect()
        };
        assert_eq!(scenarios(""), SCENARIOS);
        let line = "--resume --scenario hps,latency-0rtt";
        assert_eq!(scenarios(line), [Scenario::LatencyZeroRtt, Scenario::Hps]);
        assert!(plan(&args("--resume --scenario rps")).is_err());
        assert!(plan(&args(&format!("{line} --api callback,async"))).is_err());
        assert!(plan(&args(&format!("{line} --api callback,async --stack quinn"))).is_ok());
        assert!(plan(&args(&format!("{line} --api callback,callback"))).is_ok());
        let plans = plan(&args(&format!("{line} --group x25519mlkem768"))).unwrap();
        let resumed = plans[0].scenarios.iter().map(|plan| plan.handshakes.resumed);
        assert_eq!(resumed.collect::<Vec<_>>(), [false, true]);
        assert!(
            plans[0]
                .scenarios
                .iter()
                .all(|plan| plan.handshakes.group == Group::X25519Mlkem768)
        );
    }

    #[test]
    fn stack_that_cannot_do_what_is_measured_has_no_turn_and_the_report_says_why() {
        let plans = plan(&args("--resume --scenario hps --stack quinn,s2n-quic,tls-tcp")).unwrap();
        let hps = &plans[0].scenarios[0];
        assert_eq!(hps.contenders, [Contender::of(Stack::Quinn)]);
        let left_out: Vec<_> = hps.left_out.iter().map(|one| one.stack).collect();
        assert_eq!(left_out, [Stack::S2nQuic, Stack::TlsTcp]);
    }

    #[test]
    fn scenario_that_nobody_who_was_chosen_can_do_is_told_with_the_reasons() {
        let plans = plan(&args(
            "--network loopback --resume --scenario latency,hps,latency-0rtt --stack s2n-quic,floor",
        ))
        .unwrap();
        let left_out: Vec<Vec<_>> = plans[0]
            .scenarios
            .iter()
            .map(|plan| plan.left_out.iter().map(|one| one.stack).collect())
            .collect();
        let (both, floor) = (vec![Stack::S2nQuic, Stack::Floor], vec![Stack::Floor]);
        assert_eq!(left_out, [floor, both.clone(), both]);

        let error = plan(&args("--scenario latency-0rtt --stack s2n-quic,floor"))
            .err()
            .unwrap()
            .to_string();
        for reason in ["s2n-quic is left out: it has no 0-RTT", "floor is left out: "] {
            assert!(error.contains(reason), "{error}");
        }
    }

    #[test]
    fn idle_connections_are_measured_once_and_what_is_chosen_alone() {
        let plans = plan(&args(
            "--network veth-single,veth --scenario idle,hps --stack quinn,ringway",
        ))
        .unwrap();
        let scenarios: Vec<Vec<_>> = plans
            .iter()
            .map(|plan| plan.scenarios.iter().map(|plan| plan.scenario).collect())
            .collect();
        assert_eq!(
            scenarios,
            [vec![Scenario::Hps, Scenario::Idle], vec![Scenario::Hps]]
        );
        assert_eq!(plans[0].scenarios[0].contenders.len(), 3);
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
