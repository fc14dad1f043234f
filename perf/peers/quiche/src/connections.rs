//! The connections behind a socket: whose a datagram is, whose time is up, who has something to do.

use std::cmp::Reverse;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::ops::{Index, IndexMut};
use std::time::{Duration, Instant};

use anyhow::Result;
use priority_queue::PriorityQueue;
use quiche::{Error, Header, RecvInfo};
use ringway_peers::key_log;
use ringway_peers_sans_io::{Sender, is_handshake};
use rustc_hash::{FxBuildHasher, FxHashMap};
use slab::Slab;

use crate::{Connection, ID_LEN};

/// RFC 9000, section 20.1.
const INTERNAL_ERROR: u64 = 1;

pub struct Connections<S> {
    hosted: Slab<Hosted<S>>,
    /// Connection IDs that lead here, and the connections that they mean.
    routes: FxHashMap<Box<[u8]>, usize>,
    timers: PriorityQueue<usize, Reverse<Instant>, FxBuildHasher>,
    ready: VecDeque<usize>,
    local: SocketAddr,
    keep_alive: Option<Duration>,
}

/// A connection, and what its end keeps for it.
pub struct Hosted<S> {
    pub connection: Connection,
    pub state: S,
    ids: Vec<Box<[u8]>>,
    is_ready: bool,
    /// When its silence began: it last received something, or said something against the silence.
    heard: Instant,
}

impl<S> Connections<S> {
    /// None yet, on a socket at `local`. Each will send something after so much silence.
    pub fn new(local: SocketAddr, keep_alive: Option<Duration>) -> Self {
        Connections {
            hosted: Slab::new(),
            routes: FxHashMap::default(),
            timers: PriorityQueue::default(),
            ready: VecDeque::new(),
            local,
            keep_alive,
        }
    }

    /// Adds a connection to which `ids` lead.
    pub fn add(&mut self, mut connection: Connection, state: S, ids: &[&[u8]], now: Instant) -> usize {
        if let Some(file) = key_log() {
            connection.set_keylog(Box::new(file));
        }
        let ids: Vec<Box<[u8]>> = ids.iter().map(|&id| id.into()).collect();
        let entry = self.hosted.vacant_entry();
        let key = entry.key();
        self.routes.extend(ids.iter().map(|id| (id.clone(), key)));
        entry.insert(Hosted {
            connection,
            state,
            ids,
            is_ready: false,
            heard: now,
        });
        key
    }

    /// Gives a datagram to its connection, if there is one.
    pub fn receive(&mut self, from: SocketAddr, datagram: &mut [u8], now: Instant) -> Option<usize> {
        let key = if is_handshake(datagram) {
            let header = Header::from_slice(datagram, ID_LEN).ok()?;
            *self.routes.get(&header.dcid[..])?
        } else {
            // Behind the first byte is one of our own connection IDs.
            *self.routes.get(datagram.get(1..1 + ID_LEN)?)?
        };
        let hosted = &mut self.hosted[key];
        let info = RecvInfo { from, to: self.local };
        // What it finds wrong it tells us, and its peer only a code that stands for much.
        if let Err(error) = hosted.connection.recv(datagram, info) {
            eprintln!("quiche: receiving from {from}: {error:?}");
        }
        hosted.heard = now;
        Some(key)
    }

    /// How long nothing is to be done if nothing arrives; `None`: for ever.
    pub fn idle_time(&self, now: Instant) -> Option<Duration> {
        let (_, Reverse(next)) = self.timers.peek()?;
        Some(next.saturating_duration_since(now))
    }

    /// Lets act whose time is up.
    pub fn expire(&mut self, now: Instant) {
        while let Some((&key, &Reverse(at))) = self.timers.peek()
            && at <= now
        {
            self.timers.pop();
            let hosted = &mut self.hosted[key];
            hosted.connection.on_timeout();
            if self.keep_alive.is_some_and(|limit| hosted.heard + limit <= now) {
                // This breaks the silence.
                hosted.heard = now;
                // It fails where nobody would hear it.
                let _ = hosted.connection.send_ack_eliciting();
            }
            self.make_ready(key);
        }
    }

    /// There is something to do on a connection.
    pub fn make_ready(&mut self, key: usize) {
        let hosted = &mut self.hosted[key];
        if !hosted.is_ready {
            hosted.is_ready = true;
            self.ready.push_back(key);
        }
    }

    /// A connection on which there is something to do.
    pub fn next_ready(&mut self) -> Option<usize> {
        let key = self.ready.pop_front()?;
        self.hosted[key].is_ready = false;
        Some(key)
    }

    /// Sends what a connection has to send, and sets its timer.
    pub fn send(&mut self, key: usize, sender: &mut Sender) -> Result<()> {
        let hosted = &mut self.hosted[key];
        loop {
            match hosted.connection.send(sender.room()) {
                Ok((len, info)) => sender.commit(len, info.to)?,
                Err(Error::Done) => break,
                Err(error) => {
                    eprintln!("quiche: sending: {error:?}");
                    if hosted.connection.close(false, INTERNAL_ERROR, b"").is_err() {
                        break;
                    }
                }
            }
        }
        let keep_alive = self.keep_alive.map(|limit| hosted.heard + limit);
        match hosted
            .connection
            .timeout_instant()
            .into_iter()
            .chain(keep_alive)
            .min()
        {
            Some(at) => drop(self.timers.push(key, Reverse(at))),
            None => drop(self.timers.remove(&key)),
        }
        Ok(())
    }

    /// Forgets a connection.
    pub fn remove(&mut self, key: usize) -> Hosted<S> {
        let hosted = self.hosted.remove(key);
        for id in &hosted.ids {
            self.routes.remove(id);
        }
        self.timers.remove(&key);
        if hosted.is_ready {
            self.ready.retain(|&other| other != key);
        }
        hosted
    }

    pub fn keys(&self) -> Vec<usize> {
        self.hosted.iter().map(|(key, _)| key).collect()
    }
}

impl<S> Index<usize> for Connections<S> {
    type Output = Hosted<S>;

    fn index(&self, key: usize) -> &Hosted<S> {
        &self.hosted[key]
    }
}

impl<S> IndexMut<usize> for Connections<S> {
    fn index_mut(&mut self, key: usize) -> &mut Hosted<S> {
        &mut self.hosted[key]
    }
}
