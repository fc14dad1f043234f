//! Credentials as files have them, and ones that take a while to get; what the library says of itself.

use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::Duration;

use ringway::{
    ClientCredentials, Configuration, ConfigurationError, ServerCredentials, TlsConfigError, VERSION,
    tls_provider,
};
use ringway_tests::{ALPN, settings};

use super::scene::Scene;

/// Certificate and key in PEM.
fn made() -> (String, String) {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    (made.cert.pem(), made.signing_key.serialize_pem())
}

#[test]
fn certificates_and_keys_are_read_as_files_have_them() {
    let (chain, key) = made();
    let both = format!("Somebody's certificate\n{chain}and key\n{key}");
    for (chain, key) in [(&chain, &key), (&both, &both)] {
        let mut scene = Scene::new();
        let server = ServerCredentials::from_pem(chain.as_bytes(), key.as_bytes()).unwrap();
        let client = ClientCredentials::roots_from_pem(chain.as_bytes()).unwrap();
        scene.server_config = Configuration::server(&[ALPN], settings(), server).unwrap();
        scene.client_config = Configuration::client(&[ALPN], settings(), client).unwrap();
        let _listener = scene.listen();
        scene.connect();
    }
    let wrong = |chain: &str, key: &str| {
        let error = ServerCredentials::from_pem(chain.as_bytes(), key.as_bytes()).err();
        assert!(matches!(error, Some(TlsConfigError::Pem { .. })), "{error:?}");
        error.unwrap().to_string()
    };
    assert!(wrong("", &key).contains("certificate"));
    assert!(wrong(&chain, &chain).contains("private key"));
    assert!(wrong(&chain.replace("END", "AND"), &key).contains("certificate"));
    assert!(ClientCredentials::roots_from_pem(key.as_bytes()).is_err());
}

#[test]
fn credentials_that_take_a_while_hold_up_no_handshake_and_serve_the_next_ones() {
    let mut scene = Scene::new();
    let _listener = scene.listen();
    let (chain, key) = made();
    let (go, may_go) = channel::<()>();
    let (sender, done) = channel();
    let of_server = Arc::clone(&scene.server_config);
    let pem = chain.clone();
    of_server
        .load_credential_async(
            move || {
                let _ = may_go.recv();
                Ok(ServerCredentials::from_pem(pem.as_bytes(), key.as_bytes())?)
            },
            move |result| {
                sender
                    .send(result.map_err(|error| error.to_string()))
                    .unwrap_or_default()
            },
        )
        .unwrap();
    // With the certificate of before.
    scene.connect();
    go.send(()).unwrap();
    assert_eq!(done.recv_timeout(Duration::from_secs(10)).unwrap(), Ok(()));
    let roots = ClientCredentials::roots_from_pem(chain.as_bytes()).unwrap();
    scene.client_config = Configuration::client(&[ALPN], settings(), roots).unwrap();
    scene.connect();
    let (sender, done) = channel();
    of_server
        .load_credential_async(
            || Err::<ServerCredentials, _>(ConfigurationError::Unavailable("the safe is shut".to_owned())),
            move |result| sender.send(result.unwrap_err().to_string()).unwrap_or_default(),
        )
        .unwrap();
    assert!(
        done.recv_timeout(Duration::from_secs(10))
            .unwrap()
            .contains("the safe is shut")
    );
    scene.connect();
}

#[test]
fn library_tells_its_version_and_its_tls() {
    assert_eq!(VERSION.split('.').count(), 3);
    assert!(tls_provider().starts_with("rustls with aws-lc"));
}
