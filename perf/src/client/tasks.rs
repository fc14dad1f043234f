//! The scenarios as tasks: one for each connection, and one for each of its streams.

use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use hdrhistogram::Histogram;
use ringway::{Bytes, ConnectTarget};
use ringway_async::{Connection, Endpoint, RecvStream, VarInt};
use ringway_perf_protocol::{ENDLESS, Scenario};

use super::run::Run;

/// What the tasks of one thread share.
pub(super) struct Tasks {
    run: Arc<Run>,
    endpoint: Endpoint,
    target: ConnectTarget,
    scenario: Scenario,
    request: Bytes,
    /// Connections that this thread begins with.
    connections: usize,
}

impl Tasks {
    /// Of the thread with this number.
    pub(super) fn new(
        run: &Arc<Run>,
        scenario: Scenario,
        connections: usize,
        partition: Option<usize>,
    ) -> Self {
        Tasks {
            run: Arc::clone(run),
            endpoint: Endpoint::new(&run.registration),
            target: run.target.clone().with_partition(partition),
            scenario,
            request: ringway_perf_protocol::request(run.response_len, run.request_len, &run.pattern),
            connections,
        }
    }

    /// Does what the scenario says, until the run is over.
    pub(super) async fn run(self) {
        let tasks = Arc::new(self);
        let mut connections = tokio::task::JoinSet::new();
        for _ in 0..tasks.connections {
            connections.spawn(Arc::clone(&tasks).connections());
        }
        while connections.join_next().await.is_some() {}
    }

    /// As [`Tasks::connections`], which begins it.
    fn another(self: Arc<Self>) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(self.connections())
    }

    /// One connection, or one after the other.
    async fn connections(self: Arc<Self>) {
        loop {
            let result = self.connection().await;
            let run = &self.run;
            if let Err(error) = result
                && !run.is_stopped()
            {
                run.fail(format!("{error:#}"));
            }
            if self.scenario != Scenario::Hps || run.is_stopped() {
                run.active.fetch_sub(1, Ordering::Release);
                return;
            }
        }
    }

    async fn connection(self: &Arc<Self>) -> Result<()> {
        let run = &self.run;
        let connecting = self.endpoint.connect_with(&run.configuration, &self.target);
        let connection = connecting.context("opening a connection")?.await;
        let connection = connection.with_context(|| format!("connection to {}", self.target.remote))?;
        run.connected.fetch_add(1, Ordering::Relaxed);
        let done = self.use_connection(&connection).await;
        connection.close(VarInt::from_u32(0), b"");
        if let Ok(stats) = connection.stats().await {
            run.outcome().connections.add(&stats);
        }
        done
    }

    async fn use_connection(self: &Arc<Self>, connection: &Connection) -> Result<()> {
        let run = &self.run;
        match self.scenario {
            Scenario::Hps => {
                run.operations.fetch_add(1, Ordering::Relaxed);
                return Ok(());
            }
            Scenario::Idle => {
                // Each that comes up is followed by one, as long as there are more than began at once.
                let up_before = run.operations.fetch_add(1, Ordering::Relaxed);
                if up_before < run.deferred && !run.is_stopped() {
                    run.active.fetch_add(1, Ordering::Relaxed);
                    tokio::spawn(Arc::clone(self).another());
                }
                connection.closed().await;
                return Ok(());
            }
            _ => {}
        }
        run.opened.get_or_init(Instant::now);
        let latencies = Arc::new(Mutex::new(Histogram::new(3).context("making a histogram")?));
        let left = Arc::new(AtomicUsize::new(run.streams));
        let mut streams = tokio::task::JoinSet::new();
        for _ in 0..run.streams {
            let (tasks, connection) = (Arc::clone(self), connection.clone());
            let (latencies, left) = (Arc::clone(&latencies), Arc::clone(&left));
            streams.spawn(async move {
                let done = match tasks.scenario {
                    Scenario::Upload => tasks.upload(&connection).await,
                    Scenario::Download => tasks.download(&connection).await,
                    _ => tasks.requests(&connection, &latencies).await,
                };
                if left.fetch_sub(1, Ordering::AcqRel) == 1 && !tasks.run.is_stopped() {
                    tasks.run.outcome().completed = Some(Instant::now());
                }
                done
            });
        }
        let mut result = Ok(());
        while let Some(done) = streams.join_next().await {
            let done = done.context("a task has panicked").flatten();
            // What fails ends them all.
            if done.is_err() && result.is_ok() {
                connection.close(VarInt::from_u32(0), b"");
                result = done;
            }
        }
        if self.scenario.is_requests() {
            let latencies = latencies.lock().unwrap_or_else(PoisonError::into_inner);
            let mut outcome = run.outcome();
            match &mut outcome.latencies {
                Some(sum) => drop(sum.add(&*latencies)),
                none => *none = Some(latencies.clone()),
            }
        }
        result
    }

    async fn requests(&self, connection: &Connection, latencies: &Mutex<Histogram<u64>>) -> Result<()> {
        let run = &self.run;
        let mut start = Instant::now();
        while !run.is_stopped() {
            let (mut send, mut receive) = connection.open_bi().await.context("opening a stream")?;
            send.finish_with(self.request.clone()).await.context("sending")?;
            let received = self.receive(&mut receive, |_| ()).await?;
            ensure!(
                received == run.response_len,
                "a response of {received} bytes, not {}",
                run.response_len
            );
            // With the end of one the next begins.
            let end = Instant::now();
            let nanos = end.duration_since(start).as_nanos() as u64;
            start = end;
            // Beyond the range of the histogram are hours.
            let _ = latencies
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .record(nanos);
            run.operations.fetch_add(1, Ordering::Relaxed);
            run.bytes.fetch_add(received, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Reads a response to its end, and gives its length.
    async fn receive(&self, receive: &mut RecvStream, progress: impl Fn(u64)) -> Result<u64> {
        let mut received = 0;
        while let Some(chunk) = receive.read_chunk(usize::MAX).await.context("receiving")? {
            self.run.check_piece(received, &chunk);
            received += chunk.len() as u64;
            progress(chunk.len() as u64);
        }
        Ok(received)
    }

    async fn download(&self, connection: &Connection) -> Result<()> {
        let run = &self.run;
        let wanted = run.bytes_per_stream.unwrap_or(ENDLESS);
        let (mut send, mut receive) = connection.open_bi().await.context("opening a stream")?;
        send.finish_with(Bytes::copy_from_slice(&wanted.to_be_bytes()))
            .await?;
        let progress = |bytes| {
            run.bytes.fetch_add(bytes, Ordering::Relaxed);
        };
        let received = self.receive(&mut receive, progress).await?;
        ensure!(received == wanted, "{received} bytes arrived, not {wanted}");
        Ok(())
    }

    async fn upload(&self, connection: &Connection) -> Result<()> {
        let run = &self.run;
        let (mut send, _receive) = connection.open_bi().await.context("opening a stream")?;
        let header = Bytes::from_static(&[0; 8]);
        let header_len = header.len() as u64;
        send.write_chunk(header).await?;
        let end = run.bytes_per_stream.unwrap_or(u64::MAX);
        let (mut sent, mut counted) = (0, 0);
        // What waits to be sent, or is on the way, has not been moved.
        let mut count = |moved: u64| {
            run.bytes.fetch_add(moved - counted, Ordering::Relaxed);
            counted = moved;
        };
        while sent < end {
            let piece = run.pattern.piece(sent, run.io_size.min(end - sent));
            let len = piece.len() as u64;
            send.write_chunk(piece).await.context("sending")?;
            sent += len;
            count(send.acknowledged().saturating_sub(header_len));
        }
        send.finish()?;
        let stopped = send.stopped().await.context("sending")?;
        ensure!(stopped.is_none(), "the server has stopped an upload");
        count(sent);
        Ok(())
    }
}
