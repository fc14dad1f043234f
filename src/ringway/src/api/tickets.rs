//! Ticket keys, replay protection and ticket stores of configurations; what a server writes into tickets, and what it says of them.

use std::sync::{Arc, PoisonError};

use ringway_engine::connection::resumption::ResumptionAnswer;
use ringway_engine::crypto::tickets::{ReplayProtection, ServerResumption, TicketKey, TicketKeys};
use ringway_engine::crypto::tls::TicketImportError;

use super::configuration::{Configuration, Tls};
use super::error::CallError;
use crate::worker::calls::CallOutcome;
use crate::worker::handles::Connection;
use crate::worker::known::{NO_TICKET, Question};
use crate::worker::ticket_store::{ResumptionTicket, TicketScope, TicketStore};

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
    /// What is asked of clients, no certificate, or one of certain issuers, separates them anyway. But configurations that were made from one of
    /// rustls do not say what that is: their tickets serve no other configuration, unless they have a context.
    pub fn set_ticket_context(&self, context: &[u8]) {
        self.change_resumption(|server| server.context = context.to_vec());
    }

    /// Sees to it that a ticket brings 0-RTT to this server once. Default: [`StrikeRegister::shared`](crate::StrikeRegister::shared), which knows of
    /// this process alone.
    pub fn set_replay_protection(&self, protection: Arc<dyn ReplayProtection>) {
        self.change_resumption(|server| server.replay_protection = protection);
    }

    /// Keeps the tickets of a client's connections there. Default: in [`MemoryTicketStore::shared`](crate::MemoryTicketStore::shared).
    pub fn set_ticket_store(&self, store: Arc<dyn TicketStore>) {
        if let Some(client) = &self.resumption.client {
            *client.write().unwrap_or_else(PoisonError::into_inner) = store;
        }
    }

    /// A ticket that [`ResumptionTicket::export`] has made bytes of, in this process or another one, for a [`TicketStore`] that keeps them outside
    /// of the process. `scope` is what the store is asked for. Takes some 0.3 ms, most of it a handshake in memory by which rustls gets a session;
    /// the server's certificates are verified again.
    ///
    /// Where the bytes come from is not checked: who can choose them can pass for the server. Keep them as a private key.
    ///
    /// # Errors
    ///
    /// The bytes are no ticket, or it is of no use here: [`TicketImportError`] says why, and what to do. Among the reasons are such of this
    /// configuration: it is a server's, or of rustls, does not resume sessions, or asks its handlers about certificates. A connection can begin
    /// without the ticket.
    pub fn import_ticket(
        &self,
        scope: &TicketScope,
        bytes: &[u8],
    ) -> Result<ResumptionTicket, TicketImportError> {
        match self.tls() {
            Tls::Client(tls) => tls
                .import_ticket(&scope.server_name, scope.version, bytes)
                .map(ResumptionTicket),
            Tls::Server(_) => Err(TicketImportError::Unsupported),
        }
    }

    fn change_resumption(&self, change: impl FnOnce(&mut ServerResumption)) {
        change(&mut self.resumption.server());
        self.change_tls(|tls| tls.resuming(&self.resumption));
    }
}

/// Resumption of sessions. See [`manual::resumption`](crate::manual::resumption).
impl Connection {
    /// Gives the client a ticket for later connections, with up to 1000 bytes of data that
    /// [`Resumed`](crate::ConnectionEvent::Resumed) brings back then. A server that wants its clients to resume sessions calls it after `Connected`,
    /// at any time; as often as [`Settings::tickets_per_connection`](crate::Settings::tickets_per_connection) says. MsQuic:
    /// `ConnectionSendResumptionTicket`.
    ///
    /// Clients take tickets for a while: those of this library for [`Settings::client_ticket_wait`](crate::Settings::client_ticket_wait).
    ///
    /// # Errors
    ///
    /// [`CallError::InvalidState`]: there is no ticket to give: this is a client,
    /// [`Settings::server_resumption_level`](crate::Settings::server_resumption_level) does not allow it, all are given out, the handshake is not
    /// complete, or the data is too long: a long chain of the client's certificates leaves less room, or none. [`CallError::Closed`]: the connection
    /// has ended.
    pub fn send_resumption_ticket(&self, data: &[u8]) -> Result<(), CallError> {
        let taken = self.0.known.take_ticket(data.len());
        taken.map_err(|reason| self.misfit(reason))?;
        let data = data.to_vec();
        match self.0.call(move |hosted, _| hosted.send_resumption_ticket(&data)) {
            CallOutcome::Completed(Ok(())) | CallOutcome::Queued => Ok(()),
            CallOutcome::Completed(Err(_)) => {
                self.0.known.put_ticket_back();
                Err(CallError::InvalidState(NO_TICKET))
            }
            CallOutcome::Closed => Err(CallError::Closed),
        }
    }

    /// Answers [`Resumed`](crate::ConnectionEvent::Resumed) after its handler has returned
    /// [`Pending`](crate::EventStatus::Pending). MsQuic: `ConnectionResumptionTicketValidationComplete`.
    ///
    /// # Errors
    ///
    /// [`CallError::InvalidState`]: no answer is awaited. [`CallError::Closed`]: the connection has ended.
    pub fn resumption_ticket_validation_complete(&self, answer: ResumptionAnswer) -> Result<(), CallError> {
        if !self.0.known.answer(Question::Ticket) {
            return Err(self.misfit("no ticket waits for an answer"));
        }
        match self
            .0
            .call(move |hosted, now| hosted.complete_resumption(now, answer))
        {
            CallOutcome::Completed(()) | CallOutcome::Queued => Ok(()),
            CallOutcome::Closed => Err(CallError::Closed),
        }
    }
}
