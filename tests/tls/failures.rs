//! Handshakes that fail: the reason, and which side found it.

use std::sync::Arc;

use ringway::pki_types::CertificateDer;
use ringway::{
    ClientAuthentication, ClientCredentials, Configuration, KeyExchangeGroup, TransportErrorCode,
    UnusableRoots,
};
use ringway_tests::pki::{Authority, Made};
use ringway_tests::{ALPN, settings};

use crate::scene::Scene;

fn server(made: &Made) -> Arc<Configuration> {
    Configuration::server(&[ALPN], settings(), made.server()).unwrap()
}

fn client(credentials: ClientCredentials) -> Arc<Configuration> {
    Configuration::client(&[ALPN], settings(), credentials).unwrap()
}

/// What the client and the server say of a handshake that fails.
fn texts(server: &Arc<Configuration>, client: &Arc<Configuration>) -> [String; 2] {
    let mut scene = Scene::of(server);
    scene.connect(client, "localhost");
    scene.until("failed", |scene| {
        scene.client_log.failure().is_some() && scene.server_log.failure().is_some()
    });
    assert!(!scene.server_log.is_connected());
    let texts = [scene.client_log.failure_text(), scene.server_log.failure_text()];
    for text in &texts {
        assert!(!text.contains(".rs") && !text.contains("frame type"), "{text}");
    }
    texts
}

#[test]
fn certificate_that_is_not_trusted_is_told_on_both_sides_in_the_words_of_tls() {
    let authority = Authority::new("Root");
    let expired = authority.issue_with(&["localhost"], |params| {
        params.not_before = rcgen::date_time_ymd(2019, 1, 1);
        params.not_after = rcgen::date_time_ymd(2020, 1, 1);
    });
    for (made, credentials, ours, theirs) in [
        (
            authority.issue(&["localhost"]),
            Authority::new("Another Root").client(),
            "invalid peer certificate: UnknownIssuer",
            "TLS alert 48 unknown_ca",
        ),
        (
            expired,
            authority.client(),
            "certificate expired",
            "TLS alert 45 certificate_expired",
        ),
        (
            authority.issue(&["elsewhere.example"]),
            authority.client(),
            "certificate not valid for name \"localhost\"",
            "TLS alert 42 bad_certificate",
        ),
    ] {
        let [client, server] = texts(&server(&made), &client(credentials));
        assert!(client.starts_with("we refused the handshake: "), "{client}");
        assert!(client.contains(ours) && client.contains(theirs), "{client}");
        // Not all of it is the peer's business.
        assert!(
            server.starts_with(&format!("the peer refused the handshake: {theirs}")),
            "{server}"
        );
        assert!(!server.contains("localhost"), "{server}");
    }
}

#[test]
fn client_without_the_certificate_that_is_demanded_is_told_so() {
    let authority = Authority::new("Root");
    let mut credentials = authority.issue(&["localhost"]).server();
    credentials.client_authentication = ClientAuthentication::Roots {
        roots: vec![authority.root()],
        crls: Vec::new(),
        required: true,
    };
    let server = Configuration::server(&[ALPN], settings(), credentials).unwrap();
    let [client, server] = texts(&server, &client(authority.client()));
    assert!(
        client.contains("the peer refused the handshake: TLS alert 116 certificate_required"),
        "{client}"
    );
    assert!(server.contains("we refused the handshake: "), "{server}");
}

#[test]
fn sides_without_a_common_group_or_protocol_say_so() {
    let authority = Authority::new("Root");
    let mut credentials = authority.client();
    credentials.key_exchange_groups = vec![KeyExchangeGroup::Secp384r1];
    let p384 = client(credentials);
    let mut credentials = authority.issue(&["localhost"]).server();
    credentials.key_exchange_groups = vec![KeyExchangeGroup::X25519];
    let x25519 = Configuration::server(&[ALPN], settings(), credentials).unwrap();
    let [client, server] = texts(&x25519, &p384);
    assert!(client.contains("TLS alert 40 handshake_failure"), "{client}");
    assert!(server.contains("NoKxGroupsInCommon"), "{server}");

    let other = Configuration::client(&[b"other"], settings(), authority.client()).unwrap();
    let mut scene = Scene::of(&x25519);
    scene.connect(&other, "localhost");
    scene.until("failed", |scene| scene.client_log.failure().is_some());
    let text = scene.client_log.failure_text();
    let code = TransportErrorCode::crypto(120);
    assert!(
        text.contains(&format!("{code:?}")) && text.contains("no listener has"),
        "{text}"
    );
}

#[test]
fn odd_root_is_named_and_left_out_or_refused_as_asked() {
    let authority = Authority::new("Good Root");
    let mut odd = Authority::new("Odd Root").root().to_vec();
    let version = odd
        .windows(5)
        .position(|bytes| bytes == [0xa0, 3, 2, 1, 2])
        .unwrap();
    odd[version + 4] = 3;
    let roots = || vec![CertificateDer::from(odd.clone()), authority.root()];
    let left_out = client(ClientCredentials::roots(roots()));
    let unusable = left_out.unusable_roots();
    assert_eq!((unusable.len(), unusable[0].index), (1, 0));
    assert!(unusable[0].to_string().contains("Odd Root"), "{}", unusable[0]);
    let mut scene = Scene::of(&server(&authority.issue(&["localhost"])));
    scene.connect(&left_out, "localhost");
    scene.connected();

    let mut credentials = ClientCredentials::roots(roots());
    credentials.unusable_roots = UnusableRoots::Refuse;
    let error = Configuration::client(&[ALPN], settings(), credentials)
        .unwrap_err()
        .to_string();
    assert!(error.contains("Odd Root"), "{error}");
}

#[test]
fn servers_of_trust_anchors_are_trusted() {
    let authority = Authority::new("Root");
    let mut store = ringway::rustls::RootCertStore::empty();
    store.add(authority.root()).unwrap();
    let mut scene = Scene::of(&server(&authority.issue(&["localhost"])));
    scene.connect(
        &client(ClientCredentials::trust_anchors(store.roots)),
        "localhost",
    );
    scene.connected();
}
