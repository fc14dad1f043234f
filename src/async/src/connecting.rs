//! Connections whose handshake goes on.

use std::fmt;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use crate::connection::Connection;
use crate::error::ConnectionError;
use crate::shared::ConnectionRef;
use crate::waiters::Waiter;

/// A connection whose handshake goes on: a future of the [`Connection`]. Dropped before, it is given up; who wants to stop waiting, and go on later,
/// awaits `&mut connecting`.
#[must_use = "a connection that nobody waits for is given up"]
pub struct Connecting {
    connection: ConnectionRef,
    waiter: Waiter,
}

impl fmt::Debug for Connecting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connecting").finish_non_exhaustive()
    }
}

impl Connecting {
    pub(crate) fn new(connection: ConnectionRef) -> Self {
        Connecting {
            connection,
            waiter: Waiter::default(),
        }
    }

    /// Uses the connection before its handshake is complete.
    ///
    /// Of a client: what its streams and datagrams send goes out in 0-RTT, with the first packets, if there is a ticket of an earlier connection that
    /// allows it. **Others can have the server read that again**: send only what may be done twice. What the server does not take, or what there
    /// is no ticket for, is sent by itself when the handshake is complete. Up to 16 streams of each kind can be opened at once; more, when it is
    /// known how many the server allows.
    ///
    /// Of a server: what it sends before the handshake is complete (0.5-RTT) goes to a client that has not proven yet that it is there, nor, where it
    /// must show a certificate, who it is; and what it reads may be a replay ([`RecvStream::is_0rtt`](crate::RecvStream::is_0rtt)).
    ///
    /// # Errors
    ///
    /// The value itself: the connection has ended already, as waiting for it tells.
    pub fn into_0rtt(self) -> Result<(Connection, ZeroRttAccepted), Self> {
        if self.connection.end().is_some() {
            return Err(self);
        }
        if self.connection.is_client {
            self.connection
                .opening
                .iter()
                .for_each(|opening| opening.allow(EARLY_STREAMS));
        }
        let Connecting { connection, waiter } = self;
        let accepted = ZeroRttAccepted {
            connection: connection.clone(),
            waiter,
        };
        Ok((Connection::new(connection), accepted))
    }

    /// The peer's address.
    pub fn remote_address(&self) -> SocketAddr {
        Connection::new(self.connection.clone()).remote_address()
    }

    /// Our address. Before a client has had an answer, its IP address may be unspecified.
    pub fn local_address(&self) -> SocketAddr {
        Connection::new(self.connection.clone()).local_address()
    }
}

impl Future for Connecting {
    type Output = Result<Connection, ConnectionError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Connecting { connection, waiter } = &mut *self;
        poll_connected(connection, waiter, cx).map_ok(|_| Connection::new(connection.clone()))
    }
}

/// So many streams may be opened before it is known how many the server allows, so that data can go with the first packet. Those beyond wait there
/// to be started.
const EARLY_STREAMS: u64 = 16;

/// Tells, when the handshake is complete, whether 0-RTT was accepted: `false` where it was rejected or there was none, or where the connection has
/// ended before. The handshake of a server is complete then, whatever the answer.
///
/// Dropped before, it gives up nothing: the handshake goes on, and so does what was sent. Until then it is a handle of the connection, which is not
/// closed as long as it is there.
pub struct ZeroRttAccepted {
    connection: ConnectionRef,
    waiter: Waiter,
}

impl fmt::Debug for ZeroRttAccepted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ZeroRttAccepted").finish_non_exhaustive()
    }
}

impl Future for ZeroRttAccepted {
    type Output = bool;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<bool> {
        let ZeroRttAccepted { connection, waiter } = &mut *self;
        poll_connected(connection, waiter, cx).map(|accepted| accepted.unwrap_or(false))
    }
}

fn poll_connected(
    connection: &ConnectionRef,
    waiter: &mut Waiter,
    cx: &mut Context<'_>,
) -> Poll<Result<bool, ConnectionError>> {
    connection.connecting.poll(cx, waiter, || {
        let connected = connection.connected.get().map(|&accepted| Ok(accepted));
        connected.or_else(|| connection.end().map(|end| Err(end.clone())))
    })
}
