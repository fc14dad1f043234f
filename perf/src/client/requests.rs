//! Requests per second, and how long each takes.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use anyhow::{Context, Result};
use hdrhistogram::Histogram;
use ringway::{Bytes, Connection, ConnectionEvent, Direction, EventStatus, Stream, StreamEvent};

use super::run::{Run, connect};

/// What the streams of one connection share. All of them run on one thread: the lock is never waited for.
struct Requester {
    run: Arc<Run>,
    request: Bytes,
    latencies: Mutex<Histogram<u64>>,
}

pub(super) fn start(run: &Arc<Run>) -> Result<()> {
    let requester = Arc::new(Requester {
        run: Arc::clone(run),
        request: ringway_perf_protocol::request(run.response_len, run.request_len, &run.pattern),
        latencies: Mutex::new(Histogram::new(3).context("making a histogram")?),
    });
    connect(run, move |connection, event| {
        match event {
            ConnectionEvent::Connected { .. } => {
                requester.run.opened.get_or_init(Instant::now);
                for _ in 0..requester.run.streams {
                    send_request(connection, &requester);
                }
            }
            ConnectionEvent::ShutdownComplete { .. } => {
                let latencies = requester.latencies.lock().unwrap_or_else(PoisonError::into_inner);
                let mut outcome = requester.run.outcome();
                match &mut outcome.latencies {
                    Some(sum) => drop(sum.add(&*latencies)),
                    none => *none = Some(latencies.clone()),
                }
            }
            _ => {}
        }
        requester.run.on_common_event(&event);
        EventStatus::Done
    })?;
    Ok(())
}

fn send_request(connection: &Connection, requester: &Arc<Requester>) {
    let start = Instant::now();
    let mut received = 0;
    let owner = Arc::clone(requester);
    let handler = move |stream: &Stream, event: StreamEvent<'_>| {
        let run = &owner.run;
        match event {
            StreamEvent::Receive(receive) => {
                run.check_content(&receive);
                received += receive.len() as u64;
            }
            StreamEvent::PeerSendShutdown => {
                if received == run.response_len {
                    let nanos = start.elapsed().as_nanos() as u64;
                    let mut latencies = owner.latencies.lock().unwrap_or_else(PoisonError::into_inner);
                    // Beyond the range of the histogram are hours.
                    let _ = latencies.record(nanos);
                    run.operations.fetch_add(1, Ordering::Relaxed);
                    run.bytes.fetch_add(received, Ordering::Relaxed);
                } else {
                    run.fail(format!(
                        "a response of {received} bytes, not {}",
                        run.response_len
                    ));
                }
                if !run.is_stopped() {
                    send_request(stream.connection(), &owner);
                }
            }
            StreamEvent::PeerSendAborted { code } | StreamEvent::PeerReceiveAborted { code } => {
                run.fail(format!("the server aborted a request with code {code}"));
            }
            _ => {}
        }
        EventStatus::Done
    };
    let opened = Stream::open(connection, Direction::Bidirectional, handler).and_then(|stream| {
        stream.detach();
        stream.start(false)?;
        stream.send(requester.request.clone(), 0, true)
    });
    if let Err(error) = opened
        && !requester.run.is_stopped()
    {
        requester.run.fail(format!("opening a stream: {error}"));
    }
}
