//! A client and a server joined by a network in memory, in virtual time.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ringway_types::{Ecn, Instant, PortId};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};

use crate::connection::config::Config;
use crate::connection::drops::DropCounts;
use crate::connection::events::Event;
use crate::connection::receive::Delivery;
use crate::connection::resumption::ResumptionAnswer;
use crate::connection::transmit::TransmitLimits;
use crate::connection::{Connection, LocalCid, PathAddress, ServerStart};
use crate::crypto::tickets::ClientTicket;
use crate::crypto::tls::{ClientCredentials, ClientTls, ServerCredentials, ServerTls};
use crate::streams::{AfterReceive, Scheduling, StreamEvent, StreamKey, StreamsConfig};
use crate::wire::cid::{ConnectionId, ResetToken};
use crate::wire::header::{self, ProtectedHeader};

pub(super) const CLIENT: usize = 0;
pub(super) const SERVER: usize = 1;

/// One datagram on the network.
#[derive(Clone, Debug)]
pub(super) struct Datagram {
    pub(super) at: Instant,
    pub(super) to: usize,
    pub(super) from: SocketAddr,
    pub(super) ecn: Ecn,
    pub(super) bytes: Vec<u8>,
}

/// One end and its application, which consumes everything while it reads.
pub(super) struct Peer {
    pub(super) connection: Connection,
    pub(super) received: HashMap<u64, Vec<u8>>,
    pub(super) ended: Vec<u64>,
    pub(super) events: Vec<Event>,
    pub(super) stream_events: Vec<StreamEvent>,
    pub(super) datagrams: Vec<Vec<u8>>,
    pub(super) drops: DropCounts,
    ids: HashMap<StreamKey, u64>,
    next_cid: u64,
    pub(super) limits: TransmitLimits,
    reads: bool,
}

pub(super) struct Pair {
    pub(super) now: Instant,
    pub(super) peers: Vec<Peer>,
    pub(super) wire: Vec<Datagram>,
    pub(super) delay: Duration,
    /// Decides what becomes of each datagram: what it gives is delivered.
    pub(super) network: Box<dyn FnMut(Datagram) -> Vec<Datagram>>,
    pub(super) client_address: SocketAddr,
    /// What the link of each peer carries (UDP payload): its device takes no larger datagrams, and says so when a turn is over.
    pub(super) link: [usize; 2],
    /// Bytes of what datagrams are written into.
    pub(super) buffer: usize,
    pub(super) server_config: Arc<Config>,
    pub(super) server_tls: ServerTls,
    pub(super) client_tls: ClientTls,
    pub(super) accept: bool,
    /// What the server's application says of tickets; `None`: nothing yet.
    pub(super) answer: Option<ResumptionAnswer>,
    pub(super) start: ServerStartOptions,
    /// The client closes with this code as soon as it is connected, before it sends anything more.
    pub(super) client_closes: Option<u64>,
    /// All datagrams that were sent, with the sender.
    pub(super) sent: Vec<(usize, usize)>,
}

#[derive(Clone, Default)]
pub(super) struct ServerStartOptions {
    pub(super) validated: bool,
    /// The client answers a Retry, which answered an Initial to this connection ID.
    pub(super) retry_of: Option<ConnectionId>,
}

pub(super) fn server_address() -> SocketAddr {
    "192.0.2.1:443".parse().unwrap()
}

pub(super) fn config() -> Config {
    Config {
        streams: StreamsConfig {
            connection_window: 1 << 20,
            window_bidi_local: 1 << 16,
            window_bidi_remote: 1 << 16,
            window_uni: 1 << 16,
            peer_streams: [100, 100],
            scheduling: Scheduling::RoundRobin,
            send_queue_limit: 0,
            multi_receive: false,
        },
        initial_datagram_size: 1200,
        maximum_datagram_size: 1472,
        datagram_receive: true,
        ecn: true,
        ..Config::default()
    }
}

pub(super) fn identity() -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
    let certified = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(certified.signing_key.serialize_der()).unwrap();
    (vec![certified.cert.der().clone()], key)
}

pub(super) fn tls() -> (ServerTls, ClientTls) {
    let (chain, key) = identity();
    let alpns = vec![b"test".to_vec()];
    (
        ServerTls::new(ServerCredentials::new(chain.clone(), key), alpns.clone()).unwrap(),
        ClientTls::new(ClientCredentials::roots(chain), alpns).unwrap(),
    )
}

fn local_cid(side: usize, index: u64) -> LocalCid {
    let mut bytes = [side as u8 + 1; 8];
    bytes[4..].copy_from_slice(&(index as u32).to_be_bytes());
    LocalCid {
        cid: ConnectionId::new(&bytes).unwrap(),
        token: ResetToken([bytes[0] ^ index as u8; 16]),
    }
}

impl Peer {
    pub(super) fn new(connection: Connection) -> Self {
        Peer {
            connection,
            received: HashMap::new(),
            ended: Vec::new(),
            events: Vec::new(),
            stream_events: Vec::new(),
            datagrams: Vec::new(),
            drops: DropCounts::default(),
            ids: HashMap::new(),
            next_cid: 1,
            limits: TransmitLimits {
                segments_max: 10,
                datagram_bytes_max: 65527,
            },
            reads: true,
        }
    }

    /// From now on the application reads, or does not.
    pub(super) fn set_reads(&mut self, reads: bool) {
        self.reads = reads;
        for &key in self.ids.keys() {
            self.connection.streams_mut().set_receive_enabled(key, reads);
        }
    }

    fn take(&mut self, key: StreamKey, offset: u64, data: &[u8], fin: bool) {
        let id = self.ids[&key];
        let stream = self.received.entry(id).or_default();
        assert_eq!(stream.len() as u64, offset, "bytes in order and once");
        stream.extend_from_slice(data);
        if fin {
            self.ended.push(id);
        }
    }

    fn receive(&mut self, now: Instant, path: PathAddress, ecn: Ecn, bytes: &mut [u8]) {
        let mut receive = self.connection.receive(&path, ecn, bytes);
        while let Some(delivery) = self.connection.receive_next(now, &mut receive, &mut self.drops) {
            match delivery {
                Delivery::Stream {
                    key,
                    offset,
                    data,
                    fin,
                    ..
                } => {
                    self.take_events();
                    let (consumed, after) = if self.reads {
                        self.take(key, offset, data, fin);
                        (data.len(), AfterReceive::Continue)
                    } else {
                        (0, AfterReceive::Pause)
                    };
                    self.connection
                        .on_stream_delivered(now, key, offset, data, fin, consumed, after);
                }
                Delivery::Datagram { data, .. } => self.datagrams.push(data.to_vec()),
            }
        }
        self.work(now);
    }

    fn take_events(&mut self) {
        while let Some(event) = self.connection.next_event() {
            self.events.push(event);
        }
        while let Some(event) = self.connection.streams_mut().next_event() {
            match event {
                StreamEvent::PeerOpened { key, id } | StreamEvent::Started { key, id } => {
                    self.ids.insert(key, id.value());
                }
                _ => {}
            }
            self.stream_events.push(event);
            if let StreamEvent::ShutdownComplete { key } = event {
                self.connection.streams_mut().release(key);
            }
        }
    }

    fn work(&mut self, now: Instant) {
        self.take_events();
        while let Some(key) = self.connection.streams_mut().next_readable() {
            let Some(ready) = self.connection.streams_mut().take_ready(key) else {
                continue;
            };
            let data = ready.slices().concat();
            self.take(key, ready.offset(), &data, ready.fin());
            self.connection
                .on_ready_delivered(now, key, ready, data.len(), AfterReceive::Continue);
            self.take_events();
        }
        self.take_events();
        while self.connection.next_retired_local_cid().is_some() {}
        while self.connection.next_reset_token_change().is_some() {}
    }

    pub(super) fn next_cid(&self) -> u64 {
        self.next_cid
    }

    fn supply_cids(&mut self, side: usize) {
        for _ in 0..self.connection.local_cids_wanted() {
            self.connection.add_local_cid(local_cid(side, self.next_cid));
            self.next_cid += 1;
        }
    }
}

impl Pair {
    pub(super) fn new() -> Self {
        Pair::with(config(), config())
    }

    pub(super) fn with(client: Config, server: Config) -> Self {
        Pair::with_tls(client, server, tls(), None)
    }

    pub(super) fn with_tls(
        client: Config,
        server: Config,
        (server_tls, client_tls): (ServerTls, ClientTls),
        ticket: Option<ClientTicket>,
    ) -> Self {
        let now = Instant::from_nanos(1_000_000_000);
        let client_address: SocketAddr = "198.51.100.7:50000".parse().unwrap();
        let path = PathAddress {
            port: PortId(0),
            local: client_address,
            remote: server_address(),
        };
        let name = ServerName::try_from("localhost").unwrap();
        let connection = Connection::client(
            now,
            Arc::new(client),
            &client_tls,
            name,
            path,
            local_cid(CLIENT, 0),
            Vec::new(),
            ticket,
            [7; 32],
        );
        Pair {
            now,
            peers: vec![Peer::new(connection)],
            wire: Vec::new(),
            delay: Duration::from_millis(10),
            network: Box::new(|datagram| vec![datagram]),
            client_address,
            link: [usize::MAX; 2],
            buffer: 16 * 1024,
            server_config: Arc::new(server),
            server_tls,
            client_tls,
            accept: true,
            answer: Some(ResumptionAnswer::Accept),
            start: ServerStartOptions::default(),
            client_closes: None,
            sent: Vec::new(),
        }
    }

    /// A pair whose handshake is confirmed on both sides.
    pub(super) fn connected() -> Self {
        let mut pair = Pair::new();
        pair.connect();
        pair
    }

    pub(super) fn connect(&mut self) {
        assert!(
            self.run_until(|pair| pair.peers.len() == 2
                && pair.peers.iter().all(|peer| peer.connection.handshake.confirmed))
        );
        self.run_for(Duration::from_millis(500));
    }

    pub(super) fn client(&mut self) -> &mut Peer {
        &mut self.peers[CLIENT]
    }

    pub(super) fn server(&mut self) -> &mut Peer {
        &mut self.peers[SERVER]
    }

    fn deliver(&mut self, mut datagram: Datagram) {
        if datagram.to == SERVER && self.peers.len() == 1 {
            let Ok(ProtectedHeader::Long(first)) = header::decode(&datagram.bytes, 8) else {
                return;
            };
            let start = ServerStart {
                version: first.version,
                peer_cid: first.scid,
                original_dcid: self.start.retry_of.unwrap_or(first.dcid),
                initial_dcid: first.dcid,
                retry_scid: self.start.retry_of.map(|_| first.dcid),
                address_validated: self.start.validated,
                path: PathAddress {
                    port: PortId(0),
                    local: server_address(),
                    remote: datagram.from,
                },
                local_cid: local_cid(SERVER, 0),
            };
            self.peers
                .push(Peer::new(Connection::server(self.now, &start, [9; 32])));
        }
        let local = if datagram.to == SERVER {
            server_address()
        } else {
            self.client_address
        };
        let path = PathAddress {
            port: PortId(0),
            local,
            remote: datagram.from,
        };
        let now = self.now;
        self.peers[datagram.to].receive(now, path, datagram.ecn, &mut datagram.bytes);
        if let Some(code) = self
            .client_closes
            .filter(|_| self.client().connection.is_established())
        {
            self.client().connection.close(now, code);
        }
        if self.accept && datagram.to == SERVER && self.server().connection.take_client_hello().is_some() {
            let (config, tls) = (Arc::clone(&self.server_config), self.server_tls.clone());
            self.server().connection.accept(now, config, &tls);
            self.server().work(now);
            let asked = self
                .server()
                .events
                .iter()
                .any(|event| matches!(event, Event::Resuming(_)));
            if let Some(answer) = self.answer.filter(|_| asked) {
                self.answer_resumption(answer);
            }
        }
    }

    /// The server's application answers.
    pub(super) fn answer_resumption(&mut self, answer: ResumptionAnswer) {
        let now = self.now;
        self.server().connection.complete_resumption(now, answer);
        let server = self.server();
        server.connection.open_waiting(now, &mut server.drops);
        server.work(now);
    }

    fn transmit(&mut self) {
        for side in 0..self.peers.len() {
            let mut buffer = vec![0; self.buffer];
            let mut refused = Vec::new();
            loop {
                let peer = &mut self.peers[side];
                peer.supply_cids(side);
                let limits = peer.limits;
                let Some(transmit) = peer.connection.transmit(self.now, &mut buffer, &limits) else {
                    break;
                };
                let from = if side == CLIENT {
                    self.client_address
                } else {
                    server_address()
                };
                // A NAT that has forgotten the client's old address delivers nothing there.
                let reachable = side == CLIENT || transmit.path.remote == self.client_address;
                if transmit.segment_size > self.link[side] {
                    refused.push(transmit);
                    continue;
                }
                for bytes in buffer[..transmit.len].chunks(transmit.segment_size) {
                    self.sent.push((side, bytes.len()));
                    let datagram = Datagram {
                        at: self.now + self.delay,
                        to: 1 - side,
                        from,
                        ecn: transmit.ecn,
                        bytes: bytes.to_vec(),
                    };
                    if reachable {
                        self.wire.extend((self.network)(datagram));
                    }
                }
                self.peers[side].work(self.now);
            }
            for transmit in &refused {
                let connection = &mut self.peers[side].connection;
                connection.on_datagram_too_big(self.now, transmit.segment_size, transmit.len);
            }
            if !refused.is_empty() {
                self.peers[side].work(self.now);
                self.transmit();
            }
        }
    }

    /// Does what is due.
    fn work(&mut self) {
        while let Some(index) = (0..self.wire.len())
            .filter(|&index| self.wire[index].at <= self.now)
            .min_by_key(|&index| (self.wire[index].at, index))
        {
            let datagram = self.wire.remove(index);
            self.deliver(datagram);
        }
        for peer in &mut self.peers {
            if peer
                .connection
                .deadline()
                .is_some_and(|deadline| deadline <= self.now)
            {
                peer.connection.on_timeout(self.now);
                peer.work(self.now);
            }
        }
        self.transmit();
    }

    /// When something is due next.
    fn next(&self) -> Option<Instant> {
        let timers = self.peers.iter().filter_map(|peer| peer.connection.deadline());
        let arrivals = self.wire.iter().map(|datagram| datagram.at);
        timers.chain(arrivals).min().map(|next| next.max(self.now))
    }

    /// Does what is due and moves on to the next time that something is. False if nothing ever will be.
    pub(super) fn step(&mut self) -> bool {
        self.work();
        self.next().map(|next| self.now = next).is_some()
    }

    /// Runs until `done`, or for a minute at most. False if it never was.
    pub(super) fn run_until(&mut self, mut done: impl FnMut(&mut Pair) -> bool) -> bool {
        let end = self.now + Duration::from_secs(60);
        for _ in 0..2_000_000 {
            self.work();
            if done(self) {
                return true;
            }
            match self.next() {
                Some(next) if next <= end => self.now = next,
                _ => return false,
            }
        }
        panic!("two million steps: something spins");
    }

    /// How long the client's handshake took.
    pub(super) fn handshake_time(&mut self) -> Duration {
        let now = self.now;
        self.client().connection.stats(now).handshake_time.unwrap()
    }

    pub(super) fn run_for(&mut self, time: Duration) {
        let end = self.now + time;
        for _ in 0..2_000_000 {
            self.work();
            match self.next() {
                Some(next) if next <= end => self.now = next,
                _ => {
                    self.now = end;
                    return;
                }
            }
        }
        panic!("two million steps: something spins");
    }
}
