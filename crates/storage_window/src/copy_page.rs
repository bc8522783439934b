//! Copies pages, as fast as the CPU allows.
//!
//! Which way that is differs between makers, by up to a half: measured with
//! `benches/copy.rs` on an EPYC (Milan) and on a Xeon (Ice Lake).

use std::sync::OnceLock;

use main_storage::Direction;

const PAGE: usize = 4096;

/// Pages that [`four`] copies at once.
pub(crate) const FOUR: u64 = 4;

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

/// The fastest way to copy four pages that lie one behind the other, where that is
/// not to copy one after the other.
pub(crate) fn four() -> Option<CopyPage> {
    #[cfg(target_arch = "x86_64")]
    if is_intel() && std::arch::is_x86_feature_detected!("avx2") {
        return Some(side_by_side);
    }
    None
}

/// The fastest way to copy onto a page that was read a moment ago.
pub(crate) fn onto_cached() -> CopyPage {
    if is_intel() { plain } else { fastest(Direction::Up) }
}

/// Whether Intel made the CPU.
fn is_intel() -> bool {
    static INTEL: OnceLock<bool> = OnceLock::new();
    *INTEL.get_or_init(|| {
        #[cfg(target_arch = "x86_64")]
        {
            let found = std::arch::x86_64::__cpuid(0);
            [found.ebx, found.edx, found.ecx].map(u32::to_le_bytes).as_flattened()
                == b"GenuineIntel"
        }
        #[cfg(not(target_arch = "x86_64"))]
        false
    })
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

/// Four pages at once with non-temporal stores: as many streams keep more of an
/// Intel's memory channels busy. The C library copies much memory in this way.
///
/// # Safety
/// As [`CopyPage`] says, of four pages each, and the CPU has AVX2.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
unsafe fn side_by_side(from: *const u8, to: *mut u8) {
    use std::arch::x86_64::{
        __m256i, _MM_HINT_T0, _mm_prefetch, _mm256_load_si256, _mm256_stream_si256,
    };
    const VECTORS: usize = PAGE / size_of::<__m256i>();
    let from = from.cast::<__m256i>();
    let to = to.cast::<__m256i>();
    for line in (0..VECTORS).step_by(2) {
        for page in 0..FOUR as usize {
            let at = page * VECTORS + line;
            // SAFETY: as in `streaming`, for each of the four pages. A prefetch
            // touches nothing, wherever it points.
            unsafe {
                let vectors =
                    [_mm256_load_si256(from.add(at)), _mm256_load_si256(from.add(at + 1))];
                _mm256_stream_si256(to.add(at), vectors[0]);
                _mm256_stream_si256(to.add(at + 1), vectors[1]);
                let next = from.wrapping_add(at + FOUR as usize * VECTORS);
                _mm_prefetch(next.cast::<i8>(), _MM_HINT_T0);
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
        let ways =
            [plain as CopyPage, fastest(Direction::Up), fastest(Direction::Down), onto_cached()];
        for copy in ways {
            let from = Page(std::array::from_fn(|at| (at * 7 % 251) as u8));
            let mut to = [Page([1; PAGE]), Page([2; PAGE]), Page([3; PAGE])];
            // SAFETY: both are aligned pages of this test's own.
            unsafe { copy(from.0.as_ptr(), to[1].0.as_mut_ptr()) };
            finish();
            assert!(to[1].0 == from.0 && to[0].0 == [1; PAGE] && to[2].0 == [3; PAGE]);
        }
    }

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn four_pages_are_copied_and_nothing_else() {
        if !std::arch::is_x86_feature_detected!("avx2") {
            return;
        }
        #[repr(align(4096))]
        struct Pages([u8; 6 * PAGE]);
        let from = Pages(std::array::from_fn(|at| (at * 7 % 251) as u8));
        let mut to = Pages([1; 6 * PAGE]);
        // SAFETY: four aligned pages in the middle of this test's own six.
        unsafe { side_by_side(from.0.as_ptr().add(PAGE), to.0.as_mut_ptr().add(PAGE)) };
        finish();
        let middle = PAGE..5 * PAGE;
        assert!(to.0[middle.clone()] == from.0[middle]);
        assert!(to.0[..PAGE] == [1; PAGE] && to.0[5 * PAGE..] == [1; PAGE]);
    }
}
