//! What several tests need: how Ringway runs in them, certificates, registrations on a virtual network, seeds.
#![allow(missing_docs, reason = "for tests")]

pub mod order;
pub mod pki;
mod seeds;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use ringway::pki_types::PrivateKeyDer;
use ringway::sim::SimNetwork;
use ringway::{
    AfXdpConfig, Backend, ClientCredentials, Configuration, DatapathConfig, Execution, ExecutionConfig,
    ExecutionFlags, ExecutionMode, Instant, Limits, Registration, ServerCredentials, Settings, SetupError,
    Wait,
};
use ringway_perf::event_loop::EventLoop;
use ringway_perf::processors;

pub use self::seeds::{number, with_seed, with_seeds};

pub const ALPN: &[u8] = b"test";

/// Settings with room for streams.
pub fn settings() -> Settings {
    Settings {
        peer_bidi_stream_count: 100,
        peer_uni_stream_count: 100,
        ..Settings::default()
    }
}

/// Partitions on the datapath that the environment variable `TEST_DATAPATH` names (`af_xdp`, `io_uring`, `socket`; default: auto).
/// AF_XDP is that of the loopback interface (which needs an MTU of 1500 for it): run one test at a time then.
pub fn execution(partitions: usize) -> ExecutionConfig {
    let mut af_xdp = AfXdpConfig::default();
    let backend = match std::env::var("TEST_DATAPATH").as_deref() {
        Ok("af_xdp") => {
            af_xdp.interface = Some("lo".to_owned());
            Backend::AfXdp
        }
        Ok("io_uring") => Backend::IoUring,
        Ok("socket") => Backend::Socket,
        Ok(other) => panic!("TEST_DATAPATH={other}: af_xdp, io_uring or socket"),
        Err(_) => Backend::Auto,
    };
    let mode = mode();
    let threads = match mode {
        ExecutionMode::LowLatency => partitions,
        ExecutionMode::MaxThroughput => 2 * partitions,
    };
    ExecutionConfig {
        mode,
        flags: flags(threads),
        processors: Some((0..threads).collect()),
        datapath: DatapathConfig {
            backend,
            af_xdp,
            ..DatapathConfig::default()
        },
        ..ExecutionConfig::default()
    }
}

/// What lets this machine run so many threads, be its processors fewer.
pub fn flags(threads: usize) -> ExecutionFlags {
    if processors::check(&(0..threads).collect::<Vec<_>>()).is_ok() {
        ExecutionFlags::empty()
    } else {
        ExecutionFlags::NO_IDEAL_PROC
    }
}

/// The mode that the environment variable `TEST_MODE` names (`low_latency`, the default, or `max_throughput`).
pub fn mode() -> ExecutionMode {
    match std::env::var("TEST_MODE").as_deref() {
        Ok("max_throughput") => ExecutionMode::MaxThroughput,
        Ok("low_latency") | Err(_) => ExecutionMode::LowLatency,
        Ok(other) => panic!("TEST_MODE={other}: low_latency or max_throughput"),
    }
}

/// A registration on its own threads, or on the event loops that the environment variable `TEST_EVENT_LOOP` names (`epoll` or `io_uring`).
///
/// # Errors
///
/// As [`Registration::open`].
pub fn open(execution: &ExecutionConfig) -> Result<Registration, SetupError> {
    let event_loop = match std::env::var("TEST_EVENT_LOOP").as_deref() {
        Ok("epoll") => EventLoop::Epoll,
        Ok("io_uring") => EventLoop::IoUring,
        Ok(other) => panic!("TEST_EVENT_LOOP={other}: epoll or io_uring"),
        Err(_) => return Registration::open("test", execution),
    };
    // Where its threads run is its own business.
    let execution = ExecutionConfig {
        flags: ExecutionFlags::empty(),
        ..execution.clone()
    };
    // The threads end with the registration.
    event_loop
        .open("test", &execution)
        .map(|(registration, _)| registration)
}

/// A registration of a server. The one before may still have the interface of AF_XDP for a moment.
pub fn server(partitions: usize) -> Registration {
    let execution = execution(partitions);
    patiently(|| open(&execution))
}

/// A registration of a client beside a server. Only one of them can have AF_XDP: the client takes sockets then, without segmentation, as
/// frames of many datagrams fit no AF_XDP socket.
pub fn client(partitions: usize) -> Registration {
    let mut execution = execution(partitions);
    if execution.datapath.backend == Backend::AfXdp {
        execution.datapath = DatapathConfig {
            backend: Backend::Socket,
            gso: false,
            ..DatapathConfig::default()
        };
    }
    open(&execution).unwrap()
}

/// Opens what another test may not have given up yet.
pub fn patiently<T>(open: impl Fn() -> Result<T, SetupError>) -> T {
    let mut tries = 0..200;
    loop {
        match open() {
            Err(error) if format!("{error:?}").contains("in use") && tries.next().is_some() => {
                std::thread::sleep(Duration::from_millis(50));
            }
            result => return result.unwrap(),
        }
    }
}

/// A server's and a client's configuration that fit each other.
pub fn configurations(server: Settings, client: Settings) -> (Arc<Configuration>, Arc<Configuration>) {
    configurations_for(vec!["localhost".to_owned()], server, client)
}

/// The same with a certificate for these names.
pub fn configurations_for(
    names: Vec<String>,
    server: Settings,
    client: Settings,
) -> (Arc<Configuration>, Arc<Configuration>) {
    let made = rcgen::generate_simple_self_signed(names).unwrap();
    let chain = vec![made.cert.der().clone()];
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    (
        Configuration::server(&[ALPN], server, ServerCredentials::new(chain.clone(), key)).unwrap(),
        Configuration::client(&[ALPN], client, ClientCredentials::roots(chain)).unwrap(),
    )
}

/// Hosts on a virtual network, worked in virtual time by the thread of the test.
pub struct World {
    pub network: SimNetwork,
    pub now: Instant,
    contexts: Vec<Execution>,
}

impl World {
    pub fn new(seed: u64) -> Self {
        World {
            network: SimNetwork::new(seed),
            now: Instant::from_nanos(1_000_000_000),
            contexts: Vec::new(),
        }
    }

    /// A host with an application.
    pub fn host(&mut self, ip: IpAddr, partitions: usize, segments_max: usize) -> Registration {
        self.host_with(ip, partitions, segments_max, Limits::default())
    }

    /// A host that keeps no more than this for its clients.
    pub fn host_with(
        &mut self,
        ip: IpAddr,
        partitions: usize,
        segments_max: usize,
        limits: Limits,
    ) -> Registration {
        let config = ExecutionConfig {
            limits,
            ..ExecutionConfig::default()
        };
        self.host_as(ip, partitions, segments_max, &config)
    }

    /// A host that is set up so, in the mode that the tests have.
    pub fn host_as(
        &mut self,
        ip: IpAddr,
        partitions: usize,
        segments_max: usize,
        config: &ExecutionConfig,
    ) -> Registration {
        let config = ExecutionConfig {
            mode: mode(),
            ..config.clone()
        };
        let (registration, contexts) =
            Execution::create_simulated(&self.network, ip, partitions, segments_max, &config, self.now)
                .unwrap();
        self.contexts.extend(contexts);
        registration
    }

    /// How many contexts have nothing to do any more, as their registrations are closed.
    pub fn contexts_ended(&self) -> usize {
        self.contexts.iter().filter(|context| context.has_ended()).count()
    }

    /// One turn of everybody.
    pub fn turn_once(&mut self) {
        for context in &mut self.contexts {
            context.poll_at(self.now);
        }
    }

    /// Lets everybody do what is to be done now. Gives when something is to be done next.
    pub fn turn(&mut self) -> Option<Instant> {
        let mut turns = 0;
        let next = loop {
            let mut busy = false;
            let mut next: Option<Instant> = None;
            for context in &mut self.contexts {
                match context.poll_at(self.now) {
                    Wait::NoWait => busy = true,
                    Wait::Until(at) => next = Some(next.map_or(at, |next| next.min(at))),
                    Wait::UntilEvent => {}
                }
            }
            turns += 1;
            assert!(turns < 100_000, "a context is never done");
            if !busy {
                break next;
            }
        };
        let arrival = self.network.next_arrival();
        [next, arrival]
            .into_iter()
            .flatten()
            .min()
            .map(|at| at.max(self.now))
    }

    /// Goes on until `done`; false if it is not within `time`.
    pub fn run_until(&mut self, time: Duration, mut done: impl FnMut(&mut World) -> bool) -> bool {
        let end = self.now + time;
        let (mut stopped_at, mut stops) = (self.now, 0);
        loop {
            stops = if self.now == stopped_at { stops + 1 } else { 0 };
            stopped_at = self.now;
            assert!(
                stops < 10_000,
                "a deadline has come, and nothing is done about it"
            );
            self.turn();
            if done(self) {
                return true;
            }
            // What `done` has called is done before time goes on.
            match self.turn() {
                // And what that has brought is seen within a short time, whatever the timers say.
                Some(next) if next <= end => self.now = next.min(self.now + Duration::from_millis(50)),
                _ => {
                    self.now = end;
                    return done(self);
                }
            }
        }
    }

    pub fn run_for(&mut self, time: Duration) {
        self.run_until(time, |_| false);
    }
}

pub fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// The content of everything that is sent: `o mod 251` at offset `o`.
pub fn pattern(offset: u64, len: usize) -> Vec<u8> {
    (offset..offset + len as u64)
        .map(|offset| (offset % 251) as u8)
        .collect()
}
