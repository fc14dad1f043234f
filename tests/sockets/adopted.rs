//! Sockets that the application has opened, in the network namespace of the registration.

use std::fmt::Debug;
use std::net::UdpSocket;
use std::os::fd::OwnedFd;
use std::process::Command;
use std::time::{Duration, Instant};

use ringway::{
    Capabilities, ConnectTarget, Connection, Listener, ListenerOptions, Registration, Settings, SetupError,
};
use ringway_tests::order::ordered;
use ringway_tests::{ALPN, World, address, client, configurations, server, settings};
use socket2::{Domain, Protocol, Socket, Type};

use super::scene::{accept, ask, connect, connect_on, echo, listen_on};

fn any() -> UdpSocket {
    UdpSocket::bind("127.0.0.1:0").unwrap()
}

fn to(server: &ringway::AdoptedSocket) -> ConnectTarget {
    ConnectTarget::new(server.local_address(), "localhost")
}

fn accepted(server: &Registration) -> Vec<u64> {
    server.stats().iter().map(|stats| stats.worker.accepted).collect()
}

/// Counters and capabilities are renewed when threads go to sleep.
fn until<T: Debug>(look: impl Fn() -> T, is_right: impl Fn(&T) -> bool) {
    let start = Instant::now();
    loop {
        let seen = look();
        if is_right(&seen) {
            return;
        }
        assert!(start.elapsed() < Duration::from_secs(10), "{seen:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// As a service is started for a client that has come.
#[test]
fn client_whose_first_packet_waits_on_the_socket_is_served_without_another_one() {
    let (server, client) = (server(1), client(1));
    // It sends nothing again for as long as the test lasts.
    let once = Settings {
        initial_rtt: Duration::from_secs(60),
        ..settings()
    };
    let (accepting, connecting) = configurations(settings(), once);
    let socket = any();
    let target = ConnectTarget::new(socket.local_addr().unwrap(), "localhost");
    let asking = connect(&client, &connecting, &target);
    // All of its first flight.
    let mut first = [0; 2048];
    while socket.peek(&mut first).unwrap() == 0 {}
    let socket = server.adopt_socket(socket, None).unwrap();
    let _listener = listen_on(&socket, &accepting);
    ask(&asking.connected(), 10_000);
    client.close();
    server.close();
}

#[test]
fn one_socket_is_received_from_by_one_partition_and_connections_of_all_go_out_from_it() {
    let (server, client) = (server(2), client(2));
    let (accepting, connecting) = configurations(settings(), settings());
    let socket = server.adopt_socket(any(), Some(1)).unwrap();
    assert_eq!(socket.partition(), Some(1));
    let _listener = listen_on(&socket, &accepting);
    let from = client.adopt_socket(any(), Some(0)).unwrap();
    for partition in [None, Some(0), Some(1), Some(1)] {
        let target = to(&socket)
            .with_partition(partition)
            .with_local(from.local_address());
        let connection = connect_on(&from, &connecting, &target).connected();
        assert_eq!(connection.partition(), partition.unwrap_or(0));
        ask(&connection, 300_000);
    }
    until(|| accepted(&server), |counts| *counts == [0, 4]);
    client.close();
    server.close();
}

#[test]
fn listener_on_one_socket_accepts_on_the_partition_that_is_named() {
    let (server, client) = (server(2), client(1));
    let (accepting, connecting) = configurations(settings(), settings());
    let socket = server.adopt_socket(any(), Some(0)).unwrap();
    let options = ListenerOptions::new(socket.local_address(), &[ALPN]).with_partition(1);
    let _listener = Listener::start_on(&socket, options, accept(&accepting)).unwrap();
    ask(&connect(&client, &connecting, &to(&socket)).connected(), 300_000);
    until(|| accepted(&server), |counts| *counts == [0, 1]);
    client.close();
    server.close();
}

/// A socket of whose runs the kernel makes no datagrams, and says so when it is to: one without checksums (SO_NO_CHECK).
fn without_gso() -> UdpSocket {
    let socket = any();
    let set = "import socket; socket.socket(fileno=0).setsockopt(socket.SOL_SOCKET, 11, 1)";
    let its = OwnedFd::from(socket.try_clone().unwrap());
    let status = Command::new("python3").args(["-c", set]).stdin(its).status();
    assert!(status.unwrap().success());
    socket
}

#[test]
fn gso_that_fails_on_a_socket_is_told_by_the_capabilities() {
    let (server, client) = (server(1), client(1));
    let (accepting, connecting) = configurations(settings(), settings());
    let before = server.capabilities().remove(0);
    let socket = server.adopt_socket(without_gso(), None).unwrap();
    let _listener = listen_on(&socket, &accepting);
    ask(
        &connect(&client, &connecting, &to(&socket)).connected(),
        1_000_000,
    );
    // AF_XDP sends no runs, and has none made.
    let has_runs = before.send_segments_max > 1;
    let is_told = |now: &Capabilities| {
        let is_noted = now.notes.iter().any(|note| note.contains("GSO failed"));
        now.send_segments_max == 1 && is_noted == has_runs
    };
    until(|| server.capabilities().remove(0), is_told);
    client.close();
    server.close();
}

fn group(count: usize) -> Vec<OwnedFd> {
    let mut local = address("127.0.0.1:0");
    let mut open = || {
        let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP)).unwrap();
        socket.set_reuse_port(true).unwrap();
        socket.bind(&local.into()).unwrap();
        local = socket.local_addr().unwrap().as_socket().unwrap();
        socket.into()
    };
    (0..count).map(|_| open()).collect()
}

#[test]
fn sockets_that_share_an_address_are_steered_by_connection_id() {
    let (server, client) = (server(2), client(2));
    let (accepting, connecting) = configurations(settings(), settings());
    let socket = server.adopt_socket_group(group(2)).unwrap();
    assert_eq!(socket.partition(), None);
    let _listener = listen_on(&socket, &accepting);
    let connections: Vec<Connection> = (0..16)
        .map(|_| connect(&client, &connecting, &to(&socket)).connected())
        .collect();
    connections.iter().for_each(|connection| ask(connection, 30_000));
    let start = Instant::now();
    while accepted(&server).iter().sum::<u64>() != 16 {
        assert!(
            start.elapsed() < Duration::from_secs(10),
            "{:?}",
            accepted(&server)
        );
        std::thread::sleep(Duration::from_millis(10));
    }
    client.close();
    server.close();
}

#[test]
fn socket_is_listened_on_again_and_closed_with_its_last_user() {
    let (server, client) = (server(1), client(1));
    let (accepting, connecting) = configurations(settings(), settings());
    let socket = server.adopt_socket(any(), None).unwrap();
    let local = socket.local_address();
    let target = to(&socket);
    for _ in 0..3 {
        let listener = listen_on(&socket, &accepting);
        ask(&connect(&client, &connecting, &target).connected(), 1000);
        let taken = Listener::start_on(&socket, ListenerOptions::new(local, &[ALPN]), accept(&accepting));
        assert!(taken.unwrap_err().to_string().contains("another listener"));
        listener.stop();
    }
    client.close();
    assert!(UdpSocket::bind(local).is_err(), "the handle keeps it");
    drop(socket);
    let start = Instant::now();
    while UdpSocket::bind(local).is_err() {
        assert!(start.elapsed() < Duration::from_secs(10), "it is not closed");
        std::thread::sleep(Duration::from_millis(10));
    }
    server.close();
}

#[test]
fn what_cannot_be_is_refused_with_what_is_wrong() {
    let server = server(2);
    let refused = |result: Result<_, SetupError>| match result {
        Err(SetupError::InvalidConfig(text)) => text,
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("taken"),
    };
    let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    assert!(refused(server.adopt_socket(tcp, None)).contains("not a UDP socket"));
    assert!(refused(server.adopt_socket(any(), Some(2))).contains("partition 2 does not exist"));
    assert!(refused(server.adopt_socket_group(group(3))).contains("3 sockets were given for 2 partitions"));
    let socket = server.adopt_socket(any(), None).unwrap();
    let (accepting, connecting) = configurations(settings(), settings());
    let elsewhere = ListenerOptions::new(address("127.0.0.1:1"), &[ALPN]);
    let refused = |error: SetupError| match error {
        SetupError::InvalidConfig(text) => text,
        other => panic!("{other}"),
    };
    let other_address = Listener::start_on(&socket, elsewhere, accept(&accepting)).unwrap_err();
    assert!(refused(other_address).contains(&format!("bound to {}", socket.local_address())));
    let connect = |local: &str, remote: &str| {
        let target = ConnectTarget::new(address(remote), "localhost")
            .with_local(Some(local).filter(|local| !local.is_empty()).map(address));
        refused(Connection::start_on(&socket, &connecting, &target, ordered(echo)).unwrap_err())
    };
    assert!(connect("", "[::1]:443").contains("cannot reach [::1]:443"));
    assert!(connect("127.0.0.1:2", "127.0.0.1:443").contains("bound to"));
    let mut world = World::new(1);
    let simulated = world.host("192.0.2.1".parse().unwrap(), 1, 1);
    let on_simulated = simulated.adopt_socket(any(), None).unwrap_err();
    assert!(refused(on_simulated).contains("simulated network"));
    server.close();
}
