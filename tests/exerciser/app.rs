//! An application that does anything, and what it was promised.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use ringway::{
    AdoptedSocket, Bytes, CallError, Capture, CaptureOptions, CertificateReceived, CloseReason,
    Configuration, ConnectTarget, Connection, ConnectionEvent, DatagramSendState, Direction, EventStatus,
    Incoming, IncomingStream, Listener, ListenerEvent, ListenerOptions, MemoryTicketStore, OpenFlags,
    ReceivedData, Registration, ResumptionAnswer, ResumptionLevel, RetryPolicy, SendFlags, Settings,
    SettingsChange, StartFlags, Stream, StreamEvent, StreamScheduling, StreamShutdown, StrikeRegister,
    TicketKey, TransportErrorCode,
};
use ringway_tests::order::{check, inline, ordered};
use ringway_tests::pki::{Authority, Made};
use ringway_tests::{ALPN, address, settings};

use crate::content::{self, Kept, Reading, Way};

/// What was promised and not kept yet: nothing in the end.
#[derive(Default)]
struct Promises {
    /// `ShutdownComplete` of connections that were opened.
    connections: AtomicI64,
    /// `StopComplete`s of listeners.
    listeners: AtomicI64,
    /// Events heard at all: a round without any exercises nothing.
    events: AtomicU64,
    /// `SendComplete`s of sends that were taken, by their contexts.
    sends: Mutex<HashSet<u64>>,
    /// Final states of datagrams that were taken, with the state that was told last.
    datagrams: Mutex<HashMap<u64, Option<DatagramSendState>>>,
    starts: Mutex<Starts>,
    /// Names for all of these.
    next: AtomicU64,
}

/// Names of streams.
#[derive(Default)]
struct Starts {
    /// Somebody has called for their start.
    asked: HashSet<u64>,
    /// And was told that it is taken.
    promised: HashSet<u64>,
    /// They have had their `StartComplete`.
    heard: HashSet<u64>,
}

pub(crate) struct App {
    server: Mutex<Option<Registration>>,
    client: Mutex<Option<Registration>>,
    server_configuration: Arc<Configuration>,
    client_configuration: Arc<Configuration>,
    certificate: Made,
    authority: Authority,
    /// How streams are read of which nobody says anything else.
    way: Way,
    /// It is worked by the thread that calls: nobody answers there while it waits.
    is_virtual: bool,
    handles: Mutex<Handles>,
    promises: Promises,
    random: Mutex<StdRng>,
    /// No more new things.
    over: AtomicBool,
}

#[derive(Default)]
struct Handles {
    connections: Vec<Connection>,
    streams: Vec<Held>,
    listeners: Vec<Listener>,
    incoming: Vec<Incoming>,
    sockets: Vec<AdoptedSocket>,
    captures: Vec<Capture>,
    kept: Vec<Kept>,
    /// Of servers, for other connections.
    tickets: Vec<Vec<u8>>,
}

/// A stream, and the name of its start.
#[derive(Clone)]
struct Held {
    stream: Stream,
    start: u64,
}

/// Who calls: nobody in particular, or a handler.
#[derive(Clone, Copy, Default)]
pub(crate) struct Caller<'a> {
    is_handler: bool,
    connection: Option<&'a Connection>,
    stream: Option<&'a Held>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One of them, if there is any.
fn one<T: Clone>(of: &[T], rng: &mut StdRng) -> Option<T> {
    (!of.is_empty()).then(|| of[rng.random_range(0..of.len())].clone())
}

/// Takes one of them out.
fn take<T>(of: &mut Vec<T>, rng: &mut StdRng) -> Option<T> {
    (!of.is_empty()).then(|| of.swap_remove(rng.random_range(0..of.len())))
}

/// More often little than much.
fn some_len(rng: &mut StdRng) -> usize {
    let most = 1 << rng.random_range(1..17);
    rng.random_range(0..most)
}

impl App {
    pub(crate) fn new(server: Registration, client: Registration, seed: u64) -> Arc<App> {
        let mut random = StdRng::seed_from_u64(seed);
        let rng = &mut random;
        let is_many = rng.random_bool(0.3);
        let authority = Authority::new("test");
        let certificate = authority.issue(&["localhost"]);
        let mut credentials = (certificate.server(), authority.client());
        credentials.1.certificate_received = match rng.random_range(0..4) {
            0 => CertificateReceived::Indicated,
            _ => CertificateReceived::NotIndicated,
        };
        let some = |rng: &mut StdRng| Settings {
            stream_multi_receive_enabled: is_many,
            ..some_settings(rng)
        };
        let server_configuration = Configuration::server(&[ALPN], some(rng), credentials.0).unwrap();
        let client_configuration = Configuration::client(&[ALPN], some(rng), credentials.1).unwrap();
        client_configuration.set_ticket_store(Arc::new(MemoryTicketStore::default()));
        Arc::new(App {
            is_virtual: server.capabilities()[0].backend == "sim",
            server: Mutex::new(Some(server)),
            client: Mutex::new(Some(client)),
            server_configuration,
            client_configuration,
            certificate,
            authority,
            way: if is_many { Way::Many } else { Way::InOrder },
            handles: Mutex::default(),
            promises: Promises::default(),
            random: Mutex::new(random),
            over: AtomicBool::new(false),
        })
    }

    fn rng(&self) -> StdRng {
        StdRng::seed_from_u64(lock(&self.random).random())
    }

    fn name(&self) -> u64 {
        self.promises.next.fetch_add(1, Ordering::SeqCst)
    }

    /// A registration that is there, as long as there are to be new things.
    fn registration(&self, of: &Mutex<Option<Registration>>) -> Option<Registration> {
        lock(of).clone().filter(|_| !self.over.load(Ordering::SeqCst))
    }

    /// One call, of any kind, on anything; on the stream or the connection of the handler that calls as likely as on any other.
    pub(crate) fn act(self: &Arc<Self>, rng: &mut StdRng, caller: Caller<'_>) {
        let own = rng.random_bool(0.5);
        let handles = lock(&self.handles);
        let connection = caller
            .connection
            .filter(|_| own)
            .cloned()
            .or_else(|| one(&handles.connections, rng));
        let held = caller
            .stream
            .filter(|_| own)
            .cloned()
            .or_else(|| one(&handles.streams, rng));
        drop(handles);
        match (rng.random_range(0..100), connection, held) {
            (0..14, Some(connection), _) => self.open(rng, &connection),
            (14..60, _, Some(held)) => self.act_on_stream(rng, caller, &held),
            (60..80, Some(connection), _) => self.act_on_connection(rng, caller, &connection),
            (80..83, ..) => self.listen(rng),
            (83..89, ..) => self.connect(rng),
            (89..92, ..) => self.act_on_the_whole(rng, caller),
            (92.., ..) => self.let_go(rng, caller),
            _ => {}
        }
    }

    fn act_on_stream(self: &Arc<Self>, rng: &mut StdRng, caller: Caller<'_>, held: &Held) {
        let stream = &held.stream;
        match rng.random_range(0..60) {
            0..28 => self.send(rng, held),
            28..34 => drop(stream.shutdown(some_end(rng))),
            34..37 => self.shut_down_inline(rng, caller, stream),
            37..42 => drop(stream.receive_complete(rng.random_range(0..5000))),
            42..48 => drop(stream.set_receive_enabled(rng.random_bool(0.8))),
            48..50 => {
                let _ = stream.set_priority(rng.random());
                let _ = stream.priority();
            }
            50..52 => drop(stream.provide_receive_buffers(some_buffers(rng))),
            52 => self.start(rng, held),
            53..55 => match rng.random_bool(0.5) {
                true => stream.attach(),
                false => stream.detach(),
            },
            55..58 if self.may_ask(caller) => {
                let answers = [stream.stats().map(drop), stream.zero_rtt_len().map(drop)];
                check_answers(&answers, caller, stream.connection());
            }
            _ => {
                let is_peers = held.start == PEERS;
                check(
                    !is_peers || stream.id().is_some(),
                    "a stream of the peer",
                    "has no ID",
                );
                check(
                    stream.ideal_send_buffer_size() > 0,
                    "a stream",
                    "has no ideal size",
                );
            }
        }
    }

    fn act_on_connection(self: &Arc<Self>, rng: &mut StdRng, caller: Caller<'_>, connection: &Connection) {
        match rng.random_range(0..60) {
            0..14 => self.send_datagram(rng, connection),
            14..17 => drop(connection.shutdown(rng.random_range(0..9))),
            17 => drop(
                connection.shutdown_with(rng.random_range(0..9), &"words ".repeat(rng.random_range(0..90))),
            ),
            18 => drop(connection.shutdown_silently(rng.random_range(0..9))),
            19..21 => drop(connection.update_keys()),
            21..24 => drop(connection.notify()),
            24..26 => drop(connection.with_stats(|_| ())),
            26..28 => drop(connection.with_tls_info(|_| ())),
            28..33 => drop(connection.change_settings(&some_change(rng))),
            33..36 => drop(connection.certificate_valid(rng.random_bool(0.9))),
            36..40 => drop(connection.send_resumption_ticket(&vec![7; rng.random_range(0..1100)])),
            40..43 => drop(connection.resumption_ticket_validation_complete(some_answer(rng))),
            43..46 => match rng.random_bool(0.5) {
                true => connection.attach(),
                false => connection.detach(),
            },
            46..54 if self.may_ask(caller) => {
                let answers = [
                    connection.stats().map(drop),
                    connection.version().map(drop),
                    connection.original_destination_cid().map(drop),
                    connection.max_stream_ids().map(drop),
                ];
                check_answers(&answers, caller, connection);
            }
            _ => look_at(connection),
        }
    }

    /// Calls that wait for the worker are made where there is one, or where they are answered at once.
    fn may_ask(&self, caller: Caller<'_>) -> bool {
        !self.is_virtual || caller.is_handler
    }

    /// Calls on registrations, listeners, configurations, sockets and captures.
    fn act_on_the_whole(self: &Arc<Self>, rng: &mut StdRng, caller: Caller<'_>) {
        let side = if rng.random_bool(0.5) {
            &self.server
        } else {
            &self.client
        };
        let Some(registration) = self.registration(side) else {
            return;
        };
        match rng.random_range(0..12) {
            0 => drop(registration.set_settings(some_settings(rng))),
            1 => registration.set_stateless_reset_key(rng.random()),
            2 => registration.set_token_secrets(&[rng.random(), rng.random()]),
            3 => {
                let stats = registration.stats();
                check(
                    stats.len() == registration.partition_count(),
                    "stats",
                    "not of each partition",
                );
                registration.settings().validate().unwrap();
                let _ = (registration.source_rules(), registration.set_source_rules(&[]));
            }
            4 => self.renew_credentials(rng),
            5 => self
                .server_configuration
                .set_ticket_keys(&[TicketKey::random().unwrap()]),
            6 => {
                let keys = self.server_configuration.ticket_keys();
                self.server_configuration.share_ticket_keys(&keys);
            }
            7 => self
                .server_configuration
                .set_ticket_context(&[rng.random_range(0..3)]),
            8 => {
                let once = Arc::new(StrikeRegister::new(100));
                self.server_configuration.set_replay_protection(once);
            }
            9 if !self.is_virtual => self.adopt(rng, &registration),
            // It waits for what was captured to be written.
            10 if !self.is_virtual && !caller.is_handler => self.capture(rng, &registration),
            _ => {
                let handles = lock(&self.handles);
                for listener in &handles.listeners {
                    let _ = (listener.stats(), listener.local_address());
                }
                for incoming in &handles.incoming {
                    look_at_incoming(incoming);
                }
            }
        }
    }

    fn renew_credentials(&self, rng: &mut StdRng) {
        let server = self.certificate.server();
        match rng.random_range(0..3) {
            0 => self.server_configuration.load_credential(server).unwrap(),
            1 => self
                .server_configuration
                .load_credential_async(|| Ok(server), |done| done.unwrap())
                .unwrap(),
            _ => {
                let refused = self.client_configuration.load_credential(server);
                check(refused.is_err(), "a server's credential", "is taken by a client");
                self.client_configuration
                    .load_credential(self.authority.client())
                    .unwrap();
            }
        }
        check(
            self.client_configuration.unusable_roots().is_empty(),
            "the root",
            "is said to be of no use",
        );
    }

    fn adopt(&self, rng: &mut StdRng, registration: &Registration) {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let adopted = match rng.random_bool(0.3) {
            true => registration.adopt_socket_group([socket.into()]),
            false => registration.adopt_socket(socket, None),
        };
        if let Ok(adopted) = adopted {
            let mut handles = lock(&self.handles);
            if handles.sockets.len() < 6 {
                handles.sockets.push(adopted);
            }
        }
    }

    fn capture(&self, rng: &mut StdRng, registration: &Registration) {
        if let Ok(capture) = registration.capture(std::io::sink(), &CaptureOptions::default()) {
            lock(&self.handles).captures.push(capture);
        }
        let taken = take(&mut lock(&self.handles).captures, rng);
        if let Some(capture) = taken
            && rng.random_bool(0.7)
        {
            let _ = (capture.stats(), capture.is_over());
            capture.finish().unwrap();
        }
    }

    /// Lets handles and what was kept go, in one way or another.
    fn let_go(self: &Arc<Self>, rng: &mut StdRng, caller: Caller<'_>) {
        match rng.random_range(0..18) {
            0..4 => {
                let taken = take(&mut lock(&self.handles).connections, rng);
                drop(taken);
            }
            4..8 => {
                let taken = take(&mut lock(&self.handles).streams, rng);
                drop(taken);
            }
            8 => {
                let taken = take(&mut lock(&self.handles).listeners, rng);
                match taken {
                    Some(listener) if rng.random_bool(0.5) => listener.stop(),
                    taken => drop(taken),
                }
            }
            9 => {
                let taken = take(&mut lock(&self.handles).sockets, rng);
                drop(taken);
            }
            10..14 => {
                let taken = take(&mut lock(&self.handles).incoming, rng);
                if let Some(incoming) = taken {
                    self.answer(rng, caller, incoming);
                }
            }
            _ => {
                let taken = take(&mut lock(&self.handles).kept, rng);
                if let Some(kept) = taken {
                    kept.check(rng);
                }
            }
        }
    }

    pub(crate) fn listen(self: &Arc<Self>, rng: &mut StdRng) {
        let Some(server) = self.registration(&self.server) else {
            return;
        };
        if lock(&self.handles).listeners.len() >= 3 {
            return;
        }
        let socket = one(&lock(&self.handles).sockets, rng).filter(|_| rng.random_bool(0.5));
        let local = match (&socket, self.is_virtual) {
            (Some(socket), _) => socket.local_address(),
            (None, true) => address("192.0.2.1:0"),
            (None, false) => address("127.0.0.1:0"),
        };
        let retry = match rng.random_bool(0.2) {
            true => RetryPolicy::Always,
            false => RetryPolicy::Never,
        };
        let partition = rng
            .random_bool(0.3)
            .then(|| rng.random_range(0..server.partition_count()));
        let options = ListenerOptions::new(local, &[ALPN])
            .with_retry(retry)
            .with_partition(partition);
        let app = Arc::clone(self);
        let handler = move |event| app.on_listener_event(event);
        self.promises.listeners.fetch_add(1, Ordering::SeqCst);
        // Some of the sockets belong to the client's registration: it listens too then.
        let made = match socket {
            Some(socket) => Listener::start_on(&socket, options, handler),
            None => Listener::start(&server, options, handler),
        };
        match made {
            Ok(listener) => lock(&self.handles).listeners.push(listener),
            Err(_) => {
                self.promises.listeners.fetch_sub(1, Ordering::SeqCst);
            }
        }
    }

    fn on_listener_event(self: &Arc<Self>, event: ListenerEvent) {
        self.promises.events.fetch_add(1, Ordering::SeqCst);
        match event {
            ListenerEvent::NewConnection(incoming) => {
                let mut rng = self.rng();
                let caller = Caller {
                    is_handler: true,
                    ..Caller::default()
                };
                look_at_incoming(&incoming);
                check(
                    incoming.client_hello().is_some(),
                    "NewConnection",
                    "without its ClientHello",
                );
                match rng.random_range(0..10) {
                    0 => lock(&self.handles).incoming.push(incoming),
                    1 => {
                        if let Err(incoming) = incoming.retry() {
                            self.answer(&mut rng, caller, incoming);
                        }
                    }
                    _ => self.answer(&mut rng, caller, incoming),
                }
            }
            ListenerEvent::StopComplete => {
                self.promises.listeners.fetch_sub(1, Ordering::SeqCst);
            }
            _ => {}
        }
    }

    /// Mostly yes.
    fn answer(self: &Arc<Self>, rng: &mut StdRng, caller: Caller<'_>, incoming: Incoming) {
        let handler = self.connection_handler(false);
        let accepted = match rng.random_range(0..20) {
            0 => return drop(incoming),
            1 => return incoming.refuse(),
            2 => return incoming.refuse_with(TransportErrorCode::crypto(80)).unwrap(),
            3 => return incoming.ignore(),
            4..8 => incoming.accept_with(&self.server_configuration, &some_change(rng), handler),
            _ => Ok(incoming.accept(&self.server_configuration, handler)),
        };
        if let Ok(connection) = accepted
            && rng.random_bool(0.7)
        {
            if rng.random_bool(0.2) {
                // Before its handshake goes on.
                self.act_on_connection(rng, caller, &connection);
            }
            lock(&self.handles).connections.push(connection);
        }
    }

    fn connect(self: &Arc<Self>, rng: &mut StdRng) {
        let Some(client) = self.registration(&self.client) else {
            return;
        };
        let (remote, shared, socket, ticket) = {
            let mut handles = lock(&self.handles);
            if handles.connections.len() >= 20 || handles.listeners.is_empty() {
                return;
            }
            let listener = &handles.listeners[rng.random_range(0..handles.listeners.len())];
            let remote = listener.local_address();
            let shared = one(&handles.connections, rng).map(|connection| connection.local_address());
            let (socket, ticket) = (one(&handles.sockets, rng), take(&mut handles.tickets, rng));
            (remote, shared, socket, ticket)
        };
        let name = match rng.random_bool(0.95) {
            true => "localhost",
            false => "elsewhere",
        };
        let partition = rng
            .random_bool(0.3)
            .then(|| rng.random_range(0..client.partition_count()));
        let mut target = ConnectTarget::new(remote, name)
            .with_partition(partition)
            .with_local(shared.filter(|_| rng.random_bool(0.1)));
        if rng.random_bool(0.3) {
            target = target.with_settings(some_change(rng));
        }
        if let Some(ticket) = ticket {
            target = target.with_resumption_ticket(ticket);
        }
        let configuration = &self.client_configuration;
        let handler = self.connection_handler(true);
        // Promised before the call: the end may be heard before it returns.
        self.promises.connections.fetch_add(1, Ordering::SeqCst);
        let made = match socket.filter(|_| rng.random_bool(0.2)) {
            Some(socket) => Connection::start_on(&socket, configuration, &target, handler),
            None => Connection::start(&client, configuration, &target, handler),
        };
        match made {
            Ok(connection) => {
                if rng.random_bool(0.3) {
                    // In 0-RTT, or before anything is known of the server.
                    self.open(rng, &connection);
                    self.send_datagram(rng, &connection);
                }
                lock(&self.handles).connections.push(connection);
            }
            Err(_) => {
                self.promises.connections.fetch_sub(1, Ordering::SeqCst);
            }
        }
    }

    fn connection_handler(self: &Arc<Self>, was_promised: bool) -> impl ringway::ConnectionHandler {
        let app = Arc::clone(self);
        ordered(move |connection: &Connection, event: ConnectionEvent<'_>| {
            app.promises.events.fetch_add(1, Ordering::SeqCst);
            let mut rng = app.rng();
            let caller = Caller {
                is_handler: true,
                connection: Some(connection),
                stream: None,
            };
            let status = app.on_connection_event(&mut rng, caller, event, was_promised);
            for _ in 0..rng.random_range(0..3) {
                app.act(&mut rng, caller);
            }
            status
        })
    }

    fn on_connection_event(
        self: &Arc<Self>,
        rng: &mut StdRng,
        caller: Caller<'_>,
        event: ConnectionEvent<'_>,
        was_promised: bool,
    ) -> EventStatus {
        match event {
            ConnectionEvent::PeerStreamStarted(stream) => return self.accept_stream(rng, stream),
            ConnectionEvent::DatagramReceived(datagram) => {
                content::check_datagram(&datagram);
                if rng.random_bool(0.5) {
                    self.keep(rng, datagram.keep(), &datagram);
                }
            }
            ConnectionEvent::DatagramSendStateChanged { context, state } => self.on_datagram(context, state),
            ConnectionEvent::ResumptionTicketReceived(ticket) => {
                if let Some(bytes) = ticket.export()
                    && rng.random_bool(0.3)
                {
                    lock(&self.handles).tickets.push(bytes.as_ref().to_vec());
                }
            }
            ConnectionEvent::Resumed { .. } | ConnectionEvent::PeerCertificateReceived { .. } => {
                return match rng.random_range(0..6) {
                    0 => EventStatus::Pending,
                    1 => EventStatus::Refuse(0),
                    _ => EventStatus::Done,
                };
            }
            ConnectionEvent::ShutdownComplete { reason, .. } => {
                if was_promised {
                    self.promises.connections.fetch_sub(1, Ordering::SeqCst);
                }
                check_end(reason);
                let late = caller.connection.map(|connection| connection.shutdown(0));
                check_late(late.unwrap_or(Err(CallError::Closed)));
            }
            _ => {}
        }
        EventStatus::Done
    }

    fn accept_stream(self: &Arc<Self>, rng: &mut StdRng, incoming: IncomingStream<'_>) -> EventStatus {
        let _ = (incoming.direction(), incoming.is_zero_rtt());
        let stream = incoming.stream().clone();
        check(
            stream.id() == Some(incoming.id()),
            "PeerStreamStarted",
            "with another ID",
        );
        if rng.random_bool(0.1) {
            return EventStatus::Refuse(rng.random_range(0..9));
        }
        if rng.random_bool(0.3) {
            incoming.delay_stream_credit();
        }
        let mut way = self.way;
        match rng.random_range(0..10) {
            0..3 => {
                incoming.read_unordered().unwrap();
                way = Way::Unordered;
            }
            3..5 => stream.provide_receive_buffers(some_buffers(rng)).unwrap(),
            _ => {}
        }
        incoming.accept(self.stream_handler(PEERS, way));
        if rng.random_bool(0.2) {
            stream.attach();
        }
        if rng.random_bool(0.7) {
            let held = Held { stream, start: PEERS };
            lock(&self.handles).streams.push(held);
        }
        EventStatus::Done
    }

    fn send_datagram(&self, rng: &mut StdRng, connection: &Connection) {
        let record = content::record(rng.random_range(0..1500));
        let (context, flags) = (self.name(), SendFlags::from_bits_truncate(rng.random()));
        lock(&self.promises.datagrams).insert(context, None);
        let sent = match rng.random_range(0..3) {
            0 => connection.send_datagram(record, context),
            1 => connection.send_datagram_with(record, context, flags),
            _ => connection.send_datagram_vectored(content::in_parts(record, rng), context, flags),
        };
        if sent.is_err() {
            let nothing = lock(&self.promises.datagrams).remove(&context);
            check(
                nothing == Some(None),
                "a datagram that was refused",
                "is heard of",
            );
        }
    }

    fn on_datagram(&self, context: u64, state: DatagramSendState) {
        let mut datagrams = lock(&self.promises.datagrams);
        let before = datagrams.remove(&context);
        let follows = match state {
            DatagramSendState::Sent | DatagramSendState::Canceled => before == Some(None),
            DatagramSendState::LostSuspect | DatagramSendState::Acknowledged => {
                before == Some(Some(DatagramSendState::Sent))
            }
            DatagramSendState::AcknowledgedSpurious => before == Some(Some(DatagramSendState::LostSuspect)),
            _ => before.is_some_and(|before| before.is_some()),
        };
        check(
            follows,
            &format!("{state:?} of a datagram"),
            &format!("after {before:?}"),
        );
        if !state.is_final() {
            datagrams.insert(context, Some(state));
        }
    }

    fn open(self: &Arc<Self>, rng: &mut StdRng, connection: &Connection) {
        let direction = match rng.random_bool(0.7) {
            true => Direction::Bidirectional,
            false => Direction::Unidirectional,
        };
        let flags = match rng.random_bool(0.5) {
            true => OpenFlags::NONE,
            false => OpenFlags::from_bits_truncate(rng.random()),
        };
        let way = match flags.contains(OpenFlags::UNORDERED) {
            true => Way::Unordered,
            false => self.way,
        };
        let start = self.name();
        let handler = self.stream_handler(start, way);
        let opened = match flags.is_empty() {
            true => Stream::open(connection, direction, handler),
            false => Stream::open_with(connection, direction, flags, handler),
        };
        let Ok(stream) = opened else {
            return;
        };
        check(
            stream.connection() == connection,
            "a stream",
            "is of another connection",
        );
        let held = Held { stream, start };
        if rng.random_bool(0.5) {
            self.send(rng, &held);
        }
        self.start(rng, &held);
        lock(&self.handles).streams.push(held);
    }

    fn start(&self, rng: &mut StdRng, held: &Held) {
        lock(&self.promises.starts).asked.insert(held.start);
        let started = match rng.random_bool(0.5) {
            true => held.stream.start(rng.random_bool(0.3)),
            false => held
                .stream
                .start_with(StartFlags::from_bits_truncate(rng.random())),
        };
        if started.is_ok() {
            check(held.start != PEERS, "a stream of the peer", "starts again");
            lock(&self.promises.starts).promised.insert(held.start);
        }
    }

    fn send(&self, rng: &mut StdRng, held: &Held) {
        let record = content::record(some_len(rng));
        let fin = rng.random_bool(0.2);
        let mut flags = SendFlags::NONE;
        if rng.random_bool(0.5) {
            flags = SendFlags::from_bits_truncate(rng.random());
        }
        flags.set(SendFlags::FIN, fin);
        flags.set(SendFlags::CANCEL_ON_LOSS, rng.random_bool(0.05));
        let starts = flags.contains(SendFlags::START) && held.start != PEERS;
        if starts {
            lock(&self.promises.starts).asked.insert(held.start);
        }
        let context = self.name();
        lock(&self.promises.sends).insert(context);
        let sent = match rng.random_range(0..3) {
            0 if !starts => held.stream.send(record, context, fin),
            0 | 1 => held.stream.send_with(record, context, flags),
            _ => held
                .stream
                .send_vectored(content::in_parts(record, rng), context, flags),
        };
        if sent.is_ok() && starts {
            lock(&self.promises.starts).promised.insert(held.start);
        }
        if sent.is_err() {
            let was_open = lock(&self.promises.sends).remove(&context);
            check(was_open, "a send that was refused", "is complete");
        }
    }

    /// In a handler of a connection, on one of its streams; elsewhere that is refused.
    fn shut_down_inline(&self, rng: &mut StdRng, caller: Caller<'_>, other: &Stream) {
        let how = some_end(rng);
        let Some(connection) = caller.connection else {
            let refused = other.shutdown_inline(how);
            return check(refused.is_err(), "a shutdown inline", "works outside of handlers");
        };
        let held = {
            let handles = lock(&self.handles);
            let streams = handles.streams.iter();
            let siblings: Vec<_> = streams
                .filter(|held| held.stream.connection() == connection)
                .collect();
            one(&siblings, rng).cloned()
        };
        if let Some(Held { stream, .. }) = held {
            let _ = inline(&stream, || stream.shutdown_inline(how));
        }
    }

    fn stream_handler(self: &Arc<Self>, start: u64, way: Way) -> impl ringway::StreamHandler {
        let app = Arc::clone(self);
        let mut reading = Reading::new(way);
        ordered(move |stream: &Stream, event: StreamEvent<'_>| {
            app.promises.events.fetch_add(1, Ordering::SeqCst);
            let mut rng = app.rng();
            if let StreamEvent::ShutdownComplete { .. } = event {
                let late = stream.send(Bytes::new(), 0, false);
                check_late(late);
                return EventStatus::Done;
            }
            let status = app.on_stream_event(&mut rng, stream, event, start, &mut reading);
            if rng.random_bool(0.3) {
                let held = Held {
                    stream: stream.clone(),
                    start,
                };
                let caller = Caller {
                    is_handler: true,
                    connection: Some(stream.connection()),
                    stream: Some(&held),
                };
                app.act(&mut rng, caller);
            }
            status
        })
    }

    fn on_stream_event(
        &self,
        rng: &mut StdRng,
        stream: &Stream,
        event: StreamEvent<'_>,
        start: u64,
        reading: &mut Reading,
    ) -> EventStatus {
        match event {
            StreamEvent::SendComplete { context, .. } => {
                let was_open = lock(&self.promises.sends).remove(&context);
                check(was_open, "SendComplete", "twice, or of nothing that was sent");
            }
            StreamEvent::StartComplete(_) => {
                let mut starts = lock(&self.promises.starts);
                let is_right = starts.asked.contains(&start) && starts.heard.insert(start);
                check(
                    is_right,
                    "StartComplete",
                    "twice, or of a stream that nobody has started",
                );
            }
            StreamEvent::Receive(data) => return self.receive(rng, data, reading),
            StreamEvent::ReceiveBufferFilled { offset, data, fin } => {
                reading.receive(offset, data, fin);
                if rng.random_bool(0.5) {
                    drop(std::mem::take(data));
                }
            }
            StreamEvent::ReceiveBufferNeeded(_) if rng.random_bool(0.7) => {
                let _ = stream.provide_receive_buffers(some_buffers(rng));
            }
            StreamEvent::PeerSendShutdown => reading.finish(),
            StreamEvent::CancelOnLoss => return EventStatus::Refuse(rng.random_range(0..9)),
            _ => {}
        }
        EventStatus::Done
    }

    fn receive(&self, rng: &mut StdRng, data: ReceivedData<'_>, reading: &mut Reading) -> EventStatus {
        let (len, bytes) = (data.len(), data.to_vec());
        check(
            data.is_empty() == bytes.is_empty() && bytes.len() == len,
            "Receive",
            "with another length",
        );
        reading.receive(data.offset(), &bytes, data.fin());
        let _ = data.is_zero_rtt();
        if rng.random_bool(0.2) {
            self.keep(rng, data.keep(), &bytes);
        }
        let status = match rng.random_range(0..12) {
            0 => EventStatus::Pending,
            1 => EventStatus::Consumed(rng.random_range(0..=len)),
            2 => EventStatus::Continue(rng.random_range(0..=len)),
            _ => EventStatus::Done,
        };
        reading.answer(len, status);
        status
    }

    fn keep(&self, rng: &mut StdRng, data: ringway::KeptData, was: &[u8]) {
        let kept = Kept::new(data, was.to_vec());
        let mut handles = lock(&self.handles);
        if handles.kept.len() < 30 {
            handles.kept.push(kept);
        } else {
            drop(handles);
            kept.check(rng);
        }
    }

    /// Everything is given up, in any order.
    pub(crate) fn give_up(&self, rng: &mut StdRng) {
        self.over.store(true, Ordering::SeqCst);
        let mut steps = [0, 1, 2, 3, 4, 5, 6];
        for index in (1..steps.len()).rev() {
            steps.swap(index, rng.random_range(0..=index));
        }
        for step in steps {
            match step {
                0 => lock(&self.handles).incoming.clear(),
                1 => lock(&self.handles).streams.clear(),
                2 => lock(&self.handles).connections.clear(),
                3 => lock(&self.handles).sockets.clear(),
                4 => {
                    let listeners = std::mem::take(&mut lock(&self.handles).listeners);
                    drop(listeners);
                }
                step => {
                    let registration = if step == 5 { &self.server } else { &self.client };
                    let Some(registration) = lock(registration).take() else {
                        continue;
                    };
                    let soon = Duration::from_millis(rng.random_range(0..100));
                    match rng.random_range(0..5) {
                        0 => registration.shutdown(5).unwrap(),
                        1 => registration.shutdown_within(5, soon).unwrap(),
                        2 if !self.is_virtual => registration.close(),
                        3 if !self.is_virtual => registration.close_within(soon),
                        _ => {}
                    }
                }
            }
        }
    }

    /// Drops what handlers have kept to themselves meanwhile, once it was looked at.
    pub(crate) fn drop_handles(&self, rng: &mut StdRng) {
        let handles = std::mem::take(&mut *lock(&self.handles));
        handles.kept.into_iter().for_each(|kept| kept.check(rng));
    }

    pub(crate) fn check(&self) {
        let promises = &self.promises;
        let left = |count: &AtomicI64| count.load(Ordering::SeqCst);
        assert_eq!(left(&promises.connections), 0, "connections that never ended");
        assert_eq!(left(&promises.listeners), 0, "listeners that never stopped");
        let starts = lock(&promises.starts);
        let unheard: Vec<_> = starts.promised.difference(&starts.heard).collect();
        assert!(
            unheard.is_empty(),
            "streams that never heard how they started: {unheard:?}"
        );
        let sends = lock(&promises.sends);
        assert!(sends.is_empty(), "sends that were never complete: {sends:?}");
        let datagrams = lock(&promises.datagrams);
        assert!(
            datagrams.is_empty(),
            "datagrams without a final state: {datagrams:?}"
        );
        assert!(promises.events.load(Ordering::SeqCst) > 0, "nothing happened");
    }
}

/// In the place of the name of a start: the peer has started the stream.
const PEERS: u64 = u64::MAX;

fn some_settings(rng: &mut StdRng) -> Settings {
    Settings {
        datagram_receive_enabled: rng.random_bool(0.5),
        peer_bidi_stream_count: rng.random_range(1..8),
        peer_uni_stream_count: rng.random_range(0..8),
        stream_receive_window: 1 << rng.random_range(12..18),
        follow_rss: rng.random_bool(0.8),
        network_statistics_enabled: rng.random_bool(0.2),
        send_queue_limit: 1 << rng.random_range(12..24),
        server_resumption_level: match rng.random_bool(0.5) {
            true => ResumptionLevel::ResumeAndZeroRtt,
            false => ResumptionLevel::ResumeOnly,
        },
        idle_timeout: Duration::from_secs(2),
        disconnect_timeout: Duration::from_secs(2),
        handshake_idle_timeout: Duration::from_secs(2),
        ..settings()
    }
}

fn some_change(rng: &mut StdRng) -> SettingsChange {
    let change = SettingsChange::new();
    match rng.random_range(0..16) {
        0 => change.idle_timeout(Duration::from_millis(rng.random_range(500..3000))),
        1 => change.disconnect_timeout(Duration::from_millis(rng.random_range(500..3000))),
        2 => change.keep_alive_interval(Duration::from_millis(rng.random_range(100..3000))),
        3 => change.send_idle_timeout(Duration::from_millis(rng.random_range(0..500))),
        4 => change.remote_cid_idle_timeout(Duration::from_millis(rng.random_range(0..500))),
        5 => change.stream_receive_window(rng.random_range(0..20_000)),
        6 => change.connection_flow_control_window(rng.random_range(0..40_000)),
        7 => change.peer_bidi_stream_count(rng.random_range(0..70_000)),
        8 => change.peer_uni_stream_count(rng.random_range(0..20)),
        9 => change.stream_scheduling(match rng.random_bool(0.5) {
            true => StreamScheduling::RoundRobin,
            false => StreamScheduling::Fifo,
        }),
        10 => change.pacing_enabled(rng.random_bool(0.5)),
        11 => change.migration_enabled(rng.random_bool(0.5)),
        12 => change.follow_rss(rng.random_bool(0.5)),
        13 => change.datagram_receive_enabled(rng.random_bool(0.5)),
        14 => change.network_statistics_enabled(rng.random_bool(0.5)),
        _ => change.dscp(rng.random_range(0..70)),
    }
}

fn some_end(rng: &mut StdRng) -> StreamShutdown {
    match rng.random_range(0..5) {
        0 => StreamShutdown::Graceful,
        1 => StreamShutdown::AbortSend(1),
        2 => StreamShutdown::AbortReceive(2),
        3 => StreamShutdown::Abort(3),
        _ => StreamShutdown::AbortImmediately(4),
    }
}

fn some_answer(rng: &mut StdRng) -> ResumptionAnswer {
    match rng.random_range(0..3) {
        0 => ResumptionAnswer::Accept,
        1 => ResumptionAnswer::AcceptWithoutZeroRtt,
        _ => ResumptionAnswer::Refuse,
    }
}

fn some_buffers(rng: &mut StdRng) -> Vec<ringway::bytes::BytesMut> {
    (0..rng.random_range(0..4))
        .map(|_| ringway::bytes::BytesMut::with_capacity(some_len(rng)))
        .collect()
}

/// What waits for the worker is answered, and refused only where it says so.
fn check_answers(answers: &[Result<(), CallError>], caller: Caller<'_>, of: &Connection) {
    for answer in answers {
        let fits = match answer {
            Ok(()) | Err(CallError::Closed) => true,
            Err(CallError::WouldWait) => caller.is_handler && caller.connection != Some(of),
            Err(_) => false,
        };
        check(fits, "a question", &format!("is answered with {answer:?}"));
    }
}

/// What a call is answered after the last event.
fn check_late(answer: Result<(), CallError>) {
    let is_closed = answer == Err(CallError::Closed);
    check(
        is_closed,
        "a call after ShutdownComplete",
        &format!("is answered with {answer:?}"),
    );
}

/// What any thread may ask at any time.
fn look_at(connection: &Connection) {
    let again = connection.clone();
    let is_same = again == *connection && again.correlation_id() == connection.correlation_id();
    check(is_same, "a connection", "is not itself");
    let _ = (
        connection.remote_address(),
        connection.local_address(),
        connection.partition(),
    );
    let names = (
        connection.alpn(),
        connection.server_name(),
        connection.cipher_suite(),
    );
    let _ = (names, connection.peer_certificates());
    let alpn = connection.tls_info().and_then(|info| info.alpn.clone());
    check(
        alpn.is_none_or(|alpn| *alpn == *ALPN),
        "a connection",
        "has another protocol",
    );
    if let Some(reason) = connection.close_reason() {
        check_end(&reason);
    }
}

/// Nobody's fault inside of the library.
fn check_end(reason: &CloseReason) {
    let code = match reason {
        CloseReason::Transport(error) => error.code,
        CloseReason::PeerTransport { code, .. } => *code,
        _ => TransportErrorCode::NO_ERROR,
    };
    check(
        code != TransportErrorCode::INTERNAL_ERROR,
        &format!("{reason:?}"),
        "a fault inside",
    );
}

fn look_at_incoming(incoming: &Incoming) {
    let is_right = incoming.alpn() == ALPN && incoming.offered_alpns() == [ALPN];
    check(is_right, "NewConnection", "with another protocol");
    check(
        incoming.server_name().is_some(),
        "NewConnection",
        "without a name",
    );
    let _ = (
        incoming.partition(),
        incoming.is_address_validated(),
        incoming.version(),
    );
    let _ = (incoming.remote_address(), incoming.local_address());
}
