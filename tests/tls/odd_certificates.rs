//! Certificates that webpki does not read, where nobody verifies them.

use std::sync::Arc;

use ringway::{ClientAuthentication, ClientCredentials, Configuration, Connection, EventStatus, RetryPolicy};
use ringway_tests::pki::{Authority, Made};
use ringway_tests::{ALPN, settings};

use crate::scene::{Scene, watch};

/// As they occur in the field: "version 4", an extension that must be understood and is not, no names.
fn odd(authority: &Authority) -> [(&'static str, Made); 3] {
    let critical = authority.issue_with(&["localhost"], |params| {
        let mut extension =
            rcgen::CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 99_999, 1], vec![5, 0]);
        extension.set_criticality(true);
        params.custom_extensions.push(extension);
    });
    [
        ("version 4", authority.issue(&["localhost"]).version_4()),
        ("unknown critical extension", critical),
        ("no SAN", authority.issue(&[])),
    ]
}

#[test]
fn client_that_trusts_every_server_takes_them_and_one_with_roots_does_not() {
    let authority = Authority::new("Root");
    for (name, made) in odd(&authority) {
        let server = Configuration::server(&[ALPN], settings(), made.server()).unwrap();
        let all = ClientCredentials::no_verification();
        let all = Configuration::client(&[ALPN], settings(), all).unwrap();
        let mut scene = Scene::of(&server);
        scene.connect(&all, "localhost");
        scene.connected();
        let strict = Configuration::client(&[ALPN], settings(), authority.client()).unwrap();
        let mut scene = Scene::of(&server);
        scene.connect(&strict, "localhost");
        scene.until(name, |scene| scene.client_log.failure().is_some());
        let text = scene.client_log.failure_text();
        assert!(text.contains("invalid peer certificate"), "{name}: {text}");
    }
}

#[test]
fn key_must_be_that_of_the_certificate_be_it_as_odd_as_it_may() {
    let authority = Authority::new("Root");
    for (name, mut made) in odd(&authority) {
        made.key = rcgen::KeyPair::generate().unwrap();
        let error = Configuration::server(&[ALPN], settings(), made.server())
            .unwrap_err()
            .to_string();
        assert!(error.contains("KeyMismatch"), "{name}: {error}");
        // A signing key of the application that does not tell: the client finds out.
        let key = Unknown(
            ringway::rustls::crypto::aws_lc_rs::sign::any_supported_type(&made.private_key()).unwrap(),
        );
        let identity = ringway::Identity::with_signing_key(vec![made.certificate.clone()], Arc::new(key));
        let credentials = ringway::ServerCredentials::with_identity(identity);
        let server = Configuration::server(&[ALPN], settings(), credentials).unwrap();
        let all = ClientCredentials::no_verification();
        let all = Configuration::client(&[ALPN], settings(), all).unwrap();
        let mut scene = Scene::of(&server);
        scene.connect(&all, "localhost");
        scene.until(name, |scene| scene.client_log.failure().is_some());
        let text = scene.client_log.failure_text();
        assert!(text.contains("BadSignature"), "{name}: {text}");
    }
}

/// As the key of a module that signs and says nothing else.
#[derive(Debug)]
struct Unknown(Arc<dyn ringway::rustls::sign::SigningKey>);

impl ringway::rustls::sign::SigningKey for Unknown {
    fn choose_scheme(
        &self,
        offered: &[ringway::rustls::SignatureScheme],
    ) -> Option<Box<dyn ringway::rustls::sign::Signer>> {
        self.0.choose_scheme(offered)
    }

    fn algorithm(&self) -> ringway::rustls::SignatureAlgorithm {
        self.0.algorithm()
    }
}

#[test]
fn server_whose_handler_decides_takes_them_from_clients() {
    let authority = Authority::new("Root");
    for (_, made) in odd(&authority) {
        let mut credentials = authority.issue(&["localhost"]).server();
        credentials.client_authentication = ClientAuthentication::Handler { required: true };
        let server = Configuration::server(&[ALPN], settings(), credentials).unwrap();
        let mut credentials = authority.client();
        credentials.identity = Some(made.identity());
        let client = Configuration::client(&[ALPN], settings(), credentials).unwrap();
        let mut scene = Scene::new();
        let log = scene.server_log.clone();
        scene.listen(&[ALPN], RetryPolicy::Never, move |incoming| {
            let trusts = |connection: &Connection| {
                connection.certificate_valid(true).unwrap();
                EventStatus::Done
            };
            incoming.accept(&server, watch(&log, trusts));
        });
        scene.connect(&client, "localhost");
        scene.connected();
        assert!(scene.server_log.has_certificate());
    }
}

#[test]
fn key_that_the_application_keeps_signs_for_the_server() {
    let authority = Authority::new("Root");
    let made = authority.issue(&["localhost"]);
    let key = ringway::rustls::crypto::aws_lc_rs::sign::any_supported_type(&made.private_key()).unwrap();
    let identity =
        ringway::Identity::with_signing_key(vec![made.certificate.clone()], Arc::new(Unknown(key)));
    let credentials = ringway::ServerCredentials::with_identity(identity);
    let server = Configuration::server(&[ALPN], settings(), credentials).unwrap();
    let client = Configuration::client(&[ALPN], settings(), authority.client()).unwrap();
    let mut scene = Scene::of(&server);
    scene.connect(&client, "localhost");
    scene.connected();
}
