//! A sender that is faster than the reader: each holds a few pieces, and nothing piles up anywhere.
//!
//! The reader works on another thread: the handler answers `Pending`, and the peer gets no more credit until the thread has called
//! `receive_complete`. The sender has two sends under way, and makes the next piece when one of them is acknowledged.
#![allow(clippy::print_stdout, reason = "what it prints")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};

use ringway::{
    Bytes, Configuration, ConnectTarget, Connection, ConnectionEvent, Direction, EventStatus,
    ExecutionConfig, Listener, ListenerEvent, ListenerOptions, Registration, Settings, Stream, StreamEvent,
    StreamHandler,
};

#[path = "common/mod.rs"]
mod common;
use common::{Done, certificate};

const PIECE: usize = 64 << 10;

fn main() -> Done {
    let (received, most) = run(200)?;
    println!("{received} bytes received, {most} sent and not yet read at most");
    Ok(())
}

/// Sends so many pieces. Gives the bytes that were received, and the most that were under way.
pub(crate) fn run(pieces: usize) -> Done<(usize, usize)> {
    let registration = Registration::open("pressure", &ExecutionConfig::default())?;
    let (credentials, trusted) = certificate("localhost")?;
    let settings = Settings {
        peer_uni_stream_count: 1,
        stream_receive_window: PIECE as u32,
        connection_flow_control_window: 2 * PIECE as u32,
        ..Settings::default()
    };
    let configuration = Configuration::server(&[b"push"], settings, credentials)?;
    let (work, to_do) = channel::<(Stream, usize, bool)>();
    let options = ListenerOptions::new("127.0.0.1:0".parse()?, &[b"push"]);
    let listener = Listener::start(&registration, options, move |event| {
        let ListenerEvent::NewConnection(incoming) = event else {
            return;
        };
        let work = work.clone();
        incoming.accept(
            &configuration,
            move |_: &Connection, event: ConnectionEvent<'_>| {
                if let ConnectionEvent::PeerStreamStarted(stream) = event {
                    stream.accept(Reader { work: work.clone() });
                }
                EventStatus::Done
            },
        );
    })?;
    let configuration = Configuration::client(&[b"push"], Settings::default(), trusted)?;
    let target = ConnectTarget::new(listener.local_address(), "localhost");
    let connection = Connection::start(
        &registration,
        &configuration,
        &target,
        |_: &Connection, _: ConnectionEvent<'_>| EventStatus::Done,
    )?;
    let sent = Arc::new(AtomicUsize::new(0));
    let sender = Writer {
        left: pieces - 2,
        sent: Arc::clone(&sent),
    };
    let stream = Stream::open(&connection, Direction::Unidirectional, sender)?;
    stream.start(false)?;
    sent.store(2 * PIECE, Ordering::Relaxed);
    stream.send(Bytes::from(vec![0; PIECE]), 0, false)?;
    stream.send(Bytes::from(vec![0; PIECE]), 0, pieces == 2)?;

    let (mut received, mut most) = (0, 0);
    for (stream, len, is_last) in to_do {
        most = most.max(sent.load(Ordering::Relaxed) - received);
        // Here would be the work.
        received += len;
        stream.receive_complete(len)?;
        if is_last {
            break;
        }
    }
    Ok((received, most))
}

/// Passes work on to the thread.
struct Reader {
    work: Sender<(Stream, usize, bool)>,
}

impl StreamHandler for Reader {
    fn on_event(&mut self, stream: &Stream, event: StreamEvent<'_>) -> EventStatus {
        if let StreamEvent::Receive(data) = event {
            // A real one copies the data here, or what it needs of it.
            let _ = self.work.send((stream.clone(), data.len(), data.fin()));
            return EventStatus::Pending;
        }
        EventStatus::Done
    }
}

/// Makes a piece whenever one was acknowledged.
struct Writer {
    left: usize,
    sent: Arc<AtomicUsize>,
}

impl StreamHandler for Writer {
    fn on_event(&mut self, stream: &Stream, event: StreamEvent<'_>) -> EventStatus {
        if let StreamEvent::SendComplete { canceled: false, .. } = event
            && self.left > 0
        {
            self.left -= 1;
            self.sent.fetch_add(PIECE, Ordering::Relaxed);
            let _ = stream.send(Bytes::from(vec![0; PIECE]), 0, self.left == 0);
        }
        EventStatus::Done
    }
}
