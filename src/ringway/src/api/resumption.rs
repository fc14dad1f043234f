//! What a configuration says of tickets.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use ringway_engine::crypto::tickets::{ResumptionLevel, ServerResumption, TicketKey, TicketKeys};
use rustls::pki_types::ServerName;

use super::error::ConfigurationError;
use super::settings::Settings;
use crate::worker::ticket_store::{MemoryTicketStore, TicketDestination, TicketScope, TicketStore};

/// What a configuration says of tickets.
pub(super) struct Resumption {
    server: Mutex<ServerResumption>,
    /// `None`: sessions are not resumed.
    pub(super) client: Option<RwLock<Arc<dyn TicketStore>>>,
    /// Tells configurations apart.
    number: u64,
}

impl Resumption {
    pub(super) fn new(settings: &Settings) -> Result<Self, ConfigurationError> {
        static NUMBERS: AtomicU64 = AtomicU64::new(0);
        let keys = match settings.server_resumption_level {
            ResumptionLevel::None => TicketKeys::new(&[]),
            _ => TicketKeys::new(&[TicketKey::random().map_err(|_| ConfigurationError::Random)?]),
        };
        let store: Arc<dyn TicketStore> = MemoryTicketStore::shared();
        Ok(Resumption {
            server: Mutex::new(ServerResumption {
                lifetime: settings.ticket_lifetime,
                tickets: settings.tickets_per_connection.into(),
                ..ServerResumption::new(settings.server_resumption_level, keys)
            }),
            client: settings.client_resumption_enabled.then(|| RwLock::new(store)),
            number: NUMBERS.fetch_add(1, Ordering::Relaxed),
        })
    }

    pub(super) fn server(&self) -> MutexGuard<'_, ServerResumption> {
        self.server.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a client's sessions are resumed.
    pub(super) fn resumes(&self) -> bool {
        self.client.is_some()
    }

    /// Where the tickets of a connection to this server are, and go.
    pub(super) fn destination(
        &self,
        server_name: &ServerName<'static>,
        port: u16,
        settings: &ringway_engine::connection::config::Config,
    ) -> Option<TicketDestination> {
        let store = self
            .client
            .as_ref()?
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        Some(TicketDestination {
            store: Arc::clone(&store),
            scope: TicketScope {
                server_name: server_name.clone(),
                port,
                version: settings.version,
                configuration: self.number,
            },
        })
    }
}
