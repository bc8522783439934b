//! What the kernel command line asks of the agent. Pure.

/// The agent's settings, all of them words of the kernel command line.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Options {
    /// `berth.root=none`: the initramfs is the system, there is no root disk.
    pub(crate) keep_initramfs: bool,
    /// `berth.disk=DEVICE`: an ext4 disk to mount at `/data`.
    pub(crate) data_disk: Option<String>,
    /// `berth.database=on`: programs can connect to their user's database.
    pub(crate) database: bool,
    /// `berth.hostname=NAME`.
    pub(crate) hostname: Option<String>,
    /// `berth.writer=MEBIBYTES[,PAGES_PER_SECOND]`: serve nobody, be that load.
    pub(crate) writer: Option<(usize, Option<u64>)>,
}

impl Options {
    /// Reads `/proc/cmdline`; words for others are passed over, of a word that
    /// comes twice the last counts.
    pub(crate) fn parse(command_line: &str) -> Self {
        let mut options = Self::default();
        for word in command_line.split_ascii_whitespace() {
            match word.split_once('=') {
                Some(("berth.root", value)) => options.keep_initramfs = value == "none",
                Some(("berth.disk", value)) => options.data_disk = given(value),
                Some(("berth.database", value)) => options.database = value == "on",
                Some(("berth.hostname", value)) => options.hostname = given(value),
                Some(("berth.writer", value)) => options.writer = load(value),
                _ => {}
            }
        }
        options
    }
}

fn load(value: &str) -> Option<(usize, Option<u64>)> {
    let (mebibytes, rate) = value.split_once(',').map_or((value, None), |(a, b)| (a, Some(b)));
    Some((mebibytes.parse().ok()?, rate.and_then(|rate| rate.parse().ok())))
}

fn given(value: &str) -> Option<String> {
    (!value.is_empty()).then(|| value.to_owned())
}

/// A line of `/modules/order`: the file and, after a blank, its parameters.
/// Empty lines and lines that begin with `#` stand for nothing.
pub(crate) fn modules(order: &str) -> impl Iterator<Item = (&str, &str)> {
    order
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| line.split_once(' ').map_or((line, ""), |(file, rest)| (file, rest.trim())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_found_among_words_for_others() {
        let options = Options::parse(
            "console=hvc0 berth.disk=/dev/vdb berth.database=on quiet berth.hostname=lpar1 berth.root=none x=berth.y\n",
        );
        assert_eq!(
            options,
            Options {
                keep_initramfs: true,
                data_disk: Some("/dev/vdb".to_owned()),
                database: true,
                hostname: Some("lpar1".to_owned()),
                writer: None,
            }
        );
    }

    #[test]
    fn nothing_asked_means_a_root_disk_and_nothing_else() {
        assert_eq!(Options::parse("root=/dev/vda berth.disk= berth.hostname"), Options::default());
    }

    #[test]
    fn a_load_has_a_size_and_may_have_a_rate() {
        let writer = |text: &str| Options::parse(text).writer;
        assert_eq!(writer("berth.writer=160,20000"), Some((160, Some(20_000))));
        assert_eq!(writer("berth.writer=160"), Some((160, None)));
        assert_eq!(writer("berth.writer=much"), None);
    }

    #[test]
    fn the_last_of_two_settings_counts() {
        assert!(!Options::parse("berth.root=none berth.root=disk").keep_initramfs);
    }

    #[test]
    fn modules_come_in_order_with_their_parameters() {
        let order = "virtio_mmio.ko\n\n# disk\n  virtio_blk.ko  queue_depth=64 num=1\n";
        let expected = [("virtio_mmio.ko", ""), ("virtio_blk.ko", "queue_depth=64 num=1")];
        assert_eq!(modules(order).collect::<Vec<_>>(), expected);
    }
}
