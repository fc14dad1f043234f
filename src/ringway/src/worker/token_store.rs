//! Address validation tokens that servers have given a client for its next connections (RFC 9000 section 8.1.3).

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use ringway_engine::wire::Version;

/// A server, and the version of QUIC in which it gave a token: for no other may it be used (RFC 9369 section 5).
type Server = (SocketAddr, Version);

/// Tokens by server. Used when a connection starts and when a server sends a token, never for data.
#[derive(Default)]
pub(crate) struct TokenStore(Mutex<HashMap<Server, Vec<Vec<u8>>>>);

impl TokenStore {
    fn lock(&self) -> MutexGuard<'_, HashMap<Server, Vec<Vec<u8>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps a token; if there are many from this server, the oldest goes.
    pub(crate) fn put(&self, server: SocketAddr, version: Version, token: Vec<u8>) {
        let server = (server, version);
        let mut servers = self.lock();
        if servers.len() >= SERVERS_MAX && !servers.contains_key(&server) {
            return;
        }
        let tokens = servers.entry(server).or_default();
        if tokens.len() >= TOKENS_PER_SERVER_MAX {
            tokens.remove(0);
        }
        tokens.push(token);
    }

    /// Takes a token out. Each is used once, so that connections cannot be linked by it.
    pub(crate) fn take(&self, server: SocketAddr, version: Version) -> Option<Vec<u8>> {
        let server = (server, version);
        let mut servers = self.lock();
        let token = servers.get_mut(&server)?.pop();
        if servers.get(&server).is_some_and(Vec::is_empty) {
            servers.remove(&server);
        }
        token
    }
}

const SERVERS_MAX: usize = 256;
const TOKENS_PER_SERVER_MAX: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn token_is_used_once_and_the_newest_first() {
        let store = TokenStore::default();
        let server: SocketAddr = "192.0.2.1:443".parse().unwrap();
        assert_eq!(store.take(server, Version::V1), None);
        for token in 0..10 {
            store.put(server, Version::V1, vec![token]);
        }
        assert_eq!(
            store.take(server, Version::V2),
            None,
            "a token serves its version alone"
        );
        let kept: Vec<_> = std::iter::from_fn(|| store.take(server, Version::V1)).collect();
        assert_eq!(kept, [vec![9], vec![8], vec![7], vec![6]]);
    }
}
