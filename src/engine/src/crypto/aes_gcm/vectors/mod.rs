//! Vectors of blocks, as the instructions of a processor work on them: the only part that knows one.
//!
//! What a message needs of them is the trait [`Vectors`]; it is implemented once for each set of instructions, in a file of its own. Its values are
//! proofs: there is one only if the processor has the instructions. So the functions are safe, and code above is written once for all.
//!
//! Such a function is compiled for processors that have the instructions, and cannot be inlined where others may come by. All code above is
//! therefore always inlined, up to a [`Task`], which is entered through [`Vectors::enter`]: that function is compiled for these processors too,
//! and all that is inlined in it.

pub(super) mod block;
mod sys;
#[cfg(target_arch = "x86_64")]
mod aesni {
    pub(super) mod sys;
}
#[cfg(target_arch = "x86_64")]
mod avx512 {
    pub(super) mod sys;
}
#[cfg(target_arch = "aarch64")]
mod neon {
    pub(super) mod sys;
}
#[cfg(target_arch = "x86_64")]
mod vaes256 {
    pub(super) mod sys;
}

#[cfg(target_arch = "x86_64")]
pub(super) use self::aesni::sys::AesNi;
#[cfg(target_arch = "x86_64")]
pub(super) use self::avx512::sys::Avx512;
use self::block::BLOCK_LEN;
#[cfg(target_arch = "aarch64")]
pub(super) use self::neon::sys::Neon;
#[cfg(target_arch = "x86_64")]
pub(super) use self::vaes256::sys::Vaes256;

/// Work that is compiled for the instructions of some processors, all of it if its functions are `#[inline(always)]`. (No closure: these are
/// inlined as the compiler likes.)
pub(super) trait Task<T> {
    fn run(self) -> T;
}

/// Instructions on vectors of blocks, and the proof that the processor has them.
///
/// The blocks of a vector are counted from the lowest address. Products are of GF(2)[x] without a modulus, of the halves of blocks, 64 bits
/// each, little-endian. No function takes a time that depends on what is in a vector.
pub(super) trait Vectors: Copy {
    /// Blocks of a vector.
    const BLOCKS: usize;
    /// Bytes of a vector.
    const LEN: usize = Self::BLOCKS * BLOCK_LEN;
    /// There are registers for all round keys beside what else is at work.
    const HOLDS_ROUND_KEYS: bool;
    /// Loads and stores have masks: what is put together of two places costs no more than what is in one.
    const JOINS: bool;
    type Vector: Copy;

    /// The proof. `None`: the processor does not have the instructions.
    fn detect() -> Option<Self>;
    /// Runs work compiled for these instructions.
    fn enter<T>(self, task: impl Task<T>) -> T;

    fn zero(self) -> Self::Vector;
    /// This block, and zeros behind it.
    fn first_block(self, block: u128) -> Self::Vector;
    /// The block over and over.
    fn broadcast(self, block: &[u8; BLOCK_LEN]) -> Self::Vector;
    /// The block over and over.
    fn broadcast_number(self, block: u128) -> Self::Vector;
    /// Zeros, and in the last four bytes of each block a big-endian counter: `first`, the next one, and so on.
    fn counters(self, first: u32) -> Self::Vector;
    /// Zeros, and in the last four bytes of each block the same big-endian counter.
    fn counter(self, counter: u32) -> Self::Vector;
    /// As many bytes as a vector has, of a slice that has at least so many.
    fn load(self, bytes: &[u8]) -> Self::Vector;
    /// Writes as many bytes as a vector has, to a slice that has room for them.
    fn store(self, bytes: &mut [u8], vector: Self::Vector);
    /// The bytes, no more than a vector has, and zeros.
    fn load_first(self, bytes: &[u8]) -> Self::Vector;
    /// Writes the first bytes of a vector, no more than it has.
    fn store_first(self, bytes: &mut [u8], vector: Self::Vector);
    /// The first `len` bytes of a vector, and zeros.
    fn keep_first(self, vector: Self::Vector, len: usize) -> Self::Vector;
    /// A vector with zeros in its first half, then `bytes`, then `behind`, together at most half a vector, and zeros. For vectors that join.
    fn load_joined(self, bytes: &[u8], behind: &[u8]) -> Self::Vector;
    /// Writes the second half of a vector, or as much of it as there is room for. For vectors that join.
    fn store_second_half(self, bytes: &mut [u8], vector: Self::Vector);
    /// The first `len` bytes of the second half of a vector, between zeros. For vectors that join.
    fn keep_second_half(self, vector: Self::Vector, len: usize) -> Self::Vector;
    /// The first block of a vector as what is its second one: of the next vector, if there is one block in each. The others are zeros.
    fn first_to_second(self, vector: Self::Vector) -> Self::Vector;
    /// The second block as the first one, see `first_to_second`. What the others are is not specified.
    fn second_to_first(self, vector: Self::Vector) -> Self::Vector;
    /// The first block.
    fn to_number(self, vector: Self::Vector) -> u128;

    fn xor(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;
    fn xor3(self, a: Self::Vector, b: Self::Vector, c: Self::Vector) -> Self::Vector;
    /// The sum of all blocks as the first one, and zeros.
    fn sum(self, vector: Self::Vector) -> Self::Vector;
    /// Each block with its bytes in reverse.
    fn reverse(self, vector: Self::Vector) -> Self::Vector;
    /// Each block with its halves exchanged.
    fn swap_halves(self, vector: Self::Vector) -> Self::Vector;
    /// Products of the lower halves.
    fn product_low(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// Products of the upper halves.
    fn product_high(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// Products of a's lower halves and b's upper ones.
    fn product_low_high(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// Products of a's upper halves and b's lower ones.
    fn product_high_low(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// A round of AES (FIPS 197 section 5.1), and then the round key.
    fn round(self, vector: Self::Vector, key: Self::Vector) -> Self::Vector;
    /// The last round, and then the round key.
    fn last_round(self, vector: Self::Vector, key: Self::Vector) -> Self::Vector;
    /// The bytes of a word of AES's key expansion, substituted (`SUBWORD` of FIPS 197).
    fn substitute_word(self, word: u32) -> u32;
}
