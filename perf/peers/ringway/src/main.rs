//! Ringway's server of HTTP/3 with what the others on the crate h3 answer with, and the client that asks all of them, for scripts/compare-http3.sh.
//! Each is one thread, as theirs are.

mod load;

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result};
use clap::Parser;
use ringway_async::ringway::{
    Configuration, ContextConfig, Execution, ExecutionConfig, ListenerOptions, Registration,
    ServerCredentials, Settings,
};
use ringway_async::{Endpoint, Listener};
use ringway_h3::{ALPN, Connection};
use ringway_peers::{Files, Http3ServerArgs, STREAMS, block_on, listening, serve};

#[derive(Parser)]
enum Command {
    /// Serve the files of a folder by HTTP/3 until killed; prints `LISTENING address` when ready
    Http3Server(Http3ServerArgs),
    /// Ask for a file again and again; prints one line of JSON
    Load(load::LoadArgs),
}

fn main() -> ExitCode {
    let result = match Command::parse() {
        Command::Http3Server(args) => block_on(server(args)),
        Command::Load(args) => block_on(load::run(args)),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// What this thread drives, beside its tasks.
fn open() -> Result<(Registration, Execution)> {
    let config = ExecutionConfig::load(None)?;
    let context = ContextConfig::for_each_thread(&config)?.swap_remove(0);
    let (registration, mut contexts) = Execution::create(&config, vec![context])?;
    Ok((registration, contexts.swap_remove(0)))
}

async fn server(args: Http3ServerArgs) -> Result<()> {
    let files = Arc::new(Files::read(&args.root)?);
    let credentials = ServerCredentials::from_pem(&std::fs::read(&args.cert)?, &std::fs::read(&args.key)?)?;
    let settings = Settings {
        peer_bidi_stream_count: STREAMS.into(),
        ..ringway_h3::settings()
    };
    let configuration = Configuration::server(&[ALPN], settings, credentials)?;
    let (registration, execution) = open()?;
    let options = ListenerOptions::new(args.bind, &[ALPN]);
    let listener = Endpoint::new(&registration).listen(options, configuration)?;
    listening(listener.local_addr());
    tokio::spawn(accept(listener, files));
    let driven = tokio::spawn(ringway_async::drive(execution)).await;
    driven?.context("driving connections")
}

async fn accept(listener: Listener, files: Arc<Files>) {
    while let Some(incoming) = listener.accept().await {
        let files = Arc::clone(&files);
        tokio::spawn(async move {
            if let Ok(connection) = incoming.await {
                serve(Connection::new(connection), files).await;
            }
        });
    }
}
