//! Sends back what comes on streams: `echo_server ADDRESS CHAIN.pem KEY.pem`.

use std::net::SocketAddr;

use ringway::{
    Configuration, Connection, ConnectionEvent, EventStatus, ExecutionConfig, Listener, ListenerEvent,
    ListenerOptions, Registration, ServerCredentials, Settings, Stream, StreamEvent,
};

#[path = "common/mod.rs"]
pub(crate) mod common;
use common::Done;

fn main() -> Done {
    let arguments: Vec<_> = std::env::args().collect();
    let [_, address, chain, key] = &arguments[..] else {
        return Err("usage: echo_server ADDRESS CHAIN.pem KEY.pem".into());
    };
    let credentials = ServerCredentials::from_pem(&std::fs::read(chain)?, &std::fs::read(key)?)?;
    let (_registration, _listener) = serve(address.parse()?, credentials)?;
    loop {
        std::thread::park();
    }
}

/// The threads of the registration serve for as long as the two are kept.
pub(crate) fn serve(address: SocketAddr, credentials: ServerCredentials) -> Done<(Registration, Listener)> {
    // Files and variables say on which processors, and by which datapath.
    let registration = Registration::open("echo", &ExecutionConfig::load(None)?)?;
    let handler = echo(&registration, credentials)?;
    let listener = Listener::start(&registration, ListenerOptions::new(address, &[ALPN]), handler)?;
    Ok((registration, listener))
}

/// The application protocol.
pub(crate) const ALPN: &[u8] = b"echo";

/// The handler of a listener that accepts everybody.
pub(crate) fn echo(
    registration: &Registration,
    credentials: ServerCredentials,
) -> Done<impl Fn(ListenerEvent) + Send + Sync + 'static> {
    let settings = Settings {
        // A peer may open no streams unless it is told so.
        peer_bidi_stream_count: 100,
        ..registration.settings()
    };
    let configuration = Configuration::server(&[ALPN], settings, credentials)?;
    Ok(move |event| {
        if let ListenerEvent::NewConnection(incoming) = event {
            incoming.accept(&configuration, on_connection);
        }
    })
}

fn on_connection(_: &Connection, event: ConnectionEvent<'_>) -> EventStatus {
    if let ConnectionEvent::PeerStreamStarted(stream) = event {
        stream.accept(on_stream);
    }
    EventStatus::Done
}

fn on_stream(stream: &Stream, event: StreamEvent<'_>) -> EventStatus {
    if let StreamEvent::Receive(data) = event {
        // The data is valid during the event only. `Err`: the stream has ended meanwhile, and its last event follows.
        let _ = stream.send(data.to_vec().into(), 0, data.fin());
    }
    EventStatus::Done
}
