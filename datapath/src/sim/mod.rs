//! A seeded virtual network in virtual time, for tests.
//!
//! All devices of one [`SimNetwork`] share it. Nothing happens by itself: what a device commits is delivered to others when they
//! receive at a later time, as the link between the two addresses says. The same seed, calls and times give the same
//! network.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use std::{fmt, io};

use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};
use ringway_types::{Ecn, Instant, LOCAL_CID_LEN, PortId};

use crate::capture::Taps;
use crate::chunk::{self, Chunk, ChunkSupply, FilledChunk, ReceivedMemory};
use crate::contract::{Burst, BurstVisitor, Capabilities, DetachNotice, DeviceBackend, DeviceStats};
use crate::event::EventQueue;
use crate::lent::{Lendable, LentMemory, PacketBuffer};
use crate::meta::{ReceiveMeta, TransmitMeta};
use crate::partition::Partitioning;
use crate::refusals::{Refusal, Refusals};

/// What happens to datagrams on their way from one address to another. Probabilities are from 0 to 1.
#[derive(Clone, Debug)]
pub struct Link {
    /// How long every datagram takes.
    pub delay: Duration,
    /// How much longer it takes at most, at random: datagrams overtake each other.
    pub jitter: Duration,
    /// Bytes per second; `None`: no limit.
    pub rate: Option<u64>,
    /// Bytes that may wait for the link; what comes when it is full is dropped.
    pub queue_bytes: u64,
    /// Datagrams that vanish.
    pub loss: f64,
    /// Datagrams that arrive twice.
    pub duplication: f64,
    /// Datagrams in which one bit changes.
    pub corruption: f64,
    /// Larger datagrams are dropped (UDP payload bytes).
    pub mtu: usize,
    /// The link is that of the sender's own interface: its device knows `mtu`, and refuses larger datagrams.
    pub refuses_too_large: bool,
    /// Datagrams marked ECT that become CE.
    pub congestion_marking: f64,
    /// ECN marks are taken off.
    pub bleaches_ecn: bool,
    /// Nothing gets through.
    pub blackout: bool,
}

impl Default for Link {
    /// A millisecond, and nothing goes wrong.
    fn default() -> Self {
        Link {
            delay: Duration::from_millis(1),
            jitter: Duration::ZERO,
            rate: None,
            queue_bytes: 1 << 20,
            loss: 0.0,
            duplication: 0.0,
            corruption: 0.0,
            mtu: 1500,
            refuses_too_large: false,
            congestion_marking: 0.0,
            bleaches_ecn: false,
            blackout: false,
        }
    }
}

impl Link {
    /// The sender's device refuses datagrams larger than this.
    fn refused_above(&self) -> usize {
        if self.refuses_too_large {
            self.mtu
        } else {
            usize::MAX
        }
    }
}

/// What the network has done.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SimStats {
    /// Datagrams sent into the network.
    pub sent: u64,
    /// Datagrams that arrived, repetitions included.
    pub delivered: u64,
    /// Datagrams lost at random, or in a blackout.
    pub lost: u64,
    /// Datagrams that were too large.
    pub too_large: u64,
    /// Datagrams that found the link's queue full.
    pub queue_full: u64,
    /// Datagrams for an address where nobody is.
    pub unreachable: u64,
    /// Datagrams repeated.
    pub duplicated: u64,
    /// Datagrams damaged.
    pub corrupted: u64,
}

/// What became of a datagram, for a [`Capture`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// It arrives.
    Delivered,
    /// It does not.
    Dropped,
}

/// A datagram that somebody watches.
#[derive(Clone, Copy, Debug)]
pub struct Captured<'a> {
    /// When it was sent.
    pub time: Instant,
    /// From where, as the receiver sees it.
    pub from: SocketAddr,
    /// To where.
    pub to: SocketAddr,
    /// Its bytes.
    pub bytes: &'a [u8],
    /// What became of it.
    pub verdict: Verdict,
}

/// Sees every datagram.
pub type Capture = Box<dyn FnMut(Captured<'_>) + Send>;

/// The network. Clones are the same network.
#[derive(Clone)]
pub struct SimNetwork(Arc<Mutex<Network>>);

impl fmt::Debug for SimNetwork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SimNetwork")
    }
}

struct Network {
    rng: StdRng,
    default_link: Link,
    links: HashMap<(IpAddr, IpAddr), Link>,
    /// When each link has sent what was given to it.
    busy_until: HashMap<(IpAddr, IpAddr), Instant>,
    endpoints: Vec<Endpoint>,
    next_port: u16,
    /// A local address as the rest of the network sees it.
    rebound: HashMap<SocketAddr, SocketAddr>,
    /// Endpoints of a group are chosen by the connection ID.
    steers: bool,
    /// How many members of a group further than its sender's port says a flow is brought.
    flow_shift: usize,
    /// Runs that a device's socket has room for.
    room: usize,
    arrived: u64,
    stats: SimStats,
    capture: Option<Capture>,
}

struct Endpoint {
    local: SocketAddr,
    /// `None` if it has the address alone.
    member: Option<(usize, Partitioning)>,
    open: bool,
    /// A test takes out what arrives.
    raw: bool,
    /// By time and order of arrival.
    queue: BTreeMap<(Instant, u64), Datagram>,
}

struct Datagram {
    from: SocketAddr,
    to: SocketAddr,
    ecn: Ecn,
    bytes: Vec<u8>,
}

/// A bound endpoint of the network that no device serves yet.
#[derive(Debug)]
pub struct SimPort {
    network: SimNetwork,
    endpoint: usize,
    local: SocketAddr,
}

impl SimPort {
    /// Local address.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }
}

/// A bound endpoint at which a test speaks for itself, without a device.
#[derive(Debug)]
pub struct RawPort(SimPort);

impl RawPort {
    /// Local address.
    pub fn local_addr(&self) -> SocketAddr {
        self.0.local
    }

    /// Takes out the next datagram that has arrived by `now`, and where it came from.
    pub fn receive(&self, now: Instant) -> Option<(SocketAddr, Vec<u8>)> {
        let mut network = self.0.network.lock();
        let queue = &mut network.endpoints[self.0.endpoint].queue;
        let first = queue.first_entry().filter(|first| first.key().0 <= now)?;
        let datagram = first.remove();
        Some((datagram.from, datagram.bytes))
    }
}

impl Drop for RawPort {
    fn drop(&mut self) {
        let endpoint = &mut self.0.network.lock().endpoints[self.0.endpoint];
        endpoint.open = false;
        endpoint.queue.clear();
    }
}

impl SimNetwork {
    /// A network whose chances follow from `seed`.
    pub fn new(seed: u64) -> Self {
        SimNetwork(Arc::new(Mutex::new(Network {
            rng: StdRng::seed_from_u64(seed),
            default_link: Link::default(),
            links: HashMap::new(),
            busy_until: HashMap::new(),
            endpoints: Vec::new(),
            next_port: 49_152,
            rebound: HashMap::new(),
            steers: true,
            flow_shift: 0,
            room: usize::MAX,
            arrived: 0,
            stats: SimStats::default(),
            capture: None,
        })))
    }

    fn lock(&self) -> MutexGuard<'_, Network> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets the link of all addresses that have none of their own.
    pub fn set_default_link(&self, link: Link) {
        self.lock().default_link = link;
    }

    /// Sets the link from one address to another.
    pub fn set_link(&self, from: IpAddr, to: IpAddr, link: Link) {
        self.lock().links.insert((from, to), link);
    }

    /// A NAT forgets its binding: what `local` sends seems to come from `seen` from now on, and what is sent to `seen` reaches
    /// it; what is sent to where it seemed to be before reaches nobody.
    pub fn rebind(&self, local: SocketAddr, seen: SocketAddr) {
        self.lock().rebound.insert(local, seen);
    }

    /// Chooses endpoints of a group by the sender's address alone, as a system does whose kernel cannot steer.
    pub fn disable_steering(&self) {
        self.lock().steers = false;
    }

    /// Brings flows to the next endpoint of a group, as a NIC does whose table is set anew. What a connection ID steers stays.
    pub fn shift_flows(&self) {
        self.lock().flow_shift += 1;
    }

    /// Gives devices room for so many runs at a time, which comes back with the second flush behind the last: as a socket has whose buffer was full
    /// in one turn, and is writable in the next.
    pub fn set_room(&self, runs: usize) {
        self.lock().room = runs;
    }

    /// Calls `capture` with every datagram.
    pub fn set_capture(&self, capture: Capture) {
        self.lock().capture = Some(capture);
    }

    /// When the next datagram arrives anywhere.
    pub fn next_arrival(&self) -> Option<Instant> {
        let network = self.lock();
        let open = network
            .endpoints
            .iter()
            .filter(|endpoint| endpoint.open && !endpoint.raw);
        open.filter_map(|endpoint| endpoint.queue.first_key_value())
            .map(|(key, _)| key.0)
            .min()
    }

    /// What the network has done.
    pub fn stats(&self) -> SimStats {
        self.lock().stats
    }

    /// Sends a datagram that says it comes from `from`, as anybody may.
    pub fn send(&self, now: Instant, from: SocketAddr, to: SocketAddr, bytes: &[u8]) {
        self.lock().send(now, from, to, Ecn::NotEct, bytes);
    }

    /// Binds an address for one partition alone. Port 0: any.
    ///
    /// # Errors
    ///
    /// Kind `AddrInUse`: an endpoint that is open has the address.
    pub fn bind(&self, local: SocketAddr) -> io::Result<SimPort> {
        Ok(self.bind_members(local, None)?.remove(0))
    }

    /// Binds an address for a test that speaks for itself. What arrives there does not count for
    /// [`SimNetwork::next_arrival`].
    ///
    /// # Errors
    ///
    /// As [`SimNetwork::bind`].
    pub fn bind_raw(&self, local: SocketAddr) -> io::Result<RawPort> {
        let port = self.bind(local)?;
        self.lock().endpoints[port.endpoint].raw = true;
        Ok(RawPort(port))
    }

    /// Binds an address for all partitions.
    ///
    /// # Errors
    ///
    /// As [`SimNetwork::bind`].
    pub fn bind_group(&self, local: SocketAddr, partitioning: Partitioning) -> io::Result<Vec<SimPort>> {
        self.bind_members(local, Some(partitioning))
    }

    fn bind_members(
        &self,
        mut local: SocketAddr,
        partitioning: Option<Partitioning>,
    ) -> io::Result<Vec<SimPort>> {
        let mut network = self.lock();
        if local.port() == 0 {
            local.set_port(network.next_port);
            network.next_port += 1;
        }
        if network
            .endpoints
            .iter()
            .any(|endpoint| endpoint.open && endpoint.local == local)
        {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        let count = partitioning.map_or(1, Partitioning::count);
        let ports = (0..count).map(|index| {
            let endpoint = network.endpoints.len();
            let member = partitioning.map(|partitioning| (index, partitioning));
            network.endpoints.push(Endpoint {
                local,
                member,
                open: true,
                raw: false,
                queue: BTreeMap::new(),
            });
            SimPort {
                network: self.clone(),
                endpoint,
                local,
            }
        });
        Ok(ports.collect())
    }
}

impl Network {
    fn chance(&mut self, probability: f64) -> bool {
        probability > 0.0 && self.rng.random_bool(probability.min(1.0))
    }

    fn link_of(&self, from: SocketAddr, to: SocketAddr) -> &Link {
        self.links
            .get(&(from.ip(), to.ip()))
            .unwrap_or(&self.default_link)
    }

    fn send(&mut self, now: Instant, from: SocketAddr, to: SocketAddr, ecn: Ecn, bytes: &[u8]) {
        self.stats.sent += 1;
        let seen = self.rebound.get(&from).copied().unwrap_or(from);
        let arrives = self.forward(now, seen, to, ecn, bytes);
        if let Some(capture) = &mut self.capture {
            let verdict = if arrives {
                Verdict::Delivered
            } else {
                Verdict::Dropped
            };
            capture(Captured {
                time: now,
                from: seen,
                to,
                bytes,
                verdict,
            });
        }
    }

    fn forward(
        &mut self,
        now: Instant,
        from: SocketAddr,
        to: SocketAddr,
        mut ecn: Ecn,
        bytes: &[u8],
    ) -> bool {
        let ips = (from.ip(), to.ip());
        let link = self.link_of(from, to).clone();
        if bytes.len() > link.mtu {
            self.stats.too_large += 1;
            return false;
        }
        if link.blackout || self.chance(link.loss) {
            self.stats.lost += 1;
            return false;
        }
        let mut at = now;
        if let Some(rate) = link.rate {
            let free = self.busy_until.get(&ips).copied().unwrap_or(now).max(now);
            let waiting = free.since(now).as_nanos() * u128::from(rate) / 1_000_000_000;
            if waiting > u128::from(link.queue_bytes) {
                self.stats.queue_full += 1;
                return false;
            }
            at = free + Duration::from_nanos(bytes.len() as u64 * 1_000_000_000 / rate);
            self.busy_until.insert(ips, at);
        }
        if link.bleaches_ecn {
            ecn = Ecn::NotEct;
        } else if ecn != Ecn::NotEct && self.chance(link.congestion_marking) {
            ecn = Ecn::Ce;
        }
        let copies = if self.chance(link.duplication) {
            self.stats.duplicated += 1;
            2
        } else {
            1
        };
        let mut arrives = false;
        for _ in 0..copies {
            let mut bytes = bytes.to_vec();
            if self.chance(link.corruption) {
                self.stats.corrupted += 1;
                let bit = self.rng.random_range(0..bytes.len() * 8);
                bytes[bit / 8] ^= 1 << (bit % 8);
            }
            let jitter = link.jitter.as_nanos() as u64;
            let extra = if jitter > 0 {
                self.rng.random_range(0..=jitter)
            } else {
                0
            };
            let arrival = at + link.delay + Duration::from_nanos(extra);
            arrives |= self.arrive(arrival, Datagram { from, to, ecn, bytes });
        }
        arrives
    }

    fn arrive(&mut self, at: Instant, mut datagram: Datagram) -> bool {
        // Behind a NAT the address that the network knows is not the host's own.
        let host = self
            .rebound
            .iter()
            .find(|(_, seen)| **seen == datagram.to)
            .map(|(local, _)| *local);
        let local = match host {
            Some(local) => local,
            None if self.rebound.contains_key(&datagram.to) => {
                self.stats.unreachable += 1;
                return false;
            }
            None => datagram.to,
        };
        datagram.to = local;
        let members: Vec<usize> = (0..self.endpoints.len())
            .filter(|&index| self.endpoints[index].open && self.endpoints[index].local == local)
            .collect();
        let Some(&first) = members.first() else {
            self.stats.unreachable += 1;
            return false;
        };
        let chosen = match self.endpoints[first].member {
            Some((_, partitioning)) => {
                let by_address = (usize::from(datagram.from.port()) + self.flow_shift) % partitioning.count();
                let by_cid = self
                    .steers
                    .then(|| steer(partitioning, &datagram.bytes))
                    .flatten();
                let partition = by_cid.unwrap_or(by_address);
                members.iter().copied().find(|&index| {
                    self.endpoints[index]
                        .member
                        .is_some_and(|(member, _)| member == partition)
                })
            }
            None => Some(first),
        };
        let Some(chosen) = chosen else {
            self.stats.unreachable += 1;
            return false;
        };
        self.arrived += 1;
        self.stats.delivered += 1;
        self.endpoints[chosen].queue.insert((at, self.arrived), datagram);
        true
    }
}

/// The partition that a datagram's connection ID names, if it is one of ours: as the program that the kernel's sockets run.
fn steer(partitioning: Partitioning, bytes: &[u8]) -> Option<usize> {
    let cid = match bytes.first() {
        Some(first) if first & 0x80 == 0 => bytes.get(1..),
        Some(first) => {
            let handshake = match bytes.get(1..5) {
                Some([0, 0, 0, 1]) => first & 0x30 == 0x20,
                Some([0x6b, 0x33, 0x43, 0xcf]) => first & 0x30 == 0x30,
                _ => false,
            };
            let ours = handshake && bytes.get(5).is_some_and(|&len| usize::from(len) == LOCAL_CID_LEN);
            if ours { bytes.get(6..) } else { None }
        }
        None => None,
    };
    cid.and_then(|cid| partitioning.partition_of(cid))
}

/// A device on a virtual network.
#[derive(Debug)]
pub struct SimDevice {
    network: SimNetwork,
    ports: Vec<(PortId, usize, SocketAddr)>,
    capabilities: Capabilities,
    slot: Box<[u8]>,
    /// Runs sent since there was room for all, and flushes behind the last that there was room for.
    filled: (usize, usize),
    /// Chunks of another thread whose datagrams went out.
    sent: Vec<Chunk>,
    refusals: Refusals,
    /// Received datagrams that the application holds on to.
    lent: LentMemory<PacketBuffer>,
    lent_max: usize,
    /// Its worker is on another thread, where they are lent.
    split: bool,
    stats: DeviceStats,
}

impl SimDevice {
    /// A device that sends and receives at most `segments_max` datagrams in one go.
    pub fn new(network: &SimNetwork, segments_max: usize) -> Self {
        let slot_bytes = 65_507;
        SimDevice {
            network: network.clone(),
            ports: Vec::new(),
            capabilities: Capabilities {
                backend: "sim",
                send_segments_max: segments_max,
                receive_segments_max: segments_max,
                slot_bytes,
                slot_bytes_min: slot_bytes,
                datagram_bytes_max: slot_bytes,
                headroom_bytes: 0,
                burst_max: 64,
                ecn: true,
                packet_info: true,
                checksum_offload: false,
                zero_copy: false,
                queues: Vec::new(),
                busy_poll: false,
                notes: vec!["virtual network in virtual time".to_owned()],
            },
            slot: vec![0; slot_bytes].into(),
            filled: (0, 0),
            sent: Vec::new(),
            refusals: Refusals::new(),
            lent: LentMemory::new(0),
            lent_max: 0,
            split: false,
            stats: DeviceStats::default(),
        }
    }

    /// The device, of whose memory the application may hold on to so many bytes.
    pub fn lending(mut self, bytes: usize) -> Self {
        self.lent = LentMemory::new(bytes);
        self.lent_max = bytes;
        self
    }

    /// Datagrams that have arrived from one address, of one size but the last, as GRO would put them together.
    fn next_run(&self, now: Instant, id: PortId, endpoint: usize) -> Option<(ReceiveMeta, Vec<u8>, usize)> {
        let mut network = self.network.lock();
        let queue = &mut network.endpoints[endpoint].queue;
        let has_arrived = |key: &(Instant, u64)| key.0 <= now;
        let (key, _) = queue.first_key_value().filter(|(key, _)| has_arrived(key))?;
        let key = *key;
        let first = queue.remove(&key)?;
        let meta = ReceiveMeta {
            port: id,
            remote: first.from,
            local: first.to,
            ecn: first.ecn,
            segment_size: first.bytes.len(),
        };
        let mut data = first.bytes;
        let mut run = 1;
        while run < self.capabilities.receive_segments_max
            && data.len() == run * meta.segment_size
            && let Some(next) = queue.first_entry()
            && has_arrived(next.key())
            && next.get().from == meta.remote
            && next.get().ecn == meta.ecn
            && next.get().bytes.len() <= meta.segment_size
            && data.len() + next.get().bytes.len() <= 65_507
        {
            data.extend(next.remove().bytes);
            run += 1;
        }
        Some((meta, data, run))
    }

    fn send(&mut self, now: Instant, meta: &TransmitMeta, datagrams: &[u8]) {
        let Some((_, _, local)) = self.ports.iter().find(|(id, ..)| *id == meta.port) else {
            self.stats.send_errors += 1;
            return;
        };
        let mut from = *local;
        if let Some(ip) = meta.local_ip {
            from.set_ip(ip);
        }
        let mut network = self.network.lock();
        self.stats.send_calls += 1;
        if meta.segment_size > network.link_of(from, meta.remote).refused_above() {
            // As the kernel does: all of them, the last of which might have fitted.
            let refused = self.refusals.add(meta, datagrams.len());
            return self.stats.count_too_big(refused);
        }
        for bytes in datagrams.chunks(meta.segment_size) {
            self.stats.sent_datagrams += 1;
            self.stats.sent_bytes += bytes.len() as u64;
            network.send(now, from, meta.remote, meta.ecn, bytes);
        }
    }
}

impl DeviceBackend for SimDevice {
    type Port = SimPort;

    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    fn add_note(&mut self, note: String) {
        self.capabilities.notes.push(note);
    }

    fn register(&mut self, _queue: &EventQueue) -> io::Result<()> {
        Ok(())
    }

    fn attach(&mut self, id: PortId, port: SimPort) -> io::Result<()> {
        debug_assert!(Arc::ptr_eq(&port.network.0, &self.network.0));
        self.ports.push((id, port.endpoint, port.local));
        Ok(())
    }

    /// The notice is dropped at the end.
    fn detach(&mut self, id: PortId, _notice: DetachNotice) {
        for (_, endpoint, _) in self.ports.extract_if(.., |(port, ..)| *port == id) {
            let mut network = self.network.lock();
            network.endpoints[endpoint].open = false;
            network.endpoints[endpoint].queue.clear();
        }
    }

    fn receive(&mut self, now: Instant, visit: &mut BurstVisitor<'_>) -> io::Result<usize> {
        let mut count = 0;
        self.lent.reclaim(drop);
        self.stats.lent_bytes = self.lent.bytes() as u64;
        for &(id, endpoint, _) in &self.ports {
            for _ in 0..BURSTS_PER_CALL {
                // The network is not locked while the visitor runs: it may send.
                let Some((meta, mut data, run)) = self.next_run(now, id, endpoint) else {
                    break;
                };
                count += run;
                self.stats.receive_calls += 1;
                self.stats.received_datagrams += run as u64;
                self.stats.received_bytes += data.len() as u64;
                // These bursts count as received already.
                if self.split {
                    let memory = ReceivedMemory::Borrowed(&mut data);
                    let _ = visit(Burst { meta, memory });
                    continue;
                }
                let len = data.len();
                let mut buffer = PacketBuffer::new(data.into());
                let memory = ReceivedMemory::Heap {
                    buffer: &mut buffer,
                    range: 0..len,
                    may_lend: self.lent.may_lend(len, len),
                };
                let _ = visit(Burst { meta, memory });
                if buffer.is_lent() {
                    self.lent.add(buffer);
                }
            }
        }
        Ok(count)
    }

    fn slot(&mut self) -> Option<&mut [u8]> {
        let has_room = self.filled.0 < self.network.lock().room;
        has_room.then_some(&mut self.slot)
    }

    fn commit(&mut self, now: Instant, meta: &TransmitMeta, len: usize) {
        self.filled.0 += 1;
        let slot = std::mem::take(&mut self.slot);
        self.send(now, meta, &slot[..len]);
        self.slot = slot;
    }

    fn flush(&mut self) {
        let (sent, flushes) = &mut self.filled;
        *flushes = if *sent < self.network.lock().room {
            0
        } else {
            *flushes + 1
        };
        if *flushes != 1 {
            self.filled = (0, 0);
        }
    }

    fn take_refusal(&mut self) -> Option<Refusal> {
        self.refusals.take()
    }

    fn supply_chunks(&mut self) -> ChunkSupply {
        self.split = true;
        ChunkSupply {
            spares: chunk::receive_chunks(self.capabilities.slot_bytes),
            slots: chunk::heap_chunks(chunk::TRANSMIT_CHUNKS, self.capabilities.slot_bytes),
            regions: Vec::new(),
            lent_bytes: self.lent_max,
        }
    }

    fn commit_chunk(&mut self, now: Instant, meta: &TransmitMeta, mut filled: FilledChunk) {
        self.send(now, meta, filled.data());
        self.sent.push(filled.chunk);
    }

    fn reclaim(&mut self, chunks: &mut Vec<Chunk>) {
        chunks.append(&mut self.sent);
    }

    /// Its time is not that of captures.
    fn set_taps(&mut self, _taps: Taps) {}

    fn stats(&self) -> DeviceStats {
        self.stats
    }
}

/// Bursts that one call gives, as a call to the kernel would.
const BURSTS_PER_CALL: usize = 4;

impl SimNetwork {
    /// A random number that follows from the seed, for choices of the test itself.
    pub fn random(&self) -> u64 {
        self.lock().rng.next_u64()
    }
}
