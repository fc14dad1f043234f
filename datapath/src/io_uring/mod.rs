//! Kernel UDP sockets through io_uring: many sockets cost one system call for each turn.
//!
//! Receiving: each socket has one request that goes on for ever and fills buffers that all sockets share, a message in each, a run of
//! datagrams in a message (GRO). Sending: runs are staged behind each other, as in the [`socket`](crate::socket) device, and submitted
//! together. The kernel's work on both is deferred to our thread and done within the one system call of a turn; while there is
//! none, polling costs a look at a flag and no system call.

mod buffers;
mod sends;
mod sys;

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::os::fd::AsRawFd;

use ringway_types::{Instant, PortId};
use slab::Slab;

use self::buffers::{BUFFER_BYTES, ReceivedBuffer};
use self::sends::{BATCH, File};
use self::sys::{Completion, Ring};
use crate::capture::{self, Tap, Taps};
use crate::chunk::{self, Chunk, ChunkSupply, FilledChunk};
use crate::config::DatapathConfig;
use crate::contract::{BurstVisitor, Capabilities, DetachNotice, DeviceBackend, DeviceStats};
use crate::event::EventQueue;
use crate::lent::PacketBuffer;
use crate::meta::TransmitMeta;
use crate::refusals::{Refusal, Refusals, is_too_big};
use crate::udp::{
    DATAGRAMS_PER_TURN, MESSAGE_BYTES, SEGMENTS_MAX, SEND_AT_ONCE_BYTES, SocketPort, StagedRun, capabilities,
    deliver, disable_gso, is_about_peer, may_be_gso, probe,
};

/// The device that serves sockets of the kernel through a ring.
#[derive(Debug)]
pub struct IoUringDevice {
    ring: Ring,
    ports: Slab<Port>,
    capabilities: Capabilities,
    /// Runs that were not submitted yet.
    staged: VecDeque<StagedRun>,
    /// Messages that wait to be visited: at most as many as there are buffers.
    received: VecDeque<Received>,
    /// Chunks of another thread whose datagrams went out.
    sent: Vec<PacketBuffer>,
    refusals: Refusals,
    tap: Option<Box<Tap>>,
    /// An error of a socket that is no peer's doing, to be told.
    failure: Option<io::Error>,
    /// Ports without a receive request.
    unarmed: usize,
    /// Ports that are given up, for the end of whose receive request there was no room yet.
    uncancelled: usize,
    /// How much may be lent.
    lent_bytes: usize,
    stats: DeviceStats,
}

#[derive(Debug)]
struct Port {
    id: PortId,
    port: SocketPort,
    file: File,
    /// Its receive request goes on.
    armed: bool,
    /// It was given up, and waits for the end of its receive request. Below the socket, which is closed first.
    closing: Option<Closing>,
}

#[derive(Debug)]
struct Closing {
    /// The end of the request has been asked for.
    cancelled: bool,
    _notice: DetachNotice,
}

/// A message in a buffer.
#[derive(Debug)]
struct Received {
    key: usize,
    port: PortId,
    buffer: ReceivedBuffer,
    len: usize,
}

impl IoUringDevice {
    /// A device that serves no endpoint yet. With `one_thread` only one thread ever uses it, the first that receives or sends with it, which
    /// is cheaper. An error says what the system lacks.
    ///
    /// # Errors
    ///
    /// Kind `InvalidInput`: the number of receive buffers is no power of two, or too large. Others: what the system lacks: io_uring itself (which a
    /// filter of system calls or `kernel.io_uring_disabled` may forbid), memory that may be locked, or descriptors.
    pub fn new(config: &DatapathConfig, one_thread: bool) -> io::Result<Self> {
        let buffers = config.receive_buffers;
        if !buffers.is_power_of_two() || buffers > RECEIVE_BUFFERS_MAX {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("{buffers} receive buffers: a power of two up to {RECEIVE_BUFFERS_MAX} is needed"),
            ));
        }
        let (gso, gro, mut notes) = probe(config)?;
        let mut ring = Ring::new(buffers, config.lent_bytes, ARENA_BYTES, one_thread).map_err(explain)?;
        if one_thread && !sys::signals_deferred_work() {
            notes.push(
                "io_uring: this kernel tells only once of work that waits for its thread (seen with 6.12.117), so work does not wait"
                    .to_owned(),
            );
        }
        let mut busy_poll = false;
        if !config.busy_poll.is_zero() {
            let micros = u32::try_from(config.busy_poll.as_micros()).unwrap_or(u32::MAX);
            match ring.busy_poll(micros) {
                Ok(()) => busy_poll = true,
                Err(error) => notes.push(format!(
                    "busy polling: the kernel refuses ({error}); it needs Linux 6.9"
                )),
            }
        }
        Ok(IoUringDevice {
            ring,
            ports: Slab::new(),
            capabilities: Capabilities {
                busy_poll,
                ..capabilities("io_uring", BATCH, gso, gro, notes)
            },
            // A run that the kernel refuses comes back as its datagrams.
            staged: VecDeque::with_capacity(BATCH + SEGMENTS_MAX),
            received: VecDeque::with_capacity(usize::from(buffers)),
            sent: Vec::new(),
            refusals: Refusals::new(),
            tap: None,
            failure: None,
            unarmed: 0,
            uncancelled: 0,
            lent_bytes: config.lent_bytes,
            stats: DeviceStats::default(),
        })
    }

    fn port(&self, id: PortId) -> Option<usize> {
        self.ports
            .iter()
            .find(|(_, port)| port.id == id && port.closing.is_none())
            .map(|(key, _)| key)
    }

    fn local_of(&self, id: PortId) -> Option<SocketAddr> {
        Some(self.ports[self.port(id)?].port.local_addr())
    }

    fn remove(&mut self, key: usize) {
        let port = self.ports.remove(key);
        self.ring.remove_file(port.file);
    }

    /// Starts a receive request on each socket that has none: new ones, and those that found no buffer. Not before all buffers are back
    /// with the kernel: with more sockets than buffers they would find none again, and again.
    fn arm(&mut self) {
        if self.unarmed == 0 || !self.received.is_empty() {
            return;
        }
        for (key, port) in &mut self.ports {
            let is_due = !port.armed && port.closing.is_none() && port.port.receives();
            if is_due && self.ring.push_receive(port.file, key as u32) {
                port.armed = true;
                self.unarmed -= 1;
            }
        }
    }

    /// Gives up a port whose request goes on. The last completion of that takes it out: nearly always now.
    fn close(&mut self, key: usize, notice: DetachNotice) {
        self.ports[key].closing = Some(Closing {
            cancelled: false,
            _notice: notice,
        });
        self.uncancelled += 1;
        self.cancel_requests();
        self.enter();
        self.reap();
    }

    /// Ends the requests of ports that are given up, as many as the submission queue has room for: the others in the next turn.
    fn cancel_requests(&mut self) {
        if self.uncancelled == 0 {
            return;
        }
        for (key, port) in &mut self.ports {
            let Some(closing) = port.closing.as_mut().filter(|closing| !closing.cancelled) else {
                continue;
            };
            if !self.ring.push_cancel(key as u32) {
                return;
            }
            closing.cancelled = true;
            self.uncancelled -= 1;
        }
    }

    /// One turn's worth of messages.
    fn receive_messages(&mut self, visit: &mut BurstVisitor<'_>) -> io::Result<usize> {
        self.ring.enable()?;
        self.stats.lent_bytes = self.ring.reclaim_buffers() as u64;
        self.reap();
        // Also those whose end has just been seen: this may be the last turn before a sleep.
        self.arm();
        self.cancel_requests();
        if self.received.is_empty() && self.ring.has_work() {
            self.ring.enter()?;
            self.reap();
        }
        if let Some(error) = self.failure.take() {
            return Err(error);
        }
        if self.received.is_empty() {
            return Ok(0);
        }
        self.stats.receive_calls += 1;
        let mut datagrams = 0;
        let mut messages = 0;
        let mut has_enough = false;
        while (messages < RECEIVES_PER_TURN || (datagrams < DATAGRAMS_PER_TURN && !has_enough))
            && let Some(received) = self.received.pop_front()
        {
            messages += 1;
            let (taken, flow) = self.on_received(&received, visit);
            datagrams += taken;
            has_enough |= flow.is_break();
            self.ring.give_back(received.buffer);
        }
        self.ring.publish_buffers();
        self.arm();
        Ok(datagrams)
    }

    fn on_received(&mut self, received: &Received, visit: &mut BurstVisitor<'_>) -> (usize, ControlFlow<()>) {
        // The port may have been given up meanwhile, and another be in its place.
        let port = self
            .ports
            .get(received.key)
            .filter(|port| port.id == received.port);
        let Some(local) = port.map(|port| port.port.local_addr()) else {
            return (0, ControlFlow::Continue(()));
        };
        let Some((incoming, memory)) = self.ring.message(&received.buffer, received.len) else {
            self.stats.receive_errors += 1;
            return (0, ControlFlow::Continue(()));
        };
        deliver(&mut self.stats, received.port, local, &incoming, memory, visit)
    }

    fn has_slot(&mut self) -> bool {
        let sends = self.ring.sends();
        sends.free().len() >= MESSAGE_BYTES && self.staged.len() + sends.in_flight() < BATCH
    }

    fn enter(&mut self) {
        if let Err(error) = self.ring.enable().and_then(|()| self.ring.enter()) {
            tracing::error!(%error, "the ring cannot be used");
        }
    }

    fn submit(&mut self, staged: StagedRun) {
        let Some(key) = self.port(staged.meta.port) else {
            self.stats.send_errors += 1;
            self.sent.extend(staged.chunk);
            return;
        };
        let port = &self.ports[key];
        match self.ring.push_send(port.file, port.port.is_v6(), staged) {
            Ok(()) => self.stats.send_calls += 1,
            Err(staged) => self.staged.push_front(staged),
        }
    }

    /// Takes completions: ends of sends at once, receives for later.
    fn reap(&mut self) {
        while let Some(completion) = self.ring.completion() {
            match completion {
                Completion::Received {
                    key,
                    result,
                    buffer,
                    more,
                } => self.on_receive_completion(key as usize, result, buffer, more),
                Completion::Sent { run, result } => self.on_sent(run, &result),
            }
        }
    }

    fn on_receive_completion(
        &mut self,
        key: usize,
        result: io::Result<u32>,
        buffer: Option<ReceivedBuffer>,
        more: bool,
    ) {
        let Some(port) = self.ports.get_mut(key) else {
            // Of a port that was given up: nobody waits for it, and the buffer goes on.
            buffer.into_iter().for_each(|buffer| self.ring.give_back(buffer));
            return;
        };
        port.armed = more;
        let (id, closing) = (port.id, port.closing.as_ref().map(|closing| closing.cancelled));
        match (result, buffer) {
            (Ok(len), Some(buffer)) => self.received.push_back(Received {
                key,
                port: id,
                buffer,
                len: len as usize,
            }),
            (Ok(_), None) => self.stats.receive_errors += 1,
            // No buffer was left; the thread that had started the request has ended; the port is given up.
            (Err(error), _) if matches!(error.raw_os_error(), Some(libc::ENOBUFS | libc::ECANCELED)) => {}
            (Err(error), _) if is_about_peer(&error) => self.stats.receive_errors += 1,
            (Err(error), _) => self.failure = Some(error),
        }
        if !more {
            match closing {
                None => self.unarmed += 1,
                Some(cancelled) => {
                    self.uncancelled -= usize::from(!cancelled);
                    self.remove(key);
                }
            }
        }
    }

    fn on_sent(&mut self, staged: StagedRun, result: &io::Result<u32>) {
        match result {
            Ok(_) => {
                self.stats.sent_datagrams += staged.datagrams();
                self.stats.sent_bytes += staged.range.len() as u64;
                if let Some(errno) = staged.refused_run {
                    disable_gso(&mut self.capabilities, errno);
                }
            }
            Err(error) if is_too_big(error, staged.segment()) => {
                // A probe larger than the interface's MTU, or one that has got smaller.
                let refused = self.refusals.add(&staged.meta, staged.range.len());
                self.stats.count_too_big(refused);
            }
            Err(error) if staged.is_run() && may_be_gso(error).is_some() => {
                self.stage_one_by_one(&staged, may_be_gso(error));
            }
            Err(error) => {
                // No route, a firewall: lost like any other packet.
                tracing::debug!(%error, remote = %staged.meta.remote, "datagrams not sent");
                self.refusals.add_error(&staged.meta, staged.range.len(), error);
                self.stats.send_errors += staged.datagrams();
            }
        }
        self.sent.extend(staged.chunk);
    }

    /// Stages the datagrams of a run that cannot go as one.
    fn stage_one_by_one(&mut self, run: &StagedRun, refused_run: Option<i32>) {
        let mut start = run.range.start;
        if let Some(chunk) = &run.chunk {
            // The chunk goes back to where it came from: they go from the arena. This is seldom.
            let bytes = &chunk[run.range.clone()];
            let Some(free) = self.ring.sends().free().get_mut(..bytes.len()) else {
                self.stats.send_errors += run.datagrams();
                return;
            };
            free.copy_from_slice(bytes);
            start = self.ring.sends().used();
            self.ring.sends().take(bytes.len());
        }
        let end = start + run.range.len();
        for start in (start..end).step_by(run.meta.segment_size) {
            let range = start..end.min(start + run.meta.segment_size);
            let meta = TransmitMeta {
                segment_size: range.len(),
                ..run.meta
            };
            self.staged.push_back(StagedRun {
                meta,
                range,
                chunk: None,
                refused_run,
            });
        }
    }
}

impl DeviceBackend for IoUringDevice {
    type Port = SocketPort;

    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    fn add_note(&mut self, note: String) {
        self.capabilities.notes.push(note);
    }

    fn register(&mut self, queue: &EventQueue) -> io::Result<()> {
        self.ring.signal(queue.waker().descriptor())
    }

    fn attach(&mut self, id: PortId, port: SocketPort) -> io::Result<()> {
        // The ring waits for a socket that blocks; one that does not it would ask once.
        port.set_nonblocking(false)?;
        let file = self.ring.add_file(port.as_raw_fd());
        self.unarmed += usize::from(port.receives());
        self.ports.insert(Port {
            id,
            port,
            file,
            armed: false,
            closing: None,
        });
        Ok(())
    }

    fn detach(&mut self, id: PortId, notice: DetachNotice) {
        self.flush();
        for _ in 0..self.staged.len() {
            match self.staged.pop_front() {
                Some(staged) if staged.meta.port == id => self.sent.extend(staged.chunk),
                staged => self.staged.extend(staged),
            }
        }
        let Some(key) = self.port(id) else { return };
        if !self.ports[key].armed {
            self.unarmed -= usize::from(self.ports[key].port.receives());
            return self.remove(key);
        }
        self.close(key, notice);
    }

    fn receive(&mut self, now: Instant, visit: &mut BurstVisitor<'_>) -> io::Result<usize> {
        let mut tap = self.tap.take();
        let received = capture::tapped(&mut tap, now, visit, |visit| self.receive_messages(visit));
        self.tap = tap;
        received
    }

    fn slot(&mut self) -> Option<&mut [u8]> {
        if !self.has_slot() {
            self.flush();
        }
        if !self.has_slot() {
            return None;
        }
        Some(&mut self.ring.sends().free()[..MESSAGE_BYTES])
    }

    fn commit(&mut self, now: Instant, meta: &TransmitMeta, len: usize) {
        if self.tap.is_some() {
            let local = self.local_of(meta.port);
            let bytes = &self.ring.sends().free()[..len];
            if let Some(tap) = capture::running(&mut self.tap) {
                capture::sent(tap, now, local, meta, bytes);
            }
        }
        let start = self.ring.sends().used();
        self.staged.push_back(StagedRun {
            meta: *meta,
            range: start..start + len,
            chunk: None,
            refused_run: None,
        });
        self.ring.sends().take(len);
        if len >= SEND_AT_ONCE_BYTES {
            self.flush();
        }
    }

    /// Submits what is staged, with requests of sockets that wait to receive.
    fn flush(&mut self) {
        while self.ring.sends().in_flight() < BATCH
            && self.ring.has_room()
            && let Some(staged) = self.staged.pop_front()
        {
            self.submit(staged);
        }
        if self.ring.has_work() {
            self.enter();
        }
        if self.ring.sends().in_flight() > 0 {
            self.reap();
            if self.ring.sends().in_flight() > 0 {
                self.stats.send_blocked += 1;
            }
        }
        if self.staged.is_empty() {
            self.ring.sends().reset_arena();
        }
    }

    fn take_refusal(&mut self) -> Option<Refusal> {
        self.refusals.take()
    }

    fn supply_chunks(&mut self) -> ChunkSupply {
        ChunkSupply {
            spares: chunk::receive_chunks(BUFFER_BYTES),
            slots: chunk::heap_chunks(chunk::TRANSMIT_CHUNKS, MESSAGE_BYTES),
            regions: Vec::new(),
            lent_bytes: self.lent_bytes,
        }
    }

    fn commit_chunk(&mut self, now: Instant, meta: &TransmitMeta, filled: FilledChunk) {
        let Some((chunk, range)) = filled.into_heap() else {
            return;
        };
        if self.tap.is_some() {
            let local = self.local_of(meta.port);
            if let Some(tap) = capture::running(&mut self.tap) {
                capture::sent(tap, now, local, meta, &chunk[range.clone()]);
            }
        }
        self.staged.push_back(StagedRun {
            meta: *meta,
            range,
            chunk: Some(chunk),
            refused_run: None,
        });
        if self.staged.len() >= BATCH {
            self.flush();
        }
    }

    fn reclaim(&mut self, chunks: &mut Vec<Chunk>) {
        chunks.extend(self.sent.drain(..).map(Chunk::Heap));
    }

    fn prepare_sleep(&mut self) -> bool {
        self.ring.set_signals(true);
        // Looked for after the signals are on: what comes later signals. Nothing comes where no request receives.
        self.unarmed == 0
            && self.uncancelled == 0
            && self.received.is_empty()
            && !self.ring.has_work()
            && !self.ring.has_completions()
    }

    fn end_sleep(&mut self) {
        self.ring.set_signals(false);
    }

    fn set_taps(&mut self, taps: Taps) {
        self.tap = taps.datagrams;
    }

    fn stats(&self) -> DeviceStats {
        self.stats
    }
}

impl Drop for IoUringDevice {
    /// Frees the local ports now rather than when the kernel comes to it.
    fn drop(&mut self) {
        let ids: Vec<PortId> = self.ports.iter().map(|(_, port)| port.id).collect();
        ids.into_iter().for_each(|id| self.detach(id, Box::new(())));
    }
}

/// What the system lacks, in words that say what to do.
fn explain(error: io::Error) -> io::Error {
    let hint = match error.raw_os_error() {
        Some(libc::ENOSYS) => "this kernel has no io_uring (Linux 6.1 or later is needed)",
        Some(libc::EPERM) => {
            "io_uring is forbidden here: by sysctl kernel.io_uring_disabled, or by the seccomp filter of a container"
        }
        Some(libc::ENOMEM) => {
            "the locked memory limit (ulimit -l, RLIMIT_MEMLOCK) or the memory of this cgroup does not suffice"
        }
        Some(libc::EINVAL) => "this kernel's io_uring is too old (Linux 6.1 or later is needed)",
        _ => return error,
    };
    io::Error::new(error.kind(), format!("{hint}: {error}"))
}

/// Messages for one turn, or more of them until they hold [`DATAGRAMS_PER_TURN`].
const RECEIVES_PER_TURN: usize = 4;
/// The most that the kernel allows.
const RECEIVE_BUFFERS_MAX: u16 = 1 << 15;
/// Bytes for datagrams to be sent. Small enough to stay in the second-level cache.
const ARENA_BYTES: usize = 2 * MESSAGE_BYTES;

#[cfg(test)]
mod tests {
    use super::*;

    /// A device with the queue that its thread sleeps on, and with a port at this address.
    #[allow(clippy::print_stdout, reason = "the reason why a test is skipped")]
    fn device_with_port() -> Option<(IoUringDevice, EventQueue, SocketAddr)> {
        let config = DatapathConfig::default();
        let Ok(mut device) = IoUringDevice::new(&config, true) else {
            println!("SKIP this system has no io_uring");
            return None;
        };
        let queue = EventQueue::new().unwrap();
        device.register(&queue).unwrap();
        let port = SocketPort::bind("127.0.0.1:0".parse().unwrap(), &config).unwrap();
        let local = port.local_addr();
        device.attach(PortId(1), port).unwrap();
        Some((device, queue, local))
    }

    /// With Linux 6.12.117, a ring that leaves work to its thread tells of the first one alone.
    #[test]
    fn device_that_sleeps_is_woken_by_each_datagram() {
        let Some((mut device, queue, local)) = device_with_port() else {
            return;
        };
        let peer = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let visit: &mut BurstVisitor<'_> = &mut |_| ControlFlow::Continue(());
        for number in 0..5 {
            while !device.prepare_sleep() {
                device.end_sleep();
                assert_eq!(device.receive(Instant::ZERO, visit).unwrap(), 0);
            }
            peer.send_to(b"wake up", local).unwrap();
            queue.wait(Some(std::time::Duration::from_secs(10))).unwrap();
            device.end_sleep();
            assert_eq!(
                device.receive(Instant::ZERO, visit).unwrap(),
                1,
                "datagram {number}"
            );
        }
    }

    #[test]
    fn port_given_up_while_the_submission_queue_is_full_is_closed_in_a_later_turn() {
        let Some((mut device, _queue, local)) = device_with_port() else {
            return;
        };
        let visit: &mut BurstVisitor<'_> = &mut |_| ControlFlow::Continue(());
        device.receive(Instant::ZERO, visit).unwrap();
        assert!(device.ports[0].armed);
        // Of requests that nobody has made. The kernel does not always take them at once.
        while device.ring.push_cancel(u32::MAX) {}
        let given_up = std::sync::Arc::new(());
        device.close(0, Box::new(std::sync::Arc::clone(&given_up)));
        for _ in 0..10 {
            if std::sync::Arc::strong_count(&given_up) == 1 {
                break;
            }
            assert!(!device.prepare_sleep(), "there is something to do");
            device.end_sleep();
            device.receive(Instant::ZERO, visit).unwrap();
        }
        assert!(device.ports.is_empty(), "its request was cancelled");
        assert_eq!(std::sync::Arc::strong_count(&given_up), 1);
        SocketPort::bind(local, &DatapathConfig::default()).unwrap();
    }

    #[test]
    fn request_that_found_no_buffer_begins_again_before_the_sleep() {
        let Some((mut device, _queue, _)) = device_with_port() else {
            return;
        };
        let visit: &mut BurstVisitor<'_> = &mut |_| ControlFlow::Continue(());
        assert_eq!(device.receive(Instant::ZERO, visit).unwrap(), 0);
        assert!(device.prepare_sleep());
        device.end_sleep();
        // As the kernel says it; messages that came before have been taken.
        let no_buffer = io::Error::from_raw_os_error(libc::ENOBUFS);
        device.on_receive_completion(0, Err(no_buffer), None, false);
        assert!(!device.prepare_sleep(), "nothing would wake it");
        device.end_sleep();
        assert_eq!(device.receive(Instant::ZERO, visit).unwrap(), 0);
        assert!(device.ports[0].armed && device.prepare_sleep());
    }
}
