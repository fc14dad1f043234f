//! Encrypted Client Hello that is refused. What becomes of one that is accepted is seen from outside (`tests/tls/ech.rs`).

use rustls::internal::msgs::codec::{Codec, Reader};
use rustls::internal::msgs::handshake::EchConfigPayload;
use rustls::{Error, PeerIncompatible};

use crate::crypto::tls::ech::EchRejected;

fn with_len(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u16).to_be_bytes()[..], bytes].concat()
}

/// A configuration for the public name `localhost` (ECHConfig).
fn configuration() -> Vec<u8> {
    let suite = rustls::crypto::aws_lc_rs::hpke::ALL_SUPPORTED_SUITES[0];
    let (key, _) = suite.generate_key_pair().unwrap();
    let id = suite.suite();
    let symmetric = [
        u16::from(id.sym.kdf_id).to_be_bytes(),
        u16::from(id.sym.aead_id).to_be_bytes(),
    ];
    let name = b"localhost";
    let contents = [
        &[7][..],
        &u16::from(id.kem).to_be_bytes(),
        &with_len(&key.0),
        &with_len(&symmetric.concat()),
        &[64, name.len() as u8],
        name,
        &[0, 0],
    ];
    [&[0xfe, 0x0d][..], &with_len(&contents.concat())].concat()
}

#[test]
fn configurations_to_try_again_with_are_handed_on_as_they_came() {
    let list = with_len(&[configuration(), configuration()].concat());
    let parsed = Vec::<EchConfigPayload>::read(&mut Reader::init(&list)).unwrap();
    let error = |retry| Error::PeerIncompatible(PeerIncompatible::ServerRejectedEncryptedClientHello(retry));
    let rejected = EchRejected::of(&error(Some(parsed))).unwrap();
    assert_eq!(rejected.retry_configurations, Some(list));
    assert_eq!(EchRejected::of(&error(None)).unwrap().retry_configurations, None);
    assert_eq!(EchRejected::of(&Error::DecryptError), None);
}
