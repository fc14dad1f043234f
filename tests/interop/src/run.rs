//! One case: a server, a client, and between them a network that behaves as the test says.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use ringway_peers::CANNOT;
use tempfile::TempDir;

use crate::Args;
use crate::case::{Case, Execution, Stack, Test};
use crate::proxy::{Faults, Proxy};

/// How long one transfer may take.
const TIMEOUT: Duration = Duration::from_secs(90);

pub enum Outcome {
    Passed(Duration),
    Skipped(String),
}

/// What all cases run with.
pub struct Runner {
    ringperf: PathBuf,
    python: PathBuf,
    /// Where the other stacks' programs are.
    here: PathBuf,
    debug: bool,
    certificate: PathBuf,
    key: PathBuf,
    /// Of certificate and key: gone with it.
    _directory: TempDir,
}

impl Runner {
    pub fn new(args: &Args) -> Result<Runner> {
        let directory = tempfile::tempdir()?;
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
        let (certificate, key) = (
            directory.path().join("cert.pem"),
            directory.path().join("key.pem"),
        );
        std::fs::write(&certificate, made.cert.pem())?;
        std::fs::write(&key, made.signing_key.serialize_pem())?;
        let here = std::env::current_exe()?
            .parent()
            .context("no directory")?
            .to_owned();
        Ok(Runner {
            ringperf: args.ringperf.clone(),
            python: args.python.clone(),
            here,
            debug: args.debug,
            certificate,
            key,
            _directory: directory,
        })
    }

    pub fn run(&self, case: &Case) -> Result<Outcome> {
        let &Case {
            client, server, test, ..
        } = case;
        let start = Instant::now();
        for stack in [client, server] {
            let program = match stack.program() {
                Some(program) => self.here.join(program),
                None if stack == Stack::Aioquic => self.python.clone(),
                None => continue,
            };
            if !program.exists() {
                return Ok(Outcome::Skipped(format!("{} is not there", program.display())));
            }
        }
        let (_server, address) = self.start_server(case)?;
        // Seen in its trace: of a packet that tquic took for lost too early it counts off twice what is in flight. When it believes that nothing
        // is, it arms no timer, and what is lost at the end is never sent again. So packets to and from it do not overtake each other.
        let reordered = test == Test::Loss && ![client, server].contains(&Stack::Tquic);
        let faults = |loss: f64, rebind_after| Faults {
            loss,
            duplication: loss / 2.0,
            // Short, so that a sender that halves its window at each loss is done in seconds.
            delay: Duration::from_micros(500),
            jitter: if reordered {
                Duration::from_micros(300)
            } else {
                Duration::ZERO
            },
            rebind_after,
            seed: 1,
        };
        let proxy = match test {
            Test::Loss => Some(Proxy::start(address, faults(0.02, None))?),
            Test::Rebinding => Some(Proxy::start(address, faults(0.0, Some(1_000_000)))?),
            _ => None,
        };
        let target = proxy.as_ref().map_or(address, |proxy| proxy.address);
        let scenarios: &[&str] = match (test, client) {
            (Test::Resumption, Stack::Ringway) => &["hps"],
            (Test::Resumption | Test::ZeroRtt, _) => &["latency-0rtt"],
            _ => &["download", "upload"],
        };
        for scenario in scenarios {
            if let Some(reason) = self.run_client(case, target, scenario)? {
                return Ok(Outcome::Skipped(reason));
            }
        }
        Ok(Outcome::Passed(start.elapsed()))
    }

    fn program(&self, stack: Stack) -> Command {
        match stack.program() {
            Some(program) => Command::new(self.here.join(program)),
            None if stack == Stack::Ringway => Command::new(&self.ringperf),
            None => {
                let mut command = Command::new(&self.python);
                command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("aioquic_peer.py"));
                command
            }
        }
    }

    fn start_server(&self, case: &Case) -> Result<(Process, SocketAddr)> {
        let mut command = self.program(case.server);
        command
            .args(["server", "--bind", "127.0.0.1:0", "--verify", "--cert"])
            .arg(&self.certificate)
            .arg("--key")
            .arg(&self.key);
        if case.server == Stack::Ringway {
            command.args(execution(case.execution, false));
            match case.test {
                Test::KeyUpdate => command.args(["--key-update-after", "2MB"]),
                Test::Resumption => command.args(["--resumption", "resume"]),
                Test::ZeroRtt => command.args(["--resumption", "zero-rtt"]),
                _ => &mut command,
            };
        }
        if case.test == Test::Retry {
            command.arg("--retry");
        }
        let complaints = if self.debug {
            Stdio::inherit()
        } else {
            Stdio::null()
        };
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(complaints)
            .spawn()
            .context("starting the server")?;
        let out = child.stdout.take().context("no output")?;
        let process = Process(child);
        let (sender, receiver) = mpsc::channel();
        std::thread::spawn(move || {
            let mut lines = BufReader::new(out).lines();
            if let Some(Ok(line)) = lines.next() {
                let _ = sender.send(line);
            }
            // A server whose output nobody reads would stop.
            lines.for_each(drop);
        });
        let line = receiver
            .recv_timeout(Duration::from_secs(20))
            .context("the server does not say where it listens")?;
        let address = line
            .strip_prefix("LISTENING ")
            .with_context(|| format!("unexpected output {line:?}"))?;
        Ok((process, address.parse()?))
    }

    /// Runs one transfer; `Some`: the peer cannot do it.
    fn run_client(&self, case: &Case, target: SocketAddr, scenario: &str) -> Result<Option<String>> {
        let mut command = self.program(case.client);
        command.args([
            "client",
            "--server-name",
            "localhost",
            "--scenario",
            scenario,
            "--verify",
            "--json",
            "--target",
            &target.to_string(),
        ]);
        command.arg("--ca").arg(&self.certificate);
        let is_transfer = !matches!(case.test, Test::Resumption | Test::ZeroRtt);
        if is_transfer {
            command.args(["--bytes", "10000000"]);
        } else if case.client == Stack::Ringway {
            command.args(["--time", "1s", "--connections", "2"]);
        }
        if case.test == Test::Resumption && case.client == Stack::Ringway {
            command.arg("--resume");
        }
        if case.test == Test::Rebinding {
            // Who only receives never learns that a NAT has forgotten it, unless it says something now and then.
            command.args(["--keep-alive", "300ms"]);
        }
        if case.client == Stack::Ringway {
            command.args(["--timeout", "80s"]);
            command.args(execution(case.execution, case.server == Stack::Ringway));
            if case.test == Test::KeyUpdate {
                // A client that downloads sends only acknowledgements, and few of them to a server that sends in large batches.
                let bytes = if scenario == "download" { "2kB" } else { "100kB" };
                command.args(["--key-update-after", bytes]);
            }
        }
        match case.test {
            Test::Version2 | Test::VersionNegotiation => {
                command.args(["--quic", "v2"]);
            }
            Test::CompatibleVersion => {
                command.args(["--quic", "v1", "--versions", "v2,v1"]);
            }
            _ => {}
        }
        if case.client != Stack::Ringway
            && case.test == Test::KeyUpdate
            && matches!(case.client, Stack::Quinn | Stack::Msquic | Stack::Aioquic)
        {
            // The others can only follow: our server updates its keys.
            command.arg("--key-update");
        }
        let mut child = Process(
            command
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .context("starting the client")?,
        );
        let (mut out, mut err) = (
            child.0.stdout.take().context("no output")?,
            child.0.stderr.take().context("no output")?,
        );
        let reader = std::thread::spawn(move || {
            let mut text = String::new();
            let _ = err.read_to_string(&mut text);
            text
        });
        let output = std::thread::spawn(move || {
            let mut text = String::new();
            let _ = out.read_to_string(&mut text);
            text
        });
        let start = Instant::now();
        let status = loop {
            if let Some(status) = child.0.try_wait()? {
                break status;
            }
            if start.elapsed() > TIMEOUT {
                bail!("{scenario}: not done after {} s", TIMEOUT.as_secs());
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        let errors = reader.join().unwrap_or_default();
        let output = output.join().unwrap_or_default();
        if status.code() == Some(CANNOT) {
            return Ok(Some("the client cannot".to_owned()));
        }
        if !status.success() {
            bail!("{scenario}: {status}: {}", errors.trim());
        }
        let figures: serde_json::Value =
            serde_json::from_str(output.trim().lines().last().unwrap_or_default())
                .context("reading the figures")?;
        if !is_transfer {
            let connections = &figures["connections"];
            let count = |what: &str| connections[what].as_u64().unwrap_or_default();
            if count("resumed") == 0 {
                bail!("{scenario}: no session was resumed");
            }
            if case.test == Test::ZeroRtt && count("zero_rtt_accepted") == 0 {
                bail!("{scenario}: no 0-RTT was accepted");
            }
            return Ok(None);
        }
        if figures["bytes"] != 10_000_000 {
            bail!("{scenario}: {} bytes", figures["bytes"]);
        }
        if case.client == Stack::Ringway
            && case.test == Test::KeyUpdate
            && figures["connections"]["key_updates"] == 0
        {
            bail!("{scenario}: no key update took place");
        }
        let negotiated = match case.test {
            Test::Version2 | Test::CompatibleVersion => "v2",
            _ => "v1",
        };
        // Not every stack tells.
        if let Some(quic) = figures["connections"]["quic"].as_str()
            && quic != negotiated
        {
            bail!("{scenario}: version {quic} instead of {negotiated}");
        }
        Ok(None)
    }
}

/// Arguments of ringperf that choose how it runs, `beside` another one that has the AF_XDP of the interface already.
fn execution(execution: Execution, beside: bool) -> Vec<&'static str> {
    let mut arguments = vec!["--mode", execution.mode];
    arguments.extend(match execution.datapath {
        "af_xdp" if beside => ["--datapath", "auto"],
        other => ["--datapath", other],
    });
    if execution.datapath == "af_xdp" {
        arguments.extend(["--interface", "lo"]);
    }
    if execution.event_loop != "threads" {
        arguments.extend(["--event-loop", execution.event_loop]);
    }
    arguments
}

/// A process that is killed when it goes out of sight.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
