//! Link-layer addresses of peers, learnt from the frames that they send.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ringway_types::Instant;

use crate::headers::LinkHeader;

/// How frames reach a peer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Neighbour {
    pub(super) link: LinkHeader,
    /// Our address, as the peer wrote it.
    pub(super) local: IpAddr,
    /// When the last frame came from it.
    pub(super) seen: Instant,
    /// Until then the kernel finds the way: this one may be dead in our direction.
    pub(super) distrusted_until: Instant,
}

/// The neighbours that one partition knows. It publishes what it learns now and then: RSS may bring a peer's frames to another partition
/// than the one that sends to it.
#[derive(Debug)]
pub(super) struct Neighbours {
    /// The peer heard or asked of last, who is most often the next too: newer than what `known` says of it.
    recent: Option<(IpAddr, Known)>,
    known: Table<Known>,
    /// Counts neighbours that have changed.
    changes: u64,
    shared: Arc<SharedNeighbours>,
    /// Of `shared`, when something was not found there.
    version: u64,
}

#[derive(Clone, Copy, Debug)]
struct Known {
    neighbour: Neighbour,
    /// When it was published last.
    published: Instant,
}

/// What partitions have published for each other.
#[derive(Debug, Default)]
pub(super) struct SharedNeighbours {
    entries: Mutex<Table<Neighbour>>,
    version: AtomicU64,
}

impl SharedNeighbours {
    /// As [`Neighbours::forget`].
    pub(super) fn forget(&self) {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.entries.clear();
    }
}

impl Neighbours {
    pub(super) fn new(shared: Arc<SharedNeighbours>) -> Self {
        Neighbours {
            recent: None,
            known: Table::default(),
            changes: 0,
            shared,
            version: 0,
        }
    }

    /// A frame of a peer has come. Takes the lock of what is shared for a peer that is new, has moved, or was not published for long.
    pub(super) fn learn(&mut self, peer: IpAddr, mut neighbour: Neighbour) {
        self.recall(peer);
        if let Some((_, known)) = self.recent.as_mut().filter(|(recent, _)| *recent == peer) {
            let same = known.neighbour.link == neighbour.link && known.neighbour.local == neighbour.local;
            if same {
                neighbour.distrusted_until = known.neighbour.distrusted_until;
            }
            known.neighbour = neighbour;
            if same && neighbour.seen.since(known.published) < PUBLISH_EVERY {
                return;
            }
        }
        self.changes += 1;
        self.keep(peer, neighbour);
        let mut shared = self.shared.entries.lock().unwrap_or_else(PoisonError::into_inner);
        shared.keep(peer, neighbour, |neighbour| neighbour.seen);
        drop(shared);
        self.shared.version.fetch_add(1, Ordering::Release);
    }

    /// The neighbour that leads to a peer, if a frame came from it not too long ago.
    pub(super) fn find(&mut self, now: Instant, peer: IpAddr) -> Option<Neighbour> {
        let fresh = |neighbour: &Neighbour| now.since(neighbour.seen) < NEIGHBOUR_LIFETIME;
        self.recall(peer);
        if let Some((recent, known)) = &self.recent
            && *recent == peer
        {
            if now < known.neighbour.distrusted_until {
                return None;
            }
            if fresh(&known.neighbour) {
                return Some(known.neighbour);
            }
        }
        let version = self.shared.version.load(Ordering::Acquire);
        if version == self.version {
            return None;
        }
        let shared = self.shared.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(neighbour) = shared.entries.get(&peer).copied().filter(fresh) else {
            self.version = version;
            return None;
        };
        drop(shared);
        self.keep(peer, neighbour);
        Some(neighbour)
    }

    /// None leads anywhere any more.
    pub(super) fn forget(&mut self) {
        self.recent = None;
        self.known.entries.clear();
        self.changes += 1;
    }

    /// Nothing is heard of a peer. Its frames may still come by this neighbour while ours are lost there: until frames come by another one, it is
    /// left to the kernel for a while.
    pub(super) fn distrust(&mut self, now: Instant, peer: IpAddr) {
        self.recall(peer);
        if let Some((_, known)) = self.recent.as_mut().filter(|(recent, _)| *recent == peer) {
            known.neighbour.distrusted_until = now + DISTRUST;
            self.changes += 1;
        }
    }

    /// How often a neighbour has changed: what was made of one is good for as long as this is the same, and it is not too old.
    pub(super) fn changes(&self) -> u64 {
        self.changes
    }

    /// Makes a peer that is known the recent one.
    fn recall(&mut self, peer: IpAddr) {
        if self.recent.is_some_and(|(recent, _)| recent == peer) {
            return;
        }
        if let Some((recent, known)) = self.recent.take() {
            // Only if it is there still, or there is room.
            self.known.keep(recent, known, |known| known.neighbour.seen);
        }
        self.recent = self.known.entries.get(&peer).map(|known| (peer, *known));
    }

    fn keep(&mut self, peer: IpAddr, neighbour: Neighbour) {
        let known = Known {
            neighbour,
            published: neighbour.seen,
        };
        self.known.keep(peer, known, |known| known.neighbour.seen);
        self.recent = Some((peer, known));
    }
}

/// Entries by peer, no more than [`NEIGHBOURS_MAX`]: what peers choose must not grow without bound.
#[derive(Debug)]
struct Table<V> {
    entries: HashMap<IpAddr, V>,
    /// When expired ones were removed last.
    swept: Instant,
}

impl<V> Default for Table<V> {
    fn default() -> Self {
        // All the room at once: nothing is allocated for a packet.
        Table {
            entries: HashMap::with_capacity(NEIGHBOURS_MAX),
            swept: Instant::from_nanos(0),
        }
    }
}

impl<V> Table<V> {
    /// Keeps an entry if there is room. Room is made of those that are too old, not at each call: it takes looking at all.
    fn keep(&mut self, peer: IpAddr, value: V, seen: impl Fn(&V) -> Instant) {
        let now = seen(&value);
        if self.entries.len() >= NEIGHBOURS_MAX && !self.entries.contains_key(&peer) {
            if now.since(self.swept) >= SWEEP_EVERY {
                self.swept = now;
                self.entries
                    .retain(|_, known| now.since(seen(known)) < NEIGHBOUR_LIFETIME);
            }
            if self.entries.len() >= NEIGHBOURS_MAX {
                return;
            }
        }
        self.entries.insert(peer, value);
    }
}

/// Neighbours known at a time; other peers are served by the sockets.
const NEIGHBOURS_MAX: usize = 16_384;
/// How long a neighbour is believed in without another frame. The kernel probes its own in about the same time.
pub(super) const NEIGHBOUR_LIFETIME: Duration = Duration::from_secs(30);
/// How long a neighbour is left to the kernel by which nothing arrives.
const DISTRUST: Duration = Duration::from_secs(10);
/// How often expired ones are removed while there is no room.
const SWEEP_EVERY: Duration = Duration::from_secs(1);
/// How often a peer that keeps sending is published again.
const PUBLISH_EVERY: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::af_xdp::headers;

    fn at(seconds: u64) -> Instant {
        Instant::from_nanos(seconds * 1_000_000_000)
    }

    fn neighbour(seconds: u64) -> Neighbour {
        Neighbour {
            link: headers::tests::link(),
            local: "192.0.2.1".parse().unwrap(),
            seen: at(seconds),
            distrusted_until: at(0),
        }
    }

    #[test]
    fn neighbour_that_one_partition_has_learnt_is_found_by_another_until_it_is_too_old() {
        let shared = Arc::new(SharedNeighbours::default());
        let [mut one, mut other] = [(); 2].map(|()| Neighbours::new(Arc::clone(&shared)));
        let peer = "192.0.2.2".parse().unwrap();
        assert!(other.find(at(1), peer).is_none());
        one.learn(peer, neighbour(1));
        assert!(other.find(at(2), peer).is_some());
        // Frames keep coming to the one.
        for second in 2..100 {
            one.learn(peer, neighbour(second));
            assert!(other.find(at(second), peer).is_some(), "second {second}");
        }
        assert!(one.find(at(128), peer).is_some());
        assert!(one.find(at(130), peer).is_none());
        assert!(other.find(at(130), peer).is_none());
    }

    #[test]
    fn neighbour_is_the_newest_one_whichever_peers_were_heard_between() {
        let mut neighbours = Neighbours::new(Arc::default());
        let [one, other]: [IpAddr; 2] = ["192.0.2.2", "192.0.2.3"].map(|text| text.parse().unwrap());
        neighbours.learn(one, neighbour(1));
        neighbours.learn(other, neighbour(1));
        let before = neighbours.changes();
        // The one keeps sending, and the other is asked of between.
        for second in 2..60 {
            neighbours.learn(one, neighbour(second));
            neighbours.find(at(second), other);
        }
        assert!(neighbours.find(at(80), one).is_some());
        assert!(neighbours.find(at(80), other).is_none());
        // Published again now and then, but not for each frame.
        assert!((before..before + 10).contains(&neighbours.changes()));
    }

    #[test]
    fn neighbour_by_which_nothing_arrives_is_left_to_the_kernel_until_frames_come_by_another() {
        let mut neighbours = Neighbours::new(Arc::default());
        let peer = "192.0.2.2".parse().unwrap();
        neighbours.learn(peer, neighbour(1));
        neighbours.distrust(at(2), peer);
        // It goes on sending: what it sends may take another way than what we send.
        neighbours.learn(peer, neighbour(3));
        assert!(neighbours.find(at(3), peer).is_none());
        let another = Neighbour {
            link: headers::tests::another_link(),
            ..neighbour(4)
        };
        neighbours.learn(peer, another);
        assert!(neighbours.find(at(4), peer).is_some());
        neighbours.distrust(at(5), peer);
        neighbours.learn(
            peer,
            Neighbour {
                seen: at(14),
                ..another
            },
        );
        assert!(neighbours.find(at(14), peer).is_none());
        assert!(neighbours.find(at(15), peer).is_some());
    }

    #[test]
    fn peers_without_number_take_no_memory_without_bound() {
        let mut neighbours = Neighbours::new(Arc::default());
        for index in 0..2 * NEIGHBOURS_MAX as u32 {
            neighbours.learn(IpAddr::V4(index.into()), neighbour(1));
        }
        assert_eq!(neighbours.known.entries.len(), NEIGHBOURS_MAX);
        // Those that are too old make room, all but the one that was the last.
        neighbours.learn("192.0.2.2".parse().unwrap(), neighbour(100));
        assert!(neighbours.known.entries.len() <= 2);
    }
}
