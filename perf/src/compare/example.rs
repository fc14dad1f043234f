//! A small comparison, made up, for tests of what is made of one.

use ringway_perf_protocol::Scenario;

use super::calibration::Calibration;
use super::environment::{Environment, Version};
use super::lanes::{Lane, NetworkKind, Route, Stack};
use super::metrics::Metric;
use super::results::{Block, Figures, LaneRuns, Measured, NetworkNote, Note, Outcome};
use crate::floor::Work;

fn lane(stack: Stack, route: Option<Route>, polling: bool, work: Option<Work>) -> Lane {
    Lane {
        stack,
        route,
        polling,
        work,
    }
}

/// Runs that differ by a twelfth.
fn runs(lane: Lane, figures: &[(Metric, f64)]) -> LaneRuns {
    let run = |factor: f64| -> Figures {
        let scaled = figures.iter().map(|(metric, value)| (*metric, value * factor));
        scaled.collect()
    };
    LaneRuns {
        lane,
        runs: [1.0, 11.0 / 12.0, 13.0 / 12.0]
            .map(|factor| Outcome::Figures(run(factor)))
            .into(),
    }
}

pub(super) fn measured() -> Measured {
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
    let (socket, uring) = (Some(Route::Socket), Some(Route::IoUring));
    let ringway = |route, polling| lane(Stack::Ringway, route, polling, None);
    let missing = LaneRuns {
        lane: Lane::of(Stack::Msquic),
        runs: vec![Outcome::Failure("msquic-peer is not there".to_owned()); 3],
    };
    let download = vec![
        runs(ringway(socket, false), &bulk(11.5)),
        runs(ringway(uring, false), &bulk(12.0)),
        missing,
        runs(Lane::of(Stack::Quinn), &bulk(8.0)),
        runs(Lane::of(Stack::TlsTcp), &bulk(30.0)),
        runs(
            lane(Stack::Floor, socket, false, Some(Work::Sealed)),
            &bulk(24.0)[..1],
        ),
    ];
    let latencies = vec![
        runs(ringway(socket, false), &latency(60.0)),
        runs(ringway(socket, true), &latency(15.0)),
        runs(Lane::of(Stack::Tquic), &latency(66.0)),
    ];
    let block = |scenario, lanes| Block {
        network: NetworkKind::Loopback,
        scenario,
        lanes,
    };
    let environment = Environment {
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
    };
    let mut measured = Measured::new(3, 1.0, [0, 1], environment);
    measured.calibrations = vec![Calibration {
        seal_alone_ns: [250.0, 251.0],
        seal_together_ns: [260.0, 261.0],
        cache_line_ns: Some(50.0),
    }];
    measured.networks = vec![
        NetworkNote {
            network: NetworkKind::Loopback,
            note: Note::Setup("the loopback interface".to_owned()),
        },
        NetworkNote {
            network: NetworkKind::Veth,
            note: Note::Skipped("network namespaces need root".to_owned()),
        },
    ];
    measured.blocks = vec![
        block(Scenario::Download, download),
        block(Scenario::Latency, latencies),
    ];
    measured
}
