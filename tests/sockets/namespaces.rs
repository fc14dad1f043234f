//! Sockets of other network namespaces, and those that are bound to an interface.

use std::net::{SocketAddr, UdpSocket};
use std::os::fd::OwnedFd;
use std::sync::mpsc::channel;

use ringway::ConnectTarget;
use ringway_tests::{address, client, configurations, server, settings};
use socket2::{Domain, Protocol, Socket, Type};

use super::scene::{ask, connect_on, in_namespace, ip, listen_on};

fn bind(to: &str) -> UdpSocket {
    UdpSocket::bind(to).unwrap()
}

#[test]
fn server_and_client_meet_in_a_namespace_in_which_their_threads_are_not() {
    // The same address is another here and there.
    let here = bind("127.0.0.1:0");
    let to = here.local_addr().unwrap();
    let Some(sockets) = in_namespace(|| [bind(&to.to_string()), bind("127.0.0.1:0"), bind("[::]:0")]) else {
        return;
    };
    let [of_server, of_client, of_both] = sockets;
    let (server, client) = (server(2), client(1));
    let (accepting, connecting) = configurations(settings(), settings());
    let socket = server.adopt_socket(of_server, Some(1)).unwrap();
    assert_eq!(socket.local_address(), to);
    let _listener = listen_on(&socket, &accepting);
    for of_client in [of_client, of_both] {
        let from = client.adopt_socket(of_client, None).unwrap();
        let connection = connect_on(&from, &connecting, &ConnectTarget::new(to, "localhost")).connected();
        ask(&connection, 1 << 20);
    }
    here.set_nonblocking(true).unwrap();
    assert!(
        here.recv(&mut [0; 1]).is_err(),
        "packets went through this namespace"
    );
    let stats = server.stats();
    assert!(
        stats
            .iter()
            .all(|stats| stats.device.bypass_received_datagrams == 0)
    );
    client.close();
    server.close();
}

/// Bound to the address, and to the interface.
fn bound_to_interface(interface: &str, local: SocketAddr) -> OwnedFd {
    let socket = Socket::new(Domain::for_address(local), Type::DGRAM, Some(Protocol::UDP)).unwrap();
    socket.bind_device(Some(interface.as_bytes())).unwrap();
    socket.bind(&local.into()).unwrap();
    socket.into()
}

/// The ends of a pair of interfaces in two namespaces: sockets of 0.0.0.0:4433 at one, on its loopback interface and on the pair; a client's at
/// each.
struct Ends {
    lo: OwnedFd,
    outside: OwnedFd,
    near: UdpSocket,
    far: UdpSocket,
}

fn ends() -> Option<Ends> {
    in_namespace(|| {
        ip("link add outside type veth peer name far");
        let (sender, task) = channel();
        let (moved, is_here) = channel();
        let far = || {
            in_namespace(move || {
                sender.send(nix::unistd::gettid()).unwrap();
                is_here.recv().unwrap();
                ip("addr add 192.0.2.2/24 dev far");
                ip("link set far up");
                bind("192.0.2.2:0")
            })
        };
        std::thread::scope(|scope| {
            let far = scope.spawn(far);
            ip(&format!("link set far netns {}", task.recv().unwrap()));
            moved.send(()).unwrap();
            ip("addr add 192.0.2.1/24 dev outside");
            ip("link set outside up");
            Ends {
                lo: bound_to_interface("lo", address(ANY)),
                outside: bound_to_interface("outside", address(ANY)),
                near: bind("127.0.0.1:0"),
                far: far.join().unwrap().unwrap(),
            }
        })
    })
}

const ANY: &str = "0.0.0.0:4433";

#[test]
fn sockets_of_two_interfaces_have_one_address_and_each_its_listener() {
    let Some(ends) = ends() else { return };
    let (server, client) = (server(1), client(1));
    let listen_and_ask = |of_server: OwnedFd, of_client: UdpSocket, to: &'static str| {
        // Certificates of its own: the other listener's would be refused.
        let (accepting, connecting) = configurations(settings(), settings());
        let socket = server.adopt_socket(of_server, None).unwrap();
        assert_eq!(socket.local_address(), address(ANY));
        let listener = listen_on(&socket, &accepting);
        let from = client.adopt_socket(of_client, None).unwrap();
        let ask = move || {
            let target = ConnectTarget::new(address(to), "localhost");
            let connection = connect_on(&from, &connecting, &target).connected();
            ask(&connection, 100_000);
            assert_eq!(connection.remote_address(), address(to));
        };
        (listener, ask)
    };
    let (_lo, ask_near) = listen_and_ask(ends.lo, ends.near, "127.0.0.1:4433");
    let (_outside, ask_far) = listen_and_ask(ends.outside, ends.far, "192.0.2.1:4433");
    ask_near();
    ask_far();
    client.close();
    server.close();
}
