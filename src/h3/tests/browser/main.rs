//! Chromium loads a page by HTTP/3: images, a large download, an upload, a WebTransport session. `CHROMIUM` names it; by default it is looked for.
//!
//! Where the packets come from is as the environment says, as in the examples. With `SCREENSHOT=FILE.png` the page is drawn there, too.
#![cfg(feature = "datagram")]
#![allow(dead_code, reason = "the examples' own main functions")]
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "what the page reports, and why a test is skipped"
)]
#![allow(
    clippy::duplicate_mod,
    reason = "each example has what they have in common, as it would by itself"
)]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use ringway_async::ringway::{ServerCredentials, Settings, Version};
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;

use self::common::{Body, full, status};

#[path = "../../examples/common/mod.rs"]
mod common;
#[path = "../../examples/http3_file_server.rs"]
mod http3_file_server;
#[path = "../../examples/webtransport_echo.rs"]
mod webtransport_echo;

/// As Chromium wants one that is named by its hash: P-256, and valid for two weeks at most.
struct Certificate {
    chain: String,
    key: String,
    /// Hashes of the certificate and of its public key.
    hash: String,
    key_hash: String,
}

impl Certificate {
    fn new() -> Self {
        let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
        let mut params = rcgen::CertificateParams::new(names).unwrap();
        let now = time::OffsetDateTime::now_utc();
        params.not_before = now - time::Duration::hours(1);
        params.not_after = now + time::Duration::days(12);
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        let certificate = params.self_signed(&key).unwrap();
        let hash = |bytes: &[u8]| BASE64.encode(Sha256::digest(bytes));
        Certificate {
            chain: certificate.pem(),
            key: key.serialize_pem(),
            hash: hash(certificate.der()),
            key_hash: hash(&rcgen::PublicKeyData::subject_public_key_info(&key)),
        }
    }
}

/// A folder that is gone with the test.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("ringway-browser-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Folder(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn site(path: &Path) {
    std::fs::create_dir_all(path.join("images")).unwrap();
    std::fs::write(path.join("page.html"), include_str!("page.html")).unwrap();
    std::fs::write(path.join("large.bin"), large()).unwrap();
    for number in 0..50 {
        let filling = "x".repeat(100 + 400 * number);
        let image = format!(
            "<svg xmlns='http://www.w3.org/2000/svg' width='20' height='20'>\
             <rect width='20' height='20' fill='hsl({},90%,50%)'/><!--{filling}--></svg>",
            7 * number
        );
        std::fs::write(path.join(format!("images/{number}.svg")), image).unwrap();
    }
}

/// 20 MB.
fn large() -> Vec<u8> {
    (0..20_000_000u32)
        .map(|at| (at.wrapping_mul(0x9e37_79b1) >> 23) as u8)
        .collect()
}

fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

fn chromium() -> Option<PathBuf> {
    if let Some(path) = std::env::var_os("CHROMIUM") {
        return Some(path.into());
    }
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|folder| folder.join("chromium"))
        .find(|path| path.exists())
}

/// A browser that ends with the test.
struct Browser(Child);

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What is different from test to test.
struct Case {
    name: &'static str,
    version: Version,
    /// Chromium is told that the server has HTTP/3; otherwise it has to find out.
    forced: bool,
}

fn load(case: &Case) {
    let Some(chromium) = chromium() else {
        println!(
            "SKIP {}: there is no Chromium (apt-get install --no-install-recommends chromium)",
            case.name
        );
        return;
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let report = runtime.block_on(report(case, &chromium));
    println!("{}: {report}", case.name);
    let expects = |what: &str| assert!(report.contains(what), "{what} is missing in {report}");
    let protocol = protocol(case.version);
    let first = if case.forced { protocol } else { "http/1.1" };
    expects(&format!("\"first\":\"{first}\""));
    assert!(!case.forced || report.contains("\"tries\":0,"), "{report}");
    let file = large();
    expects("\"images\":50");
    expects(&format!("\"download\":\"{}\"", hex(&file)));
    expects(&format!("\"upload\":\"{}\"", hex(&file[..5_000_000])));
    expects(&format!("\"uploaded\":\"{}\"", hex(&file[..5_000_000])));
    expects("\"webtransport\":{\"bidirectional\":true,\"unidirectional\":true,\"datagrams\":20}");
    // 50 images, the file, the upload: by nothing but HTTP/3.
    expects(&format!("\"protocols\":[\"{protocol}\"],\"resources\":52"));
}

/// Chromium's name of HTTP/3 by this version of QUIC, in pages. In TLS both are `h3`.
fn protocol(version: Version) -> &'static str {
    match version {
        Version::V1 => "h3",
        Version::V2 => "h3/quic2draft08",
    }
}

/// Serves the page, has the browser load it, and gives what the page reports.
async fn report(case: &Case, chromium: &Path) -> String {
    let (files, profile) = (
        Folder::new(&format!("{}-files", case.name)),
        Folder::new(case.name),
    );
    site(&files.0);
    let certificate = Certificate::new();
    // The other version is not spoken here.
    let settings = Settings {
        version: case.version,
        accepted_versions: Some(vec![case.version]),
        ..ringway_h3::settings()
    };
    let (chain, key) = (certificate.chain.as_bytes(), certificate.key.as_bytes());
    let credentials = ServerCredentials::from_pem(chain, key).unwrap();
    let any = "127.0.0.1:0".parse().unwrap();
    let endpoint = common::endpoint("server").unwrap();
    // Sessions of Chromium begin with version 1, whatever it is told.
    let (echo, serving) =
        webtransport_echo::serve(&endpoint, any, credentials, ringway_h3::settings()).unwrap();
    tokio::spawn(serving);
    let (sender, mut reports) = mpsc::channel(1);
    let folder: Arc<Path> = files.0.clone().into();
    let service = move |request| answer(Arc::clone(&folder), sender.clone(), request);
    let (address, serving) = http3_file_server::serve_both(&endpoint, any, chain, key, settings, service)
        .await
        .unwrap();
    tokio::spawn(serving);

    let port = address.port();
    // Any other port: without one that is forced, QUIC needs a certificate of an authority that the system knows.
    let forced = if case.forced { port } else { 1 };
    let query = format!(
        "certificate={}&webtransport=https://127.0.0.1:{}/",
        encode(&certificate.hash),
        echo.port()
    );
    let mut command = Command::new(chromium);
    command
        .args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--no-first-run",
            "--disable-sync",
        ])
        .args([
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-dev-shm-usage",
        ])
        .arg(format!("--user-data-dir={}", profile.0.display()))
        .arg(format!("--origin-to-force-quic-on=localhost:{forced}"))
        .arg(format!(
            "--ignore-certificate-errors-spki-list={}",
            certificate.key_hash
        ))
        .arg("--host-resolver-rules=MAP localhost 127.0.0.1");
    if case.version == Version::V2 {
        command.arg("--quic-version=RFCv2");
    }
    if let Some(path) = std::env::var_os("SCREENSHOT") {
        command.arg(format!("--screenshot={}", path.display()));
        command.args(["--window-size=800,700", "--virtual-time-budget=20000"]);
    } else {
        // It stays when the page is loaded.
        command.arg("--remote-debugging-port=0");
    }
    let log = std::fs::File::create(profile.0.join("log")).unwrap();
    command
        .arg(format!("https://localhost:{port}/page.html?{query}"))
        .stdout(Stdio::null())
        .stderr(log);
    let mut browser = Browser(command.spawn().unwrap());
    let report = tokio::time::timeout(Duration::from_secs(60), reports.recv()).await;
    if std::env::var_os("SCREENSHOT").is_some() {
        let _ = browser.0.wait();
    }
    match report {
        Ok(report) => report.unwrap(),
        Err(_) => panic!(
            "{}: the page reports nothing\n{}",
            case.name,
            std::fs::read_to_string(profile.0.join("log")).unwrap_or_default()
        ),
    }
}

fn encode(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
}

async fn answer(folder: Arc<Path>, reports: mpsc::Sender<String>, request: Request<Body>) -> Response<Body> {
    let is_post = request.method() == Method::POST;
    match request.uri().path() {
        "/upload" if is_post => match request.into_body().collect().await {
            Ok(content) => Response::new(full(hex(&content.to_bytes()))),
            Err(error) => {
                eprintln!("upload: {error}");
                status(StatusCode::BAD_REQUEST)
            }
        },
        "/report" if is_post => {
            if let Ok(content) = request.into_body().collect().await {
                let content = content.to_bytes();
                let _ = reports.send(String::from_utf8_lossy(&content).into_owned()).await;
            }
            Response::new(full(""))
        }
        _ => http3_file_server::respond(folder, request).await,
    }
}

#[test]
fn chromium_loads_a_page_by_version_1() {
    load(&Case {
        name: "forced-v1",
        version: Version::V1,
        forced: true,
    });
}

#[test]
fn chromium_loads_a_page_by_version_2() {
    load(&Case {
        name: "forced-v2",
        version: Version::V2,
        forced: true,
    });
}

/// (Version 2 it does not find: it takes `h3` for version 1 there.)
#[test]
fn chromium_finds_http3_by_alt_svc() {
    load(&Case {
        name: "alt-svc",
        version: Version::V1,
        forced: false,
    });
}
