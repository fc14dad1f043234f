//! Fifty requests on one connection, each with a time limit: what is not answered in time is given up, and the others do not notice.
#![allow(clippy::print_stdout, reason = "what it prints")]

use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use ringway::{
    Bytes, Configuration, ConnectTarget, Connection, ConnectionEvent, Direction, EventStatus,
    ExecutionConfig, Listener, ListenerEvent, ListenerOptions, Registration, Settings, Stream, StreamEvent,
    StreamShutdown,
};

#[path = "common/mod.rs"]
mod common;
use common::{Done, certificate};

const REQUESTS: usize = 50;
/// Application error code: the answer is not wanted any more.
const TOO_LATE: u64 = 1;

fn main() -> Done {
    let (answered, given_up) = run(Duration::from_secs(1))?;
    println!("{answered} answered, {given_up} given up");
    Ok(())
}

/// How many were answered within the limit, and how many were not.
pub(crate) fn run(limit: Duration) -> Done<(usize, usize)> {
    let registration = Registration::open("requests", &ExecutionConfig::default())?;
    let (credentials, trusted) = certificate("localhost")?;
    let listener = serve(&registration, credentials)?;
    let configuration = Configuration::client(&[b"ask"], Settings::default(), trusted)?;
    let target = ConnectTarget::new(listener.local_address(), "localhost");
    let connection = Connection::start(
        &registration,
        &configuration,
        &target,
        |_: &Connection, _: ConnectionEvent<'_>| EventStatus::Done,
    )?;

    let (sender, answers) = channel();
    let mut waiting = Vec::new();
    for number in 0..REQUESTS {
        let sender = sender.clone();
        let stream = Stream::open(
            &connection,
            Direction::Bidirectional,
            move |_: &Stream, event: StreamEvent<'_>| {
                if let StreamEvent::Receive(data) = event
                    && data.fin()
                {
                    let _ = sender.send(number);
                }
                EventStatus::Done
            },
        )?;
        stream.start(false)?;
        stream.send(Bytes::from(vec![number as u8]), 0, true)?;
        waiting.push(Some(stream));
    }
    // All began together, so one deadline serves all. With many, keep them sorted, and wait for the first.
    let deadline = Instant::now() + limit;
    loop {
        match answers.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(number) => waiting[number] = None,
            Err(RecvTimeoutError::Timeout) => break,
            Err(RecvTimeoutError::Disconnected) => return Err("the connection has ended".into()),
        }
    }
    let late: Vec<_> = waiting.into_iter().flatten().collect();
    for stream in &late {
        // The server hears of it, and need not go on. It may just have ended.
        let _ = stream.shutdown(StreamShutdown::Abort(TOO_LATE));
    }
    Ok((REQUESTS - late.len(), late.len()))
}

/// Answers all requests but every tenth.
fn serve(registration: &Registration, credentials: ringway::ServerCredentials) -> Done<Listener> {
    let settings = Settings {
        peer_bidi_stream_count: REQUESTS as u64,
        ..Settings::default()
    };
    let configuration = Configuration::server(&[b"ask"], settings, credentials)?;
    let options = ListenerOptions::new("127.0.0.1:0".parse()?, &[b"ask"]);
    Ok(Listener::start(registration, options, move |event| {
        let ListenerEvent::NewConnection(incoming) = event else {
            return;
        };
        incoming.accept(&configuration, |_: &Connection, event: ConnectionEvent<'_>| {
            if let ConnectionEvent::PeerStreamStarted(stream) = event {
                stream.accept(|stream: &Stream, event: StreamEvent<'_>| {
                    if let StreamEvent::Receive(data) = event
                        && let Some(number) = data.to_vec().first()
                        && number % 10 != 0
                    {
                        let _ = stream.send(Bytes::from_static(b"yes"), 0, true);
                    }
                    EventStatus::Done
                });
            }
            EventStatus::Done
        });
    })?)
}
