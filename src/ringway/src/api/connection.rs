//! Calls on connections.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use ringway_engine::connection::PathAddress;
use ringway_engine::connection::stats::ConnectionStats;
use ringway_types::Instant;
use rustls::pki_types::ServerName;

use super::configuration::{Configuration, Tls};
use super::error::{CallError, SetupError};
use super::registration::Registration;
use crate::worker::calls::CallOutcome;
use crate::worker::events::ConnectionHandler;
use crate::worker::handles::{Connection, ConnectionShared};
use crate::worker::hosted_connection::HostedConnection;
use crate::worker::inbox::{ClientStart, Operation};

/// Where to connect to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConnectTarget {
    /// Address and port of the server.
    pub remote: SocketAddr,
    /// Name that the server's certificate must have: a DNS name or an IP address.
    pub server_name: String,
    /// Partition to host the connection, where it stays. `None`: that of the event handler which opens it; outside of handlers each in
    /// turn.
    pub partition: Option<usize>,
    /// Local address; `None`: the system's choice, and an endpoint shared with other connections.
    pub local: Option<SocketAddr>,
}

impl ConnectTarget {
    /// To `remote`, a server with this name.
    pub fn new(remote: SocketAddr, server_name: impl Into<String>) -> Self {
        ConnectTarget {
            remote,
            server_name: server_name.into(),
            partition: None,
            local: None,
        }
    }
}

impl Connection {
    /// Opens a connection. The handler hears [`Connected`](crate::ConnectionEvent::Connected), or why not. MsQuic:
    /// `ConnectionOpen` and `ConnectionStart`.
    ///
    /// Streams may be opened and data sent at once; they go out when the handshake is complete.
    pub fn start(
        registration: &Registration,
        configuration: &Arc<Configuration>,
        target: &ConnectTarget,
        handler: impl ConnectionHandler,
    ) -> Result<Connection, SetupError> {
        let invalid = |text: &str| SetupError::InvalidConfig(text.to_owned());
        let Tls::Client(tls) = &configuration.tls else {
            return Err(invalid(
                "the configuration is a server's: make one with Configuration::client",
            ));
        };
        let server_name = ServerName::try_from(target.server_name.clone())
            .map_err(|_| SetupError::ServerName(target.server_name.clone()))?;
        let inner = &registration.inner;
        let partition = target.partition.unwrap_or_else(|| inner.next_partition());
        let Some(inbox) = inner.inboxes.get(partition) else {
            return Err(invalid("there is no partition of this number"));
        };
        if inbox.is_stopping() {
            return Err(SetupError::Closed);
        }
        let (port, local) = inner
            .client_port(partition, target.remote, target.local)
            .map_err(SetupError::io("binding a UDP socket for a connection"))?;
        let connection = Connection(ConnectionShared::new(&inner.inboxes, partition));
        let start = ClientStart {
            connection: connection.clone(),
            config: Arc::clone(&configuration.config),
            tls: tls.clone(),
            server_name,
            path: PathAddress {
                port,
                local,
                remote: target.remote,
            },
            handler: Box::new(handler),
            tokens: Arc::clone(&configuration.tokens),
        };
        if !inbox.post(Operation::OpenConnection(Box::new(start))) {
            return Err(SetupError::Closed);
        }
        Ok(connection)
    }

    /// Ends the connection with an application error code. MsQuic: `ConnectionShutdown`.
    ///
    /// Data that was not acknowledged may not arrive: an application that wants all of it to arrive waits for its streams to
    /// end first.
    pub fn shutdown(&self, code: u64) -> Result<(), CallError> {
        self.queue(move |hosted, now| hosted.shutdown(now, code))
    }

    /// Begins a key update (RFC 9001 section 6) as soon as one may begin.
    pub fn update_keys(&self) -> Result<(), CallError> {
        self.queue(|hosted, _| hosted.update_keys())
    }

    /// Sends a DATAGRAM frame (RFC 9221). If this gives `Ok`,
    /// [`DatagramSendStateChanged`](crate::ConnectionEvent::DatagramSendStateChanged) with `context` tells what becomes of it;
    /// of one that proves too large, or too many, when the worker gets to it, that it is canceled.
    pub fn send_datagram(&self, data: Bytes, context: u64) -> Result<(), CallError> {
        let send = move |hosted: &mut HostedConnection, _| {
            let max = hosted.max_datagram_len();
            if data.len() > max {
                Err(CallError::DatagramTooLarge { max })
            } else if !hosted.send_datagram(data, context) {
                Err(CallError::QueueFull)
            } else {
                Ok(())
            }
        };
        let called = self.0.call_then(send, move |result, hosted| {
            if result.is_err() {
                hosted.cancel_datagram(context);
            }
        });
        match called {
            CallOutcome::Completed(result) => result,
            CallOutcome::Queued => Ok(()),
            CallOutcome::Closed => Err(CallError::Closed),
        }
    }

    /// Calls `look` with the counters and estimates of the connection, on its worker's thread.
    pub fn with_stats(&self, look: impl FnOnce(&ConnectionStats) + Send + 'static) -> Result<(), CallError> {
        self.queue(|hosted, now| look(&hosted.stats(now)))
    }

    /// The partition that hosts the connection now: one that was accepted may move
    /// ([`IdealProcessorChanged`](crate::ConnectionEvent::IdealProcessorChanged)).
    pub fn partition(&self) -> usize {
        self.0.partition()
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
