//! Which pages of main storage have content.

use std::io;
use std::ops::Range;
use std::os::fd::BorrowedFd;

use main_storage::{PAGE_SIZE, StorageRange};
use rustix::fs::SeekFrom;
use rustix::io::Errno;

use crate::fault::{self, Point};
use crate::mapping::Mapping;

/// Neighbouring pages of a range that all have content, or all are holes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Run {
    /// Page indices, counted from the start of the range.
    pub(crate) pages: Range<u64>,
    /// Whether the pages have content; holes read as zero.
    pub(crate) data: bool,
}

/// All pages of `range`, by ascending index, as few runs as possible.
pub(crate) fn runs(file: BorrowedFd<'_>, range: StorageRange) -> io::Result<Vec<Run>> {
    let mut all = Vec::new();
    ask(file, range, 0..range.pages(), &mut all)?;
    Ok(all)
}

/// The same for `pages` of a range that is mapped at the start of `mapping`.
///
/// Most pages with content are in page tables, which tell at a fraction of the
/// cost of asking the file; the file is asked only about the others.
pub(crate) fn runs_mapped(
    file: BorrowedFd<'_>,
    range: StorageRange,
    mapping: &Mapping,
    pages: Range<u64>,
) -> io::Result<Vec<Run>> {
    fault::check(Point::Scan)?;
    let byte = |page: u64| {
        usize::try_from(page * PAGE_SIZE).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))
    };
    let resident = mapping.resident(&(byte(pages.start)?..byte(pages.end)?))?;
    let mut all = Vec::new();
    let mut at = pages.start;
    for group in resident.chunk_by(|one, next| one & 1 == next & 1) {
        let pages = at..at + group.len() as u64;
        at = pages.end;
        if group.first().is_some_and(|page| page & 1 == 1) {
            append(&mut all, pages, true);
        } else {
            ask(file, range, pages, &mut all)?;
        }
    }
    Ok(all)
}

/// The same for a range whose pages `data` had content a moment ago: they still
/// have, or read as zero, which costs a copy. So only the others are asked about,
/// where that takes few questions.
pub(crate) fn runs_known(
    file: BorrowedFd<'_>,
    range: StorageRange,
    mapping: &Mapping,
    pages: Range<u64>,
    data: &[Range<u64>],
) -> io::Result<Vec<Run>> {
    let unknown = missing(data, pages.clone());
    if unknown.len() > MANY_QUESTIONS || data.is_empty() {
        return runs_mapped(file, range, mapping, pages);
    }
    let mut all = Vec::new();
    let mut at = pages.start;
    for unknown in unknown {
        append(&mut all, at..unknown.start, true);
        at = unknown.end;
        for run in runs_mapped(file, range, mapping, unknown)? {
            append(&mut all, run.pages, run.data);
        }
    }
    append(&mut all, at..pages.end, true);
    Ok(all)
}

/// Questions that cost about as much as one about a whole chunk.
const MANY_QUESTIONS: usize = 16;

/// Asks the file about `pages` of `range`. A page that was swapped out counts
/// as content (which is why page tables alone do not do).
fn ask(
    file: BorrowedFd<'_>,
    range: StorageRange,
    pages: Range<u64>,
    all: &mut Vec<Run>,
) -> io::Result<()> {
    fault::check(Point::Scan)?;
    let offset = |page: u64| range.origin() + page * PAGE_SIZE;
    let page = |offset: u64| (offset.max(range.origin()) - range.origin()) / PAGE_SIZE;
    let mut at = pages.start;
    while at < pages.end {
        let data = match rustix::fs::seek(file, SeekFrom::Data(offset(at))) {
            // A device has no holes, and says 0 whatever it is asked.
            Ok(found) if found < offset(at) => {
                append(all, at..pages.end, true);
                break;
            }
            Ok(found) => page(found).min(pages.end),
            Err(Errno::NXIO) => pages.end,
            Err(error) => return Err(error.into()),
        };
        append(all, at..data, false);
        if data >= pages.end {
            break;
        }
        let hole = rustix::fs::seek(file, SeekFrom::Hole(offset(data)))?;
        at = page(hole.next_multiple_of(PAGE_SIZE)).clamp(data + 1, pages.end);
        append(all, data..at, true);
    }
    Ok(())
}

pub(crate) fn append(all: &mut Vec<Run>, pages: Range<u64>, data: bool) {
    match all.last_mut() {
        _ if pages.is_empty() => {}
        Some(last) if last.data == data => last.pages.end = pages.end,
        _ => all.push(Run { pages, data }),
    }
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

/// `pages` moved up by `shift` (down if negative), as far as that is above 0.
pub(crate) fn shifted(pages: &Range<u64>, shift: i64) -> Option<Range<u64>> {
    let start = pages.start.saturating_add_signed(shift);
    let end = pages.end.saturating_add_signed(shift);
    (start < end).then_some(start..end)
}

/// Makes those pages of `filled` holes that are zero: holes that were filled
/// early, before anybody stored there. Who stores says so first: what was not
/// `written` need not be looked at.
///
/// # Safety
/// The runs lie in `mapping`, at whose start the range begins, and nobody
/// stores into them meanwhile.
pub(crate) unsafe fn unfill(
    runs: Vec<Run>,
    filled: &[Range<u64>],
    mapping: &Mapping,
    written: impl Fn(u64) -> bool,
) -> Vec<Run> {
    let mut all = Vec::with_capacity(runs.len());
    for run in runs {
        if !run.data {
            append(&mut all, run.pages, false);
            continue;
        }
        let mut at = run.pages.start;
        for pages in common(std::slice::from_ref(&run.pages), filled) {
            append(&mut all, at..pages.start, true);
            at = pages.end;
            for page in pages {
                let content = mapping.base().wrapping_add((page * PAGE_SIZE) as usize);
                // SAFETY: the caller's promise.
                let zero = !written(page) || unsafe { is_zero(content) };
                append(&mut all, page..page + 1, !zero);
            }
        }
        append(&mut all, at..run.pages.end, true);
    }
    all
}

/// # Safety
/// A page is mapped there, and nobody stores into it meanwhile.
pub(crate) unsafe fn is_zero(page: *const u8) -> bool {
    // SAFETY: the caller's promise; pages are aligned.
    let words = unsafe { std::slice::from_raw_parts(page.cast::<u64>(), PAGE_SIZE as usize / 8) };
    words.chunks(32).all(|words| words.iter().fold(0, |all, word| all | word) == 0)
}

/// The parts of `wanted` that are in none of an ascending list of disjoint
/// ranges.
pub(crate) fn missing(there: &[Range<u64>], wanted: Range<u64>) -> Vec<Range<u64>> {
    let mut missing = Vec::new();
    let mut at = wanted.start;
    let first = there.partition_point(|range| range.end <= wanted.start);
    for range in there.iter().skip(first).take_while(|range| range.start < wanted.end) {
        if at < range.start {
            missing.push(at..range.start);
        }
        at = range.end;
    }
    if at < wanted.end {
        missing.push(at..wanted.end);
    }
    missing
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
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn common_is_what_both_lists_have() {
        assert_eq!(common(&[0..4, 6..9], &[2..7, 8..20]), [2..4, 6..7, 8..9]);
        assert_eq!(common(&[0..4], &[4..7]), []);
        assert_eq!(common(&[], &[4..7]), []);
    }

    #[test]
    fn what_had_content_is_not_asked_about() {
        let file = rustix::fs::memfd_create("runs", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        rustix::fs::ftruncate(&file, 256 * PAGE_SIZE).unwrap();
        for page in [3, 4, 9] {
            rustix::io::pwrite(&file, b"x", page * PAGE_SIZE).unwrap();
        }
        let range = StorageRange::new(0, 256 * PAGE_SIZE).unwrap();
        let mapping = Mapping::of_file(file.as_fd(), 0, 256 * PAGE_SIZE as usize).unwrap();
        let known = |data: &[Range<u64>]| {
            let runs = runs_known(file.as_fd(), range, &mapping, 2..12, data).unwrap();
            data_shifted(&runs, 0, 0..64).collect::<Vec<_>>()
        };
        assert_eq!(known(&[]), [3..5, 9..10]);
        assert_eq!(known(&[3..5]), [3..5, 9..10], "what came since is found");
        assert_eq!(known(&[0..1, 3..7, 9..11]), [3..7, 9..11], "what went since is copied");
        let many: Vec<_> = (0..64).map(|page| 2 * page..2 * page + 1).collect();
        let all: Vec<_> = (2..12).map(|page| (page..page + 1, page % 2 == 0)).collect();
        let runs = runs_known(file.as_fd(), range, &mapping, 2..12, &many).unwrap();
        let expected = all.into_iter().map(|(pages, even)| {
            let data = even || pages.start == 3 || pages.start == 9;
            (pages, data)
        });
        let pages = |runs: &[Run]| {
            runs.iter()
                .flat_map(|run| run.pages.clone().map(|page| (page..page + 1, run.data)))
                .collect::<Vec<_>>()
        };
        assert_eq!(pages(&runs), expected.collect::<Vec<_>>());
    }

    /// Found with a devdax device, where this was asked for ever.
    #[test]
    fn a_device_has_no_holes() {
        let device = std::fs::File::open("/dev/null").unwrap();
        let range = StorageRange::new(1 << 20, 1 << 20).unwrap();
        let mut all = Vec::new();
        ask(device.as_fd(), range, 2..6, &mut all).unwrap();
        assert_eq!(all, [Run { pages: 2..6, data: true }]);
    }

    #[test]
    fn missing_is_what_no_range_has() {
        assert_eq!(missing(&[2..4, 6..7], 0..9), [0..2, 4..6, 7..9]);
        assert_eq!(missing(&[0..4, 6..9], 3..7), [4..6]);
        assert_eq!(missing(&[0..4], 1..4), []);
        assert_eq!(missing(&[], 1..4), [1..4]);
    }

    #[test]
    fn filled_holes_are_holes_until_somebody_stores_there() {
        let file = rustix::fs::memfd_create("unfill", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        let length = 8 * PAGE_SIZE as usize;
        rustix::fs::ftruncate(&file, length as u64).unwrap();
        let mapping = Mapping::of_file(file.as_fd(), 0, length).unwrap();
        // The last byte of page 2, and page 6, which was never filled.
        for byte in [3 * PAGE_SIZE as usize - 1, 6 * PAGE_SIZE as usize] {
            // SAFETY: inside the mapping, which is this test's alone.
            unsafe { *mapping.base().add(byte) = 1 };
        }
        let run = |pages, data| Run { pages, data };
        let runs = vec![run(0..5, true), run(5..6, false), run(6..8, true)];
        // SAFETY: as above.
        let found = unsafe { unfill(runs.clone(), &[1..4], &mapping, |_| true) };
        let expected = [
            run(0..1, true),
            run(1..2, false),
            run(2..3, true),
            run(3..4, false),
            run(4..5, true),
            run(5..6, false),
            run(6..8, true),
        ];
        assert_eq!(found, expected);
        // SAFETY: as above.
        let found = unsafe { unfill(runs, &[1..4], &mapping, |page| page != 2) };
        assert_eq!(
            found,
            [run(0..1, true), run(1..4, false), run(4..5, true)]
                .into_iter()
                .chain(expected[5..].iter().cloned())
                .collect::<Vec<_>>()
        );
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
