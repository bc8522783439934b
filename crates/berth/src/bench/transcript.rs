//! What the benchmark guest says on its console, understood as it arrives.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// The guest's first process runs.
const INIT: &str = "BERTH-INIT";
/// One result: `BENCH name nanoseconds checksum`.
const RESULT: &str = "BENCH ";
/// Everything was run.
const DONE: &str = "BENCH-END";
/// Longer lines are cut: consoles are noisy, results are short.
const LONGEST_LINE: usize = 4096;

/// One program's result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) time: Duration,
    pub(crate) checksum: String,
}

/// See the module.
pub(crate) struct Transcript {
    started: Instant,
    line: Vec<u8>,
    /// From the start to the guest's first process.
    pub(crate) boot: Option<Duration>,
    pub(crate) outcomes: BTreeMap<String, Outcome>,
    pub(crate) done: bool,
}

impl Transcript {
    pub(crate) fn new(started: Instant) -> Self {
        Self { started, line: Vec::new(), boot: None, outcomes: BTreeMap::new(), done: false }
    }

    /// Takes in what the console said by `now`.
    pub(crate) fn feed(&mut self, bytes: &[u8], now: Instant) {
        for &byte in bytes {
            match byte {
                b'\n' => {
                    let line = std::mem::take(&mut self.line);
                    self.line_ended(&String::from_utf8_lossy(&line), now);
                }
                _ if self.line.len() < LONGEST_LINE => self.line.push(byte),
                _ => {}
            }
        }
    }

    fn line_ended(&mut self, line: &str, now: Instant) {
        if self.boot.is_none() && line.contains(INIT) {
            self.boot = Some(now.duration_since(self.started));
        }
        self.done |= line.contains(DONE);
        // The kernel puts a time stamp in front of lines from /dev/kmsg.
        let Some(at) = line.find(RESULT) else { return };
        let mut words = line[at + RESULT.len()..].split_whitespace();
        if let (Some(name), Some(Ok(nanos)), Some(checksum)) =
            (words.next(), words.next().map(str::parse), words.next())
        {
            let outcome =
                Outcome { time: Duration::from_nanos(nanos), checksum: checksum.to_owned() };
            self.outcomes.entry(name.to_owned()).or_insert(outcome);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_found_between_other_lines_and_across_reads() {
        let start = Instant::now();
        let mut transcript = Transcript::new(start);
        let later = start + Duration::from_secs(2);
        transcript.feed(b"[    0.1] Linux\r\n[  0.2] BERTH-IN", start);
        transcript.feed(b"IT\r\n[ 1.0] BENCH sieve 12", later);
        transcript.feed(b"345 0xabc\r\nBENCH broken x\nBENCH-END\n", later);
        assert_eq!(transcript.boot, Some(Duration::from_secs(2)));
        assert_eq!(transcript.outcomes.len(), 1);
        assert_eq!(transcript.outcomes["sieve"].time, Duration::from_nanos(12_345));
        assert_eq!(transcript.outcomes["sieve"].checksum, "0xabc");
        assert!(transcript.done);
    }
}
