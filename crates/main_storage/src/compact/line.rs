//! Main storage as a line of blocks with things on it.

/// Something on the line. In blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Item {
    /// Its first block.
    pub(super) at: u64,
    /// Its length.
    pub(super) size: u64,
    /// Whether it may not be moved.
    pub(super) is_fixed: bool,
}

impl Item {
    /// The first block after it.
    pub(super) fn end(&self) -> u64 {
        self.at + self.size
    }
}

/// The line: its items by ascending place, none overlapping another.
#[derive(Debug, Clone)]
pub(super) struct Line {
    pub(super) length: u64,
    pub(super) items: Vec<Item>,
}

/// A free range that is wanted.
#[derive(Debug, Clone, Copy)]
pub(super) struct Goal {
    /// Its length in blocks, not 0.
    pub(super) size: u64,
    /// Its first block, which is the end of a fixed item; `None`: anywhere.
    pub(super) at: Option<u64>,
}

/// A move of the item at `from`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Step {
    pub(super) from: u64,
    pub(super) to: u64,
}

/// A way to reach a [`Goal`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Solution {
    pub(super) steps: Vec<Step>,
    /// Blocks moved in all.
    pub(super) cost: u64,
    /// First block of the free range.
    pub(super) free_at: u64,
}

impl Line {
    /// The line of `length` blocks with `items`, of which only fixed ones may
    /// overlap; those become one.
    pub(super) fn new(length: u64, mut items: Vec<Item>) -> Self {
        items.sort_by_key(|item| item.at);
        let mut apart: Vec<Item> = Vec::with_capacity(items.len());
        for item in items {
            match apart.last_mut() {
                Some(last) if last.is_fixed && item.is_fixed && last.end() > item.at => {
                    last.size = last.end().max(item.end()) - last.at;
                }
                _ => apart.push(item),
            }
        }
        Self { length, items: apart }
    }

    /// The end of what is before item `index`, or of what is last.
    pub(super) fn end_before(&self, index: usize) -> u64 {
        index.checked_sub(1).map_or(0, |before| self.items[before].end())
    }

    /// Where item `index` begins, or the line's end.
    pub(super) fn start_of(&self, index: usize) -> u64 {
        self.items.get(index).map_or(self.length, |item| item.at)
    }

    /// The free blocks right before item `index`, or behind the last.
    pub(super) fn gap_before(&self, index: usize) -> u64 {
        self.start_of(index) - self.end_before(index)
    }
}
