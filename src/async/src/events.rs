//! What runs on the worker's thread: the handlers of a connection and its streams.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use ringway::{
    CallError, Connection as Callback, ConnectionEvent, ConnectionHandler, DatagramSendState, Direction,
    EventStatus, IncomingStream, OpenFlags, ReceivedData, ReceivedDatagram, SendFlags, Stream, StreamEvent,
    StreamHandler, StreamShutdown, ZeroRtt,
};

use crate::shared::{Command, ConnectionShared, DATAGRAMS_MAX, StartOrder, index};
use crate::slots::SideEnd;
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
    blocked: VecDeque<Command>,
}

impl ConnectionEvents {
    pub(crate) fn new(shared: &Arc<ConnectionShared>) -> Self {
        ConnectionEvents {
            shared: Arc::clone(shared),
            starting: Default::default(),
            blocked: VecDeque::new(),
        }
    }

    fn on_notified(&mut self, connection: &Callback) {
        if self.shared.connected.get().is_some() {
            self.shared.datagrams.set_known();
        }
        while let Some(command) = self.blocked.pop_front() {
            if let Some(command) = self.carry_out_send(command) {
                self.blocked.push_front(command);
                break;
            }
        }
        while let Some(command) = self.shared.commands.pop() {
            self.carry_out(connection, command);
        }
        self.shared
            .blocked
            .store(!self.blocked.is_empty(), Ordering::Relaxed);
    }

    fn carry_out(&mut self, connection: &Callback, command: Command) {
        // An `Err` of these calls: the stream or the connection has ended, as its events say.
        match command {
            Command::Open { stream, early } => self.open(connection, stream, early),
            send @ (Command::Send { .. } | Command::Finish { .. }) => {
                if !self.blocked.is_empty() {
                    self.blocked.push_back(send);
                } else if let Some(blocked) = self.carry_out_send(send) {
                    self.blocked.push_back(blocked);
                }
            }
            Command::Reset { stream, code } => on(&stream, |stream| {
                let _ = stream.shutdown(StreamShutdown::AbortSend(code));
            }),
            Command::Stop { stream, code } => on(&stream, |stream| {
                let _ = stream.shutdown(StreamShutdown::AbortReceive(code));
            }),
            Command::Resume { stream } => on(&stream, |stream| {
                let _ = stream.set_receive_enabled(true);
            }),
            Command::SetPriority { stream, priority } => on(&stream, |stream| {
                let _ = stream.set_priority(priority);
            }),
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

    /// Sends; gives back what there is no room for.
    fn carry_out_send(&mut self, command: Command) -> Option<Command> {
        match command {
            Command::Send { stream, data, fin } => {
                let callback = stream.callback.get()?;
                let len = data.len() as u64;
                // Another `Err`: it has ended, which its halves hear.
                if let Err(CallError::QueueFull) = callback.send(data.clone(), len, fin) {
                    return Some(Command::Send { stream, data, fin });
                }
            }
            Command::Finish { stream } => on(&stream, |stream| {
                let _ = stream.shutdown(StreamShutdown::Graceful);
            }),
            _ => {}
        }
        None
    }

    fn open(&mut self, connection: &Callback, worker: WorkerStream, early: bool) {
        let stream = worker.stream.clone();
        let dir = stream.id.dir();
        let (direction, flags) = (
            match dir {
                Dir::Bi => Direction::Bidirectional,
                Dir::Uni => Direction::Unidirectional,
            },
            if early {
                OpenFlags::ALLOW_0_RTT
            } else {
                OpenFlags::NONE
            },
        );
        let handler = StreamEvents {
            connection: Arc::clone(&self.shared),
            stream: worker,
        };
        // An `Err` drops the handler, and ends the stream so.
        if let Ok(callback) = Stream::open_with(connection, direction, flags, handler) {
            // It was not set before.
            let _ = stream.callback.set(callback);
        }
        let starting = &mut self.starting[index(dir)];
        starting.add(stream);
        while let Some(next) = starting.next() {
            // The peer allows it. (Where it does not after all, having rejected 0-RTT, the stream waits.)
            on(&next, |stream| {
                let _ = stream.start(false);
            });
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
                    let started = self.starting[index(dir)].started;
                    shared.opening[index(dir)].allow(started.saturating_add(available));
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
}

impl StreamEvents {
    fn on_receive(&mut self, data: &ReceivedData<'_>) -> EventStatus {
        let limit = if self.stream.accepted.load(Ordering::Relaxed) {
            RECEIVE_BUFFER
        } else {
            UNACCEPTED_BUFFER
        };
        if data.is_empty() {
            // The end alone.
            return EventStatus::Done;
        }
        if !self.stream.receive.reserve(data.len(), limit) {
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
            StreamEvent::SendComplete { context, .. } => {
                self.stream.send.tell(context, None);
                if self.connection.blocked.load(Ordering::Relaxed) {
                    // `Err`: it has ended.
                    let _ = callback.connection().notify();
                }
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
                self.stream.lose();
                // A unidirectional one still counts for the peer: it fills no memory beyond its limit.
                if self.stream.id.dir() == Dir::Bi {
                    self.stream.over.store(true, Ordering::Relaxed);
                    if !self.stream.accepted.load(Ordering::Relaxed) {
                        self.connection.accepting[index(Dir::Bi)].on_over();
                    }
                }
            }
            _ => {}
        }
        EventStatus::Done
    }
}

fn on(stream: &StreamShared, call: impl FnOnce(&Stream)) {
    if let Some(callback) = stream.callback.get() {
        call(callback);
    }
}
