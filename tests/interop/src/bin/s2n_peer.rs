//! s2n-quic as a peer.

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use ringway_interop::{ALPN, Args, CANNOT, ClientArgs, Command, Pattern, Request, Scenario, WINDOW, report};
use s2n_quic::client::Connect;
use s2n_quic::provider::endpoint_limits::{ConnectionAttempt, Limiter, Outcome};
use s2n_quic::provider::limits::Limits;
use s2n_quic::provider::tls::rustls;
use s2n_quic::stream::BidirectionalStream;
use s2n_quic::{Client, Server};

/// Answers every client that has not proven its address with a Retry.
struct AlwaysRetry(bool);

impl Limiter for AlwaysRetry {
    fn on_connection_attempt(&mut self, _: &ConnectionAttempt<'_>) -> Outcome {
        if self.0 {
            Outcome::retry()
        } else {
            Outcome::allow()
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    match Args::parse().command {
        Command::Server {
            listen,
            cert,
            key,
            retry,
        } => {
            let tls = rustls::Server::builder()
                .with_certificate(cert.as_path(), key.as_path())
                .map_err(|error| anyhow::anyhow!("certificate: {error}"))?
                .with_application_protocols([ALPN].iter())
                .map_err(|error| anyhow::anyhow!("ALPN: {error}"))?
                .build()
                .map_err(|error| anyhow::anyhow!("TLS: {error}"))?;
            let mut server = Server::builder()
                .with_tls(tls)?
                .with_io(listen)?
                .with_limits(limits()?)?
                .with_endpoint_limits(AlwaysRetry(retry))?
                .start()
                .map_err(|error| anyhow::anyhow!("starting: {error}"))?;
            println!("LISTENING {}", server.local_addr()?);
            while let Some(mut connection) = server.accept().await {
                tokio::spawn(async move {
                    while let Ok(Some(stream)) = connection.accept_bidirectional_stream().await {
                        tokio::spawn(answer(stream));
                    }
                });
            }
            Ok(())
        }
        Command::Client(args) => client(args).await,
    }
}

fn limits() -> Result<Limits> {
    let window = u64::from(WINDOW);
    Ok(Limits::new()
        .with_max_keep_alive_period(std::time::Duration::from_millis(300))?
        .with_data_window(window)?
        .with_bidirectional_local_data_window(window)?
        .with_bidirectional_remote_data_window(window)?)
}

async fn answer(mut stream: BidirectionalStream) -> Result<()> {
    let pattern = Pattern::default();
    let mut request = Request::default();
    while let Some(chunk) = stream.receive().await? {
        request.take(&chunk, &pattern);
    }
    let Some(len) = request.response_len() else {
        stream.reset(1u8.into())?;
        return Ok(());
    };
    let mut sent = 0;
    while sent < len {
        let piece = pattern.piece(sent, len - sent);
        sent += piece.len() as u64;
        stream.send(piece).await?;
    }
    stream.close().await?;
    Ok(())
}

async fn client(args: ClientArgs) -> Result<()> {
    if args.key_update {
        // No call of its API starts a key update.
        std::process::exit(CANNOT);
    }
    let tls = rustls::Client::builder()
        .with_certificate(args.ca.as_path())
        .map_err(|error| anyhow::anyhow!("certificate: {error}"))?
        .with_application_protocols([ALPN].iter())
        .map_err(|error| anyhow::anyhow!("ALPN: {error}"))?
        .build()
        .map_err(|error| anyhow::anyhow!("TLS: {error}"))?;
    let client = Client::builder()
        .with_tls(tls)?
        .with_io("0.0.0.0:0")?
        .with_limits(limits()?)?
        .start()
        .map_err(|error| anyhow::anyhow!("starting: {error}"))?;
    let connect = Connect::new(args.connect).with_server_name(&args.server_name[..]);
    let mut connection = client.connect(connect).await.context("connecting")?;
    connection.keep_alive(true)?;
    let start = Instant::now();
    let end = args.end();
    let is_over = || end.is_some_and(|end| Instant::now() >= end);
    let pattern = Pattern::default();
    let mut stream = connection.open_bidirectional_stream().await?;
    stream
        .send(args.response_len().to_be_bytes().to_vec().into())
        .await?;
    let len = args.upload_len();
    let mut moved = 0;
    while moved < len && !is_over() {
        let piece = pattern.piece(moved, len - moved);
        moved += piece.len() as u64;
        stream.send(piece).await?;
    }
    stream.finish()?;
    let mut offset = 0;
    while let Some(chunk) = stream.receive().await? {
        ensure!(
            args.seconds.is_some() || pattern.matches(offset, &chunk),
            "wrong content"
        );
        offset += chunk.len() as u64;
        if args.scenario == Scenario::Download {
            moved += chunk.len() as u64;
            if is_over() {
                break;
            }
        }
    }
    ensure!(
        args.seconds.is_some() || moved == args.bytes,
        "{moved} bytes were transferred, not {}",
        args.bytes
    );
    report(moved, start);
    connection.close(0u8.into());
    Ok(())
}
