//! AF_XDP: frames straight from the queues of a NIC, past the kernel's network stack.
//!
//! The XDP program gives datagrams to our ports to the socket of the queue that they came in on; each partition serves its queues. An
//! ordinary socket holds each port: it serves what comes another way (loopback, other interfaces, fragments), and it sends to peers
//! that no frame has come from yet, so that routes and neighbours are the kernel's business. A frame that comes in shows the way back:
//! its Ethernet header, with the addresses swapped, is that of the replies, for as long as frames keep coming. What is sent after a probe
//! timeout goes by the socket again: a gateway may have failed, or the route have changed.

mod chunk_size;
mod drain;
mod explain;
mod fill_target;
mod headers;
mod jumbo;
mod late_queues;
mod links;
mod neighbours;
mod open_queue;
pub(crate) mod program;
mod reserve;
mod returning;
mod socket;
mod xsk;

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::{Arc, Weak};
use std::time::Duration;

use ringway_types::{Instant, PortId};

use self::explain::of_queue;
use self::late_queues::LateQueues;
use self::neighbours::{Neighbour, Neighbours};
use self::open_queue::{IfBusy, Request};
use self::program::{Port, Program};
use self::socket::{Kernel, XskSocket};
use self::xsk::{TRANSMIT_BATCH, Xsk};
use crate::capture::{self, Direction, Tap, Taps};
use crate::chunk::{Chunk, ChunkSupply, FilledChunk, ReceivedMemory};
use crate::config::{AttachMode, DatapathConfig, Placement, Threading};
use crate::contract::{
    Burst, BurstVisitor, Capabilities, DetachNotice, DeviceBackend, DeviceStats, XdpStats,
};
use crate::event::{EventQueue, Interest, Registry};
use crate::headers::{HEADERS_MAX, HeaderTemplate};
use crate::meta::{ReceiveMeta, TransmitMeta};
use crate::refusals::{Refusal, Refusals};
use crate::socket::SocketDevice;
use crate::source_rules::SourceFilter;
use crate::thread;
use crate::topology::{self, Interface, LinkKind};
use crate::udp::SocketPort;

/// Where the payload of the UDP datagram in a frame is, if there is one. For fuzzing.
#[doc(hidden)]
pub fn payload_of(frame: &[u8]) -> Option<std::ops::Range<usize>> {
    headers::parse(frame, 0).map(|datagram| datagram.start..datagram.end)
}

/// The device that serves queues of a NIC.
#[derive(Debug)]
pub struct AfXdpDevice {
    program: Arc<Program>,
    queues: Vec<Xsk<XskSocket>>,
    /// Holds the ports, and has what does not come and go by the queues.
    sockets: SocketDevice,
    watch: Option<Watch>,
    ports: Vec<Port>,
    /// Those of all partitions, as of a version.
    all_ports: Vec<Port>,
    all_ports_version: u64,
    neighbours: Neighbours,
    udp_checksum: bool,
    /// The interface, and the longest IP packets that it carries, as of `counted`.
    interface: String,
    interface_index: u32,
    /// The program comes behind the GRO of the interfaces below, which takes no datagrams apart again for it.
    is_above_gro: bool,
    /// As [`Program::attached`] and [`Program::is_away`] said last.
    attached: u64,
    was_away: bool,
    /// The interface has returned, and not all of the queues are served again.
    to_reopen: bool,
    mtu: usize,
    /// Frames that it had refused then.
    refused_sends: u64,
    refusals: Refusals,
    /// Of frames; that of its sockets is theirs.
    tap: Option<Box<Tap>>,
    capabilities: Capabilities,
    /// Bytes of headers that the slot given last left room for: as many as the last datagram had.
    headroom: usize,
    /// The slot given last is a frame, not of the sockets.
    slot_is_frame: bool,
    /// Turns until the sockets are looked at.
    sockets_due: u32,
    /// It tells what the program counts.
    is_first: bool,
    late: LateQueues,
    /// Queues whose chunks may pass to a worker on another thread: the first of them, which were there at the start.
    supplied: Option<usize>,
    /// When the kernel was asked for its counts last.
    counted: Instant,
    route: Option<Route>,
    /// What this device was the first to see of the program's counts.
    program_stats: XdpStats,
    stats: DeviceStats,
}

impl AfXdpDevice {
    /// A device for each partition, on one interface. An error says what the system lacks.
    ///
    /// # Errors
    ///
    /// What the system or the interface lacks, in words: privileges (CAP_NET_ADMIN, CAP_NET_RAW, CAP_BPF), an interface that AF_XDP can serve, its
    /// queues, memory that may be locked, a kernel that has it all; or that another program or process has them. Nothing is left attached.
    pub fn open(
        config: &DatapathConfig,
        partitions: &[Placement],
        threading: Threading,
    ) -> io::Result<Vec<AfXdpDevice>> {
        let interface = config.af_xdp.read_interface()?;
        let name = interface.name.clone();
        let moves_nothing = match interface.link {
            LinkKind::Ethernet => None,
            LinkKind::Loopback if takes_what_it_sends(&name) => None,
            LinkKind::Loopback => Some(
                "is the loopback interface, on which the kernel drops what AF_XDP sends (net.ipv4.conf.*.accept_local is 0)",
            ),
            LinkKind::Other => Some("is no Ethernet interface (as tunnels of IP packets are not)"),
        };
        if let Some(reason) = moves_nothing {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                format!("{name} {reason}: AF_XDP moves nothing on it, sockets do"),
            ));
        }
        if interface.mtu > MTU_MAX {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                format!(
                    "{name} has an MTU of {}: AF_XDP takes up to {MTU_MAX} here (ip link set {name} mtu {MTU_MAX})",
                    interface.mtu
                ),
            ));
        }
        let attach = match (interface.surroundings.is_bond(), config.af_xdp.attach) {
            (false, attach) => attach,
            (true, AttachMode::Auto | AttachMode::Generic) => AttachMode::Generic,
            (true, AttachMode::Native) => {
                return Err(io::Error::new(
                    io::ErrorKind::Unsupported,
                    format!(
                        "{name} is a bond: its frames come by queues of its members, which an AF_XDP socket of {name} does not get; take \
                         generic, or serve one of its members"
                    ),
                ));
            }
        };
        let is_dispatched = interface.surroundings.is_dispatched;
        let program = Arc::new(Program::attach(&name, interface.index, attach, is_dispatched)?);
        program.set_mtu(interface.mtu);
        program.set_source_rules(&config.af_xdp.source_rules)?;
        // Drivers may have other queues with a program than without.
        let before = interface;
        let interface = config.af_xdp.read_interface()?;
        let (count, without) = (interface.queues.len(), before.queues.len());
        let added = (count != without)
            .then(|| format!("{name} has {count} receive queues with an XDP program, {without} without"));
        let late = |index| LateQueues {
            config: config.clone(),
            partitions: partitions.to_vec(),
            index,
            threading,
            known: interface.queues.len(),
            announced: 0,
        };
        let shares = Placement::shares(partitions, &interface);
        let open = |(index, partition): (usize, &Placement)| {
            thread::with_preferred_node(partition.node, || {
                let mut device = AfXdpDevice::new(&interface, &program, late(index))?;
                for queue in &shares[index] {
                    device.open_queue(config, &interface, *queue, threading, IfBusy::Wait)?;
                }
                device.is_first = index == 0;
                if let Some(note) = added.clone() {
                    device.add_note(note);
                }
                Ok(device)
            })
        };
        let devices = partitions.iter().enumerate().map(open);
        let mut devices = devices.collect::<io::Result<Vec<AfXdpDevice>>>()?;
        // What all need to be opened goes before.
        for (device, partition) in devices.iter_mut().zip(partitions) {
            let keep_sockets = || device.queues.iter_mut().for_each(Xsk::keep_sockets);
            thread::with_preferred_node(partition.node, keep_sockets);
        }
        let later = interface.queues_max.unwrap_or(0) as usize;
        program.reserve.fill(match thread::may_lock_memory() {
            true => later.saturating_sub(count),
            false => later.max(count),
        });
        Ok(devices)
    }

    fn open_queue(
        &mut self,
        config: &DatapathConfig,
        interface: &Interface,
        queue: u32,
        threading: Threading,
        if_busy: IfBusy,
    ) -> io::Result<()> {
        let request = Request {
            interface,
            queue,
            place: self.queues.len(),
            native: self.program.native,
            is_of_program: interface.is_of_program(queue),
            copy: config.af_xdp.copy,
            split: threading.split,
            lent_bytes: config.lent_bytes,
            if_busy,
            reserve: &self.program.reserve,
        };
        let (mut xsk, queue_capabilities) = request.open().map_err(|error| of_queue(queue, &error))?;
        self.receive_by(&mut xsk)?;
        if let Some(reason) = &queue_capabilities.copy_reason {
            self.note_copies(queue, reason);
        }
        self.capabilities.queues.push(queue_capabilities);
        self.capabilities.zero_copy = self.capabilities.queues.iter().all(|queue| queue.zero_copy);
        if self.queues.is_empty()
            && let Some(note) = xsk.huge_pages_note()
        {
            self.add_note(note);
        }
        self.queues.push(xsk);
        Ok(())
    }

    fn note_copies(&mut self, queue: u32, reason: &str) {
        let note = format!("not zero-copy: {reason}");
        // The reason is most often the same for each queue.
        match self.capabilities.notes.contains(&note) {
            true => tracing::info!(queue, "AF_XDP: {note}"),
            false => self.add_note(note),
        }
    }

    /// Lets datagrams of its queue come by a socket that is bound.
    fn receive_by(&mut self, xsk: &mut Xsk<XskSocket>) -> io::Result<()> {
        xsk.receive_by(&self.program)?;
        let busy_poll = self.late.config.busy_poll;
        if !busy_poll.is_zero() {
            let micros = i32::try_from(busy_poll.as_micros()).unwrap_or(i32::MAX);
            match xsk.prefer_busy_poll(micros) {
                Ok(()) => self.capabilities.busy_poll = true,
                Err(error) => {
                    let note = format!(
                        "busy polling: the kernel refuses ({error}); it needs Linux 5.11 and CAP_NET_ADMIN"
                    );
                    if !self.capabilities.notes.contains(&note) {
                        self.add_note(note);
                    }
                }
            }
        }
        Ok(())
    }

    fn new(interface: &Interface, program: &Arc<Program>, late: LateQueues) -> io::Result<Self> {
        let config = &late.config;
        let sockets = SocketDevice::new(config)?;
        let is_above_gro = !program.native && interface.surroundings.is_above_others();
        // IPv4 headers are shorter; what fits below those of IPv6 fits both.
        let datagram_bytes_max = interface.mtu as usize - IPV4_UDP_BYTES;
        Ok(AfXdpDevice {
            program: Arc::clone(program),
            queues: Vec::new(),
            capabilities: Capabilities {
                backend: "af_xdp",
                send_segments_max: 1,
                receive_segments_max: match is_above_gro {
                    true => 1,
                    false => sockets.capabilities().receive_segments_max,
                },
                slot_bytes: datagram_bytes_max,
                slot_bytes_min: datagram_bytes_max,
                datagram_bytes_max,
                headroom_bytes: HEADERS_MAX,
                burst_max: TRANSMIT_BATCH,
                ecn: true,
                packet_info: true,
                checksum_offload: false,
                zero_copy: false,
                queues: Vec::new(),
                busy_poll: false,
                notes: vec![format!(
                    "{}, {} receive queue(s), XDP {}",
                    interface.name,
                    interface.queues.len(),
                    if program.native { "native" } else { "generic" }
                )],
            },
            sockets,
            watch: None,
            ports: Vec::new(),
            all_ports: Vec::new(),
            all_ports_version: 0,
            neighbours: Neighbours::new(Arc::clone(&program.neighbours)),
            udp_checksum: config.af_xdp.udp_checksum,
            interface: interface.name.clone(),
            interface_index: interface.index,
            is_above_gro,
            attached: program.attached(),
            was_away: false,
            to_reopen: false,
            mtu: interface.mtu as usize,
            refused_sends: 0,
            refusals: Refusals::new(),
            tap: None,
            headroom: HEADERS_MAX,
            slot_is_frame: false,
            sockets_due: 0,
            is_first: false,
            supplied: None,
            late,
            counted: Instant::from_nanos(0),
            route: None,
            program_stats: XdpStats::default(),
            stats: DeviceStats::default(),
        })
    }

    /// Lets the event queue tell of frames, or not.
    fn watch(&mut self, on: bool) -> io::Result<()> {
        let Some(watch) = self.watch.as_mut().filter(|watch| watch.on != on) else {
            return Ok(());
        };
        let mut result = Ok(());
        for socket in self.queues.iter().filter_map(Xsk::kernel) {
            let descriptor = socket.descriptor().as_raw_fd();
            let done = match on {
                true => watch.registry.add(descriptor, Interest::Readable),
                false => watch.registry.remove(descriptor),
            };
            // It is as it should be already, where it was not done for all the last time.
            let done = done.or_else(|error| match (on, error.raw_os_error()) {
                (true, Some(libc::EEXIST)) | (false, Some(libc::ENOENT | libc::EBADF)) => Ok(()),
                _ => Err(error),
            });
            result = result.and(done);
        }
        // What is left after an error is added or taken out the next time: by then there may be other sockets.
        watch.on = on && result.is_ok();
        result
    }

    /// A thread that has not slept for a while looks for itself: whoever delivers frames need not tell the event queue of each, which takes
    /// it a good part of its time.
    fn count_turn(&mut self) -> io::Result<()> {
        let Some(watch) = &mut self.watch else {
            return Ok(());
        };
        watch.turns = watch.turns.saturating_add(1);
        if watch.on && watch.turns >= WATCHED_TURNS {
            self.watch(false)?;
        }
        Ok(())
    }

    /// Renews what takes system calls to know.
    fn count_xdp(&mut self, now: Instant) {
        self.queues.iter_mut().for_each(|xsk| xsk.look(now));
        let refused = self.queues.first().map_or(0, Xsk::refused_sends);
        let every = match refused == self.refused_sends {
            true => COUNT_EVERY,
            // As a link does whose MTU has fallen.
            false => COUNT_REFUSED_EVERY,
        };
        if now.since(self.counted) < every && !self.has_news() {
            return;
        }
        self.counted = now;
        self.refused_sends = refused;
        if let Some(mtu) = topology::mtu(&self.interface).filter(|mtu| *mtu as usize != self.mtu) {
            tracing::info!(
                before = self.mtu,
                now = mtu,
                "the MTU of {} has changed",
                self.interface
            );
            self.mtu = mtu as usize;
            self.program.set_mtu(mtu);
        }
        if self.is_first {
            self.program.try_again();
        }
        self.follow_interface();
        self.open_late_queues();
        let counted = self.program.count_news(&mut self.program_stats);
        let mut stats = self.program_stats;
        let counted = counted.and_then(|()| self.queues.iter().try_for_each(|xsk| xsk.count(&mut stats)));
        match counted {
            Ok(()) => self.stats.xdp = stats,
            // Its interface is gone.
            Err(error) => tracing::debug!(%error, "AF_XDP does not count"),
        }
        self.was_away = self.program.is_away();
        let is_unserved = |xsk: &&Xsk<XskSocket>| self.was_away || !xsk.is_served();
        self.stats.xdp.unserved_queues = self.queues.iter().filter(is_unserved).count() as u64;
    }

    /// Another device knows more of the interface.
    fn has_news(&self) -> bool {
        self.program.queue_count() != self.late.announced
            || self.program.attached() != self.attached
            || self.program.is_away() != self.was_away
    }

    /// Serves its share of the queues that the interface has got since it was opened.
    fn open_late_queues(&mut self) {
        let Some((count, is_news)) = self
            .late
            .look(&self.interface, self.interface_index, &self.program)
        else {
            return;
        };
        let late = self.late.clone();
        let threading = Threading {
            split: false,
            ..late.threading
        };
        let open = || -> io::Result<()> {
            let is_served = |queue| self.capabilities.queues.iter().any(|open| open.queue == queue);
            let (interface, share) = late.share(is_served)?;
            for queue in share {
                if self.queues.is_empty() && late.threading.split {
                    return Err(io::Error::other(
                        "this partition had no queue before, and none of its threads' memory is for one",
                    ));
                }
                // What is watched are the sockets that there are then.
                self.watch(false)?;
                self.open_queue(&late.config, &interface, queue, threading, IfBusy::Refuse)?;
                tracing::info!(queue, "AF_XDP: a queue of {} is new, and served", interface.name);
            }
            Ok(())
        };
        match thread::with_preferred_node(late.partitions[late.index].node, open) {
            Ok(()) => self.late.known = count,
            // The driver may be about to start its queues: it is tried again.
            Err(error) if is_news => {
                let interface = &self.interface;
                tracing::warn!(%error, "AF_XDP: {interface} has {count} queues now, which are not all served");
                let note = format!("{interface} has got queues that are left to the kernel: {error}");
                self.capabilities.notes.push(note);
            }
            Err(error) => tracing::debug!(%error, "AF_XDP: a queue is still not served"),
        }
    }

    /// The queue that frames are sent by. `None` without one, or if it does not send: all goes by the sockets then.
    fn sender(&mut self) -> Option<&mut Xsk<XskSocket>> {
        self.queues.first_mut().filter(|xsk| xsk.can_send())
    }

    fn find_route(&mut self, now: Instant, meta: &TransmitMeta) -> Option<Route> {
        if !headers::is_on(meta.remote, self.interface_index) {
            return None;
        }
        let port = self.ports.iter().find(|port| port.id == meta.port)?;
        let neighbour = self.neighbours.find(now, meta.remote.ip())?;
        let from = meta.local_ip.unwrap_or(port.local.ip());
        if !from.is_unspecified() && from != neighbour.local {
            return None;
        }
        let source = SocketAddr::new(neighbour.local, port.local.port());
        let headers = HeaderTemplate::new(
            &neighbour.link,
            source,
            meta.remote,
            meta.traffic_class(),
            self.udp_checksum,
        )?;
        Some(Route {
            meta: *meta,
            headers,
            found: now,
            changes: self.neighbours.changes(),
        })
    }

    /// Sends the frame that is being built by the route found last.
    fn send_frame(&mut self, now: Instant, len: usize) {
        let room = self.headroom;
        let queue = self.queues[0].queue();
        let (Some(route), Some(frame)) = (&self.route, self.queues[0].frame()) else {
            return;
        };
        let headers = route.headers.len();
        if headers != room {
            // The first datagram of another kind: the next ones have the right room.
            frame.copy_within(room..room + len, headers);
        }
        if !route.headers.write(&mut frame[..headers + len]) {
            self.stats.send_errors += 1;
            return;
        }
        if let Some(tap) = capture::running(&mut self.tap) {
            tap.frame(now, Direction::Sent, queue, &frame[..headers + len]);
        }
        self.headroom = headers;
        self.queues[0].commit(headers + len);
        self.stats.sent_datagrams += 1;
        self.stats.sent_bytes += len as u64;
    }

    /// To a peer that no frame has come from, or of which nothing is heard: the kernel finds the way. Copies; a connection does it for its first
    /// packets, and for probes.
    fn send_by_socket(&mut self, now: Instant, meta: &TransmitMeta, len: usize) {
        let room = self.headroom;
        let (Some(frame), Some(slot)) = (self.queues[0].frame(), self.sockets.slot()) else {
            self.stats.send_errors += 1;
            return;
        };
        slot[..len].copy_from_slice(&frame[room..room + len]);
        self.sockets.commit(now, meta, len);
    }
}

impl DeviceBackend for AfXdpDevice {
    type Port = SocketPort;

    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    fn add_note(&mut self, note: String) {
        tracing::info!("AF_XDP: {note}");
        self.capabilities.notes.push(note);
    }

    fn register(&mut self, queue: &EventQueue) -> io::Result<()> {
        let registry = queue.registry()?;
        if self.is_first {
            // Others sleep on, and have it from the program.
            registry.add(self.program.news(), Interest::Readable)?;
        }
        self.watch = Some(Watch {
            registry,
            on: false,
            turns: 0,
            timer: None,
        });
        self.watch(true)?;
        self.program.add_waker(Arc::clone(queue.waker()));
        self.sockets.register(queue)
    }

    fn attach(&mut self, id: PortId, port: SocketPort) -> io::Result<()> {
        let local = port.local_addr();
        if port.is_adopted() {
            // It may be of another interface or network namespace, or have filters: the kernel has all that is to it and from it.
            return self.sockets.attach(id, port);
        }
        if self.is_above_gro {
            port.refuse_runs();
        }
        self.sockets.attach(id, port)?;
        let port = Port { id, local };
        match self.program.add(port) {
            Ok(()) => self.ports.push(port),
            Err(error) => {
                tracing::warn!(%error, %local, "AF_XDP: a port is left to the kernel");
                let note = format!("ports are left to the kernel: {error}");
                if !self.capabilities.notes.contains(&note) {
                    self.capabilities.notes.push(note);
                }
            }
        }
        Ok(())
    }

    fn detach(&mut self, id: PortId, notice: DetachNotice) {
        self.flush();
        self.route = None;
        if let Some(index) = self.ports.iter().position(|port| port.id == id) {
            let port = self.ports.remove(index);
            self.program.remove(port);
        }
        self.sockets.detach(id, notice);
    }

    fn receive(&mut self, now: Instant, visit: &mut BurstVisitor<'_>) -> io::Result<usize> {
        let mut datagrams = 0;
        self.count_turn()?;
        self.count_xdp(now);
        self.program
            .renew(&mut self.all_ports_version, &mut self.all_ports);
        let AfXdpDevice {
            program,
            queues,
            ports,
            all_ports,
            neighbours,
            stats,
            supplied,
            interface_index,
            tap,
            ..
        } = self;
        let mut tap = capture::running(tap);
        for (index, xsk) in queues.iter_mut().enumerate() {
            // A worker on another thread has no chunks of it to give for these: what came by it is copied there.
            let is_late = supplied.is_some_and(|supplied| index >= supplied);
            let queue = xsk.queue();
            let count = xsk.receive(program, |mut memory: ReceivedMemory<'_>| {
                if let Some(tap) = &mut tap {
                    tap.frame(now, Direction::Received, queue, memory.bytes());
                }
                let Some(datagram) = headers::parse(memory.bytes(), *interface_index) else {
                    stats.receive_errors += 1;
                    return;
                };
                let local = datagram.destination;
                // Of another partition: the worker hands it over.
                let mut candidates = ports.iter().chain(&*all_ports);
                let Some(port) = candidates.find(|port| port.takes(local)) else {
                    // Given up just now.
                    stats.receive_errors += 1;
                    return;
                };
                let neighbour = Neighbour {
                    link: datagram.reply_link,
                    local: local.ip(),
                    seen: now,
                    distrusted_until: Instant::from_nanos(0),
                };
                neighbours.learn(datagram.source.ip(), neighbour);
                let segment_size = datagram.end - datagram.start;
                if segment_size == 0 {
                    return;
                }
                datagrams += 1;
                stats.received_datagrams += 1;
                stats.received_bytes += segment_size as u64;
                let meta = ReceiveMeta {
                    port: port.id,
                    remote: datagram.source,
                    local,
                    ecn: datagram.ecn,
                    segment_size,
                };
                let memory = match memory.part(datagram.start..datagram.end) {
                    memory if is_late => ReceivedMemory::Borrowed(memory.visit().0),
                    memory => memory,
                };
                // What is taken off the ring has been received.
                let _ = visit(Burst { meta, memory });
            });
            stats.receive_calls += u64::from(count > 0);
        }
        // The sockets cost a system call each, and hardly anything comes there: looked at now and then, unless something does come. By
        // turns and not by time: a system call may be where the kernel does its part for milliseconds, and the next one would be due.
        self.sockets_due = self
            .sockets_due
            .saturating_sub(if datagrams == 0 { 1 } else { BUSY_TURN });
        if self.sockets_due == 0 {
            let count = self.sockets.receive(now, visit)?;
            self.sockets_due = if count > 0 { 0 } else { SOCKETS_EVERY };
            datagrams += count;
        }
        Ok(datagrams)
    }

    fn slot(&mut self) -> Option<&mut [u8]> {
        let slot_bytes = self.capabilities.slot_bytes;
        self.slot_is_frame = self.sender().is_some();
        if !self.slot_is_frame {
            return self.sockets.slot().map(|slot| &mut slot[..slot_bytes]);
        }
        let bytes = self.headroom..self.headroom + slot_bytes;
        match self.queues[0].frame() {
            Some(frame) => frame.get_mut(bytes),
            None => {
                self.stats.send_blocked += 1;
                None
            }
        }
    }

    fn commit(&mut self, now: Instant, meta: &TransmitMeta, len: usize) {
        if !self.slot_is_frame {
            return self.sockets.commit(now, meta, len);
        }
        if meta.probe_timeouts > 0 {
            if meta.probe_timeouts >= DISTRUSTED_AFTER {
                self.neighbours.distrust(now, meta.remote.ip());
            }
            return self.send_by_socket(now, meta, len);
        }
        if !self
            .route
            .as_ref()
            .is_some_and(|route| route.serves(meta, now, &self.neighbours))
        {
            self.route = self.find_route(now, meta);
        }
        let headers = if meta.remote.is_ipv4() {
            IPV4_UDP_BYTES
        } else {
            IPV6_UDP_BYTES
        };
        if self.route.is_none() {
            self.send_by_socket(now, meta, len);
        } else if headers + len > self.mtu {
            // Nobody else would say so: the kernel looks at no frame of ours.
            self.stats.count_too_big(self.refusals.add(meta, len));
        } else {
            self.send_frame(now, len);
        }
    }

    fn flush(&mut self) {
        self.queues.iter_mut().for_each(Xsk::flush);
        self.sockets.flush();
    }

    fn take_refusal(&mut self) -> Option<Refusal> {
        self.refusals.take().or_else(|| self.sockets.take_refusal())
    }

    fn supply_chunks(&mut self) -> ChunkSupply {
        let mut supply = self.sockets.supply_chunks();
        if self.queues.is_empty() {
            return supply;
        }
        // What is to be sent goes by the queues: by the sockets what these do not take, from memory of their own.
        supply.slots.clear();
        self.supplied = Some(self.queues.len());
        for (index, xsk) in self.queues.iter_mut().enumerate() {
            let queue = xsk.supply_chunks();
            supply.spares.extend(queue.spares);
            if index == 0 {
                supply.slots = queue.slots;
            }
            supply.regions.extend(queue.regions);
        }
        supply
    }

    fn commit_chunk(&mut self, now: Instant, meta: &TransmitMeta, filled: FilledChunk) {
        let Some(xsk) = self.queues.first_mut() else {
            return self.sockets.commit_chunk(now, meta, filled);
        };
        let FilledChunk { chunk, range } = filled;
        xsk.set_building(chunk);
        self.headroom = range.start;
        self.slot_is_frame = true;
        if xsk.can_send() {
            self.commit(now, meta, range.len());
        } else {
            self.send_by_socket(now, meta, range.len());
        }
        self.queues[0].release_building();
    }

    fn reclaim(&mut self, chunks: &mut Vec<Chunk>) {
        match self.queues.first_mut() {
            Some(xsk) => xsk.reclaim(chunks),
            None => self.sockets.reclaim(chunks),
        }
    }

    fn headroom(&self) -> usize {
        match self.queues.is_empty() {
            true => 0,
            false => self.headroom,
        }
    }

    fn set_taps(&mut self, taps: Taps) {
        self.tap = taps.frames;
        self.sockets.set_taps(Taps {
            frames: None,
            datagrams: taps.datagrams,
        });
    }

    fn source_filter(&self) -> Option<Weak<dyn SourceFilter>> {
        let program: Weak<Program> = Arc::downgrade(&self.program);
        Some(program)
    }

    fn prepare_sleep(&mut self) -> bool {
        if let Err(error) = self.watch(true) {
            tracing::error!(%error, "AF_XDP sockets cannot be watched: the thread does not sleep");
            return false;
        }
        if self.is_first {
            // It would not let the thread sleep.
            self.program.follow_links();
        }
        if self.has_news() {
            return false;
        }
        let tries_again = self.to_reopen || self.is_first && self.program.tries_again();
        if tries_again && let Some(watch) = &mut self.watch {
            match watch.registry.add_timer(COUNT_EVERY) {
                Ok(timer) => watch.timer = Some(timer),
                Err(error) => tracing::debug!(%error, "AF_XDP: a thread that sleeps does not try again"),
            }
        }
        !self.queues.iter_mut().any(Xsk::waits_for_room)
    }

    /// What woke the thread may be a socket.
    fn end_sleep(&mut self) {
        self.sockets_due = 0;
        if let Some(watch) = &mut self.watch {
            watch.turns = 0;
            watch.timer = None;
        }
    }

    /// Of its sockets too.
    fn stats(&self) -> DeviceStats {
        let sockets = self.sockets.stats();
        DeviceStats {
            received_datagrams: self.stats.received_datagrams + sockets.received_datagrams,
            received_bytes: self.stats.received_bytes + sockets.received_bytes,
            receive_calls: self.stats.receive_calls + sockets.receive_calls,
            sent_datagrams: self.stats.sent_datagrams + sockets.sent_datagrams,
            sent_bytes: self.stats.sent_bytes + sockets.sent_bytes,
            send_calls: self.queues.iter().map(Xsk::kicks).sum::<u64>() + sockets.send_calls,
            bypass_received_datagrams: self.stats.received_datagrams,
            bypass_sent_datagrams: self.stats.sent_datagrams,
            xdp: self.stats.xdp,
            send_blocked: self.stats.send_blocked + sockets.send_blocked,
            worker_behind_drops: 0,
            send_errors: self.stats.send_errors + sockets.send_errors,
            send_too_big: self.stats.send_too_big + sockets.send_too_big,
            receive_errors: self.stats.receive_errors + sockets.receive_errors,
            lent_bytes: self.queues.iter().map(Xsk::lent_bytes).sum::<usize>() as u64 + sockets.lent_bytes,
        }
    }
}

/// True if the kernel takes in what comes from one of its own addresses on an interface: on loopback, for tests.
fn takes_what_it_sends(interface: &str) -> bool {
    ["all", interface].into_iter().any(|interface| {
        let setting = format!("/proc/sys/net/ipv4/conf/{interface}/accept_local");
        std::fs::read_to_string(setting).is_ok_and(|value| value.trim() == "1")
    })
}

/// Where the event queue is told what to watch.
#[derive(Debug)]
struct Watch {
    registry: Registry,
    on: bool,
    /// Since the thread slept last.
    turns: u32,
    /// Ends a sleep, as there is something to try again.
    timer: Option<OwnedFd>,
}

/// The headers of datagrams like the last one: the next one is most often its like.
#[derive(Debug)]
struct Route {
    meta: TransmitMeta,
    headers: HeaderTemplate,
    found: Instant,
    /// Of the neighbours, when it was found.
    changes: u64,
}

impl Route {
    /// True if it is that of this datagram too.
    fn serves(&self, meta: &TransmitMeta, now: Instant, neighbours: &Neighbours) -> bool {
        let (ours, its) = (&self.meta, meta);
        ours.remote == its.remote
            && ours.port == its.port
            && ours.local_ip == its.local_ip
            && ours.traffic_class() == its.traffic_class()
            && self.changes == neighbours.changes()
            && now.since(self.found) < ROUTE_LIFE
    }
}

/// Probe timeouts one after the other after which it is not mere loss: the way is left to the kernel for longer than the probes.
const DISTRUSTED_AFTER: u8 = 2;
/// After this time it is looked up again, and found to be too old or not.
const ROUTE_LIFE: Duration = Duration::from_millis(100);
/// The longest IP packets that NICs carry.
const MTU_MAX: u32 = 9216;
const IPV4_UDP_BYTES: usize = 28;
const IPV6_UDP_BYTES: usize = 48;
/// How often it is counted what takes system calls.
const COUNT_EVERY: Duration = Duration::from_millis(500);
/// The same where frames are refused.
const COUNT_REFUSED_EVERY: Duration = Duration::from_millis(50);
/// Turns without sleep from which on the event queue is not told of frames.
const WATCHED_TURNS: u32 = 256;
/// Turns between two looks at sockets that have nothing...
const SOCKETS_EVERY: u32 = 64;
/// ...where a turn in which frames came, which takes longer, counts as so many.
const BUSY_TURN: u32 = 4;
