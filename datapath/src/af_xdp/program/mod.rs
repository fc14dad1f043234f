//! The XDP program of an interface, which all partitions share, and the endpoints that it takes datagrams for.

mod dispatcher;
mod source_rules;
mod sys;

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, TryLockError};

use ipnet::IpNet;
use ringway_bpf::{Verdict, XdpProgram};
use ringway_types::PortId;

use self::dispatcher::Chained;
use self::sys::QueueProcessors;
use super::links::{LinkLayer, Links, Presence};
use super::neighbours::SharedNeighbours;
use super::reserve::Reserve;
use crate::config::AttachMode;
use crate::contract::XdpStats;
use crate::cpu::Cores;
use crate::event::Waker;
use crate::source_rules::SourceAction;
use crate::thread;

/// An XDP program attached to an interface. Dropped, it is detached. If the process is killed, the kernel does it, unless the program is on a chain.
#[derive(Debug)]
pub(crate) struct Program {
    xdp: XdpProgram,
    /// Where it is the only one.
    link: Mutex<Option<OwnedFd>>,
    /// The number of the interface, and, in the upper half, how often it has gone and returned.
    attached: AtomicU64,
    /// It is on no interface: that has gone, or has returned and does not take it.
    is_away: AtomicBool,
    /// Where it is one of several.
    chained: Option<Chained>,
    packet_max: Mutex<PacketMax>,
    queue_processors: QueueProcessors,
    cores: Cores,
    /// It runs in the driver.
    pub(super) native: bool,
    /// What partitions have published of their neighbours.
    pub(super) neighbours: Arc<SharedNeighbours>,
    /// How many ports have each endpoint: several partitions share one. Locked before `ports`.
    endpoints: Mutex<HashMap<SocketAddr, usize>>,
    links: Mutex<Followed>,
    /// Sockets for later queues.
    pub(super) reserve: Reserve,
    /// Those in force.
    source_rules: Mutex<BTreeMap<IpNet, SourceAction>>,
    /// Ports of all partitions: what comes in on a queue may be for a port of another partition than the queue's.
    ports: Mutex<Vec<Port>>,
    /// How many queues the interface has, as the device knows that looked last; and who else is to know.
    queue_count: AtomicUsize,
    wakers: Mutex<Vec<Arc<Waker>>>,
    /// Changes of `ports`, so that devices need not lock to see that there was none.
    version: AtomicU64,
    /// What the program had counted when a device asked last. Any may, so that it matters to no count which of them sleep.
    told: Mutex<[u64; Verdict::ALL.len()]>,
}

/// The link layer, as the program has been told of it.
#[derive(Debug)]
struct Followed {
    links: Links,
    known: LinkLayer,
    /// There was news that the program has not been told yet.
    behind: bool,
    /// The number of an interface that returned and does not take the program, which was logged.
    refused: Option<u32>,
}

/// Bytes of the longest IP packets that go to sockets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct PacketMax {
    /// That all of them take, those of before too.
    sockets: u16,
    /// That the interface carries, or has carried, if it was told.
    mtu: Option<u16>,
}

/// A port of a device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Port {
    pub(crate) id: PortId,
    pub(crate) local: SocketAddr,
}

impl Port {
    /// True if datagrams to this address are for it.
    pub(super) fn takes(&self, to: SocketAddr) -> bool {
        self.local.port() == to.port() && (self.local.ip() == to.ip() || self.local.ip().is_unspecified())
    }
}

impl Program {
    /// Loads the program and attaches it: to the dispatcher of libxdp, if the interface has one, else alone. Never in the place of another one.
    pub(crate) fn attach(
        interface: &str,
        index: u32,
        attach: AttachMode,
        is_dispatched: bool,
    ) -> io::Result<Program> {
        let joined = match is_dispatched {
            true => dispatcher::join(index, attach).map_err(|error| join_error(interface, &error))?,
            false => None,
        };
        let (xdp, link, chained, native) = match joined {
            Some((xdp, chained, native)) => (xdp, None, Some(chained), native),
            None => {
                let (xdp, link, native) = attach_alone(interface, index, attach)?;
                (xdp, Some(link), None, native)
            }
        };
        let queue_processors = QueueProcessors::map(xdp.processors())?;
        let links = Followed {
            links: Links::open(index, interface)?,
            known: LinkLayer::default(),
            behind: false,
            refused: None,
        };
        let program = Program {
            xdp,
            link: Mutex::new(link),
            attached: AtomicU64::new(u64::from(index)),
            is_away: AtomicBool::new(false),
            chained,
            packet_max: Mutex::new(PacketMax {
                sockets: u16::MAX,
                mtu: None,
            }),
            queue_processors,
            cores: Cores::read(),
            native,
            neighbours: Arc::default(),
            endpoints: Mutex::default(),
            links: Mutex::new(links),
            reserve: Reserve::default(),
            source_rules: Mutex::default(),
            ports: Mutex::default(),
            queue_count: AtomicUsize::new(0),
            told: Mutex::new([0; Verdict::ALL.len()]),
            wakers: Mutex::default(),
            version: AtomicU64::new(0),
        };
        program.tell_links().map_err(|error| {
            io::Error::new(
                error.kind(),
                format!("reading the link-layer address of {interface}: {error}"),
            )
        })?;
        Ok(program)
    }

    /// Readable when there is something to follow.
    pub(super) fn news(&self) -> RawFd {
        self.links
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .links
            .news()
    }

    /// An interface that is back has not taken the program, and may do so later.
    pub(super) fn tries_again(&self) -> bool {
        let followed = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        followed.refused.is_some() && self.chained.is_none()
    }

    /// As [`Program::follow_links`]; tries also what was refused.
    pub(super) fn try_again(&self) {
        if self.tries_again() {
            self.links.lock().unwrap_or_else(PoisonError::into_inner).behind = true;
        }
        self.follow_links();
    }

    /// Follows changes of link-layer addresses, VLANs and IP addresses of this host, if there are any.
    pub(super) fn follow_links(&self) {
        let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        links.behind |= links.links.take_news();
        // What comes while it is told is news again.
        if !std::mem::take(&mut links.behind) {
            return;
        }
        let is_attached = self.follow_interface(&mut links);
        if let Ok(is_attached) = is_attached
            && self.is_away.swap(!is_attached, Ordering::Relaxed) == is_attached
        {
            // Who has queues of it counts them.
            self.wake_all();
        }
        drop(links);
        let mut endpoints = self.endpoints.lock().unwrap_or_else(PoisonError::into_inner);
        let followed = is_attached.and_then(|is_attached| match is_attached {
            true => self
                .tell_links()
                .and_then(|()| self.renew_endpoints(&mut endpoints)),
            // The next news may be that it is back, or that it takes the program: that is tried now and then besides.
            false => Ok(()),
        });
        if let Err(error) = followed {
            // The kernel's sockets have what the program does not know of. It is tried again.
            tracing::debug!(%error, "the XDP program does not follow the interface");
            self.links.lock().unwrap_or_else(PoisonError::into_inner).behind = true;
        }
    }

    /// Attaches the program to an interface that was gone and is back; false if it is not on one. This takes no privilege.
    fn follow_interface(&self, followed: &mut Followed) -> io::Result<bool> {
        let index = match followed.links.presence()? {
            Presence::There => return Ok(true),
            Presence::Gone => {
                followed.refused = None;
                return Ok(false);
            }
            Presence::Back(index) => index,
        };
        if let Err(error) = self.attach_again(followed.links.name(), index) {
            let is_known = followed.refused.replace(index) == Some(index);
            match is_known {
                true => tracing::debug!(%error, "AF_XDP: the interface is still not served"),
                false => {
                    tracing::warn!(%error, "AF_XDP: the interface is back, and stays with the kernel's sockets");
                }
            }
            return Ok(false);
        }
        followed.links.adopt(index);
        followed.refused = None;
        self.neighbours.forget();
        // Before they are woken, once.
        self.is_away.store(false, Ordering::Relaxed);
        let returns = (self.attached.load(Ordering::Relaxed) >> 32) + 1;
        self.attached
            .store((returns << 32) | u64::from(index), Ordering::Release);
        self.wake_all();
        Ok(true)
    }

    fn attach_again(&self, interface: &str, index: u32) -> io::Result<()> {
        if self.chained.is_some() {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "our program was one of several there, and joins others at the start only: start anew",
            ));
        }
        let mut link = self.link.lock().unwrap_or_else(PoisonError::into_inner);
        // An interface that was in another network namespace has the program still.
        *link = None;
        // What comes meanwhile is the kernel's, rather than lost at sockets that are bound to nothing.
        self.xdp.remove_sockets()?;
        let attached = sys::attach(self.xdp.program(), index, self.native);
        *link = Some(attached.map_err(|error| attach_error(interface, &error))?);
        Ok(())
    }

    /// A socket is not bound any more: the interface is gone that was [attached](Program::attached) to then, whatever has its number and name now.
    pub(super) fn on_unbound(&self, attached: u64) {
        let mut followed = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        if self.attached() == attached {
            followed.links.lose();
            followed.behind = true;
            self.wake_all();
        }
    }

    /// True while it is on no interface.
    pub(super) fn is_away(&self) -> bool {
        self.is_away.load(Ordering::Relaxed)
    }

    /// The number of the interface, and how often it has gone and returned, in one.
    pub(super) fn attached(&self) -> u64 {
        self.attached.load(Ordering::Acquire)
    }

    /// Tells the program of the link layer, where that is another than it knows.
    fn tell_links(&self) -> io::Result<()> {
        let mut followed = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        let now = followed.links.read()?;
        let known = &followed.known;
        if now == *known {
            return Ok(());
        }
        self.xdp.set_link(now.address, now.is_loopback)?;
        for vlan in now.vlans.iter().filter(|vlan| !known.vlans.contains(vlan)) {
            self.xdp.add_vlan(*vlan)?;
        }
        for vlan in known.vlans.iter().filter(|vlan| !now.vlans.contains(vlan)) {
            self.xdp.remove_vlan(*vlan)?;
        }
        followed.known = now;
        Ok(())
    }

    /// Makes the endpoints those of all ports, with the addresses that this host has now.
    fn renew_endpoints(&self, endpoints: &mut HashMap<SocketAddr, usize>) -> io::Result<()> {
        let mut wanted = HashMap::new();
        let (addresses, untold) = self.addresses()?;
        for port in &*self.ports.lock().unwrap_or_else(PoisonError::into_inner) {
            for endpoint in resolve(port.local, &addresses) {
                if untold.contains(&endpoint.ip()) {
                    continue;
                }
                *wanted.entry(endpoint).or_insert(0) += 1;
            }
        }
        become_wanted(
            endpoints,
            wanted,
            |endpoint| self.xdp.add_endpoint(endpoint),
            |endpoint| self.remove_endpoint(endpoint),
        )
    }

    /// The addresses that this host has now, and those of them whose frames cannot be told from those of others: the kernel's sockets have these.
    fn addresses(&self) -> io::Result<(Vec<IpAddr>, Vec<IpAddr>)> {
        let mut followed = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        // What is new of links is still to be told to the program.
        if followed.links.take_news() {
            followed.behind = true;
            // Whoever follows may be asleep, and is not told of news that was taken.
            self.wake_all();
        }
        let addresses = followed.links.addresses()?;
        let interfaces = &followed.known.untold;
        let untold = addresses
            .iter()
            .filter(|(interface, _)| interfaces.contains(interface));
        let untold = untold.map(|(_, ip)| *ip).collect();
        Ok((addresses.iter().map(|(_, ip)| *ip).collect(), untold))
    }

    fn remove_endpoint(&self, endpoint: SocketAddr) {
        if let Err(error) = self.xdp.remove_endpoint(endpoint) {
            tracing::warn!(%error, %endpoint, "the XDP program keeps an endpoint");
        }
    }

    /// Gives datagrams of a queue to an AF_XDP socket that takes IP packets of up to so many bytes.
    pub(crate) fn set_socket(&self, queue: u32, socket: BorrowedFd<'_>, packet_max: u16) -> io::Result<()> {
        self.limit_packets(|max| max.sockets = max.sockets.min(packet_max))?;
        self.xdp.set_socket(queue, socket.as_fd())
    }

    /// Leaves IP packets to the kernel that are longer than the interface's MTU was at any time: as a rule they are several datagrams, joined or not
    /// cut yet. A peer need not know that it has fallen.
    pub(super) fn set_mtu(&self, mtu: u32) {
        let mtu = u16::try_from(mtu).unwrap_or(u16::MAX);
        let limited = self.limit_packets(|max| max.mtu = Some(max.mtu.map_or(mtu, |known| known.max(mtu))));
        if let Err(error) = limited {
            tracing::debug!(%error, "the XDP program does not follow the MTU");
        }
    }

    fn limit_packets(&self, change: impl FnOnce(&mut PacketMax)) -> io::Result<()> {
        let mut known = self.packet_max.lock().unwrap_or_else(PoisonError::into_inner);
        let mut now = *known;
        change(&mut now);
        if now != *known {
            let mtu = now.mtu.unwrap_or(u16::MAX);
            self.xdp.set_packet_max(now.sockets.min(mtu))?;
            *known = now;
        }
        Ok(())
    }

    /// Wakes the thread of a device when the interface has got queues, when it has returned, and when there is something to follow.
    pub(super) fn add_waker(&self, waker: Arc<Waker>) {
        self.wakers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(waker);
    }

    /// How many queues the interface has, if a device has noticed that they have become more; 0 otherwise.
    pub(super) fn queue_count(&self) -> usize {
        self.queue_count.load(Ordering::Relaxed)
    }

    /// A device has noticed how many queues there are. The others are told, who may be asleep.
    pub(super) fn announce_queue_count(&self, count: usize) {
        if self.queue_count.swap(count, Ordering::Relaxed) != count {
            self.wake_all();
        }
    }

    fn wake_all(&self) {
        let wakers = self.wakers.lock().unwrap_or_else(PoisonError::into_inner);
        wakers.iter().for_each(|waker| waker.wake());
    }

    /// True if what came by a queue was put into our frames by another core than that of the calling thread.
    pub(crate) fn is_served_by_another_core(&self, queue: u32) -> bool {
        match (self.queue_processors.of(queue), thread::current_processor()) {
            (Some(there), Some(here)) => !self.cores.are_siblings(there, here),
            _ => false,
        }
    }

    /// Adds what the program has counted since any device of it asked last, unless another one is just asking.
    pub(super) fn count_news(&self, stats: &mut XdpStats) -> io::Result<()> {
        let mut told = match self.told.try_lock() {
            Ok(told) => told,
            Err(TryLockError::Poisoned(error)) => error.into_inner(),
            Err(TryLockError::WouldBlock) => return Ok(()),
        };
        for ((verdict, count), told) in self.xdp.counters()?.into_iter().zip(&mut *told) {
            let news = count.saturating_sub(std::mem::replace(told, count));
            *match verdict {
                Verdict::Redirected => &mut stats.redirected,
                Verdict::PassNotIp => &mut stats.pass_not_ip,
                Verdict::PassNotUdp => &mut stats.pass_not_udp,
                Verdict::PassFragment => &mut stats.pass_fragment,
                Verdict::PassMalformed => &mut stats.pass_malformed,
                Verdict::PassCutOff => &mut stats.pass_cut_off,
                Verdict::PassNotOurs => &mut stats.pass_not_ours,
                Verdict::PassNoSocket => &mut stats.pass_no_socket,
                Verdict::PassOtherHost => &mut stats.pass_other_host,
                Verdict::PassOtherVlan => &mut stats.pass_other_vlan,
                Verdict::PassOptions => &mut stats.pass_options,
                Verdict::PassSource => &mut stats.pass_source,
                Verdict::PassRule => &mut stats.pass_rule,
                Verdict::PassTooLong => &mut stats.pass_too_long,
                Verdict::DropRule => &mut stats.drop_rule,
            } += news;
        }
        Ok(())
    }

    /// Takes datagrams to a port from now on: to each address of this host, if it is bound to all of them.
    pub(crate) fn add(&self, port: Port) -> io::Result<()> {
        let mut endpoints = self.endpoints.lock().unwrap_or_else(PoisonError::into_inner);
        self.change(|ports| ports.push(port));
        let is_untold = !port.local.ip().is_unspecified()
            && self
                .addresses()
                .is_ok_and(|(_, untold)| untold.contains(&port.local.ip()));
        let added = if port.local.ip().is_unspecified() {
            self.renew_endpoints(&mut endpoints)
        } else if is_untold {
            Ok(())
        } else if let Some(count) = endpoints.get_mut(&port.local) {
            *count += 1;
            Ok(())
        } else {
            let added = self.xdp.add_endpoint(port.local);
            added.map(|()| {
                endpoints.insert(port.local, 1);
            })
        };
        drop(endpoints);
        if added.is_err() {
            self.remove(port);
        }
        added
    }

    /// Takes back [`Program::add`].
    pub(super) fn remove(&self, port: Port) {
        let mut endpoints = self.endpoints.lock().unwrap_or_else(PoisonError::into_inner);
        self.change(|ports| {
            // Other partitions may have it still.
            if let Some(index) = ports.iter().position(|other| *other == port) {
                ports.swap_remove(index);
            }
        });
        if port.local.ip().is_unspecified() {
            if let Err(error) = self.renew_endpoints(&mut endpoints) {
                tracing::warn!(%error, local = %port.local, "the XDP program keeps a port");
            }
        } else if let Some(count) = endpoints.get_mut(&port.local) {
            *count -= 1;
            if *count == 0 {
                endpoints.remove(&port.local);
                self.remove_endpoint(port.local);
            }
        }
    }

    fn change(&self, change: impl FnOnce(&mut Vec<Port>)) {
        change(&mut self.ports.lock().unwrap_or_else(PoisonError::into_inner));
        self.version.fetch_add(1, Ordering::Release);
    }

    /// Renews a copy of all ports, if they have changed since `version`.
    pub(super) fn renew(&self, version: &mut u64, ports: &mut Vec<Port>) {
        let now = self.version.load(Ordering::Acquire);
        if now != *version {
            *version = now;
            ports.clone_from(&self.ports.lock().unwrap_or_else(PoisonError::into_inner));
        }
    }
}

fn attach_alone(interface: &str, index: u32, attach: AttachMode) -> io::Result<(XdpProgram, OwnedFd, bool)> {
    let xdp = XdpProgram::load()?;
    let (link, native) = match attach {
        AttachMode::Native => (sys::attach(xdp.program(), index, true), true),
        AttachMode::Generic => (sys::attach(xdp.program(), index, false), false),
        AttachMode::Auto => match sys::attach(xdp.program(), index, true) {
            // The driver cannot; or a packet of the MTU does not fit a page, the NIC's offloads are in its way, or it has not the queues for it.
            // Generic XDP needs no less of what else there may be.
            Err(error)
                if !matches!(
                    error.raw_os_error(),
                    Some(libc::EBUSY | libc::EEXIST | libc::EPERM)
                ) =>
            {
                tracing::warn!(%error, "AF_XDP: no native XDP on {interface}: generic XDP is taken, which copies");
                (sys::attach(xdp.program(), index, false), false)
            }
            link => (link, true),
        },
    };
    let link = link.map_err(|error| attach_error(interface, &error))?;
    Ok((xdp, link, native))
}

fn attach_error(interface: &str, error: &io::Error) -> io::Error {
    let hint = match error.raw_os_error() {
        Some(libc::EBUSY | libc::EEXIST) => {
            "in use: another XDP program is attached (ip link show; bpftool net), and it is not ours to take it off; beside others, ours \
             runs where they are attached by libxdp's dispatcher (xdp-loader), if the process may look into /sys/fs/bpf/xdp"
        }
        Some(libc::EPERM) => "it needs CAP_NET_ADMIN and CAP_BPF",
        Some(libc::EOPNOTSUPP) => "its driver has no native XDP: use generic",
        Some(libc::ERANGE) => "its MTU is too large for native XDP: use generic",
        Some(libc::ENOSPC) => {
            "it has too few queues for native XDP (veth: fewer to receive by than its peer has to send by): use generic"
        }
        _ => "it failed",
    };
    io::Error::new(
        error.kind(),
        format!("attaching the XDP program to {interface}: {hint}: {error}"),
    )
}

fn join_error(interface: &str, error: &io::Error) -> io::Error {
    let hint = match (error.kind(), error.raw_os_error()) {
        (io::ErrorKind::PermissionDenied, _) => {
            ": it needs CAP_SYS_ADMIN, beside CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN, a kernel with BPF_PROG_TYPE_EXT, and /sys/fs/bpf writable"
        }
        (_, Some(libc::EBUSY | libc::EEXIST)) => {
            ": one of them is without dispatcher, or somebody is changing them (xdp-loader status): start anew"
        }
        (_, Some(libc::EOPNOTSUPP)) => {
            ": this kernel cannot replace functions of programs (BPF_PROG_TYPE_EXT, and BTF): take the others off"
        }
        _ => "",
    };
    io::Error::new(
        error.kind(),
        format!("joining the XDP programs that libxdp's dispatcher runs on {interface}{hint}: {error}"),
    )
}

/// Makes the endpoints those that are wanted. Where one cannot be added, they are those that the program has then, of which it can be rid again.
fn become_wanted(
    endpoints: &mut HashMap<SocketAddr, usize>,
    wanted: HashMap<SocketAddr, usize>,
    mut add: impl FnMut(SocketAddr) -> io::Result<()>,
    mut remove: impl FnMut(SocketAddr),
) -> io::Result<()> {
    endpoints.retain(|endpoint, count| match wanted.get(endpoint) {
        Some(wanted) => {
            *count = *wanted;
            true
        }
        None => {
            remove(*endpoint);
            false
        }
    });
    for (endpoint, count) in wanted {
        if let Entry::Vacant(place) = endpoints.entry(endpoint) {
            add(endpoint)?;
            place.insert(count);
        }
    }
    Ok(())
}

/// The endpoints that a bound address stands for, on a host with these addresses.
fn resolve(local: SocketAddr, addresses: &[IpAddr]) -> Vec<SocketAddr> {
    if !local.ip().is_unspecified() {
        return vec![local];
    }
    // [::] takes IPv4 too.
    let mut endpoints: Vec<SocketAddr> = addresses
        .iter()
        .filter(|ip| local.is_ipv6() || ip.is_ipv4())
        .map(|ip| SocketAddr::new(*ip, local.port()))
        .collect();
    endpoints.sort();
    endpoints.dedup();
    endpoints
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::collections::HashSet;
    use std::process::Command;
    use std::time::{Duration, Instant};

    use nix::sched::{CloneFlags, unshare};

    use super::*;
    use crate::af_xdp::headers;
    use crate::event::EventQueue;
    use crate::headers::HeaderTemplate;

    /// Ethernet, IPv4, UDP, and nothing in it.
    fn frame(to: SocketAddr) -> Vec<u8> {
        let from = "192.0.2.2:1".parse().unwrap();
        let headers = HeaderTemplate::new(&headers::tests::link(), from, to, 0, true).unwrap();
        let mut frame = vec![0; headers.len()];
        assert!(headers.write(&mut frame));
        frame
    }

    #[test]
    fn port_that_finds_no_room_in_the_map_leaves_nothing_in_it() {
        const ROOM: usize = 4;
        let map = RefCell::new(HashSet::new());
        let add = |endpoint: SocketAddr| {
            let has_room = map.borrow().len() < ROOM;
            map.borrow_mut().extend(has_room.then_some(endpoint));
            has_room
                .then_some(())
                .ok_or_else(|| io::Error::from_raw_os_error(libc::E2BIG))
        };
        let remove = |endpoint| assert!(map.borrow_mut().remove(&endpoint), "{endpoint}");
        let at = |port: u16| (1..=3).map(move |host| SocketAddr::from(([192, 0, 2, host], port)));
        let counted = |ports: &[u16]| {
            let mut wanted = HashMap::new();
            for endpoint in ports.iter().copied().flat_map(at) {
                *wanted.entry(endpoint).or_insert(0) += 1;
            }
            wanted
        };
        let mut endpoints = HashMap::new();
        become_wanted(&mut endpoints, counted(&[1]), add, remove).unwrap();
        become_wanted(&mut endpoints, counted(&[1, 1, 2]), add, remove).unwrap_err();
        assert_eq!(map.borrow().len(), ROOM);
        // As the port is removed.
        become_wanted(&mut endpoints, counted(&[1]), add, remove).unwrap();
        assert_eq!(endpoints, counted(&[1]));
        assert_eq!(*map.borrow(), at(1).collect());
        // What goes makes room for what comes.
        become_wanted(&mut endpoints, counted(&[3]), add, remove).unwrap();
        assert_eq!(*map.borrow(), at(3).collect());
    }

    const ADD: &str = "link add rw0 type veth peer name rw1";

    fn ip(words: &str) {
        let status = Command::new("ip").args(words.split(' ')).status();
        assert!(status.unwrap().success(), "{words}");
    }

    fn index() -> u32 {
        nix::net::if_::if_nametoindex("rw0").unwrap()
    }

    /// That of an interface, on a thread of its own in a network namespace of its own.
    #[allow(clippy::print_stdout, reason = "the reason why a test is skipped")]
    fn with_program(test: impl FnOnce(Program) + Send) {
        let test = || {
            if let Err(error) = unshare(CloneFlags::CLONE_NEWNET) {
                return println!("SKIP a network namespace is needed: {error}");
            }
            ip(ADD);
            match Program::attach("rw0", index(), AttachMode::Generic, false) {
                Ok(program) => test(program),
                Err(error) => println!("SKIP {error}"),
            }
        };
        std::thread::scope(|scope| scope.spawn(test).join()).unwrap();
    }

    #[test]
    fn who_follows_the_network_is_woken_for_news_that_another_thread_has_taken() {
        with_program(|program| {
            let queue = EventQueue::new().unwrap();
            program.add_waker(Arc::clone(queue.waker()));
            program.follow_links();
            queue.waker().prepare_sleep();
            ip("link set rw0 address 02:00:00:00:09:07");
            let port = Port {
                id: PortId(1),
                local: "0.0.0.0:4433".parse().unwrap(),
            };
            program.add(port).unwrap();
            let before = Instant::now();
            queue.wait(Some(Duration::from_secs(60))).unwrap();
            assert!(before.elapsed() < Duration::from_secs(30), "it sleeps on");
            program.follow_links();
            let address = program.links.lock().unwrap().known.address;
            assert_eq!(address, [2, 0, 0, 0, 9, 7]);
        });
    }

    /// It takes privileges that the process may not have any more; and the programs that came before ours, which may be filters, may not be there.
    #[test]
    fn program_of_a_chain_is_not_attached_again_to_an_interface_that_returns() {
        with_program(|mut program| {
            let before = index();
            program.link = Mutex::default();
            program.chained = Some(Chained::nowhere(before));
            ip("link del rw0");
            ip(ADD);
            for _ in 0..2 {
                program.try_again();
                let refused = program.links.lock().unwrap().refused;
                assert_eq!((refused, program.tries_again()), (Some(index()), false));
                assert!(program.is_away() && program.attached() == u64::from(before));
            }
            let error = program.attach_again("rw0", index()).unwrap_err();
            assert!(error.to_string().contains("start anew"), "{error}");
        });
    }

    #[test]
    #[allow(clippy::print_stdout, reason = "the reason why a test is skipped")]
    fn the_processor_that_serves_a_queue_is_known_once_a_datagram_came() {
        let xdp = match XdpProgram::load() {
            Ok(xdp) => xdp,
            Err(error) => return println!("SKIP {error}"),
        };
        let queue_processors = QueueProcessors::map(xdp.processors()).unwrap();
        let ours = "192.0.2.1:4433".parse().unwrap();
        xdp.set_link(headers::tests::LINK_ADDRESS, false).unwrap();
        xdp.add_endpoint(ours).unwrap();
        xdp.run(&frame("192.0.2.1:4434".parse().unwrap())).unwrap();
        assert_eq!(queue_processors.of(0), None, "it was not for us");
        for processor in thread::processors().unwrap() {
            let run = || {
                thread::pin(processor).unwrap();
                xdp.run(&frame(ours)).unwrap();
            };
            std::thread::scope(|scope| scope.spawn(run).join()).unwrap();
            assert_eq!(queue_processors.of(0), Some(processor));
        }
        assert_eq!(queue_processors.of(ringway_bpf::QUEUES_MAX - 1), None);
        assert_eq!(queue_processors.of(ringway_bpf::QUEUES_MAX), None);
    }
}
