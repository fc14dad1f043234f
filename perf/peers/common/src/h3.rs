//! HTTP/3 for the stacks that the crate h3 runs on.

use std::future::poll_fn;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use bytes::{Buf, Bytes};
use h3::client::SendRequest;
use h3::quic;
use h3::server::RequestResolver;
use http::header::CONTENT_LENGTH;
use http::{Request, Response, StatusCode};
use tokio::task::JoinSet;

use crate::{Files, Http3ClientArgs};

/// Answers the requests of a connection, each in a task of its own, until it ends.
pub async fn serve<C, O, S>(connection: C, files: Arc<Files>)
where
    C: quic::Connection<Bytes, OpenStreams = O> + quic::OpenStreams<Bytes, BidiStream = S> + Send + 'static,
    C::RecvStream: Send,
    O: quic::OpenStreams<Bytes, BidiStream = S> + Send,
    S: quic::BidiStream<Bytes> + Send + 'static,
{
    let Ok(mut server) = h3::server::Connection::new(connection).await else {
        return;
    };
    while let Ok(Some(resolver)) = server.accept().await {
        let files = Arc::clone(&files);
        // What fails ends the stream, which its client sees.
        tokio::spawn(async move { answer(resolver, &files).await });
    }
}

async fn answer<C: quic::Connection<Bytes>>(
    resolver: RequestResolver<C, Bytes>,
    files: &Files,
) -> Result<()> {
    let (request, mut stream) = resolver.resolve_request().await?;
    while stream.recv_data().await?.is_some() {}
    let (status, content) = match files.get(request.uri().path()) {
        Some(content) => (StatusCode::OK, content.clone()),
        None => (StatusCode::NOT_FOUND, Bytes::new()),
    };
    let response = Response::builder()
        .status(status)
        .header(CONTENT_LENGTH, content.len());
    stream.send_response(response.body(())?).await?;
    if !content.is_empty() {
        stream.send_data(content).await?;
    }
    Ok(stream.finish().await?)
}

/// Gets the files that the command line names.
pub async fn get<C, O>(connection: C, args: &Http3ClientArgs) -> Result<()>
where
    C: quic::Connection<Bytes, OpenStreams = O>,
    O: quic::OpenStreams<Bytes> + Clone + Send + 'static,
    O::BidiStream: Send,
{
    let (mut driver, send_request) = h3::client::new(connection).await?;
    let mut requests = JoinSet::new();
    for name in &args.names {
        let uri = format!("https://{}/{name}", args.server_name);
        requests.spawn(get_one(send_request.clone(), uri, args.output.join(name)));
    }
    let all = async {
        while let Some(request) = requests.join_next().await {
            request.context("a task has panicked")??;
        }
        Ok(())
    };
    tokio::select! {
        // A connection that ends with its last answer has answered.
        biased;
        result = all => result,
        error = poll_fn(|cx| driver.poll_close(cx)) => bail!("the connection has ended: {error}"),
    }
}

async fn get_one<O: quic::OpenStreams<Bytes>>(
    mut send_request: SendRequest<O, Bytes>,
    uri: String,
    to: impl AsRef<Path>,
) -> Result<()> {
    let mut stream = send_request.send_request(Request::get(&uri).body(())?).await?;
    stream.finish().await?;
    let response = stream.recv_response().await?;
    ensure!(
        response.status() == StatusCode::OK,
        "{uri}: {}",
        response.status()
    );
    let mut content = Vec::new();
    while let Some(mut data) = stream.recv_data().await? {
        while data.has_remaining() {
            content.extend_from_slice(data.chunk());
            data.advance(data.chunk().len());
        }
    }
    std::fs::write(to.as_ref(), content).with_context(|| format!("writing {}", to.as_ref().display()))
}
