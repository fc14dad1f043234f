//! Takes requests by HTTP/3 and passes them on to a server of HTTP/1.1 behind it: `reverse_proxy ADDRESS CHAIN.pem KEY.pem BACKEND`.
//!
//! Content goes through as it comes, both ways. (Each request has a connection of its own to the server behind; a real proxy keeps some.)
#![allow(clippy::print_stderr, reason = "it is the example's log")]

use std::net::SocketAddr;

use http::header::{CONNECTION, HOST, HeaderName, TE, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Uri, Version};
use http_body_util::BodyExt;
use hyper_util::rt::TokioIo;
use ringway_async::Endpoint;
use ringway_async::ringway::ServerCredentials;
use tokio::net::TcpStream;

#[path = "common/mod.rs"]
mod common;
use common::{Body, Done, Fault, status};

#[tokio::main]
async fn main() -> Done {
    let arguments: Vec<_> = std::env::args().collect();
    let [_, address, chain, key, backend] = &arguments[..] else {
        return Err("usage: reverse_proxy ADDRESS CHAIN.pem KEY.pem BACKEND".into());
    };
    let credentials = ServerCredentials::from_pem(&std::fs::read(chain)?, &std::fs::read(key)?)?;
    let (_, serving) = serve(
        &common::endpoint("server")?,
        address.parse()?,
        credentials,
        backend.parse()?,
    )?;
    serving.await;
    Ok(())
}

/// Listens; gives the address and what serves.
pub(crate) fn serve(
    endpoint: &Endpoint,
    address: SocketAddr,
    credentials: ServerCredentials,
    backend: SocketAddr,
) -> Done<(SocketAddr, impl Future<Output = ()> + use<>)> {
    let listener = common::listen(endpoint, address, credentials, ringway_h3::settings())?;
    let address = listener.local_addr();
    let service = move |request| async move {
        pass_on(backend, request).await.unwrap_or_else(|error| {
            eprintln!("{backend}: {error}");
            status(StatusCode::BAD_GATEWAY)
        })
    };
    Ok((address, common::serve(listener, service)))
}

async fn pass_on(backend: SocketAddr, mut request: Request<Body>) -> Done<Response<Body>> {
    let stream = TcpStream::connect(backend).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let authority = request.uri().authority().map(|authority| authority.as_str());
    let host = HeaderValue::from_str(authority.unwrap_or_default())?;
    let path = request.uri().path_and_query().cloned();
    *request.version_mut() = Version::HTTP_11;
    *request.uri_mut() = path.map_or(Uri::from_static("/"), Uri::from);
    leave_out_hop_by_hop(request.headers_mut());
    request.headers_mut().insert(HOST, host);
    let mut response = sender.send_request(request).await?;
    leave_out_hop_by_hop(response.headers_mut());
    Ok(response.map(|body| body.map_err(Fault::from).boxed_unsync()))
}

/// Those that speak of one connection only (RFC 9110 section 7.6.1), which HTTP/3 does not have (RFC 9114 section 4.2).
fn leave_out_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<_> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse::<HeaderName>().ok())
        .collect();
    let always = [CONNECTION, TE, TRANSFER_ENCODING, UPGRADE]
        .into_iter()
        .chain(["keep-alive", "proxy-connection"].map(HeaderName::from_static));
    for name in named.into_iter().chain(always) {
        headers.remove(name);
    }
}
