//! The server: answers requests of the QUIC-PERF protocol.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use ringway::{
    Configuration, ConnectionEvent, EventStatus, Listener, ListenerEvent, ListenerOptions, ReceivedData,
    Stream, StreamEvent, StreamShutdown,
};
use ringway_perf_protocol::{ALPN, HEADER_LEN, Pattern, RequestHeader, cpu_s_per_gb};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::args::{CommonArgs, ServerArgs};
use crate::certificates;
use crate::report::{self, Counters, ServerReport, Stopwatch};

#[derive(Debug)]
struct Shared {
    pattern: Pattern,
    verify: bool,
    posted: u64,
    io_size: u64,
    /// By partition.
    tallies: Box<[Tally]>,
}

/// What the handlers of one partition count. They run on one thread, which alone writes here: no atomic addition is needed.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Tally {
    requests: AtomicU64,
    request_bytes: AtomicU64,
    response_bytes: AtomicU64,
    verification_failures: AtomicU64,
}

fn add(counter: &AtomicU64, count: u64) {
    counter.store(counter.load(Ordering::Relaxed) + count, Ordering::Relaxed);
}

impl Shared {
    fn new(common: &CommonArgs, partitions: usize) -> Self {
        let io_size = common.io_size.as_u64().max(1);
        Shared {
            pattern: Pattern::new(io_size as usize),
            verify: common.verify,
            posted: common.posted.as_u64().max(1),
            io_size,
            tallies: (0..partitions).map(|_| Tally::default()).collect(),
        }
    }

    /// That of the thread on which a handler of this stream runs.
    fn tally(&self, stream: &Stream) -> &Tally {
        &self.tallies[stream.connection().partition()]
    }

    fn sum(&self, counter: impl Fn(&Tally) -> &AtomicU64) -> u64 {
        let counts = self
            .tallies
            .iter()
            .map(|tally| counter(tally).load(Ordering::Relaxed));
        counts.sum()
    }
}

pub(crate) fn run(args: &ServerArgs) -> Result<()> {
    // Before any thread starts, so that all of them leave the signals to this one.
    let mut signals = Signals::new([SIGINT, SIGTERM]).context("catching signals")?;
    let (registration, loops) = args.common.open()?;
    let configuration = Configuration::server(&[ALPN], args.common.settings(), certificates::server(args)?)?;
    // Until the process ends: handlers need not count how many of them look at it.
    let shared: &'static Shared = Box::leak(Box::new(Shared::new(
        &args.common,
        registration.partition_count(),
    )));
    let options = ListenerOptions {
        local: args.bind,
        alpns: vec![ALPN.to_vec()],
        retry: args.retry_policy(),
        partition: None,
    };
    let handler = move |event| {
        if let ListenerEvent::NewConnection(incoming) = event {
            incoming.accept(
                &configuration,
                move |_: &ringway::Connection, event: ConnectionEvent<'_>| {
                    if let ConnectionEvent::PeerStreamStarted(stream) = event {
                        stream.accept(responder(shared));
                    }
                    EventStatus::Done
                },
            );
        }
    };
    let listener = Listener::start(&registration, options, handler)?;
    let stopwatch = Stopwatch::start();
    report::say(&format!("LISTENING {}", listener.local_address()));
    let end = args.duration.map(|duration| Instant::now() + duration);
    while signals.pending().next().is_none() && end.is_none_or(|end| Instant::now() < end) {
        std::thread::sleep(Duration::from_millis(20));
    }
    listener.stop();
    let times = stopwatch.read();
    let counters = Counters::of(&registration);
    let threads = report::threads();
    registration.close();
    for thread in loops {
        ensure!(thread.join().is_ok(), "an event loop has ended with a panic");
    }
    let request_bytes = shared.sum(|tally| &tally.request_bytes);
    let response_bytes = shared.sum(|tally| &tally.response_bytes);
    let cpu_seconds = times.cpu.as_secs_f64();
    let report = ServerReport {
        seconds: times.wall.as_secs_f64(),
        cpu_seconds,
        requests: shared.sum(|tally| &tally.requests),
        request_bytes,
        response_bytes,
        verification_failures: shared.sum(|tally| &tally.verification_failures),
        cpu_s_per_gb: cpu_s_per_gb(cpu_seconds, request_bytes + response_bytes),
        threads,
        counters,
    };
    report::say(&if args.common.json {
        serde_json::to_string(&report)?
    } else {
        report.to_string()
    });
    anyhow::ensure!(
        report.verification_failures == 0,
        "{} requests had wrong content",
        report.verification_failures
    );
    Ok(())
}

/// What answers one request.
struct Responder {
    shared: &'static Shared,
    header: RequestHeader,
    /// Bytes of the response sent so far, and those not acknowledged.
    offset: u64,
    outstanding: u64,
    correct: bool,
}

fn responder(shared: &'static Shared) -> impl FnMut(&Stream, StreamEvent<'_>) -> EventStatus + Send {
    let mut responder = Responder {
        shared,
        header: RequestHeader::default(),
        offset: 0,
        outstanding: 0,
        correct: true,
    };
    move |stream, event| {
        responder.on_event(stream, event);
        EventStatus::Done
    }
}

impl Responder {
    fn on_event(&mut self, stream: &Stream, event: StreamEvent<'_>) {
        match event {
            StreamEvent::Receive(receive) => self.on_receive(stream, &receive),
            StreamEvent::PeerSendShutdown => {
                add(&self.shared.tally(stream).requests, 1);
                match self.header.response_len() {
                    Some(0) => {
                        let _ = stream.shutdown(StreamShutdown::Graceful);
                    }
                    Some(len) => self.send(stream, len),
                    // Less than a header is no request.
                    None => {
                        let _ = stream.shutdown(StreamShutdown::AbortSend(1));
                    }
                }
            }
            StreamEvent::SendComplete { context, canceled } => {
                self.outstanding -= context;
                if !canceled {
                    add(&self.shared.tally(stream).response_bytes, context);
                    self.send(stream, self.header.response_len().unwrap_or(0));
                }
            }
            StreamEvent::PeerSendAborted { .. } => {
                let _ = stream.shutdown(StreamShutdown::AbortSend(0));
            }
            StreamEvent::ShutdownComplete { .. } if !self.correct => {
                add(&self.shared.tally(stream).verification_failures, 1);
            }
            _ => {}
        }
    }

    fn on_receive(&mut self, stream: &Stream, receive: &ReceivedData<'_>) {
        let mut offset = receive.offset();
        for slice in receive.slices() {
            let rest = self.header.take(slice);
            let start = offset + (slice.len() - rest.len()) as u64;
            if self.shared.verify && !rest.is_empty() {
                self.correct &= self.shared.pattern.matches(start - HEADER_LEN as u64, rest);
            }
            offset += slice.len() as u64;
        }
        add(&self.shared.tally(stream).request_bytes, receive.len() as u64);
    }

    fn send(&mut self, stream: &Stream, len: u64) {
        while self.offset < len && self.outstanding < self.shared.posted {
            let piece = self
                .shared
                .pattern
                .piece(self.offset, self.shared.io_size.min(len - self.offset));
            let count = piece.len() as u64;
            if stream.send(piece, count, self.offset + count == len).is_err() {
                return;
            }
            self.offset += count;
            self.outstanding += count;
        }
    }
}
