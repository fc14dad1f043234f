//! Calls on connections.

use std::net::SocketAddr;
use std::sync::Arc;

use ringway_engine::connection::stats::ConnectionStats;
use ringway_engine::crypto::tickets::TicketBytes;
use ringway_engine::crypto::tls::TlsInfo;
use ringway_types::Instant;
use rustls::pki_types::ServerName;

use super::adopted_socket::{AdoptedSocket, check_versions};
use super::configuration::{Configuration, Tls};
use super::error::{CallError, REASON_PHRASE_MAX, SetupError, checked_code};
use super::registration::Registration;
use super::settings_change::SettingsChange;
use crate::worker::between_turns;
use crate::worker::calls::CallOutcome;
use crate::worker::events::ConnectionHandler;
use crate::worker::handles::{Connection, ConnectionShared};
use crate::worker::hosted_connection::HostedConnection;
use crate::worker::inbox::{ClientStart, Operation};
use crate::worker::known::Question;
use crate::worker::port_lease::PortLease;

/// Where to connect to.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct ConnectTarget {
    /// The server's address and port.
    pub remote: SocketAddr,
    /// The name that the server's certificate must be for: a DNS name, in which case does not matter, or an IP address.
    pub server_name: String,
    /// The partition that hosts the connection for its whole life. `None`: the partition of the calling event handler,
    /// or, outside of handlers, each partition in turn.
    pub partition: Option<usize>,
    /// The local address. `None`: the system chooses, and the connection shares its port with others. Connections of one partition, and listeners,
    /// may have the same local address: they share the port, which is free again when the last of them has ended. With port 0 the
    /// connection gets a port of its own.
    pub local: Option<SocketAddr>,
    /// Settings in which this connection differs from its configuration.
    pub settings: SettingsChange,
    /// A ticket of another process, as [`ResumptionTicket::export`](crate::ResumptionTicket::export) gives it: the session goes on, with 0-RTT if the
    /// ticket allows it. `None`: one from the configuration's store, if there is any. MsQuic: `QUIC_PARAM_CONN_RESUMPTION_TICKET`.
    pub resumption_ticket: Option<TicketBytes>,
}

impl ConnectTarget {
    /// A target with this address and server name, and the defaults for the rest.
    pub fn new(remote: SocketAddr, server_name: impl Into<String>) -> Self {
        ConnectTarget {
            remote,
            server_name: server_name.into(),
            partition: None,
            local: None,
            settings: SettingsChange::new(),
            resumption_ticket: None,
        }
    }

    /// The same on this partition, or wherever it suits.
    #[must_use]
    pub fn with_partition(self, partition: impl Into<Option<usize>>) -> Self {
        ConnectTarget {
            partition: partition.into(),
            ..self
        }
    }

    /// The same from this local address, or one that the system chooses.
    #[must_use]
    pub fn with_local(self, local: impl Into<Option<SocketAddr>>) -> Self {
        ConnectTarget {
            local: local.into(),
            ..self
        }
    }

    /// The same with these settings where they differ from the configuration's.
    #[must_use]
    pub fn with_settings(self, settings: SettingsChange) -> Self {
        ConnectTarget { settings, ..self }
    }

    /// The same with this ticket of another process. A ticket serves once, so this target is for one [`start`](Connection::start).
    #[must_use]
    pub fn with_resumption_ticket(self, ticket: impl Into<TicketBytes>) -> Self {
        ConnectTarget {
            resumption_ticket: Some(ticket.into()),
            ..self
        }
    }
}

impl Connection {
    /// Opens a connection. The handler receives [`Connected`](crate::ConnectionEvent::Connected), or an event that says
    /// why it failed. The connection ends when its last handle is [dropped](Connection#dropping), unless it is
    /// [detached](Connection::detach). MsQuic: `ConnectionOpen` and `ConnectionStart`.
    ///
    /// Streams may be opened and data queued at once; they are sent when the handshake has completed, or before, where
    /// [`SendFlags::ALLOW_0_RTT`](crate::SendFlags::ALLOW_0_RTT)
    /// says that it may.
    ///
    /// # Errors
    ///
    /// [`SetupError::InvalidConfig`]: the configuration is a server's, the partition does not exist, or the local address is of another version of
    /// IP than the remote one. [`SetupError::ServerName`]: the server's name is neither a DNS name nor an IP address. [`SetupError::Settings`]: a
    /// setting is out of its range. [`SetupError::Ticket`]: the target's ticket does not serve this connection: start it without.
    /// [`SetupError::Io`]: the system refuses the local address. [`SetupError::Closed`]: the registration is being closed.
    pub fn start(
        registration: &Registration,
        configuration: &Arc<Configuration>,
        target: &ConnectTarget,
        handler: impl ConnectionHandler,
    ) -> Result<Connection, SetupError> {
        let inner = &registration.inner;
        let partition = target.partition.unwrap_or_else(|| inner.next_partition());
        inner.check_partition(partition)?;
        if let Some(local) = target.local {
            check_versions(local, false, target.remote)?;
        }
        let port = || {
            let port = inner.client_port(partition, target.remote, target.local);
            port.map_err(SetupError::io("binding a UDP socket for a connection"))
        };
        Self::start_at(
            registration,
            partition,
            port,
            configuration,
            target,
            Box::new(handler),
        )
    }

    /// Opens a connection from a UDP socket that the application has opened, for the registration that has taken it over. It is on the partition
    /// that receives from the socket, unless the target names another one; from a group of sockets as any connection.
    ///
    /// # Errors
    ///
    /// As [`Connection::start`], and [`SetupError::InvalidConfig`]: the target names a local address other than
    /// [that of the socket](AdoptedSocket::local_address), or a remote address of the version of IP that the socket does not have.
    pub fn start_on(
        socket: &AdoptedSocket,
        configuration: &Arc<Configuration>,
        target: &ConnectTarget,
        handler: impl ConnectionHandler,
    ) -> Result<Connection, SetupError> {
        let registration = socket.registration();
        let inner = &registration.inner;
        if let Some(local) = target.local {
            socket.check_local(local)?;
        }
        socket.check_remote(target.remote)?;
        let partition = target.partition.or(socket.partition());
        let partition = partition.unwrap_or_else(|| inner.next_partition());
        inner.check_partition(partition)?;
        let port = || {
            let (port, bound) = socket.port();
            inner.attach_everywhere(&port, bound);
            Ok(port)
        };
        Self::start_at(
            registration,
            partition,
            port,
            configuration,
            target,
            Box::new(handler),
        )
    }

    fn start_at(
        registration: &Registration,
        partition: usize,
        port: impl FnOnce() -> Result<Arc<PortLease>, SetupError>,
        configuration: &Arc<Configuration>,
        target: &ConnectTarget,
        handler: Box<dyn ConnectionHandler>,
    ) -> Result<Connection, SetupError> {
        let Tls::Client(tls) = configuration.tls() else {
            return Err(SetupError::InvalidConfig(
                "the configuration is for a server: make one with Configuration::client".to_owned(),
            ));
        };
        // In small letters, so that everything kept by the name of a server is found again.
        let server_name = ServerName::try_from(target.server_name.to_ascii_lowercase())
            .map_err(|_| SetupError::ServerName(target.server_name.clone()))?;
        let config = configuration.changed(&target.settings)?;
        let ticket = target.resumption_ticket.as_ref();
        let ticket = ticket.map(|ticket| tls.import_ticket(&server_name, config.version, ticket));
        let ticket = ticket.transpose().map_err(SetupError::Ticket)?;
        let inboxes = &registration.inner.inboxes;
        let port = port()?;
        let shared = ConnectionShared::new(inboxes, partition, port.local, target.remote);
        let limit = usize::from(configuration.config.maximum_datagram_size);
        shared.known.set_datagram_max(limit);
        if let limit @ 1.. = configuration.config.streams.send_queue_limit {
            shared.known.set_send_room(limit.min(i64::MAX as u64) as i64);
        }
        let tickets =
            configuration
                .resumption
                .destination(&server_name, target.remote.port(), &configuration.config);
        // Before its handler can be called. From here on it arrives at its worker, if there is one.
        let connection = Connection::attached(shared);
        let start = ClientStart {
            connection: Connection::of_worker(&connection.0),
            config,
            tls,
            server_name,
            port,
            remote: target.remote,
            handler,
            ticket,
            tickets,
            tokens: Arc::clone(&configuration.tokens),
        };
        if !inboxes[partition].post(Operation::OpenConnection(Box::new(start))) {
            return Err(SetupError::Closed);
        }
        Ok(connection)
    }

    /// Closes the connection with an application error code. MsQuic: `ConnectionShutdown`.
    ///
    /// Data that the peer has not acknowledged may be lost. To be sure that all of it arrives, wait for the streams to
    /// end first.
    ///
    /// # Errors
    ///
    /// [`CallError::ErrorCode`]: the code is above [`ERROR_CODE_MAX`](crate::ERROR_CODE_MAX). [`CallError::Closed`]: the connection has ended.
    pub fn shutdown(&self, code: u64) -> Result<(), CallError> {
        self.shutdown_with(code, "")
    }

    /// The same with a reason phrase for people, which the peer gets as it is. What the packet has no room for is cut off.
    ///
    /// # Errors
    ///
    /// As [`Connection::shutdown`], and [`CallError::ReasonPhrase`]: it is longer than [`REASON_PHRASE_MAX`](crate::REASON_PHRASE_MAX) bytes.
    pub fn shutdown_with(&self, code: u64, reason_phrase: &str) -> Result<(), CallError> {
        let code = checked_code(code)?;
        let len = reason_phrase.len();
        if len > REASON_PHRASE_MAX {
            return Err(CallError::ReasonPhrase { len });
        }
        let reason = reason_phrase.to_owned();
        self.queue(move |hosted, now| hosted.shutdown(now, code, reason))
    }

    /// Ends the connection at once without a word to the peer, which hears of it when its idle timeout is over, or by a stateless reset when it
    /// sends again. The code is for our own handlers. MsQuic: `QUIC_CONNECTION_SHUTDOWN_FLAG_SILENT`.
    ///
    /// # Errors
    ///
    /// As [`Connection::shutdown`].
    pub fn shutdown_silently(&self, code: u64) -> Result<(), CallError> {
        let code = checked_code(code)?;
        self.queue(move |hosted, _| hosted.shutdown_silently(code))
    }

    /// Runs `work` as in a handler of the connection: calls in it on the connection and its streams take effect at once, and nothing is queued for
    /// the worker. For tasks and whatever else runs on the thread that polls the connection's [`Execution`](crate::Execution), between turns; what
    /// follows from the calls comes in the next turn, but for what [`Stream::shutdown_inline`](crate::Stream::shutdown_inline)
    /// delivers. Within a handler of the connection it runs too.
    ///
    /// False, and nothing has run: another thread polls the context; this is in its turn, within another connection of it, or within what the
    /// application runs in a call; calls wait in its inbox, which come first; the connection has not begun, moves, or has ended; or the thread ends.
    /// Then make the calls as they are.
    ///
    /// Do not poll or drop the context in it. If it panics, the connection ends, as if a handler had.
    pub fn enter(&self, work: impl FnOnce()) -> bool {
        between_turns::enter(&self.0, work)
    }

    /// Has the handler receive [`Notified`](crate::ConnectionEvent::Notified) on its worker's thread, after the calls that this thread has made
    /// before. Calls that come before that event are one with it: however many threads notify however often, the worker hears of it once, and
    /// nothing is allocated.
    ///
    /// # Errors
    ///
    /// [`CallError::Closed`]: the connection has ended. If it ends after the call, the event may not come.
    pub fn notify(&self) -> Result<(), CallError> {
        if !self.0.known.notify() {
            return if self.0.gate().is_closed() {
                Err(CallError::Closed)
            } else {
                Ok(())
            };
        }
        self.queue(|hosted, _| hosted.notify())
    }

    /// Starts a key update (RFC 9001 section 6) as soon as one is allowed.
    ///
    /// # Errors
    ///
    /// [`CallError::Closed`]: the connection has ended.
    pub fn update_keys(&self) -> Result<(), CallError> {
        self.queue(|hosted, _| hosted.update_keys())
    }

    /// Calls `look` with the connection's counters and estimates, on its worker's thread.
    ///
    /// # Errors
    ///
    /// [`CallError::Closed`]: the connection has ended, and `look` is not called.
    pub fn with_stats(&self, look: impl FnOnce(&ConnectionStats) + Send + 'static) -> Result<(), CallError> {
        self.queue(|hosted, now| {
            let stats = hosted.stats(now);
            hosted.run_for_application(now, |_| look(&stats));
        })
    }

    /// Calls `look` with what the handshake has agreed on so far (cipher suite, group, application protocol, names, certificates), on its worker's
    /// thread; with `None` if a server has not accepted the client yet. After the handshake it also exports keying material.
    ///
    /// # Errors
    ///
    /// [`CallError::Closed`]: the connection has ended, and `look` is not called.
    pub fn with_tls_info(
        &self,
        look: impl FnOnce(Option<&TlsInfo>) + Send + 'static,
    ) -> Result<(), CallError> {
        self.queue(|hosted, now| {
            let info = hosted.tls_info();
            hosted.run_for_application(now, |_| look(info.as_ref()));
        })
    }

    /// Answers [`PeerCertificateReceived`](crate::ConnectionEvent::PeerCertificateReceived): the peer is trusted, or the connection ends with
    /// the TLS alert `bad_certificate`. MsQuic: `ConnectionCertificateValidationComplete`.
    ///
    /// # Errors
    ///
    /// [`CallError::InvalidState`]: no answer is awaited. [`CallError::Closed`]: the connection has ended.
    pub fn certificate_valid(&self, valid: bool) -> Result<(), CallError> {
        if !self.0.known.answer(Question::Certificate) {
            return Err(self.misfit("no certificate waits for an answer"));
        }
        let answer = move |hosted: &mut HostedConnection, now| hosted.set_certificate_valid(now, valid);
        match self.0.call(answer) {
            CallOutcome::Completed(true) | CallOutcome::Queued => Ok(()),
            CallOutcome::Completed(false) => {
                Err(CallError::InvalidState("no certificate waits for an answer"))
            }
            CallOutcome::Closed => Err(CallError::Closed),
        }
    }

    /// A call does not fit what is known of the connection.
    pub(super) fn misfit(&self, misfit: &'static str) -> CallError {
        if self.0.gate().is_closed() {
            CallError::Closed
        } else {
            CallError::InvalidState(misfit)
        }
    }

    fn queue(
        &self,
        operation: impl FnOnce(&mut HostedConnection, Instant) + Send + 'static,
    ) -> Result<(), CallError> {
        match self.0.call(operation) {
            CallOutcome::Completed(()) | CallOutcome::Queued => Ok(()),
            CallOutcome::Closed => Err(CallError::Closed),
        }
    }
}
