//! Main storage for people: the table and the picture (Figs. 3 and 4).

use std::fmt::Write;

use operator_api::model::{HostState, Partition, PartitionState};

/// Rows the picture has beside its borders, if every segment is large enough.
const ROWS: u64 = 16;
/// Columns between the picture's borders.
const WIDTH: usize = 44;

/// How a terminal wants it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Style {
    pub(crate) colour: bool,
    pub(crate) unicode: bool,
}

impl Style {
    /// As standard output and the environment say.
    pub(crate) fn of_stdout() -> Self {
        let set = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let terminal = std::io::IsTerminal::is_terminal(&std::io::stdout());
        let locale = set("LC_ALL").or_else(|| set("LC_CTYPE")).or_else(|| set("LANG"));
        let utf8 = |locale: String| {
            let locale = locale.to_ascii_lowercase();
            locale.contains("utf-8") || locale.contains("utf8")
        };
        Self { colour: terminal && set("NO_COLOR").is_none(), unicode: locale.is_some_and(utf8) }
    }
}

fn megabytes(bytes: u64) -> String {
    format!("{}M", bytes >> 20)
}

/// The table NAME ORIGIN SIZE GAP STATE VCPUS.
pub(crate) fn table(status: &HostState) -> String {
    let names = status.partitions.iter().map(|partition| partition.name.len());
    let width = names.max().unwrap_or(0).max(4);
    let mut out = format!(
        "{:width$}  {:>8}  {:>8}  {:>8}  {:<7}  {:>5}\n",
        "NAME", "ORIGIN", "SIZE", "GAP", "STATE", "VCPUS"
    );
    for partition in &status.partitions {
        let Partition { name, origin, size, gap, state, vcpus, reason, .. } = partition;
        let _ = writeln!(
            out,
            "{name:width$}  {:>8}  {:>8}  {:>8}  {:<7}  {vcpus:>5}",
            megabytes(*origin),
            megabytes(*size),
            megabytes(*gap),
            state.as_str(),
        );
        if let Some(reason) = reason {
            let _ = writeln!(out, "{:width$}  {reason}", "");
        }
    }
    out
}

struct Piece<'a> {
    origin: u64,
    size: u64,
    partition: Option<&'a Partition>,
}

fn pieces(status: &HostState) -> Vec<Piece<'_>> {
    let mut pieces = Vec::new();
    let mut end = 0;
    for partition in &status.partitions {
        if partition.origin > end {
            pieces.push(Piece { origin: end, size: partition.origin - end, partition: None });
        }
        let Partition { origin, size, .. } = *partition;
        pieces.push(Piece { origin, size, partition: Some(partition) });
        end = origin.saturating_add(size);
    }
    if end < status.main_storage {
        pieces.push(Piece { origin: end, size: status.main_storage - end, partition: None });
    }
    pieces
}

/// Main storage drawn to scale, lowest address at the top.
pub(crate) fn picture(status: &HostState, style: Style) -> String {
    let [top, middle, bottom, line, side, free] = if style.unicode {
        [("┌", "┐"), ("├", "┤"), ("└", "┘"), ("─", ""), ("│", ""), ("░", "")]
    } else {
        [("+", "+"), ("+", "+"), ("+", "+"), ("-", ""), ("|", ""), (".", "")]
    };
    let border = |address: u64, ends: (&str, &str)| {
        format!("{:>9} {}{}{}\n", megabytes(address), ends.0, line.0.repeat(WIDTH), ends.1)
    };
    let mut out = String::new();
    for piece in pieces(status) {
        out += &border(piece.origin, if piece.origin == 0 { top } else { middle });
        let scaled =
            u128::from(piece.size) * u128::from(ROWS) / u128::from(status.main_storage.max(1));
        let rows = usize::try_from(scaled).unwrap_or(1).max(1);
        for row in 0..rows {
            let label = if row == (rows - 1) / 2 { label(&piece) } else { String::new() };
            let padding = WIDTH.saturating_sub(label.chars().count());
            let fill = if piece.partition.is_none() { free.0 } else { " " };
            let (left, right) = (padding / 2, padding - padding / 2);
            let inside = format!("{}{label}{}", fill.repeat(left), fill.repeat(right));
            let _ = writeln!(
                out,
                "{:>9} {side}{}{side}",
                "",
                painted(&piece, &inside, style),
                side = side.0
            );
        }
    }
    out + &border(status.main_storage, bottom)
}

fn label(piece: &Piece<'_>) -> String {
    match piece.partition {
        None => format!(" free {} ", megabytes(piece.size)),
        Some(partition) => {
            let state = match partition.state {
                PartitionState::Running => String::new(),
                state => format!(" ({})", state.as_str()),
            };
            format!(" {} {}{state} ", partition.name, megabytes(piece.size))
        }
    }
}

fn painted(piece: &Piece<'_>, text: &str, style: Style) -> String {
    let colour = match piece.partition.map(|partition| partition.state) {
        None => "2",
        Some(PartitionState::Running) => "30;42",
        Some(PartitionState::Moving) => "30;43",
        Some(PartitionState::Failed) => "37;41",
        Some(PartitionState::Stopped) => "30;47",
    };
    if style.colour { format!("\x1b[{colour}m{text}\x1b[0m") } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const M: u64 = 1 << 20;
    const PLAIN: Style = Style { colour: false, unicode: false };

    fn partition(name: &str, origin: u64, size: u64, gap: u64) -> Partition {
        Partition {
            name: name.into(),
            origin: origin * M,
            size: size * M,
            gap: gap * M,
            state: PartitionState::Running,
            vcpus: 1,
            engine: "soft".into(),
            image: "minimal".into(),
            reason: None,
            ready: true,
            pool: None,
            change: None,
        }
    }

    fn host(size: u64, partitions: Vec<Partition>) -> HostState {
        HostState { main_storage: size, partitions, ..HostState::default() }
    }

    fn fig_4a() -> HostState {
        let partitions = vec![partition("lpar1", 0, 128, 64), partition("lpar2", 192, 256, 61)];
        host(509 * M, partitions)
    }

    #[test]
    fn the_table_is_fig_4as() {
        let expected = "\
NAME     ORIGIN      SIZE       GAP  STATE    VCPUS
lpar1        0M      128M       64M  running      1
lpar2      192M      256M       61M  running      1
";
        assert_eq!(table(&fig_4a()), expected);
    }

    #[test]
    fn a_reason_stands_below_its_partition() {
        let mut status = fig_4a();
        status.partitions[0].reason = Some("because".into());
        assert_eq!(table(&status).lines().nth(2), Some("       because"));
    }

    #[test]
    fn the_picture_is_to_scale_and_fits_80_columns() {
        let picture = picture(&fig_4a(), PLAIN);
        assert!(picture.lines().all(|line| line.len() <= 80), "{picture}");
        assert!(picture.is_ascii());
        let borders: Vec<_> = picture
            .lines()
            .filter(|line| line.contains('+'))
            .filter_map(|line| line.split_whitespace().next())
            .collect();
        assert_eq!(borders, ["0M", "128M", "192M", "448M", "509M"]);
        let row = |text: &str| picture.lines().position(|line| line.contains(text)).unwrap();
        let rows = |from: &str, to: &str| row(to) - row(from) - 1;
        assert_eq!(rows(" 0M", "128M +"), 4);
        assert_eq!(rows("192M +", "448M +"), 8, "twice the size, twice the rows\n{picture}");
        assert!(picture.contains(" lpar2 256M ") && picture.contains(" free 64M "));
    }

    #[test]
    fn colour_and_frames_are_only_for_terminals_that_have_them() {
        let style = Style { colour: true, unicode: true };
        assert!(picture(&fig_4a(), style).contains("\x1b[30;42m"));
        assert!(picture(&fig_4a(), style).contains('┌'));
        assert!(!picture(&fig_4a(), Style { colour: false, unicode: true }).contains('\x1b'));
    }

    #[test]
    fn an_empty_main_storage_and_a_tiny_partition_are_shown() {
        let empty = host(M, vec![]);
        assert!(picture(&empty, PLAIN).contains("free 1M"));
        let tiny = host(4096 * M, vec![partition("p", 0, 1, 4095)]);
        assert!(picture(&tiny, PLAIN).contains(" p 1M "));
    }

    proptest::proptest! {
        #[test]
        fn no_answer_makes_it_panic(total: u64, origin: u64, size: u64, name in "[a-z]{1,31}") {
            let mut one = partition(&name, 0, 0, 0);
            (one.origin, one.size) = (origin, size);
            let status = host(total, vec![one]);
            // Sizes come from a host we need not trust with our memory.
            proptest::prop_assume!(total > 0 && size / total.max(1) < 100);
            let _ = (table(&status), picture(&status, PLAIN));
        }
    }
}
