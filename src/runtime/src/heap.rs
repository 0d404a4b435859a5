//! The C library's heap, from which everything here is allocated.
//!
//! glibc (malloc/{malloc,arena}.c) gives each thread an arena of its own, up to eight for each core, and returns memory to the kernel only
//! from an arena's end: what a burst has used stays resident for good. Few arenas, large buffers mapped apart, and [`give_back`] after a burst
//! keep what is resident near what is used.

/// Buffers from this size on are mapped for themselves and vanish when they are freed. Said once, the limit does not grow by itself, as it
/// otherwise does with the first large buffer that is freed.
const MAPPED_BYTES: i32 = 512 << 10;
/// So much may be free at the end of the heap.
const SPARE_BYTES: i32 = 2 << 20;

/// Bounds the number of arenas and how much is kept. To be called before there are threads.
pub fn set_up(arenas: usize) {
    let arenas = i32::try_from(arenas).unwrap_or(i32::MAX);
    for (parameter, value) in [(libc::M_ARENA_MAX, arenas), (libc::M_MMAP_THRESHOLD, MAPPED_BYTES), (libc::M_TRIM_THRESHOLD, SPARE_BYTES)] {
        // SAFETY: takes two numbers; what it does not accept it refuses, and then the default holds.
        unsafe { libc::mallopt(parameter, value) };
    }
}

/// What the heap holds.
#[derive(Clone, Copy, Debug)]
pub struct Usage {
    pub used_bytes: usize,
    /// Free inside of the heap, whether the kernel still holds memory for it or not.
    pub free_bytes: usize,
}

pub fn usage() -> Usage {
    // SAFETY: takes nothing and returns numbers; it locks each arena by itself.
    let info = unsafe { libc::mallinfo2() };
    Usage { used_bytes: info.uordblks + info.hblkhd, free_bytes: info.fordblks }
}

/// Returns the memory of whole free pages to the kernel, wherever in the heap they lie. Takes milliseconds for a large heap.
pub fn give_back() {
    // SAFETY: takes a number, and locks each arena by itself.
    unsafe { libc::malloc_trim(SPARE_BYTES as usize) };
}
