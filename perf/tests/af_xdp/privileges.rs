//! Privileges that end after set-up, in a sandbox as a service has one.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use libtest_mimic::Failed;
use ringway_perf::process::{self, Process};

use super::{
    AF_XDP, DOCUMENTED, Namespaces, Outcome, RINGPERF, SERVER_TIMEOUT, SOCKET, V4, check, count, end, passed,
    refused, sources, started, with, with_capabilities,
};

/// The files of this machine, read-only, in a mount namespace of its own.
const READ_ONLY_ROOT: [&str; 7] = [
    "unshare",
    "--mount",
    "--propagation=private",
    "sh",
    "-c",
    "mount -o remount,bind,ro / && exec \"$@\"",
    "sh",
];

/// Says whether the threads of a process have any capabilities, and whether its files are read-only.
fn check_sandbox(server: &Process) -> Outcome {
    let process = format!("/proc/{}", server.id());
    let mut threads = 0;
    for thread in fs::read_dir(format!("{process}/task"))? {
        let status = fs::read_to_string(thread?.path().join("status"))?;
        for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
            let none = status
                .lines()
                .any(|line| line == format!("{set}:\t0000000000000000"));
            check(none, || format!("{set} is not empty: {status}"))?;
        }
        check(status.contains("NoNewPrivs:\t1"), || status.clone())?;
        threads += 1;
    }
    check(threads > 1, || "it has no threads of its own".to_owned())?;
    let mounts = fs::read_to_string(format!("{process}/mounts"))?;
    let root = mounts.lines().find(|line| line.split(' ').nth(1) == Some("/"));
    let is_read_only = root.is_some_and(|root| {
        root.split(' ')
            .nth(3)
            .is_some_and(|options| options.starts_with("ro"))
    });
    check(is_read_only, || format!("{root:?}"))
}

/// A server with these capabilities, which it gives up, on a read-only root.
fn sandboxed(
    namespaces: &Namespaces,
    directory: &Path,
    mode: &str,
    capabilities: &[&str],
) -> Result<Command, Failed> {
    let mut command = with_capabilities(namespaces, directory, &READ_ONLY_ROOT, capabilities)?;
    command.args([
        "--bind",
        "[::]:4433",
        "--json",
        "--verify",
        "--drop-capabilities",
        "--mode",
        mode,
    ]);
    Ok(command)
}

pub(super) fn given_up() -> Outcome {
    for mode in ["low-latency", "max-throughput"] {
        let namespaces = Namespaces::up(&["1500", "2"])?;
        let directory = tempfile::tempdir()?;
        let mut command = sandboxed(&namespaces, directory.path(), mode, &DOCUMENTED)?;
        // Not on the read-only root. These two have threads of their own.
        let files = tempfile::tempdir_in("/dev/shm")?;
        fs::set_permissions(files.path(), fs::Permissions::from_mode(0o777))?;
        for (option, file) in [("--control", "control"), ("--capture", "packets.pcapng")] {
            command.arg(option).arg(files.path().join(file));
        }
        let server = started(&mut command)?;
        check_sandbox(&server)?;
        let upload = |to: &str| {
            // A change wakes who sleeps; who is busy looks twice a second.
            std::thread::sleep(Duration::from_millis(700));
            namespaces.ip('b', "neigh flush dev rw0")?;
            namespaces
                .client(&format!("{to}:4433"), "upload", &["--bytes", "2000000"], &SOCKET)
                .map(drop)
        };
        upload("10.9.0.1")?;
        // Each of these changes the program's maps, or what frames look like.
        for (change, to) in [
            ("addr add 10.9.0.3/24 dev rw0", "10.9.0.3"),
            ("link set rw0 address 02:00:00:00:09:07", "10.9.0.1"),
            ("link set rw0 mtu 1400", "10.9.0.3"),
            ("link set rw0 mtu 1500", "10.9.0.3"),
            ("link set rw0 down", ""),
            ("link set rw0 up", "10.9.0.1"),
            ("addr del 10.9.0.3/24 dev rw0", "10.9.0.1"),
        ] {
            namespaces.ip('a', change)?;
            if !to.is_empty() {
                upload(to).map_err(|failed| format!("{change}: {}", failed.message().unwrap_or_default()))?;
            }
        }
        check_sandbox(&server)?;
        let report = end(server)?;
        let (received, past) = (
            count(&report, "received_datagrams"),
            count(&report, "bypass_received_datagrams"),
        );
        check(received > 7000 && past * 10 >= received * 9, || {
            format!("{past} past the kernel: {report}")
        })?;
        let link = namespaces.ip('a', "link show rw0")?;
        check(!link.contains("xdp"), || {
            format!("the program stays attached: {link}")
        })?;
    }
    Ok(())
}

/// Deletes the interface of the server, and makes another one with its name.
fn make_again(namespaces: &Namespaces, queues: &str) -> Outcome {
    namespaces.ip('a', "link del rw0")?;
    let peer = namespaces.name('b');
    let queues = format!("numrxqueues {queues} numtxqueues {queues}");
    namespaces.ip(
        'a',
        &format!("link add rw0 {queues} type veth peer name rw0 netns {peer} {queues}"),
    )?;
    for (side, address) in [('a', "10.9.0.1/24"), ('b', "10.9.0.2/24")] {
        namespaces.ip(side, "link set rw0 up")?;
        namespaces.ip(side, &format!("addr add {address} dev rw0"))?;
    }
    Ok(())
}

/// Frames that the interface of the server has given to sockets since it was made.
fn redirected(namespaces: &Namespaces) -> Result<u64, Failed> {
    let statistics = process::run(namespaces.command('a', "ethtool").args(["-S", "rw0"]))?;
    let counts = statistics
        .lines()
        .filter_map(|line| line.split_once("_xdp_redirect: "));
    Ok(counts.filter_map(|(_, count)| count.parse::<u64>().ok()).sum())
}

/// Deleted and made again, an interface is served past the kernel as before: also by a process that has no capabilities any more, and whose memory
/// would be more than it may lock now.
pub(super) fn interface_returns() -> Outcome {
    for (mode, queues, capabilities) in [
        ("low-latency", "2", &DOCUMENTED[..]),
        ("max-throughput", "2", &DOCUMENTED),
        // One whose memory is as much as is mostly allowed, and is accounted until the kernel is done with the former socket.
        ("low-latency", "1", &DOCUMENTED[..3]),
    ] {
        let namespaces = Namespaces::up(&["1500", queues])?;
        let directory = tempfile::tempdir()?;
        let mut command = sandboxed(&namespaces, directory.path(), mode, capabilities)?;
        let server = started(&mut command)?;
        let transfer =
            |scenario, amount: [&str; 2]| namespaces.client("10.9.0.1:4433", scenario, &amount, &SOCKET);
        transfer("upload", ["--bytes", "2000000"])?;
        // During transfers in both directions, which go on by the kernel's sockets meanwhile, and past it again.
        for scenario in ["upload", "download"] {
            let report = std::thread::scope(|scope| {
                let client = scope.spawn(|| transfer(scenario, ["--time", "4s"]));
                std::thread::sleep(Duration::from_millis(1500));
                make_again(&namespaces, queues)?;
                client.join().map_err(|_| Failed::from("the client panicked"))?
            })?;
            check(report["seconds"].as_f64() > Some(3.5), || {
                format!("{mode} {queues}, {scenario}: {report}")
            })?;
            check(redirected(&namespaces)? > 100, || {
                format!("{mode} {queues}, {scenario}: it stays with the kernel: {report}")
            })?;
        }
        // And when all is quiet.
        std::thread::sleep(Duration::from_millis(700));
        make_again(&namespaces, queues)?;
        std::thread::sleep(Duration::from_millis(700));
        transfer("upload", ["--bytes", "20000000"])?;
        let redirected = redirected(&namespaces)?;
        check(redirected > 12_000, || {
            format!("{mode} {queues}: {redirected} datagrams")
        })?;
        check_sandbox(&server)?;
        let report = end(server)?;
        let past = count(&report, "bypass_received_datagrams");
        let unserved = passed(&report, "unserved_queues");
        check(
            past > redirected && unserved == 0 && report["verification_failures"] == 0,
            || format!("{mode} {queues}: {past} past the kernel: {report}"),
        )?;
        let sent = count(&report, "bypass_sent_datagrams");
        check(sent > 1000, || {
            format!("{mode} {queues}: {sent} sent past it: {report}")
        })?;
    }
    Ok(())
}

/// Each operation that comes after set-up and needs nothing, by a server that has nothing any more.
pub(super) fn nothing_needed_later() -> Outcome {
    let namespaces = Namespaces::up(&["1500", "2"])?;
    let queues = |side, count| {
        let mut command = namespaces.command(side, "ethtool");
        process::run(command.args(["-L", "rw0", "rx", count, "tx", count]))
    };
    for side in ['b', 'a'] {
        queues(side, "1")?;
    }
    let directory = tempfile::tempdir()?;
    let files = tempfile::tempdir_in("/dev/shm")?;
    fs::set_permissions(files.path(), fs::Permissions::from_mode(0o777))?;
    let control = files.path().join("control");
    let control = control.to_str().ok_or("no path")?;
    let mut command = sandboxed(&namespaces, directory.path(), "low-latency", &DOCUMENTED)?;
    let server = started(command.args(["--control", control, "--busy-poll", "50us"]))?;
    let transfer = || namespaces.client("10.9.0.1:4433", "upload", &["--bytes", "2000000"], &SOCKET);
    transfer()?;
    // Rules for sources.
    sources(control, &["--drop", "10.9.0.2"])?;
    let mut client = namespaces.command('b', RINGPERF);
    client.args([
        "client",
        "--target",
        "10.9.0.1:4433",
        "--bytes",
        "1",
        "--timeout",
        "1s",
    ]);
    check(!client.args(SOCKET).output()?.status.success(), || {
        "it was answered".to_owned()
    })?;
    let rules = sources(control, &["--remove", "10.9.0.2"])?;
    check(rules.as_array().is_some_and(Vec::is_empty), || format!("{rules}"))?;
    // A queue that is new, on which veth runs no program: what comes by it is the kernel's.
    for side in ['a', 'b'] {
        queues(side, "2")?;
    }
    std::thread::sleep(Duration::from_millis(700));
    transfer()?;
    // A capture.
    let file = files.path().join("packets.pcapng");
    let mut capture = Command::new(RINGPERF);
    capture.args([
        "capture",
        "--control",
        control,
        "--packets",
        "50",
        "--json",
        "--output",
    ]);
    let mut capture = Process::start(capture.arg(&file))?;
    let start = Instant::now();
    while !fs::metadata(&file).is_ok_and(|file| file.len() > 0) {
        check(start.elapsed() < SERVER_TIMEOUT, || {
            "no capture begins".to_owned()
        })?;
        std::thread::sleep(Duration::from_millis(20));
    }
    // Ports of connections: of a client that has given up everything, too.
    let client = with(&AF_XDP, &["--drop-capabilities"]);
    let client = namespaces.client("10.9.0.1:4433", "hps", &["--time", "3s"], &client)?;
    let (sent, past) = (
        count(&client, "sent_datagrams"),
        count(&client, "bypass_sent_datagrams"),
    );
    check(past > 20 && past * 10 >= sent * 9, || format!("{client}"))?;
    let captured = capture
        .next_line(SERVER_TIMEOUT)?
        .ok_or("the capture does not end")?;
    check(captured.contains("\"packets\":50"), || captured)?;
    check_sandbox(&server)?;
    let report = end(server)?;
    let served: Vec<_> = report["counters"]["queues"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|queue| queue["queue"].as_u64())
        .collect();
    check(served == [Some(0), Some(1)], || format!("{report}"))?;
    let notes = report["counters"]["notes"].to_string();
    check(
        notes.contains("busy polling: the kernel refuses") && notes.contains("CAP_NET_ADMIN"),
        || notes,
    )
}

/// What needs something more is refused with what that is, and done with it.
pub(super) fn refused_without() -> Outcome {
    let namespaces = Namespaces::up(&["1500", "1"])?;
    let directory = tempfile::tempdir()?;
    let started_with = |before: &[&str], capabilities: &[&str], arguments: &[&str]| {
        let mut command = with_capabilities(&namespaces, directory.path(), before, capabilities)?;
        started(command.arg("--json").args(arguments))
    };
    for (capability, arguments) in [
        ("net_bind_service", ["--bind", "10.9.0.1:443"].as_slice()),
        ("sys_nice", &["--bind", V4.0, "--high-priority"]),
    ] {
        let no_priority = ["prlimit", "--rtprio=0"];
        let error = refused(started_with(&no_priority, &DOCUMENTED, arguments).map(drop))?;
        let name = format!("CAP_{}", capability.to_uppercase());
        check(error.contains(&name), || format!("without {name}: {error}"))?;
        end(started_with(
            &no_priority,
            &with(&DOCUMENTED, &[capability]),
            arguments,
        )?)?;
    }
    let bind = ["--bind", V4.0];
    let little = ["prlimit", "--memlock=1048576"];
    let error = refused(started_with(&little, &DOCUMENTED[..3], &bind).map(drop))?;
    check(
        error.contains("locked memory limit does not suffice") && error.contains("CAP_IPC_LOCK"),
        || error,
    )?;
    end(started_with(&little, &DOCUMENTED, &bind)?).map(drop)
}
