//! A server gets a new certificate while it runs, and goes without cutting anybody off: no new clients, those that are there may finish.
#![allow(clippy::print_stdout, reason = "what it prints")]

use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use ringway::{
    ClientCredentials, Configuration, ConnectTarget, Connection, ConnectionEvent, EventStatus,
    ExecutionConfig, Listener, ListenerEvent, ListenerOptions, Registration, Settings,
};

#[path = "common/mod.rs"]
mod common;
use common::{Done, certificate};

fn main() -> Done {
    run()?;
    println!("reloaded and drained");
    Ok(())
}

/// Serves, exchanges the certificate, drains, and ends.
pub(crate) fn run() -> Done {
    let registration = Registration::open("server", &ExecutionConfig::default())?;
    let (first, trusts_first) = certificate("localhost")?;
    let configuration = Configuration::server(&[b"hi"], Settings::default(), first)?;
    let (sender, stopped) = channel();
    let of_listener = Arc::clone(&configuration);
    let options = ListenerOptions::new("127.0.0.1:0".parse()?, &[b"hi"]);
    let listener = Listener::start(&registration, options, move |event| match event {
        ListenerEvent::NewConnection(incoming) => {
            incoming.accept(&of_listener, |_: &Connection, _: ConnectionEvent<'_>| {
                EventStatus::Done
            });
        }
        ListenerEvent::StopComplete => drop(sender.send(())),
        _ => {}
    })?;
    let (old_client, _events) = connect(&listener, trusts_first)?;

    // Reload: handshakes that begin from now on see the new certificate, connections that exist notice nothing.
    let (second, trusts_second) = certificate("localhost")?;
    configuration.load_credential(second)?;
    let (new_client, events) = connect(&listener, trusts_second)?;

    // Drain. Behind `StopComplete` nobody is accepted any more; the application's own protocol tells clients to come to an end (GOAWAY of HTTP/3).
    listener.stop();
    stopped.recv()?;
    old_client.0.shutdown(0)?;
    new_client.0.shutdown(0)?;
    events.recv()?;
    // Who has not come to an end by then is told.
    registration.close_within(Duration::from_secs(2));
    Ok(())
}

/// A client of its own, connected; the channel tells of its end.
fn connect(
    listener: &Listener,
    trusted: ClientCredentials,
) -> Done<((Connection, Registration), Receiver<()>)> {
    let registration = Registration::open("client", &ExecutionConfig::default())?;
    let configuration = Configuration::client(&[b"hi"], Settings::default(), trusted)?;
    let target = ConnectTarget::new(listener.local_address(), "localhost");
    let (sender, connected) = channel();
    let (end, ended) = channel();
    let connection = Connection::start(
        &registration,
        &configuration,
        &target,
        move |_: &Connection, event: ConnectionEvent<'_>| {
            let _ = match event {
                ConnectionEvent::Connected { .. } => sender.send(Ok(())),
                ConnectionEvent::ShutdownByTransport { reason } => sender.send(Err(reason.to_string())),
                ConnectionEvent::ShutdownComplete { .. } => {
                    // Nobody need be waiting.
                    let _ = end.send(());
                    Ok(())
                }
                _ => Ok(()),
            };
            EventStatus::Done
        },
    )?;
    connected.recv()??;
    Ok(((connection, registration), ended))
}
