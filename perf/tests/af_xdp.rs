//! AF_XDP between two network namespaces over multi-queue veth: whole transfers, and what must not happen beside them.
//!
//! Reported as ignored, with the reason, where namespaces cannot be made.

#[path = "af_xdp/interfaces.rs"]
mod interfaces;
#[path = "af_xdp/privileges.rs"]
mod privileges;

use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use libtest_mimic::{Arguments, Failed, Trial};
use ringway_perf::namespace::{Namespace, command_in};
use ringway_perf::process::{self, Process};
use serde_json::Value;

const RINGPERF: &str = env!("CARGO_BIN_EXE_ringperf");
const AF_XDP: [&str; 4] = ["--datapath", "af_xdp", "--interface", "rw0"];
/// Sockets, without segmentation: an AF_XDP socket cannot take a frame of many datagrams.
const SOCKET: [&str; 3] = ["--datapath", "socket", "--no-gso"];
const BYTES: u64 = 10_000_000;
/// How long a server may take to be ready, and to end.
const SERVER_TIMEOUT: Duration = Duration::from_secs(10);

type Outcome = Result<(), Failed>;
type Test = fn() -> Outcome;

/// Two namespaces, gone at the end.
struct Namespaces {
    name: String,
}

impl Namespaces {
    fn up(arguments: &[&str]) -> Result<Self, Failed> {
        let namespaces = Namespaces {
            name: format!("rwtest{}", std::process::id()),
        };
        let output = namespaces.script().arg("up").args(arguments).output()?;
        if output.status.success() {
            Ok(namespaces)
        } else {
            Err(String::from_utf8_lossy(&output.stderr).trim().to_owned().into())
        }
    }

    fn script(&self) -> Command {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/namespaces.sh");
        let mut command = Command::new(script);
        command.env("NAME", &self.name);
        command
    }

    fn name(&self, side: char) -> String {
        format!("{}-{side}", self.name)
    }

    /// A program in one of them.
    fn command(&self, side: char, program: &str) -> Command {
        command_in(Some(&self.name(side)), program)
    }

    /// Waits for a server to listen.
    fn server(&self, bind: &str, arguments: &[&str]) -> Result<Process, Failed> {
        let mut command = self.command('a', RINGPERF);
        command
            .args(["server", "--bind", bind, "--json", "--verify"])
            .args(arguments);
        started(&mut command)
    }

    /// A program that serves others in a namespace, once it is ready.
    fn helper(&self, side: char, code: &str) -> Result<Process, Failed> {
        let mut helper = Process::start(self.command(side, "python3").args(["-c", code]))?;
        check(helper.next_line(SERVER_TIMEOUT)?.is_some(), || {
            "it does not get ready".to_owned()
        })?;
        Ok(helper)
    }

    fn client(
        &self,
        target: &str,
        scenario: &str,
        amount: &[&str],
        arguments: &[&str],
    ) -> Result<Value, Failed> {
        self.client_in('b', target, scenario, amount, arguments)
    }

    fn client_in(
        &self,
        side: char,
        target: &str,
        scenario: &str,
        amount: &[&str],
        arguments: &[&str],
    ) -> Result<Value, Failed> {
        let mut command = self.command(side, RINGPERF);
        command.args([
            "client",
            "--target",
            target,
            "--scenario",
            scenario,
            "--json",
            "--verify",
            "--timeout",
            "10s",
        ]);
        let output = command.args(amount).args(arguments).output()?;
        report(&output)
    }

    fn ip(&self, side: char, arguments: &str) -> Result<String, Failed> {
        let mut command = self.command(side, "ip");
        Ok(process::run(command.args(arguments.split_whitespace()))?)
    }

    /// That of the interface.
    fn link_address(&self, side: char) -> Result<String, Failed> {
        let link = self.ip(side, "-o link show rw0")?;
        let mut words = link.split_whitespace().skip_while(|word| *word != "link/ether");
        Ok(words.nth(1).ok_or("no address")?.to_owned())
    }

    fn python(&self, side: char, code: &str) -> Outcome {
        process::run(self.command(side, "python3").args(["-c", code]))?;
        Ok(())
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        let _ = self.script().arg("down").output();
    }
}

/// A server, once it listens.
fn started(command: &mut Command) -> Result<Process, Failed> {
    let mut server = Process::start(command)?;
    match server.next_line(SERVER_TIMEOUT)? {
        Some(line) if line.starts_with("LISTENING") => Ok(server),
        line => Err(format!("the server printed {line:?}").into()),
    }
}

/// Ends a server, and gives its figures.
fn end(mut server: Process) -> Result<Value, Failed> {
    server.terminate()?;
    let line = server.next_line(SERVER_TIMEOUT)?;
    Ok(serde_json::from_str(&line.ok_or("the server does not end")?)?)
}

fn report(output: &Output) -> Result<Value, Failed> {
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).trim().to_owned().into());
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}

fn count(report: &Value, counter: &str) -> u64 {
    report["counters"][counter].as_u64().unwrap_or(0)
}

/// What the XDP program has left to the kernel, for one reason.
fn passed(report: &Value, reason: &str) -> u64 {
    report["counters"]["xdp"][reason].as_u64().unwrap_or(0)
}

fn check(condition: bool, what: impl FnOnce() -> String) -> Outcome {
    if condition { Ok(()) } else { Err(what().into()) }
}

/// Both directions; the bulk must go past the kernel on each side that has AF_XDP.
fn transfer(
    namespaces: &Namespaces,
    (bind, target): (&str, &str),
    server_arguments: &[&str],
    client_arguments: &[&str],
) -> Outcome {
    for scenario in ["download", "upload"] {
        let server = namespaces.server(bind, server_arguments)?;
        let client = namespaces.client(
            target,
            scenario,
            &["--bytes", &BYTES.to_string()],
            client_arguments,
        )?;
        check(client["bytes"].as_u64() >= Some(BYTES), || {
            format!("{scenario}: {client}")
        })?;
        let server = end(server)?;
        check(server["verification_failures"] == 0, || {
            format!("{scenario}: {server}")
        })?;
        for (report, arguments) in [(&server, server_arguments), (&client, client_arguments)] {
            if !arguments.contains(&"af_xdp") {
                continue;
            }
            let (sent, received) = (
                count(report, "sent_datagrams"),
                count(report, "received_datagrams"),
            );
            let past = count(report, "bypass_sent_datagrams") + count(report, "bypass_received_datagrams");
            check(past * 10 >= (sent + received) * 9, || {
                format!("{scenario}: {past} past the kernel: {report}")
            })?;
        }
    }
    Ok(())
}

const V4: (&str, &str) = ("10.9.0.1:4433", "10.9.0.1:4433");
const V6: (&str, &str) = ("[fd09::1]:4433", "[fd09::1]:4433");
const ANY: (&str, &str) = ("[::]:4433", "10.9.0.1:4433");

fn with<'a>(arguments: &[&'a str], more: &[&'a str]) -> Vec<&'a str> {
    [arguments, more].concat()
}

fn native_and_generic() -> Outcome {
    let namespaces = Namespaces::up(&["1500", "2"])?;
    for attach in ["native", "generic"] {
        let xdp = with(&AF_XDP, &["--xdp-attach", attach]);
        for addresses in [V4, V6, ANY] {
            transfer(&namespaces, addresses, &xdp, &xdp)?;
        }
        transfer(&namespaces, V4, &xdp, &SOCKET)?;
        transfer(&namespaces, V6, &SOCKET, &xdp)?;
        let on_two_threads = with(&xdp, &["--mode", "max-throughput"]);
        transfer(&namespaces, V4, &on_two_threads, &on_two_threads)?;
    }
    Ok(())
}

fn vlan_devices() -> Outcome {
    let namespaces = Namespaces::up(&["1500", "2", "7"])?;
    let generic = with(&AF_XDP, &["--xdp-attach", "native"]);
    transfer(&namespaces, V4, &generic, &generic)?;
    transfer(&namespaces, V6, &generic, &generic)
}

/// A trunk port between server and client, which needs no VLAN devices of the kernel: frames of the client get a tag, those of the server lose
/// theirs (which the kernel takes off what a packet socket receives, and reports beside it). What has no tag goes nowhere.
const TRUNK: &str = "
import select, socket, struct
trunk, access = (socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)) for _ in range(2))
trunk.bind(('rw0', 3))
access.bind(('access', 3))
for one in (trunk, access):
    one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
trunk.setsockopt(263, 8, 1)  # SOL_PACKET, PACKET_AUXDATA
print('ready', flush=True)
while True:
    for source in select.select([trunk, access], [], [])[0]:
        frame, beside, _, address = source.recvmsg(65536, 64)
        if address[2] == socket.PACKET_OUTGOING:
            continue
        if source is access:
            trunk.send(frame[:12] + bytes([0x81, 0, 0, 7]) + frame[12:])
        elif struct.unpack('IIIHHHH', beside[0][2])[5] == 7:
            access.send(frame)
";

/// The kernel of the server's side knows no VLAN, and would not answer.
fn foreign_vlan() -> Outcome {
    let namespaces = Namespaces::up(&["1500", "1"])?;
    let client = Namespace::add(namespaces.name('c'))?;
    client.ip(&format!(
        "link add rw0 type veth peer name access netns {}",
        namespaces.name('b')
    ))?;
    namespaces.ip('b', "link set access up")?;
    client.ip("link set rw0 up")?;
    client.ip("addr add 10.9.0.3/24 dev rw0")?;
    client.ip(&format!(
        "neigh add 10.9.0.1 lladdr {} dev rw0",
        namespaces.link_address('a')?
    ))?;
    let _trunk = namespaces.helper('b', TRUNK)?;
    for attach in ["native", "generic"] {
        let server = namespaces.server(V4.0, &with(&AF_XDP, &["--xdp-attach", attach]))?;
        let mut command = namespaces.command('c', RINGPERF);
        command.args(["client", "--target", V4.1, "--bytes", "1", "--timeout", "1s"]);
        let output = command.args(SOCKET).output()?;
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        check(!output.status.success() && error.contains("giving up"), || {
            format!("{attach}: it was answered: {error}")
        })?;
        // What the program counts is read while something is received.
        namespaces.client(V4.1, "download", &["--time", "1s"], &SOCKET)?;
        let served = end(server)?;
        check(
            passed(&served, "passed_other_vlan") > 0 && served["counters"]["accepted"] == 1,
            || format!("{attach}: {served}"),
        )?;
    }
    Ok(())
}

/// Which of the host's links such an address is on is a number of this host.
fn link_local() -> Outcome {
    let namespaces = Namespaces::up(&["1500", "1"])?;
    let addresses = namespaces.ip('a', "-o -6 addr show dev rw0 scope link")?;
    let mut words = addresses.split_whitespace().skip_while(|word| *word != "inet6");
    let address = words.nth(1).and_then(|word| word.split('/').next());
    let address = address.ok_or_else(|| format!("no link-local address: {addresses}"))?;
    let link = namespaces.ip('b', "-o link show rw0")?;
    let index = link.split(':').next().unwrap_or_default();
    // The kernel looks for another host with the same address first.
    let start = Instant::now();
    while namespaces
        .ip('a', "-6 addr show dev rw0 tentative")?
        .contains("inet6")
        || namespaces
            .ip('b', "-6 addr show dev rw0 tentative")?
            .contains("inet6")
    {
        check(start.elapsed() < SERVER_TIMEOUT, || {
            "the address stays tentative".to_owned()
        })?;
        std::thread::sleep(Duration::from_millis(50));
    }
    let target = format!("[{address}%{index}]:4433");
    let named = with(&AF_XDP, &["--server-name", "localhost"]);
    for retry in [&[][..], &["--retry"]] {
        let server = namespaces.server("[::]:4433", &with(&AF_XDP, retry))?;
        let report = namespaces.client(&target, "download", &["--bytes", &BYTES.to_string()], &named)?;
        check(report["bytes"].as_u64() >= Some(BYTES), || format!("{report}"))?;
        for report in [report, end(server)?] {
            let (sent, past) = (
                count(&report, "sent_datagrams"),
                count(&report, "bypass_sent_datagrams"),
            );
            check(past * 10 >= sent * 8, || format!("{report}"))?;
        }
    }
    Ok(())
}

/// It would start there, and nothing would ever come.
fn loopback() -> Outcome {
    let namespaces = Namespaces::up(&["1500", "1"])?;
    namespaces.ip('a', "link set lo mtu 9000")?;
    let on_loopback = ["--datapath", "af_xdp", "--interface", "lo"];
    let Err(error) = namespaces.server("127.0.0.1:4433", &on_loopback) else {
        return Err("AF_XDP on loopback".into());
    };
    let error = error.message().unwrap_or_default().to_owned();
    check(error.contains("loopback interface"), || error)?;
    let automatic = ["--datapath", "auto", "--interface", "lo"];
    let served = end(namespaces.server("127.0.0.1:4433", &automatic)?)?;
    check(
        served["counters"]["notes"]
            .to_string()
            .contains("loopback interface"),
        || format!("{served}"),
    )
}

/// The address of a cluster, of which each host gets the frames. It must not become anybody's source.
fn group_address() -> Outcome {
    let namespaces = Namespaces::up(&["1500", "1"])?;
    let server = namespaces.server(V4.0, &AF_XDP)?;
    namespaces.ip('b', "neigh replace 10.9.0.1 lladdr 03:bf:0a:09:00:01 dev rw0")?;
    // What the program counts is read twice a second.
    let report = namespaces.client(V4.1, "download", &["--time", "2s"], &SOCKET)?;
    check(report["bytes"].as_u64() >= Some(1_000_000), || {
        format!("{report}")
    })?;
    let served = end(server)?;
    check(
        passed(&served, "passed_other_host") > 0 && count(&served, "bypass_sent_datagrams") == 0,
        || format!("{served}"),
    )
}

/// A server at all addresses of its host, which change while it runs.
fn addresses_change() -> Outcome {
    let namespaces = Namespaces::up(&["1500", "1"])?;
    let server = namespaces.server(ANY.0, &AF_XDP)?;
    namespaces.ip('a', "addr add 10.9.0.7/24 dev rw0")?;
    namespaces.ip('a', "link set rw0 address 02:00:00:00:00:77")?;
    namespaces.ip('b', "neigh flush dev rw0")?;
    // Who is busy looks twice a second.
    std::thread::sleep(Duration::from_millis(600));
    for target in ["10.9.0.7:4433", V4.1] {
        let report = namespaces.client(target, "download", &["--bytes", &BYTES.to_string()], &AF_XDP)?;
        check(report["bytes"].as_u64() >= Some(BYTES), || format!("{report}"))?;
    }
    let served = end(server)?;
    let (sent, past) = (
        count(&served, "sent_datagrams"),
        count(&served, "bypass_sent_datagrams"),
    );
    check(past * 10 >= sent * 9, || format!("{served}"))
}

/// Datagrams to an address that came while all threads slept go past the kernel from the first one on.
fn addresses_change_while_all_sleep() -> Outcome {
    for mode in ["low-latency", "max-throughput"] {
        let namespaces = Namespaces::up(&["1500", "2"])?;
        let server = namespaces.server("[::]:4433", &with(&AF_XDP, &["--mode", mode]))?;
        // It falls asleep, and has time to wake up.
        std::thread::sleep(Duration::from_millis(700));
        namespaces.ip('a', "addr add 10.9.0.3/24 dev rw0")?;
        std::thread::sleep(Duration::from_secs(1));
        namespaces.client("10.9.0.3:4433", "upload", &["--bytes", "1000000"], &SOCKET)?;
        let report = end(server)?;
        check(
            passed(&report, "passed_not_ours") == 0 && count(&report, "bypass_received_datagrams") > 500,
            || format!("{mode}: {report}"),
        )?;
    }
    Ok(())
}

/// The server gets another link-layer address, and its kernel announces it.
fn neighbour_moves() -> Outcome {
    let namespaces = Namespaces::up(&["1500", "1"])?;
    for side in ['a', 'b'] {
        let settings = ["net.ipv4.conf.rw0.arp_notify=1", "net.ipv4.conf.rw0.arp_accept=1"];
        process::run(namespaces.command(side, "sysctl").arg("-qw").args(settings))?;
    }
    let server = namespaces.server(V4.0, &SOCKET)?;
    let report = std::thread::scope(|scope| {
        let client = scope.spawn(|| namespaces.client(V4.1, "upload", &["--time", "5s"], &AF_XDP));
        std::thread::sleep(Duration::from_millis(1500));
        namespaces.ip('a', "link set rw0 down")?;
        namespaces.ip('a', "link set rw0 address 02:11:22:33:44:55")?;
        namespaces.ip('a', "link set rw0 up")?;
        client.join().map_err(|_| Failed::from("the client panicked"))?
    })?;
    check(report["seconds"].as_f64() > Some(4.5), || format!("{report}"))?;
    end(server).map(drop)
}

/// Two gateways between two networks, and a host in each: what their default route is decides which of the two has the traffic.
const GATEWAYS: &str = r#"
set -e
for network in x y; do
    ip -n $1-$network link add bridge type bridge mcast_snooping 0
    ip -n $1-$network link set bridge up
done
plug() { # namespace, interface, network
    ip link add $2 netns $1 type veth peer name $1$2 netns $3
    ip -n $3 link set $1$2 master bridge up
    ip -n $1 link set $2 up
    ip netns exec $1 ethtool -K $2 tx-udp-segmentation off >/dev/null
}
plug $1-c rw0 $1-x; plug $1-s rw0 $1-y
ip -n $1-c addr add 10.9.1.2/24 dev rw0; ip -n $1-s addr add 10.9.2.2/24 dev rw0
for gateway in 1 2; do
    plug $1-$gateway x $1-x; plug $1-$gateway y $1-y
    ip -n $1-$gateway addr add 10.9.1.25$gateway/24 dev x
    ip -n $1-$gateway addr add 10.9.2.25$gateway/24 dev y
    ip netns exec $1-$gateway sysctl -qw net.ipv4.ip_forward=1
done
ip -n $1-c route add default via 10.9.1.251; ip -n $1-s route add default via 10.9.2.251
"#;

fn gateway_fails() -> Outcome {
    let name = format!("rw{}", std::process::id() % 100_000);
    let made: Result<Vec<Namespace>, _> = ["c", "s", "x", "y", "1", "2"]
        .iter()
        .map(|part| Namespace::add(format!("{name}-{part}")))
        .collect();
    let [client, server, _, _, first, _] = &made?[..] else {
        return Err("six namespaces".into());
    };
    process::run(Command::new("bash").args(["-c", GATEWAYS, "-", &name]))?;
    let mut command = command_in(Some(server.name()), RINGPERF);
    let mut serving = Process::start(
        command
            .args(["server", "--bind", "0.0.0.0:4433", "--json"])
            .args(AF_XDP),
    )?;
    let line = serving.next_line(SERVER_TIMEOUT)?;
    check(line.is_some_and(|line| line.starts_with("LISTENING")), || {
        "no server".to_owned()
    })?;
    let mut command = command_in(Some(client.name()), RINGPERF);
    command.args(["client", "--target", "10.9.2.2:4433", "--scenario", "download"]);
    command
        .args(["--time", "5s", "--timeout", "9s", "--json"])
        .args(SOCKET);
    let report = std::thread::scope(|scope| {
        let client_side = scope.spawn(move || report(&command.output()?));
        std::thread::sleep(Duration::from_millis(1500));
        for side in ["x", "y"] {
            first.ip(&format!("link set {side} down"))?;
        }
        std::thread::sleep(Duration::from_millis(300));
        client.ip("route replace default via 10.9.1.252")?;
        server.ip("route replace default via 10.9.2.252")?;
        client_side
            .join()
            .map_err(|_| Failed::from("the client panicked"))?
    })?;
    check(report["seconds"].as_f64() > Some(4.5), || format!("{report}"))?;
    end(serving).map(drop)
}

fn large_mtu() -> Outcome {
    // Of one frame in packet memory, and of several.
    for (mtu, datagram) in [("3500", "3400"), ("9000", "8900")] {
        let namespaces = Namespaces::up(&[mtu, "2"])?;
        for attach in ["native", "generic"] {
            let xdp = with(
                &AF_XDP,
                &["--max-datagram-size", datagram, "--xdp-attach", attach],
            );
            for addresses in [V4, V6] {
                transfer(&namespaces, addresses, &xdp, &xdp)?;
            }
            let on_two_threads = with(&xdp, &["--mode", "max-throughput"]);
            transfer(&namespaces, V4, &on_two_threads, &on_two_threads)?;
        }
        let server = namespaces.server(V4.0, &with(&AF_XDP, &["--max-datagram-size", datagram]))?;
        let client = with(&AF_XDP, &["--max-datagram-size", datagram]);
        let report = namespaces.client(V4.1, "upload", &["--bytes", "30000000"], &client)?;
        let size = report["connections"]["datagram_size"].as_u64();
        check(size > Some(3300) && (mtu == "3500" || size > Some(8500)), || {
            format!("{mtu}: {report}")
        })?;
        end(server)?;
    }
    Ok(())
}

/// One partition serves both queues, its worker is on another thread, and both are loaded: what comes in on the one never ends up in the memory of
/// the other.
fn two_queues_of_one_partition() -> Outcome {
    let namespaces = Namespaces::up(&["1500", "2"])?;
    let server = with(&AF_XDP, &["--mode", "max-throughput", "--cpus", "0"]);
    let server = namespaces.server(V4.0, &server)?;
    // The sender's kernel chooses the queue by the ports.
    let clients: Vec<Result<Value, Failed>> = std::thread::scope(|scope| {
        let client = || namespaces.client(V4.1, "upload", &["--time", "2s"], &SOCKET);
        let clients: Vec<_> = (0..6).map(|_| scope.spawn(client)).collect();
        let join =
            |client: std::thread::ScopedJoinHandle<'_, _>| client.join().unwrap_or(Err("it panicked".into()));
        clients.into_iter().map(join).collect()
    });
    clients.into_iter().try_for_each(|client| client.map(drop))?;
    let statistics = process::run(namespaces.command('a', "ethtool").args(["-S", "rw0"]))?;
    for queue in ["rx_queue_0_xdp_packets: ", "rx_queue_1_xdp_packets: "] {
        let mut counts = statistics
            .lines()
            .filter_map(|line| line.trim().strip_prefix(queue));
        let count = counts.next().and_then(|count| count.parse().ok());
        check(count > Some(1000u64), || format!("{queue}: {statistics}"))?;
    }
    let server = end(server)?;
    let drops = &server["counters"]["drops"];
    for sign in [
        "DecryptionFailed",
        "Duplicate",
        "MalformedHeader",
        "UnknownConnection",
    ] {
        check(drops[sign].is_null(), || format!("{sign}: {drops}"))?;
    }
    let queues: Vec<_> = server["counters"]["queues"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|queue| {
            (
                queue["queue"].as_u64(),
                queue["xdp"].as_str(),
                queue["copy"].as_str(),
            )
        })
        .collect();
    let served = |number| (Some(number), Some("native"), Some("copy"));
    check(queues == [served(0), served(1)], || format!("{queues:?}"))?;
    check(server["verification_failures"] == 0, || format!("{server}"))
}

/// The link refuses what is longer, and the kernel stops behind each such frame.
fn mtu_falls() -> Outcome {
    for mode in ["low-latency", "max-throughput"] {
        let namespaces = Namespaces::up(&["1500", "1"])?;
        let arguments = with(&AF_XDP, &["--mode", mode]);
        let server = namespaces.server(V4.0, &arguments)?;
        std::thread::scope(|scope| {
            let client = scope.spawn(|| namespaces.client(V4.1, "download", &["--time", "4s"], &SOCKET));
            std::thread::sleep(Duration::from_millis(1500));
            // The peer's end first: until ours has fallen too, we do not know, and send what is refused.
            for side in ['b', 'a'] {
                process::run(
                    namespaces
                        .command(side, "ip")
                        .args(["link", "set", "rw0", "mtu", "1300"]),
                )?;
                std::thread::sleep(Duration::from_millis(200));
            }
            client.join().map_err(|_| Failed::from("the client panicked"))?
        })?;
        let report = namespaces.client(V4.1, "download", &["--bytes", "1MB"], &SOCKET)?;
        check(report["bytes"].as_u64() >= Some(1_000_000), || {
            format!("{report}")
        })?;
        let server = end(server)?;
        let xdp = &server["counters"]["xdp"];
        // Those that had been committed when it fell, and not all that came after.
        let (refused, too_big) = (xdp["refused_sends"].as_u64(), count(&server, "send_too_big"));
        check(
            refused > Some(0) && xdp["level_transmit"] == 0 && too_big > 0,
            || format!("{mode}: {server}"),
        )?;
    }
    Ok(())
}

/// IPv6 through WireGuard, 6in4 or Tailscale has so narrow links, and certificates of usual size take several datagrams.
fn narrow_link() -> Outcome {
    let names: Vec<String> = (0..100)
        .map(|number| format!("very-long-name-{number}.example.org"))
        .collect();
    let made = rcgen::generate_simple_self_signed(names)?;
    let directory = tempfile::tempdir()?;
    let [cert, key] = ["cert.pem", "key.pem"].map(|name| directory.path().join(name));
    std::fs::write(&cert, made.cert.pem())?;
    std::fs::write(&key, made.signing_key.serialize_pem())?;
    let path = |path: &Path| path.to_str().unwrap_or_default().to_owned();
    let credentials = [path(&cert), path(&key)];
    let namespaces = Namespaces::up(&["1280", "1"])?;
    let io_uring = ["--datapath", "io_uring", "--no-gso"];
    let two_threads = with(&SOCKET, &["--mode", "max-throughput"]);
    for datapath in [&SOCKET[..], &io_uring, &two_threads, &AF_XDP] {
        for (bind, target) in [V4, V6] {
            let server = with(datapath, &["--cert", &credentials[0], "--key", &credentials[1]]);
            let server = namespaces.server(bind, &server)?;
            let report = namespaces.client(target, "upload", &["--bytes", "1MB"], datapath)?;
            let connections = &report["connections"];
            check(
                connections["probe_timeouts"] == 0 && connections["lost_packets"] == 0,
                || format!("{datapath:?} {target}: {report}"),
            )?;
            // Probes are refused where they are sent, one for each size, and tell what the link carries. AF_XDP has no room for most of them.
            let (size, refused) = (
                connections["datagram_size"].as_u64(),
                count(&report, "send_too_big"),
            );
            let carries = if target == V4.1 { 1252 } else { 1232 };
            let searched = refused <= 6 && (refused > 0 || datapath.contains(&"af_xdp"));
            check(
                size > Some(carries - 16) && size <= Some(carries) && searched,
                || format!("{datapath:?} {target}: {size:?} bytes, {refused} refused: {report}"),
            )?;
            end(server)?;
        }
    }
    Ok(())
}

fn other_traffic() -> Outcome {
    let namespaces = Namespaces::up(&["1500", "2"])?;
    let _server = namespaces.server(ANY.0, &AF_XDP)?;
    let echo = "
import socket, threading
tcp = socket.create_server(('10.9.0.1', 2222))
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
udp.bind(('10.9.0.1', 5353))
def tcp_echo():
    peer, _ = tcp.accept()
    while data := peer.recv(65536):
        peer.sendall(data)
threading.Thread(target=tcp_echo, daemon=True).start()
print('ready', flush=True)
while True:
    data, peer = udp.recvfrom(65536)
    udp.sendto(data, peer)
";
    let _echo = namespaces.helper('a', echo)?;
    std::thread::scope(|scope| {
        let client = scope.spawn(|| namespaces.client(ANY.1, "download", &["--time", "2s"], &AF_XDP));
        // Messages over TCP and UDP, datagrams that are fragmented, and echo requests, while the queues are busy.
        let exchanged = namespaces.python(
            'b',
            "
import os, socket, struct, time
tcp = socket.create_connection(('10.9.0.1', 2222), timeout=5)
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
udp.settimeout(5)
icmp = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
icmp.settimeout(5)
def checksum(data):
    total = sum(struct.unpack('!%dH' % (len(data) // 2), data))
    while total >> 16:
        total = (total & 0xffff) + (total >> 16)
    return ~total & 0xffff
for index in range(20):
    message = os.urandom(20000)
    tcp.sendall(message)
    got = b''
    while len(got) < len(message):
        got += tcp.recv(65536)
    assert got == message, 'tcp'
    for size in (30, 4000):
        message = os.urandom(size)
        udp.sendto(message, ('10.9.0.1', 5353))
        assert udp.recv(65536) == message, 'udp'
    request = struct.pack('!BBHHH', 8, 0, 0, 99, index)
    icmp.sendto(request[:2] + struct.pack('!H', checksum(request)) + request[4:], ('10.9.0.1', 0))
    while True:
        answer = icmp.recv(2000)[20:]
        if answer[0] == 0 and answer[4:8] == request[4:8]:
            break
    time.sleep(0.02)
",
        );
        let client = client.join().map_err(|_| Failed::from("the client panicked"))?;
        client.and(exchanged)
    })
}

fn killed() -> Outcome {
    let namespaces = Namespaces::up(&["1500", "2"])?;
    for _ in 0..3 {
        let server = namespaces.server(V4.0, &AF_XDP)?;
        std::thread::scope(|scope| {
            let client = scope.spawn(|| namespaces.client(V4.1, "download", &["--time", "3s"], &SOCKET));
            std::thread::sleep(Duration::from_millis(500));
            // That kills it.
            drop(server);
            // Nothing of it is left: no program on the interface, and the port is free.
            let start = Instant::now();
            loop {
                let output = namespaces
                    .command('a', "ip")
                    .args(["link", "show", "rw0"])
                    .output()?;
                if !String::from_utf8_lossy(&output.stdout).contains("xdp") {
                    break;
                }
                check(start.elapsed() < Duration::from_secs(2), || {
                    "the XDP program stays attached".to_owned()
                })?;
            }
            let again = namespaces.server(V4.0, &AF_XDP)?;
            // The client of the dead one may fail as it likes, but it ends.
            let _ = client.join();
            namespaces.client(V4.1, "upload", &["--bytes", "1000000"], &AF_XDP)?;
            end(again).map(drop)
        })?;
    }
    Ok(())
}

fn second_process() -> Outcome {
    let namespaces = Namespaces::up(&["1500", "2"])?;
    let first = namespaces.server(V4.0, &AF_XDP)?;
    let Err(error) = namespaces.server("10.9.0.1:4444", &AF_XDP) else {
        return Err("two programs on one interface".into());
    };
    let error = error.message().unwrap_or_default().to_owned();
    check(error.contains("in use"), || error)?;
    // The first one is not disturbed, and `auto` finds another way, and says why.
    namespaces.client(V4.1, "upload", &["--bytes", "1000000"], &AF_XDP)?;
    let second = namespaces.server("10.9.0.1:4444", &["--datapath", "auto", "--interface", "rw0"])?;
    let second = end(second)?;
    let notes = second["counters"]["notes"].to_string();
    check(notes.contains("af_xdp") && notes.contains("in use"), || notes)?;
    end(first).map(drop)
}

fn interface_down_and_up() -> Outcome {
    let namespaces = Namespaces::up(&["1500", "2"])?;
    let server = namespaces.server(V4.0, &AF_XDP)?;
    std::thread::scope(|scope| {
        let client = scope.spawn(|| namespaces.client(V4.1, "upload", &["--time", "4s"], &AF_XDP));
        let link = |state: &str| {
            let status = namespaces
                .command('a', "ip")
                .args(["link", "set", "rw0", state])
                .status();
            check(status.is_ok_and(|status| status.success()), || {
                format!("link {state}")
            })
        };
        std::thread::sleep(Duration::from_millis(700));
        link("down")?;
        std::thread::sleep(Duration::from_millis(300));
        link("up")?;
        let client = client.join().map_err(|_| Failed::from("the client panicked"))??;
        // More than went before.
        check(client["seconds"].as_f64() > Some(3.5), || format!("{client}"))
    })?;
    namespaces.client(V4.1, "download", &["--bytes", "1000000"], &AF_XDP)?;
    end(server).map(drop)
}

/// Does something in both namespaces while data is uploaded, and again; then all that was to be moved has moved.
fn disturbed(namespaces: &Namespaces, arguments: &[&str], disturb: impl Fn(char) -> Outcome) -> Outcome {
    let server = namespaces.server(V4.0, arguments)?;
    std::thread::scope(|scope| {
        let client = scope.spawn(|| namespaces.client(V4.1, "upload", &["--bytes", "1000000000"], arguments));
        for side in ['a', 'b', 'a', 'b'] {
            std::thread::sleep(Duration::from_millis(300));
            disturb(side)?;
        }
        let client = client.join().map_err(|_| Failed::from("the client panicked"))??;
        check(client["bytes"].as_u64() >= Some(1_000_000_000), || {
            format!("{client}")
        })
    })?;
    namespaces.client(V4.1, "download", &["--bytes", "1000000"], arguments)?;
    let server = end(server)?;
    check(server["verification_failures"] == 0, || format!("{server}"))
}

fn neighbours_forgotten() -> Outcome {
    let namespaces = Namespaces::up(&["1500", "2"])?;
    disturbed(&namespaces, &AF_XDP, |side| {
        let status = namespaces
            .command(side, "ip")
            .args(["neigh", "flush", "dev", "rw0"])
            .status()?;
        check(status.success(), || "flushing the neighbours".to_owned())
    })
}

fn queues_changed() -> Outcome {
    let namespaces = Namespaces::up(&["1500", "2"])?;
    disturbed(&namespaces, &AF_XDP, |side| {
        for count in ["1", "2"] {
            // The kernel may refuse while AF_XDP sockets have the queues; what it allows must do no harm.
            let _ = namespaces
                .command(side, "ethtool")
                .args(["-L", "rw0", "rx", count, "tx", count])
                .output()?;
        }
        Ok(())
    })
}

fn one_of_two_queues() -> Outcome {
    let namespaces = Namespaces::up(&["1500", "2"])?;
    // What comes in on the other queue comes by the kernel.
    let served = with(&AF_XDP, &["--queues", "1"]);
    let server = namespaces.server(V4.0, &served)?;
    for _ in 0..4 {
        namespaces.client(V4.1, "download", &["--bytes", "1000000"], &SOCKET)?;
    }
    end(server)?;
    let Err(error) = namespaces.server(V4.0, &with(&AF_XDP, &["--queues", "2"])) else {
        return Err("a queue that is not there".into());
    };
    let error = error.message().unwrap_or_default().to_owned();
    check(error.contains("no receive queue 2"), || error)
}

fn set_up_by_script() -> Outcome {
    let namespaces = Namespaces::up(&["1500", "4"])?;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/nic.sh");
    let script = script.to_str().ok_or("no path")?;
    let run = |arguments: &[&str]| -> Result<String, Failed> {
        let output = namespaces.command('a', script).args(arguments).output()?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let queues = || -> Result<String, Failed> {
        let output = namespaces.command('a', "ethtool").args(["-l", "rw0"]).output()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let mut counts = text.lines().filter_map(|line| line.strip_prefix("RX:"));
        Ok(counts.nth(1).unwrap_or_default().trim().to_owned())
    };
    // The record of what was before is of this test alone.
    let _ = run(&["restore", "rw0"])?;
    for (action, after) in [("plan", "4"), ("apply", "2"), ("restore", "4")] {
        let output = run(&[action, "rw0", "2"])?;
        check(output.contains("4") && queues()? == after, || {
            format!("{action}: {output}")
        })?;
    }
    Ok(())
}

fn interface_deleted() -> Outcome {
    ["low-latency", "max-throughput"]
        .into_iter()
        .try_for_each(interface_deleted_in)
}

fn interface_deleted_in(mode: &str) -> Outcome {
    let namespaces = Namespaces::up(&["1500", "2"])?;
    let server = namespaces.server(V4.0, &with(&AF_XDP, &["--mode", mode]))?;
    std::thread::scope(|scope| {
        let client = scope.spawn(|| namespaces.client(V4.1, "download", &["--time", "2s"], &AF_XDP));
        std::thread::sleep(Duration::from_millis(700));
        let status = namespaces
            .command('a', "ip")
            .args(["link", "del", "rw0"])
            .status()?;
        check(status.success(), || "deleting the interface".to_owned())?;
        // It fails as it likes, but it ends.
        client
            .join()
            .map(drop)
            .map_err(|_| Failed::from("the client panicked"))
    })?;
    // The server has survived, says that the kernel's sockets serve, and ends when it is asked to.
    let server = end(server)?;
    check(passed(&server, "unserved_queues") == 2, || {
        format!("{mode}: {server}")
    })
}

/// A server of a user with these capabilities and no others, and no way to more. The program is copied to where that user may read it.
fn with_capabilities(
    namespaces: &Namespaces,
    directory: &Path,
    before: &[&str],
    capabilities: &[&str],
) -> Result<Command, Failed> {
    let readable =
        |path: &Path| std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o755));
    let program = directory.join("ringperf");
    std::fs::copy(RINGPERF, &program)?;
    [directory, &program].into_iter().try_for_each(readable)?;
    let set = ["-all"]
        .into_iter()
        .map(str::to_owned)
        .chain(capabilities.iter().map(|name| format!("+{name}")))
        .collect::<Vec<_>>()
        .join(",");
    let (first, rest) = before
        .split_first()
        .map_or(("setpriv", &[][..]), |(first, rest)| (*first, rest));
    let mut command = namespaces.command('a', first);
    if !before.is_empty() {
        command.args(rest).arg("setpriv");
    }
    command.args([
        "--reuid",
        "65534",
        "--regid",
        "65534",
        "--clear-groups",
        "--no-new-privs",
    ]);
    for option in ["--inh-caps", "--ambient-caps", "--bounding-set"] {
        command.args([option, &set]);
    }
    command.arg(program).arg("server").args(AF_XDP);
    Ok(command)
}

/// Those that README and manual name; the last one is not needed where much memory may be locked.
const DOCUMENTED: [&str; 4] = ["net_admin", "bpf", "net_raw", "ipc_lock"];

fn documented_capabilities() -> Outcome {
    let namespaces = Namespaces::up(&["1500", "2"])?;
    let directory = tempfile::tempdir()?;
    let mut command = with_capabilities(&namespaces, directory.path(), &[], &DOCUMENTED)?;
    let output = command.args(["--bind", V4.0, "--duration", "500ms"]).output()?;
    check(output.status.success(), || {
        String::from_utf8_lossy(&output.stderr).into_owned()
    })
}

fn unprivileged() -> Outcome {
    let namespaces = Namespaces::up(&["1500", "2"])?;
    for lacking in &DOCUMENTED[..3] {
        let name = format!("CAP_{}", lacking.to_uppercase());
        let others: Vec<&str> = DOCUMENTED.into_iter().filter(|one| one != lacking).collect();
        let directory = tempfile::tempdir()?;
        let mut command = with_capabilities(&namespaces, directory.path(), &[], &others)?;
        let output = command.args(["--bind", V4.0, "--duration", "500ms"]).output()?;
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        check(!output.status.success() && error.contains(&name), || {
            format!("without {name}: {error}")
        })?;
    }
    Ok(())
}

/// What `ringperf sources` says to the process at a control socket: the rules, or why not.
fn sources(control: &str, change: &[&str]) -> Result<Value, Failed> {
    let mut command = Command::new(RINGPERF);
    command
        .args(["sources", "--json", "--control", control])
        .args(change);
    report(&command.output()?)
}

/// The error of something that must not succeed.
fn refused<T: std::fmt::Debug>(result: Result<T, Failed>) -> Result<String, Failed> {
    match result {
        Ok(value) => Err(format!("not refused: {value:?}").into()),
        Err(failed) => Ok(failed.message().unwrap_or_default().to_owned()),
    }
}

fn source_rules() -> Outcome {
    let namespaces = Namespaces::up(&["1500", "1"])?;
    let directory = tempfile::tempdir()?;
    let control = directory.path().join("control");
    let control = control.to_str().ok_or("no path")?;
    for attach in ["native", "generic"] {
        let rules = [
            "--xdp-attach",
            attach,
            "--control",
            control,
            "--drop-source",
            "10.9.0.2,fd09::/16",
        ];
        let server = namespaces.server("[::]:4433", &with(&AF_XDP, &rules))?;
        for (_, target) in [V4, V6] {
            let mut client = namespaces.command('b', RINGPERF);
            client.args(["client", "--target", target, "--bytes", "1", "--timeout", "1s"]);
            let output = client.args(SOCKET).output()?;
            let error = String::from_utf8_lossy(&output.stderr).into_owned();
            check(!output.status.success() && error.contains("giving up"), || {
                format!("{attach}, {target}: it was answered: {error}")
            })?;
        }
        let dropped = sources(control, &[])?;
        for (index, (prefix, action)) in [("10.9.0.2/32", "drop"), ("fd09::/16", "drop")]
            .into_iter()
            .enumerate()
        {
            let rule = &dropped[index];
            check(
                rule["prefix"] == prefix && rule["action"] == action && rule["datagrams"].as_u64() > Some(0),
                || format!("{attach}: {dropped}"),
            )?;
        }
        // Taken back, and changed while data comes: dropped for a moment, then left to the kernel, whose socket has it.
        sources(control, &["--remove", "10.9.0.2"])?;
        let client = std::thread::scope(|scope| {
            let client = scope.spawn(|| namespaces.client(V4.1, "upload", &["--time", "4s"], &SOCKET));
            std::thread::sleep(Duration::from_millis(1000));
            sources(control, &["--drop", "10.9.0.0/24"])?;
            std::thread::sleep(Duration::from_millis(300));
            sources(control, &["--drop", "10.0.0.0/8", "--pass", "10.9.0.0/24"])?;
            std::thread::sleep(Duration::from_millis(1000));
            let rules = sources(control, &["--accept", "10.9.0.2"])?;
            check(rules.as_array().is_some_and(|rules| rules.len() == 4), || {
                format!("{rules}")
            })?;
            client.join().map_err(|_| Failed::from("the client panicked"))?
        })?;
        check(client["seconds"].as_f64() > Some(3.5), || format!("{client}"))?;
        let applied = sources(control, &[])?;
        let counts: Vec<_> = applied
            .as_array()
            .into_iter()
            .flatten()
            .map(|rule| {
                (
                    rule["prefix"].as_str(),
                    rule["action"].as_str(),
                    rule["datagrams"].as_u64() > Some(0),
                )
            })
            .collect();
        let rule = |prefix, action, applied| (Some(prefix), Some(action), applied);
        check(
            counts
                == [
                    rule("10.0.0.0/8", "drop", false),
                    rule("10.9.0.0/24", "pass", true),
                    rule("10.9.0.2/32", "accept", true),
                    rule("fd09::/16", "drop", true),
                ],
            || format!("{attach}: {applied}"),
        )?;
        let served = end(server)?;
        let (received, past) = (
            count(&served, "received_datagrams"),
            count(&served, "bypass_received_datagrams"),
        );
        check(
            passed(&served, "dropped_rule") > 0
                && passed(&served, "passed_rule") > 0
                && received - past >= passed(&served, "passed_rule") / 2
                && served["verification_failures"] == 0
                && served["counters"]["source_rules"] == applied,
            || format!("{attach}: {served}"),
        )?;
    }
    Ok(())
}

fn refused_source_rules() -> Outcome {
    let namespaces = Namespaces::up(&["1500", "1"])?;
    let directory = tempfile::tempdir()?;
    let control = directory.path().join("control");
    let control = control.to_str().ok_or("no path")?;
    let long = "10.9.0.1/24 has bits beyond its length: write 10.9.0.0/24 or 10.9.0.1/32";
    let error = refused(
        namespaces
            .server(V4.0, &with(&AF_XDP, &["--drop-source", "10.9.0.1/24"]))
            .map(drop),
    )?;
    check(error.contains("--drop-source") && error.contains(long), || error)?;
    let error = refused(sources(control, &[]))?;
    check(error.contains("no ringperf answers"), || error)?;
    let server = namespaces.server(
        V4.0,
        &with(&AF_XDP, &["--control", control, "--drop-source", "10.0.0.0/8"]),
    )?;
    for (change, said) in [
        (["--drop", "10.9.0.1/24"], long),
        (["--pass", "::ffff:10.9.0.0/120"], "write it as IPv4"),
        (["--remove", "10.9.0.0/24"], "there is no rule for 10.9.0.0/24"),
        (["--drop", "10.9.0.0/33"], "not an address or a prefix"),
    ] {
        let error = refused(sources(control, &change))?;
        check(error.contains(said), || error)?;
    }
    let rules = sources(control, &[])?;
    check(rules.as_array().is_some_and(|rules| rules.len() == 1), || {
        format!("{rules}")
    })?;
    // The socket is this process's.
    let error = refused(
        namespaces
            .server("10.9.0.1:4444", &with(&SOCKET, &["--control", control]))
            .map(drop),
    )?;
    check(error.contains("another process answers there"), || error)?;
    // Killed, it leaves its socket behind. Another one without AF_XDP has no use for rules, and says so.
    drop(server);
    let with_rules = [
        "--interface",
        "rw0",
        "--drop-source",
        "10.0.0.0/8",
        "--control",
        control,
    ];
    let server = namespaces.server(V4.0, &with(&SOCKET, &with_rules))?;
    let error = refused(sources(control, &["--drop", "10.9.0.0/24"]))?;
    check(error.contains("nftables"), || error)?;
    let served = end(server)?;
    let notes = served["counters"]["notes"].to_string();
    check(
        notes.contains("source rules are not applied") && !Path::new(control).exists(),
        || notes,
    )
}

/// Why nothing can be tried here: no namespaces, or no privilege to load programs.
fn refusal() -> Option<String> {
    let text = |failed: Failed| failed.message().unwrap_or_default().to_owned();
    let namespaces = match Namespaces::up(&[]) {
        Ok(namespaces) => namespaces,
        Err(failed) => return Some(text(failed)),
    };
    // Any other failure is one of the tests'.
    namespaces
        .server(V4.0, &AF_XDP)
        .err()
        .map(text)
        .filter(|reason| reason.contains("CAP_"))
}

#[allow(clippy::print_stdout, reason = "the reason why tests are ignored")]
fn main() {
    let mut arguments = Arguments::from_args();
    // They share a name for their namespaces, and the processors.
    arguments.test_threads = Some(1);
    let refused = refusal();
    if let Some(reason) = &refused {
        println!("SKIP all: {reason}");
    }
    let tests: [(&str, Test); 37] = [
        (
            "transfers_arrive_native_and_generic_over_both_address_families_and_with_plain_sockets",
            native_and_generic,
        ),
        (
            "frames_of_a_vlan_that_the_host_does_not_have_are_not_answered",
            foreign_vlan,
        ),
        (
            "frames_to_a_group_are_the_kernels_to_answer_with_an_address_of_its_own",
            group_address,
        ),
        ("transfers_arrive_over_link_local_addresses", link_local),
        ("loopback_is_refused_with_the_reason", loopback),
        (
            "addresses_that_come_while_a_server_runs_are_served_past_the_kernel",
            addresses_change,
        ),
        (
            "addresses_that_come_while_all_threads_sleep_are_served_from_the_first_datagram_on",
            addresses_change_while_all_sleep,
        ),
        (
            "transfer_survives_that_its_neighbour_gets_another_link_address",
            neighbour_moves,
        ),
        ("transfer_survives_that_another_gateway_takes_over", gateway_fails),
        ("transfers_arrive_over_vlan_devices", vlan_devices),
        (
            "bridge_is_passed_by_and_its_port_too_if_they_have_one_address",
            interfaces::bridge_and_port,
        ),
        (
            "datagrams_that_the_interface_below_would_join_come_past_the_kernel_one_by_one",
            interfaces::datagrams_joined_below,
        ),
        (
            "runs_of_a_peer_that_nobody_has_cut_into_datagrams_come_by_the_kernel",
            interfaces::runs_that_nobody_has_cut,
        ),
        (
            "macvlan_is_passed_by_and_the_interface_below_leaves_its_frames_to_the_kernel",
            interfaces::macvlan,
        ),
        (
            "interface_with_too_few_queues_for_native_xdp_is_served_in_generic_mode",
            interfaces::too_few_queues_for_native,
        ),
        (
            "plan_says_that_another_program_is_attached",
            interfaces::another_program,
        ),
        ("transfers_arrive_in_large_frames", large_mtu),
        (
            "handshake_with_a_large_certificate_over_an_mtu_of_1280_waits_for_no_probe_timeout",
            narrow_link,
        ),
        (
            "frames_of_two_queues_of_one_partition_are_kept_apart",
            two_queues_of_one_partition,
        ),
        ("transfer_goes_on_when_the_mtu_falls", mtu_falls),
        ("traffic_of_other_programs_is_untouched", other_traffic),
        (
            "killed_process_leaves_nothing_behind_and_another_starts_at_once",
            killed,
        ),
        (
            "second_process_is_told_that_the_interface_is_in_use",
            second_process,
        ),
        (
            "transfer_survives_that_the_interface_goes_down_and_up",
            interface_down_and_up,
        ),
        (
            "transfer_survives_that_neighbours_are_forgotten",
            neighbours_forgotten,
        ),
        (
            "transfer_survives_that_the_number_of_queues_changes",
            queues_changed,
        ),
        (
            "queues_that_are_not_served_are_left_to_the_kernel",
            one_of_two_queues,
        ),
        ("interface_is_set_up_by_the_script_and_set_back", set_up_by_script),
        ("server_survives_that_its_interface_is_deleted", interface_deleted),
        (
            "sources_are_dropped_passed_and_accepted_by_rules_that_change_during_a_transfer",
            source_rules,
        ),
        (
            "source_rules_that_cannot_be_are_refused_with_the_reason",
            refused_source_rules,
        ),
        ("documented_capabilities_suffice", documented_capabilities),
        ("process_without_privilege_is_told_which_it_needs", unprivileged),
        (
            "server_in_a_sandbox_gives_up_its_capabilities_and_follows_what_changes",
            privileges::given_up,
        ),
        (
            "interface_that_returns_is_served_past_the_kernel_again_without_capabilities",
            privileges::interface_returns,
        ),
        (
            "queues_rules_captures_and_ports_that_come_later_need_no_privilege",
            privileges::nothing_needed_later,
        ),
        (
            "privileged_port_priority_and_locked_memory_are_refused_with_what_they_need",
            privileges::refused_without,
        ),
    ];
    let no_vlan = refused.is_none() && Namespaces::up(&["1500", "2", "7"]).is_err();
    if no_vlan {
        println!("SKIP transfers_arrive_over_vlan_devices: this kernel has no VLAN devices");
    }
    let trials = tests.map(|(name, test)| {
        let ignored = refused.is_some() || (no_vlan && name.contains("vlan_devices"));
        Trial::test(name, test).with_ignored_flag(ignored)
    });
    libtest_mimic::run(&arguments, trials.into()).exit();
}
