//! What goes on between a queue's chunks and the kernel: which of them are where, and when the kernel is asked to do something.

mod receive;
mod remote;
mod reopen;
#[cfg(test)]
mod tests;
mod transmit;

use std::io;
use std::os::fd::OwnedFd;

use ringway_types::Instant;

use super::drain::{Change, Drain};
use super::fill_target::FillTarget;
use super::jumbo::{JUMBO_CHUNKS, Jumbo};
use super::socket::{self, BindMode, Binding, Kernel, SpareSocket};
use crate::contract::XdpStats;
use crate::lent::{LentMemory, PacketBuffer};
use crate::umem::{Outgoing, Received, Rings, UmemChunk};

/// How many chunks are for what.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Counts {
    pub(super) receive: u32,
    pub(super) transmit: u32,
    /// That can be given for received ones.
    pub(super) spare: u32,
    /// Of those to receive into, how many the application may hold on to.
    pub(super) lent: u32,
}

/// What the socket is bound to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    /// The queue.
    Bound,
    /// Nothing: the interface is gone. The kernel has chunks still, of which it does nothing.
    Lost,
    /// All chunks are here, or in the fill ring of a socket that is to be bound.
    Unbound,
}

/// A queue with chunks of its own; `K` is the kernel behind its rings.
pub(super) struct Xsk<K> {
    /// `None`: that of an interface that is gone was closed.
    kernel: Option<K>,
    stage: Stage,
    /// The program has the socket, and gives it what comes in on the queue.
    receives: bool,
    /// For the time when the interface has gone and returned.
    spare_sockets: Vec<SpareSocket>,
    /// With which its memory could not be registered yet.
    unregistered: Option<OwnedFd>,
    rings: Rings,
    queue: u32,
    mode: BindMode,
    /// In which it was opened, and its memory is for.
    wanted: BindMode,
    counts: Counts,
    /// To send from, the one last used on top: it is in cache.
    free: Vec<UmemChunk>,
    building: Option<UmemChunk>,
    ready: Vec<Outgoing>,
    /// Received and visited, and not with the kernel. The one last used on top: it is in cache.
    visited: Vec<UmemChunk>,
    /// Received, visited, and held by the application.
    lent: LentMemory<UmemChunk>,
    fill_target: FillTarget,
    batch: Vec<Received>,
    /// Without `jumbo`: the parts that come belong to a packet that cannot be joined.
    skipping: bool,
    /// For packets that do not fit a chunk.
    jumbo: Option<Jumbo>,
    /// For the other thread, to be given for received ones.
    spare: Vec<UmemChunk>,
    /// Where another thread sends: chunks that it gets if the kernel keeps others, so that it can go on by the kernel's sockets, and how many
    /// they should be.
    reserve: Vec<UmemChunk>,
    reserve_len: usize,
    /// How many chunks the other thread has, when none are with the kernel.
    remote_slots: u32,
    /// Memory for packets of several chunks that another thread fills, and how many are with it.
    sent_jumbos: Vec<PacketBuffer>,
    remote_jumbos: usize,
    drain: Drain,
    /// The interface was down when the kernel was asked to send last.
    network_down: bool,
    busy_poll: bool,
    /// Looks for room in a row that found none.
    empty_polls: u32,
    kicks: u64,
    refused_sends: u64,
    stuck_count: u64,
    too_long: u64,
    /// What the kernel has counted for sockets before this one.
    before: socket::Counts,
}

impl<K> std::fmt::Debug for Xsk<K> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Xsk")
    }
}

impl<K: Kernel> Xsk<K> {
    /// `chunks` are all of these rings' UMEM, as many as `counts` says or more. The kernel gets chunks to receive into
    /// at once.
    pub(super) fn new(
        kernel: K,
        rings: Rings,
        mut chunks: Vec<UmemChunk>,
        counts: Counts,
        binding: Binding,
    ) -> Self {
        let Binding {
            queue,
            mode,
            multi_buffer,
            ..
        } = binding;
        let Counts {
            receive,
            transmit,
            spare,
            lent,
        } = counts;
        let mut take = |count: u32| chunks.split_off(chunks.len().saturating_sub(count as usize));
        let (spare, visited) = (take(spare), take(receive));
        let mut free = Vec::with_capacity(transmit as usize);
        free.append(&mut take(transmit));
        let fill_min = match mode {
            BindMode::Copy if counts.spare == 0 => receive.min(FILL_TARGET_MIN),
            _ => receive,
        };
        let mut xsk = Xsk {
            kernel: Some(kernel),
            stage: Stage::Bound,
            receives: false,
            spare_sockets: Vec::new(),
            unregistered: None,
            lent: LentMemory::new(lent as usize * rings.memory().chunk_bytes() as usize),
            rings,
            queue,
            mode,
            wanted: mode,
            counts,
            free,
            building: None,
            ready: Vec::with_capacity(TRANSMIT_BATCH + JUMBO_CHUNKS),
            visited,
            fill_target: FillTarget::new(fill_min, receive),
            batch: Vec::with_capacity(RECEIVE_BATCH),
            skipping: false,
            jumbo: multi_buffer.then(Jumbo::new),
            spare,
            reserve: Vec::new(),
            reserve_len: 0,
            remote_slots: 0,
            sent_jumbos: Vec::new(),
            remote_jumbos: 0,
            drain: Drain::default(),
            network_down: false,
            busy_poll: false,
            empty_polls: 0,
            kicks: 0,
            refused_sends: 0,
            stuck_count: 0,
            too_long: 0,
            before: socket::Counts::default(),
        };
        xsk.refill();
        xsk
    }

    /// `None` where the interface is gone.
    pub(super) fn kernel(&self) -> Option<&K> {
        self.kernel.as_ref()
    }

    /// The queue that it is of.
    pub(super) fn queue(&self) -> u32 {
        self.queue
    }

    /// Chunks that it has, here or with the kernel.
    #[cfg(test)]
    pub(super) fn chunks(&self) -> u32 {
        let here =
            self.free.len() + self.ready.len() + self.visited.len() + self.spare.len() + self.reserve.len();
        let building = usize::from(self.building.is_some());
        self.rings.receiving() + self.rings.sending() + (here + building) as u32
    }

    /// What to say where there were no huge pages for it.
    pub(super) fn huge_pages_note(&self) -> Option<String> {
        let memory = self.rings.memory();
        let megabytes = memory.bytes().div_ceil(1 << 20);
        (!memory.has_huge_pages()).then(|| {
            format!("packet memory is on small pages: {megabytes} MB of huge pages are not free for each queue (scripts/huge-pages.sh)")
        })
    }

    /// Notices, once in each turn, whether the kernel goes on sending.
    pub(super) fn look(&mut self, now: Instant) {
        match self.drain.look(now) {
            Some(Change::Stuck) => {
                self.stuck_count += 1;
                let frames = self.rings.unsent();
                tracing::error!(
                    queue = self.queue,
                    frames,
                    "the kernel sends nothing of what is on the transmit ring, however often it is asked: datagrams go by its sockets until it does"
                );
            }
            Some(Change::Goes) => {
                tracing::info!(queue = self.queue, "the transmit ring of AF_XDP is emptied again");
            }
            None => {}
        }
    }

    /// System calls that made the kernel send.
    pub(super) fn kicks(&self) -> u64 {
        self.kicks
    }

    /// Frames that the link has refused.
    pub(super) fn refused_sends(&self) -> u64 {
        self.refused_sends
    }

    /// False while the interface is gone, and while the kernel does not send what it has: datagrams go by its sockets then.
    pub(super) fn can_send(&self) -> bool {
        self.stage == Stage::Bound && !self.drain.is_stuck()
    }

    /// True while frames wait for room: nothing tells when there is some, so that one must look again rather than sleep. Not for ever: an
    /// interface that is down takes none.
    pub(super) fn waits_for_room(&mut self) -> bool {
        if !self.can_send() {
            return false;
        }
        // That these go, or that the ring is stuck, shows within a second.
        if self.drain.has_left() {
            return true;
        }
        let is_out = match self.remote_slots {
            // A packet may take several.
            0 if self.jumbo.is_some() => self.free.len() < JUMBO_CHUNKS,
            0 => self.free.is_empty() && self.building.is_none(),
            // Where another thread sends it has those that are not with the kernel.
            slots => self.rings.sending() >= slots,
        };
        let waits = !self.ready.is_empty() || is_out;
        self.empty_polls = if waits {
            self.empty_polls.saturating_add(1)
        } else {
            0
        };
        waits && self.empty_polls < EMPTY_POLLS_MAX
    }

    /// Bytes that the application holds on to.
    pub(super) fn lent_bytes(&self) -> usize {
        self.lent.bytes()
    }

    /// Adds what the kernel and we have counted: a system call.
    pub(super) fn count(&self, stats: &mut XdpStats) -> io::Result<()> {
        let mut counted = self.before;
        if let Some(kernel) = &self.kernel {
            counted += kernel.counts()?;
        }
        stats.no_frame_drops += counted.fill_ring_empty;
        stats.ring_full_drops += counted.ring_full;
        stats.other_drops += counted.dropped;
        stats.too_long_drops += self.too_long;
        stats.invalid_descriptors += counted.invalid_descriptors;
        stats.refused_descriptors += self.rings.refused();
        stats.refused_sends += self.refused_sends;
        stats.transmit_stuck += self.stuck_count;
        stats.fill_level += u64::from(self.rings.receiving());
        stats.transmit_level += self.rings.sending() as u64 + self.ready.len() as u64;
        Ok(())
    }

    /// Lets the kernel poll the NIC's queue when we look for frames, for so long at most, rather than be interrupted by it.
    pub(super) fn prefer_busy_poll(&mut self, micros: i32) -> io::Result<()> {
        if let Some(kernel) = &self.kernel {
            kernel.prefer_busy_poll(micros, RECEIVE_BATCH as i32)?;
            self.busy_poll = true;
        }
        Ok(())
    }
}

/// So many chunks are with the kernel at least, where it copies, we read them at once, and hardly any wait for us.
const FILL_TARGET_MIN: u32 = 512;
/// Looks for room before it may be slept.
const EMPTY_POLLS_MAX: u32 = 10_000;
/// Frames that one visit takes at most.
const RECEIVE_BATCH: usize = 64;
/// Frames that go to the kernel together.
pub(super) const TRANSMIT_BATCH: usize = 64;
