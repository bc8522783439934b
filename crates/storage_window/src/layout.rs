//! Where a guest sees the storage of its window.

/// The granularity at which riscv64 Linux takes memory while it runs.
pub const HOT_PLUG_ALIGNMENT: u64 = 128 << 20;

/// Guest physical addresses of a window's storage.
///
/// ```text
/// window offset   0        boot_size                      reach
///                 | boot   | hot-plug                     |
/// guest physical  base     …gap…  hot_plug_base
/// ```
///
/// The window is one piece of host addresses and of main storage; its guest
/// sees what it boots in and, apart from that, what it may be given later.
/// Between the two is always a gap, so no guest range lies in both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GuestLayout {
    // `boot_size <= reach`, and neither part wraps around the end of the
    // address space.
    base: u64,
    boot_size: u64,
    hot_plug_base: u64,
    reach: u64,
}

impl GuestLayout {
    /// The layout of a guest that boots in `boot_size` bytes from guest
    /// physical address `base` and never has more than `reach`. `None` if
    /// addresses do not suffice, or if `reach` is the smaller.
    #[must_use]
    pub fn new(base: u64, boot_size: u64, reach: u64) -> Option<Self> {
        let more = reach.checked_sub(boot_size)?;
        let boot_end = base.checked_add(boot_size)?;
        let hot_plug_base = match more {
            0 => boot_end,
            _ => boot_end.checked_add(1)?.checked_next_multiple_of(HOT_PLUG_ALIGNMENT)?,
        };
        hot_plug_base.checked_add(more)?;
        Some(Self { base, boot_size, hot_plug_base, reach })
    }

    /// Guest physical address of the first byte.
    #[must_use]
    pub fn base(&self) -> u64 {
        self.base
    }

    /// Bytes of boot storage, which the guest always has.
    #[must_use]
    pub fn boot_size(&self) -> u64 {
        self.boot_size
    }

    /// Guest physical address of the first byte behind boot storage, a
    /// multiple of [`HOT_PLUG_ALIGNMENT`] where there can be one.
    #[must_use]
    pub fn hot_plug_base(&self) -> u64 {
        self.hot_plug_base
    }

    /// Most bytes that the guest can ever have, boot storage among them.
    #[must_use]
    pub fn reach(&self) -> u64 {
        self.reach
    }

    /// Offset in the window of the byte at guest physical address `physical`
    /// if all `count` bytes from there are storage of a window of `size` bytes.
    #[inline]
    #[must_use]
    pub fn offset(&self, physical: u64, count: u64, size: u64) -> Option<u64> {
        let (start, first, end) = if physical < self.hot_plug_base {
            (self.base, 0, self.boot_size.min(size))
        } else {
            (self.hot_plug_base, self.boot_size, self.reach.min(size))
        };
        let offset = physical.checked_sub(start)?.checked_add(first)?;
        (offset.checked_add(count)? <= end).then_some(offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BASE: u64 = 0x8000_0000;
    const M: u64 = 1 << 20;

    #[test]
    fn the_hot_plug_part_begins_at_a_block_and_behind_a_gap() {
        let base = |boot| GuestLayout::new(BASE, boot, 1 << 40).unwrap().hot_plug_base();
        assert_eq!(base(64 * M), BASE + 128 * M);
        assert_eq!(base(127 * M), BASE + 128 * M);
        assert_eq!(base(128 * M), BASE + 256 * M, "never right behind");
    }

    #[test]
    fn addresses_that_do_not_suffice_are_refused() {
        assert_eq!(GuestLayout::new(BASE, 4 * M, 2 * M), None);
        assert_eq!(GuestLayout::new(u64::MAX - M, 2 * M, 2 * M), None);
        assert_eq!(GuestLayout::new(BASE, 4 * M, u64::MAX), None);
        assert_eq!(GuestLayout::new(u64::MAX - 8 * M, 4 * M, 5 * M), None);
        assert!(GuestLayout::new(BASE, 4 * M, 4 * M).is_some());
    }

    proptest! {
        #[test]
        fn every_byte_of_the_window_has_one_address_and_nothing_else_has(
            boot in 1..300u64, more in 0..300u64, size in 0..700u64,
            at in 0..800u64, odd in prop_oneof![Just(0), 0..M], count in 0..3 * M,
        ) {
            let layout = GuestLayout::new(BASE, boot * M, (boot + more) * M).unwrap();
            let size = (size * M).clamp(layout.boot_size(), layout.reach());
            let address = |offset| match offset {
                offset if offset < layout.boot_size() => BASE + offset,
                offset => layout.hot_plug_base() + offset - layout.boot_size(),
            };
            let physical = BASE + at * M + odd;
            match layout.offset(physical, count.max(1), size) {
                Some(offset) => {
                    prop_assert_eq!(address(offset), physical);
                    let last = offset + count.max(1) - 1;
                    prop_assert!(last < size);
                    prop_assert_eq!(address(last), physical + count.max(1) - 1);
                }
                None => {
                    let known = (0..size / M).any(|block| {
                        let start = address(block * M);
                        (start..start + M).contains(&physical)
                    });
                    let end = known && layout.offset(physical, 1, size).is_some();
                    prop_assert_eq!(known, end, "the first byte is found if it exists");
                }
            }
        }

        #[test]
        fn no_address_makes_it_panic(physical in any::<u64>(), count in any::<u64>(), size in any::<u64>()) {
            let layout = GuestLayout::new(BASE, 4 * M, 16 * M).unwrap();
            if let Some(offset) = layout.offset(physical, count, size) {
                prop_assert!(offset + count <= 16 * M && offset + count <= size.max(4 * M));
            }
        }
    }
}
