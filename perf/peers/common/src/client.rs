//! The scenarios of the client, for stacks with futures.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::stream::{Connection, Endpoint, Stream};
use crate::{ClientArgs, Meter, Pattern, Scenario};

/// How long servers may take to hear that connections are closed.
const CLOSING: Duration = Duration::from_secs(1);

/// Runs a server or a client on this thread.
pub fn block_on(future: impl Future<Output = Result<()>>) -> Result<()> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(future)
}

/// What the tasks of a run share.
struct Run<E> {
    args: ClientArgs,
    endpoint: E,
    meter: Meter,
    pattern: Pattern,
    request: bytes::Bytes,
    /// Connections that may be set up at the same time.
    setups: Semaphore,
}

/// Runs the scenario, prints its figures, and closes. What a stack says of a failure is the error; of a server that merely falls silent,
/// the meter.
pub async fn run<E: Endpoint>(args: ClientArgs, endpoint: E) -> Result<()> {
    let pattern = Pattern::default();
    let run = Arc::new(Run {
        meter: Meter::start(&args),
        request: args.request(&pattern),
        setups: Semaphore::new(args.initial_connections()),
        pattern,
        args,
        endpoint,
    });
    let mut tasks = JoinSet::new();
    for _ in 0..run.args.connection_count() {
        tasks.spawn(Arc::clone(&run).connection());
    }
    // Held until the figures are taken: what closing costs is not part of them, except where it is what is measured.
    let mut connections = Vec::new();
    let mut look = tokio::time::interval(Duration::from_millis(100));
    loop {
        tokio::select! {
            ended = tasks.join_next() => match ended {
                Some(connection) => connections.extend(connection.context("a task has panicked")??),
                None => break,
            },
            _ = look.tick() => run.meter.ensure_progress()?,
        }
    }
    run.meter.report()?;
    connections.into_iter().for_each(Connection::close);
    // Servers that do not hear it find out by themselves.
    let _ = timeout(CLOSING, run.endpoint.clone().settle()).await;
    Ok(())
}

impl<E: Endpoint> Run<E> {
    /// Connects, and does there what the scenario says. Gives back the connection if it is still there.
    async fn connection(self: Arc<Self>) -> Result<Option<E::Connection>> {
        match self.args.scenario {
            Scenario::Hps => self.handshakes().await.map(|()| None),
            Scenario::LatencyZeroRtt => self.early_requests().await.map(|()| None),
            Scenario::Idle => self.hold().await.map(Some),
            _ => {
                let connection = self.endpoint.connect().await?;
                self.meter.opened();
                let mut streams = JoinSet::new();
                for _ in 0..self.args.stream_count() {
                    streams.spawn(Arc::clone(&self).stream(connection.clone()));
                }
                while let Some(stream) = streams.join_next().await {
                    stream.context("a task has panicked")??;
                }
                Ok(Some(connection))
            }
        }
    }

    async fn stream(self: Arc<Self>, connection: E::Connection) -> Result<()> {
        if self.args.is_requests() {
            self.requests(&connection).await
        } else {
            self.transfer(&connection).await
        }
    }

    /// Sends or receives on one stream, so many bytes or until the time is over.
    async fn transfer(&self, connection: &E::Connection) -> Result<()> {
        let mut stream = connection.open().await?;
        stream
            .send(self.args.response_len().to_be_bytes().to_vec().into())
            .await?;
        let half = self.args.bytes.map_or(0, |bytes| bytes.as_u64() / 2);
        let mut update_keys = self.args.key_update;
        let (mut sent, len) = (0, self.args.upload_len());
        while sent < len {
            if self.meter.is_over() {
                return Ok(());
            }
            let piece = self.pattern.piece(sent, len - sent);
            let count = piece.len() as u64;
            stream.send(piece).await?;
            sent += count;
            self.meter.moved(count);
            if update_keys && sent > half {
                update_keys = false;
                connection.update_keys(&mut stream)?;
            }
        }
        stream.finish().await?;
        let mut received = 0;
        while self.receive(&mut stream, &mut received).await? {
            if update_keys && received > half {
                update_keys = false;
                connection.update_keys(&mut stream)?;
            }
            if self.meter.is_over() {
                return Ok(());
            }
        }
        ensure!(
            received == self.args.response_len(),
            "a response of {received} bytes, not {}",
            self.args.response_len()
        );
        Ok(())
    }

    /// One request after the other until the time is over.
    async fn requests(&self, connection: &E::Connection) -> Result<()> {
        while !self.meter.is_over() {
            let start = Instant::now();
            let received = self.ask(connection).await?;
            self.meter.answered(start, received)?;
        }
        Ok(())
    }

    /// Makes one request; how many bytes the answer has.
    async fn ask(&self, connection: &E::Connection) -> Result<u64> {
        let mut stream = connection.open().await?;
        stream.send(self.request.clone()).await?;
        stream.finish().await?;
        let mut received = 0;
        while self.receive(&mut stream, &mut received).await? {}
        Ok(received)
    }

    /// One connection after the other, each with a request in its first flight and a ticket of the one before. The time of the first, which has
    /// none, does not count.
    async fn early_requests(&self) -> Result<()> {
        let mut has_ticket = false;
        while !self.meter.is_over() {
            let start = Instant::now();
            self.meter.opened();
            let connection = self.endpoint.connect_early().await?;
            let received = match self.ask(&connection).await {
                Err(error) if E::is_rejection(&error) => self.ask(&connection).await?,
                received => received?,
            };
            if has_ticket {
                self.meter.answered(start, received)?;
            }
            self.endpoint.ticket().await;
            has_ticket = true;
            connection.close();
        }
        Ok(())
    }

    /// Takes what has arrived of a response; `false`: that was all.
    async fn receive(&self, stream: &mut impl Stream, received: &mut u64) -> Result<bool> {
        let start = *received;
        let mut right = true;
        let more = stream
            .receive(|piece| {
                right &= !self.args.verify || self.pattern.matches(*received, piece);
                *received += piece.len() as u64;
            })
            .await?;
        ensure!(right, "wrong content behind offset {start}");
        if self.args.scenario == Scenario::Download {
            self.meter.moved(*received - start);
        }
        Ok(more)
    }

    /// Connects and closes, again and again.
    async fn handshakes(&self) -> Result<()> {
        while !self.meter.is_over() {
            let connection = self.endpoint.connect().await?;
            self.meter.connected();
            if self.args.resume {
                self.endpoint.ticket().await;
                self.endpoint.ensure_resumed()?;
            }
            connection.close();
        }
        Ok(())
    }

    /// Connects, and leaves it at that until the time is over.
    async fn hold(&self) -> Result<E::Connection> {
        let left = || self.meter.remaining().unwrap_or(self.args.time);
        let connect = async {
            let _permit = self.setups.acquire().await;
            self.endpoint.connect().await
        };
        let connection = timeout(left(), connect)
            .await
            .context("there is no time for so many connections: give more --time")??;
        self.meter.connected();
        tokio::select! {
            () = sleep(left()) => Ok(connection),
            error = connection.ended() => bail!(error.context("a connection that was to be held has ended")),
        }
    }
}
