//! Handshakes that resume a session, and requests in the first flight of one.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use anyhow::{Context, Result};
use hdrhistogram::Histogram;
use ringway::{Connection, ConnectionEvent, Direction, EventStatus, SendFlags, Stream, StreamEvent, ZeroRtt};

use super::handshakes::start_another;
use super::run::{Run, connect};

/// Connects, waits for a ticket unless none is to come, closes, and begins again with that.
pub(super) fn start_handshakes(run: &Arc<Run>) -> Result<()> {
    let owner = Arc::clone(run);
    connect(run, move |connection, event| {
        match event {
            ConnectionEvent::Connected { resumed, .. } => {
                owner.operations.fetch_add(1, Ordering::Relaxed);
                if !resumed && !owner.tickets.admit_full_handshake() {
                    owner.fail("a connection that had a ticket was set up by a full handshake".to_owned());
                }
                if resumed && owner.resume_once {
                    let _ = connection.shutdown(0);
                }
            }
            ConnectionEvent::ResumptionTicketReceived(_) => {
                let _ = connection.shutdown(0);
            }
            ConnectionEvent::ShutdownComplete {
                handshake_completed: true,
                ..
            } if !owner.is_stopped() => start_another(&owner, start_handshakes),
            _ => {}
        }
        owner.on_common_event(&event);
        EventStatus::Done
    })?;
    Ok(())
}

/// What connection and stream have in common.
#[derive(Default)]
struct Attempt {
    /// From the beginning of the connection to the end of the response.
    taken: Option<u64>,
    has_ticket: bool,
}

/// Connects with a request in the first flight, waits for the response and a ticket, closes, and begins again with that. The time of the first
/// connection, which has no ticket, does not count.
pub(super) fn start_requests(run: &Arc<Run>) -> Result<()> {
    let begin = Instant::now();
    run.opened.get_or_init(|| begin);
    let attempt: Arc<Mutex<Attempt>> = Arc::default();
    let (owner, seen) = (Arc::clone(run), Arc::clone(&attempt));
    let connection = connect(run, move |connection, event| {
        match event {
            ConnectionEvent::ResumptionTicketReceived(_) => {
                let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
                seen.has_ticket = true;
                close_if_done(connection, &seen);
            }
            ConnectionEvent::ShutdownComplete { stats, .. } => {
                let seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
                let counts = match stats.zero_rtt {
                    ZeroRtt::Accepted => true,
                    ZeroRtt::Rejected => owner.time_rejected,
                    ZeroRtt::NotOffered | ZeroRtt::Offered => false,
                };
                if let Some(nanos) = seen.taken.filter(|_| counts) {
                    record(&owner, nanos);
                }
                if stats.handshake_time.is_some() && !owner.is_stopped() {
                    start_another(&owner, start_requests);
                }
            }
            _ => {}
        }
        owner.on_common_event(&event);
        EventStatus::Done
    })?;
    let mut received = 0;
    let owner = Arc::clone(run);
    let handler = move |stream: &Stream, event: StreamEvent<'_>| {
        match event {
            StreamEvent::Receive(receive) => {
                owner.check_content(&receive);
                received += receive.len() as u64;
            }
            StreamEvent::PeerSendShutdown if received == owner.response_len => {
                let mut attempt = attempt.lock().unwrap_or_else(PoisonError::into_inner);
                attempt.taken = Some(begin.elapsed().as_nanos() as u64);
                owner.operations.fetch_add(1, Ordering::Relaxed);
                owner.bytes.fetch_add(received, Ordering::Relaxed);
                close_if_done(stream.connection(), &attempt);
            }
            StreamEvent::PeerSendShutdown => {
                owner.fail(format!(
                    "a response of {received} bytes, not {}",
                    owner.response_len
                ));
            }
            StreamEvent::PeerSendAborted { code } | StreamEvent::PeerReceiveAborted { code } => {
                owner.fail(format!("the server aborted a request with code {code}"));
            }
            _ => {}
        }
        EventStatus::Done
    };
    let request = ringway_perf_protocol::request(run.response_len, run.request_len, &run.pattern);
    Stream::open(&connection, Direction::Bidirectional, handler)
        .and_then(|stream| {
            stream.detach();
            stream.start(false)?;
            stream.send_with(request, 0, SendFlags::FIN | SendFlags::ALLOW_0_RTT)
        })
        .context("opening a stream")
}

fn close_if_done(connection: &Connection, attempt: &Attempt) {
    if attempt.has_ticket && attempt.taken.is_some() {
        let _ = connection.shutdown(0);
    }
}

fn record(run: &Run, nanos: u64) {
    let mut outcome = run.outcome();
    if outcome.latencies.is_none() {
        outcome.latencies = Histogram::new(3).ok();
    }
    if let Some(latencies) = &mut outcome.latencies {
        // Beyond the range of the histogram are hours.
        let _ = latencies.record(nanos);
    }
}
