//! Captures of transfers, read by tshark: over AF_XDP between two network namespaces, and over sockets and io_uring on loopback.
//!
//! Reported as ignored, with the reason, where tshark is not installed; those of AF_XDP where namespaces cannot be made.

use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use libtest_mimic::{Arguments, Failed, Trial};
use ringway_perf::namespace::command_in;
use ringway_perf::process::{self, Process};
use serde_json::Value;

const RINGPERF: &str = env!("CARGO_BIN_EXE_ringperf");
const TIMEOUT: Duration = Duration::from_secs(10);
const BYTES: u64 = 3_000_000;

type Outcome = Result<(), Failed>;
type Test = fn() -> Outcome;

fn check(condition: bool, what: impl FnOnce() -> String) -> Outcome {
    if condition { Ok(()) } else { Err(what().into()) }
}

/// Where server and client are: the two namespaces of scripts/namespaces.sh, or this one.
struct Place {
    namespaces: Option<String>,
    address: &'static str,
    directory: tempfile::TempDir,
}

impl Place {
    fn loopback(address: &'static str) -> Result<Self, Failed> {
        Ok(Place {
            namespaces: None,
            address,
            directory: tempfile::tempdir()?,
        })
    }

    /// Of these queues.
    fn namespaces(queues: &str) -> Result<Self, Failed> {
        let place = Place {
            namespaces: Some(format!("rwcap{}", std::process::id())),
            address: "10.9.0.1:4433",
            directory: tempfile::tempdir()?,
        };
        match place
            .script()
            .ok_or("no namespaces")?
            .args(["up", "1500", queues])
            .output()?
        {
            output if output.status.success() => Ok(place),
            output => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned().into()),
        }
    }

    fn script(&self) -> Option<Command> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/namespaces.sh");
        let mut command = Command::new(script);
        command.env("NAME", self.namespaces.as_ref()?);
        Some(command)
    }

    fn ringperf(&self, side: char) -> Command {
        let name = self.namespaces.as_ref().map(|name| format!("{name}-{side}"));
        command_in(name.as_deref(), RINGPERF)
    }

    fn path(&self, name: &str) -> String {
        self.directory.path().join(name).to_string_lossy().into_owned()
    }

    /// A server with a control socket, which writes a key log, and the address that it listens at.
    fn server(&self, arguments: &[&str]) -> Result<(Process, String), Failed> {
        let mut command = self.ringperf('a');
        command.env("SSLKEYLOGFILE", self.path("keys"));
        command.args([
            "server",
            "--bind",
            self.address,
            "--json",
            "--control",
            &self.path("control"),
        ]);
        let mut server = Process::start(command.args(arguments))?;
        let line = server.next_line(TIMEOUT)?.ok_or("the server does not listen")?;
        let target = line.strip_prefix("LISTENING ").ok_or("no address")?.to_owned();
        Ok((server, target))
    }

    fn client(&self, target: &str, arguments: &[&str]) -> Result<Value, Failed> {
        let mut command = self.ringperf('b');
        command.args([
            "client",
            "--target",
            target,
            "--json",
            "--verify",
            "--timeout",
            "10s",
        ]);
        json(&command.args(arguments).output()?)
    }

    /// `ringperf capture`, when it has begun: that is when the file does.
    fn capture(&self, file: &str, arguments: &[&str]) -> Result<Process, Failed> {
        let path = self.path(file);
        let mut command = Command::new(RINGPERF);
        command.args([
            "capture",
            "--json",
            "--control",
            &self.path("control"),
            "--output",
            &path,
        ]);
        let mut capture = Process::start(command.args(arguments))?;
        let start = std::time::Instant::now();
        while std::fs::metadata(&path).map_or(0, |file| file.len()) == 0 {
            if let Some(line) = capture.next_line(Duration::from_millis(1))? {
                return Err(format!("it has ended: {line}").into());
            }
            check(start.elapsed() < TIMEOUT, || {
                "the capture does not begin".to_owned()
            })?;
        }
        Ok(capture)
    }

    /// The packets of a file, which is sound: everything in it is QUIC in UDP, in the order of its time, by a clock that is about right.
    fn packets(&self, file: &str) -> Result<Vec<Packet>, Failed> {
        let mut command = Command::new("tshark");
        command.args(["-n", "-r", &self.path(file), "-T", "fields"]);
        command.args(["-o", &format!("tls.keylog_file:{}", self.path("keys"))]);
        command.args(["-o", "ip.check_checksum:TRUE"]);
        // What the port is does not tell that it is QUIC.
        command.args(["--enable-heuristic", "quic"]);
        FIELDS.iter().for_each(|field| {
            command.args(["-e", field]);
        });
        let output = process::run(&mut command)?;
        let packets: Vec<Packet> = output.lines().map(Packet::of).collect();
        let mut before = 1_700_000_000.0;
        for packet in &packets {
            let is_sound = packet.get("_ws.malformed").is_empty()
                && !packet
                    .numbers("_ws.expert.severity")
                    .any(|severity| severity >= 8_388_608)
                && packet.get("ip.checksum.status") != "0"
                && !packet.get("udp.srcport").is_empty();
            let time: f64 = packet.get("frame.time_epoch").parse()?;
            check(is_sound && time >= before, || format!("{file}: {packet:?}"))?;
            before = time;
        }
        Ok(packets)
    }
}

/// What tshark is asked for of each packet.
const FIELDS: [&str; 14] = [
    "frame.time_epoch",
    "frame.len",
    "frame.cap_len",
    "frame.packet_flags_direction",
    "frame.interface_name",
    "frame.interface_description",
    "ip.src",
    "ip.checksum.status",
    "udp.srcport",
    "quic.long.packet_type",
    "quic.frame_type",
    "tls.handshake.type",
    "_ws.malformed",
    "_ws.expert.severity",
];

/// A packet, as tshark reads it.
#[derive(Debug)]
struct Packet(Vec<String>);

impl Packet {
    fn of(line: &str) -> Packet {
        Packet(line.split('\t').map(str::to_owned).collect())
    }

    fn get(&self, field: &str) -> &str {
        let index = FIELDS.iter().position(|name| *name == field);
        index
            .and_then(|index| self.0.get(index))
            .map_or("", String::as_str)
    }

    /// Numbers of a field that is there several times, or none.
    fn numbers(&self, field: &str) -> impl Iterator<Item = u64> {
        let numbers = self.get(field).split(',').filter_map(|number| {
            let hex = number.strip_prefix("0x").map(|hex| u64::from_str_radix(hex, 16));
            hex.unwrap_or_else(|| number.parse()).ok()
        });
        numbers.collect::<Vec<_>>().into_iter()
    }

    /// Decrypted, and with a frame of this type in it (RFC 9000 section 19).
    fn has_frame(&self, kind: u64) -> bool {
        self.numbers("quic.frame_type").any(|frame| frame == kind)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(mut script) = self.script() {
            let _ = script.arg("down").output();
        }
    }
}

fn json(output: &Output) -> Result<Value, Failed> {
    match output.status.success() {
        true => Ok(serde_json::from_slice(&output.stdout)?),
        false => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned().into()),
    }
}

/// Ends a program, and gives what it prints at the end.
fn end(mut process: Process) -> Result<Value, Failed> {
    process.terminate()?;
    last(&mut process)
}

fn last(process: &mut Process) -> Result<Value, Failed> {
    let line = process.next_line(TIMEOUT)?.ok_or("it does not end")?;
    process.wait(TIMEOUT)?;
    Ok(serde_json::from_str(&line)?)
}

fn count(report: &Value, key: &str) -> u64 {
    report[key].as_u64().unwrap_or(u64::MAX)
}

/// A transfer in each direction is captured from its beginning by the server's process, and decrypted.
fn transfer(place: &Place, arguments: &[&str]) -> Result<Vec<Packet>, Failed> {
    let (server, target) = place.server(arguments)?;
    let target = target.replace("[::]", "[::1]");
    let capture = place.capture("all", &["--buffer", "32MiB"])?;
    for scenario in ["download", "upload"] {
        place.client(
            &target,
            &[
                &["--scenario", scenario, "--bytes", &BYTES.to_string()],
                arguments,
            ]
            .concat(),
        )?;
    }
    let captured = end(capture)?;
    let served = end(server)?;
    let counters = &served["counters"];
    let (sent, received) = (
        count(counters, "sent_datagrams"),
        count(counters, "received_datagrams"),
    );
    check(
        count(&captured, "dropped") == 0
            && count(&captured, "packets") == count(&captured, "seen")
            // What the server says on its way out may come behind.
            && (received..=sent + received).contains(&count(&captured, "packets"))
            && count(&captured, "packets") + 50 > sent + received,
        || format!("{captured}: {served}"),
    )?;
    let packets = place.packets("all")?;
    check(packets.len() as u64 == count(&captured, "packets"), || {
        format!("{} packets: {captured}", packets.len())
    })?;
    // Decrypted: acknowledgements, streams, and the end of the handshake, in both directions.
    let port = target.rsplit(':').next().unwrap_or_default();
    for (direction, is_sent) in [(1, false), (2, true)] {
        let ours = packets.iter().filter(|packet| {
            packet.numbers("frame.packet_flags_direction").eq([direction])
                && (packet.get("udp.srcport") == port) == is_sent
        });
        let ours: Vec<_> = ours.collect();
        let decrypted = ours
            .iter()
            .filter(|packet| !packet.get("quic.frame_type").is_empty())
            .count();
        let finished = ours
            .iter()
            .any(|packet| packet.numbers("tls.handshake.type").any(|kind| kind == 20));
        let has = |range: std::ops::RangeInclusive<u64>| {
            range
                .into_iter()
                .any(|kind| ours.iter().any(|packet| packet.has_frame(kind)))
        };
        check(
            decrypted * 100 >= ours.len() * 99 && finished && has(2..=3) && has(8..=15) && ours.len() > 500,
            || {
                format!(
                    "direction {direction}: {decrypted} of {} are decrypted",
                    ours.len()
                )
            },
        )?;
    }
    Ok(packets)
}

fn af_xdp() -> Outcome {
    for mode in ["low-latency", "max-throughput"] {
        let place = Place::namespaces("2")?;
        let arguments = ["--datapath", "af_xdp", "--interface", "rw0", "--mode", mode];
        let packets = transfer(&place, &arguments)?;
        let frames = packets.iter().filter(|packet| {
            packet.get("frame.interface_name") == "rw0"
                && packet.get("frame.interface_description").starts_with("queue ")
        });
        let frames = frames.count();
        check(frames * 10 >= packets.len() * 9, || {
            format!("{mode}: {frames} frames")
        })?;
    }
    Ok(())
}

fn kernel_sockets() -> Outcome {
    for (datapath, address, mode) in [
        ("socket", "127.0.0.1:0", "low-latency"),
        ("io_uring", "[::1]:0", "low-latency"),
        ("io_uring", "127.0.0.1:0", "max-throughput"),
        ("socket", "[::]:0", "max-throughput"),
    ] {
        let place = Place::loopback(address)?;
        let packets = transfer(&place, &["--datapath", datapath, "--mode", mode]);
        let packets = packets.map_err(|failed| {
            format!(
                "{datapath}, {address}, {mode}: {}",
                failed.message().unwrap_or_default()
            )
        })?;
        let named = packets
            .iter()
            .all(|packet| packet.get("frame.interface_name") == datapath);
        check(named, || format!("{datapath}: {:?}", packets.first()))?;
    }
    Ok(())
}

/// Sampled, cut and bounded; one at a time; ended by its bound, by a signal, and with the process that is captured.
fn bounds() -> Outcome {
    let place = Place::loopback("127.0.0.1:0")?;
    let sockets = ["--datapath", "socket", "--cpus", "0"];
    let (server, target) = place.server(&sockets)?;
    let transfer = ["--bytes", "10000000", "--datapath", "socket"];
    let mut capture = place.capture("some", &["--every", "10", "--snap", "100", "--packets", "100"])?;
    let refused = place.capture("other", &[]).map(drop);
    let error = refused
        .err()
        .and_then(|failed| failed.message().map(str::to_owned));
    check(
        error
            .as_ref()
            .is_some_and(|error| error.contains("one at a time")),
        || format!("{error:?}"),
    )?;
    place.client(&target, &transfer)?;
    let captured = last(&mut capture)?;
    check(
        count(&captured, "packets") == 100 && count(&captured, "seen") >= 991,
        || format!("{captured}"),
    )?;
    let packets = place.packets("some")?;
    let lens: Vec<(u64, u64)> = packets
        .iter()
        .map(|packet| {
            let number = |field| packet.numbers(field).next().unwrap_or(0);
            (number("frame.cap_len"), number("frame.len"))
        })
        .collect();
    let are_cut = lens.iter().all(|(taken, len)| taken <= len && *taken <= 100);
    let long = lens
        .iter()
        .filter(|(taken, len)| *len > 1000 && *taken == 100)
        .count();
    check(lens.len() == 100 && are_cut && long > 10, || format!("{lens:?}"))?;
    // A file of so many bytes at most; and one of a time, in which nothing comes.
    let mut capture = place.capture("short", &["--bytes", "100kB"])?;
    place.client(&target, &transfer)?;
    let captured = last(&mut capture)?;
    let bytes = std::fs::metadata(place.path("short"))?.len();
    check(
        (30_000..=100_000).contains(&bytes) && bytes == count(&captured, "bytes"),
        || format!("{bytes}: {captured}"),
    )?;
    let packets = place.packets("short")?.len() as u64;
    check(packets == count(&captured, "packets"), || {
        format!("{packets}: {captured}")
    })?;
    let captured = last(&mut place.capture("nothing", &["--time", "100ms"])?)?;
    check(count(&captured, "packets") == 0, || format!("{captured}"))?;
    check(place.packets("nothing")?.is_empty(), || "packets".to_owned())?;
    // What finds no room is told, in the report and in the file: the reader of this pipe does not read on.
    let mut command = Command::new(RINGPERF);
    command.args([
        "capture",
        "--control",
        &place.path("control"),
        "--output",
        "-",
        "--buffer",
        "256KiB",
    ]);
    let mut slow = command
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()?;
    let mut pipe = slow.stdout.take().ok_or("no pipe")?;
    let mut first = [0; 4];
    std::io::Read::read_exact(&mut pipe, &mut first)?;
    place.client(&target, &transfer)?;
    // It ends with the server.
    let ended = std::thread::scope(|scope| {
        let ended = scope.spawn(|| end(server));
        let mut rest = first.to_vec();
        std::io::Read::read_to_end(&mut pipe, &mut rest)?;
        std::fs::write(place.path("slow"), rest)?;
        ended
            .join()
            .map_err(|_| Failed::from("the server's test panicked"))?
    })?;
    let output = slow.wait_with_output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    check(output.status.success() && said.contains(" dropped, as "), || {
        said.clone()
    })?;
    check(said.contains(" packets captured of "), || said.clone())?;
    let packets = place.packets("slow")?.len();
    check(said.contains(&format!("{packets} packets captured")), || {
        format!("{packets}: {said}: {ended}")
    })?;
    let drops = process::run(Command::new("capinfos").args(["-I", &place.path("slow")]))?;
    check(drops.contains("Number of stat entries = 1"), || drops)
}

/// A server and a client that capture from their beginning: files of their own, with every packet.
fn from_the_start() -> Outcome {
    let place = Place::loopback("127.0.0.1:0")?;
    let server_file = place.path("server");
    let client_file = place.path("client");
    let (server, target) = place.server(&["--datapath", "socket", "--capture", &server_file])?;
    place.client(
        &target,
        &[
            "--datapath",
            "io_uring",
            "--bytes",
            "100000",
            "--capture",
            &client_file,
        ],
    )?;
    end(server)?;
    for file in ["server", "client"] {
        let packets = place.packets(file)?;
        let first = packets.first().ok_or("no packets")?;
        let is_initial = first.numbers("quic.long.packet_type").next() == Some(0);
        // An address that the socket leaves to the kernel is there all the same.
        let is_complete = packets.iter().all(|packet| packet.get("ip.src") == "127.0.0.1");
        let is_closed = packets.iter().any(|packet| packet.has_frame(0x1d));
        check(is_initial && is_complete && is_closed, || {
            format!("{file}: {packets:?}")
        })?;
    }
    Ok(())
}

/// A file that cannot be written is an error of the capture, and of nobody else.
fn full_disk() -> Outcome {
    let place = Place::loopback("127.0.0.1:0")?;
    let (server, target) = place.server(&["--datapath", "socket"])?;
    let mut command = Command::new(RINGPERF);
    command.args([
        "capture",
        "--control",
        &place.path("control"),
        "--output",
        "/dev/full",
    ]);
    let mut capture = Process::start(&mut command)?;
    place.client(&target, &["--bytes", "10000000", "--datapath", "socket"])?;
    let error = capture
        .wait(TIMEOUT)
        .map_or_else(|error| error.to_string(), |()| "it succeeded".to_owned());
    check(error.contains("No space left"), || error)?;
    let served = end(server)?;
    check(served["counters"]["accepted"] == 1, || format!("{served}"))?;
    let mut command = Command::new(RINGPERF);
    command.args([
        "capture",
        "--control",
        &place.path("control"),
        "--output",
        &place.path("late"),
    ]);
    let error = String::from_utf8_lossy(&command.output()?.stderr).into_owned();
    check(error.contains("no ringperf answers"), || error)
}

#[allow(clippy::print_stdout, reason = "the reason why tests are ignored")]
fn main() {
    let mut arguments = Arguments::from_args();
    // They share a name for their namespaces, and the processors.
    arguments.test_threads = Some(1);
    let no_tshark = Command::new("tshark").arg("--version").output().is_err();
    if no_tshark {
        println!("SKIP all: tshark is not installed (apt-get install tshark)");
    }
    let refused = Place::namespaces("1").err();
    if let Some(refused) = &refused {
        println!("SKIP af_xdp: {}", refused.message().unwrap_or_default());
    }
    let tests: [(&str, Test, bool); 5] = [
        (
            "transfers_over_af_xdp_are_captured_and_decrypted",
            af_xdp,
            refused.is_some(),
        ),
        (
            "transfers_over_sockets_and_io_uring_are_captured_and_decrypted",
            kernel_sockets,
            false,
        ),
        (
            "captures_are_sampled_cut_and_bounded_and_tell_of_drops",
            bounds,
            false,
        ),
        (
            "server_and_client_capture_from_their_first_packet_on",
            from_the_start,
            false,
        ),
        ("capture_that_cannot_be_written_says_so", full_disk, false),
    ];
    let trials =
        tests.map(|(name, test, ignored)| Trial::test(name, test).with_ignored_flag(ignored || no_tshark));
    libtest_mimic::run(&arguments, trials.into()).exit();
}
