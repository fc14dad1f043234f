//! The client: runs one scenario and reports.

mod args;
mod handshakes;
mod report;
mod requests;
mod resumption;
mod run;
mod tasks;
mod throughput;
mod tickets;

use std::fs::File;
use std::io::{BufWriter, Write};
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use hdrhistogram::Histogram;
use indicatif::{ProgressBar, ProgressStyle};
use ringway::rustls::KeyLogFile;
use ringway::{ClientCredentials, Configuration, ConnectTarget, Identity, Settings};
use ringway_perf_protocol::{ALPN, ClientFigures, Latency, Pattern, RunTimes, Scenario};

pub(crate) use self::args::ClientArgs;
use self::report::ClientReport;
use self::run::{NO_ANSWER, Run};
use self::tasks::Tasks;
use self::tickets::Tickets;
use crate::api::Opened;
use crate::options::Api;
use crate::report::{Counters, Stopwatch, thread_times};
use crate::signals::{Interrupted, Signals};
use crate::{capture, certificates, output};

pub(crate) fn run(args: &ClientArgs) -> Result<()> {
    // Before any thread starts.
    let signals = Signals::catch()?;
    check(args)?;
    let target = resolve(args)?;
    let percentiles = args.hdr_file.as_deref().map(create).transpose()?;
    let mut opened = None;
    let (registration, mut threads) = match args.endpoint.api {
        Api::Callback => args.endpoint.open()?,
        Api::Async | Api::AsyncThreads => {
            let opened = opened.insert(Opened::new(&args.endpoint)?);
            (opened.registration.clone(), Vec::new())
        }
    };
    let capture = args.endpoint.capture(&registration)?;
    let _control = args.endpoint.control(&registration)?;
    args.endpoint.drop_capabilities()?;
    let settings = Settings {
        version: args.quic.version(),
        offered_versions: args.endpoint.versions(),
        client_resumption_enabled: args.resumes(),
        ..args.endpoint.settings()
    };
    let configuration = Configuration::client(&[ALPN], settings, credentials(args)?)?;
    let tickets: Arc<Tickets> = Arc::default();
    configuration.set_ticket_store(Arc::clone(&tickets) as _);
    let processors = registration.partition_count();
    let connections = args.connection_count(processors);
    let initial_connections = args.scenario.initial_connections(connections);
    let io_size = args.endpoint.io_size.as_u64();
    let run = Arc::new(Run {
        registration,
        configuration,
        target,
        pattern: Pattern::new(io_size as usize),
        verify: args.endpoint.verify,
        posted: args.endpoint.posted.as_u64(),
        io_size,
        request_len: args.request.as_u64(),
        response_len: args.response.as_u64(),
        streams: args.stream_count(),
        time_rejected: args.time_rejected,
        resume_once: args.resume_once,
        tickets,
        bytes_per_stream: args.bytes.map(|bytes| bytes.as_u64()),
        stop: AtomicBool::new(false),
        bytes: AtomicU64::new(0),
        operations: AtomicU64::new(0),
        connected: AtomicU64::new(0),
        opened: OnceLock::new(),
        failures: AtomicU64::new(0),
        ideal_processor_changes: AtomicU64::new(0),
        active: AtomicU64::new(initial_connections as u64),
        deferred: (connections - initial_connections) as u64,
        outcome: Mutex::default(),
    });
    let start = Instant::now();
    let stopwatch = Stopwatch::start();
    if let Some(opened) = &mut opened {
        let count = opened.thread_count();
        threads = opened.start(|index| {
            let connections = (index..initial_connections).step_by(count).count();
            let partition = (args.endpoint.api == Api::Async).then_some(index);
            Tasks::new(&run, args.scenario, connections, partition).run()
        })?;
    }
    for _ in 0..initial_connections {
        if opened.is_some() {
            break;
        }
        match args.scenario {
            Scenario::Upload => throughput::start(&run, throughput::TransferDirection::Upload)?,
            Scenario::Download => throughput::start(&run, throughput::TransferDirection::Download)?,
            Scenario::Latency | Scenario::Rps | Scenario::RpsMulti => requests::start(&run)?,
            Scenario::LatencyZeroRtt => resumption::start_requests(&run)?,
            Scenario::Hps if args.resume => resumption::start_handshakes(&run)?,
            Scenario::Hps => handshakes::start(&run)?,
            Scenario::Idle => handshakes::start_idle(&run)?,
        }
    }
    let finish = |achieved: Achieved| {
        finish(args, &run, &achieved, threads, connections, percentiles)?;
        match achieved.interrupted {
            Some(exit_code) => Err(Interrupted { exit_code }.into()),
            None => Ok(()),
        }
    };
    let ended = wait(args, &run, start, stopwatch, &signals).and_then(finish);
    // Also of a run that has failed: it may show why.
    capture::finish(capture).and(ended)
}

/// What options contradict each other, or ask for what the scenario does not have.
fn check(args: &ClientArgs) -> Result<()> {
    ensure!(
        args.bytes.is_none() || args.scenario.is_bulk(),
        "--bytes is for uploads and downloads: what other scenarios do ends with --time"
    );
    ensure!(
        args.hdr_file.is_none() || args.scenario.is_requests(),
        "--hdr-file is for requests: nothing else has latencies"
    );
    ensure!(
        !args.resume || args.scenario == Scenario::Hps,
        "--resume is for hps: latency-0rtt resumes anyway, and other scenarios connect once"
    );
    ensure!(
        !args.time_rejected || args.scenario == Scenario::LatencyZeroRtt,
        "--time-rejected is for latency-0rtt: nothing else sends requests in 0-RTT"
    );
    ensure!(
        args.endpoint.api == Api::Callback || !args.resumes(),
        "--resume and latency-0rtt are for --api callback"
    );
    let streams = (args.connection_count(1) * args.stream_count()) as u64;
    ensure!(
        args.bytes
            .is_none_or(|bytes| bytes.as_u64().checked_mul(streams).is_some()),
        "--bytes on each of {streams} streams are more than can be counted"
    );
    Ok(())
}

/// What was achieved by the end of the run, and in which time.
struct Achieved {
    bytes: u64,
    operations: u64,
    times: RunTimes,
    /// A signal came before the end: the exit code of this process then.
    interrupted: Option<i32>,
}

/// What has been achieved so far, and since when it is that much.
#[derive(Clone, Copy)]
struct Progress {
    done: (u64, u64),
    since: Instant,
}

impl Progress {
    fn look(&mut self, run: &Run) -> Instant {
        let now = Instant::now();
        let done = (
            run.bytes.load(Ordering::Relaxed),
            run.operations.load(Ordering::Relaxed),
        );
        if done != self.done {
            *self = Progress { done, since: now };
        }
        now
    }
}

/// Waits for the end of the run: of its time, of all connections, or by a signal.
fn wait(
    args: &ClientArgs,
    run: &Arc<Run>,
    start: Instant,
    stopwatch: Stopwatch,
    signals: &Signals,
) -> Result<Achieved> {
    let bar = progress_bar(args);
    let end = args.bytes.is_none().then(|| start + args.run_time());
    let mut progress = Progress {
        done: (0, 0),
        since: start,
    };
    let interrupted = loop {
        std::thread::sleep(LOOK_INTERVAL);
        let now = progress.look(run);
        if let Some(error) = run.outcome().error.clone() {
            bail!(error);
        }
        let interrupted = signals.received();
        let is_over = end.is_some_and(|end| now >= end);
        let have_ended = run.active.load(Ordering::Acquire) == 0;
        ensure!(
            !have_ended || is_over || end.is_none(),
            "all connections have ended before the time was over"
        );
        if interrupted.is_some() || is_over || have_ended {
            break interrupted;
        }
        if now - progress.since > args.timeout && args.scenario != Scenario::Idle {
            bail!(
                "nothing achieved for {} by {}: giving up",
                humantime::format_duration(args.timeout),
                run.target.remote
            );
        }
        if let Some(bar) = &bar {
            let seconds = start.elapsed().as_secs_f64();
            bar.set_message(format!(
                "{:.1} s  {:.3} Gbit/s  {:.0} operations/s",
                seconds,
                progress.done.0 as f64 * 8e-9 / seconds,
                progress.done.1 as f64 / seconds
            ));
        }
    };
    // Once more: what came after the last look, before all connections ended.
    progress.look(run);
    let times = stopwatch.read();
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
    let began = *run.opened.get().unwrap_or(&start);
    let last = run.outcome().completed.unwrap_or(progress.since);
    let achieved = Achieved {
        bytes: progress.done.0,
        operations: progress.done.1,
        times: RunTimes {
            wall: times.wall,
            flow: last.saturating_duration_since(began),
            cpu: times.cpu,
        },
        interrupted,
    };
    if interrupted.is_none() && args.scenario != Scenario::Idle {
        ensure_completed(args, run, &achieved)?;
        if args.bytes.is_none() {
            ensure_alive(args, run, progress, signals)?;
        }
    }
    Ok(achieved)
}

/// Fails a run that has achieved nothing, or not on all connections.
fn ensure_completed(args: &ClientArgs, run: &Run, achieved: &Achieved) -> Result<()> {
    let time = humantime::format_duration(args.run_time());
    let remote = run.target.remote;
    let connected = run.connected.load(Ordering::Relaxed);
    ensure!(
        connected > 0,
        "no connection to {remote} came up in {time}: {NO_ANSWER}"
    );
    let connections = args.connection_count(run.registration.partition_count()) as u64;
    ensure!(
        connected >= connections || matches!(args.scenario, Scenario::Hps | Scenario::LatencyZeroRtt),
        "only {connected} of {connections} connections to {remote} came up in {time}: give more --time"
    );
    ensure!(
        achieved.bytes > 0 || achieved.operations > 0,
        "nothing was completed in {time} with {remote}: give more --time"
    );
    Ok(())
}

/// A server that has died says nothing. If the run has ended in silence, a sign of life must come behind its end: figures over a time in which
/// nobody was there would not be what the server achieves.
fn ensure_alive(args: &ClientArgs, run: &Run, mut progress: Progress, signals: &Signals) -> Result<()> {
    let before = progress.done;
    let limit = args.timeout.min(SILENCE_MAX);
    let mut silence = progress.since.elapsed();
    while silence > SILENCE_SUSPICIOUS && progress.done == before && signals.received().is_none() {
        if let Some(error) = run.outcome().error.clone() {
            bail!(error);
        }
        ensure!(
            silence < limit,
            "nothing has come from {} for {}: has the server vanished, or the way to it?",
            run.target.remote,
            humantime::format_duration(Duration::from_millis(silence.as_millis() as u64))
        );
        std::thread::sleep(LOOK_INTERVAL);
        silence = progress.look(run) - progress.since;
    }
    Ok(())
}

/// How often it is looked at what was achieved.
const LOOK_INTERVAL: Duration = Duration::from_millis(2);
/// A run that ends with so much silence may have lost its server.
const SILENCE_SUSPICIOUS: Duration = Duration::from_millis(200);
/// A server that is silent for so long behind the end of the run has gone.
const SILENCE_MAX: Duration = Duration::from_secs(5);
/// How long connections may take to end in good order.
const CLOSING_MAX: Duration = Duration::from_secs(3);

fn finish(
    args: &ClientArgs,
    run: &Arc<Run>,
    achieved: &Achieved,
    threads: Vec<JoinHandle<()>>,
    connections: usize,
    percentiles: Option<File>,
) -> Result<()> {
    let &Achieved {
        bytes, operations, ..
    } = achieved;
    let thread_times = thread_times();
    run.stop.store(true, Ordering::Relaxed);
    run.registration.shutdown(0)?;
    let deadline = Instant::now() + CLOSING_MAX;
    while run.active.load(Ordering::Acquire) > 0 && Instant::now() < deadline {
        std::thread::sleep(LOOK_INTERVAL);
    }
    let outcome = std::mem::take(&mut *run.outcome());
    if let Some(error) = outcome.error {
        bail!(error);
    }
    let changes = run.ideal_processor_changes.load(Ordering::Relaxed);
    let mut counters = Counters::of(&run.registration, changes);
    run.registration.clone().close_within(CLOSING_MAX);
    let deadline = Instant::now() + CLOSING_MAX;
    for thread in threads {
        while !thread.is_finished() {
            ensure!(Instant::now() < deadline, "a thread does not end");
            std::thread::sleep(LOOK_INTERVAL);
        }
        ensure!(thread.join().is_ok(), "a thread has ended with a panic");
    }
    counters.complete(&run.registration);
    if achieved.interrupted.is_none() {
        if let Some(per_stream) = run.bytes_per_stream {
            let expected = per_stream * (connections * run.streams) as u64;
            ensure!(
                bytes == expected,
                "{bytes} bytes were transferred, not {expected}"
            );
        }
        ensure!(
            args.scenario != Scenario::Idle || operations == connections as u64,
            "only {operations} of {connections} connections were up in time: give more --time"
        );
    }
    if args.resumes() && achieved.interrupted.is_none() {
        let connections = &outcome.connections;
        ensure!(
            connections.resumed > 0 || args.time_rejected,
            "none of {} sessions was resumed: does the server give out tickets (ringperf server --resumption)?",
            connections.ended
        );
        let early = match args.time_rejected {
            true => connections.zero_rtt_accepted + connections.zero_rtt_rejected,
            false => connections.zero_rtt_accepted,
        };
        ensure!(
            args.resume || early > 0,
            "none of {} connections could use 0-RTT: does the server accept it (ringperf server --resumption zero-rtt)?",
            connections.ended
        );
    }
    let latency = outcome.latencies.as_ref().map(Latency::of);
    let report = ClientReport {
        scenario: args.scenario,
        target: run.target.remote.to_string(),
        connections_at_a_time: connections,
        streams_at_a_time: run.streams,
        processors: run.registration.partition_count(),
        figures: ClientFigures::new(bytes, operations, achieved.times, latency),
        failures: run.failures.load(Ordering::Relaxed),
        threads: thread_times,
        connections: outcome.connections,
        counters,
    };
    output::print_report(args.endpoint.json, &report)?;
    if let (Some(file), Some(latencies)) = (percentiles, &outcome.latencies) {
        write_percentiles(file, latencies).with_context(|| hdr_file(args.hdr_file.as_deref()))?;
    }
    Ok(())
}

/// Makes the file of the percentiles: where that cannot be done, it is told before the run.
fn create(file: &Path) -> Result<File> {
    File::create(file).with_context(|| hdr_file(Some(file)))
}

fn hdr_file(file: Option<&Path>) -> String {
    format!("--hdr-file: writing {}", file.unwrap_or(Path::new("")).display())
}

fn credentials(args: &ClientArgs) -> Result<ClientCredentials> {
    let mut credentials = match &args.ca {
        Some(file) => ClientCredentials::roots(certificates::read(file)?),
        None => ClientCredentials::no_verification(),
    };
    credentials.cipher_suites = args.endpoint.cipher_suites();
    credentials.key_exchange_groups = args.endpoint.key_exchange_groups();
    if let (Some(cert), Some(key)) = (&args.cert, &args.key) {
        credentials.identity = Some(Identity::new(
            certificates::read(cert)?,
            certificates::read_key(key)?,
        ));
    }
    // To the file that SSLKEYLOGFILE names, if it names one.
    credentials.key_log = Arc::new(KeyLogFile::new());
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

fn write_percentiles(file: File, latencies: &Histogram<u64>) -> std::io::Result<()> {
    let mut file = BufWriter::new(file);
    writeln!(file, "       Value(us)     Percentile TotalCount")?;
    let mut total = 0;
    for value in latencies.iter_quantiles(5) {
        total += value.count_since_last_iteration();
        let micros = value.value_iterated_to() as f64 / 1000.0;
        let quantile = value.quantile_iterated_to();
        writeln!(file, "{micros:16.3} {quantile:14.12} {total:10}")?;
    }
    file.flush()
}
