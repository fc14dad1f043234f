//! One run of a contender: a fresh server, a client, and what both of them cost.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use clap::ValueEnum;
use ringway_perf_protocol::{ClientFigures, Scenario};
use tempfile::TempDir;

use super::accounting;
use super::contenders::{Contender, DatapathKind, Handshakes, Stack};
use super::metrics::Metric;
use super::network::{INTERFACE, Network, Side};
use super::runs::Figures;
use crate::certificates;
use crate::floor::{self, FloorArgs, Layer};
use crate::options::{Api, Datapath, XdpAttach};
use crate::process::Process;
use crate::processors::ProcessorList;

/// How long a server may take to be ready, and a client longer than its time.
const READY_MAX: Duration = Duration::from_secs(10);
const OVERTIME_MAX: Duration = Duration::from_secs(15);
/// Connections that are held idle, and those that warm server and client up.
const IDLE_CONNECTIONS: u64 = 2000;
const WARM_UP_CONNECTIONS: u64 = 8;
/// How long they are held, and how long before the end memory is measured: by then all are up, and what handshakes needed is free again.
const IDLE_TIME: Duration = Duration::from_secs(4);
const WARM_UP_TIME: Duration = Duration::from_millis(1000);
const MEASURE_BEFORE_END: Duration = Duration::from_millis(400);
/// What a run takes besides its time, about: to start programs and to end them.
const OVERHEAD: Duration = Duration::from_millis(250);

/// Which contender has its turn, where, and at what.
#[derive(Clone, Copy)]
pub(super) struct Turn<'a> {
    pub(super) network: &'a Network,
    pub(super) contender: Contender,
    pub(super) scenario: Scenario,
    pub(super) handshakes: Handshakes,
}

impl Turn<'_> {
    /// What the server and the client are told of tickets, whatever their stack.
    fn tickets(&self) -> (&'static [&'static str], &'static [&'static str]) {
        match self.scenario {
            Scenario::LatencyZeroRtt => (&["--resumption", "zero-rtt"], &[]),
            _ if self.handshakes.resumed => (&["--resumption", "resume"], &["--resume"]),
            _ => (&[], &[]),
        }
    }

    /// The name of the group of the key exchange.
    fn group(&self) -> Result<String> {
        let value = self.handshakes.group.to_possible_value();
        Ok(value.context("no name")?.get_name().to_owned())
    }
}

/// What starts servers and clients: where the programs are, and what all runs have in common.
pub(super) struct Runner {
    peers: PathBuf,
    ringperf: PathBuf,
    /// Holds the certificate and its key; gone with this.
    directory: TempDir,
    pub(super) cpus: [usize; 2],
    time: Duration,
}

impl Runner {
    pub(super) fn new(peers: &Path, cpus: [usize; 2], time: Duration) -> Result<Self> {
        let made = certificates::self_signed()?;
        let directory = tempfile::Builder::new().prefix("ringperf-").tempdir();
        let directory = directory.context("making a temporary directory")?;
        fs::write(directory.path().join("cert.pem"), made.cert.pem())?;
        fs::write(directory.path().join("key.pem"), made.signing_key.serialize_pem())?;
        Ok(Runner {
            // Programs are started in other places too.
            peers: std::path::absolute(peers)?,
            ringperf: std::env::current_exe().context("finding this program")?,
            directory,
            cpus,
            time,
        })
    }

    /// How long a run takes, about.
    pub(super) fn estimate(&self, scenario: Scenario) -> Duration {
        OVERHEAD
            + match scenario {
                Scenario::Idle => IDLE_TIME + WARM_UP_TIME,
                _ => self.time,
            }
    }

    pub(super) fn run(&self, turn: Turn<'_>) -> Result<Figures> {
        let Turn {
            network, contender, ..
        } = turn;
        let datapath = contender.datapath.unwrap_or(DatapathKind::Socket);
        network.prepare(datapath, self.cpus)?;
        let figures = match contender.datagrams {
            Some(_) => self.run_floor(turn),
            None => self.run_programs(turn),
        };
        // However it went: the next contender must find the network as it was.
        network.restore(datapath)?;
        figures
    }

    fn run_floor(&self, turn: Turn<'_>) -> Result<Figures> {
        let Turn {
            network,
            contender,
            scenario,
            ..
        } = turn;
        let (datagrams, datapath) = (
            contender.datagrams.context("no kind of datagrams")?,
            contender.datapath.context("no datapath")?,
        );
        let mut ends = [(Side::Server, self.cpus[0]), (Side::Client, self.cpus[1])];
        if scenario == Scenario::Upload {
            ends.reverse();
        }
        let [(sender, send_on), (receiver, receive_on)] = ends;
        let (backend, attach) = device(datapath);
        let args = FloorArgs {
            datapath: Vec::new(),
            interface: attach.map(|_| INTERFACE.to_owned()),
            xdp_attach: attach.unwrap_or(XdpAttach::Auto),
            address: network.address(receiver),
            send_in: network.namespace(sender).map(str::to_owned),
            receive_in: network.namespace(receiver).map(str::to_owned),
            cpus: ProcessorList(vec![send_on, receive_on]),
            rounds: 1,
            time: self.time,
            json: false,
        };
        let figure = floor::measure(&args, backend, Layer::Kernel, datagrams)?;
        ensure!(figure > 0.0, "nothing arrived in the time that counts");
        Ok([(Metric::GoodputGbitS, figure)].into())
    }

    fn run_programs(&self, turn: Turn<'_>) -> Result<Figures> {
        let (mut server, address) = self.start_server(turn)?;
        let figures = self.run_client(turn, &server, address);
        match figures {
            // A server that broke down is the reason that the client cannot know.
            Err(error) => Err(server.failure().map_or(error, |reason| reason.context("server"))),
            Ok(figures) => {
                server.stop()?;
                Ok(figures)
            }
        }
    }

    fn run_client(&self, turn: Turn<'_>, server: &Process, address: SocketAddr) -> Result<Figures> {
        if turn.scenario == Scenario::Idle {
            return self.run_idle(turn, server, address);
        }
        let server_before = accounting::cpu_time(server.id())?;
        let ended_before = accounting::ended_children_cpu_time()?;
        let mut command = self.client(turn, address, self.time)?;
        let mut client = Process::start_on(self.cpus[1], &mut command)?;
        let early = client.next_line(self.time / 2)?;
        if early.is_none() {
            accounting::check_pinned(client.id(), self.cpus[1]).context("client")?;
            accounting::check_pinned(server.id(), self.cpus[0]).context("server")?;
        }
        let printed = client_figures(&mut client, early, self.time)?;
        let client_time = accounting::ended_children_cpu_time()? - ended_before;
        let server_time = accounting::cpu_time(server.id())? - server_before;
        figures(
            turn.scenario,
            &printed,
            server_time.as_secs_f64(),
            client_time.as_secs_f64(),
        )
    }

    /// Memory that each of many connections takes, at both ends: what is more of it than with a handful.
    fn run_idle(&self, turn: Turn<'_>, server: &Process, address: SocketAddr) -> Result<Figures> {
        let hold = |connections: u64, time: Duration| -> Result<(f64, f64)> {
            let mut command = self.client(turn, address, time)?;
            command.args(["--connections", &connections.to_string()]);
            let mut client = Process::start_on(self.cpus[1], &mut command)?;
            let early = client.next_line(time - MEASURE_BEFORE_END)?;
            ensure!(early.is_none(), "the client ended too early");
            let [of_server, of_client] = [server.id(), client.id()].map(accounting::resident_bytes);
            let printed = client_figures(&mut client, None, time)?;
            ensure!(
                printed.operations == connections,
                "{} of {connections} connections were up",
                printed.operations
            );
            Ok((of_server? as f64, of_client? as f64))
        };
        let (server_before, client_before) = hold(WARM_UP_CONNECTIONS, WARM_UP_TIME)?;
        let (server_after, client_after) = hold(IDLE_CONNECTIONS, IDLE_TIME)?;
        let more = (IDLE_CONNECTIONS - WARM_UP_CONNECTIONS) as f64;
        Ok([
            (
                Metric::ServerBytesPerConnection,
                (server_after - server_before) / more,
            ),
            (
                Metric::ClientBytesPerConnection,
                (client_after - client_before) / more,
            ),
        ]
        .into())
    }

    fn start_server(&self, turn: Turn<'_>) -> Result<(Process, SocketAddr)> {
        let Turn {
            network, contender, ..
        } = turn;
        let program = self.program(contender.stack)?;
        let mut command = network.command(Side::Server, &program);
        // A port of its own: one that was used a moment ago may still be taken.
        let bind = SocketAddr::new(network.address(Side::Server), 0);
        command.args(["server", "--bind", &bind.to_string()]);
        command.arg("--cert").arg(self.directory.path().join("cert.pem"));
        command.arg("--key").arg(self.directory.path().join("key.pem"));
        command.args(turn.tickets().0);
        command.args(["--group", &turn.group()?]);
        command.args(ringway_options(contender, self.cpus[0]));
        let mut server = Process::start_on(self.cpus[0], &mut command)?;
        let line = server.next_line(READY_MAX).context("server")?;
        let line = line.context("the server does not start to listen")?;
        let address = line.strip_prefix("LISTENING ").and_then(|text| text.parse().ok());
        Ok((
            server,
            address.with_context(|| format!("the server printed {line:?}"))?,
        ))
    }

    fn client(&self, turn: Turn<'_>, address: SocketAddr, time: Duration) -> Result<Command> {
        let Turn {
            network,
            contender,
            scenario,
            ..
        } = turn;
        let mut command = network.command(Side::Client, &self.program(contender.stack)?);
        command.args(["client"]);
        command.args(turn.tickets().1);
        command.args(["--group", &turn.group()?]);
        let scenario = scenario.to_possible_value().context("no name")?;
        command.args(["--target", &address.to_string(), "--server-name", "localhost"]);
        command.arg("--ca").arg(self.directory.path().join("cert.pem"));
        command.args(["--scenario", scenario.get_name(), "--json"]);
        command.args(["--time", &humantime::format_duration(time).to_string()]);
        command.args(ringway_options(contender, self.cpus[1]));
        Ok(command)
    }

    fn program(&self, stack: Stack) -> Result<PathBuf> {
        let Some((name, _)) = stack.peer() else {
            return Ok(self.ringperf.clone());
        };
        let program = self.peers.join(name);
        ensure!(
            program.is_file(),
            "{name} is not in {}: build it with `cargo build --release --manifest-path perf/peers/Cargo.toml -p {name}`",
            self.peers.display()
        );
        Ok(program)
    }
}

/// What the client prints in the end, and that it ends well.
fn client_figures(client: &mut Process, early: Option<String>, time: Duration) -> Result<ClientFigures> {
    let line = match early {
        Some(line) => line,
        None => client
            .next_line(time + OVERTIME_MAX)?
            .context("the client does not end")?,
    };
    client.wait(OVERTIME_MAX)?;
    serde_json::from_str(&line).map_err(|error| anyhow!("the client printed {line:?}: {error}"))
}

fn figures(
    scenario: Scenario,
    printed: &ClientFigures,
    server_seconds: f64,
    client_seconds: f64,
) -> Result<Figures> {
    ensure!(
        printed.bytes > 0 || printed.operations > 0,
        "the client achieved nothing"
    );
    let mut figures = Figures::new();
    for metric in Metric::of(scenario) {
        let latency = || printed.latency.as_ref().context("the client printed no latency");
        let (gigabytes, operations) = (printed.bytes as f64 / 1e9, printed.operations as f64);
        let value = match metric {
            Metric::GoodputGbitS => printed.goodput_gbit_s,
            Metric::OperationsPerS => printed.operations_per_s,
            Metric::LatencyP50Us => latency()?.p50_us,
            Metric::LatencyP90Us => latency()?.p90_us,
            Metric::LatencyP99Us => latency()?.p99_us,
            Metric::LatencyP999Us => latency()?.p999_us,
            Metric::ServerCpuSPerGb => server_seconds / gigabytes,
            Metric::ClientCpuSPerGb => client_seconds / gigabytes,
            Metric::ServerCpuUsPerOperation => server_seconds * 1e6 / operations,
            Metric::ClientCpuUsPerOperation => client_seconds * 1e6 / operations,
            // Not known from what a client prints.
            Metric::ServerBytesPerConnection | Metric::ClientBytesPerConnection => continue,
        };
        ensure!(value.is_finite(), "the client achieved too little");
        figures.insert(*metric, value);
    }
    Ok(figures)
}

/// The options of ringperf beyond those of every program.
fn ringway_options(contender: Contender, processor: usize) -> Vec<String> {
    let Some(datapath) = contender.datapath else {
        return Vec::new();
    };
    let (backend, attach) = device(datapath);
    let mut options = vec![
        "--cpus".to_owned(),
        processor.to_string(),
        "--affinitize".to_owned(),
    ];
    let mut option = |name: &str, value: Option<clap::builder::PossibleValue>| {
        if let Some(value) = value {
            options.extend([name.to_owned(), value.get_name().to_owned()]);
        }
    };
    option("--datapath", backend.to_possible_value());
    let tasks = (contender.api != Api::Callback).then_some(contender.api);
    option("--api", tasks.and_then(|api| api.to_possible_value()));
    option(
        "--xdp-attach",
        attach.and_then(|attach| attach.to_possible_value()),
    );
    if attach.is_some() {
        // As a NIC that computes them: the kernel spares its sockets this work on a link that stays in memory.
        options.extend(["--interface", INTERFACE, "--no-udp-checksum"].map(str::to_owned));
    }
    if contender.polling {
        options.extend(["--poll-idle", "1ms"].map(str::to_owned));
    }
    options
}

fn device(datapath: DatapathKind) -> (Datapath, Option<XdpAttach>) {
    match datapath {
        DatapathKind::Socket => (Datapath::Socket, None),
        DatapathKind::IoUring => (Datapath::IoUring, None),
        DatapathKind::XdpGeneric => (Datapath::AfXdp, Some(XdpAttach::Generic)),
        DatapathKind::XdpNative => (Datapath::AfXdp, Some(XdpAttach::Native)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::contenders::{Group, NetworkKind, contenders};

    #[test]
    fn our_contenders_get_options_and_the_others_none() {
        let contender = |api| {
            contenders(
                NetworkKind::VethSingle,
                Scenario::Latency,
                &[Stack::Ringway],
                &[api],
            )[5]
        };
        assert_eq!(
            ringway_options(contender(Api::Callback), 1).join(" "),
            "--cpus 1 --affinitize --datapath af_xdp --xdp-attach generic --interface rw0 --no-udp-checksum --poll-idle 1ms"
        );
        let options = ringway_options(contender(Api::Async), 1);
        assert!(options.windows(2).any(|option| option == ["--api", "async"]));
        assert!(ringway_options(Contender::of(Stack::Quinn), 1).is_empty());
    }

    #[test]
    fn servers_give_tickets_where_clients_use_them() {
        let network = Network::open(NetworkKind::Loopback).unwrap();
        let told = |scenario, resumed| {
            let group = Group::X25519;
            let turn = Turn {
                network: &network,
                contender: Contender::of(Stack::Quinn),
                scenario,
                handshakes: Handshakes { resumed, group },
            };
            assert_eq!(turn.group().unwrap(), "x25519");
            turn.tickets()
        };
        let none: (&[&str], &[&str]) = (&[], &[]);
        assert_eq!(told(Scenario::Hps, false), none);
        assert_eq!(told(Scenario::Rps, false), none);
        let resumed = told(Scenario::Hps, true);
        assert_eq!(resumed, (&["--resumption", "resume"][..], &["--resume"][..]));
        assert_eq!(
            told(Scenario::LatencyZeroRtt, false).0,
            ["--resumption", "zero-rtt"]
        );
    }

    #[test]
    fn what_a_client_prints_becomes_figures() {
        let text = concat!(
            r#"{"bytes":2000000000,"operations":0,"seconds":2,"flow_seconds":1,"cpu_seconds":1,"cpu_s_per_gb":0.5,"#,
            r#""goodput_gbit_s":16.0,"operations_per_s":0,"latency":null,"more":1}"#
        );
        let printed: ClientFigures = serde_json::from_str(text).unwrap();
        let found = figures(Scenario::Download, &printed, 0.5, 0.25).unwrap();
        assert_eq!(found[&Metric::GoodputGbitS], 16.0);
        assert_eq!(found[&Metric::ServerCpuSPerGb], 0.25);
        assert_eq!(found[&Metric::ClientCpuSPerGb], 0.125);
        // No operations: nothing to divide by.
        assert!(figures(Scenario::Hps, &printed, 0.5, 0.25).is_err());
        assert!(figures(Scenario::Latency, &printed, 0.5, 0.25).is_err());
    }

    #[test]
    fn a_program_that_is_missing_is_named_with_the_way_to_get_it() {
        let runner = Runner::new(Path::new("/no/such"), [0, 0], Duration::from_secs(1)).unwrap();
        let error = runner.program(Stack::Tquic).unwrap_err().to_string();
        assert!(
            error.contains("tquic-peer is not in /no/such: build it with"),
            "{error}"
        );
    }
}
