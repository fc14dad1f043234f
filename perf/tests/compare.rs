//! `ringperf compare`, for real over loopback: without the programs of the other stacks, which it reports as missing.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

fn compare(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringperf"));
    command.arg("compare").args(arguments).output().unwrap()
}

/// A round over loopback of what these say, each turn so long, without programs of others. Gives what was printed.
fn measure(output: &Path, time: &str, arguments: &[&str]) -> String {
    let peers = output.with_file_name("none");
    let paths = [
        "--time",
        time,
        "--peers",
        peers.to_str().unwrap(),
        "--output",
        output.to_str().unwrap(),
    ];
    // A machine with one processor has this one too.
    let common = "--network loopback --rounds 1 --cpus 0,0".split(' ');
    let done = compare(&[&common.collect::<Vec<_>>(), arguments, &paths].concat());
    let printed = String::from_utf8_lossy(&done.stdout).into_owned();
    let complaints = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{printed}\n{complaints}");
    printed
}

fn read(directory: &Path, name: &str) -> String {
    std::fs::read_to_string(directory.join(name)).unwrap()
}

#[test]
fn a_short_comparison_gives_figures_page_and_picture() {
    let directory = tempfile::tempdir().unwrap();
    let output = directory.path().join("results");
    let printed = measure(&output, "300ms", &["--scenario", "download,latency"]);
    assert!(
        printed.contains("Gbit/s") && printed.contains("quinn-peer is not in"),
        "{printed}"
    );

    check_figures(&read(&output, "compare.json"));
    let page = read(&output, "compare.html");
    for expected in [
        "Download",
        "Gbit/s",
        "Latency of a request",
        "tquic-peer is not in",
    ] {
        assert!(page.contains(expected), "{expected} is missing");
    }
    assert!(read(&output, "compare.svg").starts_with("<svg"));
    let tables = read(&output, "compare.md");
    assert!(tables.contains("| Ringway socket | "), "{tables}");

    // The page again, of the figures alone.
    let again = directory.path().join("again");
    let file = output.join("compare.json");
    let done = compare(&[
        "--from",
        file.to_str().unwrap(),
        "--output",
        again.to_str().unwrap(),
    ]);
    assert!(done.status.success());
    assert_eq!(read(&again, "compare.html"), page);
    assert_eq!(read(&again, "compare.md"), tables);
}

/// That both scenarios have figures of Ringway, and no peer.
fn check_figures(json: &str) {
    let json: Value = serde_json::from_str(json).unwrap();
    let scenarios = json["summaries"].as_array().unwrap();
    assert_eq!(scenarios.len(), 2);
    let median = |scenario: &Value, figure: &str| {
        let contenders = scenario["contenders"].as_array().unwrap();
        let own = |contender: &&Value| contender["stack"] == "ringway" && contender["datapath"] == "socket";
        let figures = &contenders.iter().find(own).unwrap()["figures"];
        figures[figure]["median"]
            .as_f64()
            .unwrap_or_else(|| panic!("{scenario:#}"))
    };
    for figure in ["goodput_gbit_s", "server_cpu_s_per_gb", "client_cpu_s_per_gb"] {
        assert!(median(&scenarios[0], figure) > 0.0, "{figure}");
    }
    for figure in ["latency_p50_us", "latency_p99_us", "server_cpu_us_per_operation"] {
        assert!(median(&scenarios[1], figure) > 0.0, "{figure}");
    }
    assert_eq!(scenarios[0]["best_peer"], Value::Null);
}

#[test]
fn resumed_handshakes_are_called_so_and_stacks_that_cannot_resume_are_named() {
    let directory = tempfile::tempdir().unwrap();
    let output = directory.path().join("results");
    let stacks = ["--stack", "ringway,s2n-quic,tquic", "--group", "x25519mlkem768"];
    let printed = measure(
        &output,
        // A connection without optimisation, on a busy machine, takes its time.
        "1s",
        &[&stacks[..], &["--scenario", "hps,latency-0rtt", "--resume"]].concat(),
    );
    assert!(printed.contains("s2n-quic is left out: "), "{printed}");
    let json: Value = serde_json::from_str(&read(&output, "compare.json")).unwrap();
    let scenarios = json["summaries"].as_array().unwrap();
    for (scenario, resumed) in scenarios.iter().zip([false, true]) {
        assert_eq!(scenario["resumed"].as_bool().unwrap_or_default(), resumed);
        assert_eq!(scenario["group"], "x25519mlkem768");
        let median = &scenario["contenders"][0]["figures"]["server_cpu_us_per_operation"]["median"];
        assert!(median.as_f64().unwrap() > 0.0, "{scenario:#}");
    }
    let tables = read(&output, "compare.md");
    for expected in [
        "### Resumed handshakes, X25519MLKEM768\n",
        "\ns2n-quic is left out: it has no 0-RTT.\n",
        "\ntquic is left out: it has no setting for the group of the key exchange.\n",
    ] {
        assert!(tables.contains(expected), "{expected} is missing:\n{tables}");
    }
}

#[test]
fn what_cannot_be_measured_is_refused_with_a_reason() {
    for (arguments, reason) in [
        (&["--cpus", "0"][..], "--cpus takes two processors"),
        (
            &["--cpus", "0,60000"],
            "--cpus: processor 60000 is not among those",
        ),
        (&["--time", "1ms"], "--time is from"),
        (&["--from", "/no/such/file"], "/no/such/file"),
        (&["--network", "carrier-pigeon"], "carrier-pigeon"),
    ] {
        let done = compare(arguments);
        let complaint = String::from_utf8_lossy(&done.stderr).into_owned();
        assert!(!done.status.success());
        assert!(complaint.contains(reason), "{complaint}");
    }
}
