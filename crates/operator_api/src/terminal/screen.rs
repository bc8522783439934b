//! What a guest's console shows, kept within fixed bounds whatever the guest
//! sends.

use avt::parser::{Function, Parser};
use avt::terminal::Terminal as Vt;
use avt::{Color, Line, Pen};
use serde::Serialize;
use utoipa::ToSchema;

/// Columns, as programs on a serial line expect them.
pub(crate) const COLUMNS: usize = 80;
/// Lines of a console that goes on.
pub(crate) const LINES: usize = 24;
/// Lines that are kept of what a guest said last.
const LAST: usize = 400;
/// Functions between two times that lines above the screen are let go: each
/// makes a screenful of them at most.
const PIECE: usize = 64;

/// Letters that look alike.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct Run {
    /// What is written.
    text: String,
    /// Colour of the letters: a number from 0 to 255, or `#rrggbb`.
    #[serde(skip_serializing_if = "Option::is_none")]
    ink: Option<String>,
    /// Colour behind them.
    #[serde(skip_serializing_if = "Option::is_none")]
    ground: Option<String>,
    /// Any of `b`old, `f`aint, `i`talic, `u`nderlined, `s`truck, `r`eversed.
    #[serde(skip_serializing_if = "String::is_empty")]
    style: String,
}

/// One line of the screen, without what is blank at its end.
pub(crate) type Row = Vec<Run>;

/// A terminal of which only the last state is kept.
pub(crate) struct Screen {
    parser: Parser,
    vt: Vt,
    /// The beginning of a letter whose end has not come.
    begun: Vec<u8>,
    since: usize,
}

impl std::fmt::Debug for Screen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Screen").finish_non_exhaustive()
    }
}

impl Screen {
    /// An empty one.
    pub(crate) fn new() -> Self {
        Self::of(LINES)
    }

    /// One that shows as much of `words` as is kept.
    pub(crate) fn last(words: &[u8]) -> Self {
        let mut screen = Self::of(LAST);
        screen.feed(words);
        screen
    }

    fn of(lines: usize) -> Self {
        let vt = Vt::new((COLUMNS, lines), Some(0));
        Self { parser: Parser::default(), vt, begun: Vec::new(), since: 0 }
    }

    /// The guest has sent `bytes`. What is no UTF-8 is shown as such.
    pub(crate) fn feed(&mut self, bytes: &[u8]) {
        let mut all = std::mem::take(&mut self.begun);
        all.extend_from_slice(bytes);
        let mut chunks = all.utf8_chunks().peekable();
        while let Some(chunk) = chunks.next() {
            chunk.valid().chars().for_each(|letter| self.letter(letter));
            let wrong = chunk.invalid();
            if chunks.peek().is_none() && is_begun(wrong) {
                self.begun = wrong.to_vec();
            } else if !wrong.is_empty() {
                self.letter(char::REPLACEMENT_CHARACTER);
            }
        }
        let _ = self.vt.gc();
    }

    fn letter(&mut self, letter: char) {
        let function = match self.parser.feed(letter) {
            // The size is this host's affair, and costs it memory.
            None | Some(Function::Xtwinops(_)) => return,
            Some(Function::Rep(times)) => Function::Rep(times.min(COLUMNS as u16)),
            Some(function) => function,
        };
        self.vt.execute(function);
        self.since += 1;
        if self.since >= PIECE {
            self.since = 0;
            let _ = self.vt.gc();
        }
    }

    /// Everything that is shown; of a tall screen, to the last line with text.
    pub(crate) fn rows(&self) -> Vec<Row> {
        let mut rows: Vec<Row> = self.vt.view().map(row).collect();
        while rows.len() > LINES && rows.last().is_some_and(Vec::is_empty) {
            rows.pop();
        }
        rows
    }

    /// Column and line of the cursor, if it is shown.
    pub(crate) fn cursor(&self) -> Option<[usize; 2]> {
        let cursor = self.vt.cursor();
        cursor.visible.then(|| [cursor.col.min(COLUMNS - 1), cursor.row])
    }

    /// Whether the arrow keys are to be sent as an application wants them.
    pub(crate) fn application_keys(&self) -> bool {
        self.vt.cursor_keys_app_mode()
    }
}

/// Whether this can be the beginning of a letter.
fn is_begun(bytes: &[u8]) -> bool {
    let Some(first) = bytes.first() else { return false };
    let length = match first {
        0xc2..=0xdf => 2,
        0xe0..=0xef => 3,
        0xf0..=0xf4 => 4,
        _ => return false,
    };
    bytes.len() < length
}

fn row(line: &Line) -> Row {
    let mut runs: Row = Vec::new();
    let mut pen: Option<&Pen> = None;
    for cell in line.cells() {
        // The second half of a wide letter.
        if cell.width() == 0 {
            continue;
        }
        match runs.last_mut() {
            Some(run) if pen == Some(cell.pen()) => run.text.push(cell.char()),
            _ => runs.push(run(cell.char(), cell.pen())),
        }
        pen = Some(cell.pen());
    }
    if let Some(last) = runs.last_mut() {
        if last.ground.is_none() && last.style.is_empty() {
            last.text.truncate(last.text.trim_end_matches(' ').len());
        }
        if last.text.is_empty() {
            runs.pop();
        }
    }
    runs
}

fn run(letter: char, pen: &Pen) -> Run {
    let styles = [
        (pen.is_bold(), 'b'),
        (pen.is_faint(), 'f'),
        (pen.is_italic(), 'i'),
        (pen.is_underline(), 'u'),
        (pen.is_strikethrough(), 's'),
        (pen.is_inverse(), 'r'),
    ];
    let style = styles.iter().filter(|(has, _)| *has).map(|(_, letter)| *letter).collect();
    let (ink, ground) = (pen.foreground().map(colour), pen.background().map(colour));
    Run { text: letter.to_string(), ink, ground, style }
}

fn colour(colour: Color) -> String {
    match colour {
        Color::Indexed(number) => number.to_string(),
        Color::RGB(rgb) => format!("#{:02x}{:02x}{:02x}", rgb.r, rgb.g, rgb.b),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(screen: &Screen) -> Vec<String> {
        let text = |row: &Row| row.iter().map(|run| run.text.as_str()).collect::<String>();
        let rows: Vec<String> = screen.rows().iter().map(text).collect();
        let used = rows.iter().rposition(|row| !row.is_empty()).map_or(0, |last| last + 1);
        rows.into_iter().take(used).collect()
    }

    #[test]
    fn letters_come_in_pieces_and_what_is_none_is_marked() {
        let mut screen = Screen::new();
        let bytes = "grün €😀".as_bytes();
        bytes.iter().for_each(|byte| screen.feed(&[*byte]));
        screen.feed(b"\xff!\r\n\xe2\x82");
        assert_eq!(text(&screen), ["grün €😀\u{fffd}!"]);
        screen.feed(b"\xacx");
        assert_eq!(text(&screen)[1], "€x");
    }

    #[test]
    fn colours_and_styles_make_runs_and_blanks_end_no_line() {
        let mut screen = Screen::new();
        screen.feed(b"a\x1b[1;31mb\x1b[0m c\x1b[48;2;1;2;3m \x1b[0m   ");
        let rows = screen.rows();
        let first = &rows[0];
        assert_eq!((first[1].text.as_str(), first[1].style.as_str()), ("b", "b"));
        assert_eq!(first[1].ink.as_deref(), Some("1"));
        assert_eq!(first[3].ground.as_deref(), Some("#010203"));
        assert_eq!(first.len(), 4, "{first:?}");
        assert!(rows[1].is_empty());
    }

    #[test]
    fn a_guest_changes_neither_the_size_nor_keeps_anybody_busy() {
        let mut screen = Screen::new();
        screen.feed(b"\x1b[8;60000;60000tx\x1b[65535b\x1b[65535S\x1b[65535T\x1b[65535L");
        screen.feed(b"\x1b]0;".repeat(10_000).as_slice());
        assert_eq!(screen.rows().len(), LINES);
        assert_eq!(screen.vt.size(), (COLUMNS, LINES));
        assert!(screen.vt.lines().count() <= LINES + 1);
        screen.feed(b"\x1b\\\x1bcdone");
        assert_eq!(text(&screen), ["done"]);
    }

    #[test]
    fn last_words_are_all_shown_up_to_a_bound() {
        let words: String = (0..1000).map(|n| format!("line {n}\r\n")).collect();
        let screen = Screen::last(words.as_bytes());
        let shown = text(&screen);
        assert_eq!(shown.last().unwrap(), "line 999");
        assert_eq!(shown.len(), LAST - 1);
        assert_eq!(Screen::last(b"one").rows().len(), LINES);
    }

    #[test]
    fn nothing_that_a_guest_sends_is_too_much() {
        // A generator of its own: the same bytes each time.
        let mut state = 0x2545_f491_4f6c_dd1d_u64;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        let alphabet =
            b"\x1b[[[;;;??0123456789ABCDHJKLMPSTX@abdfghlmnrstu\r\n\x08\x0e\x0f \xc3\xa4\xf0\x9f";
        let mut screen = Screen::new();
        for _ in 0..20_000 {
            let piece: Vec<u8> =
                (0..16).map(|_| alphabet[next() as usize % alphabet.len()]).collect();
            screen.feed(&piece);
            assert!(screen.vt.lines().count() <= LINES + 1);
        }
        assert_eq!(screen.rows().len(), LINES);
        assert!(screen.cursor().is_none_or(|[column, line]| column < COLUMNS && line < LINES));
    }
}
