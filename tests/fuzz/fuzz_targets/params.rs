//! Transport parameters: nothing panics, and what is decoded survives encoding.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rand::SeedableRng;
use rand::rngs::StdRng;
use ringway_engine::wire::Side;
use ringway_engine::wire::transport_parameters::TransportParameters;

fuzz_target!(|data: &[u8]| {
    for side in [Side::Client, Side::Server] {
        let Ok(params) = TransportParameters::decode(data, side) else {
            continue;
        };
        let mut encoded = Vec::new();
        params.encode(&mut encoded, &mut StdRng::seed_from_u64(1));
        assert_eq!(TransportParameters::decode(&encoded, side).as_ref(), Ok(&params));
    }
});
