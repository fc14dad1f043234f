//! The client.

use std::net::SocketAddr;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use quiche::{Config, ConnectionError, ConnectionId, Error};
use ringway_peers::{ClientArgs, IO_SIZE, Scenario, cannot, ensure_resumed};
use ringway_peers_sans_io::{Run, Sender, Stream, connect, is_handshake, readable};
use rustc_hash::FxHashMap;

use crate::connections::{Connections, Hosted};
use crate::{Connection, config, new_id};

pub fn run(args: &ClientArgs) -> Result<()> {
    if args.key_update {
        cannot("update keys when asked to");
    }
    let mut config = config(args.group)?;
    if args.is_early() {
        config.enable_early_data();
    }
    if let Some((chain, key)) = args.identity() {
        config.load_cert_chain_from_pem_file(readable(chain)?)?;
        config.load_priv_key_from_pem_file(readable(key)?)?;
    }
    let ca = readable(&args.ca)?;
    config
        .load_verify_locations_from_file(ca)
        .with_context(|| format!("reading the certificates in {ca}"))?;
    config.verify_peer(true);
    let (mut receiver, mut sender, local) = connect(args.target)?;

    let mut connections = Connections::new(local, args.keep_alive);
    let mut client = Client {
        args,
        config,
        local,
        run: Run::start(args),
        sessions: Vec::new(),
        buffer: vec![0; IO_SIZE],
    };
    let mut now = Instant::now();
    for _ in 0..args.initial_connections() {
        client.connect(&mut connections, &mut sender, now)?;
    }
    sender.flush()?;
    while client.run.goes_on(now)? {
        let limit = client.run.limit(now);
        let limit = connections.idle_time(now).map_or(limit, |time| time.min(limit));
        receiver.wait(Some(limit))?;
        now = Instant::now();
        receiver.receive(|from, datagram| {
            client.run.heard(now);
            let is_handshake = is_handshake(datagram);
            if let Some(key) = connections.receive(from, datagram, now) {
                if is_handshake {
                    client.serve(&mut connections, key, &mut sender, now)?;
                    return sender.flush();
                }
                connections.make_ready(key);
            }
            Ok(())
        })?;
        connections.expire(now);
        while let Some(key) = connections.next_ready() {
            client.serve(&mut connections, key, &mut sender, now)?;
        }
        sender.flush()?;
    }
    client.run.report(now)?;
    for key in connections.keys() {
        // Some are closed already.
        let _ = connections[key].connection.close(true, 0, b"");
        let _ = connections.send(key, &mut sender);
    }
    let _ = sender.flush();
    Ok(())
}

struct Client<'a> {
    args: &'a ClientArgs,
    config: Config,
    local: SocketAddr,
    run: Run,
    /// With their tickets.
    sessions: Vec<Vec<u8>>,
    buffer: Vec<u8>,
}

/// What is done on a connection.
#[derive(Default)]
struct Work {
    /// Its handshake is done.
    is_connected: bool,
    /// We have closed it.
    is_leaving: bool,
    /// It has begun with a ticket.
    has_ticket: bool,
    /// The request of its first flight, whose time began with the connection.
    first: Option<Stream>,
    /// Its request has been answered.
    is_answered: bool,
    streams: FxHashMap<u64, Stream>,
    next_stream: u64,
    /// Streams that are to be opened.
    to_open: usize,
}

impl Client<'_> {
    fn connect(
        &mut self,
        connections: &mut Connections<Work>,
        sender: &mut Sender,
        now: Instant,
    ) -> Result<()> {
        let first = self.args.is_early().then(Stream::start);
        let id = new_id();
        let mut connection: Connection = quiche::connect_with_buffer_factory(
            Some(&self.args.server_name),
            &ConnectionId::from_ref(&id),
            self.local,
            self.args.target,
            &mut self.config,
        )
        .context("opening a connection")?;
        let mut work = Work {
            to_open: usize::from(first.is_some()),
            first,
            ..Work::default()
        };
        if let Some(session) = self.sessions.pop() {
            connection.set_session(&session).context("resuming a session")?;
            work.has_ticket = true;
        }
        let key = connections.add(connection, work, &[&id], now);
        connections.send(key, sender)?;
        if self.args.is_early() {
            // Behind the first flight of TLS: now it is known whether there is early data.
            let Hosted {
                connection, state, ..
            } = &mut connections[key];
            if connection.is_in_early_data() {
                self.work(connection, state)?;
                connections.send(key, sender)?;
            }
        }
        Ok(())
    }

    /// Does what there is to do on a connection.
    fn serve(
        &mut self,
        connections: &mut Connections<Work>,
        key: usize,
        sender: &mut Sender,
        now: Instant,
    ) -> Result<()> {
        let Hosted {
            connection, state, ..
        } = &mut connections[key];
        let has_ended = has_ended(connection);
        if !has_ended && !state.is_leaving && connection.is_established() {
            if !state.is_connected {
                state.is_connected = true;
                if self.args.resume && state.has_ticket {
                    ensure_resumed(connection.is_resumed())?;
                }
                let to_open = self.run.connected();
                if !self.args.is_early() {
                    state.to_open = to_open;
                }
                if self.args.scenario == Scenario::Hps && !self.args.resume {
                    state.is_leaving = true;
                    // What completes the handshake at the server goes out before the close.
                    connections.send(key, sender)?;
                    connections[key].connection.close(true, 0, b"")?;
                    connections.send(key, sender)?;
                    return self.connect(connections, sender, now);
                }
                if self.run.begins_another() {
                    self.connect(connections, sender, now)?;
                    return self.serve(connections, key, sender, now);
                }
            }
            self.work(connection, state)?;
            let is_done = state.is_answered || !self.args.is_early();
            if self.args.resumes()
                && is_done
                && let Some(session) = connection.session()
            {
                self.sessions.push(session.to_vec());
                state.is_leaving = true;
                connections.send(key, sender)?;
                connections[key].connection.close(true, 0, b"")?;
                connections.send(key, sender)?;
                return self.connect(connections, sender, now);
            }
        }
        connections.send(key, sender)?;
        let Hosted {
            connection, state, ..
        } = &connections[key];
        if has_ended && !state.is_leaving {
            sender.flush()?;
            bail!(explain(connection));
        }
        if connection.is_closed() {
            connections.remove(key);
        }
        Ok(())
    }

    fn work(&mut self, connection: &mut Connection, work: &mut Work) -> Result<()> {
        let counts = work.has_ticket;
        for id in connection.readable() {
            if let Some(stream) = work.streams.get_mut(&id)
                && let Some(asks_again) = self.read(connection, stream, id, counts)?
            {
                work.streams.remove(&id);
                work.is_answered = true;
                work.to_open += usize::from(asks_again);
            }
        }
        while work.to_open > 0 && connection.peer_streams_left_bidi() > 0 {
            let id = work.next_stream;
            let first = work.first.take();
            let stream = work
                .streams
                .entry(id)
                .or_insert(first.unwrap_or_else(Stream::start));
            self.write(connection, stream, id)?;
            work.next_stream += 4;
            work.to_open -= 1;
        }
        for id in connection.writable() {
            if let Some(stream) = work.streams.get_mut(&id) {
                self.write(connection, stream, id)?;
            }
        }
        Ok(())
    }

    /// Reads what has arrived on a stream. At its end: whether another one is to be opened.
    fn read(
        &mut self,
        connection: &mut Connection,
        stream: &mut Stream,
        id: u64,
        has_ticket: bool,
    ) -> Result<Option<bool>> {
        loop {
            match connection.stream_recv(id, &mut self.buffer) {
                Ok((len, fin)) => {
                    self.run.on_received(stream, &self.buffer[..len])?;
                    if fin {
                        return self.run.on_end(stream, has_ticket).map(Some);
                    }
                }
                Err(Error::Done) => return Ok(None),
                Err(Error::StreamReset(code)) => bail!("the server aborted a stream with code {code}"),
                Err(error) => bail!("reading a stream: {error}"),
            }
        }
    }

    /// Gives quiche what a stream has to send, as much as it takes.
    fn write(&mut self, connection: &mut Connection, stream: &mut Stream, id: u64) -> Result<()> {
        while let Some((piece, is_last)) = self.run.next_piece(stream) {
            let offered = piece.len();
            match connection.stream_send_zc(id, piece, is_last) {
                Ok((taken, _)) => {
                    self.run.on_given(stream, taken);
                    if taken < offered {
                        break;
                    }
                }
                Err(Error::Done) => break,
                Err(Error::StreamStopped(code)) => bail!("the server stopped a stream with code {code}"),
                Err(error) => bail!("writing to a stream: {error}"),
            }
        }
        Ok(())
    }
}

fn has_ended(connection: &Connection) -> bool {
    connection.is_closed() || connection.is_draining() || connection.local_error().is_some()
}

fn explain(connection: &Connection) -> String {
    if let Some(error) = connection.peer_error() {
        format!("the server closed the connection: {}", describe(error))
    } else if let Some(error) = connection.local_error() {
        format!("the connection failed: {}", describe(error))
    } else if connection.is_timed_out() {
        "no answer: is a server running there, and does UDP get through?".to_owned()
    } else {
        "the connection was reset".to_owned()
    }
}

fn describe(error: &ConnectionError) -> String {
    ringway_peers_sans_io::describe(error.is_app, error.error_code, &error.reason)
}
