//! Copies one page, as fast as the CPU allows.

use main_storage::Direction;

const PAGE: usize = 4096;

/// Copies one page from the first to the second pointer.
///
/// # Safety
/// Both pages are mapped (the second writable), page aligned, and not the same
/// memory. Stores may be weakly ordered until [`finish`].
pub(crate) type CopyPage = unsafe fn(*const u8, *mut u8);

/// The fastest way on this CPU to copy pages that follow in `direction`.
pub(crate) fn fastest(direction: Direction) -> CopyPage {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") {
        return match direction {
            Direction::Up => streaming::<false>,
            Direction::Down => streaming::<true>,
        };
    }
    let _ = direction;
    plain
}

/// Makes all stores of earlier copies visible before any later store.
pub(crate) fn finish() {
    // SAFETY: SSE is part of x86-64.
    #[cfg(target_arch = "x86_64")]
    unsafe {
        std::arch::x86_64::_mm_sfence();
    }
}

/// The portable way.
///
/// # Safety
/// As [`CopyPage`] says.
pub(crate) unsafe fn plain(from: *const u8, to: *mut u8) {
    // SAFETY: the caller promises two mapped pages that do not overlap.
    unsafe { std::ptr::copy_nonoverlapping(from, to, PAGE) };
}

/// With non-temporal stores: a moved page is not read again soon, and its old
/// content need not be fetched only to be overwritten.
///
/// The page is copied in the direction in which the pages follow each other,
/// so that the CPU sees one stream it can read ahead in: for pages that go
/// down this is nearly twice as fast as copying each of them upwards.
///
/// # Safety
/// As [`CopyPage`] says, and the CPU has AVX2.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
unsafe fn streaming<const DOWN: bool>(from: *const u8, to: *mut u8) {
    use std::arch::x86_64::{__m256i, _mm256_load_si256, _mm256_stream_si256};
    const LANES: usize = 4;
    const GROUPS: usize = PAGE / (LANES * size_of::<__m256i>());
    let from = from.cast::<__m256i>();
    let to = to.cast::<__m256i>();
    for group in 0..GROUPS {
        let at = LANES * if DOWN { GROUPS - 1 - group } else { group };
        // SAFETY: the caller promises mapped, page-aligned pages, so every
        // vector of the page is in bounds and aligned; the feature is enabled.
        unsafe {
            let vectors: [__m256i; LANES] =
                std::array::from_fn(|lane| _mm256_load_si256(from.add(at + lane)));
            for (lane, vector) in vectors.into_iter().enumerate() {
                _mm256_stream_si256(to.add(at + lane), vector);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[repr(align(4096))]
    struct Page([u8; PAGE]);

    #[test]
    fn every_way_copies_the_whole_page_and_nothing_else() {
        for copy in [plain as CopyPage, fastest(Direction::Up), fastest(Direction::Down)] {
            let from = Page(std::array::from_fn(|at| (at * 7 % 251) as u8));
            let mut to = [Page([1; PAGE]), Page([2; PAGE]), Page([3; PAGE])];
            // SAFETY: both are aligned pages of this test's own.
            unsafe { copy(from.0.as_ptr(), to[1].0.as_mut_ptr()) };
            finish();
            assert!(to[1].0 == from.0 && to[0].0 == [1; PAGE] && to[2].0 == [3; PAGE]);
        }
    }
}
