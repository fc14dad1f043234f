//! Sends a text and prints what comes back: `echo_client ADDRESS NAME ROOTS.pem TEXT`.
#![allow(clippy::print_stdout, reason = "what it prints")]

use std::net::SocketAddr;
use std::sync::mpsc::channel;

use ringway::{
    ClientCredentials, Configuration, ConnectTarget, Connection, ConnectionEvent, Direction, EventStatus,
    ExecutionConfig, Registration, Settings, Stream, StreamEvent,
};

#[path = "common/mod.rs"]
mod common;
use common::Done;

fn main() -> Done {
    let arguments: Vec<_> = std::env::args().collect();
    let [_, address, name, roots, text] = &arguments[..] else {
        return Err("usage: echo_client ADDRESS NAME ROOTS.pem TEXT".into());
    };
    let trusted = ClientCredentials::roots_from_pem(&std::fs::read(roots)?)?;
    println!("{}", echo(address.parse()?, name, trusted, text)?);
    Ok(())
}

/// Sends a text, and gives what comes back.
pub(crate) fn echo(address: SocketAddr, name: &str, trusted: ClientCredentials, text: &str) -> Done<String> {
    let registration = Registration::open("client", &ExecutionConfig::load(None)?)?;
    let configuration = Configuration::client(&[b"echo"], Settings::default(), trusted)?;
    // Handlers run on a thread of the registration; what they find out comes through a channel.
    let (sender, receiver) = channel::<Result<Vec<u8>, String>>();
    let failed = sender.clone();
    let target = ConnectTarget::new(address, name);
    let connection = Connection::start(
        &registration,
        &configuration,
        &target,
        move |_: &Connection, event: ConnectionEvent<'_>| {
            if let ConnectionEvent::ShutdownByTransport { reason } = event {
                let _ = failed.send(Err(reason.to_string()));
            }
            EventStatus::Done
        },
    )?;
    let mut echo = Vec::new();
    let stream = Stream::open(
        &connection,
        Direction::Bidirectional,
        move |_: &Stream, event: StreamEvent<'_>| {
            if let StreamEvent::Receive(data) = event {
                echo.extend(data.to_vec());
                if data.fin() {
                    let _ = sender.send(Ok(std::mem::take(&mut echo)));
                }
            }
            EventStatus::Done
        },
    )?;
    // At once: it goes out when the handshake is complete.
    stream.start(false)?;
    stream.send(text.as_bytes().to_vec().into(), 0, true)?;
    let echo = receiver.recv()??;
    connection.shutdown(0)?;
    // Tells the server, and waits for the threads.
    registration.close();
    Ok(String::from_utf8(echo)?)
}
