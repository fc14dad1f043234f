//! Interoperation: Ringway against each of the other stacks, as client and as server, over each datapath, in each mode and on each event loop.
//!
//! `interop` runs a covering set of the cases of the light stacks (see [`Cases::covering`]), `interop --all` every case of every stack. Each
//! case is a line, PASS, SKIP with the reason, or FAIL with what runs it again alone; the last line is the sum. Exit code 1 if any failed.
//!
//! The programs of the other stacks are those of `perf/peers`, built next to this one, and `aioquic_peer.py`.

mod case;
mod covering;
mod key_log;
mod proxy;
mod run;
mod tally;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, Result, bail};
use clap::Parser;
use rustix::process::{Signal, set_parent_process_death_signal};

use crate::case::{Case, Cases, Stack};
use crate::run::{Outcome, Runner, ending_with_us};

#[derive(Parser)]
struct Args {
    /// Our program
    #[arg(long, default_value = "target/release/ringperf")]
    ringperf: PathBuf,
    /// The Python that has aioquic
    #[arg(long, default_value = "target/venv/bin/python")]
    python: PathBuf,
    /// All stacks, in every combination with datapaths, modes and event loops
    #[arg(long)]
    all: bool,
    /// Only cases whose name contains this
    #[arg(long, value_name = "TEXT", default_value = "")]
    filter: String,
    /// The case of this name alone, here and now: one over AF_XDP needs what scripts/on-af_xdp.sh prepares
    #[arg(long, value_name = "NAME", conflicts_with_all = ["all", "filter"])]
    case: Option<String>,
    /// How many cases run at a time
    #[arg(long, default_value_t = 2)]
    jobs: usize,
    /// Show what servers complain of
    #[arg(long)]
    debug: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let result = match &args.case {
        Some(name) => one(&args, name),
        None => many(&args),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("interop: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn one(args: &Args, name: &str) -> Result<bool> {
    // So that what it starts ends too, when whoever has started it is killed.
    set_parent_process_death_signal(Some(Signal::KILL))?;
    let all = Cases::product(&Stack::ALL).possible;
    let case = all.iter().find(|case| case.to_string() == name);
    let case = case.with_context(|| format!("there is no case {name:?}"))?;
    let outcome = Runner::new(args)?.run(case);
    println!("{}", line(case, &outcome));
    Ok(outcome.is_ok())
}

fn line(case: &Case, outcome: &Result<Outcome>) -> String {
    match outcome {
        Ok(Outcome::Passed(time)) => format!("PASS {case} ({:.2} s)", time.as_secs_f64()),
        Ok(Outcome::Skipped(reason)) => format!("SKIP {case}: {reason}"),
        Err(error) => format!("FAIL {case}: {error:#}"),
    }
}

fn many(args: &Args) -> Result<bool> {
    let cases = Cases::product(if args.all { &Stack::ALL } else { &Stack::LIGHT });
    let impossible: Vec<_> = cases
        .impossible
        .iter()
        .filter(|(what, _)| what.contains(&args.filter))
        .collect();
    for (what, reason) in &impossible {
        println!("SKIP {what}: {reason}");
    }
    let mut chosen = if args.all {
        cases.possible
    } else {
        cases.covering()
    };
    chosen.retain(|case| case.to_string().contains(&args.filter));
    let runner = Runner::new(args)?;
    let next = AtomicUsize::new(0);
    let counts = Mutex::new([0, 0, impossible.len()]);
    std::thread::scope(|scope| {
        for _ in 0..args.jobs.max(1) {
            scope.spawn(|| {
                while let Some(case) = chosen.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let line = if case.execution.datapath == "af_xdp" {
                        on_af_xdp(args, case).unwrap_or_else(|error| format!("FAIL {case}: {error:#}"))
                    } else {
                        line(case, &runner.run(case))
                    };
                    let which = ["PASS", "FAIL", "SKIP"]
                        .iter()
                        .position(|word| line.starts_with(word))
                        .unwrap_or(1);
                    // Under the lock, so that lines stay whole.
                    let mut counts = counts.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                    counts[which] += 1;
                    println!("{line}");
                    if which == 1 {
                        println!("  again: {}", again(args, case));
                    }
                }
            });
        }
    });
    let [passed, failed, skipped] = counts
        .into_inner()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    println!("{passed} passed, {failed} failed, {skipped} skipped");
    Ok(failed == 0 && passed > 0)
}

/// Runs a case over AF_XDP, in a process of its own, whose loopback interface is prepared for it. Gives its line.
fn on_af_xdp(args: &Args, case: &Case) -> Result<String> {
    let again = command(args, case)?;
    // It takes the network namespace with it.
    let mut command = ending_with_us(Path::new(again.get_program()), "TERM");
    let output = command
        .args(again.get_args())
        .output()
        .context("starting the case")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let words = ["PASS", "FAIL", "SKIP"];
    match text
        .lines()
        .find(|line| words.iter().any(|word| line.starts_with(word)))
    {
        Some(line) if line.contains(&case.to_string()) => Ok(line.to_owned()),
        // Of the script: not to be had here.
        Some(line) if line.starts_with("SKIP") => Ok(format!("SKIP {case}: {}", &line[5..])),
        _ => bail!(
            "{}: {}",
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        ),
    }
}

/// What runs a case alone.
fn command(args: &Args, case: &Case) -> Result<Command> {
    let this = std::env::current_exe()?;
    let mut command = if case.execution.datapath == "af_xdp" {
        let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../scripts/on-af_xdp.sh");
        let mut command = Command::new(script.canonicalize()?);
        command.arg(this);
        command
    } else {
        Command::new(this)
    };
    command
        .arg("--ringperf")
        .arg(&args.ringperf)
        .arg("--python")
        .arg(&args.python);
    command.args(["--case", &case.to_string()]);
    Ok(command)
}

/// The same, to type.
fn again(args: &Args, case: &Case) -> String {
    let quoted = |argument: &std::ffi::OsStr| {
        let text = argument.to_string_lossy();
        if text.contains(' ') {
            format!("'{text}'")
        } else {
            text.into_owned()
        }
    };
    command(args, case).map_or_else(
        |error| error.to_string(),
        |command| {
            let words = [command.get_program()].into_iter().chain(command.get_args());
            words.map(quoted).collect::<Vec<_>>().join(" ")
        },
    )
}
