//! The client.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use ringway_peers::{ALPN, ClientArgs, Group, IO_SIZE, Scenario, cannot, ensure_resumed, key_log};
use ringway_peers_sans_io::{Run, Stream, connect, is_handshake, readable};
use rustc_hash::FxHashMap;
use tquic::error::ConnectionError;
use tquic::{Config, Connection, Endpoint, Error, PacketInfo, TlsConfig, TransportHandler};

use crate::config;
use crate::output::Output;

/// Of streams, as tquic has it by default.
const URGENCY: u8 = 127;

pub fn run(args: &ClientArgs) -> Result<()> {
    if args.key_update {
        cannot("update keys when asked to");
    }
    if args.group == Group::X25519MlKem768 {
        cannot("choose the group of the key exchange");
    }
    let (mut receiver, sender, local) = connect(args.target)?;
    let client = Rc::new(RefCell::new(Client {
        args: args.clone(),
        run: Run::start(args),
        sessions: Vec::new(),
        works: FxHashMap::default(),
        has_ticket: false,
        first: None,
        buffer: vec![0; IO_SIZE],
        to_close: Vec::new(),
        to_begin: 0,
        failure: None,
    }));
    let output = Rc::new(Output::new(sender));
    let handler = Box::new(Handler(Rc::clone(&client)));
    let mut driver = Driver {
        endpoint: Endpoint::new(Box::new(client_config(args)?), false, handler, output.clone()),
        output,
        client,
        args,
        local,
    };
    let mut keep_alive = args.keep_alive.map(KeepAlive::new);
    let mut now = Instant::now();
    for _ in 0..args.initial_connections() {
        driver.open()?;
    }
    driver.serve()?;
    while driver.client.borrow().run.goes_on(now)? {
        let limits = [
            Some(driver.client.borrow().run.limit(now)),
            driver.endpoint.timeout(),
            keep_alive.as_ref().map(|keep_alive| keep_alive.limit(now)),
        ];
        receiver.wait(limits.into_iter().flatten().min())?;
        now = Instant::now();
        receiver.receive(|from, datagram| {
            driver.client.borrow_mut().run.heard(now);
            let is_handshake = is_handshake(datagram);
            let info = PacketInfo {
                src: from,
                dst: local,
                time: now,
            };
            if let Err(error) = driver.endpoint.recv(datagram, &info) {
                eprintln!("tquic: receiving from {from}: {error:?}");
            }
            if is_handshake { driver.serve() } else { Ok(()) }
        })?;
        driver.endpoint.on_timeout(now);
        if let Some(keep_alive) = &mut keep_alive {
            keep_alive.speak(&mut driver.endpoint, &driver.client.borrow(), now);
        }
        driver.serve()?;
    }
    driver.client.borrow().run.report(now)?;
    let indexes: Vec<u64> = driver.client.borrow().works.keys().copied().collect();
    for index in indexes {
        driver.close(index);
    }
    let _ = driver.endpoint.process_connections();
    let _ = driver.output.flush();
    Ok(())
}

/// tquic, which calls the client and the output.
struct Driver<'a> {
    endpoint: Endpoint,
    output: Rc<Output>,
    client: Rc<RefCell<Client>>,
    args: &'a ClientArgs,
    local: SocketAddr,
}

impl Driver<'_> {
    fn open(&mut self) -> Result<()> {
        let name = Some(&self.args.server_name[..]);
        let session = self.client.borrow_mut().begin();
        self.endpoint
            .connect(self.local, self.args.target, name, session.as_deref(), None, None)
            .context("opening a connection")?;
        Ok(())
    }

    fn close(&mut self, index: u64) {
        if let Some(connection) = self.endpoint.conn_get_mut(index) {
            // Some are closed already.
            let _ = connection.close(true, 0, b"");
        }
    }

    /// Connections that a ticket has come on may end: nobody says so.
    fn leave(&mut self) {
        if !self.args.resumes() {
            return;
        }
        let mut client = self.client.borrow_mut();
        let indexes: Vec<u64> = client.works.keys().copied().collect();
        for index in indexes {
            if let Some(connection) = self.endpoint.conn_get_mut(index) {
                client.leave_if_done(connection, index);
            }
        }
    }

    /// Lets connections act that have something to do, and replaces those that have done it.
    fn serve(&mut self) -> Result<()> {
        self.endpoint.process_connections()?;
        self.leave();
        let to_close = std::mem::take(&mut self.client.borrow_mut().to_close);
        let to_begin = std::mem::take(&mut self.client.borrow_mut().to_begin) + to_close.len();
        if to_begin > 0 {
            to_close.into_iter().for_each(|index| self.close(index));
            for _ in 0..to_begin {
                self.open()?;
            }
            self.endpoint.process_connections()?;
        }
        self.output.flush()?;
        self.client.borrow_mut().failure.take().map_or(Ok(()), Err)
    }
}

fn client_config(args: &ClientArgs) -> Result<Config> {
    let mut config = config()?;
    let ca = readable(&args.ca)?;
    let mut tls = TlsConfig::new_client_config(vec![ALPN.to_vec()], args.is_early())?;
    if let Some((chain, key)) = args.identity() {
        tls.set_certificate_file(readable(chain)?)?;
        tls.set_private_key_file(readable(key)?)?;
    }
    tls.set_ca_certs(ca)
        .with_context(|| format!("reading the certificates in {ca}"))?;
    tls.set_verify(true);
    config.set_tls_config(tls);
    Ok(config)
}

struct Client {
    args: ClientArgs,
    run: Run,
    /// With their tickets.
    sessions: Vec<Vec<u8>>,
    /// What is done on connections, by their index; those that we have closed have nothing to do.
    works: FxHashMap<u64, Work>,
    /// Of the connection that begins.
    has_ticket: bool,
    first: Option<Stream>,
    buffer: Vec<u8>,
    /// Connections whose handshake was all there was to do. What completes it at the server goes out before the close.
    to_close: Vec<u64>,
    /// Connections that are to be begun.
    to_begin: usize,
    failure: Option<anyhow::Error>,
}

/// What is done on a connection.
#[derive(Default)]
struct Work {
    streams: FxHashMap<u64, Stream>,
    /// Streams that are to be opened.
    to_open: usize,
    /// It has begun with a ticket.
    has_ticket: bool,
    /// The request of its first flight, whose time began with the connection.
    first: Option<Stream>,
    /// Its request has been answered.
    is_answered: bool,
}

impl Client {
    /// Another connection begins: the session that it resumes, if there is one.
    fn begin(&mut self) -> Option<Vec<u8>> {
        let session = self.sessions.pop();
        self.has_ticket = session.is_some();
        self.first = self.args.is_early().then(Stream::start);
        session
    }

    fn on_established(&mut self, connection: &mut Connection, index: u64) -> Result<()> {
        if self.args.resume && self.works.get(&index).is_some_and(|work| work.has_ticket) {
            ensure_resumed(connection.is_resumed())?;
        }
        let to_open = self.run.connected();
        self.to_begin += usize::from(self.run.begins_another());
        if self.args.scenario == Scenario::Hps && !self.args.resume {
            self.works.remove(&index);
            self.to_close.push(index);
            return Ok(());
        }
        let Some(work) = self.works.get_mut(&index) else {
            return Ok(());
        };
        if !self.args.is_early() {
            work.to_open = to_open;
        }
        open_streams(connection, work, &mut self.run)
    }

    /// A connection of which a ticket is all that is wanted, and the answer to its request, if it has made one, ends when they are there.
    fn leave_if_done(&mut self, connection: &Connection, index: u64) {
        let is_answered = |work: &Work| work.is_answered || !self.args.is_early();
        if connection.is_established()
            && self.works.get(&index).is_some_and(is_answered)
            && let Some(session) = connection.session()
        {
            self.sessions.push(session.to_vec());
            self.works.remove(&index);
            self.to_close.push(index);
        }
    }

    fn on_readable(&mut self, connection: &mut Connection, index: u64, id: u64) -> Result<()> {
        let Some(work) = self.works.get_mut(&index) else {
            return Ok(());
        };
        let Some(stream) = work.streams.get_mut(&id) else {
            return Ok(());
        };
        loop {
            match connection.stream_read(id, &mut self.buffer) {
                Ok((len, fin)) => {
                    self.run.on_received(stream, &self.buffer[..len])?;
                    if fin {
                        break;
                    }
                }
                Err(Error::Done) => return Ok(()),
                Err(Error::StreamReset(code)) => bail!("the server aborted a stream with code {code}"),
                Err(error) => bail!("reading a stream: {error}"),
            }
        }
        work.to_open += usize::from(self.run.on_end(stream, work.has_ticket)?);
        work.is_answered = true;
        work.streams.remove(&id);
        open_streams(connection, work, &mut self.run)
    }

    fn on_writable(&mut self, connection: &mut Connection, index: u64, id: u64) -> Result<()> {
        match self
            .works
            .get_mut(&index)
            .and_then(|work| work.streams.get_mut(&id))
        {
            Some(stream) => write(connection, id, stream, &mut self.run),
            None => Ok(()),
        }
    }

    fn note(&mut self, result: Result<()>) {
        if let Err(error) = result {
            self.failure.get_or_insert(error);
        }
    }
}

fn open_streams(connection: &mut Connection, work: &mut Work, run: &mut Run) -> Result<()> {
    while work.to_open > 0 {
        let id = match connection.stream_bidi_new(URGENCY, true) {
            Ok(id) => id,
            // Until the server gives more credit, which comes with the answers.
            Err(Error::StreamLimitError) => return Ok(()),
            Err(error) => bail!("opening a stream: {error}"),
        };
        work.to_open -= 1;
        let first = work.first.take();
        let stream = work
            .streams
            .entry(id)
            .or_insert(first.unwrap_or_else(Stream::start));
        write(connection, id, stream, run)?;
    }
    Ok(())
}

/// Gives tquic what a stream has to send, as much as it takes.
fn write(connection: &mut Connection, id: u64, stream: &mut Stream, run: &mut Run) -> Result<()> {
    while let Some((piece, is_last)) = run.next_piece(stream) {
        let offered = piece.len();
        match connection.stream_write(id, piece, is_last) {
            Ok(taken) => {
                run.on_given(stream, taken);
                if taken < offered {
                    return Ok(());
                }
            }
            Err(Error::Done) => return Ok(()),
            Err(Error::StreamStopped(code)) => bail!("the server stopped a stream with code {code}"),
            Err(error) => bail!("writing to a stream: {error}"),
        }
    }
    // There is nothing more to write.
    let _ = connection.stream_want_write(id, false);
    Ok(())
}

/// What tquic calls.
struct Handler(Rc<RefCell<Client>>);

impl TransportHandler for Handler {
    fn on_conn_created(&mut self, connection: &mut Connection) {
        if let Some(file) = key_log() {
            connection.set_keylog(Box::new(file));
        }
        let index = connection.index().unwrap_or_default();
        let mut client = self.0.borrow_mut();
        let client = &mut *client;
        let first = client.first.take();
        let mut work = Work {
            to_open: usize::from(first.is_some()),
            has_ticket: client.has_ticket,
            first,
            ..Work::default()
        };
        let result = if connection.is_in_early_data() {
            open_streams(connection, &mut work, &mut client.run)
        } else {
            Ok(())
        };
        client.works.insert(index, work);
        client.note(result);
    }

    fn on_conn_established(&mut self, connection: &mut Connection) {
        let index = connection.index().unwrap_or_default();
        let mut client = self.0.borrow_mut();
        let result = client.on_established(connection, index);
        client.note(result);
    }

    fn on_conn_closed(&mut self, connection: &mut Connection) {
        let index = connection.index().unwrap_or_default();
        let mut client = self.0.borrow_mut();
        if client.works.remove(&index).is_some() {
            client.note(Err(anyhow!(explain(connection))));
        }
    }

    fn on_stream_created(&mut self, _: &mut Connection, _: u64) {}

    fn on_stream_readable(&mut self, connection: &mut Connection, id: u64) {
        let index = connection.index().unwrap_or_default();
        let mut client = self.0.borrow_mut();
        let result = client.on_readable(connection, index, id);
        client.note(result);
    }

    fn on_stream_writable(&mut self, connection: &mut Connection, id: u64) {
        let index = connection.index().unwrap_or_default();
        let mut client = self.0.borrow_mut();
        let result = client.on_writable(connection, index, id);
        client.note(result);
    }

    fn on_stream_closed(&mut self, _: &mut Connection, _: u64) {}

    fn on_new_token(&mut self, _: &mut Connection, _: Vec<u8>) {}
}

/// Says something on connections that have heard nothing.
struct KeepAlive {
    /// Half of the silence that is allowed: what is heard just after a look is seen by the next one.
    interval: Duration,
    next: Instant,
    /// Packets that each connection had received when it was last looked at.
    received: FxHashMap<u64, u64>,
}

impl KeepAlive {
    fn new(silence: Duration) -> Self {
        let interval = silence / 2;
        KeepAlive {
            interval,
            next: Instant::now() + interval,
            received: FxHashMap::default(),
        }
    }

    /// How long to wait at most.
    fn limit(&self, now: Instant) -> Duration {
        self.next.saturating_duration_since(now)
    }

    fn speak(&mut self, endpoint: &mut Endpoint, client: &Client, now: Instant) {
        if now < self.next {
            return;
        }
        self.next = now + self.interval;
        for &index in client.works.keys() {
            if let Some(connection) = endpoint.conn_get_mut(index) {
                let received = connection.stats().recv_count;
                if self.received.insert(index, received) == Some(received) && connection.ping(None).is_ok() {
                    // A ping alone makes nobody send it, a wish does.
                    let _ = connection.stream_want_read(0, true);
                }
            }
        }
    }
}

fn explain(connection: &Connection) -> String {
    if let Some(error) = connection.peer_error() {
        format!("the server closed the connection: {}", describe(error))
    } else if let Some(error) = connection.local_error() {
        format!("the connection failed: {}", describe(error))
    } else if connection.is_idle_timeout() || connection.is_handshake_timeout() {
        "no answer: is a server running there, and does UDP get through?".to_owned()
    } else {
        "the connection was reset".to_owned()
    }
}

fn describe(error: &ConnectionError) -> String {
    ringway_peers_sans_io::describe(error.is_app, error.error_code, &error.reason)
}
