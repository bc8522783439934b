//! The audit log from its end: some records at a time, the newest first,
//! within bounds however long the log is.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::audit::{MAX_LINE, Record};

/// Bytes that are read at once. Any line fits.
const WINDOW: u64 = 256 << 10;
/// Windows that are looked through for one page.
const WINDOWS: usize = 32;

/// Some records, the newest first.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct AuditPage {
    /// The records.
    pub records: Vec<Record>,
    /// Where to go on, if there may be more.
    pub next: Option<u64>,
    /// Lines that are no records.
    pub damaged: u64,
}

/// At most `limit` records that are `wanted`, older than the place `before` (a
/// page's [`AuditPage::next`]; without, the newest).
///
/// # Errors
/// What the system says when the log cannot be read. One that is not there has
/// no records.
pub fn audit_page(
    path: &Path,
    before: Option<u64>,
    limit: usize,
    wanted: impl Fn(&Record) -> bool,
) -> io::Result<AuditPage> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(AuditPage::default()),
        opened => opened?,
    };
    let length = file.metadata()?.len();
    let mut end = before.map_or(length, |before| before.min(length));
    let mut page = AuditPage::default();
    for _ in 0..WINDOWS {
        if end == 0 || page.records.len() >= limit {
            break;
        }
        end = look(&file, end, limit, &wanted, &mut page)?;
    }
    page.next = (end > 0).then_some(end);
    Ok(page)
}

/// Looks through the window that ends at `end`; where the next one ends.
fn look(
    file: &File,
    end: u64,
    limit: usize,
    wanted: &impl Fn(&Record) -> bool,
    page: &mut AuditPage,
) -> io::Result<u64> {
    let start = end.saturating_sub(WINDOW);
    // At most a window, which fits.
    let mut bytes = vec![0; usize::try_from(end - start).unwrap_or(0)];
    file.read_exact_at(&mut bytes, start)?;
    // The first line of a window that is not the first may begin before it.
    let first = if start == 0 { Some(0) } else { after_line_end(&bytes) };
    let Some(first) = first else {
        page.damaged += 1;
        return Ok(start);
    };
    let mut left = bytes.len();
    while left > first && page.records.len() < limit {
        let line_end = if bytes.get(left - 1) == Some(&b'\n') { left - 1 } else { left };
        let begin = bytes[first..line_end].iter().rposition(|byte| *byte == b'\n');
        let begin = begin.map_or(first, |place| first + place + 1);
        let line = &bytes[begin..line_end];
        let record = if line.len() > MAX_LINE { None } else { serde_json::from_slice(line).ok() };
        match record {
            Some(record) if wanted(&record) => page.records.push(record),
            Some(_) => {}
            None => page.damaged += u64::from(!line.is_empty()),
        }
        left = begin;
    }
    Ok(start + left as u64)
}

fn after_line_end(bytes: &[u8]) -> Option<usize> {
    // With nothing behind it, it would be found again for ever.
    let place = bytes.iter().position(|byte| *byte == b'\n')? + 1;
    (place < bytes.len()).then_some(place)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{AuditLog, Flush};
    use service_pool::Ending;
    use std::io::Write;

    fn worn(number: u64) -> Record {
        Record::Worn {
            machine: "serve-03".parse().unwrap(),
            user: format!("user{}", number % 10).parse().unwrap(),
            conversation: format!("1.{number:x}").parse().unwrap(),
            tpn: "MAIL".parse().unwrap(),
            from: Some(5),
            to: number,
            how: Ending::Confirmed,
        }
    }

    fn time(record: &Record) -> u64 {
        match record {
            Record::Worn { to, .. } => *to,
            Record::Refused { at, .. }
            | Record::TurnedAway { at, .. }
            | Record::Database { at, .. } => *at,
        }
    }

    /// Every wanted record's time, page by page.
    fn all(path: &Path, limit: usize, wanted: impl Fn(&Record) -> bool) -> (Vec<u64>, u64) {
        let (mut times, mut damaged, mut before) = (Vec::new(), 0, None);
        loop {
            let page = audit_page(path, before, limit, &wanted).unwrap();
            assert!(page.records.len() <= limit);
            times.extend(page.records.iter().map(time));
            damaged += page.damaged;
            let Some(next) = page.next else { return (times, damaged) };
            assert!(before.is_none_or(|before| next < before), "it goes on for ever");
            before = Some(next);
        }
    }

    #[test]
    fn pages_hold_every_record_once_and_the_newest_first() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit");
        assert_eq!(audit_page(&path, None, 9, |_| true).unwrap(), AuditPage::default());
        let mut log = AuditLog::open(&path, Flush::BySystem).unwrap();
        for number in 0..7000 {
            log.append(&worn(number)).unwrap();
        }
        assert!(std::fs::metadata(&path).unwrap().len() > 3 * WINDOW, "several windows");
        let newest: Vec<u64> = (0..7000).rev().collect();
        for limit in [1000, 333, 7001] {
            assert_eq!(all(&path, limit, |_| true), (newest.clone(), 0), "{limit}");
        }
        let ends_in_7 = |record: &Record| time(record) % 10 == 7;
        let (times, _) = all(&path, 50, ends_in_7);
        assert_eq!(times.len(), 700);
        assert!(times.iter().all(|time| time % 10 == 7));
    }

    #[test]
    fn damage_is_passed_over_and_ends() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit");
        let mut file = File::create(&path).unwrap();
        let line = serde_json::to_string(&worn(1)).unwrap();
        writeln!(file, "{line}").unwrap();
        // Longer than a window, without a line end, and with too many.
        write!(file, "{}", "x".repeat(600 << 10)).unwrap();
        write!(file, "{}", "\n".repeat(600 << 10)).unwrap();
        write!(file, "{line}\nrubbish\n{line}\n{{\"record\":").unwrap();
        let (times, damaged) = all(&path, 2, |_| true);
        assert_eq!(times, [1, 1, 1]);
        assert!((4..=6).contains(&damaged), "{damaged}");
    }
}
