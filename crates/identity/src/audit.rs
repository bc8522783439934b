//! The audit log: who wore which machine from when to when, and who was
//! refused. One JSON record a line, only ever appended to.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use service_pool::{ConversationId, Ending, MemberId, PoolName, Refusal, Tpn, UserId};

use crate::text;

/// Longest line of an audit log, in bytes; a longer one is damaged.
pub const MAX_LINE: usize = 4096;

/// One record. Times are milliseconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "record", rename_all = "kebab-case")]
pub enum Record {
    /// A machine was somebody.
    Worn {
        /// The machine's primary id.
        #[serde(with = "text")]
        machine: MemberId,
        /// The alternate user id.
        #[serde(with = "text")]
        user: UserId,
        /// The conversation.
        #[serde(with = "text")]
        conversation: ConversationId,
        /// The program.
        #[serde(with = "text")]
        tpn: Tpn,
        /// When the machine accepted; `None` if it never did.
        from: Option<u64>,
        /// When the id was taken off.
        to: u64,
        /// How the conversation ended.
        #[serde(with = "EndingWord")]
        how: Ending,
    },
    /// Somebody got no machine.
    Refused {
        /// Who asked.
        #[serde(with = "text")]
        user: UserId,
        /// The conversation that did not come about.
        #[serde(with = "text")]
        conversation: ConversationId,
        /// The program.
        #[serde(with = "text")]
        tpn: Tpn,
        /// The pool, if one was named, as it was written.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pool: Option<PoolText>,
        /// When.
        at: u64,
        /// Why.
        #[serde(with = "RefusalWord")]
        why: Refusal,
    },
    /// Somebody did not even get to claim a machine. What they say of themselves
    /// is proved by nothing.
    TurnedAway {
        /// Who they say they are, at most [`MAX_CLAIM`] characters.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        user: Option<String>,
        /// The program, as they wrote it, at most [`MAX_CLAIM`] characters.
        tpn: String,
        /// When.
        at: u64,
        /// What they were told: the sense code, in hexadecimal digits.
        sense: String,
        /// How many others were turned away since the record before this one,
        /// and too soon after it to be written down.
        #[serde(default)]
        omitted: u64,
    },
    /// A machine's programs were connected to databases, or tried to be.
    Database {
        /// The machine's primary id.
        #[serde(with = "text")]
        machine: MemberId,
        /// The alternate user id.
        #[serde(with = "text")]
        user: UserId,
        /// The conversation.
        #[serde(with = "text")]
        conversation: ConversationId,
        /// As whom to what.
        logins: Vec<DatabaseLogin>,
        /// Connections that were refused.
        refused: u64,
        /// When the last of them was over.
        at: u64,
    },
}

/// Connections as a role of a database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatabaseLogin {
    /// The database.
    pub database: String,
    /// The role.
    pub role: String,
    /// How many there were.
    pub connections: u64,
}

/// Most characters of what somebody who is turned away says.
pub const MAX_CLAIM: usize = 255;

/// A pool's name inside of an option.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PoolText(#[serde(with = "text")] pub PoolName);

#[derive(Serialize, Deserialize)]
#[serde(remote = "Ending", rename_all = "kebab-case")]
enum EndingWord {
    Confirmed,
    NotAccepted,
    NotStarted,
    ProgramAbend,
    ClientAbend,
    LostConnection,
    Deadline,
    MachineDied,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Refusal", rename_all = "kebab-case")]
enum RefusalWord {
    UnknownTpn,
    NotAuthorised,
    NotNow,
    Closed,
    WaitRanOut,
    QueueFull,
}

/// When a record is on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flush {
    /// Before it counts as written.
    EachRecord,
    /// When the system likes: a crash of the host may lose the last ones, a
    /// crash of the program none.
    BySystem,
}

/// The log cannot be written. The host's operator is to blame.
#[derive(Debug, thiserror::Error)]
#[error("cannot write the audit log {}", path.display())]
pub struct AuditError {
    /// The log.
    pub path: PathBuf,
    /// Why not.
    pub source: io::Error,
}

/// An audit log open for appending.
#[derive(Debug)]
pub struct AuditLog {
    file: File,
    path: PathBuf,
    flush: Flush,
    // The file ends in the middle of a line.
    torn: bool,
}

impl AuditLog {
    /// Opens the log, or makes it, readable by its owner only.
    ///
    /// # Errors
    /// [`AuditError`] when the system refuses.
    pub fn open(path: &Path, flush: Flush) -> Result<Self, AuditError> {
        let opened = OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path);
        let prepared = opened.and_then(|mut file| {
            let torn = ends_torn(&mut file)?;
            Ok(Self { file, path: path.to_owned(), flush, torn })
        });
        prepared.map_err(|source| AuditError { path: path.to_owned(), source })
    }

    /// Appends a record with one write. After a torn line, whoever left it, the
    /// record begins on a line of its own.
    ///
    /// # Errors
    /// [`AuditError`] when the system refuses; the record may be there in part.
    pub fn append(&mut self, record: &Record) -> Result<(), AuditError> {
        let written = self.write(record);
        written.map_err(|source| AuditError { path: self.path.clone(), source })
    }

    fn write(&mut self, record: &Record) -> io::Result<()> {
        let mut line = if self.torn { vec![b'\n'] } else { Vec::new() };
        serde_json::to_writer(&mut line, record)?;
        line.push(b'\n');
        // Until it is known to be whole it is not.
        self.torn = true;
        let count = self.file.write(&line)?;
        if count < line.len() {
            return Err(io::ErrorKind::WriteZero.into());
        }
        self.torn = false;
        match self.flush {
            Flush::EachRecord => self.file.sync_data(),
            Flush::BySystem => Ok(()),
        }
    }
}

fn ends_torn(file: &mut File) -> io::Result<bool> {
    if file.seek(SeekFrom::End(0))? == 0 {
        return Ok(false);
    }
    file.seek(SeekFrom::End(-1))?;
    let mut last = [0];
    file.read_exact(&mut last)?;
    Ok(last != *b"\n")
}

/// What a reader finds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// A record.
    Record(Record),
    /// A line that is none.
    Damaged {
        /// Which line, counted from 1.
        line: u64,
        /// What is wrong with it.
        why: String,
    },
}

/// Reads an audit log, line by line. A damaged line is said and passed over.
#[derive(Debug)]
pub struct AuditReader<R> {
    from: R,
    line: u64,
}

impl<R: BufRead> AuditReader<R> {
    /// Reads what `from` gives.
    pub fn new(from: R) -> Self {
        Self { from, line: 0 }
    }

    /// The next line, as much of it as a line may have; `None` at the end.
    fn next_line(&mut self) -> io::Result<Option<Vec<u8>>> {
        let mut line = Vec::new();
        let most = MAX_LINE as u64 + 1;
        if self.from.by_ref().take(most).read_until(b'\n', &mut line)? == 0 {
            return Ok(None);
        }
        if line.last() != Some(&b'\n') && line.len() > MAX_LINE {
            self.skip_line()?;
        }
        self.line += 1;
        Ok(Some(line))
    }

    fn skip_line(&mut self) -> io::Result<()> {
        loop {
            let buffer = self.from.fill_buf()?;
            let end = buffer.iter().position(|byte| *byte == b'\n');
            let (used, done) = match end {
                Some(place) => (place + 1, true),
                None => (buffer.len(), buffer.is_empty()),
            };
            self.from.consume(used);
            if done {
                return Ok(());
            }
        }
    }
}

impl<R: BufRead> Iterator for AuditReader<R> {
    type Item = io::Result<Entry>;

    fn next(&mut self) -> Option<Self::Item> {
        let line = self.next_line().transpose()?;
        Some(line.map(|line| {
            let damaged = |why| Entry::Damaged { line: self.line, why };
            if line.len() > MAX_LINE {
                return damaged("too long".to_owned());
            }
            serde_json::from_slice(&line)
                .map_or_else(|error| damaged(error.to_string()), Entry::Record)
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn worn(number: u64) -> Record {
        Record::Worn {
            machine: "serve-03".parse().unwrap(),
            user: "alice".parse().unwrap(),
            conversation: format!("1.{number:x}").parse().unwrap(),
            tpn: "MAIL".parse().unwrap(),
            from: Some(5),
            to: 6,
            how: Ending::LostConnection,
        }
    }

    fn refused() -> Record {
        Record::Refused {
            user: "bob".parse().unwrap(),
            conversation: "1.2".parse().unwrap(),
            tpn: "MAIL".parse().unwrap(),
            pool: Some(PoolText("serve".parse().unwrap())),
            at: 9,
            why: Refusal::NotAuthorised,
        }
    }

    #[test]
    fn the_longest_claim_of_somebody_turned_away_fits_into_a_line() {
        let most = "\u{1}".repeat(MAX_CLAIM);
        let record = Record::TurnedAway {
            user: Some(most.clone()),
            tpn: most,
            at: u64::MAX,
            sense: "080f6051".into(),
            omitted: u64::MAX,
        };
        let mut line = serde_json::to_vec(&record).unwrap();
        line.push(b'\n');
        assert_eq!(read(&line), [Entry::Record(record)]);
    }

    fn database() -> Record {
        let login = |name: &str| DatabaseLogin {
            database: name.to_owned(),
            role: name.to_owned(),
            connections: 2,
        };
        Record::Database {
            machine: "serve-03".parse().unwrap(),
            user: "alice".parse().unwrap(),
            conversation: "1.1".parse().unwrap(),
            logins: vec![login("mail")],
            refused: 1,
            at: 9,
        }
    }

    fn read(bytes: &[u8]) -> Vec<Entry> {
        AuditReader::new(bytes).map(Result::unwrap).collect()
    }

    #[test]
    fn a_record_is_one_line_of_a_form_that_stays() {
        assert_eq!(
            serde_json::to_string(&worn(1)).unwrap(),
            r#"{"record":"worn","machine":"serve-03","user":"alice","conversation":"1.1","tpn":"MAIL","from":5,"to":6,"how":"lost-connection"}"#
        );
        assert_eq!(
            serde_json::to_string(&refused()).unwrap(),
            r#"{"record":"refused","user":"bob","conversation":"1.2","tpn":"MAIL","pool":"serve","at":9,"why":"not-authorised"}"#
        );
        assert_eq!(
            serde_json::to_string(&database()).unwrap(),
            r#"{"record":"database","machine":"serve-03","user":"alice","conversation":"1.1","logins":[{"database":"mail","role":"mail","connections":2}],"refused":1,"at":9}"#
        );
    }

    #[test]
    fn a_torn_line_spoils_itself_only() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit");
        let mut log = AuditLog::open(&path, Flush::EachRecord).unwrap();
        log.append(&worn(1)).unwrap();
        log.append(&refused()).unwrap();
        let whole = std::fs::read(&path).unwrap();
        for cut in 0..=whole.len() {
            std::fs::write(&path, &whole[..cut]).unwrap();
            let mut log = AuditLog::open(&path, Flush::BySystem).unwrap();
            log.append(&worn(3)).unwrap();
            log.append(&worn(4)).unwrap();
            let entries = read(&std::fs::read(&path).unwrap());
            let records = [Entry::Record(worn(3)), Entry::Record(worn(4))];
            assert_eq!(entries[entries.len() - 2..], records, "cut at {cut}");
            let damaged = entries.iter().filter(|entry| matches!(entry, Entry::Damaged { .. }));
            assert!(damaged.count() <= 1);
        }
    }

    #[test]
    fn damage_is_named_by_its_line() {
        let good = serde_json::to_string(&refused()).unwrap();
        let text = format!("{good}\n{}\nx\n{good}", "y".repeat(3 * MAX_LINE));
        let entries = read(text.as_bytes());
        let damaged: Vec<u64> = entries
            .iter()
            .filter_map(|entry| match entry {
                Entry::Damaged { line, .. } => Some(*line),
                Entry::Record(_) => None,
            })
            .collect();
        assert_eq!((entries.len(), &damaged[..]), (4, &[2, 3][..]));
    }

    proptest! {
        #[test]
        fn garbage_is_damage(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
            let entries = read(&bytes);
            let damaged = |entry: &Entry| matches!(entry, Entry::Damaged { .. });
            prop_assert!(entries.iter().all(damaged));
        }
    }
}
