//! An application's own rustls over the kernel's network, on the datapath that `TEST_DATAPATH` names: every byte arrives.

use std::sync::{Arc, mpsc};
use std::time::Duration;

use ringway::rustls::crypto::CryptoProvider;
use ringway::rustls::{self, RootCertStore};
use ringway::{
    CipherSuite, Configuration, ConnectTarget, Connection, ConnectionEvent, Direction, EventStatus, Listener,
    ListenerEvent, ListenerOptions, RetryPolicy, Settings, Stream, StreamEvent, Version, crypto_provider,
};
use ringway_tests::order::ordered;
use ringway_tests::pki::Authority;
use ringway_tests::{ALPN, address, client, pattern, server, settings};

const TIMEOUT: Duration = Duration::from_secs(20);
const BYTES: usize = 3 << 20;

/// Configurations of an application that asks for and shows certificates on both sides.
fn applications(
    provider: &CryptoProvider,
    suite: CipherSuite,
    server: Settings,
    client: Settings,
) -> (Arc<Configuration>, Arc<Configuration>) {
    let authority = Authority::new("Root");
    let mut roots = RootCertStore::empty();
    roots.add(authority.root()).unwrap();
    let roots = Arc::new(roots);
    let (of_server, of_client) = (authority.issue(&["localhost"]), authority.issue(&["client"]));
    let provider = Arc::new(provider.clone());
    let mut only = CryptoProvider::clone(&provider);
    let wanted = match suite {
        CipherSuite::Aes128Gcm => rustls::CipherSuite::TLS13_AES_128_GCM_SHA256,
        CipherSuite::Aes256Gcm => rustls::CipherSuite::TLS13_AES_256_GCM_SHA384,
        CipherSuite::ChaCha20Poly1305 => rustls::CipherSuite::TLS13_CHACHA20_POLY1305_SHA256,
    };
    only.cipher_suites.retain(|suite| suite.suite() == wanted);
    let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(
        Arc::clone(&roots),
        Arc::clone(&provider),
    )
    .build()
    .unwrap();
    let mut server_config = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(vec![of_server.certificate.clone()], of_server.private_key())
        .unwrap();
    server_config.alpn_protocols = vec![ALPN.to_vec()];
    let mut client_config = rustls::ClientConfig::builder_with_provider(Arc::new(only))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_client_auth_cert(vec![of_client.certificate.clone()], of_client.private_key())
        .unwrap();
    client_config.alpn_protocols = vec![ALPN.to_vec()];
    (
        Configuration::server_with_rustls(server, &Arc::new(server_config)).unwrap(),
        Configuration::client_with_rustls(client, &Arc::new(client_config)).unwrap(),
    )
}

/// Uploads so much that keys are updated on the way, and compares what arrives.
fn transfer(configurations: (Arc<Configuration>, Arc<Configuration>), retry: RetryPolicy) {
    let (server_configuration, client_configuration) = configurations;
    let (server, client) = (server(1), client(1));
    let (arrived, arrival) = mpsc::channel();
    let options = ListenerOptions::new(address("127.0.0.1:0"), &[ALPN]).with_retry(retry);
    let listener = Listener::start(&server, options, move |event| {
        let ListenerEvent::NewConnection(incoming) = event else {
            return;
        };
        let arrived = arrived.clone();
        incoming.accept(
            &server_configuration,
            ordered(move |_: &Connection, event: ConnectionEvent<'_>| {
                match event {
                    ConnectionEvent::Connected {
                        peer_certificates, ..
                    } => assert_eq!(peer_certificates.len(), 1),
                    ConnectionEvent::PeerStreamStarted(stream) => {
                        let (arrived, mut received) = (arrived.clone(), Vec::new());
                        stream.accept(ordered(move |_: &Stream, event: StreamEvent<'_>| {
                            if let StreamEvent::Receive(receive) = event {
                                received.extend(receive.to_vec());
                                if receive.fin() {
                                    let _ = arrived.send(std::mem::take(&mut received));
                                }
                            }
                            EventStatus::Done
                        }));
                    }
                    _ => {}
                }
                EventStatus::Done
            }),
        );
    })
    .unwrap();
    let target = ConnectTarget::new(listener.local_address(), "localhost");
    let handler = ordered(|_: &Connection, event: ConnectionEvent<'_>| {
        assert!(
            !matches!(event, ConnectionEvent::ShutdownByTransport { .. }),
            "{event:?}"
        );
        EventStatus::Done
    });
    let connection = Connection::start(&client, &client_configuration, &target, handler).unwrap();
    let handler = ordered(|_: &Stream, _: StreamEvent<'_>| EventStatus::Done);
    let stream = Stream::open(&connection, Direction::Unidirectional, handler).unwrap();
    stream.start(false).unwrap();
    stream.send(pattern(0, BYTES).into(), 0, true).unwrap();
    let received = arrival.recv_timeout(TIMEOUT).unwrap();
    assert!(received == pattern(0, BYTES));
    let (sender, info) = mpsc::channel();
    connection
        .with_tls_info(move |info| sender.send(info.unwrap().peer_certificates.len()).unwrap())
        .unwrap();
    assert_eq!(info.recv_timeout(TIMEOUT).unwrap(), 1);
    client.close();
    server.close();
}

#[test]
fn bytes_arrive_with_keys_of_either_way_for_every_suite_and_through_key_updates() {
    let stock = rustls::crypto::aws_lc_rs::default_provider();
    for provider in [crypto_provider(stock.clone()), stock] {
        for suite in CipherSuite::ALL {
            let with_updates = || Settings {
                max_bytes_per_key: 500_000,
                ..settings()
            };
            transfer(
                applications(&provider, suite, with_updates(), with_updates()),
                RetryPolicy::Never,
            );
        }
    }
}

#[test]
fn bytes_arrive_in_a_version_that_the_server_has_gone_over_to_with_retry_and_without() {
    let stock = rustls::crypto::aws_lc_rs::default_provider();
    for retry in [RetryPolicy::Always, RetryPolicy::Never] {
        let server = Settings {
            accepted_versions: Some(vec![Version::V2]),
            ..settings()
        };
        transfer(
            applications(&stock, CipherSuite::Aes128Gcm, server, settings()),
            retry,
        );
    }
}
