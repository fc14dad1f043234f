//! A ClientHello that takes two datagrams, as one with X25519MLKEM768 does: either may be late, lost or alone for a while.

use std::cell::Cell;
use std::rc::Rc;

use super::pair::{CLIENT, Pair, SERVER};
use super::*;

/// Datagrams of the client's first flight.
const FLIGHT: usize = 2;

/// What becomes of a datagram of the first flight.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Fate {
    Arrives,
    IsLost,
    IsLate(u64),
    IsRepeated,
}

const FATES: [Fate; 5] = [
    Fate::Arrives,
    Fate::IsLost,
    Fate::IsLate(15),
    Fate::IsLate(700),
    Fate::IsRepeated,
];

#[test]
fn client_hello_takes_two_full_datagrams() {
    let mut pair = Pair::new();
    assert!(pair.run_until(|pair| pair.peers.len() == 2));
    let client = pair.sent.iter().filter(|(from, _)| *from == CLIENT);
    let sizes: Vec<_> = client.map(|(_, len)| *len).take(FLIGHT).collect();
    assert_eq!(sizes, [1200; FLIGHT]);
}

#[test]
fn handshake_completes_whatever_becomes_of_either_datagram_and_nothing_is_amplified() {
    for first in FATES {
        for second in FATES {
            let fates = [first, second];
            let mut pair = Pair::new();
            let mut seen = 0;
            let to_server = Rc::new(Cell::new(0));
            let arrived = Rc::clone(&to_server);
            pair.network = Box::new(move |mut datagram| {
                let mut datagrams = vec![datagram.clone()];
                if datagram.to == SERVER {
                    seen += 1;
                    match fates.get(seen - 1).copied().unwrap_or(Fate::Arrives) {
                        Fate::Arrives => {}
                        Fate::IsLost => datagrams.clear(),
                        Fate::IsLate(ms) => {
                            datagram.at += Duration::from_millis(ms);
                            datagrams = vec![datagram];
                        }
                        Fate::IsRepeated => datagrams.push(datagram),
                    }
                    arrived.set(
                        arrived.get()
                            + datagrams
                                .iter()
                                .map(|datagram| datagram.bytes.len())
                                .sum::<usize>(),
                    );
                }
                datagrams
            });
            let completes = pair.run_until(|pair| {
                if let Some(server) = pair.peers.get(SERVER)
                    && !server.connection.is_address_validated()
                {
                    let sent: usize = pair
                        .sent
                        .iter()
                        .filter(|(from, _)| *from == SERVER)
                        .map(|(_, len)| len)
                        .sum();
                    assert!(sent <= 3 * to_server.get(), "{fates:?}: {sent}");
                }
                pair.peers.len() == 2 && pair.peers.iter().all(|peer| peer.connection.handshake.confirmed)
            });
            assert!(completes, "{fates:?}");
            let info = pair.server().connection.tls_info().unwrap();
            assert_eq!(info.key_exchange_group, Some(rustls::NamedGroup::X25519MLKEM768));
        }
    }
}

#[test]
fn nothing_but_an_acknowledgement_answers_half_a_client_hello() {
    for lost in 0..FLIGHT {
        let mut pair = Pair::new();
        let mut seen = 0;
        // The other one alone arrives, once.
        pair.network = Box::new(move |datagram| {
            seen += usize::from(datagram.to == SERVER);
            if datagram.to == SERVER && (seen - 1 == lost || seen > FLIGHT) {
                vec![]
            } else {
                vec![datagram]
            }
        });
        pair.run_for(Duration::from_secs(3));
        let server = &mut pair.server().connection;
        assert!(server.is_open() && server.tls_info().is_none());
        let sent: usize = pair
            .sent
            .iter()
            .filter(|(from, _)| *from == SERVER)
            .map(|(_, len)| len)
            .sum();
        assert!(sent <= 3 * 1200, "{sent}");
    }
}
