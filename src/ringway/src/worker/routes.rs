//! Routes: which connection a datagram belongs to.

use std::collections::HashMap;
use std::net::SocketAddr;

use ringway_engine::wire::cid::{ConnectionId, ResetToken};
use ringway_types::LOCAL_CID_LEN;
use rustc_hash::FxHashMap;

/// A worker's routes, from what a datagram carries to the slot of its connection.
///
/// Our own connection IDs are random numbers that no peer chooses, so a fast hash suffices. Where a peer chooses the
/// bytes, the hash is keyed with a random secret, so that nobody can aim at one bucket.
#[derive(Default)]
pub(super) struct Routes {
    by_local_cid: FxHashMap<u64, Route>,
    by_initial: HashMap<(SocketAddr, ConnectionId), u32>,
    by_reset_token: HashMap<(SocketAddr, [u8; 16]), u32>,
}

/// Where a connection ID of ours leads.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Route {
    /// To this slot of this worker.
    Here(u32),
    /// To this other partition, because the connection has moved there.
    Moved(usize),
}

impl Routes {
    /// Where a connection ID of ours leads.
    #[inline]
    pub(super) fn route(&self, cid: &[u8]) -> Option<Route> {
        self.by_local_cid.get(&key(cid)?).copied()
    }

    /// The slot that a connection ID of ours leads to, if its connection is here.
    #[inline]
    pub(super) fn local_cid(&self, cid: &[u8]) -> Option<u32> {
        match self.route(cid)? {
            Route::Here(index) => Some(index),
            Route::Moved(_) => None,
        }
    }

    /// Sets where a connection ID of ours leads.
    pub(super) fn set_local_cid(&mut self, cid: &ConnectionId, route: Route) {
        if let Some(key) = key(cid.as_bytes()) {
            self.by_local_cid.insert(key, route);
        }
    }

    /// Adds a route for a new connection ID of ours; false if the ID is taken.
    pub(super) fn add_local_cid(&mut self, cid: &ConnectionId, index: u32) -> bool {
        let Some(key) = key(cid.as_bytes()) else {
            return false;
        };
        match self.by_local_cid.entry(key) {
            std::collections::hash_map::Entry::Occupied(_) => false,
            std::collections::hash_map::Entry::Vacant(entry) => {
                entry.insert(Route::Here(index));
                true
            }
        }
    }

    /// Removes the route of a connection ID of ours.
    pub(super) fn remove_local_cid(&mut self, cid: &ConnectionId) {
        if let Some(key) = key(cid.as_bytes()) {
            self.by_local_cid.remove(&key);
        }
    }

    /// Gives back memory that only more routes would need.
    pub(super) fn shrink_to_fit(&mut self) {
        self.by_local_cid.shrink_to_fit();
        self.by_initial.shrink_to_fit();
        self.by_reset_token.shrink_to_fit();
    }

    /// The slot for a connection ID that a client chose for its first packets.
    pub(super) fn initial(&self, remote: SocketAddr, cid: &ConnectionId) -> Option<u32> {
        self.by_initial.get(&(remote, *cid)).copied()
    }

    /// True if a connection here began with this connection ID.
    pub(super) fn is_initial(&self, remote: SocketAddr, cid: &[u8]) -> bool {
        ConnectionId::new(cid).is_some_and(|cid| self.initial(remote, &cid).is_some())
    }

    /// Adds a route for a connection ID that a client chose for its first packets.
    pub(super) fn add_initial(&mut self, remote: SocketAddr, cid: ConnectionId, index: u32) {
        self.by_initial.insert((remote, cid), index);
    }

    /// Removes that route.
    pub(super) fn remove_initial(&mut self, remote: SocketAddr, cid: &ConnectionId) {
        self.by_initial.remove(&(remote, *cid));
    }

    /// The slot of the connection that this stateless reset token, from this address, would reset.
    pub(super) fn reset_token(&self, remote: SocketAddr, token: &ResetToken) -> Option<u32> {
        self.by_reset_token.get(&(remote, token.0)).copied()
    }

    /// Adds a route for a stateless reset token that a peer has given us.
    pub(super) fn add_reset_token(&mut self, remote: SocketAddr, token: &ResetToken, index: u32) {
        self.by_reset_token.insert((remote, token.0), index);
    }

    /// Removes that route.
    pub(super) fn remove_reset_token(&mut self, remote: SocketAddr, token: &ResetToken) {
        self.by_reset_token.remove(&(remote, token.0));
    }
}

/// A connection ID of ours as one number; `None` if it has another length.
fn key(cid: &[u8]) -> Option<u64> {
    Some(u64::from_ne_bytes(<[u8; LOCAL_CID_LEN]>::try_from(cid).ok()?))
}
