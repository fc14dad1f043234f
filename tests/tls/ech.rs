//! Encrypted Client Hello of clients, with servers that know nothing of it.

use ringway::rustls::crypto::aws_lc_rs::hpke::ALL_SUPPORTED_SUITES;
use ringway::{CloseReason, Configuration, Ech, EchOutcome};
use ringway_tests::pki::Authority;
use ringway_tests::{ALPN, settings};

use crate::scene::Scene;

/// An ECHConfigList of one configuration for this public name (RFC 9849 section 4).
fn configurations(public_name: &str) -> Vec<u8> {
    let suite = ALL_SUPPORTED_SUITES[0];
    let (key, _) = suite.generate_key_pair().unwrap();
    let with_len = |bytes: &[u8]| [&(bytes.len() as u16).to_be_bytes()[..], bytes].concat();
    let kem: u16 = suite.suite().kem.into();
    let symmetric = [
        u16::from(suite.suite().sym.kdf_id).to_be_bytes(),
        u16::from(suite.suite().sym.aead_id).to_be_bytes(),
    ]
    .concat();
    let mut contents = vec![7];
    contents.extend(kem.to_be_bytes());
    contents.extend(with_len(&key.0));
    contents.extend(with_len(&symmetric));
    contents.extend([64, public_name.len() as u8]);
    contents.extend(public_name.as_bytes());
    contents.extend([0, 0]);
    with_len(&[&[0xfe, 0x0d][..], &with_len(&contents)].concat())
}

#[test]
fn grease_disturbs_no_server() {
    let authority = Authority::new("Root");
    let server =
        Configuration::server(&[ALPN], settings(), authority.issue(&["localhost"]).server()).unwrap();
    let mut credentials = authority.client();
    credentials.ech = Ech::Grease;
    let client = Configuration::client(&[ALPN], settings(), credentials).unwrap();
    let mut scene = Scene::of(&server);
    let connection = scene.connect(&client, "localhost");
    scene.connected();
    let (sender, receiver) = std::sync::mpsc::channel();
    connection
        .with_tls_info(move |info| sender.send(info.unwrap().ech).unwrap())
        .unwrap();
    scene.run();
    assert_eq!(receiver.recv().unwrap(), Some(EchOutcome::NotOffered));
}

#[test]
fn server_that_does_not_decrypt_is_refused_and_sees_the_public_name_alone() {
    let authority = Authority::new("Root");
    let server = authority.issue(&["public.example", "secret.example"]).server();
    let server = Configuration::server(&[ALPN], settings(), server).unwrap();
    let mut credentials = authority.client();
    credentials.ech = Ech::Configurations(configurations("public.example"));
    let client = Configuration::client(&[ALPN], settings(), credentials).unwrap();
    let mut scene = Scene::new();
    let (log, seen) = (
        scene.server_log.clone(),
        std::sync::Arc::new(std::sync::Mutex::new(None)),
    );
    let name = std::sync::Arc::clone(&seen);
    scene.listen(&[ALPN], ringway::RetryPolicy::Never, move |incoming| {
        *name.lock().unwrap() = incoming.server_name().map(str::to_owned);
        incoming.accept(&server, crate::scene::watch(&log, crate::scene::done));
    });
    scene.connect(&client, "secret.example");
    scene.until("refused", |scene| scene.client_log.failure().is_some());
    assert_eq!(seen.lock().unwrap().as_deref(), Some("public.example"));
    let Some(CloseReason::EchRejected(rejected)) = scene.client_log.failure() else {
        panic!("{:?}", scene.client_log.all());
    };
    assert_eq!(rejected.retry_configurations, None);
    assert!(!scene.client_log.is_connected());
    scene.run();
    let text = scene.server_log.failure_text();
    assert!(text.contains("ech_required"), "{text}");
}

#[test]
fn configurations_that_cannot_be_used_are_refused_at_once() {
    let authority = Authority::new("Root");
    for list in [vec![], vec![1, 2, 3], vec![0, 0]] {
        let mut credentials = authority.client();
        credentials.ech = Ech::Configurations(list);
        let error = Configuration::client(&[ALPN], settings(), credentials)
            .unwrap_err()
            .to_string();
        assert!(error.contains("Encrypted Client Hello"), "{error}");
    }
}
