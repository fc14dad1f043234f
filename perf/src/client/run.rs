//! What the connections of a run share, whatever the scenario.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;

use anyhow::{Context, Result};
use hdrhistogram::Histogram;
use ringway::{
    CloseReason, Configuration, ConnectTarget, Connection, ConnectionEvent, ConnectionStats, EventStatus,
    ReceivedData, Registration,
};
use ringway_perf_protocol::Pattern;

use super::report::ConnectionTotals;
use super::tickets::Tickets;

/// What the threads of a run have in common.
pub(super) struct Run {
    pub registration: Registration,
    pub configuration: Arc<Configuration>,
    pub target: ConnectTarget,
    pub pattern: Pattern,
    pub verify: bool,
    pub posted: u64,
    pub io_size: u64,
    pub request_len: u64,
    pub response_len: u64,
    pub streams: usize,
    /// The times of requests whose 0-RTT was rejected count.
    pub time_rejected: bool,
    /// A connection that has resumed a session waits for no ticket.
    pub resume_once: bool,
    pub tickets: Arc<Tickets>,
    /// Bytes for each stream; `None`: until the time is over.
    pub bytes_per_stream: Option<u64>,
    /// The time is over.
    pub stop: AtomicBool,
    pub bytes: AtomicU64,
    pub operations: AtomicU64,
    /// Connections whose handshake was completed.
    pub connected: AtomicU64,
    /// When the first stream was opened.
    pub opened: OnceLock<Instant>,
    pub failures: AtomicU64,
    /// How often one has moved to another partition.
    pub ideal_processor_changes: AtomicU64,
    /// Connections that are under way.
    pub active: AtomicU64,
    /// Connections that do not begin at once, but each when another is up.
    pub deferred: u64,
    /// What went wrong first, and the sums over ended connections. Touched when a connection ends.
    pub outcome: Mutex<Outcome>,
}

#[derive(Default)]
pub(super) struct Outcome {
    pub error: Option<String>,
    /// When the last transfer of a number of bytes was complete.
    pub completed: Option<Instant>,
    pub connections: ConnectionTotals,
    pub latencies: Option<Histogram<u64>>,
}

impl Run {
    pub(super) fn outcome(&self) -> MutexGuard<'_, Outcome> {
        self.outcome.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn fail(&self, text: String) {
        self.failures.fetch_add(1, Ordering::Relaxed);
        self.outcome().error.get_or_insert(text);
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Whether it is what belongs there, if that is to be verified.
    pub(super) fn check_content(&self, data: &ReceivedData<'_>) {
        if !self.verify {
            return;
        }
        let mut offset = data.offset();
        for slice in data.slices() {
            self.check_piece(offset, slice);
            offset += slice.len() as u64;
        }
    }

    /// The same of a piece.
    pub(super) fn check_piece(&self, offset: u64, piece: &[u8]) {
        if self.verify && !self.pattern.matches(offset, piece) {
            self.fail(format!("wrong content near offset {offset}"));
        }
    }

    /// What every connection does with these events, whatever the scenario.
    pub(super) fn on_common_event(&self, event: &ConnectionEvent<'_>) {
        match event {
            ConnectionEvent::Connected { .. } => {
                self.connected.fetch_add(1, Ordering::Relaxed);
            }
            ConnectionEvent::ShutdownByTransport { reason } if !self.is_stopped() => {
                self.fail(format!(
                    "connection to {}: {}",
                    self.target.remote,
                    self.explain(reason)
                ));
            }
            ConnectionEvent::ShutdownByPeer { code, .. } if !self.is_stopped() => {
                self.fail(format!("the server closed the connection with code {code}"));
            }
            ConnectionEvent::ShutdownComplete { stats, .. } => {
                self.on_connection_ended(stats);
            }
            ConnectionEvent::IdealProcessorChanged { .. } => {
                self.ideal_processor_changes.fetch_add(1, Ordering::Relaxed);
            }
            _ => {}
        }
    }

    fn explain(&self, reason: &CloseReason) -> String {
        match reason {
            CloseReason::IdleTimeout if self.connected.load(Ordering::Relaxed) == 0 => NO_ANSWER.to_owned(),
            CloseReason::IdleTimeout => "the server has fallen silent (idle timeout)".to_owned(),
            reason => reason.to_string(),
        }
    }

    fn on_connection_ended(&self, stats: &ConnectionStats) {
        self.outcome().connections.add(stats);
        self.active.fetch_sub(1, Ordering::Release);
    }
}

pub(super) const NO_ANSWER: &str = "no answer: is a server running there, and does UDP get through?";

/// Opens a connection for the run.
pub(super) fn connect(
    run: &Arc<Run>,
    handler: impl FnMut(&Connection, ConnectionEvent<'_>) -> EventStatus + Send + 'static,
) -> Result<Connection> {
    let connection = Connection::start(&run.registration, &run.configuration, &run.target, handler)
        .context("opening a connection")?;
    connection.detach();
    Ok(connection)
}
