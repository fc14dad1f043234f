//! The process's heap, as far as the system is concerned.

mod sys;

/// Gives memory that was freed back to the system, which the C library's allocator keeps otherwise. It walks the whole heap,
/// so call it when there is nothing else to do. Does nothing for other allocators and C libraries than glibc's.
pub fn give_back_freed_memory() {
    sys::trim();
}
