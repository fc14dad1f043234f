//! Which chunks of a device the application may hold on to, and which it does.

use crate::chunk::Chunk;
use crate::lent::{LENT_SHARE, Lendable, LentMemory};

/// Chunks that are lent, by kind: a device that has none of one kind left could receive no more there.
#[derive(Debug)]
pub(super) struct LentChunks {
    kinds: Vec<LentMemory<Chunk>>,
    bytes: usize,
    max: usize,
}

impl LentChunks {
    /// Of these, a part of each kind may be lent, and so many bytes at most.
    pub(super) fn of(spares: &[Chunk], max: usize) -> Self {
        let mut bytes = Vec::new();
        for chunk in spares {
            let kind = chunk.kind();
            if bytes.len() <= kind {
                bytes.resize(kind + 1, 0);
            }
            bytes[kind] += chunk.len();
        }
        let kinds = bytes.into_iter();
        LentChunks {
            kinds: kinds.map(|bytes| LentMemory::new(bytes / LENT_SHARE)).collect(),
            bytes: 0,
            max,
        }
    }

    /// A chunk with so many bytes in it may be lent.
    pub(super) fn may_lend(&self, chunk: &Chunk, used: usize) -> bool {
        let kind = self.kinds.get(chunk.kind());
        self.bytes + chunk.len() <= self.max && kind.is_some_and(|lent| lent.may_lend(chunk.len(), used))
    }

    /// Sets a chunk aside that could be lent, and is.
    pub(super) fn add(&mut self, chunk: Chunk) {
        self.bytes += chunk.len();
        self.kinds[chunk.kind()].add(chunk);
    }

    /// Gives back what nobody holds any more, of the next few chunks.
    pub(super) fn reclaim(&mut self, mut give_back: impl FnMut(Chunk)) {
        if self.bytes == 0 {
            return;
        }
        for lent in &mut self.kinds {
            lent.reclaim(|chunk| {
                self.bytes -= chunk.len();
                give_back(chunk);
            });
        }
    }

    /// Bytes that are lent.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}
