//! Addresses that change while a connection lives, over the kernel's network.

use std::net::{Ipv4Addr, UdpSocket};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::time::Duration;

use ringway::{
    ConnectTarget, Connection, ConnectionEvent, Direction, EventStatus, Listener, ListenerEvent,
    ListenerOptions, RetryPolicy, SendFlags, Stream, StreamEvent,
};
use ringway_tests::order::ordered;
use ringway_tests::{ALPN, address, client, configurations, server, settings};

use crate::scene::{Log, echo};

const TIMEOUT: Duration = Duration::from_secs(20);

#[test]
fn server_is_told_that_its_clients_packets_arrive_at_another_of_its_addresses() {
    let (server, client) = (server(1), client(1));
    let (accepting, connecting) = configurations(settings(), settings());
    let (sender, told) = channel();
    let sender = Mutex::new(sender);
    let options = ListenerOptions::new(address("0.0.0.0:0"), &[ALPN]).with_retry(RetryPolicy::Never);
    let listener = Listener::start(&server, options, move |event| {
        if let ListenerEvent::NewConnection(incoming) = event {
            let sender = sender.lock().unwrap().clone();
            let handler = move |connection: &Connection, event: ConnectionEvent<'_>| {
                let told = match event {
                    ConnectionEvent::Connected { .. } => Some(connection.local_address()),
                    ConnectionEvent::LocalAddressChanged(local) => Some(local),
                    _ => None,
                };
                if let Some(told) = told {
                    let _ = sender.send((told, connection.local_address()));
                }
                echo(connection, event)
            };
            incoming.accept(&accepting, ordered(handler));
        }
    })
    .unwrap();
    // The client's packets go through a relay, which sends them to one address of the server and then to another.
    let [front, back] = [(); 2].map(|()| {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(10))).unwrap();
        socket
    });
    let port = listener.local_address().port();
    let (over, moved, sender_of_front) = (AtomicBool::new(false), AtomicBool::new(false), Mutex::new(None));
    let target = ConnectTarget::new(front.local_addr().unwrap(), "localhost");
    let ours = Log::default();
    std::thread::scope(|scope| {
        // Also when an assertion fails.
        struct Ends<'a>(&'a AtomicBool);
        impl Drop for Ends<'_> {
            fn drop(&mut self) {
                self.0.store(true, Ordering::SeqCst);
            }
        }
        let _over = Ends(&over);
        let mut buffer = [0; 2048];
        scope.spawn({
            let (front, back, over, moved, sender_of_front) =
                (&front, &back, &over, &moved, &sender_of_front);
            move || {
                while !over.load(Ordering::SeqCst) {
                    if let Ok((len, from)) = front.recv_from(&mut buffer) {
                        *sender_of_front.lock().unwrap() = Some(from);
                        let host = if moved.load(Ordering::SeqCst) {
                            [127, 0, 0, 2]
                        } else {
                            [127, 0, 0, 1]
                        };
                        let _ = back.send_to(&buffer[..len], (Ipv4Addr::from(host), port));
                    }
                }
            }
        });
        scope.spawn({
            let (front, back, over, sender_of_front) = (&front, &back, &over, &sender_of_front);
            move || {
                while !over.load(Ordering::SeqCst) {
                    if let Ok((len, _)) = back.recv_from(&mut buffer) {
                        let to = sender_of_front.lock().unwrap().unwrap();
                        let _ = front.send_to(&buffer[..len], to);
                    }
                }
            }
        });
        let (sender, heard) = channel();
        let (notes, connected) = (ours.clone(), sender.clone());
        let handler = ordered(move |_: &Connection, event: ConnectionEvent<'_>| {
            notes.note(format!("{event:?}"));
            if let ConnectionEvent::Connected { .. } = event {
                let _ = connected.send("connected");
            }
            EventStatus::Done
        });
        let connection = Connection::start(&client, &connecting, &target, handler).unwrap();
        assert_eq!(heard.recv_timeout(TIMEOUT), Ok("connected"));
        // On both sides: before that, it is no change of address.
        let before = address(&format!("127.0.0.1:{port}"));
        assert_eq!(told.recv_timeout(TIMEOUT), Ok((before, before)));
        moved.store(true, Ordering::SeqCst);
        let handler = ordered(move |_: &Stream, event: StreamEvent<'_>| {
            if let StreamEvent::Receive(data) = event
                && data.fin()
            {
                let _ = sender.send("answered");
            }
            EventStatus::Done
        });
        let stream = Stream::open(&connection, Direction::Bidirectional, handler).unwrap();
        stream
            .send_with("x".into(), 0, SendFlags::START | SendFlags::FIN)
            .unwrap();
        let now = address(&format!("127.0.0.2:{port}"));
        assert_eq!(told.recv_timeout(TIMEOUT), Ok((now, now)));
        assert_eq!(heard.recv_timeout(TIMEOUT), Ok("answered"));
        assert!(!ours.has("LocalAddressChanged"), "the client's has not changed");
        client.close();
        server.close();
    });
}
