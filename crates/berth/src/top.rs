//! `berth top`: main storage and pools, as they change.

use std::io::{IsTerminal, Read, Write};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use host::control::{Reply, Request};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::args::Global;
use crate::commands::{ask, unexpected};
use crate::console::Raw;
use crate::table::{Style, picture, table};
use crate::{Failure, pool};

/// Time between two looks.
const LOOK: Duration = Duration::from_secs(1);
/// Another screen for as long as this runs, without a cursor.
const ENTER: &str = "\x1b[?1049h\x1b[?25l";
const LEAVE: &str = "\x1b[?25h\x1b[?1049l";
/// Rows of a terminal that does not say.
const ROWS: u16 = 24;

/// The terminal's other screen; left when dropped.
struct Screen {
    _raw: Raw,
}

impl Screen {
    fn enter() -> std::io::Result<Self> {
        let raw = Raw::enter()?;
        show(ENTER)?;
        Ok(Self { _raw: raw })
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // Nothing helps a terminal that is gone.
        let _ = show(LEAVE);
    }
}

fn show(text: &str) -> std::io::Result<()> {
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()
}

pub(crate) fn top(global: &Global) -> Result<(), Failure> {
    if global.json || !std::io::stdin().is_terminal() || !std::io::stdout().is_terminal() {
        let what = "this needs a terminal; programs use `berth status --json` or /v1/events";
        return Err(Failure::Other(what.to_owned()));
    }
    let first = look(global)?;
    let screen = Screen::enter()?;
    let result = watch(global, first);
    drop(screen);
    result
}

fn watch(global: &Global, mut text: String) -> Result<(), Failure> {
    loop {
        let size = rustix::termios::tcgetwinsize(std::io::stdout());
        let rows = size.map_or(ROWS, |size| size.ws_row.max(2));
        show(&page(&text, usize::from(rows)))?;
        if is_left()? {
            return Ok(());
        }
        text = look(global)?;
    }
}

/// What there is, in words.
fn look(global: &Global) -> Result<String, Failure> {
    let Reply::Status(status) = ask(global, &Request::Status)? else { return unexpected() };
    let Reply::Pools { pools } = ask(global, &Request::PoolStatus)? else { return unexpected() };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let mut text = table(&status);
    for one in &pools {
        text += "\n";
        text += &pool::table(one, now);
    }
    text += "\n";
    Ok(text + &picture(&status, Style::of_stdout()))
}

/// As much of it as there are rows, over what was there before.
fn page(text: &str, rows: usize) -> String {
    let mut page = "\x1b[H".to_owned();
    let lines = text.lines().count();
    let shown = if lines < rows { lines } else { rows - 2 };
    for line in text.lines().take(shown) {
        page += line;
        page += "\x1b[K\r\n";
    }
    if shown < lines {
        page += &format!("... {} more lines\x1b[K\r\n", lines - shown);
    }
    page + "q leaves\x1b[K\x1b[J"
}

/// Waits until the next look is due; whether q or Ctrl-C was typed, or the
/// terminal is gone.
fn is_left() -> Result<bool, Failure> {
    let stdin = std::io::stdin();
    let mut waited = [PollFd::new(&stdin, PollFlags::IN)];
    let limit = Timespec::try_from(LOOK).ok();
    match poll(&mut waited, limit.as_ref()) {
        Ok(0) | Err(rustix::io::Errno::INTR) => return Ok(false),
        Ok(_) => {}
        Err(error) => return Err(std::io::Error::from(error).into()),
    }
    let mut typed = [0; 64];
    let count = stdin.lock().read(&mut typed)?;
    Ok(count == 0 || typed[..count].iter().any(|key| matches!(key, b'q' | b'Q' | 0x03)))
}

#[cfg(test)]
mod tests {
    use super::page;

    #[test]
    fn a_page_fits_the_terminal_and_says_what_is_left_out() {
        let lines = |rows| page("a\nb\nc\nd\n", rows).matches("\r\n").count() + 1;
        for rows in 3..9 {
            assert!(lines(rows) <= rows, "{rows}");
        }
        assert!(page("a\nb\nc\nd\n", 4).contains("... 2 more lines"));
        assert!(!page("a\nb\nc\nd\n", 5).contains("more lines"));
    }
}
