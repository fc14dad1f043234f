//! `ringperf compare`, for real over loopback: without the programs of the other stacks, which it reports as missing.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

fn compare(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringperf"));
    command.arg("compare").args(arguments).output().unwrap()
}

fn read(directory: &Path, name: &str) -> String {
    std::fs::read_to_string(directory.join(name)).unwrap()
}

#[test]
fn a_short_comparison_gives_figures_page_and_picture() {
    let directory = tempfile::tempdir().unwrap();
    let output = directory.path().join("results");
    let peers = directory.path().join("none");
    let done = compare(&[
        "--network",
        "loopback",
        "--scenario",
        "download,latency",
        "--rounds",
        "1",
        "--time",
        "300ms",
        // A machine with one processor has this one too.
        "--cpus",
        "0,0",
        "--peers",
        peers.to_str().unwrap(),
        "--output",
        output.to_str().unwrap(),
    ]);
    let printed = String::from_utf8_lossy(&done.stdout);
    assert!(
        done.status.success(),
        "{printed}\n{}",
        String::from_utf8_lossy(&done.stderr)
    );
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
