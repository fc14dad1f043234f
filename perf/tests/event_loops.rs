//! The examples of event loops: each serves a client of ours, and what is its own, over each datapath.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use ringway_perf::process::Process;

const TIMEOUT: Duration = Duration::from_secs(30);

/// Those that `TEST_DATAPATH` names, or all that need no preparation.
fn datapaths() -> Vec<String> {
    match std::env::var("TEST_DATAPATH") {
        Ok(one) => vec![one],
        Err(_) => vec!["socket".to_owned(), "io_uring".to_owned()],
    }
}

/// An example that runs; killed at the end.
struct Example {
    process: Process,
    address: String,
}

impl Example {
    fn start(name: &str, arguments: &[&str]) -> Example {
        let directory = PathBuf::from(env!("CARGO_BIN_EXE_ringperf"));
        let program = directory.with_file_name("examples").join(name);
        assert!(program.exists(), "{program:?}: cargo build -p ringway --examples");
        let mut example = Example {
            process: Process::start_with_pipe(Command::new(program).args(arguments)).unwrap(),
            address: String::new(),
        };
        let line = example.next_line();
        let address = line.strip_prefix("LISTENING ");
        example.address = address
            .unwrap_or_else(|| panic!("{name} printed {line:?}"))
            .to_owned();
        example
    }

    fn next_line(&mut self) -> String {
        let line = self.process.next_line(TIMEOUT).unwrap();
        line.expect("an example that prints something")
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

    fn write(&mut self, lines: &str) {
        self.process.write(lines).unwrap();
    }

    fn wait(mut self) {
        self.process.wait(TIMEOUT).unwrap();
    }
}

#[test]
fn epoll_loop_serves_clients_a_timer_and_a_pipe() {
    for datapath in datapaths() {
        let mut example = Example::start("event_loop_epoll", &[&datapath]);
        example.write("one\n");
        example.serve(&datapath);
        example.write("two\nstop\n");
        let line = example.next_line();
        let (ticks, lines) = line.split_once(" ticks, ").unwrap();
        assert!(ticks.parse::<u64>().unwrap() > 0, "{line}");
        assert_eq!(lines, "3 lines");
        example.wait();
    }
}

#[test]
fn io_uring_loop_serves_clients_and_reads_a_file() {
    let file = env!("CARGO_BIN_EXE_ringperf");
    for datapath in datapaths() {
        let mut example = Example::start("event_loop_io_uring", &[&datapath, file]);
        assert_eq!(
            example.next_line(),
            format!("READ {} bytes", std::fs::metadata(file).unwrap().len())
        );
        example.serve(&datapath);
        example.write("stop\n");
        assert_eq!(example.next_line(), "ENDED");
        example.wait();
    }
}
