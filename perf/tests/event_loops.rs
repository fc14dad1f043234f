//! The examples of event loops: each serves a client of ours, and what is its own, over each datapath.

use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};

/// Those that `TEST_DATAPATH` names, or all that need no preparation.
fn datapaths() -> Vec<String> {
    match std::env::var("TEST_DATAPATH") {
        Ok(one) => vec![one],
        Err(_) => vec!["socket".to_owned(), "io_uring".to_owned()],
    }
}

/// An example that runs; killed at the end.
struct Example {
    process: Child,
    says: BufReader<ChildStdout>,
    address: String,
}

impl Drop for Example {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Example {
    fn start(name: &str, arguments: &[&str]) -> Example {
        let directory = PathBuf::from(env!("CARGO_BIN_EXE_ringperf"));
        let program = directory.with_file_name("examples").join(name);
        assert!(
            program.exists(),
            "{program:?}: cargo build -p ringway-perf --examples"
        );
        let mut command = Command::new(program);
        command
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut process = command.spawn().unwrap();
        let says = BufReader::new(process.stdout.take().unwrap());
        let mut example = Example {
            process,
            says,
            address: String::new(),
        };
        let line = example.line();
        let address = line.strip_prefix("LISTENING ");
        example.address = address
            .unwrap_or_else(|| panic!("{name} said {line:?}"))
            .to_owned();
        example
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.says.read_line(&mut line).unwrap();
        line.trim().to_owned()
    }

    /// Moves data through it, both ways.
    fn serve(&self, datapath: &str) {
        // Two cannot have AF_XDP on one interface.
        let datapath = if datapath == "af_xdp" {
            ["socket", "--no-gso"]
        } else {
            [datapath, "--no-gro"]
        };
        let scenarios: [&[&str]; 3] = [
            &["--scenario", "download", "--bytes", "20MB"],
            &["--scenario", "upload", "--bytes", "20MB"],
            &["--scenario", "rps", "--time", "300ms"],
        ];
        for scenario in scenarios {
            let mut client = Command::new(env!("CARGO_BIN_EXE_ringperf"));
            client.args([
                "client",
                "--target",
                &self.address,
                "--timeout",
                "20s",
                "--datapath",
            ]);
            let done = client.args(datapath).args(scenario).output().unwrap();
            assert!(
                done.status.success(),
                "{scenario:?}: {}",
                String::from_utf8_lossy(&done.stderr)
            );
        }
    }

    fn tell(&mut self, lines: &str) {
        self.process
            .stdin
            .as_mut()
            .unwrap()
            .write_all(lines.as_bytes())
            .unwrap();
    }

    fn end(mut self) {
        assert!(self.process.wait().unwrap().success());
    }
}

#[test]
fn epoll_loop_serves_clients_a_timer_and_a_pipe() {
    for datapath in datapaths() {
        let mut example = Example::start("epoll_loop", &[&datapath]);
        example.tell("one\n");
        example.serve(&datapath);
        example.tell("two\nstop\n");
        let said = example.line();
        let (ticks, lines) = said.split_once(" ticks, ").unwrap();
        assert!(ticks.parse::<u64>().unwrap() > 0, "{said}");
        assert_eq!(lines, "3 lines");
        example.end();
    }
}

#[test]
fn io_uring_loop_serves_clients_and_reads_a_file() {
    let file = env!("CARGO_BIN_EXE_ringperf");
    for datapath in datapaths() {
        let mut example = Example::start("io_uring_loop", &[&datapath, file]);
        assert_eq!(
            example.line(),
            format!("READ {} bytes", std::fs::metadata(file).unwrap().len())
        );
        example.serve(&datapath);
        example.tell("stop\n");
        assert_eq!(example.line(), "ENDED");
        example.end();
    }
}
