//! Handshakes of TLS alone, for tests of what lies around it.

use rustls::pki_types::{PrivateKeyDer, ServerName};

use super::one_rtt::OneRttKeys;
use super::suite::CipherSuite;
use super::tls::{ClientTls, KeyChange, ServerTls, ServerVerification, TlsSession};
use crate::wire::Version;

/// Sessions of a client and a server that agree on this.
pub(super) fn sessions(version: Version, suite: CipherSuite, server_alpn: &[u8]) -> (TlsSession, TlsSession) {
    sessions_of([version; 2], suite, server_alpn)
}

/// The same, made for other versions each: the client's and the server's.
pub(super) fn sessions_of(
    versions: [Version; 2],
    suite: CipherSuite,
    server_alpn: &[u8],
) -> (TlsSession, TlsSession) {
    let certified = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let chain = vec![certified.cert.der().clone()];
    let key = PrivateKeyDer::try_from(certified.signing_key.serialize_der()).unwrap();
    let server = ServerTls::new(
        chain.clone(),
        key,
        vec![server_alpn.to_vec()],
        &CipherSuite::ALL,
        None,
    )
    .unwrap();
    let client = ClientTls::new(
        ServerVerification::Roots(chain),
        None,
        vec![b"perf".to_vec()],
        &[suite],
    )
    .unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    (
        TlsSession::client(&client, versions[0], name, vec![1, 1, 5], None).unwrap(),
        TlsSession::server(&server, versions[1], vec![1, 1, 6]).unwrap(),
    )
}

/// The first flight of a client that asks for `localhost` and `perf`.
pub(super) fn client_hello() -> Vec<u8> {
    let mut bytes = Vec::new();
    sessions(Version::V1, CipherSuite::Aes128Gcm, b"perf")
        .0
        .write(&mut bytes);
    bytes
}

/// Keys of both sides after a handshake.
pub(super) fn one_rtt_pair() -> (OneRttKeys, OneRttKeys) {
    let (client, server) = sessions(Version::V1, CipherSuite::Aes128Gcm, b"perf");
    handshake(client, server)
}

/// Runs a handshake to its end.
pub(super) fn handshake(mut client: TlsSession, mut server: TlsSession) -> (OneRttKeys, OneRttKeys) {
    let mut keys = [None, None];
    for _ in 0..10 {
        for from in 0..2 {
            loop {
                // Each packet number space has a CRYPTO stream of its own: none of a message may be read with another's.
                let mut bytes = Vec::new();
                let change = [&mut client, &mut server][from].write(&mut bytes);
                [&mut client, &mut server][1 - from].read(&bytes).unwrap();
                match change {
                    Some(KeyChange::OneRtt(new)) => keys[from] = Some(*new),
                    None if bytes.is_empty() => break,
                    _ => {}
                }
            }
        }
    }
    assert!(!client.is_handshaking() && !server.is_handshaking());
    assert_eq!(client.alpn(), Some(&b"perf"[..]));
    assert_eq!(client.peer_transport_parameters(), Some(&[1, 1, 6][..]));
    assert_eq!(server.peer_transport_parameters(), Some(&[1, 1, 5][..]));
    let [client, server] = keys.map(Option::unwrap);
    (client, server)
}
