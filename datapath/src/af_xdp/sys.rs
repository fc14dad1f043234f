//! AF_XDP sockets on xsk-rs, behind safe functions.
//!
//! Invariant that the `unsafe` blocks rest on: a frame descriptor is in one place at a time, and the frame's memory is touched by whom
//! holds it only: `free`, the fill ring (the kernel receives into it), the receive batch (we read it), `building` (we write it), `ready`,
//! the transmit ring (the kernel sends it), the completion ring. Descriptors are made by the UMEM and never by us.

use std::ffi::CString;
use std::io;
use std::num::NonZeroU32;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

use xsk_rs::config::{BindFlags, FrameSize, Interface, LibxdpFlags, QueueSize, SocketConfig, UmemConfig};
use xsk_rs::{CompQueue, FillQueue, FrameDesc, RxQueue, Socket, TxQueue, Umem};

use super::fill_target::FillTarget;
use super::jumbo::{JUMBO_BYTES, JUMBO_FRAMES, Jumbo};
use super::program::Program;
use crate::chunk::{self, Chunk, ChunkSupply, ReceivedMemory};
use crate::contract::XdpStats;
use crate::cpu;
use crate::umem::{ReceivedChunk, UmemRegion};

/// Frames that one visit takes at most.
const RECEIVE_BATCH: usize = 64;
/// Frames that go to the kernel together.
pub(super) const TRANSMIT_BATCH: usize = 64;
/// Frames to receive into.
const RECEIVE_FRAMES: u32 = 2048;
/// So many of them are with the kernel at least, where it copies, we read them at once, and hardly any wait for us.
const FILL_TARGET_MIN: u32 = 512;
/// So many frames at least go to the kernel together: each time it has to fetch the ring's index and entries from our core.
const REFILL_MIN: u32 = 32;
/// Frames to send from.
const TRANSMIT_FRAMES: u32 = 1024;
/// Frames that one system call sends at most.
const TRANSMIT_BUDGET: u32 = 256;
/// How often, and after which pause each time, a queue is asked for whose last socket is just being closed.
const BUSY_TRIES: u32 = 50;
const BUSY_PAUSE: Duration = Duration::from_millis(20);
/// Looks for room before it may be slept.
const EMPTY_POLLS_MAX: u32 = 10_000;
/// Rings: more than there are frames, as the kernel tells late what it has taken.
const RING: u32 = 4096;

/// Whether the NIC reads and writes our memory itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum BindMode {
    /// The kernel copies.
    Copy,
    /// It does.
    ZeroCopy,
}

/// The AF_XDP socket of a queue, with frames of its own.
pub(super) struct Xsk {
    region: UmemRegion,
    transmit: TxQueue,
    receive: RxQueue,
    fill: FillQueue,
    completions: CompQueue,
    /// Frames to send from, the one last used on top: it is in cache.
    free: Vec<FrameDesc>,
    building: Option<FrameDesc>,
    ready: Vec<FrameDesc>,
    /// Received and visited, and not with the kernel. The one last used on top: it is in cache.
    visited: Vec<FrameDesc>,
    fill_target: FillTarget,
    /// For the other thread, to be given for received ones.
    spare: Vec<FrameDesc>,
    /// Memory for packets of several frames that another thread fills, and how many are with it.
    sent_jumbos: Vec<Box<[u8]>>,
    remote_jumbos: usize,
    batch: Box<[FrameDesc]>,
    /// For packets that do not fit a frame.
    jumbo: Option<Jumbo>,
    /// Frames with the kernel.
    sending: usize,
    kicks: u64,
    busy_poll: bool,
    queue: u32,
    /// Frames that were received go straight back to be copied into by the kernel.
    copied_into: bool,
    has_huge_pages: bool,
    umem_bytes: usize,
    /// The interface is gone, and with it all that was given to the kernel.
    interface_gone: bool,
    /// Looks for room in a row that found none.
    empty_polls: u32,
}

impl std::fmt::Debug for Xsk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Xsk")
    }
}

impl Xsk {
    /// Binds a socket to a receive queue. `frame_bytes`: 2048 or 4096; with `jumbo`, a packet may lie in several frames (Linux 6.6); `spares`: frames
    /// that can be given for received ones.
    pub(super) fn open(
        interface: &str,
        queue: u32,
        frame_bytes: u32,
        jumbo: bool,
        spares: u32,
        bind_mode: BindMode,
    ) -> io::Result<Xsk> {
        let (umem, mut frames, has_huge_pages) = make_umem(queue, frame_bytes, spares)?;
        let copied_into = bind_mode == BindMode::Copy && spares == 0;
        // SAFETY: the UMEM is new.
        let (transmit, receive, fill, completions) =
            unsafe { bind(&umem, interface, queue, jumbo, bind_mode) }?;
        let region = UmemRegion::new(umem, &frames, frame_bytes as usize);
        let mut received = frames.split_off(TRANSMIT_FRAMES as usize);
        let spare = received.split_off(RECEIVE_FRAMES as usize);
        let empty = frames[0];
        let mut xsk = Xsk {
            region,
            transmit,
            receive,
            fill,
            completions,
            free: frames,
            building: None,
            ready: Vec::with_capacity(TRANSMIT_BATCH + JUMBO_FRAMES),
            visited: received,
            fill_target: FillTarget::new(
                if copied_into {
                    FILL_TARGET_MIN
                } else {
                    RECEIVE_FRAMES
                },
                RECEIVE_FRAMES,
            ),
            spare,
            sent_jumbos: Vec::new(),
            remote_jumbos: 0,
            batch: vec![empty; RECEIVE_BATCH].into(),
            jumbo: jumbo.then(Jumbo::new),
            sending: 0,
            kicks: 0,
            busy_poll: false,
            queue,
            copied_into,
            has_huge_pages,
            umem_bytes: frame_bytes as usize * (RECEIVE_FRAMES + TRANSMIT_FRAMES + spares) as usize,
            interface_gone: false,
            empty_polls: 0,
        };
        xsk.refill();
        xsk.raise_budget();
        Ok(xsk)
    }

    /// Lets one system call send more than the 32 frames that it sends by default where the kernel copies (Linux 6.17). Others do without.
    fn raise_budget(&self) {
        let budget = TRANSMIT_BUDGET;
        // SAFETY: `budget` lives during the call and has the size that is given.
        unsafe {
            libc::setsockopt(
                self.descriptor().as_raw_fd(),
                libc::SOL_XDP,
                XDP_MAX_TX_SKB_BUDGET,
                (&raw const budget).cast(),
                size_of::<u32>() as libc::socklen_t,
            )
        };
    }

    /// What to say where there were no huge pages for it.
    pub(super) fn huge_pages_note(&self) -> Option<String> {
        let megabytes = self.umem_bytes.div_ceil(1 << 20);
        (!self.has_huge_pages).then(|| {
            format!("packet memory is on small pages: {megabytes} MB of huge pages are not free for each queue (scripts/huge-pages.sh)")
        })
    }

    /// For an event queue, and the map of the XDP program.
    pub(super) fn descriptor(&self) -> BorrowedFd<'_> {
        // SAFETY: the socket is open as long as its queues, which `self` holds.
        unsafe { BorrowedFd::borrow_raw(self.receive.fd().as_raw_fd()) }
    }

    /// Visits frames that have come, at most a batch; gives how many.
    pub(super) fn receive(&mut self, program: &Program, mut visit: impl FnMut(ReceivedMemory<'_>)) -> usize {
        if self.busy_poll && self.receive.nb_avail(1) == 0 {
            // Nobody else looks at the NIC: not even an interrupt.
            self.kick_receive();
        }
        let backlog = self.receive.nb_avail(RECEIVE_FRAMES);
        // SAFETY: what the descriptors of the batch named before is back in `visited`: no frame is lost or doubled.
        let count = unsafe { self.receive.consume(&mut self.batch) };
        // The core that copies into these frames next would have to fetch them from ours, which has just decrypted packets in them.
        let demotes = count > 0 && self.copied_into && program.is_served_by_another_core(self.queue);
        for frame in &mut self.batch[..count] {
            let more = frame.has_more_frames();
            // SAFETY: the kernel has given us the frame with the descriptor just now, of this UMEM.
            let mut received = unsafe { ReceivedChunk::new(frame, &self.region) };
            match &mut self.jumbo {
                Some(jumbo) => {
                    if let Some(packet) = jumbo.take(received.bytes(), more) {
                        visit(ReceivedMemory::Borrowed(packet));
                        jumbo.clear();
                    }
                }
                None => {
                    let len = received.bytes().len();
                    visit(ReceivedMemory::Umem(received, 0..len));
                }
            }
            if demotes {
                // SAFETY: as above, or a spare frame that was given to us for that one.
                let mut visited = unsafe { ReceivedChunk::new(frame, &self.region) };
                cpu::demote_cache_lines(visited.bytes());
            }
        }
        self.visited.extend_from_slice(&self.batch[..count]);
        self.fill_target.adapt(backlog, count as u32);
        self.refill();
        count
    }

    /// Gives the kernel frames to receive into.
    fn refill(&mut self) {
        let resting = self.visited.len() as u32;
        let missing = (self.fill_target.frames() + resting).saturating_sub(RECEIVE_FRAMES);
        if missing >= REFILL_MIN {
            let room = self.fill.nb_free(missing).min(missing);
            let from = (resting - room) as usize;
            // SAFETY: these frames are ours, of this UMEM, and leave `visited` below if the ring takes them.
            let taken = unsafe { self.fill.produce(&self.visited[from..]) };
            if taken > 0 {
                self.visited.truncate(from);
            }
        }
        // Whether or not it has got some just now: it may have found none before.
        if self.fill.needs_wakeup() {
            self.kick_receive();
        }
    }

    fn kick_receive(&self) {
        // SAFETY: no buffer is passed: this only makes the driver look at the fill ring.
        unsafe {
            libc::recvfrom(
                self.descriptor().as_raw_fd(),
                std::ptr::null_mut(),
                0,
                libc::MSG_DONTWAIT,
                std::ptr::null_mut(),
                std::ptr::null_mut(),
            )
        };
    }

    /// The whole frame that is sent next. `None` while all are with the kernel.
    pub(super) fn frame(&mut self) -> Option<&mut [u8]> {
        if self.jumbo.is_some() {
            if self.free.len() < JUMBO_FRAMES {
                self.flush();
            }
            let has_room = self.free.len() >= JUMBO_FRAMES || self.interface_gone;
            return self
                .jumbo
                .as_mut()
                .filter(|_| has_room)
                .map(|jumbo| &mut jumbo.building[..]);
        }
        if self.building.is_none() {
            if self.free.is_empty() {
                self.flush();
            }
            self.building = self.free.pop();
        }
        let frame = self.building.as_mut()?;
        // SAFETY: the frame is in `building` only.
        Some(unsafe { self.region.whole(frame) })
    }

    /// Sends the first `len` bytes of it.
    pub(super) fn commit(&mut self, len: usize) {
        if let Some(jumbo) = &self.jumbo {
            let mut rest = &jumbo.building[..len];
            while let Some(mut frame) = self.free.pop_if(|_| !rest.is_empty()) {
                // SAFETY: the frame is taken out of `free`.
                let bytes = unsafe { self.region.whole(&mut frame) };
                let part;
                (part, rest) = rest.split_at(rest.len().min(bytes.len()));
                bytes[..part.len()].copy_from_slice(part);
                // SAFETY: as above.
                unsafe { self.region.truncate(&mut frame, part.len()) };
                frame.set_options(if rest.is_empty() { 0 } else { XDP_PKT_CONTD });
                self.ready.push(frame);
            }
        } else if let Some(mut frame) = self.building.take() {
            // SAFETY: the frame is taken out of `building`.
            unsafe { self.region.truncate(&mut frame, len) };
            self.ready.push(frame);
        }
        if self.ready.len() >= TRANSMIT_BATCH {
            self.flush();
        }
    }

    /// Hands over what is committed, and takes back what is sent: one system call at most.
    pub(super) fn flush(&mut self) {
        if self.interface_gone {
            return;
        }
        self.complete();
        if !self.ready.is_empty() {
            // SAFETY: these frames are ours, of this UMEM, and leave `ready` below if the ring takes them: all or none.
            let taken = unsafe { self.transmit.produce(&self.ready) };
            if taken > 0 {
                self.sending += taken;
                self.ready.clear();
            }
        }
        // Without something that the kernel has not taken yet there is nothing to tell it: what it has sent it returns when it is freed.
        let kick = self.transmit.nb_free_exact() < RING && self.transmit.needs_wakeup();
        if kick {
            self.kicks += 1;
            match self.transmit.wakeup() {
                Ok(()) => {}
                // Not bound any more: the interface was deleted. (While it is down, frames wait.)
                Err(error)
                    if matches!(
                        error.raw_os_error(),
                        Some(libc::ENXIO | libc::ENODEV | libc::EBADF)
                    ) =>
                {
                    tracing::error!(%error, "the interface of an AF_XDP socket is gone: its datagrams go by the kernel's sockets");
                    self.interface_gone = true;
                    self.ready.clear();
                }
                Err(error) => tracing::debug!(%error, "AF_XDP does not send"),
            }
            self.complete();
        }
    }

    /// The chunks that pass between this thread and another one. Packets that may lie in several frames are passed on in memory of the heap.
    pub(super) fn supply_chunks(&mut self) -> ChunkSupply {
        if self.jumbo.is_some() {
            self.remote_jumbos = TRANSMIT_FRAMES as usize / JUMBO_FRAMES / 2;
            return ChunkSupply {
                spares: chunk::receive_chunks(chunk::HEAP_BYTES),
                slots: chunk::heap_chunks(self.remote_jumbos, JUMBO_BYTES),
                regions: Vec::new(),
            };
        }
        let spares = self.spare.drain(..);
        // SAFETY: the frame is taken out of `spare`.
        let spares = spares.map(|descriptor| unsafe { self.region.give_away(descriptor) });
        let spares = spares.map(Chunk::Umem).collect();
        let mut slots = Vec::new();
        self.reclaim(&mut slots);
        ChunkSupply {
            spares,
            slots,
            regions: vec![self.region.keep_alive()],
        }
    }

    /// Gives away what can be sent from.
    pub(super) fn reclaim(&mut self, chunks: &mut Vec<Chunk>) {
        if self.jumbo.is_some() {
            // Each takes frames when it is sent: no more of them than there are frames for.
            let most = self.free.len() / JUMBO_FRAMES;
            while self.remote_jumbos < most
                && let Some(bytes) = self.sent_jumbos.pop()
            {
                self.remote_jumbos += 1;
                chunks.push(Chunk::Heap(bytes));
            }
            return;
        }
        self.complete();
        let frames = self.free.drain(..).rev();
        // SAFETY: the frame is taken out of `free`.
        let frames = frames.map(|descriptor| unsafe { self.region.give_away(descriptor) });
        chunks.extend(frames.map(Chunk::Umem));
    }

    /// Builds the next packet in a chunk of another thread.
    pub(super) fn set_building(&mut self, chunk: Chunk) {
        match (chunk, &mut self.jumbo) {
            (Chunk::Umem(frame), _) => self.building = Some(self.region.take_back(frame)),
            (Chunk::Heap(bytes), Some(jumbo)) => {
                let before = std::mem::replace(&mut jumbo.building, bytes);
                self.sent_jumbos.push(before);
                self.remote_jumbos -= 1;
            }
            (Chunk::Heap(_), None) => debug_assert!(false, "not of this device"),
        }
    }

    /// It was not sent, or is.
    pub(super) fn release_building(&mut self) {
        self.free.extend(self.building.take());
    }

    /// System calls that made the kernel send.
    pub(super) fn kicks(&self) -> u64 {
        self.kicks
    }

    fn complete(&mut self) {
        while self.sending > 0 {
            // SAFETY: the batch holds copies only of descriptors that are elsewhere; what is written here goes to `free` at once.
            let count = unsafe { self.completions.consume(&mut self.batch) };
            if count == 0 {
                break;
            }
            self.sending -= count;
            self.free.extend_from_slice(&self.batch[..count]);
        }
    }

    /// False once the interface is gone.
    pub(super) fn is_alive(&self) -> bool {
        !self.interface_gone
    }

    /// True while frames wait for room: nothing tells when there is some, so that one must look again rather than sleep. Not for ever: an
    /// interface that is down takes none.
    pub(super) fn waits_for_room(&mut self) -> bool {
        let waits = !self.interface_gone
            && (!self.ready.is_empty() || (self.free.is_empty() && self.building.is_none()));
        self.empty_polls = if waits {
            self.empty_polls.saturating_add(1)
        } else {
            0
        };
        waits && self.empty_polls < EMPTY_POLLS_MAX
    }

    /// Adds what the kernel counted: a system call.
    pub(super) fn count(&self, stats: &mut XdpStats) -> io::Result<()> {
        let counted = self.receive.fd().xdp_statistics()?;
        stats.no_frame_drops += counted.rx_fill_ring_empty_descs();
        stats.ring_full_drops += counted.rx_ring_full();
        stats.other_drops += counted.rx_dropped();
        stats.invalid_descriptors += counted.rx_invalid_descs() + counted.tx_invalid_descs();
        stats.fill_level += (RECEIVE_FRAMES as usize - self.visited.len()) as u64;
        stats.transmit_level += (self.sending + self.ready.len()) as u64;
        Ok(())
    }

    /// Lets the kernel poll the NIC's queue when we look for frames, for so long at most, rather than be interrupted by it.
    pub(super) fn prefer_busy_poll(&mut self, micros: libc::c_int) -> io::Result<()> {
        for (option, value) in [
            (libc::SO_PREFER_BUSY_POLL, 1),
            (libc::SO_BUSY_POLL, micros),
            (libc::SO_BUSY_POLL_BUDGET, RECEIVE_BATCH as libc::c_int),
        ] {
            // SAFETY: `value` lives during the call and has the size that is given.
            let result = unsafe {
                libc::setsockopt(
                    self.descriptor().as_raw_fd(),
                    libc::SOL_SOCKET,
                    option,
                    (&raw const value).cast(),
                    size_of::<libc::c_int>() as libc::socklen_t,
                )
            };
            if result < 0 {
                return Err(io::Error::last_os_error());
            }
        }
        self.busy_poll = true;
        Ok(())
    }
}

/// Memory for a socket, the descriptors of its frames, and whether it is on huge pages.
fn make_umem(queue: u32, frame_bytes: u32, spares: u32) -> io::Result<(Umem, Vec<FrameDesc>, bool)> {
    let ring = QueueSize::new(RING).map_err(io::Error::other)?;
    let config = UmemConfig::builder()
        .frame_size(FrameSize::new(frame_bytes).map_err(io::Error::other)?)
        .fill_queue_size(ring)
        .comp_queue_size(ring)
        .build()
        .map_err(io::Error::other)?;
    let count = NonZeroU32::MIN.saturating_add(RECEIVE_FRAMES + TRANSMIT_FRAMES + spares - 1);
    // Huge pages save the processor translations; there are some only where somebody has set them aside.
    let on_huge_pages = Umem::new(config, count, true);
    let has_huge_pages = on_huge_pages.is_ok();
    let (umem, frames) = on_huge_pages
        .or_else(|_| Umem::new(config, count, false))
        .map_err(|error| explain("memory for AF_XDP", queue, &error))?;
    Ok((umem, frames, has_huge_pages))
}

/// Binds a socket to a receive queue; gives its rings.
///
/// # Safety
///
/// The UMEM is bound to no other socket.
unsafe fn bind(
    umem: &Umem,
    interface: &str,
    queue: u32,
    jumbo: bool,
    mode: BindMode,
) -> io::Result<(TxQueue, RxQueue, FillQueue, CompQueue)> {
    let ring = QueueSize::new(RING).map_err(io::Error::other)?;
    let mode = match mode {
        BindMode::Copy => BindFlags::XDP_COPY,
        BindMode::ZeroCopy => BindFlags::XDP_ZEROCOPY,
    };
    let multi_buffer = if jumbo {
        BindFlags::XDP_USE_SG
    } else {
        BindFlags::empty()
    };
    let config = SocketConfig::builder()
        .rx_queue_size(ring)
        .tx_queue_size(ring)
        .libxdp_flags(LibxdpFlags::XSK_LIBXDP_FLAGS_INHIBIT_PROG_LOAD)
        .bind_flags(mode | multi_buffer | BindFlags::XDP_USE_NEED_WAKEUP)
        .build();
    let name = Interface::new(CString::new(interface).map_err(io::Error::other)?);
    let mut tries = 0..BUSY_TRIES;
    let (transmit, receive, queues) = loop {
        // SAFETY: the UMEM is bound nowhere else, as the caller promises, and no program is loaded by libxdp.
        let socket = unsafe { Socket::new(config, umem, &name, queue) };
        match socket.map_err(|error| explain("an AF_XDP socket", queue, &error)) {
            Ok(parts) => break parts,
            // The program of the one that had it is gone, or we were not here; its socket the kernel closes a little later.
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy && tries.next().is_some() => {
                std::thread::park_timeout(BUSY_PAUSE);
            }
            Err(error) => return Err(error),
        }
    };
    let (fill, completions) = queues.ok_or_else(|| io::Error::other("AF_XDP gave no fill ring"))?;
    Ok((transmit, receive, fill, completions))
}

/// What the system lacks, in words that say what to do.
fn explain(what: &str, queue: u32, error: &(dyn std::error::Error + 'static)) -> io::Error {
    let os = std::iter::successors(Some(error), |error| error.source())
        .find_map(|error| error.downcast_ref::<io::Error>())
        .and_then(io::Error::raw_os_error);
    let hint = match os {
        Some(libc::EPERM) => "it needs CAP_NET_RAW",
        Some(libc::ENOBUFS | libc::ENOMEM) => {
            "the locked memory limit does not suffice (ulimit -l, RLIMIT_MEMLOCK, LimitMEMLOCK= of a service) and CAP_IPC_LOCK is missing"
        }
        Some(libc::EBUSY) => "in use: another process has an AF_XDP socket on it",
        Some(libc::EOPNOTSUPP) => "the driver cannot do it this way",
        Some(libc::EINVAL) => "the interface has no such queue",
        Some(libc::EAFNOSUPPORT) => "this kernel has no AF_XDP",
        _ => "it failed",
    };
    let kind = os.map_or(io::ErrorKind::Other, |os| io::Error::from_raw_os_error(os).kind());
    io::Error::new(kind, format!("{what}, queue {queue}: {hint}: {error}"))
}

// linux/if_xdp.h
const XDP_PKT_CONTD: u32 = 1;
const XDP_MAX_TX_SKB_BUDGET: libc::c_int = 9;
