//! One port for two names, each with a certificate and a configuration of its own.
#![allow(clippy::print_stdout, reason = "what it prints")]

use std::sync::mpsc::channel;
use std::time::Duration;

use ringway::{
    Configuration, ConnectTarget, Connection, ConnectionEvent, EventStatus, ExecutionConfig, Listener,
    ListenerEvent, ListenerOptions, Registration, Settings,
};

#[path = "common/mod.rs"]
mod common;
use common::{Done, certificate};

fn main() -> Done {
    println!("{:?}", run()?);
    Ok(())
}

/// Connects to both names, and to one that is not there. Gives what each connection came to.
pub(crate) fn run() -> Done<Vec<Result<String, String>>> {
    let registration = Registration::open("names", &ExecutionConfig::default())?;
    let (of_one, trusts_one) = certificate("one.example")?;
    let (of_two, trusts_two) = certificate("two.example")?;
    let one = Configuration::server(&[b"hi"], Settings::default(), of_one)?;
    // The second name has more patience.
    let patient = Settings {
        idle_timeout: Duration::from_secs(600),
        ..Settings::default()
    };
    let two = Configuration::server(&[b"hi"], patient, of_two)?;
    let options = ListenerOptions::new("127.0.0.1:0".parse()?, &[b"hi"]);
    let listener = Listener::start(&registration, options, move |event| {
        let ListenerEvent::NewConnection(incoming) = event else {
            return;
        };
        let ignore = |_: &Connection, _: ConnectionEvent<'_>| EventStatus::Done;
        match incoming.server_name() {
            Some("one.example") => drop(incoming.accept(&one, ignore)),
            Some("two.example") => drop(incoming.accept(&two, ignore)),
            // TLS alert unrecognized_name.
            _ => drop(incoming.refuse_with(ringway::TransportErrorCode::crypto(112))),
        }
    })?;
    let trusting = |credentials| Configuration::client(&[b"hi"], Settings::default(), credentials);
    let (one, two) = (trusting(trusts_one)?, trusting(trusts_two)?);
    let mut outcomes = Vec::new();
    for (name, configuration) in [
        ("one.example", &one),
        ("two.example", &two),
        ("three.example", &one),
    ] {
        let (sender, receiver) = channel();
        let target = ConnectTarget::new(listener.local_address(), name);
        let _connection = Connection::start(
            &registration,
            configuration,
            &target,
            move |_: &Connection, event: ConnectionEvent<'_>| {
                let _ = match event {
                    ConnectionEvent::Connected { .. } => sender.send(Ok(name.to_owned())),
                    ConnectionEvent::ShutdownByTransport { reason } => sender.send(Err(reason.to_string())),
                    _ => Ok(()),
                };
                EventStatus::Done
            },
        )?;
        outcomes.push(receiver.recv()?);
    }
    Ok(outcomes)
}
