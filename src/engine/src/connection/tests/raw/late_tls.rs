//! TLS messages after the handshake.

use super::*;

#[test]
fn key_update_message_of_tls_closes_both_sides_with_unexpected_message() {
    for is_server in [true, false] {
        let mut bench = bench(config(), is_server);
        bench.receive(&frames(|w| frame::encode_crypto(w, 0, &[24, 0, 0, 1, 0])));
        assert_eq!(
            bench.error(),
            Some(TransportErrorCode::crypto(10)),
            "server: {is_server}"
        );
    }
}

#[test]
fn certificate_request_after_the_handshake_closes_a_client() {
    // RFC 9001 section 4.4: PROTOCOL_VIOLATION.
    let mut bench = bench(config(), false);
    bench.receive(&frames(|w| frame::encode_crypto(w, 0, &[13, 0, 0, 3, 0, 0, 0])));
    assert_eq!(bench.error(), Some(TransportErrorCode::PROTOCOL_VIOLATION));
}

#[test]
fn handshake_data_after_the_handshake_takes_no_memory() {
    // CVE-2024-1765 (quiche): CRYPTO frames without end after the handshake.
    let mut bench = bench(config(), false);
    for index in 0..2000u64 {
        bench.receive(&frames(|w| frame::encode_crypto(w, index * 2000 + 7, &[4; 1000])));
    }
    assert_eq!(bench.error(), None);
}
