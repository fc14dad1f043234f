//! The client: runs one scenario and reports.

use std::collections::HashMap;
use std::ffi::CString;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};

use anyhow::{Context, Error, Result, anyhow, bail, ensure};
use bytes::Bytes;
use msquic::{
    Addr, AllowedCipherSuiteFlags, CertificateFile, Configuration, Connection, ConnectionEvent,
    ConnectionRef, ConnectionShutdownFlags, Credential, CredentialConfig, CredentialFlags, Registration,
    SendFlags, Status, StatusCode, StreamEvent, StreamRef,
};
use ringway_peers::{ClientArgs, Group, Meter, Pattern, Scenario, cannot, ensure_resumed};

use crate::outgoing::Outgoing;
use crate::sys::{self, Ended};
use crate::{configure, register, settings};

/// How long connections may take to end, before they end without telling the server.
const FAREWELL: Duration = Duration::from_secs(1);

/// Error codes of RFC 9001, section 4.8: a TLS alert is added to the first.
const CRYPTO_ERROR: u64 = 0x100;
const CRYPTO_ERROR_END: u64 = 0x1ff;

/// What handlers tell the main thread. It makes and closes connections: a handler cannot, since some of it waits for their thread.
enum Event {
    /// Another connection is wanted.
    Next,
    /// All transfers of a connection are complete.
    Done,
    /// The run has failed.
    Failed(Error),
    /// The connection of this number can be closed.
    Ended(u64),
}

/// What the handlers of a run need.
struct Run {
    args: ClientArgs,
    server_name: CString,
    meter: Meter,
    pattern: Pattern,
    request: Bytes,
    events: Sender<Event>,
    /// A handshake was completed.
    is_connected: AtomicBool,
    /// Something moved since the main thread looked.
    is_moving: AtomicBool,
    tickets: Mutex<Vec<Vec<u8>>>,
}

impl Run {
    fn tickets(&self) -> MutexGuard<'_, Vec<Vec<u8>>> {
        self.tickets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, event: Event) {
        // Nobody listens any more when the run is over.
        let _ = self.events.send(event);
    }

    fn fail(&self, error: Error) {
        self.tell(Event::Failed(error));
    }

    fn on_moved(&self, bytes: u64) {
        self.meter.moved(bytes);
        self.is_moving.store(true, Ordering::Relaxed);
    }

    /// Compares what arrived, if that is asked for.
    fn verify(&self, mut offset: u64, buffers: &[msquic::BufferRef]) {
        if self.args.verify {
            for buffer in buffers {
                let data = buffer.as_bytes();
                if !self.pattern.matches(offset, data) {
                    self.fail(anyhow!("wrong content near offset {offset}"));
                }
                offset += data.len() as u64;
            }
        }
    }
}

pub fn run(args: &ClientArgs) -> Result<()> {
    let is_transfer = matches!(args.scenario, Scenario::Upload | Scenario::Download);
    ensure!(
        is_transfer || args.bytes.is_none(),
        "--bytes is for uploads and downloads: --time ends the others"
    );
    ensure!(
        !args.key_update || args.bytes.is_some(),
        "--key-update is for uploads and downloads of a number of --bytes"
    );
    let mut client = Client::open(args)?;
    let outcome = client.drive().and_then(|()| client.run.meter.report());
    client.close();
    outcome
}

/// The main thread's part. Its fields are closed in this order.
struct Client {
    connections: HashMap<u64, Arc<Connection>>,
    next: u64,
    /// The socket that all connections share.
    socket: Option<Addr>,
    configuration: Configuration,
    registration: Registration,
    events: Receiver<Event>,
    run: Arc<Run>,
}

impl Client {
    fn open(args: &ClientArgs) -> Result<Self> {
        let registration = register()?;
        let ca = args.ca.to_str().context("paths must be UTF-8")?;
        let mut credential = CredentialConfig::new_client()
            .set_allowed_cipher_suites(AllowedCipherSuiteFlags::AES_128_GCM_SHA256)
            .set_credential_flags(CredentialFlags::INDICATE_CERTIFICATE_RECEIVED)
            .set_ca_certificate_file(ca.to_owned());
        if let Some((chain, key)) = args.identity() {
            let file = |path: &std::path::Path| path.to_str().map(str::to_owned);
            let (key, chain) = file(key).zip(file(chain)).context("paths must be UTF-8")?;
            credential =
                credential.set_credential(Credential::CertificateFile(CertificateFile::new(key, chain)));
        }
        if args.group == Group::X25519MlKem768 {
            cannot("exchange keys by X25519MLKEM768: its OpenSSL does not know it");
        }
        let mut settings = settings();
        if let Some(silence) = args.keep_alive {
            settings =
                settings.set_KeepAliveIntervalMs(u32::try_from(silence.as_millis()).unwrap_or(u32::MAX));
        }
        let configuration = configure(&registration, &settings, &credential)?;
        let pattern = Pattern::default();
        let (sender, events) = channel();
        let run = Run {
            args: args.clone(),
            server_name: CString::new(args.server_name.as_str()).context("--server-name")?,
            request: args.request(&pattern),
            pattern,
            meter: Meter::start(args),
            events: sender,
            is_connected: AtomicBool::new(false),
            is_moving: AtomicBool::new(false),
            tickets: Mutex::default(),
        };
        Ok(Client {
            connections: HashMap::new(),
            next: 0,
            socket: None,
            configuration,
            registration,
            events,
            run: Arc::new(run),
        })
    }

    fn connect(&mut self) -> Result<()> {
        let args = &self.run.args;
        let number = self.next;
        let ticket = self.run.tickets().pop();
        let link = Arc::new(Link {
            run: Arc::clone(&self.run),
            number,
            is_to_resume: args.resume && ticket.is_some(),
            connection: OnceLock::new(),
            streams: Ended::default(),
            streams_left: AtomicUsize::new(args.stream_count()),
            is_key_updated: AtomicBool::new(false),
            first: Mutex::default(),
            secrets: OnceLock::new(),
        });
        let handler = {
            let link = Arc::clone(&link);
            move |connection: ConnectionRef, event: ConnectionEvent| link.on_event(&connection, event)
        };
        let connection =
            Arc::new(Connection::open(&self.registration, handler).context("opening a connection")?);
        if let Some(secrets) = sys::Secrets::of(&connection).context("asking for secrets")? {
            let _ = link.secrets.set(secrets);
        }
        let _ = link.connection.set(Arc::downgrade(&connection));
        self.connections.insert(number, Arc::clone(&connection));
        self.next += 1;
        sys::set_remote(&connection, args.target).context("setting the target")?;
        let shares = args.connection_count() > 1;
        if shares {
            sys::share_socket(&connection, self.socket.as_ref()).context("sharing a socket")?;
        }
        if let Some(ticket) = &ticket {
            sys::resume(&connection, ticket).context("resuming a session")?;
        }
        if args.is_early() {
            // Without a ticket its time does not count.
            link.first().begun = ticket.map(|_| Instant::now());
            // It goes out with the first flight, or when the handshake is complete.
            ask(&link, &connection);
        }
        connection
            .start(&self.configuration, &args.server_name, args.target.port())
            .with_context(|| format!("connecting to {}", args.target))?;
        if shares && self.socket.is_none() {
            self.socket = connection.get_local_addr().ok();
        }
        Ok(())
    }

    /// Runs the scenario until its time is over, or all bytes are transferred.
    fn drive(&mut self) -> Result<()> {
        let run = Arc::clone(&self.run);
        let count = run.args.connection_count();
        for _ in 0..run.args.initial_connections() {
            self.connect()?;
        }
        let mut done = 0;
        while done < count && !run.meter.is_over() {
            match self
                .events
                .recv_timeout(run.meter.remaining().unwrap_or(run.args.timeout))
            {
                Ok(Event::Next) if run.args.scenario == Scenario::Idle && self.next >= count as u64 => {}
                Ok(Event::Next) => self.connect()?,
                Ok(Event::Done) => done += 1,
                Ok(Event::Failed(error)) => return Err(error),
                Ok(Event::Ended(number)) => drop(self.connections.remove(&number)),
                Err(RecvTimeoutError::Timeout) if run.args.bytes.is_none() => {}
                Err(_) if run.is_moving.swap(false, Ordering::Relaxed) => {}
                Err(_) => bail!("nothing moved for {:?}: giving up", run.args.timeout),
            }
        }
        ensure!(
            run.is_connected.load(Ordering::Relaxed),
            "no answer from {}: is a server running there, and does UDP get through?",
            run.args.target
        );
        Ok(())
    }

    /// Ends all connections.
    fn close(mut self) {
        for flags in [ConnectionShutdownFlags::NONE, ConnectionShutdownFlags::SILENT] {
            for connection in self.connections.values() {
                connection.shutdown(flags, 0);
            }
            while !self.connections.is_empty() {
                match self.events.recv_timeout(FAREWELL) {
                    Ok(Event::Ended(number)) => drop(self.connections.remove(&number)),
                    Ok(_) => {}
                    Err(_) => break,
                }
            }
        }
    }
}

/// A connection, as its handler and those of its streams see it.
struct Link {
    run: Arc<Run>,
    number: u64,
    /// It has a ticket, and a full handshake is not what is to be measured.
    is_to_resume: bool,
    /// The main thread's, which keeps it until the last event.
    connection: OnceLock<Weak<Connection>>,
    streams: Ended,
    streams_left: AtomicUsize,
    is_key_updated: AtomicBool,
    first: Mutex<First>,
    secrets: OnceLock<sys::Secrets>,
}

/// What a connection is for that uses a ticket, and waits for one.
#[derive(Default)]
struct First {
    /// When it began, and how long it took until the answer was there.
    begun: Option<Instant>,
    is_answered: bool,
    has_ticket: bool,
    is_over: bool,
}

impl Link {
    fn on_event(self: &Arc<Self>, connection: &ConnectionRef, event: ConnectionEvent) -> Result<(), Status> {
        let run = &self.run;
        match event {
            ConnectionEvent::PeerCertificateReceived { certificate, .. }
                if !sys::is_for(certificate, &run.server_name) =>
            {
                run.fail(anyhow!(
                    "the server's certificate is not for {:?}",
                    run.args.server_name
                ));
                return Err(StatusCode::QUIC_STATUS_BAD_CERTIFICATE.into());
            }
            ConnectionEvent::Connected { session_resumed, .. } => {
                if let Err(error) = ensure_resumed(session_resumed || !self.is_to_resume) {
                    run.fail(error);
                }
                run.is_connected.store(true, Ordering::Relaxed);
                run.is_moving.store(true, Ordering::Relaxed);
                if let Some(secrets) = self.secrets.get() {
                    secrets.write();
                }
                self.begin(connection);
            }
            ConnectionEvent::ResumptionTicketReceived { resumption_ticket } if run.args.resumes() => {
                run.tickets().push(resumption_ticket.to_vec());
                self.first().has_ticket = true;
                self.leave_if_done(connection);
            }
            ConnectionEvent::ShutdownInitiatedByTransport { status, error_code } => {
                run.fail(anyhow!(
                    "connection to {}: {}",
                    run.args.target,
                    explain(&status, error_code)
                ));
            }
            ConnectionEvent::ShutdownInitiatedByPeer { error_code } => {
                run.fail(anyhow!("the server closed the connection with code {error_code}"));
            }
            ConnectionEvent::ShutdownComplete { .. } => {
                self.streams.close();
                run.tell(Event::Ended(self.number));
            }
            _ => {}
        }
        Ok(())
    }

    /// Does what the scenario does with a new connection.
    fn begin(self: &Arc<Self>, connection: &Connection) {
        let run = &self.run;
        if !matches!(run.args.scenario, Scenario::Hps | Scenario::Idle) {
            run.meter.opened();
        }
        match run.args.scenario {
            Scenario::Upload | Scenario::Download => {
                (0..run.args.stream_count()).for_each(|_| transfer(self, connection))
            }
            Scenario::Latency | Scenario::Rps | Scenario::RpsMulti => {
                (0..run.args.stream_count()).for_each(|_| ask(self, connection))
            }
            // It was made before.
            Scenario::LatencyZeroRtt => {}
            Scenario::Hps if run.args.resume => run.meter.connected(),
            Scenario::Hps => {
                run.meter.connected();
                connection.shutdown(ConnectionShutdownFlags::NONE, 0);
                run.tell(Event::Next);
            }
            Scenario::Idle => {
                run.meter.connected();
                run.tell(Event::Next);
            }
        }
    }

    /// A connection that waits for a ticket, and for the answer to its request, if it has made one, ends when they are there.
    fn leave_if_done(&self, connection: &Connection) {
        let mut first = self.first();
        let is_answered = first.is_answered || !self.run.args.is_early();
        if first.has_ticket && is_answered && !first.is_over {
            first.is_over = true;
            connection.shutdown(ConnectionShutdownFlags::NONE, 0);
            self.run.tell(Event::Next);
        }
    }

    fn first(&self) -> MutexGuard<'_, First> {
        self.first.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A transfer is complete.
    fn on_transferred(&self) {
        if self.streams_left.fetch_sub(1, Ordering::Relaxed) > 1 {
            return;
        }
        if self.run.args.key_update && !self.is_key_updated.load(Ordering::Relaxed) {
            self.run.fail(anyhow!(
                "the transfer was over before MsQuic could update its keys: take more --bytes"
            ));
        }
        self.run.tell(Event::Done);
    }
}

/// Opens a stream, and makes another request when it is answered.
fn ask(link: &Arc<Link>, connection: &Connection) {
    let start = Instant::now();
    let mut received = 0;
    let owner = Arc::clone(link);
    let handler = move |stream: StreamRef, event: StreamEvent| {
        let run = &owner.run;
        match event {
            StreamEvent::Receive {
                absolute_offset,
                total_buffer_length,
                buffers,
                ..
            } => {
                run.verify(absolute_offset, buffers);
                received += *total_buffer_length;
            }
            StreamEvent::PeerSendShutdown if run.args.is_early() => {
                let begun = owner.first().begun;
                owner.first().is_answered = true;
                if let Some(Err(error)) = begun.map(|begun| run.meter.answered(begun, received)) {
                    run.fail(error);
                }
                if let Some(connection) = owner.connection.get().and_then(Weak::upgrade) {
                    owner.leave_if_done(&connection);
                }
            }
            StreamEvent::PeerSendShutdown => {
                match run.meter.answered(start, received) {
                    Ok(()) => run.is_moving.store(true, Ordering::Relaxed),
                    Err(error) => run.fail(error),
                }
                if let Some(connection) = owner.connection.get().and_then(Weak::upgrade) {
                    ask(&owner, &connection);
                }
            }
            event => on_common_event(&owner, &stream, event),
        }
        Ok(())
    };
    let flags = match link.run.args.is_early() {
        true => SendFlags::FIN | SendFlags::ALLOW_0_RTT,
        false => SendFlags::FIN,
    };
    if let Err(error) = sys::open(connection, link.run.request.clone(), flags, handler) {
        link.run.fail(anyhow!(error).context("opening a stream"));
    }
}

/// What every stream does with these events.
fn on_common_event(link: &Link, stream: &StreamRef, event: StreamEvent) {
    match event {
        StreamEvent::SendComplete { client_context, .. } => {
            sys::sent(client_context);
        }
        StreamEvent::PeerSendAborted { error_code } | StreamEvent::PeerReceiveAborted { error_code } => {
            link.run
                .fail(anyhow!("the server aborted a stream with code {error_code}"));
        }
        StreamEvent::ShutdownComplete { .. } => link.streams.take(stream),
        _ => {}
    }
}

/// One stream's upload or download.
struct Transfer {
    link: Arc<Link>,
    /// What an upload sends behind the request's header.
    upload: Outgoing,
    is_header_sent: bool,
    moved: u64,
}

fn transfer(link: &Arc<Link>, connection: &Connection) {
    let args = &link.run.args;
    let mut transfer = Transfer {
        link: Arc::clone(link),
        upload: Outgoing::new(args.upload_len()),
        is_header_sent: false,
        moved: 0,
    };
    let header = Bytes::copy_from_slice(&args.response_len().to_be_bytes());
    let flags = match args.upload_len() {
        0 => SendFlags::FIN,
        _ => SendFlags::NONE,
    };
    let handler = move |stream: StreamRef, event: StreamEvent| {
        transfer.on_event(&stream, event);
        Ok(())
    };
    if let Err(error) = sys::open(connection, header, flags, handler) {
        link.run.fail(anyhow!(error).context("opening a stream"));
    }
}

impl Transfer {
    fn on_event(&mut self, stream: &StreamRef, event: StreamEvent) {
        match event {
            StreamEvent::StartComplete { .. } => self.send(stream),
            StreamEvent::SendComplete {
                cancelled,
                client_context,
            } => {
                let bytes = sys::sent(client_context);
                if self.is_header_sent {
                    self.upload.on_sent(bytes);
                    if !cancelled {
                        self.on_moved(stream, bytes);
                        self.send(stream);
                    }
                }
                self.is_header_sent = true;
            }
            StreamEvent::Receive {
                absolute_offset,
                total_buffer_length,
                buffers,
                ..
            } => {
                self.link.run.verify(absolute_offset, buffers);
                self.on_moved(stream, *total_buffer_length);
            }
            StreamEvent::ShutdownComplete {
                connection_shutdown, ..
            } => {
                self.link.streams.take(stream);
                if !connection_shutdown {
                    self.link.on_transferred();
                }
            }
            event => on_common_event(&self.link, stream, event),
        }
    }

    fn send(&mut self, stream: &StreamRef) {
        let run = &self.link.run;
        if let Err(error) = self.upload.send(stream, &run.pattern) {
            run.fail(anyhow!(error).context("sending"));
        }
    }

    fn on_moved(&mut self, stream: &StreamRef, bytes: u64) {
        self.link.run.on_moved(bytes);
        self.moved += bytes;
        let args = &self.link.run.args;
        let is_half = args.bytes.is_some_and(|all| self.moved >= all.as_u64() / 2);
        if args.key_update && is_half && !self.link.is_key_updated.load(Ordering::Relaxed) {
            // Not yet is no failure: the next piece tries again.
            let is_updated = sys::update_keys(stream).is_ok();
            self.link.is_key_updated.store(is_updated, Ordering::Relaxed);
        }
    }
}

fn explain(status: &Status, error_code: u64) -> String {
    match status.try_as_status_code() {
        Ok(
            StatusCode::QUIC_STATUS_UNREACHABLE
            | StatusCode::QUIC_STATUS_CONNECTION_TIMEOUT
            | StatusCode::QUIC_STATUS_CONNECTION_IDLE,
        ) => "no answer: is a server running there, and does UDP get through?".to_owned(),
        _ if matches!(error_code, CRYPTO_ERROR..=CRYPTO_ERROR_END) => format!(
            "TLS alert {}: is the server's certificate among those to trust?",
            error_code - CRYPTO_ERROR
        ),
        _ => format!("{status}, code {error_code:#x}"),
    }
}
