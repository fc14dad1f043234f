//! What execution configurations do to the threads of a process, seen from outside.

use std::fs;
use std::process::Command;
use std::time::Duration;

use procfs::process::Task;
use ringway_perf::process::Process;

const RINGPERF: &str = env!("CARGO_BIN_EXE_ringperf");
const READY_MAX: Duration = Duration::from_secs(30);

/// Ranges of processors, as Linux lists them.
type Processors = Vec<(u32, u32)>;

/// A thread as the system shows it.
#[derive(Debug, PartialEq)]
struct Thread {
    name: String,
    /// Processors that it may use.
    allowed: Processors,
    /// Scheduling class: 0 for ordinary threads, 2 for SCHED_RR.
    policy: Option<u32>,
}

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(RINGPERF);
    command.args(["server", "--bind", "127.0.0.1:0"]).args(arguments);
    command
}

/// Starts a server; an error is what it printed instead of listening.
fn start(command: &mut Command) -> Result<Process, String> {
    let mut server = Process::start(command).unwrap();
    match server.next_line(READY_MAX) {
        Ok(line) => {
            let line = line.expect("a server that is soon ready");
            assert!(line.starts_with("LISTENING"), "{line}");
            Ok(server)
        }
        Err(error) => Err(error.to_string()),
    }
}

/// The threads that Ringway has started, by name.
fn threads(server: &Process) -> Vec<Thread> {
    let process = procfs::process::Process::new(server.id().cast_signed()).unwrap();
    let read = |task: Task| {
        let (stat, status) = (task.stat().ok()?, task.status().ok()?);
        stat.comm.starts_with("ringway/").then(|| Thread {
            name: stat.comm,
            allowed: status.cpus_allowed_list.unwrap_or_default(),
            policy: stat.policy,
        })
    };
    let mut threads: Vec<Thread> = process.tasks().unwrap().flatten().filter_map(read).collect();
    threads.sort_by(|a, b| a.name.cmp(&b.name));
    threads
}

fn thread(name: &str, allowed: &Processors) -> Thread {
    Thread {
        name: name.to_owned(),
        allowed: allowed.clone(),
        policy: Some(0),
    }
}

/// Processors of this process: the first and the last of them, and all.
fn processors() -> (usize, usize, Processors) {
    let processors = ringway_datapath::thread::processors().unwrap();
    let status = procfs::process::Process::myself().unwrap().status().unwrap();
    (
        processors[0],
        processors[processors.len() - 1],
        status.cpus_allowed_list.unwrap(),
    )
}

fn only(processor: usize) -> Processors {
    vec![(processor as u32, processor as u32)]
}

#[test]
fn bound_threads_have_one_processor_each_and_the_names_of_their_layers() {
    let (first, last, _) = processors();
    let both = format!("{first},{last}");
    let server = start(&mut command(&["--affinitize", "--cpus", &first.to_string()])).unwrap();
    assert_eq!(threads(&server), [thread("ringway/quic0", &only(first))]);
    if first == last {
        return;
    }
    let server = start(&mut command(&["--affinitize", "--cpus", &both])).unwrap();
    let expected = [
        thread("ringway/quic0", &only(first)),
        thread("ringway/quic1", &only(last)),
    ];
    assert_eq!(threads(&server), expected);
    let server = start(&mut command(&[
        "--affinitize",
        "--cpus",
        &both,
        "--mode",
        "max-throughput",
    ]))
    .unwrap();
    let expected = [
        thread("ringway/dp0", &only(first)),
        thread("ringway/quic0", &only(last)),
    ];
    assert_eq!(threads(&server), expected);
}

#[test]
fn threads_without_ideal_processor_may_use_all() {
    let (first, _, all) = processors();
    let server = start(&mut command(&["--no-ideal-proc", "--cpus", &first.to_string()])).unwrap();
    assert_eq!(threads(&server), [thread("ringway/quic0", &all)]);
}

#[test]
fn high_priority_takes_effect_or_names_what_it_needs() {
    match start(&mut command(&["--high-priority", "--cpus", "0"])) {
        Ok(server) => assert_eq!(threads(&server)[0].policy, Some(2)),
        Err(error) => assert!(error.contains("CAP_SYS_NICE"), "{error}"),
    }
    // As somebody who may not, wherever this runs.
    let mut limited = Command::new("setpriv");
    limited.args([
        "--bounding-set",
        "-sys_nice",
        "--inh-caps",
        "-sys_nice",
        "prlimit",
        "--rtprio=0",
    ]);
    limited.args([RINGPERF, "server", "--bind", "127.0.0.1:0", "--high-priority"]);
    let error = start(&mut limited).err().unwrap();
    // Who may not give capabilities up has none.
    let is_understood = error.contains("HIGH_PRIORITY") && error.contains("CAP_SYS_NICE");
    assert!(is_understood || error.starts_with("setpriv:"), "{error}");
}

#[test]
fn command_line_comes_before_variables_and_variables_before_the_file() {
    let (first, last, _) = processors();
    let file = std::env::temp_dir().join(format!("ringway-{}.toml", std::process::id()));
    fs::write(
        &file,
        format!("mode = 'max_throughput'\nprocessors = [{first}]\nflags = 'affinitize'\n"),
    )
    .unwrap();
    let path = file.to_str().unwrap();
    let of_file = start(&mut command(&["--config", path])).map(|server| threads(&server));
    let of_variable =
        start(command(&["--config", path]).env("RINGWAY_MODE", "low_latency")).map(|server| threads(&server));
    let of_line = start(
        command(&["--cpus", &last.to_string()])
            .env("RINGWAY_MODE", "low_latency")
            .env("RINGWAY_CONFIG", path),
    )
    .map(|server| threads(&server));
    fs::remove_file(&file).unwrap();
    assert_eq!(
        of_file.unwrap(),
        [
            thread("ringway/dp0", &only(first)),
            thread("ringway/quic0", &only(first))
        ]
    );
    assert_eq!(of_variable.unwrap(), [thread("ringway/quic0", &only(first))]);
    assert_eq!(of_line.unwrap(), [thread("ringway/quic0", &only(last))]);
}

#[test]
fn flag_for_xdp_takes_af_xdp_or_says_why_it_cannot() {
    let error = start(&mut command(&["--xdp"])).err().unwrap();
    assert!(error.contains("name of the interface"), "{error}");
    let error = start(&mut command(&[
        "--xdp",
        "--interface",
        "lo",
        "--datapath",
        "socket",
    ]))
    .err()
    .unwrap();
    assert!(error.contains("contradicts"), "{error}");
    let error = start(&mut command(&["--xdp", "--interface", "nosuchnic0"]))
        .err()
        .unwrap();
    assert!(error.contains("nosuchnic0"), "{error}");
    let error = start(&mut command(&["--affinitize", "--no-ideal-proc"]))
        .err()
        .unwrap();
    assert!(error.contains("contradict"), "{error}");
}
