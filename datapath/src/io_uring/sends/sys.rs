//! Plain structures of C.

use std::mem::MaybeUninit;

/// A message of nothing to nobody.
pub(in crate::io_uring) fn empty_message() -> libc::msghdr {
    // SAFETY: all zero is a valid value of this plain C structure.
    unsafe { MaybeUninit::<libc::msghdr>::zeroed().assume_init() }
}
