//! What execution configurations do to the threads of a process, seen from outside.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

const RINGPERF: &str = env!("CARGO_BIN_EXE_ringperf");

/// A server that listens; killed at the end.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A thread as the system shows it.
#[derive(Debug, PartialEq)]
struct Thread {
    name: String,
    /// Processors that it may use.
    allowed: String,
    /// Scheduling class: 0 for ordinary threads, 2 for SCHED_RR.
    policy: u32,
}

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(RINGPERF);
    command.args(["server", "--bind", "127.0.0.1:0"]).args(arguments);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Starts a server; an error is what it said instead of listening.
fn start(command: &mut Command) -> Result<Server, String> {
    let mut server = Server(command.spawn().unwrap());
    let mut line = String::new();
    BufReader::new(server.0.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    if line.starts_with("LISTENING") {
        return Ok(server);
    }
    let mut said = String::new();
    let lines = BufReader::new(server.0.stderr.take().unwrap()).lines();
    lines.map_while(Result::ok).for_each(|line| said += &line);
    Err(said)
}

/// The threads that Ringway has started, by name.
fn threads(server: &Server) -> Vec<Thread> {
    let tasks = fs::read_dir(format!("/proc/{}/task", server.0.id())).unwrap();
    let mut threads: Vec<Thread> = tasks
        .flatten()
        .filter_map(|task| {
            let read = |file: &str| fs::read_to_string(task.path().join(file)).unwrap_or_default();
            let name = read("comm").trim().to_owned();
            let status = read("status");
            let allowed = status
                .lines()
                .find_map(|line| line.strip_prefix("Cpus_allowed_list:"))?;
            // After the name, in brackets, `policy` is the 39th of the fields from the third on.
            let stat = read("stat");
            let policy = stat
                .rsplit(')')
                .next()?
                .split_whitespace()
                .nth(38)?
                .parse()
                .ok()?;
            name.starts_with("ringway/").then(|| Thread {
                name,
                allowed: allowed.trim().to_owned(),
                policy,
            })
        })
        .collect();
    threads.sort_by(|a, b| a.name.cmp(&b.name));
    threads
}

fn thread(name: &str, allowed: &str, policy: u32) -> Thread {
    let (name, allowed) = (name.to_owned(), allowed.to_owned());
    Thread {
        name,
        allowed,
        policy,
    }
}

/// Processors of this process, the first and the last of them, and all as Linux lists them.
fn processors() -> (String, String, String) {
    let processors = ringway_datapath::thread::processors().unwrap();
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let all = status
        .lines()
        .find_map(|line| line.strip_prefix("Cpus_allowed_list:"))
        .unwrap();
    (
        processors[0].to_string(),
        processors[processors.len() - 1].to_string(),
        all.trim().to_owned(),
    )
}

#[test]
fn bound_threads_have_one_processor_each_and_the_names_of_their_layers() {
    let (first, last, _) = processors();
    let both = format!("{first},{last}");
    let server = start(&mut command(&["--affinitize", "--cpus", &first])).unwrap();
    assert_eq!(threads(&server), [thread("ringway/quic0", &first, 0)]);
    if first == last {
        return;
    }
    let server = start(&mut command(&["--affinitize", "--cpus", &both])).unwrap();
    let expected = [
        thread("ringway/quic0", &first, 0),
        thread("ringway/quic1", &last, 0),
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
        thread("ringway/dp0", &first, 0),
        thread("ringway/quic0", &last, 0),
    ];
    assert_eq!(threads(&server), expected);
}

#[test]
fn threads_without_ideal_processor_may_use_all() {
    let (first, _, all) = processors();
    let server = start(&mut command(&["--no-ideal-proc", "--cpus", &first])).unwrap();
    assert_eq!(threads(&server), [thread("ringway/quic0", &all, 0)]);
}

#[test]
fn high_priority_takes_effect_or_names_what_it_needs() {
    match start(&mut command(&["--high-priority", "--cpus", "0"])) {
        Ok(server) => assert_eq!(threads(&server)[0].policy, 2),
        Err(said) => assert!(said.contains("CAP_SYS_NICE"), "{said}"),
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
    let said = start(limited.stdout(Stdio::piped()).stderr(Stdio::piped()))
        .err()
        .unwrap();
    // Who may not give capabilities up has none.
    let is_understood = said.contains("HIGH_PRIORITY") && said.contains("CAP_SYS_NICE");
    assert!(is_understood || said.starts_with("setpriv:"), "{said}");
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
        command(&["--cpus", &last])
            .env("RINGWAY_MODE", "low_latency")
            .env("RINGWAY_CONFIG", path),
    )
    .map(|server| threads(&server));
    fs::remove_file(&file).unwrap();
    assert_eq!(
        of_file.unwrap(),
        [
            thread("ringway/dp0", &first, 0),
            thread("ringway/quic0", &first, 0)
        ]
    );
    assert_eq!(of_variable.unwrap(), [thread("ringway/quic0", &first, 0)]);
    assert_eq!(of_line.unwrap(), [thread("ringway/quic0", &last, 0)]);
}

#[test]
fn flag_for_xdp_takes_af_xdp_or_says_why_it_cannot() {
    let said = start(&mut command(&["--xdp"])).err().unwrap();
    assert!(said.contains("name of the interface"), "{said}");
    let said = start(&mut command(&[
        "--xdp",
        "--interface",
        "lo",
        "--datapath",
        "socket",
    ]))
    .err()
    .unwrap();
    assert!(said.contains("contradicts"), "{said}");
    let said = start(&mut command(&["--xdp", "--interface", "nosuchnic0"]))
        .err()
        .unwrap();
    assert!(said.contains("nosuchnic0"), "{said}");
    let said = start(&mut command(&["--affinitize", "--no-ideal-proc"]))
        .err()
        .unwrap();
    assert!(said.contains("contradict"), "{said}");
}
