//! What runs on the worker's thread: the handlers of a connection and its streams.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use ringway::{
    Connection as Callback, ConnectionEvent, ConnectionHandler, DatagramSendState, Direction, EventStatus,
    IncomingStream, OpenFlags, ReceivedData, ReceivedDatagram, SendFlags, Stream, StreamEvent, StreamHandler,
    ZeroRtt,
};

use crate::counted::Counted;
use crate::shared::{Command, ConnectionShared, DATAGRAMS_MAX, Opening, StartOrder, index};
use crate::slots::SideEnd;
use crate::stream_call::{StreamCall, UNCOUNTED};
use crate::stream_ref::{StreamRef, StreamShared};
use crate::turn::{self, WorkerStream};
use crate::var_int::{Dir, StreamId};

/// What waits of a stream in the application's memory to be read, at most, in bytes, with what its pieces take; one packet or block may go beyond it.
pub(crate) const RECEIVE_BUFFER: usize = 512 << 10;
/// The same of a stream that the application has not accepted.
const UNACCEPTED_BUFFER: usize = 16 << 10;

/// The handler of a connection.
pub(crate) struct ConnectionEvents {
    shared: Arc<ConnectionShared>,
    /// Our streams, by kind.
    starting: [StartOrder; 2],
    /// What the connection's send queue has no room for. Later sends of any stream come behind it.
    blocked: VecDeque<(StreamRef, StreamCall)>,
    /// Of an endpoint that counts it.
    _counted: Option<Counted>,
}

impl ConnectionEvents {
    pub(crate) fn new(shared: &Arc<ConnectionShared>, counted: Option<Counted>) -> Self {
        ConnectionEvents {
            shared: Arc::clone(shared),
            starting: Default::default(),
            blocked: VecDeque::new(),
            _counted: counted,
        }
    }

    fn on_notified(&mut self, connection: &Callback) {
        if self.shared.connected.get().is_some() {
            self.shared.datagrams.set_known();
        }
        while let Some((stream, call)) = self.blocked.front_mut()
            && call.carry_out(stream)
        {
            self.blocked.pop_front();
        }
        while let Some(command) = self.shared.commands.pop() {
            self.carry_out(connection, command);
        }
        self.shared
            .blocked
            .store(!self.blocked.is_empty(), Ordering::Relaxed);
    }

    fn carry_out(&mut self, connection: &Callback, command: Command) {
        match command {
            Command::Open { stream, early } => self.open(connection, stream, early),
            Command::Call { stream, mut call } => {
                let waits = call.is_send() && !self.blocked.is_empty();
                if waits || !call.carry_out(&stream) {
                    self.blocked.push_back((stream, call));
                }
            }
            Command::Datagram { data, early } => {
                let flags = if early {
                    SendFlags::ALLOW_0_RTT
                } else {
                    SendFlags::NONE
                };
                if connection.send_datagram_with(data, 0, flags).is_err() {
                    self.shared.datagrams.on_left();
                }
            }
        }
    }

    fn open(&mut self, connection: &Callback, worker: WorkerStream, early: bool) {
        let stream = worker.stream.clone();
        open(&self.shared, connection, &stream, worker, early);
        let dir = index(stream.id.dir());
        let (opening, starting) = (&self.shared.opening[dir], &mut self.starting[dir]);
        starting.add(stream, opening.started());
        while let Some(next) = starting.next() {
            start(&next, opening);
        }
    }

    fn on_peer_stream(&mut self, incoming: IncomingStream<'_>) {
        let dir = match incoming.direction() {
            Direction::Bidirectional => Dir::Bi,
            Direction::Unidirectional => Dir::Uni,
        };
        let stream = StreamRef::new(StreamId(incoming.id()), incoming.is_zero_rtt(), false);
        if dir == Dir::Uni {
            // All of it may be here before it is accepted. It counts as open until its handle, which its halves have with us, is gone: or the peer
            // could open more without end.
            incoming.delay_stream_credit();
        }
        let callback = incoming.accept(StreamEvents {
            connection: Arc::clone(&self.shared),
            stream: WorkerStream::new(&stream),
            is_accepted: false,
        });
        // It was not set before.
        let _ = stream.callback.set(callback.clone());
        self.shared.accepting[index(dir)].streams.push(stream);
        turn::tell_accepting(&self.shared, dir);
    }

    fn on_datagram(&self, datagram: &ReceivedDatagram<'_>) {
        let datagrams = &self.shared.datagrams;
        if datagrams.received.len() >= DATAGRAMS_MAX {
            // The oldest is worth least.
            drop(datagrams.received.pop());
            datagrams.dropped.fetch_add(1, Ordering::Relaxed);
        }
        datagrams.received.push(Bytes::copy_from_slice(datagram));
        datagrams.readers.wake();
    }
}

impl ConnectionHandler for ConnectionEvents {
    fn on_event(&mut self, connection: &Callback, event: ConnectionEvent<'_>) -> EventStatus {
        let shared = &self.shared;
        match event {
            ConnectionEvent::Notified => self.on_notified(connection),
            ConnectionEvent::Connected { zero_rtt, .. } => {
                // It is set once.
                let _ = shared.connected.set(zero_rtt == ZeroRtt::Accepted);
                shared.connecting.wake();
                // Whether the peer takes datagrams comes behind this event, if it does; and `Notified` behind that. `Err`: it has ended.
                let _ = connection.notify();
            }
            ConnectionEvent::PeerStreamStarted(stream) => self.on_peer_stream(stream),
            ConnectionEvent::StreamsAvailable { bidi, uni } => {
                for (dir, available) in [(Dir::Bi, bidi), (Dir::Uni, uni)] {
                    let opening = &shared.opening[index(dir)];
                    opening.allow(opening.started().saturating_add(available));
                }
            }
            ConnectionEvent::DatagramStateChanged {
                send_enabled,
                max_send_len,
            } => {
                let max_len = if send_enabled { max_send_len } else { 0 };
                shared.datagrams.max_len.store(max_len, Ordering::Relaxed);
                shared.datagrams.set_known();
            }
            ConnectionEvent::DatagramReceived(datagram) => self.on_datagram(&datagram),
            ConnectionEvent::DatagramSendStateChanged {
                state: DatagramSendState::Sent | DatagramSendState::Canceled,
                ..
            } => self.shared.datagrams.on_left(),
            ConnectionEvent::ShutdownByPeer { .. } | ConnectionEvent::ShutdownByTransport { .. } => {
                if let Some(reason) = connection.close_reason() {
                    shared.set_end((&*reason).into());
                }
            }
            ConnectionEvent::ShutdownComplete { reason, stats, .. } => {
                // It is set once.
                let _ = shared.last_stats.set(*stats);
                shared.set_end(reason.into());
            }
            _ => {}
        }
        EventStatus::Done
    }
}

impl Drop for ConnectionEvents {
    /// Also where there was no last event: a client that has given up before it was accepted.
    fn drop(&mut self) {
        self.shared.set_over();
    }
}

/// The handler of a stream.
struct StreamEvents {
    connection: Arc<ConnectionShared>,
    stream: WorkerStream,
    /// The application has it, as far as is known here.
    is_accepted: bool,
}

impl StreamEvents {
    fn is_accepted(&mut self) -> bool {
        self.is_accepted = self.is_accepted || self.stream.accepted.load(Ordering::Relaxed);
        self.is_accepted
    }

    /// Sends may wait for the room that there is now.
    fn go_on_sending(&self, callback: &Stream) {
        if self.connection.blocked.load(Ordering::Relaxed) {
            // `Err`: it has ended.
            let _ = callback.connection().notify();
        }
    }

    fn on_receive(&mut self, data: &ReceivedData<'_>) -> EventStatus {
        let len = data.len();
        if len == 0 {
            // The end alone.
            return EventStatus::Done;
        }
        let limit = if self.is_accepted() {
            RECEIVE_BUFFER
        } else {
            UNACCEPTED_BUFFER
        };
        if !self.stream.receive.reserve(len, limit) {
            return EventStatus::Consumed(0);
        }
        self.stream.tell(|news| news.data(data));
        EventStatus::Done
    }
}

impl StreamHandler for StreamEvents {
    fn on_event(&mut self, callback: &Stream, event: StreamEvent<'_>) -> EventStatus {
        match event {
            StreamEvent::Receive(data) => return self.on_receive(&data),
            StreamEvent::PeerSendShutdown => self.stream.tell(|news| news.end(SideEnd::Finished)),
            StreamEvent::PeerSendAborted { code } => {
                self.stream.tell(|news| news.end(SideEnd::ByPeer(code)));
            }
            // What is in memory of the stream need not be looked at.
            StreamEvent::SendComplete {
                context: UNCOUNTED, ..
            } => self.go_on_sending(callback),
            StreamEvent::SendComplete { context, .. } => {
                self.stream.send.tell(context, None);
                self.go_on_sending(callback);
            }
            StreamEvent::IdealSendBufferSize(bytes) => {
                self.connection.ideal_send.fetch_max(bytes, Ordering::Relaxed);
            }
            StreamEvent::PeerReceiveAborted { code } => {
                self.stream.send.tell(0, Some(SideEnd::ByPeer(code)));
            }
            StreamEvent::SendShutdownComplete { graceful } => {
                let end = if graceful {
                    SideEnd::Finished
                } else {
                    SideEnd::Lost
                };
                self.stream.send.tell(0, Some(end));
            }
            StreamEvent::StartComplete(Err(_)) => self.stream.lose(),
            StreamEvent::ShutdownComplete { reason, .. } => {
                if let Some(reason) = reason {
                    self.connection.set_end(reason.into());
                }
                // With the handler, what has not ended ends. A unidirectional one still counts for the peer: it fills no memory beyond its limit.
                if !self.is_accepted() && self.stream.id.dir() == Dir::Bi {
                    self.stream.over.store(true, Ordering::Relaxed);
                    self.connection.accepting[index(Dir::Bi)].on_over();
                }
            }
            _ => {}
        }
        EventStatus::Done
    }
}

/// Opens our next stream of a kind, if the peer allows it.
pub(crate) fn open_next(shared: &Arc<ConnectionShared>, dir: Dir) -> Option<StreamRef> {
    let opening = &shared.opening[index(dir)];
    if !opening.is_allowed() {
        return None;
    }
    let take = |connection: Option<&Callback>| {
        let number = opening.take()?;
        let stream = StreamRef::new(StreamId::new(number, shared.is_client, dir), false, true);
        let (worker, early) = (WorkerStream::new(&stream), shared.is_early());
        match connection {
            // Nobody else is about to start one before it.
            Some(connection) if opening.started() == number => {
                open(shared, connection, &stream, worker, early);
                start(&stream, opening);
            }
            _ => shared.command(Command::Open {
                stream: worker,
                early,
            }),
        }
        Some(stream)
    };
    let mut taken = None;
    match shared.at_once(|connection| taken = take(Some(connection))) {
        true => taken,
        false => take(None),
    }
}

/// Opens a stream of ours. Wherever that fails, the stream ends.
fn open(
    shared: &Arc<ConnectionShared>,
    connection: &Callback,
    stream: &StreamShared,
    worker: WorkerStream,
    early: bool,
) {
    let direction = match stream.id.dir() {
        Dir::Bi => Direction::Bidirectional,
        Dir::Uni => Direction::Unidirectional,
    };
    let flags = if early {
        OpenFlags::ALLOW_0_RTT
    } else {
        OpenFlags::NONE
    };
    let handler = StreamEvents {
        connection: Arc::clone(shared),
        stream: worker,
        is_accepted: true,
    };
    // An `Err` drops the handler, and ends the stream so.
    if let Ok(callback) = Stream::open_with(connection, direction, flags, handler) {
        // It was not set before.
        let _ = stream.callback.set(callback);
    }
}

/// Starts it, which is the next one.
fn start(stream: &StreamShared, opening: &Opening) {
    opening.on_started();
    if let Some(callback) = stream.callback.get() {
        // The peer allows it. (Where it does not after all, having rejected 0-RTT, the stream waits.) `Err`: it has ended.
        let _ = callback.start(false);
    }
}
