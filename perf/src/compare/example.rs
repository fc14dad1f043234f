//! A small comparison, made up, for tests of what is made of one.

use ringway_perf_protocol::Scenario;

use super::calibration::Calibration;
use super::contenders::{Contender, DatapathKind, Group, Handshakes, NetworkKind, Stack};
use super::environment::{Environment, Version};
use super::metrics::Metric;
use super::runs::{Comparison, ContenderRuns, Figures, LeftOut, NetworkNote, Note, Outcome, ScenarioRuns};
use crate::floor::DatagramKind;
use crate::options::Api;

fn contender(
    stack: Stack,
    datapath: Option<DatapathKind>,
    polling: bool,
    datagrams: Option<DatagramKind>,
) -> Contender {
    Contender {
        stack,
        datapath,
        polling,
        datagrams,
        ..Contender::of(stack)
    }
}

/// Runs that differ by a twelfth.
fn runs(contender: Contender, figures: &[(Metric, f64)]) -> ContenderRuns {
    let run = |factor: f64| -> Figures {
        let scaled = figures.iter().map(|(metric, value)| (*metric, value * factor));
        scaled.collect()
    };
    ContenderRuns {
        contender,
        runs: [1.0, 11.0 / 12.0, 13.0 / 12.0]
            .map(|factor| Outcome::Figures(run(factor)))
            .into(),
    }
}

fn environment() -> Environment {
    Environment {
        date: "2026-01-02T03:04:05Z".to_owned(),
        processor: "Some <Processor> & more".to_owned(),
        processors: 2,
        kernel: "Linux 6.0".to_owned(),
        system: "Some System".to_owned(),
        rustc: "rustc 1.90.0".to_owned(),
        versions: vec![Version {
            stack: Stack::Ringway,
            version: "0.1.0".to_owned(),
        }],
    }
}

pub(super) fn comparison() -> Comparison {
    let bulk = |goodput: f64| {
        [
            (Metric::GoodputGbitS, goodput),
            (Metric::ServerCpuSPerGb, 8.0 / goodput),
            (Metric::ClientCpuSPerGb, 7.0 / goodput),
        ]
    };
    let latency = |median: f64| {
        [
            (Metric::LatencyP50Us, median),
            (Metric::LatencyP90Us, median * 1.2),
            (Metric::LatencyP99Us, median * 1.5),
            (Metric::LatencyP999Us, median * 3.0),
            (Metric::ServerCpuUsPerOperation, median / 2.0),
            (Metric::ClientCpuUsPerOperation, median / 2.0),
        ]
    };
    let (socket, uring) = (Some(DatapathKind::Socket), Some(DatapathKind::IoUring));
    let ringway = |datapath, polling| contender(Stack::Ringway, datapath, polling, None);
    let missing = ContenderRuns {
        contender: Contender::of(Stack::Msquic),
        runs: vec![Outcome::Failure("msquic-peer is not there".to_owned()); 3],
    };
    let download = vec![
        runs(ringway(socket, false), &bulk(11.5)),
        runs(ringway(uring, false), &bulk(12.0)),
        runs(
            Contender {
                api: Api::Async,
                ..ringway(uring, false)
            },
            &bulk(11.0),
        ),
        missing,
        runs(Contender::of(Stack::Quinn), &bulk(8.0)),
        runs(Contender::of(Stack::TlsTcp), &bulk(30.0)),
        runs(
            contender(Stack::Floor, socket, false, Some(DatagramKind::Sealed)),
            &bulk(24.0)[..1],
        ),
    ];
    let latencies = vec![
        runs(ringway(socket, false), &latency(60.0)),
        runs(ringway(socket, true), &latency(15.0)),
        runs(Contender::of(Stack::Tquic), &latency(66.0)),
    ];
    let handshakes = vec![runs(
        ringway(socket, false),
        &[
            (Metric::OperationsPerS, 9000.0),
            (Metric::ServerCpuUsPerOperation, 100.0),
            (Metric::ClientCpuUsPerOperation, 100.0),
        ],
    )];
    let runs = |scenario, contenders| ScenarioRuns {
        network: NetworkKind::Loopback,
        scenario,
        handshakes: Handshakes::default(),
        left_out: Vec::new(),
        contenders,
    };
    let mut comparison = Comparison::new(3, 1.0, [0, 1], environment());
    comparison.calibrations = vec![Calibration {
        seal_alone_ns: [250.0, 251.0],
        seal_together_ns: [260.0, 261.0],
        cache_line_ns: Some(50.0),
    }];
    comparison.networks = vec![
        NetworkNote {
            network: NetworkKind::Loopback,
            note: Note::Setup("the loopback interface".to_owned()),
        },
        NetworkNote {
            network: NetworkKind::Veth,
            note: Note::Skipped("network namespaces need root".to_owned()),
        },
    ];
    let resumed = ScenarioRuns {
        handshakes: Handshakes {
            resumed: true,
            group: Group::X25519Mlkem768,
        },
        left_out: vec![LeftOut {
            stack: Stack::Tquic,
            reason: "it has no setting".to_owned(),
        }],
        ..runs(Scenario::Hps, handshakes)
    };
    comparison.scenarios = vec![
        runs(Scenario::Download, download),
        runs(Scenario::Latency, latencies),
        resumed,
        // Of those that were chosen nobody can do it.
        ScenarioRuns {
            left_out: vec![LeftOut {
                stack: Stack::S2nQuic,
                reason: "it has no 0-RTT".to_owned(),
            }],
            ..runs(Scenario::LatencyZeroRtt, Vec::new())
        },
    ];
    comparison
}
