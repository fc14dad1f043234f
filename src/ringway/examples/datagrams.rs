//! Datagrams (RFC 9221): they arrive once, late or not at all, and each sender hears what became of its own.
#![allow(clippy::print_stdout, reason = "what it prints")]

use std::sync::mpsc::channel;

use ringway::{
    Bytes, Configuration, ConnectTarget, Connection, ConnectionEvent, DatagramSendState, EventStatus,
    ExecutionConfig, Listener, ListenerEvent, ListenerOptions, Registration, Settings,
};

#[path = "common/mod.rs"]
mod common;
use common::{Done, certificate};

fn main() -> Done {
    let (received, acknowledged) = run(100)?;
    println!("{received} received, {acknowledged} acknowledged");
    Ok(())
}

/// Sends so many datagrams. Gives how many had come back when it was known of all what became of them, and how many of ours were acknowledged.
pub(crate) fn run(count: u64) -> Done<(u64, u64)> {
    let registration = Registration::open("datagrams", &ExecutionConfig::default())?;
    let settings = Settings {
        // Who does not say so gets none.
        datagram_receive_enabled: true,
        ..Settings::default()
    };
    let (credentials, trusted) = certificate("localhost")?;
    let configuration = Configuration::server(&[b"dg"], settings.clone(), credentials)?;
    let options = ListenerOptions::new("127.0.0.1:0".parse()?, &[b"dg"]);
    let listener = Listener::start(&registration, options, move |event| {
        let ListenerEvent::NewConnection(incoming) = event else {
            return;
        };
        incoming.accept(
            &configuration,
            |connection: &Connection, event: ConnectionEvent<'_>| {
                if let ConnectionEvent::DatagramReceived(datagram) = event {
                    // `Err`: the queue is full, or the connection has ended; datagrams may be dropped.
                    let _ = connection.send_datagram(Bytes::copy_from_slice(&datagram), 0);
                }
                EventStatus::Done
            },
        );
    })?;

    let configuration = Configuration::client(&[b"dg"], settings, trusted)?;
    let target = ConnectTarget::new(listener.local_address(), "localhost");
    let (sender, receiver) = channel();
    let (mut sent, mut received, mut acknowledged, mut settled) = (0, 0, 0, 0);
    let _connection = Connection::start(
        &registration,
        &configuration,
        &target,
        move |connection: &Connection, event: ConnectionEvent<'_>| {
            match event {
                // Datagrams can be sent, and are this large at most.
                ConnectionEvent::DatagramStateChanged {
                    send_enabled: true,
                    max_send_len,
                } => {
                    while sent < count {
                        let len = max_send_len.min(100);
                        if connection.send_datagram(Bytes::from(vec![7; len]), sent).is_err() {
                            break;
                        }
                        sent += 1;
                    }
                }
                ConnectionEvent::DatagramReceived(_) => received += 1,
                ConnectionEvent::DatagramSendStateChanged { state, .. } => {
                    acknowledged += u64::from(state == DatagramSendState::Acknowledged);
                    settled += u64::from(state != DatagramSendState::Sent);
                    if settled == sent {
                        let _ = sender.send((received, acknowledged));
                    }
                }
                _ => {}
            }
            EventStatus::Done
        },
    )?;
    Ok(receiver.recv()?)
}
