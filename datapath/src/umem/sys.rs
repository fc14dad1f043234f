//! The memory itself, behind tokens.
//!
//! Invariant that the `unsafe` blocks rest on: whoever has the token of a chunk touches its memory, and nobody else does. There is one token
//! for each chunk, and none while the kernel has it. Parts of a chunk may be held ([`ChunkHold`]) by others, who read them: the token says so, and
//! gives nobody the chunk's memory, nor is its chunk given to the kernel, before nobody holds any more.

use std::any::Any;
use std::io;
use std::marker::PhantomData;
use std::ops::Range;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

/// A chunk with whoever has it: the thread that has the socket, or another one.
///
/// Invariant: the memory outlives it. Whoever gives chunks to another thread gives [`Memory::keep_alive`] with them.
pub(crate) struct UmemChunk {
    start: NonNull<u8>,
    umem: NonNull<Umem>,
    len: u32,
    /// The place of its queue in the device: spare chunks are kept by it. That it is of a UMEM is known by where it is.
    queue: u16,
    /// Parts of it were held when that was looked at last. Atomic as visitors set it; the token is with one thread at a time.
    lent: AtomicBool,
}

// SAFETY: the chunk's memory is touched by whom has it only, and is bound to no thread.
unsafe impl Send for UmemChunk {}
// SAFETY: by a shared reference it makes holds only, as [`ChunkHold`] says.
unsafe impl Sync for UmemChunk {}

impl std::fmt::Debug for UmemChunk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("UmemChunk")
    }
}

impl UmemChunk {
    /// All of it.
    pub(crate) fn bytes(&mut self) -> &mut [u8] {
        assert!(!*self.lent.get_mut(), "a chunk that is lent is not written to");
        // SAFETY: memory of the UMEM, which outlives the chunk, and of which nobody holds a part; borrowed as the chunk is.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len as usize) }
    }

    /// All of it, for a visitor.
    fn visit(&mut self) -> (&mut [u8], ChunkLender<'_>) {
        assert!(!*self.lent.get_mut(), "a chunk that is lent is not received into");
        // SAFETY: as above. The memory is beside the token, which can be referred to meanwhile.
        let bytes = unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len as usize) };
        let lender = ChunkLender {
            chunk: self,
            _visit: PhantomData,
        };
        (bytes, lender)
    }

    /// Where it is.
    pub(crate) fn span(&self) -> (NonNull<u8>, usize) {
        (self.start, self.len as usize)
    }

    /// A hold on a part of it, by which that can be read.
    pub(crate) fn hold(&self) -> ChunkHold {
        // SAFETY: of an `Arc`, which outlives the chunk with the memory.
        let one = unsafe { Arc::from_raw(self.umem.as_ptr()) };
        let umem = Arc::clone(&one);
        // That one is not ours.
        std::mem::forget(one);
        let number = umem.number(self.start);
        umem.hold(number);
        self.lent.store(true, Ordering::Relaxed);
        ChunkHold { umem, number }
    }

    /// Somebody holds a part of it.
    pub(crate) fn is_lent(&self) -> bool {
        if !self.lent.load(Ordering::Relaxed) {
            return false;
        }
        // SAFETY: it outlives the chunk.
        let umem = unsafe { self.umem.as_ref() };
        // What whoever has dropped the last hold did before came before what is done now. No other hold can be made: whoever visited is done.
        let is_lent = umem.holds[umem.number(self.start)].load(Ordering::Acquire) > 0;
        self.lent.store(is_lent, Ordering::Relaxed);
        is_lent
    }

    /// Bytes of it.
    pub(crate) fn len(&self) -> usize {
        self.len as usize
    }

    /// The place of its queue in the device.
    pub(crate) fn queue(&self) -> usize {
        usize::from(self.queue)
    }
}

/// A chunk whose memory a visitor has borrowed for exactly `'a`.
#[derive(Clone, Copy)]
pub(crate) struct ChunkLender<'a> {
    chunk: &'a UmemChunk,
    _visit: PhantomData<fn(&'a ()) -> &'a ()>,
}

impl<'a> ChunkLender<'a> {
    pub(crate) fn chunk(self) -> &'a UmemChunk {
        self.chunk
    }
}

/// A hold on a part of a chunk: as long as it is there, nobody writes to the part, and the memory lives.
pub(crate) struct ChunkHold {
    umem: Arc<Umem>,
    number: usize,
}

impl Clone for ChunkHold {
    fn clone(&self) -> Self {
        self.umem.hold(self.number);
        ChunkHold {
            umem: Arc::clone(&self.umem),
            number: self.number,
        }
    }
}

impl Drop for ChunkHold {
    fn drop(&mut self) {
        self.umem.holds[self.number].fetch_sub(1, Ordering::Release);
    }
}

/// Memory, and who holds parts of its chunks.
#[derive(Debug)]
struct Umem {
    area: Area,
    chunk_shift: u32,
    /// By the number of the chunk.
    holds: Box<[AtomicU32]>,
}

impl Umem {
    /// The number of the chunk that begins there.
    fn number(&self, start: NonNull<u8>) -> usize {
        (start.addr().get() - self.area.start.addr().get()) >> self.chunk_shift
    }

    /// Counts one more hold on a part of a chunk.
    fn hold(&self, number: usize) {
        let before = self.holds[number].fetch_add(1, Ordering::Relaxed);
        // Holds can be forgotten, so their count has no bound. At 0 again it would say that nobody holds any: no way on is sound. As `Arc`, with
        // room above for all threads that are here at once.
        if before > HOLDS_MAX {
            std::process::abort();
        }
    }
}

/// The memory of a UMEM.
#[derive(Clone, Debug)]
pub(crate) struct Memory {
    umem: Arc<Umem>,
    /// What the `Arc` points to.
    pointer: NonNull<Umem>,
    /// Of the area: at hand.
    start: NonNull<u8>,
    chunks: u32,
    chunk_shift: u32,
    queue: u16,
}

// SAFETY: as of an area; the memory is reached through tokens only.
unsafe impl Send for Memory {}

impl Memory {
    /// Memory for at least so many chunks, present and as one piece, on huge pages if there are any. `chunk_bytes` is a power of two; `queue` is
    /// the place of the queue in its device.
    pub(crate) fn map(chunk_bytes: u32, chunks: u32, queue: usize) -> io::Result<Memory> {
        let bytes = chunks as usize * chunk_bytes as usize;
        let huge = bytes.next_multiple_of(HUGE_PAGE);
        let area = Area::map(huge, true).or_else(|_| Area::map(bytes, false))?;
        let chunks = area.bytes / chunk_bytes as usize;
        let chunk_shift = chunk_bytes.trailing_zeros();
        let start = area.start;
        let umem = Arc::new(Umem {
            area,
            chunk_shift,
            holds: (0..chunks).map(|_| AtomicU32::new(0)).collect(),
        });
        Ok(Memory {
            start,
            chunks: chunks as u32,
            chunk_shift,
            queue: u16::try_from(queue).map_err(io::Error::other)?,
            pointer: NonNull::new(Arc::as_ptr(&umem).cast_mut()).ok_or(io::ErrorKind::OutOfMemory)?,
            umem,
        })
    }

    pub(crate) fn has_huge_pages(&self) -> bool {
        self.umem.area.huge_pages
    }

    pub(crate) fn bytes(&self) -> usize {
        (self.chunks as usize) << self.chunk_shift
    }

    pub(crate) fn chunk_bytes(&self) -> u32 {
        1 << self.chunk_shift
    }

    pub(crate) fn chunks(&self) -> u32 {
        self.chunks
    }

    /// Where it is, for the kernel.
    pub(crate) fn address(&self) -> u64 {
        self.start.as_ptr().expose_provenance() as u64
    }

    /// Keeps the memory for as long as it lives, whatever becomes of the socket.
    pub(crate) fn keep_alive(&self) -> Box<dyn Any + Send> {
        Box::new(Arc::clone(&self.umem))
    }

    /// For a mock of the kernel.
    #[cfg(test)]
    pub(super) fn pointer(&self, address: u64) -> NonNull<u8> {
        assert!(address < self.bytes() as u64);
        // SAFETY: within the area.
        unsafe { self.start.add(address as usize) }
    }

    /// The number of a chunk, if it is of this UMEM and nobody holds a part of it.
    #[inline]
    pub(super) fn number(&self, chunk: &UmemChunk) -> Option<u32> {
        if chunk.lent.load(Ordering::Relaxed) {
            return None;
        }
        let offset = chunk.start.addr().get().wrapping_sub(self.start.addr().get());
        let number = offset >> self.chunk_shift;
        (number < self.chunks as usize).then_some(number as u32)
    }

    /// True if the chunk is of this UMEM.
    pub(crate) fn owns(&self, chunk: &UmemChunk) -> bool {
        self.number(chunk).is_some()
    }

    /// Where in which chunk the `len` bytes at `address` lie, if they lie in one.
    #[inline]
    pub(super) fn find(&self, address: u64, len: u32) -> Option<(u32, Range<u32>)> {
        let number = address >> self.chunk_shift;
        let start = (address & (u64::from(self.chunk_bytes()) - 1)) as u32;
        let end = start.checked_add(len)?;
        (number < u64::from(self.chunks) && end <= self.chunk_bytes()).then_some((number as u32, start..end))
    }

    /// The token of a chunk.
    ///
    /// # Safety
    ///
    /// There is no other token of it, and the kernel does not have it. The number is below [`Memory::chunks`].
    pub(super) unsafe fn token(&self, number: u32) -> UmemChunk {
        debug_assert!(number < self.chunks);
        // SAFETY: within the area, as the caller promises.
        let start = unsafe { self.start.add((number as usize) << self.chunk_shift) };
        UmemChunk {
            start,
            umem: self.pointer,
            len: self.chunk_bytes(),
            queue: self.queue,
            lent: AtomicBool::new(false),
        }
    }
}

/// Memory of the process, mapped as long as this lives.
#[derive(Debug)]
struct Area {
    start: NonNull<u8>,
    bytes: usize,
    huge_pages: bool,
}

// SAFETY: the area does nothing with its memory but to unmap it, once.
unsafe impl Send for Area {}
// SAFETY: as above.
unsafe impl Sync for Area {}

#[cfg(not(miri))]
impl Area {
    fn map(bytes: usize, huge_pages: bool) -> io::Result<Area> {
        let huge = if huge_pages { libc::MAP_HUGETLB } else { 0 };
        // Shared: a process that forks must not get, by copy on write, another memory than the kernel has. Present: the packet path does not
        // wait for the kernel to find some.
        let flags = libc::MAP_SHARED | libc::MAP_ANONYMOUS | libc::MAP_POPULATE | huge;
        // SAFETY: a new mapping, anywhere.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                flags,
                -1,
                0,
            )
        };
        match NonNull::new(start) {
            Some(start) if start.as_ptr() != libc::MAP_FAILED => Ok(Area {
                start: start.cast(),
                bytes,
                huge_pages,
            }),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

#[cfg(not(miri))]
impl Drop for Area {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, of this size, and tokens do not outlive it. What the kernel still uses it has pinned.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.bytes) };
    }
}

/// Of the heap, of which Miri knows what may touch it.
#[cfg(miri)]
impl Area {
    fn layout(bytes: usize) -> std::alloc::Layout {
        std::alloc::Layout::from_size_align(bytes, 4096).unwrap()
    }

    fn map(bytes: usize, huge_pages: bool) -> io::Result<Area> {
        if huge_pages {
            return Err(io::ErrorKind::Unsupported.into());
        }
        // SAFETY: of more than no bytes.
        let start = unsafe { std::alloc::alloc_zeroed(Self::layout(bytes)) };
        Ok(Area {
            start: NonNull::new(start).ok_or(io::ErrorKind::OutOfMemory)?,
            bytes,
            huge_pages,
        })
    }
}

#[cfg(miri)]
impl Drop for Area {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout.
        unsafe { std::alloc::dealloc(self.start.as_ptr(), Self::layout(self.bytes)) };
    }
}

/// A chunk that was received into, while it is visited.
#[derive(Debug)]
pub(crate) struct ReceivedChunk<'a> {
    chunk: &'a mut UmemChunk,
    /// `None`: it was received on another thread, and is not taken away from there again.
    memory: Option<&'a Memory>,
}

impl<'a> ReceivedChunk<'a> {
    pub(crate) fn new(chunk: &'a mut UmemChunk, memory: &'a Memory) -> ReceivedChunk<'a> {
        ReceivedChunk {
            chunk,
            memory: Some(memory),
        }
    }

    pub(crate) fn of_another_thread(chunk: &'a mut UmemChunk) -> ReceivedChunk<'a> {
        ReceivedChunk { chunk, memory: None }
    }

    /// All of it.
    pub(crate) fn bytes(&mut self) -> &mut [u8] {
        self.chunk.bytes()
    }

    /// All of it, for as long as it is visited, and what a visitor needs to keep of it.
    pub(crate) fn visit(self) -> (&'a mut [u8], ChunkLender<'a>) {
        self.chunk.visit()
    }

    /// The place of its queue in the device.
    pub(crate) fn queue(&self) -> usize {
        self.chunk.queue()
    }

    /// Takes the chunk away, and gives the socket another one for it. One of another UMEM comes back as it is.
    pub(crate) fn exchange(self, spare: UmemChunk) -> Result<UmemChunk, UmemChunk> {
        match self.memory {
            Some(memory) if memory.owns(&spare) => Ok(std::mem::replace(self.chunk, spare)),
            _ => Err(spare),
        }
    }
}

const HUGE_PAGE: usize = 2 << 20;
/// Holds on parts of one chunk, but for those that are made at once.
const HOLDS_MAX: u32 = u32::MAX / 2;

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::process::ExitStatusExt;
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    #[cfg_attr(miri, ignore = "Miri starts no other process")]
    fn more_holds_than_can_be_counted_end_the_process() {
        const WITHIN: &str = "RINGWAY_TEST_HOLDS_WITHIN";
        if std::env::var_os(WITHIN).is_some() {
            let memory = Memory::map(4096, 1, 0).unwrap();
            memory.umem.holds[0].store(HOLDS_MAX, Ordering::Relaxed);
            memory.umem.hold(0);
            io::stdout().write_all(b"one more is still counted\n").unwrap();
            memory.umem.hold(0);
            return;
        }
        let name = "umem::sys::tests::more_holds_than_can_be_counted_end_the_process";
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", name, "--nocapture"])
            .env(WITHIN, "1")
            .stderr(Stdio::null())
            .output()
            .unwrap();
        assert!(String::from_utf8_lossy(&output.stdout).contains("one more"));
        assert_eq!(output.status.signal(), Some(6), "SIGABRT");
    }
}
