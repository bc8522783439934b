//! Which pages of main storage have content.

use std::io;
use std::ops::Range;
use std::os::fd::BorrowedFd;

use main_storage::{PAGE_SIZE, StorageRange};
use rustix::fs::SeekFrom;
use rustix::io::Errno;

use crate::fault::{self, Point};

/// Neighbouring pages of a range that all have content, or all are holes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Run {
    /// Page indices, counted from the start of the range.
    pub(crate) pages: Range<u64>,
    /// Whether the pages have content; holes read as zero.
    pub(crate) data: bool,
}

/// All pages of `range`, by ascending index, as few runs as possible.
///
/// A page that was swapped out counts as content (which is why this asks the
/// file and not `mincore`).
pub(crate) fn runs(file: BorrowedFd<'_>, range: StorageRange) -> io::Result<Vec<Run>> {
    fault::check(Point::Scan)?;
    let mut runs = Vec::new();
    let page = |offset: u64| (offset - range.origin()) / PAGE_SIZE;
    let mut push = |from: u64, to: u64, data| {
        if from < to {
            runs.push(Run { pages: page(from)..page(to), data });
        }
    };
    let mut at = range.origin();
    while at < range.end() {
        let data = match rustix::fs::seek(file, SeekFrom::Data(at)) {
            Ok(offset) => offset.min(range.end()) / PAGE_SIZE * PAGE_SIZE,
            Err(Errno::NXIO) => range.end(),
            Err(error) => return Err(error.into()),
        };
        push(at, data, false);
        if data >= range.end() {
            break;
        }
        let hole = rustix::fs::seek(file, SeekFrom::Hole(data))?
            .max(data + 1)
            .next_multiple_of(PAGE_SIZE)
            .min(range.end());
        push(data, hole, true);
        at = hole;
    }
    Ok(runs)
}

/// The pages of `runs` with content, moved up by `shift` pages (down if
/// negative), as far as they are in `within`.
pub(crate) fn data_shifted(
    runs: &[Run],
    shift: i64,
    within: Range<u64>,
) -> impl Iterator<Item = Range<u64>> {
    runs.iter().filter(|run| run.data).filter_map(move |run| {
        let start = run.pages.start.saturating_add_signed(shift).max(within.start);
        let end = run.pages.end.saturating_add_signed(shift).min(within.end);
        (start < end).then_some(start..end)
    })
}

/// What two ascending lists of disjoint ranges have in common.
pub(crate) fn common(one: &[Range<u64>], other: &[Range<u64>]) -> Vec<Range<u64>> {
    let mut both = Vec::new();
    let (mut i, mut j) = (0, 0);
    while let (Some(a), Some(b)) = (one.get(i), other.get(j)) {
        let (start, end) = (a.start.max(b.start), a.end.min(b.end));
        if start < end {
            both.push(start..end);
        }
        if a.end <= b.end { i += 1 } else { j += 1 }
    }
    both
}

#[cfg(test)]
#[expect(clippy::single_range_in_vec_init, reason = "lists of ranges are what is tested")]
mod tests {
    use super::*;

    #[test]
    fn common_is_what_both_lists_have() {
        assert_eq!(common(&[0..4, 6..9], &[2..7, 8..20]), [2..4, 6..7, 8..9]);
        assert_eq!(common(&[0..4], &[4..7]), []);
        assert_eq!(common(&[], &[4..7]), []);
    }

    #[test]
    fn shifted_data_is_clipped() {
        let run = |pages, data| Run { pages, data };
        let runs = [run(0..4, true), run(4..8, false), run(8..10, true)];
        let shifted = |shift, within| data_shifted(&runs, shift, within).collect::<Vec<_>>();
        assert_eq!(shifted(2, 0..11), [2..6, 10..11]);
        assert_eq!(shifted(-2, 0..11), [0..2, 6..8]);
        assert_eq!(shifted(-5, 1..11), [3..5]);
    }
}
