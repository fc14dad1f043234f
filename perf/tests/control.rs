//! The control socket, from outside.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use ringway_perf::process::{self, Process};

const RINGPERF: &str = env!("CARGO_BIN_EXE_ringperf");
const READY_MAX: Duration = Duration::from_secs(30);

/// Lets a process have descriptors below this number only.
fn limit_descriptors(server: &Process, limit: u32) {
    let (process, limit) = (server.id().to_string(), format!("--nofile={limit}:"));
    process::run(Command::new("prlimit").args(["--pid", &process, &limit])).unwrap();
}

#[test]
fn requests_are_answered_again_after_the_descriptors_had_run_out() {
    let directory = tempfile::tempdir().unwrap();
    let control = directory.path().join("control");
    let mut command = Command::new(RINGPERF);
    command.args([
        "server",
        "--bind",
        "127.0.0.1:0",
        "--cpus",
        "0",
        "--datapath",
        "socket",
    ]);
    let mut server = Process::start(command.arg("--control").arg(&control)).unwrap();
    assert!(server.next_line(READY_MAX).unwrap().is_some(), "it listens");
    let ask = || {
        let mut command = Command::new(RINGPERF);
        command.args(["sources", "--json", "--control"]).arg(&control);
        command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    };
    let answered = |asking: Child| asking.wait_with_output().unwrap();
    limit_descriptors(&server, 3);
    // The server has the descriptor of the next connection already, and none to answer it.
    assert!(!answered(ask()).status.success());
    let asking = ask();
    // Until the server has tried.
    std::thread::sleep(Duration::from_millis(500));
    limit_descriptors(&server, 1024);
    for asking in [asking, ask()] {
        let answer = answered(asking);
        assert_eq!(answer.stdout, b"[]\n", "{answer:?}");
    }
}
