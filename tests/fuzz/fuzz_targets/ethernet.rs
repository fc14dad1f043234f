//! Headers of frames from a NIC: nothing panics, and the datagram that is found lies within the frame, behind its headers.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ringway_datapath::af_xdp::payload_of;

fuzz_target!(|data: &[u8]| {
    if let Some(payload) = payload_of(data) {
        assert!(payload.start >= 14 + 20 + 8 && payload.start <= payload.end && payload.end <= data.len());
    }
});
