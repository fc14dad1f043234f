//! One message through the cipher and the hash at once.
//!
//! The vectors are those of the counters. The first has 0 to 3: 0 is not used, 1 hides the tag, and two blocks of data follow (SP 800-38D section
//! 7.1). So the counters of a chunk differ from those of the first in bits that are zero in these, and what hides the tag costs nothing. In the
//! hash the last block of the header lies in front of the two blocks of data.

use core::arch::x86_64::*;

use super::ghash::{self, Products};
use super::nonce::Nonce;
use super::schedule::{STEP, Schedule};
use super::sys::{self, BLOCK_LEN, VECTOR_LEN};
use crate::crypto::suite::TAG_LEN;

/// Bytes that go into one step of the hash.
const CHUNK: usize = STEP * BLOCK_LEN;
const VECTORS: usize = CHUNK / VECTOR_LEN;
/// Where the first vector has data.
const HEAD_AT: usize = 2 * BLOCK_LEN;
/// Bytes of data in the first vector.
const HEAD: usize = VECTOR_LEN - HEAD_AT;

/// Seals `in_place` bytes at the start of `packet` and, behind them, those of `tail`, which are read where they lie; the tag comes last.
#[target_feature(enable = "bmi2,aes,vaes,vpclmulqdq,avx512f,avx512bw,avx512vl")]
pub(super) fn seal<const ROUNDS: usize>(
    schedule: &Schedule<ROUNDS>,
    nonce: Nonce,
    header: &[u8],
    packet: &mut [u8],
    mut tail: &[u8],
) {
    let (data, tag) = packet
        .split_last_chunk_mut::<TAG_LEN>()
        .expect("there is room for the tag");
    let in_place = data.len() - tail.len();
    if in_place > HEAD {
        // What shares a chunk with bytes in place is moved to them, so that no chunk is of both. The first vector may be.
        let near;
        (near, tail) = tail.split_at(
            tail.len()
                .min((in_place + HEAD_AT).next_multiple_of(CHUNK) - HEAD_AT - in_place),
        );
        data[in_place..][..near.len()].copy_from_slice(near);
    }
    let sealed = Pass::start(schedule, nonce, header).run::<true>(header.len(), data, tail);
    sys::store_block(tag, sealed);
}

/// Opens a message in place and gives the plaintext; `payload` is the ciphertext and the tag. `None`: it is not authentic, and zeros are in its
/// place.
#[target_feature(enable = "bmi2,aes,vaes,vpclmulqdq,avx512f,avx512bw,avx512vl")]
pub(super) fn open<'a, const ROUNDS: usize>(
    schedule: &Schedule<ROUNDS>,
    nonce: Nonce,
    header: &[u8],
    payload: &'a mut [u8],
) -> Option<&'a mut [u8]> {
    let (data, tag) = payload.split_last_chunk_mut::<TAG_LEN>()?;
    let expected = Pass::start(schedule, nonce, header).run::<false>(header.len(), data, &[]);
    let difference = _mm_xor_si128(expected, sys::load_block(tag));
    if _mm_test_epi64_mask(difference, difference) == 0 {
        Some(data)
    } else {
        data.fill(0);
        None
    }
}

struct Pass<'a, const ROUNDS: usize> {
    schedule: &'a Schedule<ROUNDS>,
    round_keys: [__m512i; 15],
    /// The blocks of the counters 0 to 15, exclusive-or with the first round key.
    blocks: [__m512i; VECTORS],
    /// The first counter of the chunk that is to be ciphered.
    counter: u32,
    /// GHASH so far, its bytes in reverse. In the middle of a message it is the sum of four numbers, each of which has as many factors H too many
    /// as are blocks before it: the powers for the last vectors are lower by these.
    hash: __m512i,
}

impl<'a, const ROUNDS: usize> Pass<'a, ROUNDS> {
    #[inline]
    #[target_feature(enable = "bmi2,vpclmulqdq,avx512f,avx512bw,avx512vl")]
    fn start(schedule: &'a Schedule<ROUNDS>, nonce: Nonce, header: &[u8]) -> Self {
        let round_keys = schedule.wide_round_keys();
        let nonce = _mm512_broadcast_i32x4(_mm_set_epi64x(i64::from(nonce.last), nonce.first as i64));
        let nonce = _mm512_xor_si512(nonce, round_keys[0]);
        // Big-endian.
        let counters = |first: i32| {
            let counter = |i| (first + i) << 24;
            _mm512_set_epi32(
                counter(3),
                0,
                0,
                0,
                counter(2),
                0,
                0,
                0,
                counter(1),
                0,
                0,
                0,
                counter(0),
                0,
                0,
                0,
            )
        };
        let blocks = [0, 4, 8, 12].map(|first| _mm512_xor_si512(nonce, counters(first)));

        let mut hash = _mm512_setzero_si512();
        let mut header = header.chunks(BLOCK_LEN);
        let last = header.next_back().unwrap_or_default();
        for block in header {
            let block = _mm512_xor_si512(ghash::reverse(sys::load_first(block)), hash);
            hash = Products::none().and(block, schedule.powers_down_from(1)).reduce();
        }
        let last = _mm512_xor_si512(ghash::reverse(sys::load_first(last)), hash);
        let hash = _mm512_inserti32x4(_mm512_setzero_si512(), _mm512_castsi512_si128(last), 1);
        Pass {
            schedule,
            round_keys,
            blocks,
            counter: 0,
            hash,
        }
    }

    /// Ciphers all of `data`, of which the last bytes come from `tail`, and gives the tag.
    #[inline]
    #[target_feature(enable = "bmi2,aes,vaes,vpclmulqdq,avx512f,avx512bw,avx512vl")]
    fn run<const SEAL: bool>(mut self, header_len: usize, data: &mut [u8], mut tail: &[u8]) -> __m128i {
        let lengths = _mm512_zextsi128_si512(_mm_set_epi64x(header_len as i64 * 8, data.len() as i64 * 8));
        let mut products = Products::none().and(lengths, self.schedule.powers_down_from(1));
        let blocks = data.len().div_ceil(BLOCK_LEN);
        let (head, mut data) = data.split_at_mut(data.len().min(HEAD));
        let near;
        (near, tail) = tail.split_at(tail.len().saturating_sub(data.len()));
        let [key_stream] = self.key_stream([self.blocks[0]]);
        let first = self.head::<SEAL>(key_stream, head, near);
        let first_vector = if data.len() > CHUNK - VECTOR_LEN {
            let [_, others @ ..] = self.blocks;
            let [second, third, fourth] =
                self.cipher::<SEAL, _>(self.key_stream(others), &mut data, &mut tail);
            let mut pending = [first, second, third, fourth];
            let powers = [16, 12, 8, 4].map(|power| self.schedule.power(power));
            self.counter += STEP as u32;
            while data.len() > CHUNK {
                let next = self.cipher::<SEAL, _>(self.key_stream(self.counters()), &mut data, &mut tail);
                self.hash = self.hash_chunk(pending, powers);
                pending = next;
                self.counter += STEP as u32;
            }
            self.hash = if data.len() > 2 * BLOCK_LEN {
                self.hash_chunk(pending, powers)
            } else {
                // The four numbers would need four blocks behind them, the lengths included: they become one.
                let powers = [16, 12, 8, 4].map(|power| self.schedule.powers_down_from(power));
                ghash::sum(self.hash_chunk(pending, powers))
            };
            0
        } else {
            let first = _mm512_xor_si512(ghash::reverse(first), self.hash);
            products = products.and(
                first,
                self.schedule.powers_down_from(HEAD_AT / BLOCK_LEN + blocks + 1),
            );
            self.hash = _mm512_setzero_si512();
            1
        };
        let products = self.last_chunk::<SEAL>(products, first_vector, data, tail);
        let hash = ghash::reverse(ghash::sum(products.reduce()));
        _mm_xor_si128(
            _mm512_castsi512_si128(hash),
            _mm512_extracti32x4_epi32(key_stream, 1),
        )
    }

    /// Ciphers the data of the first vector, the last bytes of which are `tail`, and gives its blocks for the hash.
    #[inline]
    #[target_feature(enable = "bmi2,avx512f,avx512bw,avx512vl")]
    fn head<const SEAL: bool>(&self, key_stream: __m512i, data: &mut [u8], tail: &[u8]) -> __m512i {
        let input = sys::load_half(&data[..data.len() - tail.len()], tail);
        let output = _mm256_xor_si256(input, _mm512_extracti64x4_epi64(key_stream, 1));
        sys::store_half(data, output);
        let ciphertext = _mm512_inserti64x4(_mm512_setzero_si512(), if SEAL { output } else { input }, 1);
        if SEAL {
            sys::keep_first(ciphertext, HEAD_AT + data.len())
        } else {
            ciphertext
        }
    }

    /// Ciphers the next vectors of `data`, and gives those that the hash takes.
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn cipher<const SEAL: bool, const N: usize>(
        &self,
        key_stream: [__m512i; N],
        data: &mut &mut [u8],
        tail: &mut &[u8],
    ) -> [__m512i; N] {
        let is_of_tail = tail.len() == data.len();
        let (chunk, rest) = std::mem::take(data).split_at_mut(N * VECTOR_LEN);
        let input = if is_of_tail {
            let (chunk, rest) = tail.split_at(N * VECTOR_LEN);
            *tail = rest;
            load(chunk)
        } else {
            load(chunk)
        };
        let output = xor(input, key_stream);
        store(chunk, output);
        *data = rest;
        if SEAL { output } else { input }
    }

    /// The hash with a chunk behind it.
    #[inline]
    #[target_feature(enable = "vpclmulqdq,avx512f,avx512bw")]
    fn hash_chunk(&self, ciphertext: [__m512i; VECTORS], powers: [__m512i; VECTORS]) -> __m512i {
        let [first, others @ ..] = ciphertext;
        let mut products = Products::none();
        for (blocks, power) in others.into_iter().zip(&powers[1..]) {
            products = products.and(ghash::reverse(blocks), *power);
        }
        // Last, as it waits for the chunk before.
        products
            .and(_mm512_xor_si512(ghash::reverse(first), self.hash), powers[0])
            .reduce()
    }

    /// Ciphers what is left, at most one chunk, with the chunk's vectors from `first` on. Gives the products with those of its blocks: they are as
    /// many factors H away from the end of the message, the block of lengths included.
    #[inline]
    #[target_feature(enable = "bmi2,aes,vaes,vpclmulqdq,avx512f,avx512bw,avx512vl")]
    fn last_chunk<const SEAL: bool>(
        &self,
        mut products: Products,
        first: usize,
        data: &mut [u8],
        tail: &[u8],
    ) -> Products {
        let power = data.len().div_ceil(BLOCK_LEN) + 1;
        let is_of_tail = tail.len() == data.len();
        let mut hash = self.hash;
        let counters = self.counters();
        for (i, place) in data.chunks_mut(VECTOR_LEN).enumerate() {
            let [key_stream] = self.key_stream([counters[first + i]]);
            let input = if is_of_tail {
                &tail[i * VECTOR_LEN..][..place.len()]
            } else {
                &*place
            };
            let input = sys::load_first(input);
            let output = _mm512_xor_si512(input, key_stream);
            sys::store_first(place, output);
            let ciphertext = if SEAL {
                sys::keep_first(output, place.len())
            } else {
                input
            };
            let blocks = _mm512_xor_si512(ghash::reverse(ciphertext), hash);
            products = products.and(
                blocks,
                self.schedule
                    .powers_down_from(power - i * (VECTOR_LEN / BLOCK_LEN)),
            );
            hash = _mm512_setzero_si512();
        }
        products
    }

    /// The chunk's counter blocks.
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn counters(&self) -> [__m512i; VECTORS] {
        const LAST_OF_EACH_BLOCK: __mmask16 = 0x8888;
        let counter = _mm512_maskz_set1_epi32(LAST_OF_EACH_BLOCK, self.counter.to_be() as i32);
        self.blocks.map(|block| _mm512_xor_si512(block, counter))
    }

    /// The ciphers of counter blocks.
    #[inline]
    #[target_feature(enable = "vaes,avx512f")]
    fn key_stream<const N: usize>(&self, mut vectors: [__m512i; N]) -> [__m512i; N] {
        // Round after round of all, since one has to wait for itself.
        for key in &self.round_keys[1..ROUNDS] {
            for vector in &mut vectors {
                *vector = _mm512_aesenc_epi128(*vector, *key);
            }
        }
        for vector in &mut vectors {
            *vector = _mm512_aesenclast_epi128(*vector, self.round_keys[ROUNDS]);
        }
        vectors
    }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn load<const N: usize>(chunk: &[u8]) -> [__m512i; N] {
    let mut vectors = [_mm512_setzero_si512(); N];
    for (vector, bytes) in vectors.iter_mut().zip(chunk.as_chunks().0) {
        *vector = sys::load(bytes);
    }
    vectors
}

#[inline]
#[target_feature(enable = "avx512f")]
fn store<const N: usize>(chunk: &mut [u8], vectors: [__m512i; N]) {
    for (bytes, vector) in chunk.as_chunks_mut().0.iter_mut().zip(vectors) {
        sys::store(bytes, vector);
    }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn xor<const N: usize>(mut a: [__m512i; N], b: [__m512i; N]) -> [__m512i; N] {
    for (a, b) in a.iter_mut().zip(b) {
        *a = _mm512_xor_si512(*a, b);
    }
    a
}
