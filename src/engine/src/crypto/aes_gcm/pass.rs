//! One message through the cipher and the hash at once.
//!
//! The blocks of a message are counted as its counters are: 0 is not used, 1 hides the tag, and the data follow from 2 on (SP 800-38D section
//! 7.1). So the counters of a chunk differ from those of the first in bits that are zero in these, and what hides the tag costs nothing. In the
//! hash the last block of the header has the place of block 1.
//!
//! While a chunk is ciphered, the one before is hashed, an instruction of one between those of the other: each waits for results of its own, and
//! neither for the other's.

use super::ghash::Products;
use super::nonce::Nonce;
use super::schedule::Schedule;
use super::vectors::block::BLOCK_LEN;
use super::vectors::{Task, Vectors};
use crate::crypto::suite::TAG_LEN;

/// Blocks of the head: the two that are not data, and two that are. It is a whole number of vectors, whatever these are.
const HEAD_BLOCKS: usize = 4;
/// Bytes of data in the head.
const HEAD: usize = (HEAD_BLOCKS - 2) * BLOCK_LEN;

/// Seals a message.
pub(super) struct Seal<'a, V: Vectors, const N: usize, const ROUNDS: usize> {
    pub(super) schedule: &'a Schedule<V, N, ROUNDS>,
    pub(super) iv: &'a Nonce,
    pub(super) number: u64,
    pub(super) header: &'a [u8],
    /// What is in place at the start, room for `tail`, and for the tag.
    pub(super) packet: &'a mut [u8],
    /// It is read where it lies.
    pub(super) tail: &'a [u8],
}

impl<V: Vectors, const N: usize, const ROUNDS: usize> Task<()> for Seal<'_, V, N, ROUNDS> {
    #[inline(always)]
    fn run(self) {
        let (data, tag) = self
            .packet
            .split_last_chunk_mut::<TAG_LEN>()
            .expect("there is room for the tag");
        let mut tail = self.tail;
        let in_place = data.len() - tail.len();
        if in_place > HEAD {
            // What shares a chunk with bytes in place is moved to them, so that no chunk is of both.
            const NOT_DATA: usize = 2 * BLOCK_LEN;
            let end = (in_place + NOT_DATA).next_multiple_of(N * V::LEN) - NOT_DATA;
            let near;
            (near, tail) = tail.split_at(tail.len().min(end - in_place));
            data[in_place..][..near.len()].copy_from_slice(near);
        } else if !V::JOINS && in_place > 0 {
            // So is what shares the head. If there is enough, then more than that, so that the copy is of a constant length.
            let near = tail.len().min(HEAD - in_place);
            if let (Some(place), Some(source)) = (
                data[in_place..].first_chunk_mut::<HEAD>(),
                tail.first_chunk::<HEAD>(),
            ) {
                *place = *source;
            } else {
                data[in_place..][..near].copy_from_slice(&tail[..near]);
            }
            tail = &tail[near..];
        }
        let pass = Pass::start(self.schedule, self.iv.of_packet(self.number), self.header);
        let sealed = pass.run::<true>(self.header.len(), data, tail);
        *tag = self.schedule.vectors.to_number(sealed).to_le_bytes();
    }
}

/// Opens a message in place and gives the plaintext. `None`: it is not authentic, and zeros are in its place.
pub(super) struct Open<'a, 'b, V: Vectors, const N: usize, const ROUNDS: usize> {
    pub(super) schedule: &'a Schedule<V, N, ROUNDS>,
    pub(super) iv: &'a Nonce,
    pub(super) number: u64,
    pub(super) header: &'a [u8],
    /// The ciphertext and the tag.
    pub(super) payload: &'b mut [u8],
}

impl<'b, V: Vectors, const N: usize, const ROUNDS: usize> Task<Option<&'b mut [u8]>>
    for Open<'_, 'b, V, N, ROUNDS>
{
    #[inline(always)]
    fn run(self) -> Option<&'b mut [u8]> {
        let v = self.schedule.vectors;
        let (data, tag) = self.payload.split_last_chunk_mut::<TAG_LEN>()?;
        let pass = Pass::start(self.schedule, self.iv.of_packet(self.number), self.header);
        let expected = pass.run::<false>(self.header.len(), data, &[]);
        // All of it at once: how much of a tag is right is not told.
        let difference = v.to_number(v.xor(expected, v.broadcast(tag)));
        #[cfg(all(test, target_arch = "x86_64"))]
        let difference = super::tests::constant_time::told(difference);
        if difference == 0 {
            Some(data)
        } else {
            data.fill(0);
            None
        }
    }
}

struct Pass<'a, V: Vectors, const N: usize, const ROUNDS: usize> {
    v: V,
    schedule: &'a Schedule<V, N, ROUNDS>,
    /// Used where there are registers for them.
    round_keys: [V::Vector; 15],
    /// The counter blocks of the first chunk, exclusive-or with the first round key.
    blocks: [V::Vector; N],
    /// The first counter of the chunk that is to be ciphered.
    counter: u32,
    /// GHASH so far. In the middle of a message it is the sum of the blocks of a vector, each of which has as many factors H too many as are blocks
    /// before it: the powers for the last vectors are lower by these.
    hash: V::Vector,
}

impl<'a, V: Vectors, const N: usize, const ROUNDS: usize> Pass<'a, V, N, ROUNDS> {
    /// Bytes that are ciphered, and hashed, at a time.
    const CHUNK: usize = N * V::LEN;
    const HEAD_VECTORS: usize = HEAD_BLOCKS / V::BLOCKS;
    /// Vectors at the start of the head that have nothing for the hash.
    const EMPTY: usize = 1 / V::BLOCKS;

    #[inline(always)]
    fn start(schedule: &'a Schedule<V, N, ROUNDS>, nonce: Nonce, header: &[u8]) -> Self {
        let v = schedule.vectors;
        let mut round_keys = [v.zero(); 15];
        if V::HOLDS_ROUND_KEYS {
            for (round, key) in round_keys[..=ROUNDS].iter_mut().enumerate() {
                *key = schedule.round_key(round);
            }
        }
        let nonce = v.broadcast_number(u128::from(nonce.last) << 64 | u128::from(nonce.first));
        let nonce = v.xor(nonce, schedule.round_key(0));
        let mut blocks = [nonce; N];
        for (i, block) in blocks.iter_mut().enumerate() {
            *block = v.xor(*block, v.counters((i * V::BLOCKS) as u32));
        }

        let mut hash = v.zero();
        let mut header = header.chunks(BLOCK_LEN);
        let last = header.next_back().unwrap_or_default();
        for block in header {
            let block = v.xor(v.reverse(v.load_first(block)), hash);
            hash = Products::of(v, block, schedule.powers_down_from(1)).reduce(v);
        }
        let last = v.xor(v.reverse(v.load_first(last)), hash);
        Pass {
            v,
            schedule,
            round_keys,
            blocks,
            counter: 0,
            hash: v.first_to_second(last),
        }
    }

    /// Ciphers all of `data`, of which the last bytes come from `tail`, and gives the tag.
    #[inline(always)]
    fn run<const SEAL: bool>(mut self, header_len: usize, data: &mut [u8], mut tail: &[u8]) -> V::Vector {
        let v = self.v;
        let lengths = v.first_block(((header_len as u128 * 8) << 64) | (data.len() as u128 * 8));
        let products = Products::of(v, lengths, self.schedule.powers_down_from(1));
        let blocks = data.len().div_ceil(BLOCK_LEN);
        let (head, mut data) = data.split_at_mut(data.len().min(HEAD));
        let near;
        (near, tail) = tail.split_at(tail.len().saturating_sub(data.len()));

        let mut stream = self.blocks;
        if data.is_empty() {
            self.cipher(&mut stream[..Self::HEAD_VECTORS]);
        } else {
            self.cipher(&mut stream);
        }
        let hides_tag = v.second_to_first(stream[1 / V::BLOCKS]);
        let mut pending = [v.zero(); N];
        self.head::<SEAL>(&stream, head, near, &mut pending);
        let hash_at = 1 / V::BLOCKS;
        pending[hash_at] = v.xor(pending[hash_at], self.hash);
        self.hash = v.zero();

        let products = if data.len() <= Self::CHUNK - HEAD_BLOCKS * BLOCK_LEN {
            // Each block is as many factors H away from the end of the message, the block of lengths included.
            let mut products = products;
            let (head, _) = pending.split_at(Self::HEAD_VECTORS);
            for (i, blocks_of_head) in head.iter().enumerate().skip(Self::EMPTY) {
                let power = HEAD_BLOCKS - 1 + blocks - i * V::BLOCKS;
                products = products.and(v, *blocks_of_head, self.schedule.powers_down_from(power));
            }
            self.last::<SEAL>(products, &stream[Self::HEAD_VECTORS..], data, tail)
        } else {
            self.chunk::<SEAL>(&stream, Self::HEAD_VECTORS, &mut data, &mut tail, &mut pending);
            while data.len() > Self::CHUNK {
                (stream, self.hash) = self.cipher_and_hash::<false>(&pending);
                self.chunk::<SEAL>(&stream, 0, &mut data, &mut tail, &mut pending);
            }
            (stream, self.hash) = if data.len() <= V::LEN.saturating_sub(2 * BLOCK_LEN) {
                // The sums would need a vector of blocks behind them, the lengths included: they become one.
                let (stream, hash) = self.cipher_and_hash::<true>(&pending);
                (stream, v.sum(hash))
            } else {
                self.cipher_and_hash::<false>(&pending)
            };
            self.last::<SEAL>(products, &stream, data, tail)
        };
        let hash = v.reverse(v.sum(products.reduce(v)));
        v.xor(hash, hides_tag)
    }

    /// Ciphers the data of the head, the last bytes of which are `tail`, and gives its blocks for the hash.
    #[inline(always)]
    fn head<const SEAL: bool>(
        &self,
        stream: &[V::Vector; N],
        data: &mut [u8],
        tail: &[u8],
        hashed: &mut [V::Vector; N],
    ) {
        let v = self.v;
        if V::JOINS {
            const { assert!(!V::JOINS || V::LEN == 2 * HEAD) };
            let input = v.load_joined(&data[..data.len() - tail.len()], tail);
            let output = v.xor(input, stream[0]);
            v.store_second_half(data, output);
            hashed[0] = v.reverse(if SEAL {
                v.keep_second_half(output, data.len())
            } else {
                input
            });
            return;
        }
        let tail = (tail.len() == data.len()).then_some(tail);
        for i in HEAD / V::LEN..Self::HEAD_VECTORS {
            let range = (i * V::LEN - HEAD).min(data.len())..(i * V::LEN + V::LEN - HEAD).min(data.len());
            let source = tail.map(|tail| &tail[range.clone()]);
            hashed[i] = self.vector::<SEAL>(stream[i], &mut data[range], source);
        }
    }

    /// Ciphers at most a vector of data, which are at `source` or else in place, and gives the blocks for the hash.
    #[inline(always)]
    fn vector<const SEAL: bool>(
        &self,
        stream: V::Vector,
        place: &mut [u8],
        source: Option<&[u8]>,
    ) -> V::Vector {
        let v = self.v;
        if place.len() >= V::LEN && !V::JOINS {
            let input = v.load(source.unwrap_or(place));
            let output = v.xor(input, stream);
            v.store(place, output);
            return v.reverse(if SEAL { output } else { input });
        }
        let input = v.load_first(source.unwrap_or(place));
        let output = v.xor(input, stream);
        v.store_first(place, output);
        v.reverse(if SEAL {
            v.keep_first(output, place.len())
        } else {
            input
        })
    }

    /// Ciphers the next bytes of `data` with the key stream from `first` on, and gives the blocks for the hash.
    #[inline(always)]
    fn chunk<const SEAL: bool>(
        &self,
        stream: &[V::Vector; N],
        first: usize,
        data: &mut &mut [u8],
        tail: &mut &[u8],
        hashed: &mut [V::Vector; N],
    ) {
        let v = self.v;
        let len = (N - first) * V::LEN;
        let is_of_tail = tail.len() == data.len();
        let (chunk, rest) = std::mem::take(data).split_at_mut(len);
        *data = rest;
        if is_of_tail {
            let (source, rest) = tail.split_at(len);
            *tail = rest;
            for i in first..N {
                let at = (i - first) * V::LEN;
                let output = v.xor(v.load(&source[at..]), stream[i]);
                v.store(&mut chunk[at..], output);
                hashed[i] = v.reverse(output);
            }
        } else {
            for i in first..N {
                let at = (i - first) * V::LEN;
                let input = v.load(&chunk[at..]);
                let output = v.xor(input, stream[i]);
                v.store(&mut chunk[at..], output);
                hashed[i] = v.reverse(if SEAL { output } else { input });
            }
        }
    }

    /// Ciphers what is left, at most one chunk. Gives the products with those of its blocks: they are as many factors H away from the end of the
    /// message, the block of lengths included.
    #[inline(always)]
    fn last<const SEAL: bool>(
        &self,
        mut products: Products<V>,
        stream: &[V::Vector],
        data: &mut [u8],
        tail: &[u8],
    ) -> Products<V> {
        let v = self.v;
        let power = data.len().div_ceil(BLOCK_LEN) + 1;
        let tail = (tail.len() == data.len()).then_some(tail);
        let len = data.len();
        let mut hash = self.hash;
        for (i, stream) in stream.iter().enumerate() {
            let range = i * V::LEN..len.min((i + 1) * V::LEN);
            if range.is_empty() {
                break;
            }
            let source = tail.map(|tail| &tail[range.clone()]);
            let blocks = v.xor(self.vector::<SEAL>(*stream, &mut data[range], source), hash);
            products = products.and(v, blocks, self.schedule.powers_down_from(power - i * V::BLOCKS));
            hash = v.zero();
        }
        products
    }

    #[inline(always)]
    fn round_key(&self, round: usize) -> V::Vector {
        if V::HOLDS_ROUND_KEYS {
            self.round_keys[round]
        } else {
            self.schedule.round_key(round)
        }
    }

    /// Ciphers counter blocks, to which the first round key has been added.
    #[inline(always)]
    fn cipher(&self, blocks: &mut [V::Vector]) {
        let v = self.v;
        // Round after round of all, since one has to wait for itself.
        for round in 1..ROUNDS {
            let key = self.round_key(round);
            for block in &mut *blocks {
                *block = v.round(*block, key);
            }
        }
        let key = self.round_key(ROUNDS);
        for block in blocks {
            *block = v.last_round(*block, key);
        }
    }

    /// The key stream of the next chunk, and the hash with a chunk behind it. It is `EXACT` if all have the factors H that they need, and so can
    /// become one.
    #[inline(always)]
    fn cipher_and_hash<const EXACT: bool>(
        &mut self,
        pending: &[V::Vector; N],
    ) -> ([V::Vector; N], V::Vector) {
        const { assert!(N + 2 <= ROUNDS) };
        let v = self.v;
        self.counter += (N * V::BLOCKS) as u32;
        let counter = v.counter(self.counter);
        let mut stream = self.blocks;
        for block in &mut stream {
            *block = v.xor(*block, counter);
        }
        let mut products = Products::of(v, pending[1], self.power_of::<EXACT>(1));
        let mut hash = v.zero();
        for round in 1..ROUNDS {
            let key = self.round_key(round);
            for block in &mut stream {
                *block = v.round(*block, key);
            }
            if round + 1 < N {
                products = products.and(v, pending[round + 1], self.power_of::<EXACT>(round + 1));
            } else if round + 1 == N {
                // Last, as it waits for the chunk before.
                products = products.and(v, v.xor(pending[0], self.hash), self.power_of::<EXACT>(0));
            } else if round == N {
                hash = products.reduce(v);
            }
        }
        let key = self.round_key(ROUNDS);
        for block in &mut stream {
            *block = v.last_round(*block, key);
        }
        (stream, hash)
    }

    /// The power of H for a vector of a chunk that has another behind it.
    #[inline(always)]
    fn power_of<const EXACT: bool>(&self, i: usize) -> V::Vector {
        let power = (N - i) * V::BLOCKS;
        if EXACT {
            self.schedule.powers_down_from(power)
        } else {
            self.schedule.power(power)
        }
    }
}
