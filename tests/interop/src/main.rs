//! The matrix: Ringway against each of the other stacks, in both directions.
//!
//! `interop RINGPERF DATAPATH MODE [FILTER]` runs every case whose name contains FILTER, with Ringway on the datapath and in the mode named, and
//! prints a line for each; the last line is the sum. Exit code 1 if any failed. `af_xdp` is that of the loopback interface, which must be ready
//! for it (`scripts/on-af_xdp.sh`); of two Ringways the server has it.
//!
//! The programs of the other stacks are those of `perf/peers`, built next to this one, and `aioquic_peer.py`. One that is not there is skipped.

mod proxy;

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use proxy::{Faults, Proxy};
use ringway_peers::CANNOT;

/// How long one transfer may take.
const TIMEOUT: Duration = Duration::from_secs(90);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stack {
    Ringway,
    Quinn,
    S2n,
    Quiche,
    Tquic,
    Msquic,
    Aioquic,
}

impl Stack {
    /// Its program in `perf/peers`.
    fn program(self) -> Option<&'static str> {
        match self {
            Stack::Ringway | Stack::Aioquic => None,
            Stack::Quinn => Some("quinn-peer"),
            Stack::S2n => Some("s2n-quic-peer"),
            Stack::Quiche => Some("quiche-peer"),
            Stack::Tquic => Some("tquic-peer"),
            Stack::Msquic => Some("msquic-peer"),
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Case {
    Transfer,
    Retry,
    KeyUpdate,
    Loss,
    Rebinding,
    Version2,
}

enum Outcome {
    Pass(Duration),
    Skip(String),
}

struct Matrix {
    ringperf: PathBuf,
    datapath: String,
    mode: String,
    here: PathBuf,
    python: PathBuf,
    certificate: PathBuf,
    key: PathBuf,
}

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("interop: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<bool> {
    let mut args = std::env::args().skip(1);
    let usage = "usage: interop RINGPERF DATAPATH MODE [FILTER]";
    let ringperf = args.next().context(usage)?.into();
    let datapath = args.next().context(usage)?;
    let mode = args.next().context(usage)?;
    let filter = args.next().unwrap_or_default();
    let python = std::env::var_os("INTEROP_PYTHON").map_or_else(|| "python3".into(), PathBuf::from);
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
    let matrix = Matrix {
        ringperf,
        datapath,
        mode,
        here,
        python,
        certificate,
        key,
    };
    let (mut passed, mut failed, mut skipped) = (0, 0, 0);
    for stack in [
        Stack::Ringway,
        Stack::Quinn,
        Stack::S2n,
        Stack::Quiche,
        Stack::Tquic,
        Stack::Msquic,
        Stack::Aioquic,
    ] {
        for we_serve in [true, false] {
            if stack == Stack::Ringway && !we_serve {
                continue;
            }
            let (client, server) = if we_serve {
                (stack, Stack::Ringway)
            } else {
                (Stack::Ringway, stack)
            };
            for case in [
                Case::Transfer,
                Case::Retry,
                Case::KeyUpdate,
                Case::Loss,
                Case::Rebinding,
                Case::Version2,
            ] {
                let name = format!("{client:?} client, {server:?} server, {case:?}").to_lowercase();
                if !name.contains(&filter) {
                    continue;
                }
                match matrix.case(client, server, case) {
                    Ok(Outcome::Pass(time)) => {
                        passed += 1;
                        println!("PASS {name} ({:.2} s)", time.as_secs_f64());
                    }
                    Ok(Outcome::Skip(reason)) => {
                        skipped += 1;
                        println!("SKIP {name}: {reason}");
                    }
                    Err(error) => {
                        failed += 1;
                        println!("FAIL {name}: {error:#}");
                    }
                }
            }
        }
    }
    println!("{passed} passed, {failed} failed, {skipped} skipped");
    Ok(failed == 0 && passed > 0)
}

/// A process that is killed when it goes out of sight.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Matrix {
    fn case(&self, client: Stack, server: Stack, case: Case) -> Result<Outcome> {
        let start = Instant::now();
        if case == Case::Version2
            && (client, server) != (Stack::Ringway, Stack::Ringway)
            && client != Stack::Ringway
        {
            return Ok(Outcome::Skip(
                "only our client is asked to start with version 2".to_owned(),
            ));
        }
        if case == Case::Version2
            && matches!(server, Stack::Quinn | Stack::S2n | Stack::Quiche | Stack::Tquic)
        {
            return Ok(Outcome::Skip("the server does not speak version 2".to_owned()));
        }
        if case == Case::Rebinding && matches!(server, Stack::Quiche | Stack::Tquic) {
            // Seen on the wire: they validate the new address and acknowledge, and send none of the data that is left.
            return Ok(Outcome::Skip(
                "the server sends no more data when its client's address changes".to_owned(),
            ));
        }
        for program in [client, server].into_iter().filter_map(Stack::program) {
            if !self.here.join(program).exists() {
                return Ok(Outcome::Skip(format!("{program} is not built")));
            }
        }
        let (_server, address) = self.start_server(server, case)?;
        // Seen in its trace: of a packet that tquic took for lost too early it counts off twice what is in flight. When it believes that nothing
        // is, it arms no timer, and what is lost at the end is never sent again. So packets to and from it do not overtake each other.
        let reordered = case == Case::Loss && ![client, server].contains(&Stack::Tquic);
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
        let proxy = match case {
            Case::Loss => Some(Proxy::start(address, faults(0.02, None))?),
            Case::Rebinding => Some(Proxy::start(address, faults(0.0, Some(1_000_000)))?),
            _ => None,
        };
        let target = proxy.as_ref().map_or(address, |proxy| proxy.address);
        for scenario in ["download", "upload"] {
            if let Some(reason) = self.run_client((client, server), target, scenario, case)? {
                return Ok(Outcome::Skip(reason));
            }
        }
        Ok(Outcome::Pass(start.elapsed()))
    }

    /// Arguments of ringperf that choose mode and datapath, `beside` another one that has that already.
    fn execution(&self, beside: bool) -> Vec<&str> {
        let datapath: &[&str] = match &self.datapath[..] {
            "af_xdp" if beside => &["--datapath", "auto", "--interface", "lo"],
            "af_xdp" => &["--datapath", "af_xdp", "--interface", "lo"],
            other => &["--datapath", other],
        };
        let mode: &[&str] = match self.mode.as_str() {
            "epoll" | "io-uring" => &["--event-loop", &self.mode],
            mode => &["--mode", mode],
        };
        [mode, datapath].concat()
    }

    fn peer(&self, stack: Stack) -> Command {
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

    fn start_server(&self, stack: Stack, case: Case) -> Result<(Process, SocketAddr)> {
        let mut command = self.peer(stack);
        command
            .args(["server", "--bind", "127.0.0.1:0", "--verify", "--cert"])
            .arg(&self.certificate)
            .arg("--key")
            .arg(&self.key);
        if stack == Stack::Ringway {
            command.args(self.execution(false));
            if case == Case::KeyUpdate {
                command.args(["--key-update-after", "2MB"]);
            }
        }
        if case == Case::Retry {
            command.arg("--retry");
        }
        // INTEROP_DEBUG=1 shows what servers complain of.
        let complaints = if std::env::var_os("INTEROP_DEBUG").is_some() {
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
        let (tell, told) = mpsc::channel();
        std::thread::spawn(move || {
            let mut lines = BufReader::new(out).lines();
            if let Some(Ok(line)) = lines.next() {
                let _ = tell.send(line);
            }
            // A server whose output nobody reads would stop.
            lines.for_each(drop);
        });
        let line = told
            .recv_timeout(Duration::from_secs(20))
            .context("the server does not say where it listens")?;
        let address = line
            .strip_prefix("LISTENING ")
            .with_context(|| format!("unexpected output {line:?}"))?;
        Ok((process, address.parse()?))
    }

    /// Runs one transfer; `Some`: the peer cannot do it.
    fn run_client(
        &self,
        (stack, server): (Stack, Stack),
        target: SocketAddr,
        scenario: &str,
        case: Case,
    ) -> Result<Option<String>> {
        let mut command = self.peer(stack);
        command.args([
            "client",
            "--server-name",
            "localhost",
            "--scenario",
            scenario,
            "--bytes",
            "10000000",
            "--verify",
            "--json",
            "--target",
            &target.to_string(),
        ]);
        command.arg("--ca").arg(&self.certificate);
        if case == Case::Rebinding {
            // Who only receives never learns that a NAT has forgotten it, unless it says something now and then.
            command.args(["--keep-alive", "300ms"]);
        }
        if stack == Stack::Ringway {
            command.args(["--timeout", "80s"]);
            command.args(self.execution(server == Stack::Ringway));
            match case {
                Case::KeyUpdate => {
                    // A client that downloads sends only acknowledgements, and few of them to a server that sends in large batches.
                    let bytes = if scenario == "download" { "2kB" } else { "100kB" };
                    command.args(["--key-update-after", bytes]);
                }
                Case::Version2 => {
                    command.args(["--quic", "v2"]);
                }
                _ => {}
            }
        } else if case == Case::KeyUpdate && matches!(stack, Stack::Quinn | Stack::Msquic | Stack::Aioquic) {
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
        if figures["bytes"] != 10_000_000 {
            bail!("{scenario}: {} bytes", figures["bytes"]);
        }
        if stack == Stack::Ringway && case == Case::KeyUpdate && figures["connections"]["key_updates"] == 0 {
            bail!("{scenario}: no key update took place");
        }
        Ok(None)
    }
}
