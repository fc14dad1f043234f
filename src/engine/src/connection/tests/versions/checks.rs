//! What the peer says of versions is checked (RFC 9368 section 4): a change that neither of both made is found out.

use super::*;
use crate::wire::transport_parameters::TransportParameters;

fn encoded(parameters: &TransportParameters) -> Vec<u8> {
    let mut bytes = Vec::new();
    parameters.encode(&mut bytes, &mut StdRng::seed_from_u64(1));
    bytes
}

/// The client sends these transport parameters, made from its own.
fn client_says(pair: &mut Pair, make: impl FnOnce(TransportParameters) -> Vec<u8>) {
    let (now, tls) = (pair.now, pair.client_tls.clone());
    let connection = &mut pair.client().connection;
    let parameters = make(connection.local_parameters(&mut StdRng::seed_from_u64(2)));
    let name = ServerName::try_from("localhost").unwrap();
    let session = TlsSession::client(&tls, connection.version, name, parameters, None).unwrap();
    connection.handshake.tls = Some(Box::new(session));
    connection.content.spaces[Space::Initial]
        .crypto
        .outgoing()
        .clear();
    connection.advance_handshake(now).unwrap();
}

/// The server answers with these transport parameters, made from its own.
pub(super) fn server_says(pair: &mut Pair, make: impl FnOnce(TransportParameters) -> Vec<u8>) {
    pair.accept = false;
    assert!(pair.run_until(|pair| pair.peers.len() == 2 && pair.server().connection.handshake.has_hello));
    let (now, config, tls) = (pair.now, Arc::clone(&pair.server_config), pair.server_tls.clone());
    let connection = &mut pair.server().connection;
    connection.set_server_config(now, config);
    assert!(connection.negotiate_version(now).unwrap());
    let parameters = make(TransportParameters {
        original_destination_connection_id: Some(connection.handshake.original_dcid),
        retry_source_connection_id: connection.handshake.retry_scid,
        ..connection.local_parameters(&mut StdRng::seed_from_u64(2))
    });
    let session = TlsSession::server(&tls, connection.version, parameters).unwrap();
    connection.handshake.tls = Some(Box::new(session));
    let hello = std::mem::take(&mut connection.handshake.hello);
    connection.feed_tls(now, Space::Initial, &hello).unwrap();
    connection.advance_handshake(now).unwrap();
}

/// Both sides end: this one with an error of this code, of which the other hears.
pub(super) fn assert_refused(pair: &mut Pair, by: usize, code: TransportErrorCode, what: &str) {
    pair.run_for(Duration::from_secs(1));
    let Some(CloseReason::Transport(error)) = close_reason(pair, by) else {
        panic!("{what}: {:?}", close_reason(pair, by))
    };
    assert_eq!(error.code, code, "{what}: {error}");
    let Some(CloseReason::PeerTransport { code: heard, .. }) = close_reason(pair, 1 - by) else {
        panic!("{what}: {:?}", close_reason(pair, 1 - by))
    };
    assert_eq!(heard, code, "{what}");
}

pub(super) fn information(chosen: Version, available: &[Version]) -> Option<VersionInformation> {
    Some(VersionInformation {
        chosen: chosen.number(),
        available: available.iter().map(|version| version.number()).collect(),
    })
}

/// Parameters in which version_information is this.
pub(super) fn with(parameters: TransportParameters, information: Option<VersionInformation>) -> Vec<u8> {
    encoded(&TransportParameters {
        version_information: information,
        ..parameters
    })
}

/// Parameters in which version_information has this value.
fn raw(parameters: TransportParameters, value: &[u8]) -> Vec<u8> {
    let mut bytes = with(parameters, None);
    bytes.extend([0x11, value.len() as u8]);
    bytes.extend(value);
    bytes
}

#[test]
fn both_send_what_they_have() {
    let (one, two) = (V1.number(), V2.number());
    let mut pair = changing(V1, V2);
    let server = Rc::new(RefCell::new(None));
    let seen = Rc::clone(&server);
    server_says(&mut pair, |parameters| {
        *seen.borrow_mut() = parameters.version_information.clone();
        encoded(&parameters)
    });
    let client = &pair.client().connection;
    let client = client.version_information(&mut StdRng::seed_from_u64(3));
    assert_eq!((client.chosen, &client.available[..2]), (one, &[one, two][..]));
    let server = server.borrow().clone().unwrap();
    assert_eq!((server.chosen, &server.available[..2]), (two, &[two, one][..]));
    for information in [client, server] {
        // And a version that will never be.
        assert_eq!(information.available[2] & 0x0f0f_0f0f, 0x0a0a_0a0a);
        assert_eq!(information.available.len(), 3);
    }
    pair.connect();
    assert_versions(&pair, V2);
}

#[test]
fn server_names_the_versions_of_its_deployment() {
    let mut config = server_config(&[V2, V1]);
    config.fully_deployed_versions = Some(vec![V1]);
    let mut pair = Pair::with(client_config(V1, &[V1, V2]), config);
    pair.connect();
    assert_versions(&pair, V2);
    let server = pair
        .server()
        .connection
        .version_information(&mut StdRng::seed_from_u64(3));
    assert_eq!(server.chosen, V2.number());
    assert_eq!(server.available[..1], [V1.number()]);
    assert_eq!(server.available.len(), 2);
}

#[test]
fn client_whose_chosen_version_is_not_that_of_its_packets_is_refused() {
    for (from, to) in BOTH_WAYS {
        let mut pair = changing(from, to);
        client_says(&mut pair, |own| with(own, information(to, &[from, to])));
        let code = TransportErrorCode::VERSION_NEGOTIATION_ERROR;
        assert_refused(&mut pair, SERVER, code, "Chosen Version of another");
        assert_eq!(pair.server().connection.version(), from);
    }
}

#[test]
fn server_whose_chosen_version_is_not_that_of_its_packets_is_refused() {
    for (from, to) in BOTH_WAYS {
        let mut pair = changing(from, to);
        server_says(&mut pair, |own| with(own, information(from, &[from, to])));
        let code = TransportErrorCode::VERSION_NEGOTIATION_ERROR;
        assert_refused(&mut pair, CLIENT, code, "after a change");
        // And the other way: an attacker who keeps the server's version from the client.
        let mut pair = Pair::with(client_config(from, &[from, to]), server_config(&[from]));
        server_says(&mut pair, |own| with(own, information(to, &[from, to])));
        assert_refused(&mut pair, CLIENT, code, "without a change");
        // A version that nobody has heard of.
        let mut pair = changing(from, to);
        server_says(&mut pair, |own| {
            let unknown = VersionInformation {
                chosen: 0x1a2a_3a4a,
                available: vec![],
            };
            with(own, Some(unknown))
        });
        assert_refused(&mut pair, CLIENT, code, "a version that was not offered");
    }
}

#[test]
fn version_information_that_cannot_be_read_is_a_transport_parameter_error() {
    let (one, two) = (V1.number().to_be_bytes(), V2.number().to_be_bytes());
    let cases = [
        ("nothing in it", vec![]),
        ("not of whole versions", [&one[..], &one, &[0]].concat()),
        ("version 0 chosen", [&[0; 4][..], &one, &two].concat()),
        ("version 0 available", [&one[..], &one, &[0; 4]].concat()),
    ];
    let code = TransportErrorCode::TRANSPORT_PARAMETER_ERROR;
    for (what, value) in &cases {
        let mut pair = Pair::new();
        client_says(&mut pair, |own| raw(own, value));
        assert_refused(&mut pair, SERVER, code, what);
        let mut pair = Pair::new();
        server_says(&mut pair, |own| raw(own, value));
        assert_refused(&mut pair, CLIENT, code, what);
    }
    let mut pair = changing(V1, V2);
    client_says(&mut pair, |own| raw(own, &[&one[..], &two].concat()));
    assert_refused(&mut pair, SERVER, code, "Chosen Version is not available");
    let mut pair = Pair::new();
    client_says(&mut pair, |own| {
        let mut twice = raw(own, &[&one[..], &one].concat());
        twice.extend([0x11, 8]);
        twice.extend([&one[..], &two].concat());
        twice
    });
    assert_refused(&mut pair, SERVER, code, "given twice");
}

#[test]
fn peer_that_says_nothing_of_versions_keeps_its_own() {
    for (from, to) in BOTH_WAYS {
        let mut pair = changing(from, to);
        client_says(&mut pair, |own| with(own, None));
        pair.connect();
        assert_versions(&pair, from);
        let mut pair = Pair::with(client_config(from, &[from, to]), server_config(&[from]));
        server_says(&mut pair, |own| with(own, None));
        pair.connect();
        assert_versions(&pair, from);
        // But it cannot have changed the version.
        let mut pair = changing(from, to);
        server_says(&mut pair, |own| with(own, None));
        let code = TransportErrorCode::VERSION_NEGOTIATION_ERROR;
        assert_refused(&mut pair, CLIENT, code, "changed and silent");
    }
}

#[test]
fn versions_that_nobody_knows_are_ignored() {
    let mut pair = Pair::with(client_config(V1, &[V1, V2]), config());
    client_says(&mut pair, |own| {
        let many = VersionInformation {
            chosen: V1.number(),
            available: (0..1000)
                .map(|index| 0x5a0a_0a0a + (index << 4))
                .chain([V2.number(), 0x709a_50c4, V1.number()])
                .collect(),
        };
        with(own, Some(many))
    });
    pair.connect();
    assert_versions(&pair, V2);
}

#[test]
fn client_none_of_whose_versions_is_accepted_hears_it_after_it_was_acknowledged() {
    let mut pair = Pair::with(client_config(V1, &[V1]), server_config(&[V2]));
    pair.accept = false;
    assert!(pair.run_until(|pair| pair.client().connection.handshake.received));
    accept(&mut pair);
    let code = TransportErrorCode::VERSION_NEGOTIATION_ERROR;
    assert_refused(&mut pair, SERVER, code, "no version in common");
}
