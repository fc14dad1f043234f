//! What is worth knowing about a connection on any thread. It changes a few times in a connection's life, never with a packet.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ringway_engine::connection::close::CloseReason;
use ringway_engine::crypto::tls::TlsInfo;

/// What is known of a connection.
pub(crate) struct ConnectionFacts {
    /// Tells it from all others of the process.
    pub number: u64,
    inner: Mutex<Facts>,
}

/// Facts that may change.
#[derive(Clone)]
pub(crate) struct Facts {
    /// Our address.
    pub local: SocketAddr,
    /// The peer's.
    pub remote: SocketAddr,
    /// What the handshake has agreed on; `None`: it is not complete.
    pub tls: Option<Arc<TlsInfo>>,
    /// Why it has ended; `None`: it has not.
    pub end: Option<Arc<CloseReason>>,
}

impl ConnectionFacts {
    /// Of a connection between these addresses.
    pub(crate) fn new(local: SocketAddr, remote: SocketAddr) -> Self {
        static NUMBERS: AtomicU64 = AtomicU64::new(1);
        ConnectionFacts {
            number: NUMBERS.fetch_add(1, Ordering::Relaxed),
            inner: Mutex::new(Facts {
                local,
                remote,
                tls: None,
                end: None,
            }),
        }
    }

    /// As they are now. Do not hold it.
    pub(crate) fn get(&self) -> MutexGuard<'_, Facts> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
