//! Connections.

use std::fmt;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use bytes::Bytes;
use ringway::pki_types::CertificateDer;
use ringway::{ConnectionStats, ExportError, TlsInfo};

use crate::error::{ConnectionError, SendDatagramError};
use crate::events::open_next;
use crate::recv_stream::RecvStream;
use crate::send_stream::SendStream;
use crate::shared::{Command, ConnectionRef, index};
use crate::stream_ref::StreamRef;
use crate::var_int::{Dir, VarInt};
use crate::waiters::{Waiter, Waiters};

/// A handle of a connection: cheap to clone, and usable by several tasks at a time.
///
/// With the last handle of the connection and of its streams it is closed with code 0. What [finished](SendStream::finish) streams have not delivered
/// by then may be lost: wait for [`SendStream::stopped`] where that matters.
///
/// # Cancel safety
///
/// Every method takes nothing before it is ready: its future can be dropped at any time, and what it waited for goes to the next who asks.
#[derive(Clone)]
pub struct Connection(ConnectionRef);

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Connection({})", self.stable_id())
    }
}

impl Connection {
    pub(crate) fn new(connection: ConnectionRef) -> Self {
        Connection(connection)
    }

    fn callback(&self) -> &ringway::Connection {
        self.0.callback.get().expect("set before there are handles")
    }

    /// The handle of the callback API, for what has no counterpart here. It does not keep the connection open. Streams that are opened by it are no
    /// business of this one; so do not.
    pub fn callback_handle(&self) -> &ringway::Connection {
        self.callback()
    }

    /// Opens a bidirectional stream; waits while the peer allows no more. The peer hears of it with its first data.
    ///
    /// # Errors
    ///
    /// The connection has ended.
    pub async fn open_bi(&self) -> Result<(SendStream, RecvStream), ConnectionError> {
        let mut waiter = Waiter::default();
        poll_fn(|cx| self.poll_open_bi(cx, &mut waiter)).await
    }

    /// As [`open_bi`](Self::open_bi), polled.
    ///
    /// # Errors
    ///
    /// The connection has ended.
    pub fn poll_open_bi(
        &self,
        cx: &mut Context<'_>,
        waiter: &mut Waiter,
    ) -> Poll<Result<(SendStream, RecvStream), ConnectionError>> {
        self.poll_open(cx, waiter, Dir::Bi).map_ok(|stream| {
            (
                SendStream::new(&self.0, stream.clone()),
                RecvStream::new(&self.0, stream),
            )
        })
    }

    /// Opens a unidirectional stream; waits while the peer allows no more. The peer hears of it with its first data.
    ///
    /// # Errors
    ///
    /// The connection has ended.
    pub async fn open_uni(&self) -> Result<SendStream, ConnectionError> {
        let mut waiter = Waiter::default();
        poll_fn(|cx| self.poll_open_uni(cx, &mut waiter)).await
    }

    /// As [`open_uni`](Self::open_uni), polled.
    ///
    /// # Errors
    ///
    /// The connection has ended.
    pub fn poll_open_uni(
        &self,
        cx: &mut Context<'_>,
        waiter: &mut Waiter,
    ) -> Poll<Result<SendStream, ConnectionError>> {
        self.poll_open(cx, waiter, Dir::Uni)
            .map_ok(|stream| SendStream::new(&self.0, stream))
    }

    fn poll_open(
        &self,
        cx: &mut Context<'_>,
        waiter: &mut Waiter,
        dir: Dir,
    ) -> Poll<Result<StreamRef, ConnectionError>> {
        let opening = &self.0.opening[index(dir)];
        opening.waiters.poll(cx, waiter, || {
            if let Some(end) = self.0.end() {
                return Some(Err(end.clone()));
            }
            open_next(self.0.shared(), dir).map(Ok)
        })
    }

    /// Waits for the next bidirectional stream of the peer.
    ///
    /// # Errors
    ///
    /// The connection has ended, and no stream is left that came before.
    pub async fn accept_bi(&self) -> Result<(SendStream, RecvStream), ConnectionError> {
        let mut waiter = Waiter::default();
        poll_fn(|cx| self.poll_accept_bi(cx, &mut waiter)).await
    }

    /// As [`accept_bi`](Self::accept_bi), polled.
    ///
    /// # Errors
    ///
    /// As [`Connection::accept_bi`].
    pub fn poll_accept_bi(
        &self,
        cx: &mut Context<'_>,
        waiter: &mut Waiter,
    ) -> Poll<Result<(SendStream, RecvStream), ConnectionError>> {
        self.poll_accept(cx, waiter, Dir::Bi).map_ok(|stream| {
            (
                SendStream::new(&self.0, stream.clone()),
                RecvStream::new(&self.0, stream),
            )
        })
    }

    /// Waits for the next unidirectional stream of the peer.
    ///
    /// # Errors
    ///
    /// As [`Connection::accept_bi`].
    pub async fn accept_uni(&self) -> Result<RecvStream, ConnectionError> {
        let mut waiter = Waiter::default();
        poll_fn(|cx| self.poll_accept_uni(cx, &mut waiter)).await
    }

    /// As [`accept_uni`](Self::accept_uni), polled.
    ///
    /// # Errors
    ///
    /// As [`Connection::accept_bi`].
    pub fn poll_accept_uni(
        &self,
        cx: &mut Context<'_>,
        waiter: &mut Waiter,
    ) -> Poll<Result<RecvStream, ConnectionError>> {
        self.poll_accept(cx, waiter, Dir::Uni)
            .map_ok(|stream| RecvStream::new(&self.0, stream))
    }

    fn poll_accept(
        &self,
        cx: &mut Context<'_>,
        waiter: &mut Waiter,
        dir: Dir,
    ) -> Poll<Result<StreamRef, ConnectionError>> {
        let accepting = &self.0.accepting[index(dir)];
        accepting.waiters.poll(cx, waiter, || {
            // The end first: streams that came before it are there then.
            let end = self.0.end();
            let stream = accepting.take().map(Ok);
            stream.or_else(|| end.map(|end| Err(end.clone())))
        })
    }

    /// Waits for the next datagram. Up to 1,024 wait to be read; beyond that, the oldest are dropped
    /// ([`dropped_datagrams`](Self::dropped_datagrams)).
    ///
    /// # Errors
    ///
    /// The connection has ended, and no datagram is left.
    pub async fn read_datagram(&self) -> Result<Bytes, ConnectionError> {
        let mut waiter = Waiter::default();
        poll_fn(|cx| self.poll_read_datagram(cx, &mut waiter)).await
    }

    /// As [`read_datagram`](Self::read_datagram), polled.
    ///
    /// # Errors
    ///
    /// As [`Connection::read_datagram`].
    pub fn poll_read_datagram(
        &self,
        cx: &mut Context<'_>,
        waiter: &mut Waiter,
    ) -> Poll<Result<Bytes, ConnectionError>> {
        let datagrams = &self.0.datagrams;
        datagrams.readers.poll(cx, waiter, || {
            let end = self.0.end();
            let datagram = datagrams.received.pop().map(Ok);
            datagram.or_else(|| end.map(|end| Err(end.clone())))
        })
    }

    /// Datagrams that were dropped because they were not read in time.
    pub fn dropped_datagrams(&self) -> u64 {
        self.0.datagrams.dropped.load(Ordering::Relaxed)
    }

    /// Sends a datagram (RFC 9221), which may arrive or not. It is not copied. `QueueFull` comes where more than 1,024 wait for their packets.
    ///
    /// Before the handshake is complete ([`into_0rtt`](crate::Connecting::into_0rtt)) it is not known what the peer takes. Of a client with a ticket
    /// it goes in 0-RTT, if the server took datagrams then; else it waits for the handshake, and what turns out not to fit, or is longer than
    /// [`Settings::maximum_datagram_size`](ringway::Settings::maximum_datagram_size), is dropped: [`stats`](Self::stats) counts it
    /// ([`unsent_datagram_frames`](ringway::ConnectionStats::unsent_datagram_frames)).
    ///
    /// # Errors
    ///
    /// As [`SendDatagramError`] says; it is not sent then.
    pub fn send_datagram(&self, data: Bytes) -> Result<(), SendDatagramError> {
        self.check_datagram(&data)?;
        if !self.0.datagrams.take_place() {
            return Err(SendDatagramError::QueueFull);
        }
        let early = self.0.is_early();
        self.0.command(Command::Datagram { data, early });
        Ok(())
    }

    fn check_datagram(&self, data: &[u8]) -> Result<(), SendDatagramError> {
        if let Some(end) = self.0.end() {
            return Err(end.clone().into());
        }
        // In this order: with the first word of it comes how many.
        let is_known = self.0.datagrams.known.load(Ordering::Acquire);
        match self.max_datagram_size() {
            None if is_known => Err(SendDatagramError::UnsupportedByPeer),
            max if data.len() > max.unwrap_or(DATAGRAM_LEN_MAX) => Err(SendDatagramError::TooLarge),
            _ => Ok(()),
        }
    }

    /// Sends a datagram; waits while too many wait for their packets, and until it is known what the peer takes.
    ///
    /// # Errors
    ///
    /// As [`Connection::send_datagram`], without `QueueFull`.
    pub async fn send_datagram_wait(&self, data: Bytes) -> Result<(), SendDatagramError> {
        let mut waiter = Waiter::default();
        let look = || {
            if self.0.end().is_none() && !self.0.datagrams.known.load(Ordering::Acquire) {
                return None;
            }
            match self.send_datagram(data.clone()) {
                Err(SendDatagramError::QueueFull) => None,
                result => Some(result),
            }
        };
        poll_fn(|cx| self.0.datagrams.senders.poll(cx, &mut waiter, look)).await
    }

    /// The largest datagram that can be sent now, in bytes; `None`: the peer takes none, or, before the handshake is complete, nothing is known of
    /// that.
    pub fn max_datagram_size(&self) -> Option<usize> {
        match self.0.datagrams.max_len.load(Ordering::Relaxed) {
            0 => None,
            max => Some(max),
        }
    }

    /// Waits until the connection has ended, and says why.
    pub async fn closed(&self) -> ConnectionError {
        let mut waiter = Waiter::default();
        poll_fn(|cx| self.poll_closed(cx, &mut waiter)).await
    }

    /// As [`closed`](Self::closed), polled.
    pub fn poll_closed(&self, cx: &mut Context<'_>, waiter: &mut Waiter) -> Poll<ConnectionError> {
        self.0.closed.poll(cx, waiter, || self.0.end().cloned())
    }

    /// Why it has ended; `None`: it has not.
    pub fn close_reason(&self) -> Option<ConnectionError> {
        self.0.end().cloned()
    }

    /// Closes it at once. What streams have not delivered is lost; whatever waits on it fails with [`ConnectionError::LocallyClosed`]. Of
    /// `reason`, which is for people, the first 512 bytes go to the peer.
    pub fn close(&self, error_code: VarInt, reason: &[u8]) {
        self.0.close(error_code.into_inner(), reason);
    }

    /// The peer's address, in use or used last.
    pub fn remote_address(&self) -> SocketAddr {
        self.callback().remote_address()
    }

    /// Our address, in use or used last.
    pub fn local_address(&self) -> SocketAddr {
        self.callback().local_address()
    }

    /// A number that tells the connection from all others of this process.
    pub fn stable_id(&self) -> usize {
        self.callback().correlation_id().as_u64() as usize
    }

    /// What the handshake has agreed on: application protocol, server name, cipher suite; `None` before it is complete.
    pub fn handshake_data(&self) -> Option<Arc<TlsInfo>> {
        self.callback().tls_info()
    }

    /// The application protocol (ALPN); `None` before the handshake is complete.
    pub fn alpn(&self) -> Option<Box<[u8]>> {
        self.callback().alpn()
    }

    /// The peer's certificate chain (DER), end entity first; `None` if it has shown none, or before the handshake is complete.
    pub fn peer_identity(&self) -> Option<Arc<[CertificateDer<'static>]>> {
        Some(self.callback().peer_certificates()).filter(|chain| !chain.is_empty())
    }

    /// Fills `output` with keying material (RFC 5705, RFC 8446 section 7.5), the same on both sides for the same label and context.
    ///
    /// # Errors
    ///
    /// The handshake is not complete, or the label or the length is not possible.
    pub fn export_keying_material(
        &self,
        output: &mut [u8],
        label: &[u8],
        context: &[u8],
    ) -> Result<(), ExportError> {
        let Some(info) = self.handshake_data() else {
            return Err(ExportError::HandshakeNotComplete);
        };
        info.export_keying_material(label, context, output)
    }

    /// Asks the worker for counters and estimates; of a connection that has ended, the last ones.
    ///
    /// # Errors
    ///
    /// The connection has ended without any: it was never accepted.
    pub async fn stats(&self) -> Result<ConnectionStats, ConnectionError> {
        struct Answer {
            stats: OnceLock<ConnectionStats>,
            asker: Waiters,
        }
        let answer = Arc::new(Answer {
            stats: OnceLock::new(),
            asker: Waiters::default(),
        });
        let give = Arc::clone(&answer);
        // `Err`: it has ended.
        let _ = self.callback().with_stats(move |stats| {
            // It is set once.
            let _ = give.stats.set(*stats);
            give.asker.wake();
        });
        let (mut asker, mut closed) = (Waiter::default(), Waiter::default());
        let found = || {
            answer
                .stats
                .get()
                .or(self.0.last_stats.get())
                .map(|stats| Ok(*stats))
        };
        poll_fn(|cx| {
            if let Poll::Ready(stats) = answer.asker.poll(cx, &mut asker, found) {
                return Poll::Ready(stats);
            }
            let none = || self.0.is_over().then(|| Err(self.0.lost()));
            self.0.closed.poll(cx, &mut closed, || found().or_else(none))
        })
        .await
    }
}

/// No datagram is longer, whatever is known of the peer: the most that a UDP datagram has.
const DATAGRAM_LEN_MAX: usize = 65527;
