//! The three programs on the first page of the README: compiled as they stand there, and run.

mod common;

use std::net::SocketAddr;

use common::{content, get, run};
use ringway_async::Endpoint;
use ringway_async::ringway::{ClientCredentials, Configuration, ExecutionConfig, Registration, Settings};

type Done<T = ()> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

const README: &str = include_str!("../../../README.md");
const THIS_FILE: &str = include_str!("readme.rs");

/// What every program of the README begins with.
#[derive(Clone)]
struct Given {
    address: SocketAddr,
    chain: Vec<u8>,
    key: Vec<u8>,
}

#[rustfmt::skip]
fn callbacks(Given { address, chain, key }: Given) -> Done<impl Sized> {
use ringway::*;

let registration = Registration::open("app", &ExecutionConfig::default())?;
let settings = Settings { peer_bidi_stream_count: 100, ..Settings::default() };
let credentials = ServerCredentials::from_pem(&chain, &key)?;
let configuration = Configuration::server(&[b"echo"], settings, credentials)?;
let options = ListenerOptions::new(address, &[b"echo"]);
let listener = Listener::start(&registration, options, move |event| {
    let ListenerEvent::NewConnection(incoming) = event else { return };
    incoming.accept(&configuration, |_: &Connection, event: ConnectionEvent<'_>| {
        let ConnectionEvent::PeerStreamStarted(stream) = event else { return };
        stream.accept(|stream: &Stream, event: StreamEvent<'_>| {
            // A slice of the decrypted packet, valid during the event: copy what you keep.
            let StreamEvent::Receive(data) = event else { return };
            let _ = stream.send(data.to_vec().into(), 0, data.fin());
        });
    });
})?;
Ok((registration, listener))
}

#[rustfmt::skip]
async fn futures(Given { address, chain, key }: Given) -> Done {
use ringway_async::{Endpoint, ringway::*};

let mut endpoint = Endpoint::new(&Registration::open("app", &ExecutionConfig::default())?);
let settings = Settings { peer_bidi_stream_count: 100, ..Settings::default() };
let credentials = ServerCredentials::from_pem(&chain, &key)?;
let server = Configuration::server(&[b"echo"], settings, credentials)?;
let listener = endpoint.listen(ListenerOptions::new(address, &[b"echo"]), server)?;
tokio::spawn(async move {
    let connection = listener.accept().await.ok_or("stopped")?.await?;
    while let Ok((mut send, mut receive)) = connection.accept_bi().await {
        send.finish_with(receive.read_to_end(1000).await?.into()).await?;
    }
    Ok::<_, Box<dyn std::error::Error + Send + Sync>>(())
});
let roots = ClientCredentials::roots_from_pem(&chain)?;
endpoint.set_default_client_config(Configuration::client(&[b"echo"], Settings::default(), roots)?);
let (mut send, mut receive) = endpoint.connect(address, "localhost")?.await?.open_bi().await?;
send.finish_with(Bytes::from_static(b"hello")).await?;
assert_eq!(receive.read_to_end(1000).await?, b"hello");
Ok(())
}

#[rustfmt::skip]
async fn http3(Given { address, chain, key }: Given) -> Done {
use ringway_h3::ringway_async::{Bytes, Endpoint, ringway::*};
use ringway_h3::{ALPN, Connection, h3};

let endpoint = Endpoint::new(&Registration::open("app", &ExecutionConfig::default())?);
let credentials = ServerCredentials::from_pem(&chain, &key)?;
let configuration = Configuration::server(&[ALPN], ringway_h3::settings(), credentials)?;
let listener = endpoint.listen(ListenerOptions::new(address, &[ALPN]), configuration)?;
while let Some(incoming) = listener.accept().await {
    tokio::spawn(async move {
        let mut server = h3::server::Connection::new(Connection::new(incoming.await?)).await?;
        while let Some(request) = server.accept().await? {
            let (request, mut stream) = request.resolve_request().await?;
            stream.send_response(http::Response::new(())).await?;
            stream.send_data(Bytes::from(format!("This is {}", request.uri().path()))).await?;
            stream.finish().await?;
        }
        Ok::<_, Box<dyn std::error::Error + Send + Sync>>(())
    });
}
Ok(())
}

/// Each caller passes another `network`, so that no two servers share an address of loopback; the port is none that the system gives out.
fn given(network: u8) -> Given {
    let [.., high, low] = std::process::id().to_be_bytes();
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    Given {
        address: SocketAddr::from(([127, network, high, low], 7433)),
        chain: made.cert.pem().into_bytes(),
        key: made.signing_key.serialize_pem().into_bytes(),
    }
}

/// The client's half, for the programs that only serve. The connection lasts while the endpoint is kept.
async fn connect(to: Given, alpn: &[u8]) -> (Endpoint, ringway_async::Connection) {
    let mut endpoint = Endpoint::new(&Registration::open("client", &ExecutionConfig::default()).unwrap());
    let roots = ClientCredentials::roots_from_pem(&to.chain).unwrap();
    let settings = Settings {
        peer_uni_stream_count: 3,
        ..Settings::default()
    };
    endpoint.set_default_client_config(Configuration::client(&[alpn], settings, roots).unwrap());
    let connection = endpoint.connect(to.address, "localhost").unwrap().await.unwrap();
    (endpoint, connection)
}

#[test]
fn callbacks_echo() {
    let given = given(33);
    let _server = callbacks(given.clone()).unwrap();
    run(async {
        let (_endpoint, connection) = connect(given, b"echo").await;
        for text in [&b"hello"[..], b"again"] {
            let (mut send, mut receive) = connection.open_bi().await.unwrap();
            send.finish_with(text.into()).await.unwrap();
            assert_eq!(receive.read_to_end(1000).await.unwrap(), text);
        }
    });
}

#[test]
fn futures_echo() {
    run(futures(given(34))).unwrap();
}

#[test]
fn http3_answers_several_clients() {
    let given = given(35);
    run(async {
        let clients = async {
            for path in ["/page", "/other"] {
                let (_endpoint, connection) = connect(given.clone(), ringway_h3::ALPN).await;
                let (_driver, mut client) = h3::client::new(ringway_h3::Connection::new(connection))
                    .await
                    .unwrap();
                let mut stream = client.send_request(get(path)).await.unwrap();
                stream.finish().await.unwrap();
                assert_eq!(stream.recv_response().await.unwrap().status(), 200);
                assert_eq!(
                    content(&mut stream).await.unwrap(),
                    format!("This is {path}").into_bytes()
                );
            }
        };
        tokio::select! {
            biased;
            end = http3(given.clone()) => panic!("the server has ended: {end:?}"),
            () = clients => {}
        }
    });
}

#[test]
fn programs_stand_in_the_readme_each_under_twenty_lines() {
    let programs: Vec<&str> = README
        .split("```rust\n")
        .skip(1)
        .map(|rest| rest.split_once("```").unwrap().0)
        .collect();
    assert_eq!(programs.len(), 3);
    for program in programs {
        assert!(
            THIS_FILE.contains(program),
            "compiled otherwise, or not at all:\n{program}"
        );
        assert!(program.lines().count() < 20, "too long:\n{program}");
        assert!(
            program.lines().all(|line| line.len() <= 100),
            "too wide:\n{program}"
        );
    }
}
