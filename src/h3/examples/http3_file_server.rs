//! Serves the files of a folder by HTTP/3, and by HTTP/1.1 with TLS on the TCP port of the same number, whose `Alt-Svc` is how browsers find the
//! other: `http3_file_server ADDRESS CHAIN.pem KEY.pem FOLDER`.
//!
//! GET and HEAD, ranges of one part, listings of folders.
#![allow(clippy::print_stderr, reason = "it is the example's log")]

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use http::header::{
    ACCEPT_RANGES, ALLOW, ALT_SVC, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HeaderValue, LOCATION, RANGE,
};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use ringway_async::Endpoint;
use ringway_async::ringway::pki_types::pem::PemObject;
use ringway_async::ringway::pki_types::{CertificateDer, PrivateKeyDer};
use ringway_async::ringway::{ServerCredentials, Settings};
use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use tokio::net::TcpListener;

#[path = "common/mod.rs"]
mod common;
use common::{Body, Done, Fault, Service, full, status};

#[tokio::main]
async fn main() -> Done {
    let arguments: Vec<_> = std::env::args().collect();
    let [_, address, chain, key, folder] = &arguments[..] else {
        return Err("usage: http3_file_server ADDRESS CHAIN.pem KEY.pem FOLDER".into());
    };
    let (chain, key) = (std::fs::read(chain)?, std::fs::read(key)?);
    let (address, serving) = serve(
        &common::endpoint("server")?,
        address.parse()?,
        &chain,
        &key,
        folder.into(),
    )
    .await?;
    eprintln!("https://{address}/");
    serving.await
}

/// Listens on both; gives the address and what serves.
pub(crate) async fn serve(
    endpoint: &Endpoint,
    address: SocketAddr,
    chain: &[u8],
    key: &[u8],
    folder: PathBuf,
) -> Done<(SocketAddr, impl Future<Output = Done> + use<>)> {
    let folder: Arc<Path> = folder.into();
    let service = move |request| respond(Arc::clone(&folder), request);
    serve_both(endpoint, address, chain, key, ringway_h3::settings(), service).await
}

/// The same with any service.
pub(crate) async fn serve_both<S: Service>(
    endpoint: &Endpoint,
    address: SocketAddr,
    chain: &[u8],
    key: &[u8],
    settings: Settings,
    service: S,
) -> Done<(SocketAddr, impl Future<Output = Done> + use<S>)> {
    let credentials = ServerCredentials::from_pem(chain, key)?;
    let tls = tls(chain, key)?;
    // The port that TCP has got, if any will do.
    let tcp = TcpListener::bind(address).await?;
    let address = tcp.local_addr()?;
    let listener = common::listen(endpoint, address, credentials, settings)?;
    let alternative = HeaderValue::from_str(&format!("h3=\":{}\"; ma=3600", address.port()))?;
    let http1 = {
        let service = service.clone();
        move |request| {
            let (service, alternative) = (service.clone(), alternative.clone());
            async move {
                let mut response = service.call(request).await;
                response.headers_mut().insert(ALT_SVC, alternative);
                response
            }
        }
    };
    let serving = async move {
        tokio::join!(
            common::serve(listener, service),
            common::serve_http1(tcp, Some(tls), http1)
        );
        Ok(())
    };
    Ok((address, serving))
}

/// What accepts TLS over TCP with the same certificate.
pub(crate) fn tls(chain: &[u8], key: &[u8]) -> Done<tokio_rustls::TlsAcceptor> {
    let chain = CertificateDer::pem_slice_iter(chain).collect::<Result<_, _>>()?;
    let key = PrivateKeyDer::from_pem_slice(key)?;
    let provider = Arc::new(tokio_rustls::rustls::crypto::aws_lc_rs::default_provider());
    let mut config = tokio_rustls::rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config).into())
}

/// Answers a request from the files of a folder.
pub(crate) async fn respond(folder: Arc<Path>, request: Request<Body>) -> Response<Body> {
    if request.method() != Method::GET && request.method() != Method::HEAD {
        let mut response = status(StatusCode::METHOD_NOT_ALLOWED);
        response
            .headers_mut()
            .insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    let found = find(&folder, request.uri().path()).await;
    let result = match found {
        Some((path, true)) if !request.uri().path().ends_with('/') => {
            // What the page there refers to is relative to it.
            drop(path);
            moved(request.uri().path())
        }
        Some((path, true)) => list(&path).await,
        Some((path, false)) => send(&path, request.headers().get(RANGE)).await,
        None => return status(StatusCode::NOT_FOUND),
    };
    result.unwrap_or_else(|error| {
        eprintln!("{}: {error}", request.uri());
        status(StatusCode::INTERNAL_SERVER_ERROR)
    })
}

/// The file of this name, and whether it is a folder; never one outside of `folder`.
async fn find(folder: &Path, path: &str) -> Option<(PathBuf, bool)> {
    let path = percent_encoding::percent_decode_str(path.trim_start_matches('/'))
        .decode_utf8()
        .ok()?;
    let path = Path::new(&*path);
    if !path
        .components()
        .all(|part| matches!(part, Component::Normal(_) | Component::CurDir))
    {
        return None;
    }
    // Links may lead out of it.
    let folder = tokio::fs::canonicalize(folder).await.ok()?;
    let path = tokio::fs::canonicalize(folder.join(path)).await.ok()?;
    let is_folder = tokio::fs::metadata(&path).await.ok()?.is_dir();
    path.starts_with(&folder).then_some((path, is_folder))
}

fn moved(path: &str) -> Done<Response<Body>> {
    let mut response = status(StatusCode::MOVED_PERMANENTLY);
    let name = path.rsplit('/').next().unwrap_or_default();
    // Relative, and no other host, however many slashes come first.
    let location = HeaderValue::from_str(&format!("./{name}/"))?;
    response.headers_mut().insert(LOCATION, location);
    Ok(response)
}

async fn list(path: &Path) -> Done<Response<Body>> {
    let mut names = Vec::new();
    let mut entries = tokio::fs::read_dir(path).await?;
    while let Some(entry) = entries.next_entry().await? {
        let slash = if entry.file_type().await?.is_dir() {
            "/"
        } else {
            ""
        };
        names.push(format!("{}{slash}", entry.file_name().to_string_lossy()));
    }
    names.sort();
    let mut page = "<!doctype html><meta charset=utf-8><title>Files</title><ul>\n".to_owned();
    for name in names {
        let link = percent_encoding::utf8_percent_encode(name.trim_end_matches('/'), LINK);
        let slash = if name.ends_with('/') { "/" } else { "" };
        let text = name
            .replace('&', "&amp;")
            .replace('<', "&lt;")
            .replace('>', "&gt;");
        writeln!(page, "<li><a href=\"./{link}{slash}\">{text}</a>")?;
    }
    let response = Response::builder().header(CONTENT_TYPE, "text/html; charset=utf-8");
    Ok(response.body(full(page))?)
}

/// Whatever could mean something in a link.
const LINK: &percent_encoding::AsciiSet = percent_encoding::NON_ALPHANUMERIC;

/// So much of a file is in memory for each request.
const PIECE: usize = 128 << 10;

async fn send(path: &Path, range: Option<&HeaderValue>) -> Done<Response<Body>> {
    let mut file = File::open(path).await?;
    let len = file.metadata().await?.len();
    let mut response = Response::builder()
        .header(CONTENT_TYPE, content_type(path))
        .header(ACCEPT_RANGES, "bytes");
    let (from, to) = match range.and_then(|range| parse_range(range.to_str().ok()?, len)) {
        None => (0, len),
        Some(Ok((from, to))) => {
            response = response.status(StatusCode::PARTIAL_CONTENT);
            response = response.header(CONTENT_RANGE, format!("bytes {from}-{}/{len}", to - 1));
            (from, to)
        }
        Some(Err(Unsatisfiable)) => {
            let mut response = status(StatusCode::RANGE_NOT_SATISFIABLE);
            let whole = HeaderValue::from_str(&format!("bytes */{len}"))?;
            response.headers_mut().insert(CONTENT_RANGE, whole);
            return Ok(response);
        }
    };
    file.seek(std::io::SeekFrom::Start(from)).await?;
    let pieces = futures_util::stream::try_unfold((file, to - from), |(mut file, left)| async move {
        if left == 0 {
            return Ok(None);
        }
        let mut piece = bytes::BytesMut::with_capacity(PIECE.min(left.try_into().unwrap_or(PIECE)));
        if (&mut file).take(left).read_buf(&mut piece).await? == 0 {
            return Err(Fault::from("the file has become shorter"));
        }
        let left = left - piece.len() as u64;
        Ok(Some((Frame::data(Bytes::from(piece)), (file, left))))
    });
    let response = response.header(CONTENT_LENGTH, to - from);
    Ok(response.body(StreamBody::new(pieces).boxed_unsync())?)
}

#[derive(Debug, PartialEq)]
struct Unsatisfiable;

/// A range of one part (RFC 9110 section 14.1.2): its first byte, and the one behind its last. `None`: it is no such range, and means nothing.
fn parse_range(range: &str, len: u64) -> Option<Result<(u64, u64), Unsatisfiable>> {
    let (first, last) = range.strip_prefix("bytes=")?.split_once('-')?;
    let (from, to) = if first.is_empty() {
        (len.saturating_sub(last.parse().ok()?), len)
    } else if last.is_empty() {
        (first.parse().ok()?, len)
    } else {
        let (first, last): (u64, u64) = (first.parse().ok()?, last.parse().ok()?);
        if last < first {
            return None;
        }
        (first, last.saturating_add(1).min(len))
    };
    Some(if from < to {
        Ok((from, to))
    } else {
        Err(Unsatisfiable)
    })
}

fn content_type(path: &Path) -> &'static str {
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("css") => "text/css",
        Some("html") => "text/html; charset=utf-8",
        Some("jpg" | "jpeg") => "image/jpeg",
        Some("js") => "text/javascript",
        Some("json") => "application/json",
        Some("png") => "image/png",
        Some("svg") => "image/svg+xml",
        Some("txt" | "md") => "text/plain; charset=utf-8",
        _ => "application/octet-stream",
    }
}
