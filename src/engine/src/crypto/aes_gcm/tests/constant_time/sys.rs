//! Requests to valgrind: a sequence of instructions that does nothing, unless it runs there.

use core::arch::asm;

const RUNNING_ON_VALGRIND: usize = 0x1001;
/// `MC` of memcheck.
const MAKE_MEM_UNDEFINED: usize = 0x4d43_0001;
const MAKE_MEM_DEFINED: usize = 0x4d43_0002;

pub(super) fn is_under_valgrind() -> bool {
    request(RUNNING_ON_VALGRIND, 0, 0) > 0
}

/// Marks values as undefined; they stay what they are.
pub(super) fn set_undefined<T>(values: &mut [T]) {
    request(
        MAKE_MEM_UNDEFINED,
        values.as_mut_ptr().expose_provenance(),
        size_of_val(values),
    );
}

/// Marks values as defined.
pub(super) fn set_defined<T>(values: &mut [T]) {
    request(
        MAKE_MEM_DEFINED,
        values.as_mut_ptr().expose_provenance(),
        size_of_val(values),
    );
}

/// The answer; 0 if there is no valgrind.
fn request(request: usize, first: usize, second: usize) -> usize {
    let arguments = [request, first, second, 0, 0, 0];
    let mut answer = 0;
    // SAFETY: it rotates a register once around and exchanges another with itself. valgrind reads the arguments, and writes the answer; of these
    // requests it changes nothing else that a program can see. What is marked is read and written by the program: the memory counts as written.
    unsafe {
        asm!(
            "rol rdi, 3",
            "rol rdi, 13",
            "rol rdi, 61",
            "rol rdi, 51",
            "xchg rbx, rbx",
            in("rax") &raw const arguments,
            inout("rdx") answer,
            options(nostack),
        );
    }
    answer
}
