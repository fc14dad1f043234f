//! Where connections begin: clients connect, listeners accept.

use std::fmt;
use std::future::{IntoFuture, poll_fn};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence};
use std::sync::{Arc, PoisonError, RwLock};
use std::task::{Context, Poll};

use crossbeam_queue::SegQueue;
use ringway::{
    AdoptedSocket, Configuration, ConnectTarget, Connection as Callback, ListenerEvent, ListenerOptions,
    ListenerStats, Registration, SettingsChange, SettingsError, SetupError, TransportErrorCode,
};

use crate::connecting::Connecting;
use crate::counted::{Connections, Counted};
use crate::events::ConnectionEvents;
use crate::shared::{ConnectionRef, ConnectionShared};
use crate::waiters::{Waiter, Waiters};

/// A [`Registration`] as tasks use it: its clones are handles of the same one.
///
/// Connections end with the last handle of their registration, of which this has one, and so has a [`Listener`]: keep one of them.
#[derive(Clone, Debug)]
pub struct Endpoint {
    registration: Registration,
    client: Option<Arc<Configuration>>,
    connections: Arc<Connections>,
}

impl Endpoint {
    /// Uses the threads, or the contexts, of this registration.
    pub fn new(registration: &Registration) -> Self {
        Endpoint {
            registration: registration.clone(),
            client: None,
            connections: Arc::default(),
        }
    }

    /// The registration.
    pub fn registration(&self) -> &Registration {
        &self.registration
    }

    /// Sets what [`connect`](Self::connect) uses: a configuration for clients.
    pub fn set_default_client_config(&mut self, configuration: Arc<Configuration>) {
        self.client = Some(configuration);
    }

    /// Connects to a server whose certificate must be for `server_name`, with the configuration that was set.
    ///
    /// # Errors
    ///
    /// [`SetupError::InvalidConfig`]: none was set. Else as [`Connection::start`](ringway::Connection::start).
    pub fn connect(&self, remote: SocketAddr, server_name: &str) -> Result<Connecting, SetupError> {
        let Some(configuration) = &self.client else {
            return Err(SetupError::InvalidConfig(
                "there is no configuration to connect with: call set_default_client_config, or connect_with"
                    .to_owned(),
            ));
        };
        self.connect_with(configuration, &ConnectTarget::new(remote, server_name))
    }

    /// Connects with this configuration, from and to where `target` says.
    ///
    /// # Errors
    ///
    /// As [`Connection::start`](ringway::Connection::start).
    pub fn connect_with(
        &self,
        configuration: &Arc<Configuration>,
        target: &ConnectTarget,
    ) -> Result<Connecting, SetupError> {
        let start = |events| Callback::start(&self.registration, configuration, target, events);
        connect(start, Some(Counted::new(&self.connections)))
    }

    /// Connects from a UDP socket that the application has opened, and that its registration [has taken
    /// over](ringway::Registration::adopt_socket).
    ///
    /// # Errors
    ///
    /// As [`Connection::start_on`](ringway::Connection::start_on).
    pub fn connect_on(
        socket: &AdoptedSocket,
        configuration: &Arc<Configuration>,
        target: &ConnectTarget,
    ) -> Result<Connecting, SetupError> {
        let start = |events| Callback::start_on(socket, configuration, target, events);
        connect(start, None)
    }

    /// Listens: `configuration` is what [`Incoming::accept`] uses.
    ///
    /// # Errors
    ///
    /// As [`ringway::Listener::start`].
    pub fn listen(
        &self,
        options: ListenerOptions,
        configuration: Arc<Configuration>,
    ) -> Result<Listener, SetupError> {
        let start = |handler: Handler| ringway::Listener::start(&self.registration, options, handler);
        let mut listeners = listen_in(start, configuration, 1, Some(&self.connections))?;
        Ok(listeners.pop().expect("one was asked for"))
    }

    /// Listens on a UDP socket that the application has opened, such as one that systemd passes to it, and that its registration [has taken
    /// over](ringway::Registration::adopt_socket).
    ///
    /// # Errors
    ///
    /// As [`ringway::Listener::start_on`].
    pub fn listen_on(
        socket: &AdoptedSocket,
        options: ListenerOptions,
        configuration: Arc<Configuration>,
    ) -> Result<Listener, SetupError> {
        let start = |handler: Handler| ringway::Listener::start_on(socket, options, handler);
        let mut listeners = listen_in(start, configuration, 1, None)?;
        Ok(listeners.pop().expect("one was asked for"))
    }

    /// Listens with a listener for each partition, in their order, which gets the clients that come there: for servers whose tasks are on the threads
    /// of their partitions ([`block_on`](crate::block_on)). All listen until the last of them is dropped, or one is stopped; the clients of one
    /// that is dropped are refused.
    ///
    /// A connection may move to another partition later, unless [`Settings::follow_rss`](ringway::Settings::follow_rss) is false: its tasks stay
    /// where they are, and reach it there.
    ///
    /// # Errors
    ///
    /// As [`Endpoint::listen`].
    pub fn listen_on_each(
        &self,
        options: ListenerOptions,
        configuration: Arc<Configuration>,
    ) -> Result<Vec<Listener>, SetupError> {
        let start = |handler: Handler| ringway::Listener::start(&self.registration, options, handler);
        let count = self.registration.partition_count();
        listen_in(start, configuration, count, Some(&self.connections))
    }

    /// Closes all connections of the registration with this application error code, in the background.
    pub fn close(&self, error_code: crate::VarInt) {
        // A code that was checked.
        let _ = self.registration.shutdown(error_code.into_inner());
    }

    /// Connections that this endpoint and its clones have begun, and that their listeners have accepted, and that have not ended. Not those on
    /// sockets that were taken over ([`connect_on`](Self::connect_on), [`listen_on`](Self::listen_on)): they are of no endpoint.
    pub fn open_connections(&self) -> usize {
        self.connections.count()
    }

    /// Waits until there are no [open connections](Self::open_connections), whoever ends them: [`close`](Self::close) ends all of the registration.
    /// Each that has something to tell its peer has then done so, once. Where that packet is lost, its thread tells it again to a peer that goes on
    /// sending, for which [`Registration::close`] waits, blocking.
    ///
    /// Clients may come meanwhile: [stop](Listener::stop) listeners before. Can be dropped at any time.
    pub async fn wait_idle(&self) {
        let mut waiter = Waiter::default();
        let is_idle = || (self.open_connections() == 0).then_some(());
        poll_fn(|cx| self.connections.idle.poll(cx, &mut waiter, is_idle)).await;
    }
}

type Handler = Box<dyn Fn(ListenerEvent) + Send + Sync>;

/// So many listeners in one, which `start` starts with this handler: they share its clients by their partitions.
fn listen_in(
    start: impl FnOnce(Handler) -> Result<ringway::Listener, SetupError>,
    configuration: Arc<Configuration>,
    count: usize,
    connections: Option<&Arc<Connections>>,
) -> Result<Vec<Listener>, SetupError> {
    let new = |_| {
        Arc::new(ListenerShared {
            configuration: RwLock::new(Arc::clone(&configuration)),
            connections: connections.cloned(),
            incoming: SegQueue::new(),
            waiting: AtomicUsize::new(0),
            stopped: AtomicBool::new(false),
            waiters: Waiters::default(),
        })
    };
    let all: Arc<[_]> = (0..count).map(new).collect();
    let events = Arc::clone(&all);
    let handler = move |event: ListenerEvent| match event {
        ListenerEvent::NewConnection(incoming) => events[incoming.partition() % count].offer(incoming),
        ListenerEvent::StopComplete => events.iter().for_each(|shared| shared.stop()),
        _ => {}
    };
    let listener = Arc::new(start(Box::new(handler))?);
    let listener = |shared: &Arc<ListenerShared>| Listener {
        listener: Arc::clone(&listener),
        shared: Arc::clone(shared),
        #[cfg(feature = "futures")]
        waiter: Waiter::default(),
    };
    Ok(all.iter().map(listener).collect())
}

fn connect(
    start: impl FnOnce(ConnectionEvents) -> Result<Callback, SetupError>,
    counted: Option<Counted>,
) -> Result<Connecting, SetupError> {
    let shared = ConnectionShared::new(true);
    let callback = start(ConnectionEvents::new(&shared, counted))?;
    Ok(connecting(shared, callback))
}

fn connecting(shared: Arc<ConnectionShared>, callback: Callback) -> Connecting {
    // It is set once.
    let _ = shared.callback.set(callback);
    Connecting::new(ConnectionRef::new(shared))
}

/// Accepts connections. With the feature `futures` it is a `Stream` of [`Incoming`] ones.
///
/// Dropped, it stops: clients that come are refused; connections that were accepted live on.
#[derive(Debug)]
pub struct Listener {
    listener: Arc<ringway::Listener>,
    shared: Arc<ListenerShared>,
    /// Of the stream.
    #[cfg(feature = "futures")]
    waiter: Waiter,
}

struct ListenerShared {
    configuration: RwLock<Arc<Configuration>>,
    /// Of the endpoint, if there is one.
    connections: Option<Arc<Connections>>,
    incoming: SegQueue<ringway::Incoming>,
    waiting: AtomicUsize,
    stopped: AtomicBool,
    waiters: Waiters,
}

impl fmt::Debug for ListenerShared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ListenerShared").finish_non_exhaustive()
    }
}

/// So many clients wait to be accepted; more are refused.
const BACKLOG: usize = 4096;

impl ListenerShared {
    fn offer(&self, incoming: ringway::Incoming) {
        let next = |waiting: usize| (waiting < BACKLOG).then_some(waiting + 1);
        let place = self
            .waiting
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, next);
        if place.is_err() || self.stopped.load(Ordering::SeqCst) {
            if place.is_ok() {
                self.waiting.fetch_sub(1, Ordering::AcqRel);
            }
            // Its drop refuses.
            return;
        }
        self.incoming.push(incoming);
        // Either this finds that it was stopped meanwhile, or who stops it finds the client.
        fence(Ordering::SeqCst);
        if self.stopped.load(Ordering::SeqCst) {
            return self.refuse_all();
        }
        self.waiters.wake();
    }

    /// The handler of a connection that is accepted.
    fn handler(&self, connection: &Arc<ConnectionShared>) -> ConnectionEvents {
        ConnectionEvents::new(connection, self.connections.as_ref().map(Counted::new))
    }

    fn refuse_all(&self) {
        while self.take().is_some() {}
    }

    fn take(&self) -> Option<ringway::Incoming> {
        let incoming = self.incoming.pop()?;
        self.waiting.fetch_sub(1, Ordering::AcqRel);
        Some(incoming)
    }

    fn stop(&self) {
        self.stopped.store(true, Ordering::SeqCst);
        // See `offer`.
        fence(Ordering::SeqCst);
        self.refuse_all();
        self.waiters.wake();
    }
}

impl Listener {
    /// Waits for the next client; `None`: the listener was stopped. Can be dropped at any time: the client goes to the next who asks.
    pub async fn accept(&self) -> Option<Incoming> {
        let mut waiter = Waiter::default();
        poll_fn(|cx| self.poll_accept(cx, &mut waiter)).await
    }

    /// As [`accept`](Self::accept), polled.
    pub fn poll_accept(&self, cx: &mut Context<'_>, waiter: &mut Waiter) -> Poll<Option<Incoming>> {
        self.shared.waiters.poll(cx, waiter, || {
            if self.shared.stopped.load(Ordering::Acquire) {
                return Some(None);
            }
            let inner = self.shared.take()?;
            let shared = Arc::clone(&self.shared);
            Some(Some(Incoming { inner, shared }))
        })
    }

    /// The local address, with the port that the system has chosen.
    pub fn local_addr(&self) -> SocketAddr {
        self.listener.local_address()
    }

    /// Counters since its start.
    pub fn stats(&self) -> ListenerStats {
        self.listener.stats()
    }

    /// What clients are accepted with from now on.
    pub fn set_server_config(&self, configuration: Arc<Configuration>) {
        let lock = self.shared.configuration.write();
        *lock.unwrap_or_else(PoisonError::into_inner) = configuration;
    }

    /// Stops listening: clients that come, and those that have not been accepted, are refused.
    pub fn stop(&self) {
        self.listener.stop();
        self.shared.stop();
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.shared.stop();
    }
}

#[cfg(feature = "futures")]
impl futures_core::Stream for Listener {
    type Item = Incoming;

    fn poll_next(mut self: std::pin::Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Incoming>> {
        let mut waiter = std::mem::take(&mut self.waiter);
        let next = self.poll_accept(cx, &mut waiter);
        self.waiter = waiter;
        next
    }
}

/// A client that has asked for a connection. Awaited, it is accepted; dropped, refused.
#[derive(Debug)]
pub struct Incoming {
    inner: ringway::Incoming,
    shared: Arc<ListenerShared>,
}

impl Incoming {
    /// Accepts it with the listener's configuration.
    pub fn accept(self) -> Connecting {
        let lock = self.shared.configuration.read();
        let configuration = Arc::clone(&lock.unwrap_or_else(PoisonError::into_inner));
        self.accept_with(&configuration)
    }

    /// Accepts it with this configuration.
    pub fn accept_with(self, configuration: &Arc<Configuration>) -> Connecting {
        let shared = ConnectionShared::new(false);
        let handler = self.shared.handler(&shared);
        let callback = self.inner.accept(configuration, handler);
        connecting(shared, callback)
    }

    /// Accepts it with settings in which it differs from its configuration.
    ///
    /// # Errors
    ///
    /// A setting is out of its range; the client is refused.
    pub fn accept_changed(
        self,
        configuration: &Arc<Configuration>,
        settings: &SettingsChange,
    ) -> Result<Connecting, SettingsError> {
        let shared = ConnectionShared::new(false);
        let handler = self.shared.handler(&shared);
        let callback = self.inner.accept_with(configuration, settings, handler)?;
        Ok(connecting(shared, callback))
    }

    /// Refuses it with CONNECTION_REFUSED, as dropping it does.
    pub fn refuse(self) {}

    /// Refuses it with this transport error code: see [`ringway::Incoming::refuse_with`].
    ///
    /// # Errors
    ///
    /// The code is too large; it is refused with CONNECTION_REFUSED.
    pub fn refuse_with(self, code: TransportErrorCode) -> Result<(), ringway::CallError> {
        self.inner.refuse_with(code)
    }

    /// Forgets it, and tells the client nothing.
    pub fn ignore(self) {
        self.inner.ignore();
    }

    /// The client's address.
    pub fn remote_address(&self) -> SocketAddr {
        self.inner.remote_address()
    }

    /// The local address that the client has reached.
    pub fn local_address(&self) -> SocketAddr {
        self.inner.local_address()
    }

    /// The client has shown that it receives packets at its address. Who wants that of all says so as the listener starts
    /// ([`RetryPolicy::Always`](ringway::RetryPolicy::Always)).
    pub fn remote_address_validated(&self) -> bool {
        self.inner.is_address_validated()
    }

    /// The server name that the client asks for (SNI), in small letters.
    pub fn server_name(&self) -> Option<&str> {
        self.inner.server_name()
    }

    /// The application protocol that listener and client have agreed on.
    pub fn alpn(&self) -> &[u8] {
        self.inner.alpn()
    }
}

impl IntoFuture for Incoming {
    type Output = <Connecting as Future>::Output;
    type IntoFuture = Connecting;

    fn into_future(self) -> Connecting {
        self.accept()
    }
}
