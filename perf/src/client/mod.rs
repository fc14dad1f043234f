//! The client: runs one scenario and reports.

mod args;
mod handshakes;
mod report;
mod requests;
mod run;
mod throughput;

use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use hdrhistogram::Histogram;
use indicatif::{ProgressBar, ProgressStyle};
use ringway::{ClientCredentials, Configuration, ConnectTarget, Settings};
use ringway_perf_protocol::{ALPN, ClientFigures, Latency, Pattern, Scenario};

pub(crate) use self::args::ClientArgs;
use self::report::ClientReport;
use self::run::Run;
use crate::report::{Counters, Stopwatch, Times, thread_times};
use crate::{certificates, output};

pub(crate) fn run(args: &ClientArgs) -> Result<()> {
    let target = resolve(args)?;
    let (registration, _) = args.endpoint.open()?;
    let settings = Settings {
        version: args.quic.version(),
        offered_versions: args.endpoint.versions(),
        ..args.endpoint.settings()
    };
    let configuration = Configuration::client(&[ALPN], settings, credentials(args)?)?;
    let processors = registration.partition_count();
    let connections = args.connection_count(processors);
    let initial_connections = args.scenario.initial_connections(connections);
    let io_size = args.endpoint.io_size.as_u64().max(1);
    let run = Arc::new(Run {
        registration,
        configuration,
        target,
        pattern: Pattern::new(io_size as usize),
        verify: args.endpoint.verify,
        posted: args.endpoint.posted.as_u64().max(1),
        io_size,
        request_len: args.request.as_u64(),
        response_len: args.response.as_u64(),
        streams: args.stream_count(),
        bytes_per_stream: args.bytes.map(|bytes| bytes.as_u64()),
        stop: AtomicBool::new(false),
        bytes: AtomicU64::new(0),
        operations: AtomicU64::new(0),
        failures: AtomicU64::new(0),
        active: AtomicU64::new(initial_connections as u64),
        deferred: (connections - initial_connections) as u64,
        outcome: Mutex::default(),
    });
    let stopwatch = Stopwatch::start();
    for _ in 0..initial_connections {
        match args.scenario {
            Scenario::Upload => throughput::start(&run, throughput::TransferDirection::Upload)?,
            Scenario::Download => throughput::start(&run, throughput::TransferDirection::Download)?,
            Scenario::Latency | Scenario::Rps | Scenario::RpsMulti => requests::start(&run)?,
            Scenario::Hps => handshakes::start(&run)?,
            Scenario::Idle => handshakes::start_idle(&run)?,
        }
    }
    let times = wait(args, &run, stopwatch)?;
    finish(args, &run, times, connections, processors)
}

/// Waits for the end of the run: of its time, or of all connections. Gives the times up to then.
fn wait(args: &ClientArgs, run: &Arc<Run>, stopwatch: Stopwatch) -> Result<Times> {
    let progress = progress_bar(args);
    let start = Instant::now();
    let end = args.bytes.is_none().then(|| start + args.run_time());
    let mut last = (0, 0);
    let mut last_change = Instant::now();
    loop {
        std::thread::sleep(Duration::from_millis(2));
        let now = Instant::now();
        let done = (
            run.bytes.load(Ordering::Relaxed),
            run.operations.load(Ordering::Relaxed),
        );
        if done != last {
            (last, last_change) = (done, now);
        }
        if run.active.load(Ordering::Acquire) == 0 || end.is_some_and(|end| now >= end) {
            break;
        }
        if let Some(error) = run.outcome().error.clone() {
            bail!(error);
        }
        if now - last_change > args.timeout && args.scenario != Scenario::Idle {
            bail!(
                "nothing achieved for {}: giving up",
                humantime::format_duration(args.timeout)
            );
        }
        if let Some(progress) = &progress {
            let seconds = start.elapsed().as_secs_f64();
            progress.set_message(format!(
                "{:.1} s  {:.3} Gbit/s  {:.0} operations/s",
                seconds,
                done.0 as f64 * 8e-9 / seconds,
                done.1 as f64 / seconds
            ));
        }
    }
    let times = stopwatch.read();
    if let Some(progress) = progress {
        progress.finish_and_clear();
    }
    Ok(times)
}

fn finish(
    args: &ClientArgs,
    run: &Arc<Run>,
    times: Times,
    connections: usize,
    processors: usize,
) -> Result<()> {
    let bytes = run.bytes.load(Ordering::Relaxed);
    let operations = run.operations.load(Ordering::Relaxed);
    let threads = thread_times();
    run.stop.store(true, Ordering::Relaxed);
    run.registration.shutdown(0);
    let deadline = Instant::now() + Duration::from_secs(3);
    while run.active.load(Ordering::Acquire) > 0 && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(2));
    }
    let outcome = std::mem::take(&mut *run.outcome());
    if let Some(error) = outcome.error {
        bail!(error);
    }
    if let Some(per_stream) = run.bytes_per_stream
        && args.scenario.is_bulk()
    {
        let expected = per_stream * (connections * run.streams) as u64;
        ensure!(
            bytes == expected,
            "{bytes} bytes were transferred, not {expected}"
        );
    }
    if args.scenario == Scenario::Idle {
        ensure!(
            operations == connections as u64,
            "only {operations} of {connections} connections were up in time: give more --time"
        );
    }
    if let (Some(file), Some(latencies)) = (&args.hdr_file, &outcome.latencies) {
        write_percentiles(file, latencies)?;
    }
    let latency = outcome.latencies.as_ref().map(Latency::of);
    let report = ClientReport {
        scenario: args.scenario,
        target: run.target.remote.to_string(),
        connections_at_a_time: connections,
        streams_at_a_time: run.streams,
        processors,
        figures: ClientFigures::new(bytes, operations, times.wall, times.cpu, latency),
        failures: run.failures.load(Ordering::Relaxed),
        threads,
        connections: outcome.connections,
        counters: Counters::of(&run.registration),
    };
    output::print_report(args.endpoint.json, &report)
}

fn credentials(args: &ClientArgs) -> Result<ClientCredentials> {
    let mut credentials = match &args.ca {
        Some(file) => ClientCredentials::roots(certificates::read(file)?),
        None => ClientCredentials::no_verification(),
    };
    credentials.cipher_suites = args.endpoint.cipher_suites();
    Ok(credentials)
}

fn resolve(args: &ClientArgs) -> Result<ConnectTarget> {
    let remote: SocketAddr = args
        .target
        .to_socket_addrs()
        .with_context(|| {
            format!(
                "{:?} is not HOST:PORT, or its name cannot be resolved",
                args.target
            )
        })?
        .next()
        .ok_or_else(|| anyhow!("{:?} has no address", args.target))?;
    let host = args
        .target
        .rsplit_once(':')
        .map_or(&args.target[..], |(host, _)| host);
    let host = host.trim_start_matches('[').trim_end_matches(']');
    Ok(ConnectTarget::new(
        remote,
        args.server_name.as_deref().unwrap_or(host),
    ))
}

fn progress_bar(args: &ClientArgs) -> Option<ProgressBar> {
    use std::io::IsTerminal;
    if args.endpoint.json || !std::io::stderr().is_terminal() {
        return None;
    }
    let bar = ProgressBar::new_spinner();
    bar.set_style(
        ProgressStyle::with_template("{spinner} {msg}").unwrap_or_else(|_| ProgressStyle::default_spinner()),
    );
    bar.enable_steady_tick(Duration::from_millis(500));
    Some(bar)
}

fn write_percentiles(file: &std::path::Path, latencies: &Histogram<u64>) -> Result<()> {
    let mut text = String::from("       Value(us)     Percentile TotalCount\n");
    let mut total = 0;
    for value in latencies.iter_quantiles(5) {
        total += value.count_since_last_iteration();
        let micros = value.value_iterated_to() as f64 / 1000.0;
        text.push_str(&format!(
            "{micros:16.3} {:14.12} {total:10}\n",
            value.quantile_iterated_to()
        ));
    }
    std::fs::write(file, text).with_context(|| format!("writing {}", file.display()))
}
