//! Packet headers: nothing panics, and what is decoded lies within the datagram.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ringway_engine::wire::header::{self, ProtectedHeader};
use ringway_engine::wire::stateless;

fuzz_target!(|data: &[u8]| {
    let _ = header::destination_cid(data, 8);
    let _ = stateless::reset_token_of(data);
    match header::decode(data, 8) {
        Ok(ProtectedHeader::Long(long)) => {
            assert!(long.packet_len <= data.len() && long.number_offset < long.packet_len);
            assert!(data.get(long.token).is_some());
            if let Some(sample) = header::sample(&data[..long.packet_len], long.number_offset) {
                let mut packet = data[..long.packet_len].to_vec();
                let mask = [sample[0], sample[1], sample[2], sample[3], sample[4]];
                let unmasked = header::remove_protection(&mut packet, long.number_offset, mask);
                header::apply_protection(&mut packet, long.number_offset, unmasked.number_len, mask);
                assert_eq!(packet, data[..long.packet_len]);
            }
        }
        Ok(ProtectedHeader::Retry(retry)) => assert!(data.get(retry.token).is_some()),
        Ok(ProtectedHeader::VersionNegotiation(negotiation)) => {
            header::versions(&data[negotiation.versions]).for_each(drop);
        }
        Ok(ProtectedHeader::UnsupportedVersion(unsupported)) => {
            assert!(data.get(unsupported.dcid).is_some() && data.get(unsupported.scid).is_some());
        }
        Ok(ProtectedHeader::Short { number_offset }) => assert!(number_offset <= data.len()),
        Err(_) => {}
    }
});
