//! The server.

use std::net::SocketAddr;
use std::time::Instant;

use anyhow::{Context, Result};
use quiche::{Config, ConnectionId, Error, Header, RetryConnectionIds, Shutdown, Type};
use ringway_peers::{IO_SIZE, Pattern, Request, Resumption, ServerArgs, listening};
use ringway_peers_sans_io::{Sender, bind, is_handshake, readable};
use rustc_hash::FxHashMap;

use crate::connections::{Connections, Hosted};
use crate::{Connection, ID_LEN, config, new_id};

/// Datagrams that begin a connection are not shorter (RFC 9000, section 14.1): who answers shorter ones amplifies.
const MIN_INITIAL: usize = 1200;

pub fn run(args: &ServerArgs) -> Result<()> {
    let service = Requests {
        pattern: Pattern::default(),
        verify: args.verify,
        buffer: vec![0; IO_SIZE],
    };
    listen(args, config(args.group)?, service)
}

/// What a server does on its connections.
pub trait Service {
    /// What it keeps for each.
    type State: Default;

    /// Takes what has arrived, and gives what there is to send.
    fn work(&mut self, connection: &mut Connection, state: &mut Self::State);
}

/// Serves for ever.
pub fn listen<S: Service>(args: &ServerArgs, mut config: Config, mut service: S) -> Result<()> {
    let (cert, key) = (readable(&args.cert)?, readable(&args.key)?);
    config
        .load_cert_chain_from_pem_file(cert)
        .with_context(|| format!("reading the certificates in {cert}"))?;
    config
        .load_priv_key_from_pem_file(key)
        .with_context(|| format!("reading the key in {key}"))?;
    // Tickets it gives out in any case.
    if args.resumption == Resumption::ZeroRtt {
        config.enable_early_data();
    }
    if let Some(file) = &args.client_ca {
        config
            .load_verify_locations_from_file(readable(file)?)
            .with_context(|| format!("reading the certificates in {}", file.display()))?;
        config.verify_peer(true);
    }
    let (mut receiver, mut sender, local) = bind(args.bind)?;
    let mut entrance = Entrance {
        config,
        local,
        retry: args.retry,
    };
    let mut connections = Connections::new(local, None);
    let mut now = Instant::now();
    listening(local);
    loop {
        receiver.wait(connections.idle_time(now))?;
        now = Instant::now();
        receiver.receive(|from, datagram| {
            let is_handshake = is_handshake(datagram);
            let mut key = connections.receive(from, datagram, now);
            if key.is_none() && is_handshake {
                key = entrance
                    .knock(from, datagram, &mut connections, &mut sender, now)
                    .unwrap_or_else(|error| {
                        eprintln!("quiche: a first datagram from {from}: {error:#}");
                        None
                    });
            }
            match key {
                Some(key) if is_handshake => {
                    serve(&mut service, &mut connections, key, &mut sender);
                    lost(sender.flush());
                }
                Some(key) => connections.make_ready(key),
                None => {}
            }
            Ok(())
        })?;
        connections.expire(now);
        while let Some(key) = connections.next_ready() {
            serve(&mut service, &mut connections, key, &mut sender);
        }
        lost(sender.flush());
    }
}

/// What the kernel does not take is lost, like any packet.
fn lost(sent: Result<()>) {
    if let Err(error) = sent {
        eprintln!("quiche: sending: {error:#}");
    }
}

/// Where new connections come in.
struct Entrance {
    config: Config,
    local: SocketAddr,
    retry: bool,
}

impl Entrance {
    /// A datagram that belongs to no connection, but perhaps to a new one.
    fn knock<S: Default>(
        &mut self,
        from: SocketAddr,
        datagram: &mut [u8],
        connections: &mut Connections<S>,
        sender: &mut Sender,
        now: Instant,
    ) -> Result<Option<usize>> {
        let Ok(header) = Header::from_slice(datagram, ID_LEN) else {
            return Ok(None);
        };
        if header.ty == Type::VersionNegotiation || datagram.len() < MIN_INITIAL {
            return Ok(None);
        }
        if !quiche::version_is_supported(header.version) {
            let len = quiche::negotiate_version(&header.scid, &header.dcid, sender.room())?;
            sender.commit(len, from)?;
            return Ok(None);
        }
        // Others belong to connections that have ended.
        if header.ty != Type::Initial {
            return Ok(None);
        }
        let id = ConnectionId::from_vec(new_id().to_vec());
        let connection: Connection = if self.retry {
            // A token for measurements and tests: client and connection ID, in the open.
            let mut token = format!("{from} ").into_bytes();
            let given = header.token.as_deref().unwrap_or_default();
            let Some(original) = given.strip_prefix(&token[..]) else {
                token.extend_from_slice(&header.dcid);
                let len = quiche::retry(
                    &header.scid,
                    &header.dcid,
                    &id,
                    &token,
                    header.version,
                    sender.room(),
                )?;
                sender.commit(len, from)?;
                return Ok(None);
            };
            let ids = RetryConnectionIds {
                original_destination_cid: &ConnectionId::from_ref(original),
                retry_source_cid: &header.dcid,
            };
            quiche::accept_with_retry(&id, ids, self.local, from, &mut self.config)?
        } else {
            quiche::accept_with_buf_factory(&id, None, self.local, from, &mut self.config)?
        };
        // The client's own choice leads here, too: its first datagrams may come again, or be several.
        connections.add(connection, S::default(), &[&id, &header.dcid], now);
        Ok(connections.receive(from, datagram, now))
    }
}

/// Does what there is to do on a connection.
fn serve<S: Service>(
    service: &mut S,
    connections: &mut Connections<S::State>,
    key: usize,
    sender: &mut Sender,
) {
    let Hosted {
        connection, state, ..
    } = &mut connections[key];
    service.work(connection, state);
    lost(connections.send(key, sender));
    let connection = &connections[key].connection;
    // It is closed, or its first datagram was nonsense.
    if connection.timeout_instant().is_none() {
        if let Some(error) = connection.peer_error()
            && !error.is_app
        {
            eprintln!("quiche: the client has closed its connection: {error:?}");
        }
        connections.remove(key);
    }
}

/// Answers the requests of ringperf.
struct Requests {
    pattern: Pattern,
    verify: bool,
    buffer: Vec<u8>,
}

impl Service for Requests {
    type State = Responder;

    fn work(&mut self, connection: &mut Connection, state: &mut Responder) {
        for id in connection.readable() {
            state.read(connection, id, self);
        }
        if state.responses > 0 {
            for id in connection.writable() {
                state.write(connection, id, &self.pattern);
            }
        }
    }
}

/// What answers the requests of one connection.
#[derive(Default)]
struct Responder {
    /// Streams whose request, or response, is under way.
    streams: FxHashMap<u64, Stream>,
    /// How many of them are to be written.
    responses: usize,
}

#[derive(Default)]
struct Stream {
    request: Request,
    /// The response, once the request is complete, and what quiche has of it.
    response: Option<u64>,
    sent: u64,
}

impl Responder {
    fn take(&mut self, id: u64) -> Option<Stream> {
        let stream = self.streams.remove(&id)?;
        self.responses -= usize::from(stream.response.is_some());
        Some(stream)
    }

    fn keep(&mut self, id: u64, stream: Stream) {
        self.responses += usize::from(stream.response.is_some());
        self.streams.insert(id, stream);
    }

    fn read(&mut self, connection: &mut Connection, id: u64, service: &mut Requests) {
        // Most requests come in one piece, and are answered in one: no stream of theirs is kept.
        let mut stream = self.take(id).unwrap_or_default();
        loop {
            match connection.stream_recv(id, &mut service.buffer) {
                Ok((len, fin)) => {
                    let verify = service.verify.then_some(&service.pattern);
                    stream.request.take(&service.buffer[..len], verify);
                    if !fin {
                        continue;
                    }
                    stream.response = stream.request.response_len();
                    if stream.response.is_none() {
                        eprintln!("quiche: a wrong request on stream {id}");
                        let _ = connection.stream_shutdown(id, Shutdown::Write, 1);
                        return;
                    }
                    if stream.write(connection, id, &service.pattern) {
                        self.keep(id, stream);
                    }
                    return;
                }
                Err(Error::Done) => return self.keep(id, stream),
                // The client has given up, and needs no answer.
                Err(_) => {
                    let _ = connection.stream_shutdown(id, Shutdown::Write, 0);
                    return;
                }
            }
        }
    }

    fn write(&mut self, connection: &mut Connection, id: u64, pattern: &Pattern) {
        if let Some(mut stream) = self.take(id)
            && stream.write(connection, id, pattern)
        {
            self.keep(id, stream);
        }
    }
}

impl Stream {
    /// Gives quiche as much of the response as it takes. Whether anything is left to give.
    fn write(&mut self, connection: &mut Connection, id: u64, pattern: &Pattern) -> bool {
        let Some(len) = self.response else { return true };
        loop {
            let piece = pattern.piece(self.sent, len - self.sent);
            let offered = piece.len();
            let is_last = self.sent + offered as u64 == len;
            match connection.stream_send_zc(id, piece, is_last) {
                Ok((taken, _)) => {
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
