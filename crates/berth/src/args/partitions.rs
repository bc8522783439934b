//! Partitions, and what is done to them.

use clap::{Args, ValueEnum};
use main_storage::Size;
use operator_api::model::MoveMode;

pub(super) const CREATE_EXAMPLES: &str = "\
Examples:
  berth create ci --size 128M --start
  berth create ci --size 256M --origin 128M --image python --vcpus 2 --disk 64M --json";

#[derive(Debug, Args)]
pub(crate) struct NameArg {
    /// The partition
    pub(crate) name: String,
}

#[derive(Debug, Args)]
pub(crate) struct CreateArgs {
    /// Its name: a-z, 0-9 and -
    pub(crate) name: String,
    /// Its storage
    #[arg(long)]
    pub(crate) size: Size,
    /// Where it starts in main storage [default: the best fit]
    #[arg(long, value_name = "SIZE")]
    pub(crate) origin: Option<Size>,
    /// Its guest's image
    #[arg(long, default_value = "minimal")]
    pub(crate) image: String,
    /// Its vCPUs
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=i64::from(host::host_file::MAX_VCPUS)))]
    pub(crate) vcpus: u8,
    /// A data disk, at least so large
    #[arg(long, value_name = "SIZE")]
    pub(crate) disk: Option<Size>,
    /// Start it too
    #[arg(long)]
    pub(crate) start: bool,
}

#[derive(Debug, Args)]
pub(crate) struct StopArgs {
    /// The partition
    pub(crate) name: String,
    /// Do not ask the guest: pull its plug
    #[arg(long)]
    pub(crate) now: bool,
}

#[derive(Debug, Args)]
pub(crate) struct MoveArgs {
    /// The partition
    pub(crate) name: String,
    /// Its new origin
    #[arg(long, value_name = "SIZE")]
    pub(crate) to: Size,
    /// Whether the guest runs meanwhile
    #[arg(long, value_enum, default_value_t)]
    pub(crate) mode: Mode,
    /// Only say what would happen, and who is in the way
    #[arg(long)]
    pub(crate) dry_run: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ExchangeArgs {
    /// One partition
    pub(crate) a: String,
    /// The other one
    pub(crate) b: String,
    /// Only say what would happen, and who is in the way
    #[arg(long)]
    pub(crate) dry_run: bool,
}

#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("size").required(true))]
pub(crate) struct ExpandArgs {
    /// The partition
    pub(crate) name: String,
    /// Its new size
    #[arg(long, value_name = "SIZE", group = "size")]
    pub(crate) to: Option<Size>,
    /// How much more
    #[arg(long, value_name = "SIZE", group = "size")]
    pub(crate) by: Option<Size>,
    /// Move neighbours out of the way first
    #[arg(long)]
    pub(crate) make_room: bool,
    /// Only say what would happen, and who is in the way
    #[arg(long)]
    pub(crate) dry_run: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ShrinkArgs {
    /// The partition
    pub(crate) name: String,
    /// Its new size
    #[arg(long, value_name = "SIZE")]
    pub(crate) to: Size,
    /// Only say what would happen
    #[arg(long)]
    pub(crate) dry_run: bool,
}

#[derive(Debug, Args)]
pub(crate) struct CompactArgs {
    /// Size of the free range [default: all that is free]
    #[arg(long, value_name = "SIZE")]
    pub(crate) free: Option<Size>,
    /// Only show the plan
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// As `--mode` writes it.
#[derive(Debug, Clone, Copy, Default, ValueEnum)]
pub(crate) enum Mode {
    /// It runs on; only who writes to the chunk in flight waits
    #[default]
    Live,
    /// It is stopped while its storage is copied page by page
    Stop,
}

impl From<Mode> for MoveMode {
    fn from(mode: Mode) -> Self {
        match mode {
            Mode::Live => Self::Live,
            Mode::Stop => Self::Stop,
        }
    }
}
