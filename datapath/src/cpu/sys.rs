//! Hints to the processor.

/// Bytes that caches hold together.
#[cfg(target_arch = "x86_64")]
const LINE: usize = 64;

/// Lets memory go from the caches of this core to the one that all cores share, where another core finds it in half the time. A hint: nothing but
/// time depends on it, and processors that do not know it do nothing (nor do others than x86-64, which have none).
pub(crate) fn demote_cache_lines(bytes: &[u8]) {
    #[cfg(target_arch = "x86_64")]
    {
        let range = bytes.as_ptr_range();
        let mut line = range.start.addr() & !(LINE - 1);
        while line < range.end.addr() {
            // SAFETY: CLDEMOTE reads and writes nothing, whatever the address, and is a NOP to processors without it (Intel SDM, volume 2).
            unsafe {
                std::arch::asm!("cldemote [{}]", in(reg) line, options(nostack, preserves_flags));
            }
            line += LINE;
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = bytes;
}
