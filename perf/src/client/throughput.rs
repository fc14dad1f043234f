//! Upload and download.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::Result;
use ringway::{
    Bytes, Connection, ConnectionEvent, Direction, EventStatus, Stream, StreamEvent, StreamShutdown,
};
use ringway_perf_protocol::ENDLESS;

use super::run::{Run, connect};

/// Which way the data goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Way {
    Upload,
    Download,
}

pub(super) fn start(run: &Arc<Run>, way: Way) -> Result<()> {
    let streams_left = Arc::new(AtomicUsize::new(run.streams));
    let shared = Arc::clone(run);
    let connection = connect(run, move |connection, event| {
        if let ConnectionEvent::Connected { .. } = event {
            for _ in 0..shared.streams {
                let transfer = Transfer {
                    run: Arc::clone(&shared),
                    way,
                    moved: 0,
                    given: 0,
                    outstanding: 0,
                    ended: false,
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
    way: Way,
    /// Bytes that have arrived, or were acknowledged.
    moved: u64,
    /// Bytes given to the stream, and those of them that are not acknowledged.
    given: u64,
    outstanding: u64,
    ended: bool,
}

fn open(connection: &Connection, mut transfer: Transfer, streams_left: Arc<AtomicUsize>) {
    let response_len = match transfer.way {
        Way::Upload => 0,
        Way::Download => transfer.run.bytes_per_stream.unwrap_or(ENDLESS),
    };
    let is_download = transfer.way == Way::Download;
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
                let _ = stream.connection().shutdown(0);
            }
            EventStatus::Done
        },
    );
    let started = opened.and_then(|stream| {
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
            StreamEvent::StartComplete(Ok(_)) if self.way == Way::Upload => self.send(stream),
            StreamEvent::SendComplete { context, canceled } => {
                self.outstanding -= context;
                if self.way == Way::Upload && !canceled {
                    self.on_moved(*context);
                    self.send(stream);
                }
            }
            StreamEvent::Receive(receive) if self.way == Way::Download => {
                if self.run.verify {
                    let mut offset = receive.offset();
                    for slice in receive.slices() {
                        if !self.run.pattern.matches(offset, slice) {
                            self.run.fail(format!("wrong content near offset {offset}"));
                        }
                        offset += slice.len() as u64;
                    }
                }
                self.on_moved(receive.len() as u64);
            }
            StreamEvent::PeerSendShutdown => {
                if let (Way::Download, Some(wanted)) = (self.way, self.run.bytes_per_stream)
                    && self.moved != wanted
                {
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

    fn on_moved(&mut self, bytes: u64) {
        self.moved += bytes;
        self.run.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    fn send(&mut self, stream: &Stream) {
        let end = self.run.bytes_per_stream.unwrap_or(u64::MAX);
        while self.given < end && self.outstanding < self.run.posted && !self.ended {
            let piece = self
                .run
                .pattern
                .piece(self.given, self.run.io_size.min(end - self.given));
            let count = piece.len() as u64;
            self.ended = self.given + count == end;
            if stream.send(piece, count, self.ended).is_err() {
                return;
            }
            self.given += count;
            self.outstanding += count;
        }
        if self.given == end && !self.ended {
            self.ended = true;
            let _ = stream.shutdown(StreamShutdown::Graceful);
        }
    }
}
