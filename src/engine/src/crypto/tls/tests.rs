//! Handshakes of TLS alone: with configurations of ours and of rustls, in both versions.

mod ech;

use std::sync::{Arc, Mutex};

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{KeyLog, RootCertStore};

use super::provider::KeySource;
use super::*;
use crate::crypto::suite::CipherSuite;
use crate::crypto::suite::provider_from;
use crate::crypto::tests::{assert_keys_fit, handshake, run, sessions, sessions_of};
use crate::wire::Version;
use crate::wire::error::TransportErrorCode;

fn identity() -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    (vec![made.cert.der().clone()], key)
}

/// The root of somebody else. Under the same name as the certificate's issuer it would be taken for that, and the signature be wrong.
fn other_root() -> Vec<CertificateDer<'static>> {
    let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
    params
        .distinguished_name
        .push(rcgen::DnType::CommonName, "Another Root");
    let key = rcgen::KeyPair::generate().unwrap();
    vec![params.self_signed(&key).unwrap().der().clone()]
}

fn stock() -> CryptoProvider {
    rustls::crypto::aws_lc_rs::default_provider()
}

/// Configurations of an application that knows nothing of us.
fn applications(
    server: CryptoProvider,
    client: CryptoProvider,
) -> (Arc<rustls::ServerConfig>, Arc<rustls::ClientConfig>) {
    let (chain, key) = identity();
    let mut roots = RootCertStore::empty();
    roots.add(chain[0].clone()).unwrap();
    let mut server = rustls::ServerConfig::builder_with_provider(server.into())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    server.alpn_protocols = vec![b"perf".to_vec()];
    let mut client = rustls::ClientConfig::builder_with_provider(client.into())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    client.alpn_protocols = vec![b"perf".to_vec()];
    (Arc::new(server), Arc::new(client))
}

fn sessions_of_applications(
    versions: [Version; 2],
    server: &Arc<rustls::ServerConfig>,
    client: &Arc<rustls::ClientConfig>,
) -> (TlsSession, TlsSession) {
    let name = ServerName::try_from("localhost").unwrap();
    let client = ClientTls::from_rustls(client).unwrap();
    let server = ServerTls::from_rustls(server).unwrap();
    (
        TlsSession::client(&client, versions[0], name, vec![1, 1, 5], None).unwrap(),
        TlsSession::server(&server, versions[1], vec![1, 1, 6]).unwrap(),
    )
}

fn with_suite(suite: CipherSuite, mut provider: CryptoProvider) -> CryptoProvider {
    provider
        .cipher_suites
        .retain(|other| CipherSuite::of_tls(other.suite()) == Some(suite));
    provider
}

#[test]
fn handshakes_of_every_suite_and_version_give_keys_that_fit_each_other() {
    for version in Version::SUPPORTED {
        for suite in CipherSuite::offered() {
            let (client, server) = sessions(version, suite, b"perf");
            let (mut client, mut server) = handshake(client, server);
            assert_keys_fit(&mut client, &mut server, 3);
        }
    }
}

#[test]
fn keys_derived_from_logged_secrets_fit_those_that_come_through_suites_of_ours() {
    for version in Version::SUPPORTED {
        for suite in CipherSuite::offered() {
            // By which way the server's and the client's keys come.
            for (ours_on_server, ours_on_client) in
                [(false, false), (true, false), (false, true), (true, true)]
            {
                let provider = |ours| {
                    let provider = with_suite(suite, stock());
                    if ours { provider_from(provider) } else { provider }
                };
                let (server, client) = applications(provider(ours_on_server), provider(ours_on_client));
                let (client, server) = sessions_of_applications([version; 2], &server, &client);
                let source = |ours| {
                    if ours {
                        KeySource::Suites
                    } else {
                        KeySource::Secrets
                    }
                };
                assert_eq!(client.source(), source(ours_on_client));
                assert_eq!(server.source(), source(ours_on_server));
                let (mut client, mut server) = handshake(client, server);
                assert_keys_fit(&mut client, &mut server, 3);
            }
        }
    }
}

#[test]
fn client_that_goes_over_to_another_version_has_the_keys_of_a_server_that_began_with_it() {
    for version in Version::SUPPORTED {
        let other = Version::SUPPORTED
            .into_iter()
            .find(|other| *other != version)
            .unwrap();
        for suite in CipherSuite::offered() {
            let (server, client) = applications(stock(), with_suite(suite, stock()));
            for (mut client, server) in [
                sessions_of([other, version], suite, b"perf"),
                sessions_of_applications([other, version], &server, &client),
            ] {
                client.set_version(version);
                let (mut client, mut server) = handshake(client, server);
                assert_keys_fit(&mut client, &mut server, 3);
            }
        }
    }
}

#[test]
fn no_common_application_protocol_is_the_alert_for_it() {
    let (mut client, mut server) = sessions(Version::V1, CipherSuite::Aes128Gcm, b"other");
    let error = run(&mut client, &mut server).err().unwrap();
    assert_eq!(error.code, TransportErrorCode::crypto(120));
    assert!(error.to_string().contains("no_application_protocol"), "{error}");
}

/// Keeps the labels that begin with `CLIENT`, and wants no others.
#[derive(Debug, Default)]
struct ClientsOnly(Mutex<Vec<(String, Vec<u8>)>>);

impl KeyLog for ClientsOnly {
    fn log(&self, label: &str, _: &[u8], secret: &[u8]) {
        self.0.lock().unwrap().push((label.to_owned(), secret.to_vec()));
    }

    fn will_log(&self, label: &str) -> bool {
        label.starts_with("CLIENT")
    }
}

#[test]
fn key_log_of_the_application_gets_what_it_wants_and_nothing_else() {
    for provider in [stock(), provider_from(stock())] {
        let (server, client) = applications(provider.clone(), provider);
        let logs = [Arc::new(ClientsOnly::default()), Arc::new(ClientsOnly::default())];
        let (mut server, mut client) = ((*server).clone(), (*client).clone());
        server.key_log = Arc::clone(&logs[0]) as _;
        client.key_log = Arc::clone(&logs[1]) as _;
        let (client, server) =
            sessions_of_applications([Version::V1; 2], &Arc::new(server), &Arc::new(client));
        handshake(client, server);
        let [server, client] = logs.map(|log| log.0.lock().unwrap().clone());
        assert_eq!(server, client);
        let labels: Vec<_> = server.iter().map(|(label, _)| &label[..]).collect();
        assert_eq!(
            labels,
            ["CLIENT_HANDSHAKE_TRAFFIC_SECRET", "CLIENT_TRAFFIC_SECRET_0"]
        );
    }
}

#[test]
fn key_log_of_credentials_gets_the_secrets_of_both_sides() {
    let (chain, key) = identity();
    let lines = Arc::new(Mutex::new(Vec::new()));
    let log = || {
        let lines = Arc::clone(&lines);
        key_log_callback(move |label, client_random, secret| {
            assert_eq!((client_random.len(), secret.len()), (32, 32));
            lines.lock().unwrap().push((label.to_owned(), secret.to_vec()));
        })
    };
    let mut server = ServerCredentials::new(chain.clone(), key);
    (server.key_log, server.cipher_suites) = (log(), vec![CipherSuite::Aes128Gcm]);
    let mut client = ClientCredentials::roots(chain);
    client.key_log = log();
    let (client, server) = sessions_with(server, client);
    handshake(client, server);
    let mut lines = lines.lock().unwrap().clone();
    lines.sort();
    let (chunks, rest) = lines.as_chunks::<2>();
    assert!(rest.is_empty() && chunks.iter().all(|[one, other]| one == other));
    let labels: Vec<_> = chunks.iter().map(|[(label, _), _]| &label[..]).collect();
    assert_eq!(
        labels,
        [
            "CLIENT_HANDSHAKE_TRAFFIC_SECRET",
            "CLIENT_TRAFFIC_SECRET_0",
            "EXPORTER_SECRET",
            "SERVER_HANDSHAKE_TRAFFIC_SECRET",
            "SERVER_TRAFFIC_SECRET_0"
        ]
    );
}

fn sessions_with(server: ServerCredentials, client: ClientCredentials) -> (TlsSession, TlsSession) {
    let alpns = vec![b"perf".to_vec()];
    let server = ServerTls::new(server, alpns.clone()).unwrap();
    let client = ClientTls::new(client, alpns).unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    (
        TlsSession::client(&client, Version::V1, name, vec![1, 1, 5], None).unwrap(),
        TlsSession::server(&server, Version::V1, vec![1, 1, 6]).unwrap(),
    )
}

#[test]
fn exported_keying_material_is_that_of_rustls_and_the_same_on_both_sides() {
    for suite in CipherSuite::offered() {
        let (mut client, mut server) = sessions(Version::V1, suite, b"perf");
        assert_eq!(
            client.info().export_keying_material(b"label", b"", &mut [0; 8]),
            Err(ExportError::HandshakeNotComplete)
        );
        run(&mut client, &mut server).unwrap();
        let infos = [client.info(), server.info()];
        let theirs = client.into_tls();
        for (label, context, len) in [(&b"EXPORTER-test"[..], &b"context"[..], 32), (b"iv", b"", 100)] {
            let expected = theirs
                .export_keying_material(vec![0; len], label, Some(context))
                .unwrap();
            for info in &infos {
                let mut ours = vec![0; len];
                info.export_keying_material(label, context, &mut ours).unwrap();
                assert_eq!(ours, expected);
            }
        }
        let info = &infos[0];
        assert_eq!(
            info.export_keying_material(&[0; 250], b"", &mut [0; 8]),
            Err(ExportError::TooLong)
        );
        assert_eq!(
            info.export_keying_material(b"l", b"", &mut []),
            Err(ExportError::TooLong)
        );
        let mut long = vec![0; 255 * 48 + 1];
        assert_eq!(
            info.export_keying_material(b"l", b"", &mut long),
            Err(ExportError::TooLong)
        );
    }
}

#[test]
fn what_was_agreed_on_is_known_on_both_sides() {
    let (mut client, mut server) = sessions(Version::V1, CipherSuite::Aes256Gcm, b"perf");
    assert_eq!(client.info().cipher_suite, None);
    run(&mut client, &mut server).unwrap();
    for info in [client.info(), server.info()] {
        assert_eq!(info.cipher_suite, Some(CipherSuite::Aes256Gcm));
        assert_eq!(info.key_exchange_group, Some(rustls::NamedGroup::X25519MLKEM768));
        assert_eq!(info.alpn.as_deref(), Some(&b"perf"[..]));
        assert_eq!(info.server_name.as_deref(), Some("localhost"));
        assert!(!info.resumed);
    }
    assert_eq!(client.info().peer_certificates.len(), 1);
    assert!(server.info().peer_certificates.is_empty());
    assert_eq!(
        (client.info().ech, server.info().ech),
        (Some(EchOutcome::NotOffered), None)
    );
}

#[test]
fn configuration_of_rustls_that_lacks_something_says_what() {
    let (server, client) = applications(stock(), stock());
    let mut no_alpn = ((*server).clone(), (*client).clone());
    (no_alpn.0.alpn_protocols, no_alpn.1.alpn_protocols) = (Vec::new(), Vec::new());
    let says =
        |server: Result<ServerTls, TlsConfigError>, client: Result<ClientTls, TlsConfigError>, what: &str| {
            let errors = [server.err(), client.err()].map(|error| error.unwrap().to_string());
            assert!(errors.iter().all(|error| error.contains(what)), "{errors:?}");
        };
    says(
        ServerTls::from_rustls(&Arc::new(no_alpn.0)),
        ClientTls::from_rustls(&Arc::new(no_alpn.1)),
        "at least one ALPN name",
    );
    let mut empty = ((*server).clone(), (*client).clone());
    empty.0.alpn_protocols.push(Vec::new());
    empty.1.alpn_protocols.push(vec![b'x'; 256]);
    says(
        ServerTls::from_rustls(&Arc::new(empty.0)),
        ClientTls::from_rustls(&Arc::new(empty.1)),
        "1 to 255 bytes",
    );
    // Suites without keys for QUIC, as some providers have them.
    let mut provider = stock();
    provider.cipher_suites.retain(|suite| suite.tls13().is_some());
    for suite in &mut provider.cipher_suites {
        let stock = suite.tls13().unwrap();
        let suite_without = rustls::Tls13CipherSuite {
            common: rustls::crypto::CipherSuiteCommon {
                suite: stock.common.suite,
                hash_provider: stock.common.hash_provider,
                confidentiality_limit: stock.common.confidentiality_limit,
            },
            hkdf_provider: stock.hkdf_provider,
            aead_alg: stock.aead_alg,
            quic: None,
        };
        *suite = rustls::SupportedCipherSuite::Tls13(Box::leak(Box::new(suite_without)));
    }
    let (server, client) = applications(provider.clone(), provider);
    says(
        ServerTls::from_rustls(&server),
        ClientTls::from_rustls(&client),
        "no cipher suite for QUIC",
    );
}

#[test]
fn configuration_of_rustls_without_tls_1_3_says_that_quic_needs_it() {
    let provider = Arc::new(stock());
    let (chain, key) = identity();
    let versions = [&rustls::version::TLS12];
    let mut server = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&versions)
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    let mut client = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&versions)
        .unwrap()
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    server.alpn_protocols = vec![b"h3".to_vec()];
    client.alpn_protocols = vec![b"h3".to_vec()];
    let errors = [
        ServerTls::from_rustls(&Arc::new(server)).err().unwrap(),
        ClientTls::from_rustls(&Arc::new(client)).err().unwrap(),
    ];
    for error in errors {
        assert!(matches!(error, TlsConfigError::NoTls13), "{error}");
        assert!(error.to_string().contains("with_protocol_versions"), "{error}");
    }
}

#[test]
fn failure_is_told_in_the_words_of_rustls_and_names_no_source_file() {
    let (chain, key) = identity();
    let (mut client, mut server) = sessions_with(
        ServerCredentials::new(chain, key),
        ClientCredentials::roots(other_root()),
    );
    let error = run(&mut client, &mut server).err().unwrap();
    let text = format!("{error} {error:?}");
    assert!(text.contains("invalid peer certificate: UnknownIssuer"), "{text}");
    assert!(text.contains("alert 48 unknown_ca"), "{text}");
    assert!(!text.contains(".rs"), "{text}");
}

/// A client that is to ask, or a server.
fn deferred(received: CertificateReceived) -> (TlsSession, TlsSession) {
    let (chain, key) = identity();
    let (client_chain, client_key) = identity();
    let mut server = ServerCredentials::new(chain, key);
    server.client_authentication = ClientAuthentication::Handler { required: true };
    // It does not trust the server.
    let mut client = ClientCredentials::roots(other_root());
    client.identity = Some(Identity::new(client_chain, client_key));
    client.certificate_received = received;
    sessions_with(server, client)
}

#[test]
fn certificate_is_handed_over_once_and_with_what_its_verification_has_found() {
    let (mut client, mut server) = deferred(CertificateReceived::Deferred);
    run(&mut client, &mut server).unwrap();
    for side in [&mut client, &mut server] {
        let presented = side.take_certificate().unwrap();
        assert_eq!(presented.chain.len(), 1);
        let error = presented.deferred_error.unwrap().to_string();
        assert!(error.contains("UnknownIssuer"), "{error}");
        assert!(side.take_certificate().is_none());
    }
    let (mut client, mut server) = deferred(CertificateReceived::Indicated);
    let error = run(&mut client, &mut server).err().unwrap();
    assert_eq!(error.code, TransportErrorCode::crypto(48));
    assert!(client.take_certificate().is_none());
}

#[test]
fn verifier_that_defers_decides_itself_where_nobody_is_there_to_be_asked() {
    let (chain, _) = identity();
    let mut roots = RootCertStore::empty();
    roots.add(other_root()[0].clone()).unwrap();
    let inner = WebPkiServerVerifier::builder_with_provider(roots.into(), stock().into())
        .build()
        .unwrap();
    let verifier: Arc<dyn ServerCertVerifier> =
        DeferredServerVerifier::around(inner, CertificateReceived::Deferred);
    let name = ServerName::try_from("localhost").unwrap();
    let verdict = verifier.verify_server_cert(&chain[0], &[], &name, &[], UnixTime::now());
    assert!(verdict.is_err());
}

#[test]
fn server_that_is_told_its_protocol_agrees_on_that_one() {
    let (chain, key) = identity();
    let alpns = vec![b"b".to_vec(), b"a".to_vec()];
    let server = ServerTls::new(ServerCredentials::new(chain.clone(), key), alpns).unwrap();
    let client = ClientTls::new(
        ClientCredentials::roots(chain),
        vec![b"a".to_vec(), b"b".to_vec()],
    )
    .unwrap();
    for alpn in [&b"a"[..], b"b"] {
        let name = ServerName::try_from("localhost").unwrap();
        let mut client = TlsSession::client(&client, Version::V1, name, vec![], None).unwrap();
        let server = server.for_protocol(alpn).unwrap();
        let mut server = TlsSession::server(&server, Version::V1, vec![]).unwrap();
        run(&mut client, &mut server).unwrap();
        assert_eq!((client.alpn(), server.alpn()), (Some(alpn), Some(alpn)));
    }
    assert!(server.for_protocol(b"c").is_none());
}
