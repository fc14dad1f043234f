//! Upload and download.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use anyhow::Result;
use ringway::{
    Bytes, Connection, ConnectionEvent, Direction, EventStatus, Stream, StreamEvent, StreamShutdown,
};
use ringway_perf_protocol::ENDLESS;

use super::run::{Run, connect};

/// Which direction the data goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum TransferDirection {
    Upload,
    Download,
}

pub(super) fn start(run: &Arc<Run>, direction: TransferDirection) -> Result<()> {
    let streams_left = Arc::new(AtomicUsize::new(run.streams));
    let shared = Arc::clone(run);
    let connection = connect(run, move |connection, event| {
        if let ConnectionEvent::Connected { .. } = event {
            shared.opened.get_or_init(Instant::now);
            for _ in 0..shared.streams {
                let transfer = Transfer {
                    run: Arc::clone(&shared),
                    direction,
                    moved: 0,
                    queued: 0,
                    outstanding: 0,
                    fin_sent: false,
                };
                open(connection, transfer, Arc::clone(&streams_left));
            }
        }
        shared.on_common_event(&event);
        EventStatus::Done
    })?;
    drop(connection);
    Ok(())
}

/// One stream's transfer.
struct Transfer {
    run: Arc<Run>,
    direction: TransferDirection,
    /// Bytes that have arrived, or were acknowledged.
    moved: u64,
    /// Bytes given to the stream, and those of them that are not acknowledged.
    queued: u64,
    outstanding: u64,
    fin_sent: bool,
}

fn open(connection: &Connection, mut transfer: Transfer, streams_left: Arc<AtomicUsize>) {
    let response_len = match transfer.direction {
        TransferDirection::Upload => 0,
        TransferDirection::Download => transfer.run.bytes_per_stream.unwrap_or(ENDLESS),
    };
    let is_download = transfer.direction == TransferDirection::Download;
    let failing = Arc::clone(&transfer.run);
    let opened = Stream::open(
        connection,
        Direction::Bidirectional,
        move |stream: &Stream, event: StreamEvent<'_>| {
            transfer.on_event(stream, &event);
            if matches!(event, StreamEvent::ShutdownComplete { .. })
                && streams_left.fetch_sub(1, Ordering::AcqRel) == 1
                && !transfer.run.is_stopped()
            {
                transfer.run.outcome().completed = Some(Instant::now());
                let _ = stream.connection().shutdown(0);
            }
            EventStatus::Done
        },
    );
    let started = opened.and_then(|stream| {
        stream.detach();
        stream.start(false)?;
        // The context tells it from data.
        stream.send(
            Bytes::copy_from_slice(&u64::to_be_bytes(response_len)),
            0,
            is_download,
        )
    });
    if let Err(error) = started {
        failing.fail(format!("opening a stream: {error}"));
    }
}

impl Transfer {
    fn on_event(&mut self, stream: &Stream, event: &StreamEvent<'_>) {
        match event {
            StreamEvent::StartComplete(Ok(_)) if self.direction == TransferDirection::Upload => {
                self.send(stream)
            }
            StreamEvent::SendComplete { context, canceled } => {
                self.outstanding -= context;
                if self.direction == TransferDirection::Upload && !canceled {
                    self.on_progress(*context);
                    self.send(stream);
                }
            }
            StreamEvent::Receive(receive) if self.direction == TransferDirection::Download => {
                self.run.check_content(receive);
                self.on_progress(receive.len() as u64);
            }
            StreamEvent::PeerSendShutdown => {
                // Where the time ends the run, the server is asked for more than it can send until then.
                let wanted = self.run.bytes_per_stream.unwrap_or(ENDLESS);
                if self.direction == TransferDirection::Download && self.moved != wanted {
                    self.run
                        .fail(format!("{} bytes arrived, not {wanted}", self.moved));
                }
            }
            StreamEvent::PeerSendAborted { code } | StreamEvent::PeerReceiveAborted { code } => {
                self.run
                    .fail(format!("the server aborted the stream with code {code}"));
            }
            _ => {}
        }
    }

    fn on_progress(&mut self, bytes: u64) {
        self.moved += bytes;
        self.run.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    fn send(&mut self, stream: &Stream) {
        let end = self.run.bytes_per_stream.unwrap_or(u64::MAX);
        while self.queued < end && self.outstanding < self.run.posted && !self.fin_sent {
            let piece = self
                .run
                .pattern
                .piece(self.queued, self.run.io_size.min(end - self.queued));
            let count = piece.len() as u64;
            self.fin_sent = self.queued + count == end;
            if stream.send(piece, count, self.fin_sent).is_err() {
                return;
            }
            self.queued += count;
            self.outstanding += count;
        }
        if self.queued == end && !self.fin_sent {
            self.fin_sent = true;
            let _ = stream.shutdown(StreamShutdown::Graceful);
        }
    }
}
