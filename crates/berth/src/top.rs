//! `berth top`: main storage and pools, as they change.

use std::io::{IsTerminal, Read, Write};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use operator_client::Client;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::args::Global;
use crate::console::Raw;
use crate::reach::client;
use crate::table::{Style, picture, table};
use crate::{Failure, pool};

/// Time between two looks.
const LOOK: Duration = Duration::from_secs(1);
/// Another screen for as long as this runs, without a cursor.
const ENTER: &str = "\x1b[?1049h\x1b[?25l";
const LEAVE: &str = "\x1b[?25h\x1b[?1049l";
/// Rows of a terminal that does not say.
const ROWS: u16 = 24;
/// Its columns.
const COLUMNS: u16 = 80;

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
    let mut client = client(global)?;
    let first = look(&mut client)?;
    let screen = Screen::enter()?;
    let result = watch(&mut client, first);
    drop(screen);
    result
}

fn watch(client: &mut Client, mut text: String) -> Result<(), Failure> {
    loop {
        let size = rustix::termios::tcgetwinsize(std::io::stdout());
        // One that is unknown, or says nothing, is as terminals were.
        let size = size.map_or((0, 0), |size| (size.ws_row, size.ws_col));
        let rows = if size.0 == 0 { ROWS } else { size.0.max(2) };
        let columns = if size.1 == 0 { COLUMNS } else { size.1 };
        show(&page(&text, usize::from(rows), usize::from(columns)))?;
        if is_left()? {
            return Ok(());
        }
        text = look(client)?;
    }
}

/// What there is, in words.
fn look(client: &mut Client) -> Result<String, Failure> {
    let state = client.state()?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let mut text = table(&state.host);
    for one in &state.pools {
        text += "\n";
        text += &pool::table(one, now);
    }
    text += "\n";
    Ok(text + &picture(&state.host, Style::of_stdout()))
}

/// As much of it as there are rows and columns, over what was there before.
fn page(text: &str, rows: usize, columns: usize) -> String {
    let mut page = "\x1b[H".to_owned();
    let lines = text.lines().count();
    let shown = if lines < rows { lines } else { rows - 2 };
    for line in text.lines().take(shown) {
        page += &cut(line, columns);
        page += "\x1b[K\r\n";
    }
    if shown < lines {
        page += &format!("... {} more lines\x1b[K\r\n", lines - shown);
    }
    page + "q leaves\x1b[K\x1b[J"
}

/// A line that takes no second row: with its colours, which take no column.
fn cut(line: &str, columns: usize) -> String {
    let (mut shown, mut used, mut colour) = (String::new(), 0, false);
    for letter in line.chars() {
        match (letter, colour) {
            ('\x1b', _) => colour = true,
            ('m', true) => {
                colour = false;
                shown.push(letter);
                continue;
            }
            (_, true) => {}
            (_, false) if used == columns => continue,
            (_, false) => used += 1,
        }
        shown.push(letter);
    }
    shown
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
    use super::{cut, page};

    #[test]
    fn a_page_fits_the_terminal_and_says_what_is_left_out() {
        let lines = |rows| page("a\nb\nc\nd\n", rows, 80).matches("\r\n").count() + 1;
        for rows in 3..9 {
            assert!(lines(rows) <= rows, "{rows}");
        }
        assert!(page("a\nb\nc\nd\n", 4, 80).contains("... 2 more lines"));
        assert!(!page("a\nb\nc\nd\n", 5, 80).contains("more lines"));
    }

    #[test]
    fn a_line_is_cut_at_the_terminals_edge_and_its_colour_ends() {
        assert_eq!(cut("abcdef", 4), "abcd");
        assert_eq!(cut("\x1b[30;42mgrün!\x1b[0m", 4), "\x1b[30;42mgrün\x1b[0m");
        assert_eq!(cut("ab", 4), "ab");
    }
}
