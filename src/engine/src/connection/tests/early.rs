//! Resumption, and data before the handshake is complete.

use std::rc::Rc;

use super::pair::tls;
use super::*;
use crate::connection::resumption::{Early, ResumptionAnswer, TicketError};
use crate::connection::stats::ZeroRtt;
use crate::crypto::tickets::{
    ClientTicket, IssueError, ResumptionLevel, ServerResumption, TicketKey, TicketKeys,
};
use crate::crypto::tls::{ClientCredentials, ClientTls, KeyExchangeGroup, ServerCredentials, ServerTls};
use crate::datagrams::{DatagramOptions, DatagramSendState};
use crate::streams::{SendOptions, StartOptions};

/// A server and its clients, over several connections.
pub(super) struct Scene {
    pub(super) server: ServerTls,
    pub(super) client: ClientTls,
    client_config: Config,
    pub(super) server_config: Config,
}

pub(super) fn resumption(level: ResumptionLevel) -> ServerResumption {
    let keys = TicketKeys::new(&[TicketKey::random().unwrap()]);
    ServerResumption {
        tickets: 2,
        ..ServerResumption::new(level, keys)
    }
}

impl Scene {
    pub(super) fn new() -> Self {
        Scene::with(resumption(ResumptionLevel::ResumeAndZeroRtt))
    }

    fn with(resumption: ServerResumption) -> Self {
        let (server, client) = tls();
        Scene {
            server: server.with_resumption(resumption),
            client: client.with_resumption(),
            client_config: config(),
            server_config: config(),
        }
    }

    pub(super) fn pair(&self, ticket: Option<ClientTicket>) -> Pair {
        let tls = (self.server.clone(), self.client.clone());
        Pair::with_tls(
            self.client_config.clone(),
            self.server_config.clone(),
            tls,
            ticket,
        )
    }

    /// A ticket with this data of the application.
    pub(super) fn ticket(&self, data: &[u8]) -> ClientTicket {
        let mut pair = self.pair(None);
        pair.connect();
        pair.server().connection.send_resumption_ticket(data).unwrap();
        pair.run_for(Duration::from_millis(100));
        received(&mut pair).pop().expect("a ticket comes")
    }

    /// A client that has a ticket.
    pub(super) fn resuming(&self) -> Pair {
        self.pair(Some(self.ticket(b"data")))
    }
}

pub(super) fn received(pair: &mut Pair) -> Vec<ClientTicket> {
    let events = std::mem::take(&mut pair.client().events);
    events
        .into_iter()
        .filter_map(|event| match event {
            Event::TicketReceived(ticket) => Some(ticket),
            _ => None,
        })
        .collect()
}

pub(super) fn open_early(pair: &mut Pair, dir: Dir, data: Bytes) -> StreamKey {
    let streams = pair.peers[CLIENT].connection.streams_mut();
    let key = streams.create(dir);
    streams.start(key, false).unwrap();
    streams.send_with(key, data, 1, early(true)).unwrap();
    key
}

fn established(pair: &mut Pair) {
    let established = |pair: &mut Pair| {
        pair.peers.len() == 2 && pair.peers.iter().all(|peer| peer.connection.is_established())
    };
    assert!(pair.run_until(established), "{:?}", close_reason(pair, CLIENT));
}

fn connected(pair: &Pair, side: usize) -> (bool, ZeroRtt) {
    let found = pair.peers[side].events.iter().find_map(|event| match event {
        Event::Connected(info) => Some((info.resumed, pair.peers[side].connection.content.stats.zero_rtt)),
        _ => None,
    });
    found.expect("connected")
}

/// Types of the long packets that a client has sent, from now on.
pub(super) fn watch(pair: &mut Pair) -> Rc<RefCell<Vec<LongType>>> {
    let seen = Rc::new(RefCell::new(Vec::new()));
    let log = Rc::clone(&seen);
    pair.network = Box::new(move |datagram| {
        if datagram.to == SERVER {
            log.borrow_mut().extend(long_types(&datagram.bytes));
        }
        vec![datagram]
    });
    seen
}

fn long_types(mut bytes: &[u8]) -> Vec<LongType> {
    let mut types = Vec::new();
    while header::is_long(bytes)
        && let Ok(header::ProtectedHeader::Long(long)) = header::decode(bytes, 8)
    {
        types.push(long.ty);
        bytes = &bytes[long.packet_len..];
    }
    types
}

#[test]
fn session_is_resumed_with_the_data_that_the_application_wrote_into_the_ticket() {
    let scene = Scene::with(resumption(ResumptionLevel::ResumeOnly));
    let ticket = scene.ticket(b"what the application wants to know again");
    let mut pair = scene.pair(Some(ticket));
    pair.connect();
    let asked = pair.server().events.iter().find_map(|event| match event {
        Event::Resuming(data) => Some(data.clone()),
        _ => None,
    });
    assert_eq!(asked.unwrap(), b"what the application wants to know again");
    for side in [CLIENT, SERVER] {
        assert_eq!(connected(&pair, side), (true, ZeroRtt::NotOffered));
        assert!(pair.peers[side].connection.content.stats.resumed);
    }
    // The certificate is that of then.
    assert!(
        pair.client()
            .events
            .iter()
            .any(|event| matches!(event, Event::Connected(info) if !info.peer_certificates.is_empty()))
    );
}

#[test]
fn request_in_0_rtt_is_answered_within_one_round_trip() {
    let scene = Scene::new();
    let mut pair = scene.resuming();
    let types = watch(&mut pair);
    let started = pair.now;
    open_early(&mut pair, Dir::Bi, pattern(500));
    // The server answers as soon as it has the request, which is before the handshake is complete.
    assert!(pair.run_until(|pair| pair.peers.len() == 2 && pair.server().ended == [0]));
    assert!(!pair.server().connection.is_established());
    assert_eq!(
        pair.now.since(started),
        Duration::from_millis(10),
        "half a round trip"
    );
    let key = pair.server().stream_events.iter().find_map(|event| match event {
        StreamEvent::PeerOpened { key, .. } => Some(*key),
        _ => None,
    });
    let streams = pair.server().connection.streams_mut();
    assert!(streams.has_early_data(key.unwrap()));
    streams.send(key.unwrap(), pattern(700), 2, true).unwrap();
    assert!(pair.run_until(|pair| pair.client().ended == [0]));
    assert_eq!(
        pair.now.since(started),
        Duration::from_millis(20),
        "one round trip"
    );
    assert_eq!(pair.client().received[&0], pattern(700));
    pair.connect();
    let first = [LongType::Initial, LongType::Initial, LongType::ZeroRtt];
    assert_eq!(
        types.borrow()[..3],
        first,
        "behind the ClientHello, which takes two"
    );
    for side in [CLIENT, SERVER] {
        assert_eq!(connected(&pair, side), (true, ZeroRtt::Accepted));
    }
    pair.run_for(Duration::from_secs(1));
    for peer in &mut pair.peers {
        assert!(peer.connection.handshake.early.is_none(), "keys of 0-RTT go");
        assert_eq!(peer.connection.content.stats.lost_packets, 0);
    }
}

#[test]
fn first_datagram_is_full_whatever_follows_the_initial() {
    // RFC 9000 section 14.1.
    for len in [0, 1, 20, 300, 700, 5000] {
        let mut pair = Scene::new().resuming();
        open_early(&mut pair, Dir::Uni, pattern(len));
        assert!(pair.run_until(|pair| pair.peers.len() == 2));
        assert!(
            pair.sent
                .iter()
                .take_while(|(side, _)| *side == CLIENT)
                .next()
                .unwrap()
                .1
                >= 1200
        );
        established(&mut pair);
        assert!(pair.run_until(|pair| pair.server().ended == [2]));
        assert_eq!(pair.server().received[&2], pattern(len));
    }
}

#[test]
fn more_than_the_first_window_goes_in_0_rtt_and_the_rest_in_1_rtt() {
    let mut pair = Scene::new().resuming();
    let data = pattern(300_000);
    for _ in 0..3 {
        open_early(&mut pair, Dir::Uni, data.clone());
    }
    assert!(pair.run_until(|pair| pair.peers.len() == 2 && pair.server().ended.len() == 3));
    assert!(pair.server().received.values().all(|received| *received == data));
    assert_eq!(connected(&pair, CLIENT), (true, ZeroRtt::Accepted));
}

#[test]
fn only_what_is_marked_for_it_is_sent_in_0_rtt() {
    let mut pair = Scene::new().resuming();
    let streams = pair.client().connection.streams_mut();
    let [part, none, end] = std::array::from_fn(|_| {
        let key = streams.create(Dir::Uni);
        streams.start(key, false).unwrap();
        key
    });
    streams.send_with(part, pattern(100), 1, early(false)).unwrap();
    streams.send(part, pattern(50), 2, false).unwrap();
    // Too late: something that must not go comes before it.
    streams.send_with(part, pattern(50), 3, early(true)).unwrap();
    streams.send(none, pattern(100), 4, true).unwrap();
    streams.send_with(end, pattern(100), 5, early(false)).unwrap();
    streams.finish_sending(end).unwrap();
    assert!(pair.run_until(|pair| pair.peers.len() == 2
        && pair.now.since(pair.peers[1].connection.started) < Duration::from_millis(1)));
    let received = |pair: &Pair| {
        let lens = [2, 6, 10].map(|id| pair.peers[SERVER].received.get(&id).map(Vec::len));
        (lens, pair.peers[SERVER].ended.len())
    };
    assert_eq!(received(&pair), ([Some(100), None, Some(100)], 0));
    assert!(pair.run_until(|pair| pair.server().ended.len() == 3));
    assert_eq!(received(&pair).0, [Some(200), Some(100), Some(100)]);
    assert_eq!(close_reason(&pair, SERVER), None);
}

#[test]
fn datagrams_that_are_marked_for_it_go_in_0_rtt() {
    let mut pair = Scene::new().resuming();
    let client = &mut pair.client().connection;
    let len = client.max_datagram_len();
    assert!(len > 1000, "{len}");
    assert!(client.send_datagram(pattern(300).into(), 1, EARLY));
    assert!(client.send_datagram(pattern(len).into(), 2, EARLY));
    assert!(client.send_datagram(pattern(3).into(), 3, DatagramOptions::default()));
    assert!(pair.run_until(|pair| pair.peers.len() == 2 && pair.server().datagrams.len() == 1));
    assert!(!pair.server().connection.is_established());
    // The first one was there before the server had accepted the client.
    let first = pair.server().events.iter().find_map(|event| match event {
        Event::DeferredDatagram { data, early: true } => Some(data.clone()),
        _ => None,
    });
    assert_eq!(first.unwrap(), pattern(300));
    assert!(pair.run_until(|pair| pair.server().datagrams.len() == 2));
    assert_eq!(pair.server().datagrams, [pattern(len), pattern(3)]);
}

#[test]
fn server_sends_no_datagrams_in_0_5_rtt_to_a_client_that_takes_none() {
    // RFC 9221 section 3: the client would end the connection.
    let mut scene = Scene::new();
    scene.client_config.datagram_receive = false;
    let mut pair = scene.resuming();
    pair.answer = None;
    open_early(&mut pair, Dir::Uni, pattern(3000));
    assert!(pair.run_until(|pair| pair.peers.len() == 2));
    // What the client takes is not known yet.
    let server = &mut pair.server().connection;
    assert!(server.datagram_len_limit() > 1000);
    assert!(server.send_datagram(pattern(10).into(), 7, DatagramOptions::default()));
    pair.answer_resumption(ResumptionAnswer::Accept);
    let server = &pair.server().connection;
    assert!(!server.is_established() && server.handshake.can_send(Space::Data));
    assert_eq!(server.datagram_len_limit(), 0);
    established(&mut pair);
    pair.run_for(Duration::from_millis(500));
    assert_eq!(close_reason(&pair, SERVER), None);
    let mut states = pair.server().events.iter().filter_map(|event| match event {
        Event::DatagramSendStateChanged { context: 7, state } => Some(*state),
        _ => None,
    });
    assert_eq!(states.next(), Some(DatagramSendState::Canceled));
    assert_eq!(states.next(), None);
}

fn rejected_scenes() -> Vec<(&'static str, Scene, bool)> {
    let mut scenes = Vec::new();
    // Each is given its ticket by a server that accepts 0-RTT.
    let smaller = |change: &dyn Fn(&mut StreamsConfig)| {
        let mut scene = Scene::new();
        change(&mut scene.server_config.streams);
        scene
    };
    scenes.push((
        "connection window",
        smaller(&|streams| streams.connection_window -= 1),
        true,
    ));
    scenes.push((
        "stream window",
        smaller(&|streams| streams.window_bidi_remote -= 1),
        true,
    ));
    scenes.push((
        "window of one way",
        smaller(&|streams| streams.window_uni -= 1),
        true,
    ));
    scenes.push(("streams", smaller(&|streams| streams.peer_streams = [2, 1]), true));
    scenes.push((
        "few bytes",
        smaller(&|streams| {
            (
                streams.window_bidi_remote,
                streams.window_uni,
                streams.connection_window,
            ) = (10, 20, 50);
        }),
        true,
    ));
    scenes
}

#[test]
fn smaller_limits_make_a_server_reject_0_rtt_and_all_is_sent_again_in_1_rtt_within_them() {
    // RFC 9000 section 7.4.1: it must.
    for (name, scene, resumed) in rejected_scenes() {
        let ticket = Scene {
            server_config: config(),
            server: scene.server.clone(),
            client: scene.client.clone(),
            client_config: config(),
        }
        .ticket(b"");
        let mut pair = scene.pair(Some(ticket));
        let data = pattern(3000);
        for _ in 0..5 {
            open_early(&mut pair, Dir::Bi, data.clone());
            open_early(&mut pair, Dir::Uni, data.clone());
        }
        assert!(
            pair.client()
                .connection
                .send_datagram(pattern(10).into(), 9, EARLY)
        );
        established(&mut pair);
        for side in [CLIENT, SERVER] {
            assert_eq!(connected(&pair, side), (resumed, ZeroRtt::Rejected), "{name}");
        }
        assert!(
            pair.client().connection.max_datagram_len() > 1000,
            "{name}: datagrams go on"
        );
        let opened: Vec<_> = pair
            .server()
            .stream_events
            .iter()
            .filter_map(|event| match event {
                StreamEvent::PeerOpened { key, .. } => Some(*key),
                _ => None,
            })
            .collect();
        let streams = pair.server().connection.streams_mut();
        assert!(
            !opened.into_iter().any(|key| streams.has_early_data(key)),
            "{name}"
        );
        assert!(pair.server().datagrams.is_empty(), "{name}");
        assert!(pair.server().drops.get(DropReason::ZeroRttRejected) > 0);
        let lost = Event::DatagramSendStateChanged {
            context: 9,
            state: DatagramSendState::LostSuspect,
        };
        assert!(
            pair.client()
                .events
                .iter()
                .any(|event| format!("{event:?}") == format!("{lost:?}"))
        );
        finish_all(&mut pair, 10);
        assert!(
            pair.server().received.values().all(|received| *received == data),
            "{name}"
        );
        let ids: Vec<_> = pair.server().received.keys().copied().collect();
        assert_eq!(ids.len(), 10);
        let starts = pair.client().stream_events.iter();
        let starts = starts
            .filter(|event| matches!(event, StreamEvent::Started { .. }))
            .count();
        assert_eq!(starts, 10, "each is started once, {name}");
        assert_eq!(
            pair.client().connection.content.stats.congestion_events,
            0,
            "no sign of congestion, {name}"
        );
    }
}

/// Runs until the server has had the end of so many streams; it ends its own half of each.
fn finish_all(pair: &mut Pair, count: usize) {
    let done = |pair: &mut Pair| {
        let opened: Vec<_> = pair
            .server()
            .stream_events
            .drain(..)
            .filter_map(|event| match event {
                StreamEvent::PeerOpened { key, id } if id.dir() == Dir::Bi => Some(key),
                _ => None,
            })
            .collect();
        for key in opened {
            let _ = pair.server().connection.streams_mut().finish_sending(key);
        }
        pair.server().ended.len() == count
    };
    let closed = (close_reason(pair, CLIENT), close_reason(pair, SERVER));
    assert!(
        pair.run_until(done),
        "{} of {count} ended, {closed:?}",
        pair.server().ended.len()
    );
}

#[test]
fn application_may_refuse_0_rtt_or_the_session_or_take_its_time() {
    for (answer, expected) in [
        (ResumptionAnswer::AcceptWithoutZeroRtt, (true, ZeroRtt::Rejected)),
        (ResumptionAnswer::Refuse, (false, ZeroRtt::Rejected)),
        (ResumptionAnswer::Accept, (true, ZeroRtt::Accepted)),
    ] {
        for late in [false, true] {
            let mut pair = Scene::new().resuming();
            pair.answer = (!late).then_some(answer);
            open_early(&mut pair, Dir::Uni, pattern(3000));
            if late {
                assert!(pair.run_until(|pair| pair.peers.len() == 2));
                pair.run_for(Duration::from_millis(1500));
                assert!(!pair.client().connection.is_established() && pair.server().received.is_empty());
                pair.answer_resumption(answer);
            }
            established(&mut pair);
            assert_eq!(connected(&pair, SERVER), expected, "{answer:?} {late}");
            assert_eq!(connected(&pair, CLIENT), expected, "{answer:?} {late}");
            assert!(pair.run_until(|pair| pair.server().ended == [2]));
            assert_eq!(pair.server().received[&2], pattern(3000));
        }
    }
}

#[test]
fn packet_with_a_frame_that_must_not_be_in_0_rtt_ends_the_connection() {
    // RFC 9000 section 12.5.
    type Write = fn(&mut Writer<'_>);
    let frames: [(&str, Write); 8] = [
        ("ACK", |w| w.bytes(&[2, 0, 0, 0, 0])),
        ("CRYPTO", |w| w.bytes(&[6, 0, 1, 0])),
        ("NEW_TOKEN", |w| w.bytes(&[7, 1, 0])),
        ("RETIRE_CONNECTION_ID", |w| w.bytes(&[0x19, 0])),
        ("PATH_RESPONSE", |w| w.bytes(&[0x1b, 0, 0, 0, 0, 0, 0, 0, 0])),
        ("HANDSHAKE_DONE", |w| w.bytes(&[0x1e])),
        ("IMMEDIATE_ACK", |w| w.bytes(&[0x1f])),
        ("ACK_FREQUENCY", |w| w.bytes(&[0x40, 0xaf, 0, 1, 1, 1])),
    ];
    for (name, write) in frames {
        let mut pair = Scene::new().resuming();
        assert!(pair.run_until(|pair| pair.peers.len() == 2));
        let packet = by_hand(&pair, 5, write);
        let at = pair.now;
        let from = pair.client_address;
        pair.wire.push(Datagram {
            at,
            to: SERVER,
            from,
            ecn: Default::default(),
            bytes: packet,
        });
        pair.run_for(Duration::from_millis(1));
        let Some(CloseReason::Transport(error)) = close_reason(&pair, SERVER) else {
            panic!("{name} is taken");
        };
        assert_eq!(error.code, TransportErrorCode::PROTOCOL_VIOLATION, "{name}");
    }
}

/// A 0-RTT packet of the client.
fn by_hand(pair: &Pair, number: u64, write: fn(&mut Writer<'_>)) -> Vec<u8> {
    let client = &pair.peers[CLIENT].connection;
    let Some(Early::Sealing { keys, .. }) = client.handshake.early.as_deref() else {
        panic!("the client has keys");
    };
    let mut room = [0; 300];
    let encoded = packet_number::encode(number, None);
    let cids = (
        &client.handshake.original_dcid,
        &client.content.local_cids.first().cid,
    );
    let (mut w, header_len, length_offset) =
        crate::crypto::packet::begin_long(&mut room, client.version, LongType::ZeroRtt, cids, None, encoded);
    write(&mut w);
    w.zeros(4);
    let len = w.len() + 16;
    crate::crypto::packet::finish_long(
        &mut room[..len],
        length_offset,
        &keys.expand(),
        number,
        encoded,
        header_len,
    );
    room[..len].to_vec()
}

#[test]
fn tickets_are_given_while_there_are_some_and_the_connection_is_open() {
    let scene = Scene::new();
    let mut pair = scene.pair(None);
    established(&mut pair);
    assert_eq!(
        pair.client().connection.send_resumption_ticket(b""),
        Err(TicketError::NotServer)
    );
    pair.connect();
    let server = &mut pair.server().connection;
    assert_eq!(
        server.send_resumption_ticket(&[1; 1001]),
        Err(TicketError::Issue(IssueError::TooLong))
    );
    for data in [b"a", b"b"] {
        server.send_resumption_ticket(data).unwrap();
    }
    assert_eq!(
        server.send_resumption_ticket(b"c"),
        Err(TicketError::Issue(IssueError::NoTickets))
    );
    pair.run_for(Duration::from_secs(1));
    assert_eq!(received(&mut pair).len(), 2);
    let server = &mut pair.server().connection;
    assert!(server.handshake.after.is_none());
    assert_eq!(
        server.content.spaces[Space::Data].crypto.memory(),
        0,
        "nothing of it is kept"
    );
    let now = pair.now;
    pair.server().connection.close(now, 0);
    assert_eq!(
        pair.server().connection.send_resumption_ticket(b"d"),
        Err(TicketError::NotConnected)
    );
}

#[test]
fn ticket_that_is_given_hours_after_the_handshake_brings_0_rtt() {
    // rustls reckons a ticket's age from the handshake on; here the clock of tickets is the system's, and hours are too long: the age is written
    // anew when the ticket is given out, which `crypto::tickets` tests with a clock of its own. Several tickets of one connection serve, in any
    // order.
    let scene = Scene::new();
    let mut pair = scene.pair(None);
    pair.connect();
    for data in [b"a", b"b"] {
        pair.server().connection.send_resumption_ticket(data).unwrap();
        pair.run_for(Duration::from_secs(1));
    }
    for ticket in received(&mut pair).into_iter().rev() {
        let mut pair = scene.pair(Some(ticket));
        established(&mut pair);
        assert_eq!(connected(&pair, SERVER), (true, ZeroRtt::Accepted));
    }
}

#[test]
fn client_keeps_its_tls_session_for_as_long_as_it_waits_for_tickets() {
    let second = Duration::from_secs(1);
    for (wait, after, expected) in [
        (Duration::from_secs(5), second * 4, 1),
        (Duration::from_secs(5), second * 6, 0),
        (Duration::ZERO, Duration::ZERO, 0),
        (Duration::MAX, second * 25, 1),
    ] {
        let mut scene = Scene::new();
        scene.client_config.ticket_wait = wait;
        let mut pair = scene.pair(None);
        pair.connect();
        let before = pair.client().connection.memory();
        pair.run_for(after);
        let holds = pair.client().connection.handshake.after.is_some();
        assert_eq!(holds, expected > 0, "{wait:?}");
        if !holds && !wait.is_zero() {
            assert!(pair.client().connection.memory() + 4000 < before);
        }
        pair.server().connection.send_resumption_ticket(b"").unwrap();
        pair.run_for(Duration::from_millis(100));
        assert_eq!(received(&mut pair).len(), expected, "{wait:?}");
        assert!(pair.client().connection.is_established());
    }
}

#[test]
fn rustls_of_the_application_resumes_with_0_rtt_from_its_own_store() {
    for (version, allowed, expected) in [
        (Version::V1, true, (true, ZeroRtt::Accepted)),
        (Version::V1, false, (true, ZeroRtt::NotOffered)),
        // Its store does not know of which version a ticket is (RFC 9369 section 5).
        (Version::V2, true, (false, ZeroRtt::NotOffered)),
    ] {
        let (chain, key) = pair::identity();
        let mut roots = rustls::RootCertStore::empty();
        roots.add(chain[0].clone()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"test".to_vec()];
        config.enable_early_data = allowed;
        let server = ServerTls::new(ServerCredentials::new(chain, key), vec![b"test".to_vec()]).unwrap();
        let mut scene = Scene {
            server: server.with_resumption(resumption(ResumptionLevel::ResumeAndZeroRtt)),
            client: ClientTls::from_rustls(&Arc::new(config)).unwrap(),
            client_config: config_of(version),
            server_config: super::config(),
        };
        let mut first = scene.pair(None);
        first.connect();
        first.server().connection.send_resumption_ticket(b"").unwrap();
        first.run_for(Duration::from_millis(100));
        assert!(received(&mut first).is_empty(), "it went into the store");
        let mut second = scene.pair(None);
        open_early(&mut second, Dir::Uni, pattern(3000));
        established(&mut second);
        assert_eq!(connected(&second, CLIENT), expected, "{version:?} {allowed}");
        assert!(second.run_until(|pair| pair.server().ended == [2]));
        assert_eq!(second.server().received[&2], pattern(3000));
        // A connection in another version takes no ticket out, either.
        let mut third = scene.pair(None);
        third.connect();
        third.server().connection.send_resumption_ticket(b"").unwrap();
        third.run_for(Duration::from_millis(100));
        scene.client_config = config_of(Version::V2);
        let mut other = scene.pair(None);
        established(&mut other);
        assert_eq!(connected(&other, CLIENT), (false, ZeroRtt::NotOffered));
    }
}

fn config_of(version: Version) -> Config {
    Config { version, ..config() }
}

#[test]
fn zero_rtt_goes_again_after_a_retry_under_new_packet_numbers() {
    // RFC 9000 sections 17.2.3 and 17.2.5.3.
    let mut pair = Scene::new().resuming();
    let first: Rc<RefCell<Vec<Vec<u8>>>> = Rc::default();
    let log = Rc::clone(&first);
    pair.network = Box::new(move |datagram| {
        log.borrow_mut().push(datagram.bytes);
        vec![]
    });
    open_early(&mut pair, Dir::Uni, pattern(3000));
    pair.step();
    assert!(
        first
            .borrow()
            .iter()
            .any(|bytes| long_types(bytes).contains(&LongType::ZeroRtt))
    );
    let sent = pair.client().connection.recovery.next_number(Space::Data);
    // The server's Retry.
    let dcid = pair.client().connection.handshake.original_dcid;
    let scid = ConnectionId::new(&[9; 8]).unwrap();
    let client_cid = pair.client().connection.content.local_cids.first().cid;
    let mut retry = [0; 200];
    let len = crate::wire::stateless::retry(&mut retry, Version::V1, &client_cid, &scid, b"token");
    let tag = crate::crypto::retry::integrity_tag(Version::V1, &dcid, &retry[..len]);
    let retry = [&retry[..len], &tag].concat();
    pair.start.retry_of = Some(dcid);
    pair.start.validated = true;
    let types = watch(&mut pair);
    let at = pair.now;
    pair.wire.push(Datagram {
        at,
        to: CLIENT,
        from: server_address(),
        ecn: Default::default(),
        bytes: retry,
    });
    established(&mut pair);
    assert!(types.borrow().contains(&LongType::ZeroRtt), "again in 0-RTT");
    assert!(
        pair.client().connection.recovery.next_number(Space::Data) > sent,
        "no number twice"
    );
    assert_eq!(pair.client().connection.zero_rtt(), ZeroRtt::Accepted);
    assert!(pair.run_until(|pair| pair.server().ended == [2]));
    assert_eq!(pair.server().received[&2], pattern(3000));
}

#[test]
fn zero_rtt_is_of_the_version_that_the_connection_has_begun_in() {
    // RFC 9369 section 4.1, whichever the server goes over to.
    let mut scene = Scene::new();
    let ticket = scene.ticket(b"");
    scene.server_config.accepted_versions = Some(vec![Version::V2, Version::V1]);
    let mut pair = scene.pair(Some(ticket));
    open_early(&mut pair, Dir::Uni, pattern(40_000));
    let versions: Rc<RefCell<Vec<Version>>> = Rc::default();
    let log = Rc::clone(&versions);
    pair.network = Box::new(move |datagram| {
        let mut bytes = &datagram.bytes[..];
        while datagram.to == SERVER
            && header::is_long(bytes)
            && let Ok(header::ProtectedHeader::Long(long)) = header::decode(bytes, 8)
        {
            if long.ty == LongType::ZeroRtt {
                log.borrow_mut().push(long.version);
            }
            bytes = &bytes[long.packet_len..];
        }
        vec![datagram]
    });
    assert!(pair.run_until(|pair| pair.peers.len() == 2 && pair.server().ended == [2]));
    established(&mut pair);
    assert_eq!(pair.client().connection.version(), Version::V2);
    assert!(versions.borrow().len() > 3 && versions.borrow().iter().all(|version| *version == Version::V1));
    assert_eq!(connected(&pair, SERVER), (true, ZeroRtt::Accepted));
    // The next ticket is for the version that was negotiated.
    pair.connect();
    pair.server().connection.send_resumption_ticket(b"").unwrap();
    pair.run_for(Duration::from_millis(100));
    let ticket = received(&mut pair).pop().unwrap();
    assert_eq!(ticket.version(), Version::V2);
    let mut pair = scene.pair(Some(ticket));
    pair.connect();
    assert_eq!(
        connected(&pair, SERVER),
        (false, ZeroRtt::NotOffered),
        "not for one that begins with version 1"
    );
}

#[test]
fn client_that_is_told_another_version_sends_its_0_rtt_later() {
    let mut scene = Scene::new();
    let ticket = scene.ticket(b"");
    scene.server_config.accepted_versions = Some(vec![Version::V2]);
    scene.client_config.offered_versions = Some(vec![Version::V1, Version::V2]);
    let mut pair = scene.pair(Some(ticket));
    for _ in 0..3 {
        open_early(&mut pair, Dir::Uni, pattern(3000));
    }
    pair.network = Box::new(|_| vec![]);
    pair.step();
    // As the client's first packet has them.
    let (dcid, scid) = (
        pair.client().connection.handshake.original_dcid,
        pair.client().connection.content.local_cids.first().cid,
    );
    let mut packet = [0; 100];
    let mut rng = StdRng::from_seed([1; 32]);
    let versions = [Version::V2];
    let len = crate::wire::stateless::version_negotiation(
        &mut packet,
        dcid.as_bytes(),
        scid.as_bytes(),
        &versions,
        &mut rng,
    );
    pair.network = Box::new(|datagram| vec![datagram]);
    let (at, bytes) = (pair.now, packet[..len.unwrap()].to_vec());
    pair.wire.push(Datagram {
        at,
        to: CLIENT,
        from: server_address(),
        ecn: Default::default(),
        bytes,
    });
    pair.run_for(Duration::from_millis(1));
    let unexpected = pair.client().drops.get(DropReason::UnexpectedVersionNegotiation);
    assert_eq!((unexpected, pair.client().connection.version()), (0, Version::V2));
    established(&mut pair);
    assert_eq!(connected(&pair, CLIENT), (false, ZeroRtt::Rejected));
    assert_eq!(pair.client().connection.version(), Version::V2);
    assert!(pair.run_until(|pair| pair.server().ended.len() == 3));
    assert!(
        pair.server()
            .received
            .values()
            .all(|received| *received == pattern(3000))
    );
}

#[test]
fn client_whose_hello_is_asked_for_again_stops_0_rtt_and_sends_it_later() {
    // RFC 9001 section 4.6.2. The ticket is of a server that takes every group, the other wants one of which no share was sent.
    let certified = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let chain = vec![certified.cert.der().clone()];
    let server = |groups: &[KeyExchangeGroup]| {
        let key = rustls::pki_types::PrivateKeyDer::try_from(certified.signing_key.serialize_der()).unwrap();
        let mut credentials = ServerCredentials::new(chain.clone(), key);
        credentials.key_exchange_groups = groups.to_vec();
        ServerTls::new(credentials, vec![b"test".to_vec()]).unwrap()
    };
    let resumption = resumption(ResumptionLevel::ResumeAndZeroRtt);
    let client = ClientTls::new(ClientCredentials::roots(chain.clone()), vec![b"test".to_vec()]).unwrap();
    let mut scene = Scene {
        server: server(&KeyExchangeGroup::ALL).with_resumption(resumption.clone()),
        client: client.with_resumption(),
        client_config: config(),
        server_config: config(),
    };
    let ticket = scene.ticket(b"");
    scene.server = server(&[KeyExchangeGroup::Secp384r1]).with_resumption(resumption);
    let mut pair = scene.pair(Some(ticket));
    open_early(&mut pair, Dir::Bi, pattern(3000));
    assert!(pair.run_until(|pair| pair.client().connection.zero_rtt() == ZeroRtt::Rejected));
    assert!(
        !pair.client().connection.is_established(),
        "as soon as it is known"
    );
    let types = watch(&mut pair);
    established(&mut pair);
    assert!(!types.borrow().contains(&LongType::ZeroRtt));
    assert_eq!(connected(&pair, SERVER), (true, ZeroRtt::Rejected));
    assert!(pair.run_until(|pair| pair.server().ended == [0]));
    assert_eq!(pair.server().received[&0], pattern(3000));
}

#[test]
fn server_that_accepts_0_rtt_and_gives_less_than_before_breaks_the_protocol() {
    // RFC 9000 section 7.4.1. No server of ours does: this client remembers more than it was given.
    for at in 0..8 {
        let mut pair = Scene::new().resuming();
        let Some(Early::Sealing { limits, .. }) = pair.client().connection.handshake.early.as_deref_mut()
        else {
            panic!("the client offers 0-RTT");
        };
        let mut values = limits.values();
        values[at] += 1;
        *limits = crate::wire::early_limits::EarlyLimits::from_values(values);
        open_early(&mut pair, Dir::Uni, pattern(10));
        assert!(
            pair.run_until(|pair| close_reason(pair, CLIENT).is_some()),
            "{at}"
        );
        let Some(CloseReason::Transport(error)) = close_reason(&pair, CLIENT) else {
            panic!("{at}: {:?}", close_reason(&pair, CLIENT));
        };
        assert_eq!(error.code, TransportErrorCode::PROTOCOL_VIOLATION, "{at}");
    }
}

#[cfg(feature = "craft")]
#[test]
fn acknowledgement_of_0_rtt_confirms_no_handshake_and_of_rejected_0_rtt_is_an_error() {
    // RFC 9001 sections 4.1.2 and 4.6.2.
    for answer in [ResumptionAnswer::Accept, ResumptionAnswer::AcceptWithoutZeroRtt] {
        let mut pair = Scene::new().resuming();
        pair.answer = Some(answer);
        open_early(&mut pair, Dir::Uni, pattern(10));
        // The client's Handshake packets do not arrive: what the server says of its 0-RTT does.
        pair.network = Box::new(|datagram| {
            let types = long_types(&datagram.bytes);
            let is_late = !header::is_long(&datagram.bytes) || types.contains(&LongType::Handshake);
            if datagram.to == SERVER && is_late {
                vec![]
            } else {
                vec![datagram]
            }
        });
        assert!(pair.run_until(|pair| pair.client().connection.is_established()));
        let rejects = answer != ResumptionAnswer::Accept;
        if rejects {
            let mut datagram = Vec::new();
            let ack = [2, 0, 0, 0, 0];
            assert!(
                pair.server()
                    .connection
                    .craft(Space::Data, 90, &ack, &mut datagram)
            );
            let at = pair.now;
            pair.wire.push(Datagram {
                at,
                to: CLIENT,
                from: server_address(),
                ecn: Default::default(),
                bytes: datagram,
            });
        }
        pair.run_for(Duration::from_millis(100));
        let client = &pair.client().connection;
        assert!(!client.handshake.confirmed);
        let code = match close_reason(&pair, CLIENT) {
            Some(CloseReason::Transport(error)) => Some(error.code),
            _ => None,
        };
        let violation = code == Some(TransportErrorCode::PROTOCOL_VIOLATION);
        assert_eq!(violation, rejects);
    }
}

#[test]
fn zero_rtt_packets_that_come_before_the_hello_is_complete_are_kept_up_to_a_bound() {
    let mut pair = Scene::new().resuming();
    pair.answer = None;
    for _ in 0..30 {
        open_early(&mut pair, Dir::Uni, pattern(1500));
    }
    assert!(pair.run_until(|pair| pair.peers.len() == 2));
    pair.run_for(Duration::from_millis(200));
    assert!(pair.server().connection.deferred_packets.len() <= deferred::DEFERRED_PACKETS_MAX);
    pair.answer_resumption(ResumptionAnswer::Accept);
    established(&mut pair);
    assert!(pair.run_until(|pair| pair.server().ended.len() == 30));
    assert!(
        pair.server()
            .received
            .values()
            .all(|received| *received == pattern(1500))
    );
}

#[test]
fn zero_rtt_packets_of_a_connection_without_a_ticket_are_dropped_and_counted() {
    let mut pair = Scene::new().resuming();
    let packet = {
        let mut other = Scene::new().resuming();
        assert!(other.run_until(|pair| pair.peers.len() == 2));
        by_hand(&other, 3, frame::encode_ping)
    };
    pair.answer = Some(ResumptionAnswer::Refuse);
    assert!(pair.run_until(|pair| pair.peers.len() == 2));
    // Both clients have the same seed, and so the same connection IDs.
    let (at, from) = (pair.now, pair.client_address);
    pair.wire.push(Datagram {
        at,
        to: SERVER,
        from,
        ecn: Default::default(),
        bytes: packet.clone(),
    });
    pair.run_for(Duration::from_millis(1));
    assert_eq!(pair.server().drops.get(DropReason::ZeroRttRejected), 1);
    // And what a client gets is dropped (RFC 9001 section 5.6).
    let at = pair.now;
    pair.wire.push(Datagram {
        at,
        to: CLIENT,
        from: server_address(),
        ecn: Default::default(),
        bytes: packet,
    });
    pair.run_for(Duration::from_millis(1));
    assert_eq!(pair.client().drops.get(DropReason::ZeroRttRejected), 1);
    established(&mut pair);
}

#[test]
fn server_answers_0_rtt_with_three_times_its_bytes_until_the_address_is_proven() {
    // RFC 9000 section 8.1.
    let mut pair = Scene::new().resuming();
    open_early(&mut pair, Dir::Bi, pattern(100));
    // The server's packets get lost: the client proves nothing.
    pair.network = Box::new(|datagram| {
        if datagram.to == CLIENT {
            vec![]
        } else {
            vec![datagram]
        }
    });
    assert!(pair.run_until(|pair| pair.peers.len() == 2 && pair.server().ended == [0]));
    let key = pair.server().stream_events.iter().find_map(|event| match event {
        StreamEvent::PeerOpened { key, .. } => Some(*key),
        _ => None,
    });
    pair.server()
        .connection
        .streams_mut()
        .send(key.unwrap(), pattern(100_000), 1, true)
        .unwrap();
    pair.run_for(Duration::from_millis(300));
    let sum = |side| {
        pair.sent
            .iter()
            .filter(|(from, _)| *from == side)
            .map(|(_, len)| len)
            .sum::<usize>()
    };
    assert!(
        sum(SERVER) > 0 && sum(SERVER) <= 3 * sum(CLIENT),
        "{} {}",
        sum(SERVER),
        sum(CLIENT)
    );
}

const EARLY: DatagramOptions = DatagramOptions {
    may_be_early: true,
    priority: false,
    cancel_on_blocked: false,
};

fn early(fin: bool) -> SendOptions {
    SendOptions {
        fin,
        may_be_early: true,
        ..SendOptions::default()
    }
}

/// Streams of the client that the server has seen.
fn opened_at_server(pair: &Pair) -> Vec<u64> {
    let events = pair.peers[SERVER].stream_events.iter();
    let mut ids: Vec<_> = events
        .filter_map(|event| match event {
            StreamEvent::PeerOpened { id, .. } => Some(id.value()),
            _ => None,
        })
        .collect();
    ids.sort_unstable();
    ids
}

#[test]
fn streams_that_are_opened_for_it_go_in_0_rtt_and_hear_afterwards_that_they_are_accepted() {
    let rejected = rejected_scenes().swap_remove(0).1;
    for (scene, accepted) in [(Scene::new(), true), (rejected, false)] {
        let mut pair = scene.resuming();
        let streams = pair.client().connection.streams_mut();
        let [marked, quiet, announced] = std::array::from_fn(|_| streams.create(Dir::Uni));
        streams.allow_early(marked);
        streams.allow_early(announced);
        let options = StartOptions {
            immediate: true,
            tell_accepted: true,
            ..StartOptions::default()
        };
        for key in [marked, quiet, announced] {
            streams.start_with(key, options).unwrap();
        }
        streams.send(marked, pattern(100), 1, true).unwrap();
        let told = |pair: &mut Pair| {
            let events = pair.client().stream_events.iter();
            events
                .filter(|event| matches!(event, StreamEvent::PeerAccepted { .. }))
                .count()
        };
        assert!(pair.run_until(|pair| pair.peers.len() == 2
            && pair.now.since(pair.peers[1].connection.started) < Duration::from_millis(1)));
        assert_eq!(told(&mut pair), 0, "not before the server's limits are known");
        if accepted {
            assert_eq!(opened_at_server(&pair), [2, 10]);
            assert_eq!(pair.peers[SERVER].received[&2].len(), 100);
        }
        assert!(pair.run_until(|pair| opened_at_server(pair).len() == 3));
        assert!(pair.run_until(|pair| pair.server().ended.len() == 1));
        assert_eq!(told(&mut pair), 3);
        assert_eq!(pair.peers[SERVER].received[&2].len(), 100);
    }
}
