//! What the examples serve: requests of `ringperf`, whose first eight bytes say how many bytes of answer they want.

use std::error::Error;
use std::net::SocketAddr;

use ringway::pki_types::PrivateKeyDer;
use ringway::{
    Backend, Bytes, Configuration, Connection, ConnectionEvent, DatapathConfig, EventStatus, ExecutionConfig,
    Listener, ListenerEvent, ListenerOptions, Registration, ServerCredentials, Settings, Stream, StreamEvent,
};

/// The datapath that the first argument names: `socket`, `io_uring`, or `af_xdp` of the interface `lo`.
pub(crate) fn execution() -> ExecutionConfig {
    let mut datapath = DatapathConfig::default();
    datapath.backend = match std::env::args().nth(1).as_deref() {
        Some("io_uring") => Backend::IoUring,
        Some("af_xdp") => {
            datapath.af_xdp.interface = Some("lo".to_owned());
            Backend::AfXdp
        }
        _ => Backend::Socket,
    };
    ExecutionConfig {
        datapath,
        ..ExecutionConfig::default()
    }
}

/// Listens on a port of the system's choice.
pub(crate) fn listen(registration: &Registration) -> Result<Listener, Box<dyn Error>> {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der())?;
    let credentials = ServerCredentials::new(vec![made.cert.der().clone()], key);
    let settings = Settings {
        peer_bidi_stream_count: 100,
        ..Settings::default()
    };
    let configuration = Configuration::server(&[b"perf"], settings, credentials)?;
    let options = ListenerOptions::new(SocketAddr::from(([127, 0, 0, 1], 0)), &[b"perf"]);
    let listener = Listener::start(registration, options, move |event| {
        let ListenerEvent::NewConnection(incoming) = event else {
            return;
        };
        incoming.accept(&configuration, |_: &Connection, event: ConnectionEvent<'_>| {
            if let ConnectionEvent::PeerStreamStarted(stream) = event {
                stream.accept(answer());
            }
            EventStatus::Done
        });
    })?;
    println!("LISTENING {}", listener.local_address());
    Ok(listener)
}

/// Answers one request when all of it is there.
fn answer() -> impl FnMut(&Stream, StreamEvent<'_>) -> EventStatus + Send {
    static ZEROS: [u8; 1 << 16] = [0; 1 << 16];
    let mut header = Vec::new();
    move |stream, event| {
        if let StreamEvent::Receive(data) = event {
            let bytes = data.slices().iter().copied().flatten();
            header.extend(bytes.take(8 - header.len()));
            if data.fin() {
                let mut left = <[u8; 8]>::try_from(&header[..]).map_or(0, u64::from_be_bytes);
                while left > ZEROS.len() as u64 {
                    let _ = stream.send(Bytes::from_static(&ZEROS), 0, false);
                    left -= ZEROS.len() as u64;
                }
                let _ = stream.send(Bytes::from_static(&ZEROS[..left as usize]), 0, true);
            }
        }
        EventStatus::Done
    }
}
