//! Every example runs and does what it says.
#![cfg(feature = "datagram")]
#![allow(dead_code, reason = "the examples' own main functions")]
#![allow(
    clippy::duplicate_mod,
    reason = "each example has what they have in common, as it would by itself"
)]

use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, Bytes};
use common::{SendRequest, full};
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use ringway_async::ringway::{ClientCredentials, ServerCredentials};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

#[path = "../examples/common/mod.rs"]
mod common;
#[path = "../examples/download.rs"]
mod download;
#[path = "../examples/http3_file_server.rs"]
mod http3_file_server;
#[path = "../examples/reverse_proxy.rs"]
mod reverse_proxy;
#[path = "../examples/webtransport_echo.rs"]
mod webtransport_echo;

struct Certificate {
    chain: String,
    key: String,
}

impl Certificate {
    fn new() -> Self {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        Certificate {
            chain: made.cert.pem(),
            key: made.signing_key.serialize_pem(),
        }
    }

    fn shown(&self) -> ServerCredentials {
        ServerCredentials::from_pem(self.chain.as_bytes(), self.key.as_bytes()).unwrap()
    }

    fn trusted(&self) -> ClientCredentials {
        ClientCredentials::roots_from_pem(self.chain.as_bytes()).unwrap()
    }
}

/// A folder that is gone with the test.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("ringway-h3-{name}-{}", std::process::id()));
        std::fs::create_dir_all(path.join("sub folder")).unwrap();
        std::fs::write(path.join("digits.txt"), "0123456789").unwrap();
        std::fs::write(path.join("sub folder/a&b.html"), "<p>").unwrap();
        std::fs::write(path.join("large.bin"), large()).unwrap();
        std::os::unix::fs::symlink("/etc/hostname", path.join("out")).unwrap();
        Folder(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn large() -> Vec<u8> {
    (0..3_000_000u32)
        .map(|at| (at.wrapping_mul(0x9e37_79b1) >> 24) as u8)
        .collect()
}

fn run<R>(future: impl Future<Output = R>) -> R {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime
        .block_on(async { tokio::time::timeout(Duration::from_secs(60), future).await })
        .expect("it takes too long")
}

fn server() -> ringway_async::Endpoint {
    common::endpoint("server").unwrap()
}

fn local() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

fn get(path: &str) -> Request<()> {
    Request::get(format!("https://localhost{path}")).body(()).unwrap()
}

/// The response, and its content.
async fn ask(
    send_request: &mut SendRequest,
    request: Request<()>,
    content: &[u8],
) -> (Response<()>, Vec<u8>) {
    let mut stream = send_request.send_request(request).await.unwrap();
    if !content.is_empty() {
        stream.send_data(Bytes::copy_from_slice(content)).await.unwrap();
    }
    stream.finish().await.unwrap();
    let response = stream.recv_response().await.unwrap();
    let mut all = Vec::new();
    while let Some(mut data) = stream.recv_data().await.unwrap() {
        all.extend_from_slice(&data.copy_to_bytes(data.remaining()));
    }
    (response, all)
}

#[test]
fn http3_file_server_serves_files_ranges_and_listings_and_nothing_else() {
    run(async {
        let (folder, certificate) = (Folder::new("files"), Certificate::new());
        let (chain, key) = (certificate.chain.as_bytes(), certificate.key.as_bytes());
        let (address, serving) = http3_file_server::serve(&server(), local(), chain, key, folder.0.clone())
            .await
            .unwrap();
        tokio::spawn(serving);
        let endpoint = common::client(certificate.trusted()).unwrap();
        let mut client = common::connect(&endpoint, address, "localhost").await.unwrap();

        let (response, content) = ask(&mut client, get("/digits.txt"), b"").await;
        assert_eq!(
            (response.status(), &content[..]),
            (StatusCode::OK, &b"0123456789"[..])
        );
        assert_eq!(response.headers()["content-type"], "text/plain; charset=utf-8");
        assert_eq!(response.headers()["content-length"], "10");
        assert!(ask(&mut client, get("/large.bin"), b"").await.1 == large());

        for (range, status, expected, content_range) in [
            ("bytes=2-4", 206, "234", "bytes 2-4/10"),
            ("bytes=7-", 206, "789", "bytes 7-9/10"),
            ("bytes=-2", 206, "89", "bytes 8-9/10"),
            ("bytes=0-100", 206, "0123456789", "bytes 0-9/10"),
            ("bytes=10-", 416, "416 Range Not Satisfiable\n", "bytes */10"),
            ("bytes=4-2", 200, "0123456789", ""),
            ("bytes=1-2,4-5", 200, "0123456789", ""),
        ] {
            let mut request = get("/digits.txt");
            request.headers_mut().insert("range", range.parse().unwrap());
            let (response, content) = ask(&mut client, request, b"").await;
            assert_eq!(response.status(), status, "{range}");
            assert_eq!(String::from_utf8(content).unwrap(), expected, "{range}");
            let found = response.headers().get("content-range");
            assert_eq!(found.map_or("", |found| found.to_str().unwrap()), content_range);
        }

        let (_, listing) = ask(&mut client, get("/"), b"").await;
        let listing = String::from_utf8(listing).unwrap();
        assert!(
            listing.contains("<a href=\"./sub%20folder/\">sub folder/</a>"),
            "{listing}"
        );
        let (_, listing) = ask(&mut client, get("/sub%20folder/"), b"").await;
        let listing = String::from_utf8(listing).unwrap();
        assert!(
            listing.contains("<a href=\"./a%26b%2Ehtml\">a&amp;b.html</a>"),
            "{listing}"
        );
        assert_eq!(
            ask(&mut client, get("/sub%20folder/a%26b%2Ehtml"), b"").await.1,
            b"<p>"
        );
        let (response, _) = ask(&mut client, get("/sub%20folder"), b"").await;
        assert_eq!(response.headers()["location"], "./sub%20folder/");

        for outside in [
            "/out",
            "/../etc/hostname",
            "/%2e%2e/x",
            "/sub%20folder/..%2f..%2fx",
            "/no",
            "/%ff",
        ] {
            let (response, _) = ask(&mut client, get(outside), b"").await;
            assert_eq!(response.status(), StatusCode::NOT_FOUND, "{outside}");
        }
        let request = Request::post("https://localhost/digits.txt").body(()).unwrap();
        let (response, _) = ask(&mut client, request, b"more").await;
        assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED);
        let request = Request::head("https://localhost/digits.txt").body(()).unwrap();
        let (response, content) = ask(&mut client, request, b"").await;
        assert_eq!(response.headers()["content-length"], "10");
        assert!(content.is_empty());
    });
}

/// Content that fails before there is any.
struct Broken;

impl hyper::body::Body for Broken {
    type Data = Bytes;
    type Error = common::Fault;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<hyper::body::Frame<Bytes>, common::Fault>>> {
        Poll::Ready(Some(Err("the disk is gone".into())))
    }
}

#[test]
fn response_whose_content_fails_is_not_taken_for_an_empty_one() {
    run(async {
        let certificate = Certificate::new();
        let server = server();
        let listener = common::listen(&server, local(), certificate.shown(), ringway_h3::settings()).unwrap();
        let address = listener.local_addr();
        let service = |_: Request<common::Body>| async { Response::new(Broken.boxed_unsync()) };
        tokio::spawn(common::serve(listener, service));
        let endpoint = common::client(certificate.trusted()).unwrap();
        let mut client = common::connect(&endpoint, address, "localhost").await.unwrap();
        let mut stream = client.send_request(get("/")).await.unwrap();
        stream.finish().await.unwrap();
        let error = match stream.recv_response().await {
            Ok(_) => stream.recv_data().await.map(|_| ()).unwrap_err(),
            Err(error) => error,
        };
        let code = h3::error::Code::H3_INTERNAL_ERROR;
        assert!(
            matches!(error, h3::error::StreamError::RemoteTerminate { code: found } if found == code),
            "{error:?}"
        );
    });
}

#[test]
fn http1_server_beside_it_names_the_other_port() {
    run(async {
        let (folder, certificate) = (Folder::new("http1"), Certificate::new());
        let (chain, key) = (certificate.chain.as_bytes(), certificate.key.as_bytes());
        let (address, serving) = http3_file_server::serve(&server(), local(), chain, key, folder.0.clone())
            .await
            .unwrap();
        tokio::spawn(serving);
        let mut roots = tokio_rustls::rustls::RootCertStore::empty();
        let made = rustls_certificate(chain);
        roots.add(made).unwrap();
        let provider = tokio_rustls::rustls::crypto::aws_lc_rs::default_provider();
        let config = tokio_rustls::rustls::ClientConfig::builder_with_provider(provider.into())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let connector = tokio_rustls::TlsConnector::from(std::sync::Arc::new(config));
        let stream = TcpStream::connect(address).await.unwrap();
        let name = "localhost".try_into().unwrap();
        let mut stream = connector.connect(name, stream).await.unwrap();
        let request = b"GET /digits.txt HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
        stream.write_all(request).await.unwrap();
        let mut response = String::new();
        stream.read_to_string(&mut response).await.unwrap();
        assert!(response.starts_with("HTTP/1.1 200 OK\r\n"), "{response}");
        let alternative = format!("alt-svc: h3=\":{}\"; ma=3600\r\n", address.port());
        assert!(response.contains(&alternative), "{response}");
        assert!(response.ends_with("\r\n\r\n0123456789"), "{response}");
    });
}

fn rustls_certificate(chain: &[u8]) -> ringway::pki_types::CertificateDer<'static> {
    use ringway::pki_types::pem::PemObject;
    PemObject::from_pem_slice(chain).unwrap()
}

#[test]
fn client_downloads_a_file() {
    run(async {
        let (folder, certificate) = (Folder::new("download"), Certificate::new());
        let (chain, key) = (certificate.chain.as_bytes(), certificate.key.as_bytes());
        let (address, serving) = http3_file_server::serve(&server(), local(), chain, key, folder.0.clone())
            .await
            .unwrap();
        tokio::spawn(serving);
        let mut content = Vec::new();
        let trusted = certificate.trusted();
        let len = download::download(address, "localhost", "/large.bin", trusted, None, &mut content).await;
        assert_eq!(len.unwrap(), 3_000_000);
        assert!(content == large());
        let trusted = certificate.trusted();
        let error = download::download(address, "localhost", "/no", trusted, None, &mut content).await;
        assert_eq!(error.unwrap_err().to_string(), "/no: 404 Not Found");
        // Nobody waits for what is sent there.
        let (trusted, upload) = (certificate.trusted(), Some(large()));
        let error = download::download(address, "localhost", "/", trusted, upload, &mut content).await;
        assert_eq!(error.unwrap_err().to_string(), "/: 405 Method Not Allowed");
    });
}

#[test]
fn proxy_passes_requests_and_content_on_and_answers_502_where_nobody_is() {
    run(async {
        let certificate = Certificate::new();
        let tcp = TcpListener::bind(local()).await.unwrap();
        let backend = tcp.local_addr().unwrap();
        let behind = async |request: Request<common::Body>| {
            let (parts, body) = request.into_parts();
            assert_eq!(parts.headers["host"], "localhost");
            assert!(!parts.headers.contains_key("te"));
            let content = body.collect().await.unwrap().to_bytes();
            let line = format!("{} {}\n", parts.method, parts.uri);
            Response::new(full([line.as_bytes(), &content[..]].concat()))
        };
        let service = move |request| Box::pin(behind(request)) as futures_util::future::BoxFuture<'static, _>;
        let http1 = tokio::spawn(common::serve_http1(tcp, None, service));
        let (address, serving) =
            reverse_proxy::serve(&server(), local(), certificate.shown(), backend).unwrap();
        tokio::spawn(serving);
        let endpoint = common::client(certificate.trusted()).unwrap();
        let mut client = common::connect(&endpoint, address, "localhost").await.unwrap();
        let request = Request::put("https://localhost/a?b").header("te", "trailers");
        let sent = large();
        let (response, content) = ask(&mut client, request.body(()).unwrap(), &sent).await;
        assert_eq!(response.status(), StatusCode::OK);
        assert!(content == [b"PUT /a?b\n", &sent[..]].concat());
        http1.abort();
        let _ = http1.await;
        let (response, _) = ask(&mut client, get("/"), b"").await;
        assert_eq!(response.status(), StatusCode::BAD_GATEWAY);
    });
}

/// A session of WebTransport (draft 2), of which h3 has only the server's side: the client's is written here, byte for byte.
#[test]
fn webtransport_streams_and_datagrams_come_back() {
    run(async {
        let certificate = Certificate::new();
        let (address, serving) =
            webtransport_echo::serve(&server(), local(), certificate.shown(), ringway_h3::settings())
                .unwrap();
        tokio::spawn(serving);
        let endpoint = common::client(certificate.trusted()).unwrap();
        let connection = endpoint.connect(address, "localhost").unwrap().await.unwrap();
        // Not before the server's settings have come (draft 2 section 3.1).
        let first = connection.accept_uni().await.unwrap();
        let mut kept = vec![settings_of(first).await];
        let (mut connect, mut answer) = connection.open_bi().await.unwrap();
        connect.write_all(&connect_headers()).await.unwrap();
        // Ours come behind the request, as a lost packet may have it: datagrams (RFC 9297), extended CONNECT (RFC 9220), WebTransport of draft 2.
        tokio::time::sleep(Duration::from_millis(200)).await;
        let mut control = connection.open_uni().await.unwrap();
        let settings = b"\x00\x04\x09\x33\x01\x08\x01\xab\x60\x37\x42\x01";
        control.write_all(&settings[..]).await.unwrap();
        let first = answer.read_chunk(usize::MAX).await.unwrap().unwrap();
        assert_eq!(first[0], 1, "no HEADERS: {first:?}");

        // A bidirectional stream: 0x41, the session's ID, content.
        let sent = large();
        let (mut send, mut receive) = connection.open_bi().await.unwrap();
        let write = async {
            send.write_all(&[0x40, 0x41, 0]).await.unwrap();
            send.write_all(&sent).await.unwrap();
            send.finish().unwrap();
        };
        let (received, ()) = tokio::join!(receive.read_to_end(usize::MAX), write);
        assert!(received.unwrap() == sent);

        // A unidirectional one: 0x54.
        let mut send = connection.open_uni().await.unwrap();
        send.write_all(b"\x40\x54\x00one way").await.unwrap();
        send.finish().unwrap();
        let back = loop {
            let mut receive = connection.accept_uni().await.unwrap();
            let mut kind = [0];
            receive.read_exact(&mut kind).await.unwrap();
            if kind == [0x40] {
                break receive.read_to_end(100).await.unwrap();
            }
            // QPACK's streams and the like.
            kept.push(receive);
        };
        assert_eq!(back, b"\x54\x00one way");

        // Datagrams: a quarter of the ID of the session's stream.
        for number in 0..20 {
            connection
                .send_datagram(Bytes::copy_from_slice(&[0, number]))
                .unwrap();
            assert_eq!(connection.read_datagram().await.unwrap()[..], [0, number]);
        }
        connection.close(0x100u32.into(), b"");
    });
}

/// The server's control stream, whose settings have come.
async fn settings_of(mut control: ringway_async::RecvStream) -> ringway_async::RecvStream {
    let mut start = [0; 2];
    control.read_exact(&mut start).await.unwrap();
    assert_eq!(start, [0, 4], "the control stream comes first");
    control
}

/// CONNECT with `:protocol` webtransport, in literals (RFC 9204 section 4.5.6).
fn connect_headers() -> Vec<u8> {
    let mut block = vec![0, 0];
    for (name, value) in [
        (":method", "CONNECT"),
        (":protocol", "webtransport"),
        (":scheme", "https"),
        (":authority", "localhost"),
        (":path", "/"),
    ] {
        // A length of three bits: what does not fit goes on behind it.
        match name.len() {
            len @ ..7 => block.push(0x20 | len as u8),
            len => block.extend_from_slice(&[0x27, (len - 7) as u8]),
        }
        block.extend_from_slice(name.as_bytes());
        block.push(value.len() as u8);
        block.extend_from_slice(value.as_bytes());
    }
    [&[1, 0x40, block.len() as u8], &block[..]].concat()
}
