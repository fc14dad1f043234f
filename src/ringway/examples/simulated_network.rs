//! An application on a network that loses and reorders packets, in virtual time: the same seed always gives the same run, and an hour passes at once.
#![allow(clippy::print_stdout, reason = "what it prints")]

use std::sync::mpsc::channel;
use std::time::Duration;

use ringway::sim::{Link, SimNetwork};
use ringway::{
    Bytes, Configuration, ConnectTarget, Connection, ConnectionEvent, Direction, EventStatus, Execution,
    ExecutionConfig, Instant, Listener, ListenerEvent, ListenerOptions, Settings, Stream, StreamEvent, Wait,
};

#[path = "common/mod.rs"]
mod common;
use common::{Done, certificate};

fn main() -> Done {
    let (bytes, time) = run(7)?;
    println!("{bytes} bytes in {time:?} of virtual time");
    Ok(())
}

/// Moves a megabyte over the network of this seed. Gives the bytes that arrived, and how long it took.
pub(crate) fn run(seed: u64) -> Done<(usize, Duration)> {
    let network = SimNetwork::new(seed);
    network.set_default_link(Link {
        delay: Duration::from_millis(30),
        jitter: Duration::from_millis(5),
        loss: 0.02,
        ..Link::default()
    });
    let begun = Instant::from_nanos(1);
    let host = |ip: &str| -> Done<_> {
        Ok(Execution::create_simulated(
            &network,
            ip.parse()?,
            1,
            1,
            &ExecutionConfig::default(),
            begun,
        )?)
    };
    let (server, mut contexts) = host("192.0.2.1")?;
    let (client, of_client) = host("192.0.2.2")?;
    contexts.extend(of_client);

    let (credentials, trusted) = certificate("localhost")?;
    let settings = Settings {
        peer_uni_stream_count: 1,
        ..Settings::default()
    };
    let configuration = Configuration::server(&[b"sim"], settings, credentials)?;
    let (sender, received) = channel();
    let listener = Listener::start(
        &server,
        ListenerOptions::new("192.0.2.1:443".parse()?, &[b"sim"]),
        move |event| {
            let ListenerEvent::NewConnection(incoming) = event else {
                return;
            };
            let sender = sender.clone();
            incoming.accept(
                &configuration,
                move |_: &Connection, event: ConnectionEvent<'_>| {
                    if let ConnectionEvent::PeerStreamStarted(stream) = event {
                        let sender = sender.clone();
                        stream.accept(move |_: &Stream, event: StreamEvent<'_>| {
                            if let StreamEvent::Receive(data) = event {
                                let _ = sender.send((data.len(), data.fin()));
                            }
                            EventStatus::Done
                        });
                    }
                    EventStatus::Done
                },
            );
        },
    )?;
    let configuration = Configuration::client(&[b"sim"], Settings::default(), trusted)?;
    let target = ConnectTarget::new(listener.local_address(), "localhost");
    let connection = Connection::start(
        &client,
        &configuration,
        &target,
        |_: &Connection, _: ConnectionEvent<'_>| EventStatus::Done,
    )?;
    let stream = Stream::open(
        &connection,
        Direction::Unidirectional,
        |_: &Stream, _: StreamEvent<'_>| EventStatus::Done,
    )?;
    stream.start(false)?;
    stream.send(Bytes::from(vec![1; 1 << 20]), 0, true)?;

    // Everybody does what is to be done now; then time goes on to what is next.
    let mut now = begun;
    let mut bytes = 0;
    loop {
        let waits: Vec<_> = contexts.iter_mut().map(|context| context.poll_at(now)).collect();
        for (len, is_last) in received.try_iter() {
            bytes += len;
            if is_last {
                return Ok((bytes, now.since(begun)));
            }
        }
        if waits.contains(&Wait::NoWait) {
            continue;
        }
        let timers = waits.into_iter().filter_map(|wait| match wait {
            Wait::Until(at) => Some(at),
            _ => None,
        });
        now = timers
            .chain(network.next_arrival())
            .min()
            .ok_or("nothing is left to happen")?
            .max(now);
    }
}
