//! The server.

use std::rc::Rc;
use std::time::Instant;

use anyhow::{Context, Result};
use ringway_peers::{
    ALPN, Group, IO_SIZE, Pattern, Request, Resumption, ServerArgs, cannot, key_log, listening,
};
use ringway_peers_sans_io::{bind, is_handshake, readable};
use rustc_hash::FxHashMap;
use tquic::{Connection, Endpoint, Error, PacketInfo, Shutdown, TlsConfig, TransportHandler};

use crate::config;
use crate::output::Output;

pub fn run(args: &ServerArgs) -> Result<()> {
    let mut config = config()?;
    let (cert, key) = (readable(&args.cert)?, readable(&args.key)?);
    // Tickets it gives out in any case.
    let takes_early_data = args.resumption == Resumption::ZeroRtt;
    let mut tls = TlsConfig::new_server_config(cert, key, vec![ALPN.to_vec()], takes_early_data)
        .with_context(|| format!("reading the certificates in {cert} and the key in {key}"))?;
    if args.group == Group::X25519MlKem768 {
        cannot("choose the group of the key exchange");
    }
    if let Some(file) = &args.client_ca {
        tls.set_ca_certs(readable(file)?)
            .with_context(|| format!("reading the certificates in {}", file.display()))?;
        tls.set_verify(true);
    }
    config.set_tls_config(tls);
    config.enable_retry(args.retry);
    let (mut receiver, sender, local) = bind(args.bind)?;
    let output = Rc::new(Output::new(sender));
    let responder = Responder {
        pattern: Pattern::default(),
        verify: args.verify,
        streams: FxHashMap::default(),
        buffer: vec![0; IO_SIZE],
    };
    let mut endpoint = Endpoint::new(Box::new(config), true, Box::new(responder), output.clone());
    listening(local);
    loop {
        receiver.wait(endpoint.timeout())?;
        let now = Instant::now();
        receiver.receive(|from, datagram| {
            let is_handshake = is_handshake(datagram);
            let info = PacketInfo {
                src: from,
                dst: local,
                time: now,
            };
            if let Err(error) = endpoint.recv(datagram, &info) {
                eprintln!("tquic: receiving from {from}: {error:?}");
            }
            if is_handshake {
                serve(&mut endpoint, &output);
            }
            Ok(())
        })?;
        endpoint.on_timeout(now);
        serve(&mut endpoint, &output);
    }
}

/// Lets connections act that have something to do.
fn serve(endpoint: &mut Endpoint, output: &Output) {
    if let Err(error) = endpoint.process_connections() {
        eprintln!("tquic: {error:?}");
    }
    // What the kernel does not take is lost, like any packet.
    if let Err(error) = output.flush() {
        eprintln!("tquic: sending: {error:#}");
    }
}

/// What answers requests.
struct Responder {
    pattern: Pattern,
    verify: bool,
    /// Streams whose request, or response, is under way; by connection and ID.
    streams: FxHashMap<(u64, u64), Stream>,
    buffer: Vec<u8>,
}

#[derive(Default)]
struct Stream {
    request: Request,
    /// The response, once the request is complete, and what tquic has of it.
    response: Option<u64>,
    sent: u64,
}

impl Stream {
    /// Gives tquic as much of the response as it takes. Whether anything is left to give.
    fn write(&mut self, connection: &mut Connection, id: u64, pattern: &Pattern) -> bool {
        let Some(len) = self.response else { return true };
        loop {
            let piece = pattern.piece(self.sent, len - self.sent);
            let offered = piece.len();
            let is_last = self.sent + offered as u64 == len;
            match connection.stream_write(id, piece, is_last) {
                Ok(taken) => {
                    self.sent += taken as u64;
                    if taken < offered {
                        return true;
                    }
                    if is_last {
                        return false;
                    }
                }
                Err(Error::Done) => return true,
                // The client wants no more of it, or the connection is ending.
                Err(_) => return false,
            }
        }
    }
}

fn key(connection: &Connection, id: u64) -> (u64, u64) {
    (connection.index().unwrap_or_default(), id)
}

impl TransportHandler for Responder {
    fn on_conn_created(&mut self, connection: &mut Connection) {
        if let Some(file) = key_log() {
            connection.set_keylog(Box::new(file));
        }
    }

    fn on_conn_established(&mut self, _: &mut Connection) {}

    fn on_conn_closed(&mut self, connection: &mut Connection) {
        if let Some(error) = connection.local_error().or(connection.peer_error())
            && !error.is_app
        {
            eprintln!("tquic: a connection has ended: {error:?}");
        }
    }

    fn on_stream_created(&mut self, connection: &mut Connection, id: u64) {
        // There is nothing to write yet.
        let _ = connection.stream_want_write(id, false);
    }

    fn on_stream_readable(&mut self, connection: &mut Connection, id: u64) {
        let key = key(connection, id);
        // Most requests come in one piece, and are answered in one: no stream of theirs is kept.
        let mut stream = self.streams.remove(&key).unwrap_or_default();
        loop {
            match connection.stream_read(id, &mut self.buffer) {
                Ok((len, fin)) => {
                    let verify = self.verify.then_some(&self.pattern);
                    stream.request.take(&self.buffer[..len], verify);
                    if !fin {
                        continue;
                    }
                    stream.response = stream.request.response_len();
                    if stream.response.is_none() {
                        eprintln!("tquic: a wrong request on stream {id}");
                        let _ = connection.stream_shutdown(id, Shutdown::Write, 1);
                    } else if stream.write(connection, id, &self.pattern) {
                        self.streams.insert(key, stream);
                    }
                    return;
                }
                Err(Error::Done) => {
                    self.streams.insert(key, stream);
                    return;
                }
                // The client has given up, and needs no answer.
                Err(_) => {
                    let _ = connection.stream_shutdown(id, Shutdown::Write, 0);
                    return;
                }
            }
        }
    }

    fn on_stream_writable(&mut self, connection: &mut Connection, id: u64) {
        let key = key(connection, id);
        let Some(mut stream) = self.streams.remove(&key) else {
            let _ = connection.stream_want_write(id, false);
            return;
        };
        if stream.write(connection, id, &self.pattern) {
            self.streams.insert(key, stream);
        } else {
            let _ = connection.stream_want_write(id, false);
        }
    }

    fn on_stream_closed(&mut self, connection: &mut Connection, id: u64) {
        self.streams.remove(&key(connection, id));
    }

    fn on_new_token(&mut self, _: &mut Connection, _: Vec<u8>) {}
}
