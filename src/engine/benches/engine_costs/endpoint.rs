//! One side of a connection, worked as a worker works it, and datagrams on their way to the other side.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use ringway_engine::connection::config::Config;
use ringway_engine::connection::drops::DropCounts;
use ringway_engine::connection::events::Event;
use ringway_engine::connection::null_crypto::established_pair;
use ringway_engine::connection::receive::Delivery;
use ringway_engine::connection::resumption::ResumptionAnswer;
use ringway_engine::connection::transmit::TransmitLimits;
use ringway_engine::connection::{Connection, LocalCid, PathAddress};
use ringway_engine::crypto::tickets::ClientTicket;
use ringway_engine::crypto::tls::ServerTls;
use ringway_engine::streams::{AfterReceive, StreamEvent, StreamKey, Streams, StreamsConfig};
use ringway_engine::wire::cid::{ConnectionId, ResetToken};
use ringway_types::{Ecn, Instant, PortId};

use crate::meter::{Meter, Part};

/// Datagrams in a slot at most.
pub(crate) const RUN: usize = 40;
/// Slots that one connection fills in one poll at most.
pub(crate) const SLOTS: usize = 4;
/// UDP payload of a full packet.
const DATAGRAM: u16 = 1472;
const LIMITS: TransmitLimits = TransmitLimits {
    segments_max: RUN,
    datagram_bytes_max: 65_507,
};

/// What uses a connection.
pub(crate) trait Application {
    /// Stream data, which is consumed.
    fn on_data(&mut self, streams: &mut Streams, key: StreamKey, data: &[u8], fin: bool);
    /// Anything else of a stream. Its key dies after `ShutdownComplete`.
    fn on_event(&mut self, streams: &mut Streams, event: StreamEvent);
}

/// One side.
pub(crate) struct Endpoint {
    pub connection: Connection,
    path: PathAddress,
    /// The first byte of its connection IDs.
    side: u8,
    /// Connection IDs made so far: the last byte of the next.
    cids: u8,
    /// What a server accepts its client with.
    accept: Option<(Arc<Config>, ServerTls)>,
    pub tickets: Tickets,
    drops: DropCounts,
}

/// What a side does about tickets.
#[derive(Default)]
pub(crate) struct Tickets {
    /// A server gives one to its client.
    pub gives: bool,
    /// The last that a client got.
    pub received: Option<ClientTicket>,
}

impl Endpoint {
    pub(crate) fn new(connection: Connection, side: u8, accept: Option<(Arc<Config>, ServerTls)>) -> Self {
        Endpoint {
            path: connection.path(),
            connection,
            side,
            cids: 1,
            accept,
            tickets: Tickets::default(),
            drops: DropCounts::default(),
        }
    }

    /// Takes in a run of datagrams, and tells the application what they brought.
    #[inline(never)]
    pub(crate) fn receive(
        &mut self,
        now: Instant,
        run: &mut [u8],
        segment: usize,
        application: &mut dyn Application,
    ) {
        let Endpoint {
            connection,
            path,
            tickets,
            drops,
            ..
        } = self;
        for datagram in run.chunks_mut(segment) {
            let mut receive = connection.receive(path, Ecn::NotEct, datagram);
            while let Some(delivery) = connection.receive_next(now, &mut receive, drops) {
                let Delivery::Stream {
                    key,
                    offset,
                    data,
                    fin,
                    ..
                } = delivery
                else {
                    continue;
                };
                if connection.has_events() {
                    deliver_events(now, connection, tickets, application);
                }
                application.on_data(connection.streams_mut(), key, data, fin);
                connection.on_stream_delivered(
                    now,
                    key,
                    offset,
                    data,
                    fin,
                    data.len(),
                    AfterReceive::Continue,
                );
            }
        }
        if connection.has_events() {
            deliver_events(now, connection, tickets, application);
        }
        if let Some((config, tls)) = &self.accept
            && connection.take_client_hello().is_some()
        {
            connection.accept(now, Arc::clone(config), tls);
            deliver_events(now, connection, tickets, application);
        }
        if self.connection.has_cid_changes() {
            self.update_cids();
        }
    }

    fn update_cids(&mut self) {
        while self.connection.next_retired_local_cid().is_some() {}
        for _ in 0..self.connection.local_cids_wanted() {
            self.cids += 1;
            self.connection.add_local_cid(local_cid(self.side, self.cids));
        }
        while self.connection.next_reset_token_change().is_some() {}
    }

    /// Fills up to this many slots, and asks when the connection wants to be called.
    #[inline(never)]
    pub(crate) fn transmit(&mut self, now: Instant, slots: usize, flight: &mut Flight) {
        for _ in 0..slots {
            if !flight.fill(|slot| {
                let transmit = self.connection.transmit(now, slot, &LIMITS)?;
                Some((transmit.len, transmit.segment_size))
            }) {
                break;
            }
        }
        black_box(self.connection.deadline());
    }

    /// Takes in what has arrived, and sends what there is to send.
    pub(crate) fn poll(
        &mut self,
        now: Instant,
        arrived: &mut Flight,
        sent: &mut Flight,
        application: &mut dyn Application,
    ) {
        for (run, segment) in arrived.drain() {
            self.receive(now, run, segment, application);
        }
        self.transmit(now, SLOTS, sent);
    }
}

/// Nothing is lost or reordered, so that no data waits in a buffer: it all comes by [`Endpoint::receive`].
fn deliver_events(
    now: Instant,
    connection: &mut Connection,
    tickets: &mut Tickets,
    application: &mut dyn Application,
) {
    while let Some(event) = connection.next_event() {
        match event {
            Event::Resuming(_) => connection.complete_resumption(now, ResumptionAnswer::Accept),
            Event::Connected(_) if tickets.gives => {
                connection.send_resumption_ticket(b"").expect("one is there");
            }
            Event::TicketReceived(ticket) => tickets.received = Some(ticket),
            _ => {}
        }
    }
    let streams = connection.streams_mut();
    while let Some(event) = streams.next_event() {
        application.on_event(streams, event);
        if let StreamEvent::ShutdownComplete { key } = event {
            streams.release(key);
        }
    }
}

/// Runs of datagrams under way to one side.
pub(crate) struct Flight {
    slots: Vec<Vec<u8>>,
    /// Length and segment size of the slots that are filled.
    runs: Vec<(usize, usize)>,
}

impl Flight {
    /// Room for so many runs.
    pub(crate) fn new(slots: usize) -> Self {
        Flight {
            slots: vec![vec![0; LIMITS.datagram_bytes_max]; slots],
            runs: Vec::with_capacity(slots),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// Lets `write` fill a slot; false if it had nothing to write, or no slot is left.
    fn fill(&mut self, write: impl FnOnce(&mut [u8]) -> Option<(usize, usize)>) -> bool {
        let run = self.slots.get_mut(self.runs.len()).and_then(|slot| write(slot));
        self.runs.extend(run);
        run.is_some()
    }

    /// All runs, each with its segment size, which are no longer under way.
    pub(crate) fn drain(&mut self) -> impl Iterator<Item = (&mut [u8], usize)> {
        let slots = self.slots.iter_mut();
        slots
            .zip(self.runs.drain(..))
            .map(|(slot, (len, segment))| (&mut slot[..len], segment))
    }
}

/// Two sides that talk to each other.
pub(crate) struct Pair {
    pub client: Endpoint,
    pub server: Endpoint,
    pub to_client: Flight,
    pub to_server: Flight,
    pub now: Instant,
}

impl Pair {
    pub(crate) fn new(client: Endpoint, server: Endpoint, now: Instant) -> Self {
        Pair {
            client,
            server,
            to_client: Flight::new(SLOTS),
            to_server: Flight::new(SLOTS),
            now,
        }
    }

    /// As after a handshake. Packets are in the clear.
    pub(crate) fn established(config: Config) -> Self {
        let now = start();
        let cids = [local_cid(CLIENT, 1), local_cid(SERVER, 1)];
        let [client, server] = established_pair(now, &Arc::new(config), paths(), cids);
        let client = Endpoint::new(client, CLIENT, None);
        let server = Endpoint::new(server, SERVER, None);
        Pair::new(client, server, now)
    }

    /// Client and server take turns until neither has anything to send.
    pub(crate) fn exchange(
        &mut self,
        meter: &mut Meter,
        client: &mut dyn Application,
        server: &mut dyn Application,
    ) {
        loop {
            self.now += ONE_WAY;
            meter.run(Part::Client, || {
                self.client
                    .poll(self.now, &mut self.to_client, &mut self.to_server, client);
            });
            let silent = self.to_server.is_empty();
            self.now += ONE_WAY;
            meter.run(Part::Server, || {
                self.server
                    .poll(self.now, &mut self.to_server, &mut self.to_client, server);
            });
            if silent && self.to_client.is_empty() {
                break;
            }
        }
    }
}

/// When everything begins.
pub(crate) fn start() -> Instant {
    Instant::from_nanos(1_000_000_000)
}

/// Windows that are never used up, and full packets from the first.
pub(crate) fn config(streams: StreamsConfig) -> Config {
    Config {
        streams: StreamsConfig {
            connection_window: 1 << 40,
            window_bidi_local: 1 << 40,
            window_bidi_remote: 1 << 40,
            window_uni: 1 << 40,
            ..streams
        },
        initial_window_packets: 1000,
        initial_rtt: Duration::from_millis(1),
        initial_datagram_size: DATAGRAM,
        maximum_datagram_size: DATAGRAM,
        ..Config::default()
    }
}

/// Where the client is, and where the server is.
pub(crate) fn paths() -> [PathAddress; 2] {
    let path = |local: &str, remote: &str| PathAddress {
        port: PortId(0),
        local: local.parse().expect("an address"),
        remote: remote.parse().expect("an address"),
    };
    [
        path("192.0.2.1:1", "192.0.2.2:2"),
        path("192.0.2.2:2", "192.0.2.1:1"),
    ]
}

pub(crate) fn local_cid(side: u8, number: u8) -> LocalCid {
    let mut bytes = [side; 8];
    bytes[7] = number;
    LocalCid {
        cid: ConnectionId::new(&bytes).expect("8 bytes are within the limit of 20"),
        token: ResetToken([number; 16]),
    }
}

/// First bytes of connection IDs.
pub(crate) const CLIENT: u8 = 1;
pub(crate) const SERVER: u8 = 2;
/// How long datagrams are under way.
pub(crate) const ONE_WAY: Duration = Duration::from_micros(50);
