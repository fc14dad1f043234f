//! Registrations: an application's threads and devices.

use std::collections::HashMap;
use std::convert::Infallible;
#[cfg(feature = "sim")]
use std::net::IpAddr;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

use ringway_datapath::clock::Clock;
use ringway_datapath::config::Threading;
use ringway_datapath::contract::{Capabilities, DeviceStats};
use ringway_datapath::event::EventQueue;
use ringway_datapath::local::LocalDevice;
use ringway_datapath::open::open_devices;
use ringway_datapath::partition::Partitioning;
use ringway_datapath::port::BoundPort;
#[cfg(feature = "sim")]
use ringway_datapath::sim::{SimDevice, SimNetwork};
use ringway_datapath::source_rules::SourceFilter;
use ringway_engine::crypto::aes_gcm::form;
use ringway_engine::crypto::tls;
use ringway_types::{Instant, PortId};

use super::error::{CallError, SettingsError, SetupError, checked_code};
use super::execution::{ExecutionConfig, ExecutionFlags, ExecutionMode};
use super::port_table::PortTable;
use super::ports::Ports;
use super::return_path::ReturnPaths;
use super::settings::Settings;
use super::thread_plan::{Affinity, ThreadPlan, ThreadSetup};
use crate::worker::context::{ContextReport, ExecutionContext};
use crate::worker::inbox::{DeviceOperation, Inbox, Operation};
use crate::worker::port_lease::PortLease;
use crate::worker::stats::WorkerStats;
use crate::worker::{WorkerConfig, current};

/// Counters of one partition.
#[derive(Clone, Copy, Debug)]
pub struct PartitionStats {
    /// Counters of its QUIC layer.
    pub worker: WorkerStats,
    /// Counters of its device.
    pub device: DeviceStats,
}

/// An application's threads and devices. MsQuic: `Registration`.
///
/// Clones are handles of the same registration. When the last handle is dropped, all connections are closed with code 0, and their peers are
/// told: the drop waits until that is done and the threads have ended, for [`SHUTDOWN_TIMEOUT`] at most, unless it happens on one of these
/// threads. So a program may end right behind it. [`Registration::close`] does the same and waits for the threads without a limit.
#[derive(Clone)]
pub struct Registration {
    pub(super) inner: Arc<Inner>,
}

pub(super) struct Inner {
    pub(super) inboxes: Arc<[Arc<Inbox>]>,
    reports: Vec<Reports>,
    /// Of the XDP program, for as long as there is one.
    source_filter: Option<Weak<dyn SourceFilter>>,
    /// That of AF_XDP, if one was named.
    pub(super) interface: Option<String>,
    /// There is a capture under way.
    pub(super) capturing: Arc<AtomicBool>,
    pub(super) partitioning: Partitioning,
    ports: Ports,
    /// The ports that connections of the application share, by partition.
    client_ports: Mutex<HashMap<(usize, ClientPort), Arc<PortLease>>>,
    pub(super) port_table: PortTable,
    /// Partition of the next connection that is opened outside of event handlers.
    next_partition: AtomicUsize,
    settings: Mutex<Settings>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    /// Disconnected when all threads have come to their end.
    ended: Mutex<mpsc::Receiver<Infallible>>,
}

/// The contexts of one partition.
struct Contexts {
    /// The device's, if the QUIC layer is on another thread.
    datapath: Option<ExecutionContext>,
    quic: ExecutionContext,
}

impl Contexts {
    fn flatten(partitions: Vec<Contexts>) -> Vec<ExecutionContext> {
        let contexts = partitions.into_iter();
        contexts
            .flat_map(|contexts| contexts.datapath.into_iter().chain([contexts.quic]))
            .collect()
    }
}

/// Where the counters of one partition are read.
struct Reports {
    datapath: Option<Arc<ContextReport>>,
    quic: Arc<ContextReport>,
}

impl Reports {
    fn of(contexts: &Contexts) -> Reports {
        Reports {
            datapath: contexts
                .datapath
                .as_ref()
                .map(|context| Arc::clone(context.report())),
            quic: Arc::clone(contexts.quic.report()),
        }
    }

    fn get(&self) -> PartitionStats {
        let (worker, device) = self.quic.get();
        let device = self.datapath.as_ref().map_or(device, |report| report.get().1);
        PartitionStats { worker, device }
    }

    fn capabilities(&self) -> Capabilities {
        self.datapath.as_ref().unwrap_or(&self.quic).capabilities()
    }
}

impl std::fmt::Debug for Registration {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Registration")
            .field("partitions", &self.inner.inboxes.len())
            .finish_non_exhaustive()
    }
}

impl Registration {
    /// Opens a registration and starts the threads of each partition. They are named `name/quic0` and so on, and
    /// `name/dp0` where a partition has a thread for the datapath. Linux shows 15 bytes of a name.
    ///
    /// # Errors
    ///
    /// [`SetupError::InvalidConfig`] and [`SetupError::InvalidValue`]: the configuration asks for what cannot be, as it says. [`SetupError::Io`]: the
    /// system does not give a device, a thread or a place for it: the error says what was tried, and what may help.
    pub fn open(name: &str, config: &ExecutionConfig) -> Result<Self, SetupError> {
        let plan = ThreadPlan::new(config)?;
        let clock = Clock::shared();
        let threading = Threading {
            one_thread: true,
            split: config.mode == ExecutionMode::MaxThroughput,
        };
        let (mut registration, contexts) = Self::on_kernel(&plan, config, threading, clock.now())?;
        let (alive, ended) = mpsc::channel();
        if let Some(inner) = Arc::get_mut(&mut registration.inner) {
            inner.ended = Mutex::new(ended);
        }
        let (sender, receiver) = mpsc::channel();
        let start = |layer: &str, partition: usize, context: ExecutionContext, processor: usize| {
            let setup = ThreadSetup {
                processor,
                affinity: plan.affinity,
                high_priority: config.flags.contains(ExecutionFlags::HIGH_PRIORITY),
                drop_capabilities: config.drop_capabilities,
                polling_idle_timeout: config.polling_idle_timeout,
            };
            let sender = sender.clone();
            let alive = alive.clone();
            let run = move || {
                // Dropped last.
                let _alive = alive;
                let ready = setup.apply();
                let is_ready = ready.is_ok();
                // The caller waits for this.
                let _ = sender.send(ready);
                drop(sender);
                if is_ready {
                    setup.run(context, clock);
                }
            };
            let builder = std::thread::Builder::new().name(format!("{name}/{layer}{partition}"));
            let handle = builder.spawn(run).map_err(SetupError::io("starting a thread"))?;
            registration.inner.threads().push(handle);
            Ok::<(), SetupError>(())
        };
        for (partition, (contexts, processors)) in contexts.into_iter().zip(&plan.partitions).enumerate() {
            if let Some(datapath) = contexts.datapath {
                start("dp", partition, datapath, processors.datapath)?;
            }
            start("quic", partition, contexts.quic, processors.quic)?;
        }
        drop((sender, alive));
        receiver.iter().collect::<Result<(), SetupError>>()?;
        Ok(registration)
    }

    /// Opens a registration whose contexts the application polls. There is one for each partition or, in [`ExecutionMode::MaxThroughput`], a pair:
    /// first the datapath's, then the QUIC layer's.
    pub(super) fn without_threads(
        config: &ExecutionConfig,
        plan: &ThreadPlan,
        now: Instant,
    ) -> Result<(Self, Vec<ExecutionContext>), SetupError> {
        let threading = Threading {
            one_thread: false,
            split: config.mode == ExecutionMode::MaxThroughput,
        };
        let (registration, contexts) = Self::on_kernel(plan, config, threading, now)?;
        Ok((registration, Contexts::flatten(contexts)))
    }

    fn on_kernel(
        plan: &ThreadPlan,
        execution: &ExecutionConfig,
        threading: Threading,
        now: Instant,
    ) -> Result<(Self, Vec<Contexts>), SetupError> {
        form::check_variable().map_err(|error| SetupError::InvalidConfig(error.to_string()))?;
        tls::warm_up();
        let config = execution.datapath();
        let devices = open_devices(&config, &plan.devices, threading)
            .map_err(SetupError::io("opening the datapath"))?;
        let receivers = plan.partitions.iter().map(|processors| processors.datapath);
        let return_paths = || Box::new(ReturnPaths::new(config.af_xdp.clone(), plan.devices.clone()));
        let ports = Ports::Kernel {
            return_paths: plan.by_interface.then(return_paths),
            config,
            receive_processors: receivers
                .filter(|_| plan.affinity == Affinity::Processor)
                .collect(),
        };
        Self::build(devices, ports, &Seeds::from_system()?, execution, now)
    }

    /// Opens a registration on a simulated network: see [`Execution::create_simulated`](crate::Execution::create_simulated).
    #[cfg(feature = "sim")]
    pub(super) fn simulated(
        network: &SimNetwork,
        ip: IpAddr,
        partitions: usize,
        segments_max: usize,
        config: &ExecutionConfig,
        now: Instant,
    ) -> Result<(Self, Vec<ExecutionContext>), SetupError> {
        config.check()?;
        let devices = (0..partitions)
            .map(|_| {
                LocalDevice::Sim(SimDevice::new(network, segments_max).lending(config.datapath.lent_bytes))
            })
            .collect();
        let ports = Ports::Sim {
            network: network.clone(),
            ip,
        };
        let seeds = Seeds(std::array::from_fn(|_| {
            let mut seed = [0; 32];
            seed.chunks_mut(8)
                .for_each(|chunk| chunk.copy_from_slice(&network.random().to_le_bytes()));
            seed
        }));
        let (registration, contexts) = Self::build(devices, ports, &seeds, config, now)?;
        Ok((registration, Contexts::flatten(contexts)))
    }

    fn build(
        devices: Vec<LocalDevice>,
        ports: Ports,
        seeds: &Seeds,
        execution: &ExecutionConfig,
        now: Instant,
    ) -> Result<(Self, Vec<Contexts>), SetupError> {
        let split = execution.mode == ExecutionMode::MaxThroughput;
        let source_filter = devices.first().and_then(LocalDevice::source_filter);
        let make_queue = || EventQueue::new().map_err(SetupError::io("making an event queue"));
        let queues = devices
            .iter()
            .map(|_| make_queue())
            .collect::<Result<Vec<_>, _>>()?;
        let inboxes: Arc<[_]> = queues
            .iter()
            .enumerate()
            .map(|(partition, queue)| Arc::new(Inbox::new(partition, Arc::clone(queue.waker()))))
            .collect();
        let partitioning = Partitioning::new(devices.len());
        let config = WorkerConfig {
            partitioning,
            inboxes: Arc::clone(&inboxes),
            reset_key: seeds.0[0],
            token_secret: seeds.0[1],
            seed: seeds.0[2],
            limits: execution.limits,
        };
        let register = SetupError::io("registering a device with its event queue");
        let make_context = |(partition, (device, queue))| {
            if !split {
                let quic = ExecutionContext::new(&config, partition, device, queue, now)?;
                return Ok(Contexts { datapath: None, quic });
            }
            let device_queue = EventQueue::new()?;
            let (datapath, quic) =
                ExecutionContext::split(&config, partition, device, device_queue, queue, now)?;
            Ok(Contexts {
                datapath: Some(datapath),
                quic,
            })
        };
        let contexts = devices.into_iter().zip(queues).enumerate().map(make_context);
        let contexts = contexts.collect::<std::io::Result<Vec<_>>>().map_err(register)?;
        let inner = Inner {
            inboxes,
            reports: contexts.iter().map(Reports::of).collect(),
            source_filter,
            interface: execution.datapath.af_xdp.interface.clone(),
            capturing: Arc::default(),
            partitioning,
            ports,
            client_ports: Mutex::default(),
            port_table: PortTable::default(),
            next_partition: AtomicUsize::new(0),
            settings: Mutex::default(),
            threads: Mutex::default(),
            // There are none yet.
            ended: Mutex::new(mpsc::channel().1),
        };
        let inner = Arc::new(inner);
        Ok((Registration { inner }, contexts))
    }

    /// What the device of each partition can do. That may change while it runs: GSO turns out to fail on a route, or an interface gets queues. It
    /// is renewed as the counters are.
    pub fn capabilities(&self) -> Vec<Capabilities> {
        self.inner.reports.iter().map(Reports::capabilities).collect()
    }

    /// What applies rules for sources; `None` without AF_XDP, and when its devices are gone.
    pub(super) fn source_filter(&self) -> Option<Arc<dyn SourceFilter>> {
        self.inner.source_filter.as_ref()?.upgrade()
    }

    /// The number of partitions.
    pub fn partition_count(&self) -> usize {
        self.inner.inboxes.len()
    }

    /// What configurations of this application begin with: `Settings { idle_timeout, ..registration.settings() }`. They are the defaults, unless
    /// [`Registration::set_settings`] was called. MsQuic: settings of the registration's level.
    pub fn settings(&self) -> Settings {
        let settings = self.inner.settings.lock().unwrap_or_else(PoisonError::into_inner);
        settings.clone()
    }

    /// Sets what [`Registration::settings`] gives. Configurations that were made before stay as they are.
    ///
    /// # Errors
    ///
    /// A setting is out of its range.
    pub fn set_settings(&self, settings: Settings) -> Result<(), SettingsError> {
        settings.validate()?;
        *self.inner.settings.lock().unwrap_or_else(PoisonError::into_inner) = settings;
        Ok(())
    }

    /// Sets the key from which the stateless reset tokens of connection IDs follow (RFC 9000 section 10.3.2), which is a random one else. Servers of
    /// a fleet that share it can end connections of each other that are gone: a client whose packets come to another server, or to one that was
    /// started anew, hears at once that they lead nowhere. Set it before listeners start: connections have tokens of the key that there was when
    /// their connection IDs were issued. It is as secret as a private key: whoever has it can end connections. MsQuic:
    /// `QUIC_PARAM_GLOBAL_STATELESS_RESET_KEY`.
    pub fn set_stateless_reset_key(&self, key: [u8; 32]) {
        self.inner.post_everywhere(|| Operation::SetResetKey(key));
    }

    /// Sets the secrets of address validation tokens (RFC 9000 section 8.1), in Retry packets and for later connections: the first of these seals,
    /// and tokens of all of them are taken. There is one random secret else, and with none given the secrets stay as they are.
    ///
    /// Servers of a fleet that share them take each other's tokens; their clocks may differ by some seconds. To rotate them, give every server the
    /// new secret behind the present one, then every server the new one first, and a day later, when the last token of the old secret has
    /// expired, the new one alone. Each further secret costs a server some microseconds for a token that is not its own. MsQuic:
    /// `QUIC_PARAM_GLOBAL_STATELESS_RETRY_CONFIG`.
    pub fn set_token_secrets(&self, secrets: &[[u8; 32]]) {
        let secrets: Arc<[_]> = secrets.into();
        if !secrets.is_empty() {
            self.inner
                .post_everywhere(|| Operation::SetTokenSecrets(Arc::clone(&secrets)));
        }
    }

    /// Counters of each partition. They are renewed about once a second, when its thread goes to sleep, and when it ends: they are complete once the
    /// registration is closed, and the application's own [`Execution`](crate::Execution)s are dropped. What the kernel counts for AF_XDP is up to
    /// half a second older.
    pub fn stats(&self) -> Vec<PartitionStats> {
        self.inner.reports.iter().map(Reports::get).collect()
    }

    /// Shuts all connections down with this application error code, in the background, within [`SHUTDOWN_TIMEOUT`].
    ///
    /// # Errors
    ///
    /// [`CallError::ErrorCode`]: the code is above [`ERROR_CODE_MAX`](crate::ERROR_CODE_MAX).
    pub fn shutdown(&self, code: u64) -> Result<(), CallError> {
        self.shutdown_within(code, SHUTDOWN_TIMEOUT)
    }

    /// Shuts all connections down with this application error code, in the background. Each tells its peer at once, and
    /// its handlers have their last events at once; then it repeats itself to a peer that has not understood yet, for as
    /// long as RFC 9000 section 10.2 asks for, but no longer than `timeout`: peers do not decide how long this takes.
    ///
    /// # Errors
    ///
    /// [`CallError::ErrorCode`]: the code is above [`ERROR_CODE_MAX`](crate::ERROR_CODE_MAX).
    pub fn shutdown_within(&self, code: u64, timeout: Duration) -> Result<(), CallError> {
        self.inner.shutdown(checked_code(code)?, timeout);
        Ok(())
    }

    /// Shuts all connections down with code 0 within [`SHUTDOWN_TIMEOUT`], and waits until they and the threads have
    /// ended. Must not be called from an event handler, which would wait for itself.
    pub fn close(self) {
        self.close_within(SHUTDOWN_TIMEOUT);
    }

    /// Like [`Registration::close`], within `timeout`: see [`Registration::shutdown_within`].
    pub fn close_within(self, timeout: Duration) {
        self.inner.end(timeout);
        join(std::mem::take(&mut *self.inner.threads()));
    }
}

impl Inner {
    fn threads(&self) -> MutexGuard<'_, Vec<JoinHandle<()>>> {
        self.threads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn post_everywhere(&self, operation: impl Fn() -> Operation) {
        for inbox in self.inboxes.iter() {
            inbox.post(operation());
        }
    }

    fn shutdown(&self, code: u64, timeout: Duration) {
        self.post_everywhere(|| Operation::ShutdownConnections { code, timeout });
    }

    fn end(&self, timeout: Duration) {
        self.shutdown(0, timeout);
        for inbox in self.inboxes.iter() {
            // This comes after everything that was posted before: the worker ends when it has no connections left.
            inbox.post(Operation::Stop);
        }
    }

    /// An error if there is no such partition, or the registration is being closed.
    pub(super) fn check_partition(&self, partition: usize) -> Result<(), SetupError> {
        let count = self.inboxes.len();
        match self.inboxes.get(partition) {
            None => Err(SetupError::InvalidConfig(format!(
                "partition {partition} does not exist: there are {count}"
            ))),
            Some(inbox) if inbox.is_stopping() => Err(SetupError::Closed),
            Some(_) => Ok(()),
        }
    }

    /// The port at this address on all partitions, as a listener or a connection has it already, or a new one, which comes with what is to be
    /// [attached](Inner::attach_everywhere) to the partitions.
    pub(super) fn port_everywhere(
        &self,
        local: SocketAddr,
    ) -> std::io::Result<(Arc<PortLease>, Vec<BoundPort>)> {
        let mut bound = Vec::new();
        let lease = self.port_table.share_or_bind(local, self.is_own_thread(), || {
            bound = self.ports.bind_group(local, self.partitioning)?;
            Ok(self.new_lease(bound[0].local_addr(), None))
        })?;
        Ok((lease, bound))
    }

    /// The port at this address for a connection of this partition, as others have it already, or a new one.
    fn port_of_partition(&self, partition: usize, local: SocketAddr) -> std::io::Result<Arc<PortLease>> {
        let lease = self.port_table.share_or_bind(local, self.is_own_thread(), || {
            let port = self.ports.bind(local)?;
            let lease = self.new_lease(port.local_addr(), Some(partition));
            self.attach(partition, lease.id, port);
            Ok(lease)
        })?;
        if lease.is_on(partition) {
            Ok(lease)
        } else {
            Err(std::io::Error::new(
                std::io::ErrorKind::AddrInUse,
                "a connection of another partition has this local address: name its partition to share it",
            ))
        }
    }

    /// Of a port that is about to be attached, to all partitions or to one only.
    pub(super) fn new_lease(&self, local: SocketAddr, only: Option<usize>) -> Arc<PortLease> {
        PortLease::new(new_port_id(), local, only, &self.inboxes)
    }

    /// Takes over a socket of the application. Returns it by partition.
    pub(super) fn adopt_socket(&self, socket: OwnedFd, partition: usize) -> std::io::Result<Vec<BoundPort>> {
        self.ports.adopt(socket, self.partitioning, partition)
    }

    /// Takes over sockets of the application that share an address.
    pub(super) fn adopt_socket_group(&self, sockets: Vec<OwnedFd>) -> std::io::Result<Vec<BoundPort>> {
        self.ports.adopt_group(sockets, self.partitioning)
    }

    /// An event handler of this registration is running on this thread: it must not wait for what its own worker does.
    fn is_own_thread(&self) -> bool {
        current::partition(&self.inboxes).is_some()
    }

    /// Attaches what was bound for a port to the devices of all partitions.
    pub(super) fn attach_everywhere(&self, port: &PortLease, bound: Vec<BoundPort>) {
        for (partition, bound) in bound.into_iter().enumerate() {
            self.attach(partition, port.id, bound);
        }
    }

    /// Attaches a port to the device of a partition.
    fn attach(&self, partition: usize, id: PortId, port: BoundPort) {
        self.inboxes[partition].post(Operation::Device(DeviceOperation::Attach(id, port)));
    }

    /// The partition for a new connection of the application: that of the calling event handler, or each in turn.
    pub(super) fn next_partition(&self) -> usize {
        if let Some(partition) = current::partition(&self.inboxes) {
            return partition;
        }
        self.next_partition.fetch_add(1, Ordering::Relaxed) % self.inboxes.len()
    }

    /// The port for a new connection of the application. Connections that ask for a local address share the port there. The others of a
    /// partition share one for each address family or, where the RSS configuration is known, one for each peer, chosen so that the replies
    /// arrive on a queue of the partition.
    pub(super) fn client_port(
        &self,
        partition: usize,
        remote: SocketAddr,
        local: Option<SocketAddr>,
    ) -> std::io::Result<Arc<PortLease>> {
        let open = |local| self.port_of_partition(partition, local);
        if let Some(local) = local {
            return open(local);
        }
        // A port is opened without the lock, as that may wait. Of two that are opened for the same at once, one is given up again.
        if let Some(spreading) = self.ports.return_paths() {
            let key = (partition, ClientPort::To(remote));
            let shared = self.client_ports();
            if let Some(port) = shared.get(&key) {
                return Ok(Arc::clone(port));
            }
            let has_room = shared.len() < CLIENT_PORTS_MAX;
            drop(shared);
            if has_room {
                // Ports that are taken are skipped.
                let mut addresses = spreading.addresses(partition, remote).take(BIND_TRIES);
                if let Some(port) = addresses.find_map(|local| open(local).ok()) {
                    return Ok(Arc::clone(self.client_ports().entry(key).or_insert(port)));
                }
            }
        }
        let is_v6 = remote.is_ipv6();
        let key = (partition, ClientPort::Any { is_v6 });
        let found = self.client_ports().get(&key).map(Arc::clone);
        if let Some(port) = found {
            return Ok(port);
        }
        let port = open(SocketAddr::new(self.ports.client_ip(is_v6), 0))?;
        Ok(Arc::clone(self.client_ports().entry(key).or_insert(port)))
    }

    fn client_ports(&self) -> MutexGuard<'_, HashMap<(usize, ClientPort), Arc<PortLease>>> {
        self.client_ports.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A port ID that is not in use.
fn new_port_id() -> PortId {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    PortId(NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Which connections of the application share a port.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum ClientPort {
    /// Those to one peer.
    To(SocketAddr),
    /// Those of one address family.
    Any { is_v6: bool },
}

/// How many ports there are for single peers. Connections to further peers share those of an address family.
const CLIENT_PORTS_MAX: usize = 1024;
/// How many ports are tried before chance decides.
const BIND_TRIES: usize = 32;

impl Drop for Inner {
    fn drop(&mut self) {
        self.end(SHUTDOWN_TIMEOUT);
        let threads = std::mem::take(&mut *self.threads());
        let this_one = std::thread::current().id();
        if threads.iter().any(|thread| thread.thread().id() == this_one) {
            return;
        }
        // In time, unless a handler blocks.
        let ended = self.ended.get_mut().unwrap_or_else(PoisonError::into_inner);
        if ended.recv_timeout(SHUTDOWN_TIMEOUT + THREADS_END) == Err(RecvTimeoutError::Disconnected) {
            join(threads);
        }
    }
}

fn join(threads: Vec<JoinHandle<()>>) {
    for thread in threads {
        if thread.join().is_err() {
            tracing::error!("a worker thread panicked");
        }
    }
}

/// How much longer than their connections threads may take to end.
const THREADS_END: Duration = Duration::from_millis(200);

/// How long a connection that was shut down may still answer its peer, unless another time is given.
pub const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(1);

/// The secrets of a registration, and the seed of its random numbers.
struct Seeds([[u8; 32]; 3]);

impl Seeds {
    fn from_system() -> Result<Self, SetupError> {
        let mut seeds = [[0; 32]; 3];
        for seed in &mut seeds {
            aws_lc_rs::rand::fill(seed)
                .map_err(|_| SetupError::InvalidConfig("the system provides no random numbers".to_owned()))?;
        }
        Ok(Seeds(seeds))
    }
}
