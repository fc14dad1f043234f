//! A WebTransport server: what comes on a stream or in a datagram goes back. `webtransport_echo ADDRESS CHAIN.pem KEY.pem`.
//!
//! What comes on a unidirectional stream goes back on another one. Requests that are none of WebTransport are answered with 404.
#![allow(clippy::print_stderr, reason = "it is the example's log")]

use std::borrow::Cow;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use bytes::Bytes;
use h3::ConnectionState;
use h3::quic::BidiStream as _;
use h3_webtransport::server::{AcceptedBi, WebTransportSession};
use http::{Request, StatusCode};
use ringway_async::Endpoint;
use ringway_async::ringway::{ServerCredentials, Settings};
use ringway_h3::Connection;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

#[path = "common/mod.rs"]
mod common;
use common::{Body, Done, Server, status};

#[tokio::main]
async fn main() -> Done {
    let arguments: Vec<_> = std::env::args().collect();
    let [_, address, chain, key] = &arguments[..] else {
        return Err("usage: webtransport_echo ADDRESS CHAIN.pem KEY.pem".into());
    };
    let credentials = ServerCredentials::from_pem(&std::fs::read(chain)?, &std::fs::read(key)?)?;
    let (_, serving) = serve(
        &common::endpoint("server")?,
        address.parse()?,
        credentials,
        ringway_h3::settings(),
    )?;
    serving.await;
    Ok(())
}

/// Listens; gives the address and what serves.
pub(crate) fn serve(
    endpoint: &Endpoint,
    address: SocketAddr,
    credentials: ServerCredentials,
    settings: Settings,
) -> Done<(SocketAddr, impl Future<Output = ()> + use<>)> {
    let listener = common::listen(endpoint, address, credentials, settings)?;
    let address = listener.local_addr();
    let serving = async move {
        while let Some(incoming) = listener.accept().await {
            tokio::spawn(async move {
                if let Err(error) = serve_connection(incoming.await?).await {
                    eprintln!("connection: {error}");
                }
                Done::Ok(())
            });
        }
    };
    Ok((address, serving))
}

async fn serve_connection(connection: ringway_async::Connection) -> Done {
    let mut server: Server = h3::server::builder()
        .enable_webtransport(true)
        .enable_extended_connect(true)
        .enable_datagram(true)
        .max_webtransport_sessions(1)
        .build(Connection::new(connection))
        .await?;
    while let Some(resolver) = server.accept().await? {
        let (request, stream) = resolver.resolve_request().await?;
        if common::is_webtransport(&request) {
            settings_of_client(&mut server, &stream).await?;
            // It takes the connection: there is one session on each.
            let session = WebTransportSession::accept(request, stream, server).await?;
            return echo(Arc::new(session)).await;
        }
        tokio::spawn(common::respond(request, stream, not_found));
    }
    Ok(())
}

/// Waits for the client's settings, without which a session is refused: they are on another stream than its request, and may come behind it.
async fn settings_of_client(server: &mut Server, stream: &impl ConnectionState) -> Done {
    while matches!(stream.settings(), Cow::Owned(_)) {
        // Who accepts reads them, too.
        let mut accept = pin!(server.accept());
        let accepted = poll_fn(|cx| match accept.as_mut().poll(cx) {
            Poll::Pending if matches!(stream.settings(), Cow::Owned(_)) => Poll::Pending,
            Poll::Pending => Poll::Ready(None),
            Poll::Ready(accepted) => Poll::Ready(Some(accepted)),
        });
        let Some(accepted) = accepted.await else { break };
        let resolver = accepted?.ok_or("the client goes away")?;
        let (request, stream) = resolver.resolve_request().await?;
        tokio::spawn(common::respond(request, stream, not_found));
    }
    Ok(())
}

async fn not_found(_: Request<Body>) -> http::Response<Body> {
    status(StatusCode::NOT_FOUND)
}

type Session = Arc<WebTransportSession<Connection, Bytes>>;

/// Until the connection ends.
async fn echo(session: Session) -> Done {
    // One task for all that is accepted: it waits in one place of the session's, where only the last task that asked is woken.
    let datagrams = async {
        let (mut receive, mut send) = (session.datagram_reader(), session.datagram_sender());
        loop {
            let datagram = receive.read_datagram().await?;
            send.send_datagram(datagram.into_payload())?;
        }
    };
    let unidirectional = async {
        while let Some((id, receive)) = session.accept_uni().await? {
            let session = Arc::clone(&session);
            tokio::spawn(async move { copy(receive, session.open_uni(id).await?).await });
        }
        Done::Ok(())
    };
    let bidirectional = async {
        while let Some(accepted) = session.accept_bi().await? {
            match accepted {
                AcceptedBi::BidiStream(_, stream) => {
                    let (send, receive) = stream.split();
                    tokio::spawn(copy(receive, send));
                }
                AcceptedBi::Request(request, stream) => {
                    tokio::spawn(common::respond(request, stream, not_found));
                }
            }
        }
        Done::Ok(())
    };
    tokio::select! {
        end = datagrams => end,
        end = unidirectional => end,
        end = bidirectional => end,
    }
}

/// Whatever comes goes back, and its end too.
async fn copy(mut receive: impl AsyncRead + Unpin, mut send: impl AsyncWrite + Unpin) -> Done {
    let mut buffer = vec![0; 64 << 10];
    loop {
        match receive.read(&mut buffer).await? {
            0 => return Ok(send.shutdown().await?),
            len => send.write_all(&buffer[..len]).await?,
        }
    }
}
