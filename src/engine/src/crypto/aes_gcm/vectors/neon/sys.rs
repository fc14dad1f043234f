//! Single blocks of NEON, with AES and PMULL of ARMv8.

use core::arch::aarch64::*;
use std::arch::is_aarch64_feature_detected;

use crate::crypto::aes_gcm::vectors::block::{self, BLOCK_LEN};
use crate::crypto::aes_gcm::vectors::sys::vectors;

const _: () = assert!(
    cfg!(target_endian = "little"),
    "the order of bytes is that of little-endian machines: build without the feature fused_aes_gcm"
);

vectors! {
    /// NEON with AES and PMULL: servers of ARMv8.
    pub struct Neon;
    features = "neon,aes",
    detect = is_aarch64_feature_detected!("neon")
        && is_aarch64_feature_detected!("aes")
        && is_aarch64_feature_detected!("pmull");
    blocks = 1, holds_round_keys = false, joins = false, vector = uint8x16_t;

    fn zero() -> uint8x16_t {
        vdupq_n_u8(0)
    }

    fn first_block(block: u128) -> uint8x16_t {
        number(block)
    }

    fn broadcast(block: &[u8; BLOCK_LEN]) -> uint8x16_t {
        // SAFETY: it reads the 16 bytes of the array, which need no alignment.
        unsafe { vld1q_u8(block.as_ptr()) }
    }

    fn broadcast_number(block: u128) -> uint8x16_t {
        number(block)
    }

    fn counters(first: u32) -> uint8x16_t {
        number(u128::from(first.to_be()) << 96)
    }

    fn counter(counter: u32) -> uint8x16_t {
        number(u128::from(counter.to_be()) << 96)
    }

    fn load(bytes: &[u8]) -> uint8x16_t {
        let bytes = &bytes[..BLOCK_LEN];
        // SAFETY: it reads the 16 bytes of the slice, which need no alignment.
        unsafe { vld1q_u8(bytes.as_ptr()) }
    }

    fn store(bytes: &mut [u8], vector: uint8x16_t) {
        let bytes = &mut bytes[..BLOCK_LEN];
        // SAFETY: it writes the 16 bytes of the slice, which need no alignment.
        unsafe { vst1q_u8(bytes.as_mut_ptr(), vector) }
    }

    fn load_first(bytes: &[u8]) -> uint8x16_t {
        number(block::read(bytes))
    }

    fn store_first(bytes: &mut [u8], vector: uint8x16_t) {
        block::write(bytes, of_vector(vector));
    }

    fn keep_first(vector: uint8x16_t, len: usize) -> uint8x16_t {
        vandq_u8(vector, number(block::mask(len)))
    }

    fn load_joined(_bytes: &[u8], _behind: &[u8]) -> uint8x16_t {
        unreachable!("these vectors do not join")
    }

    fn store_second_half(_bytes: &mut [u8], _vector: uint8x16_t) {
        unreachable!("these vectors do not join")
    }

    fn keep_second_half(_vector: uint8x16_t, _len: usize) -> uint8x16_t {
        unreachable!("these vectors do not join")
    }

    fn first_to_second(vector: uint8x16_t) -> uint8x16_t {
        vector
    }

    fn second_to_first(vector: uint8x16_t) -> uint8x16_t {
        vector
    }

    fn to_number(vector: uint8x16_t) -> u128 {
        of_vector(vector)
    }

    fn xor(a: uint8x16_t, b: uint8x16_t) -> uint8x16_t {
        veorq_u8(a, b)
    }

    fn xor3(a: uint8x16_t, b: uint8x16_t, c: uint8x16_t) -> uint8x16_t {
        veorq_u8(veorq_u8(a, b), c)
    }

    fn sum(vector: uint8x16_t) -> uint8x16_t {
        vector
    }

    fn reverse(vector: uint8x16_t) -> uint8x16_t {
        let halves = vrev64q_u8(vector);
        vextq_u8::<8>(halves, halves)
    }

    fn swap_halves(vector: uint8x16_t) -> uint8x16_t {
        vextq_u8::<8>(vector, vector)
    }

    fn product_low(a: uint8x16_t, b: uint8x16_t) -> uint8x16_t {
        low_product(a, b)
    }

    fn product_high(a: uint8x16_t, b: uint8x16_t) -> uint8x16_t {
        high_product(a, b)
    }

    fn product_low_high(a: uint8x16_t, b: uint8x16_t) -> uint8x16_t {
        low_product(a, vextq_u8::<8>(b, b))
    }

    fn product_high_low(a: uint8x16_t, b: uint8x16_t) -> uint8x16_t {
        high_product(a, vextq_u8::<8>(b, b))
    }

    fn round(vector: uint8x16_t, key: uint8x16_t) -> uint8x16_t {
        // The instruction adds a key first, and not last. The compiler makes it the key of the round before.
        veorq_u8(vaesmcq_u8(vaeseq_u8(vector, vdupq_n_u8(0))), key)
    }

    fn last_round(vector: uint8x16_t, key: uint8x16_t) -> uint8x16_t {
        veorq_u8(vaeseq_u8(vector, vdupq_n_u8(0)), key)
    }

    fn substitute_word(word: u32) -> u32 {
        // All columns are the same: that the instruction shifts the rows changes nothing.
        let columns = vreinterpretq_u8_u32(vdupq_n_u32(word));
        vgetq_lane_u32::<0>(vreinterpretq_u32_u8(vaeseq_u8(columns, vdupq_n_u8(0))))
    }
}

#[inline]
#[target_feature(enable = "neon,aes")]
fn low_product(a: uint8x16_t, b: uint8x16_t) -> uint8x16_t {
    let [a, b] = [a, b].map(|vector| vgetq_lane_p64::<0>(vreinterpretq_p64_u8(vector)));
    vreinterpretq_u8_p128(vmull_p64(a, b))
}

#[inline]
#[target_feature(enable = "neon,aes")]
fn high_product(a: uint8x16_t, b: uint8x16_t) -> uint8x16_t {
    vreinterpretq_u8_p128(vmull_high_p64(vreinterpretq_p64_u8(a), vreinterpretq_p64_u8(b)))
}

#[inline]
#[target_feature(enable = "neon")]
fn number(block: u128) -> uint8x16_t {
    vreinterpretq_u8_u64(vcombine_u64(
        vcreate_u64(block as u64),
        vcreate_u64((block >> 64) as u64),
    ))
}

#[inline]
#[target_feature(enable = "neon")]
fn of_vector(block: uint8x16_t) -> u128 {
    let halves = vreinterpretq_u64_u8(block);
    u128::from(vgetq_lane_u64::<1>(halves)) << 64 | u128::from(vgetq_lane_u64::<0>(halves))
}
