//! The call of the C library.

#[cfg(target_env = "gnu")]
pub(super) fn trim() {
    // SAFETY: it takes no pointer, and may be called on any thread at any time.
    unsafe { libc::malloc_trim(0) };
}

#[cfg(not(target_env = "gnu"))]
pub(super) fn trim() {}
