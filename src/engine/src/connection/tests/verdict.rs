//! Verdicts on certificates that come later: what waits for them, on either side.

use std::sync::Arc;

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::server::WebPkiClientVerifier;

use super::early::{open_early, received, resumption, watch};
use super::pair::{CLIENT, Pair, SERVER, identity};
use super::*;
use crate::crypto::tickets::ResumptionLevel;
use crate::crypto::tls::{
    CertificateReceived, ClientAuthentication, ClientCredentials, ClientTls, DeferredClientVerifier,
    Identity, ServerCredentials, ServerTls,
};

/// A pair in which this side is asked about the other's certificate.
fn pair(asked: usize) -> Pair {
    let (chain, key) = identity();
    let alpns = vec![b"test".to_vec()];
    let mut server = ServerCredentials::new(chain.clone(), key);
    let mut client = ClientCredentials::roots(chain);
    client.identity = Some(Identity::from(identity()));
    if asked == SERVER {
        server.client_authentication = ClientAuthentication::Handler { required: true };
    } else {
        client.certificate_received = CertificateReceived::Indicated;
    }
    let tls = (
        ServerTls::new(server, alpns.clone()).unwrap(),
        ClientTls::new(client, alpns).unwrap(),
    );
    Pair::with_tls(config(), config(), tls, None)
}

fn asked_for(pair: &Pair, side: usize) -> Option<Vec<CertificateDer<'static>>> {
    pair.peers.get(side)?.events.iter().find_map(|event| match event {
        Event::PeerCertificateReceived { chain, .. } => Some(chain.clone()),
        _ => None,
    })
}

/// Runs until this side is asked.
fn asked(side: usize) -> Pair {
    let mut pair = pair(side);
    assert!(pair.run_until(|pair| asked_for(pair, side).is_some()));
    pair
}

fn connected(pair: &Pair, side: usize) -> bool {
    let mut events = pair.peers[side].events.iter();
    events.any(|event| matches!(event, Event::Connected { .. }))
}

fn received_bytes(pair: &Pair, side: usize) -> usize {
    pair.peers[side].received.values().map(Vec::len).sum()
}

#[test]
fn client_that_has_not_decided_sends_neither_its_finished_nor_data_and_is_not_connected() {
    let mut pair = asked(CLIENT);
    open(&mut pair, CLIENT, Dir::Bi, pattern(3000));
    pair.run_for(Duration::from_secs(3));
    let client = &pair.client().connection;
    // Of handshake messages nothing has even been asked of TLS, and there are no keys for data.
    assert!(!client.content.spaces[Space::Handshake].crypto.has_unsent());
    assert!(client.handshake.one_rtt.is_none() && !client.is_established());
    assert!(!connected(&pair, CLIENT) && !connected(&pair, SERVER));
    assert!(!pair.server().connection.is_established());
    assert_eq!(received_bytes(&pair, SERVER), 0);
    let now = pair.now;
    assert!(pair.client().connection.set_certificate_valid(now, true));
    assert!(pair.run_until(|pair| received_bytes(pair, SERVER) == 3000));
    assert!(connected(&pair, CLIENT) && connected(&pair, SERVER));
}

#[test]
fn server_that_has_not_decided_is_not_connected_delivers_nothing_and_confirms_nothing() {
    let mut pair = asked(SERVER);
    assert!(pair.run_until(|pair| connected(pair, CLIENT)));
    open(&mut pair, CLIENT, Dir::Bi, pattern(3000));
    open(&mut pair, SERVER, Dir::Uni, pattern(2000));
    pair.run_for(Duration::from_secs(3));
    assert!(!connected(&pair, SERVER) && !pair.server().connection.is_established());
    let mut events = pair.server().stream_events.iter();
    assert!(!events.any(|event| matches!(event, StreamEvent::PeerOpened { .. })));
    assert_eq!(
        (received_bytes(&pair, SERVER), received_bytes(&pair, CLIENT)),
        (0, 0)
    );
    // HANDSHAKE_DONE has not come.
    assert!(!pair.client().connection.handshake.confirmed);
    let now = pair.now;
    assert!(pair.server().connection.set_certificate_valid(now, true));
    assert!(
        pair.run_until(|pair| received_bytes(pair, SERVER) == 3000 && received_bytes(pair, CLIENT) == 2000)
    );
    assert!(pair.peers.iter().all(|peer| peer.connection.handshake.confirmed));
}

#[test]
fn no_ticket_leaves_before_the_verdict_and_those_of_the_application_come_after_it() {
    // rustls sends tickets by itself, in configurations of its own.
    let (chain, key) = identity();
    let client_identity = identity();
    let mut roots = RootCertStore::empty();
    roots.add(client_identity.0[0].clone()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), Arc::clone(&provider))
        .build()
        .unwrap();
    let verifier = DeferredClientVerifier::around(verifier, CertificateReceived::Deferred);
    let mut server = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain.clone(), key)
        .unwrap();
    server.alpn_protocols = vec![b"test".to_vec()];
    assert!(server.send_tls13_tickets > 0);
    let mut client = ClientCredentials::roots(chain);
    client.identity = Some(Identity::from(client_identity));
    let tls = (
        ServerTls::from_rustls(&Arc::new(server)).unwrap(),
        ClientTls::new(client, vec![b"test".to_vec()]).unwrap(),
    );
    let mut pair = Pair::with_tls(config(), config(), tls, None);
    assert!(pair.run_until(|pair| asked_for(pair, SERVER).is_some()));
    pair.run_for(Duration::from_secs(3));
    let tickets = |pair: &mut Pair| {
        !pair.server().connection.content.spaces[Space::Data]
            .crypto
            .outgoing()
            .is_empty()
    };
    assert!(!tickets(&mut pair));
    let now = pair.now;
    assert!(pair.server().connection.set_certificate_valid(now, true));
    assert!(tickets(&mut pair));
    assert!(pair.run_until(|pair| pair.peers.iter().all(|peer| peer.connection.handshake.confirmed)));
}

#[test]
fn client_whose_session_is_not_taken_up_sends_no_more_0_rtt_before_its_verdict() {
    let (chain, key) = identity();
    let alpns = vec![b"test".to_vec()];
    let server = ServerTls::new(ServerCredentials::new(chain.clone(), key), alpns.clone()).unwrap();
    let server = || {
        server
            .clone()
            .with_resumption(resumption(ResumptionLevel::ResumeAndZeroRtt))
    };
    let mut client = ClientCredentials::roots(chain);
    client.certificate_received = CertificateReceived::Indicated;
    let client = ClientTls::new(client, alpns).unwrap().with_resumption();
    let pair = |ticket| Pair::with_tls(config(), config(), (server(), client.clone()), ticket);
    let mut first = pair(None);
    assert!(first.run_until(|pair| asked_for(pair, CLIENT).is_some()));
    let now = first.now;
    assert!(first.client().connection.set_certificate_valid(now, true));
    first.connect();
    first.server().connection.send_resumption_ticket(b"").unwrap();
    first.run_for(Duration::from_millis(100));
    let ticket = received(&mut first).pop().unwrap();
    // Another server, with other keys for tickets.
    let mut pair = pair(Some(ticket));
    let sent = watch(&mut pair);
    open_early(&mut pair, Dir::Bi, pattern(1000));
    assert!(pair.run_until(|pair| asked_for(pair, CLIENT).is_some()));
    assert!(sent.borrow().contains(&LongType::ZeroRtt));
    sent.borrow_mut().clear();
    // There is room for more, which would go at once.
    open_early(&mut pair, Dir::Bi, pattern(1000));
    pair.run_for(Duration::from_secs(3));
    assert!(!sent.borrow().contains(&LongType::ZeroRtt));
    assert_eq!(received_bytes(&pair, SERVER), 0);
    let now = pair.now;
    assert!(pair.client().connection.set_certificate_valid(now, true));
    assert!(pair.run_until(|pair| received_bytes(pair, SERVER) == 2000));
}

#[test]
fn peer_that_is_not_trusted_hears_of_it_and_nothing_else_happens() {
    for side in [CLIENT, SERVER] {
        let mut pair = asked(side);
        let now = pair.now;
        assert!(pair.peers[side].connection.set_certificate_valid(now, false));
        assert!(!pair.peers[side].connection.set_certificate_valid(now, true));
        assert!(pair.run_until(|pair| close_reason(pair, 1 - side).is_some()));
        let code = TransportErrorCode::crypto(42);
        assert!(
            matches!(close_reason(&pair, side), Some(CloseReason::Transport(error)) if error.code == code)
        );
        let theirs = close_reason(&pair, 1 - side).unwrap();
        assert!(matches!(&theirs, CloseReason::PeerTransport { code: other, .. } if *other == code));
        let text = theirs.to_string();
        assert!(
            text.contains("the peer refused the handshake: TLS alert 42 bad_certificate"),
            "{text}"
        );
        assert!(!connected(&pair, side));
    }
}

#[test]
fn verdict_that_nobody_asked_for_is_none() {
    let mut pair = Pair::connected();
    let now = pair.now;
    for side in [CLIENT, SERVER] {
        assert!(!pair.peers[side].connection.set_certificate_valid(now, false));
        assert!(pair.peers[side].connection.is_open());
    }
    let mut pair = asked(SERVER);
    // The time for handshakes goes on.
    assert!(pair.run_until(|pair| close_reason(pair, SERVER).is_some()));
    let now = pair.now;
    assert!(!pair.server().connection.set_certificate_valid(now, true));
}

#[test]
fn datagrams_are_taken_while_a_verdict_keeps_the_handshake_from_completing_and_leave_after_it() {
    for side in [CLIENT, SERVER] {
        let mut pair = asked(side);
        let connection = &mut pair.peers[side].connection;
        assert!(!connection.is_established());
        assert_eq!(connection.max_datagram_len(), 0, "none goes yet");
        assert_eq!(
            connection.datagram_len_limit(),
            usize::from(config().maximum_datagram_size)
        );
        assert!(connection.send_datagram(pattern(1000).into(), 1, DatagramOptions::default()));
        pair.run_for(Duration::from_secs(1));
        let now = pair.now;
        assert!(pair.peers[side].connection.set_certificate_valid(now, true));
        assert!(pair.run_until(|pair| pair.peers[1 - side].datagrams == [pattern(1000)]));
    }
}
