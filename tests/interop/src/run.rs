//! One case: a server, a client, and between them a network that behaves as the test says.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use ringway_peers::CANNOT;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::Args;
use crate::case::{Case, Execution, Stack, Test};
use crate::key_log::KeyLogs;
use crate::proxy::{Faults, Proxy};
use crate::tally::Tally;

/// The variable that names the file for secrets.
const KEY_LOG: &str = "SSLKEYLOGFILE";
const POST_QUANTUM: [&str; 2] = ["--group", "x25519mlkem768"];
/// What each client says that was to resume a session, and could not.
const FULL_HANDSHAKE: &str = "a connection that had a ticket was set up by a full handshake";
/// How long a server may take to listen, or to end.
const PATIENCE: Duration = Duration::from_secs(20);
/// Exit code of a process that SIGINT has ended.
const INTERRUPTED: i32 = 130;
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
    directory: TempDir,
}

impl Runner {
    pub fn new(args: &Args) -> Result<Runner> {
        if !args.ringperf.exists() {
            bail!(
                "there is no {}: build it, or name it with --ringperf",
                args.ringperf.display()
            );
        }
        let ends = ending_with_us(Path::new("true"), "KILL").status();
        if !ends.is_ok_and(|status| status.success()) {
            bail!("`setpriv --pdeathsig` does not work: it is part of util-linux since 2.33");
        }
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
            directory,
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
        let count = if test.changes_keys() { 2 } else { 1 };
        let logs = self.key_logs(case)?;
        let mut servers = Vec::new();
        for _ in 0..count {
            match self.start_server(case, !servers.is_empty(), logs.as_ref())? {
                Started::Server(server) => servers.push(server),
                Started::Cannot => return Ok(Outcome::Skipped("the server cannot".to_owned())),
            }
        }
        let addresses: Vec<_> = servers.iter().map(|server| server.address).collect();
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
            loses_second: test == Test::LostHello,
            replays: test == Test::ZeroRttReplayed,
            seed: 1,
        };
        let proxy = match test {
            Test::Loss => Some(Proxy::start(addresses, faults(0.02, None))?),
            Test::Rebinding => Some(Proxy::start(addresses, faults(0.0, Some(1_000_000)))?),
            Test::LostHello | Test::FullHandshakes | Test::ZeroRttRejected | Test::ZeroRttReplayed => {
                Some(Proxy::start(addresses, faults(0.0, None))?)
            }
            _ => None,
        };
        let target = proxy.as_ref().map_or(servers[0].address, |proxy| proxy.address);
        let scenarios: &[&str] = match test {
            Test::Resumption | Test::FullHandshakes => &["hps"],
            test if test.is_early() => &["latency-0rtt"],
            _ => &["download", "upload"],
        };
        for scenario in scenarios {
            let ran = self.run_client(case, target, scenario, logs.as_ref());
            let figures = match ran {
                Err(error) if test == Test::FullHandshakes && error.to_string().contains(FULL_HANDSHAKE) => {
                    continue;
                }
                Ok(Ran::Figures(_)) if test == Test::FullHandshakes => {
                    bail!("full handshakes were measured as resumed ones")
                }
                Ok(Ran::Figures(figures)) => figures,
                Ok(Ran::Cannot) => return Ok(Outcome::Skipped("the client cannot".to_owned())),
                Err(error) => return Err(error),
            };
            if test.resumes() {
                let mut tally = Tally::default();
                if server == Stack::Ringway {
                    for server in servers.drain(..) {
                        tally.add(&server.report()?);
                    }
                }
                if client == Stack::Ringway {
                    tally = Tally::default();
                    tally.add(&figures["connections"]);
                }
                let replayed = proxy
                    .as_ref()
                    .map_or(0, |proxy| proxy.replayed.load(Ordering::Relaxed));
                tally.check(test, figures["operations"].as_u64().unwrap_or_default(), replayed)?;
            }
        }
        if let Some(logs) = logs {
            logs.check()?;
        }
        Ok(Outcome::Passed(start.elapsed()))
    }

    /// Where client and server of a case write their secrets, if it is looked at.
    fn key_logs(&self, case: &Case) -> Result<Option<KeyLogs>> {
        (case.test == Test::Transfer)
            .then(|| KeyLogs::new(self.directory.path()))
            .transpose()
    }

    fn program(&self, stack: Stack) -> Command {
        match stack.program() {
            Some(program) => ending_with_us(&self.here.join(program), "KILL"),
            None if stack == Stack::Ringway => ending_with_us(&self.ringperf, "KILL"),
            None => {
                let mut command = ending_with_us(&self.python, "KILL");
                command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("aioquic_peer.py"));
                command
            }
        }
    }

    /// Starts a server, `beside` another one or alone.
    fn start_server(&self, case: &Case, beside: bool, logs: Option<&KeyLogs>) -> Result<Started> {
        let mut command = self.program(case.server);
        command
            .args(["server", "--bind", "127.0.0.1:0", "--verify", "--cert"])
            .arg(&self.certificate)
            .arg("--key")
            .arg(&self.key);
        if case.server == Stack::Ringway {
            command.args(execution(case.execution, beside));
            command.arg("--json");
            if case.test == Test::KeyUpdate {
                command.args(["--key-update-after", "2MB"]);
            }
        }
        match case.test {
            Test::Retry => drop(command.arg("--retry")),
            Test::Resumption | Test::FullHandshakes => drop(command.args(["--resumption", "resume"])),
            test if test.is_early() => drop(command.args(["--resumption", "zero-rtt"])),
            Test::ClientCertificates => drop(command.arg("--client-ca").arg(&self.certificate)),
            Test::PostQuantum => drop(command.args(POST_QUANTUM)),
            _ => {}
        }
        if let Some(logs) = logs {
            command.env(KEY_LOG, logs.server.path());
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
        let mut process = Process(child);
        let (sender, output) = mpsc::channel();
        std::thread::spawn(move || {
            // A server whose output nobody reads would stop.
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        let Ok(line) = output.recv_timeout(PATIENCE) else {
            let ended = process.0.try_wait()?;
            if ended.is_some_and(|status| status.code() == Some(CANNOT)) {
                return Ok(Started::Cannot);
            }
            bail!("the server does not say where it listens");
        };
        let address = line
            .strip_prefix("LISTENING ")
            .with_context(|| format!("unexpected output {line:?}"))?
            .parse()?;
        Ok(Started::Server(Server {
            process,
            output,
            address,
        }))
    }

    /// Runs one transfer, or requests for a while.
    fn run_client(
        &self,
        case: &Case,
        target: SocketAddr,
        scenario: &str,
        logs: Option<&KeyLogs>,
    ) -> Result<Ran> {
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
        if case.test.resumes() {
            // One after the other, where who is next matters. On a busy machine a second passes with the first connection, which does not count.
            let connections = if case.test == Test::Resumption { "2" } else { "1" };
            command.args(["--time", "2s", "--connections", connections]);
        } else {
            command.args(["--bytes", &case.test.bytes().to_string()]);
        }
        match case.test {
            Test::Resumption | Test::FullHandshakes => {
                command.arg("--resume");
                if case.server == Stack::S2n {
                    command.arg("--resume-once");
                }
            }
            Test::ZeroRttRejected if case.client == Stack::Ringway => drop(command.arg("--time-rejected")),
            Test::ClientCertificates => {
                command.arg("--cert").arg(&self.certificate);
                command.arg("--key").arg(&self.key);
            }
            Test::PostQuantum => drop(command.args(POST_QUANTUM)),
            _ => {}
        }
        if let Some(logs) = logs {
            command.env(KEY_LOG, logs.client.path());
        }
        if case.test == Test::Rebinding {
            // Who only receives never learns that a NAT has forgotten it, unless it says something now and then.
            command.args(["--keep-alive", "300ms"]);
        }
        if case.client != Stack::Aioquic {
            // Also on a busy machine: an upload shows no progress from when its last bytes, which may be most of them, lie in the stack's buffers.
            command.args(["--timeout", "80s"]);
        }
        if case.client == Stack::Ringway {
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
            return Ok(Ran::Cannot);
        }
        if !status.success() {
            bail!("{scenario}: {status}: {}", errors.trim());
        }
        let figures: serde_json::Value =
            serde_json::from_str(output.trim().lines().last().unwrap_or_default())
                .context("reading the figures")?;
        if case.test.resumes() {
            return Ok(Ran::Figures(figures));
        }
        if figures["bytes"] != case.test.bytes() {
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
        Ok(Ran::Figures(figures))
    }
}

/// A program that gets this signal when the thread that has started it ends, however that comes about.
pub fn ending_with_us(program: &Path, signal: &str) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", signal, "--"]).arg(program);
    command
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

/// What became of an attempt to start a server.
enum Started {
    Server(Server),
    Cannot,
}

/// What became of a client's run.
enum Ran {
    Figures(serde_json::Value),
    Cannot,
}

/// A server that listens.
struct Server {
    process: Process,
    output: mpsc::Receiver<String>,
    address: SocketAddr,
}

impl Server {
    /// Ends ours, and gives what it has counted.
    fn report(mut self) -> Result<serde_json::Value> {
        // Connections of which the client has just said that they are over end in this time.
        std::thread::sleep(Duration::from_millis(50));
        let id = i32::try_from(self.process.0.id()).ok().and_then(Pid::from_raw);
        kill_process(id.context("no process")?, Signal::INT).context("ending the server")?;
        let line = self
            .output
            .recv_timeout(PATIENCE)
            .context("the server does not say what it has counted")?;
        let status = self.process.0.wait()?;
        if !status.success() && status.code() != Some(INTERRUPTED) {
            bail!("the server: {status}");
        }
        serde_json::from_str(&line).with_context(|| format!("unexpected output {line:?}"))
    }
}

/// A process that is killed when it goes out of sight.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use super::*;

    #[test]
    fn program_ends_with_the_thread_that_has_started_it() {
        let start = || {
            let mut command = ending_with_us(Path::new("cat"), "KILL");
            let mut child = command
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            // It is asked for its signal before it becomes the program, which answers.
            std::io::Write::write_all(child.stdin.as_mut().unwrap(), b"x").unwrap();
            child.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
            child
        };
        let mut child = std::thread::spawn(start).join().unwrap();
        assert_eq!(child.wait().unwrap().signal(), Some(Signal::KILL.as_raw()));
    }
}
