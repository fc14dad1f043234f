//! Peers of peer-to-peer applications: each has one port on which it listens, and from which its connections go out.

use ringway::{ConnectTarget, Connection, Listener, ListenerOptions, Registration, SetupError};
use ringway_tests::order::ordered;
use ringway_tests::{ALPN, address, client, configurations, server, settings};

use super::scene::{accept, ask, connect, echo};

/// The other's packets come to a port on which both are expected, answers and clients.
fn connect_to_each_other(here: &Registration, there: &Registration, local: &str) {
    let (accepting, connecting) = configurations(settings(), settings());
    let options = || ListenerOptions::new(local.parse().unwrap(), &[ALPN]);
    let listeners = [here, there].map(|peer| Listener::start(peer, options(), accept(&accepting)).unwrap());
    let [a, b] = listeners.each_ref().map(Listener::local_address);
    for round in 0..3 {
        let out = |from, to| ConnectTarget::new(to, "localhost").with_local(from);
        // Neither waits for the other, and each partition has some.
        let asking: Vec<_> = (0..2)
            .flat_map(|_| {
                [
                    connect(here, &connecting, &out(a, b)),
                    connect(there, &connecting, &out(b, a)),
                ]
            })
            .collect();
        let connections: Vec<_> = asking.into_iter().map(|asking| asking.connected()).collect();
        for (index, connection) in connections.iter().enumerate() {
            let (from, to) = if index % 2 == 0 { (a, b) } else { (b, a) };
            assert_eq!(
                (connection.local_address().port(), connection.remote_address()),
                (from.port(), to)
            );
            ask(connection, 200_000);
        }
        for connection in connections.iter().take(round + 1) {
            connection.shutdown(0).unwrap();
        }
    }
}

#[test]
fn peers_connect_to_each_other_from_the_ports_they_listen_on_at_once() {
    for partitions in [1, 2] {
        let (here, there) = (server(partitions), client(partitions));
        connect_to_each_other(&here, &there, "127.0.0.1:0");
        there.close();
        here.close();
    }
}

#[test]
fn connection_to_the_other_version_of_ip_is_refused_at_once() {
    let client = client(1);
    let (_, connecting) = configurations(settings(), settings());
    for (local, remote) in [
        ("127.0.0.1:0", "[::1]:443"),
        ("[::1]:0", "127.0.0.1:443"),
        ("0.0.0.0:0", "[::1]:443"),
    ] {
        let target = ConnectTarget::new(address(remote), "localhost").with_local(address(local));
        let refused = Connection::start(&client, &connecting, &target, ordered(echo)).unwrap_err();
        assert!(matches!(refused, SetupError::InvalidConfig(_)), "{refused}");
    }
    client.close();
}
