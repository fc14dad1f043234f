//! Listeners, and the connections that clients request.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use ringway_datapath::port::BoundPort;
use ringway_engine::connection::config::Config;
use ringway_engine::crypto::tls::check_alpns;
use ringway_engine::wire::Version;
use ringway_engine::wire::error::{TransportError, TransportErrorCode};

use super::adopted_socket::AdoptedSocket;
use super::configuration::{Configuration, Tls};
use super::error::{CallError, SettingsError, SetupError, checked_code};
use super::registration::Registration;
use super::settings_change::SettingsChange;
use crate::worker::current;
use crate::worker::events::{ConnectionHandler, Incoming, ListenerHandler};
use crate::worker::handles::Connection;
use crate::worker::hosted_connection::HostedConnection;
use crate::worker::inbox::Operation;
use crate::worker::listener::{ListenerEntry, ListenerShared, ListenerStats, RetryPolicy};
use crate::worker::port_lease::PortLease;

/// Where a listener listens, and for what.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct ListenerOptions {
    /// The local address and port; port 0 lets the system choose one.
    pub local: SocketAddr,
    /// Application protocols, most preferred first.
    pub alpns: Vec<Vec<u8>>,
    /// When clients must prove their address before a connection is made for them.
    pub retry: RetryPolicy,
    /// The only partition that accepts; its connections stay there. `None`: each partition accepts what arrives on it.
    pub partition: Option<usize>,
}

/// Accepts connections from clients, on all partitions or on one. MsQuic: `Listener`.
///
/// Dropping it stops it; its connections live on.
#[derive(Debug)]
pub struct Listener {
    registration: Registration,
    shared: Arc<ListenerShared>,
}

impl ListenerOptions {
    /// Listens at this address for these application protocols, most preferred first, on all partitions, with [`RetryPolicy::UnderLoad`].
    pub fn new(local: SocketAddr, alpns: &[&[u8]]) -> Self {
        ListenerOptions {
            local,
            alpns: alpns.iter().map(|alpn| alpn.to_vec()).collect(),
            retry: RetryPolicy::UnderLoad,
            partition: None,
        }
    }

    /// The same, with this policy on when clients must prove their address.
    #[must_use]
    pub fn with_retry(self, retry: RetryPolicy) -> Self {
        ListenerOptions { retry, ..self }
    }

    /// The same on this partition alone, or on all.
    #[must_use]
    pub fn with_partition(self, partition: impl Into<Option<usize>>) -> Self {
        ListenerOptions {
            partition: partition.into(),
            ..self
        }
    }

    fn check(&self, registration: &Registration) -> Result<(), SetupError> {
        check_alpns(self.alpns.iter().map(Vec::as_slice)).map_err(|error| {
            SetupError::InvalidConfig(format!("a listener's application protocols: {error}"))
        })?;
        let inner = &registration.inner;
        if let Some(partition) = self.partition {
            inner.check_partition(partition)?;
        }
        match inner.inboxes.iter().any(|inbox| inbox.is_stopping()) {
            true => Err(SetupError::Closed),
            false => Ok(()),
        }
    }
}

impl Listener {
    /// Starts listening. The address is bound when this returns.
    ///
    /// Listeners of a registration may share an address if they have different application protocols: which of them gets a client is decided by
    /// what the client offers.
    ///
    /// # Errors
    ///
    /// [`SetupError::InvalidConfig`]: no application protocol, one that another listener at this address has, or a partition that does not exist.
    /// [`SetupError::Io`]: the system refuses the address. [`SetupError::Closed`]: the registration is being closed.
    pub fn start(
        registration: &Registration,
        options: ListenerOptions,
        handler: impl ListenerHandler,
    ) -> Result<Self, SetupError> {
        options.check(registration)?;
        let inner = &registration.inner;
        let local = options.local;
        let (port, bound) = inner
            .port_everywhere(local)
            .map_err(SetupError::io(format!("binding UDP {local}")))?;
        if !port.is_everywhere() {
            return Err(SetupError::InvalidConfig(format!(
                "a connection has the port at {local} for its partition alone: listen first, then connect from there"
            )));
        }
        Self::start_at(registration, port, bound, options, Box::new(handler))
    }

    /// Starts listening on a UDP socket that the application has opened, for the registration that has taken it over. It accepts on the partition
    /// that receives from the socket, unless the options name another one; on a group of sockets as any listener.
    ///
    /// # Errors
    ///
    /// [`SetupError::InvalidConfig`]: as [`Listener::start`], and if the local address is another than
    /// [that of the socket](AdoptedSocket::local_address). [`SetupError::Closed`]: the registration is being closed.
    pub fn start_on(
        socket: &AdoptedSocket,
        options: ListenerOptions,
        handler: impl ListenerHandler,
    ) -> Result<Self, SetupError> {
        options.check(socket.registration())?;
        socket.check_local(options.local)?;
        let (port, bound) = socket.port();
        Self::start_at(socket.registration(), port, bound, options, Box::new(handler))
    }

    fn start_at(
        registration: &Registration,
        port: Arc<PortLease>,
        bound: Vec<BoundPort>,
        options: ListenerOptions,
        handler: Box<dyn ListenerHandler>,
    ) -> Result<Self, SetupError> {
        let inner = &registration.inner;
        let ListenerOptions {
            alpns,
            retry,
            partition,
            ..
        } = options;
        let shared = Arc::new(ListenerShared::new(port.local, alpns, retry, partition, handler));
        if let Err(problem) = port.add_listener(&shared) {
            // Whoever shares the new port meanwhile needs it.
            inner.attach_everywhere(&port, bound);
            return Err(SetupError::InvalidConfig(problem));
        }
        let entries: Vec<_> = inner
            .inboxes
            .iter()
            .map(|_| ListenerEntry::new(&port, &shared))
            .collect();
        // The workers must know of the listener before anything can arrive.
        for (inbox, entry) in inner.inboxes.iter().zip(entries) {
            inbox.post(Operation::AddListener(entry));
        }
        inner.attach_everywhere(&port, bound);
        Ok(Listener {
            registration: registration.clone(),
            shared,
        })
    }

    /// The local address, with the port that the system has chosen.
    pub fn local_address(&self) -> SocketAddr {
        self.shared.local
    }

    /// Counters since its start. MsQuic: `QUIC_PARAM_LISTENER_STATS`.
    pub fn stats(&self) -> ListenerStats {
        self.shared.counters.get()
    }

    /// Stops listening: clients that come are refused. The handler receives [`StopComplete`](crate::ListenerEvent::StopComplete) when no
    /// partition accepts clients any more. Connections that were accepted live on, and keep the port; the last of them frees it. It can be
    /// listened on again at any time. MsQuic: `ListenerStop`.
    pub fn stop(&self) {
        if self.shared.stop() {
            for inbox in self.registration.inner.inboxes.iter() {
                inbox.post(Operation::RemoveListener(Arc::clone(&self.shared)));
            }
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.stop();
    }
}

impl std::fmt::Debug for ListenerShared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ListenerShared")
            .field("local", &self.local)
            .finish_non_exhaustive()
    }
}

impl Incoming {
    /// Accepts the connection. MsQuic: `ConnectionSetConfiguration`.
    ///
    /// The handshake continues, and the handler learns how it ends. A configuration made for clients refuses the
    /// connection, and so does one without [the application protocol](Self::alpn) that was agreed on. If the client has
    /// given up meanwhile, the handler receives no events, and calls on the handle return
    /// `Closed`. The connection lives on without handles, until it ends; [attach](Connection::attach) it for it to end with the last one.
    pub fn accept(self, configuration: &Arc<Configuration>, handler: impl ConnectionHandler) -> Connection {
        self.accept_config(configuration, Arc::clone(&configuration.config), handler)
    }

    /// The same with settings in which this connection differs from its configuration.
    ///
    /// # Errors
    ///
    /// A setting is out of its range; the client is refused.
    pub fn accept_with(
        self,
        configuration: &Arc<Configuration>,
        settings: &SettingsChange,
        handler: impl ConnectionHandler,
    ) -> Result<Connection, SettingsError> {
        let config = configuration.changed(settings)?;
        Ok(self.accept_config(configuration, config, handler))
    }

    fn accept_config(
        mut self,
        configuration: &Configuration,
        config: Arc<Config>,
        handler: impl ConnectionHandler,
    ) -> Connection {
        self.listener.counters.accepted.fetch_add(1, Ordering::Relaxed);
        let tls = configuration.tls();
        let tls = match &tls {
            // One choice of the application protocol: what has been told here holds for TLS too.
            Tls::Server(tls) => tls.for_protocol(&self.alpn).ok_or_else(|| {
                TransportError::new(
                    TransportErrorCode::crypto(ALERT_NO_APPLICATION_PROTOCOL),
                    "the configuration does not have the application protocol that the listener has agreed on",
                )
            }),
            Tls::Client(_) => Err(TransportError::new(
                TransportErrorCode::INTERNAL_ERROR,
                "the configuration is for a client: make one with Configuration::server",
            )),
        };
        let handler: Box<dyn ConnectionHandler> = Box::new(handler);
        // Whatever panicked until here has refused the connection.
        self.open = false;
        self.connection.call(move |hosted, now| {
            hosted.set_handler(handler);
            hosted.guarded(now, |hosted| match &tls {
                Ok(tls) => hosted.accept(now, config, tls),
                Err(error) => hosted.refuse(now, error.clone()),
            });
        });
        Connection::of_application(Arc::clone(&self.connection))
    }

    /// Refuses the connection with CONNECTION_REFUSED, as dropping the value does.
    pub fn refuse(self) {}

    /// Refuses the connection with this error code, which the client's handler is told as a
    /// [`CloseReason::PeerTransport`](crate::CloseReason::PeerTransport). Applications have no codes of their own before the handshake is complete
    /// (RFC 9000 section 10.2.3), but TLS has alerts: [`TransportErrorCode::crypto`].
    ///
    /// # Errors
    ///
    /// [`CallError::ErrorCode`]: the code is above [`ERROR_CODE_MAX`](crate::ERROR_CODE_MAX). The client is refused with CONNECTION_REFUSED.
    pub fn refuse_with(mut self, code: TransportErrorCode) -> Result<(), CallError> {
        checked_code(code.0)?;
        self.reject();
        let error = TransportError::new(code, "the application refuses the client");
        self.connection.call(move |hosted, now| hosted.refuse(now, error));
        Ok(())
    }

    /// Forgets the connection, and tells the client nothing: it will ask again, some times, each of which comes as another connection. For clients
    /// that are not worth an answer.
    pub fn ignore(mut self) {
        self.reject();
        self.connection.call(|hosted, _| hosted.ignore());
    }

    /// Has the client prove its address by a Retry, whatever the listener's [`RetryPolicy`]: if it is where it says it is, it comes again as another
    /// connection, whose [address is validated](Self::is_address_validated).
    ///
    /// # Errors
    ///
    /// It is too late, and the value comes back: the client has proven its address, or has been answered already (a ClientHello that takes several
    /// datagrams may have been acknowledged in part), or the event that brought the value is over.
    pub fn retry(mut self) -> Result<(), Incoming> {
        match current::with(&self.connection, |hosted, _| hosted.retry()) {
            Ok(true) => {
                self.open = false;
                Ok(())
            }
            _ => Err(self),
        }
    }

    fn reject(&mut self) {
        self.open = false;
        self.listener.counters.rejected.fetch_add(1, Ordering::Relaxed);
    }

    /// The partition where the client has come, and where the connection begins.
    pub fn partition(&self) -> usize {
        self.connection.partition()
    }

    /// The client's TLS ClientHello as it came, with the header of the handshake message; `None` once the event that brought the value is over.
    /// MsQuic: `CryptoBuffer`.
    pub fn client_hello(&self) -> Option<Vec<u8>> {
        let hello = |hosted: &mut HostedConnection, _| hosted.client_hello().map(<[u8]>::to_vec);
        current::with(&self.connection, hello).ok().flatten()
    }

    /// The client has shown that it receives packets at its address: by a Retry, or by a token of an earlier connection.
    pub fn is_address_validated(&self) -> bool {
        self.address_validated
    }

    /// The server name that the client asks for (SNI), in small letters.
    pub fn server_name(&self) -> Option<&str> {
        self.hello.server_name.as_deref()
    }

    /// The application protocols that the client offers, most preferred first.
    pub fn offered_alpns(&self) -> &[Vec<u8>] {
        &self.hello.alpns
    }

    /// The application protocol that listener and client have agreed on.
    pub fn alpn(&self) -> &[u8] {
        &self.alpn
    }

    /// The client's address.
    pub fn remote_address(&self) -> SocketAddr {
        self.remote
    }

    /// The local address that the client has reached.
    pub fn local_address(&self) -> SocketAddr {
        self.local
    }

    /// The QUIC version of the client's first packets. The connection may go on in another one
    /// ([`Settings::accepted_versions`](crate::Settings::accepted_versions)), which its [`ConnectionStats`](crate::ConnectionStats) name.
    pub fn version(&self) -> Version {
        self.version
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        if self.open {
            self.reject();
            self.connection.call(|hosted, now| {
                let code = TransportErrorCode::CONNECTION_REFUSED;
                hosted.refuse(
                    now,
                    TransportError::new(code, "the application refuses the client"),
                );
            });
        }
    }
}

/// TLS alert (RFC 7301 section 3.2).
const ALERT_NO_APPLICATION_PROTOCOL: u8 = 120;
