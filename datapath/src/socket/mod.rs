//! The device that serves UDP sockets of the kernel by system calls, on epoll.
//!
//! Receiving: a few buffers of 64 KiB, the first of them used most, so that it stays in cache; each message is a run of
//! datagrams. Sending: runs are staged behind each other in a buffer of 128 KiB and go out together; a full run goes at
//! once, so that sealed packets are read by the kernel while they are in cache.

mod sys;

use std::io;
use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::os::fd::{AsFd, AsRawFd};

use ringway_types::{Instant, PortId};

use self::sys::MessageBatch;
use crate::capture::{self, Tap, Taps};
use crate::chunk::{self, Chunk, ChunkSupply, FilledChunk, ReceivedMemory};
use crate::config::DatapathConfig;
use crate::contract::{BurstVisitor, Capabilities, DetachNotice, DeviceBackend, DeviceStats};
use crate::event::{EventQueue, Interest, Registry};
use crate::lent::{Lendable, LentMemory, PacketBuffer};
use crate::meta::TransmitMeta;
use crate::refusals::{Refusal, Refusals, is_too_big};
use crate::udp::message::OutgoingMessage;
use crate::udp::{
    DATAGRAMS_PER_TURN, MESSAGE_BYTES, SEND_AT_ONCE_BYTES, SLOT_BYTES_MIN, SocketPort, StagedRun,
    capabilities, deliver, disable_gso, is_about_peer, may_be_gso, probe,
};

/// The device that serves sockets of the kernel.
#[derive(Debug)]
pub struct SocketDevice {
    ports: Vec<Port>,
    registry: Option<Registry>,
    capabilities: Capabilities,
    batch: MessageBatch,
    receive_buffers: Vec<PacketBuffer>,
    /// For receive buffers that are lent.
    spares: Vec<PacketBuffer>,
    lent: LentMemory<PacketBuffer>,
    /// How much may be lent.
    lent_bytes: usize,
    /// Datagrams to be sent, back to back.
    arena: Box<[u8]>,
    used: usize,
    staged: Vec<StagedRun>,
    /// Chunks of another thread whose datagrams went out.
    sent: Vec<PacketBuffer>,
    refusals: Refusals,
    tap: Option<Box<Tap>>,
    /// The kernel takes no more: until a socket is writable again.
    blocked: bool,
    stats: DeviceStats,
}

#[derive(Debug)]
struct Port {
    id: PortId,
    port: SocketPort,
    /// Watched for room to write.
    watches_write: bool,
}

/// What a receive call brought.
struct Call {
    messages: usize,
    datagrams: usize,
    /// What the visitor said.
    flow: ControlFlow<()>,
}

impl SocketDevice {
    /// A device that serves no endpoint yet.
    ///
    /// # Errors
    ///
    /// The process or the system has too many open descriptors, or no UDP.
    pub fn new(config: &DatapathConfig) -> io::Result<Self> {
        let (gso, gro, notes) = probe(config)?;
        Ok(SocketDevice {
            ports: Vec::new(),
            registry: None,
            capabilities: capabilities("socket", sys::BATCH, gso, gro, notes),
            batch: MessageBatch::new(),
            receive_buffers: (0..RECEIVE_BUFFERS)
                .map(|_| chunk::packet_buffer(MESSAGE_BYTES))
                .collect(),
            spares: Vec::new(),
            lent: LentMemory::new(config.lent_bytes),
            lent_bytes: config.lent_bytes,
            arena: chunk::prefaulted(ARENA_BYTES),
            used: 0,
            staged: Vec::with_capacity(sys::BATCH),
            sent: Vec::new(),
            refusals: Refusals::new(),
            tap: None,
            blocked: false,
            stats: DeviceStats::default(),
        })
    }

    /// One turn's worth from all ports.
    fn receive_calls(&mut self, visit: &mut BurstVisitor<'_>) -> io::Result<usize> {
        let mut datagrams = 0;
        self.lent.reclaim(|buffer| self.spares.push(buffer));
        for index in 0..self.ports.len() {
            if !self.ports[index].port.receives() {
                continue;
            }
            let before = datagrams;
            loop {
                let call = self.receive_call(index, visit)?;
                datagrams += call.datagrams;
                let is_full = call.messages == RECEIVE_BUFFERS;
                if !is_full || call.flow.is_break() || datagrams - before >= DATAGRAMS_PER_TURN {
                    break;
                }
            }
        }
        Ok(datagrams)
    }

    /// One call's worth from one port.
    fn receive_call(&mut self, index: usize, visit: &mut BurstVisitor<'_>) -> io::Result<Call> {
        let mut call = Call {
            messages: 0,
            datagrams: 0,
            flow: ControlFlow::Continue(()),
        };
        let port = &self.ports[index];
        call.messages = match self.batch.receive(port.port.as_fd(), &mut self.receive_buffers) {
            Ok(count) => count,
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
                ) =>
            {
                return Ok(call);
            }
            // Errors that ICMP messages about earlier sends have left on the socket: reading takes them off.
            Err(error) if is_about_peer(&error) => {
                self.stats.receive_errors += 1;
                return Ok(call);
            }
            Err(error) => return Err(error),
        };
        self.stats.receive_calls += 1;
        for message in 0..call.messages {
            let incoming = self.batch.incoming(message);
            let buffer = &mut self.receive_buffers[message];
            let memory = ReceivedMemory::Heap {
                may_lend: self.lent.may_lend(Lendable::len(buffer), incoming.len),
                range: 0..incoming.len,
                buffer,
            };
            let (datagrams, flow) = deliver(
                &mut self.stats,
                port.id,
                port.port.local_addr(),
                &incoming,
                memory,
                visit,
            );
            call.datagrams += datagrams;
            if flow.is_break() {
                call.flow = flow;
            }
            let buffer = &mut self.receive_buffers[message];
            if buffer.is_lent() {
                let spare = self
                    .spares
                    .pop()
                    .unwrap_or_else(|| chunk::packet_buffer(MESSAGE_BYTES));
                self.lent.add(std::mem::replace(buffer, spare));
            }
        }
        Ok(call)
    }

    /// Sends what is staged, in order. What the kernel does not take now stays.
    fn send_staged(&mut self) {
        let mut sent = 0;
        self.blocked = false;
        while sent < self.staged.len() {
            let id = self.staged[sent].meta.port;
            let Some(index) = self.ports.iter().position(|port| port.id == id) else {
                sent += 1;
                self.stats.send_errors += 1;
                continue;
            };
            let result = if self.goes_as_run(sent) {
                self.send_runs(index, sent)
            } else {
                self.send_datagrams(index, sent)
            };
            match result {
                Ok(count) => sent += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.blocked = true;
                    self.stats.send_blocked += 1;
                    self.watch_write(index, true);
                    break;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    if self.on_send_error(sent, &error) {
                        sent += 1;
                    }
                }
            }
        }
        let gone = self.staged.drain(..sent);
        self.sent.extend(gone.filter_map(|staged| staged.chunk));
        if self.blocked {
            return;
        }
        self.used = 0;
        for index in 0..self.ports.len() {
            if self.ports[index].watches_write {
                self.watch_write(index, false);
            }
        }
    }

    /// False if its datagrams have to go by themselves.
    fn goes_as_run(&self, staged: usize) -> bool {
        let run = &self.staged[staged];
        !run.is_run() || (self.capabilities.send_segments_max > 1 && run.refused_run.is_none())
    }

    /// Sends staged runs of one port from `first` on, in one call; gives how many were taken.
    fn send_runs(&mut self, index: usize, first: usize) -> io::Result<usize> {
        let port = &self.ports[index];
        let arena = &self.arena;
        let count = self.staged[first..]
            .iter()
            .enumerate()
            .take_while(|(i, staged)| staged.meta.port == port.id && self.goes_as_run(first + i))
            .count();
        let runs = &self.staged[first..first + count];
        let messages = runs.iter().map(|run| OutgoingMessage {
            segment: run.segment(),
            ..message(run, run.bytes(arena), &port.port)
        });
        let count = self.batch.send(port.port.as_fd(), messages)?;
        self.stats.send_calls += 1;
        for staged in &self.staged[first..first + count] {
            self.stats.sent_datagrams += staged.datagrams();
            self.stats.sent_bytes += staged.range.len() as u64;
        }
        Ok(count)
    }

    /// Sends datagrams of a run by themselves, as many as one call takes, and takes them out of it; gives 1 if none is left.
    fn send_datagrams(&mut self, index: usize, staged: usize) -> io::Result<usize> {
        let port = &self.ports[index].port;
        let run = &self.staged[staged];
        let datagrams = run.bytes(&self.arena).chunks(run.meta.segment_size);
        let messages = datagrams.map(|bytes| message(run, bytes, port));
        let count = self.batch.send(port.as_fd(), messages)?;
        let run = &mut self.staged[staged];
        let bytes = run.range.len().min(count * run.meta.segment_size);
        run.range.start += bytes;
        self.stats.send_calls += 1;
        self.stats.sent_datagrams += count as u64;
        self.stats.sent_bytes += bytes as u64;
        if let Some(errno) = run.refused_run.take() {
            disable_gso(&mut self.capabilities, errno);
        }
        Ok(usize::from(run.range.is_empty()))
    }

    /// A run was refused. True if that is for good; else its datagrams are to be tried by themselves.
    fn on_send_error(&mut self, staged: usize, error: &io::Error) -> bool {
        let as_run = self.goes_as_run(staged);
        let run = &mut self.staged[staged];
        let segment = run.segment().filter(|_| as_run);
        if is_too_big(error, segment) {
            // A probe larger than the interface's MTU, or one that has got smaller.
            let refused = self.refusals.add(&run.meta, run.range.len());
            self.stats.count_too_big(refused);
            return true;
        }
        if segment.is_some() && may_be_gso(error).is_some() {
            run.refused_run = may_be_gso(error);
            return false;
        }
        // No route, a firewall: lost like any other packet.
        tracing::debug!(%error, remote = %run.meta.remote, "datagrams not sent");
        self.refusals.add_error(&run.meta, run.range.len(), error);
        self.stats.send_errors += run.datagrams();
        true
    }

    fn watch_write(&mut self, index: usize, watch: bool) {
        let port = &mut self.ports[index];
        let Some(registry) = self.registry.as_ref().filter(|_| port.watches_write != watch) else {
            return;
        };
        port.watches_write = watch;
        let fd = port.port.as_raw_fd();
        let watched = match (port.port.receives(), watch) {
            (true, true) => registry.change(fd, Interest::ReadableOrWritable),
            (true, false) => registry.change(fd, Interest::Readable),
            (false, true) => registry.add(fd, Interest::Writable),
            (false, false) => registry.remove(fd),
        };
        if let Err(error) = watched {
            tracing::error!(%error, "a socket cannot be watched");
        }
    }
}

impl DeviceBackend for SocketDevice {
    type Port = SocketPort;

    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    fn add_note(&mut self, note: String) {
        self.capabilities.notes.push(note);
    }

    fn register(&mut self, queue: &EventQueue) -> io::Result<()> {
        self.registry = Some(queue.registry()?);
        Ok(())
    }

    fn attach(&mut self, id: PortId, port: SocketPort) -> io::Result<()> {
        if let Some(registry) = self.registry.as_ref().filter(|_| port.receives()) {
            registry.add(port.as_raw_fd(), Interest::Readable)?;
        }
        self.ports.push(Port {
            id,
            port,
            watches_write: false,
        });
        Ok(())
    }

    /// The notice is dropped at the end.
    fn detach(&mut self, id: PortId, _notice: DetachNotice) {
        self.send_staged();
        for port in self.ports.extract_if(.., |port| port.id == id) {
            // Closing the socket does it, unless the application has another descriptor of it.
            if let Some(registry) = &self.registry
                && (port.port.receives() || port.watches_write)
                && let Err(error) = registry.remove(port.port.as_raw_fd())
            {
                tracing::error!(%error, "a socket stays in the event queue");
            }
        }
        let given_up = self.staged.extract_if(.., |staged| staged.meta.port == id);
        self.sent.extend(given_up.filter_map(|staged| staged.chunk));
        // What stopped at this port need not stop at others; and who waits for room must be watched.
        self.send_staged();
    }

    fn receive(&mut self, now: Instant, visit: &mut BurstVisitor<'_>) -> io::Result<usize> {
        let mut tap = self.tap.take();
        let received = capture::tapped(&mut tap, now, visit, |visit| self.receive_calls(visit));
        self.tap = tap;
        received
    }

    fn slot(&mut self) -> Option<&mut [u8]> {
        if self.blocked {
            return None;
        }
        if self.arena.len() - self.used < SLOT_BYTES_MIN || self.staged.len() == sys::BATCH {
            self.send_staged();
            if self.blocked {
                return None;
            }
        }
        let end = self.arena.len().min(self.used + MESSAGE_BYTES);
        Some(&mut self.arena[self.used..end])
    }

    fn commit(&mut self, now: Instant, meta: &TransmitMeta, len: usize) {
        if let Some(tap) = capture::running(&mut self.tap) {
            let local = local_of(&self.ports, meta.port);
            capture::sent(tap, now, local, meta, &self.arena[self.used..self.used + len]);
        }
        self.staged.push(StagedRun {
            meta: *meta,
            range: self.used..self.used + len,
            chunk: None,
            refused_run: None,
        });
        self.used += len;
        if len >= SEND_AT_ONCE_BYTES {
            self.send_staged();
        }
    }

    fn flush(&mut self) {
        if !self.staged.is_empty() {
            self.send_staged();
        }
    }

    fn take_refusal(&mut self) -> Option<Refusal> {
        self.refusals.take()
    }

    fn supply_chunks(&mut self) -> ChunkSupply {
        ChunkSupply {
            spares: chunk::receive_chunks(MESSAGE_BYTES),
            slots: chunk::heap_chunks(chunk::TRANSMIT_CHUNKS, MESSAGE_BYTES),
            regions: Vec::new(),
            lent_bytes: self.lent_bytes,
        }
    }

    fn commit_chunk(&mut self, now: Instant, meta: &TransmitMeta, filled: FilledChunk) {
        let Some((chunk, range)) = filled.into_heap() else {
            return;
        };
        if let Some(tap) = capture::running(&mut self.tap) {
            let local = local_of(&self.ports, meta.port);
            capture::sent(tap, now, local, meta, &chunk[range.clone()]);
        }
        self.staged.push(StagedRun {
            meta: *meta,
            range,
            chunk: Some(chunk),
            refused_run: None,
        });
        if self.staged.len() >= sys::BATCH {
            self.send_staged();
        }
    }

    fn reclaim(&mut self, chunks: &mut Vec<Chunk>) {
        chunks.extend(self.sent.drain(..).map(Chunk::Heap));
    }

    fn set_taps(&mut self, taps: Taps) {
        self.tap = taps.datagrams;
    }

    fn stats(&self) -> DeviceStats {
        DeviceStats {
            lent_bytes: self.lent.bytes() as u64,
            ..self.stats
        }
    }
}

fn local_of(ports: &[Port], id: PortId) -> Option<SocketAddr> {
    let port = ports.iter().find(|port| port.id == id)?;
    Some(port.port.local_addr())
}

/// Bytes of a run as one datagram.
fn message<'a>(run: &StagedRun, bytes: &'a [u8], port: &SocketPort) -> OutgoingMessage<'a> {
    OutgoingMessage {
        to: run.meta.remote,
        from: run.meta.local_ip,
        traffic_class: run.meta.traffic_class(),
        bytes,
        segment: None,
        v6_socket: port.is_v6(),
    }
}

/// Messages received with one call.
const RECEIVE_BUFFERS: usize = 4;
/// Bytes for datagrams to be sent. Small enough to stay in the second-level cache.
const ARENA_BYTES: usize = 2 * MESSAGE_BYTES;
