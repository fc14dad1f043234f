//! Packets of the handshake, made by hand: too small, for other connection IDs, out of turn.

use super::*;

/// An Initial of the client with this number and these frames.
fn initial(
    client: &Connection,
    dcid: &ConnectionId,
    number: u64,
    pad_to: usize,
    write: impl FnOnce(&mut Writer<'_>),
) -> Vec<u8> {
    let cids = (dcid, &client.content.local_cids.first().cid);
    initial_of(Side::Client, client, cids, number, pad_to, write)
}

/// The same of either side, to the first of these connection IDs and from the second.
fn initial_of(
    side: Side,
    client: &Connection,
    cids: (&ConnectionId, &ConnectionId),
    number: u64,
    pad_to: usize,
    write: impl FnOnce(&mut Writer<'_>),
) -> Vec<u8> {
    let keys = Keys::initial(Version::V1, &client.handshake.original_dcid, side)
        .local
        .expand();
    let mut packet = [0; 1400];
    let mut w = Writer::new(&mut packet[..1384]);
    let encoded = packet_number::encode(number, None);
    let length_offset = header::encode_long(&mut w, Version::V1, LongType::Initial, cids, Some(&[]), encoded);
    let header_len = w.len();
    write(&mut w);
    w.zeros(pad_to.saturating_sub(w.len() + 16));
    w.zeros((header_len + 4 - encoded.len).saturating_sub(w.len()));
    let len = w.len() + 16;
    let packet = &mut packet[..len];
    header::patch_length(packet, length_offset);
    keys.packet.seal(number, packet, header_len, &[]);
    let number_offset = header_len - encoded.len;
    let mask = keys.header.mask(header::sample(packet, number_offset).unwrap());
    header::apply_protection(packet, number_offset, encoded.len, mask);
    packet.to_vec()
}

/// A server that has seen the client's first datagram and not answered it.
fn before_accept() -> Pair {
    let mut pair = Pair::new();
    pair.accept = false;
    // The client is not heard any more, but for what the test says.
    assert!(pair.run_until(|pair| pair.peers.len() == 2));
    pair.network = Box::new(|_| vec![]);
    pair
}

fn to_server(pair: &mut Pair, bytes: Vec<u8>) {
    let datagram = Datagram {
        at: pair.now,
        to: SERVER,
        from: pair.client_address,
        ecn: Default::default(),
        bytes,
    };
    pair.wire.push(datagram);
    pair.run_for(Duration::from_millis(1));
}

fn largest(pair: &Pair) -> Option<u64> {
    pair.peers[SERVER].connection.content.spaces[Space::Initial]
        .acks
        .largest()
}

#[test]
fn small_initial_of_a_client_is_discarded_also_when_the_connection_is_known() {
    let mut pair = before_accept();
    let dcid = pair.client().connection.handshake.original_dcid;
    let before = largest(&pair);
    let packet = initial(&pair.client().connection, &dcid, 9, 0, frame::encode_ping);
    assert!(packet.len() < 100);
    to_server(&mut pair, packet);
    assert_eq!(largest(&pair), before);
}

#[test]
fn small_initial_does_not_end_the_connection() {
    // The same, with a frame that closes: anybody who has seen the first datagram can make it.
    let mut pair = before_accept();
    let dcid = pair.client().connection.handshake.original_dcid;
    let packet = initial(&pair.client().connection, &dcid, 9, 0, |w| {
        frame::encode_connection_close(w, 0, Some(0), b"", 100)
    });
    assert!(packet.len() < 100);
    to_server(&mut pair, packet);
    assert!(pair.server().connection.is_open());
}

#[test]
fn coalesced_packet_to_another_connection_id_is_ignored() {
    let mut pair = before_accept();
    let dcid = pair.client().connection.handshake.original_dcid;
    let other = ConnectionId::new(&[0xee; 8]).unwrap();
    let mut datagram = initial(&pair.client().connection, &dcid, 20, 0, frame::encode_ping);
    datagram.extend(initial(
        &pair.client().connection,
        &other,
        21,
        1200,
        frame::encode_ping,
    ));
    to_server(&mut pair, datagram);
    assert_eq!(largest(&pair), Some(20));
}

#[test]
fn packet_behind_one_that_does_not_open_is_processed() {
    let mut pair = before_accept();
    let dcid = pair.client().connection.handshake.original_dcid;
    let mut datagram = initial(&pair.client().connection, &dcid, 20, 0, frame::encode_ping);
    *datagram.last_mut().unwrap() ^= 1;
    datagram.extend(initial(
        &pair.client().connection,
        &dcid,
        21,
        1200,
        frame::encode_ping,
    ));
    to_server(&mut pair, datagram);
    assert_eq!(largest(&pair), Some(21));
}

#[test]
fn client_hello_is_given_once_whatever_follows_it() {
    let mut pair = before_accept();
    let dcid = pair.client().connection.handshake.original_dcid;
    assert!(pair.server().connection.take_client_hello().is_some());
    let mut offset = pair.client().connection.content.spaces[Space::Initial]
        .crypto
        .outgoing()
        .len() as u64;
    let mut again = 0;
    for number in 20..2020 {
        let datagram = initial(&pair.client().connection, &dcid, number, 1200, |w| {
            frame::encode_crypto(w, offset, &[1; 1000])
        });
        offset += 1000;
        to_server(&mut pair, datagram);
        again += usize::from(pair.server().connection.take_client_hello().is_some());
    }
    assert_eq!(
        again,
        0,
        "given again, after {offset} bytes; open: {}",
        pair.server().connection.is_open()
    );
}

#[test]
fn client_hello_in_pieces_with_gaps_is_held_at_most_fourfold() {
    let mut pair = before_accept();
    let dcid = pair.client().connection.handshake.original_dcid;
    let start = pair.client().connection.content.spaces[Space::Initial]
        .crypto
        .outgoing()
        .len() as u64
        + 1;
    let mut sent = 1200;
    for number in 20..36 {
        let datagram = initial(&pair.client().connection, &dcid, number, 1200, |w| {
            let first = start + 400 * (number - 20);
            for offset in (first..first + 400).step_by(2) {
                frame::encode_crypto(w, offset, &[1]);
            }
        });
        sent += datagram.len();
        to_server(&mut pair, datagram);
        let memory = pair.server().connection.memory();
        assert!(memory <= 4 * sent + 64_000, "{memory} bytes for {sent}");
    }
    assert_eq!(largest(&pair), Some(35));
    assert!(pair.server().connection.memory() > 16 * 200 * 16);
}

/// RFC 9000 section 7.2; but MsQuic acknowledges from the connection ID that the client has chosen for it, when the first part of a ClientHello
/// has come and not the rest, and chooses its own only then.
#[test]
fn server_chooses_its_connection_id_with_its_first_packet_that_is_not_from_the_one_the_client_chose() {
    for (scid, connects) in [(None, true), (Some([0xee; 8]), false)] {
        let mut pair = Pair::new();
        let reached = pair.run_until(|pair| !pair.wire.is_empty());
        assert!(reached && pair.peers.len() == 1);
        let client = &pair.client().connection;
        let chosen = client.handshake.original_dcid;
        let scid = scid.map_or(chosen, |bytes| ConnectionId::new(&bytes).unwrap());
        let to = client.content.local_cids.first().cid;
        let bytes = initial_of(Side::Server, client, (&to, &scid), 3, 1200, |w| {
            frame::encode_integers(w, frame::ty::ACK, &[0, 0, 0, 0])
        });
        pair.wire.push(Datagram {
            at: pair.now,
            to: CLIENT,
            from: server_address(),
            ecn: Default::default(),
            bytes,
        });
        let reached = pair.run_until(|pair| {
            pair.peers.len() == 2 && pair.peers.iter().all(|peer| peer.connection.handshake.confirmed)
        });
        assert_eq!(reached, connects);
    }
}

/// A 1-RTT packet of the client with these frames.
fn short(client: &mut Connection, number: u64, write: impl FnOnce(&mut Writer<'_>)) -> Vec<u8> {
    let dcid = *client.content.remote_cids.current();
    let encoded = packet_number::encode(number, None);
    let mut packet = [0; 1400];
    let mut w = Writer::new(&mut packet[..1384]);
    header::encode_short(&mut w, &dcid, false, encoded);
    let header_len = w.len();
    write(&mut w);
    let len = w.len() + 16;
    let packet = &mut packet[..len];
    let keys = client.handshake.one_rtt.as_mut().expect("1-RTT keys").local();
    keys.packet.seal(number, packet, header_len, &[]);
    let number_offset = header_len - encoded.len;
    let mask = keys.header.mask(header::sample(packet, number_offset).unwrap());
    header::apply_protection(packet, number_offset, encoded.len, mask);
    packet.to_vec()
}

#[test]
fn empty_datagrams_in_packets_before_their_keys_are_few_events() {
    let mut pair = Pair::new();
    // The end of the client's handshake gets lost, so that the server has to keep what follows it.
    let mut datagrams = 0;
    pair.network = Box::new(move |datagram| {
        datagrams += usize::from(datagram.to == SERVER);
        // Its ClientHello takes two.
        if datagram.to == SERVER && datagrams > 2 {
            vec![]
        } else {
            vec![datagram]
        }
    });
    assert!(pair.run_until(|pair| pair.peers[CLIENT].connection.is_established()));
    let mut sent = 3 * 1200;
    for number in 100..110 {
        let bytes = short(&mut pair.client().connection, number, |w| {
            for _ in 0..600 {
                frame::encode_datagram(w, [&b""[..]].into_iter());
            }
        });
        sent += bytes.len();
        to_server(&mut pair, bytes);
    }
    let server = &mut pair.server().connection;
    assert!(!server.is_established());
    assert_eq!(server.deferred_packets.len(), 10);
    assert!(server.memory() <= 4 * sent + 64_000);
    pair.network = Box::new(|datagram| vec![datagram]);
    assert!(pair.run_until(|pair| pair.peers[SERVER].connection.is_established()));
    let events = &pair.server().events;
    let datagrams = events
        .iter()
        .filter(|event| matches!(event, Event::DeferredDatagram { .. }))
        .count();
    assert_eq!(datagrams, 64);
    assert!(pair.server().drops.get(DropReason::NoKeys) >= 5936);
}

#[test]
fn retry_that_keeps_the_connection_id_is_ignored() {
    let mut pair = Pair::new();
    version_negotiation(&mut pair, &[]);
    let dcid = pair.client().connection.handshake.original_dcid;
    let client_cid = pair.client().connection.content.local_cids.first().cid;
    let mut packet = vec![0; 200];
    let len = crate::wire::stateless::retry(&mut packet, Version::V1, &client_cid, &dcid, b"token");
    packet.truncate(len);
    packet.extend(crate::crypto::retry::integrity_tag(Version::V1, &dcid, &packet));
    to_client(&mut pair, packet);
    assert_eq!(pair.client().connection.handshake.retry_scid, None);
    assert!(pair.client().connection.handshake.token.is_empty());
}

#[test]
fn handshake_done_that_comes_before_the_handshake_is_complete_does_no_harm() {
    let mut pair = Pair::new();
    assert!(pair.run_until(|pair| pair.peers.len() == 2));
    // The server has answered, and its answer is under way.
    let server = &mut pair.peers[SERVER].connection;
    let dcid = *server.content.remote_cids.current();
    let number = server.recovery.next_number(Space::Data);
    let encoded = packet_number::encode(number, None);
    let mut packet = [0; 100];
    let mut w = Writer::new(&mut packet[..80]);
    header::encode_short(&mut w, &dcid, false, encoded);
    let header_len = w.len();
    frame::encode_integers(&mut w, frame::ty::HANDSHAKE_DONE, &[]);
    w.zeros(40);
    let len = w.len() + 16;
    let packet = &mut packet[..len];
    let keys = server.handshake.one_rtt.as_mut().expect("1-RTT keys").local();
    keys.packet.seal(number, packet, header_len, &[]);
    let number_offset = header_len - encoded.len;
    let mask = keys.header.mask(header::sample(packet, number_offset).unwrap());
    header::apply_protection(packet, number_offset, encoded.len, mask);
    let bytes = packet.to_vec();
    let now = pair.now;
    pair.server()
        .connection
        .recovery
        .on_sent(Space::Data, now, crate::recovery::SentPacket::default(), &[]);
    // It overtakes the answer.
    pair.wire.insert(
        0,
        Datagram {
            at: now,
            to: CLIENT,
            from: server_address(),
            ecn: Default::default(),
            bytes,
        },
    );
    let was = pair.client().connection.is_established();
    assert!(!was);
    pair.run_for(Duration::from_millis(1));
    assert!(!pair.client().connection.handshake.confirmed && pair.client().connection.is_open());
    let done = pair.run_until(|pair| pair.peers.iter().all(|peer| peer.connection.is_established()));
    // The client's own end of the handshake should be sent whatever the server says (RFC 9001 section 4.1.1).
    assert!(done, "the client has discarded what it had not sent");
}
