//! Sessions that go on from earlier connections, and data in the first flight (0-RTT), through the API: over the kernel's network, and over a virtual one that
//! loses, repeats and reorders.

use std::net::SocketAddr;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ringway::pki_types::PrivateKeyDer;
use ringway::sim::Link;
use ringway::{
    CallError, ClientCredentials, Configuration, ConnectTarget, Connection, ConnectionEvent,
    ConnectionHandler, Direction, EventStatus, KeyExchangeGroup, Listener, ListenerEvent, ListenerOptions,
    MemoryTicketStore, OpenFlags, Registration, ResumptionAnswer, ResumptionLevel, RetryPolicy, SendFlags,
    ServerCredentials, Settings, Stream, StreamEvent, TicketKey, Version, WorkerStats, ZeroRtt,
    key_log_callback,
};
use ringway_tests::order::ordered;
use ringway_tests::{ALPN, World, address, client, configurations, pattern, server, settings, with_seeds};

const TIMEOUT: Duration = Duration::from_secs(20);

#[derive(Debug, PartialEq, Eq)]
enum Seen {
    Resumed(Vec<u8>),
    Connected {
        resumed: bool,
        zero_rtt: ZeroRtt,
    },
    Ticket,
    /// A request of the client: its bytes, and whether they came in 0-RTT.
    Request {
        data: Vec<u8>,
        zero_rtt: bool,
    },
    Datagram {
        data: Vec<u8>,
        zero_rtt: bool,
    },
    /// The server's answer.
    Answer(Vec<u8>),
    Started(u64),
    Ended,
}

/// What a server's application says of tickets.
type Answer = Arc<dyn Fn(&Connection, &[u8]) -> EventStatus + Send + Sync>;

fn resuming(level: ResumptionLevel) -> Settings {
    Settings {
        server_resumption_level: level,
        datagram_receive_enabled: true,
        ..settings()
    }
}

/// A server that gives each client a ticket, and answers each request with its bytes.
fn listen(
    registration: &Registration,
    configuration: impl Fn() -> Arc<Configuration> + Send + Sync + 'static,
    retry: RetryPolicy,
    local: &str,
    answer: &Answer,
) -> (Listener, Receiver<Seen>) {
    let (sender, receiver) = channel();
    let sender = Mutex::new(sender);
    let answer = Arc::clone(answer);
    let options = ListenerOptions::new(address(local), &[ALPN]).with_retry(retry);
    let listener = Listener::start(registration, options, move |event| {
        if let ListenerEvent::NewConnection(incoming) = event {
            let sender = sender.lock().unwrap().clone();
            incoming.accept(&configuration(), on_server(sender, Arc::clone(&answer)));
        }
    });
    (listener.unwrap(), receiver)
}

fn always(configuration: &Arc<Configuration>) -> impl Fn() -> Arc<Configuration> + Send + Sync + 'static {
    let configuration = Arc::clone(configuration);
    move || Arc::clone(&configuration)
}

fn on_server(sender: Sender<Seen>, answer: Answer) -> impl ConnectionHandler {
    ordered(move |connection: &Connection, event: ConnectionEvent<'_>| {
        let seen = match event {
            ConnectionEvent::Resumed { data } => {
                let _ = sender.send(Seen::Resumed(data.to_vec()));
                return answer(connection, data);
            }
            ConnectionEvent::Connected {
                resumed, zero_rtt, ..
            } => {
                // Without tickets there is none to give.
                let _ = connection.send_resumption_ticket(b"from the first");
                Seen::Connected { resumed, zero_rtt }
            }
            ConnectionEvent::PeerStreamStarted(stream) => {
                let (sender, mut request, mut zero_rtt) = (sender.clone(), Vec::new(), stream.is_zero_rtt());
                stream.accept(ordered(move |stream: &Stream, event: StreamEvent<'_>| {
                    if let StreamEvent::Receive(data) = event {
                        request.extend(data.to_vec());
                        zero_rtt |= data.is_zero_rtt();
                        if data.fin() {
                            let data = std::mem::take(&mut request);
                            // What fits one packet goes whole, of longer ones perhaps the beginning.
                            let early = stream.zero_rtt_len().unwrap();
                            assert!(early <= data.len() as u64 && (early > 0) == zero_rtt);
                            assert!(data.len() > 500 || !zero_rtt || early == data.len() as u64);
                            let _ = stream.send(data.clone().into(), 0, true);
                            let _ = sender.send(Seen::Request { data, zero_rtt });
                        }
                    }
                    EventStatus::Done
                }));
                return EventStatus::Done;
            }
            ConnectionEvent::DatagramReceived(datagram) => Seen::Datagram {
                data: datagram.to_vec(),
                zero_rtt: datagram.is_zero_rtt(),
            },
            ConnectionEvent::ShutdownComplete { .. } => Seen::Ended,
            _ => return EventStatus::Done,
        };
        let _ = sender.send(seen);
        EventStatus::Done
    })
}

fn on_client(sender: Sender<Seen>) -> impl ConnectionHandler {
    ordered(move |_: &Connection, event: ConnectionEvent<'_>| {
        let _ = sender.send(match event {
            ConnectionEvent::Connected {
                resumed, zero_rtt, ..
            } => Seen::Connected { resumed, zero_rtt },
            ConnectionEvent::ResumptionTicketReceived(_) => Seen::Ticket,
            ConnectionEvent::ShutdownComplete { .. } => Seen::Ended,
            _ => return EventStatus::Done,
        });
        EventStatus::Done
    })
}

fn connect(
    registration: &Registration,
    configuration: &Arc<Configuration>,
    remote: SocketAddr,
) -> (Connection, Sender<Seen>, Receiver<Seen>) {
    let (sender, receiver) = channel();
    let target = ConnectTarget::new(remote, "localhost");
    let handler = on_client(sender.clone());
    let connection = Connection::start(registration, configuration, &target, handler).unwrap();
    (connection, sender, receiver)
}

/// Asks for something before the handshake is complete.
fn request(connection: &Connection, sender: &Sender<Seen>, data: Vec<u8>, flags: SendFlags) {
    let (sender, mut answer) = (sender.clone(), Vec::new());
    let handler = ordered(move |_: &Stream, event: StreamEvent<'_>| {
        match event {
            StreamEvent::StartComplete(id) => {
                let _ = sender.send(Seen::Started(id.unwrap()));
            }
            StreamEvent::Receive(data) => {
                answer.extend(data.to_vec());
                if data.fin() {
                    let _ = sender.send(Seen::Answer(std::mem::take(&mut answer)));
                }
            }
            _ => {}
        }
        EventStatus::Done
    });
    let stream = Stream::open(connection, Direction::Bidirectional, handler).unwrap();
    stream.detach();
    stream.start(false).unwrap();
    stream.send_with(data.into(), 0, flags | SendFlags::FIN).unwrap();
}

#[track_caller]
fn expect(receiver: &Receiver<Seen>, what: &Seen) {
    let mut others = Vec::new();
    loop {
        match receiver.recv_timeout(TIMEOUT) {
            Ok(seen) if seen == *what => return,
            Ok(seen) => others.push(seen),
            Err(_) => panic!("{what:?} never happened, but {others:?}"),
        }
    }
}

fn done() -> Answer {
    Arc::new(|_, _| EventStatus::Done)
}

/// A client that has a ticket of the server.
fn with_ticket(registration: &Registration, configuration: &Arc<Configuration>, remote: SocketAddr) {
    let (connection, _, seen) = connect(registration, configuration, remote);
    expect(
        &seen,
        &Seen::Connected {
            resumed: false,
            zero_rtt: ZeroRtt::NotOffered,
        },
    );
    expect(&seen, &Seen::Ticket);
    connection.shutdown(0).unwrap();
    expect(&seen, &Seen::Ended);
}

#[test]
fn request_and_datagram_go_in_0_rtt_and_the_server_knows() {
    let (server, client) = (server(1), client(1));
    let (of_server, of_client) = configurations(resuming(ResumptionLevel::ResumeAndZeroRtt), settings());
    let (listener, served) = listen(
        &server,
        always(&of_server),
        RetryPolicy::Never,
        "127.0.0.1:0",
        &done(),
    );
    let remote = listener.local_address();
    let (before, _, seen) = connect(&client, &of_client, remote);
    expect(&seen, &Seen::Ticket);
    // The worker begins with the handshake when it has all that goes in 0-RTT: until then a call on another connection keeps it.
    let (go, gate) = channel::<()>();
    let wait = move |_: &ringway::ConnectionStats| {
        let _ = gate.recv();
    };
    before.with_stats(wait).unwrap();
    let data = pattern(0, 5000);
    let (connection, sender, seen) = connect(&client, &of_client, remote);
    request(&connection, &sender, data.clone(), SendFlags::ALLOW_0_RTT);
    connection
        .send_datagram_with(vec![7; 100].into(), 1, SendFlags::ALLOW_0_RTT)
        .unwrap();
    go.send(()).unwrap();
    expect(&served, &Seen::Resumed(b"from the first".to_vec()));
    let accepted = || Seen::Connected {
        resumed: true,
        zero_rtt: ZeroRtt::Accepted,
    };
    let mut early = (false, false);
    while early != (true, true) {
        match served.recv_timeout(TIMEOUT).unwrap() {
            Seen::Request {
                data: request,
                zero_rtt,
            } => {
                assert_eq!((request, zero_rtt), (data.clone(), true));
                early.0 = true;
            }
            Seen::Datagram { data, zero_rtt } => {
                assert_eq!((data, zero_rtt), (vec![7; 100], true));
                early.1 = true;
            }
            seen => assert_eq!(seen, accepted()),
        }
    }
    expect(&seen, &Seen::Started(0));
    expect(&seen, &accepted());
    // And a ticket for the next one.
    let mut left = vec![Seen::Answer(data), Seen::Ticket];
    while !left.is_empty() {
        let next = seen.recv_timeout(TIMEOUT).unwrap();
        left.retain(|seen| *seen != next);
    }
    connection.shutdown(0).unwrap();
    expect(&seen, &Seen::Ended);
    server.close();
    client.close();
}

#[test]
fn application_refuses_a_ticket_or_answers_later() {
    let (server, client) = (server(1), client(1));
    let late: Arc<Mutex<Vec<Connection>>> = Arc::default();
    let waiting = Arc::clone(&late);
    let cases: [(Answer, Option<ResumptionAnswer>, bool, ZeroRtt); 3] = [
        (
            Arc::new(|_, _| EventStatus::Refuse(1)),
            None,
            false,
            ZeroRtt::Rejected,
        ),
        (
            Arc::new(move |connection, _| {
                waiting.lock().unwrap().push(connection.clone());
                EventStatus::Pending
            }),
            Some(ResumptionAnswer::Accept),
            true,
            ZeroRtt::Accepted,
        ),
        (
            Arc::new(|connection, _| {
                connection
                    .resumption_ticket_validation_complete(ResumptionAnswer::AcceptWithoutZeroRtt)
                    .unwrap();
                EventStatus::Pending
            }),
            None,
            true,
            ZeroRtt::Rejected,
        ),
    ];
    for (answer, later, resumed, zero_rtt) in cases {
        let (of_server, of_client) = configurations(resuming(ResumptionLevel::ResumeAndZeroRtt), settings());
        let (listener, served) = listen(
            &server,
            always(&of_server),
            RetryPolicy::Never,
            "127.0.0.1:0",
            &answer,
        );
        let remote = listener.local_address();
        with_ticket(&client, &of_client, remote);
        let (connection, sender, seen) = connect(&client, &of_client, remote);
        request(&connection, &sender, vec![1; 3000], SendFlags::ALLOW_0_RTT);
        expect(&served, &Seen::Resumed(b"from the first".to_vec()));
        if let Some(answer) = later {
            while late.lock().unwrap().is_empty() {
                std::thread::yield_now();
            }
            late.lock()
                .unwrap()
                .pop()
                .unwrap()
                .resumption_ticket_validation_complete(answer)
                .unwrap();
        }
        expect(&seen, &Seen::Connected { resumed, zero_rtt });
        expect(&seen, &Seen::Answer(vec![1; 3000]));
        let early = zero_rtt == ZeroRtt::Accepted;
        expect(
            &served,
            &Seen::Request {
                data: vec![1; 3000],
                zero_rtt: early,
            },
        );
        connection.shutdown(0).unwrap();
    }
    server.close();
    client.close();
}

#[test]
fn servers_that_share_keys_take_each_others_tickets_until_the_key_is_gone() {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let chain = vec![made.cert.der().clone()];
    let settings = resuming(ResumptionLevel::ResumeOnly);
    let of_server = |keys: &[TicketKey], context: &[u8]| {
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let credentials = ServerCredentials::new(chain.clone(), key);
        let configuration = Configuration::server(&[ALPN], settings.clone(), credentials).unwrap();
        configuration.set_ticket_keys(keys);
        configuration.set_ticket_context(context);
        configuration
    };
    let [old, new] = [1, 2].map(|number| TicketKey {
        id: [number; 16],
        material: [10 * number; 32],
    });
    let (server, client) = (server(1), client(1));
    let first = of_server(std::slice::from_ref(&old), b"");
    let others: [(&[TicketKey], &[u8], bool); 4] = [
        (std::slice::from_ref(&old), b"", true),
        (&[new.clone(), old.clone()], b"", true),
        (std::slice::from_ref(&new), b"", false),
        (std::slice::from_ref(&old), b"other", false),
    ];
    // Which of the servers is there.
    let there = Arc::new(Mutex::new(Arc::clone(&first)));
    let configuration = {
        let there = Arc::clone(&there);
        move || Arc::clone(&there.lock().unwrap())
    };
    let (listener, _served) = listen(&server, configuration, RetryPolicy::Never, "127.0.0.1:0", &done());
    let remote = listener.local_address();
    for (keys, context, resumed) in others {
        let credentials = ClientCredentials::roots(chain.clone());
        let of_client = Configuration::client(&[ALPN], settings.clone(), credentials).unwrap();
        *there.lock().unwrap() = Arc::clone(&first);
        with_ticket(&client, &of_client, remote);
        *there.lock().unwrap() = of_server(keys, context);
        let (connection, _, seen) = connect(&client, &of_client, remote);
        let connected = Seen::Connected {
            resumed,
            zero_rtt: ZeroRtt::NotOffered,
        };
        expect(&seen, &connected);
        connection.shutdown(0).unwrap();
        expect(&seen, &Seen::Ended);
    }
    server.close();
    client.close();
}

#[test]
fn tickets_are_refused_with_a_reason_where_there_are_none() {
    let (server, client) = (server(1), client(1));
    let (of_server, of_client) = configurations(resuming(ResumptionLevel::None), settings());
    let (errors, refused) = channel();
    let errors = Mutex::new(errors);
    let options = ListenerOptions::new(address("127.0.0.1:0"), &[ALPN]).with_retry(RetryPolicy::Never);
    let listener = Listener::start(&server, options, move |event| {
        if let ListenerEvent::NewConnection(incoming) = event {
            let errors = errors.lock().unwrap().clone();
            incoming.accept(
                &of_server,
                move |connection: &Connection, event: ConnectionEvent<'_>| {
                    if let ConnectionEvent::Connected { .. } = event {
                        let _ = errors.send(connection.send_resumption_ticket(b""));
                        let _ = errors.send(connection.send_resumption_ticket(&[0; 1001]));
                    }
                    EventStatus::Done
                },
            );
        }
    })
    .unwrap();
    let (connection, _, seen) = connect(&client, &of_client, listener.local_address());
    expect(
        &seen,
        &Seen::Connected {
            resumed: false,
            zero_rtt: ZeroRtt::NotOffered,
        },
    );
    for _ in 0..2 {
        assert!(matches!(
            refused.recv_timeout(TIMEOUT).unwrap(),
            Err(CallError::InvalidState(_))
        ));
    }
    assert!(matches!(
        connection.send_resumption_ticket(b""),
        Err(CallError::InvalidState(_))
    ));
    connection.shutdown(0).unwrap();
    server.close();
    client.close();
}

#[test]
fn all_that_is_sent_on_a_stream_that_was_opened_for_it_goes_in_0_rtt() {
    for (flags, zero_rtt) in [(OpenFlags::ALLOW_0_RTT, true), (OpenFlags::NONE, false)] {
        let mut world = World::new(5);
        let server = world.host("10.0.0.1".parse().unwrap(), 1, 8);
        let client = world.host("10.0.0.2".parse().unwrap(), 1, 8);
        let (of_server, of_client) = configurations(resuming(ResumptionLevel::ResumeAndZeroRtt), settings());
        let (listener, served) = listen(
            &server,
            always(&of_server),
            RetryPolicy::Never,
            "10.0.0.1:443",
            &done(),
        );
        let (_first, _, seen) = connect(&client, &of_client, listener.local_address());
        world.run_for(Duration::from_secs(1));
        assert!(seen.try_iter().any(|seen| seen == Seen::Ticket));
        let (connection, _, seen) = connect(&client, &of_client, listener.local_address());
        let handler = |_: &Stream, _: StreamEvent<'_>| EventStatus::Done;
        let stream = Stream::open_with(&connection, Direction::Bidirectional, flags, handler).unwrap();
        stream.start(false).unwrap();
        stream.send("one ".into(), 0, false).unwrap();
        stream.send("two".into(), 1, true).unwrap();
        world.run_for(Duration::from_secs(1));
        let data = b"one two".to_vec();
        let requests = served
            .try_iter()
            .filter(|seen| matches!(seen, Seen::Request { .. }));
        assert_eq!(requests.collect::<Vec<_>>(), [Seen::Request { data, zero_rtt }]);
        let resumed = seen
            .try_iter()
            .any(|seen| matches!(seen, Seen::Connected { resumed: true, .. }));
        assert!(resumed);
    }
}

#[test]
fn tickets_are_kept_and_looked_for_in_the_store_of_the_application() {
    let mut world = World::new(5);
    let server = world.host("10.0.0.1".parse().unwrap(), 1, 8);
    let client = world.host("10.0.0.2".parse().unwrap(), 1, 8);
    let (of_server, of_client) = configurations(resuming(ResumptionLevel::ResumeOnly), settings());
    let retry = RetryPolicy::Never;
    let (listener, _served) = listen(&server, always(&of_server), retry, "10.0.0.1:443", &done());
    let stores = [(); 2].map(|()| Arc::new(MemoryTicketStore::default()));
    // The first store is empty, then has a ticket; the second has none, and one of the first is still there afterwards.
    for (store, resumed) in [(0, false), (0, true), (1, false), (0, true)] {
        of_client.set_ticket_store(Arc::clone(&stores[store]) as _);
        let (connection, _, seen) = connect(&client, &of_client, listener.local_address());
        world.run_for(Duration::from_secs(1));
        let seen: Vec<_> = seen.try_iter().collect();
        let connected = Seen::Connected {
            resumed,
            zero_rtt: ZeroRtt::NotOffered,
        };
        assert!(
            seen.contains(&connected) && seen.contains(&Seen::Ticket),
            "{seen:?}"
        );
        connection.shutdown(0).unwrap();
        world.run_for(Duration::from_secs(1));
    }
}

#[test]
fn key_log_has_the_secret_of_0_rtt() {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let chain = vec![made.cert.der().clone()];
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let early: Arc<Mutex<Vec<Vec<u8>>>> = Arc::default();
    let log = || {
        let early = Arc::clone(&early);
        key_log_callback(move |label, _, secret| {
            if label == "CLIENT_EARLY_TRAFFIC_SECRET" {
                early.lock().unwrap().push(secret.to_vec());
            }
        })
    };
    let mut credentials = ServerCredentials::new(chain.clone(), key);
    credentials.key_log = log();
    let with = resuming(ResumptionLevel::ResumeAndZeroRtt);
    let of_server = Configuration::server(&[ALPN], with, credentials).unwrap();
    let mut credentials = ClientCredentials::roots(chain);
    credentials.key_log = log();
    let of_client = Configuration::client(&[ALPN], settings(), credentials).unwrap();
    let mut world = World::new(5);
    let server = world.host("10.0.0.1".parse().unwrap(), 1, 8);
    let client = world.host("10.0.0.2".parse().unwrap(), 1, 8);
    let retry = RetryPolicy::Never;
    let (listener, _served) = listen(&server, always(&of_server), retry, "10.0.0.1:443", &done());
    let (_first, ..) = connect(&client, &of_client, listener.local_address());
    world.run_for(Duration::from_secs(1));
    assert!(early.lock().unwrap().is_empty());
    let (_second, ..) = connect(&client, &of_client, listener.local_address());
    world.run_for(Duration::from_secs(1));
    let secrets = early.lock().unwrap();
    assert!(secrets.len() == 2 && secrets[0] == secrets[1], "{secrets:?}");
}

#[test]
fn hello_that_resumes_a_session_is_answered_in_one_datagram() {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let chain = vec![made.cert.der().clone()];
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let credentials = ServerCredentials::new(chain.clone(), key);
    let with = resuming(ResumptionLevel::ResumeOnly);
    let of_server = Configuration::server(&[ALPN], with, credentials).unwrap();
    let mut credentials = ClientCredentials::roots(chain);
    // The hello takes one datagram, too.
    credentials.key_exchange_groups = vec![KeyExchangeGroup::X25519];
    let of_client = Configuration::client(&[ALPN], settings(), credentials).unwrap();
    let mut world = World::new(6);
    let server = world.host("10.0.0.1".parse().unwrap(), 1, 8);
    let client = world.host("10.0.0.2".parse().unwrap(), 1, 8);
    let delay = Duration::from_millis(20);
    world.network.set_default_link(Link {
        delay,
        ..Link::default()
    });
    let retry = RetryPolicy::Never;
    let (listener, served) = listen(&server, always(&of_server), retry, "10.0.0.1:443", &done());
    let (first, ..) = connect(&client, &of_client, listener.local_address());
    world.run_for(Duration::from_secs(1));
    first.shutdown(0).unwrap();
    world.run_for(Duration::from_secs(1));
    let sent = world.network.stats().sent;
    let (_second, ..) = connect(&client, &of_client, listener.local_address());
    // The answer is under way.
    world.run_for(delay * 3 / 2);
    assert_eq!(world.network.stats().sent - sent, 2);
    let asked = Seen::Resumed(b"from the first".to_vec());
    assert!(served.try_iter().any(|seen| seen == asked));
}

#[test]
fn ticket_of_a_connection_that_has_moved_brings_0_rtt_whose_packets_arrive_on_other_partitions() {
    let mut world = World::new(7);
    world.network.disable_steering();
    world.network.set_default_link(Link {
        delay: Duration::from_millis(10),
        ..Link::default()
    });
    let server = world.host("10.0.0.1".parse().unwrap(), 4, 8);
    let client = world.host("10.0.0.2".parse().unwrap(), 1, 8);
    let of_two = Settings {
        tickets_per_connection: 2,
        ..resuming(ResumptionLevel::ResumeAndZeroRtt)
    };
    let patient = Settings {
        client_ticket_wait: 2 * TIMEOUT,
        ..settings()
    };
    let (of_server, of_client) = configurations(of_two, patient);
    let (sender, served) = channel();
    let sender = Mutex::new(sender);
    let kept: Arc<Mutex<Vec<Connection>>> = Arc::default();
    let keep = Arc::clone(&kept);
    let options = ListenerOptions::new(address("10.0.0.1:443"), &[ALPN]).with_retry(RetryPolicy::Never);
    let listener = Listener::start(&server, options, move |event| {
        let ListenerEvent::NewConnection(incoming) = event else {
            return;
        };
        let keep = Arc::clone(&keep);
        let mut handler = on_server(sender.lock().unwrap().clone(), done());
        incoming.accept(
            &of_server,
            move |connection: &Connection, event: ConnectionEvent<'_>| {
                if let ConnectionEvent::Connected { .. } = event {
                    keep.lock().unwrap().push(connection.clone());
                }
                handler.on_event(connection, event)
            },
        );
    });
    let listener = listener.unwrap();
    let sum =
        |of: fn(&WorkerStats) -> u64| -> u64 { server.stats().iter().map(|stats| of(&stats.worker)).sum() };
    let moved = || sum(|worker| worker.moved_away);
    let handed_over = || sum(|worker| worker.handed_over);

    let (first, sender, seen) = connect(&client, &of_client, listener.local_address());
    let data = pattern(3, 50_000);
    // The ports of a client's connections, as the server sees them.
    for port in 2001..2020 {
        request(&first, &sender, data.clone(), SendFlags::NONE);
        assert!(world.run_until(TIMEOUT, |_| {
            seen.try_iter().any(|seen| seen == Seen::Answer(data.clone()))
        }));
        // Partitions tell what they have counted each second.
        world.run_for(Duration::from_secs(2));
        if moved() > 0 {
            break;
        }
        world.network.rebind(
            address("10.0.0.2:49152"),
            SocketAddr::new("10.0.0.2".parse().unwrap(), port),
        );
    }
    assert!(moved() > 0);
    kept.lock().unwrap()[0]
        .send_resumption_ticket(b"after it has moved")
        .unwrap();
    assert!(world.run_until(TIMEOUT, |_| seen.try_iter().any(|seen| seen == Seen::Ticket)));
    first.shutdown(0).unwrap();
    world.run_for(Duration::from_secs(1));

    let before = handed_over();
    let (second, sender, seen) = connect(&client, &of_client, listener.local_address());
    let data = pattern(4, 5000);
    request(&second, &sender, data.clone(), SendFlags::ALLOW_0_RTT);
    world.run_for(Duration::from_millis(15));
    world.network.shift_flows();
    let mut wanted = vec![
        Seen::Connected {
            resumed: true,
            zero_rtt: ZeroRtt::Accepted,
        },
        Seen::Answer(data),
    ];
    assert!(world.run_until(TIMEOUT, |_| {
        seen.try_iter()
            .for_each(|seen| wanted.retain(|wanted| *wanted != seen));
        wanted.is_empty()
    }));
    let asked = Seen::Resumed(b"after it has moved".to_vec());
    assert!(served.try_iter().any(|seen| seen == asked));
    world.run_for(Duration::from_secs(2));
    world.turn();
    assert!(handed_over() > before);
}

#[test]
fn requests_in_0_rtt_arrive_whole_and_once_over_a_network_that_loses_repeats_and_reorders() {
    with_seeds(30, "resumption", over_a_bad_network);
}

fn over_a_bad_network(seed: u64) {
    let mut world = World::new(seed);
    let server = world.host("10.0.0.1".parse().unwrap(), 2, 8);
    let client = world.host("10.0.0.2".parse().unwrap(), 1, 8);
    let level = ResumptionLevel::ResumeAndZeroRtt;
    let server_settings = Settings {
        // By seeds: the server goes over to another version.
        accepted_versions: (seed % 3 == 1).then(|| vec![Version::V2, Version::V1]),
        ..resuming(level)
    };
    let (of_server, of_client) = configurations(server_settings.clone(), settings());
    let retry = if seed % 4 == 1 {
        RetryPolicy::Always
    } else {
        RetryPolicy::Never
    };
    let (listener, served) = listen(&server, always(&of_server), retry, "10.0.0.1:443", &done());
    let remote = listener.local_address();
    let (first, _, seen) = connect(&client, &of_client, remote);
    let mut got_ticket = false;
    assert!(world.run_until(TIMEOUT, |_| {
        got_ticket |= seen.try_iter().any(|seen| seen == Seen::Ticket);
        got_ticket
    }));
    first.shutdown(0).unwrap();
    world.run_for(Duration::from_secs(1));
    let link = Link {
        delay: Duration::from_millis(20),
        jitter: Duration::from_millis(seed % 5 * 4),
        loss: (seed % 6) as f64 / 20.0,
        duplication: (seed % 3) as f64 / 10.0,
        ..Link::default()
    };
    world.network.set_default_link(link);
    drop(served.try_iter().collect::<Vec<_>>());
    let (connection, sender, seen) = connect(&client, &of_client, remote);
    let count = 1 + (seed % 5) as usize;
    let requests: Vec<_> = (0..count).map(|at| pattern(at as u64, 1 + at * 4001)).collect();
    for data in &requests {
        request(&connection, &sender, data.clone(), SendFlags::ALLOW_0_RTT);
    }
    let mut answers = Vec::new();
    let mut asked = Vec::new();
    let all = world.run_until(Duration::from_secs(60), |_| {
        for seen in seen.try_iter() {
            if let Seen::Answer(data) = seen {
                answers.push(data);
            }
        }
        for seen in served.try_iter() {
            if let Seen::Request { data, .. } = seen {
                asked.push(data);
            }
        }
        answers.len() >= count && asked.len() >= count
    });
    world.run_for(Duration::from_secs(5));
    assert!(all, "seed {seed}: {} of {count} answers", answers.len());
    for mut list in [answers, asked] {
        list.sort_by_key(Vec::len);
        assert_eq!(list, requests, "each once, seed {seed}");
    }
    connection.shutdown(0).unwrap();
    world.run_for(Duration::from_secs(1));
}
