//! A panic in the engine, wherever it happens, ends its connection and no other.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use ringway_datapath::sim::SimNetwork;
use ringway_engine::connection::close::CloseReason;
use ringway_engine::wire::error::TransportErrorCode;
use ringway_types::Instant;
use rustls::pki_types::PrivateKeyDer;

use crate::api::{
    Configuration, ConnectTarget, Direction, Execution, ExecutionConfig, Listener, ListenerOptions,
    Registration, Settings,
};
use crate::worker::calls::Weight;
use crate::worker::context::Wait;
use crate::worker::events::{ConnectionEvent, EventStatus, ListenerEvent, StreamEvent};
use crate::worker::fault::CALLS_LEFT;
use crate::worker::handles::{Connection, Stream};
use crate::worker::listener::RetryPolicy;
use ringway_engine::crypto::tls::{ClientCredentials, ServerCredentials};

const ALPN: &[u8] = b"test";
const CONNECTIONS: usize = 2;

/// What became of a connection, as its handler saw it.
#[derive(Default, Debug)]
struct Fate {
    connected: bool,
    echoed: bool,
    internal_error: bool,
    ends: u32,
}

struct Field {
    now: Instant,
    network: SimNetwork,
    contexts: Vec<Execution>,
    fates: Vec<Arc<Mutex<Fate>>>,
    connections: Vec<Connection>,
    registrations: Vec<Registration>,
    _listener: Listener,
}

fn is_internal_error(reason: &CloseReason) -> bool {
    match reason {
        CloseReason::Transport(error) => error.code == TransportErrorCode::INTERNAL_ERROR,
        CloseReason::PeerTransport { code, .. } => *code == TransportErrorCode::INTERNAL_ERROR,
        _ => false,
    }
}

fn echo(_: &Connection, event: ConnectionEvent<'_>) -> EventStatus {
    if let ConnectionEvent::PeerStreamStarted(incoming) = event {
        incoming.accept(|stream: &Stream, event: StreamEvent<'_>| {
            if let StreamEvent::Receive(data) = event {
                let _ = stream.send(data.to_vec().into(), 0, data.fin());
            }
            EventStatus::Done
        });
    }
    EventStatus::Done
}

impl Field {
    fn new() -> Self {
        let network = SimNetwork::new(1);
        let now = Instant::from_nanos(1_000_000_000);
        let mut contexts = Vec::new();
        let mut host = |ip: &str| {
            let config = ExecutionConfig::default();
            let (registration, polled) =
                Execution::create_simulated(&network, ip.parse().unwrap(), 1, 1, &config, now).unwrap();
            contexts.extend(polled);
            registration
        };
        let (server, client) = (host("192.0.2.1"), host("198.51.100.1"));
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let chain = vec![made.cert.der().clone()];
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let settings = Settings {
            peer_bidi_stream_count: 10,
            ..Settings::default()
        };
        let credentials = ServerCredentials::new(chain.clone(), key);
        let accepting = Configuration::server(&[ALPN], settings, credentials).unwrap();
        let connecting =
            Configuration::client(&[ALPN], Settings::default(), ClientCredentials::roots(chain)).unwrap();
        let options =
            ListenerOptions::new("192.0.2.1:443".parse().unwrap(), &[ALPN]).with_retry(RetryPolicy::Never);
        let listener = Listener::start(&server, options, move |event| {
            if let ListenerEvent::NewConnection(incoming) = event {
                incoming.accept(&accepting, echo);
            }
        });
        let fates: Vec<Arc<Mutex<Fate>>> = (0..CONNECTIONS).map(|_| Arc::default()).collect();
        let remote: SocketAddr = "192.0.2.1:443".parse().unwrap();
        let connect = |fate: &Arc<Mutex<Fate>>| {
            let fate = Arc::clone(fate);
            let target = ConnectTarget::new(remote, "localhost");
            Connection::start(
                &client,
                &connecting,
                &target,
                move |connection: &Connection, event: ConnectionEvent<'_>| on_event(&fate, connection, event),
            )
            .unwrap()
        };
        let connections = fates.iter().map(connect).collect();
        Field {
            now,
            network,
            contexts,
            fates,
            connections,
            registrations: vec![server, client],
            _listener: listener.unwrap(),
        }
    }

    fn run(&mut self) {
        let end = self.now + Duration::from_secs(60);
        while self.now < end {
            let mut next = self.network.next_arrival().unwrap_or(end);
            for context in &mut self.contexts {
                match context.poll_at(self.now) {
                    Wait::NoWait => next = self.now,
                    Wait::Until(deadline) => next = next.min(deadline),
                    Wait::UntilEvent => {}
                }
            }
            self.now = self.now.max(next).min(end);
        }
    }
}

fn on_event(fate: &Arc<Mutex<Fate>>, connection: &Connection, event: ConnectionEvent<'_>) -> EventStatus {
    let mut seen = fate.lock().unwrap();
    match event {
        ConnectionEvent::Connected { .. } => {
            seen.connected = true;
            drop(seen);
            let fate = Arc::clone(fate);
            let stream = Stream::open(
                connection,
                Direction::Bidirectional,
                move |_: &Stream, event: StreamEvent<'_>| {
                    if let StreamEvent::PeerSendShutdown = event {
                        fate.lock().unwrap().echoed = true;
                    }
                    EventStatus::Done
                },
            )
            .unwrap();
            stream.detach();
            stream.send(Bytes::from(vec![7; 5000]), 0, true).unwrap();
            stream.start(false).unwrap();
        }
        ConnectionEvent::ShutdownByTransport { reason } => seen.internal_error |= is_internal_error(&reason),
        ConnectionEvent::ShutdownComplete { .. } => seen.ends += 1,
        _ => {}
    }
    EventStatus::Done
}

#[test]
fn engine_that_panics_ends_its_connection_with_an_internal_error_and_no_other() {
    let mut struck = 0;
    for call in 1..120 {
        let mut field = Field::new();
        CALLS_LEFT.set(call);
        field.run();
        let was_asked = CALLS_LEFT.replace(u32::MAX) > call;
        let fates: Vec<_> = field.fates.iter().map(|fate| fate.lock().unwrap()).collect();
        let failed = fates.iter().filter(|fate| fate.internal_error).count();
        let unharmed = fates
            .iter()
            .filter(|fate| fate.echoed && !fate.internal_error)
            .count();
        // A server's connection may panic after the client has got all it wanted.
        assert!(
            failed <= 1 && unharmed >= CONNECTIONS - 1,
            "call {call}: {fates:?}"
        );
        assert!(fates.iter().all(|fate| fate.ends == 1), "call {call}: {fates:?}");
        struck += usize::from(was_asked && failed == 1);
    }
    assert!(struck > 60, "{struck}");
}

#[test]
fn call_of_another_thread_that_panics_ends_its_connection_and_its_stream_has_its_last_event() {
    let mut field = Field::new();
    let connection = field.connections[0].clone();
    let ended = Arc::new(Mutex::new(0));
    let count = Arc::clone(&ended);
    let stream = Stream::open(
        &connection,
        Direction::Bidirectional,
        move |_: &Stream, event: StreamEvent<'_>| {
            if let StreamEvent::ShutdownComplete { .. } = event {
                *count.lock().unwrap() += 1;
            }
            EventStatus::Done
        },
    )
    .unwrap();
    stream.start(false).unwrap();
    stream.0.call_or(
        Weight::default(),
        |_, _, _| panic!("as the test asked"),
        |_, _| (),
    );
    field.run();
    assert_eq!(*ended.lock().unwrap(), 1);
    let [struck, other] = &field.fates[..] else {
        panic!("two")
    };
    let (struck, other) = (struck.lock().unwrap(), other.lock().unwrap());
    assert!(struck.internal_error && struck.ends == 1, "{struck:?}");
    assert!(other.echoed && !other.internal_error, "{other:?}");
}

#[test]
fn engine_that_panics_while_all_connections_are_shut_down_leaves_none_without_a_last_event() {
    for call in 1..6 {
        let mut field = Field::new();
        field.run();
        CALLS_LEFT.set(call);
        for registration in &field.registrations {
            registration.shutdown(3).unwrap();
        }
        field.run();
        CALLS_LEFT.set(u32::MAX);
        let fates: Vec<_> = field.fates.iter().map(|fate| fate.lock().unwrap()).collect();
        assert!(fates.iter().all(|fate| fate.ends == 1), "call {call}: {fates:?}");
    }
}
