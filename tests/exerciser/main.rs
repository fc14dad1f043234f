//! Random calls on random handles, from several threads and from inside handlers, with handles closed at the worst time: whatever an application
//! does, events come in the promised order, each call completes once, and nothing is left behind.
//!
//! `TEST_SECONDS=600 cargo test -p ringway-tests --test exerciser` goes on for longer than the default 5 seconds; `TEST_SEED=n` starts with that
//! round. Over the virtual network a seed repeats a round exactly; with real threads it repeats the calls, but not how they interleave.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use ringway::sim::Link;
use ringway::{
    Bytes, Configuration, ConnectTarget, Connection, ConnectionEvent, Direction, EventStatus,
    ExecutionConfig, ExecutionFlags, ExecutionMode, Incoming, Listener, ListenerEvent, ListenerOptions,
    Registration, RetryPolicy, Settings, Steering, Stream, StreamEvent, StreamShutdown,
};
use ringway_perf::event_loop::EventLoop;
use ringway_tests::order::ordered;
use ringway_tests::{ALPN, World, address, configurations, number, settings, with_seed};

/// What was promised and not kept yet: all zero in the end.
#[derive(Default)]
struct Promises {
    /// `ShutdownComplete` of connections that were opened.
    connections: AtomicI64,
    /// `SendComplete`s of sends that were taken.
    sends: AtomicI64,
    /// `StartComplete`s of streams whose start was taken.
    starts: AtomicI64,
    /// `StopComplete`s of listeners.
    listeners: AtomicI64,
    /// Events heard at all: a round without any exercises nothing.
    events: AtomicU64,
}

/// An application that does anything.
struct App {
    server: Mutex<Option<Registration>>,
    client: Mutex<Option<Registration>>,
    server_configuration: Arc<Configuration>,
    client_configuration: Arc<Configuration>,
    handles: Mutex<Handles>,
    promises: Promises,
    random: Mutex<StdRng>,
    /// No more new things.
    over: AtomicBool,
}

#[derive(Default)]
struct Handles {
    connections: Vec<Connection>,
    streams: Vec<Stream>,
    listeners: Vec<Listener>,
    incoming: Vec<Incoming>,
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

impl App {
    fn new(server: Registration, client: Registration, seed: u64) -> Arc<App> {
        let mut random = StdRng::seed_from_u64(seed);
        let mut some = || Settings {
            datagram_receive_enabled: random.random_bool(0.5),
            peer_bidi_stream_count: random.random_range(1..8),
            peer_uni_stream_count: random.random_range(0..8),
            stream_receive_window: 1 << random.random_range(12..18),
            follow_rss: random.random_bool(0.8),
            idle_timeout: Duration::from_secs(2),
            disconnect_timeout: Duration::from_secs(2),
            handshake_idle_timeout: Duration::from_secs(2),
            ..settings()
        };
        let (server_configuration, client_configuration) = configurations(some(), some());
        Arc::new(App {
            server: Mutex::new(Some(server)),
            client: Mutex::new(Some(client)),
            server_configuration,
            client_configuration,
            handles: Mutex::default(),
            promises: Promises::default(),
            random: Mutex::new(random),
            over: AtomicBool::new(false),
        })
    }

    fn rng(&self) -> StdRng {
        StdRng::seed_from_u64(lock(&self.random).random())
    }

    /// One call, of any kind, on anything; on `stream` or `connection` as likely as on any other.
    fn act(self: &Arc<Self>, rng: &mut StdRng, connection: Option<&Connection>, stream: Option<&Stream>) {
        let own = rng.random_bool(0.5);
        let handles = lock(&self.handles);
        let connection = connection
            .filter(|_| own)
            .cloned()
            .or_else(|| one(&handles.connections, rng));
        let stream = stream
            .filter(|_| own)
            .cloned()
            .or_else(|| one(&handles.streams, rng));
        drop(handles);
        match (rng.random_range(0..100), connection, stream) {
            (0..4, ..) => self.listen(rng),
            (4..12, ..) => self.connect(rng),
            (12..30, Some(connection), _) => self.open(rng, &connection),
            (30..55, _, Some(stream)) => self.send(rng, &stream),
            (55..62, _, Some(stream)) => {
                let how = match rng.random_range(0..4) {
                    0 => StreamShutdown::Graceful,
                    1 => StreamShutdown::AbortSend(1),
                    2 => StreamShutdown::AbortReceive(2),
                    _ => StreamShutdown::Abort(3),
                };
                let _ = stream.shutdown(how);
            }
            (62..67, _, Some(stream)) => drop(stream.receive_complete(rng.random_range(0..5000))),
            (67..74, _, Some(stream)) => drop(stream.set_receive_enabled(rng.random_bool(0.8))),
            (74..76, _, Some(stream)) => drop(stream.set_priority(rng.random())),
            (76..78, Some(connection), _) => drop(connection.update_keys()),
            (78..80, Some(connection), _) => drop(connection.with_stats(|_| ())),
            (80..84, Some(connection), _) => {
                let _ = connection.send_datagram(Bytes::from(vec![0; rng.random_range(0..1500)]), 0);
            }
            (84..87, Some(connection), _) => drop(connection.shutdown(rng.random_range(0..9))),
            (87..90, ..) => {
                let taken = take(&mut lock(&self.handles).connections, rng);
                drop(taken);
            }
            (90..93, ..) => {
                let taken = take(&mut lock(&self.handles).streams, rng);
                drop(taken);
            }
            (93..94, ..) => {
                let taken = take(&mut lock(&self.handles).listeners, rng);
                match taken {
                    Some(listener) if rng.random_bool(0.5) => listener.stop(),
                    taken => drop(taken),
                }
            }
            (94..99, ..) => {
                let taken = take(&mut lock(&self.handles).incoming, rng);
                if let Some(incoming) = taken {
                    self.accept(rng, incoming);
                }
            }
            _ => {}
        }
    }

    fn listen(self: &Arc<Self>, rng: &mut StdRng) {
        let Some(server) = lock(&self.server)
            .clone()
            .filter(|_| !self.over.load(Ordering::SeqCst))
        else {
            return;
        };
        if lock(&self.handles).listeners.len() >= 3 {
            return;
        }
        let options = ListenerOptions::new(
            match server.capabilities()[0].backend {
                "sim" => address("192.0.2.1:0"),
                _ => address("127.0.0.1:0"),
            },
            &[ALPN],
        )
        .with_retry(if rng.random_bool(0.2) {
            RetryPolicy::Always
        } else {
            RetryPolicy::Never
        })
        .with_partition(
            rng.random_bool(0.3)
                .then(|| rng.random_range(0..server.partition_count())),
        );
        let app = Arc::clone(self);
        let made = Listener::start(&server, options, move |event| {
            app.promises.events.fetch_add(1, Ordering::SeqCst);
            match event {
                ListenerEvent::NewConnection(incoming) => {
                    let mut rng = app.rng();
                    match rng.random_range(0..10) {
                        0 => drop(incoming),
                        1 => lock(&app.handles).incoming.push(incoming),
                        _ => app.accept(&mut rng, incoming),
                    }
                }
                _ => {
                    app.promises.listeners.fetch_sub(1, Ordering::SeqCst);
                }
            }
        });
        if let Ok(listener) = made {
            self.promises.listeners.fetch_add(1, Ordering::SeqCst);
            lock(&self.handles).listeners.push(listener);
        }
    }

    fn accept(self: &Arc<Self>, rng: &mut StdRng, incoming: Incoming) {
        let connection = incoming.accept(&self.server_configuration, self.connection_handler(false));
        if rng.random_bool(0.7) {
            lock(&self.handles).connections.push(connection);
        }
    }

    fn connect(self: &Arc<Self>, rng: &mut StdRng) {
        let Some(client) = lock(&self.client)
            .clone()
            .filter(|_| !self.over.load(Ordering::SeqCst))
        else {
            return;
        };
        let remote = {
            let handles = lock(&self.handles);
            if handles.connections.len() >= 20 || handles.listeners.is_empty() {
                return;
            }
            handles.listeners[rng.random_range(0..handles.listeners.len())].local_address()
        };
        let target = ConnectTarget::new(
            remote,
            if rng.random_bool(0.95) {
                "localhost"
            } else {
                "elsewhere"
            },
        )
        .with_partition(
            rng.random_bool(0.3)
                .then(|| rng.random_range(0..client.partition_count())),
        );
        // Promised before the call: the end may be heard before it returns.
        self.promises.connections.fetch_add(1, Ordering::SeqCst);
        match Connection::start(
            &client,
            &self.client_configuration,
            &target,
            self.connection_handler(true),
        ) {
            Ok(connection) => lock(&self.handles).connections.push(connection),
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
            match event {
                ConnectionEvent::PeerStreamStarted(stream) => {
                    if rng.random_bool(0.1) {
                        return EventStatus::Refuse(rng.random_range(0..9));
                    }
                    let stream = stream.accept(app.stream_handler());
                    if rng.random_bool(0.7) {
                        lock(&app.handles).streams.push(stream.clone());
                    }
                }
                ConnectionEvent::ShutdownComplete { .. } => {
                    if was_promised {
                        app.promises.connections.fetch_sub(1, Ordering::SeqCst);
                    }
                    assert!(connection.shutdown(0).is_err());
                }
                _ => {}
            }
            for _ in 0..rng.random_range(0..3) {
                app.act(&mut rng, Some(connection), None);
            }
            EventStatus::Done
        })
    }

    fn open(self: &Arc<Self>, rng: &mut StdRng, connection: &Connection) {
        let direction = if rng.random_bool(0.7) {
            Direction::Bidirectional
        } else {
            Direction::Unidirectional
        };
        let Ok(stream) = Stream::open(connection, direction, self.stream_handler()) else {
            return;
        };
        if rng.random_bool(0.5) {
            self.send(rng, &stream);
        }
        self.promises.starts.fetch_add(1, Ordering::SeqCst);
        if stream.start(rng.random_bool(0.3)).is_err() {
            self.promises.starts.fetch_sub(1, Ordering::SeqCst);
        }
        lock(&self.handles).streams.push(stream);
    }

    fn send(&self, rng: &mut StdRng, stream: &Stream) {
        let most = 1 << rng.random_range(1..17);
        let data = Bytes::from(vec![0; rng.random_range(0..most)]);
        self.promises.sends.fetch_add(1, Ordering::SeqCst);
        if stream.send(data, 1, rng.random_bool(0.2)).is_err() {
            self.promises.sends.fetch_sub(1, Ordering::SeqCst);
        }
    }

    fn stream_handler(self: &Arc<Self>) -> impl ringway::StreamHandler {
        let app = Arc::clone(self);
        ordered(move |stream: &Stream, event: StreamEvent<'_>| {
            app.promises.events.fetch_add(1, Ordering::SeqCst);
            let mut rng = app.rng();
            match &event {
                StreamEvent::SendComplete { .. } => {
                    app.promises.sends.fetch_sub(1, Ordering::SeqCst);
                }
                StreamEvent::StartComplete(_) => {
                    app.promises.starts.fetch_sub(1, Ordering::SeqCst);
                }
                StreamEvent::ShutdownComplete { .. } => {
                    assert!(stream.send(Bytes::new(), 0, false).is_err());
                    return EventStatus::Done;
                }
                _ => {}
            }
            if rng.random_bool(0.3) {
                app.act(&mut rng, Some(stream.connection()), Some(stream));
            }
            match (event, rng.random_range(0..12)) {
                (StreamEvent::Receive(_), 0) => EventStatus::Pending,
                (StreamEvent::Receive(data), 1) => EventStatus::Consumed(rng.random_range(0..=data.len())),
                (StreamEvent::Receive(data), 2) => EventStatus::Continue(rng.random_range(0..=data.len())),
                _ => EventStatus::Done,
            }
        })
    }

    /// Everything is given up, in any order.
    fn give_up(&self, rng: &mut StdRng) {
        self.over.store(true, Ordering::SeqCst);
        let mut steps = [0, 1, 2, 3, 4, 5];
        for index in (1..steps.len()).rev() {
            steps.swap(index, rng.random_range(0..=index));
        }
        for step in steps {
            match step {
                0 => lock(&self.handles).incoming.clear(),
                1 => lock(&self.handles).streams.clear(),
                2 => lock(&self.handles).connections.clear(),
                3 => {
                    let listeners = std::mem::take(&mut lock(&self.handles).listeners);
                    drop(listeners);
                }
                step => {
                    let registration = if step == 4 { &self.server } else { &self.client };
                    let Some(registration) = lock(registration).take() else {
                        continue;
                    };
                    match rng.random_range(0..3) {
                        0 => registration.shutdown(5).unwrap(),
                        1 if registration.capabilities()[0].backend != "sim" => registration.close(),
                        _ => {}
                    }
                }
            }
        }
    }

    fn check(&self) {
        let left = |count: &AtomicI64| count.load(Ordering::SeqCst);
        let promises = &self.promises;
        assert_eq!(left(&promises.connections), 0, "connections that never ended");
        assert_eq!(
            left(&promises.starts),
            0,
            "streams that never heard how they started"
        );
        assert_eq!(
            left(&promises.sends),
            0,
            "sends that were never complete, or more than once"
        );
        assert_eq!(left(&promises.listeners), 0, "listeners that never stopped");
        assert!(promises.events.load(Ordering::SeqCst) > 0, "nothing happened");
    }
}

fn over_a_virtual_network(seed: u64) {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut world = World::new(seed);
    if rng.random_bool(0.5) {
        world.network.disable_steering();
    }
    let ips = [address("192.0.2.1:0").ip(), address("198.51.100.7:0").ip()];
    for (from, to) in [(ips[0], ips[1]), (ips[1], ips[0])] {
        let delay = Duration::from_millis(rng.random_range(0..20));
        world.network.set_link(
            from,
            to,
            Link {
                delay,
                loss: rng.random_range(0.0..0.05),
                ..Link::default()
            },
        );
    }
    let server = world.host(ips[0], rng.random_range(1..4), 8);
    let client = world.host(ips[1], rng.random_range(1..3), 8);
    let app = App::new(server, client, seed);
    for _ in 0..rng.random_range(50..400) {
        for _ in 0..rng.random_range(0..4) {
            app.act(&mut rng, None, None);
        }
        world.run_for(Duration::from_millis(rng.random_range(0..10)));
    }
    app.listen(&mut rng);
    app.give_up(&mut rng);
    world.run_for(Duration::from_secs(30));
    // What handlers have kept to themselves meanwhile.
    *lock(&app.handles) = Handles::default();
    world.run_for(Duration::from_secs(5));
    assert_eq!(world.turn(), None, "a timer is left");
    app.check();
    assert_eq!(Arc::strong_count(&app), 1, "a handler is left");
}

fn with_threads(seed: u64) {
    let mut rng = StdRng::seed_from_u64(seed);
    let open = |rng: &mut StdRng| {
        let mut execution = ringway_tests::execution(rng.random_range(1..4));
        execution.mode = ExecutionMode::LowLatency;
        if rng.random_bool(0.3) {
            execution.mode = ExecutionMode::MaxThroughput;
            let threads = 2 * execution.processors.as_ref().map_or(1, Vec::len);
            execution.processors = Some((0..threads).collect());
            execution.flags = ringway_tests::flags(threads);
        }
        if rng.random_bool(0.5) {
            execution.datapath.steering = Steering::Flow;
        }
        let on_loops = ExecutionConfig {
            flags: ExecutionFlags::empty(),
            ..execution.clone()
        };
        match rng.random_range(0..4) {
            0 => EventLoop::Epoll.open("test", &on_loops).unwrap().0,
            1 => EventLoop::IoUring.open("test", &on_loops).unwrap().0,
            _ => Registration::open("test", &execution).unwrap(),
        }
    };
    let app = App::new(open(&mut rng), open(&mut rng), seed);
    app.listen(&mut rng);
    let stop = Arc::new(AtomicBool::new(false));
    let threads: Vec<_> = (0..3)
        .map(|_| {
            let (app, stop, mut rng) = (
                Arc::clone(&app),
                Arc::clone(&stop),
                StdRng::seed_from_u64(rng.random()),
            );
            std::thread::spawn(move || {
                while !stop.load(Ordering::SeqCst) {
                    app.act(&mut rng, None, None);
                    if rng.random_bool(0.02) {
                        std::thread::sleep(Duration::from_micros(rng.random_range(0..3000)));
                    }
                }
            })
        })
        .collect();
    std::thread::sleep(Duration::from_millis(rng.random_range(20..400)));
    app.give_up(&mut rng);
    std::thread::sleep(Duration::from_millis(rng.random_range(0..20)));
    stop.store(true, Ordering::SeqCst);
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    let start = Instant::now();
    loop {
        *lock(&app.handles) = Handles::default();
        if Arc::strong_count(&app) == 1 {
            break;
        }
        if start.elapsed() > Duration::from_secs(20) {
            app.check();
            panic!("{} handlers are left", Arc::strong_count(&app) - 1);
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    app.check();
}

fn rounds(name: &str, round: fn(u64)) {
    let time = Duration::from_secs(number("TEST_SECONDS").unwrap_or(5));
    let start = Instant::now();
    for seed in number("TEST_SEED").unwrap_or(0).. {
        if start.elapsed() >= time {
            break;
        }
        with_seed(seed, &format!("exerciser {name}"), round);
    }
}

#[test]
fn promises_are_kept_whatever_is_called_over_a_virtual_network() {
    rounds("virtual", over_a_virtual_network);
}

#[test]
fn promises_are_kept_whatever_is_called_from_several_threads() {
    rounds("threads", with_threads);
}
