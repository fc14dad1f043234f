//! A server that knows its clients by their certificates.
#![allow(clippy::print_stdout, reason = "what it prints")]

use std::sync::mpsc::channel;

use ringway::{
    ClientAuthentication, Configuration, ConnectTarget, Connection, ConnectionEvent, EventStatus,
    ExecutionConfig, Listener, ListenerEvent, ListenerOptions, Registration, ServerCredentials, Settings,
};

#[path = "common/mod.rs"]
mod common;
use common::Done;

fn main() -> Done {
    let (with, without) = run()?;
    println!("with a certificate: {with:?}; without: {without:?}");
    Ok(())
}

/// What a client with a certificate came to, and one without: the number of certificates that the server has seen, or why it was refused.
#[allow(clippy::type_complexity, reason = "two outcomes")]
pub(crate) fn run() -> Done<(Result<usize, String>, Result<usize, String>)> {
    let registration = Registration::open("clients", &ExecutionConfig::default())?;
    let (server, trusted) = common::identity("localhost")?;
    let made = rcgen::generate_simple_self_signed(["alice".to_owned()])?;
    let of_alice = vec![made.cert.der().clone()];
    let mut credentials = ServerCredentials::with_identity(server);
    credentials.client_authentication = ClientAuthentication::Roots {
        roots: of_alice.clone(),
        crls: Vec::new(),
        required: true,
    };
    let configuration = Configuration::server(&[b"hi"], Settings::default(), credentials)?;
    let (sender, seen) = channel();
    let options = ListenerOptions::new("127.0.0.1:0".parse()?, &[b"hi"]);
    let listener = Listener::start(&registration, options, move |event| {
        let ListenerEvent::NewConnection(incoming) = event else {
            return;
        };
        let sender = sender.clone();
        incoming.accept(
            &configuration,
            move |_: &Connection, event: ConnectionEvent<'_>| {
                let _ = match event {
                    // The chain, verified against the roots.
                    ConnectionEvent::Connected {
                        peer_certificates, ..
                    } => sender.send(Ok(peer_certificates.len())),
                    ConnectionEvent::ShutdownByTransport { reason } => sender.send(Err(reason.to_string())),
                    _ => Ok(()),
                };
                EventStatus::Done
            },
        );
    })?;
    let mut with = trusted;
    let key = ringway::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der())?;
    with.identity = Some((of_alice, key).into());
    let without = ringway::ClientCredentials::no_verification();
    let mut outcomes = Vec::new();
    for credentials in [with, without] {
        let configuration = Configuration::client(&[b"hi"], Settings::default(), credentials)?;
        let target = ConnectTarget::new(listener.local_address(), "localhost");
        let _connection = Connection::start(
            &registration,
            &configuration,
            &target,
            |_: &Connection, _: ConnectionEvent<'_>| EventStatus::Done,
        )?;
        outcomes.push(seen.recv()?);
    }
    let without = outcomes.pop().ok_or("two clients")?;
    Ok((outcomes.pop().ok_or("two clients")?, without))
}
