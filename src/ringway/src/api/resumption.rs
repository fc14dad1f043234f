//! Resumption: ticket keys, replay protection and ticket stores of configurations; what a server writes into tickets, and what it says of them.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use ringway_engine::connection::early_data::{ResumptionAnswer, TicketError};
use ringway_engine::crypto::tickets::{
    ReplayProtection, ResumptionLevel, ServerResumption, TicketKey, TicketKeys,
};
use rustls::pki_types::ServerName;

use super::configuration::{Configuration, Tls};
use super::error::{CallError, ConfigurationError};
use super::settings::Settings;
use crate::worker::calls::CallOutcome;
use crate::worker::handles::Connection;
use crate::worker::ticket_store::{MemoryTicketStore, TicketDestination, TicketScope, TicketStore};

/// What a configuration says of tickets.
pub(super) struct Resumption {
    server: Mutex<ServerResumption>,
    /// `None`: sessions are not resumed.
    client: Option<RwLock<Arc<dyn TicketStore>>>,
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

    fn server(&self) -> MutexGuard<'_, ServerResumption> {
        self.server.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The same TLS with what this says.
    pub(super) fn apply(&self, tls: Tls) -> Tls {
        match tls {
            Tls::Client(tls) if self.client.is_some() => Tls::Client(tls.with_resumption()),
            Tls::Server(tls) => Tls::Server(tls.with_resumption(self.server().clone())),
            tls => tls,
        }
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

/// Resumption of sessions. See [`manual::resumption`](crate::manual::resumption).
impl Configuration {
    /// Replaces the keys that seal a server's tickets: the first of these seals, all of them open. MsQuic: `QUIC_PARAM_CONFIGURATION_TICKET_KEYS`.
    ///
    /// Unless this is called, a configuration has a random key of its own, and its tickets serve itself alone. To rotate keys in a fleet, see
    /// [`TicketKeys`].
    pub fn set_ticket_keys(&self, keys: &[TicketKey]) {
        self.resumption.server().keys.set(keys);
    }

    /// The keys that seal a server's tickets, for other configurations ([`Configuration::share_ticket_keys`]).
    pub fn ticket_keys(&self) -> TicketKeys {
        self.resumption.server().keys.clone()
    }

    /// Makes a server seal its tickets with the keys of another one: a ticket of either serves both, if they ask the same of clients.
    pub fn share_ticket_keys(&self, keys: &TicketKeys) {
        self.change_resumption(|server| server.keys = keys.clone());
    }

    /// Separates tickets of configurations that share keys: a ticket serves those with the same context alone.
    ///
    /// What is asked of clients, no certificate, or one of certain issuers, separates them anyway. But configurations that were made from one of rustls
    /// do not say what that is: their tickets serve no other configuration, unless they have a context.
    pub fn set_ticket_context(&self, context: &[u8]) {
        self.change_resumption(|server| server.context = context.to_vec());
    }

    /// Sees to it that a ticket brings 0-RTT to this server once. Default: [`StrikeRegister::shared`](crate::StrikeRegister::shared), which knows of this
    /// process alone.
    pub fn set_replay_protection(&self, protection: Arc<dyn ReplayProtection>) {
        self.change_resumption(|server| server.replay_protection = protection);
    }

    /// Keeps the tickets of a client's connections there. Default: in [`MemoryTicketStore::shared`](crate::MemoryTicketStore::shared).
    pub fn set_ticket_store(&self, store: Arc<dyn TicketStore>) {
        if let Some(client) = &self.resumption.client {
            *client.write().unwrap_or_else(PoisonError::into_inner) = store;
        }
    }

    fn change_resumption(&self, change: impl FnOnce(&mut ServerResumption)) {
        change(&mut self.resumption.server());
        self.change_tls(|tls| self.resumption.apply(tls));
    }
}

/// Resumption of sessions. See [`manual::resumption`](crate::manual::resumption).
impl Connection {
    /// Gives the client a ticket for later connections, with up to 1000 bytes of data that
    /// [`Resumed`](crate::ConnectionEvent::Resumed) brings back then. A server that wants its clients to resume sessions calls it after `Connected`,
    /// at any time; as often as [`Settings::tickets_per_connection`] says. MsQuic: `ConnectionSendResumptionTicket`.
    ///
    /// # Errors
    /// There is no ticket to give: [`Settings::server_resumption_level`] does not allow it, all are given out, the handshake is not complete, or the
    /// data is too long. A call that is queued, because it comes from outside of the connection's handlers, has no effect then.
    pub fn send_resumption_ticket(&self, data: &[u8]) -> Result<(), CallError> {
        if data.len() > ringway_engine::crypto::tickets::APPLICATION_DATA_MAX {
            return Err(CallError::InvalidState(
                "a ticket carries 1000 bytes of data at most",
            ));
        }
        let data = data.to_vec();
        match self.0.call(move |hosted, _| hosted.send_resumption_ticket(&data)) {
            CallOutcome::Completed(Ok(())) | CallOutcome::Queued => Ok(()),
            CallOutcome::Completed(Err(error)) => Err(CallError::InvalidState(match error {
                TicketError::NotServer => "only servers give out tickets",
                TicketError::NotConnected => {
                    "tickets are given out while the connection is open and its handshake is complete"
                }
                TicketError::Issue(_) => {
                    "no ticket is left: see server_resumption_level and tickets_per_connection in the settings"
                }
            })),
            CallOutcome::Closed => Err(CallError::Closed),
        }
    }

    /// Answers [`Resumed`](crate::ConnectionEvent::Resumed) after its handler has returned
    /// [`Pending`](crate::EventStatus::Pending). Without effect if no answer is awaited. MsQuic: `ConnectionResumptionTicketValidationComplete`.
    ///
    /// # Errors
    /// The connection has ended.
    pub fn resumption_ticket_validation_complete(&self, answer: ResumptionAnswer) -> Result<(), CallError> {
        match self
            .0
            .call(move |hosted, now| hosted.complete_resumption(now, answer))
        {
            CallOutcome::Completed(()) | CallOutcome::Queued => Ok(()),
            CallOutcome::Closed => Err(CallError::Closed),
        }
    }
}

/// RFC 8446 section 4.6.1.
pub(super) const TICKET_LIFETIME_MAX: Duration = Duration::from_secs(7 * 24 * 3600);
