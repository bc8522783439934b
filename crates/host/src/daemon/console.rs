//! Guests' consoles, and what a guest said last when it is gone.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;

use operator_api::Console;

use super::Shared;
use super::board::CommandError;
use super::process::Process;
use crate::link::{LAST_WORD, Order};

/// Bytes of a worker's log that are shown.
const SHOWN: u64 = 64 << 10;

impl Shared {
    /// A partition's console; its guest's last words if nothing runs.
    pub(super) fn console(&self, name: &str) -> Result<Console, CommandError> {
        match self.visited(name) {
            Ok(process) => {
                let fail = |source| CommandError::Worker { name: process.name.clone(), source };
                let (ours, workers) = UnixStream::pair().map_err(fail)?;
                process.give(&Order::Console, &[workers.as_fd()]).map_err(fail)?;
                Ok(Console::Live(ours))
            }
            Err(error @ CommandError::NotRunning { .. }) => {
                let name = self.board().find(name)?;
                last_words(&self.dir.worker_log(&name)).map(Console::Over).ok_or(error)
            }
            Err(error) => Err(error),
        }
    }

    /// The worker of a partition, which somebody is going to use.
    pub(super) fn visited(&self, name: &str) -> Result<Arc<Process>, CommandError> {
        let process = self.board().get(name)?.running()?;
        // A machine of a pool that nobody uses stands still.
        if self.capture_of(&process.name).is_some() {
            self.pools.visit(&process.name);
        }
        Ok(process)
    }
}

/// The end of what a worker's log has of its guest, from the beginning of a line.
fn last_words(log: &Path) -> Option<Vec<u8>> {
    let mut file = File::open(log).ok()?;
    let length = file.metadata().ok()?.len();
    let from = length.saturating_sub(SHOWN);
    file.seek(SeekFrom::Start(from)).ok()?;
    let mut bytes = Vec::new();
    file.take(SHOWN).read_to_end(&mut bytes).ok()?;
    // What follows is for the next host.
    let mark = format!("\n{LAST_WORD}");
    let end = bytes.windows(mark.len()).rposition(|window| window == mark.as_bytes());
    bytes.truncate(end.unwrap_or(bytes.len()));
    if from > 0 {
        let begin = bytes.iter().position(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        bytes.drain(..begin);
    }
    (!bytes.trim_ascii().is_empty()).then(|| with_returns(&bytes))
}

/// Lines as a terminal wants them: the log is not only the guest's.
fn with_returns(bytes: &[u8]) -> Vec<u8> {
    let mut all = Vec::with_capacity(bytes.len());
    let mut before = 0;
    for byte in bytes {
        if *byte == b'\n' && before != b'\r' {
            all.push(b'\r');
        }
        all.push(*byte);
        before = *byte;
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(log: &str) -> Option<String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), log).unwrap();
        last_words(file.path()).map(|words| String::from_utf8(words).unwrap())
    }

    #[test]
    fn last_words_are_the_guests_and_begin_with_a_line() {
        let ended = format!("a\r\nb\n\n{LAST_WORD}{{}}\n");
        assert_eq!(words(&ended).unwrap(), "a\r\nb\r\n");
        assert_eq!(words("no end"), Some("no end".to_owned()));
        assert_eq!(words(""), None);
        assert_eq!(words(&format!("\n{LAST_WORD}{{}}\n")), None);
        let long = "0123456789\n".repeat(10_000);
        let shown = words(&long).unwrap();
        assert!(shown.starts_with("0123456789\r\n") && shown.len() < 80_000);
    }
}
