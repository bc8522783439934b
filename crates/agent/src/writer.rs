//! A load that writes memory, and the longest pause it sees meanwhile.
//!
//! The agent's program under another name, `/run/berth/writer MEBIBYTES
//! [PAGES_PER_SECOND]`: stores into one page of its memory after the other, as
//! fast as it can or as often as asked, and checks each time what it stored
//! the last time. It never sleeps: a pause is the longest time between two
//! turns of its loop. It prints a line of JSON when all of its memory is
//! there, one for each line that it reads, of the time since the last one, and
//! one at the end of its input; the exit status is 1 if anything was wrong.
//!
//! With `berth.writer=MEBIBYTES,PAGES_PER_SECOND` on the kernel command line
//! it is all that the guest does, for hosts without an agent's channel: after a
//! line `BERTH-WRITING` it writes a dot to the console every millisecond, or an
//! `X` if anything was wrong.

use std::io::{self, Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const WORDS_PER_PAGE: usize = 512;
const TICK: Duration = Duration::from_millis(1);

/// Memory of which every page says when it was written.
struct Pages {
    words: Vec<u64>,
    pages: u64,
    stores: u64,
    wrong: u64,
}

impl Pages {
    /// All pages are written once.
    fn new(mebibytes: usize) -> Self {
        let pages = mebibytes.max(1) * 256;
        let mut words = vec![0; pages * WORDS_PER_PAGE];
        for (page, word) in words.iter_mut().step_by(WORDS_PER_PAGE).enumerate() {
            *word = page as u64;
        }
        Self { words, pages: pages as u64, stores: pages as u64, wrong: 0 }
    }

    /// Checks the next page and writes it.
    fn store(&mut self) {
        let page = (self.stores % self.pages) as usize;
        let word = &mut self.words[page * WORDS_PER_PAGE];
        self.wrong += u64::from(*word != self.stores - self.pages);
        *word = self.stores;
        self.stores += 1;
    }
}

/// A load and the clock it is watched with.
struct Load {
    pages: Pages,
    /// Stores per second; none for as many as there can be.
    rate: Option<u64>,
    started: Instant,
    /// Stores when it started.
    before: u64,
    last: Instant,
    longest: Duration,
}

impl Load {
    fn new(mebibytes: usize, rate: Option<u64>) -> Self {
        let pages = Pages::new(mebibytes);
        let (before, now) = (pages.stores, Instant::now());
        Self { pages, rate, started: now, before, last: now, longest: Duration::ZERO }
    }

    fn turn(&mut self) {
        let now = Instant::now();
        self.longest = self.longest.max(now - self.last);
        self.last = now;
        let due = |rate| {
            let microseconds = (now - self.started).as_micros();
            u128::from(self.pages.stores - self.before) * 1_000_000
                < microseconds * u128::from(rate)
        };
        if self.rate.is_none_or(due) {
            self.pages.store();
        }
    }

    fn report(&mut self) {
        let line = format!(
            "{{\"gap_us\":{},\"stores\":{},\"errors\":{}}}\n",
            self.longest.as_micros(),
            self.pages.stores,
            self.pages.wrong
        );
        say(line.as_bytes());
        // What it takes to say it is no pause.
        (self.last, self.longest) = (Instant::now(), Duration::ZERO);
    }
}

fn say(bytes: &[u8]) {
    // Nobody listening is no reason to stop.
    let _ = io::stdout().write_all(bytes).and_then(|()| io::stdout().flush());
}

/// Runs with the arguments after the program's name.
pub(crate) fn run(mut arguments: impl Iterator<Item = String>) -> io::Result<()> {
    let mebibytes = arguments.next().and_then(|text| text.parse().ok()).unwrap_or(16);
    let rate = arguments.next().and_then(|text| text.parse().ok());
    let (asked, ended) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let reader = (Arc::clone(&asked), Arc::clone(&ended));
    thread::spawn(move || {
        let mut buffer = [0; 64];
        while let Ok(count @ 1..) = io::stdin().read(&mut buffer) {
            let lines = buffer[..count].iter().filter(|byte| **byte == b'\n').count();
            reader.0.fetch_add(lines as u64, Ordering::Relaxed);
        }
        reader.1.store(true, Ordering::Relaxed);
    });
    let mut load = Load::new(mebibytes, rate);
    load.report();
    let mut answered = 0;
    while !ended.load(Ordering::Relaxed) {
        load.turn();
        if asked.load(Ordering::Relaxed) > answered {
            answered += 1;
            load.report();
        }
    }
    load.report();
    if load.pages.wrong > 0 {
        return Err(io::Error::other("something was lost"));
    }
    Ok(())
}

/// The whole guest.
pub(crate) fn be_the_guest(mebibytes: usize, rate: Option<u64>) -> ! {
    let mut load = Load::new(mebibytes, rate);
    say(b"\nBERTH-WRITING\n");
    let mut ticked = Instant::now();
    loop {
        load.turn();
        if load.last - ticked >= TICK {
            ticked = load.last;
            say(if load.pages.wrong > 0 { b"X" } else { b"." });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_store_is_found_once() {
        let mut pages = Pages::new(1);
        let round = |pages: &mut Pages| (0..256).for_each(|_| pages.store());
        round(&mut pages);
        assert_eq!(pages.wrong, 0);
        pages.words[7 * WORDS_PER_PAGE] -= 256;
        round(&mut pages);
        round(&mut pages);
        assert_eq!(pages.wrong, 1);
    }
}
