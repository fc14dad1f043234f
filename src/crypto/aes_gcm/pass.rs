//! One message through the cipher and the hash at once.

use core::arch::x86_64::*;

use super::ghash::{self, Products};
use super::schedule::{STEP, Schedule};
use super::{BLOCK_LEN, Nonce, TAG_LEN, VECTOR_LEN, sys};

/// Bytes that go into one step of the hash.
const CHUNK: usize = STEP * BLOCK_LEN;
const VECTORS: usize = CHUNK / VECTOR_LEN;

/// Seals `in_place` bytes at the start of `packet` and, behind them, those of `tail`, which are read where they lie; the tag comes last.
#[target_feature(enable = "aes,vaes,vpclmulqdq,avx512f,avx512bw,avx512vl")]
pub(super) fn seal<const ROUNDS: usize>(
    schedule: &Schedule<ROUNDS>,
    nonce: Nonce,
    header: &[u8],
    packet: &mut [u8],
    tail: &[u8],
) {
    let (data, tag) = packet.split_last_chunk_mut::<TAG_LEN>().expect("there is room for the tag");
    let in_place = data.len() - tail.len();
    // What shares a chunk with bytes in place is moved to them, so that no chunk is of both.
    let (near, far) = tail.split_at(tail.len().min(in_place.next_multiple_of(CHUNK) - in_place));
    for (to, from) in data[in_place..].chunks_mut(VECTOR_LEN).zip(near.chunks(VECTOR_LEN)) {
        sys::store_first(&mut to[..from.len()], sys::load_first(from));
    }
    let sealed = Pass::start(schedule, nonce, header, data.len()).run::<true>(data, far);
    sys::store_block(tag, sealed);
}

/// Opens a message in place and gives the plaintext; `payload` is the ciphertext and the tag. `None`: it is not authentic, and zeros are in its
/// place.
#[target_feature(enable = "aes,vaes,vpclmulqdq,avx512f,avx512bw,avx512vl")]
pub(super) fn open<'a, const ROUNDS: usize>(
    schedule: &Schedule<ROUNDS>,
    nonce: Nonce,
    header: &[u8],
    payload: &'a mut [u8],
) -> Option<&'a mut [u8]> {
    let (data, tag) = payload.split_last_chunk_mut::<TAG_LEN>()?;
    let expected = Pass::start(schedule, nonce, header, data.len()).run::<false>(data, &[]);
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
    /// The next four counter blocks, their bytes in reverse.
    counters: __m512i,
    /// GHASH so far, its bytes in reverse. In the middle of a message it is the sum of four numbers, each of which lacks as many factors H as
    /// are blocks before it.
    hash: __m512i,
    /// The block of lengths, its bytes in reverse.
    lengths: __m512i,
    /// What the tag is hidden with.
    mask: __m128i,
}

impl<'a, const ROUNDS: usize> Pass<'a, ROUNDS> {
    #[inline]
    #[target_feature(enable = "aes,vaes,vpclmulqdq,avx512f,avx512bw,avx512vl")]
    fn start(schedule: &'a Schedule<ROUNDS>, nonce: Nonce, header: &[u8], len: usize) -> Self {
        let first = _mm_set_epi64x((u64::from(nonce.last) | 1 << 56) as i64, nonce.first as i64);
        let counters = ghash::reverse(_mm512_broadcast_i32x4(first));
        let h = schedule.powers_down_from(1);
        let mut hash = _mm512_setzero_si512();
        for block in header.chunks(BLOCK_LEN) {
            let block = ghash::reverse(sys::load_first(block));
            hash = Products::none().and(_mm512_xor_si512(hash, block), h).reduce();
        }
        Pass {
            schedule,
            round_keys: schedule.wide_round_keys(),
            counters: _mm512_add_epi32(counters, _mm512_set_epi32(0, 0, 0, 4, 0, 0, 0, 3, 0, 0, 0, 2, 0, 0, 0, 1)),
            hash,
            lengths: _mm512_zextsi128_si512(_mm_set_epi64x(header.len() as i64 * 8, len as i64 * 8)),
            mask: schedule.encrypt(first),
        }
    }

    /// Ciphers all of `data`, of which the last bytes come from `tail`, and gives the tag.
    #[inline]
    #[target_feature(enable = "aes,vaes,vpclmulqdq,avx512f,avx512bw,avx512vl")]
    fn run<const SEAL: bool>(mut self, mut data: &mut [u8], mut tail: &[u8]) -> __m128i {
        if data.len() > CHUNK {
            let powers = [16, 12, 8, 4].map(|power| self.schedule.power(power));
            let mut pending = self.chunk::<SEAL>(&mut data, &mut tail);
            while data.len() > CHUNK {
                let next = self.chunk::<SEAL>(&mut data, &mut tail);
                self.hash = self.hash_chunk(pending, powers);
                pending = next;
            }
            self.hash = if data.len() > 2 * BLOCK_LEN {
                self.hash_chunk(pending, powers)
            } else {
                // The four numbers would need four blocks behind them, the lengths included: they become one.
                let powers = [16, 12, 8, 4].map(|power| self.schedule.powers_down_from(power));
                ghash::sum(self.hash_chunk(pending, powers))
            };
        }
        self.finish::<SEAL>(data, tail)
    }

    #[inline]
    #[target_feature(enable = "aes,vaes,vpclmulqdq,avx512f,avx512bw,avx512vl")]
    fn chunk<const SEAL: bool>(&mut self, data: &mut &mut [u8], tail: &mut &[u8]) -> [__m512i; VECTORS] {
        let is_of_tail = tail.len() == data.len();
        let (chunk, rest) = std::mem::take(data).split_first_chunk_mut::<CHUNK>().expect("it is longer");
        let input = if is_of_tail {
            let (chunk, rest) = tail.split_first_chunk::<CHUNK>().expect("it is as long as the data");
            *tail = rest;
            load(chunk)
        } else {
            load(chunk)
        };
        let output = xor(input, self.key_stream());
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
        products.and(_mm512_xor_si512(ghash::reverse(first), self.hash), powers[0]).reduce()
    }

    /// What is left, at most one chunk, and the lengths: the blocks are as many factors H away from the end of the message.
    #[inline]
    #[target_feature(enable = "aes,vaes,vpclmulqdq,avx512f,avx512bw,avx512vl")]
    fn finish<const SEAL: bool>(mut self, data: &mut [u8], tail: &[u8]) -> __m128i {
        let power = data.len().div_ceil(BLOCK_LEN) + 1;
        let is_of_tail = tail.len() == data.len();
        let mut products = Products::none().and(self.lengths, self.schedule.powers_down_from(1));
        let mut hash = self.hash;
        if data.is_empty() {
            products = products.and(hash, self.schedule.powers_down_from(1));
        }
        for (i, place) in data.chunks_mut(VECTOR_LEN).enumerate() {
            let [key_stream] = self.key_stream();
            let input = sys::load_first(if is_of_tail { &tail[i * VECTOR_LEN..][..place.len()] } else { place });
            let output = _mm512_xor_si512(input, key_stream);
            sys::store_first(place, output);
            let ciphertext = if SEAL { sys::keep_first(output, place.len()) } else { input };
            let blocks = _mm512_xor_si512(ghash::reverse(ciphertext), hash);
            products = products.and(blocks, self.schedule.powers_down_from(power - i * (VECTOR_LEN / BLOCK_LEN)));
            hash = _mm512_setzero_si512();
        }
        let hash = ghash::reverse(ghash::sum(products.reduce()));
        _mm_xor_si128(_mm512_castsi512_si128(hash), self.mask)
    }

    /// The ciphers of the next counters.
    #[inline]
    #[target_feature(enable = "vaes,avx512f,avx512bw")]
    fn key_stream<const N: usize>(&mut self) -> [__m512i; N] {
        let four = _mm512_set_epi32(0, 0, 0, 4, 0, 0, 0, 4, 0, 0, 0, 4, 0, 0, 0, 4);
        let mut vectors = [_mm512_setzero_si512(); N];
        for vector in &mut vectors {
            *vector = _mm512_xor_si512(ghash::reverse(self.counters), self.round_keys[0]);
            self.counters = _mm512_add_epi32(self.counters, four);
        }
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
fn load(chunk: &[u8; CHUNK]) -> [__m512i; VECTORS] {
    let mut vectors = [_mm512_setzero_si512(); VECTORS];
    for (vector, bytes) in vectors.iter_mut().zip(chunk.as_chunks().0) {
        *vector = sys::load(bytes);
    }
    vectors
}

#[inline]
#[target_feature(enable = "avx512f")]
fn store(chunk: &mut [u8; CHUNK], vectors: [__m512i; VECTORS]) {
    for (bytes, vector) in chunk.as_chunks_mut().0.iter_mut().zip(vectors) {
        sys::store(bytes, vector);
    }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn xor(mut a: [__m512i; VECTORS], b: [__m512i; VECTORS]) -> [__m512i; VECTORS] {
    for (a, b) in a.iter_mut().zip(b) {
        *a = _mm512_xor_si512(*a, b);
    }
    a
}
