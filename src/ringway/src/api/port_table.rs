//! The ports of a registration: who asks for an address that is in use already shares it.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use crate::worker::port_lease::{PortLease, Release};

/// Ports by their local addresses.
#[derive(Default)]
pub(super) struct PortTable(Mutex<HashMap<SocketAddr, Entry>>);

struct Entry {
    lease: Weak<PortLease>,
    release: Arc<Release>,
}

impl PortTable {
    fn entries(&self) -> MutexGuard<'_, HashMap<SocketAddr, Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The port at this address, shared if it is in use, else as `bind` makes it. If it is just being given up, waits for that a little, unless the
    /// caller `must_not_wait`.
    pub(super) fn share_or_bind(
        &self,
        local: SocketAddr,
        must_not_wait: bool,
        bind: impl FnOnce() -> io::Result<Arc<PortLease>>,
    ) -> io::Result<Arc<PortLease>> {
        let mut may_wait = !must_not_wait;
        let mut entries = loop {
            let entries = self.entries();
            let Some(entry) = entries.get(&local) else {
                break entries;
            };
            if let Some(lease) = entry.lease.upgrade() {
                return Ok(lease);
            }
            let release = Arc::clone(&entry.release);
            if !std::mem::take(&mut may_wait) {
                break entries;
            }
            drop(entries);
            release.wait(RELEASE_TIME);
        };
        let lease = bind()?;
        if entries.len() >= SWEEP_AT && entries.len().is_power_of_two() {
            entries.retain(|_, entry| entry.lease.strong_count() > 0);
        }
        entries.insert(
            lease.local,
            Entry {
                lease: Arc::downgrade(&lease),
                release: Arc::clone(lease.release()),
            },
        );
        Ok(lease)
    }
}

/// How long a port that is just being given up is waited for.
const RELEASE_TIME: Duration = Duration::from_secs(1);
/// Entries from which on those of ports that are gone are looked for.
const SWEEP_AT: usize = 64;
