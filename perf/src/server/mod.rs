//! The server: answers requests of the QUIC-PERF protocol.

mod report;
mod responder;
mod tasks;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use clap::Args;
use ringway::pki_types::PrivateKeyDer;
use ringway::rustls::KeyLogFile;
use ringway::{
    ClientAuthentication, Configuration, ConnectionEvent, EventStatus, Listener, ListenerEvent,
    ListenerOptions, ResumptionLevel, RetryPolicy, ServerCredentials, Settings,
};
use ringway_async::Endpoint;
use ringway_perf_protocol::ALPN;

use self::report::ServerReport;
use self::responder::{Shared, responder};
use self::tasks::serve;
use crate::api::Opened;
use crate::endpoint::EndpointArgs;
use crate::options::Api;
use crate::report::Stopwatch;
use crate::signals::Signals;
use crate::{capture, certificates, output, ranges};

/// Options of a server.
#[derive(Args, Clone, Debug)]
pub(crate) struct ServerArgs {
    /// Address and port to listen on
    #[arg(long, default_value = "[::]:4433")]
    pub bind: SocketAddr,
    /// Certificate chain (PEM); without one, a self-signed certificate is made
    #[arg(long, requires = "key", value_name = "FILE")]
    pub cert: Option<PathBuf>,
    /// Private key of the certificate (PEM)
    #[arg(long, requires = "cert", value_name = "FILE")]
    pub key: Option<PathBuf>,
    /// Make every client prove its address first
    #[arg(long)]
    pub retry: bool,
    /// Print the figures so far again and again, each time after so long
    #[arg(long, value_name = "TIME", value_parser = ranges::time)]
    pub report_every: Option<Duration>,
    /// What clients may do with tickets, of which each gets one
    #[arg(long, value_enum, default_value = "none")]
    pub resumption: Resumption,
    /// Demand a certificate of every client that leads to one of these (PEM)
    #[arg(long, value_name = "FILE")]
    pub client_ca: Option<PathBuf>,
    /// End after this time
    #[arg(long, value_name = "TIME", value_parser = ranges::time)]
    pub duration: Option<Duration>,
    #[command(flatten)]
    pub endpoint: EndpointArgs,
}

/// What clients may do with tickets.
#[derive(clap::ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Resumption {
    /// There are none
    None,
    /// Resume sessions
    Resume,
    /// Resume sessions, and send requests in 0-RTT
    ZeroRtt,
}

impl Resumption {
    fn level(self) -> ResumptionLevel {
        match self {
            Resumption::None => ResumptionLevel::None,
            Resumption::Resume => ResumptionLevel::ResumeOnly,
            Resumption::ZeroRtt => ResumptionLevel::ResumeAndZeroRtt,
        }
    }
}

impl ServerArgs {
    fn retry_policy(&self) -> RetryPolicy {
        if self.retry {
            RetryPolicy::Always
        } else {
            RetryPolicy::UnderLoad
        }
    }

    fn credentials(&self) -> Result<ServerCredentials> {
        let mut credentials = match (&self.cert, &self.key) {
            (Some(cert), Some(key)) => {
                ServerCredentials::new(certificates::read(cert)?, certificates::read_key(key)?)
            }
            _ => {
                let made = certificates::self_signed()?;
                let key =
                    PrivateKeyDer::try_from(made.signing_key.serialize_der()).map_err(anyhow::Error::msg)?;
                ServerCredentials::new(vec![made.cert.der().clone()], key)
            }
        };
        credentials.cipher_suites = self.endpoint.cipher_suites();
        credentials.key_exchange_groups = self.endpoint.key_exchange_groups();
        if let Some(file) = &self.client_ca {
            credentials.client_authentication = ClientAuthentication::Roots {
                roots: certificates::read(file)?,
                crls: Vec::new(),
                required: true,
            };
        }
        // To the file that SSLKEYLOGFILE names, if it names one.
        credentials.key_log = Arc::new(KeyLogFile::new());
        Ok(credentials)
    }
}

pub(crate) fn run(args: &ServerArgs) -> Result<()> {
    // Before any thread starts, so that all of them leave the signals to this one.
    let signals = Signals::catch()?;
    let mut tasks = None;
    let (registration, mut threads) = match args.endpoint.api {
        Api::Callback => args.endpoint.open()?,
        Api::Async | Api::AsyncThreads => {
            let opened = tasks.insert(Opened::new(&args.endpoint)?);
            (opened.registration.clone(), Vec::new())
        }
    };
    let capture = args.endpoint.capture(&registration)?;
    let control = args.endpoint.control(&registration)?;
    let settings = Settings {
        server_resumption_level: args.resumption.level(),
        ..args.endpoint.settings()
    };
    let configuration = Configuration::server(&[ALPN], settings, args.credentials()?)?;
    let gives_tickets = args.resumption != Resumption::None;
    // Until the process ends: handlers need not count how many of them look at it.
    let shared: &'static Shared = Box::leak(Box::new(Shared::new(
        &args.endpoint,
        registration.partition_count(),
    )));
    let options = ListenerOptions::new(args.bind, &[ALPN]).with_retry(args.retry_policy());
    let listening = match tasks {
        None => {
            let handler = callbacks(configuration, shared, gives_tickets);
            Listening::Callbacks(Listener::start(&registration, options, handler)?)
        }
        Some(mut opened) => {
            let endpoint = Endpoint::new(&registration);
            let listeners = match opened.thread_count() {
                1 => vec![endpoint.listen(options, configuration)?],
                _ => endpoint.listen_on_each(options, configuration)?,
            };
            let listeners: Vec<_> = listeners.into_iter().map(Arc::new).collect();
            threads = opened.start(|index| serve(Arc::clone(&listeners[index]), shared, gives_tickets))?;
            Listening::Tasks(listeners)
        }
    };
    args.endpoint.drop_capabilities()?;
    let stopwatch = Stopwatch::start();
    output::print_line(&format!("LISTENING {}", listening.local_address()))?;
    let report = || ServerReport::new(&registration, shared, stopwatch.read());
    let end = args.duration.map(|duration| Instant::now() + duration);
    let mut next_report = args.report_every.map(|every| Instant::now() + every);
    while signals.received().is_none() && end.is_none_or(|end| Instant::now() < end) {
        std::thread::sleep(Duration::from_millis(20));
        if let (Some(at), Some(every)) = (next_report, args.report_every)
            && Instant::now() >= at
        {
            output::print_report(args.endpoint.json, &report())?;
            next_report = Some(at + every);
        }
    }
    listening.stop();
    let mut report = report();
    registration.clone().close();
    for thread in threads {
        ensure!(thread.join().is_ok(), "a thread has ended with a panic");
    }
    report.counters.complete(&registration);
    // Who reads the report finds no socket any more, and captures are written.
    drop(control);
    output::print_report(args.endpoint.json, &report)?;
    capture::finish(capture)?;
    ensure!(
        report.verification_failures == 0,
        "{} requests had wrong content",
        report.verification_failures
    );
    Ok(())
}

/// What listens.
enum Listening {
    Callbacks(Listener),
    Tasks(Vec<Arc<ringway_async::Listener>>),
}

impl Listening {
    fn local_address(&self) -> SocketAddr {
        match self {
            Listening::Callbacks(listener) => listener.local_address(),
            Listening::Tasks(listeners) => listeners[0].local_addr(),
        }
    }

    fn stop(&self) {
        match self {
            Listening::Callbacks(listener) => listener.stop(),
            Listening::Tasks(listeners) => listeners.iter().for_each(|listener| listener.stop()),
        }
    }
}

/// The server as handlers.
fn callbacks(
    configuration: Arc<Configuration>,
    shared: &'static Shared,
    gives_tickets: bool,
) -> impl Fn(ListenerEvent) + Send + Sync + 'static {
    move |event| {
        let ListenerEvent::NewConnection(incoming) = event else {
            return;
        };
        incoming.accept(
            &configuration,
            move |connection: &ringway::Connection, event: ConnectionEvent<'_>| {
                match event {
                    ConnectionEvent::PeerStreamStarted(stream) => {
                        stream.accept(responder(shared));
                    }
                    ConnectionEvent::ShutdownComplete { stats, .. } => {
                        shared.on_ended(connection.partition(), stats);
                    }
                    ConnectionEvent::IdealProcessorChanged { partition } => shared.on_moved(partition),
                    ConnectionEvent::Connected { .. } if gives_tickets => {
                        // A client that gets none says so.
                        let _ = connection.send_resumption_ticket(b"");
                    }
                    _ => {}
                }
                EventStatus::Done
            },
        );
    }
}
