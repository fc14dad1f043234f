//! Servers that echo, clients that ask, and threads in network namespaces of their own.

use std::process::Command;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use nix::sched::{CloneFlags, unshare};
use ringway::{
    AdoptedSocket, Bytes, Configuration, ConnectTarget, Connection, ConnectionEvent, Direction, EventStatus,
    Listener, ListenerEvent, ListenerOptions, SendFlags, Stream, StreamEvent,
};
use ringway_tests::ALPN;
use ringway_tests::order::ordered;

pub(crate) const TIMEOUT: Duration = Duration::from_secs(20);

/// Accepts everybody, and sends back what comes.
pub(crate) fn accept(configuration: &Arc<Configuration>) -> impl Fn(ListenerEvent) + Send + Sync + use<> {
    let configuration = Arc::clone(configuration);
    move |event| {
        if let ListenerEvent::NewConnection(incoming) = event {
            incoming.accept(&configuration, ordered(echo));
        }
    }
}

pub(crate) fn listen_on(socket: &AdoptedSocket, configuration: &Arc<Configuration>) -> Listener {
    let options = ListenerOptions::new(socket.local_address(), &[ALPN]);
    Listener::start_on(socket, options, accept(configuration)).unwrap()
}

pub(crate) fn echo(_: &Connection, event: ConnectionEvent<'_>) -> EventStatus {
    if let ConnectionEvent::PeerStreamStarted(incoming) = event {
        incoming.accept(ordered(|stream: &Stream, event: StreamEvent<'_>| {
            if let StreamEvent::Receive(data) = event {
                let _ = stream.send(data.to_vec().into(), 0, data.fin());
            }
            EventStatus::Done
        }));
    }
    EventStatus::Done
}

/// A client's connection that is under way.
pub(crate) struct Asking {
    pub connection: Connection,
    heard: Receiver<Heard>,
}

enum Heard {
    Connected,
    Failed(String),
}

impl Asking {
    /// `start` begins a connection with the handler that it is given.
    pub(crate) fn start(
        start: impl FnOnce(
            Box<dyn FnMut(&Connection, ConnectionEvent<'_>) -> EventStatus + Send>,
        ) -> Result<Connection, ringway::SetupError>,
    ) -> Asking {
        let (sender, heard) = channel();
        let handler = move |_: &Connection, event: ConnectionEvent<'_>| {
            let what = match &event {
                ConnectionEvent::Connected { .. } => Heard::Connected,
                ConnectionEvent::ShutdownByTransport { reason } => Heard::Failed(format!("{reason:?}")),
                _ => return EventStatus::Done,
            };
            let _ = sender.send(what);
            EventStatus::Done
        };
        let connection = start(Box::new(handler)).unwrap();
        Asking { connection, heard }
    }

    pub(crate) fn connected(self) -> Connection {
        match self.heard.recv_timeout(TIMEOUT) {
            Ok(Heard::Connected) => self.connection,
            Ok(Heard::Failed(reason)) => panic!("{reason}"),
            Err(error) => panic!("not connected: {error}"),
        }
    }
}

/// A connection from an adopted socket.
pub(crate) fn connect_on(
    socket: &AdoptedSocket,
    configuration: &Arc<Configuration>,
    target: &ConnectTarget,
) -> Asking {
    Asking::start(|handler| Connection::start_on(socket, configuration, target, ordered(handler)))
}

pub(crate) fn connect(
    registration: &ringway::Registration,
    configuration: &Arc<Configuration>,
    target: &ConnectTarget,
) -> Asking {
    Asking::start(|handler| Connection::start(registration, configuration, target, ordered(handler)))
}

/// Has this many bytes sent there and back.
pub(crate) fn ask(connection: &Connection, len: usize) {
    let (sender, answered) = channel();
    let mut answer = Vec::new();
    let handler = ordered(move |_: &Stream, event: StreamEvent<'_>| {
        if let StreamEvent::Receive(data) = event {
            answer.extend(data.to_vec());
            if data.fin() {
                let _ = sender.send(std::mem::take(&mut answer));
            }
        }
        EventStatus::Done
    });
    let stream = Stream::open(connection, Direction::Bidirectional, handler).unwrap();
    let bytes = ringway_tests::pattern(0, len);
    stream
        .send_with(Bytes::from(bytes.clone()), 0, SendFlags::START | SendFlags::FIN)
        .unwrap();
    assert!(answered.recv_timeout(TIMEOUT).unwrap() == bytes);
}

/// Runs this on a thread in a network namespace of its own, whose loopback interface is up. It lasts as long as something of it does.
/// `None` where that is not allowed; the reason is printed.
#[allow(clippy::print_stdout, reason = "the reason why a test is skipped")]
pub(crate) fn in_namespace<T: Send>(run: impl FnOnce() -> T + Send) -> Option<T> {
    let run = || match unshare(CloneFlags::CLONE_NEWNET) {
        Ok(()) => {
            ip("link set lo up");
            Some(run())
        }
        Err(error) => {
            println!("SKIP a network namespace is needed: {error}");
            None
        }
    };
    std::thread::scope(|scope| scope.spawn(run).join()).unwrap()
}

pub(crate) fn ip(words: &str) {
    let output = Command::new("ip")
        .args(words.split_whitespace())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ip {words}: {said}");
}
