//! A client of HTTP/3 that measures a server: so many requests at a time on each of so many connections, each followed by the next.

use std::cell::RefCell;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use bytes::{Buf, Bytes};
use hdrhistogram::Histogram;
use http::{Request, StatusCode};
use ringway_async::Endpoint;
use ringway_async::ringway::{ClientCredentials, Configuration, KeyExchangeGroup};
use ringway_h3::{ALPN, Connection, OpenStreams, h3};
use ringway_perf_protocol::{ClientFigures, Latency, RunTimes};
use rustix::time::{ClockId, clock_gettime};
use tokio::task::{JoinSet, LocalSet};

#[derive(clap::Args)]
pub(crate) struct LoadArgs {
    /// Server to connect to
    #[arg(long)]
    target: SocketAddr,
    /// Name that the server's certificate must have
    #[arg(long, default_value = "localhost")]
    server_name: String,
    /// Certificates to trust (PEM)
    #[arg(long)]
    ca: PathBuf,
    /// Connections at a time
    #[arg(long, default_value_t = 1)]
    connections: usize,
    /// Requests at a time on each connection
    #[arg(long, default_value_t = 100)]
    streams: usize,
    /// How long to run; connecting is not counted
    #[arg(long, value_parser = humantime::parse_duration, default_value = "2s")]
    time: Duration,
    /// What to ask for
    path: String,
    /// Bytes that it has
    len: u64,
}

type SendRequest = h3::client::SendRequest<OpenStreams, Bytes>;

pub(crate) async fn run(args: LoadArgs) -> Result<()> {
    let mut roots = ClientCredentials::roots_from_pem(&std::fs::read(&args.ca)?)?;
    // All servers have it.
    roots.key_exchange_groups = vec![KeyExchangeGroup::X25519];
    let configuration = Configuration::client(&[ALPN], ringway_h3::settings(), roots)?;
    let (registration, execution) = crate::open()?;
    let mut endpoint = Endpoint::new(&registration);
    endpoint.set_default_client_config(configuration);
    let measured = async {
        tokio::select! {
            figures = measure(&args, &endpoint) => figures,
            result = ringway_async::drive(execution) => {
                result.context("driving connections")?;
                bail!("the connections have ended")
            }
        }
    };
    let figures = LocalSet::new().run_until(measured).await?;
    println!("{}", serde_json::to_string(&figures)?);
    Ok(())
}

async fn measure(args: &LoadArgs, endpoint: &Endpoint) -> Result<ClientFigures> {
    let uri = format!("https://{}{}", args.server_name, args.path);
    let request = Request::get(uri).body(())?;
    let mut clients = Vec::new();
    for _ in 0..args.connections {
        clients.push(connect(args, endpoint).await.context("connecting")?);
    }
    let latencies = Rc::new(RefCell::new(Histogram::new(3)?));
    let (start, cpu) = (Instant::now(), processor_time());
    let mut workers = JoinSet::new();
    for client in &clients {
        for _ in 0..args.streams {
            let worker = Worker {
                client: client.clone(),
                request: request.clone(),
                len: args.len,
                latencies: Rc::clone(&latencies),
            };
            workers.spawn_local(worker.run(start + args.time));
        }
    }
    while let Some(result) = workers.join_next().await {
        result.context("a task has panicked")??;
    }
    let times = RunTimes {
        wall: start.elapsed(),
        flow: start.elapsed(),
        cpu: processor_time() - cpu,
    };
    let latencies = latencies.borrow();
    let count = latencies.len();
    Ok(ClientFigures::new(
        count * args.len,
        count,
        times,
        Some(Latency::of(&latencies)),
    ))
}

async fn connect(args: &LoadArgs, endpoint: &Endpoint) -> Result<SendRequest> {
    let connection = endpoint.connect(args.target, &args.server_name)?.await?;
    let (mut driver, client) = h3::client::new(Connection::new(connection)).await?;
    // If it ends before the requests do, they say so.
    tokio::task::spawn_local(async move { poll_fn(|cx| driver.poll_close(cx)).await });
    Ok(client)
}

/// Makes one request after another.
struct Worker {
    client: SendRequest,
    request: Request<()>,
    len: u64,
    latencies: Rc<RefCell<Histogram<u64>>>,
}

impl Worker {
    /// Until the time is over.
    async fn run(mut self, end: Instant) -> Result<()> {
        loop {
            let start = Instant::now();
            if start >= end {
                return Ok(());
            }
            self.ask().await?;
            // Beyond the range of the histogram are hours.
            let _ = self
                .latencies
                .borrow_mut()
                .record(start.elapsed().as_nanos() as u64);
        }
    }

    async fn ask(&mut self) -> Result<()> {
        let mut stream = self.client.send_request(self.request.clone()).await?;
        stream.finish().await?;
        let response = stream.recv_response().await?;
        if response.status() != StatusCode::OK {
            bail!("the server answered {}", response.status());
        }
        let mut len = 0;
        while let Some(data) = stream.recv_data().await? {
            len += data.remaining() as u64;
        }
        ensure!(len == self.len, "a response of {len} bytes, not {}", self.len);
        Ok(())
    }
}

fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
